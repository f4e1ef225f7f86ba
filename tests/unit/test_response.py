"""What a response says, and that its schema says the same."""

from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from worker import config, plan
from worker.config import Dsmc
from worker.contract import response
from worker.contract.response import (
    NO_EXIT_CODE,
    CommandOutput,
    Error,
    Excerpt,
    Response,
    VolumeNote,
    Warned,
    printable,
    render,
)
from worker.dsmc import program, transcript
from worker.words import ErrorCode, Outcome, Platform

FIXTURES = Path(__file__).parents[1] / "fixtures"
SAMPLE = etree.parse(str(FIXTURES / "backup-image-response.xml")).getroot()
SCHEMA = etree.XMLSchema(etree.parse(str(Path(response.__file__).parent / "response.xsd")))
PLENTY = 8_388_608
LEAST: int = get_type_hints(config.Response, include_extras=True)["max_bytes"].__metadata__[0].ge
"""What the configuration takes as response.max_bytes at the least."""


def output(
    *lines: str,
    command: str = "dsmc backup image /srv",
    exit_code: int = 0,
    successful: bool = True,
    omitted: int = 0,
    warnings: tuple[Warned, ...] = (),
) -> CommandOutput:
    shown = Excerpt(list(enumerate(lines, start=1)), omitted)
    return CommandOutput(command, len(lines) + omitted, 5422, exit_code, successful, shown, warnings)


def read(answer: Response, max_bytes: int = PLENTY) -> etree._Element:
    """Return a response as its reader sees it, having checked size, encoding and schema."""
    text = render(answer, max_bytes)
    assert len(text) <= max_bytes
    text.decode("utf-8")
    root = etree.fromstring(text)
    SCHEMA.assertValid(root)
    return root


Element = tuple[int, str, dict[str, str], str]


def elements(root: etree._Element) -> list[Element]:
    """Return every element: depth, name, attributes and text, each no-break space as the blank it stands for."""

    def walk(element: etree._Element, depth: int) -> list[Element]:
        text = "" if len(element) else (element.text or "").replace("\u00a0", " ")
        attributes = {str(name): str(value) for name, value in element.attrib.items()}
        found = [(depth, str(element.tag), attributes, text)]
        for child in element:
            found += walk(child, depth + 1)
        return found

    return walk(root, 0)


def texts(root: etree._Element, path: str) -> list[str]:
    return [each.text or "" for each in root.findall(path)]


ANSWERS: dict[str, Response] = {
    Outcome.COMPLETED: Response(outputs=(output("one", "two"),)),
    Outcome.COMPLETED_WITH_WARNINGS: Response(
        outputs=(
            output(
                "ANS1809W lost", "ANS1453W gap", exit_code=8,
                warnings=(Warned("ANS1809W", "lost"), Warned("ANS1453W", "")),
            ),
        )
    ),
    Outcome.FAILED: Response(
        Error(ErrorCode.DSMC_FAILED, "dsmc ended with exit code 12: ANS1312E"),
        outputs=(output("ANS1312E", exit_code=12, successful=False),),
    ),
    "failed without dsmc": Response(Error(ErrorCode.DSMC_NOT_FOUND, "tried /opt/dsmc")),
    "failed inside": Response(Error(ErrorCode.INTERNAL, "see the log")),
    Outcome.TIMED_OUT: Response(
        Error(ErrorCode.TIMED_OUT, "dsmc was ended at its time limit"),
        outputs=(output("so far", exit_code=NO_EXIT_CODE, successful=False),),
    ),
    Outcome.REFUSED: Response(Error(ErrorCode.BAD_REQUEST, "line 4: <timeout-secs> is '-1'")),
    "refused for an option": Response(Error(ErrorCode.OPTION_NOT_ALLOWED, "line 4: <password>")),
    "refused for a volume": Response(
        Error(ErrorCode.VOLUME_NOT_ELIGIBLE, "/gpfs: dsmc makes no image of GPFS"),
        (VolumeNote("/gpfs", False, "dsmc makes no image of GPFS"), VolumeNote("/srv", True, "0x83")),  # noqa: FBT003
    ),
    Outcome.INTERRUPTED: Response(
        Error(ErrorCode.INTERRUPTED, "the host went down"),
        outputs=(output(exit_code=NO_EXIT_CODE, successful=False),),
    ),
    Outcome.CANCELLED: Response(
        Error(ErrorCode.CANCELLED, "dsmc was ended on request"),
        outputs=(output("so far", exit_code=NO_EXIT_CODE, successful=False),),
    ),
    Outcome.EXPIRED: Response(Error(ErrorCode.EXPIRED, "the request had expired before it could be started")),
    "of several commands": Response(
        Error(ErrorCode.DSMC_FAILED, "command 2 of 2"),
        outputs=(output("one"), output("two", exit_code=12, successful=False)),
    ),
    "shortened": Response(outputs=(output("one", omitted=10),)),
    "silent": Response(outputs=(output(),)),
}  # fmt: skip


