"""The daemon: journal, slots, work and broker wired together; signals, drain, notification."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import msgspec
import structlog

from worker import __version__, signals
from worker.broker.link import Link
from worker.config import Config, ConfigError
from worker.dsmc import supervise
from worker.dsmc.supervise import Control
from worker.journal import Journal
from worker.log import configure as configure_log
from worker.slots import Slots
from worker.volumes import Volumes
from worker.work import Work

log = structlog.get_logger()

_LAST_WORDS = 10.0  # seconds that a stop gives to what is still to be published
_FOR_GOOD = ("host", "groups", "state_dir", "broker", "volumes", "metrics")  # keys only a restart changes
_HOUSEKEEPING = 3600.0  # seconds between looks for what may be forgotten


class Daemon:
    """One worker of one host, from its start to its stop."""

    def __init__(self, config: Config, volumes: Volumes, reload: Callable[[], Config] | None = None) -> None:
        """Open the journal. Raise ConfigError or JournalError if the worker cannot start.

        `reload` reads the configuration again, for SIGHUP.
        """
        self._config = config
        self._reload = reload
        self._hangup = threading.Event()
        self._control = Control()
        self._stop = threading.Event()
        self._turn = threading.Event()  # something happened that the main thread looks after
        self._journal = Journal(Path(config.state_dir), config.host)
        try:
            self._work = Work(config, self._journal, volumes, self._control)
            self._slots = Slots(config.slots, self._journal, self._work.do, self._job_over)
            self._link = Link(
                config,
                self._journal,
                self._slots,
                on_ready=lambda: notify("STATUS=Connected to the broker"),
                shorten=self._work.shorten,
            )
            self._journal.on_outbox = self._link.publish
            self._serve_metrics()
        except BaseException:
            self._journal.close()
            raise

    def _serve_metrics(self) -> None:
        if self._config.metrics.listen is None:
            return
        try:
            from worker import metrics  # noqa: PLC0415 -- its library is an extra, for those who ask for it
        except ImportError as error:
            raise ConfigError(
                "metrics.listen needs prometheus-client: pip install tsm-worker[metrics]"
            ) from error
        metrics.serve(self._config.metrics.listen, self._journal, lambda: self._link.connected)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT (Windows: Ctrl-C or Ctrl-Break), then stop; SIGHUP reads the configuration again.

        The stop order: take nothing new; give dsmc `drain` seconds; leave what still runs to its supervisors;
        publish what is ready; disconnect; close the journal.
        """
        signals.on_stop(self._on_stop)
        if sys.platform != "win32":
            signal.signal(signal.SIGHUP, self._on_hangup)
        log.info(
            "worker starts", version=__version__, host=self._config.host, state_dir=self._config.state_dir
        )
        supervise.prepare()
        notify("READY=1\nSTATUS=Looking for the broker")
        self._slots.tend()  # what an earlier worker left comes before anything new
        self._link.start()
        while not self._stop.is_set():
            if self._hangup.is_set():
                self._hangup.clear()
                self._configure()
            due_in = self._slots.tend()
            self._journal.prune(self._config.journal.keep)
            self._turn.wait(min(_HOUSEKEEPING, _HOUSEKEEPING if due_in is None else due_in))
            self._turn.clear()
        notify("STOPPING=1")
        log.info("worker stops", drain=self._config.drain)
        self._link.stop_intake()
        if not self._slots.close(self._config.drain):
            self._control.leave.set()
            self._slots.close(_LAST_WORDS)
        self._link.close(_LAST_WORDS)
        self._journal.close()
        log.info("worker stopped")

    def _configure(self) -> None:
        """Take over what the configuration says now, as far as a running worker can; a bad one changes nothing."""
        if self._reload is None:
            return
        try:
            new = self._reload()
        except ConfigError as error:
            log.error("configuration not reloaded", reason=str(error))
            return
        needs_restart = [key for key in _FOR_GOOD if getattr(new, key) != getattr(self._config, key)]
        kept = {key: getattr(self._config, key) for key in _FOR_GOOD}
        self._config = msgspec.structs.replace(new, **kept)
        configure_log(self._config.log)
        self._work.configure(self._config)
        self._slots.count = self._config.slots
        self._link.slot_freed()
        log.info("configuration reloaded", needs_restart=needs_restart)

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._hangup.set()
        self._turn.set()

    def _on_stop(self) -> None:
        self._stop.set()
        self._turn.set()

    def _job_over(self) -> None:
        self._link.slot_freed()
        self._turn.set()


def notify(state: str) -> None:
    """Tell systemd, where it has asked to be told (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address and sys.platform != "win32":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.sendall(state.encode())
