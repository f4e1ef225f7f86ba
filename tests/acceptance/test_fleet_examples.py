"""The examples in deploy/ and in the documents, run as they stand."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from brokers import Vhost, lacks, wait_until
from hosts import REPOSITORY, Host, MakeHost, request

from worker import fleet

pytestmark = pytest.mark.slow

EXAMPLES = REPOSITORY / "deploy" / "examples"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(vhost: Vhost) -> Run:
    """Give a function that runs a command to its end, on the test's vhost."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("TSM_WORKER_")}
    environment = {
        **ours,
        "PYTHONPATH": str(REPOSITORY),
        "TSM_WORKER": f"{sys.executable} -m worker",
        "TSM_WORKER_BROKER_URL": vhost.url,
    }

    def run(*command: object, **extra: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            timeout=180,
            env={**environment, **extra},
            check=False,
        )

    return run


@pytest.fixture
def hosts(make_host: MakeHost, vhost: Vhost) -> dict[str, Host]:
    """Start three hosts; db01's first run fails, its later ones do not."""
    hosts = {name: make_host(vhost.url, name) for name in ("web01", "web02", "db01")}
    hosts["db01"].plan(a=[{"messages": ["ANS1063E"]}, {}])
    for host in hosts.values():
        host.start(wait=False)
    wait_until(lambda: all(host.said("broker connected") for host in hosts.values()), 60, "the hosts")
    return hosts


def test_the_nightly_fan_out_makes_a_report_and_may_be_run_again(
    hosts: dict[str, Host], run: Run, tmp_path: Path
) -> None:
    (tmp_path / "request.xml").write_bytes(request("/dev/stand-in/a"))
    (tmp_path / "hosts.txt").write_text("\n".join(hosts))
    command = [
        EXAMPLES / "nightly.sh",
        tmp_path / "request.xml",
        tmp_path / "hosts.txt",
        tmp_path / "reports",
    ]
    for _ in range(2):
        result = run(*command)
        assert result.returncode == 1, result.stderr
        assert "NOT GOOD (exit code 1)" in result.stdout
        assert ": 2 completed, 1 failed" in result.stdout
        assert "failed: db01" in result.stdout
    (reports,) = (tmp_path / "reports").iterdir()
    assert (reports / "report.txt").read_text() == result.stdout
    assert {file.name for file in reports.glob("*.xml")} == {f"{name}.xml" for name in hosts}
    assert len((reports / "answers.ndjson").read_text().splitlines()) == 6
    assert [len(host.runs()) for host in hosts.values()] == [1, 1, 1]


def test_the_nightly_fan_out_says_that_there_is_no_broker(run: Run, tmp_path: Path) -> None:
    (tmp_path / "request.xml").write_bytes(request("/dev/stand-in/a"))
    (tmp_path / "hosts.txt").write_text("web01\n")
    result = run(
        EXAMPLES / "nightly.sh", tmp_path / "request.xml", tmp_path / "hosts.txt", tmp_path,
        TSM_WORKER_BROKER_URL="amqp://guest:guest@127.0.0.1:9/",
    )  # fmt: skip
    assert result.returncode == 75
    assert "out of reach" in result.stdout


def test_the_small_scheduler_asks_again_who_failed(hosts: dict[str, Host], run: Run) -> None:
    result = run(sys.executable, EXAMPLES / "scheduler.py", "/dev/stand-in/a", 2, *hosts)
    assert result.returncode == 0, result.stderr
    assert "once more: db01" in result.stdout
    assert [len(host.runs()) for host in hosts.values()] == [1, 1, 2]


def test_the_loop_stops_at_the_first_failure(hosts: dict[str, Host], run: Run) -> None:
    result = run(EXAMPLES / "one-by-one.sh", "/dev/stand-in/a", "web01", "db01", "web02")
    assert result.returncode == 1
    assert [len(hosts[name].runs()) for name in ("web01", "db01", "web02")] == [1, 1, 0]


def test_the_units_are_sound(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        lacks("systemd-analyze is missing: apt-get install systemd")
    for unit in ("tsm-nightly.service", "tsm-nightly.timer"):
        text = (EXAMPLES / unit).read_text().replace("/usr/local/bin/tsm-nightly", "/bin/true")
        (tmp_path / unit).write_text(text)
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "tsm-nightly" not in result.stderr
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("document", ["docs/fleet.md", "worker/fleet/__init__.py"])
def test_the_example_in_the_documents_runs(
    hosts: dict[str, Host], vhost: Vhost, document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (REPOSITORY / document).read_text()
    if document.endswith(".py"):
        code = "\n".join(line[4:] for line in (fleet.__doc__ or "").splitlines() if line.startswith("    "))
    else:
        code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    code = re.sub(r"amqps://[^\"]*", vhost.url, code)
    code = re.sub(r"\"/dev/sdb1\"(, \"/home\")?", '"/dev/stand-in/b"', code)
    exec(compile(code, document, "exec"), {})  # noqa: S102 -- our own document
    told = capsys.readouterr().out
    assert sorted(re.findall(r"^(\w+) completed", told, re.MULTILINE)) == ["db01", "web01"]


def test_every_example_is_in_the_documents() -> None:
    text = (REPOSITORY / "docs" / "fleet.md").read_text()
    named = set(re.findall(r"\(\.\./deploy/examples/([^)]+)\)", text))
    assert named == {file.name for file in EXAMPLES.iterdir()}
