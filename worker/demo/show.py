"""The demo: a RabbitMQ of its own, three hosts, five requests, and what comes back.

Broker, daemons, XML and the verdicts on Linux volumes are the real ones. The devices and dsmc are stand-ins.
"""

import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

import pika
from lxml import etree
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from worker.broker import topology
from worker.broker.connection import explain
from worker.demo import hosts
from worker.demo.broker import Broker, open_broker
from worker.demo.hosts import Host
from worker.errors import TsmWorkerError
from worker.words import Outcome

SAMPLE = Path(__file__).with_name("backup-image-request.xml")

_PATIENCE = 60.0  # seconds for all the responses; about 3 on two idle cores
_WIDTH = 120  # columns where there is no terminal to ask


class DemoFailed(TsmWorkerError):
    """The demo did not go as it should."""


@dataclass(frozen=True, slots=True)
class Case:
    """One request of the demo and the outcome it is to have; without a time limit it is given a minute."""

    host: str
    volume: str
    expected: Outcome
    limit: int = 60

    @property
    def request(self) -> bytes:
        """The request's XML: for win01 the sample as it stands."""
        if self.host == "win01":
            return SAMPLE.read_bytes()
        return f"""\
<tsm-request>
 <operation-name>backup-image</operation-name>
 <command-request>
   <timeout-secs>{self.limit}</timeout-secs>
   <command-options>
     <compression>yes</compression>
     <mode>selective</mode>
   </command-options>
   <command-arguments>
     <volume-list>{self.volume}</volume-list>
   </command-arguments>
 </command-request>
</tsm-request>
""".encode()


CASES = (
    Case("web01", "/dev/sdb1", Outcome.COMPLETED),
    Case("db01", "/dev/vg0/data", Outcome.COMPLETED),
    Case("win01", "e:", Outcome.COMPLETED),
    Case("db01", "/gpfs/fs1", Outcome.REFUSED),
    Case("web01", "/dev/sdb2", Outcome.TIMED_OUT, limit=1),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a case."""

    case: Case
    request_id: str
    outcome: str
    attempts: int
    response: str

    @property
    def error_code(self) -> str:
        """The response's error code; empty where it worked."""
        return self._root.findtext("metadata/error/code", "")

    @property
    def seconds(self) -> float:
        """How long dsmc ran."""
        return sum(int(each.text or 0) for each in self._root.iter("execution-milliseconds")) / 1000

    @property
    def _root(self) -> etree._Element:
        return etree.fromstring(self.response.encode())


def show(*, as_json: bool) -> None:
    """Run the demo. Raise DemoFailed if an outcome is not the expected one, BrokerError where no broker can be had."""
    talk = Console(stderr=True, highlight=False)
    data = Console(width=None if sys.stdout.isatty() else _WIDTH)
    answers: list[Answer] = []
    with _in_order() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="tsm-worker-demo-")))
        broker = _broker(stack, talk)
        try:
            parameters = pika.URLParameters(broker.url)
            for name in hosts.BEHAVIOURS:  # before the hosts are there, so that requests can wait for them
                topology.declare(parameters, name, ())
            fleet = stack.enter_context(hosts.running(folder, broker.url))
            channel = stack.enter_context(pika.BlockingConnection(parameters)).channel()
            for answer in _answers(channel, fleet, talk):
                answers.append(answer)
                _print(answer, None if as_json else data)
        except AMQPError as error:
            raise DemoFailed(f"RabbitMQ left the demo: {explain(error)}") from error
        if not as_json:
            data.print(_table(answers))
    wrong = [
        f"{answer.case.host} {answer.case.volume} is {answer.outcome} in place of {answer.case.expected}"
        for answer in answers
        if answer.outcome != answer.case.expected
    ]
    if wrong:
        raise DemoFailed("; ".join(wrong))


