"""A run on Windows: its supervisor is a small Python program (windows_supervisor.py) in a job object of its own.

Who the supervisor is, process id and creation time tell; whether it lives, a lock that it holds. It ends the
run where the worker wants that: it alone shares a console with dsmc, which Ctrl-C goes through, and it
holds the job object's one handle.

All times here are seconds since the host booted, by a clock that nobody sets.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from worker import lock
from worker.dsmc import marks
from worker.dsmc.outcome import End
from worker.dsmc.supervise import CannotStart, Control, Ending, environment

if sys.platform != "win32":
    raise ImportError("this supervises on Windows; on Linux worker.dsmc.posix does")

import _winapi  # what subprocess itself is made of: waits, opens and ends processes

from worker.dsmc.windows_supervisor import created, uptime

_SCRIPT = Path(__file__).with_name("windows_supervisor.py")
_TICK = 0.5  # seconds between looks at what the worker wants, while a run is on
_SETTLING = 5.0  # seconds that a supervisor gets on top of the grace before it is ended itself
_TIME_OF_DAY = 3  # SystemTimeOfDayInformation
_BOOT_TIME, _BOOT_TIME_BIAS = (
    0,
    4,
)  # the bias is by how much the clock, and with it the boot time, was set since
_RIGHTS = 0x1000 | 0x100000 | 1  # PROCESS_QUERY_LIMITED_INFORMATION, SYNCHRONIZE, PROCESS_TERMINATE

_NtQuerySystemInformation = ctypes.WinDLL("ntdll").NtQuerySystemInformation
_NtQuerySystemInformation.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p]


class Run:
    """A run of dsmc in its directory, which holds `transcript`, `lock`, `started` and at last `exit`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.transcript = directory / "transcript"
        self._popen: subprocess.Popen[bytes] | None = None
        self._process: int | None = None  # the supervisor's handle; None: it is gone
        self._started_at = 0.0

    @classmethod
    def start(cls, directory: Path, argv: Sequence[str]) -> "Run":
        """Start `argv` under a supervisor, its output going to the directory's transcript.

        Raise CannotStart if the system refuses; nothing runs then.
        """
        run = cls(directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (directory / "end").unlink(missing_ok=True)
            with os.fdopen(lock.take(directory / "lock")) as held, run.transcript.open("wb") as transcript:
                run._started_at = uptime()
                run._popen = _spawn([str(directory), *argv], held.fileno(), transcript.fileno())
        except OSError as error:
            raise CannotStart(f"cannot start {argv[0]} in {directory}: {error}") from error
        run._process = _winapi.OpenProcess(_RIGHTS, False, run._popen.pid)  # noqa: FBT003 -- as Win32 has it
        return run

    @classmethod
    def find(cls, directory: Path, control: Control) -> "Run | None":
        """Return the run an earlier worker started here, over or not; None if it never came to start.

        None as well when `control.leave` is set while a supervisor is still held up by a full disk.
        """
        run = cls(directory)
        started = marks.started(directory, control)
        if not started:
            return None
        pid, creation, uptime_then = started.split()
        run._started_at = float(uptime_then)
        run._process = _open(int(pid), int(creation))
        return run

    @staticmethod
    def boot() -> str:
        """Return the time of this boot as the clock stood then, whatever it was set to since."""
        now = (ctypes.c_longlong * 6)()  # SYSTEM_TIMEOFDAY_INFORMATION
        if _NtQuerySystemInformation(_TIME_OF_DAY, now, ctypes.sizeof(now), None):
            raise OSError("Windows does not say when it booted")
        return str(now[_BOOT_TIME] - now[_BOOT_TIME_BIAS])

    def __del__(self) -> None:
        """Close the supervisor's handle."""
        if self._process is not None:
            _winapi.CloseHandle(self._process)

    def wait(self, limit: float, grace: float, control: Control) -> Ending | None:
        """Wait until the run is over, and end it when `limit` seconds since its start have passed.

        Ending it is Ctrl-C to all on its console, and the end of its job object, which is its whole tree of
        processes, after `grace` seconds. Return None, the run going on, when `control.leave` is set first.
        """
        deadline = self._started_at + limit
        while not self._over(min(_TICK, max(0.0, deadline - uptime()))):
            if control.cancel.is_set():
                return self._stopped(grace, End.CANCELLED)
            if uptime() >= deadline:
                return self._stopped(grace, End.TIMED_OUT)
            if control.leave.is_set():
                return None
        return self._ended()

    def _ended(self) -> Ending:
        written = marks.read(self.directory / "exit")
        if not written:  # what it ran ended with its job object
            return Ending(End.LOST, None, max(0.0, uptime() - self._started_at) if self._process else 0.0)
        code, uptime_then = written.split()
        return Ending(End.EXITED, int(code), max(0.0, float(uptime_then) - self._started_at))

    def _stopped(self, grace: float, end: End) -> Ending:
        """Have the supervisor end the run, and end it with all it holds if it does not."""
        with contextlib.suppress(OSError):
            _wish(self.directory / "end", grace)
            self._over(grace + _SETTLING)
        if self._process is not None and not self._over(0.0):
            with contextlib.suppress(OSError):
                _winapi.TerminateProcess(self._process, 1)
            self._over(_SETTLING)
        return Ending(end, None, uptime() - self._started_at)

    def _over(self, seconds: float) -> bool:
        """Wait up to so many seconds; return whether the supervisor has ended."""
        if self._process is None:
            return True
        return _winapi.WaitForSingleObject(self._process, round(seconds * 1000)) == _winapi.WAIT_OBJECT_0


def _spawn(arguments: Sequence[str], held: int, transcript: int) -> "subprocess.Popen[bytes]":
    """Start a supervisor with a console of its own, outside of the worker's job object where that is allowed."""
    # Not a virtual environment's python.exe: that one starts this one, and ends it with itself.
    python = str(getattr(sys, "_base_executable", sys.executable))

    def start(flags: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [python, "-I", "-S", str(_SCRIPT), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=held,
            stderr=transcript,
            # No folder of a volume that is to be imaged: a folder in use keeps its volume from being locked.
            cwd=os.environ.get("SYSTEMROOT", "C:\\"),
            env=environment(),
            creationflags=subprocess.CREATE_NO_WINDOW | flags,
        )

    try:
        return start(subprocess.CREATE_BREAKAWAY_FROM_JOB)
    except PermissionError:
        return start(0)


def _open(pid: int, creation: int) -> int | None:
    """Return a handle of the process, None where it is gone, its number another's now perhaps."""
    try:
        handle = _winapi.OpenProcess(_RIGHTS, False, pid)  # noqa: FBT003 -- as Win32 has it
    except OSError:
        return None
    with contextlib.suppress(OSError):
        if created(handle) == creation:
            return handle
    _winapi.CloseHandle(handle)
    return None


def _wish(path: Path, grace: float) -> None:
    fresh = path.with_name("end.new")
    fresh.write_text(f"{grace}\n", encoding="ascii")
    fresh.replace(path)
