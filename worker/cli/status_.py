"""`tsm-worker status`: how the worker of this host is doing."""

import sys
import time
from pathlib import Path

import click
import msgspec

from worker import lock
from worker.broker.connection import obstacle, parameters
from worker.cli import config_option, configuration
from worker.config import Config
from worker.journal import JournalError
from worker.standing import JobStanding, Standing, standing
from worker.words import JobState

_STUCK = 600.0  # seconds a response or dead letter may wait in the outbox of a worker that has its broker
_OUT_OF_REACH = 75
_CELL = 36  # characters of a request's id that a line shows


@click.command(
    "status",
    epilog="""\b
Examples:
  tsm-worker status
  tsm-worker status --last 50 --json
  tsm-worker status >/dev/null || echo "look after tsm-worker on $(hostname)"

Exit codes, for monitoring: 0 the worker runs, reaches its broker and keeps up; 1 it does not run, its journal
cannot be read, or a response has waited in the outbox for ten minutes; 75 the broker is out of reach; 78 bad
configuration. A job that failed is no trouble of the worker's: its story is a dead letter (tsm-worker dead).""",
)
@config_option
@click.option(
    "--last",
    default=10,
    show_default=True,
    type=click.IntRange(min=0),
    help="How many finished jobs to show.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(last: int, *, as_json: bool) -> None:
    """Show this host's jobs, outbox and broker. Needs no running worker, and does not disturb one."""
    settings = configuration()
    state_dir = Path(settings.state_dir)
    found = standing(state_dir, last) or Standing()
    running = _runs(state_dir)
    broker, reason = _broker(settings)
    waited = 0.0 if found.outbox_since is None else time.time() - found.outbox_since
    problems = []
    if not running:
        problems.append(
            f"no worker runs on {state_dir}; start it: tsm-worker run, or systemctl start tsm-worker"
        )
    if waited > _STUCK:
        problems.append(f"a response has waited in the outbox for {_span(waited)}; the worker's log says why")
    if broker == "unreachable":
        problems.append(f"{reason}; a worker that runs keeps trying, and keeps what it has to tell")
    if as_json:
        told = {
            "host": settings.host,
            "running": running,
            "jobs": found.jobs,
            "outbox": found.outbox,
            "outbox_since": found.outbox_since,
            "broker": broker,
            "problems": problems,
        }
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2))
    else:
        click.echo(f"{settings.host}: worker {'runs' if running else 'does not run'}, broker {broker}")
        click.echo(f"outbox: {found.outbox} to be published")
        for job in found.jobs:
            click.echo(_line(job, time.time()))
        for problem in problems:
            click.echo(problem, err=True)
    only_broker = len(problems) == 1 and broker == "unreachable"
    sys.exit(_OUT_OF_REACH if only_broker else 1 if problems else 0)


def _runs(state_dir: Path) -> bool:
    """Whether a worker holds the state directory's lock."""
    file = state_dir / "lock"
    try:
        return file.exists() and lock.held(file)
    except OSError as error:
        raise JournalError(
            f"the lock {file} cannot be looked at: {error}; run this as the worker's user, or as root"
        ) from error


def _broker(settings: Config) -> tuple[str, str]:
    """Return reachable, unreachable, or unknown where no address is configured; and why."""
    if settings.broker.url is None:
        return "unknown", ""
    reason = obstacle(parameters(settings))
    return ("reachable", "") if reason is None else ("unreachable", reason)


def _line(job: JobStanding, now: float) -> str:
    said = f"{job.request_id[:_CELL]:{_CELL}}  {job.outcome or job.state:23}  "
    if job.state is JobState.RUNNING and job.started_at is not None:
        limit = "" if job.time_limit is None else f" of {_span(job.time_limit)}"
        said += f"attempt {job.attempts}, for {_span(now - job.started_at)}{limit}"
    elif job.state is JobState.WAITING and job.next_try_at is not None:
        said += f"attempt {job.attempts + 1} in {_span(job.next_try_at - now)}"
    elif job.finished_at is not None:
        said += f"{_span(now - job.finished_at)} ago" + (
            f": {job.error_code}: {job.reason}" if job.error_code else ""
        )
    else:
        said += f"waits for a slot, for {_span(now - job.accepted_at)}"
    return "".join(c if c.isprintable() else "\ufffd" for c in said)


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
