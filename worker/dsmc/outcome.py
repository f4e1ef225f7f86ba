"""What a run of dsmc meant: from exit code and message codes to an outcome of the closed set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from signal import Signals

from worker.dsmc import messages
from worker.words import ErrorCode, FailureClass, Outcome


@unique
class End(StrEnum):
    """How a run came to its end."""

    EXITED = "exited"
    TIMED_OUT = "timed-out"
    CANCELLED = "cancelled"
    LOST = "lost"  # it is gone and left no exit status: the host went down, or its supervisor was killed


@dataclass(frozen=True, slots=True)
class Decision:
    """What a run meant. `error` and `failure_class` are None exactly where the backup is there."""

    outcome: Outcome
    reason: str
    error: ErrorCode | None = None
    failure_class: FailureClass | None = None


# IBM: the exit code follows the highest message severity (dsmc-facts.md section 3).
_EXIT_CODES: dict[int, Outcome] = {
    0: Outcome.COMPLETED,
    4: Outcome.COMPLETED,  # some files were not processed; no other error or warning
    8: Outcome.COMPLETED_WITH_WARNINGS,
}

_ENDED: dict[End, Decision] = {
    End.TIMED_OUT: Decision(
        Outcome.TIMED_OUT,
        "dsmc was ended at its time limit",
        ErrorCode.TIMED_OUT,
        FailureClass.PERMANENT,
    ),
    End.CANCELLED: Decision(
        Outcome.CANCELLED, "dsmc was ended on request", ErrorCode.CANCELLED, FailureClass.PERMANENT
    ),
    End.LOST: Decision(
        Outcome.INTERRUPTED,
        "dsmc is gone and left no exit status: the host went down, or its supervisor was killed",
        ErrorCode.INTERRUPTED,
        FailureClass.TRANSIENT,
    ),
}


def decide(
    end: End,
    exit_code: int | None,
    codes: Sequence[str],
    overrides: Mapping[str, FailureClass] | None = None,
    texts: Mapping[str, str] | None = None,
) -> Decision:
    """Given how a run ended and the codes it printed, return what it meant.

    `exit_code` counts where the run exited by itself: 0 to 255, as a shell gives it (128 + n: ended by signal
    n), and on Windows any 32 bits. `overrides` (code to class) takes precedence over the table of messages. `texts`
    (code to text) decides nothing: it is told to people.
    """
    if end is not End.EXITED or exit_code is None:
        return _ENDED[End.LOST if end is End.EXITED else end]
    outcome = _EXIT_CODES.get(exit_code)
    if outcome is not None:
        return Decision(outcome, f"dsmc ended with exit code {exit_code}")
    failure_class, cause = classify(codes, overrides or {})
    cause = f"{cause} {(texts or {}).get(cause, '')}".strip()
    return Decision(
        Outcome.FAILED,
        f"dsmc {_exit_in_words(exit_code)}: {cause}",
        ErrorCode.DSMC_FAILED,
        failure_class,
    )


def classify(codes: Sequence[str], overrides: Mapping[str, FailureClass]) -> tuple[FailureClass, str]:
    """Given the codes of a failed run, return its class and the code (or words) that decided it.

    Errors decide before warnings; among equals one permanent cause makes another try useless. No code of a
    known class is permanent: nobody knows that another try would help.
    """
    known = {code: overrides.get(code) or messages.CLASSES.get(code) for code in codes}
    errors = {code: known[code] for code in codes if messages.is_error(code) and known[code]}
    warnings = {code: known[code] for code in codes if known[code]}
    for found in (errors, warnings):
        for failure_class in (FailureClass.PERMANENT, FailureClass.TRANSIENT):
            for code, its_class in found.items():
                if its_class is failure_class:
                    return failure_class, code
    seen = ", ".join(code for code in codes if messages.is_error(code))
    return FailureClass.PERMANENT, seen or "no message code that is known"


def _exit_in_words(exit_code: int) -> str:
    if exit_code >= 0xC0000000:  # noqa: PLR2004 -- an NTSTATUS of severity "error" ([MS-ERREF], section 2.3)
        return f"crashed with 0x{exit_code:08X}"
    if exit_code > 128:  # noqa: PLR2004 -- the shell's way to tell a signal
        try:
            return f"was ended by {Signals(exit_code - 128).name}"
        except ValueError:
            pass
    if exit_code in (126, 127):
        return f"could not be started (exit code {exit_code}; its output says why)"
    return f"ended with exit code {exit_code}"
