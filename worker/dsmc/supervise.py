"""One run of dsmc under its supervisor: started, waited for, found again by a later worker, ended.

dsmc writes its transcript to a file by itself and a supervisor writes down its exit status; both outlive the
worker. A restarted one finds the run by its directory and goes on waiting.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

from worker.dsmc.outcome import End
from worker.errors import TsmWorkerError

# What is the worker's alone: its settings and secrets, and its own ties to systemd.
_OWN_VARIABLES = ("TSM_WORKER_", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")


class CannotStart(TsmWorkerError):
    """The operating system would not start a run of dsmc."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended; time in seconds.

    `exit_code` is 0 to 255 (128 + n: by signal n), on Windows any 32 bits (0xC0000000 and more: a crash), None
    where it left none.
    """

    end: End
    exit_code: int | None
    elapsed: float


class Control:
    """What the worker wants of the runs it waits for: to leave them to their supervisors, or to end them."""

    def __init__(self) -> None:
        self.leave = Event()
        self.cancel = Event()


class Run(Protocol):
    """A run of dsmc in its directory; its output is in the file `transcript`."""

    transcript: Path

    def wait(self, limit: float, grace: float, control: Control) -> Ending | None:
        """Wait until the run is over, and end it when `limit` seconds since its start have passed.

        Ending it is asking the whole group of its processes to end, and making them after `grace` seconds.
        Return None, the run going on, when `control.leave` is set first.
        """


def start(directory: Path, argv: Sequence[str]) -> Run:
    """Start `argv` under a supervisor, its output going to the directory's transcript.

    Raise CannotStart if the system refuses; nothing runs then.
    """
    return _platform().start(directory, argv)


def find(directory: Path, control: Control) -> Run | None:
    """Return the run an earlier worker started here, over or not; None if it never came to start.

    None as well when `control.leave` is set while a supervisor is still held up by a full disk.
    """
    return _platform().find(directory, control)


def prepare() -> None:
    """Make this process one that runs survive best: call once, before the first."""
    if sys.platform == "linux":
        from worker.dsmc import orphans  # noqa: PLC0415

        orphans.adopt()


def boot() -> str:
    """Return the identity of this boot of the host: no run of another one lives."""
    return _platform().boot()


def environment() -> dict[str, str]:
    """Return the variables a run gets: this process's own, `DSM_*` among them, but none of the worker's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}


class _Platform(Protocol):
    """What the class `Run` of each platform's module has."""

    def boot(self) -> str: ...

    def start(self, directory: Path, argv: Sequence[str]) -> Run: ...

    def find(self, directory: Path, control: Control) -> Run | None: ...


def _platform() -> _Platform:
    if sys.platform == "win32":
        from worker.dsmc import windows  # noqa: PLC0415 -- one platform's code only

        return windows.Run
    from worker.dsmc import posix  # noqa: PLC0415

    return posix.Run
