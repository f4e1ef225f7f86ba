"""The demo's hosts: the worker itself, on volumes that are made up. The product knows nothing of them.

`python -m worker.demo.hosts NAME FOLDER` serves the host NAME by the configuration FOLDER/worker.toml, for as
long as its stdin stays open: so it ends with the demo, however that ends. `running` starts all of them.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from worker.demo import dsmc
from worker.volumes import Verdict, Volumes
from worker.volumes.inquiry import refuse_repeated
from worker.volumes.kernel import Kernel, Kind, Node
from worker.volumes.linux import LinuxVolumes
from worker.volumes.mounts import Mounts
from worker.words import Platform

# How each host's dsmc behaves, as worker/demo/dsmc.py has it; win01's speaks as in the sample response.
BEHAVIOURS: dict[str, dict[str, Any]] = {
    "web01": {"default": {"node": "web01"}, "volumes": {"/dev/sdb2": {"node": "web01", "seconds": 30}}},
    "db01": {"default": {"node": "db01", "seconds": 1.2}},
    "win01": {
        "default": {
            "version": "5.5",
            "node": "WIN2STDVM",
            "dates": ["11/25/2008 09:37:12", "11/25/2008 09:35:37", "11/25/2008 09:33:24"],
        }
    },
}

_STOPPING = (
    5.0  # seconds that the hosts get to stop by themselves; half a one does where a dsmc has to be left
)
_LOG_LINES = 20
# What a worker of this machine, or systemd, may have set is not for the demo's.
_NOT_OURS = ("TSM_WORKER_", "DSM_", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")


@dataclass(frozen=True, slots=True)
class Block:
    """A block device: `place` is its directory in /sys/block, `files` what is in there, `probed` blkid's finding."""

    number: str
    place: str
    files: Mapping[str, str]
    probed: Mapping[str, str] = field(default_factory=dict)

    @property
    def node(self) -> str:
        """Its device node."""
        return "/dev/" + self.place.rpartition("/")[2]


LINUX_DATA = {"PART_ENTRY_SCHEME": "dos", "PART_ENTRY_TYPE": "0x83", "TYPE": "ext4", "USAGE": "filesystem"}
WEB01 = (
    Block("8:16", "sdb", {"size": "41943040"}, {"PTTYPE": "dos"}),
    Block("8:17", "sdb/sdb1", {"size": "20969472", "partition": "1"}, LINUX_DATA),
    Block("8:18", "sdb/sdb2", {"size": "20971520", "partition": "2"}, LINUX_DATA),
)
DB01 = (
    Block(
        "253:0",
        "dm-0",
        {"size": "209715200", "dm/name": "vg0-data", "dm/uuid": "LVM-" + "vg0" * 10 + "XY" + "data" * 8},
        {"TYPE": "xfs", "USAGE": "filesystem"},
    ),
)
DB01_LINKS = {"/dev/vg0/data": "../dm-0"}
DB01_MOUNTS = "30 1 0:42 / /gpfs/fs1 rw,relatime shared:1 - gpfs fs1 rw\n"


class StandInKernel(Kernel):
    """Shows block devices, links to their nodes and mounts that are made up, by a tree of files under `root`."""

    def __init__(
        self, root: Path, blocks: Sequence[Block], links: Mapping[str, str] | None = None, mounts: str = ""
    ) -> None:
        """Write the tree; one that is there already is written over."""
        super().__init__(root)
        _write(root / "proc/self/mountinfo", mounts)
        for block in blocks:
            for name, text in {"dev": block.number, **block.files}.items():
                _write(root / "sys/block" / block.place / name, text)
            link = root / "sys/dev/block" / block.number
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(f"../../block/{block.place}")
        self._probed = {block.node: block.probed for block in blocks}
        self._nodes = {block.node: Node(Kind.BLOCK, block.number) for block in blocks}
        self._nodes |= {mount.point: Node(Kind.DIRECTORY) for mount in Mounts.read(mounts)}
        self._nodes |= {path: Node(Kind.LINK, target=target) for path, target in (links or {}).items()}

    def node(self, path: str) -> Node:
        """Return the made-up node at `path`; a directory stands wherever there is one below it."""
        inside = any(known.startswith(f"{path}/") for known in self._nodes)
        return self._nodes.get(path, Node(Kind.DIRECTORY if inside else Kind.MISSING))

    def probe(self, device: str) -> Mapping[str, str]:
        """Return what blkid would find."""
        return self._probed[device]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


