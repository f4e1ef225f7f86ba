"""A run on Linux: its supervisor is a few lines of shell (supervisor.sh) in a session of their own.

Who the supervisor is, process id, start time and boot tell; whether it lives, a lock that it holds.

All times here are seconds of the boot clock, which nobody sets and which `/proc` speaks too.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from worker import lock
from worker.dsmc import marks, orphans
from worker.dsmc.outcome import End
from worker.dsmc.supervise import CannotStart, Control, Ending, environment

_SCRIPT = Path(__file__).with_name("supervisor.sh")
_TICK = 0.5  # seconds between looks at what the worker wants, while a run is on
_SETTLING = 5.0  # seconds that killed processes get to disappear
_MARK = "TSM_WORKER_RUN"  # in the environment of all that belongs to a run: the run's directory
_waited_for: set[int] = set()  # the process groups of runs that this worker waits for
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Run:
    """A run of dsmc in its directory, which holds `transcript`, `lock`, `started` and at last `exit`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.transcript = directory / "transcript"
        self._popen: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._started_at = 0.0
        self._seen = ""  # the end, where this worker saw it and the supervisor did not

    @classmethod
    def start(cls, directory: Path, argv: Sequence[str]) -> "Run":
        """Start `argv` in a session of its own, its output going to the directory's transcript.

        Raise CannotStart if the system refuses; nothing runs then.
        """
        run = cls(directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with run.transcript.open("wb") as transcript, os.fdopen(lock.take(directory / "lock")) as held:
                run._started_at = _now()
                run._popen = subprocess.Popen(
                    ["/bin/sh", str(_SCRIPT), str(directory), *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=held,
                    stderr=transcript,
                    cwd="/",
                    env={**environment(), _MARK: str(directory)},
                    start_new_session=True,
                )
        except OSError as error:
            raise CannotStart(f"cannot start {argv[0]} in {directory}: {error}") from error
        run._pid = run._popen.pid
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
        boot, stat = started.split(" ", 1)
        run._pid, run._started_at = _identity(stat) if boot == cls.boot() else (0, 0.0)
        return run

    @staticmethod
    def boot() -> str:
        """Return the identity of this boot, as the kernel gives it (random(4))."""
        return marks.read(Path("/proc/sys/kernel/random/boot_id")).strip()

    def wait(self, limit: float, grace: float, control: Control) -> Ending | None:
        """Wait until the run is over, and end it when `limit` seconds since its start have passed.

        Ending it is TERM to its whole process group, KILL after `grace` seconds. Return None, the run going
        on, when `control.leave` is set first.
        """
        deadline = self._started_at + limit
        _waited_for.add(self._pid)
        try:
            with contextlib.closing(self._watches()) as watches:
                for over in watches:
                    while not over(min(_TICK, max(0.0, deadline - _now()))):
                        if control.cancel.is_set():
                            return self._stopped(grace, End.CANCELLED)
                        if _now() >= deadline:
                            return self._stopped(grace, End.TIMED_OUT)
                        if control.leave.is_set():
                            return None
            return self._ended(limit)
        finally:
            _waited_for.discard(self._pid)
            orphans.bury(_waited_for)

    def _watches(self) -> Generator[Callable[[float], bool], None, None]:
        """Yield what to wait for, one after the other: the supervisor, and if it was killed what it ran."""
        with self._watch() as over:
            yield over
        if self._popen is None or self._written():  # only what this process started can become its own
            return
        if (orphan := orphans.first_of(self._pid)) is not None:
            yield lambda seconds: self._orphan_over(orphan, seconds)

    def _orphan_over(self, pid: int, seconds: float) -> bool:
        status = orphans.status(pid)
        if status is None:
            time.sleep(min(seconds, 0.1))
            return False
        self._seen = f"{status} {_now()}\n"
        return True

    def _written(self) -> str:
        """Return what is known of the end: exit status and time of the boot clock, as the supervisor writes it.

        A supervisor that is gone may have been killed just before it gave the file its name.
        """
        return self._seen or marks.read(self.directory / "exit") or marks.read(self.directory / "exit.new")

    def _ended(self, limit: float) -> Ending:
        elapsed = _now() - self._started_at
        written = self._written()
        if not written:
            # The supervisor is gone but what it ran may not be, and nobody would ever learn how that ends.
            self._end_group(0.0)
            if self._pid and elapsed >= limit:  # ended at its limit by a worker that had no time to note it
                return Ending(End.TIMED_OUT, None, elapsed)
            return Ending(End.LOST, None, elapsed if self._pid else 0.0)
        status, uptime = written.split()
        if self._popen is None:  # this worker did not see the end; the supervisor did
            elapsed = max(0.0, float(uptime) - self._started_at) if self._pid else 0.0
        return Ending(End.EXITED, int(status), elapsed)

    def _stopped(self, grace: float, end: End) -> Ending:
        self._end_group(grace)
        return Ending(end, None, _now() - self._started_at)

    def _end_group(self, grace: float) -> None:
        """End every process of the run's group: TERM, and KILL for what is left after `grace` seconds."""
        if not self._is_ours():
            return
        self._signal_group(signal.SIGTERM)
        if not self._group_gone(grace):
            self._signal_group(signal.SIGKILL)
            self._group_gone(_SETTLING)
        if self._popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_SETTLING)

    def _group_gone(self, patience: float) -> bool:
        deadline = _now() + patience
        while any(self._members()):
            if _now() >= deadline:
                return False
            time.sleep(0.02)
        return True

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, number)

    def _members(self) -> Iterator[Path]:
        """Yield the `/proc` directory of each process of the run's group that is not yet dead."""
        for entry in Path("/proc").iterdir() if self._pid > 1 else ():
            if entry.name.isdigit() and (stat := marks.read(entry / "stat")):
                state, _, group = _fields(stat)[:3]
                if int(group) == self._pid and state not in "ZX":
                    yield entry

    def _is_ours(self) -> bool:
        """Whether the group that has this number now is the run's own, going by its members' environment."""
        mark = f"{_MARK}={self.directory}".encode()
        for member in self._members():
            with contextlib.suppress(OSError):
                if mark in (member / "environ").read_bytes().split(b"\0"):
                    return True
        return False

    @contextlib.contextmanager
    def _watch(self) -> Iterator[Callable[[float], bool]]:
        """Give a function that waits up to so many seconds and says whether the supervisor has ended."""
        try:
            descriptor = os.pidfd_open(self._pid) if self._pid else -1
        except OSError:  # it is gone; or a kernel before 5.3, or a sandbox, has no such call
            descriptor = -1
        if descriptor < 0:

            def over(seconds: float) -> bool:
                if not self._alive():
                    return True
                time.sleep(min(seconds, 0.05))
                return not self._alive()

            yield over
            return
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        try:
            yield lambda seconds: not self._alive() or bool(poll.poll(seconds * 1000) and not self._alive())
        finally:
            os.close(descriptor)

    def _alive(self) -> bool:
        if self._popen is not None:
            return self._popen.poll() is None
        stat = marks.read(Path(f"/proc/{self._pid}/stat"))
        return (
            bool(stat) and _identity(stat) == (self._pid, self._started_at) and _fields(stat)[0] not in "ZX"
        )


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# /proc/PID/stat: "pid (name) state parent group session ...", the start time as its 22nd field (proc(5)). The
# name may hold anything, so the fields are counted from its closing bracket.


def _fields(stat: str) -> list[str]:
    return stat[stat.rindex(")") + 2 :].split()


def _identity(stat: str) -> tuple[int, float]:
    return int(stat.split(" ", 1)[0]), int(_fields(stat)[19]) / _CLOCK_TICKS
