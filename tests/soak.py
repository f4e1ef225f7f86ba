"""The soak: many requests, a fault every few seconds, then an audit. A command, not a test: see deploy/soak.sh."""

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pika
from faults import Proxy, full_disk, mount_small, unmount
from hosts import Answer, Host, request
from pika.exceptions import AMQPError

from worker.broker import topology
from worker.demo.broker import Broker, open_broker
from worker.journal import Journal

REPLIES = "soak-replies"
PATIENCE = 240.0  # seconds without any progress after the last fault, until the soak gives up


class Requester:
    """Publishes requests and collects answers, however often the broker goes away in between."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: pika.BlockingConnection | None = None
        self.answers: dict[str, list[Answer]] = {}
        self.letters: Counter[str] = Counter()

    def channel(self) -> Any:
        if self._connection is None or not self._connection.is_open:
            self._connection = pika.BlockingConnection(pika.URLParameters(self._url))
            self._channel = self._connection.channel()
            self._channel.confirm_delivery()
            self._channel.queue_declare(REPLIES, durable=True, arguments={"x-queue-type": "quorum"})
        return self._channel

    def publish(self, name: str) -> None:
        """Publish until the broker has confirmed; the message id makes a repetition harmless."""
        properties = pika.BasicProperties(message_id=name, reply_to=REPLIES, delivery_mode=2)
        while True:
            try:
                self.channel().basic_publish(
                    topology.REQUESTS,
                    "host.web01",
                    request(f"/dev/stand-in/{name}", timeout=20),
                    properties,
                    mandatory=True,
                )
            except (AMQPError, OSError):
                self._lost()
            else:
                return

    def collect(self) -> None:
        """Take every answer and dead letter that is there."""
        with suppress(AMQPError, OSError):
            for queue in (REPLIES, topology.RESPONSES_QUEUE, topology.DEAD_QUEUE):
                while True:
                    method, properties, body = self.channel().basic_get(queue)
                    if method is None:
                        break
                    if queue == topology.DEAD_QUEUE:
                        self.letters[properties.headers["tsm-request-id"]] += 1
                    else:
                        answer = Answer(body, properties)
                        self.answers.setdefault(answer.headers["tsm-request-id"], []).append(answer)
                    self.channel().basic_ack(method.delivery_tag)
            return
        self._lost()

    def _lost(self) -> None:
        self._connection = None
        time.sleep(0.3)


class Soak:
    """One seeded run of it."""

    def __init__(self, host: Host, broker: Broker, proxy: Proxy, chance: random.Random) -> None:
        self.host = host
        self.broker = broker
        self.proxy = proxy
        self.chance = chance
        self.faults: Counter[str] = Counter()
        self._next: list[Callable[[], None]] = []
        self.kinds: list[Callable[[], None]] = [
            self.kill_worker,
            self.kill_worker,
            self.stop_worker,
            self.kill_dsmc,
            self.kill_supervisor,
            self.stop_broker,
            self.kill_broker,
            self.cut_network,
            self.swallow_network,
            self.fill_disk,
            self.freeze_worker,
        ]

    def fault(self) -> None:
        """Do one fault and mend what has to be mended; each kind comes up before any comes again."""
        if not self._next:
            self._next = self.chance.sample(self.kinds, len(self.kinds))
        kind = self._next.pop()
        self.faults[kind.__name__.replace("_", " ")] += 1
        kind()

    def kill_worker(self) -> None:
        self.host.stop(signal.SIGKILL)
        self.host.start(wait=False)

    def stop_worker(self) -> None:
        if self.host.stop(timeout=60) != 0:
            raise SystemExit("a worker asked to stop did not exit 0")
        self.host.start(wait=False)

    def kill_dsmc(self) -> None:
        self._kill(lambda words: b"backup" in words and b"/bin/sh" not in words)

    def kill_supervisor(self) -> None:
        self._kill(lambda words: b"/bin/sh" in words and any(w.endswith(b"supervisor.sh") for w in words))

    def _kill(self, meant: Callable[[list[bytes]], bool]) -> None:
        for process in of_runs(self.host):
            with suppress(OSError):
                if meant((process / "cmdline").read_bytes().split(b"\0")):
                    os.kill(int(process.name), signal.SIGKILL)

    def stop_broker(self) -> None:
        self.broker.restart()

    def kill_broker(self) -> None:
        self.broker.kill()
        self.broker.start()

    def cut_network(self) -> None:
        self.proxy.cut()

    def swallow_network(self) -> None:
        self.proxy.swallow = True
        time.sleep(self.chance.uniform(1, 8))
        self.proxy.swallow = False
        self.proxy.cut()

    def fill_disk(self) -> None:
        filler = full_disk(self.host.state)
        time.sleep(self.chance.uniform(0.5, 3))
        filler.unlink()

    def freeze_worker(self) -> None:
        worker = self.host.worker
        assert worker is not None
        worker.send_signal(signal.SIGSTOP)
        time.sleep(self.chance.uniform(0.5, 4))
        worker.send_signal(signal.SIGCONT)


def of_runs(host: Host) -> Iterator[Path]:
    """Yield the `/proc` directories of all living processes of the host's runs."""
    mark = f"TSM_WORKER_RUN={host.state}".encode()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                yield entry


