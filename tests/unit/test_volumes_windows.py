"""Eligibility on Windows hosts that no test machine is, told by what Win32 answers there."""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from threading import Event
from typing import TypeVar

import pytest

from worker.volumes import Verdict, windows
from worker.volumes.drives import (
    IS_CLUSTERED,
    NO_MORE_FILES,
    Drive,
    Drives,
    Kind,
    Refused,
    Volume,
    Win32Error,
)
from worker.volumes.windows import WindowsVolumes
from worker.words import Platform

Answer = TypeVar("Answer")


def guid(number: int) -> str:
    return f"\\\\?\\Volume{{5f1c2d3e-0000-0000-0000-{number:012x}}}\\"


SYSTEM, DATA, RAW, MOUNTED, BLANK, SHARED, CARD, STICK, BROKEN, HUNG = (guid(number) for number in range(10))


@dataclass(frozen=True)
class Captured:
    """What Win32 answers about a volume; a number in an answer's place is the error that the call fails with.

    `file_system`: its name and flags; `device`: an NTSTATUS, the FILE_DEVICE_ type and characteristics.
    """

    mount_points: tuple[str, ...] | int = ()
    file_system: tuple[str, int] | int = ("NTFS", 0)
    device: tuple[int, int, int] | int = (0, 7, 0)
    clustered: bool = False
    hangs: bool = False


# A host: C: with the system, D: with data, E: raw, volumes mounted in folders only, a stick U:, and trouble.
DRIVES = {
    "C:": (3, "\\Device\\HarddiskVolume1"),
    "D:": (3, "\\Device\\HarddiskVolume2"),
    "E:": (3, "\\Device\\HarddiskVolume3"),
    "H:": (3, "\\Device\\HarddiskVolume4"),
    "N:": (4, "\\Device\\LanmanRedirector\\;N:0\\fs\\share"),
    "R:": (6, "\\Device\\Ramdisk"),
    "S:": (3, "\\??\\D:\\data"),
    "U:": (2, "\\Device\\HarddiskVolume5"),
    "V:": (3, "\\Device\\Vendor"),  # of a driver that makes drives without volumes
    "X:": (5, "\\Device\\CdRom0"),
}
VOLUMES = {
    SYSTEM: Captured(("C:\\",)),
    DATA: Captured(("U:\\mnt\\data\\", "D:\\"), ("NTFS", 0x80000)),
    RAW: Captured(("E:\\",), 1005),
    MOUNTED: Captured(("C:\\mnt\\sql\\",)),
    BLANK: Captured(("C:\\mnt\\blank\\",), ("RAW", 0)),
    SHARED: Captured(("C:\\mnt\\shared\\",), clustered=True),
    CARD: Captured(("C:\\mnt\\card\\",), ("FAT32", 0), (0, 7, 1)),
    STICK: Captured(("U:\\",), ("FAT32", 0), (0, 7, 1)),
    BROKEN: Captured(5),
    HUNG: Captured(("H:\\",), hangs=True),
}
ATTRIBUTES = {"C:\\mnt": 0x10, "D:\\data": 0x10, "D:\\torn": 0x10, "D:\\a file": 0x20}


class CapturedWindows:
    """The host above, or one with other volumes, where each search for volumes ends with the error `end`."""

    def __init__(self, volumes: Mapping[str, Captured] = VOLUMES, end: int = NO_MORE_FILES) -> None:
        self.volumes = volumes
        self.end = end
        self.released = Event()
        self.numbers = count(1)
        self.searches: dict[int, Iterator[str]] = {}
        self.devices: dict[int, Captured] = {}

    def drive_type(self, root: str) -> int:
        return DRIVES.get(root.rstrip("\\"), (1,))[0]

    def dos_device(self, letter: str) -> str:
        if letter not in DRIVES:
            raise Win32Error(2)
        return DRIVES[letter][1]

    def volume_at(self, root: str) -> str:
        for device, captured in self.volumes.items():
            if isinstance(captured.mount_points, tuple) and root in captured.mount_points:
                return device
        raise Win32Error(4390)

    def mount_points(self, device: str) -> tuple[str, ...]:
        if self.volumes[device].hangs:
            self.released.wait()
        return answer(self.volumes[device].mount_points)

    def file_system(self, device: str) -> tuple[str, int]:
        return answer(self.volumes[device].file_system)

    def first_volume(self) -> tuple[int, str]:
        if not self.volumes:
            raise Win32Error(self.end)
        search, devices = next(self.numbers), iter(self.volumes)
        self.searches[search] = devices
        return search, next(devices)

    def next_volume(self, search: int) -> str:
        return answer(next(self.searches[search], self.end))

    def end_search(self, search: int) -> None:
        del self.searches[search]

    def open(self, device: str) -> int:
        captured, handle = self.volumes[f"{device}\\"], next(self.numbers)
        answer(captured.device)
        self.devices[handle] = captured
        return handle

    def close(self, handle: int) -> None:
        del self.devices[handle]

    def control(self, handle: int, code: int) -> None:
        if code != IS_CLUSTERED or not self.devices[handle].clustered:
            raise Win32Error(1)

    def device_information(self, handle: int) -> tuple[int, int, int]:
        return answer(self.devices[handle].device)

    def attributes(self, path: str) -> int:
        if path not in ATTRIBUTES:
            raise Win32Error(5 if path == "D:\\barred" else 2)
        return ATTRIBUTES[path]

    def mount_point_of(self, path: str) -> str:
        if path == "D:\\torn":
            raise Win32Error(1117)
        return path[:3]


