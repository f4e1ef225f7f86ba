"""Eligibility on real disks: partitions, file systems, mounts and links that this kernel and blkid show."""

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from disks import Disk, dead_file_system, gpt, loop, mbr, mounted, needed, run

from worker.volumes import Verdict, Volumes, this_host

GPFS = "37AFFC90-EF7D-4E96-91C3-2D7AE055B174"
LINUX_GPT = "0fc63daf-8483-4772-8e79-3d69d8477de4"
# Windows' ReFS is known by the first bytes of a device, which Linux' ext4 leaves as they are.
REFS_SIGNATURE = b"\0\0\0ReFS\0"


@pytest.fixture(scope="module")
def volumes() -> Volumes:
    return this_host(timeout=20)


@pytest.fixture(scope="module")
def mbr_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """Give a disk: 1 ext4, 2 xfs, 3 empty, 4 extended, in it 5 ext4, 6 swap, 7 LVM, 8 NTFS, 9 FAT, 10 physical volume."""
    needed("mkfs.ext4", "mkfs.xfs")
    file = tmp_path_factory.mktemp("mbr") / "disk"
    # XFS makes none below 300 MB.
    with loop(mbr(file, "83", "83", "83", "5", "83", "82", "8e", "7", "c", "83", megabytes=320)) as disk:
        run("mkfs.ext4", "-q", disk.part(1))
        run("mkfs.xfs", "-q", disk.part(2))
        run("mkfs.ext4", "-q", disk.part(5))
        write(disk.part(10), 512, lvm_label())
        yield disk


@pytest.fixture(scope="module")
def gpt_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """Give a disk: 1 Linux with btrfs, 2 swap, 3 EFI, 4 Microsoft, 5 RAID, 6 GPFS, 7 BIOS boot, 8 LVM."""
    needed("mkfs.btrfs")
    file = tmp_path_factory.mktemp("gpt") / "disk"
    with loop(gpt(file, "8300", "8200", "ef00", "0700", "fd00", GPFS, "ef02", "8e00", megabytes=128)) as disk:
        run("mkfs.btrfs", "-q", disk.part(1))
        yield disk


def write(path: str, offset: int, content: bytes) -> None:
    with open(path, "r+b") as file:  # noqa: PTH123
        file.seek(offset)
        file.write(content)


def verdict(volumes: Volumes, name: str | Path) -> Verdict:
    [one] = volumes.judge([str(name)])
    assert one.volume == str(name)
    return one


