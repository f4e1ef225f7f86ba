"""The decision: may dsmc image this block device? Pure, from facts to verdict, by tables."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

from worker.volumes import partitions
from worker.volumes.devices import Device
from worker.volumes.partitions import INSIDE, MEMBER, NO_DATA, NO_GPFS, VOLUMES
from worker.volumes.verdict import Verdict

NO_CLUSTER = "dsmc images no device that machines share: back its files up with `dsmc incremental`"
NO_POOL = "no single device holds all of it: back its files up with `dsmc incremental`"
OPEN_IT = "open it and name the logical volume inside: {volumes}"
ITS_OWNER = "name the device that is made of it, if that is a logical volume: {volumes}"
MOST_LISTED = 8  # a reason is a sentence
FIRST_LOGICAL = 5  # partitions of an MBR from here on lie inside its extended one
MOVE_IT = "dsmc images partitions of type 0x83 and logical volumes: move the data to one"

# Devices that are neither partitions nor the device mapper's, by the letters the kernel's name begins with.
# What has no row here is a whole disk.
DISKS = {
    "bcache": ("a cached device (bcache)", VOLUMES),
    "drbd": ("a device replicated between machines (DRBD)", VOLUMES),
    "fd": ("a floppy drive", NO_DATA),
    "loop": ("a loop device, a file shown as a disk", INSIDE),
    "md": ("a Linux software RAID (md)", VOLUMES),
    "mtdblock": ("flash memory (mtd)", NO_DATA),
    "nbd": ("a network block device (nbd)", "image it on the host that serves it"),
    "ram": ("a RAM disk", NO_DATA),
    "sr": ("a CD or DVD drive", NO_DATA),
    "zd": ("a volume of a ZFS pool", INSIDE),
    "zram": ("compressed memory (zram)", NO_DATA),
}

# What the device mapper made, by the letters its uuid begins with; LVM's own is in LV_PARTS.
MAPPED = {
    "CRYPT": ("an opened encrypted device (dm-crypt)", VOLUMES),
    "DMRAID": ("a RAID of the firmware (dmraid)", VOLUMES),
    "VDO": ("a deduplicated volume (VDO)", VOLUMES),
    "mpath": ("a whole disk, a multipath map", INSIDE),
    "part": ("a partition inside a device that is no disk", "name the volume that it lies in"),
    "stratis": ("a part of a Stratis pool", NO_POOL),
}
UNKNOWN = ("a device-mapper device that is no logical volume", "name the logical volume that it serves")

LV_PARTS = {
    "real": "what lies under a volume with snapshots or a cache",
    "cow": "the changed blocks of a snapshot",
    "pool": "a pool of thin or deduplicated volumes",
    "tpool": "a thin pool",
    "tdata": "the data of a thin pool",
    "tmeta": "the metadata of a thin pool",
    "cdata": "the data of a cache",
    "cmeta": "the metadata of a cache",
    "cpool": "a cache pool",
    "cvol": "a cache volume",
    "rimage": "one image of a raid",
    "rmeta": "the metadata of a raid's image",
    "mimage": "one image of a mirror",
    "mlog": "the log of a mirror",
    "vdata": "the data of a VDO pool",
    "vpool": "a VDO pool",
    "imeta": "the checksums of a raid's image",
    "iorig": "what lies under a raid's checksums",
    "pvmove": "a move between physical volumes",
}

# What a partition or logical volume of the right type may hold that keeps dsmc from it, by blkid's TYPE, then
# by its USAGE. Everything else is imaged as it is: any file system (the type of the partition is what IBM
# names, so FAT or NTFS in a 0x83 is a block copy like another), an unknown content, or none.
CONTENTS = {
    "LVM2_member": ("an LVM physical volume (LVM2_member)", VOLUMES),
    "LVM1_member": ("an LVM physical volume (LVM1_member)", VOLUMES),
    "swap": ("swap", NO_DATA),
    "swsuspend": ("a suspended system in swap (swsuspend)", NO_DATA),
    "crypto_LUKS": ("an encrypted device (crypto_LUKS)", OPEN_IT),
    "linux_raid_member": ("a member of a software RAID (linux_raid_member)", MEMBER),
    "gpfs": ("a disk of GPFS (NSD)", NO_GPFS),
    "gfs": ("a cluster file system (gfs)", NO_CLUSTER),
    "gfs2": ("a cluster file system (gfs2)", NO_CLUSTER),
    "ocfs": ("a cluster file system (ocfs)", NO_CLUSTER),
    "ocfs2": ("a cluster file system (ocfs2)", NO_CLUSTER),
    "zfs_member": ("a member of a ZFS pool (zfs_member)", NO_POOL),
    "ceph_bluestore": ("a disk of Ceph (ceph_bluestore)", NO_POOL),
    "stratis": ("a member of a Stratis pool", NO_POOL),
    "bcache": ("a backing or cache device of bcache", ITS_OWNER),
    "vdo": ("the backing device of a VDO volume", ITS_OWNER),
    "jbd": ("the external journal of an ext file system (jbd)", NO_DATA),
    "xfs_external_log": ("the external log of an XFS file system", NO_DATA),
}
USAGES = {
    "raid": ("a member of a RAID or volume group ({TYPE})", MEMBER),
    "crypto": ("an encrypted device ({TYPE})", OPEN_IT),
}


def by_kind(volume: str, device: Device) -> Verdict | None:
    """Return the refusal of `device` that needs no look at its content; None where the content decides.

    `volume` is the name that the request gives it.
    """
    obstacle = _kind_obstacle(device)
    verdict = Verdict(volume, eligible=False, reason="", device=device.node)
    return _refused(verdict, device, *obstacle) if obstacle else None


def by_content(
    volume: str, device: Device, probed: Mapping[str, str], *, members: int = 1, gpt_linux_data: bool = True
) -> Verdict:
    """Return the verdict on `device`, with which by_kind found nothing wrong and in which blkid found `probed`.

    `members` is the number of devices that its file system spans, as far as the kernel knows. `gpt_linux_data`
    says whether GPT's "Linux filesystem" counts as IBM's 0x83.
    """
    file_system = probed.get("TYPE") if probed.get("USAGE") == "filesystem" else None
    what, kind, remedy = _type(device, probed, gpt_linux_data=gpt_linux_data)
    verdict = Verdict(
        volume, eligible=False, reason="", device=device.node, file_system=file_system, partition_type=kind
    )
    content, obstacle = _content(probed, members)
    if remedy:
        return _refused(verdict, device, what, remedy)
    if obstacle:
        return _refused(verdict, device, f"{what}, but holds {content}", obstacle)
    read_only = ", read-only" if device.read_only else ""
    return replace(verdict, eligible=True, reason=f"{what}, with {content}{read_only}")


def _kind_obstacle(device: Device) -> tuple[str, str] | None:
    """Return what `device` is and the remedy, where its kind alone keeps dsmc from it."""
    disk = device.disk or device
    if disk.raw_track:
        return "a DASD in raw-track mode (IBM's restriction)", "set it online without raw_track_access"
    if path_of := device.map or disk.map:
        return f"only one path of the multipath map {path_of}", f"name a partition of {path_of}"
    if part := device.lv_part:
        return f"inside a logical volume: {LV_PARTS.get(part, part)}", "name the logical volume itself"
    if device.lv_part is not None or device.of_disk:
        return None
    if device.dm_name:
        return MAPPED.get(_letters(device.dm_uuid), UNKNOWN)
    return DISKS.get(_letters(device.name)) or (
        "a whole disk",
        INSIDE if device.partitions else VOLUMES if device.volumes else MOVE_IT,
    )


def _letters(name: str) -> str:
    return "".join(takewhile(str.isalpha, name))


def _type(
    device: Device, probed: Mapping[str, str], *, gpt_linux_data: bool
) -> tuple[str, str | None, str | None]:
    """Return what `device` is in words, its partition type, and the remedy if dsmc cannot image such."""
    if device.lv_part is not None:
        return "an LVM logical volume", "lvm", None
    if "PART_ENTRY_TYPE" in probed:
        scheme, kind = probed["PART_ENTRY_SCHEME"], probed["PART_ENTRY_TYPE"]
        remedy = partitions.refusal(scheme, kind, gpt_linux_data=gpt_linux_data)
        return f"a partition of {partitions.named(scheme, kind)}", kind, remedy
    if device.name.startswith("dasd"):
        # IBM names /dev/dasd<x>x as a partition to image; its table of contents (VTOC) knows no such types.
        return "a DASD partition", "dasd", None
    return (
        "a partition that its disk's partition table does not list",
        None,
        "read the table anew: partprobe {disk}",
    )


def _content(probed: Mapping[str, str], members: int) -> tuple[str, str | None]:
    """Return what lies on a device in words, and the remedy if dsmc cannot image such."""
    kind, usage = probed.get("TYPE", ""), probed.get("USAGE", "")
    if row := CONTENTS.get(kind) or USAGES.get(usage):
        return row[0].format(TYPE=kind), row[1]
    if members > 1:
        return f"one of the {members} devices of a {kind} file system", NO_POOL
    if usage == "filesystem":
        return f"{kind} on it", None
    return f"no file system that blkid knows ({kind or 'raw'})", None


def _refused(verdict: Verdict, device: Device, what: str, remedy: str) -> Verdict:
    """Return `verdict` as a refusal: `what` the device is, and the `remedy` with its blanks filled."""
    disk = device.disk or device
    inside = [node for number, node in disk.partitions if device is disk or number >= FIRST_LOGICAL]
    retype = partitions.LINUX_MBR if (verdict.partition_type or "").startswith("0x") else partitions.LINUX_GPT
    remedy = remedy.format(
        disk=disk.friendly,
        inside=_listed(inside) or "it has none",
        volumes=_listed(device.volumes) or "none is active (vgchange -ay)",
        retype=f"sfdisk --part-type {disk.friendly} {device.partition} {retype.removeprefix('0x')}",
    )
    return replace(verdict, reason=f"{device.friendly} is {what}; {remedy}")


def _listed(nodes: Sequence[str]) -> str:
    rest = len(nodes) - MOST_LISTED
    return ", ".join(nodes[:MOST_LISTED]) + (f" and {rest} more" if rest > 0 else "")
