"""Request bodies that no worker may run: malformed, oversized, or written to reach past the contract.

`HOSTILE` maps a readable name to the bytes. Each is wrong whatever the volumes of the host are: the text alone
refuses it on Linux with the default configuration. What is only unusual is not here but in test_request.py:
comments, processing instructions (the parser drops both, and nothing they name is fetched), an unused namespace
declaration, shell syntax without a '-' (arguments of a program that no shell sees).
"""

import gzip
import itertools
import re

_SAFE = "/srv"


def body(
    *,
    start: str = "",
    root: str = "tsm-request",
    operation: str = "<operation-name>backup-image</operation-name>",
    timeout: str = "",
    options: str = "<mode>selective</mode>",
    volumes: str = f"<volume-list>{_SAFE}</volume-list>",
    arguments: str | None = None,
    commands: str | None = None,
) -> str:
    """Return a request, legal but for the pieces given; one element a line."""
    if arguments is None:
        arguments = f"<command-arguments>\n{volumes}\n</command-arguments>"
    if commands is None:
        commands = (
            f"<command-request>\n{timeout}<command-options>\n{options}\n</command-options>\n{arguments}\n"
            "</command-request>"
        )
    return f"{start}<{root}>\n{operation}\n{commands}\n</{root.partition(' ')[0]}>"


def external_entity(address: str) -> bytes:
    """Return a request that names a volume after what is at `address` (a URL)."""
    return _doctype(f'[<!ENTITY x SYSTEM "{address}">]', "&x;")


def outside(address: str) -> dict[str, bytes]:
    """Return every way this file knows to make a parser fetch `address`, by name."""
    xinclude = 'xmlns:xi="http://www.w3.org/2001/XInclude"'
    return {
        "external-entity": external_entity(address),
        "external-entity-in-an-option": body(
            start=f'<!DOCTYPE tsm-request [<!ENTITY x SYSTEM "{address}">]>',
            options="<asnodename>&x;</asnodename>",
        ).encode(),
        "external-entity-as-an-element": body(
            start=f'<!DOCTYPE tsm-request [<!ENTITY x SYSTEM "{address}">]>', commands="&x;"
        ).encode(),
        "parameter-entity": _doctype(f'[<!ENTITY % x SYSTEM "{address}"> %x;]', _SAFE),
        "parameter-entity-that-makes-another": _doctype(
            f'[<!ENTITY % x SYSTEM "{address}"><!ENTITY % y "<!ENTITY z SYSTEM \'{address}?%x;\'>">%y;]',
            "&z;",
        ),
        "document-type-elsewhere": _doctype(f'SYSTEM "{address}"', _SAFE),
        "document-type-elsewhere-with-an-entity": _doctype(f'SYSTEM "{address}"', "&x;"),
        "public-document-type": _doctype(f'PUBLIC "-//X//Y//EN" "{address}"', _SAFE),
        "unparsed-entity": _doctype(
            f'[<!NOTATION n SYSTEM "{address}"><!ENTITY x SYSTEM "{address}" NDATA n>]', _SAFE
        ),
        "xinclude-of-text": body(
            volumes=f'<volume-list><xi:include {xinclude} parse="text" href="{address}"/></volume-list>'
        ).encode(),
        "xinclude-of-options": body(options=f'<xi:include {xinclude} href="{address}"/>').encode(),
        "xinclude-of-the-command": body(commands=f'<xi:include {xinclude} href="{address}"/>').encode(),
        "schema-location": body(
            root='tsm-request xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
            f'xsi:noNamespaceSchemaLocation="{address}"'
        ).encode(),
    }


def _doctype(subset: str, volume: str) -> bytes:
    return body(
        start=f"<!DOCTYPE tsm-request {subset}>\n", volumes=f"<volume-list>{volume}</volume-list>"
    ).encode()


def _laughs(levels: int = 9) -> str:
    names = [f"l{n}" for n in range(levels + 1)]
    steps = "".join(f'<!ENTITY {name} "{f"&{one};" * 10}">' for one, name in itertools.pairwise(names))
    return f'[<!ENTITY l0 "lol">{steps}]'


