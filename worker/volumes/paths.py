"""From the name that a request gives a volume to the one block device that it means."""

from collections import deque
from dataclasses import dataclass

from worker.errors import TsmWorkerError
from worker.volumes.inquiry import shown, unfit
from worker.volumes.kernel import Kernel, Kind, Node
from worker.volumes.mounts import AUTOMOUNT, CLUSTERED, FUSE, GPFS, NETWORK, POOL, PSEUDO, Mount, Mounts

# As many links as the kernel itself follows in one path (path_resolution(7)).
MOST_LINKS = 40

OTHERWISE = "name a partition, a logical volume or the mount point of one"
# What to do instead of naming a file system of such a sort.
INSTEAD = {
    GPFS: "dsmc makes no image of GPFS (IBM's restriction): back its files up with `dsmc incremental` or mmbackup",
    NETWORK: "ask the host that serves it for an image of its volume",
    CLUSTERED: "dsmc images no device that machines share: back its files up with `dsmc incremental`",
    FUSE: "name the block device that the program serves it from, if there is one",
    POOL: "no single device holds all of it: back its files up with `dsmc incremental`",
    AUTOMOUNT: "name what gets mounted there, once it is",
    PSEUDO: OTHERWISE,
}


class Ineligible(TsmWorkerError):
    """A name leads to no block device; the message is the verdict's reason."""


@dataclass(frozen=True, slots=True)
class Place:
    """The block device a name leads to: its `major:minor`, and the node that the name ends at.

    `node` is empty where the name is a mount point: the device's own node is meant then.
    """

    number: str
    node: str = ""


def resolve(kernel: Kernel, mounts: Mounts, name: str) -> Place:
    """Return the device that `name` means: a device node, a link to one, or the mount point of one.

    A relative name starts from the working directory. Every step is looked up in `mounts` before it is
    looked at, so that nothing on a network file system is ever touched: a dead server would hang us.
    Raise Ineligible, with what was found and what to do, where the name leads to anything else.
    """
    if not name:
        raise Ineligible("the name is empty; name a device or a mount point")
    if odd := unfit(name):
        raise Ineligible(
            f"the name holds {odd}, which dsmc's output and a log line cannot carry; "
            "name the volume by its device node"
        )
    return _end(kernel, mounts, name if name.startswith("/") else f"{kernel.here()}/{name}")


def _end(kernel: Kernel, mounts: Mounts, absolute: str) -> Place:
    """Return the device at the end of the path `absolute`, walked as the kernel walks it."""
    todo, at, here, links = deque(_steps(absolute)), "", Node(Kind.DIRECTORY), 0
    while todo:
        if here.kind is not Kind.DIRECTORY:
            raise Ineligible(_no_directory(at, here.kind))
        step = todo.popleft()
        if step == "..":
            at = at.rpartition("/")[0]
            continue
        path = f"{at}/{step}"
        mount = mounts.of(path)
        if mount and mount.may_hang:
            return _untouched(kernel, mounts, mount, "/".join([path, *todo]))
        node = kernel.node(path)
        if node.kind is not Kind.LINK:
            at, here = path, node
            continue
        links += 1
        if links > MOST_LINKS:
            raise Ineligible(f"{shown(absolute)} leads round in a loop of links; name the device itself")
        todo.extendleft(reversed(_steps(node.target)))
        at = "" if node.target.startswith("/") else at
    if here.kind is Kind.BLOCK:
        return _device(mounts, here.number, at)
    return _directory(kernel, mounts, at or "/", here.kind)


def _steps(path: str) -> list[str]:
    return [step for step in path.split("/") if step not in ("", ".")]


def _no_directory(at: str, kind: Kind) -> str:
    if kind is Kind.MISSING:
        return f"there is no {shown(at)}; check the name (`tsm-worker check` lists this host's volumes)"
    return f"{shown(at)} is a {kind}, so nothing lies below it; check the name"


def _untouched(kernel: Kernel, mounts: Mounts, mount: Mount, path: str) -> Place:
    """Return the device of the mount point `path` whose file system is not to be touched; raise Ineligible in one."""
    if mount.point == path:
        return _mounted(kernel, mounts, mount)
    raise Ineligible(f"{shown(path)} lies on {_named(mount)}; {INSTEAD[mount.sort or FUSE]}")


def _device(mounts: Mounts, number: str, node: str) -> Place:
    """Return the place of the device node `node`; raise Ineligible for the node of a GPFS file system.

    GPFS makes a block device node per file system (`/dev/gpfs1`), for which there is no disk in sysfs.
    """
    for mount in mounts:
        if mount.sort == GPFS and mount.source in (node, node.rpartition("/")[2]):
            raise Ineligible(f"{shown(node)} stands for {_named(mount)}; {INSTEAD[GPFS]}")
    return Place(number, node)


def _directory(kernel: Kernel, mounts: Mounts, path: str, kind: Kind) -> Place:
    """Return the device mounted at the directory `path`; raise Ineligible where there is none, or no directory."""
    if kind is Kind.MISSING:
        raise Ineligible(_no_directory(path, kind))
    mount = mounts.of(path)
    if kind is Kind.DIRECTORY and mount and mount.point == path:
        return _mounted(kernel, mounts, mount)
    what = "directory but no mount point" if kind is Kind.DIRECTORY else kind.value
    if mount is None or mount.sort:
        raise Ineligible(f"{shown(path)} is a {what}; {OTHERWISE}")
    raise Ineligible(
        f"{shown(path)} is a {what}, and lies on {_named(mount)}; dsmc images whole file systems: "
        f"name {shown(mount.point)} or {shown(mount.source)}"
    )


def _mounted(kernel: Kernel, mounts: Mounts, mount: Mount) -> Place:
    """Return the device that `mount` shows; raise Ineligible where it does not show all of one device."""
    if mount.sort:
        raise Ineligible(f"{_named(mount)} is no volume of its own; {INSTEAD[mount.sort]}")
    if mount.file_system == "btrfs":
        # Its number is not its device's, and each of its subvolumes stands for all of it.
        return _end(kernel, mounts, mount.source)
    if mount.root != "/":
        raise Ineligible(
            f"{shown(mount.point)} shows only {shown(mount.root)} of {_named(mount)} (a bind mount); "
            f"name {shown(mount.source)} or the mount point of all of it"
        )
    return Place(mount.number)


def _named(mount: Mount) -> str:
    return f"the {mount.sort or 'file system'} {mount.file_system} from {shown(mount.source)} at {shown(mount.point)}"
