"""The one edge of this room: what the Linux kernel and `blkid` say, read as data."""

import errno
import os
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path

from worker.errors import TsmWorkerError


@unique
class Kind(StrEnum):
    """What a path is, without following it."""

    BLOCK = "block device"
    CHARACTER = "character device"
    DIRECTORY = "directory"
    FILE = "file"
    LINK = "symbolic link"
    FIFO = "named pipe"
    SOCKET = "socket"
    MISSING = "missing"


KINDS = {
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.LINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
}


@dataclass(frozen=True, slots=True)
class Node:
    """What stands at a path: its kind, a device's `major:minor`, a link's target."""

    kind: Kind
    number: str = ""
    target: str = ""


class KernelError(TsmWorkerError):
    """The kernel, or blkid for it, would not say what was asked."""


# blkid(8), "EXIT STATUS": what its low-level probe (-p) ends with.
BLKID_FOUND, BLKID_NOTHING, BLKID_AMBIVALENT = 0, 2, 8


class Kernel:
    """Reads devices, mounts and paths of the host whose file tree starts at `root`.

    A probe that gives no answer within `probe_timeout` seconds is killed and left behind: a process in
    uninterruptible sleep on a dead path does not die of SIGKILL, and waiting for it would hang us too.
    Tests and the demo read a captured tree: they give its `root` and override `node` and `probe`, the only
    methods that need real device nodes and rights.
    """

    def __init__(self, root: Path = Path("/"), *, probe_timeout: float = 10.0) -> None:
        self._root = os.fspath(root).rstrip("/")
        self._probe_timeout = probe_timeout
        self._left_behind: set[subprocess.Popen[str]] = set()

    def here(self) -> str:
        """Return the absolute path that relative names start from; raise KernelError where it is gone."""
        try:
            return os.getcwd()  # noqa: PTH109 -- every path of this room is a str, as the kernel's are
        except OSError as error:
            raise _refused("the working directory", error) from error

    def text(self, path: str) -> str:
        """Return what the file at `path` holds, without white space around; empty where there is none."""
        try:
            with open(self._root + path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
                return file.read().strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            raise _refused(path, error) from error

    def names(self, path: str) -> list[str]:
        """Return the sorted names in the directory at `path`; none where there is no such directory."""
        try:
            return sorted(os.listdir(self._root + path))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _refused(path, error) from error

    def link(self, path: str) -> str:
        """Return the target of the link at `path` as it is written; empty where there is none."""
        try:
            return os.readlink(self._root + path)  # noqa: PTH115
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise _refused(path, error) from error

    def node(self, path: str) -> Node:
        """Return what stands at the absolute `path` itself, following no link at its end."""
        try:
            found = os.lstat(self._root + path)
            kind = KINDS[stat.S_IFMT(found.st_mode)]
            target = os.readlink(self._root + path) if kind is Kind.LINK else ""  # noqa: PTH115
        except (FileNotFoundError, NotADirectoryError):
            return Node(Kind.MISSING)
        except OSError as error:
            raise _refused(path, error) from error
        number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" if kind is Kind.BLOCK else ""
        return Node(kind, number, target)

    def probe(self, device: str) -> Mapping[str, str]:
        """Return what `blkid -p -o export` finds on the block device node `device`, by key.

        Keys as in blkid(8) and libblkid's documentation: TYPE, USAGE, UUID, PTTYPE, PART_ENTRY_SCHEME,
        PART_ENTRY_TYPE and so on; none for an empty device without a partition-table entry. `-p` reads the
        device itself and neither reads nor writes blkid's cache. For a partition that the device mapper made
        (a partition of a multipath map has no `partition` and no `start` in sysfs) libblkid takes the
        number from the dm uuid and the entry from the table on the map below it, so PART_ENTRY_TYPE is there
        as well (util-linux, libblkid/src/partitions/partitions.c, blkid_partlist_devno_to_partition).

        Raise KernelError where the device cannot be read, holds signatures that contradict each other, or
        does not answer in time.
        """
        node = self._root + device
        try:
            # blkid says "nothing found" of a device it may not read, so ask for the right to read first.
            os.close(os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            raise _refused(device, error) from error
        try:
            found, complaint, exit_code = self._run(["blkid", "-p", "-o", "export", node])
        except subprocess.TimeoutExpired as error:
            raise KernelError(
                f"{device} gave no answer to blkid within {self._probe_timeout:g} s; look for a dead path under "
                "it (multipath -ll, dmesg) and try again"
            ) from error
        except OSError as error:
            raise _refused("blkid", error) from error
        return read_export(device, exit_code, found, complaint)

    def _run(self, command: list[str]) -> tuple[str, str, int]:
        """Return what `command` said on stdout and stderr, and its exit code; raise TimeoutExpired, OSError."""
        self._left_behind.difference_update(
            [left for left in self._left_behind.copy() if left.poll() is not None]
        )
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            # A daemon's PATH, or a user's, may lack the folders where distributions keep blkid.
            env={
                "PATH": f"{os.environ.get('PATH', '')}:{self._root}/usr/sbin:{self._root}/sbin",
                "LC_ALL": "C",
            },
        )
        try:
            return *process.communicate(timeout=self._probe_timeout), process.returncode
        except subprocess.TimeoutExpired:
            self._leave(process)
            raise

    def _leave(self, process: "subprocess.Popen[str]") -> None:
        """Kill `process` without waiting for it; its exit is collected by a later probe, once there is one."""
        process.kill()
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()
        self._left_behind.add(process)


def read_export(device: str, exit_code: int, found: str, complaint: str) -> dict[str, str]:
    """Return the keys in the text `found` that blkid ended `exit_code` with; raise KernelError for a fault."""
    if exit_code == BLKID_AMBIVALENT:
        raise KernelError(
            f"{device} carries the signatures of more than one content, so nobody can say what it holds; "
            f"list them with `wipefs {device}` and erase the stale one"
        )
    if exit_code not in (BLKID_FOUND, BLKID_NOTHING) or (complaint and not found):
        raise KernelError(
            f"{device} cannot be probed: blkid ended {exit_code}, {complaint.strip() or 'silent'}"
        )
    return dict(line.split("=", 1) for line in found.splitlines() if "=" in line)


REMEDIES = {
    errno.EACCES: "run as root",
    errno.EPERM: "run as root, and where no container or device cgroup bars the device",
    errno.ENOMEDIUM: "insert a medium",
    errno.EIO: "the disk fails: see dmesg",
    errno.ENXIO: "no driver answers for it: see dmesg",
    errno.ENOENT: "see that it is installed and there",
}


def _refused(what: str, error: OSError) -> KernelError:
    reason = (error.strerror or str(error)).lower()
    return KernelError(f"{what}: {reason}; {REMEDIES.get(error.errno or 0, 'see dmesg')}")