def _timeout(text: str) -> bytes:
    return body(timeout=f"<timeout-secs>{text}</timeout-secs>\n").encode()


def _volume(text: str) -> bytes:
    return body(volumes=f"<volume-list>{text}</volume-list>").encode()


def _options(text: str) -> bytes:
    return body(options=text).encode()


def _declared(encoding: str, text: str = "") -> str:
    return f'<?xml version="1.0" encoding="{encoding}"?>\n' + (text or body())


def _raw(volume: bytes) -> bytes:
    return body(volumes="<volume-list>@</volume-list>").encode().replace(b"@", volume)


_GOOD = body()
_COMMAND = body(start="#").partition("<command-request>")[2].rpartition("</command-request>")[0]

_ENTITIES: dict[str, bytes] = {
    **{f"file-by-{name}": text for name, text in outside("file:///etc/passwd").items()},
    **{f"http-by-{name}": text for name, text in outside("http://127.0.0.1:9/x").items()},
    "internal-entity": _doctype(f'[<!ENTITY x "{_SAFE}">]', "&x;"),
    "internal-entity-that-holds-an-element": body(
        start='<!DOCTYPE tsm-request [<!ENTITY x "<optfile>/tmp/x</optfile>">]>', options="&x;"
    ).encode(),
    "undeclared-entity": _volume("/srv/&unknown;"),
    "entity-of-html": _volume("/srv&nbsp;/home"),
    "entity-that-holds-itself": _doctype('[<!ENTITY x "&y;"><!ENTITY y "&x;">]', "&x;"),
    "billion-laughs": _doctype(_laughs(), "&l9;"),
    "billion-laughs-in-an-attribute": body(
        start=f"<!DOCTYPE tsm-request {_laughs()}>", root='tsm-request a="&l9;"'
    ).encode(),
    "billion-laughs-by-parameter-entities": _doctype(
        '[<!ENTITY % a "%b;%b;"><!ENTITY % b "%a;%a;">%a;]', _SAFE
    ),
    "quadratic-blow-up": _doctype(f'[<!ENTITY x "{"x" * 100_000}">]', "&x;" * 100_000),
    "document-type-alone": _doctype("", _SAFE),
    "document-type-with-default-attribute": _doctype('[<!ATTLIST mode x CDATA "1">]', _SAFE),
}

_SIZE: dict[str, bytes] = {
    "ten-megabytes-of-text": _volume("x" * 10_000_000),
    "ten-megabytes-of-blanks": b" " * 10_000_000,
    "ten-megabytes-of-comment": body(start=f"<!--{'x' * 10_000_000}-->").encode(),
    "a-megabyte-of-text": _volume("x" * 1_000_000),
    "a-megabyte-of-volumes": _volume("/a " * 300_000),
    "a-megabyte-of-quotes": _volume('"' * 1_000_001),
    "a-hundred-thousand-elements": body(commands="<a/>" * 100_000).encode(),
    "a-hundred-thousand-options": _options("<quiet/>" * 100_000),
    "eleven-thousand-commands": body(commands="<command-request/>" * 11_000).encode(),
    "nested-fifty-thousand-deep": body(commands="<a>" * 50_000 + "</a>" * 50_000).encode(),
    "nested-nine-deep": _options("<a>" * 9 + "</a>" * 9),
    "sixty-thousand-attributes": body(
        root="tsm-request " + " ".join(f'a{n}="1"' for n in range(60_000))
    ).encode(),
    "a-name-of-forty-thousand-letters": _options(f"<{'a' * 40_000}/>"),
    "a-mismatched-name-of-forty-thousand-letters": _options(f"<{'a' * 40_000}></b>"),
    "a-prefix-of-forty-thousand-letters": _options(f"<{'a' * 40_000}:b/>"),
    "an-attribute-of-forty-thousand-letters": _options(f"<mode {'a' * 40_000}='1'>selective</mode>"),
    "a-hundred-and-one-commands": body(
        commands=f"<command-request>{_COMMAND}</command-request>\n" * 101
    ).encode(),
    "too-many-volumes": _volume(" ".join(f"/srv/{n}" for n in range(257))),
    "too-many-volumes-in-many-lists": body(volumes="<volume-list>/a /b</volume-list>\n" * 129).encode(),
    "over-long-volume": _volume("/" + "x" * 4096),
    "over-long-quoted-volume": _volume(f'"/{"x " * 2048}"'),
    "over-long-value": _options(f"<asnodename>{'x' * 4097}</asnodename>"),
    "over-long-value-of-digits": _options(f"<imagegapsize>{'9' * 4097}</imagegapsize>"),
}

