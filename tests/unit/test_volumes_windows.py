"""Eligibility on Windows hosts that no test machine is, told by what Windows says of their drives and volumes."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from threading import Event

import pytest

from worker.volumes import Verdict, windows
from worker.volumes.windows import Drive, Kind, Volume, Win32Error, WindowsVolumes
from worker.words import Platform


def guid(number: int) -> str:
    return f"\\\\?\\Volume{{5f1c2d3e-0000-0000-0000-{number:012x}}}\\"


SYSTEM, DATA, RAW, MOUNTED, STICK, BROKEN, HUNG = (guid(number) for number in range(7))


# A host: C: with the system, D: with data, E: raw, a volume mounted in a folder only, a stick U:, and trouble.
DRIVES = {
    "C:": Drive(Kind.FIXED),
    "D:": Drive(Kind.FIXED),
    "E:": Drive(Kind.FIXED),
    "H:": Drive(Kind.FIXED),
    "N:": Drive(Kind.NETWORK),
    "R:": Drive(Kind.RAM),
    "S:": Drive(Kind.FIXED, "D:\\data"),
    "U:": Drive(Kind.REMOVABLE),
    "V:": Drive(Kind.FIXED),  # of a driver that makes drives without volumes
    "X:": Drive(Kind.CD),
}
MOUNTED_AT = {
    "C:\\": SYSTEM,
    "D:\\": DATA,
    "E:\\": RAW,
    "H:\\": HUNG,
    "U:\\": STICK,
    "C:\\mnt\\sql\\": MOUNTED,
    "U:\\mnt\\data\\": DATA,
}
KNOWN = {
    SYSTEM: Volume(SYSTEM, Kind.FIXED, "NTFS", mounted_at=("C:\\",)),
    DATA: Volume(DATA, Kind.FIXED, "NTFS", read_only=True, mounted_at=("D:\\", "U:\\mnt\\data\\")),
    RAW: Volume(RAW, Kind.FIXED, error=windows.UNRECOGNIZED, mounted_at=("E:\\",)),
    MOUNTED: Volume(MOUNTED, Kind.FIXED, "NTFS", mounted_at=("C:\\mnt\\sql\\",)),
    STICK: Volume(STICK, Kind.REMOVABLE, "FAT32", mounted_at=("U:\\",)),
}
DIRECTORIES = ("C:\\mnt", "D:\\data")
FILES = ("D:\\a file",)


class CapturedWindows:
    """The host above, or one of other volumes."""

    def __init__(self, known: Mapping[str, Volume] = KNOWN, broken: tuple[str, ...] = (BROKEN,)) -> None:
        self.known = known
        self.broken = broken
        self.released = Event()

    def drive(self, letter: str) -> Drive:
        return DRIVES.get(letter, Drive(Kind.MISSING))

    def volume_at(self, root: str) -> str | None:
        return MOUNTED_AT.get(root)

    def volume(self, device: str) -> Volume:
        if device == HUNG:
            self.released.wait()
        if device in self.broken:
            raise Win32Error("Windows refuses")
        return self.known[device]

    def volumes(self) -> list[str]:
        return [*self.broken, *self.known]

    def is_directory(self, path: str) -> bool | None:
        return path in DIRECTORIES if path in (*DIRECTORIES, *FILES) else None

    def mount_point_of(self, path: str) -> str:
        return path[:3]


@pytest.fixture
def host() -> Iterator[WindowsVolumes]:
    captured = CapturedWindows()
    yield WindowsVolumes(captured, timeout=0.5)
    captured.released.set()


def verdict(host: WindowsVolumes, name: str) -> Verdict:
    [one] = host.judge([name])
    assert one.volume == name
    return one


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
        (BROKEN, "Windows refuses"),
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
    assert found == {BROKEN: False, "C:": True, "C:\\mnt\\sql": True, "D:": True, "E:": True, "U:": False}
    assert list(found) == sorted(found, key=str.lower)
    assert host.platform is Platform.WINDOWS


def test_a_volume_that_is_mounted_nowhere_goes_by_its_guid() -> None:
    raw = Volume(RAW, Kind.FIXED, error=windows.UNRECOGNIZED)
    [found] = WindowsVolumes(CapturedWindows({RAW: raw}, broken=())).all()
    assert (found.volume, found.eligible) == (RAW, True)