def behaviour(chance: random.Random) -> Any:
    """Return what dsmc is to do with one request: mostly to succeed, some at a second try, some never."""
    draw = chance.random()
    seconds = {"seconds": round(chance.uniform(0, 0.4), 2)}
    if draw < 0.8:
        return seconds
    if draw < 0.9:
        return [{**seconds, "messages": ["ANS1017E"]}, seconds]
    if draw < 0.95:
        return {**seconds, "messages": ["ANS1453W"]}
    return {**seconds, "messages": ["ANS1063E"]}


def audit(soak: Soak, requester: Requester, names: list[str]) -> list[str]:
    """Return what is wrong, after the soak."""
    wrong = []
    answers = requester.answers
    completed = Counter(
        run["volume"].rpartition("/")[2]
        for run in soak.host.runs()
        if run["exit"] is not None and run["exit"] in (0, 8)
    )
    lost = [name for name in names if name not in answers]
    twice = [name for name, count in completed.items() if count > 1]
    unlike = [n for n, got in answers.items() if len({(a.properties.message_id, a.body) for a in got}) > 1]
    failed = {n for n, got in answers.items() if got[0].text("metadata/status") == "error"}
    done = {n for n in answers if n not in failed}
    journal = Journal(soak.host.state, "web01")
    outbox, open_jobs = journal.outbox_size(), journal.open_jobs()
    journal.close()
    for what, found in {
        "requests lost": lost,
        "requests run to completion twice": twice,
        "answers to one request that differ": unlike,
        "successes without a completed run": sorted(done - set(completed)),
        "failures without a dead letter": sorted(failed - set(requester.letters)),
        "dead letters without a failure": sorted(set(requester.letters) - failed),
        "outbox rows left": [outbox] if outbox else [],
        "jobs left open": open_jobs,
        "processes left": [entry.name for entry in of_runs(soak.host)],
    }.items():
        if found:
            wrong.append(f"{what}: {found}")
    print(f"requests            {len(names)}")
    print(f"responses           {sum(map(len, answers.values()))}")
    print(f"  repeated          {sum(len(got) - 1 for got in answers.values())}")
    print(f"outcomes            {dict(Counter(got[0].headers['tsm-outcome'] for got in answers.values()))}")
    print(f"runs                {len(soak.host.runs())}, to completion {sum(completed.values())}")
    print(f"dead letters        {sum(requester.letters.values())}")
    print(f"faults              {sum(soak.faults.values())}: {dict(sorted(soak.faults.items()))}")
    print(f"lost                {len(lost)}")
    print(f"run twice           {len(twice)}")
    return wrong


def main() -> int:
    """Run the soak that the command line describes; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", default="private")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder, open_broker(arguments.broker) as broker:
        port = int(re.search(r":(\d+)/", broker.url)[1])  # type: ignore[index]
        with Proxy(port) as proxy:
            host = Host(Path(folder))
            mount_small(host.state, "64m")
            try:
                return soak(arguments.requests, chance, host, broker, proxy, port)
            finally:
                if host.worker is not None:
                    host.worker.kill()
                    host.worker.wait()
                for process in of_runs(host):
                    with suppress(OSError):
                        os.kill(int(process.name), signal.SIGKILL)
                unmount(host.state)


def soak(count: int, chance: random.Random, host: Host, broker: Broker, proxy: Proxy, port: int) -> int:
    """Ask, disturb, wait and audit."""
    names = [f"r{number}" for number in range(count)]
    host.configure(
        broker.url.replace(f":{port}/", f":{proxy.port}/"),
        top={"slots": 3, "drain": "1s"},
        broker={"heartbeat": 4},
        retry={"attempts": 20, "first_delay": "100ms", "max_delay": "2s"},
    )
    host.plan({}, **{name: behaviour(chance) for name in names})
    host.start()
    disturbed = Soak(host, broker, proxy, chance)
    requester = Requester(broker.url)
    waiting = list(names)
    next_fault, progress, seen = time.monotonic() + 3, time.monotonic(), 0
    while len(requester.answers) < count:
        for _ in range(min(len(waiting), chance.randint(0, 2))):
            requester.publish(waiting.pop(0))
        requester.collect()
        if len(requester.answers) > seen:
            seen, progress = len(requester.answers), time.monotonic()
        if waiting and time.monotonic() > next_fault:
            disturbed.fault()
            print(f"{seen:5} of {count} answered, {sum(disturbed.faults.values())} faults", file=sys.stderr)
            next_fault = time.monotonic() + chance.uniform(1, 4)
        if time.monotonic() - progress > PATIENCE:
            break
        time.sleep(0.2)
    host.stop(timeout=60)
    requester.collect()
    wrong = audit(disturbed, requester, names)
    for line in wrong:
        print(f"WRONG: {line}")
    if wrong:
        (Path(tempfile.gettempdir()) / "soak-worker.log").write_text(host.log())
        print(f"the worker's log is in {tempfile.gettempdir()}/soak-worker.log", file=sys.stderr)
    print("audit failed" if wrong else "audit passed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
