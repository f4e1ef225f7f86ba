"""The review of dead letters: looking harms nothing, and nothing leaves the list before it is safe elsewhere."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika
import pytest
from brokers import PrivateBroker, Vhost, wait_until
from hosts import REPOSITORY, Host, MakeHost, Requester, request
from pika.adapters.blocking_connection import BlockingChannel

from worker.broker import topology

LONG = 120  # seconds: others use this machine too
QUORUM = {"x-queue-type": "quorum"}
READ = r"^tsm\.dead-letters$"
WRITE = r"^tsm\.requests$"


@dataclass(frozen=True)
class Reviewer:
    """Somebody with a shell, an account and a home of their own."""

    url: str
    home: Path

    def start(
        self,
        *arguments: str,
        room: Sequence[str] = ("dead",),
        first: str | None = None,
        stderr: int = subprocess.PIPE,
    ) -> "subprocess.Popen[str]":
        """Start a command; `first` is Python that its process runs before."""
        main = ["-m", "worker"] if first is None else ["-c", f"{first}; from worker.cli import main; main()"]
        return subprocess.Popen(
            [sys.executable, *main, *room, *arguments],
            env={
                **os.environ,
                "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}",
                "TSM_WORKER_BROKER_URL": self.url,
                "XDG_STATE_HOME": str(self.home),
                "TERM": "xterm",
            },
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def killed(self, point: str, *arguments: str) -> None:
        """Have a command killed at one of the points in `faults`."""
        file = self.home.with_suffix(".killed")
        arm = f"import faults, pathlib; faults.arm({point!r}, pathlib.Path({str(file)!r}))"
        process = self.start(*arguments, first=arm)
        process.communicate(timeout=LONG)
        assert process.returncode == -signal.SIGKILL

    def say(self, *arguments: str, answer: str = "", room: Sequence[str] = ("dead",)) -> tuple[int, str, str]:
        """Run a command to its end; return exit code, output and talk."""
        process = self.start(*arguments, room=room)
        out, talk = process.communicate(answer, timeout=LONG)
        return process.returncode, out, talk

    def do(self, *arguments: str) -> str:
        """Run a command that has to work; return its output."""
        code, out, talk = self.say(*arguments)
        assert code == 0, talk
        return out

    def list(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.do("list", "--json", *arguments))
        return found


@pytest.fixture
def reviewer(vhost: Vhost, tmp_path: Path) -> Reviewer:
    """Give a reviewer who may do everything on the test's vhost."""
    return Reviewer(vhost.url, tmp_path / "reviewer")


@pytest.fixture
def host(make_host: MakeHost, vhost: Vhost) -> Host:
    """Give a host that tries once."""
    return make_host(vhost.url, retry={"attempts": 1})


