"""What a block device is, from sysfs: partition, disk, device-mapper volume, and what lies on and under it.

Source of the files read: the kernel's Documentation/ABI (stable/sysfs-block, testing/sysfs-block-dm).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from worker.volumes.kernel import Kernel

SECTOR = 512  # bytes; the unit of sysfs' `size`, whatever the device's own sectors are

# An LV's dm uuid is `LVM-`, then the VG's and the LV's own 32 characters each; parts of LVs carry a suffix
# (`-real`, `-cow`, `-tpool`, `-tmeta` …). Those of raids, mirrors and moves do not (lvm2, lvm-string.c,
# build_dm_uuid): they are known by the names that LVM reserves, behind the VG's, whose hyphens are doubled.
LV_UUID = re.compile(r"LVM-[\w!#]{64}(?:-(?P<part>.+))?")
LV_NAME_PART = re.compile(
    r"(?:[^-]|--)+-(?!-)(?:(?P<whole>pvmove)\d+"
    r"|.+_(?P<part>[rm]image|rmeta|mlog|(?<=\d_)imeta|(?<=\d_)iorig)(?:tmp)?(?:_\d.*)?)"
)
# The device mapper's partitions (kpartx): `part1-mpath-…` is the first one of a multipath map.
DM_PARTITION = re.compile(r"part(?P<number>\d+)-")
MAP_PARTITION = re.compile(r"part\d+-mpath-")


@dataclass(frozen=True, slots=True)
class Device:
    """One block device: `name` is the kernel's, `node` its device node, `size` in bytes.

    `partition` is the number of a partition, be it the kernel's own or the device mapper's, and `disk` what
    that is cut from. `partitions` are a disk's or map's own, by number and node; `volumes` the nodes of the
    logical volumes whose data lies on it; `map` the multipath map that it is one path of.
    """

    number: str
    name: str
    node: str
    size: int = 0
    read_only: bool = False
    dm_name: str = ""
    dm_uuid: str = ""
    raw_track: bool = False
    partition: int = 0
    disk: "Device | None" = None
    partitions: tuple[tuple[int, str], ...] = ()
    volumes: tuple[str, ...] = ()
    map: str = ""

    @property
    def friendly(self) -> str:
        """The node by the name that outlives a reboot: `/dev/mapper/…` for what the device mapper made."""
        return f"/dev/mapper/{self.dm_name}" if self.dm_name else self.node

    @property
    def of_disk(self) -> bool:
        """Whether this is a partition of a disk or of a multipath map, which is one."""
        return bool(self.partition) and (not self.dm_uuid or bool(MAP_PARTITION.match(self.dm_uuid)))

    @property
    def lv_part(self) -> str | None:
        """Which part of a logical volume this is (`cow`, `tpool`, `rimage` …), empty for all of one.

        None where this is nothing of LVM's. Plain volumes, origins, snapshots, thin volumes and raids are
        whole ones.
        """
        uuid = LV_UUID.fullmatch(self.dm_uuid)
        if not uuid:
            return None
        named = LV_NAME_PART.fullmatch(self.dm_name)
        return uuid["part"] or (named and (named["part"] or named["whole"])) or ""


def everything(kernel: Kernel) -> list[Device]:
    """Return every block device that has a size, without what lies on and under it, sorted by node."""
    links = {number: kernel.link(f"/sys/dev/block/{number}") for number in kernel.names("/sys/dev/block")}
    found = (_alone(kernel, number, link.rpartition("/")[2]) for number, link in links.items())
    return sorted((device for device in found if device.size), key=_place)


def _place(device: Device) -> list[tuple[str, int]]:
    """Return what sorts sda2 before sda10: the node's words and numbers in turn."""
    return [(word, int(digits or 0)) for word, digits in re.findall(r"(\D+)(\d*)", device.node)]


def find(kernel: Kernel, number: str) -> Device | None:
    """Return the block device `number` (`major:minor`); None where the kernel has no such device."""
    where = f"/sys/dev/block/{number}"
    above, _, name = kernel.link(where).rpartition("/")
    if not name:
        return None
    device = _alone(kernel, number, name)
    holders = [_named(kernel, holder) for holder in kernel.names(f"{where}/holders")]
    return replace(
        device,
        disk=_disk(kernel, device, above.rpartition("/")[2]),
        partitions=tuple(sorted(_partitions(kernel, device, holders))),
        volumes=tuple(sorted(set(_volumes(kernel, holders)))),
        map=next((holder.friendly for holder in holders if holder.dm_uuid.startswith("mpath-")), ""),
    )


def _alone(kernel: Kernel, number: str, name: str) -> Device:
    """Return the device without what lies on and under it."""
    where = f"/sys/dev/block/{number}"
    dm_uuid = kernel.text(f"{where}/dm/uuid")
    by_dm = DM_PARTITION.match(dm_uuid)
    return Device(
        number=number,
        name=name,
        node=_node(name),
        size=int(kernel.text(f"{where}/size") or 0) * SECTOR,
        read_only=kernel.text(f"{where}/ro") == "1",
        dm_name=kernel.text(f"{where}/dm/name"),
        dm_uuid=dm_uuid,
        raw_track=kernel.text(f"{where}/device/raw_track_access") == "1",
        partition=int(by_dm["number"] if by_dm else kernel.text(f"{where}/partition") or 0),
    )


def _node(name: str) -> str:
    return "/dev/" + name.replace("!", "/")  # sysfs writes cciss/c0d0 as cciss!c0d0


def _named(kernel: Kernel, name: str) -> Device:
    """Return the disk or device-mapper device with the kernel's `name`, alone."""
    return _alone(kernel, kernel.text(f"/sys/block/{name}/dev"), name)


def _disk(kernel: Kernel, device: Device, directory: str) -> Device | None:
    """Return what the partition `device` in sysfs' `directory` is cut from; None where it is no partition."""
    if not device.partition:
        return None
    slaves = kernel.names(f"/sys/dev/block/{device.number}/slaves")
    disk = slaves[0] if slaves else directory
    return find(kernel, kernel.text(f"/sys/block/{disk}/dev"))


def _partitions(kernel: Kernel, device: Device, holders: list[Device]) -> Iterator[tuple[int, str]]:
    for holder in holders:
        if holder.partition:
            yield holder.partition, holder.friendly
    for name in kernel.names(f"/sys/block/{device.name}"):
        if name.startswith(device.name):
            yield int(kernel.text(f"/sys/block/{device.name}/{name}/partition") or 0), _node(name)


def _volumes(kernel: Kernel, holders: list[Device]) -> Iterator[str]:
    """Yield the nodes of the logical volumes among `holders` and above those that are none themselves."""
    for holder in holders:
        if holder.lv_part == "":
            yield holder.friendly
        else:
            above = kernel.names(f"/sys/block/{holder.name}/holders")
            yield from _volumes(kernel, [_named(kernel, name) for name in above])
