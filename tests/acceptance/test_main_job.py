"""The main job, end to end on real parts: request, queue, worker, dsmc, response."""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pika
import pytest
from brokers import Vhost, lacks, wait_until
from hosts import Host, MakeHost, Requester, elapsed, request
from lxml import etree

from worker.broker import topology

RESPONSE_XSD = etree.XMLSchema(file=str(Path(topology.__file__).parents[1] / "contract" / "response.xsd"))


def test_a_request_becomes_a_dsmc_run_and_a_response(host: Host, scheduler: Requester) -> None:
    host.start()
    asked = scheduler.ask(request("/dev/stand-in/a"), correlation_id="night-1")
    answer = scheduler.answer()
    assert answer.properties.correlation_id == "night-1"
    assert answer.properties.message_id not in (None, asked)
    assert answer.properties.delivery_mode == 2
    assert answer.properties.content_type == "application/xml"
    assert answer.properties.user_id == "guest"
    assert answer.headers == {
        "tsm-host": "web01",
        "tsm-outcome": "completed",
        "tsm-attempts": 1,
        "tsm-request-id": asked,
    }
    RESPONSE_XSD.assertValid(answer.xml)
    assert (
        answer.text("commands-output/command-output/metadata/command") == "dsmc backup image /dev/stand-in/a"
    )
    assert answer.text("commands-output/command-output/metadata/exit-code") == "0"
    assert [run["argv"][-1] for run in host.runs()] == ["/dev/stand-in/a"]


def test_the_response_carries_the_message_id_where_there_is_no_correlation_id(
    host: Host, scheduler: Requester
) -> None:
    host.start()
    asked = scheduler.ask(request("/dev/stand-in/a"))
    assert scheduler.answer().properties.correlation_id == asked


def test_requests_come_by_host_by_group_and_to_all(
    make_host: MakeHost, vhost: Vhost, scheduler: Requester
) -> None:
    make_host(vhost.url, "web01", top={"groups": ["web"]}).start()
    make_host(vhost.url, "db01").start()
    for key, hosts in (("host.db01", {"db01"}), ("group.web", {"web01"}), ("all", {"web01", "db01"})):
        scheduler.ask(request("/dev/stand-in/a"), key)
        assert {scheduler.answer().headers["tsm-host"] for _ in hosts} == hosts


def test_a_foreign_client_is_answered_and_waiting_requests_stay_ready(
    host: Host, scheduler: Requester, vhost: Vhost
) -> None:
    if shutil.which("amqp-publish") is None:
        lacks("amqp-publish is missing: apt-get install amqp-tools")
    host.plan({"seconds": 0}, long={"seconds": 12})
    host.start()

    def publish(volume: str) -> None:
        command = ["amqp-publish", "--url", vhost.url, "--exchange", topology.REQUESTS]
        command += ["--routing-key", "host.web01", "--reply-to", scheduler.queue]
        subprocess.run(command, input=request(volume), check=True, timeout=30)

    publish("/dev/stand-in/long")
    wait_until(lambda: len(host.runs()) == 1, what="the long run")
    for _ in range(3):
        publish("/dev/stand-in/a")
    wait_until(
        lambda: vhost.queue("tsm.host.web01") == (3, 0),
        10,
        "three requests ready on the broker, none unacked",
    )
    assert len(host.runs()) == 1
    answers = [scheduler.answer(30) for _ in range(4)]
    assert "stand-in/long" in answers[0].body.decode()
    # This client sets no id of any kind, so the worker's own one stands for both.
    ids = {answer.properties.correlation_id for answer in answers}
    assert ids == {answer.headers["tsm-request-id"] for answer in answers}
    assert len(ids) == 4
    assert len(host.runs()) == 4


def test_short_jobs_do_not_pay_for_the_cancelled_consumer(host: Host, scheduler: Requester) -> None:
    host.start()
    for _ in range(30):
        scheduler.ask(request("/dev/stand-in/a"))
    started = time.monotonic()
    for _ in range(30):
        scheduler.answer()
    assert elapsed(started) < 10  # two seconds each, if every one waited for the patience to run out


