"""The exchanges, queues and bindings a fleet shares, and one host's own queue.

Source: DESIGN section 6 (docs/contract.md). What exists is taken as it is: a queue declared by an administrator,
or under an earlier version of the broker, may carry other arguments, and stays.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pika
import structlog
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker, ConnectionClosedByBroker

from worker.broker.connection import NOT_FOUND, BrokerUnreachable, explain

log = structlog.get_logger()

REQUESTS = "tsm.requests"
RESPONSES = "tsm.responses"
EVENTS = "tsm.events"
DEAD = "tsm.dead"
RESPONSES_QUEUE = "tsm.responses"
DEAD_QUEUE = "tsm.dead-letters"
PRESENCE_QUEUE = "tsm.presence"

_PRESENCE = {
    "x-queue-type": "stream",
    "x-max-age": "1h",
    "x-max-length-bytes": 256 << 20,
    "x-stream-max-segment-size-bytes": 4 << 20,  # both limits are looked after a segment at a time
}

_MESSAGES_MAY_COME_BACK = 20  # deliveries of one request that kill a worker, until the broker gives it up


def host_queue(host: str) -> str:
    """Return the name of a host's own queue."""
    return f"tsm.host.{host}"


def declare(parameters: pika.ConnectionParameters, host: str, groups: Sequence[str]) -> None:
    """Make sure that all a host needs is there. Raise BrokerUnreachable, saying what the broker refused."""
    try:
        with pika.BlockingConnection(parameters) as connection:
            _declare(connection, host, groups)
            _declare_presence(connection)
    except (AMQPError, OSError) as error:
        raise BrokerUnreachable(f"the topology cannot be declared: {explain(error)}") from error


def _declare(connection: pika.BlockingConnection, host: str, groups: Sequence[str]) -> None:
    channel = connection.channel()
    for exchange in (REQUESTS, RESPONSES, EVENTS, DEAD):
        channel.exchange_declare(exchange, "topic", durable=True)
    forever = unlimited(connection)
    for queue, arguments in {
        RESPONSES_QUEUE: forever,
        DEAD_QUEUE: forever,
        host_queue(host): {
            "x-dead-letter-exchange": DEAD,
            "x-dead-letter-routing-key": f"host.{host}",
            "x-dead-letter-strategy": "at-least-once",  # needs the overflow below; drops nothing on the way
            "x-overflow": "reject-publish",
            "x-delivery-limit": _MESSAGES_MAY_COME_BACK,
        },
    }.items():
        channel = _declare_queue(connection, channel, queue, arguments)
    channel.queue_bind(RESPONSES_QUEUE, RESPONSES, RESPONSES_QUEUE)
    channel.queue_bind(DEAD_QUEUE, DEAD, "#")
    for key in (f"host.{host}", "all", *(f"group.{group}" for group in groups)):
        channel.queue_bind(host_queue(host), REQUESTS, key)


def _declare_presence(connection: pika.BlockingConnection) -> None:
    """Declare the stream that keeps who is there; a broker that has no streams goes without."""
    try:
        channel = _declare_queue(connection, connection.channel(), PRESENCE_QUEUE, _PRESENCE)
        channel.queue_bind(PRESENCE_QUEUE, EVENTS, "present.#")
    except (ChannelClosedByBroker, ConnectionClosedByBroker) as error:
        log.warning("no presence", queue=PRESENCE_QUEUE, reason=explain(error))


def _declare_queue(
    connection: pika.BlockingConnection, channel: BlockingChannel, queue: str, arguments: Mapping[str, Any]
) -> BlockingChannel:
    """Declare a queue, by default a quorum one, unless it is there; return a channel that is open."""
    try:
        channel.queue_declare(queue, passive=True)
    except ChannelClosedByBroker as error:
        if error.reply_code != NOT_FOUND:
            raise
        channel = connection.channel()
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum", **arguments})
    return channel


def unlimited(connection: pika.BlockingConnection) -> dict[str, Any]:
    """Return the arguments by which a quorum queue never gives a message up for being looked at too often.

    From 4.0 on a limit of 20 is the default and -1 lifts it; before, there is none by default and a negative
    one means none at all may come back (NServiceBus.RabbitMQ#1828).
    """
    properties: Mapping[str, Any] = connection._impl.server_properties or {}  # noqa: SLF001 -- has no public name
    version = properties.get("version", b"0")
    text = version.decode() if isinstance(version, bytes) else str(version)
    return {"x-delivery-limit": -1} if int(text.split(".")[0]) >= 4 else {}  # noqa: PLR2004
