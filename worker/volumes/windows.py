"""Eligibility on Windows: from a name to the volume it means, from what Windows says of that to the verdict."""

import ntpath
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from worker.errors import TsmWorkerError
from worker.volumes.drives import Drive, Drives, Kind, Volume, Win32
from worker.volumes.inquiry import in_time, refuse_repeated, shown, unfit
from worker.volumes.verdict import Verdict
from worker.words import Platform

ELSEWHERE = "image it on the host that serves it"
NO_DATA = "there is nothing on it that needs an image"
BY_FILES = "back its files up with `dsmc incremental`"
LIST = "`tsm-worker check` lists this host's volumes"
LETTER_OR_FOLDER = r"name a drive letter, the folder a volume is mounted in, or its \\?\Volume{…}\ name"

# What a drive is that dsmc can image no volume of, and what to do instead. Only the fixed ones are left.
KINDS = {
    Kind.UNKNOWN: ("of a kind that Windows does not know", "see Disk Management"),
    Kind.REMOVABLE: ("a removable drive", BY_FILES),
    Kind.NETWORK: ("a network drive", ELSEWHERE),
    Kind.CD: ("a CD or DVD drive", NO_DATA),
    Kind.RAM: ("a RAM disk", NO_DATA),
    Kind.MISSING: ("gone", LIST),
}

# IBM names FAT, FAT32, NTFS and RAW for the clients 5.x, NTFS, ReFS and RAW for those from 7.1 on (dsmc-facts.md,
# 1.3). ReFS stays refused until its images were seen to restore: a wrong yes is a backup that is none.
RAW = "RAW"
ELIGIBLE = ("NTFS", "FAT", "FAT32", RAW)
# Why a file system is none of these, where there is more to say than its name.
FILE_SYSTEMS = {
    "CSVFS": ("a cluster shared volume (CSVFS)", f"dsmc images no volume that machines share: {BY_FILES}"),
    "CDFS": ("a CD (CDFS)", NO_DATA),
    "UDF": ("a DVD (UDF)", NO_DATA),
}
CLUSTERED = ("a disk of a cluster", f"dsmc images no volume that machines share: {BY_FILES}")

# Why a volume would not say what its file system is ("System Error Codes", Microsoft Learn; winerror.h).
UNRECOGNIZED = 1005  # ERROR_UNRECOGNIZED_VOLUME: no file system driver knows what is on it
ERRORS = {
    2: ("gone", LIST),
    3: ("gone", LIST),
    5: ("barred to this account", "run the worker as LocalSystem or an administrator"),
    21: ("not ready", "insert a medium, or see Disk Management"),
    23: ("unreadable (a CRC error)", "the disk fails: see the System event log"),
    1117: ("unreadable (an I/O error)", "the disk fails: see the System event log"),
    1392: ("damaged", "run chkdsk on it"),
    1393: ("damaged", "run chkdsk on it"),
    0x80310000: ("locked by BitLocker", "unlock it (manage-bde -unlock)"),
}

_DRIVE = re.compile(r"([a-z]:)(\\.*)?", re.IGNORECASE)
_GUID = re.compile(r"\\\\\?\\(volume\{[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\})\\?", re.IGNORECASE)
_FORBIDDEN = '<>"|?*'


class Ineligible(TsmWorkerError):
    """A name leads to no volume; the message is the verdict's reason."""


def root(name: str) -> str:
    r"""Return the root that `name` means, as Win32 takes it: `E:\`, `C:\mnt\data\` or `\\?\Volume{…}\`.

    Raise Ineligible for what can be none, a network's name among them: a dead server is never asked.
    """
    if not name:
        raise Ineligible(f"the name is empty; {LETTER_OR_FOLDER}")
    if odd := unfit(name):
        raise Ineligible(
            f"the name holds {odd}, which dsmc's output and a log line cannot carry; {LETTER_OR_FOLDER}"
        )
    path = name.replace("/", "\\")
    if guid := _GUID.fullmatch(path):
        return f"\\\\?\\{guid[1]}\\"
    if path.startswith(("\\\\?\\", "\\\\.\\")):
        raise Ineligible(f"{name} is a device's name that dsmc does not know; {LETTER_OR_FOLDER}")
    if path.startswith("\\\\"):
        raise Ineligible(f"{name} is a network name (UNC); {ELSEWHERE}, by its drive letter there")
    drive = _DRIVE.fullmatch(path)
    if drive is None:
        raise Ineligible(f"{name} starts from no drive, so it is no volume's name; {LETTER_OR_FOLDER}")
    if bad := sorted(set(drive[2] or "").intersection(_FORBIDDEN + ":")):
        raise Ineligible(f"{name} holds {' '.join(bad)}, which no name on Windows may; check the name")
    return ntpath.normpath(f"{drive[1].upper()}{drive[2] or ''}\\").rstrip("\\") + "\\"