def test_two_slots_run_two_jobs_at_once_but_never_two_on_one_volume(
    make_host: MakeHost, vhost: Vhost, scheduler: Requester
) -> None:
    host = make_host(vhost.url, top={"slots": 2})
    host.plan({"seconds": 2})
    host.start()
    for volume in ("a", "b", "b"):
        scheduler.ask(request(f"/dev/stand-in/{volume}"))
    wait_until(lambda: len(host.runs()) == 2, what="two runs at once")
    for _ in range(3):
        assert scheduler.answer(20).headers["tsm-outcome"] == "completed"
    first, second = (run for run in host.runs() if run["volume"] == "/dev/stand-in/b")
    assert first["ended"] <= second["time"]


@pytest.mark.parametrize(
    ("behaviour", "outcome", "status", "exit_code"),
    [
        ({"messages": []}, "completed", "success", "0"),
        ({"exit": 4}, "completed", "success", "4"),
        ({"messages": ["ANS1453W"]}, "completed-with-warnings", "success", "8"),
        ({"messages": ["ANS1063E"]}, "failed", "error", "12"),
        ({"prompt": "password"}, "failed", "error", "12"),
        ({"crash": "SIGSEGV"}, "failed", "error", "139"),
    ],
)
def test_each_exit_of_dsmc_has_its_outcome(
    host: Host, scheduler: Requester, behaviour: dict[str, object], outcome: str, status: str, exit_code: str
) -> None:
    host.plan(behaviour)
    host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    answer = scheduler.answer()
    RESPONSE_XSD.assertValid(answer.xml)
    assert answer.headers["tsm-outcome"] == outcome
    assert answer.text("metadata/status") == status
    assert answer.text("commands-output/command-output/metadata/exit-code") == exit_code
    assert answer.error == ("dsmc-failed" if status == "error" else None)


def test_warnings_are_listed_with_their_codes(host: Host, scheduler: Requester) -> None:
    host.plan({"messages": ["ANS1453W", "ANS1809W"]})
    host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    warnings = scheduler.answer().xml.findall("commands-output/command-output/metadata/warnings/warning")
    assert [warning.get("code") for warning in warnings] == ["ANS1453W", "ANS1809W"]
    assert all(warning.text for warning in warnings)


def test_one_ineligible_volume_keeps_the_whole_request_from_running(host: Host, scheduler: Requester) -> None:
    host.start()
    scheduler.ask(request("/dev/stand-in/a", "/nowhere"))
    answer = scheduler.answer()
    RESPONSE_XSD.assertValid(answer.xml)
    assert (answer.error, answer.headers["tsm-outcome"]) == ("volume-not-eligible", "refused")
    notes = {note.get("name"): note.get("eligible") for note in answer.xml.findall("metadata/volume")}
    assert notes == {"/dev/stand-in/a": "true", "/nowhere": "false"}
    assert answer.text("metadata/count") == "0"
    assert host.runs() == []


def test_the_commands_of_a_request_run_in_order_and_each_is_told(host: Host, scheduler: Requester) -> None:
    host.plan({"seconds": 0}, b={"messages": ["ANS1063E"]})
    host.start()
    command = "<command-request><command-arguments><volume-list>/dev/stand-in/{}</volume-list></command-arguments></command-request>"
    commands = "".join(command.format(volume) for volume in "abc")
    scheduler.ask(
        f"<tsm-request><operation-name>backup-image</operation-name>{commands}</tsm-request>".encode()
    )
    answer = scheduler.answer()
    RESPONSE_XSD.assertValid(answer.xml)
    assert [run["volume"][-1] for run in host.runs()] == ["a", "b", "c"]
    outputs = answer.xml.findall("commands-output/command-output/metadata/status")
    assert [output.text for output in outputs] == ["success", "error", "success"]
    assert answer.text("metadata/count") == "3"
    assert (answer.text("metadata/error/message") or "").startswith("command 2 of 3: ")


def test_a_missing_dsmc_is_an_answer_that_names_what_was_tried(
    make_host: MakeHost, vhost: Vhost, scheduler: Requester
) -> None:
    host = make_host(vhost.url, dsmc={"command": ["/opt/nowhere/dsmc"]})
    host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    answer = scheduler.answer()
    assert answer.error == "dsmc-not-found"
    assert "/opt/nowhere/dsmc" in (answer.text("metadata/error/message") or "")
    scheduler.ask(request("/dev/stand-in/a"))
    assert scheduler.answer().error == "dsmc-not-found"


