"""What a worker lives through: long runs, stops, a broker that goes away, hostile requests, floods of output."""

import re
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from brokers import Vhost, wait_until
from hostile import HOSTILE
from hosts import Host, MakeHost, Requester, elapsed, group_is_gone, request, requester, resident

from worker.demo.broker import Broker


def connections(broker: Broker) -> list[str]:
    """Return the names of the worker's connections as the broker sees them."""
    found = broker.management("GET", "connections")
    return [c["name"] for c in found if c["client_properties"].get("product") == "tsm-worker"]


@pytest.mark.long
def test_a_run_longer_than_heartbeats_and_ack_time_out_is_answered_once_on_the_same_connection(
    private_broker: Any, make_host: MakeHost
) -> None:
    broker = private_broker(advanced="[{rabbit,[{consumer_timeout,3000},{channel_tick_interval,1000}]}].")
    host = make_host(broker.url, broker={"heartbeat": 3})
    host.plan({"seconds": 0}, long={"seconds": 30})
    host.start()
    with requester(broker.url) as scheduler:
        before = wait_until(lambda: connections(broker), what="the worker's connection")
        scheduler.ask(request("/dev/stand-in/long"))
        for _ in range(5):
            scheduler.ask(request("/dev/stand-in/a"))
        answers = [scheduler.answer(60) for _ in range(6)]
        assert [answer.headers["tsm-outcome"] for answer in answers] == ["completed"] * 6
        assert (
            int(answers[0].text("commands-output/command-output/metadata/execution-milliseconds") or 0)
            >= 30_000
        )
        assert len(host.runs()) == 6
        assert connections(broker) == before
        assert scheduler.silent()
    assert host.said("connection lost") == 0
    assert "timed out" not in broker.log.read_text()


def test_a_time_limit_ends_the_whole_group_and_is_answered_with_the_output_so_far(
    host: Host, scheduler: Requester
) -> None:
    host.plan({"hang": True, "ignore_term": True, "orphan": 600, "lines": 3})
    host.start()
    started = time.monotonic()
    scheduler.ask(request("/dev/stand-in/a", timeout=1))
    wait_until(host.runs, what="the run")
    group = next(host.state.glob("runs/*/*/started"))
    leader = int(group.read_text().split()[1])
    answer = scheduler.answer()
    assert elapsed(started) < 1 + 1 + 2  # the limit, the grace, two seconds
    assert answer.error == "timed-out"
    assert answer.headers["tsm-outcome"] == "timed-out"
    output = answer.xml.find("commands-output/command-output")
    assert output is not None
    assert output.findtext("metadata/exit-code") == "9999"
    assert int(output.findtext("metadata/line-count") or 0) >= 3
    assert len(output.findall("output/line")) == int(output.findtext("metadata/line-count") or 0)
    assert group_is_gone(leader)


def test_a_child_that_keeps_the_output_open_does_not_hold_the_answer(
    host: Host, scheduler: Requester
) -> None:
    host.plan({"orphan": 20})
    host.start()
    started = time.monotonic()
    scheduler.ask(request("/dev/stand-in/a"))
    assert scheduler.answer().headers["tsm-outcome"] == "completed"
    assert elapsed(started) < 5


def test_hostile_requests_are_answered_and_none_reaches_dsmc(host: Host, scheduler: Requester) -> None:
    assert len(HOSTILE) >= 60
    host.start()
    for name, body in HOSTILE.items():
        scheduler.ask(body, correlation_id=name)
        answer = scheduler.answer()
        assert answer.properties.correlation_id == name
        assert answer.text("metadata/status") == "error", name
        assert answer.error in ("bad-request", "option-not-allowed"), name
    assert host.runs() == []
    scheduler.ask(request("/dev/stand-in/a"))
    assert scheduler.answer().headers["tsm-outcome"] == "completed"
    assert host.said("connection lost") == 0


def test_properties_that_are_no_text_do_not_stop_the_consumer(host: Host, scheduler: Requester) -> None:
    host.start()
    scheduler.ask(b"", message_id="x" * 255, correlation_id="\u0000\uffff")
    assert scheduler.answer().error == "bad-request"
    scheduler.ask(
        request("/dev/stand-in/a"), headers={"deep": {"table": [1, None, {"x": b"\xff"}]}}, type="\u202e"
    )
    assert scheduler.answer().headers["tsm-outcome"] == "completed"


@pytest.mark.parametrize(
    "settings", [{}, {"response": {"max_lines": 2_000_000}}], ids=["by-lines", "by-bytes"]
)
def test_a_million_lines_leave_memory_as_it_was_and_keep_to_the_size(
    make_host: MakeHost, vhost: Vhost, scheduler: Requester, settings: dict[str, dict[str, int]]
) -> None:
    host = make_host(vhost.url, **settings)
    worker = host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    scheduler.answer()
    idle, _ = resident(worker.pid)
    host.plan({"lines": 1_000_000, "line_length": 100})
    scheduler.ask(request("/dev/stand-in/a"))
    answer = scheduler.answer(60)
    _, peak = resident(worker.pid)
    assert peak - idle < 30
    assert len(answer.body) <= 8_388_608
    metadata = answer.xml.find("commands-output/command-output/metadata")
    output = answer.xml.find("commands-output/command-output/output")
    assert metadata is not None
    assert output is not None
    count = int(metadata.findtext("line-count") or 0)
    assert count > 1_000_000
    lines = output.findall("line")
    assert len(lines) + int(output.get("omitted") or 0) == count
    assert lines[0].get("index") == "1"
    assert lines[-1].get("index") == str(count)


