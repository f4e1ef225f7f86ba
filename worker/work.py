"""The work of one job: from its body in the journal to its response there, by way of dsmc.

`Work.do` may be called for a job in any state and as often as need be: what has been done is in the journal
and in the runs' directories, so a worker that was killed in the middle goes on where the other one was.
"""

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

import structlog

from worker import plan
from worker.config import Config, Retry
from worker.contract.response import (
    NO_EXIT_CODE,
    CommandOutput,
    Error,
    Response,
    VolumeNote,
    write,
)
from worker.dsmc import outcome, program, supervise, transcript
from worker.dsmc.outcome import Decision, End
from worker.dsmc.supervise import CannotStart, Control, Run
from worker.errors import RequestRefused
from worker.journal import Attempt, Job, Journal, JournalError, Result
from worker.volumes import Verdict, Volumes
from worker.words import ErrorCode, FailureClass, Outcome

log = structlog.get_logger()

_JOURNAL_AGAIN = 5.0  # seconds between tries to write down what cannot be written now (a full disk)

_IN_MEMORY = 1 << 18  # bytes of a response that are kept in memory before it goes to a file
_LAST_LINES, _LAST_BYTES = 20, 1 << 12  # of a failed run's output, for its dead letter


class Work:
    """Does jobs, each in the thread that calls `do`."""

    def __init__(self, config: Config, journal: Journal, volumes: Volumes, control: Control) -> None:
        self._config = config
        self._journal = journal
        self._volumes = volumes
        self._control = control
        self._in_use = _InUse()

    def configure(self, config: Config) -> None:
        """Do what is done from now on by another configuration."""
        self._config = config

    def do(self, job_id: int) -> None:
        """Bring a job as far as it goes: to its end, to a wait for another try, or to `control.leave`."""
        while True:
            job = self._journal.job(job_id)
            if job.outcome is not None:
                return  # somebody else has done it
            try:
                with structlog.contextvars.bound_contextvars(request_id=job.request_id):
                    self._doing(job).go_on()
            except JournalError as error:
                log.error("job held up", request_id=job.request_id, reason=str(error))
                if self._control.leave.wait(_JOURNAL_AGAIN):
                    return
            else:
                return

    def shorten(self, job_id: int, max_bytes: int) -> None:
        """Make a finished job's response again, in less than `max_bytes`, for it is too large for the broker."""
        self._doing(self._journal.job(job_id)).shorten(max_bytes)

    def _doing(self, job: Job) -> "_Doing":
        return _Doing(self._config, self._journal, self._volumes, self._control, self._in_use, job)


