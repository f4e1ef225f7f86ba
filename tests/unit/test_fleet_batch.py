"""Batches as values: what belongs to one, what its ledger says, what a message from a host is worth."""

import pytest

from worker import fleet
from worker.fleet.batch import Answer, Batch, Record, answer, check_id, sign
from worker.words import Outcome

GOOD = {"tsm-host": "web01", "tsm-request-id": "b.web01", "tsm-outcome": "completed", "tsm-attempts": 2}


@pytest.mark.parametrize(
    ("batch", "host", "request_id", "belongs"),
    [
        (Batch("b", hosts=("web01",)), "web01", "b.web01", True),
        (Batch("b", hosts=("web01",)), "web02", "b.web02", False),
        (Batch("b", hosts=("web01",)), "web02", "b.web01", False),
        (Batch("b", hosts=("web01",)), "web01", "b", False),
        (Batch("b", targets=("all",)), "web01", "b", True),
        (Batch("b", targets=("all",)), "web01", "c", False),
    ],
)
def test_an_answer_belongs_by_request_id_and_host(
    batch: Batch, host: str, request_id: str, *, belongs: bool
) -> None:
    assert batch.knows(host, request_id) is belongs


def test_unroutable_hosts_are_not_awaited() -> None:
    batch = Batch("b", hosts=("web01", "typo"), unroutable=("typo",))
    assert (batch.asked, batch.awaited) == (("web01",), 1)
    assert Batch("b", targets=("all",)).awaited is None
    assert Batch("b", targets=("group.a", "group.b"), expect=3, unroutable=("group.a",)).awaited == 3
    assert Batch("b", targets=("group.a",), expect=3, unroutable=("group.a",)).awaited == 0


def test_a_ledger_is_all_of_its_messages_taken_together() -> None:
    batch = Batch("b", hosts=("web01", "db01"), submitted_at=1.5)
    newer = Batch("b", hosts=("web01", "db01"), submitted_at=1.5, unroutable=("db01",))
    records = [
        Record(batch),
        Record(answered={"web01": Outcome.FAILED}),
        Record(newer),
        Record(answered={"web01": Outcome.FAILED}),
    ]
    merged = Record.merged(record.encode() for record in records)
    assert merged == Record(newer, {"web01": Outcome.FAILED})
    assert Record.merged([merged.encode(), *(record.encode() for record in records)]) == merged
    assert Record.merged([]).batch is None


def test_an_answer_is_read_from_its_headers() -> None:
    told = answer(GOOD, b"<tsm-response/>", "web01")
    assert told == Answer("web01", "b.web01", Outcome.COMPLETED, 2, "<tsm-response/>", "web01")


@pytest.mark.parametrize("change", [
    {"tsm-host": None}, {"tsm-host": "../etc/passwd"}, {"tsm-host": 7}, {"tsm-host": "a" * 101},
    {"tsm-outcome": "fabulous"}, {"tsm-attempts": "many"}, {"tsm-attempts": None},
])  # fmt: skip
def test_what_is_no_answer_is_none(change: dict[str, object]) -> None:
    assert answer({**GOOD, **change}, b"", None) is None
    assert answer(None, b"", None) is None


def test_an_answer_says_why_it_did_not_work() -> None:
    body = (
        "<tsm-response><metadata><error><code>timed-out</code><message>ended\n after 5 s</message></error>"
        "</metadata></tsm-response>"
    )
    assert Answer("a", "b", Outcome.TIMED_OUT, 1, body).error == "timed-out: ended after 5 s"
    assert Answer("a", "b", Outcome.COMPLETED, 1, body).error is None
    assert Answer("a", "b", Outcome.FAILED, 1, "not XML").error is None


@pytest.mark.parametrize(("lines", "transferred"), [
    (["Total number of bytes transferred:   170.56 KB"], 174653),
    (["Total number of bytes transferred:            0  B"], 0),
    (["Total number of bytes transferred:       216,50 GB  (SESSION: 691911)"], 232465104896),
    (["Total number of bytes transferred:     1,234.50 MB"], 1294467072),
    (["Total number of bytes transferred:        4,096  B"], 4096),
    (["Total number of bytes transferred:   1.00 KB", "Total number of bytes transferred:   1.00 KB"], 2048),
    (["Total number of bytes inspected:          98.00 MB"], None),
    ([], None),
])  # fmt: skip
def test_how_much_went_to_the_server_is_read_from_dsmc_s_own_total(
    lines: list[str], transferred: int | None
) -> None:
    response = "".join(f'<line index="1">{line}</line>' for line in lines)
    assert Answer("a", "b", Outcome.COMPLETED, 1, response).transferred == transferred


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"host": "a/b", "request_id": "b", "event": "started", "time": 1}']
)
def test_what_is_no_event_of_a_job_is_none(body: bytes) -> None:
    assert sign(body) is None


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "-a", ".a", "a\n", "ä", "*", "a" * 101])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(fleet.BatchError):
        check_id(name)