@contextmanager
def _in_order() -> Iterator[ExitStack]:
    """Give a stack that is unwound undisturbed, whatever ends the demo: TERM and HUP end it as Ctrl-C does."""
    endings = [
        n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN
    ]

    def be_deaf() -> None:
        for number in endings:
            signal.signal(number, signal.SIG_IGN)

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        be_deaf()
        raise KeyboardInterrupt

    for number in endings:
        signal.signal(number, end)
    with ExitStack() as stack:
        try:
            yield stack
        finally:
            be_deaf()


def _broker(stack: ExitStack, talk: Console) -> Broker:
    """Start a RabbitMQ that ends with the stack."""
    columns = (SpinnerColumn(), "Starting a RabbitMQ, about ten seconds", TimeElapsedColumn())
    if not talk.is_terminal:
        talk.print("Starting a RabbitMQ, about ten seconds ...")
    with Progress(*columns, console=talk, transient=True, disable=not talk.is_terminal) as progress:
        progress.add_task("")
        broker = stack.enter_context(open_broker(os.environ.get("TSM_WORKER_TEST_BROKER", "auto")))
    talk.print(f"RabbitMQ {broker.version} serves at {broker.host}:{broker.port}.")
    return broker


def _answers(channel: BlockingChannel, fleet: Mapping[str, Host], talk: Console) -> Iterator[Answer]:
    """Send the requests, and yield what comes back as it comes. Raise DemoFailed where nothing will."""
    channel.confirm_delivery()
    reply_to = channel.queue_declare("", exclusive=True).method.queue
    waiting = {str(uuid.uuid4()): case for case in CASES}
    for correlation_id, case in waiting.items():
        properties = pika.BasicProperties(
            message_id=str(uuid.uuid4()),
            correlation_id=correlation_id,
            reply_to=reply_to,
            content_type="application/xml",
            delivery_mode=2,
        )
        channel.basic_publish(
            topology.REQUESTS, f"host.{case.host}", case.request, properties, mandatory=True
        )
    talk.print(f"Sent {len(waiting)} requests to {', '.join(fleet)}; waiting for the responses ...")
    deadline = time.monotonic() + _PATIENCE
    for _, properties, body in channel.consume(reply_to, auto_ack=True, inactivity_timeout=0.5):
        if properties and properties.correlation_id in waiting:
            case, told = waiting.pop(properties.correlation_id), properties.headers
            yield Answer(
                case, told["tsm-request-id"], told["tsm-outcome"], told["tsm-attempts"], body.decode()
            )
        if not waiting:
            return
        for host in (fleet[case.host] for case in waiting.values()):
            if not host.alive:
                raise DemoFailed(f"{host.name} ended by itself; its log ends with:\n{host.last_words}")
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"{host.name} gave no answer within {_PATIENCE:.0f} s; its log ends with:\n{host.last_words}"
                )


def _print(answer: Answer, console: Console | None) -> None:
    """Print an answer: as JSON without a console, else its response under a heading."""
    if console is None:
        told = {
            "host": answer.case.host,
            "request_id": answer.request_id,
            "outcome": answer.outcome,
            "attempts": answer.attempts,
            "response": answer.response,
        }
        print(json.dumps(told), flush=True)
        return
    console.rule(Text.assemble(f"{answer.case.host} {answer.case.volume} ", _coloured(answer.outcome)))
    if console.is_terminal:
        console.print(
            Syntax(answer.response, "xml", theme="ansi_dark", background_color="default", word_wrap=True)
        )
    else:
        console.out(answer.response, highlight=False)  # whole lines, fit to be parsed


def _table(answers: list[Answer]) -> Table:
    """Return the closing table."""
    table = Table("host", "volume", "outcome", "error code", "seconds", "attempts", box=box.SIMPLE)
    for answer in answers:
        table.add_row(
            answer.case.host,
            answer.case.volume,
            _coloured(answer.outcome),
            answer.error_code or "-",
            f"{answer.seconds:.2f}" if answer.attempts else "-",
            str(answer.attempts),
        )
    return table


def _coloured(outcome: str) -> Text:
    return Text(outcome, {Outcome.COMPLETED: "green", Outcome.REFUSED: "yellow"}.get(Outcome(outcome), "red"))
