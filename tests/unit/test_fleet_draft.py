"""A request before it leaves: what is built, and what would be refused everywhere."""

import pytest

from worker import fleet
from worker.contract.request import parse
from worker.fleet import draft
from worker.words import ErrorCode


def test_a_request_is_built_as_the_contract_has_it() -> None:
    body = fleet.request(
        "/dev/sdb1", "/mnt/my disk", options={"compression": "yes", "quiet": None}, timeout=7200
    )
    (command,) = parse(body).commands
    assert command.timeout == 7200
    assert [(option.name, option.value) for option in command.options] == [
        ("compression", "yes"),
        ("quiet", None),
    ]
    assert command.volumes == ("/dev/sdb1", "/mnt/my disk")
    assert draft.volumes(body) == ["/dev/sdb1", "/mnt/my disk"]
    assert draft.volumes(b"no request") == []


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("compression=yes", ("compression", "yes")),
        ("-compression = yes", ("compression", "yes")),
        ("presnapshotcmd=a=b", ("presnapshotcmd", "a=b")),
        ("quiet", ("quiet", None)),
        ("mode=", ("mode", "")),
    ],
)
def test_an_option_is_read_as_dsmc_writes_it(text: str, option: tuple[str, str | None]) -> None:
    assert draft.option(text) == option


@pytest.mark.parametrize(
    "options",
    [
        {"snapshotproviderimage": "VSS"},  # Windows has it so
        {"snapshotproviderimage": "LINUX_LVM"},  # Linux has it so
        {"dynamicimage": "yes"},  # Linux alone
        {"snapshotcachelocation": r"e:\cache"},  # Windows alone
        {"presnapshotcmd": "/opt/quiesce now"},  # the host's to allow
    ],
)
def test_what_some_host_could_accept_leaves(options: dict[str, str]) -> None:
    draft.check(fleet.request("/dev/sdb1", options=options))


@pytest.mark.parametrize(
    ("volumes", "options", "code", "says"),
    [
        ((), {}, ErrorCode.BAD_REQUEST, "command-arguments"),
        (("",), {}, ErrorCode.BAD_REQUEST, "volume-list"),
        (('a"b',), {}, ErrorCode.BAD_REQUEST, "double quote"),
        (("a\0b",), {}, ErrorCode.BAD_REQUEST, "NULL"),
        (("-virus",), {}, ErrorCode.BAD_REQUEST, "begins with '-'"),
        (("a",), {"no option": "x"}, ErrorCode.BAD_REQUEST, "Invalid tag name"),
        (("a",), {"compresion": "yes"}, ErrorCode.BAD_REQUEST, "did you mean <compression>"),
        (("a",), {"compression": "perhaps"}, ErrorCode.BAD_REQUEST, "YES or NO"),
        (("a",), {"snapshotfsidlewait": "soon"}, ErrorCode.BAD_REQUEST, "t,t"),
        (("a",), {"password": "x"}, ErrorCode.OPTION_NOT_ALLOWED, "never taken from a message"),
        (("a",), {"dynamicimage": "no", "snapshotcachelocation": "e:"}, ErrorCode.OPTION_NOT_ALLOWED, "does not exist"),
    ],
)  # fmt: skip
def test_what_no_host_could_accept_does_not_leave(
    volumes: tuple[str, ...], options: dict[str, str], code: ErrorCode, says: str
) -> None:
    with pytest.raises(fleet.RequestRefused) as caught:
        fleet.request(*volumes, options=options)
    assert caught.value.code is code
    assert says in str(caught.value)
