"""The worker as the parent of processes whose own parent has died (Linux: prctl(2), PR_SET_CHILD_SUBREAPER).

Where a run's supervisor is killed, the kernel gives its dsmc to the worker, which then learns how it ends.
Whoever takes orphans has to bury them.
"""

import contextlib
import ctypes
import os
from collections.abc import Collection, Iterator
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def adopt() -> None:
    """Have orphaned descendants of this process become its children. Where the kernel refuses, nothing changes."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def first_of(group: int) -> int | None:
    """Return the child of ours in a process group that started first, dead or alive; None if there is none."""
    started = {int(fields["start"]): pid for pid, fields in _children() if fields["group"] == str(group)}
    return started[min(started)] if started else None


def status(pid: int) -> int | None:
    """Return a child's exit status as a shell gives it (128 + n: by signal n) and bury it; None while it lives."""
    try:
        found, wait_status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    if not found:
        return None
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def bury(but: Collection[int]) -> None:
    """Bury the dead children that are in no process group of `but`, nor in this process's own."""
    own = {os.getpgrp(), *but}
    for pid, fields in _children():
        if fields["state"] == "Z" and int(fields["group"]) not in own and pid not in own:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _children() -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the children of this process: pid, and of /proc/PID/stat (proc(5)) state, group and start time."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        if fields[1] == str(os.getpid()):
            yield int(entry.name), {"state": fields[0], "group": fields[2], "start": fields[19]}
