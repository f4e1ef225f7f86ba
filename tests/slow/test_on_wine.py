"""Windows as far as Wine is that: real Win32 calls on real disks, and the real worker on the Windows CPython."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Vhost, wait_until
from hosts import REPOSITORY, Requester, elapsed, request, requester
from lxml import etree
from wine import CTRL_BREAK, CTRL_C, WindowsHost, Wine, windows

pytestmark = pytest.mark.slow

FIXTURES = REPOSITORY / "tests" / "fixtures"
NTFS = r"\\?\Volume{00000000-0000-0000-0000-000000000045}"  # how Wine names the volume of e:


@pytest.fixture(scope="module")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wine]:
    with windows(tmp_path_factory.mktemp("wine")) as wine:
        yield wine


# -- volumes -----------------------------------------------------------------------------------------------

ELIGIBLE = {
    "E:\\": "NTFS",
    "f:": "FAT32",
    "g:/": "FAT",
}
REFUSED = {
    "n:": "a network drive",
    "o:": "a CD or DVD drive",
    "p:": "a removable drive",
    "q:": "a RAM disk",
    "s:": "stands for C:\\windows (SUBST)",
    "s:\\system32": "stands for C:\\windows (SUBST)",
    "y:": "there is no drive Y:",
    "y:\\data": "there is no drive Y:",
    "\\\\server\\share": "a network name (UNC)",
    "\\\\?\\UNC\\server\\share": "a device's name",
    "\\\\.\\e:": "a device's name",
    "\\\\?\\Volume{00000000-0000-0000-0000-000000000099}": "there is no volume",
    "c:\\windows\\system32": "a directory but no mount point, and lies on the volume C:",
    "c:\\windows\\win.ini": "a file, and lies on the volume C:",
    "c:\\nosuch\\folder": "there is no C:\\nosuch\\folder",
    "windows": "starts from no drive",
    "e:data": "starts from no drive",
    "e:\\what?": "holds ?",
}


@pytest.fixture(scope="module")
def verdicts(wine: Wine) -> dict[str, dict[str, Any]]:
    """Give what one `check` says of all the names above, S: being a SUBST drive meanwhile."""
    with wine.subst("S:", "C:\\windows"):
        return {verdict["volume"]: verdict for verdict in wine.check(*ELIGIBLE, *REFUSED)}


@pytest.mark.parametrize(("name", "file_system"), ELIGIBLE.items())
def test_a_fixed_volume_with_a_file_system_that_dsmc_images_is_eligible(
    verdicts: dict[str, dict[str, Any]], name: str, file_system: str
) -> None:
    verdict = verdicts[name]
    assert verdict["eligible"], verdict
    assert (verdict["file_system"], verdict["partition_type"]) == (file_system, None)
    assert file_system in verdict["reason"]
    assert verdict["device"].startswith("\\\\?\\Volume{")


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_everything_else_is_refused_and_named(
    verdicts: dict[str, dict[str, Any]], name: str, reason: str
) -> None:
    assert not verdicts[name]["eligible"]
    assert reason in verdicts[name]["reason"]


def test_a_volume_goes_by_its_guid_as_well(wine: Wine) -> None:
    [named, slashed] = [wine.check(name)[0] for name in (NTFS, NTFS.upper() + "\\")]
    assert named["eligible"], named
    assert named["device"] == slashed["device"] == NTFS + "\\"


@pytest.mark.parametrize("names", [("e:", "E:\\"), ("e:", NTFS), ("e:\\", "e:/", NTFS + "\\")])
def test_a_volume_named_twice_is_refused_each_time_and_the_others_are_not(
    wine: Wine, names: tuple[str, ...]
) -> None:
    *twice, other = wine.check(*names, "f:")
    assert other["eligible"]
    for verdict in twice:
        assert not verdict["eligible"]
        assert f"named {len(names)} times" in verdict["reason"]


def test_check_without_a_name_lists_every_volume(wine: Wine) -> None:
    found = {verdict["volume"]: verdict["eligible"] for verdict in wine.check()}
    assert {name: found.get(name) for name in ("C:", "E:", "F:", "G:", "O:", "P:")} == {
        "C:": True,
        "E:": True,
        "F:": True,
        "G:": True,
        "O:": False,
        "P:": False,
    }


# -- the whole way -----------------------------------------------------------------------------------------


@pytest.fixture
def make_host(wine: Wine, vhost: Vhost, tmp_path: Path) -> Iterator[Callable[..., WindowsHost]]:
    host = WindowsHost(wine, tmp_path)

    def make(**top: Any) -> WindowsHost:
        host.configure(vhost.url, **top)
        host.start()
        return host

    host.plan(e={"seconds": 0})
    yield make
    if host.worker is not None:
        host.kill()


@pytest.fixture
def scheduler(vhost: Vhost) -> Iterator[Requester]:
    with requester(vhost.url) as scheduler:
        yield scheduler


def test_the_sample_request_as_it_stands_is_answered_with_the_sample_s_structure(
    make_host: Callable[..., WindowsHost], scheduler: Requester
) -> None:
    host = make_host()
    dates = ["11/25/2008 09:37:12", "11/25/2008 09:35:37", "11/25/2008 09:33:24"]
    host.plan(e={"version": "5.5", "node": "WIN2STDVM", "dates": dates})
    scheduler.ask((FIXTURES / "backup-image-request.xml").read_bytes(), "host.win01")
    answer = scheduler.answer(60)
    sample = etree.parse(FIXTURES / "backup-image-response.xml").getroot()
    assert [element.tag for element in answer.xml.iter()] == [element.tag for element in sample.iter()]
    for path in (
        "metadata/status",
        "metadata/count",
        ".//command",
        ".//line-count",
        ".//exit-code",
        ".//line[6]",
    ):
        assert answer.text(path) == sample.findtext(path)
    [run] = host.runs()
    assert (run["stdin"], run["exit"]) == ("null", 0)


def test_a_time_out_ends_the_whole_tree_of_processes(
    make_host: Callable[..., WindowsHost], scheduler: Requester, wine: Wine
) -> None:
    host = make_host()
    host.plan(e={"hang": True, "orphan": 600, "ignore_term": True})
    scheduler.ask(request("e:", timeout=3), "host.win01")
    [run] = wait_until(host.runs, 30, "the run")
    assert wine.living(run["pid"], run["orphan"]) == [run["pid"], run["orphan"]]
    answer = scheduler.answer(60)
    assert answer.headers["tsm-outcome"] == "timed-out"
    assert answer.text("commands-output/command-output/metadata/exit-code") == "9999"
    assert wine.living(run["pid"], run["orphan"]) == []


def test_a_dsmc_that_crashes_shows_windows_own_code(
    make_host: Callable[..., WindowsHost], scheduler: Requester
) -> None:
    host = make_host()
    host.plan(e={"crash": "SIGSEGV"})
    scheduler.ask(request("e:"), "host.win01")
    answer = scheduler.answer(60)
    assert answer.text("commands-output/command-output/metadata/exit-code") == str(0xC0000005)
    assert "crashed with 0xC0000005" in (answer.text("metadata/error/message") or "")


def test_refused_volumes_never_reach_dsmc(
    make_host: Callable[..., WindowsHost], scheduler: Requester
) -> None:
    host = make_host()
    scheduler.ask(request("e:", "o:"), "host.win01")
    answer = scheduler.answer(60)
    assert answer.error == "volume-not-eligible"
    assert [volume.get("eligible") for volume in answer.xml.iter("volume")] == ["true", "false"]
    assert host.runs() == []


def test_ctrl_break_lets_what_runs_come_to_its_end(
    make_host: Callable[..., WindowsHost], scheduler: Requester
) -> None:
    host = make_host()
    host.plan(e={"seconds": 4})
    scheduler.ask(request("e:"), "host.win01")
    wait_until(host.runs, 30, "the run")
    host.press(CTRL_BREAK)
    assert host.ended() == 0
    assert scheduler.answer(5).headers["tsm-outcome"] == "completed"


@pytest.mark.parametrize("event", [CTRL_C, CTRL_BREAK])
def test_an_idle_worker_ends_at_once_when_asked(make_host: Callable[..., WindowsHost], event: int) -> None:
    host = make_host()
    pressed = time.monotonic()
    host.press(event)
    assert host.ended() == 0
    assert elapsed(pressed) < 8
    assert host.said("worker stopped") == 1


def test_a_run_outlives_the_drain_and_the_next_worker_takes_it_up(
    make_host: Callable[..., WindowsHost], scheduler: Requester
) -> None:
    host = make_host(drain="500ms")
    host.plan(e={"seconds": 8})
    scheduler.ask(request("e:"), "host.win01")
    wait_until(host.runs, 30, "the run")
    host.press(CTRL_BREAK)
    assert host.ended() == 0
    assert host.said("dsmc left to its supervisor") == 1
    host.start()
    assert scheduler.answer(60).headers["tsm-outcome"] == "completed"
    assert len(host.runs()) == 1


@pytest.mark.parametrize("seconds", [2, 12], ids=["over meanwhile", "still on"])
def test_a_killed_worker_s_run_is_taken_up_by_the_next(
    make_host: Callable[..., WindowsHost], scheduler: Requester, seconds: int
) -> None:
    host = make_host()
    host.plan(e={"seconds": seconds})
    scheduler.ask(request("e:"), "host.win01")
    wait_until(host.runs, 30, "the run")
    host.kill()
    if seconds == 2:
        wait_until(lambda: host.runs()[0]["exit"] == 0, 30, "the end of the run")
    host.start()
    answer = scheduler.answer(60)
    assert answer.headers["tsm-outcome"] == "completed"
    assert (
        int(answer.text("commands-output/command-output/metadata/execution-milliseconds") or 0)
        >= 1000 * seconds
    )
    assert host.said("dsmc found again") == 1
    assert len(host.runs()) == 1


def test_a_run_whose_supervisor_is_killed_ends_with_it_and_is_tried_again(
    make_host: Callable[..., WindowsHost], scheduler: Requester, wine: Wine
) -> None:
    host = make_host()
    host.plan(e=[{"hang": True, "orphan": 600}, {"seconds": 0}])
    scheduler.ask(request("e:"), "host.win01")
    [run] = wait_until(host.runs, 30, "the run")
    [started] = host.directory.glob("state/runs/*/*/started")
    wine.run(
        "-c", "import psutil, sys; psutil.Process(int(sys.argv[1])).kill()", started.read_text().split()[0]
    )
    wait_until(lambda: host.said("job waits for another try"), 30, "the retry")
    assert wine.living(run["pid"], run["orphan"]) == []
