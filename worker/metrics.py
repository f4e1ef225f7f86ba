"""Metrics for Prometheus, read from the journal when they are asked for: they cost nothing in between."""

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import start_http_server
from prometheus_client.registry import Collector, CollectorRegistry

from worker import __version__, config
from worker.journal import Journal
from worker.words import JobState, Outcome


class _Worker(Collector):
    def __init__(self, journal: Journal, connected: Callable[[], bool]) -> None:
        self._journal = journal
        self._connected = connected

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("tsm_worker_build_info", "The worker's version.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        open_jobs = [state for _, state, _ in self._journal.open_jobs()]
        jobs = GaugeMetricFamily("tsm_worker_open_jobs", "Jobs not yet finished, by state.", labels=["state"])
        for state in (JobState.ACCEPTED, JobState.RUNNING, JobState.WAITING):
            jobs.add_metric([state], open_jobs.count(state))
        yield jobs
        tally = self._journal.tally()
        finished = GaugeMetricFamily(
            "tsm_worker_finished_jobs", "Finished jobs the journal remembers, by outcome.", labels=["outcome"]
        )
        latest = GaugeMetricFamily(
            "tsm_worker_last_finished_timestamp_seconds",
            "When the latest job of an outcome ended.",
            labels=["outcome"],
        )
        for outcome in Outcome:
            count, when = tally.get(outcome, (0, 0.0))
            finished.add_metric([outcome], count)
            latest.add_metric([outcome], when)
        yield finished
        yield latest
        yield GaugeMetricFamily(
            "tsm_worker_outbox_messages",
            "Messages the broker has not yet confirmed.",
            self._journal.outbox_size(),
        )
        yield GaugeMetricFamily("tsm_worker_broker_connected", "1 while connected.", int(self._connected()))


def serve(listen: str, journal: Journal, connected: Callable[[], bool]) -> None:
    """Serve the metrics at `listen` (`address:port`) in a thread. Raise ConfigError if the address cannot be had."""
    address, _, port = listen.rpartition(":")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Worker(journal, connected))
    try:
        start_http_server(int(port), address.strip("[]"), registry)
    except (OSError, OverflowError) as error:
        raise config.ConfigError(f"metrics.listen {listen} cannot be used: {error}") from error
