"""A Linux of our own for tests: with a device mapper, and with a plug that can be pulled.

`deploy/machine.sh` makes its root once; each `Machine` starts from that on a disk of its own, under qemu's own
processor, so it needs neither KVM nor rights. Commands go to an agent in it over a virtual serial port.
"""

import hashlib
import io
import os
import shlex
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, NoReturn, Self

import pytest
from brokers import lacks, wait_until

REPOSITORY = Path(__file__).parents[1]
HOST = "10.0.2.2"  # what this machine's loopback is called in there
TREE = "/tree"  # where the working tree's worker/ and tests/ are in there
TOOLS = ("qemu-system-x86_64", "qemu-img", "mke2fs", "setpriv")
BOOT_SECONDS = 180.0  # 10 s on two idle cores; a busy machine takes a multiple
CONSOLE_LINES = 30

# Runs as process 1. When this side of the port closes, as it does when the test run ends however it ends, the
# agent comes to its end, and with it the machine. An answer says which command it is for, its exit code and how
# much follows of its stdout and its stderr.
INIT = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root
export PYTHONPATH=/tree:/opt/tsm-worker PYTHONPYCACHEPREFIX=/var/cache/python
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 run /run
mkdir -p /dev/shm /dev/pts /run/lock /run/agent
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t devpts devpts /dev/pts
ln -s /proc/self/fd /dev/fd
hostname machine
/lib/systemd/systemd-udevd --daemon
modprobe -a virtio_console virtio_net virtio_scsi sd_mod dm_multipath
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
udevadm trigger --action=add --subsystem-match=block
udevadm settle --timeout=60

serve() {
    echo 0 0 0 0
    while read -r number limit command input; do
        this=/run/agent/$number
        mkdir "$this"
        head -c "$command" >"$this/command"
        head -c "$input" >"$this/input"
        code=0
        timeout -k 5 "$limit" sh "$this/command" <"$this/input" >"$this/output" 2>"$this/errors" || code=$?
        output=$(stat -c %s "$this/output")
        errors=$(stat -c %s "$this/errors")
        echo "$number $code $output $errors"
        head -c "$output" "$this/output"
        head -c "$errors" "$this/errors"
        rm -rf "$this"
    done
}