@contextmanager
def channel(url: str) -> Iterator[BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        opened = connection.channel()
        opened.confirm_delivery()
        yield opened
    finally:
        if connection.is_open:
            connection.close()


def declare(url: str, *hosts: str) -> None:
    for name in hosts:
        topology.declare(pika.URLParameters(url), name, ())


def declare_dead_queue(url: str, arguments: Mapping[str, Any]) -> None:
    """Have the queue be there with other arguments than the worker would give it."""
    with channel(url) as opened:
        opened.queue_declare(topology.DEAD_QUEUE, durable=True, arguments=dict(arguments))
    declare(url, "web01")


def fill(
    url: str,
    count: int,
    host: Callable[[int], str] = lambda _number: "web01",
    told: Mapping[str, str] | None = None,
) -> list[str]:
    """Make dead letters as a worker would; return their ids, oldest first."""
    ids = [f"{number:08}-0000-4000-8000-000000000000" for number in range(count)]
    with channel(url) as opened:
        for number, letter_id in enumerate(ids):
            headers = {
                "tsm-host": host(number),
                "tsm-request-id": f"request-{number}",
                "tsm-outcome": "failed",
                "tsm-error-code": "dsmc-failed",
                "tsm-reason": "ANS1311E Server out of data storage space",
                "tsm-attempts": 3,
                "tsm-ans-codes": ["ANS1311E"],
                "tsm-last-tried": "2026-11-23T02:00:00.000+00:00",
                **(told or {}),
            }
            properties = pika.BasicProperties(message_id=letter_id, delivery_mode=2, headers=headers)
            opened.basic_publish(
                topology.DEAD, f"host.{host(number)}", request("/dev/stand-in/a"), properties, mandatory=True
            )
    return ids


def ready(url: str, queue: str = topology.DEAD_QUEUE) -> int:
    with channel(url) as opened:
        return int(opened.queue_declare(queue, passive=True).method.message_count)


def drain(url: str, queue: str = topology.DEAD_QUEUE) -> list[pika.BasicProperties]:
    """Take everything out of a queue."""
    taken: list[pika.BasicProperties] = []
    with channel(url) as opened:
        while True:
            method, properties, _body = opened.basic_get(queue, auto_ack=True)
            if method is None:
                return taken
            taken.append(properties)


def ids_of(taken: list[pika.BasicProperties]) -> list[str]:
    return [str(properties.message_id) for properties in taken]


# -- what the letters of real failures look like -----------------------------------------------------------


def test_a_failed_request_is_listed_shown_and_replayed_to_its_requester(
    host: Host, scheduler: Requester, reviewer: Reviewer
) -> None:
    host.plan(a=[{"messages": ["ANS1311E"]}, {}])
    host.start()
    asked = scheduler.ask(request("/dev/stand-in/a"), correlation_id="night-1")
    assert scheduler.answer().error == "dsmc-failed"
    (letter,) = wait_until(reviewer.list, what="the letter")
    assert (letter["host"], letter["request_id"]) == ("web01", asked)
    assert (letter["outcome"], letter["error_code"], letter["ans_codes"]) == (
        "failed",
        "dsmc-failed",
        ["ANS1311E", "ANS1813E"],
    )
    assert (letter["attempts"], letter["volumes"]) == (1, ["/dev/stand-in/a"])
    assert letter["last_tried"]
    table = reviewer.do("list")
    assert letter["id"][:8] in table
    assert "/dev/stand-in/a" in table
    story = reviewer.do("show", letter["id"][:6])
    assert "ANS1311E" in letter["reason"]
    assert letter["reason"] in story
    assert "\n      <volume-list>/dev/stand-in/a</volume-list>\n" in story
    assert "its output ended with" in story
    assert "ANS1813E" in story.partition("its output ended with")[2]

    code, out, talk = reviewer.say("replay", letter["id"][:8], answer="y\n")
    assert (code, out) == (0, "1 letter replayed\n"), talk
    answer = scheduler.answer()
    assert (answer.headers["tsm-outcome"], answer.properties.correlation_id) == ("completed", "night-1")
    assert answer.headers["tsm-request-id"] not in (asked, letter["id"])
    assert reviewer.list() == []


def test_what_the_broker_gave_up_is_listed_host_by_host_and_can_be_replayed(
    vhost: Vhost, scheduler: Requester, reviewer: Reviewer
) -> None:
    declare(vhost.url, "web01", "web02")
    scheduler.ask(
        request("/dev/stand-in/a"), "all", message_id="nightly", expiration="1", correlation_id="night-1"
    )
    found = wait_until(lambda: [x for x in [reviewer.list()] if len(x) == 2], 30, "both letters")[0]
    assert {letter["host"] for letter in found} == {"web01", "web02"}
    assert {letter["error_code"] for letter in found} == {"expired"}
    assert {letter["request_id"] for letter in found} == {"nightly"}
    assert reviewer.do("replay", "--host", "web02", "--yes") == "1 letter replayed\n"
    (replay,) = drain(vhost.url, "tsm.host.web02")
    assert replay.headers["tsm-replay-of"] == "nightly"
    assert (replay.reply_to, replay.correlation_id, replay.expiration) == (scheduler.queue, "night-1", None)
    assert drain(vhost.url, "tsm.host.web01") == []


def test_a_request_that_was_lost_too_often_says_so(
    vhost: Vhost, scheduler: Requester, reviewer: Reviewer
) -> None:
    declare(vhost.url, "web01")
    scheduler.ask(request("/dev/stand-in/a"), message_id="poison")
    with channel(vhost.url) as opened:

        def lose() -> bool:
            method, _properties, _body = opened.basic_get("tsm.host.web01")
            if method is not None:
                opened.basic_reject(method.delivery_tag, requeue=True)
            return ready(vhost.url) == 1

        wait_until(lose, 60, "the broker to give it up")
    (letter,) = reviewer.list()
    assert (letter["error_code"], letter["request_id"], letter["host"]) == (
        "delivery-limit",
        "poison",
        "web01",
    )


# -- looking -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["as the worker declares it", pytest.param("classic", marks=pytest.mark.long)]
)
def test_thirty_looks_lose_and_reorder_nothing(vhost: Vhost, reviewer: Reviewer, kind: str) -> None:
    declare_dead_queue(vhost.url, {}) if kind == "classic" else declare(vhost.url, "web01")
    ids = fill(vhost.url, 40)
    for _ in range(30):
        assert [letter["id"] for letter in reviewer.list()] == ids
    assert ids_of(drain(vhost.url)) == ids


