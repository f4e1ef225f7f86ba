"""A run of a real process under its supervisor: what it leaves, how it ends, how it is found again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from brokers import wait_until
from hosts import elapsed, group_is_gone

from worker.dsmc.outcome import End
from worker.dsmc.posix import Run
from worker.dsmc.supervise import CannotStart, Control


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def run_to_end(
    directory: Path, argv: list[str], limit: float = 20, grace: float = 1
) -> tuple[End, int | None, bytes]:
    run = Run.start(directory, argv)
    ending = run.wait(limit, grace, Control())
    assert ending is not None
    return ending.end, ending.exit_code, run.transcript.read_bytes()


@pytest.mark.parametrize(
    ("script", "exit_code", "output"),
    [
        ("echo one; echo two >&2; echo three", 0, b"one\ntwo\nthree\n"),
        ("exit 12", 12, b""),
        ("exit 255", 255, b""),
        ("kill -SEGV $$", 128 + signal.SIGSEGV, b""),
        ("kill -KILL $$", 128 + signal.SIGKILL, b""),
        ("read answer && echo got $answer; echo end", 0, b"end\n"),
    ],
)
def test_exit_code_and_merged_output_are_the_command_s_own(
    tmp_path: Path, script: str, exit_code: int, output: bytes
) -> None:
    assert run_to_end(tmp_path / "run", sh(script)) == (End.EXITED, exit_code, output)


def test_arguments_reach_the_command_as_they_are(tmp_path: Path) -> None:
    words = ["; rm -rf /", "$(id)", "`id`", "a b", "'", '"', "\\", "*", "\n", "", "ä", "--", "-x"]
    print_words = [sys.executable, "-c", "import sys; print(sys.argv[1:])", *words]
    assert run_to_end(tmp_path / "run", print_words)[2].decode() == f"{words}\n"


def test_a_command_that_cannot_be_executed_says_so_in_its_output(tmp_path: Path) -> None:
    end, exit_code, output = run_to_end(tmp_path / "run", ["/nowhere/dsmc"])
    assert (end, exit_code) == (End.EXITED, 127)
    assert b"/nowhere/dsmc" in output


def test_a_directory_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match=str(tmp_path / "file")):
        Run.start(tmp_path / "file" / "run", ["true"])


def test_a_run_that_is_on_cannot_be_started_a_second_time(tmp_path: Path) -> None:
    run = Run.start(tmp_path / "run", ["sleep", "30"])
    with pytest.raises(CannotStart):
        Run.start(tmp_path / "run", ["true"])
    run.wait(0, 0, Control())


def test_a_time_limit_ends_children_that_ignore_term(tmp_path: Path) -> None:
    run = Run.start(
        tmp_path / "run", sh("trap '' TERM; (trap '' TERM; sleep 60) & echo said; sleep 60; sleep 60")
    )
    started = time.monotonic()
    ending = run.wait(0.5, 0.5, Control())
    assert ending is not None
    assert (ending.end, ending.exit_code) == (End.TIMED_OUT, None)
    assert elapsed(started) < 3
    assert run.transcript.read_bytes() == b"said\n"
    assert group_is_gone(leader(tmp_path / "run"))


def test_a_command_may_use_its_grace_to_end_well(tmp_path: Path) -> None:
    script = "trap 'echo cleaned up; exit 3' TERM; echo on; sleep 60 & wait"
    run = Run.start(tmp_path / "run", sh(script))
    wait_until(lambda: run.transcript.read_bytes() == b"on\n")
    ending = run.wait(0, 10, Control())
    assert ending is not None
    assert ending.end is End.TIMED_OUT
    assert ending.elapsed < 5
    assert run.transcript.read_bytes() == b"on\ncleaned up\n"


def test_cancelling_ends_a_run_and_leaving_does_not(tmp_path: Path) -> None:
    run = Run.start(tmp_path / "run", ["sleep", "60"])
    control = Control()
    control.leave.set()
    assert run.wait(60, 1, control) is None
    control.cancel.set()
    ending = run.wait(60, 1, control)
    assert ending is not None
    assert ending.end is End.CANCELLED
    assert group_is_gone(leader(tmp_path / "run"))


def test_another_worker_finds_a_run_that_is_on_and_keeps_its_remaining_limit(tmp_path: Path) -> None:
    start_elsewhere(tmp_path / "run", "echo on; sleep 60")
    run = Run.find(tmp_path / "run", Control())
    assert run is not None
    started = time.monotonic()
    ending = run.wait(3, 1, Control())
    assert ending is not None
    assert ending.end is End.TIMED_OUT
    assert elapsed(started) < 3.5
    assert 3 <= ending.elapsed < 4.5
    assert group_is_gone(leader(tmp_path / "run"))


def test_another_worker_finds_exit_code_and_time_of_a_run_that_is_over(tmp_path: Path) -> None:
    start_elsewhere(tmp_path / "run", "sleep 1; exit 8")
    wait_until((tmp_path / "run" / "exit").exists)
    run = Run.find(tmp_path / "run", Control())
    assert run is not None
    ending = run.wait(60, 1, Control())
    assert ending is not None
    assert (ending.end, ending.exit_code) == (End.EXITED, 8)
    assert 0.9 < ending.elapsed < 2


def test_a_run_that_never_started_is_not_found(tmp_path: Path) -> None:
    assert Run.find(tmp_path / "run", Control()) is None
    (tmp_path / "run").mkdir()
    assert Run.find(tmp_path / "run", Control()) is None


def test_a_run_whose_supervisor_is_killed_is_lost_and_its_command_ended(tmp_path: Path) -> None:
    run = Run.start(tmp_path / "run", ["sleep", "60"])
    supervisor = leader(tmp_path / "run")
    wait_until(lambda: b"sleep" in b"".join(f.read_bytes() for f in command_lines(supervisor)))
    os.kill(supervisor, signal.SIGKILL)
    ending = run.wait(60, 1, Control())
    assert ending is not None
    assert (ending.end, ending.exit_code) == (End.LOST, None)
    assert group_is_gone(supervisor)


def test_a_stranger_with_the_supervisor_s_number_is_neither_waited_for_nor_killed(tmp_path: Path) -> None:
    run_to_end(tmp_path / "run", ["true"])
    since = time.monotonic()
    wait_until(lambda: elapsed(since) > 0.05, what="another tick of the clock that start times are kept by")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        (tmp_path / "run" / "exit").unlink()
        boot, _, stat = (tmp_path / "run" / "started").read_text().split(" ", 2)
        (tmp_path / "run" / "started").write_text(f"{boot} {stranger.pid} {stat}")
        run = Run.find(tmp_path / "run", Control())
        assert run is not None
        ending = run.wait(60, 0, Control())
        assert ending is not None
        assert ending.end is End.LOST
        assert stranger.poll() is None
        stranger.kill()


def test_a_run_of_an_earlier_boot_is_lost(tmp_path: Path) -> None:
    run_to_end(tmp_path / "run", ["true"])
    (tmp_path / "run" / "exit").unlink()
    _, rest = (tmp_path / "run" / "started").read_text().split(" ", 1)
    (tmp_path / "run" / "started").write_text(f"00000000-0000-0000-0000-000000000000 {rest}")
    run = Run.find(tmp_path / "run", Control())
    assert run is not None
    ending = run.wait(60, 0, Control())
    assert ending is not None
    assert ending.end is End.LOST


def start_elsewhere(directory: Path, script: str) -> None:
    """Start a run from a process that is gone when this returns."""
    program = "import sys; from pathlib import Path; from worker.dsmc.posix import Run; "
    program += "Run.start(Path(sys.argv[1]), ['/bin/sh', '-c', sys.argv[2]])"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(directory), script], check=True, timeout=20
    )


def leader(directory: Path) -> int:
    wait_until((directory / "started").exists)
    return int((directory / "started").read_text().split()[1])


def command_lines(group: int) -> list[Path]:
    return [
        entry / "cmdline"
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and f" {group} {group} " in (entry / "stat").read_text()
    ]