@contextmanager
def nobody() -> Iterator[None]:
    """Be a user without rights for a while."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("number", "partition_type", "file_system", "reason"),
    [
        (1, "0x83", "ext4", "a partition of MBR type 0x83 (Linux), with ext4 on it"),
        (2, "0x83", "xfs", "a partition of MBR type 0x83 (Linux), with xfs on it"),
        (3, "0x83", None, "a partition of MBR type 0x83 (Linux), with no file system that blkid knows (raw)"),
        (5, "0x83", "ext4", "a partition of MBR type 0x83 (Linux), with ext4 on it"),
    ],
)
def test_a_linux_partition_is_eligible_with_a_file_system_or_raw_primary_or_logical(
    volumes: Volumes, mbr_disk: Disk, number: int, partition_type: str, file_system: str | None, reason: str
) -> None:
    node = mbr_disk.part(number)
    assert verdict(volumes, node) == Verdict(node, True, reason, node, file_system, partition_type)  # noqa: FBT003


@pytest.mark.parametrize(
    ("number", "partition_type", "words"),
    [
        (
            4,
            "0x5",
            "MBR type 0x05 (Extended); name a partition inside it: {disk}p5, {disk}p6, {disk}p7, {disk}p8",
        ),
        (6, "0x82", "MBR type 0x82 (Linux swap / Solaris); it holds nothing to image"),
        (7, "0x8e", "MBR type 0x8e (Linux LVM); name a logical volume on it: none is active (vgchange -ay)"),
        (
            8,
            "0x7",
            (
                "MBR type 0x07 (HPFS/NTFS/exFAT); back its files up with `dsmc incremental` or, if it is Linux data, "
                "give it the type of that: sfdisk --part-type {disk} 8 83"
            ),
        ),
        (9, "0xc", "MBR type 0x0c (W95 FAT32 (LBA)); "),
        (
            10,
            "0x83",
            "MBR type 0x83 (Linux), but holds an LVM physical volume (LVM2_member); name a logical volume on it",
        ),
    ],
)
def test_another_mbr_partition_is_refused_by_the_name_of_its_type(
    volumes: Volumes, mbr_disk: Disk, number: int, partition_type: str, words: str
) -> None:
    found = verdict(volumes, mbr_disk.part(number))
    assert (found.eligible, found.partition_type, found.device) == (
        False,
        partition_type,
        mbr_disk.part(number),
    )
    assert found.reason.startswith(
        f"{mbr_disk.part(number)} is a partition of {words.format(disk=mbr_disk.node)}"
    )


def test_a_gpt_partition_of_the_type_of_linux_is_eligible(volumes: Volumes, gpt_disk: Disk) -> None:
    found = verdict(volumes, gpt_disk.part(1))
    assert (found.eligible, found.partition_type, found.file_system) == (True, LINUX_GPT, "btrfs")
    assert found.reason == f"a partition of GPT type {LINUX_GPT} (Linux filesystem), with btrfs on it"


def test_a_gpt_partition_of_the_type_of_linux_is_refused_where_the_configuration_says_so(
    gpt_disk: Disk,
) -> None:
    found = verdict(this_host(gpt_linux_data=False), gpt_disk.part(1))
    assert not found.eligible
    assert "(volumes.gpt_linux_data = false)" in found.reason


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (2, "(Linux swap); it holds nothing to image"),
        (3, "(EFI System); it holds nothing to image"),
        (
            4,
            (
                "(Microsoft basic data); back its files up with `dsmc incremental` or, if it is Linux data, give it the type "
                f"of that: sfdisk --part-type {{disk}} 4 {LINUX_GPT}"
            ),
        ),
        (5, "(Linux RAID); name a logical volume on the whole array: none is active"),
        (6, "(IBM GPFS, the General Parallel File System); dsmc makes no image of GPFS (IBM's restriction)"),
        (7, "(BIOS boot); it holds nothing to image"),
        (8, "(Linux LVM); name a logical volume on it"),
    ],
)
def test_another_gpt_partition_is_refused_by_the_name_of_its_type(
    volumes: Volumes, gpt_disk: Disk, number: int, words: str
) -> None:
    found = verdict(volumes, gpt_disk.part(number))
    assert not found.eligible
    assert f"GPT type {found.partition_type} {words.format(disk=gpt_disk.node)}" in found.reason


def test_the_remedy_for_a_wrong_type_works(volumes: Volumes, tmp_path: Path) -> None:
    needed()
    with loop(gpt(tmp_path / "disk", "0700")) as disk:
        sfdisk, *arguments = verdict(volumes, disk.part(1)).reason.rpartition(": ")[2].split()
        # What the test alone adds: the kernel here could not read the table again.
        run(sfdisk, "--no-reread", *arguments)
        assert verdict(volumes, disk.part(1)).eligible


def test_whole_disks_are_refused_with_their_partitions_named(
    volumes: Volumes, mbr_disk: Disk, tmp_path: Path
) -> None:
    assert (
        f"; name a partition inside it: {mbr_disk.part(1)}, {mbr_disk.part(2)}, "
        in verdict(volumes, mbr_disk.node).reason
    )
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    with loop(tmp_path / "file") as plain:
        assert verdict(volumes, plain.node).reason == (
            f"{plain.node} is a loop device, a file shown as a disk; name a partition inside it: it has none"
        )


def test_a_mount_point_means_the_device_that_is_mounted(
    volumes: Volumes, mbr_disk: Disk, tmp_path: Path
) -> None:
    with mounted(mbr_disk.part(1), tmp_path / "data") as point:
        found = verdict(volumes, point)
        assert (found.eligible, found.device, found.file_system) == (True, mbr_disk.part(1), "ext4")
        inside = point / "folder"
        inside.mkdir()
        assert verdict(volumes, inside).reason == (
            f"{inside} is a directory but no mount point, and lies on the file system ext4 from {mbr_disk.part(1)} at "
            f"{point}; dsmc images whole file systems: name {point} or {mbr_disk.part(1)}"
        )


def test_a_mount_point_of_btrfs_means_its_device_though_the_kernel_numbers_it_otherwise(
    volumes: Volumes, gpt_disk: Disk, tmp_path: Path
) -> None:
    with mounted(gpt_disk.part(1), tmp_path / "data") as point:
        found = verdict(volumes, point)
        assert (found.eligible, found.device) == (True, gpt_disk.part(1))


def test_a_bind_mount_of_a_folder_is_refused(volumes: Volumes, mbr_disk: Disk, tmp_path: Path) -> None:
    with mounted(mbr_disk.part(1), tmp_path / "data") as point:
        (point / "bound").mkdir(exist_ok=True)
        with mounted(str(point / "bound"), tmp_path / "www", "--bind") as www:
            assert f"{www} shows only /bound of the file system ext4" in verdict(volumes, www).reason


def test_blanks_in_a_path_are_part_of_it(volumes: Volumes, mbr_disk: Disk, tmp_path: Path) -> None:
    with mounted(mbr_disk.part(1), tmp_path / "my own  data") as point:
        assert verdict(volumes, point).device == mbr_disk.part(1)


@pytest.mark.parametrize(
    ("char", "shown"), [("\n", "\\n"), ("\t", "\\t"), ("\0", "\\x00"), ("\udcff", "\\udcff")]
)
def test_control_characters_in_a_name_are_refused_even_where_the_path_is_there(
    volumes: Volumes, mbr_disk: Disk, tmp_path: Path, char: str, shown: str
) -> None:
    link = tmp_path / f"a{char}b"
    if char != "\0":
        link.symlink_to(mbr_disk.part(1))
    assert verdict(volumes, link).reason == (
        f"the name holds {shown}, which dsmc's output and a log line cannot carry; name the volume by its device node"
    )


def test_links_absolute_relative_and_through_folders_lead_to_the_device(
    volumes: Volumes, mbr_disk: Disk, tmp_path: Path
) -> None:
    (tmp_path / "by-id").mkdir()
    (tmp_path / "by-id/data").symlink_to(mbr_disk.part(1))
    (tmp_path / "folder").symlink_to("by-id")
    (tmp_path / "relative").symlink_to("folder/../by-id/./data")
    for name in ("by-id/data", "folder/data", "relative"):
        assert verdict(volumes, tmp_path / name).device == mbr_disk.part(1)


def test_a_relative_name_starts_from_the_working_directory(
    volumes: Volumes, mbr_disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/dev")
    assert verdict(volumes, mbr_disk.part(1).removeprefix("/dev/")).device == mbr_disk.part(1)
    assert verdict(volumes, f"../{mbr_disk.part(1)}").device == mbr_disk.part(1)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert verdict(volumes, "data").reason.startswith("the working directory: no such file or directory")


def test_one_volume_named_twice_is_refused_by_whatever_names(
    volumes: Volumes, mbr_disk: Disk, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(mbr_disk.part(1))
    names = [str(tmp_path / "link"), mbr_disk.part(2), mbr_disk.part(1)]
    link, other, node = volumes.judge(names)
    assert (link.eligible, other.eligible, node.eligible) == (False, True, False)
    assert (
        node.reason
        == f"{names[2]} is named 2 times in this request, as {names[0]} and {names[2]}; name it once"
    )


def test_a_read_only_device_is_eligible(volumes: Volumes, mbr_disk: Disk, tmp_path: Path) -> None:
    file = mbr(tmp_path / "disk", "83")
    with loop(file, "--read-only") as disk:
        found = verdict(volumes, disk.part(1))
        assert found.eligible
        assert found.reason.endswith("(raw), read-only")


@pytest.mark.parametrize(
    ("tool", "file_system"),
    [("mkfs.vfat", "vfat"), ("mkfs.ntfs --quick --force", "ntfs"), ("mkfs.ext3 -q", "ext3")],
)
def test_a_linux_partition_is_eligible_with_any_file_system(
    volumes: Volumes, tmp_path: Path, tool: str, file_system: str
) -> None:
    needed(tool.split(maxsplit=1)[0])
    with loop(mbr(tmp_path / "disk", "83", megabytes=16)) as disk:
        run(*tool.split(), disk.part(1))
        found = verdict(volumes, disk.part(1))
        assert (found.eligible, found.file_system) == (True, file_system)


def test_a_linux_partition_with_swap_is_refused(volumes: Volumes, tmp_path: Path) -> None:
    needed()
    with loop(mbr(tmp_path / "disk", "83")) as disk:
        run("mkswap", disk.part(1))
        assert (
            "0x83 (Linux), but holds swap; it holds nothing to image" in verdict(volumes, disk.part(1)).reason
        )


def test_a_linux_partition_that_is_a_member_of_a_raid_is_refused(volumes: Volumes, tmp_path: Path) -> None:
    needed()
    with loop(mbr(tmp_path / "disk", "83")) as disk:
        write(disk.part(1), 4096, raid_superblock())
        assert (
            "but holds a member of a software RAID (linux_raid_member); name"
            in verdict(volumes, disk.part(1)).reason
        )


def lvm_label() -> bytes:
    """Return what pvcreate writes into a device's second sector (lvm2, lib/label/label.h): with its checksum."""
    checked = (32).to_bytes(4, "little") + b"LVM2 001" + b"u" * 32
    checked += bytes(512 - 20 - len(checked))
    crc = ~zlib.crc32(checked, ~0xF597A6CF & 0xFFFFFFFF) & 0xFFFFFFFF
    return b"LABELONE" + (1).to_bytes(8, "little") + crc.to_bytes(4, "little") + checked