def answer(captured: Answer | int) -> Answer:
    if isinstance(captured, int):
        raise Win32Error(captured)
    return captured


@pytest.fixture
def host() -> Iterator[WindowsVolumes]:
    captured = CapturedWindows()
    yield WindowsVolumes(captured, timeout=0.5)
    captured.released.set()


def verdict(host: WindowsVolumes, name: str) -> Verdict:
    [one] = host.judge([name])
    assert one.volume == name
    return one


# -- what the answers mean ---------------------------------------------------------------------------------

FOLDER = ("C:\\mnt\\",)
ANSWERS = {
    "mounted nowhere": (Captured(), Volume(RAW, Kind.FIXED, "NTFS")),
    "mounted in a folder": (Captured(FOLDER), Volume(RAW, Kind.FIXED, "NTFS", mounted_at=FOLDER)),
    "mounted in many places, its letters first": (
        Captured(("C:\\b\\", "E:\\", "C:\\a\\", "D:\\")),
        Volume(RAW, Kind.FIXED, "NTFS", mounted_at=("D:\\", "E:\\", "C:\\a\\", "C:\\b\\")),
    ),
    "of its letter's kind": (Captured(("U:\\",)), Volume(RAW, Kind.REMOVABLE, "NTFS", mounted_at=("U:\\",))),
    "of its device's kind": (
        Captured(FOLDER, device=(0, 7, 1)),
        Volume(RAW, Kind.REMOVABLE, "NTFS", mounted_at=FOLDER),
    ),
    "CD, as removable media": (Captured(device=(0, 2, 3)), Volume(RAW, Kind.REMOVABLE, "NTFS")),
    "CD, as no removable media": (Captured(device=(0, 2, 2)), Volume(RAW, Kind.CD, "NTFS")),
    "network": (Captured(device=(0, 0x14, 0x10)), Volume(RAW, Kind.NETWORK, "NTFS")),
    "RAM disk": (Captured(device=(0, 0x24, 0)), Volume(RAW, Kind.RAM, "NTFS")),
    "tape": (Captured(device=(0, 0x1F, 0)), Volume(RAW, Kind.UNKNOWN, "NTFS")),
    "of no kind": (Captured(device=(0xC0000010, 7, 0)), Volume(RAW, Kind.UNKNOWN, "NTFS")),
    "read-only": (
        Captured(file_system=("NTFS", 0x80000 | 0xFF)),
        Volume(RAW, Kind.FIXED, "NTFS", read_only=True),
    ),
    "writable": (Captured(file_system=("FAT", 0x206)), Volume(RAW, Kind.FIXED, "FAT")),
    "raw by its error": (Captured(file_system=1005), Volume(RAW, Kind.FIXED, error=1005)),
    "raw by its name": (Captured(file_system=("RAW", 0)), Volume(RAW, Kind.FIXED, "RAW")),
    "locked": (Captured(file_system=0x80310000), Volume(RAW, Kind.FIXED, error=0x80310000)),
    "clustered": (Captured(clustered=True), Volume(RAW, Kind.FIXED, "NTFS", clustered=True)),
    "raw, clustered": (
        Captured(file_system=1005, clustered=True),
        Volume(RAW, Kind.FIXED, error=1005, clustered=True),
    ),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_a_volume_is_what_the_answers_about_it_say(what: str) -> None:
    captured, volume = ANSWERS[what]
    win32 = CapturedWindows({RAW: captured})
    assert Drives(win32).volume(RAW) == volume
    assert not win32.devices


@pytest.mark.parametrize("captured", [Captured(mount_points=5), Captured(device=5)])
def test_a_volume_that_windows_bars_says_so(captured: Captured) -> None:
    with pytest.raises(Refused) as refused:
        Drives(CapturedWindows({RAW: captured})).volume(RAW)
    assert str(refused.value) == f"{RAW}: Windows refuses, with system error 5 (`net helpmsg 5`)"


@pytest.mark.parametrize(
    ("letter", "drive"),
    [
        ("C:", Drive(Kind.FIXED)),
        ("N:", Drive(Kind.NETWORK)),
        ("Q:", Drive(Kind.MISSING)),
        ("S:", Drive(Kind.FIXED, "D:\\data")),
    ],
)
def test_a_drive_is_what_the_answers_about_it_say(letter: str, drive: Drive) -> None:
    assert Drives(CapturedWindows()).drive(letter) == drive


def test_a_search_finds_every_volume() -> None:
    win32 = CapturedWindows()
    assert Drives(win32).volumes() == list(VOLUMES)
    assert not win32.searches


@pytest.mark.parametrize("volumes", [{}, VOLUMES], ids=["begins", "ends"])
def test_a_search_that_fails_says_so_and_gives_no_half_list(volumes: Mapping[str, Captured]) -> None:
    win32 = CapturedWindows(volumes, end=1117)
    with pytest.raises(Refused, match=r"^this host's volumes: Windows refuses, with system error 1117 "):
        WindowsVolumes(win32).all()
    [found] = WindowsVolumes(win32).judge([RAW])
    assert "this host's volumes: Windows refuses" in found.reason
    assert not win32.searches


def test_the_edge_is_on_windows_only() -> None:
    with pytest.raises(ImportError, match="on Windows only"):
        importlib.import_module("worker.volumes.win32")


# -- the decision ------------------------------------------------------------------------------------------

ASKED = Verdict("e:", eligible=False, reason="")
FIXED = Volume(RAW, Kind.FIXED, "NTFS")
CONTENTS = {
    "NTFS": (FIXED, "NTFS", "NTFS on it"),
    "FAT": (replace(FIXED, file_system="FAT"), "FAT", "FAT on it"),
    "FAT32": (replace(FIXED, file_system="FAT32"), "FAT32", "FAT32 on it"),
    "read-only": (replace(FIXED, read_only=True), "NTFS", "read-only"),
    "unformatted": (
        replace(FIXED, file_system="", error=1005),
        None,
        "no file system that Windows recognises (raw)",
    ),
    "RAW by name": (replace(FIXED, file_system="RAW"), None, "no file system that Windows recognises (raw)"),
}
OBSTACLES = {
    "ReFS": (replace(FIXED, file_system="ReFS"), "ReFS on it, and only NTFS, FAT, FAT32, RAW"),
    "exFAT": (replace(FIXED, file_system="exFAT"), "exFAT on it, and only"),
    "CDFS": (replace(FIXED, file_system="CDFS"), "a CD (CDFS)"),
    "UDF": (replace(FIXED, file_system="UDF"), "a DVD (UDF)"),
    "one that nobody knows": (replace(FIXED, file_system="Btr\nFS"), "Btr\\nFS on it, and only"),
    "CSV": (
        replace(FIXED, file_system="CSVFS", clustered=True),
        "a cluster shared volume (CSVFS); dsmc images no",
    ),
    "clustered disk": (
        replace(FIXED, clustered=True),
        "a disk of a cluster; dsmc images no volume that machines share",
    ),
    "raw clustered disk": (replace(FIXED, file_system="", error=1005, clustered=True), "a disk of a cluster"),
    "locked": (replace(FIXED, file_system="", error=0x80310000), "locked by BitLocker; unlock it"),
    "damaged": (replace(FIXED, file_system="", error=1392), "damaged; run chkdsk on it"),
    "barred": (
        replace(FIXED, file_system="", error=5),
        "barred to this account; run the worker as LocalSystem",
    ),
    "another error": (replace(FIXED, file_system="", error=4711), "cannot read (error 4711)"),
    "removable": (replace(FIXED, kind=Kind.REMOVABLE), "a removable drive"),
    "CD": (replace(FIXED, kind=Kind.CD), "a CD or DVD drive"),
    "RAM disk": (replace(FIXED, kind=Kind.RAM), "a RAM disk"),
    "network": (replace(FIXED, kind=Kind.NETWORK), "a network drive"),
    "unknown": (replace(FIXED, kind=Kind.UNKNOWN), "of a kind that Windows does not know"),
    "gone": (replace(FIXED, kind=Kind.MISSING), "gone"),
}


@pytest.mark.parametrize("what", CONTENTS)
def test_what_dsmc_images_is_eligible(what: str) -> None:
    volume, file_system, reason = CONTENTS[what]
    found = windows.by_volume(ASKED, volume)
    assert found.eligible, found.reason
    assert reason in found.reason
    assert (found.device, found.file_system, found.partition_type) == (RAW, file_system, None)


@pytest.mark.parametrize("what", OBSTACLES)
def test_what_dsmc_cannot_image_is_refused_with_what_was_found(what: str) -> None:
    volume, reason = OBSTACLES[what]
    found = windows.by_volume(ASKED, volume)
    assert not found.eligible
    assert reason in found.reason
    assert found.device == RAW


# -- from a name to a volume -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("d:", DATA),
        ("D:\\", DATA),
        ("d:/", DATA),
        ("E:", RAW),
        (DATA, DATA),
        (DATA[:-1].upper(), DATA),
        ("c:\\mnt\\sql", MOUNTED),
        ("c:\\mnt\\blank", BLANK),
        ("C:/mnt/./x/../sql/", MOUNTED),
        ("u:\\mnt\\data", DATA),  # the folder is on a stick, the volume mounted there is not
    ],
)
def test_a_volume_goes_by_each_of_its_names(host: WindowsVolumes, name: str, device: str) -> None:
    found = verdict(host, name)
    assert found.eligible, found.reason
    assert found.device == device


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "the name is empty"),
        ("d:\n", "the name holds \\n"),
        ("d:\x00", "the name holds \\x00"),
        ("d:\\*", "holds *"),
        ('d:\\"a"', 'holds "'),
        ("d:\\a:stream", "holds :"),
        ("data", "starts from no drive"),
        ("\\data", "starts from no drive"),
        ("d:data", "starts from no drive"),
        ("ä:", "starts from no drive"),
        ("/dev/sda1", "starts from no drive"),
        ("\\\\fs\\share", "a network name (UNC)"),
        ("//fs/share", "a network name (UNC)"),
        ("\\\\?\\UNC\\fs\\share", "a device's name"),
        ("\\\\?\\d:\\", "a device's name"),
        ("\\\\.\\PhysicalDrive0", "a device's name"),
        ("\\\\?\\Volume{nonsense}\\", "a device's name"),
        ("q:", "there is no drive Q:"),
        ("q:\\data", "there is no drive Q:"),
        ("s:", "stands for D:\\data (SUBST)"),
        ("s:\\x", "stands for D:\\data (SUBST)"),
        ("n:", "N: is a network drive"),
        ("n:\\data", "N: is a network drive"),
        ("r:", "R: is a RAM disk"),
        ("u:", "U: is a removable drive"),
        ("x:", "X: is a CD or DVD drive"),
        ("v:", "V: is a drive that no volume"),
        (guid(99), "there is no volume \\\\?\\Volume{"),
        (STICK, "a removable drive"),
        (
            "d:\\data",
            "a directory but no mount point, and lies on the volume D:; dsmc images whole volumes: name D:",
        ),
        ("c:/mnt/", "C:\\mnt is a directory"),
        ("d:\\a file", "a file, and lies on the volume D:"),
        ("d:\\nothing", "there is no D:\\nothing"),
        ("d:\\barred", "D:\\barred: Windows refuses, with system error 5 "),
        ("d:\\torn", "D:\\torn: Windows refuses, with system error 1117 "),
        ("c:\\mnt\\shared", "a disk of a cluster"),
        ("c:\\mnt\\card", "a removable drive"),
        (BROKEN, f"{BROKEN}: Windows refuses, with system error 5 "),
        ("h:", "no answer about it within 0.5 s; its disk or driver hangs"),
    ],
)
def test_a_name_that_leads_to_no_volume_of_this_host_is_refused(
    host: WindowsVolumes, name: str, reason: str
) -> None:
    found = verdict(host, name)
    assert not found.eligible
    assert reason in found.reason


def test_a_volume_named_twice_is_refused_each_time(host: WindowsVolumes) -> None:
    first, other, second = host.judge(["d:", "C:", DATA])
    assert other.eligible
    for found in (first, second):
        assert not found.eligible
        assert found.reason == f"{DATA} is named 2 times in this request, as d: and {DATA}; name it once"


def test_all_lists_each_volume_once_by_its_first_mount_point(host: WindowsVolumes) -> None:
    found = {one.volume: one.eligible for one in host.all()}
    assert found == {
        BROKEN: False,
        HUNG: False,
        "C:": True,
        "C:\\mnt\\blank": True,
        "C:\\mnt\\card": False,
        "C:\\mnt\\shared": False,
        "C:\\mnt\\sql": True,
        "D:": True,
        "E:": True,
        "U:": False,
    }
    assert list(found) == sorted(found, key=str.lower)
    assert host.platform is Platform.WINDOWS


def test_a_volume_that_is_mounted_nowhere_goes_by_its_guid() -> None:
    [found] = WindowsVolumes(CapturedWindows({RAW: Captured(file_system=1005)})).all()
    assert (found.volume, found.eligible) == (RAW, True)
