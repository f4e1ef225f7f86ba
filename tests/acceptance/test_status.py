"""`tsm-worker status`: what the worker of a host is at, asked beside it and after it."""

import json
import sqlite3
import subprocess
import sys
from typing import Any

import pytest
from brokers import PrivateBroker, Vhost, wait_until
from hosts import Host, MakeHost, Requester, request


def ask(host: Host, *arguments: str) -> tuple[int, str, str]:
    """Run the command on a host; return exit code, output and talk."""
    done = subprocess.run(
        [sys.executable, "-m", "worker", "status", *arguments],
        env=host.environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def status(host: Host, *arguments: str) -> tuple[int, dict[str, Any]]:
    code, out, _talk = ask(host, "--json", *arguments)
    return code, json.loads(out)


def test_an_idle_worker_is_fine(host: Host) -> None:
    host.start()
    wait_until(lambda: status(host)[1]["outbox"] == 0, 30, "an empty outbox")
    code, told = status(host)
    assert code == 0
    assert told == {
        "host": "web01",
        "running": True,
        "jobs": [],
        "outbox": 0,
        "outbox_since": None,
        "broker": "reachable",
        "problems": [],
    }


def test_a_job_is_told_while_it_runs_and_after(host: Host, scheduler: Requester) -> None:
    host.plan(slow={"hang": True})
    host.start()
    asked = scheduler.ask(request("/dev/stand-in/slow", timeout=8))
    wait_until(
        lambda: status(host)[1]["jobs"] and status(host)[1]["jobs"][0]["state"] == "running", what="the run"
    )
    code, told = status(host)
    (job,) = told["jobs"]
    assert code == 0
    assert (job["request_id"], job["state"], job["outcome"], job["attempts"]) == (asked, "running", None, 1)
    assert (job["time_limit"], job["started_at"] >= job["accepted_at"]) == (8, True)
    assert "of 8 s" in ask(host)[1]
    scheduler.answer(30)
    wait_until(lambda: status(host)[1]["jobs"][0]["state"] == "answered", what="the answer to be noted")
    code, told = status(host)
    (job,) = told["jobs"]
    assert (code, job["outcome"], job["error_code"]) == (0, "timed-out", "timed-out")
    assert "timed-out" in ask(host)[1]


def test_a_wait_for_another_try_is_told_with_its_time(
    make_host: MakeHost, vhost: Vhost, scheduler: Requester
) -> None:
    host = make_host(vhost.url, retry={"attempts": 2, "first_delay": "1h", "max_delay": "1h"})
    host.plan(a={"messages": ["ANS1017E"]})
    host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    wait_until(lambda: host.said("job waits for another try"), what="the wait")
    code, told = status(host)
    (job,) = told["jobs"]
    assert (code, job["state"], job["attempts"]) == (0, "waiting", 1)
    assert job["next_try_at"] > job["accepted_at"] + 1000
    assert "attempt 2 in" in ask(host)[1]


def test_it_is_asked_again_and_again_without_disturbing_the_work(host: Host, scheduler: Requester) -> None:
    host.start()
    for number in range(30):
        scheduler.ask(request(f"/dev/stand-in/{number}"))
        if number % 3 == 0:
            assert status(host)[0] == 0
    assert {scheduler.answer(60).headers["tsm-outcome"] for _ in range(30)} == {"completed"}
    assert len(status(host, "--last", "100")[1]["jobs"]) == 30
    assert len(status(host, "--last", "5")[1]["jobs"]) == 5
    assert host.said("journal not written") == 0


def test_a_worker_that_does_not_run_is_a_failure_and_its_journal_is_told_all_the_same(
    host: Host, scheduler: Requester
) -> None:
    assert status(host)[0] == 1
    host.start()
    asked = scheduler.ask(request("/dev/stand-in/a"))
    scheduler.answer()
    host.stop()
    code, told = status(host)
    assert (code, told["running"], [job["request_id"] for job in told["jobs"]]) == (1, False, [asked])
    code, out, talk = ask(host)
    assert (code, "worker does not run" in out, "systemctl start tsm-worker" in talk) == (1, True, True)
    host.start()  # status holds on to nothing


def test_a_broker_out_of_reach_and_then_an_outbox_that_is_stuck(
    private_broker: PrivateBroker, make_host: MakeHost
) -> None:
    broker = private_broker()
    host = make_host(broker.url)
    host.plan({"seconds": 3})
    host.start()
    scheduler = Requester(broker.url)
    scheduler.ask(request("/dev/stand-in/a"))
    wait_until(lambda: host.said("dsmc started"), what="the run")
    scheduler.close()
    broker.stop()
    wait_until(lambda: host.said("job finished"), 30, "the end of the run")
    code, told = status(host)
    assert (code, told["broker"], told["outbox"] > 0) == (75, "unreachable", True)
    with sqlite3.connect(host.state / "journal.sqlite") as journal:  # as if that had been an hour ago
        journal.execute("UPDATE job SET finished_at = finished_at - 3600")
    journal.close()
    code, told = status(host)
    assert code == 1
    assert any("in the outbox for 60 min" in problem for problem in told["problems"])


def test_without_an_address_nothing_is_known_of_the_broker(host: Host) -> None:
    host.config_file.write_text(f'host = "web01"\nstate_dir = "{host.state}"\n')
    code, told = status(host)
    assert (code, told["broker"]) == (1, "unknown")


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b""])
def test_a_journal_that_cannot_be_read_is_a_failure_with_its_remedy(host: Host, damage: bytes) -> None:
    host.state.mkdir()
    (host.state / "journal.sqlite").write_bytes(damage)
    code, out, talk = ask(host)
    assert (code, out) == (1, "")
    assert "journal.sqlite" in talk
