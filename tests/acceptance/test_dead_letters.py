"""Retries and dead letters: what is tried again, what is given up, and the story it goes with."""

from datetime import datetime
from typing import Any

import pytest
from brokers import Vhost, wait_until
from hosts import Host, MakeHost, Requester, request

from worker.broker import topology

QUICK = {"attempts": 3, "first_delay": "200ms", "max_delay": "1s"}


@pytest.fixture
def host(make_host: MakeHost, vhost: Vhost) -> Host:
    """Give a host that tries again at once."""
    return make_host(vhost.url, retry=QUICK)


def test_a_transient_failure_is_tried_again_and_its_answer_counts_the_tries(
    host: Host, scheduler: Requester
) -> None:
    host.plan(a=[{"messages": ["ANS1017E"]}, {"messages": ["ANS1351E"]}, {}])
    host.start()
    scheduler.channel.queue_declare("watching", exclusive=True)
    scheduler.channel.queue_bind("watching", topology.EVENTS, "retrying.#")
    scheduler.ask(request("/dev/stand-in/a"))
    answer = scheduler.answer()
    assert answer.headers["tsm-outcome"] == "completed"
    assert answer.headers["tsm-attempts"] == 3
    assert answer.text("metadata/count") == "1"
    assert len(host.runs()) == 3
    assert [b"ANS1017E" in scheduler.answer(queue="watching").body for _ in range(2)] == [True, False]
    assert scheduler.channel.basic_get(topology.DEAD_QUEUE)[0] is None


def test_a_failure_that_stays_is_given_up_after_the_attempts_and_dead_lettered(
    host: Host, scheduler: Requester
) -> None:
    host.plan(a={"messages": ["ANS1017E"]})
    host.start()
    body = request("/dev/stand-in/a")
    asked = scheduler.ask(body, correlation_id="night-1")
    assert scheduler.answer().error == "dsmc-failed"
    letter = scheduler.answer(queue=topology.DEAD_QUEUE)
    assert letter.body == body
    headers = {name: value for name, value in letter.headers.items() if name.startswith("tsm-")}
    first_seen, last_tried = (
        datetime.fromisoformat(headers.pop(f"tsm-{k}")) for k in ("first-seen", "last-tried")
    )
    assert first_seen < last_tried
    assert "ANS1017E" in headers.pop("tsm-reason")
    assert "ANS1017E" in headers.pop("tsm-ans-codes")
    assert any("ANS1017E" in line for line in headers.pop("tsm-last-lines"))
    assert headers == {
        "tsm-host": "web01",
        "tsm-request-id": asked,
        "tsm-outcome": "failed",
        "tsm-error-code": "dsmc-failed",
        "tsm-attempts": 3,
        "tsm-exit-code": 12,
        "tsm-reply-to": scheduler.queue,
        "tsm-correlation-id": "night-1",
    }
    assert letter.properties.user_id == "guest"
    assert len(host.runs()) == 3


@pytest.mark.parametrize(
    ("behaviour", "outcome", "code"),
    [
        ({"messages": ["ANS1063E"]}, "failed", "dsmc-failed"),
        ({"prompt": "password"}, "failed", "dsmc-failed"),
        ({"messages": ["ANS1351E", "ANS1353E"]}, "failed", "dsmc-failed"),
        (
            {"messages": ["ANS1353E (RC53) Sesión rechazada: Se ha entrado un ID desconocido"]},
            "failed",
            "dsmc-failed",
        ),
        ({"exit": 12}, "failed", "dsmc-failed"),
        ({"crash": "SIGSEGV"}, "failed", "dsmc-failed"),
        ({"hang": True}, "timed-out", "timed-out"),
    ],
)
def test_a_permanent_failure_is_tried_once_and_dead_lettered(
    host: Host, scheduler: Requester, behaviour: dict[str, Any], outcome: str, code: str
) -> None:
    host.plan(a=behaviour)
    host.start()
    scheduler.ask(request("/dev/stand-in/a", timeout=1))
    assert scheduler.answer().error == code
    headers = scheduler.answer(queue=topology.DEAD_QUEUE).headers
    assert (headers["tsm-outcome"], headers["tsm-error-code"]) == (outcome, code)
    assert headers["tsm-attempts"] == 1
    assert len(host.runs()) == 1


