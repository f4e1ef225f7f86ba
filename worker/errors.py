"""The root of every error this package raises on purpose."""

from worker.words import ErrorCode


class TsmWorkerError(Exception):
    """Something went wrong that the message explains: what happened, to which thing, and what to do.

    The command line shows it without a traceback and ends with `exit_code` (DESIGN section 8).
    """

    exit_code = 1


class RequestRefused(TsmWorkerError):
    """A request may not reach dsmc; `code` says why in the contract's words."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
