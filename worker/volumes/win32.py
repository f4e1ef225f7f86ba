"""The one edge of this room on Windows: what the Win32 API says, read as data.

ctypes needs nothing installed and costs no import that the worker has not paid already. Sources: the pages of
the same names on Microsoft Learn ("GetVolumeInformationW function" and so on).
"""

import ctypes
import sys
from contextlib import suppress
from ctypes import wintypes

from worker.volumes.windows import Drive, Kind, Volume, Win32Error

if sys.platform != "win32":
    raise ImportError("Win32 is on Windows only")

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_ntdll = ctypes.WinDLL("ntdll")

_CreateFile = _kernel32.CreateFileW
_CreateFile.restype = wintypes.HANDLE
_CreateFile.argtypes = [
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
]
_CloseHandle = _kernel32.CloseHandle
_CloseHandle.argtypes = [wintypes.HANDLE]
_FindFirstVolume = _kernel32.FindFirstVolumeW
_FindFirstVolume.restype = wintypes.HANDLE
_FindFirstVolume.argtypes = [wintypes.LPWSTR, wintypes.DWORD]
_FindNextVolume = _kernel32.FindNextVolumeW
_FindNextVolume.argtypes = [wintypes.HANDLE, wintypes.LPWSTR, wintypes.DWORD]
_FindVolumeClose = _kernel32.FindVolumeClose
_FindVolumeClose.argtypes = [wintypes.HANDLE]
_GetFileAttributes = _kernel32.GetFileAttributesW
_GetFileAttributes.restype = wintypes.DWORD
_DeviceIoControl = _kernel32.DeviceIoControl
_DeviceIoControl.argtypes = [
    wintypes.HANDLE,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.LPDWORD,
    ctypes.c_void_p,
]
_NtQueryVolumeInformationFile = _ntdll.NtQueryVolumeInformationFile
_NtQueryVolumeInformationFile.argtypes = [
    wintypes.HANDLE,
    ctypes.c_void_p,
    ctypes.c_void_p,
    wintypes.ULONG,
    ctypes.c_int,
]

_INVALID_HANDLE = ctypes.c_void_p(-1).value
_NOTHING_THERE = (2, 3)  # ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND
_NO_ATTRIBUTES = 0xFFFFFFFF  # INVALID_FILE_ATTRIBUTES
_DIRECTORY = 0x10  # FILE_ATTRIBUTE_DIRECTORY
_READ_ONLY = 0x80000  # FILE_READ_ONLY_VOLUME
_NO_DIALOGS = (
    0x8001  # SEM_FAILCRITICALERRORS, SEM_NOOPENFILEERRORBOX: "insert a disk" is an error, not a window
)
_SHARE_ALL = 7
_OPEN_EXISTING = 3
_IS_CLUSTERED = 0x560030  # IOCTL_VOLUME_IS_CLUSTERED: succeeds where the volume is
_DEVICE_INFORMATION = 4  # FileFsDeviceInformation
_REMOVABLE = 1  # FILE_REMOVABLE_MEDIA
_KINDS = {2: Kind.CD, 7: Kind.FIXED, 0x14: Kind.NETWORK, 0x24: Kind.RAM}  # FILE_DEVICE_..., by its number
_NAME = 261  # characters, MAX_PATH and an end
_PATH = 32768