def test_there_is_an_answer_for_every_outcome_and_every_code() -> None:
    assert set(Outcome) <= set(ANSWERS)
    assert {answer.error.code for answer in ANSWERS.values() if answer.error} == set(ErrorCode)


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_is_valid_and_says_whether_it_worked(name: str) -> None:
    answer = ANSWERS[name]
    root = read(answer)
    assert texts(root, "metadata/status") == ["success" if answer.error is None else "error"]
    assert texts(root, "metadata/count") == [str(len(answer.outputs))]
    assert len(root.findall("commands-output/command-output")) == len(answer.outputs)


def test_the_sample_is_valid() -> None:
    SCHEMA.assertValid(SAMPLE)


def test_the_samples_transcript_gives_the_sample_element_for_element(tmp_path: Path) -> None:
    fixture = FIXTURES / "transcripts" / "bmc-backup-image-win-5.5-success.txt"
    _source, _, printed = fixture.read_bytes().partition(b"\n")
    path = tmp_path / "transcript"
    path.write_bytes(printed)
    (step,) = plan.make((FIXTURES / "backup-image-request.xml").read_bytes(), Platform.WINDOWS, Dsmc())
    found = transcript.digest(path)
    made = CommandOutput(
        program.shown(step.arguments),
        found.lines,
        5422,
        0,
        successful=True,
        excerpt=transcript.excerpt(path, found, 10_000, PLENTY),
    )
    root = read(Response(outputs=(made,)))
    assert elements(root) == elements(SAMPLE)


def test_an_error_is_code_and_message_after_the_count() -> None:
    root = read(Response(Error(ErrorCode.DSMC_FAILED, 'dsmc ended: ANS1312E <&"')))
    assert [child.tag for child in root[0]] == ["status", "count", "error"]
    assert texts(root, "metadata/error/code") == ["dsmc-failed"]
    assert texts(root, "metadata/error/message") == ['dsmc ended: ANS1312E <&"']
    assert [child.tag for child in root] == ["metadata", "commands-output"]


def test_each_volume_is_told_with_its_reason_after_the_error() -> None:
    root = read(ANSWERS["refused for a volume"])
    assert [child.tag for child in root[0]] == ["status", "count", "error", "volume", "volume"]
    assert [dict(volume.attrib) for volume in root.findall("metadata/volume")] == [
        {"name": "/gpfs", "eligible": "false", "reason": "dsmc makes no image of GPFS"},
        {"name": "/srv", "eligible": "true", "reason": "0x83"},
    ]


def test_warnings_are_told_with_their_codes_after_the_commands_status() -> None:
    root = read(ANSWERS[Outcome.COMPLETED_WITH_WARNINGS])
    metadata = root.find("commands-output/command-output/metadata")
    assert metadata is not None
    assert [child.tag for child in metadata] == [
        "command",
        "line-count",
        "execution-milliseconds",
        "exit-code",
        "status",
        "warnings",
    ]
    warnings = metadata.findall("warnings/warning")
    assert [(warning.get("code"), warning.text or "") for warning in warnings] == [
        ("ANS1809W", "lost"),
        ("ANS1453W", ""),
    ]


