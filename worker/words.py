"""The closed sets of words that code, logs, events, metrics, headers and documents share.

Source of all: docs/contract.md (the design's sections 4 and 5).
"""

from enum import StrEnum, unique


@unique
class Platform(StrEnum):
    """The kinds of host a worker runs on."""

    LINUX = "linux"
    WINDOWS = "windows"


@unique
class JobState(StrEnum):
    """Where a job stands in the journal of its host."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    WAITING = "waiting"
    FINISHED = "finished"
    ANSWERED = "answered"


@unique
class Outcome(StrEnum):
    """How a job, or one command of it, ended."""

    COMPLETED = "completed"
    COMPLETED_WITH_WARNINGS = "completed-with-warnings"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def successful(self) -> bool:
        """Whether the backup is there: completed, with or without warnings."""
        return self in (Outcome.COMPLETED, Outcome.COMPLETED_WITH_WARNINGS)


@unique
class FailureClass(StrEnum):
    """Whether another try may work with nothing changed."""

    TRANSIENT = "transient"
    PERMANENT = "permanent"


@unique
class ErrorCode(StrEnum):
    """What a response's `<error><code>` may say."""

    BAD_REQUEST = "bad-request"
    VOLUME_NOT_ELIGIBLE = "volume-not-eligible"
    OPTION_NOT_ALLOWED = "option-not-allowed"
    DSMC_NOT_FOUND = "dsmc-not-found"
    DSMC_FAILED = "dsmc-failed"
    TIMED_OUT = "timed-out"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    INTERNAL = "internal"


@unique
class Event(StrEnum):
    """What a worker tells the exchange `tsm.events`."""

    ACCEPTED = "accepted"
    STARTED = "started"
    RETRYING = "retrying"
    FINISHED = "finished"