def test_every_kind_of_look_leaves_all_as_it_was(vhost: Vhost, reviewer: Reviewer) -> None:
    declare(vhost.url, "web01")
    ids = fill(vhost.url, 30)
    reviewer.do("show", ids[3])
    assert len(reviewer.do("export").splitlines()) == 30
    assert json.loads(reviewer.do("stats", "--json"))["total"] == 30
    assert reviewer.say("replay", ids[7], answer="n\n")[0] == 1
    assert reviewer.say("discard", "--host", "web01", answer="")[0] == 1
    assert ids_of(drain(vhost.url)) == ids


def test_several_reviewers_at_once_each_see_all(vhost: Vhost, reviewer: Reviewer, tmp_path: Path) -> None:
    declare(vhost.url, "web01")
    ids = fill(vhost.url, 200)
    others = [reviewer, *(Reviewer(vhost.url, tmp_path / name) for name in ("second", "third", "fourth"))]
    for _ in range(5):
        told = [each.communicate(timeout=LONG) for each in [each.start("list", "--json") for each in others]]
        for out, talk in told:
            assert out, talk
            assert [letter["id"] for letter in json.loads(out)] == ids
    assert ids_of(drain(vhost.url)) == ids


def test_a_reviewer_killed_in_the_middle_loses_and_reorders_nothing(vhost: Vhost, reviewer: Reviewer) -> None:
    declare(vhost.url, "web01")
    ids = fill(vhost.url, 1000)
    assert len(reviewer.list()) == 1000
    for _ in range(4):
        process = reviewer.start("list", "--json")
        wait_until(lambda: ready(vhost.url) == 0, 30, "the reviewer to hold the letters")
        process.kill()
        process.communicate()
        wait_until(lambda: ready(vhost.url) == 1000, 30, "the letters to come back")
    assert [letter["id"] for letter in reviewer.list()] == ids
    assert ids_of(drain(vhost.url)) == ids


def test_a_terminal_shows_how_far_a_long_look_is(vhost: Vhost, reviewer: Reviewer) -> None:
    declare(vhost.url, "web01")
    fill(vhost.url, 1000)
    ours, theirs = pty.openpty()
    process = reviewer.start("stats", "--json", stderr=theirs)
    os.close(theirs)
    seen = b""
    with suppress(OSError):  # the other end is closed
        while more := os.read(ours, 65536):
            seen += more
    os.close(ours)
    out, _ = process.communicate(timeout=LONG)
    assert json.loads(out)["total"] == 1000
    assert b"dead letters" in seen
    assert b"100%" in seen


@pytest.mark.long
def test_a_look_holds_far_less_in_memory_than_there_is(vhost: Vhost, reviewer: Reviewer) -> None:
    declare(vhost.url, "web01")
    with pika.BlockingConnection(pika.URLParameters(vhost.url)) as connection:
        unconfirmed = connection.channel()
        for number in range(
            40_000
        ):  # from some 32,000 on, 3.10 says that one consumes when all have been delivered
            headers = {"tsm-outcome": "failed", "tsm-last-lines": ["a line of dsmc's output " * 3] * 20}
            properties = pika.BasicProperties(message_id=f"{number}", headers=headers)
            unconfirmed.basic_publish(topology.DEAD, "host.web01", bytes(400), properties)
    wait_until(lambda: ready(vhost.url) == 40_000, LONG, "the letters")
    told = "import atexit, sys; atexit.register(lambda: print(open('/proc/self/status').read(), file=sys.stderr))"
    for _ in range(2):  # what has come back is delivered in another way than what is new
        process = reviewer.start("stats", "--json", first=told)
        out, talk = process.communicate(timeout=LONG)
        assert json.loads(out)["total"] == 40_000, talk
        assert int(talk.partition("VmHWM:")[2].split()[0]) < 80 << 10  # KiB


