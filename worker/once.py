"""One request done here and now: the daemon's own work on a journal that is thrown away after."""

import tempfile
from pathlib import Path

import msgspec

from worker import signals
from worker.config import Config, Retry
from worker.dsmc.supervise import Control
from worker.journal import Journal, Message
from worker.volumes import Volumes
from worker.words import Outcome
from worker.work import Work


def execute(body: bytes, config: Config, volumes: Volumes) -> tuple[Outcome, bytes]:
    """Given a request's body, do it in this thread, each command once; return outcome and response.

    SIGINT and SIGTERM (on Windows Ctrl-C and Ctrl-Break) end the dsmc that runs; the outcome is then `cancelled`.
    """
    control = Control()
    signals.on_stop(control.cancel.set)
    once = msgspec.structs.replace(config, retry=Retry(attempts=1, classes=config.retry.classes))
    with tempfile.TemporaryDirectory(prefix="tsm-worker-") as directory:
        journal = Journal(Path(directory), config.host)
        try:
            job, _ = journal.accept(Message(body))
            Work(once, journal, volumes, control).do(job.id)
            outcome = journal.job(job.id).outcome
            response = journal.response(job.id)
        finally:
            journal.close()
    if outcome is None or response is None:
        raise AssertionError("a job that nobody can leave is finished")
    return outcome, response
