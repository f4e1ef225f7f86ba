"""The daemon's one connection to the broker, in a thread of its own that never waits for a job.

The thread connects, serves until the connection is lost, and connects again, for as long as the daemon runs.
Everything the broker room does happens in it; the other threads' calls only hand over to it.
"""

import random
import threading
from collections.abc import Callable
from contextlib import suppress

import pika
import structlog
from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from worker.broker import topology
from worker.broker.connection import BrokerUnreachable, explain, parameters
from worker.broker.intake import Intake, Slots
from worker.broker.outbox import Outbox
from worker.broker.presence import Presence
from worker.config import Config
from worker.journal import Journal

log = structlog.get_logger()

_LONGEST_STEP = (
    60  # seconds between tries to connect; a random time up to a doubled bound, so hosts spread out
)


class Link:
    """Keeps this host connected: requests come in through it, responses and events go out."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        slots: Slots,
        *,
        on_ready: Callable[[], None],
        shorten: Callable[[int, int], None],
    ) -> None:
        """Raise ConfigError if the broker's parameters cannot be had.

        `on_ready` is called whenever requests are taken again after a loss; `shorten` makes the response of a
        job smaller than so many bytes, where it is too large for the broker.
        """
        self._config = config
        self._parameters = parameters(config)
        self._journal = journal
        self._slots = slots
        self._on_ready = on_ready
        self._shorten = shorten
        self._stopping = threading.Event()
        self._taking = True
        self._session: _Session | None = None
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the broker serves us now."""
        session = self._session
        return session is not None and session.ready

    def start(self) -> None:
        """Connect, and go on connecting."""
        self._thread.start()

    def publish(self) -> None:
        """Have the outbox published. Call from any thread."""
        self._call(lambda session: session.publish())

    def slot_freed(self) -> None:
        """Have requests taken again, if it was for want of a slot that none were. Call from any thread."""
        self._call(lambda session: session.slot_freed())

    def stop_intake(self) -> None:
        """Take no more requests, from this connection or a later one. Call from any thread."""
        self._taking = False
        self._call(lambda session: session.stop_intake())

    def close(self, patience: float) -> None:
        """Publish what can be within `patience` seconds, then disconnect for good."""
        self._stopping.set()
        self._call(lambda session: session.finish(patience))
        self._thread.join(patience + 5)

    def _call(self, what: Callable[["_Session"], None]) -> None:
        session = self._session
        if session is not None:
            session.call(lambda: what(session))

    def _run(self) -> None:
        retrying = Retrying(
            retry=retry_if_exception_type(BrokerUnreachable),
            wait=wait_random_exponential(multiplier=1, max=_LONGEST_STEP),
            sleep=sleep_using_event(self._stopping),
            stop=stop_when_event_set(self._stopping),
            before_sleep=self._tell,
            reraise=True,
        )
        while not self._stopping.is_set():
            with suppress(BrokerUnreachable):  # only raised once we are stopping
                retrying(self._serve)
                self._stopping.wait(random.uniform(0, 1))  # noqa: S311 -- spreads hosts, hides nothing

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "broker out of reach",
            reason=str(error),
            attempt=state.attempt_number,
            next_try_in=round(state.upcoming_sleep, 1),
        )

    def _serve(self) -> None:
        """Connect and serve until the connection is lost. Raise BrokerUnreachable if it never came to serve."""
        if self._config.broker.declare:
            topology.declare(self._parameters, self._config.host, self._config.groups)
        if self._stopping.is_set():
            return
        self._session = session = _Session(
            self._config, self._parameters, self._journal, self._slots, self._on_ready, self._shorten
        )
        # Whoever stops while we connect finds a session to tell, or has set these before this looks at them.
        if not self._taking:
            session.call(session.stop_intake)
        if self._stopping.is_set():
            session.call(lambda: session.finish(0))
        try:
            session.run()
        finally:
            self._session = None


