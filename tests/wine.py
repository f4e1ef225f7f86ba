"""A Windows to test on, made of Wine: its drives, the Windows CPython, and the worker that runs in it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import disks
from brokers import lacks, wait_until
from coverage import Coverage
from hosts import REPOSITORY

from worker.demo import dsmc

# Drives on loop devices: what formats each, and its size in MiB.
VOLUMES = {
    "e": (("mkfs.ntfs", "--fast", "--force", "--quiet"), 16),
    "f": (("mkfs.fat", "-F", "32"), 64),
    "g": (("mkfs.fat", "-F", "16"), 16),
}
# Drives of other kinds, as Wine's registry calls them.
KINDS = {"n": "network", "o": "cdrom", "p": "floppy", "q": "ramdisk"}

# Ctrl-C or Ctrl-Break as Windows itself delivers it: a thread in the process that the routine of its consoles runs in.
# Wine's own GenerateConsoleCtrlEvent knows no Ctrl-Break.
CTRL_C, CTRL_BREAK = 0, 1
PRESS = """
import ctypes, sys
kernel32 = ctypes.WinDLL("kernel32")
for name, result in (("OpenProcess", ctypes.c_void_p), ("GetModuleHandleW", ctypes.c_void_p)):
    getattr(kernel32, name).restype = result
kernel32.GetProcAddress.argtypes, kernel32.GetProcAddress.restype = [ctypes.c_void_p, ctypes.c_char_p], ctypes.c_void_p
kernel32.CreateRemoteThread.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_ulong, ctypes.c_void_p]
routine = kernel32.GetProcAddress(kernel32.GetModuleHandleW("kernelbase.dll"), b"CtrlRoutine")
process = kernel32.OpenProcess(0x1F0FFF, False, int(sys.argv[1]))
sys.exit(not kernel32.CreateRemoteThread(process, None, 0, routine, int(sys.argv[2]), 0, None))
"""
RUN = """
import os, pathlib, runpy, sys
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
sys.argv[:] = ["tsm-worker", "run"]
runpy.run_module("worker", run_name="__main__", alter_sys=True)
"""


def windows_path(path: Path) -> str:
    """Return what Windows calls a path of this machine."""
    return "Z:" + str(path).replace("/", "\\")


def measured() -> list[str]:
    """Return what has the Windows Python measure what it runs of worker.volumes, if this run of pytest is measured.

    It leaves its figures beside those of pytest-cov, which adds them up.
    """
    measuring = Coverage.current()
    if measuring is None:
        return []
    data = windows_path(Path(str(measuring.get_option("run:data_file"))).absolute())
    settings = windows_path(REPOSITORY / "pyproject.toml")
    run = ("run", "--source=worker.volumes", "--parallel-mode", f"--data-file={data}", f"--rcfile={settings}")
    return ["-m", "coverage", *run]


@dataclass
class Wine:
    """A Windows of its own drives and registry; `python` is its CPython, in the words of this machine."""

    prefix: Path
    python: Path

    @property
    def environment(self) -> dict[str, str]:
        mine = {
            "WINEPREFIX": str(self.prefix),
            "WINEDEBUG": "-all",
            "PYTHONPATH": windows_path(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return {**{name: value for name, value in os.environ.items() if name != "DISPLAY"}, **mine}

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Start the Windows Python with three pipes: on a file or the null device of Linux it cannot start."""
        return subprocess.Popen(
            ["wine", str(self.python), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self.environment, **environment},
            cwd="/",
        )

    def run(self, *arguments: str) -> bytes:
        """Run the Windows Python; return what it says on stdout, fail where it fails."""
        process = self.start(*arguments)
        said, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, f"{arguments} ended {process.returncode}: {complaint.decode()}"
        return said

    def tool(self, *command: str) -> None:
        """Run one of Wine's own programs."""
        null = subprocess.DEVNULL
        subprocess.run(
            command, env=self.environment, stdin=null, stdout=null, stderr=null, check=True, timeout=120
        )

    def check(self, *names: str) -> list[dict[str, Any]]:
        """Return what `tsm-worker check --json` says of these volumes, or of all."""
        said = self.run(*measured(), "-m", "worker", "check", "--json", *names)
        found: list[dict[str, Any]] = json.loads(said)
        return found

    @contextmanager
    def subst(self, drive: str, path: str) -> Iterator[None]:
        """Have a drive letter stand for a path, as SUBST does; in Wine for as long as who said so lives."""
        define = "import ctypes, sys; done = ctypes.windll.kernel32.DefineDosDeviceW(0, *sys.argv[1:]);"
        process = self.start("-c", f"{define} print(done, flush=True); input()", drive, path)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"1"
        yield
        process.communicate(b"\n", timeout=30)

    def living(self, *pids: int) -> list[int]:
        """Return which of these process ids are a process's."""
        program = "import sys, psutil; print(*(pid for pid in sys.argv[1:] if psutil.pid_exists(int(pid))))"
        return [int(pid) for pid in self.run("-c", program, *map(str, pids)).split()]


