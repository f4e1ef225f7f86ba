"""The journal on a real disk: what is in it after each step, and what it refuses."""

import io
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import full_disk, mount_small, unmount

from worker.journal import Journal, JournalError, Kind, Message, Result
from worker.words import JobState, Outcome


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "state", "web01")
    yield journal
    journal.close()


def result(body: bytes = b"<x/>") -> Result:
    file = io.BytesIO()
    file.write(body)
    return Result(Outcome.COMPLETED, None, "", file)


def kinds(journal: Journal) -> list[Kind]:
    return [outgoing.kind for row in journal.outbox(100) if (outgoing := journal.outgoing(row))]


def test_an_accepted_request_is_there_after_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state", "web01")
    job, new = journal.accept(Message(b"body", "id-1", "corr", "replies", 60))
    assert new
    journal.close()
    again = Journal(tmp_path / "state", "web01")
    assert again.open_jobs() == [(job.id, JobState.ACCEPTED, None)]
    assert again.job(job.id) == job
    assert (job.request_id, job.correlation_id, job.reply_to, job.body) == (
        "id-1",
        "corr",
        "replies",
        b"body",
    )
    assert job.expires_at == pytest.approx(time.time() + 60, abs=5)
    again.close()


def test_the_same_message_id_is_the_same_job(journal: Journal) -> None:
    first, _ = journal.accept(Message(b"body", "id-1"))
    second, new = journal.accept(Message(b"other", "id-1"))
    assert (second.id, new) == (first.id, False)
    assert kinds(journal) == [Kind.EVENT]


def test_a_finished_job_asked_for_again_puts_its_response_out_once_more_to_the_new_queue(
    journal: Journal,
) -> None:
    job, _ = journal.accept(Message(b"body", "id-1", "first", "here"))
    journal.settle()
    journal.finish(job, result(b"<answer/>"))
    journal.published(journal.outbox(100))
    assert journal.job(job.id).state is JobState.ANSWERED
    journal.accept(Message(b"body", "id-1", "second", "there"))
    (row,) = journal.outbox(100)
    outgoing = journal.outgoing(row)
    assert outgoing is not None
    assert (outgoing.kind, outgoing.routing, outgoing.correlation_id) == (Kind.RESPONSE, "there", "second")
    assert outgoing.body == b"<answer/>"


def test_a_redelivery_for_want_of_an_ack_does_not_repeat_the_answer(journal: Journal) -> None:
    job, _ = journal.accept(Message(b"body", "id-1"))
    journal.finish(job, result())
    journal.published(journal.outbox(100))
    journal.accept(Message(b"body", "id-1", redelivered=True))
    assert journal.outbox(100) == []


def test_without_a_message_id_a_redelivery_is_the_job_it_was_and_a_new_message_a_new_job(
    journal: Journal,
) -> None:
    message = Message(b"body", None, "corr", "replies")
    first, _ = journal.accept(message)
    back, new = journal.accept(Message(b"body", None, "corr", "replies", redelivered=True))
    assert (back.id, new) == (first.id, False)
    other, new = journal.accept(message)
    assert new
    assert other.id != first.id
    different, new = journal.accept(Message(b"body", None, "corr2", "replies", redelivered=True))
    assert new
    assert different.id not in (first.id, other.id)


def test_what_the_broker_has_taken_the_ack_of_is_no_longer_what_comes_again(journal: Journal) -> None:
    first, _ = journal.accept(Message(b"body"))
    journal.settle()
    second, new = journal.accept(Message(b"body", redelivered=True))
    assert new
    assert second.id != first.id


