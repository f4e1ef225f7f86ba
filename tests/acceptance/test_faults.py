"""Nothing lost, nothing run twice: a worker killed at each point, and what can go wrong around one."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import Vhost, lacks, wait_until
from faults import POINTS, Proxy, full_disk, mount_small, unmount
from hosts import Host, MakeHost, Requester, elapsed, group_is_gone, request

from worker.broker import topology

pytestmark = pytest.mark.long


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_killed_anywhere_runs_once_and_answers(
    host: Host, scheduler: Requester, tmp_path: Path, point: str
) -> None:
    killed = tmp_path / "killed"
    host.extra = {"TSM_TEST_KILL_AT": point, "TSM_TEST_KILLED": str(killed)}
    host.start()
    asked = scheduler.ask(request("/dev/stand-in/a"))
    assert host.worker is not None
    assert host.worker.wait(20) == -signal.SIGKILL
    assert killed.exists()
    host.start()
    answer = scheduler.answer()
    assert answer.headers["tsm-request-id"] == asked
    assert answer.headers["tsm-outcome"] == "completed"
    assert host.stop() == 0
    assert [run["exit"] for run in host.runs()] == [0]
    while not scheduler.silent():
        again = scheduler.answer()
        assert (again.properties.message_id, again.body) == (answer.properties.message_id, answer.body)


def test_a_killed_dsmc_is_a_failure_that_is_told(host: Host, scheduler: Requester) -> None:
    host.plan({"seconds": 30})
    host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    wait_until(host.runs, what="the run")
    os.kill(host.runs()[0]["pid"], signal.SIGKILL)
    answer = scheduler.answer()
    assert answer.error == "dsmc-failed"
    assert answer.text("commands-output/command-output/metadata/exit-code") == str(128 + signal.SIGKILL)


def test_a_killed_supervisor_leaves_its_dsmc_to_the_worker(host: Host, scheduler: Requester) -> None:
    host.plan({"seconds": 4, "messages": ["ANS1809W"]})
    host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    wait_until(host.runs, what="the run")
    (started,) = host.state.glob("runs/*/*/started")
    os.kill(int(started.read_text().split()[1]), signal.SIGKILL)
    answer = scheduler.answer()
    assert (answer.headers["tsm-outcome"], answer.headers["tsm-attempts"]) == ("completed-with-warnings", 1)
    assert int(answer.text("commands-output/command-output/metadata/execution-milliseconds") or 0) >= 4_000
    assert [run["exit"] for run in host.runs()] == [8]


def test_a_run_whose_worker_and_supervisor_are_killed_is_tried_again_and_never_two_at_once(
    make_host: MakeHost, vhost: Vhost, scheduler: Requester
) -> None:
    host = make_host(vhost.url, retry={"first_delay": "100ms"})
    host.plan(a=[{"seconds": 30}, {}])
    host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    wait_until(host.runs, what="the run")
    host.stop(signal.SIGKILL)
    (started,) = host.state.glob("runs/*/*/started")
    os.kill(int(started.read_text().split()[1]), signal.SIGKILL)
    host.start()
    answer = scheduler.answer()
    assert (answer.headers["tsm-outcome"], answer.headers["tsm-attempts"]) == ("completed", 2)
    assert [run["exit"] for run in host.runs()] == [None, 0]


@pytest.mark.parametrize("how", ["cut", "swallowed"])
def test_a_network_that_fails_under_a_run_loses_nothing(
    make_host: MakeHost, vhost: Vhost, scheduler: Requester, how: str
) -> None:
    port = int(re.search(r":(\d+)/", vhost.url)[1])  # type: ignore[index]
    with Proxy(port) as proxy:
        host = make_host(vhost.url.replace(f":{port}/", f":{proxy.port}/"), broker={"heartbeat": 2})
        host.plan({"seconds": 3})
        host.start()
        scheduler.ask(request("/dev/stand-in/a"))
        wait_until(host.runs, what="the run")
        if how == "cut":
            proxy.cut()
        else:
            proxy.swallow = True
        wait_until(lambda: host.said("connection lost"), 30, "the loss to be noticed")
        wait_until(lambda: host.said("job finished"), what="the end of the job")
        proxy.swallow = False
        proxy.cut()
        assert scheduler.answer(90).headers["tsm-outcome"] == "completed"
        assert len(host.runs()) == 1


def test_a_connection_closed_by_the_broker_is_opened_again(
    host: Host, scheduler: Requester, vhost: Vhost
) -> None:
    host.plan({"seconds": 4})
    host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    wait_until(host.runs, what="the run")

    def close() -> bool:
        mine = [
            c
            for c in vhost.management("GET", f"vhosts/{vhost.name}/connections")
            if c.get("client_properties", {}).get("product") == "tsm-worker"
        ]
        for connection in mine:
            vhost.management(
                "DELETE", f"connections/{connection['name'].replace(' ', '%20').replace('>', '%3E')}"
            )
        return bool(mine)

    wait_until(close, what="a connection to close")
    wait_until(lambda: host.said("broker connected") == 2, 30, "the new connection")
    assert scheduler.answer().headers["tsm-outcome"] == "completed"
    assert len(host.runs()) == 1


def test_a_reply_queue_deleted_under_the_run_leaves_the_answer_in_the_common_queue(
    host: Host, scheduler: Requester
) -> None:
    host.plan({"seconds": 2})
    host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    wait_until(host.runs, what="the run")
    scheduler.channel.queue_delete(scheduler.queue)
    answer = scheduler.answer(queue=topology.RESPONSES_QUEUE)
    assert answer.headers["tsm-undeliverable-to"] == scheduler.queue


@pytest.fixture
def small_disk(make_host: MakeHost, vhost: Vhost) -> Iterator[Host]:
    """Give a host whose state directory is a file system of sixteen megabytes."""
    if os.geteuid() != 0:
        lacks("mounting a small file system needs root")
    host = make_host(vhost.url)
    mount_small(host.state, "16m")
    yield host
    unmount(host.state)


def test_a_full_disk_leaves_requests_on_the_broker_and_recovers_by_itself(
    small_disk: Host, scheduler: Requester, vhost: Vhost
) -> None:
    small_disk.start()
    filler = full_disk(small_disk.state)
    big = request("/dev/stand-in/a") + b"<!--" + b"x" * 800_000 + b"-->"  # more than old pages have room for
    scheduler.ask(big)
    wait_until(lambda: small_disk.said("request left on the broker"), 30, "a word about the disk")
    wait_until(lambda: vhost.queue("tsm.host.web01") == (1, 0), 20, "the request to be ready on the broker")
    assert small_disk.runs() == []
    filler.unlink()
    assert scheduler.answer(60).headers["tsm-outcome"] == "completed"
    assert len(small_disk.runs()) == 1
    assert small_disk.said("request left on the broker") == 1


def test_a_disk_that_fills_up_under_a_run_delays_the_answer_and_no_more(
    small_disk: Host, scheduler: Requester
) -> None:
    small_disk.plan({"hang": True})
    small_disk.start()
    scheduler.ask(request("/dev/stand-in/a", timeout=5))
    wait_until(small_disk.runs, what="the run")
    filler = full_disk(small_disk.state)
    wait_until(lambda: not group(small_disk), 30, "the end of the run")
    filler.unlink()
    assert scheduler.answer(60).error == "timed-out"
    assert len(small_disk.runs()) == 1


def group(host: Host) -> bool:
    """Whether the first run's processes live."""
    (started,) = host.state.glob("runs/*/*/started")
    return not group_is_gone(int(started.read_text().split()[1]))


