"""The dead letters as people see them: a table, one letter's story, counts, and how far a long look is."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import msgspec
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import Progress
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from worker.fleet.letter import Letter, indented, parse

SHORT = 8  # characters of an id that are shown
_LONG = 1000  # letters from which on a progress bar is worth it
# The table's columns and their widths; the reason has the rest.
_COLUMNS = {"id": SHORT, "host": 15, "volume": 20, "outcome": 11, "code": 19, "age": 4, "tries": 5}
_UNITS = (("d", 86400), ("h", 3600), ("m", 60))


def table(letters: Iterable[Letter], width: int | None) -> Iterator[str]:
    """Yield a head and a line for each letter as it comes, cut to a terminal's width if there is one; none for none."""
    for number, letter in enumerate(letters):
        if not number:
            yield _row([*_COLUMNS, "reason"], width)
        more = f" +{len(letter.volumes) - 1}" if len(letter.volumes) > 1 else ""
        volumes = letter.volumes[0] + more if letter.volumes else "-"
        told = [letter.id[:SHORT], letter.host or "?", volumes, letter.outcome, letter.error_code]
        yield _row([*told, _age(letter.when), str(letter.attempts), letter.reason], width)


def tell(line: bytes, console: Console) -> None:
    """Print a letter, given whole as `letter.line` writes it: its facts, the end of dsmc's output, its request."""
    letter, body = parse(line)
    facts = {name.replace("_", " "): value for name, value in msgspec.to_builtins(letter).items()}
    last_lines = facts.pop("last lines")
    headers = msgspec.json.decode(line)["headers"]
    facts |= {name: value for name, value in headers.items() if not name.startswith("tsm-")}  # told already
    for name, value in facts.items():
        if value not in (None, "", [], ()):
            shown = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            console.print(Text(f"{printable(name):20} ", "bold") + Text(printable(shown)), soft_wrap=True)
    if last_lines:
        console.print(Text("\nits output ended with", "bold"))
        console.print(Text("\n".join(map(printable, last_lines))), soft_wrap=True)
    console.print(Text("\nthe request", "bold"))
    text = printable(indented(body), keep="\n\t")
    coloured = Syntax(text, "xml", background_color="default", word_wrap=True)
    console.print(coloured if console.is_terminal else Text(text), soft_wrap=True)


class Counts:
    """How many letters there are by host, error code and day."""

    def __init__(self, letters: Iterable[Letter]) -> None:
        self.total = 0
        self.by: dict[str, Counter[str]] = {"host": Counter(), "code": Counter(), "day": Counter()}
        for self.total, letter in enumerate(letters, start=1):
            self.by["host"][letter.host] += 1
            self.by["code"][letter.error_code] += 1
            self.by["day"][letter.when.astimezone().date().isoformat() if letter.when else "unknown"] += 1

    def told(self) -> dict[str, object]:
        """Return them as `dead stats --json` prints them."""
        return {
            "total": self.total,
            **{f"by_{name}": dict(found.most_common()) for name, found in self.by.items()},
        }

    def show(self, console: Console) -> None:
        """Print them as tables."""
        for name, found in self.by.items():
            shown = Table(name, "letters", box=None, pad_edge=False)
            for key, count in sorted(found.items()) if name == "day" else found.most_common():
                shown.add_row(Text(printable(key) or "unknown"), str(count))
            console.print(shown)
        console.print(f"{self.total} dead letters")


class Bar:
    """A progress bar on stderr, there from the first of many letters to the last."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def __call__(self, done: int, total: int) -> None:
        """Show that so many letters of so many have been looked at."""
        if total < _LONG or not sys.stderr.isatty():
            return
        if self._progress is None:
            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._progress.add_task("dead letters", total=total)
            self._progress.start()
        self._progress.update(self._progress.task_ids[0], completed=done)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Take it away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _row(cells: list[str], width: int | None) -> str:
    """Return cells as a line: all but the last cut to their columns, all of it to the terminal's width."""
    fitted = [
        set_cell_size(printable(cell), size) for cell, size in zip(cells, _COLUMNS.values(), strict=False)
    ]
    line = " ".join([*fitted, printable(cells[-1])])
    return line if width is None or cell_len(line) <= width else set_cell_size(line, width - 1) + "…"


def _age(when: datetime | None) -> str:
    if when is None:
        return "?"
    seconds = max(0, (datetime.now(UTC) - when).total_seconds())
    return next(
        (f"{seconds // size:.0f}{unit}" for unit, size in _UNITS if seconds >= size), f"{seconds:.0f}s"
    )


def printable(value: object, keep: str = "") -> str:
    """Return text of a message as it may be shown: nothing in it commands a terminal."""
    return "".join(c if c.isprintable() or c in keep else "\ufffd" for c in str(value))