def by_drive(asked: Verdict, root: str, drive: Drive) -> Verdict | None:
    """Return the refusal that the drive letter of `root` is enough for; None where the volume decides.

    A folder is only looked at on a drive that is there and this host's own; what kind of drive a volume
    mounted in it lies on is the volume's to say.
    """
    letter = root[:2]
    if drive.stands_for:
        reason = f"{letter} is no volume but stands for {drive.stands_for} (SUBST); name the volume itself"
        return replace(asked, reason=reason)
    if drive.kind is Kind.MISSING:
        return replace(asked, reason=f"there is no drive {letter}; check the name ({LIST})")
    if drive.kind is Kind.NETWORK or (drive.kind is not Kind.FIXED and root == f"{letter}\\"):
        what, remedy = KINDS[drive.kind]
        return replace(asked, reason=f"{letter} is {what}; {remedy}")
    return None


def by_volume(asked: Verdict, volume: Volume) -> Verdict:
    """Return the verdict on `volume`, which the name `asked` for leads to."""
    raw = volume.error == UNRECOGNIZED or volume.file_system == RAW
    file_system = None if raw else volume.file_system or None
    verdict = replace(asked, device=volume.device, file_system=file_system)
    if obstacle := _obstacle(volume, RAW if raw else volume.file_system):
        what, remedy = obstacle
        return replace(verdict, reason=f"{shown(asked.volume)} is {what}; {remedy}")
    content = "with no file system that Windows recognises (raw)" if raw else f"with {file_system} on it"
    read_only = ", read-only" if volume.read_only else ""
    return replace(verdict, eligible=True, reason=f"a fixed volume, {content}{read_only}")


def _obstacle(volume: Volume, file_system: str) -> tuple[str, str] | None:
    """Return what `volume` is and the remedy, where dsmc cannot image it."""
    if volume.kind is not Kind.FIXED:
        return KINDS[volume.kind]
    if not file_system:
        unknown = (f"a volume that Windows cannot read (error {volume.error})", "see the System event log")
        return ERRORS.get(volume.error, unknown)
    if file_system in FILE_SYSTEMS:
        return FILE_SYSTEMS[file_system]
    if volume.clustered:
        return CLUSTERED
    if file_system not in ELIGIBLE:
        return (
            f"a volume with {shown(file_system)} on it, and only {', '.join(ELIGIBLE)} are imaged",
            BY_FILES,
        )
    return None


class WindowsVolumes:
    """The volumes of the Windows host that `win32` shows.

    `timeout`, in seconds, bounds each call: what has given no answer by then is refused.
    """

    platform = Platform.WINDOWS

    def __init__(self, win32: Win32, *, timeout: float = 30.0) -> None:
        self._drives = Drives(win32)
        self._timeout = timeout

    def judge(self, names: Sequence[str]) -> list[Verdict]:
        """Return the verdict on each of `names`, in their order.

        Names of one call that lead to the same volume are all refused: dsmc would image it as often.
        """
        return refuse_repeated(self._in_time(names, self._by_name))

    def all(self) -> list[Verdict]:
        """Return the verdict on every volume of this host, each under its first mount point, sorted."""
        return sorted(
            self._in_time(self._drives.volumes(), self._by_device), key=lambda verdict: verdict.volume.lower()
        )

    def _in_time(self, names: Sequence[str], look: Callable[[Verdict], Verdict]) -> list[Verdict]:
        asked = [Verdict(name, eligible=False, reason="") for name in names]
        hung = "its disk or driver hangs: see the System event log, repair that and try again"
        return in_time(asked, look, self._timeout, hung)

    def _by_device(self, asked: Verdict) -> Verdict:
        volume = self._drives.volume(asked.volume)
        name = volume.mounted_at[0].rstrip("\\") if volume.mounted_at else volume.device
        return by_volume(replace(asked, volume=name), volume)

    def _by_name(self, asked: Verdict) -> Verdict:
        place = root(asked.volume)
        if place.startswith("\\\\"):
            known = {device.lower(): device for device in self._drives.volumes()}
            device = known.get(place.lower())
        else:
            if refusal := by_drive(asked, place, self._drives.drive(place[:2])):
                return refusal
            device = self._drives.volume_at(place)
        if device is None:
            raise Ineligible(self._no_volume(place))
        return by_volume(asked, self._drives.volume(device))

    def _no_volume(self, place: str) -> str:
        path = place.rstrip("\\")
        if place.startswith("\\\\"):
            return f"there is no volume {path}; check the name ({LIST})"
        if path == place[:2]:
            return f"{path} is a drive that no volume of this host's disks stands behind; {LIST}"
        is_directory = self._drives.is_directory(path)
        if is_directory is None:
            return f"there is no {path}; check the name ({LIST})"
        what = "directory but no mount point" if is_directory else "file"
        below = self._drives.mount_point_of(path).rstrip("\\")
        return f"{path} is a {what}, and lies on the volume {below}; dsmc images whole volumes: name {below}"
