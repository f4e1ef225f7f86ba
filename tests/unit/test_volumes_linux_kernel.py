"""The edge to the kernel and to blkid: real files, links and processes, and what becomes of their errors."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from brokers import lacks, wait_until

from worker.volumes.kernel import Kernel, KernelError, Kind, Node, read_export

FIRST = "/dev/sda1"


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """Give a host whose files are those in the test's own folder, with something at FIRST to read."""
    (tmp_path / "dev").mkdir()
    (tmp_path / FIRST[1:]).write_bytes(bytes(1 << 16))
    return Kernel(tmp_path, probe_timeout=30)


@pytest.fixture
def as_blkid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that puts a script in blkid's place."""

    def put(script: str) -> None:
        command = tmp_path / "bin/blkid"
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")

    return put


def test_files_that_are_not_there_are_empty_and_so_are_folders_and_links(kernel: Kernel) -> None:
    assert kernel.text("/sys/no") == ""
    assert kernel.text(f"{FIRST}/no") == ""
    assert kernel.names("/sys/no") == []
    assert kernel.names(FIRST) == []
    assert kernel.link("/sys/no") == ""


def test_errors_of_the_kernel_name_the_path_and_the_remedy(kernel: Kernel) -> None:
    with pytest.raises(KernelError, match=r"^/dev: is a directory; see dmesg$"):
        kernel.text("/dev")
    with pytest.raises(KernelError, match=r"^/dev/sda1: invalid argument; see dmesg$"):
        kernel.link(FIRST)
    for ask in (kernel.node, kernel.names):
        with pytest.raises(KernelError, match="file name too long"):
            ask("/" + "x" * 300)


def test_a_node_is_what_stands_at_a_path_itself(kernel: Kernel, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("../dev")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    assert kernel.node("/pipe") == Node(Kind.FIFO)
    assert kernel.node("/socket") == Node(Kind.SOCKET)
    assert kernel.node("/link") == Node(Kind.LINK, target="../dev")
    assert kernel.node("/dev") == Node(Kind.DIRECTORY)
    assert kernel.node(FIRST) == Node(Kind.FILE)
    assert kernel.node(f"{FIRST}/x") == Node(Kind.MISSING)
    assert Kernel().node("/dev/null") == Node(Kind.CHARACTER)


@pytest.mark.skipif(
    not Path("/dev/loop0").exists(), reason="this kernel has no block device to look at: /dev/loop0"
)
def test_a_block_device_has_its_number() -> None:
    number = os.stat("/dev/loop0").st_rdev  # noqa: PTH116 -- of the device, not of a file
    assert Kernel().node("/dev/loop0") == Node(Kind.BLOCK, f"{os.major(number)}:{os.minor(number)}")


def test_a_probe_reads_what_is_there_and_finds_nothing_where_nothing_is(
    kernel: Kernel, tmp_path: Path
) -> None:
    assert set(kernel.probe(FIRST)) <= {"DEVNAME"}
    (tmp_path / FIRST[1:]).write_bytes(b"LUKS\xba\xbe\x00\x01" + bytes(1 << 16))
    assert kernel.probe(FIRST)["TYPE"] == "crypto_LUKS"


def test_a_probe_of_a_device_that_is_gone_says_so(kernel: Kernel) -> None:
    with pytest.raises(KernelError, match=r"^/dev/sdb1: no such file or directory"):
        kernel.probe("/dev/sdb1")


def test_a_host_without_blkid_says_so(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "no-folder"))
    with pytest.raises(KernelError, match=r"^blkid: no such file or directory; see that it is installed"):
        kernel.probe(FIRST)


def test_a_hung_probe_is_refused_in_time_and_killed_and_collected_later(
    kernel: Kernel, tmp_path: Path, as_blkid: Callable[[str], None]
) -> None:
    del kernel  # it has put something at FIRST
    impatient = Kernel(tmp_path, probe_timeout=2)
    as_blkid(f"echo $$ > {tmp_path}/pid; exec sleep 600")
    with pytest.raises(
        KernelError, match=r"^/dev/sda1 gave no answer to blkid within 2 s; look for a dead path"
    ):
        impatient.probe(FIRST)
    process = Path("/proc", (tmp_path / "pid").read_text().strip())
    as_blkid("echo TYPE=ext4")
    wait_until(
        lambda: impatient.probe(FIRST) == {"TYPE": "ext4"} and not process.exists(), what="the end of blkid"
    )


@pytest.mark.parametrize(
    ("exit_code", "found", "complaint", "words"),
    [
        (8, "", "ambivalent", "carries the signatures of more than one content.*wipefs /dev/sda1"),
        (
            2,
            "",
            "blkid: error: /dev/sda1: Input/output error",
            "cannot be probed: blkid ended 2, .*Input/output error",
        ),
        (4, "", "", "cannot be probed: blkid ended 4, silent"),
        (-9, "", "", "cannot be probed: blkid ended -9, silent"),
    ],
)
def test_what_blkid_cannot_tell_is_an_error(exit_code: int, found: str, complaint: str, words: str) -> None:
    with pytest.raises(KernelError, match=words):
        read_export(FIRST, exit_code, found, complaint)


def test_a_warning_of_blkid_beside_its_answer_is_none(tmp_path: Path) -> None:
    assert read_export(FIRST, 0, "DEVNAME=/dev/sda1\nTYPE=ext4\n\nLABEL=a\\=b\n", "a warning") == {
        "DEVNAME": "/dev/sda1",
        "TYPE": "ext4",
        "LABEL": "a\\=b",
    }


def test_a_folder_that_may_not_be_read_says_that_root_is_needed(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        lacks("becoming nobody needs root")
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(stat.S_IRWXU)
    os.seteuid(65534)
    try:
        for ask in (Kernel().node, Kernel().text, Kernel().link):
            with pytest.raises(KernelError, match="permission denied; run as root"):
                ask(f"{closed}/file")
    finally:
        os.seteuid(0)
