"""Fixtures for every test: a real RabbitMQ, chosen by TSM_WORKER_TEST_BROKER, and a fresh vhost on it per test."""

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from brokers import PrivateBroker, Vhost, lacks

from worker.demo.broker import Broker, BrokerError, choose, open_broker

BROKER = pytest.StashKey[str]()

# A shell's background jobs ignore Ctrl-C, and what they start would, too; the tests send it to see what it does.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which RabbitMQ it was: deploy/test.sh puts this line beside the closing one."""
    if BROKER in terminalreporter.config.stash:
        terminalreporter.write_line(terminalreporter.config.stash[BROKER])


@pytest.fixture(scope="session")
def broker_kind() -> str:
    """Give the kind of broker this run uses: docker, private or private:FOLDER."""
    try:
        return choose(os.environ.get("TSM_WORKER_TEST_BROKER", "auto"))
    except BrokerError as error:
        lacks(str(error))


@pytest.fixture(scope="session")
def broker(broker_kind: str, request: pytest.FixtureRequest) -> Iterator[Broker]:
    """One RabbitMQ for the whole run; a test that stops it or alters it asks for `private_broker` instead."""
    with open_broker(broker_kind) as broker:
        request.config.stash[BROKER] = f"RabbitMQ {broker.version} ({broker_kind})"
        yield broker


@pytest.fixture
def vhost(broker: Broker) -> Iterator[Vhost]:
    """Give a fresh vhost of the run's RabbitMQ, deleted after the test."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    yield Vhost(broker, name, broker.vhost(name))
    broker.delete_vhost(name)


@pytest.fixture
def private_broker(broker_kind: str) -> Iterator[PrivateBroker]:
    """Return a function (config="", advanced="[].") that starts a RabbitMQ of the test's own.

    It is of the same kind, and so of the same version, as the run's `broker`, and goes with the test.
    """
    with ExitStack() as stack:

        def start(config: str = "", advanced: str = "[].") -> Broker:
            return stack.enter_context(open_broker(broker_kind, config, advanced))

        yield start