def test_a_run_that_was_ended_has_the_adapters_exit_code_and_its_output_so_far() -> None:
    root = read(ANSWERS[Outcome.TIMED_OUT])
    assert texts(root, "commands-output/command-output/metadata/exit-code") == ["9999"]
    assert texts(root, "commands-output/command-output/metadata/status") == ["error"]
    assert texts(root, "commands-output/command-output/output/line") == ["so far"]


def test_lines_left_out_are_counted_and_the_rest_keep_their_indexes() -> None:
    shown = Excerpt([(1, "first"), (9, "last")], omitted=7)
    root = read(Response(outputs=(CommandOutput("dsmc", 9, 1, 0, successful=True, excerpt=shown),)))
    (found,) = root.findall("commands-output/command-output/output")
    assert found.get("omitted") == "7"
    assert [(line.get("index"), line.text) for line in found] == [("1", "first"), ("9", "last")]
    assert texts(root, "commands-output/command-output/metadata/line-count") == ["9"]


def test_nothing_is_said_of_omitted_lines_where_none_are() -> None:
    (found,) = read(Response(outputs=(output("x"),))).findall("commands-output/command-output/output")
    assert not found.attrib


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\0b", "a\ufffdb"),
        ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        ("50%\r100%", "50%\r100%"),
        ("a\tb", "a\tb"),
        ("a\x0b\x0c\x1fb", "a\ufffd\ufffd\ufffdb"),
        ("a\ud800b", "a\ufffdb"),
        ("a\ufffe\uffffb", "a\ufffd\ufffdb"),
        ("\x7f\x85", "\x7f\x85"),
        ("]]> & <b> \"'", "]]> & <b> \"'"),
        ("\N{GRINNING FACE}", "\N{GRINNING FACE}"),
        ("  kept  ", "  kept  "),
    ],
)
def test_what_xml_forbids_is_replaced_wherever_it_stands(text: str, shown: str) -> None:
    assert printable(text) == shown
    answer = Response(
        Error(ErrorCode.INTERNAL, text),
        (VolumeNote(text, False, text),),  # noqa: FBT003
        (output(text, command=text, exit_code=8, warnings=(Warned("ANS1809W", text),)),),
    )
    root = read(answer)
    assert texts(root, "metadata/error/message") == [shown]
    assert texts(root, "commands-output/command-output/output/line") == [shown]
    assert texts(root, "commands-output/command-output/metadata/command") == [shown]
    assert texts(root, "commands-output/command-output/metadata/warnings/warning") == [shown]
    (note,) = root.findall("metadata/volume")
    assert (note.get("name"), note.get("reason")) == (shown, shown)


@given(st.text())
def test_any_text_can_be_told(text: str) -> None:
    (line,) = texts(read(Response(outputs=(output(text),))), "commands-output/command-output/output/line")
    assert line == printable(text)


def test_output_gives_way_before_the_error_does() -> None:
    answer = Response(
        Error(ErrorCode.DSMC_FAILED, "dsmc ended with exit code 12"),
        (VolumeNote("/srv", True, "0x83"),),  # noqa: FBT003
        (output("x" * LEAST, "y", exit_code=12, successful=False),),
    )
    root = read(answer, LEAST)
    assert texts(root, "metadata/error/message") == ["dsmc ended with exit code 12"]
    assert len(root.findall("metadata/volume")) == 1
    assert texts(root, "commands-output/command-output/metadata/line-count") == ["2"]
    (found,) = root.findall("commands-output/command-output/output")
    assert (found.get("omitted"), len(found)) == ("2", 0)