@pytest.mark.long
def test_a_broker_restart_in_the_middle_of_a_look_is_waited_for(
    private_broker: PrivateBroker, tmp_path: Path
) -> None:
    broker = private_broker()
    declare(broker.url, "web01")
    ids = fill(broker.url, 3000)
    process = Reviewer(broker.url, tmp_path / "reviewer").start("list", "--json")
    wait_until(lambda: ready(broker.url) == 0, 30, "the reviewer to hold the letters")
    process.send_signal(signal.SIGSTOP)
    broker.stop()
    process.send_signal(signal.SIGCONT)
    broker.start()
    out, talk = process.communicate(timeout=LONG)
    assert process.returncode == 0, talk
    assert "trying again" in talk
    assert [letter["id"] for letter in json.loads(out)] == ids
    wait_until(lambda: ready(broker.url) == 3000, 30, "the letters to be back")


def test_filters_choose_and_stats_count(vhost: Vhost, reviewer: Reviewer) -> None:
    declare(vhost.url, "web01")
    fill(vhost.url, 30, lambda number: f"web{number % 3:02}")
    assert len(reviewer.list("--host", "web01", "--host", "web02")) == 20
    assert len(reviewer.list("--ans", "ans1311e", "--code", "dsmc-failed", "--outcome", "failed")) == 30
    assert reviewer.list("--outcome", "expired") == []
    assert len(reviewer.list("--since", "2026-11-23T01:00+00:00")) == 30
    assert reviewer.list("--since", "2026-11-23T03:00+00:00") == []
    counts = json.loads(reviewer.do("stats", "--json"))
    assert counts["by_host"] == {"web00": 10, "web01": 10, "web02": 10}
    assert counts["by_code"] == {"dsmc-failed": 30}
    assert "web02" in reviewer.do("stats")


def test_nothing_in_a_letter_commands_the_terminal(vhost: Vhost, reviewer: Reviewer) -> None:
    declare(vhost.url, "web01")
    ids = fill(vhost.url, 1, told={"tsm-reason": "\x1b[2J[bold]gone\r\n", "x-odd": "\x1b]0;x\x07"})
    for out in (reviewer.do("list"), reviewer.do("show", ids[0])):
        assert "\x1b" not in out
        assert "[bold]gone" in out


# -- queues that drop what is looked at --------------------------------------------------------------------


def dropped(reviewer: Reviewer) -> list[str]:
    return [
        json.loads(line)["id"]
        for file in reviewer.home.rglob("*.dropped")
        for line in file.read_text().splitlines()
    ]


@pytest.mark.parametrize("more", [{}, {"x-max-length": 1000, "x-overflow": "reject-publish"}])
def test_a_queue_with_a_delivery_limit_is_not_touched(
    vhost: Vhost, reviewer: Reviewer, more: dict[str, Any]
) -> None:
    declare_dead_queue(vhost.url, {**QUORUM, "x-delivery-limit": 3, **more})
    ids = fill(vhost.url, 5)
    for _ in range(5):
        code, out, talk = reviewer.say("list")
        assert (code, out) == (1, "")
        assert "x-delivery-limit 3," in talk
        assert "docs/dead-letters.md" in talk
    taken = drain(vhost.url)
    assert ids_of(taken) == ids
    assert not any(properties.headers.get("x-delivery-count") for properties in taken)


@pytest.mark.long
def test_a_quorum_queue_of_the_broker_s_defaults_loses_nothing_in_thirty_looks(
    vhost: Vhost, reviewer: Reviewer
) -> None:
    declare_dead_queue(vhost.url, QUORUM)
    ids = fill(vhost.url, 5)
    codes = {reviewer.say("list")[0] for _ in range(30)}
    assert codes == ({0} if vhost.broker.version.startswith("3.") else {1})
    assert ids_of(drain(vhost.url)) == ids


