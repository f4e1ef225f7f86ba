"""The one edge of this room on Windows: the calls of Win32, one by one; what they answer, `drives` reads.

ctypes needs nothing installed and costs no import that the worker has not paid already. Sources: the pages of
the same names on Microsoft Learn ("GetVolumeInformationW function" and so on).
"""

import ctypes
import sys
from ctypes.wintypes import BOOL, DWORD, HANDLE, LPCWSTR, LPDWORD, LPVOID, LPWSTR, UINT, ULONG
from typing import Any

from worker.volumes.drives import Win32Error

if sys.platform != "win32":
    raise ImportError("Win32 is on Windows only")

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_ntdll = ctypes.WinDLL("ntdll")


def _declared(name: str, *parameters: Any, result: Any = BOOL, failure: int = 0) -> Any:
    """Return a function of kernel32 which raises Win32Error where its result is `failure`."""

    def checked(answer: int, *_: object) -> int:
        if answer == failure:
            raise Win32Error(ctypes.get_last_error() & 0xFFFFFFFF)
        return answer

    function = getattr(_kernel32, name)
    function.argtypes, function.restype, function.errcheck = parameters, result, checked
    return function


_INVALID_HANDLE = ctypes.c_size_t(-1).value
_INVALID_ATTRIBUTES = 0xFFFFFFFF

_QueryDosDevice = _declared("QueryDosDeviceW", LPCWSTR, LPWSTR, DWORD, result=DWORD)
_GetVolumeNameForVolumeMountPoint = _declared("GetVolumeNameForVolumeMountPointW", LPCWSTR, LPWSTR, DWORD)
_GetVolumePathNamesForVolumeName = _declared(
    "GetVolumePathNamesForVolumeNameW", LPCWSTR, LPWSTR, DWORD, LPDWORD
)
_GetVolumeInformation = _declared(
    "GetVolumeInformationW", LPCWSTR, LPWSTR, DWORD, LPDWORD, LPDWORD, LPDWORD, LPWSTR, DWORD
)
_FindFirstVolume = _declared("FindFirstVolumeW", LPWSTR, DWORD, result=HANDLE, failure=_INVALID_HANDLE)
_FindNextVolume = _declared("FindNextVolumeW", HANDLE, LPWSTR, DWORD)
_FindVolumeClose = _declared("FindVolumeClose", HANDLE)
_CreateFile = _declared(
    "CreateFileW", LPCWSTR, DWORD, DWORD, LPVOID, DWORD, DWORD, HANDLE, result=HANDLE, failure=_INVALID_HANDLE
)
_CloseHandle = _declared("CloseHandle", HANDLE)
_DeviceIoControl = _declared("DeviceIoControl", HANDLE, DWORD, LPVOID, DWORD, LPVOID, DWORD, LPDWORD, LPVOID)
_GetFileAttributes = _declared("GetFileAttributesW", LPCWSTR, result=DWORD, failure=_INVALID_ATTRIBUTES)
_GetVolumePathName = _declared("GetVolumePathNameW", LPCWSTR, LPWSTR, DWORD)

# Neither of these has an error code to raise.
_GetDriveType = _kernel32.GetDriveTypeW
_GetDriveType.argtypes, _GetDriveType.restype = (LPCWSTR,), UINT
_NtQueryVolumeInformationFile = _ntdll.NtQueryVolumeInformationFile
_NtQueryVolumeInformationFile.argtypes = (HANDLE, LPVOID, LPVOID, ULONG, ctypes.c_int)

_NO_DIALOGS = (
    0x8001  # SEM_FAILCRITICALERRORS, SEM_NOOPENFILEERRORBOX: "insert a disk" is an error, not a window
)
_SHARE_ALL = 7
_OPEN_EXISTING = 3
_DEVICE_INFORMATION = 4  # FileFsDeviceInformation
_NAME = 261  # characters, MAX_PATH and an end
_PATH = 32768


class Win32:
    """The calls, as `drives.Win32` has them."""

    def drive_type(self, root: str) -> int:
        """Call GetDriveTypeW."""
        kind: int = _GetDriveType(root)
        return kind

    def dos_device(self, letter: str) -> str:
        """Call QueryDosDeviceW."""
        target = ctypes.create_unicode_buffer(_PATH)
        _QueryDosDevice(letter, target, _PATH)
        return target.value

    def volume_at(self, root: str) -> str:
        """Call GetVolumeNameForVolumeMountPointW."""
        _set_quiet()
        name = ctypes.create_unicode_buffer(_NAME)
        _GetVolumeNameForVolumeMountPoint(root, name, _NAME)
        return name.value

    def mount_points(self, device: str) -> list[str]:
        """Call GetVolumePathNamesForVolumeNameW."""
        points = ctypes.create_unicode_buffer(_PATH)
        _GetVolumePathNamesForVolumeName(device, points, _PATH, DWORD())
        return [point for point in ctypes.wstring_at(points, _PATH).split("\0") if point]

    def file_system(self, device: str) -> tuple[str, int]:
        """Call GetVolumeInformationW."""
        _set_quiet()
        flags, name = DWORD(), ctypes.create_unicode_buffer(_NAME)
        _GetVolumeInformation(device, None, 0, None, None, flags, name, _NAME)
        return name.value, flags.value

    def first_volume(self) -> tuple[int, str]:
        """Call FindFirstVolumeW."""
        name = ctypes.create_unicode_buffer(_NAME)
        return _FindFirstVolume(name, _NAME), name.value

    def next_volume(self, search: int) -> str:
        """Call FindNextVolumeW."""
        name = ctypes.create_unicode_buffer(_NAME)
        _FindNextVolume(search, name, _NAME)
        return name.value

    def end_search(self, search: int) -> None:
        """Call FindVolumeClose."""
        _FindVolumeClose(search)

    def open(self, device: str) -> int:
        """Call CreateFileW."""
        _set_quiet()
        handle: int = _CreateFile(device, 0, _SHARE_ALL, None, _OPEN_EXISTING, 0, None)
        return handle

    def close(self, handle: int) -> None:
        """Call CloseHandle."""
        _CloseHandle(handle)

    def control(self, handle: int, code: int) -> None:
        """Call DeviceIoControl."""
        _DeviceIoControl(handle, code, None, 0, None, 0, DWORD(), None)

    def device_information(self, handle: int) -> tuple[int, int, int]:
        """Call NtQueryVolumeInformationFile."""
        block, answer = (LPVOID * 2)(), (ULONG * 2)()
        status = _NtQueryVolumeInformationFile(
            handle, block, answer, ctypes.sizeof(answer), _DEVICE_INFORMATION
        )
        return status, answer[0], answer[1]

    def attributes(self, path: str) -> int:
        """Call GetFileAttributesW."""
        _set_quiet()
        attributes: int = _GetFileAttributes(path)
        return attributes

    def mount_point_of(self, path: str) -> str:
        """Call GetVolumePathNameW."""
        _set_quiet()
        point = ctypes.create_unicode_buffer(_PATH)
        _GetVolumePathName(path, point, _PATH)
        return point.value


def _set_quiet() -> None:
    _kernel32.SetThreadErrorMode(_NO_DIALOGS, None)
