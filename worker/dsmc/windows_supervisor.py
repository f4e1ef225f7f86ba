# ruff: noqa: PTH105, PTH110, PTH112, PTH123
# Why: this runs once per dsmc, and pathlib alone would take half as long again to import.
"""Runs one command on Windows and writes down how it ended. It outlives the worker that started it.

    python -I -S windows_supervisor.py DIRECTORY COMMAND [ARGUMENT...]

Standard output is the run's lock, held for as long as this process lives; standard error is the transcript.
The command gets the transcript as both, the null device as its input, and never sees the lock. DIRECTORY gets
  started  this process's id and creation time, and the uptime then; written before the command starts
  exit     the command's exit code (unsigned, as Windows has it) and the uptime at its end
and is looked at for
  end      the worker's wish that the run end: the seconds of grace between asking and making it
A full disk holds the first two up, and neither is given up, as long as there is a DIRECTORY: a status is worth the
wait after hours of backup.

The command and all that it starts are in a job object, whose one handle is this process's own and which ends
them when that is closed: nothing of a run outlives its supervisor against its will, however that dies
("Job Objects", Microsoft Learn). This process is in the job, too, so nothing can start outside it.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from ctypes import wintypes

if sys.platform != "win32":
    raise ImportError("this supervises on Windows; on Linux supervisor.sh does")

_TICK = 0.2  # seconds between looks for the worker's wish
_CANNOT_START = 127  # what a shell ends with where it cannot start a command
_CTRL_C = 0  # CTRL_C_EVENT
_NO_WINDOWS = 0x8003  # SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SEM_NOOPENFILEERRORBOX
_KILL_ON_JOB_CLOSE = 0x2000  # JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
_EXTENDED_LIMITS = 9  # JobObjectExtendedLimitInformation
_ACCOUNTING = 1  # JobObjectBasicAccountingInformation

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.GetTickCount64.restype = ctypes.c_ulonglong
_kernel32.CreateJobObjectW.restype = wintypes.HANDLE
_kernel32.GetCurrentProcess.restype = wintypes.HANDLE
_kernel32.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
_kernel32.SetInformationJobObject.argtypes = [wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD]
_kernel32.QueryInformationJobObject.argtypes = [
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.LPDWORD,
]
_kernel32.TerminateJobObject.argtypes = [wintypes.HANDLE, wintypes.UINT]
_kernel32.GetProcessTimes.argtypes = [wintypes.HANDLE, *[ctypes.POINTER(wintypes.FILETIME)] * 4]


def uptime() -> float:
    """Return the seconds since this host booted, by a clock that nobody sets and every process shares."""
    return int(_kernel32.GetTickCount64()) / 1000


def created(process: int) -> int:
    """Given a handle, return when its process was created, in Windows' own unit. Raise OSError if it is none.

    Process id and this time together are no other process's, on this boot or any.
    """
    times = [wintypes.FILETIME() for _ in range(4)]
    if not _kernel32.GetProcessTimes(process, *map(ctypes.byref, times)):
        raise ctypes.WinError(ctypes.get_last_error())
    return int(times[0].dwHighDateTime) << 32 | int(times[0].dwLowDateTime)


class _BasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION."""

    _fields_ = (
        ("PerProcessUserTimeLimit", wintypes.LARGE_INTEGER),
        ("PerJobUserTimeLimit", wintypes.LARGE_INTEGER),
        ("LimitFlags", wintypes.DWORD),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", wintypes.DWORD),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", wintypes.DWORD),
        ("SchedulingClass", wintypes.DWORD),
    )


class _Limits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = (
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", ctypes.c_ulonglong * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


class _Accounting(ctypes.Structure):
    """JOBOBJECT_BASIC_ACCOUNTING_INFORMATION."""

    _fields_ = (
        ("Times", wintypes.LARGE_INTEGER * 4),
        ("TotalPageFaultCount", wintypes.DWORD),
        ("TotalProcesses", wintypes.DWORD),
        ("ActiveProcesses", wintypes.DWORD),
        ("TotalTerminatedProcesses", wintypes.DWORD),
    )


class _Job:
    """The job object that this process and all that it starts are in."""

    def __init__(self) -> None:
        self._handle = _kernel32.CreateJobObjectW(None, None)
        self.hold(_KILL_ON_JOB_CLOSE)
        if not _kernel32.AssignProcessToJobObject(self._handle, _kernel32.GetCurrentProcess()):
            raise ctypes.WinError(ctypes.get_last_error())

    def hold(self, flags: int) -> None:
        """Set what the job does to its processes."""
        limits = _Limits()
        limits.BasicLimitInformation.LimitFlags = flags
        if not _kernel32.SetInformationJobObject(
            self._handle, _EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits)
        ):
            raise ctypes.WinError(ctypes.get_last_error())

    def others(self) -> bool:
        """Whether there are processes in the job besides this one."""
        counts = _Accounting()
        _kernel32.QueryInformationJobObject(
            self._handle, _ACCOUNTING, ctypes.byref(counts), ctypes.sizeof(counts), None
        )
        return int(counts.ActiveProcesses) > 1

    def end(self) -> None:
        """End every process of the job, this one among them."""
        _kernel32.TerminateJobObject(self._handle, 1)


def _supervise(directory: str, command: list[str]) -> None:
    # A crash of the command ends it: no window is to wait for a click that nobody makes. It inherits this, and
    # whether it hears Ctrl-C at all, which a worker may have been started deaf to; this process stays for the status.
    _kernel32.SetErrorMode(_NO_WINDOWS)
    _kernel32.SetConsoleCtrlHandler(None, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = _Job()
    started = f"{os.getpid()} {created(_kernel32.GetCurrentProcess())} {uptime()}"
    _write(directory, "started", started)
    code = _run(directory, command, job)
    _write(directory, "exit", f"{code} {uptime()}")
    job.hold(0)  # what a snapshot command has started to stay may stay


def _run(directory: str, command: list[str], job: _Job) -> int:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            stderr=sys.stderr,
        )
    except OSError as error:
        print(f"{command[0]}: cannot be started: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return _CANNOT_START
    while True:
        try:
            return process.wait(_TICK)
        except subprocess.TimeoutExpired:
            if os.path.exists(f"{directory}\\end"):
                _end(job, _grace(f"{directory}\\end"))


def _end(job: _Job, grace: float) -> None:
    """Ask the command to end, wait until all in the job have, then make them.

    Ctrl-C is what dsmc answers with ANS2820E and an end of its own. It reaches all on this process's console,
    which is the run's alone.
    """
    _kernel32.GenerateConsoleCtrlEvent(_CTRL_C, 0)
    deadline = time.monotonic() + grace
    while job.others() and time.monotonic() < deadline:
        time.sleep(0.02)
    job.end()


def _grace(path: str) -> float:
    with open(path, encoding="ascii") as file:
        return float(file.read() or 0)


def _write(directory: str, name: str, line: str) -> None:
    """Write a file of one line, by temporary file and rename: a reader never sees half of it."""
    path = f"{directory}\\{name}"
    while os.path.isdir(directory):
        try:
            with open(f"{path}.new", "w", encoding="ascii") as file:
                file.write(f"{line}\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(f"{path}.new", path)
        except OSError:
            time.sleep(1)
        else:
            return


if __name__ == "__main__":
    _supervise(sys.argv[1], sys.argv[2:])
