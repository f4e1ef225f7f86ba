"""`submit` and `collect` as a user runs them: exit codes, what is on stdout, what on stderr."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import PrivateBroker, Vhost, wait_until
from hosts import REPOSITORY, MakeHost, request

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "worker"]
VOLUME = ("--volume", "/dev/stand-in/a")
Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]
LIMIT = 180  # seconds for one command


@pytest.fixture
def environment(vhost: Vhost, tmp_path: Path) -> dict[str, str]:
    """Give the environment of a scheduler that has neither configuration nor disk of its own."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("TSM_WORKER_")}
    return {**ours, "PYTHONPATH": str(REPOSITORY), "TSM_WORKER_BROKER_URL": vhost.url, "COLUMNS": "120"}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Give a function that runs a sub-command to its end."""

    def run(*arguments: object, text: str = "", **extra: str) -> Result:
        command = [*COMMAND, *map(str, arguments)]
        env = {**environment, **extra}
        return subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=LIMIT, env=env, check=False
        )

    return run


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_everyone_is_asked_and_awaited(make_host: MakeHost, vhost: Vhost, run: Run, tmp_path: Path) -> None:
    names = [f"web{number:02d}" for number in range(12)]
    hosts = [make_host(vhost.url, name) for name in names]
    for host in hosts:
        host.start(wait=False)
    wait_until(lambda: all(host.said("broker connected") for host in hosts), 120, "all hosts to connect")
    out = tmp_path / "answers"
    result = run(
        "submit", *VOLUME, "--option", "compression=yes", "--option", "quiet", "--timeout", "1h", "--all",
        "--wait", "--expect", 12, "--json", "--out", out,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    answers = objects(result)
    assert sorted(answer["host"] for answer in answers) == names
    assert set(answers[0]) == {"host", "request_id", "outcome", "attempts", "transferred", "response"}
    assert {(answer["outcome"], answer["attempts"]) for answer in answers} == {("completed", 1)}
    assert {answer["transferred"] for answer in answers} == {174653}  # 170.56 KB
    assert sorted(file.name for file in out.iterdir()) == [f"{name}.xml" for name in names]
    assert (out / "web00.xml").read_text() == next(a["response"] for a in answers if a["host"] == "web00")
    assert "-compression=yes -quiet /dev/stand-in/a" in answers[0]["response"]
    assert result.stderr.splitlines()[-1].endswith(": 12 completed")


def test_a_failure_is_exit_1_named_and_told_with_its_reason(
    make_host: MakeHost, vhost: Vhost, run: Run
) -> None:
    make_host(vhost.url).start()
    bad = make_host(vhost.url, "db01")
    bad.plan({"messages": ["ANS1063E"]})
    bad.start()
    result = run("submit", *VOLUME, "--host", "web01", "--host", "db01", "--wait")
    assert result.returncode == 1
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["host", "outcome"],
        ["db01", "failed"],
        ["web01", "completed"],
    ]
    assert "dsmc-failed" in result.stdout
    assert "db01: failed, dsmc-failed: " in result.stderr
    assert "failed: db01" in result.stderr.splitlines()


def test_hosts_that_do_not_answer_or_do_not_exist_are_named(
    make_host: MakeHost, vhost: Vhost, run: Run, tmp_path: Path
) -> None:
    make_host(vhost.url).start()
    late = make_host(vhost.url, "db01")
    late.start()
    late.stop()
    hosts = tmp_path / "hosts.txt"
    hosts.write_text("# the night's hosts\nweb01\n\ndb01  # is late\ntypo\n")
    result = run(
        "submit", *VOLUME, "--hosts-file", hosts, "--batch", "nightly", "--wait", "--wait-timeout", "5s"
    )
    assert result.returncode == 1
    assert "batch nightly: 1 completed, 1 outstanding, 1 unroutable" in result.stderr
    assert "outstanding: db01" in result.stderr
    assert "unroutable, no worker has this name: typo" in result.stderr
    assert "tsm-worker collect nightly" in result.stderr
    late.start()
    taken_up = run("collect", "nightly", "--json", "--timeout", "90s")
    assert [answer["host"] for answer in objects(taken_up)] == ["db01"]
    assert "batch nightly: 2 completed, 1 unroutable" in taken_up.stderr
    assert taken_up.returncode == 1
    assert len(late.runs()) == 1
    gone = run("collect", "nightly")
    assert gone.returncode == 1
    assert "no batch nightly" in gone.stderr


def test_a_detached_batch_is_collected_later(make_host: MakeHost, vhost: Vhost, run: Run) -> None:
    host = make_host(vhost.url, top={"groups": ["web"]})
    host.start()
    sent = run("submit", *VOLUME, "--group", "web", "--expect", 1, "--detach")
    assert sent.returncode == 0
    collected = run("collect", sent.stdout.strip(), "--timeout", "60s", "--json")
    assert collected.returncode == 0, collected.stderr
    assert [answer["host"] for answer in objects(collected)] == ["web01"]
    told = objects(run("submit", *VOLUME, "--host", "web01", "--host", "typo", "--json"))
    assert told[0]["unroutable"] == ["typo"]


def test_the_same_batch_again_runs_nothing_twice(make_host: MakeHost, vhost: Vhost, run: Run) -> None:
    host = make_host(vhost.url)
    host.start()
    for _ in range(2):
        result = run("submit", *VOLUME, "--host", "web01", "--batch", "nightly", "--wait")
        assert result.returncode == 0, result.stderr
    assert len(host.runs()) == 1


def test_what_has_come_so_far_is_had_without_waiting(make_host: MakeHost, vhost: Vhost, run: Run) -> None:
    make_host(vhost.url).start()
    late = make_host(vhost.url, "db01")
    late.start()
    late.stop()
    run("submit", *VOLUME, "--host", "web01", "--host", "db01", "--batch", "nightly")
    wait_until(lambda: vhost.queue("tsm.replies.nightly").ready == 1, 30, "the answer")
    result = run("collect", "nightly", "--timeout", "0", "--json")
    assert [answer["host"] for answer in objects(result)] == ["web01"]
    assert result.returncode == 1


def test_a_broker_restart_in_the_middle_of_a_wait_loses_nothing(
    make_host: MakeHost, private_broker: PrivateBroker, environment: dict[str, str]
) -> None:
    broker = private_broker()
    for name in ("web01", "web02"):
        host = make_host(broker.url, name)
        host.plan({"seconds": 0} if name == "web01" else {"seconds": 5})
        host.start()
    command = [*COMMAND, "submit", *VOLUME, "--host", "web01", "--host", "web02", "--wait", "--json"]
    environment["TSM_WORKER_BROKER_URL"] = broker.url
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as waiting:
        assert waiting.stdout is not None
        first = json.loads(waiting.stdout.readline())
        broker.restart()
        rest = [json.loads(line) for line in waiting.stdout]
        assert waiting.wait(LIMIT) == 0
    assert [answer["host"] for answer in (first, *rest)] == ["web01", "web02"]


def test_a_terminal_shows_a_live_table(
    make_host: MakeHost, vhost: Vhost, environment: dict[str, str]
) -> None:
    host = make_host(vhost.url)
    host.plan({"seconds": 3})
    host.start()
    ours, theirs = pty.openpty()
    command = [*COMMAND, "submit", *VOLUME, "--host", "web01", "--wait"]
    seen = b""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=theirs, env={**environment, "TERM": "xterm"}
    ) as waiting:
        os.close(theirs)
        watchdog = threading.Timer(LIMIT, waiting.kill)
        watchdog.start()
        while True:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
        watchdog.cancel()
    os.close(ours)
    assert waiting.returncode == 0, seen
    assert b"running" in seen
    assert b"of 1: 1 running" in seen


def test_ctrl_c_ends_the_wait_and_says_how_to_take_it_up(
    make_host: MakeHost, vhost: Vhost, environment: dict[str, str], run: Run
) -> None:
    host = make_host(vhost.url)
    host.plan({"seconds": 6})
    host.start()
    command = [*COMMAND, "submit", *VOLUME, "--host", "web01", "--batch", "nightly", "--wait"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True) as waiting:
        assert waiting.stderr is not None
        assert any("web01: started" in line for line in iter(waiting.stderr.readline, ""))
        waiting.send_signal(signal.SIGINT)
        _, told = waiting.communicate(timeout=LIMIT)
    assert waiting.returncode == 1
    assert "outstanding: web01" in told
    assert "take up the wait with: tsm-worker collect nightly" in told
    assert "Traceback" not in told
    result = run("collect", "nightly", "--timeout", "60s")
    assert result.returncode == 0, result.stderr


def test_an_output_directory_that_cannot_be_written_keeps_the_answer_on_the_broker(
    make_host: MakeHost, vhost: Vhost, run: Run, tmp_path: Path
) -> None:
    make_host(vhost.url).start()
    (tmp_path / "file").touch()
    result = run(
        "submit", *VOLUME, "--host", "web01", "--batch", "nightly", "--wait", "--out", tmp_path / "file" / "x"
    )
    assert result.returncode == 1
    assert "cannot be written" in result.stderr
    assert "Traceback" not in result.stderr
    result = run("collect", "nightly", "--timeout", "60s", "--out", tmp_path / "answers")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "answers" / "web01.xml").exists()


def test_hosts_shows_who_is_there(make_host: MakeHost, vhost: Vhost, run: Run) -> None:
    make_host(vhost.url, top={"groups": ["web"]}).start()
    make_host(vhost.url, "db01").start()
    listed = run("hosts", "--json")
    assert [host["host"] for host in json.loads(listed.stdout)] == ["db01", "web01"]
    least = {"host", "groups", "version", "platform", "state", "jobs", "time", "silent"}
    assert least <= set(json.loads(listed.stdout)[0])
    table = run("hosts", "--group", "web").stdout.splitlines()
    assert [line.split()[:2] for line in table] == [["host", "groups"], ["web01", "web"]]
    assert "idle" in table[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "there is no request"),
        ((*VOLUME,), "name hosts, or groups, or everyone"),
        ((*VOLUME, "--host", "a", "--all"), "name hosts, or groups, or everyone"),
        ((*VOLUME, "--host", "no such name"), "is no name"),
        ((*VOLUME, "--host", "a", "--option", "compresion=yes"), "compression"),
        ((*VOLUME, "--host", "a", "--option", "compression=perhaps"), "YES or NO"),
        ((*VOLUME, "--host", "a", "--option", "1=2"), "the request would be refused"),
        ((*VOLUME, "--host", "a", "--timeout", "soon"), "is no time"),
        ((*VOLUME, "--host", "a", "--expect", "2"), "expect is for groups"),
        ((*VOLUME, "--host", "a", "--out", "x"), "--out needs --wait"),
        ((*VOLUME, "--all", "--wait"), "--expect"),
        ((*VOLUME, "--host", "a", "--wait", "--detach"), "exclude"),
        (("-", "--host", "a"), "the body is empty"),
        (("-", *VOLUME, "--host", "a"), "not both"),
    ],
)
def test_a_mistake_is_exit_2_and_says_what_it_is(run: Run, arguments: tuple[str, ...], says: str) -> None:
    result = run("submit", *arguments)
    assert result.returncode == 2, result.stderr
    assert says in result.stderr


def test_a_request_from_stdin_is_sent_as_it_is(make_host: MakeHost, vhost: Vhost, run: Run) -> None:
    host = make_host(vhost.url)
    host.start()
    body = request("/dev/stand-in/a b").decode()
    assert run("submit", "-", "--host", "web01", "--wait", text=body).returncode == 0
    assert host.runs()[0]["argv"][-1] == "/dev/stand-in/a b"


@pytest.mark.parametrize(
    "arguments", [("submit", *VOLUME, "--host", "a"), ("collect", "nightly"), ("hosts",)]
)
def test_a_broker_out_of_reach_is_exit_75(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments, "--broker", "amqp://guest:guest@127.0.0.1:9/")
    assert result.returncode == 75
    assert result.stderr.count("\n") == 1
    assert "out of reach" in result.stderr


@pytest.mark.parametrize("command", ["submit", "collect", "hosts"])
def test_help_has_examples(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.returncode == 0
    assert f"  tsm-worker {command}" in result.stdout
