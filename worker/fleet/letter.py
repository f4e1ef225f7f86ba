"""A dead letter: what its headers tell, how it is chosen, told, and made a request again.

Source of the headers: DESIGN section 6 (docs/contract.md) for a worker's letters; for those of the broker itself
https://www.rabbitmq.com/docs/dlx#effects (`x-death`, `x-first-death-*`).
"""

import base64
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec
from lxml import etree
from pika.spec import BasicProperties

from worker.contract import options as dsmc_options
from worker.contract import request
from worker.errors import RequestRefused
from worker.fleet import draft
from worker.words import ErrorCode, Outcome

_IDS = uuid.UUID("6f1c3a52-5f0f-4a0e-9a55-6d1f0b5c6e27")  # the root of the ids that are derived here
_HOST_QUEUE = "tsm.host."
_HOST_KEY = "host."


@dataclass(frozen=True, slots=True)
class Letter:
    """One request that was given up, and why. Times are ISO 8601, None where nobody has told.

    `outcome` and `error_code` are the contract's words, or for what the broker gave up `expired` (nobody took it in
    time) and `delivery-limit` (it was taken and lost again and again). `host` is empty where it cannot be known.
    """

    id: str
    host: str
    request_id: str
    outcome: str
    error_code: str
    reason: str
    ans_codes: tuple[str, ...] = ()
    attempts: int = 0
    exit_code: int | None = None
    volumes: tuple[str, ...] = ()
    first_seen: str | None = None
    last_tried: str | None = None
    given_up: str | None = None  # by the broker
    reply_to: str | None = None
    correlation_id: str | None = None
    last_lines: tuple[str, ...] = ()  # of dsmc's output

    @property
    def when(self) -> datetime | None:
        """The latest time that is told of it."""
        for text in (self.given_up, self.last_tried, self.first_seen):
            with suppress(ValueError, TypeError):
                when = datetime.fromisoformat(text or "")
                return when if when.tzinfo else when.replace(tzinfo=UTC)
        return None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant: those that every field which is not empty agrees to. `ids` may be beginnings."""

    ids: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    ans_codes: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    since: datetime | None = None

    def __contains__(self, letter: Letter) -> bool:
        """Whether a letter is meant. One whose time nobody knows is never too old: a failure is rather shown."""
        return (
            (not self.ids or letter.id.startswith(self.ids))
            and (not self.hosts or letter.host in self.hosts)
            and (not self.codes or letter.error_code in self.codes)
            and (not self.outcomes or letter.outcome in self.outcomes)
            and (not self.ans_codes or not set(self.ans_codes).isdisjoint(letter.ans_codes))
            and (self.since is None or letter.when is None or letter.when >= self.since)
        )


def read(properties: BasicProperties, body: bytes, routing_key: str = "") -> Letter:
    """Given a message of `tsm.dead-letters`, return the letter, whatever the message lacks."""
    headers = properties.headers or {}
    volumes = _volumes(body)
    if "tsm-outcome" not in headers:
        return _given_up_by_the_broker(properties, headers, body, routing_key, volumes)
    return Letter(
        id=_text(properties.message_id) or _derived(repr(sorted(headers.items())).encode(), body),
        host=_text(headers.get("tsm-host")),
        request_id=_text(headers.get("tsm-request-id")),
        outcome=_text(headers["tsm-outcome"]),
        error_code=_text(headers.get("tsm-error-code")) or ErrorCode.INTERNAL,
        reason=_text(headers.get("tsm-reason")),
        ans_codes=_texts(headers.get("tsm-ans-codes")),
        attempts=_number(headers.get("tsm-attempts")) or 0,
        exit_code=_number(headers.get("tsm-exit-code")),
        volumes=volumes,
        first_seen=_text(headers.get("tsm-first-seen")) or None,
        last_tried=_text(headers.get("tsm-last-tried")) or None,
        reply_to=_text(headers.get("tsm-reply-to")) or None,
        correlation_id=_text(headers.get("tsm-correlation-id")) or None,
        last_lines=_texts(headers.get("tsm-last-lines")),
    )


def _given_up_by_the_broker(
    properties: BasicProperties,
    headers: Mapping[str, Any],
    body: bytes,
    routing_key: str,
    volumes: tuple[str, ...],
) -> Letter:
    deaths = headers.get("x-death")
    death = deaths[-1] if isinstance(deaths, list) and deaths and isinstance(deaths[-1], dict) else {}
    queue = _text(headers.get("x-first-death-queue") or death.get("queue"))
    key = queue.removeprefix(_HOST_QUEUE) if queue.startswith(_HOST_QUEUE) else ""
    host = key or (routing_key.removeprefix(_HOST_KEY) if routing_key.startswith(_HOST_KEY) else "")
    why = _text(headers.get("x-first-death-reason") or death.get("reason")).replace("_", "-")
    told = {
        "expired": (Outcome.EXPIRED, f"{host} did not take the request before it expired"),
        "delivery-limit": (
            Outcome.FAILED,
            f"{host} took the request and lost it again and again; it may be what ends the worker there",
        ),
        "": (Outcome.FAILED, "nobody has told; no worker and no broker's dead-lettering wrote this message"),
    }
    outcome, reason = told.get(why, (Outcome.FAILED, f"the broker gave the request up: {why}"))
    when = death.get("time")
    given_up = when.replace(tzinfo=UTC).isoformat() if isinstance(when, datetime) else None
    request_id = _text(properties.message_id)
    # One request to a group expires on each of its hosts, under the one message id.
    own = (host, request_id, _text(properties.correlation_id), given_up or "")
    return Letter(
        id=_derived(*(part.encode() for part in own), body),
        host=host,
        request_id=request_id,
        outcome=outcome,
        error_code=why or ErrorCode.INTERNAL,
        reason=reason,
        volumes=volumes,
        given_up=given_up,
        reply_to=_text(properties.reply_to) or None,
        correlation_id=_text(properties.correlation_id) or None,
    )


def line(letter: Letter, properties: BasicProperties, body: bytes) -> bytes:
    """Return a letter whole, as one line of JSON: its fields, `properties`, `headers`, and `body` or `body_base64`."""
    told = {
        name: value for name, value in vars(properties).items() if name != "headers" and value is not None
    }
    whole = {
        **msgspec.to_builtins(letter),
        "properties": _plain(told),
        "headers": _plain(properties.headers or {}),
    }
    try:
        whole["body"] = body.decode()
    except UnicodeDecodeError:
        whole["body_base64"] = base64.b64encode(body).decode()
    return msgspec.json.encode(whole)


def indented(body: bytes) -> str:
    """Return a request's XML as people read it; what is no request, as it is."""
    try:
        request.parse(body)
    except RequestRefused:
        return body.decode(errors="replace")
    root = etree.fromstring(
        body, etree.XMLParser(remove_blank_text=True, resolve_entities=False, no_network=True)
    )
    return etree.tostring(root, pretty_print=True, encoding="unicode").rstrip()


