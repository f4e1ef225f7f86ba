"""What acceptance tests drive: a host with a worker on it, and a requester that asks and gets answers."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika
from brokers import wait_until
from lxml import etree

from worker.broker import topology
from worker.demo import dsmc

STAND_IN_HOST = Path(__file__).with_name("stand_in_host.py")
REPOSITORY = STAND_IN_HOST.parents[1]


def request(*volumes: str, timeout: int | None = None, options: str = "") -> bytes:
    """Return a request for an image backup of `volumes` in one command."""
    limit = "" if timeout is None else f"<timeout-secs>{timeout}</timeout-secs>"
    named = " ".join(f'"{volume}"' if " " in volume else volume for volume in volumes)
    return (
        "<tsm-request><operation-name>backup-image</operation-name><command-request>"
        f"{limit}<command-options>{options}</command-options>"
        f"<command-arguments><volume-list>{named}</volume-list></command-arguments>"
        "</command-request></tsm-request>"
    ).encode()


@dataclass
class Host:
    """A host of its own name, state directory and stand-in dsmc; `worker` is its daemon while one runs."""

    directory: Path
    name: str = "web01"
    worker: "subprocess.Popen[bytes] | None" = None
    main: tuple[str, ...] = (str(STAND_IN_HOST),)
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def log_file(self) -> Path:
        return self.directory / "worker.log"

    @property
    def config_file(self) -> Path:
        return self.directory / "worker.toml"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "TSM_WORKER_CONFIG": str(self.config_file),
            "DSM_STANDIN": str(self.directory / "plan.json"),
            "PYTHONPATH": str(REPOSITORY),
            **self.extra,
        }

    def configure(self, url: str, **settings: dict[str, Any]) -> None:
        """Write the configuration: tables by keyword, `top` for the keys outside any."""
        tables: dict[str, dict[str, Any]] = {
            "top": {"host": self.name, "state_dir": str(self.state)},
            "broker": {"url": url},
            "dsmc": {"command": dsmc.command(), "kill_grace": "1s"},
        }
        for name, values in settings.items():
            tables[name] = {**tables.get(name, {}), **values}
        text = ""
        for name, values in tables.items():
            text += "" if name == "top" else f"[{name}]\n"
            text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        self.config_file.write_text(text)

    def plan(self, default: Mapping[str, Any] | None = None, **volumes: Any) -> None:
        """Tell the stand-in dsmc what to do, by the last part of a volume's name."""
        dsmc.write_plan(
            self.directory / "plan.json",
            log=self.directory / "runs.ndjson",
            default=dict(default or {}),
            volumes={f"/dev/stand-in/{name}": behaviour for name, behaviour in volumes.items()},
        )

    def runs(self) -> list[dict[str, Any]]:
        """Return the stand-in's own account of its runs."""
        log = self.directory / "runs.ndjson"
        return dsmc.runs(log) if log.exists() else []

    def start(self, *, wait: bool = True) -> "subprocess.Popen[bytes]":
        """Start the worker; return once it takes requests."""
        seen = self.said("broker connected")
        with self.log_file.open("ab") as log:
            self.worker = subprocess.Popen(
                [sys.executable, *self.main], stdout=log, stderr=log, env=self.environment, cwd="/"
            )
        if wait:
            wait_until(
                lambda: self.said("broker connected") > seen,
                30,
                f"{self.name} to connect; {self.log()[-2000:]}",
            )
        return self.worker

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 30) -> int:
        """Signal the worker, wait for its end and return its exit code."""
        assert self.worker is not None
        self.worker.send_signal(number)
        code = self.worker.wait(timeout)
        self.worker = None
        return code

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the log's lines of one event."""
        lines = (json.loads(line) for line in self.log().splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == event]

    def said(self, event: str) -> int:
        return len(self.events(event))


MakeHost = Callable[..., Host]


@dataclass(frozen=True)
class Answer:
    """A response as the requester gets it."""

    body: bytes
    properties: pika.BasicProperties

    @property
    def xml(self) -> etree._Element:
        return etree.fromstring(self.body)

    @property
    def headers(self) -> dict[str, Any]:
        return dict(self.properties.headers or {})

    def text(self, path: str) -> str | None:
        return self.xml.findtext(path)

    @property
    def error(self) -> str | None:
        return self.text("metadata/error/code")


class Requester:
    """A scheduler: publishes requests by the contract and gets the answers from its own reply queue."""

    def __init__(self, url: str, queue: str | None = None) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()
        self.queue = queue or f"replies-{uuid.uuid4().hex[:8]}"
        self.channel.queue_declare(self.queue)

    def ask(
        self, body: bytes, key: str = "host.web01", *, message_id: str | None = None, **properties: Any
    ) -> str:
        """Publish a request; return its message id."""
        message_id = message_id or uuid.uuid4().hex
        properties = {"reply_to": self.queue, "message_id": message_id, "delivery_mode": 2, **properties}
        self.channel.basic_publish(
            topology.REQUESTS, key, body, pika.BasicProperties(**properties), mandatory=True
        )
        return message_id

    def answer(self, timeout: float = 20, queue: str | None = None) -> Answer:
        """Return the next response; fail the test when none comes within `timeout` seconds."""

        def get() -> Answer | None:
            method, properties, body = self.channel.basic_get(queue or self.queue, auto_ack=True)
            return None if method is None else Answer(body, properties)

        answer = wait_until(get, timeout, "a response")
        assert answer is not None
        return answer

    def silent(self) -> bool:
        """Whether no further response is there."""
        return bool(self.channel.queue_declare(self.queue, passive=True).method.message_count == 0)

    def close(self) -> None:
        if self.connection.is_open:
            self.connection.close()


@contextmanager
def requester(url: str) -> Iterator[Requester]:
    scheduler = Requester(url)
    try:
        yield scheduler
    finally:
        scheduler.close()


def group_is_gone(pid: int) -> bool:
    """Whether no living process is left in the process group."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == pid and fields[0] not in "ZX":
                return False
    return True


def resident(pid: int) -> tuple[float, float]:
    """Return a process's resident memory now and at its peak, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    return int(values["VmRSS"].split()[0]) / 1024, int(values["VmHWM"].split()[0]) / 1024


def elapsed(since: float) -> float:
    return time.monotonic() - since