class StandInWindows:
    """A Windows host with the one drive `e:`, which is NTFS."""

    platform = Platform.WINDOWS

    def judge(self, names: Sequence[str]) -> list[Verdict]:
        """Return the verdict on each of `names`, in their order."""
        return refuse_repeated([self._verdict(name) for name in names])

    def all(self) -> list[Verdict]:
        """Return the verdict on `e:`."""
        return self.judge(["e:"])

    @staticmethod
    def _verdict(name: str) -> Verdict:
        if name.lower().rstrip("\\") != "e:":
            return Verdict(name, eligible=False, reason=f"there is no volume {name}; this host has e: alone")
        device = "\\\\?\\Volume{5b1f4bb8-0000-0000-0000-100000000000}\\"
        return Verdict(name, eligible=True, reason="a fixed NTFS volume", device=device, file_system="NTFS")


def volumes(name: str, root: Path) -> Volumes:
    """Return the volumes of the demo's host of that name; what stands for its sysfs is written under `root`."""
    if name == "win01":
        return StandInWindows()
    if name == "db01":
        return LinuxVolumes(StandInKernel(root, DB01, DB01_LINKS, DB01_MOUNTS))
    return LinuxVolumes(StandInKernel(root, WEB01))


@dataclass(frozen=True, slots=True)
class Host:
    """A host that runs, with all its files in its folder."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, name: str, folder: Path, url: str) -> "Host":
        """Start the host `name` in a fresh folder, on the broker at `url`."""
        folder.mkdir()
        (folder / "worker.toml").write_text(
            f"""\
host = {_toml(name)}
state_dir = {_toml(str(folder / "state"))}
drain = "0s"

[broker]
url = {_toml(url)}

[dsmc]
command = {_toml(dsmc.command())}
kill_grace = "2s"
""",
            encoding="utf-8",
        )
        plan = dsmc.write_plan(folder / "dsmc.json", **BEHAVIOURS[name])
        ours = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_OURS)}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker.demo.hosts", name, str(folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**ours, "DSM_STANDIN": str(plan)},
                start_new_session=True,  # Ctrl-C is the demo's to answer
            )
        return cls(name, folder, process)

    @property
    def alive(self) -> bool:
        """Whether it has not ended by itself."""
        return self.process.poll() is None

    @property
    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-_LOG_LINES:])


def _toml(value: str | list[str]) -> str:
    """Return the value as TOML, which writes strings, and lists of them, as JSON does."""
    return json.dumps(value, ensure_ascii=False)


@contextmanager
def running(folder: Path, url: str) -> Iterator[dict[str, Host]]:
    """Run the hosts, each in a folder of its own below `folder`; at the end stop them and what they leave."""
    hosts: dict[str, Host] = {}
    try:
        for name in BEHAVIOURS:
            hosts[name] = Host.start(name, folder / name, url)
        yield hosts
    finally:
        for host in hosts.values():
            if host.process.stdin is not None:
                host.process.stdin.close()
        deadline = time.monotonic() + _STOPPING
        for host in hosts.values():
            with suppress(subprocess.TimeoutExpired):
                host.process.wait(max(0.0, deadline - time.monotonic()))
        while strays := _strays(folder):
            for process in strays:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(strays, _STOPPING)
        for host in hosts.values():
            host.process.wait()


def _strays(folder: Path) -> list[psutil.Process]:
    """Return what runs of the hosts in the folder: a host that would not stop, or a dsmc, which outlives its worker."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("DSM_STANDIN", "").startswith(f"{folder}{os.sep}"):
                found.append(process)
    return found


def main(name: str, folder: Path) -> None:
    """Serve until stdin ends, or until a signal as the product itself does."""
    from worker import config, log  # noqa: PLC0415 -- what only imports the volumes does without the rest
    from worker.daemon import Daemon  # noqa: PLC0415

    settings = config.load(str(folder / "worker.toml"))
    log.configure(settings.log)
    daemon = Daemon(settings, volumes(name, folder / "root"))
    threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
    daemon.run()


def _end_with_stdin() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