class _Session:
    """One connection, from opening it to its loss. All but `call` happens in the thread that calls `run`."""

    def __init__(
        self,
        config: Config,
        parameters: pika.ConnectionParameters,
        journal: Journal,
        slots: Slots,
        on_ready: Callable[[], None],
        shorten: Callable[[int, int], None],
    ) -> None:
        self._config = config
        self._journal = journal
        self._slots = slots
        self._on_ready = on_ready
        self._shorten = shorten
        self._user = parameters.credentials.username
        self._outbox: Outbox | None = None
        self._intake: Intake | None = None
        self._presence: Presence | None = None
        self.ready = False
        self._finishing = False
        self._taking = True
        self._lost: str | None = None
        self._connection = pika.SelectConnection(
            parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=lambda _connection, error: self._end(explain(error)),
            on_close_callback=lambda _connection, error: self._end(explain(error)),
        )

    def call(self, what: Callable[[], None]) -> None:
        """Have something done in the connection's thread. Call from any thread."""
        with suppress(RuntimeError, OSError):  # the connection has just gone; the next one looks for itself
            self._connection.ioloop.add_callback_threadsafe(what)

    def run(self) -> None:
        try:
            self._connection.ioloop.start()
        except Exception as error:
            log.exception("connection broken")
            self._lost = explain(error)
        finally:
            with suppress(Exception):
                self._connection.ioloop.close()
        if not self._finishing:
            if not self.ready:
                raise BrokerUnreachable(self._lost or "the connection was closed")
            log.warning("connection lost", reason=self._lost)

    def publish(self) -> None:
        if self._outbox is not None:
            self._outbox.flush()
        if self._presence is not None:
            self._presence.changed()  # whatever is published, something has happened to a job

    def slot_freed(self) -> None:
        if self._intake is not None:
            self._intake.slot_freed()

    def stop_intake(self) -> None:
        self._taking = False
        if self._intake is not None:
            self._intake.stop()

    def finish(self, patience: float) -> None:
        """Publish what is left, then close; close all the same after `patience` seconds."""
        self._finishing = True
        self._connection.ioloop.call_later(patience, self._close)
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self._outbox is not None and self._connection.is_open:
            self._outbox.flush()
            if not self._outbox.idle:
                self._connection.ioloop.call_later(0.02, self._close_when_idle)
                return
        self._close()

    def _close(self) -> None:
        if self._connection.is_open:
            if self._presence is not None:
                self._presence.leave()
            self._connection.close()
        elif not self._connection.is_closing:
            self._connection.ioloop.stop()

    def _end(self, reason: str) -> None:
        self._lost = self._lost or reason
        self._connection.ioloop.stop()

    # -- opening, one answer of the broker after the other --------------------------------------------------

    def _on_open(self, _connection: pika.SelectConnection) -> None:
        self._connection.channel(on_open_callback=self._on_publisher)

    def _on_publisher(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._on_publisher_closed)
        self._outbox = Outbox(
            channel,
            self._journal,
            user=self._user,
            reply_via_exchange=self._config.broker.reply_via == "exchange",
            later=self._connection.ioloop.call_later,
        )
        channel.confirm_delivery(
            self._outbox.on_confirm,
            callback=lambda _frame: self._connection.channel(on_open_callback=self._on_consumer),
        )

    def _on_consumer(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        self._intake = Intake(
            channel,
            topology.host_queue(self._config.host),
            self._journal,
            self._slots,
            later=self._connection.ioloop.call_later,
            on_consuming=self._on_consuming,
            on_lost=self._give_up,
        )
        if not self._taking:
            self._intake.stop()

    def _on_consuming(self) -> None:
        if not self.ready:
            self.ready = True
            self._presence = Presence(self._connection, self._config, self._journal, user=self._user)
            log.info("broker connected", host=self._config.host)
            self._on_ready()
            self.publish()

    def _on_publisher_closed(self, channel: Channel, error: Exception) -> None:
        largest = self._outbox.largest_response() if self._outbox is not None else None
        # RabbitMQ's own words (rabbit_channel.erl, check_msg_size); the code alone says too little.
        if isinstance(error, ChannelClosedByBroker) and "larger than" in error.reply_text and largest:
            job, size = largest
            log.warning("response too large for the broker", bytes=size, reason=explain(error))
            self._shorten(job, size // 2)
        self._on_channel_closed(channel, error)

    def _on_channel_closed(self, _channel: Channel, error: Exception) -> None:
        # Nothing else would tell: the connection stays open and idles for ever.
        if self._connection.is_open:
            self._give_up(f"a channel was closed: {explain(error)}")

    def _give_up(self, reason: str) -> None:
        self._lost = reason
        if self._connection.is_open:
            self._connection.close()
