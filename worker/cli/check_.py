"""`tsm-worker check`: what may be backed up on this host."""

import click
import msgspec

from worker.cli import config_option, configuration
from worker.volumes import this_host


@click.command(
    "check", epilog="Examples: tsm-worker check; tsm-worker check /dev/sdb1 /home; tsm-worker check --json"
)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@click.argument("volumes", nargs=-1, metavar="[VOLUME...]")
def command(volumes: tuple[str, ...], *, as_json: bool) -> None:
    """Say of each VOLUME, or of all this host has, whether dsmc may make an image of it, and why."""
    settings = configuration()
    host = this_host(gpt_linux_data=settings.volumes.gpt_linux_data, timeout=settings.volumes.probe_timeout)
    verdicts = host.judge(volumes) if volumes else host.all()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(verdicts), indent=2))
        return
    from rich.console import Console  # noqa: PLC0415 -- only where a table is shown
    from rich.table import Table  # noqa: PLC0415

    table = Table("volume", "eligible", "device", "file system", "partition type", "reason", box=None)
    for verdict in verdicts:
        eligible = "[green]yes[/green]" if verdict.eligible else "[red]no[/red]"
        table.add_row(
            verdict.volume,
            eligible,
            verdict.device or "-",
            verdict.file_system or "-",
            verdict.partition_type or "-",
            verdict.reason,
        )
    Console().print(table)
