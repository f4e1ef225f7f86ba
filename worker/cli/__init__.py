"""The command line: one small module per sub-command, imported when it is called for."""

import importlib
import sys
from collections.abc import Callable

import click

from worker import __version__, config
from worker.errors import TsmWorkerError

_COMMANDS = ("run", "exec", "check", "submit", "collect", "hosts", "dead", "status", "demo")


class _Commands(click.Group):
    """Finds a sub-command in the module of its name, so that `run` imports nothing of the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"worker.cli.{cmd_name}_").command
        return command


def _remember(context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        context.find_root().meta["worker.config"] = value
    return value


config_option: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--config",
    metavar="FILE",
    callback=_remember,
    expose_value=False,
    help=f"The configuration; else TSM_WORKER_CONFIG names it, else it is {config.default_path()}.",
)


def configuration() -> config.Config:
    """Return the configuration that the command line, the environment or the system's place names."""
    return config.load(click.get_current_context().find_root().meta.get("worker.config"))


broker_option: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--broker",
    metavar="URL",
    help="The broker's address; else TSM_WORKER_BROKER_URL names it, else the configuration. A password belongs in "
    "one of those two: a command line is seen by everybody on the machine.",
)


def configuration_at(broker: str | None) -> config.Config:
    """Return the configuration, with the broker that the option names."""
    if broker is None:
        return configuration()
    try:
        return config.at_broker(broker, "the address", configuration())
    except config.ConfigError as error:
        raise click.BadParameter(str(error), param_hint="--broker") from error


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 the work failed, 2 usage, 75 the broker is out of reach, 78 bad configuration.",
)
@config_option
@click.version_option(__version__, prog_name="tsm-worker")
def cli() -> None:
    """Image backups of IBM Storage Protect (TSM) clients, asked for over RabbitMQ."""


def main() -> None:
    """Run the command line; a failure that explains itself ends in one line and its exit code."""
    try:
        cli(prog_name="tsm-worker")
    except TsmWorkerError as error:
        click.echo(f"tsm-worker: {error}", err=True)
        sys.exit(error.exit_code)