_STRUCTURE: dict[str, bytes] = {
    "wrong-root": body(root="tsm-response").encode(),
    "root-in-capitals": body(root="TSM-REQUEST").encode(),
    "root-of-html": b"<html><body>404</body></html>",
    "wrong-namespace": body(root='tsm-request xmlns="urn:x"').encode(),
    "prefixed-namespace": body(root='t:tsm-request xmlns:t="urn:x"').encode(),
    "one-element-in-a-namespace": body(operation='<operation-name xmlns="urn:x">backup-image</operation-name>')
    .encode(),
    "two-roots": (_GOOD + _GOOD).encode(),
    "text-after-the-root": (_GOOD + "x").encode(),
    "text-before-the-root": ("x" + _GOOD).encode(),
    "zero-byte-after-the-root": _GOOD.encode() + b"\0",
    "empty-root": b"<tsm-request/>",
    "wrapper-alone": b"<request-data/>",
    "wrapper-around-two-requests": f"<request-data>\n{_GOOD}\n{_GOOD}</request-data>".encode(),
    "wrapper-around-a-wrapper": f"<request-data><request-data>{_GOOD}</request-data></request-data>".encode(),
    "wrapper-around-something-else": f"<request-data><x/>{_GOOD}</request-data>".encode(),
    "wrapper-with-text": f"<request-data>now{_GOOD}</request-data>".encode(),
    "wrapper-with-attribute": f"<request-data a='1'>{_GOOD}</request-data>".encode(),
    "duplicate-operation-name": body(operation="<operation-name>backup-image</operation-name>\n" * 2).encode(),
    "duplicate-timeout-secs": body(timeout="<timeout-secs>1</timeout-secs>\n" * 2).encode(),
    "duplicate-command-options": body(timeout="<command-options/>\n").encode(),
    "duplicate-command-arguments": body(
        arguments="<command-arguments><volume-list>/srv</volume-list></command-arguments>\n" * 2
    ).encode(),
    "missing-operation-name": body(operation="").encode(),
    "missing-command-request": body(commands="").encode(),
    "missing-command-arguments": body(arguments="").encode(),
    "missing-volume-list": body(volumes="").encode(),
    "empty-command-request": body(commands="<command-request/>").encode(),
    "one-good-command-and-an-empty-one": body(
        commands=f"<command-request>{_COMMAND}</command-request>\n<command-request/>"
    ).encode(),
    "operation-name-after-the-command": body(
        operation="", commands=f"<command-request>{_COMMAND}</command-request>\n<operation-name>backup-image"
        "</operation-name>",
    ).encode(),
    "timeout-after-the-options": body(
        arguments="<timeout-secs>1</timeout-secs><command-arguments><volume-list>/srv</volume-list>"
        "</command-arguments>"
    ).encode(),
    "arguments-before-the-options": body(
        timeout="<command-arguments><volume-list>/srv</volume-list></command-arguments>", arguments=""
    ).encode(),
    "unknown-element-in-the-request": body(operation="<operation-type>image</operation-type>").encode(),
    "unknown-element-in-the-command": body(timeout="<timeout>1</timeout>\n").encode(),
    "unknown-element-in-the-arguments": body(volumes="<filespec>/srv</filespec>").encode(),
    "unknown-element-beside-the-volumes": body(
        volumes="<volume-list>/srv</volume-list>\n<filespec>/srv</filespec>"
    ).encode(),
    "options-outside-their-place": body(timeout="<mode>selective</mode>\n").encode(),
    "attribute-on-the-root": body(root='tsm-request version="1"').encode(),
    "attribute-on-the-operation": body(operation='<operation-name a="1">backup-image</operation-name>').encode(),
    "attribute-on-the-time-out": body(timeout='<timeout-secs unit="h">1</timeout-secs>\n').encode(),
    "attribute-on-an-option": _options('<mode x="1">selective</mode>'),
    "attribute-on-the-volumes": body(volumes='<volume-list sep=",">/srv</volume-list>').encode(),
    "attribute-of-xml": body(root='tsm-request xml:lang="en"').encode(),
    "text-in-the-request": body(operation="now <operation-name>backup-image</operation-name>").encode(),
    "text-in-the-command": body(timeout="soon\n").encode(),
    "text-among-the-options": _options("-password=x <mode>selective</mode>"),
    "text-after-an-option": _options("<mode>selective</mode> -password=x"),
    "text-after-the-command": body(
        commands=f"<command-request>{_COMMAND}</command-request>\nand again"
    ).encode(),
    "text-in-the-arguments": body(volumes="/srv <volume-list>/srv</volume-list>").encode(),
    "text-of-no-width-in-the-command": body(timeout="\u200b").encode(),
    "element-in-the-operation": body(operation="<operation-name>backup-image<x/></operation-name>").encode(),
    "element-in-the-time-out": _timeout("1<x/>"),
    "element-in-an-option": _options("<mode>selective<optfile>/tmp/x</optfile></mode>"),
    "element-in-the-volumes": _volume("<volume>/srv</volume>"),
    "element-after-the-volumes-text": _volume("/srv<b/>-quiet"),
}  # fmt: skip