def test_the_configuration_overrides_a_message_s_class(
    make_host: MakeHost, vhost: Vhost, scheduler: Requester
) -> None:
    host = make_host(vhost.url, retry=QUICK)
    with host.config_file.open("a") as file:
        file.write('[retry.classes]\nANS1063E = "transient"\n')
    host.plan(a=[{"messages": ["ANS1063E"]}, {}])
    host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    assert scheduler.answer().headers["tsm-attempts"] == 2


def test_a_refused_request_is_dead_lettered_as_it_came(host: Host, scheduler: Requester) -> None:
    host.start()
    scheduler.ask(b"<nonsense", reply_to=None)
    letter = scheduler.answer(queue=topology.DEAD_QUEUE)
    assert letter.body == b"<nonsense"
    assert letter.headers["tsm-outcome"] == "refused"
    assert letter.headers["tsm-attempts"] == 0
    assert "tsm-last-tried" not in letter.headers


def test_a_wait_for_another_try_holds_no_slot_and_survives_a_restart(
    make_host: MakeHost, vhost: Vhost, scheduler: Requester
) -> None:
    host = make_host(vhost.url, retry={"attempts": 2, "first_delay": "8s", "max_delay": "8s"})
    host.plan({"seconds": 0}, a=[{"messages": ["ANS1017E"]}, {}])
    host.start()
    scheduler.ask(request("/dev/stand-in/a"), correlation_id="a")
    wait_until(lambda: host.said("job waits for another try"), what="the wait")
    scheduler.ask(request("/dev/stand-in/b"), correlation_id="b")
    assert scheduler.answer(3).properties.correlation_id == "b"
    assert host.stop() == 0
    host.start()
    answer = scheduler.answer()
    assert (answer.properties.correlation_id, answer.headers["tsm-attempts"]) == ("a", 2)


def test_an_expiration_stops_the_tries(make_host: MakeHost, vhost: Vhost, scheduler: Requester) -> None:
    host = make_host(vhost.url, retry={"attempts": 5, "first_delay": "20s"})
    host.plan(a={"messages": ["ANS1017E"]})
    host.start()
    scheduler.ask(request("/dev/stand-in/a"), expiration="5000")
    answer = scheduler.answer(10)
    assert (answer.error, answer.headers["tsm-attempts"]) == ("dsmc-failed", 1)


def test_what_expires_on_the_broker_is_dead_lettered_by_it(host: Host, scheduler: Requester) -> None:
    host.start()
    host.stop()
    asked = scheduler.ask(request("/dev/stand-in/a"), expiration="100")
    letter = scheduler.answer(queue=topology.DEAD_QUEUE)
    assert letter.properties.message_id == asked
    assert letter.headers["x-first-death-reason"] == "expired"
    assert letter.headers["x-first-death-queue"] == "tsm.host.web01"


@pytest.mark.long
def test_a_reply_too_large_for_the_broker_is_shortened(private_broker: Any, make_host: MakeHost) -> None:
    broker = private_broker("max_message_size = 100000\n")
    host = make_host(broker.url)
    host.plan({"lines": 9000, "line_length": 100})
    host.start()
    scheduler = Requester(broker.url)
    scheduler.ask(request("/dev/stand-in/a"))
    answer = scheduler.answer(60)
    scheduler.close()
    assert answer.headers["tsm-outcome"] == "completed"
    assert 20_000 < len(answer.body) <= 100_000
    output = answer.xml.find("commands-output/command-output/output")
    assert output is not None
    assert int(output.get("omitted") or 0) > 1000


def test_sighup_takes_over_what_can_be_and_keeps_running_on_a_mistake(
    host: Host, scheduler: Requester
) -> None:
    host.start()
    text = host.config_file.read_text()
    assert host.worker is not None
    host.config_file.write_text("slots = 'many'\n")
    host.worker.send_signal(1)
    wait_until(lambda: host.said("configuration not reloaded"), what="a word about the mistake")
    host.config_file.write_text(text + '[dsmc.allow]\nvolumes = ["/dev/stand-in/b"]\n')
    host.worker.send_signal(1)
    wait_until(lambda: host.said("configuration reloaded"), what="the reload")
    for volume in "ab":
        scheduler.ask(request(f"/dev/stand-in/{volume}"))
    assert [scheduler.answer().error for _ in "ab"] == ["volume-not-eligible", None]
