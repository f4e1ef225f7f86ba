"""`tsm-worker dead`: the review of what failed for good."""

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import reduce
from typing import IO, Any

import click
import msgspec
from rich.console import Console

from worker.broker.connection import parameters
from worker.cli import broker_option, config_option, configuration_at
from worker.cli.submit_ import TIME
from worker.fleet import draft, listing
from worker.fleet.dead import DeadLetters, Report
from worker.fleet.letter import Edit, Letter, Selection
from worker.words import Outcome

_NO_TERMINAL = 160  # columns where there is no terminal to ask
_NAMED = 10  # letters that a question names
_OUTCOMES = [each.value for each in Outcome if not each.successful and each is not Outcome.CANCELLED]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class _Since(click.ParamType[datetime]):
    """A time so long ago, or an ISO 8601 time (without a zone: this machine's)."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return datetime.fromisoformat(value).astimezone()
        except ValueError:
            seconds = TIME.convert(value, param, ctx)
            return datetime.fromtimestamp(datetime.now(UTC).timestamp() - seconds, UTC)


def _all_of(*decorators: Decorator) -> Decorator:
    return lambda function: reduce(lambda made, decorator: decorator(made), reversed(decorators), function)


_broker = _all_of(
    config_option,
    broker_option,
    click.option(
        "--limit-lifted",
        is_flag=True,
        help="Answer for it that a policy has lifted the queue's delivery limit (docs/dead-letters.md).",
    ),
)
_filters = _all_of(
    click.option("--host", "hosts", multiple=True, metavar="H", help="Letters of this host (repeatable)."),
    click.option(
        "--code", "codes", multiple=True, metavar="CODE", help="… with this error code, such as timed-out."
    ),
    click.option(
        "--ans", "ans_codes", multiple=True, metavar="CODE", help="… with this message, such as ANS1017E."
    ),
    click.option(
        "--outcome", "outcomes", multiple=True, type=click.Choice(_OUTCOMES), help="… of this outcome."
    ),
    click.option(
        "--since", type=_Since(), metavar="T", help="… from the last 2h, or from 2026-11-23T02:00 on."
    ),
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_ids = click.argument("ids", nargs=-1, metavar="[ID...]")


@click.group(
    "dead",
    epilog="""\b
Examples:
  tsm-worker dead list --since 12h
  tsm-worker dead show 3f9a2c1e
  tsm-worker dead replay --code timed-out --timeout 8h
  tsm-worker dead discard --host retired01 --archive retired.ndjson

Exit codes: 0 done, 1 some of it was not, 2 usage, 75 the broker is out of reach or refuses, 78 bad
configuration.""",
)
def command() -> None:
    """Review the dead letters: what failed for good.

    They are the requests of all hosts, each with its story.

    An ID is a letter's id or the beginning of it. Several reviewers may work at once; looking changes nothing.
    """


@command.command(
    "list", epilog="Examples: tsm-worker dead list; tsm-worker dead list --ans ANS1017E --since 2h --json"
)
@_broker
@_filters
@_json
def list_(broker: str | None, *, limit_lifted: bool, as_json: bool, **filters: Any) -> None:
    """List the letters, oldest first."""
    with _review(broker, limit_lifted=limit_lifted) as dead:
        letters = dead.letters(_selection(**filters))
        if as_json:
            _print_json_list(msgspec.json.encode(letter) for letter in letters)
        elif not _print_table(letters):
            click.echo("no dead letters", err=True)


@command.command(
    "show", epilog="Examples: tsm-worker dead show 3f9a2c1e; tsm-worker dead show 3f9a2c1e --json"
)
@_broker
@click.argument("letter_id", metavar="ID")
@_json
def show(broker: str | None, letter_id: str, *, limit_lifted: bool, as_json: bool) -> None:
    """Show one letter's whole story.

    Why it failed, its headers, the end of dsmc's output, its request.
    """
    with _review(broker, limit_lifted=limit_lifted) as dead:
        (line,) = dead.lines(Selection(ids=(letter_id,)))
    if as_json:
        click.echo(line)
        return
    listing.tell(line, _console())


@command.command(
    "replay",
    epilog="""\b
Examples:
  tsm-worker dead replay 3f9a2c1e 77b0
  tsm-worker dead replay --ans ANS1311E --since 1d --yes
  tsm-worker dead replay --code timed-out --timeout 12h --set compression=no

A letter leaves the list once the broker has confirmed its replay. The replay has a message id of its own,
names the old one (tsm-replay-of), and is answered where the first request was.""",
)
@_broker
@_ids
@_filters
@click.option(
    "--set",
    "options",
    multiple=True,
    metavar="K=V",
    help="Change an option of dsmc on the way; K alone for a flag.",
)
@click.option("--timeout", type=TIME, metavar="T", help="… how long each run of dsmc may take, such as 8h.")
@_yes
@_json
def replay(
    broker: str | None,
    ids: tuple[str, ...],
    options: tuple[str, ...],
    timeout: float | None,
    *,
    limit_lifted: bool,
    yes: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Send requests to their hosts again.

    Those of the letters with these IDs, or of those that the filters choose.
    """
    seconds = None if timeout is None else max(1, round(timeout))
    edit = Edit(tuple(draft.option(each) for each in options), seconds)
    with _review(broker, limit_lifted=limit_lifted) as dead:
        chosen = _choose(dead, "replay", _selection(ids, **filters), yes=yes)
        _tell(dead.replay(chosen, edit), "replayed", as_json=as_json)


