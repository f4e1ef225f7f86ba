"""dsmc's output as the file it wrote itself: read in pieces, whatever its size.

Every function walks the file line by line and holds one line at a time, so that a million lines cost time and
no memory. A leftover child of dsmc may go on writing; what counts is what was there when the run ended.
"""

import locale
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from worker.contract.response import Excerpt, Warned, printable
from worker.dsmc import messages

MAX_LINE = 1 << 16  # bytes of one line that are kept; the rest of a longer one is dropped
MAX_CODES = 200
MAX_TEXT = 200
MAX_WARNINGS = 1000
MAX_WARNING = 2048

_MARKUP = len('\n     <line index=""></line>')
_PLAIN = re.compile(rb"[\t\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Digest:
    """What one walk over a transcript found.

    `lines`: how many that are not blank; `size`: bytes they take in a response at most; `codes`: the distinct
    message codes in order of appearance, `texts` what followed each first; `warnings`: the W messages; `end`: bytes
    of the file it covers.
    """

    lines: int = 0
    size: int = 0
    codes: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[Warned, ...] = ()
    end: int = 0


def digest(path: Path) -> Digest:
    """Given a transcript, return its digest; of a file that is missing, an empty one."""
    lines = size = 0
    texts: dict[str, str] = {}
    warnings: list[Warned] = []
    try:
        end = path.stat().st_size
    except FileNotFoundError:
        return Digest()
    for raw in _lines(path, end):
        lines += 1
        size += _size(raw, lines)
        if b"ANS" in raw:
            for code, text in _messages(raw):
                if len(texts) < MAX_CODES:
                    texts.setdefault(code, text[:MAX_TEXT])
                if code.endswith("W") and len(warnings) < MAX_WARNINGS:
                    warnings.append(Warned(code, text))
    return Digest(lines, size, tuple(texts), texts, tuple(warnings), end)


def excerpt(path: Path, whole: Digest, max_lines: int, max_bytes: int) -> Excerpt:
    """Given a transcript and its digest, return the lines a response shows.

    All of them where they fit; else the first and the last, each as far as half of `max_lines` and of
    `max_bytes` (UTF-8, markup included) goes. The lines are read as they are asked for.
    """
    if not whole.lines:
        return Excerpt()
    head, tail = whole.lines, whole.lines + 1
    if whole.lines > max_lines or whole.size > max_bytes:
        head = _head(path, whole, max_lines // 2, max_bytes // 2)
        tail = _tail(path, whole, head, max_lines // 2, max_bytes // 2)
    return Excerpt(_shown(path, whole, head, tail), tail - head - 1)


def last(path: Path, whole: Digest, max_lines: int, max_bytes: int) -> tuple[str, ...]:
    """Given a transcript and its digest, return its last lines, as far as they fit (the very last one cut to fit)."""
    if not whole.lines:
        return ()
    tail = min(_tail(path, whole, 0, max_lines, max_bytes), whole.lines)
    return tuple(text[:max_bytes] for _, text in _shown(path, whole, 0, tail))


def _head(path: Path, whole: Digest, most_lines: int, most_bytes: int) -> int:
    """Return the index of the last line that still fits from the top; 0 if none does."""
    used = 0
    for index, raw in enumerate(_lines(path, whole.end), start=1):
        used += _size(raw, index)
        if index > most_lines or used > most_bytes:
            return index - 1
    return whole.lines


def _tail(path: Path, whole: Digest, head: int, most_lines: int, most_bytes: int) -> int:
    """Return the index, beyond `head`, of the first line from which all the rest fits."""
    before = 0
    for index, raw in enumerate(_lines(path, whole.end), start=1):
        rest_fits = whole.lines - index < most_lines and whole.size - before <= most_bytes
        if rest_fits and index > head:
            return index
        before += _size(raw, index)
    return whole.lines + 1


def _lines(path: Path, end: int) -> Iterator[bytes]:
    """Yield the lines that are not blank, their line ends removed."""
    with path.open("rb", buffering=1 << 18) as file:
        read = 0
        while read < end:
            raw = file.readline(min(MAX_LINE, end - read))
            if not raw:
                return
            read += len(raw)
            part = raw
            while len(part) == MAX_LINE and not part.endswith(b"\n") and read < end:
                part = file.readline(min(MAX_LINE, end - read))
                read += len(part)
            line = raw.rstrip(b"\r\n")
            if line and not line.isspace():
                yield line


def _size(raw: bytes, index: int) -> int:
    """Return how many bytes the line takes in a response: exact for plain text, else at most that many."""
    size = len(raw) if _PLAIN.fullmatch(raw) else 5 * len(raw)
    escaped = 3 * (raw.count(b"<") + raw.count(b">")) + 4 * raw.count(b"&")
    return size + escaped + _MARKUP + len(str(index))


def _shown(path: Path, whole: Digest, head: int, tail: int) -> Iterator[tuple[int, str]]:
    for index, raw in enumerate(_lines(path, whole.end), start=1):
        if index <= head or index >= tail:
            yield index, decode(raw)


def decode(raw: bytes) -> str:
    """Given bytes dsmc wrote, return their text: UTF-8, else the system's encoding, never an error."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode(locale.getencoding(), "replace")
    return printable(text)


def _messages(raw: bytes) -> Iterator[tuple[str, str]]:
    """Yield each message of a line: its code, and its text up to the next code."""
    found = list(messages.CODE.finditer(raw))
    for match, following in zip(found, [*found[1:], None], strict=False):
        text = raw[match.end() : following.start() if following else None]
        yield match[1].decode(), decode(text.strip()[:MAX_WARNING])