def parse(line: bytes) -> tuple[Letter, bytes]:
    """Given what `line` wrote, return letter and body."""
    whole = msgspec.json.decode(line)
    body = whole["body"].encode() if "body" in whole else base64.b64decode(whole["body_base64"])
    return msgspec.json.decode(line, type=Letter), body


# -- a request again ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Edit:
    """What a replay changes: dsmc's options by name (None: a flag), and the seconds each command may run."""

    options: tuple[tuple[str, str | None], ...] = ()
    timeout: int | None = None

    def apply(self, body: bytes) -> bytes:
        """Given a request, return it changed in each of its commands, or as it is if nothing is to be changed.

        Raise RequestRefused if it is no request, or no host could accept what becomes of it.
        """
        if not self.options and self.timeout is None:
            return body
        request.parse(body)
        root = etree.fromstring(body, etree.XMLParser(resolve_entities=False, no_network=True))
        for command in root.iter("command-request"):
            self._change(command)
        changed: bytes = etree.tostring(root, encoding="utf-8")
        draft.check(changed)
        return changed

    def _change(self, command: etree._Element) -> None:
        if self.timeout is not None:
            _child(command, "timeout-secs", 0).text = str(self.timeout)
        if not self.options:
            return
        after_timeout = 0 if command.find("timeout-secs") is None else 1
        table = _child(command, "command-options", after_timeout)
        for name, value in self.options:
            same = [each for each in table if _same_option(str(each.tag), name)]
            try:
                element = same[0] if same else etree.SubElement(table, name)
                element.text = value
            except ValueError as error:  # what XML cannot carry
                raise RequestRefused(ErrorCode.BAD_REQUEST, f"--set {name}: {error}") from error


def replay_id(letter: Letter) -> str:
    """Return the message id of a letter's replay: always the same, so that a host runs it once however often it comes."""
    return str(uuid.uuid5(_IDS, letter.id))


def replay_properties(letter: Letter) -> BasicProperties:
    """Return the properties of a letter's replay.

    The answer goes where the first one went, under the correlation id that went by, which is the request's
    message id where it had no other.
    """
    return BasicProperties(
        content_type="application/xml",
        delivery_mode=2,
        message_id=replay_id(letter),
        correlation_id=letter.correlation_id or letter.request_id or None,
        reply_to=letter.reply_to,
        headers={"tsm-replay-of": letter.request_id or letter.id},
    )


def _volumes(body: bytes) -> tuple[str, ...]:
    """Return the volumes that a request names; none if it is no request."""
    with suppress(RequestRefused):
        return tuple(volume for command in request.parse(body).commands for volume in command.volumes)
    return ()


def _child(parent: etree._Element, tag: str, at: int) -> etree._Element:
    found = parent.find(tag)
    if found is None:
        found = etree.Element(tag)
        parent.insert(at, found)
    return found


def _same_option(one: str, other: str) -> bool:
    return one == other or (dsmc_options.full_name(one) or one) == dsmc_options.full_name(other)


def _derived(*parts: bytes) -> str:
    digest = sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return str(uuid.uuid5(_IDS, digest.hexdigest()))


def _text(value: object) -> str:
    """Return a property or header as text, "" for none; AMQP lets it be anything."""
    if value is None:
        return ""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(_text, value)) if isinstance(value, list) else ()


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, int) else None


def _plain(value: Any) -> Any:
    """Return what AMQP's tables can hold as what JSON can."""
    if isinstance(value, dict):
        return {_text(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC).isoformat()
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)  # pika has a subclass of its own
    return value if isinstance(value, float) else _text(value)
