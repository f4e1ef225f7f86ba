"""What `dsmc backup image` may be told."""

import re
from fnmatch import fnmatch
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract.options import CLASHES, OPTIONS, Allow, check, full_name, is_incremental
from worker.contract.request import Option
from worker.errors import RequestRefused
from worker.words import ErrorCode, Platform

LINUX, WINDOWS = Platform.LINUX, Platform.WINDOWS
BAD, NOT_ALLOWED = ErrorCode.BAD_REQUEST, ErrorCode.OPTION_NOT_ALLOWED
HOOK = "/usr/local/bin/quiesce --db web"
ALLOW = Allow(snapshot_commands=(HOOK,))
DOCUMENT = Path(__file__).parents[2] / "docs" / "options.md"

SAMPLE = (
    ("compressalways", "no"),
    ("compression", "yes"),
    ("imagegapsize", "10k"),
    ("mode", "Selective"),
    ("snapshotcachesize", "10"),
    ("snapshotcachelocation", "e:"),
    ("snapshotfsidleretries", "1"),
    ("snapshotfsidlewait", "4s,500ms"),
)


def elements(*pairs: tuple[str, str | None]) -> tuple[Option, ...]:
    return tuple(Option(name, value, line) for line, (name, value) in enumerate(pairs, start=6))


def refusal(
    *pairs: tuple[str, str | None], platform: Platform = LINUX, allow: Allow = ALLOW
) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        check(elements(*pairs), platform, allow)
    return caught.value


def test_the_sample_request_passes_on_windows_in_document_order() -> None:
    assert check(elements(*SAMPLE), WINDOWS, ALLOW) == tuple(f"-{name}={value}" for name, value in SAMPLE)


def test_the_sample_request_is_refused_on_linux_for_its_windows_options() -> None:
    error = refusal(*SAMPLE)
    assert error.code is NOT_ALLOWED
    assert "line 11: <snapshotcachelocation>" in str(error)


def test_no_options_are_no_arguments() -> None:
    assert check((), LINUX, ALLOW) == ()


ACCEPTED: list[tuple[Platform, str, str | None]] = [
    (LINUX, "mode", "selective"),
    (LINUX, "MODE", "SEL"),
    (LINUX, "mode", "incr"),
    (LINUX, "mode", "InCrEmEnTaL"),
    (LINUX, "imagegapsize", "0"),
    (LINUX, "imagegapsize", "4294967295"),
    (LINUX, "imageg", "64K"),
    (WINDOWS, "ImageGap", "1m"),
    (WINDOWS, "imagegapsize", "1G"),
    (LINUX, "dynamicimage", "yes"),
    (LINUX, "snapshotproviderimage", "linux_lvm"),
    (LINUX, "snapshotprovideri", "NONE"),
    (WINDOWS, "snapshotproviderimage", "VSS"),
    (WINDOWS, "snapshotproviderimage", "lvsa"),
    (WINDOWS, "imagetype", "Snapshot"),
    (LINUX, "snapshotcachesize", "1"),
    (LINUX, "snapshotcachesize", "100"),
    (WINDOWS, "snapshotcachelocation", "F:\\old blocks\\c"),
    (WINDOWS, "snapshotfsidlewait", "0"),
    (WINDOWS, "snapshotfsidlewait", "2s"),
    (WINDOWS, "snapshotfsidlewait", "999MS,1"),
    (WINDOWS, "snapshotfsidleretries", "99"),
    (LINUX, "presnapshotcmd", HOOK),
    (LINUX, "postsnap", HOOK),
    (LINUX, "compressa", "No"),
    (LINUX, "compressi", "YES"),
    (LINUX, "enablelanfree", "no"),
    (LINUX, "asnode", "CLUSTER_1.x"),
    (LINUX, "se", "tsm-2"),
    (LINUX, "quiet", None),
    (LINUX, "quiet", ""),
    (LINUX, "tapeprompt", "no"),
    (LINUX, "date", "3"),
    (LINUX, "timeformat", "1"),
    (LINUX, "num", "6"),
]


@pytest.mark.parametrize(("platform", "name", "value"), ACCEPTED)
def test_a_legal_option_reaches_dsmc_exactly_as_given(
    platform: Platform, name: str, value: str | None
) -> None:
    expected = f"-{name}={value}" if value else f"-{name}"
    assert check(elements((name, value)), platform, ALLOW) == (expected,)