_OPERATION: dict[str, bytes] = {
    f"operation-{name}": body(operation=f"<operation-name>{text}</operation-name>").encode()
    for name, text in {
        "restore-image": "restore-image",
        "archive": "archive",
        "delete-backup": "delete-backup",
        "in-capitals": "BACKUP-IMAGE",
        "in-dsmcs-words": "backup image",
        "with-an-option": "backup-image -optfile=/tmp/x",
        "with-another-after-it": "backup-image\nrestore-image",
        "empty": "",
        "blank": " \n ",
        "with-a-zero-width-blank": "backup\u200b-image",
        "with-another-hyphen": "backup\N{NON-BREAKING HYPHEN}image",
    }.items()
}

_TIMEOUTS: dict[str, bytes] = {
    f"time-out-{name}": _timeout(text)
    for name, text in {
        "negative": "-1",
        "zero": "0",
        "zeros": "000",
        "beyond-the-hosts-maximum": "604801",
        "of-centuries": "9" * 18,
        "beyond-64-bits": "18446744073709551616",
        "of-ten-thousand-digits": "9" * 10_000,
        "fractional": "1.5",
        "empty": "",
        "blank": " \u00a0\n",
        "with-plus": "+60",
        "with-exponent": "1e3",
        "hexadecimal": "0x10",
        "octal-of-python": "0o17",
        "with-underscore": "1_000",
        "with-thousands-mark": "1,000",
        "with-unit": "2h",
        "with-blank-inside": "1 0",
        "in-words": "never",
        "not-a-number": "NaN",
        "infinite": "inf",
        "in-arabic-digits": "\N{ARABIC-INDIC DIGIT ONE}\N{ARABIC-INDIC DIGIT TWO}",
        "in-full-width-digits": "\N{FULLWIDTH DIGIT NINE}",
        "in-superscript": "1\N{SUPERSCRIPT TWO}",
        "with-unicode-minus": "\N{MINUS SIGN}1",
    }.items()
}

