"""The slots: how many jobs run at once, and which is next."""

import threading
import time
from collections.abc import Callable

import structlog

from worker.journal import Journal
from worker.words import JobState

log = structlog.get_logger()


class Slots:
    """Runs jobs, each in a thread of its own, at most `count` at once; its methods may be called from any thread.

    `work` does one job and returns when it is over for now; `on_change` is called after each that is.
    """

    def __init__(
        self, count: int, journal: Journal, work: Callable[[int], None], on_change: Callable[[], None]
    ) -> None:
        self.count = count
        self._journal = journal
        self._work = work
        self._on_change = on_change
        self._changed = threading.Condition()
        self._running: set[int] = set()
        self._due: dict[
            tuple[int, float], float
        ] = {}  # when a waiting job is due, by a clock that nobody sets
        self._closed = False

    @property
    def free(self) -> bool:
        """Whether another job may start."""
        return not self._closed and len(self._running) < self.count

    def start(self, job_id: int) -> None:
        """Start a job that has just been accepted; with no slot free, or none any more, `tend` or a restart does.

        `tend` may have found it in the journal before this call, and have it running, or done.
        """
        with self._changed:
            if self.free and job_id not in self._running:
                self._launch(job_id)

    def tend(self) -> float | None:
        """Start every job in the journal whose turn it is; return the seconds until the next try of one is due.

        Jobs that an earlier worker left running are taken up whatever the number of slots: their dsmc runs. Then
        those that wait come before new ones, for they arrived earlier.
        """
        due_in: float | None = None
        with self._changed:
            for job_id, state, next_try_at in self._journal.open_jobs():
                if self._closed or job_id in self._running:
                    continue
                left = self._left(job_id, next_try_at) if next_try_at is not None else 0.0
                if left > 0:
                    due_in = left if due_in is None else min(due_in, left)
                elif state is JobState.RUNNING or self.free:
                    self._launch(job_id)
        return due_in

    def _left(self, job_id: int, next_try_at: float) -> float:
        """Return the seconds until a waiting job is due; setting the clock back makes it wait no longer."""
        now = time.monotonic()
        return self._due.setdefault((job_id, next_try_at), now + next_try_at - time.time()) - now

    def close(self, patience: float) -> bool:
        """Start nothing any more; wait up to `patience` seconds for what runs. Return whether all of it is over."""
        with self._changed:
            self._closed = True
            return self._changed.wait_for(lambda: not self._running, patience)

    def _launch(self, job_id: int) -> None:
        self._due = {key: due for key, due in self._due.items() if key[0] != job_id}
        self._running.add(job_id)
        threading.Thread(target=self._run, args=(job_id,), name=f"job-{job_id}", daemon=True).start()

    def _run(self, job_id: int) -> None:
        try:
            self._work(job_id)
        except Exception:
            log.exception("job thread broken", job=job_id)
        with self._changed:
            self._running.discard(job_id)
            self._changed.notify_all()
        self._on_change()