REFUSED: list[tuple[ErrorCode, Platform, str, str | None, str]] = [
    # no name, no option, no clear option
    (BAD, LINUX, "", "1", "is no option name"),
    (BAD, LINUX, "domain.image", "/home", "is no option name"),
    (BAD, LINUX, "mode=incremental -x", None, "is no option name"),
    (BAD, LINUX, "-quiet", None, "is no option name"),
    (BAD, LINUX, "quiet\n", None, "is no option name"),
    (BAD, LINUX, "m\N{CYRILLIC SMALL LETTER O}de", "selective", "is no option name"),
    (BAD, LINUX, "{urn:x}mode", "selective", "is no option name"),
    (BAD, LINUX, "frobnicate", "1", "is no option of dsmc backup image"),
    (BAD, LINUX, "compresion", "yes", "did you mean <compression>?"),
    (BAD, LINUX, "imagegapsise", "1k", "did you mean <imagegapsize>?"),
    (BAD, LINUX, "compress", "yes", "ambiguous abbreviation; legal is COMPRESSIon or COMPRESSAlways"),
    (BAD, LINUX, "snapshot", "1", "ambiguous abbreviation"),
    (BAD, LINUX, "mo", "selective", "too short an abbreviation; legal is MODE"),
    (BAD, LINUX, "modes", "selective", "did you mean <mode>?"),
    # options of other commands
    (BAD, LINUX, "noprompt", None, "(noprompt) is an option of dsmc restore image"),
    (BAD, LINUX, "del", None, "(deletefiles) is an option of dsmc restore image"),
    (BAD, LINUX, "verifyimage", None, "dsmc restore image"),
    (BAD, LINUX, "incremental", None, "dsmc restore image"),
    (BAD, LINUX, "imagetofile", "/srv/x", "dsmc restore image"),
    (BAD, LINUX, "incrbydate", None, "(incrbydate) is an option of dsmc incremental"),
    (BAD, LINUX, "snapshotroot", "/snap", "incremental, selective and archive"),
    (BAD, LINUX, "su", "yes", "(subdir) is an option of"),
    # values missing, superfluous, hostile
    (BAD, LINUX, "mode", None, "has no value; legal is SELective or INCRemental"),
    (BAD, LINUX, "mode", "", "has no value"),
    (BAD, LINUX, "quiet", "yes", "takes no value; found 'yes'; legal is <quiet/>"),
    (BAD, LINUX, "asnodename", "-password=x", "dsmc could take for an option"),
    (BAD, WINDOWS, "snapshotcachelocation", "-e:", "dsmc could take for an option"),
    (BAD, LINUX, "asnodename", "a\0b", "U+0000"),
    (BAD, LINUX, "asnodename", "a\n-quiet", "U+000A"),
    (BAD, LINUX, "asnodename", "a\x1b[2J", "U+001B"),
    (BAD, WINDOWS, "snapshotcachelocation", "e:\\\N{RIGHT-TO-LEFT OVERRIDE}x", "U+202E"),
    (BAD, WINDOWS, "snapshotcachelocation", "e:\\" + "x" * 4094, "4097 characters"),
    # values out of form and range
    (BAD, LINUX, "mode", "full", "legal is SELective or INCRemental"),
    (BAD, LINUX, "mode", "SE", "legal is SELective"),
    (BAD, LINUX, "mode", " selective", "' selective'"),
    (BAD, LINUX, "compression", "maybe", "legal is YES or NO"),
    (BAD, LINUX, "imagegapsize", "4294967296", "n from 0 to 4294967295"),
    (BAD, LINUX, "imagegapsize", "9" * 4000, "n from 0 to 4294967295"),
    (BAD, LINUX, "imagegapsize", "10t", "n, nk, nm or ng"),
    (BAD, LINUX, "imagegapsize", "10\N{KELVIN SIGN}", "n, nk, nm or ng"),
    (BAD, LINUX, "imagegapsize", "\N{ARABIC-INDIC DIGIT ONE}", "n, nk, nm or ng"),
    (BAD, LINUX, "imagegapsize", "1.5m", "n, nk, nm or ng"),
    (BAD, LINUX, "snapshotcachesize", "0", "legal is 1 to 100"),
    (BAD, LINUX, "snapshotcachesize", "101", "legal is 1 to 100"),
    (BAD, LINUX, "snapshotcachesize", "10%", "legal is 1 to 100"),
    (BAD, WINDOWS, "snapshotfsidlewait", "1000", "n from 0 to 999"),
    (BAD, WINDOWS, "snapshotfsidlewait", "1s,", "n from 0 to 999"),
    (BAD, WINDOWS, "snapshotfsidlewait", "1s,2s,3s", "n from 0 to 999"),
    (BAD, WINDOWS, "snapshotfsidlewait", "1h", "n from 0 to 999"),
    (BAD, WINDOWS, "snapshotfsidleretries", "100", "legal is 0 to 99"),
    (BAD, WINDOWS, "snapshotcachelocation", "cache", "a drive letter"),
    (BAD, WINDOWS, "snapshotcachelocation", "\\\\server\\share", "a drive letter"),
    (BAD, WINDOWS, "snapshotcachelocation", "e:\\file:stream", "a drive letter"),
    (BAD, LINUX, "snapshotproviderimage", "VSS", "legal is LINUX_LVM or NONE"),
    (BAD, WINDOWS, "snapshotproviderimage", "LINUX_LVM", "legal is VSS or LVSA or NONE"),
    (BAD, LINUX, "imagetype", "online", "legal is STATIC or SNAPSHOT or DYNAMIC"),
    (BAD, LINUX, "asnodename", "a b", "1 to 64 letters"),
    (BAD, LINUX, "servername", "x" * 65, "1 to 64 letters"),
    (BAD, LINUX, "dateformat", "8", "legal is 0 to 7"),
    (BAD, LINUX, "dateformat", "MM/DD/YYYY", "write 1 in its place"),
    (BAD, LINUX, "dateformat", "dd-mm-yyyy", "write 2 in its place"),
    (BAD, LINUX, "timeformat", "HH:MM:SS", "write 1 in its place"),
    (BAD, LINUX, "numberformat", "d,ddd.dd", "write 1 in its place"),
    # not on this platform
    (NOT_ALLOWED, WINDOWS, "dynamicimage", "yes", "does not exist on windows"),
    (NOT_ALLOWED, LINUX, "snapshotcachelocation", "e:", "legal only on windows"),
    (NOT_ALLOWED, LINUX, "snapshotfsidlewait", "1s", "does not exist on linux"),
    (NOT_ALLOWED, LINUX, "snapshotfsidler", "1", "(snapshotfsidleretries) does not exist on linux"),
    # never from a message
    (NOT_ALLOWED, LINUX, "encryptkey", "save", "(encryptkey) is never taken from a message"),
    (NOT_ALLOWED, LINUX, "encryptiontype", "AES256", "options file"),
    (NOT_ALLOWED, LINUX, "nodename", "web02", "changes who the host is"),
    (NOT_ALLOWED, LINUX, "virtualnode", "web02", "(virtualnodename) is never taken"),
    (NOT_ALLOWED, LINUX, "optfile", "/srv/dsm.opt", "reads a file"),
    (NOT_ALLOWED, LINUX, "errorlogname", "/etc/passwd", "writes a file"),
    (NOT_ALLOWED, LINUX, "schedlogname", "/etc/passwd", "writes a file"),
    (NOT_ALLOWED, LINUX, "tracefile", "/etc/passwd", "writes a file"),
    (NOT_ALLOWED, LINUX, "traceflags", "all", "traces"),
    (NOT_ALLOWED, LINUX, "tcps", "evil.example.com", "sends the host's data"),
    # commands
    (NOT_ALLOWED, LINUX, "presnapshotcmd", "rm -rf /", "'rm -rf /', which this host does not list"),
    (NOT_ALLOWED, LINUX, "postsnapshotcmd", HOOK.upper(), "letter for letter"),
    (NOT_ALLOWED, LINUX, "presnap", f"{HOOK} ", "letter for letter"),
]


