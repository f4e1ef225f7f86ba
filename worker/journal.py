"""The durable record of this host's jobs: what was accepted, how each attempt went, what is still to be told.

SQLite in `state_dir`. A method that changes something is one transaction, on the disk when it returns
(WAL, synchronous=FULL: https://www.sqlite.org/pragma.html#pragma_synchronous), so whoever calls it may tell the
world: the broker is acked after `accept`, a message leaves the outbox after its confirm. What a state change
announces is in the outbox by the same transaction.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum, unique
from pathlib import Path
from typing import Any, BinaryIO

from worker import lock
from worker.errors import TsmWorkerError
from worker.words import ErrorCode, Event, FailureClass, JobState, Outcome

FILE = "journal.sqlite"  # in the state directory

# The schema's history: entry n brings a journal from version n to n + 1. Only ever add to it.
MIGRATIONS = [
    """
    CREATE TABLE job (
        id INTEGER PRIMARY KEY,
        request_id TEXT NOT NULL UNIQUE,
        fingerprint BLOB,            -- of a request without a message id of its own, to know a redelivery by
        settled INTEGER NOT NULL,    -- whether the broker is known to have taken the ack
        correlation_id TEXT,
        reply_to TEXT,
        body BLOB NOT NULL,
        accepted_at REAL NOT NULL,   -- wall clock, seconds since 1970, like all times here
        expires_at REAL,
        state TEXT NOT NULL,
        next_try_at REAL,            -- state waiting
        outcome TEXT,                -- from state finished on
        error_code TEXT,
        reason TEXT,
        finished_at REAL,
        response BLOB,
        response_id TEXT
    );
    CREATE INDEX job_open ON job (state) WHERE state NOT IN ('finished', 'answered');
    CREATE INDEX job_finished_at ON job (finished_at);
    CREATE INDEX job_unsettled ON job (settled) WHERE NOT settled;
    CREATE TABLE attempt (
        id INTEGER PRIMARY KEY,
        job INTEGER NOT NULL REFERENCES job ON DELETE CASCADE,
        command INTEGER NOT NULL,    -- index in the request, from 0
        number INTEGER NOT NULL,     -- from 1
        started_at REAL NOT NULL,
        time_limit REAL NOT NULL,    -- seconds
        boot TEXT NOT NULL,          -- which boot of the host it was started in
        ended_at REAL,
        elapsed_ms INTEGER,
        exit_code INTEGER,           -- NULL: it left none
        outcome TEXT,
        error_code TEXT,
        failure_class TEXT,
        reason TEXT,
        codes TEXT,                  -- JSON, the distinct message codes in order of appearance
        UNIQUE (job, command, number)
    );
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY,
        job INTEGER NOT NULL REFERENCES job ON DELETE CASCADE,
        kind TEXT NOT NULL,
        routing TEXT NOT NULL,       -- a queue (response) or a routing key (event)
        correlation_id TEXT,
        message_id TEXT NOT NULL,
        headers TEXT NOT NULL,       -- JSON
        body BLOB,                   -- NULL: the job's response, or of a dead letter its request
        undeliverable_to TEXT        -- where the broker had nobody for it
    );
    CREATE INDEX outbox_job ON outbox (job);
    """,
]


class JournalError(TsmWorkerError):
    """The journal cannot be opened, read or written; nothing was accepted."""


@unique
class Kind(StrEnum):
    """What an outbox row is."""

    RESPONSE = "response"
    DEAD_LETTER = "dead-letter"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class Message:
    """A request as it was delivered. `expires_in`: seconds it may still wait to be started, None for ever."""

    body: bytes
    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expires_in: float | None = None
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One request as this host owns it. Times are seconds since 1970."""

    id: int
    request_id: str
    correlation_id: str | None
    reply_to: str | None
    body: bytes
    accepted_at: float
    expires_at: float | None
    state: JobState
    next_try_at: float | None
    outcome: Outcome | None
    error_code: ErrorCode | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one command; from `elapsed_ms` on None while it runs. `time_limit` in seconds."""

    id: int
    command: int
    number: int
    started_at: float
    time_limit: float
    boot: str
    elapsed_ms: int | None
    exit_code: int | None
    outcome: Outcome | None
    error_code: ErrorCode | None
    failure_class: FailureClass | None
    reason: str | None
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message that is still to be published; `body` is what goes out."""

    id: int
    job: int
    kind: Kind
    routing: str
    correlation_id: str | None
    message_id: str
    headers: dict[str, Any]
    body: bytes
    undeliverable_to: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished job tells.

    `response` is the file, written to its end, that holds the XML; `last_lines` are those of the output it failed with.
    """

    outcome: Outcome
    error_code: ErrorCode | None
    reason: str
    response: BinaryIO
    last_lines: tuple[str, ...] = ()


_JOB = (
    "id, request_id, correlation_id, reply_to, body, accepted_at, expires_at, state, next_try_at, outcome,"
    " error_code, reason"
)
_ATTEMPT = (
    "id, command, number, started_at, time_limit, boot, elapsed_ms, exit_code, outcome, error_code, failure_class,"
    " reason, codes"
)
_OUTGOING = "id, job, kind, routing, correlation_id, message_id, headers, body, undeliverable_to"

_PIECE = 1 << 18  # bytes
_GLANCE = 0.5  # seconds: somebody may just be looking whether the lock is held
_REASON = 1000  # characters of a reason in a header: all headers have to fit one frame of AMQP's


class Journal:
    """The journal of one state directory; its methods may be called from any thread."""

    def __init__(self, state_dir: Path, host: str) -> None:
        """Open the journal, making directory and file where missing, for this process alone.

        Raise JournalError where the directory cannot be used, is in use by another worker, or holds a journal
        that is damaged or newer than this program.
        """
        self.state_dir = state_dir
        self.on_outbox: Callable[[], None] = lambda: None
        """Called, in whatever thread, after a transaction that put something into the outbox."""
        self._host = host
        self._lock = threading.Lock()
        self._announced = False
        file = state_dir / FILE
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._guard = lock.take(state_dir / "lock", _GLANCE)
        except BlockingIOError as error:
            raise JournalError(
                f"{state_dir} is in use by another tsm-worker; stop that one, or give this one a state_dir of its own"
            ) from error
        except OSError as error:
            raise JournalError(
                f"state_dir {state_dir} cannot be used: {error}; make it writable for this user"
            ) from error
        try:
            self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
            self._db.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
                "PRAGMA busy_timeout = 5000;"
            )
            self._migrate()
        except sqlite3.Error as error:
            os.close(self._guard)
            raise JournalError(
                f"the journal {file} cannot be used: {error}; if it is damaged, keep it for the record, move it away "
                "and start again: what it still had to tell is lost then"
            ) from error
        file.chmod(0o600)

    def close(self) -> None:
        """Close the journal; the next worker may open it."""
        with self._lock:
            self._db.close()
            os.close(self._guard)

    # -- taking requests in ------------------------------------------------------------------------------

    def accept(self, message: Message) -> tuple[Job, bool]:
        """Make a request this host's own; return its job, and whether it is a new one.

        The request's identity is its message id. One without is known by body, correlation id and reply queue,
        and only if the broker says that it delivers it again and may never have seen the ack. A known request
        is never run again: one that is finished has its stored response published once more, to where the
        request now asks for it. An `accepted` event goes with a new one.
        """
        fingerprint = None if message.message_id else _fingerprint(message)
        with self._transaction() as db:
            known = self._known(db, message, fingerprint)
            if known is not None:
                self._know_again(db, known, message)
                return known, False
            now = time.time()
            job_id = db.execute(
                "INSERT INTO job (request_id, fingerprint, settled, correlation_id, reply_to, body, accepted_at,"
                " expires_at, state) VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?)",
                (
                    message.message_id or str(uuid.uuid4()),
                    fingerprint,
                    message.correlation_id,
                    message.reply_to,
                    message.body,
                    now,
                    None if message.expires_in is None else now + message.expires_in,
                    JobState.ACCEPTED,
                ),
            ).lastrowid
            job = self._job(db, job_id)
            self._put_event(db, job, Event.ACCEPTED)
            return job, True

    def _known(self, db: sqlite3.Connection, message: Message, fingerprint: bytes | None) -> Job | None:
        if message.message_id:
            row = db.execute(f"SELECT {_JOB} FROM job WHERE request_id = ?", (message.message_id,)).fetchone()
        elif message.redelivered:
            row = db.execute(
                f"SELECT {_JOB} FROM job WHERE NOT settled AND fingerprint = ?", (fingerprint,)
            ).fetchone()
        else:
            row = None
        return None if row is None else _to_job(row)

    def _know_again(self, db: sqlite3.Connection, job: Job, message: Message) -> None:
        (settled,) = db.execute("SELECT settled FROM job WHERE id = ?", (job.id,)).fetchone()
        if message.redelivered and not settled:
            return  # the one delivery, come back for want of an ack: nobody asks anew
        db.execute(
            "UPDATE job SET reply_to = ?, correlation_id = ? WHERE id = ?",
            (message.reply_to, message.correlation_id, job.id),
        )
        if job.state in (JobState.FINISHED, JobState.ANSWERED):
            self._put_response(db, job.id)

    def settle(self) -> None:
        """Note that the broker has taken every ack sent so far: none of those requests comes again by itself."""
        with self._transaction() as db:
            db.execute("UPDATE job SET settled = 1 WHERE NOT settled")

    # -- a job's life --------------------------------------------------------------------------------------

    def job(self, job_id: int) -> Job:
        """Return a job as it now stands."""
        with self._lock:
            return self._job(self._db, job_id)

    def open_jobs(self) -> list[tuple[int, JobState, float | None]]:
        """Return id, state and time of the next try of the jobs that are not finished, in order of arrival."""
        with self._lock:
            rows = self._db.execute(
                "SELECT id, state, next_try_at FROM job WHERE state NOT IN ('finished', 'answered') ORDER BY id"
            ).fetchall()
        return [(job_id, JobState(state), next_try_at) for job_id, state, next_try_at in rows]

    def attempts(self, job_id: int) -> list[Attempt]:
        """Return a job's attempts in the order they were made."""
        with self._lock:
            rows = self._db.execute(
                f"SELECT {_ATTEMPT} FROM attempt WHERE job = ? ORDER BY id", (job_id,)
            ).fetchall()
        return [_to_attempt(row) for row in rows]

    def run_directory(self, job_id: int, attempt: Attempt) -> Path:
        """Return where the run of an attempt keeps its files."""
        return self._runs(job_id) / f"{attempt.command + 1}.{attempt.number}"

    def _runs(self, job_id: int) -> Path:
        return self.state_dir / "runs" / str(job_id)

    def start(self, job: Job, command: int, number: int, time_limit: float, boot: str) -> Attempt:
        """Note that an attempt of a command starts now, in this `boot` of the host; the job is running.

        A job's first attempt tells a `started` event.
        """
        now = time.time()
        with self._transaction() as db:
            attempt_id = db.execute(
                "INSERT INTO attempt (job, command, number, started_at, time_limit, boot) VALUES (?, ?, ?, ?, ?, ?)",
                (job.id, command, number, now, time_limit, boot),
            ).lastrowid
            db.execute(
                "UPDATE job SET state = ?, next_try_at = NULL WHERE id = ?", (JobState.RUNNING, job.id)
            )
            if command == 0 and number == 1:
                self._put_event(db, job, Event.STARTED)
            return self._attempt(db, attempt_id)

    def end(
        self,
        attempt: Attempt,
        *,
        elapsed_ms: int,
        exit_code: int | None,
        outcome: Outcome,
        error_code: ErrorCode | None,
        failure_class: FailureClass | None,
        reason: str,
        codes: Sequence[str],
    ) -> Attempt:
        """Note how an attempt went; return it as it now stands."""
        with self._transaction() as db:
            db.execute(
                "UPDATE attempt SET ended_at = ?, elapsed_ms = ?, exit_code = ?, outcome = ?, error_code = ?,"
                " failure_class = ?, reason = ?, codes = ? WHERE id = ?",
                (
                    time.time(),
                    elapsed_ms,
                    exit_code,
                    outcome,
                    error_code,
                    failure_class,
                    reason,
                    json.dumps(codes),
                    attempt.id,
                ),
            )
            return self._attempt(db, attempt.id)

    def wait(self, job: Job, next_try_at: float, reason: str) -> None:
        """Put a job to wait until `next_try_at` (seconds since 1970); a `retrying` event tells it."""
        with self._transaction() as db:
            db.execute(
                "UPDATE job SET state = ?, next_try_at = ? WHERE id = ?",
                (JobState.WAITING, next_try_at, job.id),
            )
            self._put_event(db, job, Event.RETRYING, next_try_at=next_try_at, reason=reason)

    def finish(self, job: Job, result: Result) -> None:
        """Note a job's end; what it has to tell is in the outbox by the same transaction.

        That is its response, a dead letter if it failed, and a `finished` event.
        """
        with self._transaction() as db:
            now = time.time()
            db.execute(
                "UPDATE job SET state = ?, outcome = ?, error_code = ?, reason = ?, finished_at = ?,"
                " response_id = ? WHERE id = ?",
                (
                    JobState.FINISHED,
                    result.outcome,
                    result.error_code,
                    result.reason,
                    now,
                    str(uuid.uuid4()),
                    job.id,
                ),
            )
            self._store_response(db, job.id, result.response)
            self._put_response(db, job.id)
            if not (result.outcome.successful or result.outcome is Outcome.CANCELLED):
                self._put_dead_letter(db, job.id, result.last_lines)
            self._put_event(
                db,
                job,
                Event.FINISHED,
                outcome=result.outcome,
                error_code=result.error_code,
                reason=result.reason,
                finished_at=now,
            )

    def response(self, job_id: int) -> bytes | None:
        """Return a finished job's response."""
        with self._lock:
            (size,) = self._db.execute("SELECT length(response) FROM job WHERE id = ?", (job_id,)).fetchone()
            return None if size is None else self._blob(job_id, "response")

    def _blob(self, job_id: int, column: str) -> bytes:
        with self._db.blobopen("job", column, job_id, readonly=True) as blob:
            return blob.read()

    def replace_response(self, job_id: int, response: BinaryIO) -> None:
        """Put another response, a file written to its end, in the place of a job's."""
        with self._transaction() as db:
            self._store_response(db, job_id, response)

    def _store_response(self, db: sqlite3.Connection, job_id: int, response: BinaryIO) -> None:
        # In pieces: a response of megabytes is in memory once, when it is published.
        db.execute("UPDATE job SET response = zeroblob(?) WHERE id = ?", (response.tell(), job_id))
        response.seek(0)
        with db.blobopen("job", "response", job_id) as blob:
            while piece := response.read(_PIECE):
                blob.write(piece)

    # -- the outbox ----------------------------------------------------------------------------------------

    def outbox(self, limit: int) -> list[int]:
        """Return the rows of the oldest messages still to be published, at most `limit`."""
        with self._lock:
            rows = self._db.execute("SELECT id FROM outbox ORDER BY id LIMIT ?", (limit,)).fetchall()
        return [row[0] for row in rows]

    def outgoing(self, row: int) -> Outgoing | None:
        """Return one message of the outbox, None if it is no longer there."""
        with self._lock:
            found = self._db.execute(f"SELECT {_OUTGOING} FROM outbox WHERE id = ?", (row,)).fetchone()
            if found is None:
                return None
            values: dict[str, Any] = dict(zip(_OUTGOING.split(", "), found, strict=True))
            if values["body"] is None:
                column = "response" if values["kind"] == Kind.RESPONSE else "body"
                values["body"] = self._blob(values["job"], column)
        values["kind"] = Kind(values["kind"])
        values["headers"] = json.loads(values["headers"])
        return Outgoing(**values)

    def outbox_size(self) -> int:
        """Return how many messages are still to be published."""
        with self._lock:
            (count,) = self._db.execute("SELECT count(*) FROM outbox").fetchone()
        return int(count)

    def tally(self) -> dict[Outcome, tuple[int, float]]:
        """Return, by outcome, how many jobs the journal remembers, and when the latest of them finished."""
        with self._lock:
            rows = self._db.execute(
                "SELECT outcome, count(*), max(finished_at) FROM job WHERE outcome IS NOT NULL GROUP BY outcome"
            ).fetchall()
        return {Outcome(outcome): (count, latest) for outcome, count, latest in rows}

    def published(self, ids: Sequence[int]) -> None:
        """Note that the broker has these messages; a job whose response is out is answered."""
        with self._transaction() as db:
            for outgoing in ids:
                row = db.execute(
                    "DELETE FROM outbox WHERE id = ? RETURNING job, kind", (outgoing,)
                ).fetchone()
                if row is not None and row[1] == Kind.RESPONSE:
                    db.execute("UPDATE job SET state = ? WHERE id = ?", (JobState.ANSWERED, row[0]))

    def undeliverable(self, outgoing: int) -> None:
        """Note that the broker has no queue for a response: it goes to the common queue instead."""
        with self._transaction() as db:
            db.execute("UPDATE outbox SET undeliverable_to = routing WHERE id = ?", (outgoing,))

    def _put_response(self, db: sqlite3.Connection, job_id: int) -> None:
        self._announced = True
        row = db.execute(
            "SELECT request_id, coalesce(correlation_id, request_id), coalesce(reply_to, ''), outcome, response_id,"
            " (SELECT count(*) FROM attempt WHERE attempt.job = job.id) FROM job WHERE id = ?",
            (job_id,),
        ).fetchone()
        request_id, correlation_id, reply_to, outcome, response_id, attempts = row
        headers = {
            "tsm-host": self._host,
            "tsm-outcome": outcome,
            "tsm-attempts": attempts,
            "tsm-request-id": request_id,
        }
        db.execute(
            "INSERT INTO outbox (job, kind, routing, correlation_id, message_id, headers) VALUES (?, ?, ?, ?, ?, ?)",
            (job_id, Kind.RESPONSE, reply_to, correlation_id, response_id, json.dumps(headers)),
        )

    def _put_dead_letter(self, db: sqlite3.Connection, job_id: int, last_lines: tuple[str, ...]) -> None:
        job = self._job(db, job_id)
        rows = db.execute(f"SELECT {_ATTEMPT} FROM attempt WHERE job = ? ORDER BY id", (job_id,)).fetchall()
        attempts = [_to_attempt(row) for row in rows]
        failed = [attempt for attempt in attempts if attempt.outcome and not attempt.outcome.successful]
        headers = {
            "tsm-host": self._host,
            "tsm-request-id": job.request_id,
            "tsm-outcome": job.outcome,
            "tsm-error-code": job.error_code,
            "tsm-reason": (job.reason or "")[:_REASON],
            "tsm-attempts": len(attempts),
            "tsm-exit-code": failed[-1].exit_code if failed else None,
            "tsm-ans-codes": sorted({code for attempt in failed for code in attempt.codes}),
            "tsm-last-lines": last_lines or None,
            "tsm-first-seen": _in_words(job.accepted_at),
            "tsm-last-tried": _in_words(attempts[-1].started_at) if attempts else None,
            "tsm-reply-to": job.reply_to,
            "tsm-correlation-id": job.correlation_id,
        }
        told = json.dumps({name: value for name, value in headers.items() if value is not None})
        db.execute(
            "INSERT INTO outbox (job, kind, routing, correlation_id, message_id, headers) VALUES (?, ?, ?, ?, ?, ?)",
            (job_id, Kind.DEAD_LETTER, f"host.{self._host}", job.correlation_id, str(uuid.uuid4()), told),
        )

    def _put_event(self, db: sqlite3.Connection, job: Job, event: Event, **facts: object) -> None:
        self._announced = True
        body = {
            "event": event,
            "host": self._host,
            "request_id": job.request_id,
            "correlation_id": job.correlation_id,
            "time": time.time(),
            "accepted_at": job.accepted_at,
            "outcome": None,
            **facts,
        }
        db.execute(
            "INSERT INTO outbox (job, kind, routing, message_id, headers, body) VALUES (?, ?, ?, ?, '{}', ?)",
            (job.id, Kind.EVENT, f"{event}.{self._host}", str(uuid.uuid4()), json.dumps(body).encode()),
        )

    # -- housekeeping --------------------------------------------------------------------------------------

    def prune(self, keep: float) -> None:
        """Forget the answered jobs that finished more than `keep` seconds ago, their transcripts with them."""
        with self._transaction() as db:
            rows = db.execute(
                "DELETE FROM job WHERE state = ? AND finished_at < ?"
                " AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.job = job.id) RETURNING id",
                (JobState.ANSWERED, time.time() - keep),
            ).fetchall()
        for (job_id,) in rows:
            shutil.rmtree(self._runs(job_id), ignore_errors=True)

    def writable(self) -> bool:
        """Whether a transaction can be made durable now; asked before taking requests after one could not."""
        try:
            with self._transaction() as db:
                db.execute("CREATE TABLE IF NOT EXISTS probe (filler BLOB)")
                db.execute("INSERT INTO probe VALUES (zeroblob(1 << 20))")
                db.execute("DELETE FROM probe")
        except JournalError:
            return False
        return True

    def _job(self, db: sqlite3.Connection, job_id: int | None) -> Job:
        return _to_job(db.execute(f"SELECT {_JOB} FROM job WHERE id = ?", (job_id,)).fetchone())

    def _attempt(self, db: sqlite3.Connection, attempt_id: int | None) -> Attempt:
        return _to_attempt(
            db.execute(f"SELECT {_ATTEMPT} FROM attempt WHERE id = ?", (attempt_id,)).fetchone()
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the database for one transaction, durable at its end. Raise JournalError, nothing changed."""
        with self._lock:
            self._announced = False
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise JournalError(f"the journal in {self.state_dir} cannot be written: {error}") from error
            except BaseException:
                self._roll_back()
                raise
            announced = self._announced
        if announced:
            self.on_outbox()

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise sqlite3.DatabaseError(
                f"it has schema {version}, this program knows up to {len(MIGRATIONS)}"
            )
        for step in range(version, len(MIGRATIONS)):
            self._db.executescript(f"BEGIN; {MIGRATIONS[step]}; PRAGMA user_version = {step + 1}; COMMIT;")


def _fingerprint(message: Message) -> bytes:
    digest = hashlib.sha256()
    for part in (message.body, (message.correlation_id or "").encode(), (message.reply_to or "").encode()):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def _in_words(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")


def _to_job(row: tuple[Any, ...]) -> Job:
    values: dict[str, Any] = dict(zip(_JOB.split(", "), row, strict=True))
    for name, words in (("state", JobState), ("outcome", Outcome), ("error_code", ErrorCode)):
        values[name] = values[name] and words(values[name])
    return Job(**values)


def _to_attempt(row: tuple[Any, ...]) -> Attempt:
    values: dict[str, Any] = dict(zip(_ATTEMPT.split(", "), row, strict=True))
    for name, words in (("outcome", Outcome), ("error_code", ErrorCode), ("failure_class", FailureClass)):
        values[name] = values[name] and words(values[name])
    values["codes"] = tuple(json.loads(values["codes"] or "[]"))
    return Attempt(**values)
