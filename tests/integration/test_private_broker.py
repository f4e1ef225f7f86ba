"""The broker that the demo and the tests bring along."""

import signal
import subprocess
import sys
from pathlib import Path

import pika
import psutil
import pytest
from brokers import PrivateBroker, Vhost, lacks, wait_until

from worker.demo.broker import BrokerError, PrivateNode, choose

pytestmark = pytest.mark.long

QUORUM = {"x-queue-type": "quorum"}
PERSISTENT = pika.BasicProperties(delivery_mode=2)


def _channel(url: str) -> pika.adapters.blocking_connection.BlockingChannel:
    return pika.BlockingConnection(pika.URLParameters(url)).channel()


def _publish(url: str, queue: str, body: bytes) -> None:
    channel = _channel(url)
    channel.queue_declare(queue, durable=True, arguments=QUORUM)
    channel.confirm_delivery()
    channel.basic_publish("", queue, body, PERSISTENT, mandatory=True)
    channel.connection.close()


def _get(url: str, queue: str) -> bytes | None:
    channel = _channel(url)
    body: bytes | None = channel.basic_get(queue, auto_ack=True)[2]
    channel.connection.close()
    return body


def test_a_published_message_is_counted_and_consumed(vhost: Vhost) -> None:
    _publish(vhost.url, "work", b"hello")
    wait_until(lambda: vhost.queue("work") == (1, 0), what="one ready message")

    channel = _channel(vhost.url)
    method, _, body = next(channel.consume("work"))
    assert body == b"hello"
    wait_until(lambda: vhost.queue("work") == (0, 1), what="one unacked message")

    channel.basic_ack(method.delivery_tag)
    wait_until(lambda: vhost.queue("work") == (0, 0), what="an empty queue")
    channel.connection.close()


def test_each_test_gets_an_empty_vhost_and_accounts_that_are_held_to_their_rights(vhost: Vhost) -> None:
    assert vhost.management("GET", f"queues/{vhost.name}") == []
    url = vhost.user("reader", "not a secret/", read="^work$")
    channel = _channel(url)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
        channel.queue_declare("work")
    channel.connection.close()


def test_a_broker_that_stops_or_crashes_keeps_a_durable_message_and_its_address(
    private_broker: PrivateBroker,
) -> None:
    broker = private_broker()
    url = broker.vhost("durable")
    _publish(url, "work", b"one")
    broker.stop()
    with pytest.raises(BrokerError, match="no answer"):
        broker.management("GET", "overview")
    broker.start()
    assert wait_until(lambda: _get(url, "work"), what="the message after a stop") == b"one"

    _publish(url, "work", b"two")
    broker.kill()
    broker.start()
    assert wait_until(lambda: _get(url, "work"), what="the message after a crash") == b"two"


def test_a_lowered_consumer_timeout_closes_a_channel_that_does_not_ack(private_broker: PrivateBroker) -> None:
    broker = private_broker(advanced="[{rabbit,[{consumer_timeout,3000},{channel_tick_interval,1000}]}].")
    url = broker.vhost("hasty")
    _publish(url, "work", b"slow")
    channel = _channel(url)
    next(channel.consume("work"))

    def given_up() -> bool:
        channel.connection.process_data_events(0.1)
        return bool(channel.is_closed)

    wait_until(given_up, 20, "the broker to close the channel")
    channel.connection.close()


HOLD = """
import sys
from worker.demo.broker import PrivateNode

with PrivateNode() as node:
    print(node.pid, node.directory, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_private_node_leaves_nothing_behind_however_its_owner_ends(how: signal.Signals) -> None:
    problem = PrivateNode.obstacle()
    if problem:
        lacks(problem)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as owner:
        assert owner.stdout is not None
        pid, directory = owner.stdout.readline().decode().split()
        before = _processes_of(directory)
        assert int(pid) in before
        assert len(before) >= 3, "the node, its epmd and the guard at the least"
        owner.send_signal(how)
        owner.wait()
    wait_until(lambda: not _processes_of(directory) and not Path(directory).exists(), 20, "nothing left")


def _processes_of(directory: str) -> set[int]:
    """Return those that work in the directory, or were told of it, epmd and the guard among them."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(directory) or directory in process.cmdline():
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def test_a_node_that_cannot_start_says_why_and_leaves_its_log_where_it_was_told_to(tmp_path: Path) -> None:
    problem = PrivateNode.obstacle()
    if problem:
        lacks(problem)
    with pytest.raises(BrokerError, match=r"unknown variable: no\.such\.key"):
        PrivateNode(tmp_path / "node", config="no.such.key = 1").__enter__()
    assert "no.such.key" in (tmp_path / "node" / "rabbitmq.log").read_text()
    assert not _processes_of(str(tmp_path))


@pytest.mark.parametrize("kind", ["podman", "private:/nowhere"])
def test_a_broker_that_cannot_be_had_is_explained_in_one_line(kind: str) -> None:
    with pytest.raises(BrokerError, match=r"podman|nowhere") as error:
        choose(kind)
    assert len(str(error.value).splitlines()) == 1
