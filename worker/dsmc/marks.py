"""What a run's supervisor leaves in the run's directory for whoever comes later: `lock`, `started` and `exit`."""

from pathlib import Path

from worker import lock
from worker.dsmc.supervise import Control

_TICK = 0.5  # seconds between looks


def read(path: Path) -> str:
    """Return a small file's whole lines, '' if it is missing or its last line is not yet complete."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")  # a process may call itself anything
    except OSError:
        return ""
    return text if text.endswith("\n") else ""


def started(directory: Path, control: Control) -> str:
    """Return what the supervisor says of itself; '' if it never came to start.

    '' as well when `control.leave` is set while a supervisor is still held up by a full disk.
    """
    while not (told := read(directory / "started")):
        # Whoever starts a run, and then its supervisor, holds the lock.
        if not lock.held(directory / "lock"):
            return read(directory / "started")
        if control.leave.wait(_TICK):
            return ""
    return told
