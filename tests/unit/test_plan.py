"""What a request means on a host: limits, what the host allows, and which volumes go."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hostile import body

from worker import plan
from worker.config import Allow, Dsmc, Duration
from worker.errors import RequestRefused
from worker.plan import Step, VolumesRefused
from worker.volumes import Verdict
from worker.words import ErrorCode, Platform

LINUX, WINDOWS = Platform.LINUX, Platform.WINDOWS
DAY = 86400.0


@dataclass
class Host:
    """The volumes of a host on which all are eligible but those that `but` gives a verdict on."""

    platform: Platform = LINUX
    but: dict[str, Verdict] | None = None
    asked: int = 0

    def judge(self, names: Sequence[str]) -> list[Verdict]:
        self.asked += 1
        known = self.but or {}
        return [
            known.get(name, Verdict(name, eligible=True, reason="0x83", device=name, file_system="ext4"))
            for name in names
        ]

    def all(self) -> list[Verdict]:
        return list((self.but or {}).values())


def make(
    timeout: int | None = None,
    options: str = "",
    volumes: str = "/srv",
    settings: Dsmc | None = None,
    platform: Platform = LINUX,
) -> tuple[Step, ...]:
    secs = "" if timeout is None else f"<timeout-secs>{timeout}</timeout-secs>\n"
    text = body(timeout=secs, options=options, volumes=f"<volume-list>{volumes}</volume-list>")
    return plan.make(text.encode(), platform, settings or Dsmc())


def refusal(**request: object) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        make(**request)  # type: ignore[arg-type]
    return caught.value


def limits(default: str, most: str) -> Dsmc:
    return Dsmc(default_timeout=Duration.parse(default), max_timeout=Duration.parse(most))


# -- time limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeout", "settings", "limit"),
    [
        (None, Dsmc(), DAY),
        (1, Dsmc(), 1.0),
        (604_800, Dsmc(), 7 * DAY),
        (None, limits("2h", "7d"), 7200.0),
        (60, limits("2h", "7d"), 60.0),
        (7201, limits("2h", "7d"), 7201.0),
        (3600, limits("30m", "1h"), 3600.0),
        (None, limits("500ms", "1h"), 0.5),
    ],
)
def test_a_command_may_take_as_long_as_it_says_else_as_the_host_says(
    timeout: int | None, settings: Dsmc, limit: float
) -> None:
    assert [step.limit for step in make(timeout, settings=settings)] == [limit]


@pytest.mark.parametrize(("timeout", "settings"), [(604_801, Dsmc()), (3601, limits("30m", "1h"))])
def test_no_command_may_ask_for_more_than_the_hosts_maximum(timeout: int, settings: Dsmc) -> None:
    error = refusal(timeout=timeout, settings=settings)
    assert error.code is ErrorCode.BAD_REQUEST
    assert f"<timeout-secs> is {timeout}" in str(error)
    assert f"{settings.max_timeout:.0f}" in str(error)


def test_the_refusal_names_the_line_of_the_time_out() -> None:
    assert str(refusal(timeout=604_801)).startswith("line 4: <timeout-secs>")


def test_a_command_without_a_time_out_keeps_to_a_maximum_below_the_default() -> None:
    assert [step.limit for step in make(settings=limits("24h", "1h"))] == [3600.0]


# -- arguments and options -----------------------------------------------------------------------------------


def test_arguments_are_options_in_document_order_then_volumes() -> None:
    (step,) = make(
        options="<quiet/><mode>selective</mode><compression>yes</compression>", volumes='/b "/my disk" /a'
    )
    assert step.arguments == (
        "backup", "image", "-quiet", "-mode=selective", "-compression=yes", "/b", "/my disk", "/a",
    )  # fmt: skip
    assert step.volumes == ("/b", "/my disk", "/a")


def test_a_step_for_each_command_in_order() -> None:
    command = (
        "<command-request><timeout-secs>{0}</timeout-secs><command-arguments><volume-list>/{0}</volume-list>"
        "</command-arguments></command-request>\n"
    )
    text = body(commands="".join(command.format(n) for n in (3, 1, 2)))
    steps = plan.make(text.encode(), LINUX, Dsmc())
    assert [(step.limit, step.volumes, step.line) for step in steps] == [
        (3.0, ("/3",), 3),
        (1.0, ("/1",), 4),
        (2.0, ("/2",), 5),
    ]


@pytest.mark.parametrize(
    ("allow", "options", "allowed"),
    [
        (Allow(), "<mode>selective</mode>", True),
        (Allow(options=("compress*",)), "<compression>yes</compression>", True),
        (Allow(options=("compress*",)), "<mode>selective</mode>", False),
        (Allow(options=()), "<quiet/>", False),
        (Allow(options=()), "", True),
        (Allow(options=("*", "password")), "<password>x</password>", False),
        (Allow(), "<presnapshotcmd>/bin/sync</presnapshotcmd>", False),
        (Allow(snapshot_commands=("/bin/sync",)), "<presnapshotcmd>/bin/sync</presnapshotcmd>", True),
        (Allow(snapshot_commands=("/bin/sync",)), "<postsnapshotcmd>/bin/sync x</postsnapshotcmd>", False),
        (Allow(snapshot_commands=("*",)), "<presnapshotcmd>/bin/sync</presnapshotcmd>", False),
    ],
)
def test_the_hosts_lists_decide_on_options(allow: Allow, options: str, *, allowed: bool) -> None:
    if allowed:
        assert make(options=options, settings=Dsmc(allow=allow))
    else:
        assert refusal(options=options, settings=Dsmc(allow=allow)).code is ErrorCode.OPTION_NOT_ALLOWED


def test_one_bad_command_refuses_them_all() -> None:
    good = "<command-request><command-arguments><volume-list>/a</volume-list></command-arguments></command-request>"
    bad = good.replace(
        "<command-arguments>", "<command-options><optfile>x</optfile></command-options>\n<command-arguments>"
    )
    with pytest.raises(RequestRefused):
        plan.make(body(commands=good + bad).encode(), LINUX, Dsmc())


# -- volumes -------------------------------------------------------------------------------------------------


ALLOWED: list[tuple[Platform, str, str, bool]] = [
    (LINUX, "*", "/srv", True),
    (LINUX, "*", "anything at all", True),
    (LINUX, "/srv", "/srv", True),
    (LINUX, "/srv", "/srv/", True),
    (LINUX, "/srv", "/srv/.", True),
    (LINUX, "/srv", "/./srv", True),
    (LINUX, "/srv", "/home/../srv", True),
    (LINUX, "/srv", "/SRV", False),
    (LINUX, "/srv", "/srv2", False),
    (LINUX, "/srv", "srv", False),
    (LINUX, "/srv", "/srv/..", False),
    (LINUX, "/srv/*", "/srv/a", True),
    (LINUX, "/srv/*", "/srv/a/b", True),
    (LINUX, "/srv/*", "/srv//a", True),
    (LINUX, "/srv/*", "/srv", False),
    (LINUX, "/srv/*", "/srv/../etc", False),
    (LINUX, "/srv/*", "/srv/a/../../etc", False),
    (LINUX, "/srv/*", "/srv/./../etc", False),
    (LINUX, "/srv/*", "/srv/../../../etc", False),
    (LINUX, "/srv/*", "/srv/..", False),
    (LINUX, "/srv/*", "srv/a", False),
    (LINUX, "/srv/*", "//etc", False),
    (LINUX, "/srv/*", "///srv/a", True),
    (LINUX, "/dev/mapper/vg0-*", "/dev/mapper/vg0-root", True),
    (LINUX, "/dev/mapper/vg0-*", "/dev/mapper/vg1-root", False),
    (LINUX, "/dev/sd[ab]1", "/dev/sdb1", True),
    (LINUX, "/dev/sd[ab]1", "/dev/sdc1", False),
    (LINUX, "/dev/sd?1", "/dev/sda11", False),
    (WINDOWS, "e:", "e:", True),
    (WINDOWS, "e:", "E:", True),
    (WINDOWS, "E:", "e:", True),
    (WINDOWS, "e:", "f:", False),
    (WINDOWS, "C:\\Mnt\\*", "c:\\mnt\\data", True),
    (WINDOWS, "C:\\Mnt\\*", "c:/mnt/data", True),
    (WINDOWS, "C:\\Mnt\\*", "c:\\mnt\\..\\windows", False),
    (WINDOWS, "C:\\Mnt\\*", "c:/mnt/../windows", False),
    (WINDOWS, "C:\\Mnt\\*", "d:\\mnt\\data", False),
]


@pytest.mark.parametrize(("platform", "pattern", "volume", "allowed"), ALLOWED)
def test_the_hosts_patterns_decide_on_volumes(
    platform: Platform, pattern: str, volume: str, *, allowed: bool
) -> None:
    host = Host(platform)
    steps = make(volumes=f'"{volume}"', platform=platform)
    if allowed:
        assert [verdict.volume for verdict in plan.judge(steps, host, (pattern,))] == [volume]
        return
    with pytest.raises(VolumesRefused) as caught:
        plan.judge(steps, host, (pattern,))
    assert caught.value.code is ErrorCode.VOLUME_NOT_ELIGIBLE
    assert "dsmc.allow.volumes" in str(caught.value)
    assert host.asked == 0


def test_a_volume_that_is_not_listed_is_not_even_looked_at_nor_are_the_others() -> None:
    host = Host()
    with pytest.raises(VolumesRefused) as caught:
        plan.judge(make(volumes="/srv/a /etc /srv/b"), host, ("/srv/*",))
    assert host.asked == 0
    assert [(v.volume, v.eligible) for v in caught.value.verdicts] == [
        ("/srv/a", True),
        ("/etc", False),
        ("/srv/b", True),
    ]
    assert str(caught.value).startswith("/etc: ")
    assert "/srv/a" not in str(caught.value)


def test_nothing_is_allowed_by_an_empty_list() -> None:
    with pytest.raises(VolumesRefused):
        plan.judge(make(), Host(), ())


def test_one_of_several_patterns_is_enough() -> None:
    assert plan.judge(make(volumes="/srv /home"), Host(), ("/home", "/srv"))


def test_verdicts_are_in_the_order_of_the_request() -> None:
    verdicts = plan.judge(make(volumes="/c /a /b"), Host(), ("*",))
    assert [verdict.volume for verdict in verdicts] == ["/c", "/a", "/b"]


def test_one_volume_that_is_not_eligible_refuses_the_request_and_all_are_told() -> None:
    host = Host(but={"/gpfs": Verdict("/gpfs", eligible=False, reason="dsmc makes no image of GPFS")})
    with pytest.raises(VolumesRefused) as caught:
        plan.judge(make(volumes="/srv /gpfs"), host, ("*",))
    assert caught.value.code is ErrorCode.VOLUME_NOT_ELIGIBLE
    assert str(caught.value) == "/gpfs: dsmc makes no image of GPFS"
    assert [(v.volume, v.eligible) for v in caught.value.verdicts] == [("/srv", True), ("/gpfs", False)]


def test_a_message_stays_short_however_many_volumes_are_refused() -> None:
    names = [f"/x{n}" for n in range(250)]
    host = Host(but={name: Verdict(name, eligible=False, reason="no") for name in names})
    with pytest.raises(VolumesRefused) as caught:
        plan.judge(make(volumes=" ".join(names)), host, ("*",))
    assert str(caught.value).endswith("/x4: no; and 245 more")
    assert len(caught.value.verdicts) == 250


def test_a_message_stays_short_however_long_the_volumes_names_are() -> None:
    with pytest.raises(VolumesRefused) as caught:
        plan.judge(make(volumes=" ".join(f"/{n}{'x' * 4000}" for n in range(5))), Host(), ("/srv",))
    assert len(str(caught.value)) <= 2000


RAW = Verdict("/dev/sdb1", eligible=True, reason="0x83", device="/dev/sdb1")


@pytest.mark.parametrize("value", ["incremental", "INCR", "Increm"])
def test_an_incremental_image_of_a_raw_volume_is_refused(value: str) -> None:
    steps = make(options=f"<mode>{value}</mode>", volumes="/srv /dev/sdb1")
    with pytest.raises(RequestRefused) as caught:
        plan.judge(steps, Host(but={"/dev/sdb1": RAW}), ("*",))
    assert caught.value.code is ErrorCode.BAD_REQUEST
    assert str(caught.value).startswith("line 3: mode=incremental")
    assert "'/dev/sdb1'" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "volumes"),
    [
        ("<mode>selective</mode>", "/dev/sdb1"),
        ("", "/dev/sdb1"),
        ("<mode>incremental</mode>", "/srv"),
    ],
)
def test_any_other_mode_goes_with_a_raw_volume_and_incremental_with_a_file_system(
    options: str, volumes: str
) -> None:
    assert plan.judge(make(options=options, volumes=volumes), Host(but={"/dev/sdb1": RAW}), ("*",))


def test_a_raw_volume_beside_an_incremental_command_of_another_is_fine() -> None:
    command = (
        "<command-request><command-options>{}</command-options><command-arguments><volume-list>{}</volume-list>"
        "</command-arguments></command-request>"
    )
    text = body(commands=command.format("<mode>incremental</mode>", "/srv") + command.format("", "/dev/sdb1"))
    steps = plan.make(text.encode(), LINUX, Dsmc())
    assert [step.incremental for step in steps] == [True, False]
    assert len(plan.judge(steps, Host(but={"/dev/sdb1": RAW}), ("*",))) == 2
