"""A request's XML, and what it asks for.

Source: DESIGN section 5 (docs/contract.md); the elements are those of BMC's TSM adapter, as its published
sample shows them (tests/fixtures/backup-image-request.xml). `request.xsd` beside this file says the same to
tools that want a schema; this parser is the one that decides, for it names element and line.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from lxml import etree

from worker.errors import RequestRefused
from worker.words import ErrorCode

MAX_BYTES = 1 << 20
MAX_ELEMENTS = 10_000
MAX_DEPTH = 8
MAX_COMMANDS = 100
MAX_VOLUMES = 256  # of one command: dsmc takes about twenty operands (ANS1102E), so this is ample
MAX_TEXT = 4096  # characters of one value or volume: a path is no longer (PATH_MAX)

# What counts as white space in a request: XML's four characters, and U+00A0, which pages and word processors
# put in their place.
BLANKS = " \t\r\n\u00a0"

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

_VOLUME = re.compile(rf'"(?P<quoted>[^"]*)"(?=[{BLANKS}]|$)|(?P<bare>[^"{BLANKS}]+)(?=[{BLANKS}]|$)')


@dataclass(frozen=True, slots=True)
class Option:
    """One child of `command-options`: its element name, its text (None: an empty element, a flag) and line."""

    name: str
    value: str | None
    line: int


@dataclass(frozen=True, slots=True)
class Command:
    """One `command-request`: one dsmc run. `timeout` is in seconds, None where the request leaves it out."""

    timeout: int | None
    options: tuple[Option, ...]
    volumes: tuple[str, ...]
    line: int
    timeout_line: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One `tsm-request`: its commands in the order they are to run, at least one."""

    commands: tuple[Command, ...]


def parse(body: bytes) -> Request:
    """Given a message's body, return the request in it.

    Raise RequestRefused (bad-request), naming element and line, if the body is anything but a `backup-image`
    request of the contract's shape and size. Nothing outside the body is read: no DTD, no entity, no network.
    """
    return _Reader().request(_tree(body))


def _refuse(element: etree._Element | None, what: str) -> RequestRefused:
    where = "" if element is None else f"line {_line(element)}: "
    return RequestRefused(ErrorCode.BAD_REQUEST, where + what)