@pytest.mark.parametrize(("code", "platform", "name", "value", "words"), REFUSED)
def test_a_wrong_option_is_refused_and_the_message_says_why(
    code: ErrorCode, platform: Platform, name: str, value: str | None, words: str
) -> None:
    error = refusal(("enablelanfree", "no"), (name, value), platform=platform)
    assert error.code is code
    assert words in str(error)
    assert str(error).startswith("line 7: <")
    assert "legal" in str(error)
    assert len(str(error)) < 600
    assert str(error).isprintable()


@pytest.mark.parametrize(
    "name", ["password", "PASS", "passwrd", "passwords", "pa", "pass-word", "encryptkey"]
)
def test_a_secret_is_in_no_message_even_when_its_option_is_misspelt(name: str) -> None:
    assert "s3cret" not in str(refusal((name, "s3cret")))


@pytest.mark.parametrize("name", ["password", "pas", "PASSWord"])
def test_a_password_is_never_allowed_however_it_is_spelt(name: str) -> None:
    assert refusal((name, "x"), allow=Allow(options=("*", "password"))).code is NOT_ALLOWED


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("mode", "selective"), ("mode", "incremental")),
        (("imagegapsize", "1k"), ("ImageG", "1k")),
        (("quiet", None), ("QUIET", None)),
    ],
)
def test_an_option_comes_once_however_it_is_abbreviated(
    first: tuple[str, str | None], second: tuple[str, str | None]
) -> None:
    error = refusal(first, ("compression", "no"), second)
    assert error.code is BAD
    assert f"line 8: <{second[0]}> is given twice: <{first[0]}> on line 6" in str(error)


