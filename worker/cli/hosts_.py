"""`tsm-worker hosts`: who is there, and what each is doing."""

import sys
import time
from datetime import UTC, datetime

import click
import msgspec

from worker.cli import broker_option, config_option
from worker.cli.submit_ import TIME, client
from worker.fleet.presence import Present

_NO_TERMINAL = 160  # columns where there is no terminal to ask


@click.command(
    "hosts",
    epilog="""\b
Examples:
  tsm-worker hosts
  tsm-worker hosts --group web --json
  tsm-worker hosts --since 1h        also those that have been silent for long

A host speaks when it connects, when something happens to a job, every five minutes and when it stops.""",
)
@config_option
@broker_option
@click.option("--group", metavar="G", help="Only the hosts of this group.")
@click.option(
    "--since", type=TIME, default="15m", show_default=True, help="How far to look back, an hour at most."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def command(broker: str | None, group: str | None, since: float, *, as_json: bool) -> None:
    """Show the hosts that have spoken lately: their groups, version, platform, state, job and when they last spoke."""
    with client(broker) as fleet:
        found = [host for host in fleet.hosts(since) if group is None or group in host.groups]
    if as_json:
        told = [{**msgspec.to_builtins(host), "silent": host.silent} for host in found]
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2))
        return
    from rich.console import Console  # noqa: PLC0415 -- only where a table is shown
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table("host", "groups", "version", "platform", "state", "job", "last seen", box=None)
    for host in found:
        job = next((job.request_id for job in host.jobs if job.state == host.state), "-")
        more = f" and {len(host.jobs) - 1} more" if len(host.jobs) > 1 else ""
        state = Text("silent", "red") if host.silent else Text(host.state, _colour(host))
        row = (host.host, ", ".join(host.groups) or "-", host.version, host.platform)
        table.add_row(*map(Text, row), state, Text(f"{job}{more}"), _ago(host.time))
    Console(width=None if sys.stdout.isatty() else _NO_TERMINAL).print(table)


def _colour(host: Present) -> str:
    return {"idle": "green", "stopped": "magenta"}.get(host.state, "cyan")


def _ago(when: float) -> str:
    seconds = round(time.time() - when)
    clock = datetime.fromtimestamp(when, UTC).astimezone().strftime("%H:%M:%S")
    return f"{clock}, {max(0, seconds)} s ago"
