"""The stand-in dsmc, each behaviour shown by running it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from worker.demo import dsmc

FIXTURES = Path(__file__).parent.parent / "fixtures"
TRANSCRIPTS = sorted((FIXTURES / "transcripts").glob("*.txt"))
SAMPLE_OPTIONS = [
    "-compressalways=no",
    "-compression=yes",
    "-imagegapsize=10k",
    "-mode=Selective",
    "-snapshotcachesize=10",
    "-snapshotcachelocation=e:",
    "-snapshotfsidleretries=1",
    "-snapshotfsidlewait=4s,500ms",
]
SAMPLE_SPEECH = {
    "version": "5.5",
    "node": "WIN2STDVM",
    "dates": ["11/25/2008 09:37:12", "11/25/2008 09:35:37", "11/25/2008 09:33:24"],
}
DEADLINE = 20.0  # seconds; only a failing test waits so long
POSIX = os.name == "posix"
posix_only = pytest.mark.skipif(not POSIX, reason="lacks POSIX signals and process groups")


class StandIn:
    """Starts stand-ins that follow one plan and write one log; ends what is left of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "runs.ndjson"
        self.plan: Path | None = None
        self.started: list[subprocess.Popen[bytes]] = []

    def follow(
        self, default: Mapping[str, Any] | None = None, volumes: Mapping[str, Any] | None = None
    ) -> None:
        self.plan = dsmc.write_plan(self.folder / "plan.json", log=self.log, default=default, volumes=volumes)

    def start(self, *words: str, stdin: Any = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DSM_")}
        if self.plan:
            environment["DSM_STANDIN"] = str(self.plan)
        process = subprocess.Popen(
            [*dsmc.command(), *words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=environment,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *words: str, typed: bytes | None = None) -> tuple[int, str]:
        """Return the exit code of a whole run and its stdout."""
        stdin = subprocess.DEVNULL if typed is None else subprocess.PIPE
        process = self.start(*words, stdin=stdin)
        out, err = process.communicate(typed, timeout=DEADLINE)
        assert b"Traceback" not in err, err.decode()
        return process.returncode, out.decode().replace("\r\n", "\n")

    def image(self, *words: str, behaviour: Mapping[str, Any] | None = None) -> tuple[int, str]:
        """Return the exit code and stdout of `backup image`, of /dev/sdb1 if not said otherwise."""
        if behaviour is not None:
            self.follow(behaviour)
        return self.run("backup", "image", *(words or ("/dev/sdb1",)))

    def begin(self, behaviour: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        """Start `backup image /dev/sdb1` and return once its start line is in the log."""
        self.follow(behaviour)
        process = self.start("backup", "image", "/dev/sdb1")
        until(lambda: dsmc.runs(self.log))
        return process

    def end(self) -> None:
        for process in self.started:
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
            if POSIX:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait(DEADLINE)


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    stand_in = StandIn(tmp_path)
    yield stand_in
    stand_in.end()


def until(condition: Callable[[], object]) -> None:
    """Return as soon as the condition is true; fail at the deadline."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "deadline"
        time.sleep(0.005)


def speech(text: str) -> list[str]:
    """Return the lines as a response holds them: without the blank ones."""
    return [line for line in text.split("\n") if line.strip()]


def read_until(process: subprocess.Popen[bytes], word: bytes) -> bytes:
    """Read the process's stdout up to a word; whatever else it does, it must say it."""
    assert process.stdout
    heard = b""
    while word not in heard:
        byte = os.read(process.stdout.fileno(), 4096)
        assert byte, heard
        heard += byte
    return heard


def is_alive(pid: int) -> bool:
    """Return whether the process exists and is no zombie that nobody has reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# ---- speech


def test_without_a_plan_it_backs_up_as_8_1_does(stand_in: StandIn) -> None:
    code, text = stand_in.image()
    assert code == 0
    assert speech(text)[:3] == [
        "IBM Storage Protect",
        "Command Line Backup-Archive Client Interface",
        "  Client Version 8, Release 1, Level 23.0 ",
    ]
    assert "Image Backup processing of '/dev/sdb1' finished without failure." in speech(text)
    assert "Total number of objects backed up:            1" in speech(text)
    assert "Total data reduction ratio:               99.83%" in speech(text)


def test_the_sample_request_is_answered_with_exactly_the_sample_transcript(stand_in: StandIn) -> None:
    code, text = stand_in.image(*SAMPLE_OPTIONS, "e:", behaviour=SAMPLE_SPEECH)
    sample = ET.parse(FIXTURES / "backup-image-response.xml").getroot()  # noqa: S314 -- our own file
    assert code == 0
    assert speech(text) == [line.text for line in sample.iter("line")]


def test_several_volumes_have_a_block_each_and_one_summary(stand_in: StandIn) -> None:
    code, text = stand_in.image("/dev/sdb1", "/dev/sdc1")
    assert code == 0
    assert text.count("Backup Image Function Invoked.") == 2
    assert text.count("finished without failure.") == 2
    assert text.count("Total number of objects inspected:            2\n") == 1


def test_only_the_first_volume_has_the_plans_trouble(stand_in: StandIn) -> None:
    code, text = stand_in.image("/dev/sdb1", "/dev/sdc1", behaviour={"messages": ["ANS1312E"]})
    assert code == 12
    assert "Image Backup processing of '/dev/sdc1' finished without failure." in text
    assert "Total number of objects backed up:            1\n" in text
    assert "Total number of objects failed:               1\n" in text


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript_is_printed_verbatim_without_its_source(stand_in: StandIn, transcript: Path) -> None:
    stand_in.follow({"transcript": str(transcript), "exit": 3})
    process = stand_in.start("backup", "image", "e:")
    out, _ = process.communicate(timeout=DEADLINE)
    source, rest = transcript.read_bytes().split(b"\n", 1)
    assert source.startswith(b"# source:")
    assert (process.returncode, out) == (3, rest)


def test_the_exit_code_of_a_transcript_follows_from_its_messages(stand_in: StandIn) -> None:
    codes = {}
    for transcript in TRANSCRIPTS:
        codes[transcript.stem], _ = stand_in.image(behaviour={"transcript": str(transcript)})
    assert {name: code for name, code in codes.items() if code} == {
        "ansible-pr20-selective-ANS1076E-8.1.23": 12,
        "apar-IC89088-image-fail-nomount": 12,
        "cg-retrieve-7.1.4-ANS1590W-warning": 8,
        "no-options-files-ANS0990W-ANS1035S": 12,
        "safespring-incremental-changed-retry": 4,
    }


def test_query_session_tells_of_the_server(stand_in: StandIn) -> None:
    code, text = stand_in.run("q", "sess")
    assert code == 0
    assert "IBM Storage Protect Server Connection Information" in text
    assert "Home Server Name........: SERVER1" in text


def test_query_session_fails_when_the_server_is_out_of_reach(stand_in: StandIn) -> None:
    stand_in.follow({"messages": ["ANS1017E"]})
    code, text = stand_in.run("query", "session")
    assert (code, speech(text)[-1]) == (12, "ANS1017E Session rejected: TCP/IP connection failure")


def test_dates_follow_the_dateformat_option(stand_in: StandIn) -> None:
    _, text = stand_in.image("-date=3", "/dev/sdb1")
    assert time.strftime("  Client date/time: %Y-") in text


# ---- messages and exit codes


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([], 0),
        (["ANS1114I"], 0),
        (["ANS4037E"], 4),
        (["ANS1228E", "ANS4037E"], 4),
        (["ANS4037E", "ANS1453W"], 8),
        (["ANS1453W"], 8),
        (["ANS0990W"], 8),
        (["ANS1809W", "ANS1810E"], 8),
        (["ANS1312E"], 12),
        (["ANS1312E", "ANS4037E", "ANS1453W"], 12),
        (["ANS1028S"], 12),
        (["ANS1017E"], 12),
        (["ANS0990W", "ANS1035S"], 12),
    ],
)
def test_the_exit_code_follows_the_highest_message(stand_in: StandIn, messages: list[str], code: int) -> None:
    assert stand_in.image(behaviour={"messages": messages})[0] == code


def test_the_plan_may_give_another_exit_code(stand_in: StandIn) -> None:
    code, text = stand_in.image(behaviour={"exit": 137})
    assert code == 137
    assert "finished without failure." in text


def test_a_missing_options_file_is_told_before_the_banner(stand_in: StandIn) -> None:
    code, text = stand_in.image(behaviour={"messages": ["ANS0990W"]})
    assert code == 8
    assert text.startswith(
        "ANS0990W Options file '/opt/tivoli/tsm/client/ba/bin/dsm.opt' could not be found."
    )
    assert "IBM Storage Protect\n" in text


def test_without_a_system_options_file_there_is_no_banner(stand_in: StandIn) -> None:
    _, text = stand_in.image(behaviour={"messages": ["ANS0990W", "ANS1035S"]})
    known = (FIXTURES / "transcripts" / "no-options-files-ANS0990W-ANS1035S.txt").read_text(encoding="utf-8")
    assert speech(text) == speech(known)[1:]


def test_a_rejected_session_ends_the_run_after_the_node_name(stand_in: StandIn) -> None:
    _, text = stand_in.image(behaviour={"messages": ["ANS1351E"], "node": "web01"})
    assert speech(text)[-2:] == [
        "Node Name: WEB01",
        "ANS1351E Session rejected: All server sessions are currently in use",
    ]


def test_a_failed_volume_ends_with_ans1813e_and_is_counted(stand_in: StandIn) -> None:
    code, text = stand_in.image(behaviour={"messages": ["ANS1425E", "ANS1228E", "ANS1312E"]})
    assert code == 12
    codes = [line[:8] for line in speech(text) if line.startswith("ANS")]
    assert codes == ["ANS1425E", "ANS1228E", "ANS1312E", "ANS1813E"]
    assert "[Sent]" not in text
    assert "Total number of objects failed:               1\n" in text


def test_a_localised_text_is_printed_as_the_plan_has_it(stand_in: StandIn) -> None:
    spanish = "ANS1353E (RC53) Sesión rechazada: Se ha entrado un ID desconocido o incorrecto"
    code, text = stand_in.image(behaviour={"messages": [spanish]})
    assert (code, speech(text)[-1]) == (12, spanish)


def test_a_wrapped_message_stays_in_its_place(stand_in: StandIn) -> None:
    messages = ["ANS1017E Session rejected:\nTCP/IP connection failure", "and more of it"]
    _, text = stand_in.image(behaviour={"messages": messages})
    assert speech(text)[-3:] == ["ANS1017E Session rejected:", "TCP/IP connection failure", "and more of it"]


def test_a_code_whose_text_is_not_known_is_printed_bare(stand_in: StandIn) -> None:
    code, text = stand_in.image(behaviour={"messages": ["ANS9999W"]})
    assert code == 8
    assert "ANS9999W" in speech(text)


# ---- arguments


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-nosuchoption=1", "e:"], "ANS1107E Invalid option/value: '-nosuchoption=1'"),
        (["e:", "-"], "ANS1107E Invalid option/value: '-'"),
        (["-compression=maybe", "e:"], "ANS1107E Invalid option/value: '-compression=maybe'"),
        (["-compress=yes", "e:"], "ANS1107E Invalid option/value: '-compress=yes'"),
        (["-imagegapsize=10t", "e:"], "ANS1107E Invalid option/value: '-imagegapsize=10t'"),
        (["-imagegapsize=4294967296", "e:"], "ANS1107E Invalid option/value: '-imagegapsize=4294967296'"),
        (["-snapshotcachesize=101", "e:"], "ANS1107E Invalid option/value: '-snapshotcachesize=101'"),
        (["-mode=full", "e:"], "ANS1107E Invalid option/value: '-mode=full'"),
        (["-quiet=yes", "e:"], "ANS1107E Invalid option/value: '-quiet=yes'"),
        (["-mode", "e:"], "ANS1107E Invalid option/value: '-mode'"),
        (["-incrbydate", "e:"], "ANS1108E Invalid option (-INCRBYDATE) for the BACKUP IMAGE command"),
        (["-mode=selective"], "ANS1149E No domain is available for image backup."),
        ([f"/dev/sd{n}" for n in range(21)], "ANS1102E Excessive number of command line arguments"),
    ],
)
def test_bad_arguments_are_refused_before_any_session(
    stand_in: StandIn, words: list[str], message: str
) -> None:
    code, text = stand_in.image(*words, behaviour={"exit": 0})
    assert code == 12
    assert speech(text)[-1].startswith(message)
    assert "Node Name" not in text


@pytest.mark.parametrize(
    "words",
    [["-COMPRESSI=Yes"], ["-imageg=64k"], ["-se=cabin4", "-virtualnode=x"], ["-mode=incr"], ["-quiet"]],
)
def test_ibms_abbreviations_are_taken_in_any_case(stand_in: StandIn, words: list[str]) -> None:
    assert stand_in.image(*words, "/dev/sdb1")[0] == 0


@pytest.mark.parametrize(("behaviour", "code"), [({}, 0), ({"version": "5.5"}, 0), ({"version": "8.1"}, 12)])
def test_lvsa_options_are_refused_by_a_client_that_is_said_to_be_8_1(
    stand_in: StandIn, behaviour: dict[str, str], code: int
) -> None:
    assert stand_in.image(*SAMPLE_OPTIONS, "e:", behaviour=behaviour)[0] == code


@pytest.mark.parametrize("words", [[], ["backup"], ["restore", "image", "e:"], ["backup", "systemstate"]])
def test_other_commands_are_refused(stand_in: StandIn, words: list[str]) -> None:
    code, text = stand_in.run(*words)
    assert code == 12
    assert speech(text)[-1].startswith("ANS11")


def test_an_operand_that_is_no_volume_fails_alone(stand_in: StandIn) -> None:
    code, text = stand_in.image("nonsense", "/dev/sdb1")
    assert code == 12
    assert "ANS1063E The specified path is not a valid file system or logical volume name." in text
    assert "Image Backup processing of '/dev/sdb1' finished without failure." in text


# ---- prompts


@pytest.mark.parametrize("prompt", ["password", "user"])
def test_a_prompt_with_nobody_there_ends_as_the_facts_say(stand_in: StandIn, prompt: str) -> None:
    code, text = stand_in.image(behaviour={"prompt": prompt, "node": "X"})
    asked = (
        'Please enter password for user id "X":  '
        if prompt == "password"
        else "Please enter your user id <X>:      "
    )
    assert code == 12
    assert [line.split(" ")[0] if line.startswith("ANS") else line for line in speech(text)[-5:]] == [
        "Node Name: X",
        "ANS1051I",
        asked,
        "ANS2050E",
        "ANS1029E",
    ]


def test_a_prompt_waits_until_it_is_answered(stand_in: StandIn) -> None:
    stand_in.follow({"prompt": "user", "node": "X"})
    process = stand_in.start("backup", "image", "e:", stdin=subprocess.PIPE)
    assert process.stdin
    read_until(process, b"user id <X>:")
    process.stdin.write(b"me\n")
    process.stdin.flush()
    read_until(process, b"Please enter password")
    assert process.poll() is None
    out, _ = process.communicate(b"secret\n", timeout=DEADLINE)
    assert process.returncode == 0
    assert b"Session established" in out


# ---- time, output, trouble


def test_it_takes_its_time_and_tells_of_progress(stand_in: StandIn) -> None:
    began = time.monotonic()
    code, text = stand_in.image(behaviour={"seconds": 1.3})
    assert time.monotonic() - began >= 1.3
    assert code == 0
    progress = [line for line in speech(text) if line.startswith("Volume -->")]
    assert len(progress) == 2
    assert progress[-1].endswith("[Sent]")


def test_a_million_lines_are_all_there_and_numbered(stand_in: StandIn) -> None:
    code, text = stand_in.image(behaviour={"lines": 1_000_000})
    lines = [line for line in text.split("\n") if line.startswith("output line ")]
    assert code == 0
    assert len(lines) == 1_000_000
    assert (lines[0], lines[-1]) == ("output line 1 of 1000000", "output line 1000000 of 1000000")


@pytest.mark.parametrize("length", [1, 25, 80, 3_000_000])
def test_lines_have_the_length_that_is_asked_for(stand_in: StandIn, length: int) -> None:
    _, text = stand_in.image(behaviour={"lines": 3, "line_length": length})
    at = text.index("\no") + 1
    assert [len(line) for line in text[at:].split("\n")[:3]] == [length] * 3


def test_raw_bytes_are_printed_as_lines(stand_in: StandIn) -> None:
    stand_in.follow({"bytes": ["ff00fe", "e4f6fc"], "messages": ["ANS1453W"]})
    out, _ = stand_in.start("backup", "image", "e:").communicate(timeout=DEADLINE)
    assert out.replace(b"\r\n", b"\n").count(b"\n\xff\x00\xfe\n\xe4\xf6\xfc\nANS1453W") == 1


def test_lines_for_stderr_go_there(stand_in: StandIn) -> None:
    stand_in.follow({"stderr": ["first", "second line"]})
    out, err = stand_in.start("backup", "image", "e:").communicate(timeout=DEADLINE)
    assert err.splitlines() == [b"first", b"second line"]
    assert b"second line" not in out


@posix_only
def test_a_hanging_run_dies_of_term_and_leaves_no_end_line(stand_in: StandIn) -> None:
    process = stand_in.begin({"hang": True, "messages": ["ANS1114I"]})
    read_until(process, b"ANS1114I Waiting for mount of offline media.")
    process.terminate()
    assert process.wait(DEADLINE) == -signal.SIGTERM
    assert [run["exit"] for run in dsmc.runs(stand_in.log)] == [None]


@posix_only
def test_an_interrupt_is_told_and_exits_12(stand_in: StandIn) -> None:
    process = stand_in.begin({"hang": True})
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 12
    assert b"ANS2820E An interrupt has occurred." in out
    assert [run["exit"] for run in dsmc.runs(stand_in.log)] == [12]


@posix_only
def test_it_can_ignore_term_from_its_start_line_on(stand_in: StandIn) -> None:
    process = stand_in.begin({"ignore_term": True, "seconds": 1.2})
    process.terminate()
    out, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert b"finished without failure." in out


@posix_only
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGABRT"])
def test_a_crash_ends_it_by_that_signal_with_its_output_so_far(stand_in: StandIn, name: str) -> None:
    code, text = stand_in.image(behaviour={"crash": name})
    assert code == -signal.Signals[name]
    assert speech(text)[-1] == "Using static image backup for volume '/dev/sdb1'"
    assert [run["exit"] for run in dsmc.runs(stand_in.log)] == [None]
    assert not list(stand_in.folder.glob("core*"))


@posix_only
def test_it_dies_like_any_program_when_nobody_reads_its_output(stand_in: StandIn) -> None:
    process = stand_in.begin({"lines": 1_000_000})
    assert process.stdout
    process.stdout.close()
    assert process.wait(DEADLINE) == -signal.SIGPIPE


@posix_only
def test_an_orphan_holds_stdout_until_its_time_after_the_parent(stand_in: StandIn) -> None:
    process = stand_in.begin({"orphan": 0.4})
    assert process.stdout
    assert process.wait(DEADLINE) == 0
    (run,) = dsmc.runs(stand_in.log)
    process.stdout.read()  # ends when the last holder has closed it
    assert time.time() - run["ended"] >= 0.4
    until(lambda: not is_alive(run["orphan"]))


@posix_only
def test_an_orphan_is_in_the_process_group_and_outlives_a_killed_parent(stand_in: StandIn) -> None:
    process = stand_in.begin({"orphan": 600, "hang": True, "ignore_term": True})
    (run,) = dsmc.runs(stand_in.log)
    assert os.getpgid(run["orphan"]) == process.pid
    process.kill()
    process.wait(DEADLINE)
    os.killpg(process.pid, signal.SIGTERM)  # which it ignores as its parent did
    assert is_alive(run["orphan"])
    os.killpg(process.pid, signal.SIGKILL)
    until(lambda: not is_alive(run["orphan"]))


# ---- plan and log


def test_the_first_volume_decides_and_the_default_plays_for_others(stand_in: StandIn) -> None:
    stand_in.follow({"exit": 8}, {"/dev/sdb1": {"exit": 4}})
    assert stand_in.image("/dev/sdb1", "/dev/sdc1")[0] == 4
    assert stand_in.image("/dev/sdc1", "/dev/sdb1")[0] == 8


def test_a_list_is_played_run_by_run_and_its_last_repeats(stand_in: StandIn) -> None:
    stand_in.follow(volumes={"/dev/sdb1": [{"messages": ["ANS1017E"]}, {"exit": 8}, {}]})
    codes = [stand_in.image()[0] for _ in range(4)]
    assert codes == [12, 8, 0, 0]
    assert stand_in.image("/dev/sdc1")[0] == 0
    assert [(run["volume"], run["run"], run["exit"]) for run in dsmc.runs(stand_in.log)] == [
        ("/dev/sdb1", 1, 12),
        ("/dev/sdb1", 2, 8),
        ("/dev/sdb1", 3, 0),
        ("/dev/sdb1", 4, 0),
        ("/dev/sdc1", 1, 0),
    ]


def test_the_log_tells_how_it_was_started(stand_in: StandIn) -> None:
    stand_in.follow()
    process = stand_in.start("backup", "image", "-quiet", '/mnt/Grüße und "Blanks"')
    process.communicate(timeout=DEADLINE)
    (run,) = dsmc.runs(stand_in.log)
    assert run["pid"] == process.pid
    assert run["volume"] == '/mnt/Grüße und "Blanks"'
    assert run["argv"] == ["backup", "image", "-quiet", '/mnt/Grüße und "Blanks"']
    assert Path(run["cwd"]) == stand_in.folder
    assert run["env"] == {"DSM_STANDIN": str(stand_in.plan)}
    assert abs(time.time() - run["time"]) < DEADLINE
    assert run["time"] <= run["ended"]
    assert (run["run"], run["stdin"], run["exit"], run["orphan"]) == (1, "null", 0, None)


@posix_only
def test_the_log_tells_what_stdin_was(stand_in: StandIn) -> None:
    stand_in.follow({"prompt": "password"})
    master, terminal = os.openpty()
    stand_in.start("backup", "image", "/null").communicate(timeout=DEADLINE)
    stand_in.start("backup", "image", "/pipe", stdin=subprocess.PIPE).communicate(b"", timeout=DEADLINE)
    on_terminal = stand_in.start("backup", "image", "/tty", stdin=terminal)
    os.write(master, b"secret\n")
    on_terminal.communicate(timeout=DEADLINE)
    os.close(master)
    os.close(terminal)
    with Path(__file__).open("rb") as file:
        stand_in.start("backup", "image", "/file", stdin=file).communicate(timeout=DEADLINE)
    assert stand_in.plan
    closed = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *dsmc.command(), "backup", "image", "/closed"],
        env={**os.environ, "DSM_STANDIN": str(stand_in.plan)},
        capture_output=True,
        check=False,
        timeout=DEADLINE,
    )
    assert closed.returncode == 12
    assert {run["volume"]: (run["stdin"], run["exit"]) for run in dsmc.runs(stand_in.log)} == {
        "/null": ("null", 12),
        "/pipe": ("pipe", 12),
        "/tty": ("tty", 0),
        "/file": ("file", 0),
        "/closed": ("closed", 12),
    }


def test_the_log_is_exact_with_many_writers_at_once(stand_in: StandIn) -> None:
    stand_in.follow(volumes={"/dev/sdb1": [{"exit": 0}] * 59 + [{"exit": 4}]})
    for _ in range(3):
        crowd = [
            stand_in.start("backup", "image", volume)
            for _ in range(20)
            for volume in ("/dev/sdb1", "/dev/sdc1")
        ]
        for process in crowd:
            process.communicate(timeout=DEADLINE * 3)
    found = dsmc.runs(stand_in.log)
    assert len(stand_in.log.read_bytes().splitlines()) == 240
    assert len({run["pid"] for run in found}) == 120
    for volume in ("/dev/sdb1", "/dev/sdc1"):
        assert sorted(run["run"] for run in found if run["volume"] == volume) == list(range(1, 61))
    assert [run["run"] for run in found if run["exit"]] == [60]


def test_runs_are_counted_on_in_a_long_log(stand_in: StandIn) -> None:
    stand_in.follow(volumes={"/dev/sdb1": [{}, {"exit": 8}]})
    assert stand_in.image()[0] == 0
    other = b'{"event":"end","volume":"/dev/sdc1","run":1,"pid":1,"exit":0,"time":1.0}\n'
    with stand_in.log.open("ab") as log:
        log.write(other.replace(b'"end"', b'"start"', 1) + other * 5000)
    assert stand_in.image()[0] == 8
    assert stand_in.image("/dev/sdb")[0] == 0
    assert [run["run"] for run in dsmc.runs(stand_in.log)] == [1, 1, 2, 1]


def test_a_log_that_nobody_has_written_has_no_runs(tmp_path: Path) -> None:
    assert dsmc.runs(tmp_path / "none") == []


def test_a_plan_that_cannot_be_read_is_no_backup(stand_in: StandIn) -> None:
    stand_in.plan = stand_in.folder / "none"
    process = stand_in.start("backup", "image", "e:")
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (1, b"")
    assert b"FileNotFoundError" in err


def test_importing_it_runs_nothing_and_needs_nothing_but_python() -> None:
    script = f"import sys; sys.path[:0] = [{str(Path(dsmc.__file__).parent)!r}]; import dsmc; print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, check=True).stdout
    assert b"'dsmc'" in out
    for heavy in (b"'json'", b"'typing'", b"'re'", b"'pathlib'", b"'signal'"):
        assert heavy not in out