@contextmanager
def windows(directory: Path) -> Iterator[Wine]:
    """Give a Windows with the drives VOLUMES and KINDS, kept in `directory`; it goes at the end."""
    if shutil.which("wine") is None:
        lacks("Windows needs Wine: `sh deploy/wine.sh` as root brings it (or: apt-get install wine wine64)")
    disks.needed("mkfs.ntfs", "mkfs.fat", "flock")
    made = subprocess.run(
        ["sh", str(REPOSITORY / "deploy" / "wine.sh")],
        env={**os.environ, "PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        lacks(f"no Windows could be made: {made.stderr.strip()}")
    cache, prefix = Path(made.stdout.strip()), directory / "prefix"
    devices = prefix / "dosdevices"
    devices.mkdir(parents=True)
    for name in ("system.reg", "user.reg", "userdef.reg", ".update-timestamp"):
        shutil.copy(cache / "prefix" / name, prefix)
    (prefix / "drive_c").symlink_to(cache / "prefix" / "drive_c")
    (devices / "c:").symlink_to("../drive_c")
    (devices / "z:").symlink_to("/")
    with ExitStack() as stack:
        for letter, (command, megabytes) in VOLUMES.items():
            file = directory / f"{letter}.disk"
            with file.open("wb") as disk:
                disk.truncate(megabytes << 20)
            disks.run(*command, str(file))
            (devices / f"{letter}::").symlink_to(stack.enter_context(disks.loop(file)).node)
        for letter in (*VOLUMES, *KINDS):
            (directory / letter).mkdir()
            (devices / f"{letter}:").symlink_to(directory / letter)
        wine = Wine(prefix, cache / "python" / "python.exe")
        stack.callback(wine.tool, "wineserver", "--kill")
        for letter, kind in KINDS.items():
            wine.tool(
                "wine", "reg", "add", r"HKLM\Software\Wine\Drives", "/v", f"{letter}:", "/d", kind, "/f"
            )
        # What kind a drive is, Wine looks up when it starts.
        wine.tool("wineserver", "--kill")
        # Without these Windows is booted by the first program, whose pipes it then holds, and again after a pause.
        wine.tool("wineserver", "--persistent")
        wine.tool("wine", "wineboot")
        yield wine


@dataclass
class WindowsHost:
    """The host win01: a directory, a stand-in dsmc, and the worker while it runs."""

    wine: Wine
    directory: Path
    name: str = "win01"
    worker: "subprocess.Popen[bytes] | None" = None
    _log: "subprocess.Popen[bytes] | None" = None

    def configure(self, url: str, **top: Any) -> None:
        python = windows_path(self.wine.python)
        stand_in = windows_path(Path(dsmc.__file__))
        settings = {"host": self.name, "state_dir": windows_path(self.directory / "state"), **top}
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
        text += f"[broker]\nurl = {json.dumps(url)}\n[dsmc]\nkill_grace = '1s'\n"
        text += f"command = {json.dumps([python, '-I', '-S', stand_in])}\n"
        (self.directory / "worker.toml").write_text(text)

    def plan(self, **volumes: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Tell the stand-in dsmc what to do, by drive letter."""
        plan = {
            "log": windows_path(self.directory / "runs.ndjson"),
            "volumes": {f"{letter}:": behaviour for letter, behaviour in volumes.items()},
        }
        (self.directory / "plan.json").write_text(json.dumps(plan))

    def runs(self) -> list[dict[str, Any]]:
        return dsmc.runs(self.directory / "runs.ndjson")

    def start(self) -> None:
        """Start the worker; return once it takes requests."""
        seen = self.said("broker connected")
        self.worker = self.wine.start(
            "-c",
            RUN,
            windows_path(self.directory / "pid"),
            TSM_WORKER_CONFIG=windows_path(self.directory / "worker.toml"),
            DSM_STANDIN=windows_path(self.directory / "plan.json"),
        )
        assert self.worker.stderr is not None
        with (self.directory / "worker.log").open("ab") as log:
            self._log = subprocess.Popen(["cat"], stdin=self.worker.stderr, stdout=log)
        wait_until(
            lambda: self.said("broker connected") > seen, 60, f"{self.name} to connect; {self.log()[-2000:]}"
        )

    def press(self, event: int) -> None:
        """Give the worker a Ctrl-C or Ctrl-Break."""
        self.wine.run("-c", PRESS, (self.directory / "pid").read_text(), str(event))

    def ended(self, timeout: float = 30) -> int:
        """Wait for the worker's end; return its exit code."""
        assert self.worker is not None
        assert self._log is not None
        try:
            return self.worker.wait(timeout)
        finally:
            self.worker.kill()
            self.worker.communicate()
            self._log.wait()
            self.worker = None

    def kill(self) -> None:
        """End the worker as a crash would."""
        assert self.worker is not None
        self.worker.kill()
        self.ended()

    def log(self) -> str:
        file = self.directory / "worker.log"
        return file.read_text() if file.exists() else ""

    def said(self, event: str) -> int:
        lines = (json.loads(line) for line in self.log().splitlines() if line.startswith("{"))
        return sum(line["event"] == event for line in lines)
