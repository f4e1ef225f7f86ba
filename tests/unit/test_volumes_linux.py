"""Eligibility on hosts that no test machine is: what their kernels showed, read by the code that reads any kernel."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from worker.volumes import UnknownPlatform, Verdict, Volumes, gpt, mbr, mounts, partitions, paths, this_host
from worker.volumes.devices import Device
from worker.volumes.eligibility import by_content, by_kind
from worker.volumes.kernel import Kernel, KernelError, Kind, Node
from worker.volumes.linux import LinuxVolumes
from worker.volumes.mounts import Mounts
from worker.words import Platform

HOSTS = Path(__file__).parents[1] / "fixtures" / "hosts"
NODES = {"directory": Kind.DIRECTORY, "file": Kind.FILE, "character": Kind.CHARACTER, "block": Kind.BLOCK}
FILES = {"size": "size", "ro": "ro", "partition": "partition", "raw_track": "device/raw_track_access"}
DM_FILES = {"dm_name": "dm/name", "dm_uuid": "dm/uuid"}


class CapturedKernel(Kernel):
    """The kernel of a host in fixtures/hosts, which capture.py there wrote: its sysfs as files under `root`."""

    def __init__(self, host: str, root: Path) -> None:
        super().__init__(root)
        self.host: dict[str, Any] = tomllib.loads((HOSTS / f"{host}.toml").read_text())
        self.released = Event()
        points = (line.split(" ")[4] + "/" for line in self.host["mountinfo"].split("\n") if line)
        self.known = [*self.host["nodes"], *points]
        _write(root / "proc/self/mountinfo", self.host["mountinfo"].lstrip("\n"))
        for number, device in self.host["devices"].items():
            where = root / device["path"].lstrip("/")
            _write(where / "dev", number)
            for key, file in (FILES | DM_FILES).items():
                if key in device:
                    _write(where / file, str(device[key]))
            for key in ("holders", "slaves"):
                for name in device.get(key, ()):
                    _write(where / key / name, "")
            _link(root / "sys/dev/block" / number, where)
            if "partition" not in device:
                _link(root / "sys/block" / where.name, where)
        for fsid, members in self.host.get("btrfs", {}).items():
            for name in members:
                _write(root / "sys/fs/btrfs" / fsid / "devices" / name, "")

    def node(self, path: str) -> Node:
        word, _, rest = self.host["nodes"].get(path, "").partition(" ")
        assert word != "never", f"{path} may hang, and was looked at"
        if word == "hangs":
            self.released.wait()
        if word == "denied":
            raise KernelError(f"{path}: permission denied; run as root")
        if word == "link":
            return Node(Kind.LINK, target=rest)
        if not word and any(name.startswith(path + "/") for name in self.known):
            return Node(Kind.DIRECTORY)
        return Node(NODES[word], rest) if word else Node(Kind.MISSING)

    def probe(self, device: str) -> Mapping[str, str]:
        number = self.host["nodes"].get(device, device).removeprefix("block ")
        found = self.host["devices"][number]["probe"]
        if found == "hangs":
            self.released.wait()
        return dict(found)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))


@pytest.fixture
def lvm(tmp_path: Path) -> LinuxVolumes:
    return LinuxVolumes(CapturedKernel("lvm-and-multipath", tmp_path))


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[LinuxVolumes]:
    """Give a host with GPFS and every other file system that is not to be touched."""
    kernel = CapturedKernel("gpfs", tmp_path)
    yield LinuxVolumes(kernel, timeout=1.0)
    kernel.released.set()


@pytest.fixture
def dasd(tmp_path: Path) -> LinuxVolumes:
    return LinuxVolumes(CapturedKernel("zlinux-dasd", tmp_path))


def verdict(volumes: Volumes, name: str) -> Verdict:
    [one] = volumes.judge([name])
    assert one.volume == name
    return one


# -- logical volumes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file_system", "words"),
    [
        ("plain", "ext4", "an LVM logical volume, with ext4 on it"),
        ("origin", "xfs", "with xfs on it"),
        ("snap", "xfs", "with xfs on it"),
        ("thin", None, "with no file system that blkid knows (raw)"),
        ("thinsnap", None, "(raw)"),
        ("extsnap", None, "(raw)"),
        ("ext", None, "(raw), read-only"),
        ("raid", None, "(raw)"),
        ("checked", None, "(raw)"),
        ("mirror", None, "(raw)"),
        ("mirrorlog", None, "(raw)"),
        ("cached", None, "(raw)"),
        ("cached2", None, "(raw)"),
        ("wcached", None, "(raw)"),
        ("readonly", None, "(raw), read-only"),
        ("nested", None, "(raw)"),
    ],
)
def test_a_logical_volume_that_users_see_is_eligible(
    lvm: LinuxVolumes, name: str, file_system: str | None, words: str
) -> None:
    found = verdict(lvm, f"/dev/vg-a/{name}")
    assert found.eligible
    assert words in found.reason
    assert (found.partition_type, found.file_system) == ("lvm", file_system)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("origin-real", "what lies under a volume with snapshots or a cache"),
        ("ext-real", "what lies under a volume with snapshots or a cache"),
        ("snap-cow", "the changed blocks of a snapshot"),
        ("pool", "a pool of thin or deduplicated volumes"),
        ("pool-tpool", "a thin pool"),
        ("pool_tdata", "the data of a thin pool"),
        ("pool_tmeta", "the metadata of a thin pool"),
        ("raid_rimage_0", "one image of a raid"),
        ("raid_rmeta_1", "the metadata of a raid's image"),
        ("checked_rimage_0", "one image of a raid"),
        ("checked_rimage_0_imeta", "the checksums of a raid's image"),
        ("checked_rimage_1_iorig", "what lies under a raid's checksums"),
        ("mirror_mimage_0", "one image of a mirror"),
        ("mirrorlog_mlog", "the log of a mirror"),
        ("cached_corig", "what lies under a volume with snapshots or a cache"),
        ("wcached_wcorig", "what lies under a volume with snapshots or a cache"),
        ("fast_cvol", "a cache volume"),
        ("fast_cvol-cdata", "the data of a cache"),
        ("fastpool_cpool_cdata", "the data of a cache"),
        ("fastpool_cpool_cmeta", "the metadata of a cache"),
    ],
)
def test_an_internal_part_of_a_logical_volume_is_refused_by_its_name(
    lvm: LinuxVolumes, name: str, part: str
) -> None:
    found = verdict(lvm, f"/dev/mapper/vg--a-{name}")
    assert not found.eligible
    assert found.reason == (
        f"/dev/mapper/vg--a-{name} is inside a logical volume: {part}; name the logical volume itself"
    )


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("vg_rimage_0-data", ""),  # the volume group is called so
        ("a--b_mlog-c--d_x", ""),
        ("vg-lv_tpool", ""),  # not reserved: LVM marks thin pools in their uuid
        ("vg-lv_cvol", ""),
        ("vg-old_imeta", ""),
        ("vg-lv_mlogs", ""),
        ("vg-pvmoved", ""),
        ("vg-pvmove0", "pvmove"),
        ("vg-lv_rimage_0", "rimage"),
        ("a--b-c--d_rimage_1_extracted", "rimage"),
        ("vg-lv_mimagetmp_2", "mimage"),
        ("vg-lv_mlog_mimage_0", "mimage"),
        ("vg-lv_rimage_0_iorig", "iorig"),
    ],
)
def test_parts_without_a_suffix_in_their_uuid_are_known_by_the_names_that_lvm_reserves(
    name: str, part: str
) -> None:
    device = Device("253:0", "dm-0", "/dev/dm-0", dm_name=name, dm_uuid="LVM-" + "x" * 64)
    assert device.lv_part == part


def test_a_move_between_physical_volumes_is_no_volume() -> None:
    device = Device("253:0", "dm-0", "/dev/dm-0", dm_name="vg-pvmove0", dm_uuid="LVM-" + "x" * 64)
    found = by_kind("/dev/vg/pvmove0", device)
    assert found
    assert "a move between physical volumes" in found.reason


def test_a_new_kind_of_internal_volume_is_refused_by_the_suffix_of_its_uuid() -> None:
    device = Device("253:0", "dm-0", "/dev/dm-0", dm_name="vg-lv-new", dm_uuid="LVM-" + "x" * 64 + "-new")
    found = by_kind("/dev/mapper/vg-lv-new", device)
    assert found
    assert "inside a logical volume: new" in found.reason


def test_all_names_of_a_logical_volume_give_the_same_device(lvm: LinuxVolumes) -> None:
    names = ["/dev/vg-a/plain", "/dev/mapper/vg--a-plain", "/dev/dm-0", "/mnt/plain"]
    assert {verdict(lvm, name).device for name in names} == {"/dev/dm-0"}


def test_a_volume_named_twice_by_different_names_is_refused_both_times(lvm: LinuxVolumes) -> None:
    first, other, again = lvm.judge(["/mnt/plain", "/dev/vg-a/origin", "/dev/vg-a/plain"])
    assert (first.eligible, other.eligible, again.eligible) == (False, True, False)
    assert first.reason == again.reason
    assert "named 2 times in this request, as /mnt/plain and /dev/vg-a/plain; name it once" in first.reason


def test_a_volume_that_is_refused_anyway_keeps_its_own_reason_when_named_twice(lvm: LinuxVolumes) -> None:
    for found in lvm.judge(["/dev/vg-a/swap", "/dev/mapper/vg--a-swap"]):
        assert "but holds swap" in found.reason


def test_swap_in_a_logical_volume_is_refused(lvm: LinuxVolumes) -> None:
    found = verdict(lvm, "/dev/vg-a/swap")
    assert not found.eligible
    assert found.partition_type == "lvm"


def test_an_encrypted_logical_volume_points_to_the_volume_inside(lvm: LinuxVolumes) -> None:
    assert verdict(lvm, "/dev/vg-a/vault").reason == (
        "/dev/mapper/vg--a-vault is an LVM logical volume, but holds an encrypted device (crypto_LUKS); "
        "open it and name the logical volume inside: /dev/mapper/vgc-inside"
    )
    assert (
        "(dm-crypt); name a logical volume on it: /dev/mapper/vgc-inside"
        in verdict(lvm, "/dev/mapper/opened").reason
    )
    assert verdict(lvm, "/dev/mapper/vgc-inside").eligible


def test_a_physical_volume_names_the_first_of_its_logical_volumes_and_counts_the_rest(
    lvm: LinuxVolumes,
) -> None:
    in_linux, in_lvm = lvm.judge(["/dev/vdb1", "/dev/vdb2"])
    assert (
        "0x83 (Linux), but holds an LVM physical volume (LVM2_member); name a logical volume on it: "
        in in_linux.reason
    )
    assert "/dev/mapper/vg--a-cached, /dev/mapper/vg--a-cached2, " in in_linux.reason
    assert " more" in in_linux.reason
    assert "_rimage" not in in_linux.reason
    assert "0x8e (Linux LVM); name a logical volume on it: " in in_lvm.reason


def test_a_disk_that_is_a_physical_volume_names_its_logical_volume(lvm: LinuxVolumes) -> None:
    assert verdict(lvm, "/dev/vdc").reason == (
        "/dev/vdc is a whole disk; name a logical volume on it: /dev/mapper/vgd-alone"
    )


# -- multipath, btrfs, md and others -----------------------------------------------------------------------


def test_a_partition_of_a_multipath_map_is_judged_by_its_own_type(lvm: LinuxVolumes) -> None:
    linux, lvm2, extended, logical = lvm.judge([f"/dev/mapper/mpatha-part{n}" for n in (1, 2, 3, 5)])
    assert (linux.eligible, linux.partition_type, linux.file_system) == (True, "0x83", "ext4")
    assert "0x8e (Linux LVM)" in lvm2.reason
    assert "0x05 (Extended); name a partition inside it: /dev/mapper/mpatha-part5" in extended.reason
    assert (logical.eligible, logical.file_system) == (True, None)
    assert verdict(lvm, "/mnt/mp").device == linux.device


def test_a_multipath_map_is_a_whole_disk(lvm: LinuxVolumes) -> None:
    found = verdict(lvm, "/dev/mapper/mpatha")
    assert (
        "is a whole disk, a multipath map; name a partition inside it: /dev/mapper/mpatha-part1, "
        in found.reason
    )


@pytest.mark.parametrize("name", ["/dev/vdd", "/dev/vdd1"])
def test_a_single_path_of_a_multipath_map_is_refused(lvm: LinuxVolumes, name: str) -> None:
    assert verdict(lvm, name).reason == (
        f"{name} is only one path of the multipath map /dev/mapper/mpatha; name a partition of /dev/mapper/mpatha"
    )


def test_one_device_of_a_btrfs_over_several_is_refused(lvm: LinuxVolumes) -> None:
    for name in ("/dev/vde2", "/mnt/multi"):
        found = verdict(lvm, name)
        assert not found.eligible
        assert "one of the 2 devices of a btrfs file system" in found.reason


def test_a_subvolume_of_a_btrfs_on_one_device_means_that_device(lvm: LinuxVolumes) -> None:
    found = verdict(lvm, "/mnt/sub")
    assert (found.eligible, found.device, found.file_system) == (True, "/dev/vde3", "btrfs")


def test_the_gpt_type_of_linux_can_be_turned_off(tmp_path: Path) -> None:
    volumes = LinuxVolumes(CapturedKernel("lvm-and-multipath", tmp_path), gpt_linux_data=False)
    found = verdict(volumes, "/dev/vde3")
    assert not found.eligible
    assert "volumes.gpt_linux_data = false" in found.reason
    assert verdict(volumes, "/dev/mapper/mpatha-part1").eligible


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "/dev/md9",
            "is a Linux software RAID (md); name a logical volume on it: none is active (vgchange -ay)",
        ),
        ("/dev/mapper/linear", "is a device-mapper device that is no logical volume"),
        ("/dev/mapper/named", "is a device-mapper device that is no logical volume"),
        (
            "/dev/mapper/vg--a-nested1",
            "is a partition inside a device that is no disk; name the volume that it lies in",
        ),
        ("/dev/sr0", "is a CD or DVD drive"),
        (
            "/dev/vdf",
            "is a whole disk; dsmc images partitions of type 0x83 and logical volumes: move the data to one",
        ),
        ("/dev/vdb", "is a whole disk; name a partition inside it: /dev/vdb1, /dev/vdb2"),
        (
            "/dev/vde4",
            "37affc90-ef7d-4e96-91c3-2d7ae055b174 (IBM GPFS, the General Parallel File System); dsmc makes no",
        ),
    ],
)
def test_what_is_neither_partition_nor_volume_is_refused_for_what_it_is(
    lvm: LinuxVolumes, name: str, words: str
) -> None:
    found = verdict(lvm, name)
    assert not found.eligible
    assert words in found.reason


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nbd3", "a network block device (nbd)"),
        ("zram0", "compressed memory (zram)"),
        ("ram1", "a RAM disk"),
        ("drbd0", "a device replicated between machines (DRBD)"),
        ("loop3", "a loop device"),
        ("md_d0", "a Linux software RAID (md)"),
        ("bcache0", "a cached device (bcache)"),
        ("zd16", "a volume of a ZFS pool"),
        ("fd0", "a floppy drive"),
        ("mtdblock2", "flash memory (mtd)"),
        ("nvme0n1", "a whole disk"),
        ("sda", "a whole disk"),
    ],
)
def test_a_device_is_known_by_its_driver(name: str, words: str) -> None:
    found = by_kind("it", Device("1:1", name, f"/dev/{name}"))
    assert found
    assert not found.eligible
    assert found.reason.startswith(f"/dev/{name} is {words}")


@pytest.mark.parametrize(
    ("uuid", "words"),
    [
        ("CRYPT-LUKS2-1-x", "an opened encrypted device (dm-crypt)"),
        ("DMRAID-isw_x", "a RAID of the firmware (dmraid)"),
        ("VDO-1", "a deduplicated volume (VDO)"),
        ("stratis-1-private-x", "a part of a Stratis pool"),
        ("part1-DMRAID-isw_x", "a partition inside a device that is no disk"),
        ("", "a device-mapper device that is no logical volume"),
    ],
)
def test_what_the_device_mapper_made_is_known_by_its_uuid(uuid: str, words: str) -> None:
    found = by_kind(
        "it", Device("253:0", "dm-0", "/dev/dm-0", dm_name="it", dm_uuid=uuid, partition=int("part" in uuid))
    )
    assert found
    assert found.reason.startswith(f"/dev/mapper/it is {words}")


PARTITION = Device("8:1", "sda1", "/dev/sda1", partition=1, disk=Device("8:0", "sda", "/dev/sda"))
LINUX = {"PART_ENTRY_SCHEME": "dos", "PART_ENTRY_TYPE": "0x83"}


@pytest.mark.parametrize(
    ("kind", "usage", "words"),
    [
        ("LVM1_member", "raid", "an LVM physical volume (LVM1_member)"),
        ("swsuspend", "other", "a suspended system in swap"),
        ("crypto_LUKS", "crypto", "an encrypted device (crypto_LUKS)"),
        ("BitLocker", "crypto", "an encrypted device (BitLocker)"),
        ("linux_raid_member", "raid", "a member of a software RAID"),
        ("isw_raid_member", "raid", "a member of a RAID or volume group (isw_raid_member)"),
        ("zfs_member", "filesystem", "a member of a ZFS pool"),
        ("ocfs2", "filesystem", "a cluster file system (ocfs2)"),
        ("gpfs", "filesystem", "a disk of GPFS (NSD)"),
        ("ceph_bluestore", "other", "a disk of Ceph"),
        ("bcache", "other", "a backing or cache device of bcache"),
        ("jbd", "other", "the external journal"),
    ],
)
def test_a_linux_partition_is_refused_for_what_no_image_could_restore(
    kind: str, usage: str, words: str
) -> None:
    found = by_content("it", PARTITION, LINUX | {"TYPE": kind, "USAGE": usage})
    assert not found.eligible
    assert f"MBR type 0x83 (Linux), but holds {words}" in found.reason
    assert "; " in found.reason


@pytest.mark.parametrize(
    ("kind", "usage", "file_system"),
    [("vfat", "filesystem", "vfat"), ("ntfs", "filesystem", "ntfs"), ("oracleasm", "other", None)],
)
def test_a_linux_partition_is_eligible_with_a_foreign_content(
    kind: str, usage: str, file_system: str | None
) -> None:
    found = by_content("it", PARTITION, LINUX | {"TYPE": kind, "USAGE": usage})
    assert (found.eligible, found.file_system) == (True, file_system)
    assert kind in found.reason


@pytest.mark.parametrize(
    ("scheme", "kind", "words"),
    [
        ("dos", "0x5", "MBR type 0x05 (Extended); name a partition inside it: it has none"),
        (
            "dos",
            "0xfd",
            "MBR type 0xfd (Linux raid autodetect); name a logical volume on the whole array: none is active",
        ),
        (
            "dos",
            "0xa5",
            (
                "(FreeBSD); back its files up with `dsmc incremental` or, if it is Linux data, give it the type of "
                "that: sfdisk --part-type /dev/sda 1 83"
            ),
        ),
        ("dos", "0x2", "MBR type 0x02 (XENIX root)"),
        ("dos", "0x7f", "MBR type 0x7f (unknown)"),
        ("gpt", "21686148-6449-6e6f-744e-656564454649", "(BIOS boot); it holds nothing to image"),
        ("gpt", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "(Linux root (x86-64)); back its files up"),
        ("gpt", "00000000-0000-0000-0000-000000000001", "(unknown); back its files up"),
        ("sun", "0x83", "type 0x83 in a partition table of the sort sun; "),
    ],
)
def test_a_partition_of_any_other_type_is_refused_by_the_name_of_the_type(
    scheme: str, kind: str, words: str
) -> None:
    found = by_content("it", PARTITION, {"PART_ENTRY_SCHEME": scheme, "PART_ENTRY_TYPE": kind})
    assert not found.eligible
    assert found.partition_type == kind
    assert words in found.reason


def test_a_partition_that_the_table_does_not_list_is_refused() -> None:
    found = by_content("it", PARTITION, {})
    assert found.reason == (
        "/dev/sda1 is a partition that its disk's partition table does not list; read the table anew: partprobe /dev/sda"
    )


def test_every_type_of_the_tables_has_a_name_and_every_special_remedy_a_type() -> None:
    known = {f"0x{number:x}" for number in mbr.TYPES} | set(gpt.TYPES)
    assert set(partitions.REMEDIES) <= known
    assert {partitions.LINUX_MBR, partitions.LINUX_GPT} <= known


# -- GPFS, network and pseudo file systems -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "/gpfs/fs1",
            "the GPFS file system gpfs from gpfs1 at /gpfs/fs1 is no volume of its own; dsmc makes no image of GPFS",
        ),
        ("/gpfs/fs2", "the GPFS file system gpfs from /dev/gpfs2 at /gpfs/fs2"),
        (
            "/gpfs/fs1/project/data",
            "/gpfs/fs1/project/data lies on the GPFS file system gpfs from gpfs1 at /gpfs/fs1",
        ),
        ("/dev/gpfs1", "/dev/gpfs1 stands for the GPFS file system gpfs from gpfs1 at /gpfs/fs1"),
        ("/dev/gpfs2", "/dev/gpfs2 stands for the GPFS file system gpfs from /dev/gpfs2 at /gpfs/fs2"),
        (
            "/dev/sdb1",
            "(IBM GPFS, the General Parallel File System); dsmc makes no image of GPFS (IBM's restriction)",
        ),
    ],
)
def test_gpfs_is_refused_wherever_it_shows(shared: LinuxVolumes, name: str, words: str) -> None:
    found = verdict(shared, name)
    assert not found.eligible
    assert words in found.reason
    assert "mmbackup" in found.reason


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "/home",
            "the network file system nfs4 from filer:/export/home at /home is no volume of its own; ask the host",
        ),
        ("/home/user", "/home/user lies on the network file system nfs4"),
        ("/home/../dev/sda1", "/home/../dev/sda1 lies on the network file system nfs4"),
        ("/link-home", "/home/user lies on the network file system nfs4"),
        ("/windows/", "the network file system cifs from //filer/share at /windows"),
        ("/auto", "the automount point autofs from systemd-1 at /auto"),
        ("/sshfs", "the network file system fuse.sshfs"),
        ("/served", "the file system served by a program (FUSE) fuse.someprogram"),
        (
            "/ntfs/data",
            "/ntfs/data lies on the file system fuseblk from /dev/sda2 at /ntfs; name the block device",
        ),
        ("/cluster", "the cluster file system gfs2"),
        ("/tank", "the file system in a pool of devices zfs"),
        ("/merged", "the pseudo file system overlay"),
        ("/proc", "the pseudo file system proc"),
        ("/proc/self/fd/0", "/proc/self/fd/0 lies on the pseudo file system proc"),
        ("/dev", "the pseudo file system devtmpfs"),
        ("/dev/pts/0", "/dev/pts/0 lies on the pseudo file system devpts"),
        ("/hidden", "the network file system nfs from filer:/over at /hidden"),
    ],
)
def test_a_file_system_on_no_device_is_refused_untouched(shared: LinuxVolumes, name: str, words: str) -> None:
    found = verdict(shared, name)
    assert not found.eligible
    assert words in found.reason


def test_a_file_system_served_by_a_program_from_a_device_is_judged_by_the_device(
    shared: LinuxVolumes,
) -> None:
    found = verdict(shared, "/ntfs")
    assert (found.device, found.partition_type) == ("/dev/sda2", "0x7")
    assert "MBR type 0x07 (HPFS/NTFS/exFAT)" in found.reason


def test_a_cluster_file_system_on_a_linux_partition_is_refused(shared: LinuxVolumes) -> None:
    assert (
        "but holds a cluster file system (gfs2); dsmc images no device that machines share"
        in verdict(shared, "/dev/sda3").reason
    )


def test_a_bind_mount_of_a_folder_is_refused_and_one_of_a_whole_file_system_is_not(
    shared: LinuxVolumes,
) -> None:
    assert verdict(shared, "/www").reason == (
        "/www shows only /srv/www of the file system ext4 from /dev/sda1 at /www (a bind mount); "
        "name /dev/sda1 or the mount point of all of it"
    )
    assert verdict(shared, "/data of ours").eligible
    assert verdict(shared, "/").device == "/dev/sda1"


def test_a_device_in_a_folder_of_dev_is_found_by_the_kernels_spelling(shared: LinuxVolumes) -> None:
    found = verdict(shared, "/dev/cciss/c0d0p1")
    assert (found.eligible, found.device) == (True, "/dev/cciss/c0d0p1")


def test_a_node_without_a_device_in_the_kernel_is_refused(shared: LinuxVolumes) -> None:
    assert verdict(shared, "/dev/orphan").reason == (
        "/dev/orphan stands for device 240:7, which the kernel does not have; see dmesg"
    )
    assert "/gone stands for device 8:77" in verdict(shared, "/gone").reason


def test_a_mounted_device_whose_node_is_another_devices_is_refused(shared: LinuxVolumes) -> None:
    found = verdict(shared, "/moved")
    assert found.device == "/dev/sda6"
    assert found.reason == (
        "/dev/sda6 should be the node of device 8:6 and is 8:22; see udev (udevadm trigger)"
    )


def test_a_denied_path_says_that_root_is_needed(shared: LinuxVolumes) -> None:
    assert verdict(shared, "/secret/volume").reason == "/secret: permission denied; run as root"


@pytest.mark.parametrize("name", ["/dev/sda5", "/stuck"])
def test_what_hangs_is_refused_in_time_and_the_others_are_judged(shared: LinuxVolumes, name: str) -> None:
    hung, fine = shared.judge([name, "/dev/sda1"])
    assert not hung.eligible
    assert hung.reason.startswith(
        "no answer about it within 1 s; a device or file system on the way to it hangs"
    )
    assert fine.eligible


def test_more_hung_volumes_than_lookers_are_all_refused_in_time(shared: LinuxVolumes) -> None:
    assert not any(found.eligible for found in shared.judge(["/dev/sda5"] * 20 + ["/dev/sda1"]))


def test_no_name_gives_no_verdict(shared: LinuxVolumes) -> None:
    assert shared.judge([]) == []


def test_a_fault_of_our_own_is_raised_to_the_caller(shared: LinuxVolumes) -> None:
    with pytest.raises(AssertionError, match="/trap may hang, and was looked at"):
        shared.judge(["/dev/sda1", "/trap"])


# -- DASD --------------------------------------------------------------------------------------------------


def test_a_dasd_partition_is_eligible_and_one_in_raw_track_mode_is_not(dasd: LinuxVolumes) -> None:
    root, swap, disk, raw, in_raw = dasd.judge(
        ["/", "/dev/dasda2", "/dev/dasda", "/dev/dasdb", "/dev/dasdb1"]
    )
    assert (root.eligible, root.device, root.partition_type) == (True, "/dev/dasda1", "dasd")
    assert "a DASD partition, but holds swap" in swap.reason
    assert "is a whole disk; name a partition inside it: /dev/dasda1, /dev/dasda2" in disk.reason
    for found in (raw, in_raw):
        assert (
            "a DASD in raw-track mode (IBM's restriction); set it online without raw_track_access"
            in found.reason
        )


# -- the whole host ----------------------------------------------------------------------------------------


def test_all_lists_every_device_with_a_size_once_in_natural_order(lvm: LinuxVolumes) -> None:
    found = lvm.all()
    devices = [one.device for one in found]
    assert devices.index("/dev/dm-9") < devices.index("/dev/dm-10") < devices.index("/dev/vdb1")
    assert len(devices) == len(set(devices)) == 81
    assert {one.volume for one in found if one.eligible} == {
        *(
            f"/dev/mapper/vg--a-{name}"
            for name in ("plain", "origin", "snap", "thin", "thinsnap", "extsnap", "ext")
        ),
        *(
            f"/dev/mapper/vg--a-{name}"
            for name in ("raid", "checked", "mirror", "mirrorlog", "nested", "readonly")
        ),
        *(f"/dev/mapper/vg--a-{name}" for name in ("cached", "cached2", "wcached")),
        *(
            "/dev/mapper/vgc-inside",
            "/dev/mapper/vgd-alone",
            "/dev/mapper/mpatha-part1",
            "/dev/mapper/mpatha-part5",
        ),
        "/dev/vde3",
    }


def test_a_device_that_went_away_meanwhile_is_refused_alone(tmp_path: Path) -> None:
    kernel = CapturedKernel("zlinux-dasd", tmp_path)
    (tmp_path / "sys/block/dasda/size").unlink()
    (tmp_path / "sys/block/dasda/size").symlink_to("size")
    first, second = LinuxVolumes(kernel).judge(["/dev/dasda1", "/dev/dasdb"])
    assert "too many levels of symbolic links" in first.reason
    assert "raw-track" in second.reason


def test_all_gives_a_hung_device_a_refusal_that_says_so(shared: LinuxVolumes) -> None:
    found = {one.volume: one for one in shared.all()}
    assert "no answer about it within" in found["/dev/sda5"].reason
    assert found["/dev/sda5"].device == "/dev/sda5"
    assert found["/dev/sda1"].eligible


# -- mounts ------------------------------------------------------------------------------------------------


def test_a_chroot_that_is_no_mount_has_no_mount_at_its_root() -> None:
    inside = Mounts.read("31 29 8:2 / /data rw - ext4 /dev/sda2 rw\n")
    assert inside.of("/") is None
    found = inside.of("/data/x")
    assert found
    assert found.point == "/data"


def test_a_directory_without_any_mount_is_no_mount_point(tmp_path: Path) -> None:
    kernel = CapturedKernel("zlinux-dasd", tmp_path)
    (tmp_path / "proc/self/mountinfo").write_text("")
    assert verdict(LinuxVolumes(kernel), "/dev").reason == (
        "/dev is a directory but no mount point; name a partition, a logical volume or the mount point of one"
    )


def test_a_mount_covers_what_was_mounted_below_before_it() -> None:
    over = Mounts.read(
        "1 1 0:2 / / rw - rootfs none rw\n"
        "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "21 20 8:2 / /a/b rw - ext4 /dev/sda2 rw\n"
        "22 20 8:3 / /a rw shared:7 master:3 - xfs /dev/sda3 rw\n"
        "23 22 8:4 / /a/c rw - xfs /dev/disk\\040four rw\n"
    )
    assert [
        (mount.point, mount.source) if (mount := over.of(path)) else None for path in ("/", "/a/b", "/a/c/d")
    ] == [
        ("/", "/dev/sda1"),
        ("/a", "/dev/sda3"),
        ("/a/c", "/dev/disk four"),
    ]


def test_the_sorts_of_file_systems_have_an_alternative_each() -> None:
    assert {*mounts.SORTS.values(), mounts.FUSE, mounts.PSEUDO} == set(paths.INSTEAD)


# -- the room's face ---------------------------------------------------------------------------------------


def test_this_host_is_a_linux_one_here() -> None:
    assert this_host(timeout=5).platform is Platform.LINUX


def test_the_room_loads_no_platform_before_it_is_asked_for() -> None:
    script = "import sys, worker.volumes; print([name for name in sys.modules if name.startswith('worker.volumes.')])"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "['worker.volumes.verdict']"


def test_this_host_must_be_of_a_known_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "sunos5")
    with pytest.raises(UnknownPlatform, match="sunos5"):
        this_host()
