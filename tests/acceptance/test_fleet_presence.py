"""Who is there: hosts that idle, run, stopped; and what happens where nobody keeps it."""

from collections.abc import Iterator
from typing import Any

import pika
import pytest
from brokers import Vhost, wait_until
from hosts import MakeHost, Requester, request

from worker import __version__, fleet
from worker.broker import topology

pytestmark = pytest.mark.long


@pytest.fixture
def client(vhost: Vhost) -> Iterator[fleet.Client]:
    with fleet.Client(vhost.url) as client:
        yield client


def states(client: fleet.Client) -> dict[str, str]:
    return {host.host: host.state for host in client.hosts()}


def test_hosts_are_shown_with_what_they_do(
    make_host: MakeHost, vhost: Vhost, client: fleet.Client, scheduler: Requester
) -> None:
    busy = make_host(vhost.url, "web01", top={"groups": ["web", "linux"]})
    busy.plan({"seconds": 25})
    for host in (busy, make_host(vhost.url, "db01"), gone := make_host(vhost.url, "db02")):
        host.start()
    gone.stop()
    asked = scheduler.ask(request("/dev/stand-in/a"))
    expected = {"web01": "running", "db01": "idle", "db02": "stopped"}
    wait_until(lambda: states(client) == expected, 30, "each host's state")
    web = client.hosts()[-1]
    assert (web.host, web.groups, web.version, web.platform, web.slots, web.silent) == (
        "web01", ("web", "linux"), __version__, "linux", 1, False,
    )  # fmt: skip
    assert [(job.request_id, job.state) for job in web.jobs] == [(asked, "running")]
    assert states(client) == expected  # looking takes nothing away
    scheduler.answer(60)
    wait_until(lambda: states(client)["web01"] == "idle", 30, "the busy host to be idle")


def test_only_the_newest_word_of_each_host_is_shown_and_nonsense_is_not(
    vhost: Vhost, client: fleet.Client, scheduler: Requester
) -> None:
    topology.declare(pika.URLParameters(vhost.url), "web01", ())
    assert client.hosts() == []
    said = (
        '{"event": "present", "host": "%s", "time": %d, "every": 300, "state": "%s", "groups": [], "version": "1", '
        '"platform": "linux", "slots": 1, "jobs": []}'
    )
    bodies: list[Any] = [said % (f"h{number:04d}", turn, "idle") for turn in (1, 2) for number in range(2000)]
    bodies += ["nonsense", "{}", said % ("../etc", 3, "idle"), said % ("h0001", 3, "running")]
    for body in bodies:
        scheduler.channel.basic_publish(topology.EVENTS, "present.x", body.encode())
    found = client.hosts()
    assert len(found) == 2000
    assert {host.time for host in found if host.host != "h0001"} == {2}
    assert found[1].state == "running"
    assert found[1].silent


def test_where_nobody_keeps_presence_it_is_said_and_workers_work(
    make_host: MakeHost, vhost: Vhost, client: fleet.Client, scheduler: Requester
) -> None:
    topology.declare(pika.URLParameters(vhost.url), "web01", ())
    scheduler.channel.queue_delete(topology.PRESENCE_QUEUE)
    account = vhost.user(
        "web01",
        "secret",
        write=r"tsm\.(responses|events|dead)|amq\.default|replies-.*",
        read=r"tsm\.host\.web01",
    )
    host = make_host(account, "web01", broker={"declare": False})
    host.start()
    scheduler.ask(request("/dev/stand-in/a"))
    assert scheduler.answer(60).headers["tsm-outcome"] == "completed"
    with pytest.raises(fleet.BatchError, match=r"no stream tsm\.presence"):
        client.hosts()


def test_a_worker_that_may_not_tell_its_presence_works_all_the_same(
    make_host: MakeHost, vhost: Vhost, scheduler: Requester
) -> None:
    topology.declare(pika.URLParameters(vhost.url), "web02", ())
    account = vhost.user(
        "web02",
        "secret",
        write=r"tsm\.(responses|events|dead)|amq\.default|replies-.*",
        read=r"tsm\.host\.web02",
    )
    only = {
        "exchange": topology.EVENTS,
        "write": r"^(accepted|started|retrying|finished)\.web02$",
        "read": "",
    }
    vhost.management("PUT", f"topic-permissions/{vhost.name}/web02", only)
    host = make_host(account, "web02", broker={"declare": False})
    host.start()
    wait_until(lambda: host.said("presence not told"), 30, "a word on presence")
    scheduler.ask(request("/dev/stand-in/a"), "host.web02")
    assert scheduler.answer(60).headers["tsm-outcome"] == "completed"
    assert host.said("connection lost") == 0
