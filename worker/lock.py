"""A lock on a file that ends with whoever holds it, however that ends."""

import os
import sys
import time
from pathlib import Path

if sys.platform == "win32":
    import _winapi
    import msvcrt

    _SHARE_READ, _OPEN_ALWAYS = 1, 4
    _SHARING_VIOLATION = 32

    def _locked(path: Path) -> int:
        # Nobody else may open it to write for as long as this, or a child's copy of it, is open.
        access = _winapi.GENERIC_READ | _winapi.GENERIC_WRITE
        try:
            handle = _winapi.CreateFile(str(path), access, _SHARE_READ, 0, _OPEN_ALWAYS, 0, 0)
        except OSError as error:
            if error.winerror == _SHARING_VIOLATION:
                raise BlockingIOError(*error.args) from error
            raise
        return msvcrt.open_osfhandle(handle, os.O_RDWR)

else:
    import fcntl

    def _locked(path: Path) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def take(path: Path, patience: float = 0.0) -> int:
    """Lock a file, making it where missing; return the descriptor, which holds the lock until it is closed.

    A child process that inherits the descriptor goes on holding it. Raise BlockingIOError if somebody else
    still holds it after `patience` seconds, OSError if the file cannot be opened.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return _locked(path)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)


def held(path: Path) -> bool:
    """Whether somebody holds the lock on a file; taken for the blink of an eye where nobody does."""
    try:
        os.close(take(path))
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass  # not even its directory is there
    return False