def _tree(body: bytes) -> etree._Element:
    """Given a body, return its root element, having stopped as soon as a limit was passed."""
    if not body.strip():
        raise _refuse(None, "the body is empty; expected a <tsm-request> document")
    if len(body) > MAX_BYTES:
        raise _refuse(None, f"the body has {len(body)} bytes; a request has at most {MAX_BYTES}")
    events = etree.iterparse(
        BytesIO(body),
        events=("start", "end"),
        load_dtd=False,
        no_network=True,
        resolve_entities=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    depth = elements = 0
    try:
        for event, element in events:
            if event == "end":
                depth -= 1
                continue
            elements, depth = elements + 1, depth + 1
            if element.getroottree().docinfo.internalDTD is not None:
                raise _refuse(None, "a document type (DOCTYPE) is not accepted; send the elements alone")
            if elements > MAX_ELEMENTS:
                raise _refuse(element, f"more than {MAX_ELEMENTS} elements")
            if depth > MAX_DEPTH:
                raise _refuse(element, f"<{shown(element.tag)}> is nested more than {MAX_DEPTH} deep")
    except etree.XMLSyntaxError as error:
        # iterparse calls an undeclared entity "no element found"; the log has what libxml2 said, and where.
        said: Any = getattr(error.error_log, "last_error", None)
        line, what = (said.line, said.message) if said else (error.lineno, error.msg)
        raise _refuse(
            None, f"not well-formed XML: line {line}: {shown((what or '').strip(), 200)}"
        ) from error
    except (LookupError, UnicodeError) as error:
        raise _refuse(None, f"the body's encoding cannot be read: {error}") from error
    root: etree._Element = events.root
    return root


def shown(text: object, limit: int = 60) -> str:
    """Given text from the request, return it short and printable, fit for a message or a log."""
    kept = "".join(c if c.isprintable() else "\ufffd" for c in str(text)[: limit + 1])
    return kept if len(kept) <= limit else kept[:limit] + "…"


class _Reader:
    """Reads the elements strictly in the sample's order; anything else is named with its line."""

    def request(self, root: etree._Element) -> Request:
        if root.tag == "request-data":
            (root,) = self._children(root, "tsm-request")
        if root.tag != "tsm-request":
            raise _refuse(root, f"the document is a <{shown(root.tag)}>; expected <tsm-request>")
        name, *commands = self._children(
            root, "operation-name", "command-request", repeated="command-request"
        )
        operation = self._text(name)
        if operation != "backup-image":
            raise _refuse(
                name,
                f"<operation-name> is {shown(operation)!r}; this worker knows only 'backup-image'",
            )
        if len(commands) > MAX_COMMANDS:
            raise _refuse(
                commands[MAX_COMMANDS],
                f"{len(commands)} <command-request> elements; a request has at most {MAX_COMMANDS}",
            )
        return Request(tuple(self._command(each) for each in commands))

    def _command(self, element: etree._Element) -> Command:
        timeout: int | None = None
        timeout_line = 0
        options: tuple[Option, ...] = ()
        volumes: tuple[str, ...] = ()
        for child in self._children(
            element,
            "timeout-secs",
            "command-options",
            "command-arguments",
            optional=("timeout-secs", "command-options"),
        ):
            if child.tag == "timeout-secs":
                timeout, timeout_line = self._timeout(child), _line(child)
            elif child.tag == "command-options":
                options = tuple(self._option(each) for each in self._any_children(child))
            else:
                volumes = tuple(self._volumes(child))
        return Command(timeout, options, volumes, _line(element), timeout_line)

    def _timeout(self, element: etree._Element) -> int:
        text = self._text(element)
        if not re.fullmatch("[0-9]{1,18}", text) or int(text) < 1:
            raise _refuse(
                element,
                f"<timeout-secs> is {shown(text)!r}; expected a whole number of seconds, 1 or more",
            )
        return int(text)

    def _option(self, element: etree._Element) -> Option:
        text = self._text(element)
        if len(text) > MAX_TEXT:
            raise _refuse(
                element,
                f"<{shown(element.tag)}> holds {len(text)} characters; at most {MAX_TEXT} are accepted",
            )
        return Option(str(element.tag), text or None, _line(element))

    def _volumes(self, arguments: etree._Element) -> Iterator[str]:
        found = 0
        for element in self._children(arguments, "volume-list", repeated="volume-list"):
            text = self._text(element)
            if not text:
                raise _refuse(element, "<volume-list> is empty; name at least one volume")
            for volume in _split(text, element):
                found += 1
                if found > MAX_VOLUMES:
                    raise _refuse(element, f"<volume-list> names more than {MAX_VOLUMES} volumes")
                yield volume

    def _children(
        self,
        element: etree._Element,
        *names: str,
        optional: tuple[str, ...] = (),
        repeated: str | None = None,
    ) -> list[etree._Element]:
        """Return the children, having checked that they are `names` in this order."""
        children = self._any_children(element)
        expected = list(names)
        for child in children:
            while expected and child.tag != expected[0] and expected[0] in optional:
                expected.pop(0)
            if not expected or child.tag != expected[0]:
                raise self._unexpected(child, element, names, expected)
            if child.tag != repeated:
                expected.pop(0)
        found = {child.tag for child in children}
        for name in names:
            if name not in optional and name not in found:
                raise _refuse(element, f"<{shown(element.tag)}> has no <{name}>")
        return children

    def _unexpected(
        self, child: etree._Element, parent: etree._Element, names: tuple[str, ...], expected: list[str]
    ) -> RequestRefused:
        tag = shown(child.tag)
        if child.tag not in names:
            why = f"<{tag}> is unknown in <{shown(parent.tag)}>; it takes " + ", ".join(
                f"<{n}>" for n in names
            )
        elif len(parent.findall(str(child.tag))) > 1 and child.tag not in expected:
            why = f"<{tag}> stands more than once in <{shown(parent.tag)}>"
        else:
            why = f"<{tag}> is out of place in <{shown(parent.tag)}>; the order is " + ", ".join(
                f"<{n}>" for n in names
            )
        return _refuse(child, why)

    def _any_children(self, element: etree._Element) -> list[etree._Element]:
        """Return the children of an element that holds elements alone."""
        self._no_attributes(element)
        for text in (element.text, *(child.tail for child in element)):
            if text and text.strip(BLANKS):
                # An option written as text may be a secret one.
                found = "text" if element.tag == "command-options" else f"text {shown(text.strip(BLANKS))!r}"
                raise _refuse(element, f"{found} stands in <{shown(element.tag)}>, which takes elements only")
        return list(element)

    def _text(self, element: etree._Element) -> str:
        """Return the text of an element that holds nothing else, white space around it removed."""
        self._no_attributes(element)
        for child in element:
            raise _refuse(
                child,
                f"<{shown(child.tag)}> stands in <{shown(element.tag)}>, which takes text only",
            )
        text = (element.text or "").strip(BLANKS)
        for character in text:
            if unicodedata.category(character) == "Cc" and character not in BLANKS:
                raise _refuse(
                    element,
                    f"<{shown(element.tag)}> holds the control character U+{ord(character):04X}",
                )
        return text

    def _no_attributes(self, element: etree._Element) -> None:
        for name in element.attrib:
            raise _refuse(
                element,
                f"<{shown(element.tag)}> has the attribute {shown(name)!r}; requests have none",
            )


def _line(element: etree._Element) -> int:
    line: Any = element.sourceline
    return int(line or 0)


def _split(text: str, element: etree._Element) -> Iterator[str]:
    """Given a `volume-list`'s text, yield its volumes: blanks separate, double quotes keep blanks together."""
    at = 0
    while at < len(text):
        if text[at] in BLANKS:
            at += 1
            continue
        match = _VOLUME.match(text, at)
        if match is None:
            raise _refuse(
                element,
                f"<volume-list> has an unpaired double quote near {shown(text[at:], 30)!r}; "
                'quote a whole volume, as in "/mnt/my disk"',
            )
        volume = match["bare"] if match["quoted"] is None else match["quoted"]
        if not volume.strip(BLANKS):
            raise _refuse(element, "<volume-list> names an empty volume")
        if volume.lstrip(BLANKS).startswith("-"):
            raise _refuse(
                element,
                f"<volume-list> names {shown(volume)!r}: it begins with '-', which dsmc would read as an option",
            )
        if len(volume) > MAX_TEXT:
            raise _refuse(
                element,
                f"<volume-list> names a volume of {len(volume)} characters; at most {MAX_TEXT} are accepted",
            )
        for character in volume:
            if unicodedata.category(character) in _INVISIBLE:
                raise _refuse(
                    element, f"<volume-list> names a volume with the control character U+{ord(character):04X}"
                )
        yield volume
        at = match.end()