class Win32:
    """Volumes and drives of this machine."""

    def drive(self, letter: str) -> Drive:
        """Return what the drive `letter` (`E:`) is."""
        kind = Kind(_kernel32.GetDriveTypeW(f"{letter}\\"))
        target = ctypes.create_unicode_buffer(_PATH)
        if not _kernel32.QueryDosDeviceW(letter, target, _PATH):
            return Drive(kind)
        # DefineDosDevice, which SUBST calls, puts this before a path; a device's own letter has \Device\.
        _, link, path = target.value.rpartition("\\??\\")
        return Drive(kind, path if link else "")

    def volume_at(self, root: str) -> str | None:
        """Return the GUID path of the volume whose mount point `root` is, None where it is none."""
        _set_quiet()
        name = ctypes.create_unicode_buffer(_NAME)
        # Why not (no reparse point, a junction, nothing there), the caller finds out by looking.
        return name.value if _kernel32.GetVolumeNameForVolumeMountPointW(root, name, _NAME) else None

    def volume(self, device: str) -> Volume:
        """Return what the volume with the GUID path `device` is."""
        _set_quiet()
        mounted_at = _mount_points(device)
        file_system = ctypes.create_unicode_buffer(_NAME)
        flags = wintypes.DWORD()
        known = _kernel32.GetVolumeInformationW(
            device, None, 0, None, None, ctypes.byref(flags), file_system, _NAME
        )
        error = 0 if known else ctypes.get_last_error()
        kind, clustered = _device(device)
        # A drive letter has its kind from the session's map of drives, which says more than the device does.
        letters = [point for point in mounted_at if len(point) == len("E:\\")]
        return Volume(
            device,
            Kind(_kernel32.GetDriveTypeW(letters[0])) if letters else kind,
            file_system.value if known else "",
            error & 0xFFFFFFFF,
            read_only=bool(known and flags.value & _READ_ONLY),
            clustered=clustered,
            mounted_at=mounted_at,
        )

    def volumes(self) -> list[str]:
        """Return the GUID path of each volume of this host."""
        name = ctypes.create_unicode_buffer(_NAME)
        search = _FindFirstVolume(name, _NAME)
        if search == _INVALID_HANDLE:
            raise _refused("this host's volumes")
        try:
            found = [name.value]
            while _FindNextVolume(search, name, _NAME):
                found.append(name.value)
            return found
        finally:
            _FindVolumeClose(search)

    def is_directory(self, path: str) -> bool | None:
        """Return whether a directory stands at `path`, None where nothing does."""
        _set_quiet()
        attributes = _GetFileAttributes(path)
        if attributes != _NO_ATTRIBUTES:
            return bool(attributes & _DIRECTORY)
        if ctypes.get_last_error() in _NOTHING_THERE:
            return None
        raise _refused(path)

    def mount_point_of(self, path: str) -> str:
        """Return the mount point that `path` lies below."""
        _set_quiet()
        point = ctypes.create_unicode_buffer(_PATH)
        if not _kernel32.GetVolumePathNameW(path, point, _PATH):
            raise _refused(path)
        return point.value


def _set_quiet() -> None:
    _kernel32.SetThreadErrorMode(_NO_DIALOGS, None)


def _mount_points(device: str) -> tuple[str, ...]:
    """Return the mount points of a volume, its drive letter first."""
    names = ctypes.create_unicode_buffer(_PATH)
    if not _kernel32.GetVolumePathNamesForVolumeNameW(device, names, _PATH, ctypes.byref(wintypes.DWORD())):
        raise _refused(device)
    points = filter(None, ctypes.wstring_at(names, _PATH).split("\0"))
    return tuple(sorted(points, key=lambda point: (len(point) > len("E:\\"), point)))


def _device(device: str) -> tuple[Kind, bool]:
    """Return the kind of drive that a volume's device says it is, and whether it is a cluster's.

    GetDriveTypeW opens the root directory, and a raw volume has none; the device itself opens with no right
    to anything in it. What it says is what GetDriveTypeW goes by, too (FILE_FS_DEVICE_INFORMATION).
    """
    handle = _CreateFile(device.rstrip("\\"), 0, _SHARE_ALL, None, _OPEN_EXISTING, 0, None)
    if handle == _INVALID_HANDLE:
        raise _refused(device)
    try:
        returned = wintypes.DWORD()
        clustered = _DeviceIoControl(handle, _IS_CLUSTERED, None, 0, None, 0, ctypes.byref(returned), None)
        status = (ctypes.c_void_p * 2)()
        answer = (wintypes.ULONG * 2)()
        kind = Kind.UNKNOWN
        with suppress(KeyError):
            if _NtQueryVolumeInformationFile(handle, status, answer, 8, _DEVICE_INFORMATION) == 0:
                kind = Kind.REMOVABLE if answer[1] & _REMOVABLE else _KINDS[answer[0]]
        return kind, bool(clustered)
    finally:
        _CloseHandle(handle)


def _refused(what: str) -> Win32Error:
    code = ctypes.get_last_error() & 0xFFFFFFFF
    return Win32Error(f"{what}: Windows refuses, with system error {code} (`net helpmsg {code}`)")
