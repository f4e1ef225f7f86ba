"""Requests coming in: each is made durable in the journal, then acked; what has no slot stays on the broker.

One delivery at a time (prefetch 1). Where a job fills the last slot its ack is kept back for a moment: if the job is
over by then, the ack lets the next one come; if not, the consumer is cancelled first and the ack sent after, so that
nothing waits here unacked, and it consumes again when a slot is free.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import structlog
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from worker.journal import Journal, JournalError, Message

log = structlog.get_logger()

_PATIENCE = 2.0  # seconds a job that fills the last slot has, until the consumer is cancelled
_JOURNAL_AGAIN = 5.0  # seconds between looks at whether a journal that could not be written can be


class Slots(Protocol):
    """What the intake asks of the slots."""

    @property
    def free(self) -> bool:
        """Whether another job may start."""

    def start(self, job_id: int) -> None:
        """Start a job that has just been accepted."""


class Intake:
    """One connection's consumer of the host's queue; lives in the thread of the connection."""

    def __init__(
        self,
        channel: Channel,
        queue: str,
        journal: Journal,
        slots: Slots,
        *,
        later: Callable[[float, Callable[[], None]], object],
        on_consuming: Callable[[], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._channel = channel
        self._queue = queue
        self._journal = journal
        self._slots = slots
        self._later = later
        self._on_consuming = on_consuming
        self._on_lost = on_lost
        self._tag: str | None = None  # of the consumer, where there is one
        self._cancelling = False
        self._stopped = False
        self._kept: int | None = None  # the delivery whose ack is kept back
        self._unsettled = False  # whether an ack was sent that the broker has not yet shown to have
        channel.add_on_cancel_callback(
            lambda _frame: on_lost(f"the broker cancelled the consumer of {queue}")
        )
        channel.basic_qos(prefetch_count=1, callback=lambda _frame: self._consume())

    def slot_freed(self) -> None:
        """Go on taking requests, if a job that is over was what kept this from it."""
        if not self._slots.free:
            return
        if self._kept is not None and not self._cancelling:
            self._ack()
        elif self._tag is None:
            self._consume()

    def stop(self) -> None:
        """Take no more requests."""
        self._stopped = True
        self._cancel()

    def _consume(self) -> None:
        if self._tag is not None or not self._channel.is_open:
            return
        if self._stopped or not self._slots.free:
            self._on_consuming()  # as good as: a slot that gets free makes it so
            return
        self._tag = self._channel.basic_consume(
            self._queue, self._on_delivery, callback=lambda _frame: self._on_consuming()
        )

    def _on_delivery(
        self, _channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        try:
            if self._unsettled:  # with prefetch 1 a delivery shows that the ack before it has arrived
                self._journal.settle()
                self._unsettled = False
            job, new = self._journal.accept(_message(method, properties, body))
        except JournalError as error:
            self._hold_off(method.delivery_tag, error)
            return
        log.info("request accepted" if new else "request known", request_id=job.request_id)
        if new:
            self._slots.start(job.id)
        self._kept = method.delivery_tag
        if self._slots.free:
            self._ack()
        else:
            self._later(_PATIENCE, partial(self._lose_patience, method.delivery_tag))

    def _lose_patience(self, tag: int) -> None:
        if self._kept == tag:
            self._cancel()

    def _cancel(self) -> None:
        if self._tag is None or self._cancelling or not self._channel.is_open:
            return
        self._cancelling = True
        self._channel.basic_cancel(self._tag, callback=lambda _frame: self._on_cancelled())

    def _on_cancelled(self) -> None:
        self._tag, self._cancelling = None, False
        if self._kept is not None:
            self._ack()
        self.slot_freed()

    def _ack(self) -> None:
        tag, self._kept = self._kept, None
        if tag is not None and self._channel.is_open:
            self._channel.basic_ack(tag)
            self._unsettled = True

    def _hold_off(self, tag: int, error: JournalError) -> None:
        """Leave a request on the broker that cannot be made durable, and take none until one can."""
        log.error("request left on the broker", reason=str(error), next_try_in=_JOURNAL_AGAIN)

        def give_back() -> None:
            self._tag, self._cancelling = None, False
            self._channel.basic_nack(tag, requeue=True)
            self._later(_JOURNAL_AGAIN, look_again)

        def look_again() -> None:
            if not self._channel.is_open:
                return
            if self._journal.writable():
                self._consume()
            else:
                self._later(_JOURNAL_AGAIN, look_again)

        if self._tag is not None and not self._cancelling:
            self._cancelling = True
            self._channel.basic_cancel(self._tag, callback=lambda _frame: give_back())


def _message(method: Basic.Deliver, properties: BasicProperties, body: bytes) -> Message:
    expiration = _text(properties.expiration)
    return Message(
        body=body,
        message_id=_text(properties.message_id),
        correlation_id=_text(properties.correlation_id),
        reply_to=_text(properties.reply_to),
        expires_in=int(expiration) / 1000 if expiration and expiration.isdecimal() else None,
        redelivered=bool(method.redelivered),
    )


def _text(value: str | bytes | None) -> str | None:
    """Return a property as text; AMQP lets it be any bytes, and pika gives those that are not UTF-8 as they are."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value or None