@pytest.mark.long
@pytest.mark.parametrize("limit", [0, 3])
def test_who_may_not_ask_for_the_limit_finds_it_with_copies_of_what_it_costs(
    vhost: Vhost, tmp_path: Path, limit: int
) -> None:
    declare_dead_queue(vhost.url, {**QUORUM, "x-delivery-limit": limit})
    ids = fill(vhost.url, 5)
    reviewer = Reviewer(
        vhost.user(f"reviewer-{limit}", "secret", read=READ, write=WRITE), tmp_path / "reviewer"
    )
    code, _out, talk = reviewer.say("list")
    assert (code, "delivery limit" in talk) == (1, True), talk
    for _ in range(3):
        code, _out, talk = reviewer.say("list")
        assert (code, "nothing was touched" in talk) == (1, True), talk
    assert sorted(dropped(reviewer) + ids_of(drain(vhost.url))) == ids
    assert len(dropped(reviewer)) == (5 if limit == 0 else 1)


@pytest.mark.long
def test_a_policy_that_lifts_the_limit_is_taken_at_the_user_s_word(vhost: Vhost, reviewer: Reviewer) -> None:
    declare_dead_queue(vhost.url, QUORUM)
    if not vhost.broker.version.startswith("3."):
        policy = {"pattern": READ, "definition": {"delivery-limit": -1}, "apply-to": "queues"}
        vhost.management("PUT", f"policies/{vhost.name}/dead-letters", policy)
        path = f"queues/{vhost.name}/{topology.DEAD_QUEUE}"
        wait_until(lambda: vhost.management("GET", path).get("policy"), 30, "the policy")
    ids = fill(vhost.url, 5)
    for _ in range(30):
        assert [letter["id"] for letter in reviewer.list("--limit-lifted")] == ids
    assert ids_of(drain(vhost.url)) == ids


# -- settling ----------------------------------------------------------------------------------------------


def test_a_letter_that_was_sent_twice_is_one(vhost: Vhost, reviewer: Reviewer) -> None:
    declare(vhost.url, "web01")
    ids = fill(vhost.url, 3)
    fill(vhost.url, 2)
    assert [letter["id"] for letter in reviewer.list()] == ids
    assert reviewer.do("discard", ids[1], "--yes") == "1 letter discarded\n"
    assert ids_of(drain(vhost.url)) == [ids[0], ids[2], ids[0]]


def test_an_id_means_itself_before_what_it_begins(vhost: Vhost, reviewer: Reviewer) -> None:
    declare(vhost.url, "web01")
    with channel(vhost.url) as opened:
        for letter_id in ("a", "ab"):
            properties = pika.BasicProperties(message_id=letter_id, headers={"tsm-outcome": "failed"})
            opened.basic_publish(topology.DEAD, "host.web01", b"", properties, mandatory=True)
    assert json.loads(reviewer.do("show", "a", "--json"))["id"] == "a"
    assert reviewer.do("discard", "a", "--yes") == "1 letter discarded\n"
    assert ids_of(drain(vhost.url)) == ["ab"]