def raid_superblock() -> bytes:
    """Return the start of md's superblock 1.2, as far as blkid checks it (drivers/md/md_p.h): with its checksum."""
    block = bytearray(256)
    block[0:4], block[4:8] = (0xA92B4EFC).to_bytes(4, "little"), (1).to_bytes(4, "little")
    block[16:32] = os.urandom(16)
    block[144:152] = (8).to_bytes(8, "little")  # the superblock's own offset, in sectors
    total = sum(int.from_bytes(block[at : at + 4], "little") for at in range(0, 256, 4))
    block[216:220] = ((total & 0xFFFFFFFF) + (total >> 32)).to_bytes(4, "little")
    return bytes(block)


def test_an_encrypted_partition_is_refused(volumes: Volumes, tmp_path: Path) -> None:
    needed()
    with loop(mbr(tmp_path / "disk", "83")) as disk:
        write(disk.part(1), 0, b"LUKS\xba\xbe\x00\x01")
        assert (
            "but holds an encrypted device (crypto_LUKS); open it and"
            in verdict(volumes, disk.part(1)).reason
        )


def test_a_partition_with_the_signatures_of_two_contents_is_refused(volumes: Volumes, tmp_path: Path) -> None:
    needed("mkfs.ext4")
    with loop(mbr(tmp_path / "disk", "83")) as disk:
        run("mkfs.ext4", "-q", disk.part(1))
        write(disk.part(1), 0, REFS_SIGNATURE)
        found = verdict(volumes, disk.part(1))
        assert found.device == disk.part(1)
        assert found.reason.startswith(f"{disk.part(1)} carries the signatures of more than one content")


