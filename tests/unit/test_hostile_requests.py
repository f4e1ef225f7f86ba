"""No body, however made, reaches dsmc, stops the worker or makes it fetch what lies outside the message."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import HOSTILE, body, external_entity, outside
from hypothesis import example, given
from hypothesis import strategies as st
from lxml import etree

from worker import plan
from worker.config import Dsmc
from worker.contract import request
from worker.contract.response import Error, Response, render
from worker.errors import RequestRefused
from worker.words import ErrorCode, Platform

ROOT = Path(__file__).parents[2]
SCHEMA = etree.XMLSchema(etree.parse(str(Path(request.__file__).parent / "response.xsd")))
TELLS_WHERE = re.compile(
    r"line [1-9]\d*: .*<.+>"  # an element and its line
    r"|line [1-9]\d*: more than \d+ elements"
    r"|not well-formed XML: .*\bline [1-9]\d*"
    r"|a document type "
    r"|the body "
)


def refusal(text: bytes) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        plan.make(text, Platform.LINUX, Dsmc())
    return caught.value


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 60
    assert len(set(HOSTILE.values())) == len(HOSTILE)


def test_what_they_all_vary_is_itself_legal() -> None:
    assert plan.make(body().encode(), Platform.LINUX, Dsmc())


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused(name: str) -> None:
    assert refusal(HOSTILE[name]).code in (ErrorCode.BAD_REQUEST, ErrorCode.OPTION_NOT_ALLOWED)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_refusal_is_one_short_printable_line(name: str) -> None:
    message = str(refusal(HOSTILE[name]))
    assert message.isprintable()
    assert 0 < len(message) <= 600


@pytest.mark.parametrize("name", HOSTILE)
def test_a_refusal_names_element_and_line_where_there_is_one(name: str) -> None:
    assert TELLS_WHERE.match(str(refusal(HOSTILE[name])))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_refusal_fits_the_smallest_response(name: str) -> None:
    error = refusal(HOSTILE[name])
    response = render(Response(Error(error.code, str(error))), 4096)
    assert len(response) <= 4096
    SCHEMA.assertValid(etree.fromstring(response))


TOLD: list[tuple[str, str]] = [
    ("empty-body", "the body is empty"),
    ("ten-megabytes-of-text", "at most 1048576"),
    ("a-hundred-thousand-elements", "line 3: more than 10000 elements"),
    ("a-hundred-and-one-commands", "<command-request> elements; a request has at most 100"),
    ("nested-nine-deep", "line 5: <a> is nested more than 8 deep"),
    ("too-many-volumes", "line 8: <volume-list> names more than 256 volumes"),
    ("over-long-volume", "4097 characters; at most 4096"),
    ("over-long-value", "line 5: <asnodename> holds 4097 characters; at most 4096"),
    ("wrong-root", "line 1: the document is a <tsm-response>; expected <tsm-request>"),
    ("wrong-namespace", "{urn:x}tsm-request"),
    ("wrapper-around-two-requests", "<tsm-request> stands more than once in <request-data>"),
    ("duplicate-operation-name", "line 3: <operation-name> stands more than once in <tsm-request>"),
    ("duplicate-timeout-secs", "line 5: <timeout-secs> stands more than once in <command-request>"),
    ("duplicate-command-options", "line 5: <command-options> stands more than once"),
    ("duplicate-command-arguments", "line 8: <command-arguments> stands more than once"),
    ("missing-command-request", "line 1: <tsm-request> has no <command-request>"),
    ("missing-command-arguments", "line 3: <command-request> has no <command-arguments>"),
    ("missing-volume-list", "line 7: <command-arguments> has no <volume-list>"),
    ("timeout-after-the-options", "line 7: <timeout-secs> is out of place in <command-request>"),
    ("unknown-element-in-the-command", "line 4: <timeout> is unknown in <command-request>"),
    ("attribute-on-the-volumes", "line 8: <volume-list> has the attribute 'sep'"),
    ("text-in-the-command", "line 3: text 'soon' stands in <command-request>"),
    ("element-in-an-option", "line 5: <optfile> stands in <mode>"),
    ("operation-restore-image", "line 2: <operation-name> is 'restore-image'"),
    ("time-out-negative", "line 4: <timeout-secs> is '-1'"),
    ("time-out-beyond-the-hosts-maximum", "line 4: <timeout-secs> is 604801"),
    ("time-out-beyond-the-hosts-maximum", "dsmc.max_timeout is 604800 seconds"),
    ("time-out-of-centuries", "<timeout-secs> is 999999999999999999;"),
    ("volume-that-is-an-option", "'-optfile=/tmp/x'"),
    ("volume-with-one-quote-before", "line 8: <volume-list> has an unpaired double quote"),
    ("volume-quoted-empty", "line 8: <volume-list> names an empty volume"),
    ("volume-with-delete", "line 8: <volume-list> holds the control character U+007F"),
    ("undeclared-entity", "unknown"),
    ("undeclared-entity", "line 8"),
    ("option-password", "line 5: <password>"),
    ("option-twice", "line 6: <mode> is given twice: <mode> on line 5"),
    ("declared-encoding-unknown", "x-klingon"),
    ("command-closed-twice-as-in-a-bmc-sample", "line 10"),
]


@pytest.mark.parametrize(("name", "words"), TOLD)
def test_a_refusal_says_what_is_wrong(name: str, words: str) -> None:
    assert words in str(refusal(HOSTILE[name]))


@pytest.mark.parametrize(
    "name", [name for name in HOSTILE if name.startswith("option-")] + ["volume-that-is-an-option"]
)
def test_a_refused_option_is_refused_on_windows_too(name: str) -> None:
    if name == "option-of-windows-alone":
        assert plan.make(HOSTILE[name], Platform.WINDOWS, Dsmc())
        return
    with pytest.raises(RequestRefused):
        plan.make(HOSTILE[name], Platform.WINDOWS, Dsmc())


@pytest.mark.parametrize("name", outside("file:///x"))
def test_no_file_is_read_for_a_request(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("/s3cret-volume", encoding="utf-8")
    error: BaseException | None = refusal(outside(secret.as_uri())[name])
    while error is not None:
        assert "s3cret" not in str(error)
        error = error.__cause__ or error.__context__


def test_no_document_type_is_read_from_a_file(tmp_path: Path) -> None:
    definition = tmp_path / "evil.dtd"
    definition.write_text('<!ENTITY x "/s3cret-volume">', encoding="utf-8")
    text = outside(definition.as_uri())["document-type-elsewhere-with-an-entity"]
    assert "s3cret" not in str(refusal(text))


def test_the_secret_would_show_if_entities_were_resolved(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("/s3cret-volume", encoding="utf-8")
    careless = etree.XMLParser(resolve_entities=True, load_dtd=True)
    assert b"s3cret" in etree.tostring(etree.fromstring(external_entity(secret.as_uri()), careless))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Give a socket on which a fetch over HTTP would knock."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


@pytest.mark.parametrize("name", outside("http://x"))
def test_nothing_is_fetched_over_the_network(name: str, listener: socket.socket) -> None:
    refusal(outside(f"http://127.0.0.1:{listener.getsockname()[1]}/x")[name])
    with pytest.raises(BlockingIOError):
        listener.accept()


MEASURE = """
import json, re, sys, time
from pathlib import Path
sys.path.insert(0, "tests")
from hostile import HOSTILE
from worker import plan
from worker.config import Dsmc
from worker.errors import RequestRefused
from worker.words import Platform