def test_a_daemon_killed_in_a_long_run_answers_once_with_the_true_time(
    host: Host, scheduler: Requester
) -> None:
    host.plan({"seconds": 8})
    host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    started = time.monotonic()
    wait_until(host.runs, what="the run")
    wait_until(lambda: elapsed(started) > 4, what="the middle of the run")
    host.stop(signal.SIGKILL)
    host.start()
    answer = scheduler.answer()
    took = int(answer.text("commands-output/command-output/metadata/execution-milliseconds") or 0)
    assert 8_000 <= took < 9_500
    assert len(host.runs()) == 1
    assert scheduler.silent()


def test_the_remaining_time_limit_is_enforced_by_the_next_worker(host: Host, scheduler: Requester) -> None:
    host.plan({"hang": True})
    host.start()
    started = time.monotonic()
    scheduler.ask(request("/dev/stand-in/a", timeout=6))
    wait_until(host.runs, what="the run")
    host.stop(signal.SIGKILL)
    host.start()
    assert scheduler.answer().error == "timed-out"
    assert 5.5 < elapsed(started) < 9


def test_a_damaged_journal_is_an_error_and_the_request_stays_on_the_broker(
    host: Host, scheduler: Requester, vhost: Vhost
) -> None:
    host.start()
    host.stop()
    for file in host.state.glob("journal.sqlite*"):
        file.write_bytes(b"not a database" * 1000)
    scheduler.ask(request("/dev/stand-in/a"))
    worker = host.start(wait=False)
    assert worker.wait(20) != 0
    assert "journal" in host.log()
    wait_until(lambda: vhost.queue("tsm.host.web01").ready == 1, what="the request to be on the broker")
    for file in host.state.glob("journal.sqlite*"):
        file.unlink()
    host.start()
    assert scheduler.answer().headers["tsm-outcome"] == "completed"


def test_a_read_only_state_directory_is_an_error_that_names_it(
    make_host: MakeHost, vhost: Vhost, tmp_path: Path
) -> None:
    host = make_host(vhost.url, top={"state_dir": "/proc/nowhere"})
    worker = host.start(wait=False)
    assert worker.wait(20) == 1
    assert "/proc/nowhere" in host.log()


def test_waiting_requests_run_in_the_order_they_came(host: Host, scheduler: Requester) -> None:
    host.plan({"seconds": 0}, first={"seconds": 4})
    host.start()
    names = ["first", *(f"n{number}" for number in range(8))]
    for name in names:
        scheduler.ask(request(f"/dev/stand-in/{name}"))
    for _ in names:
        scheduler.answer()
    assert [run["volume"].rpartition("/")[2] for run in host.runs()] == names
