"""What the journal of a host says to whoever looks at it from outside: how each job stands, and what is to be told.

Takes no lock and writes nothing, so it may be asked while a worker runs, and when none does (WAL: readers and the
writer do not wait for each other, https://www.sqlite.org/wal.html#concurrency).
"""

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.journal import FILE, MIGRATIONS, JournalError, Kind
from worker.words import ErrorCode, JobState, Outcome


@dataclass(frozen=True, slots=True)
class JobStanding:
    """How a job stands. `started_at` and `time_limit` (seconds) are those of the attempt that runs."""

    request_id: str
    state: JobState
    outcome: Outcome | None
    attempts: int
    accepted_at: float
    next_try_at: float | None
    finished_at: float | None
    error_code: ErrorCode | None
    reason: str | None
    started_at: float | None
    time_limit: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """A host's journal at one moment.

    `jobs` are those that are not finished, in order of arrival, then the latest that are, the last one first.
    `outbox` is the number of messages still to be published, `outbox_since` when the oldest response or dead letter
    among them was due.
    """

    jobs: tuple[JobStanding, ...] = ()
    outbox: int = 0
    outbox_since: float | None = None


_STANDING = (
    "SELECT request_id, state, job.outcome, (SELECT count(*) FROM attempt WHERE attempt.job = job.id), accepted_at,"
    " next_try_at, finished_at, job.error_code, job.reason, running.started_at, running.time_limit FROM job"
    " LEFT JOIN attempt AS running ON running.job = job.id AND running.ended_at IS NULL AND job.state = 'running'"
)


def standing(state_dir: Path, latest: int) -> Standing | None:
    """Return how the journal in a state directory stands, with so many finished jobs; None if there is none.

    Raise JournalError if it cannot be read.
    """
    file = state_dir / FILE
    try:
        if not file.exists():
            return None
        db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5, isolation_level=None)
        with contextlib.closing(db):
            db.execute("BEGIN")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version != len(MIGRATIONS):
                raise JournalError(
                    f"the journal {file} has schema {version}, this program reads {len(MIGRATIONS)}; ask the version "
                    "of the worker that runs, or start this one"
                )
            rows = db.execute(
                f"{_STANDING} WHERE state NOT IN ('finished', 'answered') ORDER BY job.id"
            ).fetchall()
            rows += db.execute(
                f"{_STANDING} WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT ?", (latest,)
            ).fetchall()
            (outbox,) = db.execute("SELECT count(*) FROM outbox").fetchone()
            (since,) = db.execute(
                "SELECT min(finished_at) FROM outbox JOIN job ON job.id = outbox.job WHERE kind != ?",
                (Kind.EVENT,),
            ).fetchone()
    except (sqlite3.Error, OSError) as error:
        raise JournalError(
            f"the journal {file} cannot be read: {error}; run this as the worker's user, or as root"
        ) from error
    return Standing(tuple(map(_to_standing, rows)), outbox, since)


def _to_standing(row: tuple[Any, ...]) -> JobStanding:
    request_id, state, outcome, attempts, accepted_at, next_try_at, finished_at, code, reason, *running = row
    return JobStanding(
        request_id,
        JobState(state),
        outcome and Outcome(outcome),
        attempts,
        accepted_at,
        next_try_at,
        finished_at,
        code and ErrorCode(code),
        reason,
        *running,
    )
