"""Presence: this host says now and then that it is there, and what it does.

A message `present.<host>` to `tsm.events`: when the connection is made, a moment after something happens to a job,
every five minutes, and when the worker stops. It tells how things stand, not what happened, so one that is lost is
made good by the next: it is not in the journal, and neither confirmed nor awaited by anybody. Where no stream
`tsm.presence` is declared nobody keeps it; where the account may not send it, none is sent.
"""

import json
import sys
import time

import pika
import structlog
from pika.channel import Channel
from pika.spec import BasicProperties

from worker import __version__
from worker.broker import topology
from worker.broker.connection import explain
from worker.config import Config
from worker.journal import Journal
from worker.words import JobState, Platform

log = structlog.get_logger()

EVERY = 300.0
"""Seconds between two messages of a host to which nothing happens."""

_SETTLE = 3.0  # seconds that changes are gathered for
_JOBS = 8  # told at most


class Presence:
    """One connection's word on this host; lives in the thread of the connection, on a channel of its own."""

    def __init__(
        self, connection: pika.SelectConnection, config: Config, journal: Journal, *, user: str
    ) -> None:
        self._config = config
        self._journal = journal
        self._user = user
        self._later = connection.ioloop.call_later
        self._channel: Channel | None = None
        self._due = False  # whether changes are being gathered
        connection.channel(on_open_callback=self._on_open)

    def changed(self) -> None:
        """Tell soon how things stand."""
        if not self._due:
            self._due = True
            self._later(_SETTLE, self._tell_change)

    def leave(self) -> None:
        """Tell that the worker stops."""
        self._tell("stopped")

    def _on_open(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._on_closed)
        self._tell_now_and_then()

    def _on_closed(self, _channel: Channel, error: Exception) -> None:
        self._channel = None
        log.info("presence not told", reason=explain(error))

    def _tell_now_and_then(self) -> None:
        if self._channel is not None:
            self._tell()
            self._later(EVERY, self._tell_now_and_then)

    def _tell_change(self) -> None:
        self._due = False
        self._tell()

    def _tell(self, state: str | None = None) -> None:
        if self._channel is None or not self._channel.is_open:
            return
        jobs = []
        for job_id, job_state, _next_try in self._journal.open_jobs()[:_JOBS]:
            job = self._journal.job(job_id)
            jobs.append({"request_id": job.request_id, "state": job_state, "accepted_at": job.accepted_at})
        states = {job["state"] for job in jobs}
        busy = next((each for each in (JobState.RUNNING, JobState.WAITING) if each in states), None)
        told = {
            "event": "present",
            "host": self._config.host,
            "time": time.time(),
            "every": EVERY,
            "state": state or busy or ("accepted" if jobs else "idle"),
            "groups": self._config.groups,
            "version": __version__,
            "platform": Platform.WINDOWS if sys.platform == "win32" else Platform.LINUX,
            "slots": self._config.slots,
            "jobs": jobs,
        }
        properties = BasicProperties(content_type="application/json", delivery_mode=1, user_id=self._user)
        key = f"present.{self._config.host}"
        self._channel.basic_publish(topology.EVENTS, key, json.dumps(told).encode(), properties)
