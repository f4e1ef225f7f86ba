r"""Drives and volumes of a Windows host: what is asked of Win32, and what its answers and errors mean.

The words are Microsoft's: a *volume* has a GUID path (`\\?\Volume{…}\`) and any number of *mount points*,
drive letters or empty folders ("Naming a Volume", Microsoft Learn, as are the pages of each call named here).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum, unique
from typing import Protocol

from worker.errors import TsmWorkerError


@unique
class Kind(IntEnum):
    """What a drive is, as GetDriveTypeW numbers it."""

    UNKNOWN = 0
    MISSING = 1
    REMOVABLE = 2
    FIXED = 3
    NETWORK = 4
    CD = 5
    RAM = 6


@dataclass(frozen=True, slots=True)
class Drive:
    """A drive letter: its kind, and the path it stands for where it is not a device's own (SUBST)."""

    kind: Kind
    stands_for: str = ""


@dataclass(frozen=True, slots=True)
class Volume:
    """What Windows says of a volume; `device` is its GUID path, `kind` the kind of drive that it lies on.

    `file_system` is the name its driver gives; empty where the volume could not be asked, which `error` (a
    system error code, else 0) says the reason of. `mounted_at`: its mount points, drive letters first.
    """

    device: str
    kind: Kind
    file_system: str = ""
    error: int = 0
    read_only: bool = False
    clustered: bool = False
    mounted_at: tuple[str, ...] = ()


class Win32Error(Exception):
    """A call of Win32 failed; `code` is its system error code (winerror.h)."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Win32(Protocol):
    """The calls of Win32 that this room needs, one by one; each that fails raises Win32Error.

    Roots and devices (GUID paths) end in a backslash, but for the device that `open` takes.
    """

    def drive_type(self, root: str) -> int:
        """Return the number of the kind of drive that `root` is (GetDriveTypeW)."""

    def dos_device(self, letter: str) -> str:
        """Return what the drive `letter` (`E:`) is a name of (QueryDosDeviceW)."""

    def volume_at(self, root: str) -> str:
        """Return the GUID path of the volume whose mount point is `root` (GetVolumeNameForVolumeMountPointW)."""

    def mount_points(self, device: str) -> Sequence[str]:
        """Return the mount points of a volume (GetVolumePathNamesForVolumeNameW)."""

    def file_system(self, device: str) -> tuple[str, int]:
        """Return the name of a volume's file system and its flags (GetVolumeInformationW)."""

    def first_volume(self) -> tuple[int, str]:
        """Return the handle of a search, which `end_search` closes, and a first GUID path (FindFirstVolumeW)."""

    def next_volume(self, search: int) -> str:
        """Return a search's next GUID path; NO_MORE_FILES after the last (FindNextVolumeW)."""

    def end_search(self, search: int) -> None:
        """Close the handle of a search (FindVolumeClose)."""

    def open(self, device: str) -> int:
        """Return a handle of a device, with no right to anything in it; `close` closes it (CreateFileW)."""

    def close(self, handle: int) -> None:
        """Close the handle of a device (CloseHandle)."""

    def control(self, handle: int, code: int) -> None:
        """Send a device the control code `code`, with nothing to read or write (DeviceIoControl)."""

    def device_information(self, handle: int) -> tuple[int, int, int]:
        """Return an NTSTATUS, 0 for success, then a device's type and characteristics.

        The call is NtQueryVolumeInformationFile for FileFsDeviceInformation.
        """

    def attributes(self, path: str) -> int:
        """Return the attributes of the file or directory at `path` (GetFileAttributesW)."""

    def mount_point_of(self, path: str) -> str:
        """Return the mount point that `path` lies below (GetVolumePathNameW)."""


# Error codes (winerror.h), flags and numbers (winnt.h, winioctl.h, ntifs.h).
NO_MORE_FILES = 18
NOTHING_THERE = (2, 3)  # ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND
DIRECTORY = 0x10  # FILE_ATTRIBUTE_DIRECTORY
READ_ONLY = 0x80000  # FILE_READ_ONLY_VOLUME
IS_CLUSTERED = 0x560030  # IOCTL_VOLUME_IS_CLUSTERED: succeeds where the volume is
REMOVABLE = 1  # FILE_REMOVABLE_MEDIA
DEVICES = {2: Kind.CD, 7: Kind.FIXED, 0x14: Kind.NETWORK, 0x24: Kind.RAM}  # FILE_DEVICE_..., by its number
# DefineDosDevice, which SUBST calls, puts this before a path; a device's own letter is a name of \Device\….
DOS_PATH = "\\??\\"


