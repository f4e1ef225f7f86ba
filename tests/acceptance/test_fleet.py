"""The scheduler's library: a batch goes out, its answers come back once each, whatever happens in between."""

import json
from collections.abc import Iterator

import pika
import pytest
from brokers import PrivateBroker, Vhost, wait_until
from hosts import MakeHost, Requester, request

from worker import fleet
from worker.broker import topology
from worker.fleet import mailbox
from worker.words import Event, Outcome

BODY = request("/dev/stand-in/a")
PATIENCE = 60  # seconds until a test gives an answer up


@pytest.fixture
def client(vhost: Vhost) -> Iterator[fleet.Client]:
    """Give a client on the test's vhost."""
    with fleet.Client(vhost.url) as client:
        yield client


def test_hosts_asked_by_name_answer_and_nothing_is_left_behind(
    make_host: MakeHost, vhost: Vhost, client: fleet.Client
) -> None:
    for name in ("web01", "web02", "db01.example.com"):
        make_host(vhost.url, name).start()
    batch = client.submit(BODY, hosts=["web01", "web02", "db01.example.com", "web01"])
    collection = client.collect(batch, timeout=PATIENCE)
    answers = {answer.host: answer for answer in collection}
    assert sorted(answers) == ["db01.example.com", "web01", "web02"]
    assert {answer.request_id for answer in answers.values()} == {f"{batch.id}.{host}" for host in answers}
    assert {answer.outcome for answer in answers.values()} == {Outcome.COMPLETED}
    assert all("<status>success</status>" in answer.response for answer in answers.values())
    assert {(answer.attempts, answer.account, answer.error) for answer in answers.values()} == {
        (1, "guest", None)
    }
    assert collection.complete
    assert collection.successful
    assert collection.outstanding == []
    with pytest.raises(fleet.BatchError, match="no batch"):
        client.collect(batch)
    exchanges = {exchange["name"] for exchange in vhost.management("GET", f"exchanges/{vhost.name}")}
    assert not {name for name in exchanges if name.startswith("tsm.batch.")}


def test_a_group_and_everyone_answer_as_many_as_expected(
    make_host: MakeHost, vhost: Vhost, client: fleet.Client
) -> None:
    for name in ("web01", "web02"):
        make_host(vhost.url, name, top={"groups": ["web"]}).start()
    make_host(vhost.url, "db01").start()
    web = client.collect(client.submit(BODY, groups=["web"], expect=2), timeout=PATIENCE)
    assert {answer.host for answer in web} == {"web01", "web02"}
    assert web.complete
    everyone = client.collect(client.submit(BODY, everyone=True, expect=3), timeout=PATIENCE)
    assert {answer.host for answer in everyone} == {"web01", "web02", "db01"}


def test_a_host_in_two_groups_that_are_asked_runs_once(
    make_host: MakeHost, vhost: Vhost, client: fleet.Client
) -> None:
    host = make_host(vhost.url, top={"groups": ["web", "linux"]})
    host.start()
    batch = client.submit(BODY, groups=["web", "linux"], expect=2)
    assert [answer.host for answer in client.collect(batch, timeout=5)] == ["web01"]
    assert len(host.runs()) == 1


def test_unroutable_hosts_are_named_at_once_and_not_awaited(
    make_host: MakeHost, vhost: Vhost, client: fleet.Client
) -> None:
    make_host(vhost.url).start()
    batch = client.submit(BODY, hosts=["nowhere", "web01", "typo"])
    assert batch.unroutable == ("nowhere", "typo")
    collection = client.collect(batch.id, timeout=PATIENCE).wait()
    assert collection.outcomes == {"web01": Outcome.COMPLETED}
    assert collection.complete
    assert not collection.successful
    nobody = client.submit(BODY, groups=["nobody"], expect=1)
    assert nobody.unroutable == ("group.nobody",)
    assert not client.collect(nobody).wait().successful


def test_a_stopped_host_is_outstanding_and_another_client_takes_the_wait_up(
    make_host: MakeHost, vhost: Vhost, client: fleet.Client
) -> None:
    make_host(vhost.url).start()
    late = make_host(vhost.url, "db01")
    late.start()
    late.stop()
    batch = client.submit(BODY, hosts=["web01", "db01"])
    first = client.collect(batch, timeout=5)
    assert [answer.host for answer in first] == ["web01"]
    assert (first.outstanding, first.missing, first.complete) == (["db01"], 1, False)
    late.start()
    with fleet.Client(vhost.url) as elsewhere:
        second = elsewhere.collect(batch.id, timeout=PATIENCE)
        assert [answer.host for answer in second] == ["db01"]
    assert second.outcomes == {"web01": Outcome.COMPLETED, "db01": Outcome.COMPLETED}
    assert second.successful


def test_two_cannot_collect_a_batch_at_once(make_host: MakeHost, vhost: Vhost, client: fleet.Client) -> None:
    for name in ("web01", "web02"):
        make_host(vhost.url, name).start()
    batch = client.submit(BODY, hosts=["web01", "web02"])
    next(client.collect(batch, timeout=PATIENCE))
    with fleet.Client(vhost.url) as another, pytest.raises(fleet.BatchError, match="somebody else"):
        another.collect(batch)


