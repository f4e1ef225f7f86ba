"""What is mounted where on this Linux host, from `/proc/self/mountinfo` (proc(5))."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

GPFS = "GPFS file system"
NETWORK = "network file system"
CLUSTERED = "cluster file system"
FUSE = "file system served by a program (FUSE)"
POOL = "file system in a pool of devices"
AUTOMOUNT = "automount point"
PSEUDO = "pseudo file system"

# What a type of file system is, where that keeps dsmc from it; a type that is on a device and not here is
# judged by its device. Add a row for a type that this room gets wrong.
SORTS = {
    "gpfs": GPFS,
    "autofs": AUTOMOUNT,
    "fuse": FUSE,
    "zfs": POOL,
    "bcachefs": POOL,
    **dict.fromkeys(("gfs", "gfs2", "ocfs2"), CLUSTERED),
    **dict.fromkeys(
        ("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p", "virtiofs"), NETWORK
    ),
    **dict.fromkeys(
        ("ceph", "lustre", "beegfs", "glusterfs", "orangefs", "pvfs2", "panfs", "davfs"), NETWORK
    ),
    **dict.fromkeys(("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone"), NETWORK),
}
# On no device of its own number, but local: a look at a path inside cannot hang.
CALM = frozenset(
    ("tmpfs", "devtmpfs", "ramfs", "rootfs", "overlay", "aufs", "btrfs", "zfs", "bcachefs", "ubifs")
)


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount: `number` is its file system's `major:minor` (0:N where no device is under it).

    `root` is the folder of the file system that shows at `point`: `/` unless this is a bind mount or a
    subvolume.
    """

    number: str
    root: str
    point: str
    file_system: str
    source: str

    @property
    def sort(self) -> str | None:
        """What keeps dsmc from this file system by its type alone; None where its device decides."""
        if known := SORTS.get(self.file_system):
            return known
        if self.file_system.startswith("fuse."):
            return FUSE
        on_device = not self.number.startswith("0:") or self.file_system == "btrfs"
        return None if on_device else PSEUDO

    @property
    def may_hang(self) -> bool:
        """Whether a look at a path inside may wait for another machine, a program or an automounter."""
        served = self.file_system == "fuseblk"
        return served or (self.sort is not None and self.file_system not in CALM)


class Mounts:
    """The mounts of this process as a tree: a path belongs to the mount that the kernel would enter."""

    def __init__(self, below: dict[tuple[str, str], tuple[str, Mount]]) -> None:
        self._below = below

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the mounts in `text`, the content of mountinfo."""
        rows = [line.split(" ") for line in text.split("\n") if line]
        known = {row[0] for row in rows}
        below: dict[tuple[str, str], tuple[str, Mount]] = {}
        for row in rows:
            mount_id, parent, number, root, point = row[:5]
            file_system, source = row[row.index("-", 6) + 1 :][:2]
            # The root's parent lies outside this list, and so do all parents in a chroot that is no mount.
            above = parent if parent in known and parent != mount_id else ""
            mount = Mount(number, *(_plain(field) for field in (root, point, file_system, source)))
            below[above, mount.point] = mount_id, mount
        return cls(below)

    def __iter__(self) -> Iterator[Mount]:
        return (mount for _, mount in self._below.values())

    def of(self, path: str) -> Mount | None:
        """Return the mount that the absolute, link-free `path` lies on; None in a chroot that is no mount."""
        at, found = "", None
        steps = path.rstrip("/").split("/")
        for depth in range(len(steps)):
            point = "/".join(steps[: depth + 1]) or "/"
            while inner := self._below.get((at, point)):
                at, found = inner
        return found


def _plain(field: str) -> str:
    """Return `field` with the kernel's octal escapes (of blank, tab, newline, backslash, #) undone."""
    return re.sub(r"\\([0-7]{3})", lambda escape: chr(int(escape[1], 8)), field)