class _Doing:
    """One job being done."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        volumes: Volumes,
        control: Control,
        in_use: "_InUse",
        job: Job,
    ) -> None:
        self._config = config
        self._journal = journal
        self._volumes = volumes
        self._control = control
        self._in_use = in_use
        self._job = job
        self._steps: tuple[plan.Step, ...] = ()
        self._digests: dict[int, transcript.Digest] = {}  # of attempts, by id: a long transcript is read once

    def go_on(self) -> None:
        try:
            self._steps = plan.make(self._job.body, self._volumes.platform, self._config.dsmc)
            self._run_steps()
        except RequestRefused as refusal:
            self._finish(Outcome.REFUSED, Error(refusal.code, str(refusal)), getattr(refusal, "verdicts", ()))
        except program.DsmcNotFound as error:
            self._finish(Outcome.FAILED, Error(ErrorCode.DSMC_NOT_FOUND, str(error)))
        except JournalError:
            raise
        except Exception:
            log.exception("job broken")
            message = "the worker met an error of its own; its log has the details"
            self._finish(Outcome.FAILED, Error(ErrorCode.INTERNAL, message))

    def _run_steps(self) -> None:
        last = {attempt.command: attempt for attempt in self._journal.attempts(self._job.id)}
        if not last and self._expired():
            message = "the request had expired before it could be started"
            self._finish(Outcome.EXPIRED, Error(ErrorCode.EXPIRED, message))
            return
        judged = False
        for number, step in enumerate(self._steps):
            attempt = last.get(number)
            if attempt is not None and attempt.outcome is not None and not self._again(attempt):
                continue
            if attempt is None or attempt.outcome is not None:
                if not judged:
                    self._judge(self._steps[number:])
                    judged = True
                command = program.find(self._config.dsmc.command)
                attempt = self._journal.start(
                    self._job, number, attempt.number + 1 if attempt else 1, step.limit, supervise.boot()
                )
                attempt = self._run(step, attempt, command)
            else:
                attempt = self._adopt(step, attempt)
            if attempt is None or self._waits(attempt):
                return
        self._conclude()

    def _judge(self, steps: Sequence[plan.Step]) -> None:
        plan.judge(steps, self._volumes, self._config.dsmc.allow.volumes)

    def _expired(self) -> bool:
        return self._job.expires_at is not None and time.time() >= self._job.expires_at

    # -- one attempt ---------------------------------------------------------------------------------------

    def _run(self, step: plan.Step, attempt: Attempt, command: Sequence[str]) -> Attempt | None:
        """Run dsmc for an attempt; return it as it ended, None if the worker leaves before."""
        with self._in_use.held(self._devices(step), self._control) as free:
            if not free:
                return None
            try:
                run = supervise.start(self._directory(attempt), [*command, *step.arguments])
            except CannotStart as error:
                decision = Decision(Outcome.FAILED, str(error), ErrorCode.INTERNAL, FailureClass.TRANSIENT)
                return self._end(attempt, decision, 0.0, None)
            log.info("dsmc started", command=program.shown(step.arguments), attempt=attempt.number)
            return self._watch(run, attempt)

    def _adopt(self, step: plan.Step, attempt: Attempt) -> Attempt | None:
        """Go on with an attempt that an earlier worker started, or was about to start."""
        run = supervise.find(self._directory(attempt), self._control)
        if run is not None:
            with self._in_use.held(self._devices(step), self._control):
                log.info("dsmc found again", command=program.shown(step.arguments), attempt=attempt.number)
                return self._watch(run, attempt)
        if self._control.leave.is_set():
            return None
        if attempt.boot != supervise.boot():
            # The host went down before the marks of the run were on its disk: it may well have run.
            return self._end(attempt, outcome.decide(End.LOST, None, ()), 0.0, None)
        self._judge([step])
        return self._run(step, attempt, program.find(self._config.dsmc.command))

    def _watch(self, run: Run, attempt: Attempt) -> Attempt | None:
        ending = run.wait(attempt.time_limit, self._config.dsmc.kill_grace, self._control)
        if ending is None:
            log.info("dsmc left to its supervisor", attempt=attempt.number)
            return None
        found = transcript.digest(run.transcript)
        self._digests[attempt.id] = found
        decision = outcome.decide(
            ending.end, ending.exit_code, found.codes, self._config.retry.classes, found.texts
        )
        return self._end(attempt, decision, ending.elapsed, ending.exit_code, found.codes)

    def _end(
        self,
        attempt: Attempt,
        decision: Decision,
        elapsed: float,
        exit_code: int | None,
        codes: tuple[str, ...] = (),
    ) -> Attempt:
        return self._journal.end(
            attempt,
            elapsed_ms=round(elapsed * 1000),
            exit_code=exit_code,
            outcome=decision.outcome,
            error_code=decision.error,
            failure_class=decision.failure_class,
            reason=decision.reason,
            codes=codes,
        )

    def _directory(self, attempt: Attempt) -> Path:
        return self._journal.run_directory(self._job.id, attempt)

    def _devices(self, step: plan.Step) -> frozenset[str]:
        if self._config.slots == 1:
            return frozenset()  # nothing else runs
        return frozenset(verdict.device or verdict.volume for verdict in self._volumes.judge(step.volumes))

    # -- another try ---------------------------------------------------------------------------------------

    def _again(self, attempt: Attempt) -> bool:
        """Whether an attempt that has ended is to be followed by another."""
        return (
            attempt.failure_class is FailureClass.TRANSIENT and attempt.number < self._config.retry.attempts
        )

    def _waits(self, attempt: Attempt) -> bool:
        """Put the job to wait where another try is due; return whether it waits now."""
        if not self._again(attempt):
            return False
        at = time.time() + delay(self._config.retry, attempt.number)
        if self._job.expires_at is not None and at > self._job.expires_at:
            return False
        reason = attempt.reason or ""
        log.warning("job waits for another try", reason=reason, attempt=attempt.number, next_try_at=at)
        self._journal.wait(self._job, at, reason)
        return True

    # -- the end -------------------------------------------------------------------------------------------

    def _conclude(self) -> None:
        last = {attempt.command: attempt for attempt in self._journal.attempts(self._job.id)}
        for number, attempt in last.items():
            if attempt.error_code is not None and attempt.outcome is not None:
                message = attempt.reason or ""
                if len(self._steps) > 1:
                    message = f"command {number + 1} of {len(self._steps)}: {message}"
                self._finish(attempt.outcome, Error(attempt.error_code, message), failed=attempt)
                return
        warned = any(attempt.outcome is Outcome.COMPLETED_WITH_WARNINGS for attempt in last.values())
        self._finish(Outcome.COMPLETED_WITH_WARNINGS if warned else Outcome.COMPLETED)

    def _finish(
        self,
        result: Outcome,
        error: Error | None = None,
        verdicts: Sequence[Verdict] = (),
        failed: Attempt | None = None,
    ) -> None:
        attempts = self._journal.attempts(self._job.id)
        notes = tuple(VolumeNote(v.volume, v.eligible, v.reason) for v in verdicts)
        reason = error.message if error else ""
        with self._written(attempts, error, notes, self._config.response.max_bytes) as file:
            last_lines = self._last_lines(failed) if failed else ()
            self._journal.finish(
                self._job, Result(result, error.code if error else None, reason, file, last_lines)
            )
        log.log(
            20 if result.successful else 30,
            "job finished",
            outcome=result,
            error_code=error.code if error else None,
            reason=reason,
            volumes=list(itertools.chain.from_iterable(step.volumes for step in self._steps)),
            attempts=len(attempts),
            exit_codes=[attempt.exit_code for attempt in attempts],
            ans_codes=sorted({code for attempt in attempts for code in attempt.codes}),
            seconds=round(time.time() - self._job.accepted_at, 3),
        )

    def shorten(self, max_bytes: int) -> None:
        """See Work.shorten."""
        with contextlib.suppress(RequestRefused):
            self._steps = plan.make(self._job.body, self._volumes.platform, self._config.dsmc)
        code, reason = self._job.error_code, self._job.reason or ""
        error = Error(code, reason) if code is not None else None
        with self._written(self._journal.attempts(self._job.id), error, (), max_bytes) as file:
            self._journal.replace_response(self._job.id, file)

    @contextmanager
    def _written(
        self, attempts: Sequence[Attempt], error: Error | None, notes: tuple[VolumeNote, ...], limit: int
    ) -> Iterator[BinaryIO]:
        """Give a file with the response in it, at most `limit` bytes. Raise JournalError if the disk is full."""
        last = {attempt.command: attempt for attempt in attempts if attempt.outcome is not None}
        texts = sum(len(n.name) + len(n.reason) for n in notes) + len(error.message if error else "")
        room = max(0, limit - 4096 - 2 * texts) // max(1, len(last))
        response = Response(error, notes, tuple(self._output(attempt, room) for attempt in last.values()))
        try:
            with SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(self._journal.state_dir)) as file:
                write(response, limit, file)
                yield cast("BinaryIO", file)
        except OSError as problem:
            raise JournalError(f"the response cannot be written: {problem}") from problem

    def _transcript(self, attempt: Attempt) -> tuple[Path, transcript.Digest]:
        path = self._directory(attempt) / "transcript"
        return path, self._digests.get(attempt.id) or transcript.digest(path)

    def _last_lines(self, attempt: Attempt) -> tuple[str, ...]:
        return transcript.last(*self._transcript(attempt), _LAST_LINES, _LAST_BYTES)

    def _output(self, attempt: Attempt, room: int) -> CommandOutput:
        path, found = self._transcript(attempt)
        command = program.shown(self._steps[attempt.command].arguments)
        warnings = found.warnings if attempt.outcome is Outcome.COMPLETED_WITH_WARNINGS else ()
        used = 2 * len(command) + sum(2 * len(warned.text) + 60 for warned in warnings)
        return CommandOutput(
            command,
            found.lines,
            attempt.elapsed_ms or 0,
            NO_EXIT_CODE if attempt.exit_code is None else attempt.exit_code,
            attempt.outcome is not None and attempt.outcome.successful,
            transcript.excerpt(path, found, self._config.response.max_lines, max(0, room - used)),
            warnings,
        )


def delay(retry: Retry, attempt: int) -> float:
    """Given the number of the attempt that failed, return the seconds until the next.

    Doubled each time up to `retry.max_delay`, then anything from half of that to all of it, so that hosts which
    failed together do not come back together.
    """
    longest: float = min(retry.max_delay, retry.first_delay * 2.0 ** min(attempt - 1, 60))
    return random.uniform(longest / 2, longest)  # noqa: S311 -- not a secret


class _InUse:
    """The volumes that are being backed up: never two runs on one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._devices: set[str] = set()

    @contextmanager
    def held(self, devices: Collection[str], control: Control) -> Iterator[bool]:
        """Hold all the devices, waiting until nobody else holds any; give False if the worker leaves first."""
        with self._changed:
            while not self._devices.isdisjoint(devices):
                if control.leave.is_set():
                    yield False
                    return
                self._changed.wait(0.5)
            self._devices.update(devices)
        try:
            yield True
        finally:
            with self._changed:
                self._devices.difference_update(devices)
                self._changed.notify_all()