@pytest.mark.long
def test_a_thousand_failed_requests_add_up_with_two_reviewers_at_work(
    make_host: MakeHost, vhost: Vhost, scheduler: Requester, reviewer: Reviewer, tmp_path: Path
) -> None:
    hosts = {
        name: make_host(vhost.url, name, retry={"attempts": 1}) for name in (f"web{n:02}" for n in range(10))
    }
    for host in hosts.values():
        host.plan(full={"messages": ["ANS1311E"]})
        host.start()
    for number in range(1000):
        volume = "/dev/stand-in/full" if number % 100 < 10 else "/dev/sdz1"
        scheduler.ask(request(volume), f"host.web{number % 10:02}", message_id=f"request-{number}")
    wait_until(lambda: ready(vhost.url) == 1000, LONG, "a thousand letters")
    for host in hosts.values():
        host.stop()
    letters = reviewer.list()
    assert Counter(letter["host"] for letter in letters) == dict.fromkeys(hosts, 100)
    assert Counter(letter["error_code"] for letter in letters) == {
        "volume-not-eligible": 900,
        "dsmc-failed": 100,
    }
    assert {letter["request_id"] for letter in letters} == {f"request-{number}" for number in range(1000)}
    one = next(letter["id"] for letter in letters if letter["host"] == "web00")
    assert reviewer.do("replay", one, "--yes") == "1 letter replayed\n"

    second = Reviewer(vhost.url, tmp_path / "second")
    archive = tmp_path / "archive.ndjson"
    at_work = [
        reviewer.start("replay", "--host", "web01", "--host", "web02", "--yes"),
        second.start("discard", "--host", "web03", "--archive", str(archive), "--yes"),
        reviewer.start("export", "--host", "web04"),
        second.start("list", "--json", "--code", "dsmc-failed", "--host", "web05"),
    ]
    outs = []
    for process in at_work:
        out, talk = process.communicate(timeout=LONG)
        assert process.returncode == 0, talk
        outs.append(out)
    assert outs[:2] == ["200 letters replayed\n", "100 letters discarded\n"]
    assert (len(outs[2].splitlines()), len(json.loads(outs[3]))) == (100, 10)

    left = [each["id"] for each in letters if each["host"] not in ("web01", "web02", "web03")]
    left.remove(one)
    assert [letter["id"] for letter in reviewer.list()] == left
    archived = [json.loads(line)["id"] for line in archive.read_text().splitlines()]
    assert archived == [each["id"] for each in letters if each["host"] == "web03"]
    assert [ready(vhost.url, f"tsm.host.{name}") for name in hosts] == [1, 100, 100, 0, 0, 0, 0, 0, 0, 0]
    hosts["web01"].start()  # its hundred fail once more, as what they are: new requests
    wait_until(lambda: ready(vhost.url) == len(left) + 100, LONG, "their letters")
    again = [letter for letter in reviewer.list() if letter["id"] not in left]
    assert {letter["host"] for letter in again} == {"web01"}
    assert not {letter["request_id"] for letter in again} & {letter["request_id"] for letter in letters}
    assert reviewer.do("stats", "--json") == second.do("stats", "--json")
    assert len(drain(vhost.url)) == len(left) + 100 == 799


def test_two_reviewers_who_replay_the_same_letters_replay_each_once(
    vhost: Vhost, reviewer: Reviewer, tmp_path: Path
) -> None:
    declare(vhost.url, "web01")
    fill(vhost.url, 100)
    both = [reviewer, Reviewer(vhost.url, tmp_path / "second")]
    at_work = [each.start("replay", "--host", "web01", "--yes", "--json") for each in both]
    done: list[str] = []
    for process in at_work:
        out, _talk = process.communicate(timeout=LONG)
        done += json.loads(out)["replayed"]
    assert len(done) == len(set(done)) == 100
    assert ready(vhost.url) == 0
    assert len(set(ids_of(drain(vhost.url, "tsm.host.web01")))) == 100


def test_a_replay_killed_before_its_acks_is_taken_up_and_no_letter_is_lost(
    vhost: Vhost, reviewer: Reviewer
) -> None:
    declare(vhost.url, "web01")
    ids = fill(vhost.url, 200)
    reviewer.killed("after-replay-before-ack", "replay", "--host", "web01", "--yes")
    assert [letter["id"] for letter in reviewer.list()] == ids
    assert reviewer.do("replay", "--host", "web01", "--yes") == "200 letters replayed\n"
    replays = drain(vhost.url, "tsm.host.web01")
    assert (len(replays), len(set(ids_of(replays)))) == (400, 200)  # the host knows the second by its id
    assert {replay.headers["tsm-replay-of"] for replay in replays} == {f"request-{n}" for n in range(200)}
    assert reviewer.list() == []


def test_a_discard_killed_before_its_acks_has_archived_what_is_still_there(
    vhost: Vhost, reviewer: Reviewer, tmp_path: Path
) -> None:
    declare(vhost.url, "web01")
    ids = fill(vhost.url, 200)
    discard = ("discard", "--host", "web01", "--archive", str(tmp_path / "archive.ndjson"), "--yes")
    reviewer.killed("after-archive-before-ack", *discard)
    assert [letter["id"] for letter in reviewer.list()] == ids
    assert reviewer.do(*discard) == "200 letters discarded\n"
    archived = [json.loads(line)["id"] for line in (tmp_path / "archive.ndjson").read_text().splitlines()]
    assert archived == ids + ids
    assert reviewer.list() == []