until port=$(ls /dev/vport*p1 2>/dev/null); do sleep 0.1; done
cd /
{ serve <>"$port" >&0; echo o >/proc/sysrq-trigger; } &
while :; do wait; done
"""


class Done(NamedTuple):
    """How a command in the machine ended; exit code 124 or 137: it was ended for taking too long."""

    code: int
    output: str
    errors: str


class Machine:
    """A running virtual machine, gone with all that is in it at the end of the `with`.

    It has, beside its root, an empty disk of each of `disks` megabytes: /dev/vdc and so on. `paths` adds disks
    of that many megabytes which appear twice, as on a storage network with two ways to it: /dev/sda and so on.
    """

    def __init__(self, *, disks: Sequence[int] = (), paths: Sequence[int] = (), memory: int = 768) -> None:
        self._image = image()
        self._disks = disks
        self._paths = paths
        self._memory = memory
        self._directory = Path()
        self._qemu: subprocess.Popen[bytes] | None = None
        self._port: socket.socket | None = None
        self._number = 0

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="tsm-worker-machine-"))
        try:
            self._make_disks()
            self.boot()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def boot(self) -> None:
        """Switch it on; return once it takes commands."""
        assert self._qemu is None, "the machine is on"
        address = str(self._directory / "port")
        Path(address).unlink(missing_ok=True)
        with self._console.open("ab") as console:
            # However this process ends, the kernel takes the machine with it.
            self._qemu = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._command(address)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        self._port = wait_until(lambda: self._connected(address), 30, "qemu to start")
        self._number = 0
        self._answer(time.monotonic() + BOOT_SECONDS, "the machine to boot")

    def power_cut(self) -> None:
        """Pull the plug: what it has not yet told its disks to keep is lost."""
        if self._port is not None:
            self._port.close()
            self._port = None
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait()
            self._qemu = None

    def run(self, command: str, timeout: float = 60, *, stdin: bytes = b"") -> Done:
        """Run `command` by its shell; return how it ended, within `timeout` seconds or a few more.

        What goes on behind it (`setsid program … &`) outlives it.
        """
        assert self._port is not None, "the machine is off"
        self._number += 1
        script = command.encode()
        head = f"{self._number} {timeout:g} {len(script)} {len(stdin)}\n".encode()
        # The agent itself ends the command; only a machine that hangs makes this side wait for longer.
        deadline = time.monotonic() + timeout + 30
        self._port.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            self._port.sendall(head + script + stdin)
        except OSError as error:
            self._fail(f"it takes no command ({error}): {command}")
        return self._answer(deadline, command)

    def say(self, command: str, timeout: float = 60, *, stdin: bytes = b"") -> str:
        """Run `command`; return what it says on stdout, fail the test where it fails."""
        done = self.run(command, timeout, stdin=stdin)
        assert done.code == 0, f"in the machine, {done.errors or done.output}\n`{command}` ended {done.code}"
        return done.output

    def push(self, path: Path, to: str) -> None:
        """Put the file or folder `path` into the machine as `to`."""
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            archive.add(path, to.lstrip("/"))
        self.say("tar --extract --directory /", stdin=content.getvalue())

    def write(self, path: str, content: str) -> None:
        """Write the file `path` in the machine; its folder is made where it is missing."""
        self.say(
            f"mkdir -p {shlex.quote(os.path.dirname(path))} && cat >{shlex.quote(path)} && sync",  # noqa: PTH120
            stdin=content.encode(),
        )

    def console(self) -> str:
        """Return the end of what kernel and qemu said."""
        text = self._console.read_text(errors="replace") if self._console.exists() else ""
        return "\n".join(text.splitlines()[-CONSOLE_LINES:])

    @property
    def _console(self) -> Path:
        return self._directory / "console"

    def _make_disks(self) -> None:
        # What the root gets written stays in a file of this machine's own, over the one that all share.
        backing = ["-b", str(self._image / "root.img"), "-F", "raw"]
        _do("qemu-img", "create", "-q", "-f", "qcow2", *backing, str(self._directory / "root"))
        tree = self._directory / "tree"
        for part in ("worker", "tests"):
            shutil.copytree(REPOSITORY / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        (tree / "init").write_text(INIT)
        (tree / "init").chmod(0o755)
        _do("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(tree), f"{tree}.img", "64M")
        for index, megabytes in enumerate((*self._disks, *self._paths)):
            with (self._directory / f"disk{index}").open("wb") as file:
                file.truncate(megabytes << 20)

    def _command(self, address: str) -> list[str]:
        directory = self._directory
        drives = [
            f"file={directory}/root,format=qcow2,if=virtio",
            f"file={directory}/tree.img,format=raw,if=virtio,readonly=on",
            *(f"file={directory}/disk{index},format=raw,if=virtio" for index in range(len(self._disks))),
        ]
        return [
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
            *("-m", str(self._memory), "-display", "none", "-monitor", "none", "-no-reboot"),
            *("-nodefaults", "-no-user-config", "-serial", "stdio"),
            *("-kernel", str(self._image / "kernel"), "-initrd", str(self._image / "initrd")),
            *("-append", "console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off"),
            *(word for drive in drives for word in ("-drive", drive)),
            *self._path_arguments(),
            *(
                "-device",
                "virtio-serial-pci",
                "-chardev",
                f"socket,id=agent,path={address},server=on,wait=off",
            ),
            *("-device", "virtserialport,chardev=agent,name=agent"),
            *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="),
        ]

    def _path_arguments(self) -> Iterator[str]:
        if self._paths:
            yield from ("-device", "virtio-scsi-pci")
        for index in range(len(self._paths)):
            # Two drives on one file that tell the same name; the locks are what would forbid that.
            file = self._directory / f"disk{len(self._disks) + index}"
            for path in "ab":
                name = f"path{index}{path}"
                yield from ("-drive", f"file={file},format=raw,if=none,id={name},file.locking=off,cache=none")
                yield from (
                    "-device",
                    f"scsi-hd,drive={name},wwn={0x5000C50000000000 + index:#x},serial=disk{index}",
                )

    def _connected(self, address: str) -> socket.socket | None:
        if self._qemu is None or self._qemu.poll() is not None:
            self._fail("qemu has ended")
        port = socket.socket(socket.AF_UNIX)
        try:
            port.connect(address)
        except OSError:
            port.close()
            return None
        return port

    def _answer(self, deadline: float, what: str) -> Done:
        """Return the agent's answer to the latest command; fail the test when there is none by `deadline`."""
        head = b""
        while not head.endswith(b"\n"):
            head += self._read(1, deadline, what)
        number, code, output, errors = (int(word) for word in head.split())
        assert number == self._number, f"the agent answers {number} when asked {self._number}: {what}"
        said, complained = (self._read(size, deadline, what) for size in (output, errors))
        return Done(code, said.decode(errors="replace"), complained.decode(errors="replace"))

    def _read(self, size: int, deadline: float, what: str) -> bytes:
        assert self._port is not None
        content = b""
        while len(content) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                self._fail(f"no answer in time: {what}")
            self._port.settimeout(left)
            try:
                part = self._port.recv(size - len(content))
            except TimeoutError:
                continue
            except OSError as error:
                self._fail(f"no answer ({error}): {what}")
            if not part:
                self._fail(f"it has ended: {what}")
            content += part
        return content

    def _fail(self, what: str) -> NoReturn:
        pytest.fail(f"the virtual machine: {what}\nIts console ends with:\n{self.console()}")

    def _remove(self) -> None:
        self.power_cut()
        shutil.rmtree(self._directory, ignore_errors=True)


def image() -> Path:
    """Return the folder with what deploy/machine.sh made of the tree as it stands; skip the test without it."""
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        lacks(f"the virtual machine needs {', '.join(missing)}: run sh deploy/machine.sh")
    cache = Path(os.environ.get("TSM_WORKER_CACHE", "/var/cache/tsm-worker"), "machine")
    pinned = (REPOSITORY / "deploy/requirements.lock").read_bytes().partition(b"# The tests need on top:")[0]
    key = hashlib.sha256((REPOSITORY / "deploy/machine.sh").read_bytes() + pinned).hexdigest()[:16]
    if not (cache / key).is_dir():
        lacks(f"the virtual machine {cache / key} is not made yet: run sh deploy/machine.sh")
    return cache / key


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)} ended {done.returncode}: {done.stderr}"