def test_what_is_no_volume_is_refused_for_what_it_is(volumes: Volumes, tmp_path: Path) -> None:
    needed()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    expected = {
        "": "the name is empty; name a device or a mount point",
        "/dev/no-such-disk": "there is no /dev/no-such-disk; check the name",
        "/no-such-folder/disk": "there is no /no-such-folder; check the name",
        f"{tmp_path}/file": f"{tmp_path}/file is a file",
        f"{tmp_path}/file/disk": f"{tmp_path}/file is a file, so nothing lies below it",
        f"{tmp_path}/pipe": f"{tmp_path}/pipe is a named pipe",
        f"{tmp_path}/loop": f"{tmp_path}/loop leads round in a loop of links",
        f"{tmp_path}/{'long' * 100}": "file name too long",
        "/dev/null": "/dev/null is a character device",
        "/proc": "the pseudo file system proc",
        "/dev/shm": "the pseudo file system tmpfs",  # noqa: S108
    }
    for found in volumes.judge(list(expected)):
        assert not found.eligible
        assert expected[found.volume] in found.reason


def test_a_file_system_that_hangs_is_refused_without_a_look_at_it(
    volumes: Volumes, mbr_disk: Disk, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("dead/disk")
    with dead_file_system(tmp_path / "dead") as point:
        *found, fine = volumes.judge([str(point), f"{point}/disk", str(tmp_path / "link"), mbr_disk.part(1)])
    # Whoever had looked would have hung, and the reason would be that no answer came in time.
    assert [
        f"the file system served by a program (FUSE) fuse from dead at {point}" in one.reason for one in found
    ] == [
        True,
        True,
        True,
    ]
    assert fine.eligible


def test_a_user_without_rights_is_told_that_root_is_needed(
    volumes: Volumes, mbr_disk: Disk, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    with nobody():
        device, path = volumes.judge([mbr_disk.part(1), f"{tmp_path}/closed/disk"])
    assert device.reason == f"{mbr_disk.part(1)}: permission denied; run as root"
    assert device.device == mbr_disk.part(1)
    assert path.reason.endswith(": permission denied; run as root")


def test_all_lists_the_partitions_of_this_host(volumes: Volumes, mbr_disk: Disk, gpt_disk: Disk) -> None:
    found = {one.volume: one for one in volumes.all()}
    assert found[mbr_disk.part(1)].eligible
    assert found[gpt_disk.part(1)].eligible
    assert not found[mbr_disk.part(4)].eligible
    assert not found[mbr_disk.node].eligible
    names = [name for name in found if name.startswith(mbr_disk.node)]
    assert names == [mbr_disk.node, *(mbr_disk.part(n) for n in range(1, 11))]