def test_volumes_give_way_before_the_error_does() -> None:
    notes = tuple(VolumeNote(f"/{n}", False, "x" * LEAST) for n in range(256))  # noqa: FBT003
    root = read(Response(Error(ErrorCode.VOLUME_NOT_ELIGIBLE, "/0: no"), notes), LEAST)
    assert texts(root, "metadata/error/message") == ["/0: no"]
    assert root.findall("metadata/volume") == []


TALE: dict[str, Response] = {
    "a long message": Response(Error(ErrorCode.BAD_REQUEST, "x" * 100_000)),
    "a message of ampersands": Response(Error(ErrorCode.BAD_REQUEST, "&" * 100_000)),
    "a message of faces": Response(Error(ErrorCode.BAD_REQUEST, "\N{GRINNING FACE}" * 100_000)),
    "a message of control characters": Response(Error(ErrorCode.BAD_REQUEST, "\0" * 100_000)),
    "long commands": Response(outputs=(output(command="&" * 100_000),)),
    "many warnings": Response(
        outputs=(output("x", exit_code=8, warnings=(Warned("ANS1809W", "&" * 100),) * 1000),)
    ),
    "many volumes": Response(
        Error(ErrorCode.VOLUME_NOT_ELIGIBLE, "no"),
        (VolumeNote("&" * 4096, False, "<" * 4096),) * 256,  # noqa: FBT003
    ),
    "a hundred commands": Response(outputs=(output("x"),) * 100),
    "a hundred commands of ampersands": Response(
        Error(ErrorCode.DSMC_FAILED, "&" * 2000), outputs=(output("x", command="&" * 4096),) * 100
    ),
}


@pytest.mark.parametrize("max_bytes", [LEAST, 2 * LEAST, 16 * LEAST, PLENTY])
@pytest.mark.parametrize("name", TALE)
def test_no_response_is_longer_than_the_limit(name: str, max_bytes: int) -> None:
    answer = TALE[name]
    root = read(answer, max_bytes)
    assert texts(root, "metadata/error/code") == ([answer.error.code] if answer.error else [])


LONG = st.builds(
    lambda text, times: text * times,
    st.sampled_from(["x", "&", "\0", "\N{GRINNING FACE}"]) | st.text(min_size=1, max_size=3),
    st.integers(0, 3000),
)
OUTPUTS = st.builds(
    lambda lines, command, omitted, warned: output(
        *lines, command=command, omitted=omitted, warnings=tuple(Warned("ANS1809W", text) for text in warned)
    ),
    st.lists(LONG, max_size=4),
    LONG,
    st.integers(0, 10**9),
    st.lists(LONG, max_size=3),
)


@given(
    max_bytes=st.integers(LEAST, LEAST + 40_000),
    error=st.none() | st.builds(Error, st.sampled_from(ErrorCode), LONG),
    volumes=st.lists(st.builds(VolumeNote, LONG, st.booleans(), LONG), max_size=5).map(tuple),
    outputs=st.lists(OUTPUTS, max_size=3).map(tuple),
)
def test_a_response_keeps_to_any_limit_and_to_the_schema(
    max_bytes: int,
    error: Error | None,
    volumes: tuple[VolumeNote, ...],
    outputs: tuple[CommandOutput, ...],
) -> None:
    root = read(Response(error, volumes, outputs), max_bytes)
    assert texts(root, "metadata/status") == ["error" if error else "success"]


WRONG: dict[str, str] = {
    "no status": "<count>0</count>",
    "another status": "<status>failure</status><count>0</count>",
    "another error code": "<status>error</status><count>0</count><error><code>oops</code><message/></error>",
    "a negative count": "<status>success</status><count>-1</count>",
    "volumes before the error": '<status>error</status><count>0</count><volume name="x" eligible="true" reason=""/>'
    "<error><code>internal</code><message/></error>",
}


@pytest.mark.parametrize("name", WRONG)
def test_the_schema_refuses_what_no_response_may_say(name: str) -> None:
    root = etree.fromstring(
        f"<tsm-response><metadata>{WRONG[name]}</metadata><commands-output/></tsm-response>"
    )
    assert not SCHEMA.validate(root)
