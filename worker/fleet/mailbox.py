"""A batch on the broker: the queue it is answered in, and its ledger, over one connection.

The ledger is what lets anybody with the batch's id take up the wait, on any machine, with no disk to share and no
right beyond those on the batch's own names. It is a queue, `tsm.batch.<id>`, of small messages: first the batch
itself; then, before an answer is acked, a receipt for it. Whoever opens the batch takes them all, puts one message
in their place that says the same, and only then acks them; so it can be interrupted anywhere, nothing is ever put
back, and no delivery limit of a quorum queue counts. They come in through an exchange of the same name: publishing
through the default exchange takes a right that would reach every queue of the broker.

Queues and ledger outlive broker restarts and go by `x-expires` when nobody has used them for a day. The exchange is
auto-delete: it goes with the ledger.

pika's errors leave this module as they are; `client` deals with them.
"""

import math
import time
import uuid
from collections import deque
from dataclasses import dataclass
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker
from pika.spec import BasicProperties

from worker.broker import topology
from worker.broker.connection import ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, will_be_back
from worker.fleet.batch import Answer, Batch, BatchError, Record, Sign, answer, sign
from worker.words import Event

_EXPIRES = 24 * 3600 * 1000  # milliseconds without use
_PREFETCH = 10  # answers, of 8 MiB each at most


def reply_queue(batch_id: str) -> str:
    """Return the name of the queue that a batch is answered in."""
    return f"tsm.replies.{batch_id}"


def ledger(batch_id: str) -> str:
    """Return the name of a batch's ledger, a queue and the exchange before it."""
    return f"tsm.batch.{batch_id}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something that came: an answer, a sign, or neither, which is to be acked and forgotten."""

    content: Answer | Sign | None
    tag: int | None = None  # None where there is nothing to ack
    mailbox: "Mailbox | None" = None  # the one it came to: a tag is good for its connection alone


