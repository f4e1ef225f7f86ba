"""A wait as people and programs see it: a live table on a terminal or lines of progress, and what came at the end."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from worker.contract.request import shown
from worker.fleet.batch import Answer, Batch, BatchError, Sign
from worker.fleet.collection import Collection
from worker.words import Event, Outcome

_NO_TERMINAL = 160  # columns where there is no terminal to ask
_NAMES = 20  # of outstanding hosts in a sentence
_REASON = 100  # characters
_FRAME = 6  # rows of a live table that are not hosts
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_COLOURS = {Outcome.COMPLETED: "green", Outcome.COMPLETED_WITH_WARNINGS: "yellow"}


@dataclass(slots=True)
class Row:
    """What is known of one host. Times are seconds since 1970, by our clock."""

    host: str
    state: str = "sent"
    attempt: int = 0
    since: float = field(default_factory=time.time)
    ended: float | None = None
    outcome: Outcome | None = None
    transferred: int | None = None  # bytes
    reason: str = ""


class Report:
    """Keeps what is known of a batch's hosts, and shows it on `talk` (stderr) while `shown` is on."""

    def __init__(self, batch: Batch, talk: TextIO) -> None:
        self._batch = batch
        self._console = Console(file=talk, highlight=False)
        self._rows = {host: Row(host, since=batch.submitted_at) for host in batch.asked}

    def recall(self, outcomes: Mapping[str, Outcome]) -> None:
        """Take in the outcomes that an earlier collection has got."""
        for host, outcome in outcomes.items():
            row = self._row(host)
            row.state, row.outcome = "collected before", outcome

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show a live table while this lasts, where there is a terminal; it vanishes at the end."""
        if not self._console.is_terminal:
            yield
            return
        with Live(get_renderable=self._screen, console=self._console, refresh_per_second=4, transient=True):
            yield

    def on_sign(self, sign: Sign) -> None:
        """Take in what a host tells of its job."""
        row = self._row(sign.host)
        if row.outcome is not None:
            return
        if sign.event is Event.STARTED:
            row.state, row.attempt = "running", row.attempt + 1
        elif sign.event is Event.RETRYING:
            row.state, row.reason = "waiting", shown(sign.reason or "", _REASON)
        elif sign.event is Event.ACCEPTED:
            row.state = "accepted"
        self._say(f"{sign.host}: {sign.event}{f', {row.reason}' if row.reason else ''}")

    def on_answer(self, answer: Answer) -> None:
        """Take in a host's answer."""
        row = self._row(answer.host)
        row.state, row.outcome, row.attempt = "answered", answer.outcome, answer.attempts
        row.ended, row.reason = time.time(), shown(answer.error or "", _REASON)
        row.transferred = answer.transferred
        done = sum(each.outcome is not None for each in self._rows.values())
        of = f"/{self._batch.awaited}" if self._batch.awaited else ""
        self._say(f"{answer.host}: {answer.outcome}{f', {row.reason}' if row.reason else ''} ({done}{of})")

    def table(self) -> Table:
        """Return the closing table: every host, the failed first."""
        table = Table("host", "outcome", "attempts", "elapsed", "bytes", "reason", box=None)
        for row in sorted(self._rows.values(), key=lambda row: (_rank(row), row.host)):
            outcome = _coloured(row.outcome) if row.outcome else Text("outstanding", "magenta")
            facts = (str(row.attempt or "-"), _elapsed(row), _size(row.transferred) or "-")
            table.add_row(row.host, outcome, *facts, Text(row.reason))
        for name in self._batch.unroutable:
            table.add_row(name, Text("unroutable", "red"), "-", "-", "-", "no queue of this name took it")
        return table

    def _row(self, host: str) -> Row:
        return self._rows.setdefault(host, Row(host))

    def _say(self, line: str) -> None:
        if not self._console.is_terminal:
            now = datetime.now(UTC).astimezone().strftime("%H:%M:%S")
            self._console.print(f"{now} {line}", soft_wrap=True, markup=False)

    def _screen(self) -> Group:
        """Return what fits on the screen: those that failed, then those that run, then the rest."""
        rows = sorted(self._rows.values(), key=_rank)
        room = max(5, self._console.height - _FRAME)
        table = Table("host", "state", "attempt", "elapsed", "bytes", "outcome", box=None)
        for row in rows[:room]:
            outcome = _coloured(row.outcome) if row.outcome else Text("")
            facts = (str(row.attempt or ""), _elapsed(row), _size(row.transferred))
            table.add_row(row.host, row.state, *facts, outcome)
        if len(rows) > room:
            table.add_row("…", f"{len(rows) - room} more")
        return Group(table, Text(self._caption()))

    def _caption(self) -> str:
        states = Counter(str(row.outcome or row.state) for row in list(self._rows.values()))
        counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
        of = f" of {self._batch.awaited}" if self._batch.awaited else ""
        return f"batch {self._batch.id}{of}: {counts or 'nobody has answered yet'}"


