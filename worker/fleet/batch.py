"""A batch: one request, the hosts it was sent to, and what has come back; all of it as plain values.

A batch is known by its id alone. On the broker it has two durable queues that go a day after they were last used:
`tsm.replies.<id>`, where the hosts answer, and `tsm.batch.<id>`, its ledger (worker/fleet/mailbox.py). A request's
message id is `<id>.<host>`, and `<id>` where a group or all hosts are asked, so submitting a batch again asks
again, and runs nothing twice.
"""

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from lxml import etree

from worker.errors import TsmWorkerError
from worker.words import Event, Outcome

# dsmc's own total of a run, in its English catalogue; its number format is the system's (german-number-format-*.txt).
_TRANSFERRED = re.compile(r"Total number of bytes transferred:\s*([0-9.,]+)\s+([KMGTP]?)B")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class BatchError(TsmWorkerError):
    """A batch cannot be sent or collected; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What was asked of whom. Times are seconds since 1970.

    `hosts` are those asked by name; `targets` the routing keys where a group or all hosts were asked. `expect` is
    how many answers make it complete, None where nobody knows. `unroutable` are the hosts or targets that no queue
    belongs to: they were not asked.
    """

    id: str
    hosts: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    expect: int | None = None
    submitted_at: float = field(default_factory=time.time)
    expires_at: float | None = None
    unroutable: tuple[str, ...] = ()

    @property
    def awaited(self) -> int | None:
        """How many answers make it complete; None where nobody knows."""
        if self.hosts:
            return len(self.asked)
        return 0 if set(self.targets) <= set(self.unroutable) else self.expect

    @property
    def asked(self) -> tuple[str, ...]:
        """The hosts asked by name that have a queue."""
        missing = set(self.unroutable)
        return tuple(host for host in self.hosts if host not in missing)

    def request_id(self, host: str) -> str:
        """Return the message id of the request to a host."""
        return f"{self.id}.{host}" if self.hosts else self.id

    def knows(self, host: str, request_id: str) -> bool:
        """Whether an answer of this host to this request belongs here."""
        return request_id == self.request_id(host) and (not self.hosts or host in self.hosts)


def check_id(text: str) -> str:
    """Return a batch's id, or a host's or group's name, as it is. Raise BatchError if it cannot be one."""
    if not _NAME.fullmatch(text):
        raise BatchError(
            f"{text[:120]!r} is no name: letters, digits, '.', '_' and '-', at most 100, a letter or digit first"
        )
    return text


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a batch's ledger; the ledger is all of them taken together.

    The first one says what was asked; each later one, that of an answer, says that it was handed over.
    """

    batch: Batch | None = None
    answered: dict[str, Outcome] = {}

    def encode(self) -> bytes:
        """Return it as a message's body."""
        return msgspec.json.encode(self)

    @classmethod
    def merged(cls, bodies: Iterable[bytes]) -> "Record":
        """Given the bodies of a ledger's messages, return what they say together."""
        batch: Batch | None = None
        answered: dict[str, Outcome] = {}
        for record in (msgspec.json.decode(body, type=cls) for body in bodies):
            batch = record.batch or batch
            answered |= record.answered
        return cls(batch, answered)


@dataclass(frozen=True, slots=True)
class Answer:
    """One host's response. `attempts` counts dsmc runs; `response` is the XML.

    `account` is the broker account it was sent by, which RabbitMQ has verified.
    """

    host: str
    request_id: str
    outcome: Outcome
    attempts: int
    response: str
    account: str | None = None

    @property
    def error(self) -> str | None:
        """Why it did not work, in one line, as `code: message`; None where it did."""
        if self.outcome.successful:
            return None
        try:
            found = etree.fromstring(self.response.encode()).find("metadata/error")
        except etree.XMLSyntaxError:
            return None
        if found is None:
            return None
        return f"{found.findtext('code', '')}: {' '.join(found.findtext('message', '').split())}"

    @property
    def transferred(self) -> int | None:
        """How many bytes went to the server by dsmc's own rounded total; None where it does not say, or not in English."""
        found = _TRANSFERRED.findall(self.response)
        return sum(_bytes(number, unit) for number, unit in found) if found else None

    def told(self) -> dict[str, Any]:
        """Return it as `submit --json` prints it."""
        return {
            "host": self.host,
            "request_id": self.request_id,
            "outcome": self.outcome,
            "attempts": self.attempts,
            "transferred": self.transferred,
            "response": self.response,
        }


def _bytes(number: str, unit: str) -> int:
    """Given `1.234,56` or `1,234.56` and the letter of a unit, return bytes: two last digits are a fraction."""
    whole, fraction = (number[:-3], number[-2:]) if number[-3:-2] in (".", ",") else (number, "0")
    digits = whole.replace(".", "").replace(",", "") or "0"
    return round(float(f"{digits}.{fraction}") * (1 << 10 * " KMGTP".index(unit or " ")))


@dataclass(frozen=True, slots=True)
class Sign:
    """An event of a host's job, while a batch is watched. `time`: seconds since 1970, by the host's clock."""

    host: str
    request_id: str
    event: Event
    time: float
    outcome: Outcome | None = None
    reason: str | None = None
    next_try_at: float | None = None


def answer(headers: Mapping[str, Any] | None, body: bytes, account: str | None) -> Answer | None:
    """Given a response message, return the answer in it, None if it is nothing of the kind."""
    headers = headers or {}
    try:
        return Answer(
            host=check_id(headers["tsm-host"]),  # it may become the name of a file
            request_id=str(headers["tsm-request-id"]),
            outcome=Outcome(headers["tsm-outcome"]),
            attempts=int(headers["tsm-attempts"]),
            response=body.decode(errors="replace"),
            account=account,
        )
    except (BatchError, KeyError, ValueError, TypeError):
        return None


def sign(body: bytes) -> Sign | None:
    """Given an event message, return the sign in it, None if it is nothing of the kind."""
    try:
        found = msgspec.json.decode(body, type=Sign)
        check_id(found.host)
    except (BatchError, msgspec.DecodeError):
        return None
    return found
