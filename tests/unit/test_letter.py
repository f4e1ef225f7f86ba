"""What a dead letter is read from, chosen by, and made into."""

from datetime import UTC, datetime

import pytest
from pika.spec import BasicProperties

from worker.contract import request as contract
from worker.errors import RequestRefused
from worker.fleet import letter as letters
from worker.fleet.letter import Edit, Letter, Selection

BODY = (
    b"<tsm-request><operation-name>backup-image</operation-name><command-request><command-options>"
    b"<compression>yes</compression></command-options><command-arguments><volume-list>/dev/a /dev/b</volume-list>"
    b"</command-arguments></command-request></tsm-request>"
)
HEADERS = {
    "tsm-host": "web01",
    "tsm-request-id": "r-1",
    "tsm-outcome": "failed",
    "tsm-error-code": "dsmc-failed",
    "tsm-reason": "ANS1017E",
    "tsm-attempts": 3,
    "tsm-exit-code": 12,
    "tsm-ans-codes": ["ANS1017E"],
    "tsm-first-seen": "2026-11-23T01:00:00.000+00:00",
    "tsm-last-tried": "2026-11-23T02:00:00.000+00:00",
    "tsm-reply-to": "replies",
    "tsm-correlation-id": "night-1",
}


def _worker_s(**changes: object) -> Letter:
    headers = {**HEADERS, **{f"tsm-{name.replace('_', '-')}": value for name, value in changes.items()}}
    return letters.read(BasicProperties(message_id="m-1", headers=headers), BODY)


def _broker_s(reason: str, host: str = "web01", message_id: str | None = "r-1", second: int = 0) -> Letter:
    queue = f"tsm.host.{host}"
    time = datetime(2026, 11, 23, 2, 0, second)  # noqa: DTZ001 -- as pika gives it
    headers = {
        "x-first-death-queue": queue,
        "x-first-death-reason": reason,
        "x-death": [{"reason": reason, "queue": queue, "time": time, "count": 1}],
    }
    properties = BasicProperties(message_id=message_id, reply_to="replies", headers=headers)
    return letters.read(properties, BODY, f"host.{host}")


def test_a_worker_s_letter_says_what_its_headers_say() -> None:
    assert _worker_s() == Letter(
        id="m-1",
        host="web01",
        request_id="r-1",
        outcome="failed",
        error_code="dsmc-failed",
        reason="ANS1017E",
        ans_codes=("ANS1017E",),
        attempts=3,
        exit_code=12,
        volumes=("/dev/a", "/dev/b"),
        first_seen="2026-11-23T01:00:00.000+00:00",
        last_tried="2026-11-23T02:00:00.000+00:00",
        reply_to="replies",
        correlation_id="night-1",
    )


@pytest.mark.parametrize(
    ("reason", "outcome", "code"),
    [
        ("expired", "expired", "expired"),
        ("delivery_limit", "failed", "delivery-limit"),
        ("maxlen", "failed", "maxlen"),
    ],
)
def test_a_letter_of_the_broker_s_own_has_its_reason_as_error_code(
    reason: str, outcome: str, code: str
) -> None:
    letter = _broker_s(reason)
    assert (letter.outcome, letter.error_code, letter.host) == (outcome, code, "web01")
    assert (letter.request_id, letter.reply_to) == ("r-1", "replies")
    assert letter.when == datetime(2026, 11, 23, 2, tzinfo=UTC)


def test_one_request_that_expired_on_two_hosts_or_twice_is_as_many_letters() -> None:
    one, other, later = _broker_s("expired"), _broker_s("expired", "web02"), _broker_s("expired", second=9)
    assert len({one.id, other.id, later.id}) == 3
    assert _broker_s("expired").id == one.id


