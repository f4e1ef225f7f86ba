"""What a run of dsmc meant: one row a case."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from worker.dsmc import transcript
from worker.dsmc.outcome import Decision, End, decide
from worker.words import ErrorCode, FailureClass, Outcome

TRANSCRIPTS = Path(__file__).parents[1] / "fixtures" / "transcripts"
T, P = FailureClass.TRANSIENT, FailureClass.PERMANENT
EXITED = End.EXITED

# exit code, codes, outcome, class, the code or words that decided
CASES: dict[str, tuple[int, str, Outcome, FailureClass | None, str]] = {
    "all well": (0, "", Outcome.COMPLETED, None, "exit code 0"),
    "all well, whatever was said": (0, "ANS1353E ANS1312E", Outcome.COMPLETED, None, "exit code 0"),
    "files skipped": (4, "ANS1228E ANS4037E ANS1802E", Outcome.COMPLETED, None, "exit code 4"),
    "warned": (8, "ANS1809W", Outcome.COMPLETED_WITH_WARNINGS, None, "exit code 8"),
    "warned, though errors were said": (8, "ANS1312E", Outcome.COMPLETED_WITH_WARNINGS, None, "exit code 8"),
    "no message": (12, "", Outcome.FAILED, P, "exit code 12: no message code that is known"),
    "transient": (12, "ANS1312E", Outcome.FAILED, T, "exit code 12: ANS1312E"),
    "permanent": (12, "ANS1353E", Outcome.FAILED, P, "exit code 12: ANS1353E"),
    "severe": (12, "ANS1035S", Outcome.FAILED, P, "ANS1035S"),
    "permanent after transient": (12, "ANS1312E ANS1353E", Outcome.FAILED, P, "ANS1353E"),
    "permanent before transient": (12, "ANS1353E ANS1312E", Outcome.FAILED, P, "ANS1353E"),
    "the first of two transient": (12, "ANS1312E ANS1311E", Outcome.FAILED, T, ": ANS1312E"),
    "the first of two permanent": (12, "ANS1063E ANS1353E", Outcome.FAILED, P, ": ANS1063E"),
    "summaries around the cause": (
        12, "ANS1425E ANS1228E ANS1312E ANS1813E", Outcome.FAILED, T, ": ANS1312E",
    ),
    "summaries around a permanent cause": (12, "ANS1228E ANS1063E ANS1813E", Outcome.FAILED, P, ": ANS1063E"),
    "summaries alone": (12, "ANS1425E ANS1228E ANS1813E", Outcome.FAILED, P, "ANS1425E, ANS1228E, ANS1813E"),
    "unknown error": (12, "ANS7777E", Outcome.FAILED, P, "ANS7777E"),
    "unknown error beside a transient one": (12, "ANS7777E ANS1312E", Outcome.FAILED, T, ": ANS1312E"),
    "unknown warning": (12, "ANS7777W", Outcome.FAILED, P, "no message code that is known"),
    "a session lost": (12, "ANS1029E", Outcome.FAILED, T, ": ANS1029E"),
    "a session lost for want of a password": (12, "ANS2050E ANS1029E", Outcome.FAILED, P, ": ANS2050E"),
    "the wrong password": (12, "ANS1051I", Outcome.FAILED, P, ": ANS1051I"),
    "the wrong password, then a session lost": (12, "ANS1051I ANS1029E", Outcome.FAILED, P, ": ANS1051I"),
    "a warning alone": (12, "ANS1809W", Outcome.FAILED, T, ": ANS1809W"),
    "a permanent warning alone": (12, "ANS1133W", Outcome.FAILED, P, ": ANS1133W"),
    "two warnings": (12, "ANS1809W ANS1133W", Outcome.FAILED, P, ": ANS1133W"),
    "a permanent warning beside a transient error": (12, "ANS1133W ANS1312E", Outcome.FAILED, T, ": ANS1312E"),
    "a transient warning beside a permanent error": (12, "ANS1809W ANS1353E", Outcome.FAILED, P, ": ANS1353E"),
    "a warning beside a summary": (12, "ANS1809W ANS1813E", Outcome.FAILED, T, ": ANS1809W"),
    "one number, two letters: the error": (12, "ANS1375E", Outcome.FAILED, P, ": ANS1375E"),
    "information alone": (12, "ANS1898I", Outcome.FAILED, P, "no message code that is known"),
    "interrupted by hand": (12, "ANS2820E", Outcome.FAILED, P, "ANS2820E"),
    "another exit code": (1, "", Outcome.FAILED, P, "dsmc ended with exit code 1: no message"),
    "another exit code, transient": (16, "ANS1312E", Outcome.FAILED, T, "exit code 16: ANS1312E"),
    "the shell's not executable": (126, "", Outcome.FAILED, P, "could not be started (exit code 126"),
    "the shell's not found": (127, "", Outcome.FAILED, P, "could not be started (exit code 127"),
    "killed": (137, "", Outcome.FAILED, P, "was ended by SIGKILL"),
    "killed after a transient error": (137, "ANS1312E", Outcome.FAILED, T, "was ended by SIGKILL: ANS1312E"),
    "terminated": (143, "", Outcome.FAILED, P, "was ended by SIGTERM"),
    "crashed": (139, "", Outcome.FAILED, P, "was ended by SIGSEGV"),
    "no such signal": (255, "", Outcome.FAILED, P, "ended with exit code 255"),
    "128 is no signal": (128, "", Outcome.FAILED, P, "ended with exit code 128"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_ended_by_itself(name: str) -> None:
    exit_code, codes, outcome, failure_class, words = CASES[name]
    decision = decide(EXITED, exit_code, codes.split())
    assert decision.outcome is outcome
    assert decision.failure_class is failure_class
    assert decision.error is (None if outcome.successful else ErrorCode.DSMC_FAILED)
    assert words in decision.reason
    assert decision.reason.isprintable()


ENDED: list[tuple[End, int | None, Outcome, ErrorCode, FailureClass]] = [
    (End.TIMED_OUT, None, Outcome.TIMED_OUT, ErrorCode.TIMED_OUT, P),
    (End.TIMED_OUT, 137, Outcome.TIMED_OUT, ErrorCode.TIMED_OUT, P),
    (End.TIMED_OUT, 0, Outcome.TIMED_OUT, ErrorCode.TIMED_OUT, P),
    (End.CANCELLED, None, Outcome.CANCELLED, ErrorCode.CANCELLED, P),
    (End.CANCELLED, 143, Outcome.CANCELLED, ErrorCode.CANCELLED, P),
    (End.LOST, None, Outcome.INTERRUPTED, ErrorCode.INTERRUPTED, T),
    (End.EXITED, None, Outcome.INTERRUPTED, ErrorCode.INTERRUPTED, T),
]


@pytest.mark.parametrize(("end", "exit_code", "outcome", "error", "failure_class"), ENDED)
@pytest.mark.parametrize("codes", ["", "ANS1312E", "ANS1353E"])
def test_a_run_that_was_ended_is_judged_by_its_end_alone(
    end: End,
    exit_code: int | None,
    outcome: Outcome,
    error: ErrorCode,
    failure_class: FailureClass,
    codes: str,
) -> None:
    decision = decide(end, exit_code, codes.split())
    assert (decision.outcome, decision.error, decision.failure_class) == (outcome, error, failure_class)
    assert decision.reason


def test_every_end_has_a_row() -> None:
    assert {row[0] for row in ENDED} == set(End)


OVERRIDES: list[tuple[str, dict[str, FailureClass], FailureClass, str]] = [
    ("ANS1312E", {"ANS1312E": P}, P, ": ANS1312E"),
    ("ANS1353E", {"ANS1353E": T}, T, ": ANS1353E"),
    ("ANS7777E", {"ANS7777E": T}, T, ": ANS7777E"),
    ("ANS1813E", {"ANS1813E": T}, T, ": ANS1813E"),
    ("ANS1312E ANS1353E", {"ANS1353E": T}, T, ": ANS1312E"),
    ("ANS1809W", {"ANS1809W": P}, P, ": ANS1809W"),
    ("ANS1312E", {"ANS1353E": T}, T, ": ANS1312E"),
    ("ANS1051I", {"ANS1051I": T}, T, ": ANS1051I"),
]


@pytest.mark.parametrize(("codes", "overrides", "failure_class", "words"), OVERRIDES)
def test_the_hosts_classes_take_precedence(
    codes: str, overrides: Mapping[str, FailureClass], failure_class: FailureClass, words: str
) -> None:
    decision = decide(EXITED, 12, codes.split(), overrides)
    assert decision.failure_class is failure_class
    assert words in decision.reason


@pytest.mark.parametrize("exit_code", [0, 4, 8])
def test_an_override_makes_no_failure_of_a_success(exit_code: int) -> None:
    assert decide(EXITED, exit_code, ["ANS1312E"], {"ANS1312E": P}).outcome.successful


def told(path: Path, text: bytes, exit_code: int = 12) -> Decision:
    path.write_bytes(text)
    return decide(EXITED, exit_code, transcript.digest(path).codes)


SPOKEN: list[tuple[bytes, FailureClass]] = [
    ("ANS1353E (RC53) Sesión rechazada: Se ha entrado un ID desconocido o incorrecto\n".encode(), P),
    ("ANS1312E No es posible montar el soporte del servidor\n".encode("latin-1"), T),
    ("ANS1312E Datenträger kann auf dem Server nicht angehängt werden\n".encode("cp1252"), T),
    ("ANS1017E Sitzung zurückgewiesen: TCP/IP-Verbindungsfehler.\r\n".encode(), T),
    (b"Password has expired, permanent failure\n", P),  # words without a code say nothing
    (b"This is a transient failure, try again\n", P),
    (b"Normal File--> 1 /srv/ANS1312E [Sent]\n", P),  # nor does a path
    (b"ANS1228E Sending of object '/srv/ANS1353E' failed\nANS1312E media\n", T),
    (b"ANS2050E needs to prompt\nANS1029E Communication is lost\n", P),
    (b"text that wraps so that the\nANS1312E code starts a line\n", T),
    (b"\xff\xfe\x80 ANS1312E\n", T),
]


@pytest.mark.parametrize(("text", "failure_class"), SPOKEN)
def test_codes_decide_in_any_language_and_words_in_none(
    tmp_path: Path, text: bytes, failure_class: FailureClass
) -> None:
    assert told(tmp_path / "transcript", text).failure_class is failure_class


REAL: list[tuple[str, int, Outcome, FailureClass | None]] = [
    ("bmc-backup-image-win-5.5-success", 0, Outcome.COMPLETED, None),
    ("cinder-sim-backup-image-ok", 0, Outcome.COMPLETED, None),
    ("safespring-incremental-changed-retry", 4, Outcome.COMPLETED, None),
    ("cg-retrieve-7.1.4-ANS1590W-warning", 8, Outcome.COMPLETED_WITH_WARNINGS, None),
    ("apar-IC89088-image-fail-nomount", 12, Outcome.FAILED, T),
    ("ansible-pr20-selective-ANS1076E-8.1.23", 12, Outcome.FAILED, P),
    ("no-options-files-ANS0990W-ANS1035S", 12, Outcome.FAILED, P),
    ("safespring-ANS1051I-prompt-8.1.15.2", 12, Outcome.FAILED, P),
]


@pytest.mark.parametrize(("name", "exit_code", "outcome", "failure_class"), REAL)
def test_real_output_is_judged_as_a_person_would(
    tmp_path: Path, name: str, exit_code: int, outcome: Outcome, failure_class: FailureClass | None
) -> None:
    _source, _, text = (TRANSCRIPTS / f"{name}.txt").read_bytes().partition(b"\n")
    decision = told(tmp_path / "transcript", text, exit_code)
    assert (decision.outcome, decision.failure_class) == (outcome, failure_class)


def test_the_reason_has_dsmc_s_own_words_for_what_decided() -> None:
    texts = {"ANS1228E": "Sending of object failed", "ANS1312E": "Media mount not possible"}
    decision = decide(EXITED, 12, list(texts), None, texts)
    assert decision.reason == "dsmc ended with exit code 12: ANS1312E Media mount not possible"
    assert decision.failure_class is T
