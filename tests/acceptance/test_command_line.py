"""The command line as an administrator uses it: on real loop disks, with a stand-in dsmc."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import disks
import pytest
from brokers import wait_until
from hosts import REPOSITORY, Host, MakeHost, Requester, request
from lxml import etree

from worker.contract import request as contract

FIXTURES = Path(__file__).parents[1] / "fixtures"
RESPONSE_XSD = etree.XMLSchema(file=str(Path(contract.__file__).with_name("response.xsd")))
ONLY_WINDOWS = ("snapshotcachelocation", "snapshotfsidleretries", "snapshotfsidlewait")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Give a host that runs the product's own command line, broker or no broker."""
    host = Host(tmp_path, main=("-m", "worker", "run"))
    host.configure("amqp://nobody.invalid/")
    host.plan({"seconds": 0})
    return host


@pytest.fixture
def partition(tmp_path: Path) -> Iterator[str]:
    """Give a loop partition of type 0x83."""
    disks.needed()
    with disks.loop(disks.mbr(tmp_path / "disk", "83")) as disk:
        yield disk.part(1)


def tsm_worker(host: Host, *words: str, text: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "worker", *words]
    return subprocess.run(
        command,
        input=text,
        env=host.environment,
        cwd=host.directory,
        capture_output=True,
        timeout=60,
        check=False,
    )


def sample_for(volume: str) -> bytes:
    """Return the sample request with `volume` in place of `e:` and only the options Linux knows."""
    tree = etree.fromstring((FIXTURES / "backup-image-request.xml").read_bytes())
    (named,) = tree.iter("volume-list")
    named.text = volume
    for name in ONLY_WINDOWS:
        for options in tree.iter("command-options"):
            options.remove(options.findall(name)[0])
    return etree.tostring(tree)


def shape(element: etree._Element) -> Any:
    """Return the element's tag and its children's shapes, output lines aside."""
    return str(element.tag), [shape(child) for child in element if child.tag != "line"]


def test_the_sample_request_on_a_linux_partition_is_answered_like_the_sample(
    host: Host, partition: str
) -> None:
    done = tsm_worker(host, "exec", "-", text=sample_for(partition))
    assert done.returncode == 0, done.stderr.decode()
    response = etree.fromstring(done.stdout)
    RESPONSE_XSD.assertValid(response)
    assert shape(response) == shape(etree.fromstring((FIXTURES / "backup-image-response.xml").read_bytes()))
    expected = "dsmc backup image -compressalways=no -compression=yes -imagegapsize=10k -mode=Selective"
    command = response.findtext("commands-output/command-output/metadata/command")
    assert command == f"{expected} -snapshotcachesize=10 {partition}"


def test_the_sample_request_as_it_stands_is_for_windows_alone(host: Host) -> None:
    done = tsm_worker(host, "exec", str(FIXTURES / "backup-image-request.xml"))
    assert done.returncode == 1
    assert etree.fromstring(done.stdout).findtext("metadata/error/code") == "option-not-allowed"
    assert host.runs() == []


def test_a_failed_backup_ends_with_one_and_its_response(host: Host, partition: str) -> None:
    host.plan({"messages": ["ANS1017E"]})
    (host.directory / "request.xml").write_bytes(sample_for(partition))
    done = tsm_worker(host, "exec", "request.xml")
    assert done.returncode == 1
    assert etree.fromstring(done.stdout).findtext("metadata/error/code") == "dsmc-failed"
    assert len(host.runs()) == 1  # tried here and now, and not again


def test_ctrl_c_ends_dsmc_and_answers_cancelled(host: Host, partition: str) -> None:
    host.plan({"hang": True})
    (host.directory / "request.xml").write_bytes(sample_for(partition))
    with subprocess.Popen(
        [sys.executable, "-m", "worker", "exec", "request.xml"],
        env=host.environment,
        cwd=host.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_until(host.runs, what="the run")
        process.send_signal(signal.SIGINT)
        answer, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert etree.fromstring(answer).findtext("metadata/error/code") == "cancelled"


def test_check_says_of_each_volume_whether_and_why(host: Host, partition: str) -> None:
    disk = partition.removesuffix("p1")
    done = tsm_worker(host, "check", "--json", partition, disk, "/nowhere")
    assert done.returncode == 0
    good, whole, missing = json.loads(done.stdout)
    assert good == {
        "volume": partition,
        "eligible": True,
        "reason": good["reason"],
        "device": partition,
        "file_system": None,
        "partition_type": "0x83",
    }
    assert (whole["eligible"], missing["eligible"]) == (False, False)
    listed = json.loads(tsm_worker(host, "check", "--json").stdout)
    assert partition in [verdict["device"] for verdict in listed]
    table = tsm_worker(host, "check", partition, "/nowhere").stdout.decode()
    assert "yes" in table
    assert "no" in table


def test_the_real_daemon_judges_and_backs_up_a_real_partition(
    make_host: MakeHost, vhost: Any, scheduler: Requester, partition: str
) -> None:
    host = make_host(vhost.url)
    host.main = ("-m", "worker", "run")
    host.start()
    scheduler.ask(sample_for(partition))
    assert scheduler.answer().headers["tsm-outcome"] == "completed"
    scheduler.ask(request(partition.removesuffix("p1")))
    assert scheduler.answer().error == "volume-not-eligible"
    scheduler.ask(request(partition, options="<mode>incremental</mode>"))
    assert scheduler.answer().error == "bad-request"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slots = 'two'\n", ["worker.toml: line 1: slots: "]),
        ("[broker]\nurl = 'amqp://x/'\ncolour = 1\n", ["worker.toml: line 3: broker.colour: unknown key"]),
        ("[broker\n", ["worker.toml", "line 1"]),
        ("", ["broker.url is missing"]),
        ("[broker]\nurl = 'http://x/'\n", ["broker.url", "amqp"]),
        ("[broker]\nurl = 'amqp://x/'\npassword_file = '/nowhere'\n", ["/nowhere"]),
    ],
)
def test_a_mistake_in_the_configuration_is_one_line_and_78(host: Host, text: str, words: list[str]) -> None:
    host.config_file.write_text(f"state_dir = '{host.state}'\n{text}" if text == "" else text)
    done = tsm_worker(host, "run")
    assert done.returncode == 78
    (line,) = done.stderr.decode().splitlines()
    assert all(word in line for word in words), line


def test_a_configuration_that_is_not_there_is_named(host: Host) -> None:
    done = tsm_worker(host, "run", "--config", "/nowhere.toml")
    assert (done.returncode, done.stderr.decode().count("\n")) == (78, 1)
    assert b"/nowhere.toml" in done.stderr


@pytest.mark.parametrize("words", [["nonsense"], ["run", "--nonsense"], ["exec"], ["exec", "/nowhere.xml"]])
def test_a_mistake_on_the_command_line_ends_with_two(host: Host, words: list[str]) -> None:
    done = tsm_worker(host, *words)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_help_and_version_need_no_configuration(host: Host) -> None:
    host.config_file.unlink()
    for words in (["--help"], ["--version"], ["run", "--help"], ["exec", "--help"], ["check", "-h"]):
        done = tsm_worker(host, *words)
        assert (done.returncode, done.stderr) == (0, b"")


def test_the_package_carries_what_it_needs_at_run_time() -> None:
    for name in ("contract/request.xsd", "contract/response.xsd", "dsmc/supervisor.sh"):
        assert (REPOSITORY / "worker" / name).is_file()
