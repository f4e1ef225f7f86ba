"""`tsm-worker submit`: one request to many hosts."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import click
import msgspec

from worker.cli import broker_option, config_option, configuration_at
from worker.config import Duration
from worker.errors import RequestRefused
from worker.fleet import draft, report
from worker.fleet.batch import Batch, BatchError
from worker.fleet.client import Client


class _Time(click.ParamType[float]):
    """A number of seconds, or a duration such as 90s, 30m, 2h."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value) if str(value).isdecimal() else float(Duration.parse(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write 90s, 30m, 2h, 1d, or a number of seconds", param, ctx)
        return seconds


TIME = _Time()

json_option: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object per line."
)
out_option: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Write each response to HOST.xml in here."
)


def client(url: str | None) -> Client:
    """Return a client of the broker that the command line, the environment or the configuration names."""
    return Client(configuration_at(url))


@click.command(
    "submit",
    epilog="""\b
Examples:
  tsm-worker submit --volume /dev/sdb1 --option compression=yes --host web01 --host web02 --wait
  tsm-worker submit request.xml --hosts-file hosts.txt --wait --json > answers.ndjson
  tsm-worker submit request.xml --group web --expires 2h --detach
  tsm-worker submit --volume /home --timeout 4h --all --wait --expect 50 --out answers/

Exit codes: 0 all succeeded (without --wait: all were sent), 1 some failed, did not answer or have no
queue, 2 usage, 75 the broker is out of reach.""",
)
@config_option
@broker_option
@click.argument("request_file", metavar="[REQUEST.xml|-]", type=click.File("rb"), required=False)
@click.option(
    "--volume", "volumes", multiple=True, metavar="V", help="Build the request: a volume (repeatable)."
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="K=V",
    help="… an option of dsmc; K alone for a flag (repeatable).",
)
@click.option("--timeout", type=TIME, help="… how long dsmc may run, such as 4h.")
@click.option("--host", "hosts", multiple=True, metavar="H", help="Ask this host (repeatable).")
@click.option(
    "--hosts-file",
    type=click.File("r"),
    metavar="F",
    help="Ask the hosts in this file: one a line, # for comments.",
)
@click.option(
    "--group", "groups", multiple=True, metavar="G", help="Ask the hosts of this group (repeatable)."
)
@click.option("--all", "everyone", is_flag=True, help="Ask every host.")
@click.option("--expires", type=TIME, help="A host that has not started by then does not start at all.")
@click.option(
    "--expect", type=click.IntRange(min=1), metavar="N", help="How many hosts a group, or all, are."
)
@click.option(
    "--batch",
    "batch_id",
    metavar="ID",
    help="The batch's id; the same again asks again, and runs nothing twice.",
)
@click.option("--wait", is_flag=True, help="Wait for the answers, and show how it goes.")
@click.option("--wait-timeout", type=TIME, help="… this long at most.")
@click.option(
    "--detach", is_flag=True, help="Do not wait; print the batch's id, for `tsm-worker collect`. The default."
)
@json_option
@out_option
def command(
    broker: str | None,
    request_file: Any,
    volumes: tuple[str, ...],
    options: tuple[str, ...],
    timeout: float | None,
    hosts: tuple[str, ...],
    hosts_file: TextIO | None,
    groups: tuple[str, ...],
    expires: float | None,
    expect: int | None,
    batch_id: str | None,
    wait_timeout: float | None,
    out: Path | None,
    *,
    everyone: bool,
    wait: bool,
    detach: bool,
    as_json: bool,
) -> None:
    """Send a request to hosts: REQUEST.xml, or one built from --volume, --option and --timeout."""
    _check_usage(wait=wait, detach=detach, needs_wait={"--out": out, "--wait-timeout": wait_timeout})
    body = _request(request_file, volumes, options, timeout)
    if hosts_file is not None:
        hosts += tuple(filter(None, (line.partition("#")[0].strip() for line in hosts_file)))
        if not hosts:
            raise click.UsageError("--hosts-file names no host")
    if wait and not hosts and expect is None and wait_timeout is None:
        raise click.UsageError(
            "nobody knows how many hosts a group is: say --expect N, or --wait-timeout T, or both"
        )
    with client(broker) as fleet:
        try:
            batch = fleet.submit(
                body,
                hosts=hosts,
                groups=groups,
                everyone=everyone,
                expect=expect,
                expires=expires,
                batch_id=batch_id,
                watch=wait,
            )
        except BatchError as error:
            raise click.UsageError(str(error)) from error
        except RequestRefused as error:
            raise click.UsageError(f"the request would be refused ({error.code}): {error}") from error
        _tell(batch, wait=wait, as_json=as_json)
        if not wait:
            sys.exit(1 if batch.unroutable else 0)
        sys.exit(await_answers(fleet, batch, timeout=wait_timeout, as_json=as_json, out=out))


def await_answers(
    fleet: Client, batch: Batch | str, *, timeout: float | None, as_json: bool, out: Path | None
) -> int:
    """Collect a batch, showing it, until its end or Ctrl-C; return the exit code."""
    try:
        collection = fleet.collect(batch, timeout=timeout)
        good = report.collect(collection, talk=sys.stderr, data=sys.stdout, as_json=as_json, out=out)
    except KeyboardInterrupt:  # before the wait has begun; in it, it is the collection's
        batch_id = batch if isinstance(batch, str) else batch.id
        click.echo(f"take up the wait with: tsm-worker collect {batch_id}", err=True)
        return 1
    return 0 if good else 1


def _check_usage(*, wait: bool, detach: bool, needs_wait: dict[str, object]) -> None:
    if wait and detach:
        raise click.UsageError("--wait and --detach exclude each other")
    for name, value in needs_wait.items():
        if value is not None and not wait:
            raise click.UsageError(f"{name} needs --wait")


def _request(file: Any, volumes: tuple[str, ...], options: tuple[str, ...], timeout: float | None) -> bytes:
    if file is not None and (volumes or options or timeout is not None):
        raise click.UsageError("REQUEST.xml, or --volume, --option and --timeout: not both")
    if file is not None:
        return bytes(file.read())
    if not volumes:
        raise click.UsageError("there is no request: name a file, or at least one --volume")
    seconds = None if timeout is None else max(1, round(timeout))
    try:
        return draft.request(*volumes, options=[draft.option(each) for each in options], timeout=seconds)
    except RequestRefused as error:
        raise click.UsageError(f"the request would be refused ({error.code}): {error}") from error


def _tell(batch: Batch, *, wait: bool, as_json: bool) -> None:
    """Print the batch's id, and on stderr whom it could not be sent to."""
    sent = batch.asked if batch.hosts else [each for each in batch.targets if each not in batch.unroutable]
    what = f"{len(sent)} host{'s' * (len(sent) != 1)}" if batch.hosts else ", ".join(sent) or "nobody"
    click.echo(f"batch {batch.id}: sent to {what}", err=True)
    for name in batch.unroutable:
        click.echo(f"{name}: unroutable; no worker has declared a queue for it", err=True)
    if wait:
        return
    if as_json:
        told = {
            "batch": batch.id,
            "hosts": batch.asked,
            "targets": batch.targets,
            "unroutable": batch.unroutable,
        }
        click.echo(msgspec.json.encode(told))
    else:
        click.echo(batch.id)
