"""Copies of the dead letters in hand, kept on the disk until it is proven that the queue keeps what is given back."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import msgspec
import pika

from worker.broker import topology
from worker.errors import TsmWorkerError
from worker.fleet import letter as letters
from worker.fleet.tap import Delivery


class ReviewError(TsmWorkerError):
    """The dead letters cannot be looked at now; nothing was changed."""


class Shelf:
    """Where copies are while letters are at risk: a folder of this user for each vhost of each broker."""

    def __init__(self, parameters: pika.ConnectionParameters) -> None:
        """Raise ReviewError if an earlier look has found that the queue drops letters."""
        name = f"{parameters.host}:{parameters.port}/{parameters.virtual_host}"
        self._folder = _state_home() / "tsm-worker" / "dead-letters" / sha256(name.encode()).hexdigest()[:16]
        for file in self._folder.glob("*.dropped"):
            raise ReviewError(
                f"an earlier look found that {topology.DEAD_QUEUE} drops letters that are looked at; nothing was "
                f"touched. What it dropped is in {file}. docs/dead-letters.md says how to lift the queue's delivery "
                "limit and how to put the letters back; then remove that file"
            )

    @contextmanager
    def copies(self) -> Iterator["Copies"]:
        """Have a file for copies, which stays until a look has come to its end. Raise ReviewError if there cannot be one."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            copies = Copies(self._folder / f"{time.time():.0f}-{os.getpid()}.copies")
        except OSError as error:
            raise _unsafe(error) from error
        yield copies
        copies.close()
        for file in self._folder.glob("*.copies"):  # those of looks that were cut short, too
            file.unlink(missing_ok=True)


class Copies:
    """Copies of the letters that are in hand, one line of JSON each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b")
        path.chmod(0o600)

    def add(self, delivery: Delivery) -> None:
        """Write one."""
        try:
            self._file.write(letters.line(delivery.letter, delivery.properties, delivery.body) + b"\n")
        except OSError as error:
            raise _unsafe(error) from error

    def safe(self) -> None:
        """Have them on the disk when this returns."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unsafe(error) from error

    def keep(self, dropped: Delivery) -> NoReturn:
        """Keep the copies of this letter, and of those that come back as often as it did. Raise ReviewError."""
        limit = dropped.returns or 0
        self._file.seek(0)
        lines = list(
            filter(None, (line if _at_risk(line, dropped.letter.id, limit) else b"" for line in self._file))
        )
        self._file.seek(0)
        self._file.truncate()
        self._file.writelines(lines)
        self.safe()
        self._file.close()
        kept = self._path.rename(self._path.with_suffix(".dropped"))
        raise ReviewError(
            f"{topology.DEAD_QUEUE} drops letters that are looked at more than {limit} times: it has a delivery limit. "
            f"What it dropped is in {kept}. docs/dead-letters.md says how to lift the limit and how to put letters back"
        )

    def close(self) -> None:
        """Write no more."""
        self._file.close()


def _at_risk(line: bytes, letter_id: str, limit: int) -> bool:
    whole = msgspec.json.decode(line)
    return bool(whole["id"] == letter_id or whole["headers"].get("x-delivery-count", 0) >= limit)


def _unsafe(error: OSError) -> ReviewError:
    return ReviewError(
        f"the copies that protect the letters cannot be written: {error}; free the disk, or set XDG_STATE_HOME to a "
        "folder of yours"
    )


def _state_home() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home())
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
