"""The scheduler's side: ask many hosts at once, and collect what they answer.

    from worker import fleet

    request = fleet.request("/dev/sdb1", "/home", options={"compression": "yes"}, timeout=7200)
    with fleet.Client("amqps://scheduler:secret@rabbit.example.com/backup") as client:
        batch = client.submit(request, hosts=["web01", "db01"], batch_id="nightly-2026-11-23")
        answers = client.collect(batch, timeout=8 * 3600)
        for answer in answers:
            print(answer.host, answer.outcome, answer.error or "")
        print("no answer from", answers.outstanding, "no such host", batch.unroutable)

`list(client.collect(...))` is the blocking style. Groups, or all hosts, are asked with `groups=["web"]` or
`everyone=True`, and awaited with `expect=50`. `client.collect("nightly-2026-11-23")` takes up the wait later, on
this or another machine. Submitting again under the same id runs nothing twice: each host answers again.
"""

from worker.broker.connection import BrokerRefused, BrokerUnreachable
from worker.errors import RequestRefused
from worker.fleet.batch import Answer, Batch, BatchError, Sign
from worker.fleet.client import Client
from worker.fleet.collection import Collection
from worker.fleet.draft import request
from worker.fleet.presence import Present
from worker.words import Outcome

__all__ = [
    "Answer",
    "Batch",
    "BatchError",
    "BrokerRefused",
    "BrokerUnreachable",
    "Client",
    "Collection",
    "Outcome",
    "Present",
    "RequestRefused",
    "Sign",
    "request",
]
