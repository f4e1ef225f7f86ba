"""`tsm-worker demo`, run as a user runs it, leaves five answers and nothing else."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from brokers import wait_until
from lxml import etree

from worker.demo.show import SAMPLE

FIXTURES = Path(__file__).parents[1] / "fixtures"
DEADLINE = 120.0  # seconds; only a failing test waits so long
OUTCOMES = {
    "/dev/sdb1": ("web01", "completed", 1, None),
    "/dev/vg0/data": ("db01", "completed", 1, None),
    "e:": ("win01", "completed", 1, None),
    "/gpfs/fs1": ("db01", "refused", 0, "volume-not-eligible"),
    "/dev/sdb2": ("web01", "timed-out", 1, "timed-out"),
}

Demo = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def demo(tmp_path: Path, broker_kind: str) -> Iterator[Demo]:
    """Return a function (options) that starts the demo, with `tmp_path / "tmp"` for all its temporary files."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> subprocess.Popen[str]:
        ours = {
            "TMPDIR": str(temporary),
            "TSM_WORKER_TEST_BROKER": broker_kind,
            "TSM_WORKER_BROKER_URL": "amqp://nobody@not-the-demo.invalid/",
        }
        with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker", "demo", *options],
                stdout=out,
                stderr=err,
                env={**os.environ, **ours},
                cwd=Path(__file__).parents[2],
                text=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.wait(DEADLINE)


def _strays(folder: Path) -> list[psutil.Process]:
    """Return the processes that have to do with a folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(folder) in text for text in [*process.cmdline(), *process.environ().values()]):
                found.append(process)
    return found


def _assert_nothing_is_left(tmp_path: Path) -> None:
    assert list((tmp_path / "tmp").iterdir()) == []
    wait_until(lambda: not _strays(tmp_path / "tmp"), what="the last killed processes to be gone")
    for port in re.findall(r"127\.0\.0\.1:(\d+)", (tmp_path / "err").read_text()):
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", int(port))) != 0


def _volume(response: etree._Element) -> str:
    """Return the one volume that a response of the demo is about."""
    refused = response.find("metadata/volume")
    if refused is not None:
        return str(refused.get("name"))
    return response.findtext(".//command", "").split()[-1]


def _elements(root: etree._Element) -> list[tuple[str, dict[str, str], str]]:
    return [
        (
            str(element.tag),
            {str(name): str(value) for name, value in element.attrib.items()},
            "" if element.tag == "execution-milliseconds" else " ".join((element.text or "").split()),
        )
        for element in root.iter()
    ]


def test_five_requests_end_as_they_should_and_nothing_is_left(demo: Demo, tmp_path: Path) -> None:
    process = demo("--json")
    assert process.wait(DEADLINE) == 0, (tmp_path / "err").read_text()

    answers: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    responses = {_volume(root): root for root in (etree.fromstring(each["response"]) for each in answers)}
    assert {
        _volume(root): (each["host"], each["outcome"], each["attempts"], root.findtext("metadata/error/code"))
        for each, root in zip(answers, responses.values(), strict=True)
    } == OUTCOMES
    assert len({each["request_id"] for each in answers}) == len(OUTCOMES)

    assert _elements(responses["e:"]) == _elements(
        etree.parse(FIXTURES / "backup-image-response.xml").getroot()
    )
    assert "GPFS" in responses["/gpfs/fs1"].findtext("metadata/error/message", "")
    timed_out = responses["/dev/sdb2"]
    assert timed_out.findtext(".//exit-code") == "9999"
    assert "Image backup of volume '/dev/sdb2'" in [line.text for line in timed_out.iter("line")]
    _assert_nothing_is_left(tmp_path)


def test_an_interrupted_demo_leaves_nothing_either(demo: Demo, tmp_path: Path) -> None:
    process = demo()
    wait_until(
        lambda: "/dev/sdb1 completed" in (tmp_path / "out").read_text() or process.poll() is not None,
        DEADLINE,
        "the first answer",
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 1
    assert "Traceback" not in (tmp_path / "err").read_text()
    _assert_nothing_is_left(tmp_path)


def test_the_demo_sends_the_sample_request_as_it_stands() -> None:
    assert SAMPLE.read_bytes() == (FIXTURES / "backup-image-request.xml").read_bytes()