def test_an_answer_whose_reader_died_is_there_again(make_host: MakeHost, vhost: Vhost) -> None:
    for name in ("web01", "web02"):
        make_host(vhost.url, name).start()
    with fleet.Client(vhost.url) as client:
        batch = client.submit(BODY, hosts=["web01", "web02"])
        answers = client.collect(batch, timeout=PATIENCE)
        handed_over = next(answers)
        in_hand = next(answers)
    with fleet.Client(vhost.url) as client:
        again = client.collect(batch.id, timeout=PATIENCE)
        assert again.outcomes == {handed_over.host: Outcome.COMPLETED}
        assert [answer.host for answer in again] == [in_hand.host]


def test_a_batch_sent_again_is_answered_again_and_runs_nothing_twice(
    make_host: MakeHost, vhost: Vhost, client: fleet.Client
) -> None:
    host = make_host(vhost.url)
    host.start()
    responses = set()
    for _ in range(3):
        batch = client.submit(BODY, hosts=["web01"], batch_id="nightly-1")
        responses.add(next(client.collect(batch, timeout=PATIENCE)).response)
    assert len(responses) == 1
    assert len(host.runs()) == 1


def test_repeats_and_what_belongs_to_nobody_are_dropped(
    make_host: MakeHost, vhost: Vhost, client: fleet.Client, scheduler: Requester
) -> None:
    host = make_host(vhost.url)
    host.start()
    late = make_host(vhost.url, "db01")
    late.start()
    late.stop()
    batch = client.submit(BODY, hosts=["web01", "db01"])
    replies = mailbox.reply_queue(batch.id)
    scheduler.ask(BODY, message_id=f"{batch.id}.web01", reply_to=replies)  # answered twice
    forged = {"tsm-host": "db01", "tsm-outcome": "completed", "tsm-attempts": 1, "tsm-request-id": "another"}
    odd = {**forged, "tsm-request-id": f"{batch.id}.db01", "tsm-outcome": "fabulous"}
    for headers in (None, {}, forged, odd, {**odd, "tsm-host": "web09", "tsm-outcome": "completed"}):
        scheduler.channel.basic_publish("", replies, b"<x/>", pika.BasicProperties(headers=headers))
    assert [answer.host for answer in client.collect(batch, timeout=8)] == ["web01"]
    wait_until(lambda: vhost.queue(replies) == (0, 0), what="the reply queue to be empty")
    assert len(host.runs()) == 1


def test_a_broker_restart_while_collecting_loses_nothing(
    make_host: MakeHost, private_broker: PrivateBroker
) -> None:
    broker = private_broker()
    for name in ("web01", "web02"):
        host = make_host(broker.url, name)
        host.plan({"seconds": 0} if name == "web01" else {"seconds": 5})
        host.start()
    with fleet.Client(broker.url) as client:
        batch = client.submit(BODY, hosts=["web01", "web02"])
        answers = client.collect(batch, timeout=180)
        first = next(answers)
        broker.restart()
        assert [first.host, *(answer.host for answer in answers)] == ["web01", "web02"]
        assert answers.successful


def test_signs_tell_how_far_each_host_is(make_host: MakeHost, vhost: Vhost, client: fleet.Client) -> None:
    host = make_host(vhost.url, retry={"first_delay": "100ms"})
    host.plan(a=[{"messages": ["ANS1017E"]}, {}])
    host.start()
    signs: list[fleet.Sign] = []
    batch = client.submit(BODY, hosts=["web01"], watch=True)
    collection = client.collect(batch, timeout=PATIENCE, on_sign=signs.append).wait()
    assert [sign.event for sign in signs[:3]] == [Event.ACCEPTED, Event.STARTED, Event.RETRYING]
    assert {sign.request_id for sign in signs} == {f"{batch.id}.web01"}
    assert collection.outcomes == {"web01": Outcome.COMPLETED}


def test_a_request_that_expired_everywhere_is_not_awaited_for_ever(
    make_host: MakeHost, vhost: Vhost, client: fleet.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.fleet.collection._GRACE", 1.0)
    for name in ("web01", "db01"):
        host = make_host(vhost.url, name)
        host.start()
        if name == "db01":
            host.stop()
    batch = client.submit(BODY, hosts=["web01", "db01"], expires=3, watch=True)
    collection = client.collect(batch, on_sign=lambda _sign: None).wait()
    assert collection.outcomes == {"web01": Outcome.COMPLETED}
    assert collection.outstanding == ["db01"]


def test_a_request_no_host_could_accept_does_not_leave(vhost: Vhost, client: fleet.Client) -> None:
    with pytest.raises(fleet.RequestRefused, match="no option of dsmc backup image"):
        client.submit(request("/a", options="<compresion>yes</compresion>"), hosts=["web01"])
    queues = {queue["name"] for queue in vhost.management("GET", f"queues/{vhost.name}")}
    assert queues == set()


def test_a_broker_without_exchanges_refuses_in_words(client: fleet.Client) -> None:
    with pytest.raises(fleet.BrokerUnreachable, match=r"no exchange 'tsm\.re"):
        client.submit(BODY, hosts=["web01"])


def test_a_broker_that_is_not_there_is_told_at_once() -> None:
    with (
        fleet.Client("amqp://guest:guest@127.0.0.1:9/") as client,
        pytest.raises(fleet.BrokerUnreachable) as caught,
    ):
        client.submit(BODY, hosts=["web01"])
    assert caught.value.exit_code == 75


def test_five_thousand_hosts_are_asked_within_seconds(vhost: Vhost, client: fleet.Client) -> None:
    topology.declare(pika.URLParameters(vhost.url), "web00001", ())
    hosts = [f"web{number:05d}" for number in range(5000)]
    batch = client.submit(BODY, hosts=hosts)
    assert len(batch.unroutable) == 4999
    assert json.loads(json.dumps(batch.asked)) == ["web00001"]
