"""The review of the dead letters: look at them, send them again, or put them away.

A look (`letters`, `lines`) copies what it is asked for into a temporary file while it holds the queue, and tells it
after it has given everything back: the memory it needs does not grow with the letters, and no slow reader keeps the
next reviewer waiting. How the queue is held is in `hold`.

A letter leaves the queue after what is done with it is safe, and not before: its replay is confirmed by the broker,
its archive is on the disk. A crash in between leaves both; a replay's message id is derived from its letter's, so
the host runs it once, and an archive may hold a letter twice. A broker that goes away is awaited, and the work taken
up where it was.
"""

import os
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO, TypeVar

import msgspec
import pika

from worker.broker.connection import BrokerRefused, BrokerUnreachable
from worker.errors import RequestRefused, TsmWorkerError
from worker.fleet import fanout
from worker.fleet import letter as letters
from worker.fleet.fanout import Confirms, Message
from worker.fleet.hold import Hold, Lost
from worker.fleet.letter import Edit, Letter, Selection
from worker.fleet.tap import Delivery

T = TypeVar("T")

_PATIENCE = 900.0  # seconds a broker that was there may stay away
_LOSSES = 10  # connections that may be lost, until it is no accident
_IN_MEMORY = 1 << 20  # bytes of a look before it goes to a file
_BATCH, _BATCH_BYTES = 1000, 8 << 20  # letters that are acted on together


class NoSuchLetter(TsmWorkerError):
    """An id names no letter, or more than one."""


@dataclass
class Report:
    """What became of letters: `done` their ids, `left` those that stay in the list, by id, and why."""

    done: set[str] = field(default_factory=set)
    left: dict[str, str] = field(default_factory=dict)


