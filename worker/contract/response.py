"""A response's XML: how each command of a request went.

Source: DESIGN section 5 (docs/contract.md); element for element BMC's published sample
(tests/fixtures/backup-image-response.xml) for a run that worked; `response.xsd` has the rest.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import IO

from lxml import etree

from worker.words import ErrorCode

NO_EXIT_CODE = 9999  # the adapter's own stand-in where a run had to be ended (dsmc-facts.md 6.6)


@dataclass(frozen=True, slots=True)
class Error:
    """Why a request did not work: a code of the closed set, and a sentence for a person."""

    code: ErrorCode
    message: str


@dataclass(frozen=True, slots=True)
class VolumeNote:
    """What eligibility said of one volume, told where eligibility was the cause of an error."""

    name: str
    eligible: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Warned:
    """One warning of dsmc: its code (`ANS1809W`) and its text as dsmc wrote it."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The lines of an output that a response shows: (index from 1, text), and how many are left out."""

    lines: Iterable[tuple[int, str]] = ()
    omitted: int = 0


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """One dsmc run. `line_count` is the true number of lines, whatever the excerpt shows."""

    command: str
    line_count: int
    elapsed_ms: int
    exit_code: int
    successful: bool
    excerpt: Excerpt
    warnings: tuple[Warned, ...] = ()


@dataclass(frozen=True, slots=True)
class Response:
    """The whole answer; `error` is None exactly where the request worked."""

    error: Error | None = None
    volumes: tuple[VolumeNote, ...] = ()
    outputs: tuple[CommandOutput, ...] = field(default=())


def render(response: Response, max_bytes: int) -> bytes:
    """Given a response, return its XML: see `write`."""
    out = BytesIO()
    write(response, max_bytes, out)
    return out.getvalue()


def write(response: Response, max_bytes: int, out: IO[bytes]) -> None:
    """Given a response, write its XML (UTF-8) to an empty file, never more than `max_bytes`.

    The caller has chosen excerpts that fit. Where names, reasons and warnings of a hostile request make the
    rest too long, what is optional is left out: first output and warnings, then the volumes' notes and the end
    of long texts.
    """
    shortest = (_barest(response, longest) for longest in (1000, 100, 0))
    for smaller in (response, _bare(response), *shortest):
        out.seek(0)
        out.truncate()
        _serialise(smaller, out)
        if out.tell() <= max_bytes:
            return


def _bare(response: Response) -> Response:
    outputs = (replace(o, excerpt=Excerpt(omitted=o.line_count), warnings=()) for o in response.outputs)
    return replace(response, outputs=tuple(outputs))


def _barest(response: Response, longest: int) -> Response:
    bare, error = _bare(response), response.error
    return replace(
        bare,
        volumes=(),
        error=error and replace(error, message=error.message[: max(longest, 100)]),
        outputs=tuple(replace(o, command=o.command[:longest]) for o in bare.outputs),
    )


def _serialise(response: Response, out: IO[bytes]) -> None:
    with etree.xmlfile(out, encoding="utf-8") as xml:
        writer = _Writer(xml)
        with writer.element("tsm-response"):
            with writer.element("metadata"):
                writer.leaf("status", "success" if response.error is None else "error")
                writer.leaf("count", str(len(response.outputs)))
                if response.error is not None:
                    with writer.element("error"):
                        writer.leaf("code", response.error.code)
                        writer.leaf("message", response.error.message)
                for volume in response.volumes:
                    eligible = "true" if volume.eligible else "false"
                    writer.leaf("volume", None, name=volume.name, eligible=eligible, reason=volume.reason)
            with writer.element("commands-output"):
                for output in response.outputs:
                    with writer.element("command-output"):
                        _write_command(writer, output)


def _write_command(writer: "_Writer", output: CommandOutput) -> None:
    with writer.element("metadata"):
        writer.leaf("command", output.command)
        writer.leaf("line-count", str(output.line_count))
        writer.leaf("execution-milliseconds", str(output.elapsed_ms))
        writer.leaf("exit-code", str(output.exit_code))
        writer.leaf("status", "success" if output.successful else "error")
        if output.warnings:
            with writer.element("warnings"):
                for warning in output.warnings:
                    writer.leaf("warning", warning.text, code=warning.code)
    omitted = {"omitted": str(output.excerpt.omitted)} if output.excerpt.omitted else {}
    with writer.element("output", **omitted):
        for index, text in output.excerpt.lines:
            writer.leaf("line", text, index=str(index))


class _Writer:
    """Writes elements one by one, each on a line of its own, so that no tree of them is ever held."""

    def __init__(self, xml: "etree._IncrementalFileWriter") -> None:
        self._xml = xml
        self._depth = 0

    @contextmanager
    def element(self, tag: str, /, **attributes: str) -> Iterator[None]:
        self._indent()
        with self._xml.element(tag, _clean(attributes)):
            self._depth += 1
            yield
            self._depth -= 1
            self._xml.write("\n" + " " * self._depth)

    def leaf(self, tag: str, text: str | None, /, **attributes: str) -> None:
        self._indent()
        with self._xml.element(tag, _clean(attributes)):
            if text:
                self._xml.write(printable(text))

    def _indent(self) -> None:
        if self._depth:
            self._xml.write("\n" + " " * self._depth)


def _clean(attributes: dict[str, str]) -> dict[str, str]:
    return {name: printable(value) for name, value in attributes.items()}


# What XML 1.0 forbids (https://www.w3.org/TR/xml/#charsets), and so lxml refuses.
_FORBIDDEN = dict.fromkeys(
    [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF], "\ufffd"
)


def printable(text: str) -> str:
    """Given any text, return it with each character that XML forbids replaced by U+FFFD."""
    return text if text.isprintable() else text.translate(_FORBIDDEN)