def test_a_letter_replayed_twice_for_a_crash_runs_once(host: Host, vhost: Vhost, reviewer: Reviewer) -> None:
    host.start()
    for _ in range(2):  # a crash after the confirm leaves the letter, and the replay on its way
        (letter_id,) = fill(vhost.url, 1)
        reviewer.do("replay", letter_id, "--yes")
    wait_until(lambda: host.said("request known") == 1, 30, "the host to know it again")
    assert len(host.runs()) == 1


@pytest.mark.long
def test_a_broker_restart_in_the_middle_of_a_replay_loses_nothing(
    private_broker: PrivateBroker, tmp_path: Path
) -> None:
    broker = private_broker()
    declare(broker.url, "web01")
    fill(broker.url, 2500)
    process = Reviewer(broker.url, tmp_path / "reviewer").start("replay", "--host", "web01", "--yes")
    wait_until(lambda: ready(broker.url, "tsm.host.web01") >= 1, LONG, "a replay")
    process.send_signal(signal.SIGSTOP)
    broker.stop()
    process.send_signal(signal.SIGCONT)
    broker.start()
    out, talk = process.communicate(timeout=LONG)
    assert (process.returncode, out) == (0, "2500 letters replayed\n"), talk
    assert "trying again" in talk
    assert len(set(ids_of(drain(broker.url, "tsm.host.web01")))) == 2500
    assert ready(broker.url) == 0


def test_a_replay_is_edited_on_its_way(host: Host, scheduler: Requester, reviewer: Reviewer) -> None:
    host.plan(a=[{"messages": ["ANS1311E"]}, {}])
    host.start()
    scheduler.ask(request("/dev/stand-in/a", timeout=100))
    scheduler.answer()
    wait_until(reviewer.list, what="the letter")
    reviewer.do("replay", "--code", "dsmc-failed", "--set", "compression=no", "--timeout", "2h", "--yes")
    assert scheduler.answer().headers["tsm-outcome"] == "completed"
    assert "-compression=no" in host.runs()[-1]["argv"]


def test_an_edit_no_host_would_accept_leaves_the_letter(vhost: Vhost, reviewer: Reviewer) -> None:
    declare(vhost.url, "web01")
    (letter_id,) = fill(vhost.url, 1)
    code, _out, talk = reviewer.say("replay", letter_id, "--set", "password=x", "--yes")
    assert (code, "option-not-allowed" in talk) == (1, True)
    assert len(reviewer.list()) == 1
    assert drain(vhost.url, "tsm.host.web01") == []


def test_a_host_without_a_queue_keeps_its_letter_and_the_others_go(vhost: Vhost, reviewer: Reviewer) -> None:
    declare(vhost.url, "web01")
    fill(vhost.url, 4, lambda number: "gone01" if number == 1 else "web01")
    code, out, talk = reviewer.say("replay", "--ans", "ANS1311E", "--yes")
    assert (code, out) == (1, "3 letters replayed, 1 left\n")
    assert "host gone01 has no queue" in talk
    assert [letter["host"] for letter in reviewer.list()] == ["gone01"]


def test_what_cannot_be_archived_is_not_discarded(vhost: Vhost, reviewer: Reviewer) -> None:
    declare(vhost.url, "web01")
    ids = fill(vhost.url, 5)
    code, _out, talk = reviewer.say("discard", "--host", "web01", "--archive", "/dev/full", "--yes")
    assert (code, "still in the list" in talk) == (1, True)
    assert ids_of(drain(vhost.url)) == ids