@pytest.mark.parametrize("message_id", [None, "m-2"])
def test_a_message_that_nobody_can_read_is_a_letter_all_the_same(message_id: str | None) -> None:
    letter = letters.read(BasicProperties(message_id=message_id, headers={"tsm-host": b"\xff"}), b"\x00\xff")
    assert letter.id
    assert letter.volumes == ()
    assert letter.error_code == "internal"


@pytest.mark.parametrize(
    ("selection", "meant"),
    [
        (Selection(), True),
        (Selection(ids=("m-",)), True),
        (Selection(ids=("x", "m-1")), True),
        (Selection(ids=("x",)), False),
        (Selection(hosts=("db01", "web01")), True),
        (Selection(hosts=("db01",)), False),
        (Selection(codes=("timed-out",)), False),
        (Selection(ans_codes=("ANS1017E",), outcomes=("failed",)), True),
        (Selection(ans_codes=("ANS1017E",), outcomes=("refused",)), False),
        (Selection(since=datetime(2026, 11, 23, 1, 30, tzinfo=UTC)), True),
        (Selection(since=datetime(2026, 11, 23, 2, 30, tzinfo=UTC)), False),
    ],
)
def test_every_field_of_a_selection_has_to_agree(selection: Selection, meant: bool) -> None:  # noqa: FBT001
    assert (_worker_s() in selection) is meant


def test_a_letter_of_unknown_time_is_never_too_old() -> None:
    letter = _worker_s(last_tried="yesterday", first_seen=7)
    assert letter in Selection(since=datetime(2999, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("body", [BODY, b"\x00\xff", "Größe".encode()])
def test_a_line_holds_the_whole_letter(body: bytes) -> None:
    properties = BasicProperties(
        message_id="m-1",
        headers={**HEADERS, "odd": [{"at": datetime(2026, 1, 1), "raw": b"\xff"}]},  # noqa: DTZ001
    )
    letter = letters.read(properties, body)
    line = letters.line(letter, properties, body)
    assert b"\n" not in line
    assert letters.parse(line) == (letter, body)


def test_a_replay_keeps_where_the_answer_goes_and_has_one_id_of_its_own() -> None:
    properties = letters.replay_properties(_worker_s())
    assert (properties.reply_to, properties.correlation_id) == ("replies", "night-1")
    assert properties.headers == {"tsm-replay-of": "r-1"}
    assert properties.message_id == letters.replay_properties(_worker_s()).message_id
    assert properties.message_id not in ("m-1", "r-1")
    assert letters.replay_properties(_worker_s(correlation_id=None)).correlation_id == "r-1"


def test_without_an_edit_not_a_byte_is_changed() -> None:
    assert Edit().apply(b"<nonsense") == b"<nonsense"


def test_an_edit_replaces_adds_and_limits_in_each_command() -> None:
    edit = Edit((("COMPRESSION", "no"), ("mode", "selective"), ("quiet", None)), timeout=60)
    (command,) = contract.parse(edit.apply(BODY)).commands
    assert command.timeout == 60
    assert [(option.name, option.value) for option in command.options] == [
        ("compression", "no"),
        ("mode", "selective"),
        ("quiet", None),
    ]
    assert command.volumes == ("/dev/a", "/dev/b")


def test_an_edit_makes_the_elements_it_needs() -> None:
    bare = BODY.replace(b"<command-options><compression>yes</compression></command-options>", b"")
    (command,) = contract.parse(Edit((("mode", "selective"),), timeout=5).apply(bare)).commands
    assert (command.timeout, len(command.options)) == (5, 1)


@pytest.mark.parametrize(
    ("edit", "body"),
    [
        (Edit((("password", "x"),)), BODY),
        (Edit((("compression", "maybe"),)), BODY),
        (Edit((("no such", "x"),)), BODY),
        (Edit((("mode", "\x00"),)), BODY),
        (Edit(timeout=5), b"<nonsense"),
    ],
)
def test_an_edit_that_no_host_could_accept_is_refused(edit: Edit, body: bytes) -> None:
    with pytest.raises(RequestRefused):
        edit.apply(body)
