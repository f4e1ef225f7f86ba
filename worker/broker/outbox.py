"""Messages going out: whatever the journal's outbox holds, until the broker has confirmed it.

Every publish is mandatory and confirmed. A message leaves the journal after its confirm and not before, so one
may be published twice, never none; both carry the same message id.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog
from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from worker.broker import topology
from worker.journal import Journal, JournalError, Kind, Outgoing

log = structlog.get_logger()

_WINDOW = 100  # messages on their way at once
_WINDOW_BYTES = 8 << 20
_AGAIN = 5.0  # seconds until another try of what was refused, or could not be written down


class Outbox:
    """One connection's publisher; lives in the thread of the connection."""

    def __init__(
        self,
        channel: Channel,
        journal: Journal,
        *,
        user: str,
        reply_via_exchange: bool,
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._channel = channel
        self._journal = journal
        self._user = user
        self._reply_via_exchange = reply_via_exchange
        self._later = later
        self._next_tag = 1
        self._in_flight: dict[int, Outgoing] = {}  # by delivery tag, without their bodies
        self._sizes: dict[int, int] = {}  # of the bodies, by row
        self._returned: set[str] = set()  # message ids the broker had no queue for
        self._put_off: set[int] = set()  # rows that wait for another try
        self._unrecorded: list[int] = []  # confirmed rows that the journal could not yet be told of
        channel.add_on_return_callback(self._on_return)

    def largest_response(self) -> tuple[int, int] | None:
        """Return job and size in bytes of the largest response on its way, None if there is none."""
        responses = [each for each in self._in_flight.values() if each.kind is Kind.RESPONSE]
        return max(
            ((each.job, self._sizes[each.id]) for each in responses), key=lambda each: each[1], default=None
        )

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._in_flight

    def flush(self) -> None:
        """Publish what is still to be told, as far as the window reaches."""
        if not self._channel.is_open:
            return
        skip = {outgoing.id for outgoing in self._in_flight.values()} | self._put_off | set(self._unrecorded)
        for row in self._journal.outbox(limit=_WINDOW + len(skip)):
            if len(self._in_flight) >= _WINDOW or sum(self._sizes.values()) >= _WINDOW_BYTES:
                return
            if row not in skip and (outgoing := self._journal.outgoing(row)) is not None:
                self._publish(outgoing)

    def on_confirm(self, frame: Method) -> None:
        """Take the broker's word on one message, or on all up to it."""
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        tags = [each for each in self._in_flight if each <= tag] if multiple else [tag]
        settled = [self._in_flight.pop(each) for each in tags if each in self._in_flight]
        for outgoing in settled:
            del self._sizes[outgoing.id]
        if isinstance(frame.method, Basic.Nack):
            log.warning("broker refused messages", count=len(settled), next_try_in=_AGAIN)
            self._try_again_later(settled)
        else:
            self._unrecorded += [outgoing.id for outgoing in settled if self._arrived(outgoing)]
            self._record()
        self.flush()

    def _arrived(self, outgoing: Outgoing) -> bool:
        """Whether a confirmed message reached a queue, or may be forgotten all the same."""
        if outgoing.message_id not in self._returned:
            return True
        self._returned.discard(outgoing.message_id)
        if outgoing.kind is Kind.EVENT:
            return True  # nobody listens, and nobody has to
        if outgoing.kind is Kind.RESPONSE and outgoing.undeliverable_to is None and outgoing.routing:
            log.warning("reply queue is gone", queue=outgoing.routing, sent_to=topology.RESPONSES_QUEUE)
            self._journal.undeliverable(outgoing.id)
        else:
            exchange, key = self._address(outgoing)
            log.error("no queue", exchange=exchange, routing_key=key, next_try_in=_AGAIN)
            self._try_again_later([outgoing])
        return False

    def _record(self) -> None:
        try:
            self._journal.published(self._unrecorded)
            self._unrecorded = []
        except JournalError as error:
            log.error("journal not written", reason=str(error), next_try_in=_AGAIN)
            self._later(_AGAIN, self._record)

    def _try_again_later(self, messages: list[Outgoing]) -> None:
        rows = {outgoing.id for outgoing in messages}

        def again() -> None:
            self._put_off -= rows
            self.flush()

        self._put_off |= rows
        self._later(_AGAIN, again)

    def _on_return(
        self, _channel: Channel, _method: Basic.Return, properties: BasicProperties, _body: bytes
    ) -> None:
        self._returned.add(str(properties.message_id))  # its confirm follows

    def _publish(self, outgoing: Outgoing) -> None:
        exchange, key = self._address(outgoing)
        headers: dict[str, Any] = dict(outgoing.headers)
        if outgoing.undeliverable_to is not None:
            headers["tsm-undeliverable-to"] = outgoing.undeliverable_to
        properties = BasicProperties(
            content_type="application/json" if outgoing.kind is Kind.EVENT else "application/xml",
            delivery_mode=2,
            correlation_id=outgoing.correlation_id,
            message_id=outgoing.message_id,
            user_id=self._user,
            headers=headers,
        )
        self._in_flight[self._next_tag] = replace(outgoing, body=b"")
        self._sizes[outgoing.id] = len(outgoing.body)
        self._next_tag += 1
        self._channel.basic_publish(exchange, key, outgoing.body, properties, mandatory=True)

    def _address(self, outgoing: Outgoing) -> tuple[str, str]:
        """Return exchange and routing key."""
        if outgoing.kind is Kind.EVENT:
            return topology.EVENTS, outgoing.routing
        if outgoing.kind is Kind.DEAD_LETTER:
            return topology.DEAD, outgoing.routing
        if outgoing.undeliverable_to is not None or not outgoing.routing:
            return topology.RESPONSES, topology.RESPONSES_QUEUE
        return (topology.RESPONSES if self._reply_via_exchange else ""), outgoing.routing
