"""dsmc's output is read whole, in order and in little memory, whatever its bytes and its size."""

import locale
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract.response import CommandOutput, Excerpt, Response, render
from worker.dsmc import transcript
from worker.dsmc.transcript import Digest, digest, excerpt, last

ROOT = Path(__file__).parents[2]
TRANSCRIPTS = Path(__file__).parents[1] / "fixtures" / "transcripts"
PLENTY = 8_388_608
MIB = 1 << 20

Write = Callable[[bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that puts bytes into a transcript."""

    def put(text: bytes) -> Path:
        path = tmp_path / "transcript"
        path.write_bytes(text)
        return path

    return put


def shown(path: Path, max_lines: int = 10_000, max_bytes: int = PLENTY) -> tuple[list[tuple[int, str]], int]:
    """Return the lines an excerpt shows, and how many it leaves out."""
    found = excerpt(path, digest(path), max_lines, max_bytes)
    return list(found.lines), found.omitted


LINES: list[tuple[bytes, list[str]]] = [
    (b"", []),
    (b"\n", []),
    (b"one", ["one"]),
    (b"one\n", ["one"]),
    (b"one\ntwo", ["one", "two"]),
    (b"one\r\ntwo\r\n", ["one", "two"]),
    (b"one\r\r\ntwo", ["one", "two"]),
    (b"one\n\n \t\r\n\ntwo\n\n", ["one", "two"]),
    (b"  Client Version 5  \n", ["  Client Version 5  "]),
    (b"\ttab\n", ["\ttab"]),
    (b"10%\r50%\r100%\ndone\n", ["10%\r50%\r100%", "done"]),
    (b"a\x0bb\x0cc\x1cd\n", ["a\ufffdb\ufffdc\ufffdd"]),
    (b"a\0b\x1b[0m\n", ["a\ufffdb\ufffd[0m"]),
    ("données\u2028\x85\n".encode(), ["données\u2028\x85"]),
    ("Sesión rechazada\n".encode(), ["Sesión rechazada"]),
    (b"<b>&amp;</b>\n", ["<b>&amp;</b>"]),
    (b"Normal File--> 1 /srv/ANSWERS.txt [Sent]\n", ["Normal File--> 1 /srv/ANSWERS.txt [Sent]"]),
    (b"ANS\n", ["ANS"]),
]


@pytest.mark.parametrize(("written", "read"), LINES)
def test_lines_are_read_as_written_without_line_ends_and_blank_lines(
    write: Write, written: bytes, read: list[str]
) -> None:
    path = write(written)
    assert shown(path) == (list(enumerate(read, start=1)), 0)
    assert digest(path).lines == len(read)


def test_bytes_of_no_encoding_never_stop_the_reading(write: Write) -> None:
    lines, omitted = shown(write(b"good\nfile \xff\xfe\xc3( name\nlast\n"))
    assert [index for index, _ in lines] == [1, 2, 3]
    assert omitted == 0
    assert lines[1][1].startswith("file ")
    assert lines[1][1].endswith("( name")


def test_bytes_that_are_no_utf_8_are_read_in_the_systems_encoding(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locale, "getencoding", lambda: "cp1252")
    assert shown(write("Größe 5 €\n".encode("cp1252")))[0] == [(1, "Größe 5 €")]
    assert shown(write("Größe 5 €\n".encode()))[0] == [(1, "Größe 5 €")]
    assert shown(write(b"undefined there: \x81\xff\n"))[0] == [(1, "undefined there: \ufffdÿ")]


def test_a_missing_transcript_is_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "none"
    assert digest(path) == Digest()
    assert excerpt(path, digest(path), 10, 100) == Excerpt()


@pytest.mark.parametrize(
    ("max_lines", "indexes"),
    [
        (2, [1, 9]),
        (3, [1, 9]),
        (4, [1, 2, 8, 9]),
        (5, [1, 2, 8, 9]),
        (8, [1, 2, 3, 4, 6, 7, 8, 9]),
        (9, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (10, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_past_the_most_lines_the_first_and_the_last_halves_stay(
    write: Write, max_lines: int, indexes: list[int]
) -> None:
    path = write(b"".join(b"line %d\n\n" % n for n in range(1, 10)))
    assert shown(path, max_lines) == ([(n, f"line {n}") for n in indexes], 9 - len(indexes))


def test_past_the_most_bytes_the_first_and_the_last_halves_stay(write: Write) -> None:
    path = write(b"".join(b"%03d%s\n" % (n, b"x" * 97) for n in range(1, 101)))
    lines, omitted = shown(path, max_bytes=2000)
    indexes = [index for index, _ in lines]
    half = len(indexes) // 2
    assert 10 <= len(indexes) <= 20
    assert indexes == [*range(1, half + 1), *range(101 - half, 101)]
    assert omitted == 100 - len(indexes)
    assert all(text == f"{index:03}{'x' * 97}" for index, text in lines)


def test_a_line_beyond_the_limit_hides_only_its_own_half(write: Write) -> None:
    path = write(b"banner\n" + b"x" * 5000 + b"\nmiddle\nlast\n")
    lines, omitted = shown(path, max_bytes=1000)
    assert lines == [(1, "banner"), (3, "middle"), (4, "last")]
    assert omitted == 1


@pytest.mark.parametrize("max_bytes", [0, 1, 40])
def test_where_no_line_fits_all_are_left_out(write: Write, max_bytes: int) -> None:
    assert shown(write(b"one line\nand another\n"), max_bytes=max_bytes) == ([], 2)


def rendered(lines: Excerpt) -> int:
    """Return how many bytes lines take in a response."""

    def whole(part: Excerpt) -> int:
        output = CommandOutput("dsmc", 1, 1, 0, successful=True, excerpt=part)
        return len(render(Response(outputs=(output,)), 1 << 40))

    return whole(Excerpt(lines.lines)) - whole(Excerpt())


BYTES = st.lists(
    st.binary(max_size=30)
    | st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.sampled_from([b"&" * 40, b"<>", b"\r\r", b"\0" * 9, b"ANS1312E x"]),
    max_size=30,
).map(b"\n".join)


@given(text=BYTES)
def test_a_digest_never_tells_less_bytes_than_a_response_needs(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-bytes"
    path.write_bytes(text)
    found = digest(path)
    assert rendered(excerpt(path, found, 10_000, PLENTY)) <= found.size


@given(text=BYTES, max_lines=st.integers(2, 40), max_bytes=st.integers(0, 2000))
def test_an_excerpt_keeps_to_its_limits_and_tells_every_line_or_counts_it(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, max_lines: int, max_bytes: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-bytes"
    path.write_bytes(text)
    whole = [raw.rstrip(b"\r") for raw in text.split(b"\n")]
    true = [transcript.decode(raw) for raw in whole if raw.strip(b" \t\r\x0b\x0c")]
    found = digest(path)
    lines, omitted = shown(path, max_lines, max_bytes)
    assert found.lines == len(true) == len(lines) + omitted
    assert all(true[index - 1] == text for index, text in lines)
    assert [index for index, _ in lines] == sorted({index for index, _ in lines})
    if omitted:
        assert len(lines) <= max_lines
        assert rendered(Excerpt(lines)) <= max_bytes
        middle = set(range(1, len(true) + 1)) - {index for index, _ in lines}
        assert len(middle) == max(middle) - min(middle) + 1


def test_a_line_longer_than_is_kept_is_cut_and_counts_once(write: Write) -> None:
    path = write(b"first\n" + b"x" * (transcript.MAX_LINE * 3) + b"END\nlast\n")
    lines, _ = shown(path)
    assert [(index, len(text)) for index, text in lines] == [(1, 5), (2, transcript.MAX_LINE), (3, 4)]


@pytest.mark.parametrize("length", [transcript.MAX_LINE + n for n in (-2, -1, 0, 1)])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_a_line_about_as_long_as_is_kept_does_not_swallow_the_next(
    write: Write, length: int, end: bytes
) -> None:
    path = write(b"x" * length + end + (b"next\n" if end else b""))
    lines, _ = shown(path)
    assert lines[0] == (1, "x" * min(length, transcript.MAX_LINE))
    assert lines[1:] == ([(2, "next")] if end else [])


def test_a_line_cut_within_a_character_keeps_all_the_others(write: Write) -> None:
    lines, _ = shown(write(b"a" + "é".encode() * transcript.MAX_LINE + b"\n"))
    assert lines[0][1].startswith("a" + "é" * 1000)
    assert lines[0][1].count("é") == transcript.MAX_LINE // 2 - 1


@pytest.mark.parametrize("so_far", [b"one\ntwo\n", b"one\ntwo", b"one\ntw\xc3"])
def test_what_is_written_after_the_digest_is_not_shown(write: Write, so_far: bytes) -> None:
    path = write(so_far)
    before, _ = shown(path)
    found = digest(path)
    with path.open("ab") as file:
        file.write(b" and more\nANS1312E late\n" * 3)
    later = excerpt(path, found, 10_000, PLENTY)
    assert (list(later.lines), later.omitted) == (before, 0)


def test_a_digest_covers_no_more_than_it_read(write: Write) -> None:
    text = b"one\n\ntwo\nthree"
    assert digest(write(text)).end == len(text)


def peak(work: Callable[[], object]) -> float:
    """Return the most memory (MiB) that `work` held at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


MILLION = """
import re, sys
from pathlib import Path
from worker.dsmc.transcript import digest, excerpt

def memory(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

path = Path(sys.argv[1])
excerpt(path.with_name("small"), digest(path.with_name("small")), 10, 1000)
idle = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak, VmHWM
found = digest(path)
part = excerpt(path, found, 10_000, 8_388_608)
print(found.lines, part.omitted, sum(1 for _ in part.lines), memory("VmHWM") - idle)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="lacks /proc, where the peak of memory can be read")
def test_a_million_lines_take_little_memory(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"one\n" * 100)
    with (tmp_path / "transcript").open("wb") as file:
        for start in range(0, 1_000_000, 10_000):
            file.writelines(b"Normal File--> %d /srv/a [Sent]\n" % n for n in range(start, start + 10_000))
    done = subprocess.run(
        [sys.executable, "-c", MILLION, str(tmp_path / "transcript")],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    lines, omitted, told, mebibytes = done.stdout.split()
    assert (lines, omitted, told) == ("1000000", "990000", "10000")
    assert float(mebibytes) < 15


def test_one_line_of_fifty_megabytes_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "transcript"
    with path.open("wb") as file:
        for _ in range(50):
            file.write(b"x" * 1_000_000)
        file.write(b"\nlast ANS1312E\nANS1028S\n")

    def work() -> None:
        found = digest(path)
        assert (found.lines, found.codes) == (3, ("ANS1312E", "ANS1028S"))
        lines, omitted = shown(path)
        assert [len(text) for _, text in lines] == [transcript.MAX_LINE, 13, 8]
        assert omitted == 0

    assert peak(work) < 15


def test_many_long_warnings_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "transcript"
    with path.open("wb") as file:
        for _ in range(1200):
            file.write(b"ANS1809W " + b"x" * 60_000 + b"\n")

    def work() -> None:
        found = digest(path)
        assert found.lines == 1200
        assert found.warnings

    assert peak(work) < 15


CODES: dict[str, tuple[str, ...]] = {
    "ansible-pr20-selective-ANS1076E-8.1.23.txt": ("ANS1076E",),
    "apar-IC89088-image-fail-nomount.txt": ("ANS1425E", "ANS1228E", "ANS1312E", "ANS1813E"),
    "bmc-backup-image-win-5.5-success.txt": (),
    "cg-retrieve-7.1.4-ANS1590W-warning.txt": ("ANS1590W",),
    "cinder-sim-backup-image-ok.txt": (),
    "german-number-format-ane-stats.txt": (),  # ANE codes are the server's
    "lkml-incremental-5.1.6-multi-failed1.txt": ("ANS1898I",),
    "no-options-files-ANS0990W-ANS1035S.txt": ("ANS0990W", "ANS1035S"),
    "openclaw-incremental-8.1.27-ok.txt": (),
    "query-session-8.1.6.txt": (),
    "safespring-ANS1051I-prompt-8.1.15.2.txt": ("ANS1051I",),
    "safespring-encrypted-summary.txt": (),
    "safespring-incremental-changed-retry.txt": ("ANS1228E", "ANS4037E", "ANS1802E"),
}


def printed(name: str) -> bytes:
    """Return what dsmc printed: a fixture without its first line, which names its source."""
    source, _, text = (TRANSCRIPTS / name).read_bytes().partition(b"\n")
    assert source.startswith(b"# source:")
    return text


def test_every_transcript_is_in_the_table() -> None:
    assert set(CODES) == {path.name for path in TRANSCRIPTS.iterdir()}


@pytest.mark.parametrize("name", CODES)
def test_the_codes_of_real_output_are_found_in_their_order(write: Write, name: str) -> None:
    text = printed(name)
    found = digest(write(text))
    assert found.codes == CODES[name]
    assert found.lines == sum(1 for line in text.split(b"\n") if line.strip())
    assert [warned.code for warned in found.warnings] == [code for code in CODES[name] if code.endswith("W")]


def test_a_warning_keeps_dsmcs_own_text(write: Write) -> None:
    (warned,) = digest(write(printed("no-options-files-ANS0990W-ANS1035S.txt"))).warnings
    assert warned.text == (
        "Options file '/opt/tivoli/tsm/client/ba/bin/dsm.opt' could not be found. "
        "Default option values will be used."
    )


WARNED: list[tuple[str, list[tuple[str, str]]]] = [
    ("ANS1809W lost\nANS1809W lost again\n", [("ANS1809W", "lost"), ("ANS1809W", "lost again")]),
    ("ANS1453W\n", [("ANS1453W", "")]),
    ("ANS1809W one ANS1453W two ANS1312E three\n", [("ANS1809W", "one"), ("ANS1453W", "two")]),
    ("ANS1809W (RC4) a\r\n", [("ANS1809W", "(RC4) a")]),
    ("ANS1312E not a warning\n", []),
    ("TRANSFER of ANSWERS\nANS1809W lost\n", [("ANS1809W", "lost")]),
]


@pytest.mark.parametrize(("text", "warnings"), WARNED)
def test_each_warning_is_found(write: Write, text: str, warnings: list[tuple[str, str]]) -> None:
    assert [(each.code, each.text) for each in digest(write(text.encode())).warnings] == warnings


@pytest.mark.parametrize(("text", "max_lines", "max_bytes", "lines"), [
    (b"", 20, 4096, ()),
    (b"one\n\ntwo\n", 20, 4096, ("one", "two")),
    (b"one\ntwo\nthree\n", 2, 4096, ("two", "three")),
    (b"a" * 3000 + b"\n" + b"b" * 3000 + b"\n", 20, 4096, ("b" * 3000,)),
    (b"one\n" + b"b" * 9000 + b"\n", 20, 4096, ("b" * 4096,)),
])  # fmt: skip
def test_the_last_lines_are_as_many_as_fit_and_never_none(
    write: Write, text: bytes, max_lines: int, max_bytes: int, lines: tuple[str, ...]
) -> None:
    path = write(text)
    assert last(path, digest(path), max_lines, max_bytes) == lines


def test_a_code_has_the_text_that_followed_it_first(write: Write) -> None:
    path = write(
        b"ANS1312E Media mount not possible\nANS1312E again\nANS1228E Sending failed  ANS1311E Full\n"
    )
    assert digest(path).texts == {
        "ANS1312E": "Media mount not possible",
        "ANS1228E": "Sending failed",
        "ANS1311E": "Full",
    }
