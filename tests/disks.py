"""Real disks for tests: files on loop devices, with partitions, file systems and mounts, gone after the test."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from brokers import lacks

MNT_DETACH = 2  # mount.h
TOOLS = ("losetup", "sfdisk", "sgdisk", "partx", "blkid", "mount", "mkswap")


@dataclass(frozen=True)
class Disk:
    """A loop device; `node` is its path."""

    node: str

    def part(self, number: int) -> str:
        """Return the node of the partition `number`."""
        return f"{self.node}p{number}"


def run(*command: str, text: str | None = None) -> str:
    """Run `command` with `text` as its input; return what it says, fail the test where it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)} ended {done.returncode}: {done.stderr or done.stdout}"
    return done.stdout


def needed(*tools: str) -> None:
    """Skip the test where this machine cannot make loop disks, or lacks one of `tools`."""
    if os.name != "posix" or os.geteuid() != 0:
        lacks("loop disks need root")
    if not os.path.exists("/dev/loop-control"):  # noqa: PTH110
        lacks("loop disks need the kernel's loop devices (/dev/loop-control; modprobe loop)")
    if missing := [tool for tool in (*TOOLS, *tools) if not shutil.which(tool)]:
        lacks(f"loop disks need {', '.join(missing)} (packages fdisk, gdisk, util-linux, *progs)")


@contextmanager
def loop(file: Path, *options: str) -> Iterator[Disk]:
    """Give `file` as a loop device with the partitions its table lists; take it away at the end."""
    node = run("losetup", *options, "--find", "--show", str(file)).strip()
    try:
        # This asks no more of the kernel than adding each partition: it may have been built without parsers.
        subprocess.run(["partx", "-u", node], capture_output=True, check=False)
        yield Disk(node)
    finally:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            source = line.split(" - ", 1)[1].split(" ")[1]
            if source == node or source.startswith(node + "p"):
                subprocess.run(["umount", line.split(" ")[4]], capture_output=True, check=False)
        subprocess.run(["partx", "-d", node], capture_output=True, check=False)
        run("losetup", "--detach", node)


def mbr(file: Path, *types: str, megabytes: int = 8) -> Path:
    """Write a disk of MBR partitions to `file`, one per type (`83`); return it.

    An extended one (`5`) takes the rest of the disk, and what follows lies inside it, numbered from 5 on.
    """
    _blank(file, (megabytes + 2) * len(types) + 2)
    lines = [f",{'' if kind == '5' else f'{megabytes}M'},{kind}" for kind in types]
    run("sfdisk", "--quiet", str(file), text="\n".join(["label: dos", *lines, ""]))
    return file


def gpt(file: Path, *types: str, megabytes: int = 8) -> Path:
    """Write a disk of GPT partitions to `file`, one per type as sgdisk takes it (`8300`, a GUID); return it."""
    _blank(file, megabytes * len(types) + 4)
    numbered = list(enumerate(types, 1))
    parts = [f"--new={number}:0:+{megabytes}M" for number, _ in numbered]
    run("sgdisk", *parts, *(f"--typecode={number}:{kind}" for number, kind in numbered), str(file))
    return file


def _blank(file: Path, megabytes: int) -> None:
    with file.open("wb") as disk:
        disk.truncate(megabytes << 20)


@contextmanager
def mounted(node: str, point: Path, *options: str) -> Iterator[Path]:
    """Give `node` mounted at `point`, which is made where it is missing."""
    point.mkdir(exist_ok=True)
    run("mount", *options, node, str(point))
    try:
        yield point
    finally:
        run("umount", str(point))


@contextmanager
def dead_file_system(point: Path) -> Iterator[Path]:
    """Give `point` with a file system on it whose server never answers: a look at it hangs until the end."""
    if not Path("/dev/fuse").exists():
        lacks("a file system that hangs needs FUSE (/dev/fuse; modprobe fuse)")
    point.mkdir(exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if libc.mount(b"dead", os.fsencode(point), b"fuse", 0, options):
            lacks(f"a file system that hangs cannot be mounted: {os.strerror(ctypes.get_errno())}")
        yield point
    finally:
        os.close(server)  # whoever hangs in it gets an error now
        libc.umount2(os.fsencode(point), MNT_DETACH)
