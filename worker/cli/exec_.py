"""`tsm-worker exec`: one request, here and now, without a broker."""

import sys
from typing import BinaryIO

import click

from worker import log
from worker.cli import config_option, configuration
from worker.once import execute
from worker.volumes import this_host


@click.command("exec", epilog="Example: tsm-worker exec request.xml > response.xml")
@config_option
@click.argument("request", metavar="REQUEST.xml|-", type=click.File("rb"))
def command(request: BinaryIO) -> None:
    """Do one request, tried once, and print the response XML. Exit 0 if it worked, 1 if not."""
    settings = configuration()
    log.configure(settings.log)
    volumes = this_host(
        gpt_linux_data=settings.volumes.gpt_linux_data, timeout=settings.volumes.probe_timeout
    )
    outcome, response = execute(request.read(), settings, volumes)
    sys.stdout.buffer.write(response + b"\n")
    sys.exit(0 if outcome.successful else 1)
