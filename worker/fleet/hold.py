"""One reviewer's hold on the queue of dead letters.

AMQP has no look without a take: who reads a queue has its messages delivered, and gives back what is to stay. What
makes that a look is done here, with no right but to read the queue:

- **All at once.** One consumer takes everything in one step, and closing its channel gives everything back in one
  step; the broker does the same for a reviewer that is killed. A quorum queue puts what comes back behind all else
  that has ever come back (https://github.com/rabbitmq/rabbitmq-server/issues/6804): only who gives back all of it
  leaves the order as it was. Nobody is shown or asked anything meanwhile: a look goes to a file first (`dead`).
- **Alone.** Two reviewers at once would each see a part, or nothing. Who finds a consumer on the queue waits for it
  to go. Of several that come in the same moment, one has all letters, and the others leave when none has come in a
  second; it begins when they have left, and gives back when nobody is left to get a part.
- **Proven.** A quorum queue with a delivery limit (20 by default from 4.0 on) drops what has come back too often.
  What a queue's arguments and policies say, a reviewer may not ask. Whoever may declare the queue finds out by
  declaring it as it should be, and turns away. For everybody, a look ends with its last letter going to and fro
  until it has come back oftener than any sensible limit lets it, and until then all letters have a copy on the disk.
  That letter's `x-delivery-count` keeps the proof for later looks. If it does not come back, the error says where its
  copy is, and later looks touch nothing.

Measured on RabbitMQ 3.10.8 and 4.0.5: a limit of -1 is none on 4.0 and lets nothing come back on 3.10; a policy's
limit beats an argument of -1; an exclusive consumer is not heeded by quorum queues. A stream beside the queue would
make looking free, but could not tell which of its letters are settled without a right to write there.
"""

import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from worker.broker import topology
from worker.broker.connection import (
    ACCESS_REFUSED,
    NOT_FOUND,
    PRECONDITION_FAILED,
    BrokerRefused,
    BrokerUnreachable,
    explain,
    out_of_reach,
    will_be_back,
)
from worker.fleet.shelf import Copies, ReviewError, Shelf
from worker.fleet.tap import Delivery, Tap

_PATIENCE = 300.0  # seconds to wait for other reviewers to be done
_FIRST, _FIRSTS = (
    1.0,
    60,
)  # seconds until a first letter comes, or somebody else has them; and how often a slow broker is
_LEAVING = 3.0  # seconds that those who have none take to leave
_QUIET, _QUIETS = 10.0, 6  # seconds without a delivery, until it is asked why; and how often a slow broker is
_PROMPT = 1.0  # seconds in which a broker that is not slow answers
_WINDOW = (
    65_535  # letters that one consumer holds: AMQP's largest prefetch, for zero is 2,000 on a quorum queue
)
_PROOF = 100  # times a letter came back that prove that it always does
_ACKS = 24  # acks that may be under way at once
_ARGUMENTS = 10  # of the queue's that may differ until it is not asked any more
_DIFFERS = re.compile(r"inequivalent arg '([^']+)'.* but current is (?:none|(?:the value )?'([^']*)')")


class Lost(BrokerUnreachable):
    """The connection was lost in the middle of a look; the broker has all that was not settled."""