# -- rights and mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("may_replay", [False, True])
def test_a_reviewer_s_account_can_review_and_do_no_more(
    vhost: Vhost, tmp_path: Path, *, may_replay: bool
) -> None:
    declare(vhost.url, "web01")
    ids = fill(vhost.url, 5)
    url = vhost.user("reviewer", "secret", read=READ, write=WRITE if may_replay else "^$", configure="^$")
    if may_replay:
        keys = {"exchange": topology.REQUESTS, "write": r"^host\.", "read": "^$"}
        vhost.management("PUT", f"topic-permissions/{vhost.name}/reviewer", keys)
    reviewer = Reviewer(url, tmp_path / "reviewer")
    assert len(reviewer.list()) == len(reviewer.do("export").splitlines()) == 5
    assert json.loads(reviewer.do("stats", "--json"))["total"] == 5
    reviewer.do("show", ids[0])
    assert reviewer.say("replay", ids[0], "--yes")[0] == (0 if may_replay else 75)
    reviewer.do("discard", ids[1], "--yes")
    assert len(reviewer.list()) == (3 if may_replay else 4)
    replays = drain(vhost.url, "tsm.host.web01")
    assert len(replays) == may_replay

    submit = ("submit", "--host", "web01", "--volume", "/dev/stand-in/a")
    code, _out, talk = reviewer.say(*submit, room=())
    assert (code, "ACCESS_REFUSED" in talk) == (75, True)
    forbidden: list[Callable[[BlockingChannel], object]] = [
        lambda opened: opened.basic_publish(topology.REQUESTS, "all", b""),
        lambda opened: opened.basic_publish(topology.REQUESTS, "group.web", b""),
        lambda opened: opened.basic_publish("", "tsm.host.web01", b""),
        lambda opened: opened.basic_publish(topology.DEAD, "host.web01", b""),
        lambda opened: opened.basic_publish(topology.RESPONSES, "tsm.responses", b""),
        lambda opened: opened.basic_get("tsm.host.web01"),
        lambda opened: opened.basic_get(topology.RESPONSES_QUEUE),
        lambda opened: opened.queue_delete(topology.DEAD_QUEUE),
        lambda opened: opened.queue_declare("tsm.mine"),
        lambda opened: opened.queue_bind(topology.DEAD_QUEUE, topology.REQUESTS, "#"),
    ]
    if not may_replay:
        forbidden.append(lambda opened: opened.basic_publish(topology.REQUESTS, "host.web01", b""))
    for attempt in forbidden:
        with (
            channel(url) as opened,
            pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"),
        ):
            attempt(opened)
    assert drain(vhost.url, "tsm.host.web01") == []


@pytest.mark.parametrize(
    ("rights", "refused"),
    [({"write": WRITE}, ["list"]), ({"read": READ}, ["replay", "--host", "web01", "--yes"])],
)
def test_a_missing_right_is_named_and_changes_nothing(
    vhost: Vhost, tmp_path: Path, rights: dict[str, str], refused: list[str]
) -> None:
    declare(vhost.url, "web01")
    ids = fill(vhost.url, 3)
    reviewer = Reviewer(vhost.user("reviewer", "secret", **rights), tmp_path / "reviewer")
    code, _out, talk = reviewer.say(*refused)
    assert (code, "ACCESS_REFUSED" in talk, "docs/dead-letters.md" in talk) == (75, True, True)
    assert ids_of(drain(vhost.url)) == ids


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "nothing"], 1, "no dead letter has the id nothing"),
        (["show", "0000000"], 1, "the beginning of 3 ids"),
        (["replay"], 2, "say which letters to replay"),
        (["discard", "--yes"], 2, "say which letters to discard"),
        (["list", "--since", "yesterday"], 2, "is no time"),
        (["list", "--outcome", "bad"], 2, "timed-out"),
        (["list", "--broker", "rabbit.example.com"], 2, "amqp[s]://"),
        (["list", "--broker", "amqp://guest:guest@127.0.0.1:1/"], 75, "out of reach"),
    ],
)
def test_a_mistake_is_told_with_its_remedy(
    vhost: Vhost, reviewer: Reviewer, arguments: list[str], code: int, said: str
) -> None:
    declare(vhost.url, "web01")
    fill(vhost.url, 3)
    ended, out, talk = reviewer.say(*arguments)
    assert (ended, out) == (code, "")
    assert said in talk
    assert "Traceback" not in talk


def test_a_broker_without_the_queue_says_so(reviewer: Reviewer) -> None:
    code, _out, talk = reviewer.say("list")
    assert (code, "has no queue tsm.dead-letters" in talk) == (1, True)


@pytest.mark.parametrize("command", [[], ["list"], ["show"], ["replay"], ["discard"], ["export"], ["stats"]])
def test_help_has_examples(reviewer: Reviewer, command: list[str]) -> None:
    assert "tsm-worker dead" in reviewer.do(*command, "--help")