_VOLUMES: dict[str, bytes] = {
    f"volume-{name}": _volume(text)
    for name, text in {
        "that-is-an-option": "-optfile=/tmp/x",
        "that-is-a-secret-option": "-password=x",
        "that-is-a-double-dash": "-- /srv",
        "that-is-a-dash": "-",
        "followed-by-an-option": "/srv -quiet",
        "followed-by-an-option-on-its-own-line": "/srv\n-quiet",
        "followed-by-an-option-after-a-no-break-space": "/srv\u00a0-quiet",
        "that-is-a-quoted-option": '"-postsnapshotcmd=rm -rf /"',
        "that-is-an-option-after-a-quoted-blank": '" -quiet"',
        "with-an-option-on-a-quoted-line": '"/srv\n-quiet"',
        "with-a-quoted-line-break": '"/srv/a\n/b"',
        "with-a-quoted-tab": '"/srv/a&#9;b"',
        "that-is-an-option-by-reference": "&#45;quiet",
        "that-is-an-option-in-cdata": "<![CDATA[-quiet]]>",
        "that-is-an-option-after-a-comment": "<!-- x -->-quiet",
        "that-removes-all-with-a-semicolon": "/srv; rm -rf /",
        "that-removes-all-by-substitution": "$(rm -rf /)",
        "that-removes-all-by-backticks": "`rm -rf /`",
        "that-removes-all-after-a-quote": '/srv" ; rm -rf / "',
        "with-one-quote-before": '"/srv',
        "with-one-quote-after": '/srv"',
        "with-three-quotes": '"/srv" "/home',
        "with-a-quote-inside": 'a"b"c',
        "glued-to-a-quoted-one": '"/srv"/home',
        "glued-to-a-quoted-option": '/srv"-quiet"',
        "missing": "",
        "blank": " \n\t ",
        "of-no-break-spaces": "\u00a0\u00a0",
        "quoted-empty": '""',
        "quoted-blank": '/srv "  "',
        "with-delete": "/srv\x7f",
        "with-next-line": "/srv&#x85;-quiet",
        "with-a-control-character-of-iso-6429": "/srv\x9b2J",
        "that-turns-the-reading-direction": "/srv/\N{RIGHT-TO-LEFT OVERRIDE}gmi.exe",
        "with-a-line-separator": "/srv\u2028-quiet",
        "with-the-zero-character-by-reference": "/srv&#0;-quiet",
        "with-a-control-character-by-reference": "/srv&#27;[2J",
        "with-a-surrogate-by-reference": "/srv&#xD800;",
        "with-no-character-by-reference": "/srv&#xFFFF;",
        "with-a-character-beyond-unicode": "/srv&#x110000;",
    }.items()
}

