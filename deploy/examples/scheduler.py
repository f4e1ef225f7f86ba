# ruff: noqa: INP001, T201 -- a program of its own that speaks on stdout
"""A small scheduler: hosts in waves, so that the backup server never has more than so many sessions at once.

    export TSM_WORKER_BROKER_URL=amqps://scheduler:secret@rabbit.example.com/backup
    python scheduler.py /dev/sdb1 20 web01 web02 db01 ...

asks 20 hosts at a time, and those that failed once more at the end. Exit code 0: every host has its image.
"""

import itertools
import os
import sys
from collections.abc import Iterable, Iterator

from worker import fleet


def waves(hosts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield the hosts, `size` at a time."""
    rest = iter(hosts)
    while wave := list(itertools.islice(rest, size)):
        yield wave


def back_up(client: fleet.Client, request: bytes, hosts: list[str], size: int) -> set[str]:
    """Ask the hosts, wave after wave; return those that have no image."""
    failed: set[str] = set()
    for wave in waves(hosts, size):
        batch = client.submit(request, hosts=wave, expires=3600)
        answers = client.collect(batch, timeout=8 * 3600)
        for answer in answers:
            print(answer.host, answer.outcome, answer.error or "", flush=True)
            if not answer.outcome.successful:
                failed.add(answer.host)
        failed.update(answers.outstanding, batch.unroutable)
    return failed


def main(volume: str, size: str, *hosts: str) -> int:
    """Back up a volume of each host, trying the failed ones twice; return the exit code."""
    request = fleet.request(volume, options={"compression": "yes"}, timeout=4 * 3600)
    with fleet.Client(os.environ["TSM_WORKER_BROKER_URL"]) as client:
        failed = back_up(client, request, list(hosts), int(size))
        if failed:
            print("once more:", *sorted(failed), flush=True)
            failed = back_up(client, request, sorted(failed), int(size))
    if failed:
        print("no image of:", *sorted(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
