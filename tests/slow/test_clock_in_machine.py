"""A clock that somebody sets, in a machine of our own: limits and waits go by one that nobody can."""

import json
from collections.abc import Iterator

import pytest
from brokers import Vhost, wait_until
from guest import LOG, PLAN, RUNS, install, start
from hosts import Requester, request
from machine import Machine

pytestmark = pytest.mark.slow


@pytest.fixture
def guest(vhost: Vhost) -> Iterator[Machine]:
    """Give a machine with a worker in it and a partition of type 0x83, /dev/vdc1."""
    with Machine(disks=(16,)) as machine:
        machine.say("echo ',,83' | sfdisk --quiet --label dos /dev/vdc; udevadm settle")
        install(machine, vhost.url, {"default": {"hang": True}})
        start(machine)
        yield machine


def test_a_clock_set_back_stretches_neither_a_time_limit_nor_a_wait(guest: Machine, vhost: Vhost) -> None:
    scheduler = Requester(vhost.url)
    scheduler.ask(request("/dev/vdc1", timeout=8), "host.vm01")
    wait_until(lambda: guest.run(f"cat {RUNS}").output, 60, "dsmc to run in the machine")
    guest.say("date -s '-2 hours'")
    answer = scheduler.answer(40)
    assert answer.error == "timed-out"
    took = int(answer.text("commands-output/command-output/metadata/execution-milliseconds") or 0)
    assert 8_000 <= took < 20_000

    failing_once = {"log": RUNS, "volumes": {"/dev/vdc1": [{"messages": ["ANS1017E"]}]}}
    guest.write(PLAN, json.dumps(failing_once))
    scheduler.ask(request("/dev/vdc1"), "host.vm01")
    wait_until(lambda: "waits for another try" in guest.say(f"cat {LOG}"), 60, "the wait")
    guest.say("date -s '-2 hours'")
    answer = scheduler.answer(60)
    assert (answer.error, answer.headers["tsm-attempts"]) == ("dsmc-failed", 3)
    scheduler.close()