@dataclass
class Hold:
    """All letters that are there when it begins, held alone until it ends; to be used in a `with`.

    `count` is how many they are, and iterating gives each once, in order; `settle` takes letters out. `say` is told
    what is waited for. `limit_lifted`: the user answers for it that a policy lifts the queue's limit. Every step may
    raise Lost. Raise BrokerUnreachable at the start if the broker is out of reach, BrokerRefused without the rights,
    ReviewError where there is no such queue, others hold it for too long, or it would not keep what is looked at.
    """

    parameters: pika.ConnectionParameters
    say: Callable[[str], None]
    limit_lifted: bool = False
    window: int = _WINDOW
    count: int = 0
    _inbox: deque[Delivery] = field(default_factory=deque)
    _tag: str | None = None  # of the current consumer
    _opened: int = 0
    _room: int = 0  # how many more letters it can take

    def __enter__(self) -> Self:
        self._shelf = Shelf(self.parameters)
        try:
            self._connection = pika.BlockingConnection(self.parameters)
        except (AMQPError, OSError) as error:
            raise BrokerUnreachable(out_of_reach(self.parameters, error)) from error
        try:
            with _in_our_words("the look did not come about"):
                if not self.limit_lifted:
                    self._check_limit()
                self._be_alone()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give back what was not settled. Raise Lost where it cannot be known whether the broker took the acks."""
        if not self._leave() and error is None:
            raise Lost("the connection was lost at the end of a look")

    def __iter__(self) -> Iterator[Delivery]:
        for _ in range(self.count):
            with _in_our_words("the connection was lost in the middle of a look"):
                delivery = self._receive()
            if delivery is None:  # rather looked at again than told in part
                raise Lost("letters are missing: somebody that does not consume, but gets, has taken them")
            yield delivery

    def look(self) -> Iterator[Delivery]:
        """Yield each letter once, none of which may be settled; see to it that the queue keeps them all.

        Raise ReviewError at the end if it does not.
        """
        if not self.count:
            return
        with self._shelf.copies() as copies:
            proven = False
            for delivery in self:
                proven = proven or _is_proof(delivery)
                if not proven:
                    copies.add(delivery)
                yield delivery
            if not proven:
                copies.safe()
                with _in_our_words("the connection was lost at the end of a look"):
                    self._prove(delivery, copies)

    def settle(self, tags: Sequence[int]) -> None:
        """Take letters out of the queue for good, by their deliveries' tags, once all have been iterated over.

        A quorum queue's channel keeps back acks beyond 32 that are not applied yet, and forgets them when it closes
        (`quorum_commands_soft_limit`, rabbit_fifo_client.erl). A get is answered after all before it is applied.
        Acks among the deliveries of many letters hold those up too: with 100,000, for more than 10 s.
        """
        with _in_our_words("the connection was lost while letters were taken out"):
            for start in range(0, len(tags), _ACKS):
                for tag in tags[start : start + _ACKS]:
                    self._tap.ack(tag)
                self._tap.settle()

    # -- coming and going ----------------------------------------------------------------------------------

    def _check_limit(self) -> None:
        """Raise ReviewError where this account may know, and knows, that the queue drops what is given back."""
        arguments: dict[str, Any] = {"x-queue-type": "quorum", **topology.unlimited(self._connection)}
        for _ in range(_ARGUMENTS):
            channel = self._connection.channel()
            channel.queue_declare(topology.DEAD_QUEUE, passive=True)
            try:
                channel.queue_declare(topology.DEAD_QUEUE, durable=True, arguments=arguments)
                channel.close()
            except ChannelClosedByBroker as error:
                differs = _DIFFERS.search(error.reply_text)
                if error.reply_code != PRECONDITION_FAILED or differs is None:
                    return  # it may not ask
                name, value = differs.groups()
                if name == "x-delivery-limit":
                    raise ReviewError(
                        f"{topology.DEAD_QUEUE} has {f'x-delivery-limit {value}' if value else 'the default limit'}, and "
                        "drops letters that were looked at more often; nothing was touched. docs/dead-letters.md says "
                        "how to lift it; once a policy does, say --limit-lifted"
                    ) from error
                if name == "x-queue-type" or value is None:
                    return  # a classic queue
                arguments[name] = int(value) if value.lstrip("-").isdecimal() else value
            else:
                return

    def _be_alone(self) -> None:
        """Begin to hold the letters, once nobody else does."""
        deadline = time.monotonic() + _PATIENCE
        said = False
        while True:
            self._tap = Tap(self._connection, self._inbox.append)
            self.count, consumers = self._look_around()
            if consumers == 0:
                if self.count == 0:
                    return
                self._consume()
                if self._has_them() and self._others_leave():
                    return
            self._give_back()
            if time.monotonic() > deadline:
                raise ReviewError(
                    f"somebody has held {topology.DEAD_QUEUE} for {_PATIENCE:.0f} s; end that consumer, or try again later"
                )
            if not said:
                self.say("another reviewer is looking at the dead letters; waiting …")
                said = True
            self._connection.sleep(random.uniform(0.1, 0.5))  # noqa: S311 -- not a secret

    def _has_them(self) -> bool:
        """Return whether the letters come to us, however slow the broker is, and not to somebody else."""
        for _ in range(_FIRSTS):
            if self._comes(_FIRST):
                return True
            if self._look_around()[1] > 1:
                return False
        return False

    def _others_leave(self) -> bool:
        """Return whether nobody else is at the queue, or leaves in a moment."""
        deadline = time.monotonic() + _LEAVING
        while self._look_around()[1] > 1:
            if time.monotonic() > deadline:
                return False
            self._connection.sleep(0.05)
        return True

    def _look_around(self) -> tuple[int, int]:
        """Return how many letters are ready, and how many consumers there are. Needs no right."""
        channel = self._connection.channel()
        found = channel.queue_declare(topology.DEAD_QUEUE, passive=True).method
        channel.close()
        return int(found.message_count), int(found.consumer_count)

    def _give_back(self) -> None:
        """Have the broker put back in order what was not settled."""
        self._tap.close()
        self._inbox.clear()
        self._tag, self._room, self._opened = None, 0, 0

    def _leave(self) -> bool:
        """Disconnect; return whether the broker has taken all that it was told."""
        try:
            if self._connection.is_open and hasattr(self, "_tap") and self._tap.is_open:
                self._others_leave()
                self._give_back()
                self._connection.close()
                return True
        except (AMQPError, OSError):
            pass
        with suppress(AMQPError, OSError):
            self._connection.close()
        return False

    # -- letters -------------------------------------------------------------------------------------------

    def _consume(self) -> None:
        """Open another consumer, and close the one that is full: its letters stay held, and earlier in order."""
        full, self._tag = self._tag, f"review-{self._opened:04}"
        self._opened += 1
        self._tap.consume(self._tag, self.window, instead_of=full)
        self._room = self.window

    def _receive(self) -> Delivery | None:
        """Return the next letter, None if there is none left."""
        if self._room <= 0:
            self._consume()
        for _ in range(_QUIETS):
            if self._comes(_QUIET):
                break
            asked_at = time.monotonic()
            ready, _ = self._look_around()
            if time.monotonic() - asked_at < _PROMPT:  # it is not slow
                if ready:
                    raise Lost("the broker has letters and does not deliver them")
                return None
        else:
            raise Lost("the broker is too slow")
        self._room -= 1
        return self._inbox.popleft()

    def _comes(self, patience: float) -> bool:
        """Return whether a letter is there, or comes within so many seconds."""
        return self._tap.wait(lambda: self._inbox, patience)

    def _prove(self, last: Delivery, copies: Copies) -> None:
        """Have the last letter go to and fro. Raise ReviewError if it does not come back."""
        while self._inbox:  # newer than the look
            last = self._inbox.popleft()
            copies.add(last)
            copies.safe()
        while not _is_proof(last):
            self._tap.give_back(last.tag)
            self._room += 1
            again = self._receive()
            if again is None or again.letter.id != last.letter.id:
                copies.keep(last)
            if again.returns is not None and again.returns <= (last.returns or 0):
                return  # a broker that does not count this
            last = again


def _is_proof(delivery: Delivery) -> bool:
    """Whether a letter shows that its queue keeps what is given back: a classic one always does, and counts nothing."""
    if delivery.returns is None:
        return delivery.redelivered
    return delivery.returns >= _PROOF


@contextmanager
def _in_our_words(what: str) -> Iterator[None]:
    """Translate pika's errors."""
    try:
        yield
    except ChannelClosedByBroker as error:
        if error.reply_code == ACCESS_REFUSED:
            raise BrokerRefused(
                f"the broker refuses: {explain(error)}; docs/dead-letters.md lists a reviewer's rights"
            ) from error
        if error.reply_code == NOT_FOUND and not will_be_back(error):
            raise ReviewError(
                f"this broker has no queue {topology.DEAD_QUEUE}: no worker has ever declared it here; "
                "check the vhost in the broker's address"
            ) from error
        raise Lost(f"{what}: {explain(error)}") from error
    except (AMQPError, OSError) as error:
        raise Lost(f"{what}: {explain(error)}") from error