@pytest.mark.parametrize(
    ("platform", "one", "other"),
    [
        (LINUX, ("dynamicimage", "yes"), ("snapshotproviderimage", "linux_lvm")),
        (LINUX, ("imagetype", "dynamic"), ("dynamicimage", "yes")),
        (WINDOWS, ("imagetype", "snapshot"), ("snapshotproviderimage", "VSS")),
        (LINUX, ("snapshotproviderimage", "none"), ("snapshotcachesize", "10")),
        (LINUX, ("snapshotproviderimage", "none"), ("presnapshotcmd", HOOK)),
        (WINDOWS, ("imagetype", "static"), ("snapshotfsidleretries", "1")),
        (WINDOWS, ("snapshotproviderimage", "VSS"), ("snapshotcachelocation", "e:")),
    ],
)
def test_contradictions_are_refused_in_either_order(
    platform: Platform, one: tuple[str, str], other: tuple[str, str]
) -> None:
    for pair in ((one, other), (other, one)):
        error = refusal(*pair, platform=platform)
        assert error.code is BAD
        assert "contradicts" in str(error)


@pytest.mark.parametrize(
    ("platform", "one", "other"),
    [
        (LINUX, ("dynamicimage", "yes"), ("snapshotproviderimage", "none")),
        (LINUX, ("dynamicimage", "no"), ("snapshotproviderimage", "linux_lvm")),
        (WINDOWS, ("snapshotproviderimage", "LVSA"), ("snapshotfsidlewait", "2s")),
        (WINDOWS, ("imagetype", "snapshot"), ("snapshotcachesize", "10")),
    ],
)
def test_options_that_agree_pass_together(
    platform: Platform, one: tuple[str, str], other: tuple[str, str]
) -> None:
    assert len(check(elements(one, other), platform, ALLOW)) == 2


@pytest.mark.parametrize(
    ("patterns", "name", "allowed"),
    [
        (("*",), "mode", True),
        ((), "mode", False),
        (("mode",), "compression", False),
        (("COMPRESS*",), "compressi", True),
        (("compressi",), "compressi", False),
        (("snapshot*", "mode"), "MODE", True),
    ],
)
def test_the_hosts_patterns_match_full_names_in_any_case(
    patterns: tuple[str, ...], name: str, *, allowed: bool
) -> None:
    options = elements((name, "selective" if name.lower() == "mode" else "yes"))
    if allowed:
        assert check(options, LINUX, Allow(options=patterns))
    else:
        with pytest.raises(RequestRefused, match="not among the options this host allows") as caught:
            check(options, LINUX, Allow(options=patterns))
        assert caught.value.code is NOT_ALLOWED


def test_snapshot_commands_are_off_unless_the_host_lists_them() -> None:
    assert refusal(("presnapshotcmd", HOOK), allow=Allow()).code is NOT_ALLOWED


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("Mode", "mode"),
        ("imageg", "imagegapsize"),
        ("image", None),
        ("compress", None),
        ("compressi", "compression"),
        ("se", "servername"),
        ("PASS", "password"),
        ("imagegapsizes", None),
        ("encrypt\N{KELVIN SIGN}", None),
        ("", None),
    ],
)
def test_an_abbreviation_is_resolved_to_the_full_name(name: str, full: str | None) -> None:
    assert full_name(name) == full