_OPTIONS: dict[str, bytes] = {
    f"option-{name}": _options(text)
    for name, text in {
        "password": "<password>x</password>",
        "password-abbreviated": "<pass>x</pass>",
        "password-in-capitals": "<PASSWORD>x</PASSWORD>",
        "password-as-a-flag": "<password/>",
        "optfile": "<optfile>/tmp/evil.opt</optfile>",
        "optfile-in-odd-case": "<OptFile>/tmp/evil.opt</OptFile>",
        "inclexcl": "<inclexcl>/etc/shadow</inclexcl>",
        "encryptkey": "<encryptkey>prompt</encryptkey>",
        "nodename": "<nodename>db01</nodename>",
        "virtualnodename": "<virtualnode>db01</virtualnode>",
        "tcpserveraddress": "<tcps>evil.example.com</tcps>",
        "errorlogname": "<errorlogname>/etc/passwd</errorlogname>",
        "tracefile": "<tracefile>/etc/passwd</tracefile>",
        "presnapshotcmd": "<presnapshotcmd>rm -rf /</presnapshotcmd>",
        "postsnapshotcmd-abbreviated": "<postsnap>reboot</postsnap>",
        "preschedulecmd": "<preschedulecmd>reboot</preschedulecmd>",
        "of-another-command": "<deletefiles/>",
        "unknown": "<frobnicate>1</frobnicate>",
        "misspelt": "<compresion>yes</compresion>",
        "ambiguous": "<compress>yes</compress>",
        "with-a-dot": "<domain.image>/srv</domain.image>",
        "with-a-dash": "<mode-x>selective</mode-x>",
        "with-an-underscore": "<_mode>selective</_mode>",
        "with-a-cyrillic-letter": "<m\N{CYRILLIC SMALL LETTER O}de>selective</m\N{CYRILLIC SMALL LETTER O}de>",
        "in-a-namespace": '<x:mode xmlns:x="urn:x">selective</x:mode>',
        "twice": "<mode>selective</mode>\n<mode>incremental</mode>",
        "twice-by-abbreviation": "<imagegapsize>1k</imagegapsize>\n<imageg>1k</imageg>",
        "twice-as-a-flag": "<quiet/><quiet/>",
        "without-its-value": "<mode/>",
        "with-a-blank-value": "<mode>\u00a0 </mode>",
        "flag-with-a-value": "<quiet>yes</quiet>",
        "with-a-value-out-of-range": "<snapshotcachesize>101</snapshotcachesize>",
        "with-a-value-unknown": "<mode>full</mode>",
        "with-a-value-in-quotes": '<mode>"selective"</mode>',
        "with-an-option-as-value": "<asnodename>-password=x</asnodename>",
        "with-an-option-in-its-value": "<mode>selective -password=x</mode>",
        "with-an-option-on-its-second-line": "<asnodename>db01\n-password=x</asnodename>",
        "with-a-command-in-its-value": "<asnodename>db01; rm -rf /</asnodename>",
        "with-a-substitution-in-its-value": "<asnodename>$(reboot)</asnodename>",
        "with-backticks-in-its-value": "<asnodename>`reboot`</asnodename>",
        "with-a-control-character": "<asnodename>a&#x7f;b</asnodename>",
        "with-a-no-break-space-inside": "<asnodename>a\u00a0b</asnodename>",
        "of-windows-alone": "<snapshotcachelocation>e:</snapshotcachelocation>",
        "that-contradicts-another": (
            "<dynamicimage>yes</dynamicimage><snapshotproviderimage>LINUX_LVM</snapshotproviderimage>"
        ),
    }.items()
}

_ENCODINGS: dict[str, bytes] = {
    "declared-utf-16-but-utf-8": _declared("utf-16").encode(),
    "declared-ucs-4-but-utf-8": _declared("ucs-4").encode(),
    "declared-utf-7-but-utf-8": _declared("utf-7", body(volumes="<volume-list>/é</volume-list>")).encode(),
    "declared-ascii-but-utf-8": _declared("us-ascii", body(volumes="<volume-list>/é</volume-list>")).encode(),
    "declared-ebcdic-but-utf-8": _declared("ebcdic-cp-us").encode(),
    "declared-cp037-but-utf-8": _declared("cp037").encode(),
    "declared-utf-8-but-latin-1": _declared("utf-8", body(volumes="<volume-list>/é/</volume-list>")).encode(
        "latin-1"
    ),
    "declared-encoding-unknown": _declared("x-klingon").encode(),
    "declared-encoding-without-name": _declared("").encode(),
    "declared-encoding-of-fifty-thousand-letters": _declared("x" * 50_000).encode(),
    "latin-1-undeclared": _raw(b"/\xe9/"),
    "ebcdic-undeclared": _GOOD.encode("cp037"),
    "ebcdic-declared": _declared("cp037").encode("cp037"),
    "utf-16-without-byte-order-mark": _GOOD.encode("utf-16-le"),
    "utf-16-big-endian-without-byte-order-mark": _GOOD.encode("utf-16-be"),
    "utf-16-cut-in-a-character": _GOOD.encode("utf-16")[:-1],
    "utf-16-mark-on-utf-8": b"\xff\xfe" + _GOOD.encode(),
    "utf-8-mark-twice": b"\xef\xbb\xbf" * 2 + _GOOD.encode(),
    "utf-8-mark-alone": b"\xef\xbb\xbf",
    "utf-16-mark-alone": b"\xff\xfe",
    "utf-8-cut-in-a-character": _raw(b"/srv\xc3"),
    "utf-8-over-long-slash": _raw(b"\xc0\xafsrv"),
    "utf-8-of-a-surrogate": _raw(b"/\xed\xa0\x80"),
    "utf-8-beyond-unicode": _raw(b"/\xf4\x90\x80\x80"),
    "zero-byte-in-the-text": _raw(b"/srv\0-quiet"),
    "zero-byte-in-a-name": _GOOD.replace("<mode>", "<mo\0de>").encode(),
    "zero-byte-first": b"\0" + _GOOD.encode(),
    "escape-in-the-text": _raw(b"/srv\x1b[2J"),
    "bell-in-the-text": _raw(b"/srv\x07"),
}

