"""How the operating system asks this process to stop."""

import signal
import socket
import sys
import threading
from collections.abc import Callable

_kept: list[socket.socket] = []  # what is written to at a signal, for as long as the process lives


def on_stop(act: Callable[[], None]) -> None:
    """Have `act` called when this process is asked to stop; call from the main thread.

    That is SIGTERM or SIGINT; on Windows Ctrl-C or Ctrl-Break, which service wrappers send, too. `act` sets
    events and the like: it may be called twice, and from another thread.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: act())
    if sys.platform == "win32":
        signal.signal(signal.SIGBREAK, lambda _number, _frame: act())
        _wake(act)


def _wake(act: Callable[[], None]) -> None:
    """Call `act` in a thread of its own, too, on the first signal.

    On Windows a signal does not end a wait of the main thread, where Python's handlers are called; only the
    wake-up descriptor is written at once (Python's documentation, signal.set_wakeup_fd).
    """
    waiting, written = socket.socketpair()
    written.settimeout(0.0)
    signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)

    def wait() -> None:
        while waiting.recv(1):
            act()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    _kept.append(written)
