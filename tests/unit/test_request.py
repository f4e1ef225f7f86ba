"""What a request may look like, and what is read in it."""

from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hostile import HOSTILE, STRUCTURAL, body
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from worker import plan
from worker.config import Dsmc
from worker.contract import request
from worker.contract.request import Command, Option, Request, parse
from worker.errors import RequestRefused
from worker.words import Platform

FIXTURES = Path(__file__).parents[1] / "fixtures"
SAMPLE = (FIXTURES / "backup-image-request.xml").read_bytes()
XSD = Path(request.__file__).parent / "request.xsd"
SCHEMA = etree.XMLSchema(etree.parse(str(XSD)))
NBSP = "\u00a0"


Pair = tuple[str, str | None]
Said = list[tuple[int | None, list[Pair], list[str]]]


def said(found: Request) -> Said:
    """Return a request without its lines: (time-out, options, volumes) of each command."""
    return [
        (each.timeout, [(option.name, option.value) for option in each.options], list(each.volumes))
        for each in found.commands
    ]


def volumes(text: str) -> str:
    return body(volumes=f"<volume-list>{text}</volume-list>")


def timeout(text: str) -> str:
    return body(timeout=f"<timeout-secs>{text}</timeout-secs>\n")


SELECTIVE: list[Pair] = [("mode", "selective")]
PLAIN: Said = [(None, SELECTIVE, ["/srv"])]
SAMPLE_SAID: Said = [
    (
        120,
        [
            ("compressalways", "no"),
            ("compression", "yes"),
            ("imagegapsize", "10k"),
            ("mode", "Selective"),
            ("snapshotcachesize", "10"),
            ("snapshotcachelocation", "e:"),
            ("snapshotfsidleretries", "1"),
            ("snapshotfsidlewait", "4s,500ms"),
        ],
        ["e:"],
    )
]


def test_the_sample_is_read_with_its_options_in_document_order() -> None:
    assert said(parse(SAMPLE)) == SAMPLE_SAID


def test_commands_and_options_know_their_lines() -> None:
    (command,) = parse(SAMPLE).commands
    assert command.line == 3
    assert [option.line for option in command.options] == list(range(6, 14))


