"""A host and a requester on the test's own vhost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import Vhost
from hosts import Host, MakeHost, Requester


@pytest.fixture
def make_host(tmp_path: Path) -> Iterator[MakeHost]:
    """Give a function that makes a host, its stand-in dsmc planned to succeed; its worker ends with the test."""
    made: list[Host] = []

    def make(url: str, name: str = "web01", **settings: dict[str, object]) -> Host:
        directory = tmp_path / name
        directory.mkdir()
        host = Host(directory, name)
        host.configure(url, **settings)
        host.plan({"seconds": 0})
        made.append(host)
        return host

    yield make
    for host in made:
        if host.worker is not None:
            host.worker.kill()
            host.worker.wait()


@pytest.fixture
def host(make_host: MakeHost, vhost: Vhost) -> Host:
    """Give a host on the test's vhost; its worker is not yet started."""
    return make_host(vhost.url)


@pytest.fixture
def scheduler(vhost: Vhost) -> Iterator[Requester]:
    """Give a requester on the test's vhost."""
    scheduler = Requester(vhost.url)
    yield scheduler
    scheduler.close()