def summary(collection: Collection) -> list[str]:
    """Return how a collection ended, in sentences: the outcomes counted, then who is missing and who failed."""
    counts = Counter(collection.outcomes.values())
    told = [f"{count} {outcome}" for outcome, count in counts.most_common()]
    missing = collection.missing if collection.missing is not None else len(collection.outstanding)
    if missing:
        told.append(f"{missing} outstanding")
    if collection.batch.unroutable:
        told.append(f"{len(collection.batch.unroutable)} unroutable")
    lines = [f"batch {collection.batch.id}: {', '.join(told) or 'no answer'}"]
    failed = sorted(host for host, outcome in collection.outcomes.items() if not outcome.successful)
    for what, names in (
        ("failed", failed),
        ("outstanding", collection.outstanding),
        ("unroutable, no worker has this name", collection.batch.unroutable),
    ):
        if names:
            lines.append(f"{what}: {_names(names)}")
    if missing:
        lines.append(f"take up the wait with: tsm-worker collect {collection.batch.id}")
    return lines


def collect(
    collection: Collection, *, talk: TextIO, data: TextIO, as_json: bool = False, out: Path | None = None
) -> bool:
    """Collect to the end or to Ctrl-C, showing it; return whether all succeeded.

    `talk` (stderr) shows how it goes, and a summary at the end. `data` (stdout) gets one JSON object per answer as it comes, or a table at the end; `out` is a directory for one
    XML file per host, written before the answer counts as handed over.
    """
    report = Report(collection.batch, talk)
    report.recall(collection.outcomes)
    collection.on_sign = report.on_sign
    with suppress(KeyboardInterrupt), report.shown():
        for answer in collection:
            report.on_answer(answer)
            if out is not None:
                _write(out / f"{answer.host}.xml", answer.response)
            if as_json:
                data.write(msgspec.json.encode(answer.told()).decode() + "\n")
                data.flush()
    if not as_json:
        Console(file=data, width=None if data.isatty() else _NO_TERMINAL).print(report.table())
    talk.write("".join(f"{line}\n" for line in summary(collection)))
    return collection.successful


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BatchError(
            f"{path} cannot be written: {error}; the answer stays on the broker, collect the batch again"
        ) from error


def _rank(row: Row) -> int:
    """Order of attention: failed, outstanding by how far they are, succeeded."""
    if row.outcome is not None:
        return 9 if row.outcome.successful else 0
    return {"waiting": 1, "running": 2, "accepted": 3}.get(row.state, 4)


def _coloured(outcome: Outcome) -> Text:
    return Text(outcome, _COLOURS.get(outcome, "red"))


def _elapsed(row: Row) -> str:
    if row.outcome is not None and row.ended is None:
        return "-"
    seconds = max(0, round((row.ended or time.time()) - row.since))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _size(count: int | None) -> str:
    if count is None:
        return ""
    power = min(len(_UNITS) - 1, (max(1, count).bit_length() - 1) // 10)
    return f"{count / (1 << 10 * power):.{1 if power else 0}f} {_UNITS[power]}"


def _names(names: Iterable[str]) -> str:
    known = list(names)
    more = f" and {len(known) - _NAMES} more" if len(known) > _NAMES else ""
    return ", ".join(known[:_NAMES]) + more
