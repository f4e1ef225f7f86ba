"""The journal against a model: whatever order things happen in, and however often it is opened anew."""

import io
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from worker.journal import Journal, Kind, Message, Result
from worker.words import ErrorCode, FailureClass, JobState, Outcome


@dataclass
class Known:
    """What the model knows of a job."""

    id: int
    state: JobState = JobState.ACCEPTED
    attempts: int = 0
    running: bool = False
    settled: bool = False
    outcome: Outcome | None = None
    responses: int = 0  # in the outbox
    others: int = 1  # events and dead letters in the outbox
    letters: int = 0
    tags: set[str] = field(default_factory=set)


class JournalStates(RuleBasedStateMachine):
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.journal = Journal(self.directory, "web01")
        self.model: dict[str, Known] = {}

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.directory)

    @rule(target=jobs, name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5))
    def accept(self, name: str) -> str:
        job, new = self.journal.accept(Message(b"<x/>", name, reply_to="replies"))
        assert new == (name not in self.model)
        if new:
            self.model[name] = Known(job.id)
        else:
            self.asked_again(name)
        return name

    @rule(name=jobs, redelivered=st.booleans())
    def accept_again(self, name: str, *, redelivered: bool) -> None:
        if name not in self.model:
            return  # forgotten since
        job, new = self.journal.accept(Message(b"<x/>", name, reply_to="replies", redelivered=redelivered))
        assert (job.id, new) == (self.model[name].id, False)
        if not redelivered or self.model[name].settled:
            self.asked_again(name)

    def asked_again(self, name: str) -> None:
        known = self.model[name]
        if known.outcome is not None:
            known.responses += 1

    @rule()
    def settle(self) -> None:
        self.journal.settle()
        for known in self.model.values():
            known.settled = True

    @rule(name=jobs)
    def start(self, name: str) -> None:
        known = self.model.get(name)
        if known and known.outcome is None and not known.running:
            known.attempts += 1
            attempt = self.journal.start(self.journal.job(known.id), 0, known.attempts, 60, "this boot")
            assert attempt.number == known.attempts
            known.state, known.running = JobState.RUNNING, True
            known.others += known.attempts == 1

    @rule(name=jobs, transient=st.booleans())
    def end(self, name: str, *, transient: bool) -> None:
        known = self.model.get(name)
        if known and known.running:
            attempt = self.journal.attempts(known.id)[-1]
            assert attempt.outcome is None
            self.journal.end(
                attempt,
                elapsed_ms=1,
                exit_code=12,
                outcome=Outcome.FAILED,
                error_code=ErrorCode.DSMC_FAILED,
                failure_class=FailureClass.TRANSIENT if transient else FailureClass.PERMANENT,
                reason="said so",
                codes=["ANS1017E"],
            )
            known.running = False

    @rule(name=jobs)
    def wait(self, name: str) -> None:
        known = self.model.get(name)
        if known and known.state is JobState.RUNNING and not known.running:
            self.journal.wait(self.journal.job(known.id), 2e9, "later")
            known.state = JobState.WAITING
            known.others += 1

    @rule(name=jobs, outcome=st.sampled_from(list(Outcome)))
    def finish(self, name: str, outcome: Outcome) -> None:
        known = self.model.get(name)
        if known and known.outcome is None and not known.running:
            file = io.BytesIO()
            file.write(name.encode() * 3)
            self.journal.finish(self.journal.job(known.id), Result(outcome, None, "", file))
            known.state, known.outcome = JobState.FINISHED, outcome
            known.responses += 1
            known.letters = int(not outcome.successful and outcome is not Outcome.CANCELLED)
            known.others += 1 + known.letters

    @rule(most=st.integers(1, 4))
    def publish(self, most: int) -> None:
        rows = self.journal.outbox(most)
        for row in rows:
            outgoing = self.journal.outgoing(row)
            assert outgoing is not None
            known = next(known for known in self.model.values() if known.id == outgoing.job)
            if outgoing.kind is Kind.RESPONSE:
                known.responses -= 1
                known.state = JobState.ANSWERED
                name = next(name for name, each in self.model.items() if each is known)
                assert outgoing.body == name.encode() * 3
                known.tags.add(outgoing.message_id)
                assert len(known.tags) == 1
            else:
                known.others -= 1
        self.journal.published(rows)

    @rule()
    def open_anew(self) -> None:
        self.journal.close()
        self.journal = Journal(self.directory, "web01")

    @rule()
    def prune(self) -> None:
        self.journal.prune(-1)
        gone = [
            n for n, k in self.model.items() if k.state is JobState.ANSWERED and not k.responses + k.others
        ]
        for name in gone:
            del self.model[name]

    @invariant()
    def agrees_with_the_model(self) -> None:
        still_open = [(k.id, k.state) for k in self.model.values() if k.outcome is None]
        assert [(job, state) for job, state, _ in self.journal.open_jobs()] == sorted(still_open)
        assert self.journal.outbox_size() == sum(k.responses + k.others for k in self.model.values())
        for known in self.model.values():
            job = self.journal.job(known.id)
            assert (job.state, job.outcome) == (known.state, known.outcome)
            assert len(self.journal.attempts(known.id)) == known.attempts


JournalStates.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestJournalStates = JournalStates.TestCase