@command.command(
    "discard",
    epilog="Examples: tsm-worker dead discard 3f9a2c1e; tsm-worker dead discard --since 2026-11-01 --archive old.ndjson --yes",
)
@_broker
@_ids
@_filters
@click.option(
    "--archive",
    type=click.File("ab"),
    metavar="FILE",
    help="Append the letters to FILE first, one line of JSON each.",
)
@_yes
@_json
def discard(
    broker: str | None,
    ids: tuple[str, ...],
    archive: IO[bytes] | None,
    *,
    limit_lifted: bool,
    yes: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Take letters out of the list for good.

    Those with these IDs, or those that the filters choose.
    """
    with _review(broker, limit_lifted=limit_lifted) as dead:
        chosen = _choose(dead, "discard", _selection(ids, **filters), yes=yes)
        _tell(dead.discard(chosen, archive), "discarded", as_json=as_json)


@command.command("export", epilog="Example: tsm-worker dead export --since 7d > letters.ndjson")
@_broker
@_filters
def export(broker: str | None, *, limit_lifted: bool, **filters: Any) -> None:
    """Print the letters whole, as NDJSON.

    One line of JSON each: fields, properties, headers, and body (or body_base64, where it is no text).
    """
    with _review(broker, limit_lifted=limit_lifted) as dead:
        for line in dead.lines(_selection(**filters)):
            sys.stdout.buffer.write(line + b"\n")


@command.command("stats", epilog="Examples: tsm-worker dead stats; tsm-worker dead stats --since 7d --json")
@_broker
@_filters
@_json
def stats(broker: str | None, *, limit_lifted: bool, as_json: bool, **filters: Any) -> None:
    """Count the letters by host, error code and day."""
    with _review(broker, limit_lifted=limit_lifted) as dead:
        counts = listing.Counts(dead.letters(_selection(**filters)))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(counts.told())))
    else:
        counts.show(_console())


# -- what they share --------------------------------------------------------------------------------------


@contextmanager
def _review(broker: str | None, *, limit_lifted: bool) -> Iterator[DeadLetters]:
    """Give the dead letters, with a progress bar where somebody watches and it takes long."""
    bar = listing.Bar()
    try:
        yield DeadLetters(
            parameters(configuration_at(broker)),
            say=lambda sentence: click.echo(sentence, err=True),
            on_progress=bar,
            limit_lifted=limit_lifted,
        )
    finally:
        bar.close()


def _selection(
    ids: tuple[str, ...] = (),
    *,
    hosts: tuple[str, ...],
    codes: tuple[str, ...],
    ans_codes: tuple[str, ...],
    outcomes: tuple[str, ...],
    since: datetime | None,
) -> Selection:
    codes_of_dsmc = tuple(code.upper() for code in ans_codes)
    return Selection(ids, hosts, codes, codes_of_dsmc, outcomes, since)


def _choose(dead: DeadLetters, verb: str, selection: Selection, *, yes: bool) -> list[str]:
    """Return the ids of the letters that are meant, once the user has agreed to them."""
    if selection == Selection():
        raise click.UsageError(
            f"say which letters to {verb}: their ids, or a filter such as --host or --since 30d"
        )
    chosen: list[str] = []
    for letter in dead.letters(selection):
        chosen.append(letter.id)
        if not yes and len(chosen) <= _NAMED:
            told = f"{letter.id[: listing.SHORT]}  {letter.host}  {letter.error_code}  {' '.join(letter.volumes)}"
            click.echo(listing.printable(told), err=True)
    if chosen and not yes:
        if len(chosen) > _NAMED:
            click.echo(f"… and {len(chosen) - _NAMED} more", err=True)
        click.confirm(f"{verb.capitalize()} {_counted(len(chosen))}?", abort=True, err=True)
    return chosen


def _tell(report: Report, done: str, *, as_json: bool) -> None:
    """Print what became of letters; end with 1 if some are left."""
    if as_json:
        click.echo(msgspec.json.encode({done: sorted(report.done), "left": report.left}))
    else:
        for letter_id, reason in report.left.items():
            click.echo(f"{letter_id[: listing.SHORT]}: {listing.printable(reason)}", err=True)
        click.echo(
            f"{_counted(len(report.done))} {done}" + (f", {len(report.left)} left" if report.left else "")
        )
    sys.exit(1 if report.left else 0)


def _counted(count: int) -> str:
    return "1 letter" if count == 1 else f"{count} letters"


def _print_json_list(items: Iterable[bytes]) -> None:
    mark = b"[\n"
    for item in items:
        sys.stdout.buffer.write(mark + item)
        mark = b",\n"
    sys.stdout.buffer.write(b"[]\n" if mark == b"[\n" else b"\n]\n")


def _print_table(letters: Iterable[Letter]) -> bool:
    """Print the letters, each as it comes: any number will do; return whether there were any."""
    terminal = sys.stdout.isatty()
    number = 0
    for number, line in enumerate(
        listing.table(letters, shutil.get_terminal_size().columns if terminal else None)
    ):
        click.echo(click.style(line, bold=True) if terminal and not number else line)
    return number > 0


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _NO_TERMINAL)
