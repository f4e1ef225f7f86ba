"""Fifty real workers on one machine: all answer; with five of them stopped, these are outstanding until they start."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from brokers import Vhost, wait_until
from hosts import REPOSITORY, Host, MakeHost

pytestmark = pytest.mark.slow

NAMES = [f"web{number:02d}" for number in range(50)]
PATIENCE = 300  # seconds


@pytest.fixture
def fifty(make_host: MakeHost, vhost: Vhost) -> list[Host]:
    """Start fifty hosts."""
    hosts = [make_host(vhost.url, name) for name in NAMES]
    for host in hosts:
        host.start(wait=False)
    wait_until(lambda: all(host.said("broker connected") for host in hosts), PATIENCE, "fifty hosts")
    return hosts


def test_fifty_workers_answer_and_five_that_were_stopped_answer_later(
    fifty: list[Host], vhost: Vhost
) -> None:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TSM_WORKER_BROKER_URL": vhost.url},
            check=False,
        )

    volume = ("--volume", "/dev/stand-in/a")
    result = run("submit", *volume, "--all", "--wait", "--expect", "50", "--json")
    assert result.returncode == 0, result.stderr
    assert sorted(json.loads(line)["host"] for line in result.stdout.splitlines()) == NAMES
    assert ": 50 completed" in result.stderr

    stopped = fifty[10:15]
    with ThreadPoolExecutor() as pool:
        assert set(pool.map(Host.stop, stopped)) == {0}
    by_name = [word for name in NAMES for word in ("--host", name)]
    result = run("submit", *volume, *by_name, "--batch", "second", "--wait", "--wait-timeout", "30s")
    assert result.returncode == 1
    assert "45 completed, 5 outstanding" in result.stderr
    assert "outstanding: web10, web11, web12, web13, web14" in result.stderr

    for host in stopped:
        host.start(wait=False)
    result = run("collect", "second", "--timeout", "120s", "--json")
    assert result.returncode == 0, result.stderr
    assert sorted(json.loads(line)["host"] for line in result.stdout.splitlines()) == NAMES[10:15]
    assert {len(host.runs()) for host in fifty} == {2}
