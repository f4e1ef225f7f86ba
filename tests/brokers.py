"""What tests share: a vhost of their own on a real RabbitMQ, waiting with a deadline, and saying what a machine lacks."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeVar

import pytest

from worker.demo.broker import Broker, ManagementError

T = TypeVar("T")

# What the fixture `private_broker` gives: a function of `config` and `advanced`.
PrivateBroker = Callable[..., Broker]


class Counts(NamedTuple):
    """How many messages wait in a queue, and how many are out with consumers."""

    ready: int
    unacked: int


@dataclass(frozen=True)
class Vhost:
    """A fresh vhost of one test; `url` is its AMQP address."""

    broker: Broker
    name: str
    url: str

    def management(self, method: str, path: str, body: object = None) -> Any:
        """Ask the broker's management API; `path` is what follows `/api/`."""
        return self.broker.management(method, path, body)

    def queue(self, name: str) -> Counts:
        """Return a queue's counts, about a second old; (0, 0) while unknown or without such a queue."""
        try:
            queue = self.broker.queue(self.name, name)
        except ManagementError as error:
            if error.status != 404:
                raise
            return Counts(0, 0)
        return Counts(queue.get("messages_ready", 0), queue.get("messages_unacknowledged", 0))

    def user(self, name: str, password: str, configure: str = "", write: str = "", read: str = "") -> str:
        """Create an account with these permissions here; return its AMQP address."""
        return self.broker.user(name, password, self.name, configure, write, read)


def wait_until(condition: Callable[[], T], timeout: float = 10.0, what: str = "the condition") -> T:
    """Return the first true value of `condition`; fail the test when there was none within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout:g} s in vain for {what}; the last value was {value!r}")
        time.sleep(0.05)


def lacks(reason: str) -> NoReturn:
    """Skip the test for what this machine lacks; where all parts were brought (--all), fail instead."""
    if os.environ.get("TSM_WORKER_TEST_ALL") == "1":
        pytest.fail(f"TSM_WORKER_TEST_ALL=1, and yet: {reason}")
    pytest.skip(reason)