def test_a_reply_nobody_can_receive_goes_to_the_common_queue(host: Host, scheduler: Requester) -> None:
    host.start()
    scheduler.ask(request("/dev/stand-in/a"), reply_to="no-such-queue", correlation_id="lost")
    answer = scheduler.answer(queue=topology.RESPONSES_QUEUE)
    assert answer.properties.correlation_id == "lost"
    assert answer.headers["tsm-undeliverable-to"] == "no-such-queue"


def test_a_request_without_a_reply_queue_is_answered_in_the_common_queue(
    host: Host, scheduler: Requester
) -> None:
    host.start()
    scheduler.ask(request("/dev/stand-in/a"), reply_to=None)
    assert scheduler.answer(queue=topology.RESPONSES_QUEUE).headers["tsm-outcome"] == "completed"


def test_the_same_message_id_again_is_answered_again_and_not_run_again(
    host: Host, scheduler: Requester
) -> None:
    host.start()
    asked = scheduler.ask(request("/dev/stand-in/a"))
    first = scheduler.answer()
    scheduler.ask(request("/dev/stand-in/a"), message_id=asked)
    second = scheduler.answer()
    assert second.body == first.body
    assert second.properties.message_id == first.properties.message_id
    assert len(host.runs()) == 1


def test_events_tell_a_job_s_way(host: Host, scheduler: Requester) -> None:
    host.start()
    scheduler.channel.queue_declare("watching", exclusive=True)
    scheduler.channel.queue_bind("watching", topology.EVENTS, "#")
    asked = scheduler.ask(request("/dev/stand-in/a"))
    events = [scheduler.answer(queue="watching") for _ in range(3)]
    facts = [json.loads(event.body) for event in events]
    assert [fact["event"] for fact in facts] == ["accepted", "started", "finished"]
    assert {fact["request_id"] for fact in facts} == {asked}
    assert facts[-1]["outcome"] == "completed"


def test_secrets_and_the_worker_s_own_variables_do_not_reach_dsmc(
    host: Host, scheduler: Requester, tmp_path: Path
) -> None:
    seen = tmp_path / "environment"
    script = tmp_path / "dsmc"
    script.write_text(f"#!/bin/sh\nenv >{seen}\nls -l /proc/$$/fd >>{seen}\n")
    script.chmod(0o755)
    host.configure(scheduler_url(host), dsmc={"command": [str(script)]})
    host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    scheduler.answer()
    environment = seen.read_text()
    assert "DSM_STANDIN=" in environment
    assert "TSM_WORKER_CONFIG" not in environment
    assert "TSM_WORKER_BROKER_URL" not in environment
    assert "guest:guest" not in environment
    assert re.search(r"0 -> /dev/null", environment)
    assert not re.search(r"journal|socket:|/lock", environment)


def scheduler_url(host: Host) -> str:
    """Return the broker's address as the host's configuration has it."""
    match = re.search(r'url = "(.*)"', host.config_file.read_text())
    assert match is not None
    return match[1]


def test_least_privilege_replies_go_through_the_exchange(
    make_host: MakeHost, vhost: Vhost, scheduler: Requester
) -> None:
    make_host(vhost.url).start()  # declares, as an administrator would
    account = vhost.user("db01", "secret", write=r"tsm\.(responses|events|dead)", read=r"tsm\.host\.db01")
    connection = pika.BlockingConnection(pika.URLParameters(vhost.url))
    with connection:
        topology.declare(pika.URLParameters(vhost.url), "db01", [])
        scheduler.channel.queue_bind(scheduler.queue, topology.RESPONSES, scheduler.queue)
    host = make_host(account, "db01", broker={"declare": False, "reply_via": "exchange"})
    host.start()
    scheduler.ask(request("/dev/stand-in/a"), "host.db01")
    answer = scheduler.answer()
    assert answer.properties.user_id == "db01"
    assert answer.headers["tsm-outcome"] == "completed"
