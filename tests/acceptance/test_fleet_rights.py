"""The least rights a scheduler needs, as docs/fleet.md has them, and what happens with fewer."""

import json
import re
import subprocess
import sys

import pika
import pytest
from brokers import Vhost
from hosts import REPOSITORY, MakeHost, request
from pika.exceptions import ChannelClosedByBroker

from worker import fleet
from worker.broker import topology

pytestmark = pytest.mark.long

BODY = request("/dev/stand-in/a")
PATIENCE = 60


def rights() -> dict[str, str]:
    """Return the scheduler's rights as the documentation shows them."""
    text = (REPOSITORY / "docs" / "fleet.md").read_text()
    return {
        kind: pattern.replace("\\|", "|")
        for kind, pattern in re.findall(r"^\| (configure|write|read) \| `(.*?)` \|", text, re.MULTILINE)
    }


@pytest.fixture
def scheduler_url(vhost: Vhost) -> str:
    """Give the address of an account with the least rights, on a vhost with a topology."""
    topology.declare(pika.URLParameters(vhost.url), "web01", ())
    url = vhost.user("scheduler", "secret", **rights())
    for exchange, write, read in (
        ("tsm.requests", r"^host\.(web01|typo)$", ""),
        ("tsm.responses", "", r"^tsm\.replies\."),
    ):
        told = {"exchange": exchange, "write": write, "read": read}
        vhost.management("PUT", f"topic-permissions/{vhost.name}/scheduler", told)
    return url


@pytest.fixture
def least_host(vhost: Vhost, make_host: MakeHost, scheduler_url: str) -> None:
    """Start a host that has no more than its own least rights."""
    account = vhost.user(
        "web01", "secret", write=r"^tsm\.(responses|events|dead)$", read=r"^tsm\.host\.web01$"
    )
    host = make_host(account, broker={"declare": False, "reply_via": "exchange"})
    host.plan({"seconds": 2})
    host.start()


def test_a_scheduler_with_the_least_rights_submits_waits_and_sees_who_is_there(
    scheduler_url: str, least_host: None
) -> None:
    command = [
        sys.executable,
        "-m",
        "worker",
        "submit",
        "--broker",
        scheduler_url,
        "--volume",
        "/dev/stand-in/a",
    ]
    command += ["--host", "web01", "--host", "typo", "--wait", "--json"]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": str(REPOSITORY)}, check=False
    )
    assert result.returncode == 1
    assert "1 completed, 1 unroutable" in result.stderr
    assert "web01: started" in result.stderr
    assert json.loads(result.stdout)["outcome"] == "completed"
    with fleet.Client(scheduler_url) as client:
        assert [host.host for host in client.hosts()] == ["web01"]


def test_what_comes_back_bears_the_host_s_own_account(scheduler_url: str, least_host: None) -> None:
    with fleet.Client(scheduler_url) as client:
        answers = list(client.collect(client.submit(BODY, hosts=["web01"]), timeout=PATIENCE))
    assert [answer.account for answer in answers] == ["web01"]


@pytest.mark.parametrize("queue", ["tsm.host.web01", "tsm.dead-letters"])
def test_it_reads_nobody_else_s_queues(scheduler_url: str, queue: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(scheduler_url)) as connection:
        with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
            connection.channel().basic_get(queue)
        with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
            connection.channel().queue_delete(queue)


def test_a_host_it_may_not_ask_is_refused_in_words(scheduler_url: str) -> None:
    with (
        fleet.Client(scheduler_url) as client,
        pytest.raises(fleet.BrokerRefused, match=r"403 ACCESS_REFUSED.*host\.db01") as caught,
    ):
        client.submit(BODY, hosts=["db01"])
    assert caught.value.exit_code == 75


def test_an_account_that_may_not_see_events_goes_without_signs(
    vhost: Vhost, scheduler_url: str, least_host: None
) -> None:
    told = {"exchange": "tsm.events", "write": "", "read": "^$"}
    vhost.management("PUT", f"topic-permissions/{vhost.name}/scheduler", told)
    signs: list[fleet.Sign] = []
    with fleet.Client(scheduler_url) as client:
        batch = client.submit(BODY, hosts=["web01"], watch=True)
        assert client.collect(batch, timeout=PATIENCE, on_sign=signs.append).wait().successful
    assert signs == []


def test_a_missing_right_is_named(vhost: Vhost, scheduler_url: str) -> None:
    vhost.user("scheduler", "secret", **{**rights(), "configure": ""})
    with (
        fleet.Client(scheduler_url) as client,
        pytest.raises(fleet.BrokerRefused, match=r"queue 'tsm\.replies\..*docs/fleet\.md"),
    ):
        client.submit(BODY, hosts=["web01"])
