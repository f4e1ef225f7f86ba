"""The wait for a batch's answers: an iterator that outlives lost connections and hands each host's answer over once."""

import time
from collections.abc import Callable, Iterator
from typing import Protocol, Self, TypeVar

from worker.fleet.batch import Answer, Batch, Record, Sign
from worker.fleet.mailbox import Delivery, Mailbox

T = TypeVar("T")

_STEP = 10.0  # seconds of one look at the broker, so that heartbeats are answered and Ctrl-C is heard
_LAST_LOOK = 0.5  # seconds, even when the time is up: what has come already is handed over
_GRACE = 60.0  # seconds after a request's expiration in which a host may still say that it had begun


class Connected(Protocol):
    """What a collection asks of its client."""

    def on_broker(self, batch_id: str, what: Callable[[Mailbox], T], until: float | None) -> T:
        """Call `what` with the batch's mailbox, again on a new connection where one is lost."""

    def leave(self, batch_id: str) -> None:
        """Disconnect from a batch."""


class Collection(Iterator[Answer]):
    """Yields the answers of a batch as they come, until all are there or the time is up.

    An answer counts as handed over when the next one is asked for, or the iteration ends; one whose reader dies
    before that is there again for the next `collect`. Only one at a time can collect a batch.
    """

    def __init__(
        self,
        client: Connected,
        record: Record,
        *,
        timeout: float | None = None,
        on_sign: Callable[[Sign], None] | None = None,
    ) -> None:
        if record.batch is None:
            raise AssertionError("a record that was read has its batch")
        self.batch: Batch = record.batch
        """What was asked, of whom."""
        self.outcomes = dict(record.answered)
        """The outcome of each host that has answered, in an earlier collection or this one."""
        self.accepted: set[str] = set()
        """The hosts that are known, by their signs, to have the request."""
        self._client = client
        self._until = None if timeout is None else time.monotonic() + timeout
        self.on_sign = on_sign
        """Called with what else the hosts tell of the batch's jobs."""
        self._watched = False  # without a break since the batch was sent
        self._over = False
        self._in_hand: tuple[Answer, Delivery] | None = None

    @property
    def outstanding(self) -> list[str]:
        """The hosts, as far as they are known by name, that have not answered, in their order."""
        known = self.batch.asked or sorted(self.accepted)
        return [host for host in known if host not in self.outcomes]

    @property
    def missing(self) -> int | None:
        """How many answers have not come; None where nobody knows how many there will be."""
        awaited = self.batch.awaited
        return None if awaited is None else max(0, awaited - len(self.outcomes))

    @property
    def complete(self) -> bool:
        """Whether every answer awaited has come."""
        return self.missing == 0

    @property
    def successful(self) -> bool:
        """Whether all that were asked have answered, and all that answered have succeeded."""
        return (
            bool(self.outcomes)
            and all(outcome.successful for outcome in self.outcomes.values())
            and not (self.missing or self.outstanding or self.batch.unroutable)
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Answer:
        """Raise BrokerUnreachable if the broker stays away."""
        self._hand_over()
        while not (self._over or self.complete):
            delivery = self._on_broker(self._receive)
            content = None if delivery is None else delivery.content
            if isinstance(content, Answer) and self._is_new(content) and delivery is not None:
                self._in_hand = content, delivery
                self.outcomes[content.host] = content.outcome
                return content
            if isinstance(content, Sign):
                self._take_sign(content)
            elif delivery is not None:
                self._ack(delivery)
                continue
            if self._time_is_up() or self._pointless():
                break
        if self.complete and self.batch.hosts and not self._over:
            self._on_broker(Mailbox.delete)
        self._over = True
        self._client.leave(self.batch.id)  # or answers that come later would come to us, who look no more
        raise StopIteration

    def wait(self) -> Self:
        """Collect to the end, keeping the outcomes alone."""
        for _ in self:
            pass
        return self

    def _hand_over(self) -> None:
        """Leave a receipt for the answer in hand, then have the broker forget it."""
        if self._in_hand is None:
            return
        answer, delivery = self._in_hand
        self._on_broker(lambda mailbox: mailbox.note(Record(answered={answer.host: answer.outcome})))
        self._in_hand = None
        self._ack(delivery)

    def _ack(self, delivery: Delivery) -> None:
        self._on_broker(lambda mailbox: mailbox.ack(delivery))

    def _receive(self, mailbox: Mailbox) -> Delivery | None:
        if self.on_sign is not None:
            mailbox.watch()
        since = mailbox.watching_since
        self._watched = since is not None and since <= self.batch.submitted_at
        mailbox.listen()
        left = _STEP if self._until is None else self._until - time.monotonic()
        return mailbox.receive(max(_LAST_LOOK, min(_STEP, left)))

    def _on_broker(self, what: Callable[[Mailbox], T]) -> T:
        return self._client.on_broker(self.batch.id, what, self._until)

    def _take_sign(self, sign: Sign) -> None:
        if self.batch.knows(sign.host, sign.request_id):
            self.accepted.add(sign.host)
            if self.on_sign is not None:
                self.on_sign(sign)

    def _is_new(self, answer: Answer) -> bool:
        return self.batch.knows(answer.host, answer.request_id) and answer.host not in self.outcomes

    def _time_is_up(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _pointless(self) -> bool:
        """Whether the request has expired everywhere it is outstanding: the broker drops it there, and nobody answers.

        That is known only if every sign since the batch was sent has been seen.
        """
        if self.batch.expires_at is None or not self._watched:
            return False
        return time.time() > self.batch.expires_at + _GRACE and not self.accepted.intersection(
            self.outstanding
        )
