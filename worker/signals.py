"""How the operating system asks this process to stop."""

import signal
import sys
import threading
from collections.abc import Callable


def on_stop(act: Callable[[], None]) -> None:
    """Have `act` called when this process is asked to stop; call from the main thread.

    That is SIGTERM or SIGINT; on Windows Ctrl-C or Ctrl-Break, which service wrappers send, the closing of the
    console and the shutdown of the host. `act` sets events and the like: it may be called more than once, and
    from another thread.
    """
    if sys.platform == "win32":
        _on_console_event(act)
    else:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: act())


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _Handler = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.DWORD)
    _handlers: list[object] = []  # as long as the process lives: Windows holds no reference
    _BREAK = 1  # CTRL_BREAK_EVENT; CTRL_C_EVENT is less, what ends a process at its handler's return is more

    def _on_console_event(act: Callable[[], None]) -> None:
        """Register a handler ("HandlerRoutine callback function", Microsoft Learn).

        Python's own signals would not do: there a signal does not end a wait of the main thread, where their
        handlers are called.
        """

        def handle(event: int) -> bool:
            act()
            if event > _BREAK:
                threading.Event().wait()  # the main thread ends this process, or Windows does after some seconds
            return True

        _handlers.append(_Handler(handle))
        ctypes.windll.kernel32.SetConsoleCtrlHandler(_handlers[-1], 1)