class Refused(TsmWorkerError):
    """Windows would not say what was asked."""


@contextmanager
def _asking_about(what: str) -> Iterator[None]:
    try:
        yield
    except Win32Error as error:
        raise Refused(
            f"{what}: Windows refuses, with system error {error.code} (`net helpmsg {error.code}`)"
        ) from error


class Drives:
    """The drives and volumes that `win32` shows; what Windows refuses to say raises Refused."""

    def __init__(self, win32: Win32) -> None:
        self._win32 = win32

    def drive(self, letter: str) -> Drive:
        """Return what the drive `letter` (`E:`) is."""
        kind = Kind(self._win32.drive_type(f"{letter}\\"))
        try:
            target = self._win32.dos_device(letter)
        except Win32Error:
            return Drive(kind)
        _, link, path = target.rpartition(DOS_PATH)
        return Drive(kind, path if link else "")

    def volume_at(self, root: str) -> str | None:
        """Return the GUID path of the volume whose mount point `root` is, None where it is none."""
        try:
            return self._win32.volume_at(root)
        except Win32Error:
            # Why not (no reparse point, a junction, nothing there), the caller finds out by looking.
            return None

    def volume(self, device: str) -> Volume:
        """Return what the volume with the GUID path `device` is."""
        with _asking_about(device):
            points = self._win32.mount_points(device)
            kind, clustered = self._device(device)
        letters = sorted(point for point in points if len(point) == len("E:\\"))
        folders = sorted(point for point in points if point not in letters)
        if letters:
            # The session's map of drives says more than the device does.
            kind = Kind(self._win32.drive_type(letters[0]))
        volume = Volume(device, kind, clustered=clustered, mounted_at=(*letters, *folders))
        try:
            file_system, flags = self._win32.file_system(device)
        except Win32Error as error:
            return replace(volume, error=error.code)
        return replace(volume, file_system=file_system, read_only=bool(flags & READ_ONLY))

    def volumes(self) -> list[str]:
        """Return the GUID path of each volume of this host."""
        with _asking_about("this host's volumes"):
            search, device = self._win32.first_volume()
            found = [device]
            try:
                while True:
                    found.append(self._win32.next_volume(search))
            except Win32Error as error:
                if error.code != NO_MORE_FILES:
                    raise
                return found
            finally:
                self._win32.end_search(search)

    def is_directory(self, path: str) -> bool | None:
        """Return whether a directory stands at `path`, None where nothing does."""
        with _asking_about(path):
            try:
                return bool(self._win32.attributes(path) & DIRECTORY)
            except Win32Error as error:
                if error.code not in NOTHING_THERE:
                    raise
                return None

    def mount_point_of(self, path: str) -> str:
        """Return the mount point that `path` lies below."""
        with _asking_about(path):
            return self._win32.mount_point_of(path)

    def _device(self, device: str) -> tuple[Kind, bool]:
        """Return the kind of drive that a volume's device says it is, and whether it is a cluster's.

        GetDriveTypeW opens the root directory, and a raw volume has none; the device itself opens with no right
        to anything in it. What it says is what GetDriveTypeW goes by, too (FILE_FS_DEVICE_INFORMATION).
        """
        handle = self._win32.open(device.rstrip("\\"))
        try:
            return self._kind(handle), self._is_clustered(handle)
        finally:
            self._win32.close(handle)

    def _kind(self, handle: int) -> Kind:
        status, device_type, characteristics = self._win32.device_information(handle)
        if status:
            return Kind.UNKNOWN
        if characteristics & REMOVABLE:
            return Kind.REMOVABLE
        return DEVICES.get(device_type, Kind.UNKNOWN)

    def _is_clustered(self, handle: int) -> bool:
        try:
            self._win32.control(handle, IS_CLUSTERED)
        except Win32Error:
            return False
        return True
