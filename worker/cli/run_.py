"""`tsm-worker run`: the daemon."""

import click

from worker import log
from worker.cli import config_option, configuration
from worker.daemon import Daemon
from worker.volumes import this_host


@click.command("run", epilog="Example: tsm-worker run --config /etc/tsm-worker/worker.toml")
@config_option
def command() -> None:
    """Serve this host: take requests from its queue, back up, answer. SIGTERM or Ctrl-C ends it."""
    settings = configuration()
    log.configure(settings.log)
    volumes = this_host(
        gpt_linux_data=settings.volumes.gpt_linux_data, timeout=settings.volumes.probe_timeout
    )
    Daemon(settings, volumes, configuration).run()