def memory(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

found = {}
for name, body in HOSTILE.items():
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak, VmHWM
    before, start = memory("VmRSS"), time.process_time()
    try:
        plan.make(body, Platform.LINUX, Dsmc())
    except RequestRefused:
        pass
    found[name] = (time.process_time() - start, memory("VmHWM") - before)
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="lacks /proc, where the peak of memory can be read")
def test_no_request_costs_more_than_a_second_or_thirty_megabytes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    found: dict[str, tuple[float, float]] = json.loads(done.stdout)
    assert set(found) == set(HOSTILE)
    assert not {name: cost for name, cost in found.items() if cost[0] > 1 or cost[1] > 30}


@given(st.binary(max_size=300))
@example(b"<")
@example(b"\xfe\xff\0<")
@example(b"<?xml version='1.0' encoding='utf-16'?>")
@example(b"<tsm-request>&#x;</tsm-request>")
def test_any_bytes_are_a_request_or_refused(text: bytes) -> None:
    with pytest.raises(RequestRefused):
        request.parse(text)


@given(data=st.data())
def test_a_request_with_bytes_altered_is_a_request_or_refused(data: st.DataObject) -> None:
    text = bytearray(body(timeout="<timeout-secs>60</timeout-secs>").encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        gone = data.draw(st.integers(0, 20))
        text[at : at + gone] = data.draw(
            st.binary(max_size=4)
            | st.sampled_from([b"<x>", b"</x>", b"<!--", b"-->", b"&x;", b"<![CDATA[", b'"'])
        )
    try:
        steps = plan.make(bytes(text), Platform.LINUX, Dsmc())
    except RequestRefused:
        return
    for step in steps:
        assert step.arguments[:2] == ("backup", "image")
        assert not any(volume.startswith("-") for volume in step.volumes)
        assert step.arguments[len(step.arguments) - len(step.volumes) :] == step.volumes
        assert all(
            argument.startswith("-")
            for argument in step.arguments[2 : len(step.arguments) - len(step.volumes)]
        )