@pytest.mark.parametrize(
    ("name", "value", "incremental"),
    [
        ("mode", "incremental", True),
        ("MODE", "Incr", True),
        ("mode", "selective", False),
        ("mode", None, False),
        ("mode", "inc", False),
        ("incremental", None, False),
    ],
)
def test_an_incremental_request_is_recognised(name: str, value: str | None, *, incremental: bool) -> None:
    assert is_incremental(elements(("quiet", None), (name, value))) is incremental


def test_no_two_options_share_an_abbreviation() -> None:
    for one, other in combinations(OPTIONS, 2):
        shortest = [re.match("[^a-z]+", row.ibm) for row in (one, other)]
        assert shortest[0]
        assert shortest[1]
        assert not one.name.startswith(other.name[: shortest[1].end()]) or not other.name.startswith(
            one.name[: shortest[0].end()]
        )


def test_contradictions_are_between_options_of_the_table() -> None:
    known = {row.name for row in OPTIONS if not row.refused}
    assert {name for clash in CLASHES for name in (clash.one, clash.other)} <= known


def test_every_row_says_its_use_and_its_source() -> None:
    assert all(row.use and row.source for row in OPTIONS)
    assert all(bool(row.legal) is (row.refused is None) for row in OPTIONS)


def test_the_administrators_document_is_the_table() -> None:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    written = [tuple(line[2:-2].split(" | ")) for line in lines if line.startswith("| ")]
    accepted = [
        (r.ibm, *(r.legal[p].legal if p in r.legal else "-" for p in Platform), r.use, r.source)
        for r in OPTIONS
        if r.refused is None
    ]
    refused = [(r.ibm, str(r.refused), r.use, r.source) for r in OPTIONS if r.refused]
    heads = [("Option", "Linux", "Windows", "Use", "Source"), ("Option", "Code", "It", "Source")]
    assert written == [heads[0], *accepted, heads[1], *refused]


_NAMES = st.sampled_from([row.name for row in OPTIONS] + [name for _, name, _ in ACCEPTED]) | st.text(
    max_size=9
)
_VALUES = st.none() | st.text(max_size=30) | st.sampled_from([value for *_, value in ACCEPTED])
_LEGAL = st.sampled_from([(name, value) for _, name, value in ACCEPTED])
_PATTERNS = st.sampled_from([("*",), ("s*", "[a-m]*"), ("mode", "COMPRESS*")])


@given(
    pairs=st.lists(_LEGAL, max_size=3) | st.lists(_LEGAL | st.tuples(_NAMES, _VALUES), max_size=2),
    platform=st.sampled_from(Platform),
    patterns=_PATTERNS,
)
def test_an_argument_is_always_an_allowed_option_and_carries_the_given_value(
    pairs: list[tuple[str, str | None]], platform: Platform, patterns: tuple[str, ...]
) -> None:
    allow = Allow(options=patterns, snapshot_commands=(HOOK,))
    try:
        arguments = check(elements(*pairs), platform, allow)
    except RequestRefused:
        return
    usable = {row.name for row in OPTIONS if row.refused is None and platform in row.legal}
    assert len(arguments) == len(pairs)
    for argument, (name, value) in zip(arguments, pairs, strict=True):
        leading, _, carried = argument.partition("=")
        assert leading == f"-{name}"
        assert full_name(name) in {n for n in usable for p in patterns if fnmatch(n, p.lower())}
        assert carried == (value or "")
        assert not carried.startswith("-")


def test_an_unchecked_option_may_have_any_harmless_value_on_any_platform() -> None:
    allow = Allow(unchecked=("snapshotfsidle*", "mode"))
    given = [Option("snapshotfsidlewait", "2 fortnights", 1), Option("mode", "backwards", 2)]
    assert check(given, Platform.LINUX, allow) == ("-snapshotfsidlewait=2 fortnights", "-mode=backwards")
    for hostile in ("-quiet", "a\nb", ""):
        with pytest.raises(RequestRefused):
            check([Option("mode", hostile, 1)], Platform.LINUX, allow)
    with pytest.raises(RequestRefused):
        check([Option("password", "x", 1)], Platform.LINUX, Allow(unchecked=("*",)))
