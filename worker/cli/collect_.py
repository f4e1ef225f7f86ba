"""`tsm-worker collect`: the answers of a batch that was sent before."""

import sys
from pathlib import Path

import click

from worker.cli import broker_option, config_option
from worker.cli.submit_ import TIME, await_answers, client, json_option, out_option


@click.command(
    "collect",
    epilog="""\b
Examples:
  tsm-worker collect 20261123-020000-3f9a2c
  tsm-worker collect nightly --timeout 8h --json >> answers.ndjson
  tsm-worker collect nightly --timeout 0 --out answers/     what has come so far

Exit codes: 0 all succeeded, 1 some failed, did not answer or have no queue, 2 usage, 75 the broker is
out of reach.""",
)
@config_option
@broker_option
@click.argument("batch_id", metavar="BATCH")
@click.option("--timeout", type=TIME, help="Wait this long at most; else until all have answered.")
@json_option
@out_option
def command(
    broker: str | None, batch_id: str, timeout: float | None, out: Path | None, *, as_json: bool
) -> None:
    """Take up the wait for BATCH, on this machine or another. Each answer is handed over once."""
    with client(broker) as fleet:
        sys.exit(await_answers(fleet, batch_id, timeout=timeout, as_json=as_json, out=out))