class Mailbox:
    """One connection's view of one batch; of the thread that made it. Every method may raise pika's errors."""

    def __init__(self, parameters: pika.ConnectionParameters, batch_id: str) -> None:
        """Connect."""
        self._id = batch_id
        self._inbox: deque[Delivery] = deque()
        self._connection = pika.BlockingConnection(parameters)
        self._channel = self._open_channel()
        self._tag: str | None = None  # of the answers' consumer
        self.watching_since: float | None = None
        """Since when the signs come, in seconds since 1970; infinite where this account may not see them."""

    def create(self, batch: Batch) -> None:
        """Make the batch's queues, unless they are there, and begin its ledger anew."""
        replies, book = reply_queue(self._id), ledger(self._id)
        arguments = {"x-queue-type": "quorum", "x-expires": _EXPIRES, **topology.unlimited(self._connection)}
        for queue in (replies, book):
            self._declare(queue, arguments)
        # Hosts of `reply_via = "exchange"` answer through it.
        self._channel.queue_bind(replies, topology.RESPONSES, replies)
        self._channel.exchange_declare(book, "fanout", durable=True, auto_delete=True)
        self._channel.queue_bind(book, book)
        self._channel.queue_purge(book)
        self.note(Record(batch))

    def note(self, record: Record) -> None:
        """Put a record into the ledger; it is safe there when this returns."""
        name = ledger(self._id)
        properties = BasicProperties(content_type="application/json", delivery_mode=2)
        self._channel.basic_publish(name, "", record.encode(), properties, mandatory=True)

    def read(self) -> Record:
        """Return what the ledger says, and make it short.

        Raise BatchError if there is no such batch, or somebody else collects it.
        """
        name = ledger(self._id)
        readers = self._consumers(reply_queue(self._id))
        if readers is None or self._consumers(name) is None:
            raise BatchError(
                f"the broker has no batch {self._id}: it was collected to its end, or nobody asked for it for a day, "
                "or it is on another broker or vhost"
            )
        if readers:
            raise BatchError(
                f"somebody else collects batch {self._id}, and would get the answers; end that one, or wait: a reader "
                "that is cut off is gone within a minute"
            )
        bodies: list[bytes] = []
        last: int | None = None
        while True:
            method, _properties, body = self._channel.basic_get(name)
            if method is None:
                break
            last = method.delivery_tag
            bodies.append(body)
        record = Record.merged(bodies)
        if record.batch is None:
            raise BatchError(f"the ledger of batch {self._id} is in use or empty; try again in a moment")
        if len(bodies) > 1:
            self.note(record)
            self._channel.basic_ack(last, multiple=True)
        elif last is not None:
            self._channel.basic_nack(last)
        return record

    def watch(self) -> None:
        """Have the signs of the fleet's jobs come too, from now on; none do where this account may not see them."""
        if self.watching_since is not None:
            return
        channel = self._connection.channel()
        queue = f"{reply_queue(self._id)}.signs-{uuid.uuid4().hex[:8]}"
        try:
            channel.queue_declare(queue, exclusive=True, auto_delete=True)
            for event in Event:
                channel.queue_bind(queue, topology.EVENTS, f"{event}.#")
            channel.basic_consume(queue, self._on_sign, auto_ack=True)
            self.watching_since = time.time()
        except ChannelClosedByBroker as error:
            if error.reply_code not in (ACCESS_REFUSED, NOT_FOUND):
                raise
            self.watching_since = math.inf

    def listen(self) -> None:
        """Have the answers come."""
        if not self.listening:
            self._channel.basic_qos(prefetch_count=_PREFETCH)
            self._tag = self._channel.basic_consume(reply_queue(self._id), self._on_answer)

    @property
    def listening(self) -> bool:
        """Whether the answers come here."""
        return self._tag is not None

    def receive(self, timeout: float) -> Delivery | None:
        """Return what comes next, None if nothing does within `timeout` seconds."""
        if not self._inbox:
            self._connection.process_data_events(timeout)
        # A channel that the broker closed says nothing, and its consumer stays away for ever (pika's trap).
        if self.listening and not (self._channel.is_open and self._channel.consumer_tags):
            raise AMQPConnectionError("the broker closed the channel or cancelled its consumer")
        return self._inbox.popleft() if self._inbox else None

    def ack(self, delivery: Delivery) -> None:
        """Have the broker forget it; one of an earlier connection comes again, and is acked then."""
        if delivery.tag is not None and delivery.mailbox is self:
            self._channel.basic_ack(delivery.tag)

    def delete(self) -> None:
        """Take the batch away; its exchange goes with the ledger."""
        for queue in (reply_queue(self._id), ledger(self._id)):
            self._channel.queue_delete(queue)

    def close(self) -> None:
        """Disconnect; what was not acked stays."""
        if self._connection.is_open:
            if self._tag is not None and self._channel.is_open:
                self._channel.basic_cancel(
                    self._tag
                )  # a connection's end alone frees the queue a little later
            self._connection.close()

    def _open_channel(self) -> BlockingChannel:
        channel = self._connection.channel()
        channel.confirm_delivery()
        return channel

    def _declare(self, queue: str, arguments: dict[str, Any]) -> None:
        try:
            self._channel.queue_declare(queue, durable=True, arguments=arguments)
        except ChannelClosedByBroker as error:
            if error.reply_code != PRECONDITION_FAILED:  # it is there, of another version's making
                raise
            self._channel = self._open_channel()

    def _consumers(self, queue: str) -> int | None:
        """Return how many consumers a queue has, None if there is no such queue."""
        try:
            return int(self._channel.queue_declare(queue, passive=True).method.consumer_count)
        except ChannelClosedByBroker as error:
            if error.reply_code != NOT_FOUND or will_be_back(error):
                raise
            self._channel = self._open_channel()
            return None

    def _on_answer(self, _channel: object, method: Any, properties: BasicProperties, body: bytes) -> None:
        account = None if properties.user_id is None else str(properties.user_id)
        content = answer(properties.headers, body, account)
        self._inbox.append(Delivery(content, method.delivery_tag, self))

    def _on_sign(self, _channel: object, _method: Any, _properties: BasicProperties, body: bytes) -> None:
        self._inbox.append(Delivery(sign(body)))
