"""Eligibility: whether dsmc may make an image of the volumes that a request names.

`this_host` gives the volumes of the machine it runs on; what is particular to its platform is imported then.
Read on: `verdict` (the answer), then for Linux `linux` (the way of one call), `paths` and `mounts` (from a
name to a device), `devices` (what the device is), `eligibility` and `partitions` (the tables that decide),
`kernel` (the edge: sysfs, mountinfo, device nodes, blkid); for Windows `windows` (the way of one call and the
tables), `drives` (what Windows' answers mean) and `win32` (the edge). `inquiry` is what both share.
"""

import sys
from collections.abc import Sequence
from typing import Protocol

from worker.errors import TsmWorkerError
from worker.volumes.verdict import Verdict
from worker.words import Platform

__all__ = ["UnknownPlatform", "Verdict", "Volumes", "this_host"]


class UnknownPlatform(TsmWorkerError):
    """The machine runs neither Linux nor Windows."""


class Volumes(Protocol):
    """The volumes of one host. No call of it hangs, however dead a disk or a server is."""

    platform: Platform

    def judge(self, names: Sequence[str]) -> list[Verdict]:
        """Return one verdict per name, in order; names that lead to one device are refused: named twice."""

    def all(self) -> list[Verdict]:
        """Return the verdict on every volume of this host, sorted."""


def this_host(*, gpt_linux_data: bool = True, timeout: float = 30.0) -> Volumes:
    """Return the volumes of this machine.

    `gpt_linux_data` (Linux) says whether GPT's "Linux filesystem" is eligible as IBM's MBR type 0x83 is;
    `timeout` bounds each call, in seconds. Raise UnknownPlatform where neither Linux nor Windows runs.
    """
    if sys.platform == "linux":
        from worker.volumes.kernel import Kernel  # noqa: PLC0415 -- one platform's code only, when asked for
        from worker.volumes.linux import LinuxVolumes  # noqa: PLC0415

        # The probe gives up first: its answer names the device.
        kernel = Kernel(probe_timeout=timeout * 0.8)
        return LinuxVolumes(kernel, gpt_linux_data=gpt_linux_data, timeout=timeout)
    if sys.platform == "win32":
        from worker.volumes.win32 import Win32  # noqa: PLC0415
        from worker.volumes.windows import WindowsVolumes  # noqa: PLC0415

        return WindowsVolumes(Win32(), timeout=timeout)
    raise UnknownPlatform(f"volumes of {sys.platform} cannot be judged; run the worker on Linux or Windows")