class DeadLetters:
    """The queue of dead letters as one reviewer sees it. Nothing is connected before it is needed.

    `on_progress` is called with how many letters have been looked at, and of how many; `say` with a sentence where
    something has to be waited for. Every method raises what `hold.Hold` does.
    """

    def __init__(
        self,
        parameters: pika.ConnectionParameters,
        *,
        say: Callable[[str], None] = lambda _sentence: None,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
        limit_lifted: bool = False,
    ) -> None:
        self._parameters = parameters
        self._say = say
        self._on_progress = on_progress
        self._limit_lifted = limit_lifted
        self._looked = False  # to the end, which shows that the queue keeps what is given back

    def letters(self, selection: Selection) -> Iterator[Letter]:
        """Yield the letters that are meant, oldest first, each once. Raise NoSuchLetter as `lines` does."""
        for line in self._look(selection, lambda delivery: msgspec.json.encode(delivery.letter)):
            yield msgspec.json.decode(line, type=Letter)

    def lines(self, selection: Selection) -> Iterator[bytes]:
        """Yield the letters that are meant, oldest first, each once, whole, as `letter.line` writes them.

        Raise NoSuchLetter if one of the selection's ids names none of them, or several.
        """
        return self._look(selection, lambda it: letters.line(it.letter, it.properties, it.body))

    def replay(self, ids: Collection[str], edit: Edit) -> Report:
        """Send the letters' requests to their hosts again, edited; those that went leave the list."""
        return self._settle(ids, lambda batch: self._publish(batch, edit))

    def discard(self, ids: Collection[str], archive: IO[bytes] | None = None) -> Report:
        """Take letters out of the list, after they are on the disk in the archive, as `letter.line` writes them.

        Raise TsmWorkerError if the archive cannot be written; what was not written stays in the list.
        """
        return self._settle(ids, lambda batch: self._put_away(batch, archive))

    # -- passes over the queue -----------------------------------------------------------------------------

    def _look(self, selection: Selection, form: Callable[[Delivery], bytes]) -> Iterator[bytes]:
        with SpooledTemporaryFile(max_size=_IN_MEMORY) as file:

            def once() -> set[str]:
                file.seek(0)
                file.truncate()
                seen: set[str] = set()  # an id twice is a letter that was sent twice
                for delivery in self._pass():
                    if delivery.letter in selection and delivery.letter.id not in seen:
                        seen.add(delivery.letter.id)
                        file.write(form(delivery) + b"\n")
                return seen

            meant = _meant(selection.ids, self._patiently(once))
            file.seek(0)
            for line in file:
                if meant is None or _id(line) in meant:
                    yield line.rstrip(b"\n")

    def _pass(self) -> Iterator[Delivery]:
        """Yield all letters, held meanwhile."""
        with self._hold() as hold:
            for number, delivery in enumerate(hold.look(), start=1):
                yield delivery
                self._on_progress(number, hold.count)
        self._looked = True

    def _hold(self) -> Hold:
        return Hold(self._parameters, self._say, limit_lifted=self._limit_lifted)

    def _settle(self, ids: Collection[str], act: Callable[[list[bytes]], dict[str, str]]) -> Report:
        """Have letters acted on, a batch of lines at a time; take out those for which `act` gives no reason to stay."""
        report = Report()
        wanted = frozenset(ids)
        if not self._looked:
            self._patiently(lambda: deque(self._pass(), maxlen=0))

        def once() -> None:
            with self._hold() as hold, SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
                tags: dict[
                    str, list[int]
                ] = {}  # a worker that lost its connection may have sent a letter twice
                for number, delivery in enumerate(hold, start=1):
                    name = delivery.letter.id
                    if name in wanted and name not in report.left:
                        if name not in tags and name not in report.done:
                            file.write(
                                letters.line(delivery.letter, delivery.properties, delivery.body) + b"\n"
                            )
                        tags.setdefault(name, []).append(delivery.tag)
                    self._on_progress(number, hold.count)
                hold.settle(
                    [tag for name in report.done for tag in tags.get(name, ())]
                )  # their acks were lost
                file.seek(0)
                for batch in _batches(file):
                    left = act(batch)
                    done = [name for name in map(_id, batch) if name not in left]
                    report.left.update(left)
                    report.done.update(done)
                    hold.settle([tag for name in done for tag in tags[name]])
                    self._on_progress(len(report.done) + len(report.left), len(wanted))

        self._patiently(once)
        for letter_id in wanted - report.done - report.left.keys():
            report.left[letter_id] = "it is no longer in the list; another reviewer has settled it"
        return report

    def _patiently(self, once: Callable[[], T]) -> T:
        """Do it, and again on a new connection where one is lost."""
        losses = 0
        lost_at = 0.0
        while True:
            try:
                return once()
            except BrokerRefused:
                raise
            except Lost as error:
                losses, lost_at = losses + 1, time.monotonic()
                if losses > _LOSSES:
                    raise
                self._say(f"{error}; trying again …")
            except BrokerUnreachable:
                if not losses or time.monotonic() - lost_at > _PATIENCE:
                    raise
            time.sleep(random.uniform(0.5, 3))  # noqa: S311 -- not a secret

    # -- what is done with letters -------------------------------------------------------------------------

    def _publish(self, batch: list[bytes], edit: Edit) -> dict[str, str]:
        """Send replays, each confirmed; return why some could not be sent, by letter's id."""
        left: dict[str, str] = {}
        replays: dict[str, Message] = {}
        for letter, body in map(letters.parse, batch):
            if not letter.host:
                left[letter.id] = "nobody knows its host; export it, and submit its body yourself"
                continue
            try:
                replays[letter.id] = Message(
                    f"host.{letter.host}", edit.apply(body), letters.replay_properties(letter)
                )
            except RequestRefused as refusal:
                left[letter.id] = f"the edited request would be refused ({refusal.code}): {refusal}"
        confirms = Confirms()
        try:
            fanout.publish(self._parameters, list(replays.values()), confirms)
        except BrokerRefused as error:
            raise BrokerRefused(f"{error}; docs/dead-letters.md lists a reviewer's rights") from error
        except BrokerUnreachable as error:
            raise Lost(str(error)) from error
        for letter_id, replay in replays.items():
            host = replay.key.removeprefix("host.")
            if replay.name in confirms.returned:
                left[letter_id] = f"host {host} has no queue; start its worker once, then replay again"
            elif replay.name in confirms.refused:
                left[letter_id] = f"the queue of host {host} takes no more; replay again later"
        return left

    def _put_away(self, batch: list[bytes], archive: IO[bytes] | None) -> dict[str, str]:
        """Have the letters on the disk when this returns."""
        if archive is not None:
            try:
                archive.writelines(batch)
                archive.flush()
                os.fsync(archive.fileno())
            except OSError as error:
                raise TsmWorkerError(
                    f"the archive {archive.name} cannot be written: {error}; what is not in it is still in the list"
                ) from error
        return {}


def _batches(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if len(batch) >= _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _id(line: bytes) -> str:
    return msgspec.json.decode(line, type=Letter).id


def _meant(starts: Collection[str], found: Collection[str]) -> set[str] | None:
    """Return the ids that these beginnings mean, None if there are no beginnings, so that all are meant."""
    meant = set()
    for start in starts:
        named = [start] if start in found else [each for each in found if each.startswith(start)]
        if not named:
            raise NoSuchLetter(
                f"no dead letter has the id {start}; `tsm-worker dead list` has those there are"
            )
        if len(named) > 1:
            raise NoSuchLetter(f"{start} is the beginning of {len(named)} ids; write more of it")
        meant.update(named)
    return meant if starts else None