# name: (the document, what it says, whether a schema can see that it is right)
ACCEPTED: dict[str, tuple[bytes, Said, bool]] = {
    "the-least": (
        (
            b"<tsm-request><operation-name>backup-image</operation-name><command-request><command-arguments>"
            b"<volume-list>/srv</volume-list></command-arguments></command-request></tsm-request>"
        ),
        [(None, [], ["/srv"])],
        True,
    ),
    "sample": (SAMPLE, SAMPLE_SAID, True),
    "sample-with-windows-line-ends": (SAMPLE.replace(b"\n", b"\r\n"), SAMPLE_SAID, True),
    "sample-in-a-wrapper": (b"<request-data>\n" + SAMPLE + b"</request-data>", SAMPLE_SAID, True),
    "sample-indented-with-no-break-spaces": (
        SAMPLE.decode().replace(" ", NBSP).encode(),
        SAMPLE_SAID,
        False,
    ),
    "sample-after-a-declaration": (
        b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n' + SAMPLE,
        SAMPLE_SAID,
        True,
    ),
    "blanks-around-every-value": (
        SAMPLE.replace(b">120<", b">\n  120\t<")
        .replace(b">10k<", b"> 10k\n<")
        .replace(b">backup-image<", b"> backup-image\n<")
        .replace(b">e:</volume", b"> e:\n</volume"),
        SAMPLE_SAID,
        True,
    ),
    "no-break-spaces-around-every-value": (
        SAMPLE.decode()
        .replace(">120<", f">{NBSP}120{NBSP}<")
        .replace(">10k<", f">{NBSP}10k{NBSP} <")
        .replace(">backup-image<", f">{NBSP}backup-image{NBSP}<")
        .replace(">e:</volume", f">{NBSP} e:{NBSP}</volume")
        .encode(),
        SAMPLE_SAID,
        False,
    ),
    "blanks-before-and-after-the-root": (b"\n \t" + SAMPLE + b"\n\n ", SAMPLE_SAID, True),
    "several-volumes": (
        volumes(f"/a /b\t/c\n/d{NBSP}/e").encode(),
        [(None, SELECTIVE, ["/a", "/b", "/c", "/d", "/e"])],
        True,
    ),
    "volume-list-repeated": (
        body(volumes="<volume-list>/a /b</volume-list>\n<volume-list>/c</volume-list>").encode(),
        [(None, SELECTIVE, ["/a", "/b", "/c"])],
        True,
    ),
    "quoted-volumes": (
        volumes(f'"/my disk" /b "/c"{NBSP}"/d  e"').encode(),
        [(None, SELECTIVE, ["/my disk", "/b", "/c", "/d  e"])],
        True,
    ),
    "quotes-as-references": (
        volumes("&quot;/my disk&quot; /b").encode(),
        [(None, SELECTIVE, ["/my disk", "/b"])],
        True,
    ),
    "apostrophes-are-part-of-a-name": (
        volumes("/it's 'x").encode(),
        [(None, SELECTIVE, ["/it's", "'x"])],
        True,
    ),
    "the-same-volume-twice": (volumes("/a /a").encode(), [(None, SELECTIVE, ["/a", "/a"])], True),
    "dash-inside-a-volume": (volumes("/a-b /c-").encode(), [(None, SELECTIVE, ["/a-b", "/c-"])], True),
    "shell-syntax-is-plain-text": (
        volumes("$(reboot) `reboot` ;reboot |x &gt;/etc/passwd *").encode(),
        [(None, SELECTIVE, ["$(reboot)", "`reboot`", ";reboot", "|x", ">/etc/passwd", "*"])],
        True,
    ),
    "windows-volumes": (
        volumes(r"e: \\?\Volume{8c3b4f12-0000-0000-0000-100000000000}\ C:\mnt\data").encode(),
        [(None, SELECTIVE, ["e:", "\\\\?\\Volume{8c3b4f12-0000-0000-0000-100000000000}\\", "C:\\mnt\\data"])],
        True,
    ),
    "letters-of-the-world": (
        volumes("/données /データ /\N{GRINNING FACE}").encode(),
        [(None, SELECTIVE, ["/données", "/データ", "/\N{GRINNING FACE}"])],
        True,
    ),
    "as-many-volumes-as-may-be": (
        volumes(" ".join(f"/{n}" for n in range(256))).encode(),
        [(None, SELECTIVE, [f"/{n}" for n in range(256)])],
        True,
    ),
    "as-long-a-volume-as-may-be": (
        volumes("/" + "x" * 4095).encode(),
        [(None, SELECTIVE, ["/" + "x" * 4095])],
        True,
    ),
    "several-commands": (
        body(
            commands="".join(
                f"<command-request><timeout-secs>{n}</timeout-secs><command-arguments><volume-list>/{n}"
                "</volume-list></command-arguments></command-request>\n"
                for n in range(1, 4)
            )
        ).encode(),
        [(1, [], ["/1"]), (2, [], ["/2"]), (3, [], ["/3"])],
        True,
    ),
    "as-many-commands-as-may-be": (
        body(
            commands="<command-request><command-arguments><volume-list>/a</volume-list></command-arguments>"
            "</command-request>\n" * 100
        ).encode(),
        [(None, [], ["/a"])] * 100,
        True,
    ),
    "no-options-in-their-place": (body(options="").encode(), [(None, [], ["/srv"])], True),
    "flags-and-values": (
        body(options="<quiet/><b>1</b><c></c><d> </d>").encode(),
        [(None, [("quiet", None), ("b", "1"), ("c", None), ("d", None)], ["/srv"])],
        True,
    ),
    "flag-of-a-no-break-space": (
        body(options=f"<quiet>{NBSP}</quiet>").encode(),
        [(None, [("quiet", None)], ["/srv"])],
        True,
    ),
    "options-in-document-order": (
        body(options="<z>1</z><a>2</a><m>3</m>").encode(),
        [(None, [("z", "1"), ("a", "2"), ("m", "3")], ["/srv"])],
        True,
    ),
    "cdata": (
        body(
            options="<mode><![CDATA[selective]]></mode>",
            volumes='<volume-list><![CDATA["/a & <b>"]]></volume-list>',
        ).encode(),
        [(None, SELECTIVE, ["/a & <b>"])],
        True,
    ),
    "cdata-in-pieces": (volumes("/s<![CDATA[r]]>v").encode(), PLAIN, True),
    "references": (volumes("&#47;&#x73;r&#118; &amp;").encode(), [(None, SELECTIVE, ["/srv", "&"])], True),
    "comments-everywhere": (
        body(
            start="<!-- a --><!-- b -->",
            operation="<!-- c --><operation-name>backup<!-- d -->-image</operation-name>",
            timeout="<!-- e -->",
            options="<!-- f --><mode>sel<!-- g -->ective</mode><!-- h -->",
            volumes="<!-- i --><volume-list>/s<!-- j -->rv</volume-list>",
        ).encode()
        + b"<!-- k -->",
        PLAIN,
        True,
    ),
    # Not in the contract and not hostile: dropped unread, as XML lets a parser do.
    "processing-instructions": (
        body(
            start='<?xml-stylesheet href="file:///etc/passwd"?><?x y?>',
            options="<?php unlink('/') ?><mode>selective</mode>",
            volumes="<volume-list>/s<?x?>rv</volume-list>",
        ).encode(),
        PLAIN,
        True,
    ),
    "a-namespace-nobody-uses": (body(root='tsm-request xmlns:x="urn:x"').encode(), PLAIN, True),
    "utf-8-with-mark": (b"\xef\xbb\xbf" + body().encode(), PLAIN, True),
    "utf-16-with-mark": (body().encode("utf-16"), PLAIN, True),
    "utf-16-with-mark-declared": (
        ('<?xml version="1.0" encoding="UTF-16"?>' + volumes("/données")).encode("utf-16"),
        [(None, SELECTIVE, ["/données"])],
        True,
    ),
    "utf-16-big-endian-with-mark": (b"\xfe\xff" + body().encode("utf-16-be"), PLAIN, True),
    "latin-1-declared": (
        ('<?xml version="1.0" encoding="ISO-8859-1"?>' + volumes(f"/données{NBSP}/b")).encode("latin-1"),
        [(None, SELECTIVE, ["/données", "/b"])],
        True,
    ),
    "windows-1252-declared": (
        ('<?xml version="1.0" encoding="windows-1252"?>' + volumes("/€")).encode("cp1252"),
        [(None, SELECTIVE, ["/€"])],
        True,
    ),
    "ascii-declared": (b'<?xml version="1.0" encoding="us-ascii"?>' + body().encode(), PLAIN, True),
    "the-shortest-time": (timeout("1").encode(), [(1, SELECTIVE, ["/srv"])], True),
    "a-week": (timeout("604800").encode(), [(604800, SELECTIVE, ["/srv"])], True),
    "leading-zeros": (timeout("0060").encode(), [(60, SELECTIVE, ["/srv"])], True),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_legal_request_is_read_as_meant(name: str) -> None:
    text, meant, _ = ACCEPTED[name]
    assert said(parse(text)) == meant


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_schema_accepts_what_the_parser_accepts(name: str) -> None:
    text, _, seen = ACCEPTED[name]
    assert SCHEMA.validate(etree.fromstring(text)) is seen, SCHEMA.error_log


@pytest.mark.parametrize("name", sorted(STRUCTURAL))
def test_the_schema_refuses_what_is_wrong_in_structure(name: str) -> None:
    document = etree.fromstring(HOSTILE[name])
    assert not SCHEMA.validate(document)


@pytest.mark.parametrize("text", ["é", "/a\tb"])
def test_a_request_of_the_whole_size_is_read(text: str) -> None:
    room = request.MAX_BYTES - len(volumes(text).encode())
    filler = f"<!--{'x' * (room - 7)}-->"
    whole = body(start=filler, volumes=f"<volume-list>{text}</volume-list>").encode()
    assert len(whole) == request.MAX_BYTES
    assert parse(whole).commands[0].volumes == tuple(text.split())
    with pytest.raises(RequestRefused):
        parse(whole + b" ")


def test_what_is_read_is_what_dsmc_is_told() -> None:
    (step,) = plan.make(SAMPLE, Platform.WINDOWS, Dsmc())
    assert step.arguments == (
        "backup",
        "image",
        "-compressalways=no",
        "-compression=yes",
        "-imagegapsize=10k",
        "-mode=Selective",
        "-snapshotcachesize=10",
        "-snapshotcachelocation=e:",
        "-snapshotfsidleretries=1",
        "-snapshotfsidlewait=4s,500ms",
        "e:",
    )
    assert step.limit == 120


BLANKS = st.text(" \t\n\u00a0", max_size=3)
SEPARATOR = st.text(" \t\n\u00a0", min_size=1, max_size=3)
LETTERS = st.characters(exclude_categories=("C", "Z"), exclude_characters='"')
TEXT = st.text(LETTERS | st.just(" "), min_size=1, max_size=12).map(str.strip).filter(bool)
VOLUME = TEXT.filter(lambda text: not text.startswith("-"))
NAME = st.from_regex("[a-z][a-z0-9._-]{0,9}", fullmatch=True).filter(lambda name: not name.startswith("xml"))
COMMAND = st.builds(
    Command,
    timeout=st.none() | st.integers(1, 10**17),
    options=st.lists(st.builds(Option, NAME, st.none() | TEXT, st.just(0)), max_size=4).map(tuple),
    volumes=st.lists(VOLUME, min_size=1, max_size=5).map(tuple),
    line=st.just(0),
)


@st.composite
def rendered(draw: st.DrawFn, wanted: Request) -> str:
    """Return a document that says `wanted`, its blanks, quotes and CDATA drawn."""

    def element(name: str, inside: str) -> str:
        return f"{draw(BLANKS)}<{name}>{inside}</{name}>{draw(BLANKS)}"

    def value(text: str) -> str:
        plain = draw(st.booleans()) or "]]>" in text
        return f"{draw(BLANKS)}{escape(text) if plain else f'<![CDATA[{text}]]>'}{draw(BLANKS)}"

    def volume(text: str) -> str:
        return f'"{text}"' if " " in text or draw(st.booleans()) else text

    def command(each: Command) -> str:
        inside = "" if each.timeout is None else element("timeout-secs", value(str(each.timeout)))
        if draw(st.booleans()) or each.options:
            inside += element(
                "command-options",
                "".join(
                    f"<{option.name}/>" if option.value is None else element(option.name, value(option.value))
                    for option in each.options
                ),
            )
        lists = [[each.volumes[0]]]
        for one in each.volumes[1:]:
            if draw(st.booleans()):
                lists.append([one])
            else:
                lists[-1].append(one)
        return inside + element(
            "command-arguments",
            "".join(
                element("volume-list", value(draw(SEPARATOR).join(volume(one) for one in ones)))
                for ones in lists
            ),
        )

    document = element("operation-name", value("backup-image")) + "".join(
        element("command-request", command(each)) for each in wanted.commands
    )
    document = f"<tsm-request>{document}</tsm-request>"
    return f"<request-data>{document}</request-data>" if draw(st.booleans()) else document


@given(data=st.data(), wanted=st.builds(Request, st.lists(COMMAND, min_size=1, max_size=3).map(tuple)))
def test_a_request_reads_back_as_it_was_written(data: st.DataObject, wanted: Request) -> None:
    text = data.draw(rendered(wanted))
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    assert said(parse(text.encode(encoding))) == said(wanted)