def test_sigterm_lets_a_short_run_end_and_publishes_its_answer(host: Host, scheduler: Requester) -> None:
    host.plan({"seconds": 2})
    host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    wait_until(host.runs, what="the run")
    assert host.stop() == 0
    assert scheduler.answer(1).headers["tsm-outcome"] == "completed"


@pytest.mark.long
def test_sigterm_takes_nothing_new(host: Host, scheduler: Requester) -> None:
    host.plan({"seconds": 2})
    host.start()
    for _ in range(3):
        scheduler.ask(request("/dev/stand-in/a"))
    wait_until(host.runs, what="the run")
    assert host.stop() == 0
    assert len(host.runs()) == 1
    host.start()
    assert [scheduler.answer().headers["tsm-outcome"] for _ in range(3)] == ["completed"] * 3
    assert len(host.runs()) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_outlives_its_worker_and_the_next_one_answers_for_it(
    make_host: MakeHost, vhost: Vhost, scheduler: Requester, number: signal.Signals
) -> None:
    host = make_host(vhost.url, top={"drain": "500ms"})
    host.plan({"seconds": 6, "exit": 8, "messages": ["ANS1809W"]})
    host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    wait_until(host.runs, what="the run")
    code = host.stop(number)
    assert code == (0 if number is signal.SIGTERM else -signal.SIGKILL)
    host.start()
    answer = scheduler.answer()
    assert answer.headers["tsm-outcome"] == "completed-with-warnings"
    took = int(answer.text("commands-output/command-output/metadata/execution-milliseconds") or 0)
    assert 6_000 <= took < 8_000
    assert len(host.runs()) == 1
    assert scheduler.silent()


@pytest.mark.long
def test_a_job_ends_while_the_broker_is_away_and_is_answered_after(
    private_broker: Any, make_host: MakeHost
) -> None:
    broker = private_broker()
    host = make_host(broker.url)
    host.plan({"seconds": 3})
    host.start()
    with requester(broker.url) as scheduler:
        scheduler.channel.queue_declare("kept", durable=True)
        scheduler.ask(request("/dev/stand-in/a"), reply_to="kept")
        wait_until(host.runs, what="the run")
    broker.stop()
    wait_until(lambda: host.said("job finished"), what="the end of the job")
    wait_until(lambda: host.said("broker out of reach") >= 2, 30, "two tries to reach the broker")
    steps = host.events("broker out of reach")
    assert all(step["reason"] and step["next_try_in"] >= 0 for step in steps)
    assert [step["attempt"] for step in steps] == list(range(1, len(steps) + 1))
    broker.start()
    with requester(broker.url) as scheduler:
        answer = scheduler.answer(90, queue="kept")
    assert answer.headers["tsm-outcome"] == "completed"
    assert len(host.runs()) == 1


@pytest.mark.long
def test_a_worker_started_before_its_broker_answers_once_there_is_one(
    private_broker: Any, make_host: MakeHost
) -> None:
    broker = private_broker()
    broker.stop()
    host = make_host(broker.url)
    host.start(wait=False)
    wait_until(lambda: host.said("broker out of reach"), what="a word about the broker")
    broker.start()
    wait_until(lambda: host.said("broker connected"), 90, "the connection")


def test_a_queue_deleted_under_the_worker_is_declared_again(
    host: Host, scheduler: Requester, vhost: Vhost
) -> None:
    host.start()
    vhost.management("DELETE", f"queues/{vhost.name}/tsm.host.web01")
    wait_until(lambda: host.said("broker connected") == 2, 30, "the worker to come back")
    scheduler.ask(request("/dev/stand-in/a"))
    assert scheduler.answer().headers["tsm-outcome"] == "completed"


def test_an_exchange_deleted_under_the_worker_loses_no_answer(
    make_host: MakeHost, scheduler: Requester, vhost: Vhost
) -> None:
    host = make_host(vhost.url, broker={"reply_via": "exchange"})
    host.plan({"seconds": 3})
    host.start()
    scheduler.ask(request("/dev/stand-in/a"), reply_to=None)
    wait_until(host.runs, what="the run")
    vhost.management("DELETE", f"exchanges/{vhost.name}/tsm.responses")
    assert scheduler.answer(60, queue="tsm.responses").headers["tsm-outcome"] == "completed"
    assert len(host.runs()) == 1


def test_a_wrong_password_is_told_and_never_shown(make_host: MakeHost, vhost: Vhost) -> None:
    host = make_host(re.sub("//[^@]*@", "//guest:s3cret-wrong@", vhost.url))
    host.start(wait=False)
    wait_until(lambda: host.said("broker out of reach"), 30, "a word about the broker")
    assert "ACCESS_REFUSED" in host.log() or "403" in host.log()
    assert "s3cret-wrong" not in host.log()


def test_a_second_worker_on_the_same_state_directory_is_refused(host: Host) -> None:
    host.start()
    second = subprocess.run(
        [sys.executable, *host.main],
        env=host.environment,
        capture_output=True,
        text=True,
        timeout=30,
        cwd="/",
        check=False,
    )
    assert second.returncode != 0
    assert "in use by another tsm-worker" in second.stderr


def test_a_stop_while_the_broker_is_away_is_prompt(make_host: MakeHost) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        host = make_host(f"amqp://guest:guest@127.0.0.1:{nobody.getsockname()[1]}/")
        host.start(wait=False)
        wait_until(lambda: host.said("broker out of reach"), 30, "a word about the broker")
        started = time.monotonic()
        assert host.stop() == 0
        assert elapsed(started) < 5
