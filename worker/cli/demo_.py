"""`tsm-worker demo`: all of it on this machine, with stand-ins for what an office desk lacks."""

import click

from worker.demo.show import show


@click.command("demo", epilog="Examples: tsm-worker demo; tsm-worker demo --json")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per response instead.")
def command(*, as_json: bool) -> None:
    """Show five requests to three hosts on a RabbitMQ of the demo's own, with a stand-in for dsmc.

    Nothing is backed up, and nothing is left behind. Takes half a minute at most.
    """
    show(as_json=as_json)
