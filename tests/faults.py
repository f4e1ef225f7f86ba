"""Faults as a matter of course: a worker killed at a named point, a network that is cut or swallows all, a full disk."""

import os
import selectors
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# Where a process can be killed: the method, and whether before or after it does its work. For a worker, set
# TSM_TEST_KILL_AT to one of these in the environment of `stand_in_host`; each kills once, leaving the file
# TSM_TEST_KILLED behind.
POINTS: dict[str, tuple[str, str, str]] = {
    "before-accept": ("worker.journal", "Journal.accept", "before"),
    "after-accept": ("worker.journal", "Journal.accept", "after"),
    "before-start-is-noted": ("worker.journal", "Journal.start", "before"),
    "after-start-is-noted": ("worker.journal", "Journal.start", "after"),
    "after-spawn": ("worker.dsmc.posix", "Run.start", "after"),
    "after-exit-file": ("worker.dsmc.posix", "Run.wait", "after"),
    "after-end-is-noted": ("worker.journal", "Journal.end", "after"),
    "before-finish": ("worker.journal", "Journal.finish", "before"),
    "after-finish": ("worker.journal", "Journal.finish", "after"),
    "after-publish-before-confirm": ("worker.broker.outbox", "Outbox.on_confirm", "before"),
    "after-confirm-before-journal": ("worker.journal", "Journal.published", "before"),
    "after-journal-says-published": ("worker.journal", "Journal.published", "after"),
}
REVIEWER_POINTS: dict[str, tuple[str, str, str]] = {
    "after-replay-before-ack": ("worker.fleet.dead", "DeadLetters._publish", "after"),
    "after-archive-before-ack": ("worker.fleet.dead", "DeadLetters._put_away", "after"),
}


def arm(point: str, killed: Path) -> None:
    """Have this process killed at a point, once: not if `killed` exists, which is made just before."""
    import importlib  # noqa: PLC0415 -- only in the process that is to be killed

    module, path, when = {**POINTS, **REVIEWER_POINTS}[point]
    owner_name, method = path.split(".")
    owner = getattr(importlib.import_module(module), owner_name)
    wrapped: Any = owner.__dict__[method]
    function: Callable[..., Any] = getattr(wrapped, "__func__", wrapped)

    def kill() -> None:
        with suppress(FileExistsError):
            killed.touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)

    def armed(*arguments: Any, **keywords: Any) -> Any:
        if when == "before":
            kill()
        result = function(*arguments, **keywords)
        kill()
        return result

    setattr(owner, method, classmethod(armed) if isinstance(wrapped, classmethod) else armed)


class Proxy:
    """A TCP proxy on loopback in front of a port: it can cut what is connected, or swallow all in silence."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port: int = self._listener.getsockname()[1]
        self.swallow = False

    def __enter__(self) -> Self:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.cut()
        self._listener.close()
        self._selector.close()

    def cut(self) -> None:
        """Reset every connection."""
        for one in list(self._pairs):
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            self._drop(one)

    def _drop(self, one: socket.socket) -> None:
        other = self._pairs.pop(one, None)
        for each in (one, other):
            if each is not None:
                self._pairs.pop(each, None)
                with suppress(KeyError, ValueError, OSError):
                    self._selector.unregister(each)
                each.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.05):
                source = key.fileobj
                assert isinstance(source, socket.socket)
                if source is self._listener:
                    self._accept()
                else:
                    self._forward(source)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            client.close()
            return
        self._pairs[client], self._pairs[server] = server, client
        for each in (client, server):
            self._selector.register(each, selectors.EVENT_READ)

    def _forward(self, source: socket.socket) -> None:
        try:
            data = source.recv(1 << 16)
            if not data:
                self._drop(source)
            elif not self.swallow:
                self._pairs[source].sendall(data)
        except (OSError, KeyError):
            self._drop(source)


def full_disk(directory: Path) -> Path:
    """Fill the file system that `directory` is on; return the filler, whose removal makes room again."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return filler


def mount_small(directory: Path, size: str) -> None:
    """Mount a tmpfs of `size` at `directory`."""
    directory.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(directory)], check=True
    )


def unmount(directory: Path) -> None:
    """Unmount it, whoever is still in there."""
    subprocess.run(["umount", "-l", str(directory)], check=True)
