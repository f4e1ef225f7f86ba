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

import os
import random
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import msgspec
import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker
from pika.spec import Basic, BasicProperties

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
from worker.errors import TsmWorkerError
from worker.fleet import letter as letters
from worker.fleet.letter import Letter
from worker.fleet.tap import Tap

_PATIENCE = 300.0  # seconds to wait for other reviewers to be done
_FIRST = 1.0  # seconds until a first letter comes, or somebody else has them
_LEAVING = 3.0  # seconds that those who have none take to leave
_QUIET = 10.0  # seconds without a delivery, until it is asked why
_WINDOW = (
    65_535  # letters that one consumer holds: AMQP's largest prefetch, for zero is 2,000 on a quorum queue
)
_PROOF = 100  # times a letter came back that prove that it always does
_ACKS = 24  # acks that may be under way at once
_ARGUMENTS = 10  # of the queue's that may differ until it is not asked any more
_DIFFERS = re.compile(r"inequivalent arg '([^']+)'.* but current is (?:none|(?:the value )?'([^']*)')")


class Lost(BrokerUnreachable):
    """The connection was lost in the middle of a look; the broker has all that was not settled."""


class ReviewError(TsmWorkerError):
    """The dead letters cannot be looked at now; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A letter in hand; `returns` is how often it has come back, None where the queue does not count."""

    tag: int
    properties: BasicProperties
    body: bytes
    letter: Letter
    redelivered: bool
    returns: int | None


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
        self._shelf = _Shelf(self.parameters)
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
            if delivery is None:
                return  # somebody that does not consume, but gets, was faster
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
            self._tap = Tap(self._connection, self._on_message)
            self.count, consumers = self._look_around()
            if consumers == 0:
                if self.count == 0:
                    return
                self._consume()
                if self._comes(_FIRST) and self._others_leave():
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

    def _on_message(self, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        letter = letters.read(properties, body, str(method.routing_key))
        returns = (properties.headers or {}).get("x-delivery-count")
        self._inbox.append(
            Delivery(method.delivery_tag, properties, body, letter, bool(method.redelivered), returns)
        )

    def _receive(self) -> Delivery | None:
        """Return the next letter, None if there is none left."""
        if self._room <= 0:
            self._consume()
        if not self._comes(_QUIET):
            if self._look_around()[0]:
                raise Lost("the broker has letters and does not deliver them")
            return None
        self._room -= 1
        return self._inbox.popleft()

    def _comes(self, patience: float) -> bool:
        """Return whether a letter is there, or comes within so many seconds."""
        return self._tap.wait(lambda: self._inbox, patience)

    def _prove(self, last: Delivery, copies: "_Copies") -> None:
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


class _Shelf:
    """Where copies are while letters are at risk: a folder of this user for each vhost of each broker."""

    def __init__(self, parameters: pika.ConnectionParameters) -> None:
        """Raise ReviewError if an earlier look has found that the queue drops letters."""
        name = f"{parameters.host}:{parameters.port}/{parameters.virtual_host}"
        self._folder = _state_home() / "tsm-worker" / "dead-letters" / sha256(name.encode()).hexdigest()[:16]
        for file in self._folder.glob("*.dropped"):
            raise ReviewError(
                f"an earlier look found that {topology.DEAD_QUEUE} drops letters that are looked at; nothing was "
                f"touched. What it dropped is in {file}. docs/dead-letters.md says how to lift the queue's delivery "
                "limit and how to put the letters back; then remove that file"
            )

    @contextmanager
    def copies(self) -> Iterator["_Copies"]:
        """Have a file for copies, which stays until a look has come to its end. Raise ReviewError if there cannot be one."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            copies = _Copies(self._folder / f"{time.time():.0f}-{os.getpid()}.copies")
        except OSError as error:
            raise _unsafe(error) from error
        yield copies
        copies.close()
        for file in self._folder.glob("*.copies"):  # those of looks that were cut short, too
            file.unlink(missing_ok=True)


class _Copies:
    """Copies of the letters that are in hand, one line of JSON each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b")
        path.chmod(0o600)

    def add(self, delivery: Delivery) -> None:
        """Write one."""
        try:
            self._file.write(letters.line(delivery.letter, delivery.properties, delivery.body) + b"\n")
        except OSError as error:
            raise _unsafe(error) from error

    def safe(self) -> None:
        """Have them on the disk when this returns."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unsafe(error) from error

    def keep(self, dropped: Delivery) -> NoReturn:
        """Keep the copies of this letter, and of those that come back as often as it did. Raise ReviewError."""
        limit = dropped.returns or 0
        self._file.seek(0)
        lines = list(
            filter(None, (line if _at_risk(line, dropped.letter.id, limit) else b"" for line in self._file))
        )
        self._file.seek(0)
        self._file.truncate()
        self._file.writelines(lines)
        self.safe()
        self._file.close()
        kept = self._path.rename(self._path.with_suffix(".dropped"))
        raise ReviewError(
            f"{topology.DEAD_QUEUE} drops letters that are looked at more than {limit} times: it has a delivery limit. "
            f"What it dropped is in {kept}. docs/dead-letters.md says how to lift the limit and how to put letters back"
        )

    def close(self) -> None:
        """Write no more."""
        self._file.close()


def _at_risk(line: bytes, letter_id: str, limit: int) -> bool:
    whole = msgspec.json.decode(line)
    return bool(whole["id"] == letter_id or whole["headers"].get("x-delivery-count", 0) >= limit)


def _unsafe(error: OSError) -> ReviewError:
    return ReviewError(
        f"the copies that protect the letters cannot be written: {error}; free the disk, or set XDG_STATE_HOME to a "
        "folder of yours"
    )


def _state_home() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home())
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")


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
