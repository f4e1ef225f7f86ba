"""A scheduler's connection to the fleet: submit a request to many hosts, collect their answers."""

import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TypeVar

from pika.exceptions import AMQPError, ChannelClosedByBroker
from pika.spec import BasicProperties
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from worker import config
from worker.broker.connection import (
    BrokerRefused,
    BrokerUnreachable,
    explain,
    out_of_reach,
    parameters,
    will_be_back,
)
from worker.fleet import draft, fanout, presence
from worker.fleet.batch import Batch, BatchError, Record, Sign, check_id
from worker.fleet.collection import Collection
from worker.fleet.fanout import Confirms, Message
from worker.fleet.mailbox import Mailbox, reply_queue
from worker.fleet.presence import Present

T = TypeVar("T")

_PATIENCE = 900.0  # seconds a broker that was there may stay away
_AT_LEAST = 30.0  # seconds of it that are given even when the collection's own time is up
_LONGEST_STEP = 10.0  # seconds between tries to connect


class Client:
    """Submits and collects; to be used in a `with`, by one thread.

    `broker` is an address, `amqp[s]://ACCOUNT:PASSWORD@BROKER/VHOST`, or a configuration, which may also name files
    for TLS and the password. Nothing is connected before it is needed. Once it was, a broker that goes away is
    awaited for `patience` seconds; then, and at the first connection, BrokerUnreachable is raised.
    """

    def __init__(self, broker: str | config.Config, *, patience: float = _PATIENCE) -> None:
        """Raise ConfigError if the broker's address or its files cannot be used."""
        if isinstance(broker, str):
            broker = config.at_broker(broker, "the broker's address")
        self._parameters = parameters(broker)
        self._patience = patience
        self._mailboxes: dict[str, Mailbox] = {}
        self._met = False  # whether the broker has ever been there

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect. What was not collected stays on the broker."""
        for batch_id in list(self._mailboxes):
            self.leave(batch_id)

    def submit(
        self,
        request: bytes,
        *,
        hosts: Iterable[str] = (),
        groups: Iterable[str] = (),
        everyone: bool = False,
        expect: int | None = None,
        expires: float | None = None,
        batch_id: str | None = None,
        watch: bool = False,
    ) -> Batch:
        """Send a request to hosts by name, or to groups, or to everyone; return the batch, its hosts not yet waited for.

        `expect` says how many answers groups or everyone will give. A host that has not started within `expires`
        seconds does not start at all. A `batch_id` that was used before asks the same hosts again, for the same
        answers: nothing runs twice. `watch` has `collect` see the hosts' signs from the very first.

        Raise RequestRefused if no host could accept the request, BatchError for names that cannot be,
        BrokerUnreachable or BrokerRefused if the broker cannot be reached or will not do it.
        """
        draft.check(request)
        batch = _batch(hosts, groups, everyone=everyone, expect=expect, batch_id=batch_id)

        def prepare(mailbox: Mailbox) -> Batch:
            if watch:
                mailbox.watch()
            now = time.time()
            sent = replace(batch, submitted_at=now, expires_at=None if expires is None else now + expires)
            mailbox.create(sent)
            return sent

        batch = self.on_broker(batch.id, prepare)
        confirms = self._publish(_messages(batch, request, expires))
        missing = {key for key, _ in confirms.returned | confirms.refused}
        if missing:
            keys = {**{f"host.{host}": host for host in batch.hosts}, **{key: key for key in batch.targets}}
            batch = replace(batch, unroutable=tuple(name for key, name in keys.items() if key in missing))
            record = Record(batch)
            self.on_broker(batch.id, lambda mailbox: mailbox.note(record))
        return batch

    def collect(
        self,
        batch: Batch | str,
        *,
        timeout: float | None = None,
        on_sign: Callable[[Sign], None] | None = None,
    ) -> Collection:
        """Return an iterator over the answers of a batch, or of the one with this id, that waits for them.

        It ends when all awaited have come, or after `timeout` seconds. `on_sign` is called with what else the
        hosts tell of the batch's jobs in the meantime. Raise BatchError if the broker has no such batch, or
        somebody else collects it.
        """
        batch_id = check_id(batch if isinstance(batch, str) else batch.id)
        if batch_id in self._mailboxes and self._mailboxes[batch_id].listening:
            self.leave(batch_id)  # an earlier collection that was left half-way
        record = self.on_broker(batch_id, Mailbox.read)
        return Collection(self, record, timeout=timeout, on_sign=on_sign)

    def hosts(self, since: float = 900.0) -> list[Present]:
        """Return what each host that spoke in the last `since` seconds, an hour at most, last said of itself.

        Raise BatchError if the broker keeps no presence, BrokerUnreachable or BrokerRefused.
        """
        return presence.read(self._parameters, since)

    def on_broker(self, batch_id: str, what: Callable[[Mailbox], T], until: float | None = None) -> T:
        """Call `what` with the batch's mailbox, again on a new connection where one is lost.

        `until`, of the monotonic clock, shortens the patience. For the rooms of this package.
        """

        def once() -> T:
            try:
                mailbox = self._mailboxes.get(batch_id)
                if mailbox is None:
                    mailbox = self._mailboxes[batch_id] = Mailbox(self._parameters, batch_id)
                    self._met = True
                return what(mailbox)
            except (AMQPError, OSError) as error:
                self.leave(batch_id)
                if isinstance(error, ChannelClosedByBroker) and not will_be_back(error):
                    raise BrokerRefused(
                        f"the broker refuses: {explain(error)}; docs/fleet.md lists a scheduler's rights"
                    ) from error
                raise BrokerUnreachable(out_of_reach(self._parameters, error)) from error

        return self._patiently(once, until)

    def leave(self, batch_id: str) -> None:
        """Disconnect from a batch; what was not collected stays on the broker."""
        mailbox = self._mailboxes.pop(batch_id, None)
        if mailbox is not None:
            with suppress(AMQPError, OSError):
                mailbox.close()

    def _publish(self, messages: list[Message]) -> Confirms:
        """Publish the messages, those that a lost connection leaves open again: a host knows them by their id."""
        confirms = Confirms()

        def once() -> None:
            done = confirms.confirmed | confirms.refused
            fanout.publish(self._parameters, [each for each in messages if each.name not in done], confirms)

        self._patiently(once, None)
        return confirms

    def _patiently(self, once: Callable[[], T], until: float | None) -> T:
        left = self._patience if until is None else min(self._patience, until - time.monotonic())
        retrying = Retrying(
            retry=retry_if_exception(self._may_pass),
            wait=wait_random_exponential(multiplier=0.2, max=_LONGEST_STEP),
            stop=stop_after_delay(max(min(_AT_LEAST, self._patience), left)),
            reraise=True,
        )
        return retrying(once)

    def _may_pass(self, error: BaseException) -> bool:
        return self._met and isinstance(error, BrokerUnreachable) and not isinstance(error, BrokerRefused)


def _batch(
    hosts: Iterable[str], groups: Iterable[str], *, everyone: bool, expect: int | None, batch_id: str | None
) -> Batch:
    names = tuple(dict.fromkeys(check_id(host) for host in hosts))
    targets = (
        *(f"group.{check_id(group)}" for group in dict.fromkeys(groups)),
        *(["all"] if everyone else []),
    )
    if bool(names) == bool(targets):
        raise BatchError("name hosts, or groups, or everyone: one of these, and not two")
    if expect is not None and (names or expect < 1):
        raise BatchError("expect is for groups and everyone, and at least 1: hosts asked by name are counted")
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Batch(check_id(batch_id or f"{moment}-{uuid.uuid4().hex[:6]}"), names, targets, expect)


def _messages(batch: Batch, request: bytes, expires: float | None) -> list[Message]:
    def message(key: str, message_id: str) -> Message:
        properties = BasicProperties(
            content_type="application/xml",
            delivery_mode=2,
            message_id=message_id,
            correlation_id=batch.id,
            reply_to=reply_queue(batch.id),
            expiration=None if expires is None else str(max(1, round(expires * 1000))),
            timestamp=int(batch.submitted_at),
        )
        return Message(key, request, properties)

    by_name = [message(f"host.{host}", batch.request_id(host)) for host in batch.hosts]
    return [*by_name, *(message(key, batch.id) for key in batch.targets)]
