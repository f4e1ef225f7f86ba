"""Who is there: what the hosts have said of themselves, read from the stream `tsm.presence`.

Reading a stream takes nothing from it: any number of readers, each from where it likes. What it costs is in
docs/fleet.md.
"""

import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker
from pika.spec import BasicProperties

from worker.broker import topology
from worker.broker.connection import NOT_FOUND, BrokerRefused, BrokerUnreachable, explain, out_of_reach
from worker.fleet.batch import BatchError, check_id

_PREFETCH = 1000
_QUIET = 2.0  # seconds without a message after which a stream is taken to have no more
_SETTLED = 0.2  # the same, once its end as it was at the beginning is reached
_LONGEST = 60.0  # seconds for all of it


class Job(msgspec.Struct, frozen=True):
    """A job that a host has not finished. `accepted_at`: seconds since 1970."""

    request_id: str
    state: str
    accepted_at: float


class Present(msgspec.Struct, frozen=True):
    """What a host last said of itself. `time`, seconds since 1970, is by the host's own clock.

    `state` is that of its jobs: `idle`, `accepted`, `running`, `waiting` for another try; or `stopped`. `every` is
    how many seconds pass at most until it speaks again.
    """

    host: str
    time: float
    every: float
    state: str
    groups: tuple[str, ...]
    version: str
    platform: str
    slots: int
    jobs: tuple[Job, ...]

    @property
    def silent(self) -> bool:
        """Whether it has missed its time to speak, without having said that it stops."""
        return self.state != "stopped" and time.time() - self.time > 1.5 * self.every


def read(parameters: pika.ConnectionParameters, since: float) -> list[Present]:
    """Return what each host that spoke in the last `since` seconds last said, by host.

    Raise BatchError where nobody has declared the stream, BrokerRefused or BrokerUnreachable.
    """
    try:
        with pika.BlockingConnection(parameters) as connection:
            return _Reader(connection).read(since)
    except ChannelClosedByBroker as error:
        if error.reply_code == NOT_FOUND:
            raise BatchError(
                f"the broker has no stream {topology.PRESENCE_QUEUE}: no worker has declared it, or its administrator "
                "has not; docs/fleet.md has its arguments"
            ) from error
        raise BrokerRefused(
            f"the broker refuses: {explain(error)}; docs/fleet.md lists a scheduler's rights"
        ) from error
    except (AMQPError, OSError) as error:
        raise BrokerUnreachable(out_of_reach(parameters, error)) from error


class _Reader:
    """Reads the stream up to where it ended when the reading began; what comes after is for the next reader."""

    def __init__(self, connection: pika.BlockingConnection) -> None:
        self._connection = connection
        self._channel = connection.channel()
        self._channel.basic_qos(prefetch_count=_PREFETCH)
        self._found: dict[str, Present] = {}
        self._offset = -1
        self._unacked = 0

    def read(self, since: float) -> list[Present]:
        end = self._end()
        if end is not None:
            self._consume(datetime.fromtimestamp(time.time() - since, UTC))
            deadline = time.monotonic() + _LONGEST
            while self._wait(_SETTLED if self._offset >= end else _QUIET) and time.monotonic() < deadline:
                pass
        return sorted(self._found.values(), key=lambda present: present.host)

    def _end(self) -> int | None:
        """Return the offset at which the stream's last chunk begins, None if it is empty."""
        tag = self._consume("last")
        self._wait(_QUIET)
        self._channel.basic_cancel(tag)
        end, self._offset = self._offset, -1
        return None if end < 0 else end

    def _consume(self, offset: str | datetime) -> str:
        return str(
            self._channel.basic_consume(
                topology.PRESENCE_QUEUE, self._on_message, arguments={"x-stream-offset": offset}
            )
        )

    def _wait(self, quiet: float) -> bool:
        """Whether anything came within so many seconds."""
        before = self._offset
        deadline = time.monotonic() + quiet
        while self._offset == before and (left := deadline - time.monotonic()) > 0:
            self._connection.process_data_events(left)
        return self._offset != before

    def _on_message(self, _channel: object, method: Any, properties: BasicProperties, body: bytes) -> None:
        self._offset = int((properties.headers or {})["x-stream-offset"])
        self._unacked += 1
        if self._unacked >= _PREFETCH // 4:
            self._channel.basic_ack(method.delivery_tag, multiple=True)
            self._unacked = 0
        try:
            present = msgspec.json.decode(body, type=Present)
            check_id(present.host)
        except (BatchError, msgspec.DecodeError):
            return
        known = self._found.get(present.host)
        if known is None or known.time <= present.time:
            self._found[present.host] = present
