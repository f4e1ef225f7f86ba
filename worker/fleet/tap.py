"""A channel that takes messages as they come, for whoever holds more of them than memory does.

pika's BlockingChannel reads all that comes before the answer it waits for. RabbitMQ 3.10 answers a consume on a quorum
queue after it has delivered all, and a cancel of one consumer comes after what another was sent: with 100,000 letters
that was 390 MiB. Here a message is handed over as it is read, and nothing is read while nobody waits.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import pika
from pika.channel import Channel
from pika.exceptions import AMQPConnectionError
from pika.spec import Basic, BasicProperties

from worker.broker import topology
from worker.fleet import letter as letters
from worker.fleet.letter import Letter

_SLICE = 0.1  # seconds of one wait on the connection
_PATIENCE = 60.0  # seconds for an answer of the broker's


@dataclass(frozen=True, slots=True)
class Delivery:
    """A letter in hand; `returns` is how often it has come back, None where the queue does not count."""

    tag: int
    properties: BasicProperties
    body: bytes
    letter: Letter
    redelivered: bool
    returns: int | None


class Tap:
    """One channel on the queue of dead letters; `on_message` is called with each letter that comes.

    Every method may raise pika's errors; of a channel that the broker has closed each wait does, with its reason.
    """

    def __init__(
        self,
        connection: pika.BlockingConnection,
        on_message: Callable[[Delivery], None],
    ) -> None:
        self._connection = connection
        self._hand_over = on_message
        self._end: Exception | None = None
        self._rung = False
        self._answers = 0
        self._channel: Channel = connection._impl.channel(on_open_callback=self._ring)  # noqa: SLF001 -- see above
        self._channel.add_on_close_callback(self._on_close)
        self._channel.add_on_cancel_callback(self._on_cancel)
        self._channel.add_callback(self._on_answer, [Basic.GetEmpty], one_shot=False)
        self._expect(lambda: self._channel.is_open)

    def consume(self, tag: str, prefetch: int, instead_of: str | None = None) -> None:
        """Have so many letters come; the consumer `instead_of` gets no more, and keeps what it has."""
        self._channel.basic_qos(prefetch_count=prefetch)
        self._channel.basic_consume(
            topology.DEAD_QUEUE, self._on_message, consumer_tag=tag, callback=self._ring
        )
        if instead_of is not None:
            self._channel.basic_cancel(instead_of)

    def wait(self, until: Callable[[], object], seconds: float) -> bool:
        """Take what comes until the condition holds; return whether it does within so many seconds."""
        deadline = time.monotonic() + seconds
        while not until():
            if self._end is not None:
                raise self._end
            if (left := deadline - time.monotonic()) <= 0:
                return False
            self._rung = False
            self._connection.process_data_events(min(left, _SLICE))
        return True

    def ack(self, tag: int) -> None:
        """Have the broker forget a letter; `settle` says when it has."""
        self._channel.basic_ack(tag)

    def settle(self) -> None:
        """Return once the queue has taken all acks: a get is answered after what came before it."""
        awaited = self._answers + 1
        self._channel.basic_get(topology.DEAD_QUEUE, self._on_answer)
        self._expect(lambda: self._answers >= awaited)

    def give_back(self, tag: int) -> None:
        """Give one letter back."""
        self._channel.basic_nack(tag)

    def close(self) -> None:
        """Give back all that was not acked, in order and in one step.

        pika would cancel the consumers first: for a moment the letters were held with nobody seen to hold them.
        """
        self._channel._cancelled.update(self._channel.consumer_tags)  # noqa: SLF001 -- see above
        self._channel.close()
        self._expect(lambda: self._channel.is_closed)

    @property
    def is_open(self) -> bool:
        """Whether the broker is still there for it."""
        return bool(self._channel.is_open)

    def _expect(self, until: Callable[[], object]) -> None:
        if not self.wait(until, _PATIENCE):
            raise AMQPConnectionError(f"the broker has not answered for {_PATIENCE:.0f} s")

    def _ring(self, *_what: object) -> None:
        """Have the wait on the connection come to its end: it knows nothing of this channel."""
        if not self._rung:
            self._rung = True
            self._connection.add_callback_threadsafe(lambda: None)

    def _on_message(
        self, _channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        letter = letters.read(properties, body, str(method.routing_key))
        returns = (properties.headers or {}).get("x-delivery-count")
        self._hand_over(
            Delivery(method.delivery_tag, properties, body, letter, bool(method.redelivered), returns)
        )
        self._ring()

    def _on_answer(self, *_what: object) -> None:
        self._answers += 1
        self._ring()

    def _on_close(self, _channel: Channel, reason: Exception) -> None:
        self._end = reason
        self._ring()

    def _on_cancel(self, _frame: object) -> None:
        self._end = AMQPConnectionError("the broker cancelled the consumer")
        self._ring()