_NO_XML: dict[str, bytes] = {
    "empty-body": b"",
    "body-of-blanks": b" \r\n\t ",
    "body-of-no-break-spaces": "\u00a0\u00a0".encode(),
    "plain-text": b"please back up e:",
    "json": b'{"operation-name": "backup-image", "volume-list": ["/srv"]}',
    "gzip": gzip.compress(_GOOD.encode(), mtime=0),
    "zip": b"PK\x03\x04\x14\x00\x00\x00\x08\x00",
    "random-bytes": bytes(range(256)) * 16,
    "xml-declaration-alone": b'<?xml version="1.0" encoding="utf-8"?>',
    "xml-declaration-not-first": b"\n" + _declared("utf-8").encode(),
    "xml-declaration-inside": _options("<?xml version='1.0'?>"),
    "xml-of-version-2": body(start='<?xml version="2.0"?>').encode(),
    "comment-alone": b"<!-- nothing -->",
    "comment-unclosed": body(start="<!-- ").encode(),
    "comment-with-double-dash": body(start="<!-- a -- b -->").encode(),
    "cdata-alone": b"<![CDATA[<tsm-request/>]]>",
    "cdata-unclosed": _volume("<![CDATA[/srv"),
    "processing-instruction-unclosed": _volume("<?x "),
    "truncated-in-the-middle": _GOOD[: len(_GOOD) // 2].encode(),
    "truncated-before-the-last-byte": _GOOD[:-1].encode(),
    "truncated-in-a-name": _GOOD[: _GOOD.index("-arguments")].encode(),
    "root-unclosed": _GOOD.removesuffix("</tsm-request>").encode(),
    "elements-crossed": _options("<mode><quiet></mode></quiet>"),
    "command-closed-twice-as-in-a-bmc-sample": _GOOD.replace(
        "</command-request>", "</command-request></command-request>"
    ).encode(),
    "ampersand-alone": _volume("/srv & /home"),
    "less-than-in-the-text": _volume("/srv < /home"),
    "attribute-without-quotes": _options("<mode x=1>selective</mode>"),
    "attribute-twice": _options("<mode x='1' x='2'>selective</mode>"),
    "prefix-without-namespace": _options("<x:mode>selective</x:mode>"),
    "name-that-begins-with-a-dash": _options("<-quiet/>"),
    "name-with-a-blank": _options("< quiet/>"),
    "name-with-an-invisible-letter-mismatched": _options("<a\N{ZERO WIDTH JOINER}b></c>"),
}

HOSTILE: dict[str, bytes] = {
    **_ENTITIES,
    **_SIZE,
    **_STRUCTURE,
    **_OPERATION,
    **_TIMEOUTS,
    **_VOLUMES,
    **_OPTIONS,
    **_ENCODINGS,
    **_NO_XML,
}

_UNSEEN_BY_A_SCHEMA = {"attribute-on-an-option", "element-in-an-option"}  # an option may have any name

STRUCTURAL: frozenset[str] = frozenset(
    {name for name in (*_STRUCTURE, *_OPERATION) if not re.search("two-roots|-the-root$|^text-before", name)}
    - _UNSEEN_BY_A_SCHEMA
    | {
        "attribute-on-the-root",
        "a-hundred-and-one-commands",
        "eleven-thousand-commands",
        "time-out-negative",
        "time-out-zero",
        "time-out-fractional",
        "time-out-empty",
        "time-out-in-words",
        "volume-missing",
        "volume-blank",
    }
)
"""Names of those that a schema can see: well-formed documents whose elements are not the contract's."""