def test_a_finished_job_has_its_response_and_events_in_the_outbox(journal: Journal) -> None:
    job, _ = journal.accept(Message(b"body", "id-1", None, "replies"))
    attempt = journal.start(job, 0, 1, 60, "this boot")
    assert journal.job(job.id).state is JobState.RUNNING
    ended = journal.end(
        attempt,
        elapsed_ms=12,
        exit_code=0,
        outcome=Outcome.COMPLETED,
        error_code=None,
        failure_class=None,
        reason="fine",
        codes=["ANS1898I"],
    )
    assert journal.attempts(job.id) == [ended]
    assert ended.codes == ("ANS1898I",)
    journal.finish(job, result())
    assert kinds(journal) == [Kind.EVENT, Kind.EVENT, Kind.RESPONSE, Kind.EVENT]
    response = journal.outgoing(journal.outbox(100)[2])
    assert response is not None
    assert response.headers == {
        "tsm-host": "web01",
        "tsm-outcome": "completed",
        "tsm-attempts": 1,
        "tsm-request-id": "id-1",
    }
    assert journal.open_jobs() == []


def test_old_answered_jobs_are_forgotten_with_their_transcripts_and_others_kept(journal: Journal) -> None:
    answered, _ = journal.accept(Message(b"body", "answered"))
    untold, _ = journal.accept(Message(b"body", "untold"))
    for job in (answered, untold):
        directory = journal.run_directory(job.id, journal.start(job, 0, 1, 60, "this boot"))
        directory.mkdir(parents=True)
        journal.finish(job, result())
    for row in journal.outbox(100):
        outgoing = journal.outgoing(row)
        if outgoing is not None and outgoing.job == answered.id:
            journal.published([row])
    journal.prune(3600)
    assert journal.job(answered.id).state is JobState.ANSWERED
    journal.prune(-1)
    assert journal.job(untold.id).state is JobState.FINISHED
    assert [path.name for path in (journal.state_dir / "runs").iterdir()] == [str(untold.id)]


def test_a_second_worker_is_refused_while_the_first_one_lives(journal: Journal) -> None:
    with pytest.raises(JournalError, match="in use by another tsm-worker"):
        Journal(journal.state_dir, "web01")


def test_the_journal_is_for_its_owner_alone(journal: Journal) -> None:
    assert journal.state_dir.stat().st_mode & 0o77 == 0
    assert (journal.state_dir / "journal.sqlite").stat().st_mode & 0o77 == 0


@pytest.mark.parametrize("damage", ["text", "newer"])
def test_a_journal_that_cannot_be_used_is_an_error_that_says_why(tmp_path: Path, damage: str) -> None:
    tmp_path.chmod(0o700)
    file = tmp_path / "journal.sqlite"
    if damage == "text":
        file.write_text("no database at all " * 100)
    else:
        database = sqlite3.connect(file)
        database.execute("PRAGMA user_version = 99")
        database.close()
    with pytest.raises(JournalError, match="not a database" if damage == "text" else "schema 99"):
        Journal(tmp_path, "web01")


def test_a_state_directory_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match=str(tmp_path / "file")):
        Journal(tmp_path / "file" / "state", "web01")


def test_a_full_disk_accepts_nothing_and_takes_up_again(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    mount_small(tmp_path, "3m")
    try:
        journal = Journal(tmp_path / "state", "web01")
        kept, _ = journal.accept(Message(b"body", "kept"))
        filler = tmp_path / "filler"
        full_disk(filler.parent)
        with pytest.raises(JournalError, match="full"):
            journal.accept(Message(b"x" * 200_000, "refused"))
        assert not journal.writable()
        filler.unlink()
        assert journal.writable()
        assert [job for job, _, _ in journal.open_jobs()] == [kept.id]
        assert journal.accept(Message(b"x" * 200_000, "refused"))[1]
        journal.close()
    finally:
        unmount(tmp_path)


def test_what_was_accepted_is_there_after_the_process_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from worker.journal import Journal, Message; "
        "Journal(Path(sys.argv[1]), 'web01').accept(Message(b'body', 'id-1')); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "state")], check=False, timeout=20)
    journal = Journal(tmp_path / "state", "web01")
    assert [journal.job(job).request_id for job, _, _ in journal.open_jobs()] == ["id-1"]
    journal.close()
