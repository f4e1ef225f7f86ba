"""The options of `dsmc backup image`: one table, and the check of a request against it.

A newcomer adds a row to `OPTIONS`; what is not there never reaches dsmc. Capitals are IBM's and mark the
shortest form of a name or keyword ("Uppercase letters denote the shortest acceptable abbreviation", IBM
8.1.20, Administrative client options). Sources name IBM's page by version and title; [M] marks what is from
memory and unverified, [I] what is inferred. docs/options.md shows the table to administrators.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from string import ascii_lowercase

from worker.contract.request import Option
from worker.errors import RequestRefused
from worker.words import ErrorCode, Platform

LONGEST_VALUE = 4096
"""Characters; far above any sensible value and far below any system's limit for one argument."""

_LONGEST_SHOWN = 60
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # Unicode: control, format, surrogate, separators


@dataclass(frozen=True)
class Allow:
    """What the host's configuration allows (`[dsmc.allow]`).

    `options` are fnmatch patterns on an option's full name, case ignored; those that match `unchecked` may have
    any harmless value on any platform, where this table's facts are older than the host's dsmc.
    `snapshot_commands` are the only texts, compared exactly, that presnapshotcmd and postsnapshotcmd may carry.
    """

    options: tuple[str, ...] = ("*",)
    snapshot_commands: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Words:
    """The keywords an option takes, case ignored, in IBM's capitals; none at all for a flag."""

    words: tuple[str, ...]

    @property
    def legal(self) -> str:
        """The legal values, for people."""
        return " or ".join(self.words) or "no value"

    def accepts(self, value: str) -> bool:
        """Whether `value` is a keyword or IBM's abbreviation of one."""
        return any(_abbreviates(value, word) for word in self.words)


@dataclass(frozen=True, slots=True)
class Shape:
    """The form a value has: a pattern, and the range of every number that the pattern's groups hold.

    `formats` are the adapter's words for a display format, each at the number dsmc wants in its place.
    """

    legal: str
    pattern: str
    low: int = 0
    high: int = 0
    formats: tuple[str, ...] = ()

    def accepts(self, value: str) -> bool:
        """Whether `value` has the form and its numbers lie in the range."""
        match = re.fullmatch(self.pattern, value)
        return match is not None and all(self.low <= int(n) <= self.high for n in match.groups() if n)


Values = Words | Shape

FLAG = Words(())
YES_NO = Words(("YES", "NO"))
NAME = Shape("1 to 64 letters, digits and . _ + & -", r"[A-Za-z0-9._+&-]{1,64}")
COMMAND = Shape("a command that [dsmc.allow] snapshot_commands lists, letter for letter", r".+")
GAP = Shape("n, nk, nm or ng with n from 0 to 4294967295", r"([0-9]{1,10})[KkMmGg]?", 0, 4294967295)
WAIT = Shape(
    "t or t,t with t = n, ns or nms and n from 0 to 999",
    r"([0-9]{1,3})(?:[Mm]?[Ss])?(?:,([0-9]{1,3})(?:[Mm]?[Ss])?)?",
    0,
    999,
)
PLACE = Shape(
    r"a drive letter (e:) or a directory on a local drive (e:\cache)", r'[A-Za-z]:(?:[\\/][^<>:"|?*]*)?'
)


def _number(low: int, high: int, *formats: str) -> Shape:
    return Shape(f"{low} to {high}", r"([0-9]{1,10})", low, high, ("", *formats) if formats else ())


_DATE = _number(
    0, 7, "MM/DD/YYYY", "DD-MM-YYYY", "YYYY-MM-DD", "DD.MM.YYYY", "YYYY.MM.DD", "YYYY/MM/DD", "DD/MM/YYYY"
)
_TIME = _number(0, 5, "HH:MM:SS", "HH,MM,SS", "HH.MM.SS", "HH:MM:SS A/P", "A/P HH:MM:SS")
_FIGURE = _number(0, 6, "D,DDD.DD", "D,DDD,DD", "D DDD,DD", "D DDD.DD", "D.DDD,DD", "D'DDD,DD")


@dataclass(frozen=True, slots=True)
class Row:
    """One option: its name in IBM's capitals, what it is for, its values on each platform that has it.

    `refused` is set where no request may carry it: BAD_REQUEST for an option of another command,
    OPTION_NOT_ALLOWED for one never taken from a message; `use` then says why.
    """

    ibm: str
    use: str
    legal: Mapping[Platform, Values]
    source: str
    refused: ErrorCode | None = None

    @property
    def name(self) -> str:
        """The full name in lower case."""
        return self.ibm.lower()


def _row(ibm: str, use: str, values: Values, source: str) -> Row:
    return Row(ibm, use, dict.fromkeys(Platform, values), source)


def _linux(ibm: str, use: str, values: Values, source: str) -> Row:
    return Row(ibm, use, {Platform.LINUX: values}, source)


def _windows(ibm: str, use: str, values: Values, source: str) -> Row:
    return Row(ibm, use, {Platform.WINDOWS: values}, source)


def _other(ibm: str, command: str, source: str) -> Row:
    return Row(ibm, f"is an option of dsmc {command}, not of backup image", {}, source, ErrorCode.BAD_REQUEST)


def _never(ibm: str, why: str, source: str) -> Row:
    return Row(ibm, f"is never taken from a message: it {why}", {}, source, ErrorCode.OPTION_NOT_ALLOWED)


OPTIONS: tuple[Row, ...] = (
    _row("MODE", "full image, or the files changed since the last", Words(("SELective", "INCRemental")),
         "8.1.22 Mode; abbreviations [M]"),
    _row("IMAGEGapsize", "smallest unused gap that is skipped; no letter = kilobytes", GAP,
         "8.1.2 Imagegapsize; 5.1 Imagegapsize (range)"),
    _linux("DYNAMICImage", "image of a volume in use, without a snapshot", YES_NO, "8.1.2 Dynamicimage"),
    Row("SNAPSHOTPROVIDERImage", "who takes the snapshot",
        {Platform.LINUX: Words(("LINUX_LVM", "NONE")), Platform.WINDOWS: Words(("VSS", "LVSA", "NONE"))},
        "8.2.2 Snapshotproviderimage; LVSA (5.4, 5.5) [M]"),
    _row("IMAGETYpe", "kind of image; clients 5.1 and 5.2 only", Words(("STATIC", "SNAPSHOT", "DYNAMIC")),
         "5.1 Image backup"),
    _row("SNAPSHOTCACHESize", "snapshot cache, per cent of the volume", _number(1, 100),
         "8.2.2 Snapshotcachesize"),
    _windows("SNAPSHOTCACHELocation", "where the cache lies; LVSA, clients 5.1 to 6.3", PLACE,
             "BMC Backup-image sample; form [M]"),
    _windows("SNAPSHOTFSIDLEWait", "how long without writes before the snapshot; LVSA, clients 5.1 to 6.3", WAIT,
             "5.1 Snapshotfsidlewait; BMC Backup-image sample (two times)"),
    _windows("SNAPSHOTFSIDLERetries", "how often that wait is tried; LVSA, clients 5.1 to 6.3", _number(0, 99),
             "BMC Backup-image sample; range [M]"),
    _row("PRESNAPshotcmd", "command before the snapshot", COMMAND, "8.1.2 Presnapshotcmd; abbreviation [M]"),
    _row("POSTSNAPshotcmd", "command after the snapshot", COMMAND, "8.1.15 Postsnapshotcmd; abbreviation [M]"),
    _row("COMPRESSIon", "compress before sending", YES_NO, "8.1.2 Compression"),
    _row("COMPRESSAlways", "go on compressing what grows by it", YES_NO, "8.2.1 Compressalways"),
    _row("ENABLELANFree", "send over the storage network", YES_NO, "5.1 Imagegapsize (LAN-free image); values [M]"),
    _row("ASNODEname", "store under another node; the server grants it (grant proxynode)", NAME,
         "7.1.3 Asnodename; characters [M]"),
    _row("SErvername", "which of the servers that the host's dsm.sys names", NAME,
         "ansible-storage-protect (-se=); characters [M]"),
    _row("QUIET", "fewer messages", FLAG, "8.2.2 Quiet"),
    _row("TAPEPrompt", "wait for a tape mount", YES_NO, "public code (-tapeprompt=no); abbreviation [M]"),
    _row("DATEformat", "how dsmc prints dates", _DATE, "BMC Restore-image (1, 2); ENDIT (3); others [M]"),
    _row("TIMEformat", "how dsmc prints times", _TIME, "8.1.8 Timeformat"),
    _row("NUMberformat", "how dsmc prints numbers", _FIGURE, "8.2.2 Numberformat"),
    _other("DELetefiles", "restore image", "BMC Restore-image"),
    _other("INCREmental", "restore image", "BMC Restore-image"),
    _other("NOPrompt", "restore image", "BMC Restore-image"),
    _other("VERIFYImage", "restore image", "BMC Restore-image"),
    _other("IMAGETOfile", "restore image", "[M]"),
    _other("INCRBYDate", "incremental", "BMC Backup-incremental"),
    _other("SNAPSHOTRoot", "incremental, selective and archive", "7.1.2 ANS2225W"),
    _other("SUbdir", "incremental, selective and archive", "public code (-su=yes); commands [M]"),
    _never("PASsword", "is a secret, and arguments are visible to every user of the host", "7.1.3 Password"),
    _never("ENCRYPTKey", "handles keys, and its prompt would block the run", "[M]"),
    _never("ENCRYPTIONType", "belongs to the host's options file", "[M]"),
    _never("NODename", "changes who the host is and makes dsmc ask for a password", "8.2.2 Nodename"),
    _never("VIRTUALNodename", "changes who the host is and makes dsmc ask for a password", "8.2.2 Virtualnodename"),
    _never("TCPServeraddress", "sends the host's data and password to a server of the sender's choice", "[M]"),
    _never("OPTFILE", "reads a file of options, so it could set any of them", "public code (-optfile)"),
    _never("INCLExcl", "reads a file of options", "[M]"),
    _never("ERRORLOGName", "writes a file of the sender's choice with dsmc's rights", "ENDIT (-errorlogname)"),
    _never("SCHEDLOGName", "writes a file of the sender's choice with dsmc's rights", "[M]"),
    _never("TRACEFILE", "writes a file of the sender's choice with dsmc's rights", "[M]"),
    _never("TRACEFLAGS", "makes dsmc write traces, which can hold secrets", "[M]"),
    _never("PRESChedulecmd", "runs a command", "[M]"),
    _never("POSTSChedulecmd", "runs a command", "[M]"),
)  # fmt: skip
"""Every option this package knows."""


@dataclass(frozen=True, slots=True)
class Clash:
    """Two options that contradict each other, with the keywords that make them; none means any value."""

    one: str
    one_words: tuple[str, ...]
    other: str
    other_words: tuple[str, ...]
    why: str


_LVSA = ("snapshotcachelocation", "snapshotfsidlewait", "snapshotfsidleretries")
_SNAPSHOT = ("snapshotcachesize", *_LVSA, "presnapshotcmd", "postsnapshotcmd")

CLASHES: tuple[Clash, ...] = (
    Clash("imagetype", (), "dynamicimage", (), "dynamicimage replaced imagetype after client 5.2"),
    Clash("imagetype", (), "snapshotproviderimage", (), "snapshotproviderimage replaced imagetype after client 5.2"),
    Clash("dynamicimage", ("YES",), "snapshotproviderimage", ("LINUX_LVM",), "a dynamic image takes no snapshot"),
    *(Clash("snapshotproviderimage", ("NONE",), n, (), "without a snapshot it has no meaning") for n in _SNAPSHOT),
    *(Clash("imagetype", ("STATIC", "DYNAMIC"), n, (), "without a snapshot it has no meaning") for n in _SNAPSHOT),
    *(Clash("snapshotproviderimage", ("VSS",), n, (), "only the provider LVSA reads it") for n in _LVSA),
)  # fmt: skip
"""Every contradiction among options (all [I], from section 2 of the facts sheet and IBM's option pages)."""

_LOCAL = (
    "leave it out of the request; the host's administrator sets it in dsm.opt or dsm.sys where it is needed"
)


def check(options: Sequence[Option], platform: Platform, allow: Allow) -> tuple[str, ...]:
    """Return dsmc's arguments for `options`: in their order, names and values exactly as given.

    Raise RequestRefused, BAD_REQUEST where the request is wrong whatever the host, OPTION_NOT_ALLOWED where
    this host or any host declines.
    """
    taken: dict[str, Option] = {}
    for option in options:
        row = _find(option)
        if row.name in taken:
            first = taken[row.name]
            raise _bad(
                option,
                f"is given twice: <{first.name}> on line {first.line} is {row.name} too",
                "legal is each option once; remove one of the two",
            )
        _check_allowed(option, row, platform, allow)
        values = row.legal.get(platform) or next(iter(row.legal.values()))
        _check_value(option, row, values, checked=not _matches(row, allow.unchecked))
        if values is COMMAND and option.value not in allow.snapshot_commands:
            raise _not_allowed(
                option,
                f"has the command {_shown(option.value)}, which this host does not list",
                f"legal is {COMMAND.legal}; have it listed there, or remove the option",
            )
        taken[row.name] = option
    _check_clashes(taken)
    return tuple(f"-{o.name}={o.value}" if o.value else f"-{o.name}" for o in options)


def full_name(name: str) -> str | None:
    """Return the full name in lower case of the option that `name` is or abbreviates, else None."""
    return next((row.name for row in OPTIONS if _abbreviates(name, row.ibm)), None)


def is_incremental(options: Sequence[Option]) -> bool:
    """Whether the request asks for `mode=incremental`, which no raw volume can have (IBM, ANE4000E)."""
    return any(full_name(o.name) == "mode" and _abbreviates(o.value or "", "INCRemental") for o in options)


def _abbreviates(given: str, ibm: str) -> bool:
    """Whether `given` is `ibm` or a prefix of it that holds all its capitals, case ignored."""
    capitals = len(ibm.rstrip(ascii_lowercase))
    # isascii: U+212A, the Kelvin sign, is a k in lower case
    return given.isascii() and len(given) >= capitals and ibm.lower().startswith(given.lower())


def _find(option: Option) -> Row:
    """Return the row of the option that a request may carry. Raise RequestRefused for every other name.

    No message here shows the value: a misspelt password is a password.
    """
    if not re.fullmatch("[A-Za-z]+", option.name):
        raise _bad(
            option, "is no option name", "legal are the letters A to Z; write an option such as <mode>"
        )
    name = full_name(option.name)
    if name is None:
        longer = [row.ibm for row in OPTIONS if row.name.startswith(option.name.lower())]
        near = get_close_matches(option.name.lower(), [row.name for row in OPTIONS], n=1)
        if longer:
            problem = "is an ambiguous abbreviation" if len(longer) > 1 else "is too short an abbreviation"
            remedy = f"legal is {' or '.join(longer)}, at least the capitals; write the name in full"
        else:
            problem = "is no option of dsmc backup image"
            remedy = f"did you mean <{near[0]}>?" if near else "remove it"
            remedy = f"legal are the options that docs/options.md lists; {remedy}"
        raise _bad(option, problem, remedy)
    row = next(row for row in OPTIONS if row.name == name)
    if row.refused is ErrorCode.BAD_REQUEST:
        raise _bad(
            option, f"({name}) {row.use}", "legal are the options that docs/options.md lists; remove it"
        )
    if row.refused is not None:
        raise _not_allowed(option, f"({name}) {row.use}", f"no value of it is legal; {_LOCAL}")
    return row


def _check_allowed(option: Option, row: Row, platform: Platform, allow: Allow) -> None:
    """Raise RequestRefused unless the platform has the option and the host's configuration allows it."""
    if platform not in row.legal and not _matches(row, allow.unchecked):
        legal = " and ".join(row.legal)
        raise _not_allowed(
            option,
            f"({row.name}) does not exist on {platform}; found {_shown(option.value)}",
            f"legal only on {legal}; remove it, or send the request to a host that runs {legal}",
        )
    if not _matches(row, allow.options):
        raise _not_allowed(
            option,
            f"({row.name}) is not among the options this host allows; found {_shown(option.value)}",
            "legal is what [dsmc.allow] options matches; have it added there, or remove it",
        )


def _matches(row: Row, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(row.name, pattern.lower()) for pattern in patterns)


def _check_value(option: Option, row: Row, values: Values, *, checked: bool) -> None:
    """Raise RequestRefused unless the value is there, harmless as an argument and, if `checked`, legal."""
    value, fix = option.value, f"legal is {values.legal}; correct the value"
    if values is FLAG:
        if value:
            raise _bad(
                option, f"takes no value; found {_shown(value)}", f"legal is <{option.name}/>; write that"
            )
        return
    if not value:
        raise _bad(option, "has no value", f"legal is {values.legal}; give a value")
    if len(value) > LONGEST_VALUE:
        raise _bad(
            option,
            f"has a value of {len(value)} characters, {_shown(value)}",
            f"legal are at most {LONGEST_VALUE}, and {values.legal}; shorten it",
        )
    hidden = next((c for c in value if unicodedata.category(c) in _INVISIBLE), None)
    if hidden is not None:
        raise _bad(option, f"has the control character U+{ord(hidden):04X} in its value {_shown(value)}", fix)
    if value.startswith("-"):
        raise _bad(option, f"has the value {_shown(value)}, which dsmc could take for an option", fix)
    if checked and not values.accepts(value):
        if isinstance(values, Shape) and value.upper() in values.formats:
            fix = f"legal is {values.legal}; write {values.formats.index(value.upper())} in its place"
        raise _bad(option, f"({row.name}) has the value {_shown(value)}", fix)


def _check_clashes(taken: Mapping[str, Option]) -> None:
    """Raise RequestRefused where two of the options, keyed by full name, contradict each other."""
    for clash in CLASHES:
        one, other = taken.get(clash.one), taken.get(clash.other)
        if one and other and _says(one, clash.one_words) and _says(other, clash.other_words):
            raise _bad(
                other,
                f"({clash.other}, {_shown(other.value)}) contradicts <{one.name}> ({_shown(one.value)}) "
                f"on line {one.line}: {clash.why}",
                "legal is one of the two; remove the other",
            )


def _says(option: Option, words: tuple[str, ...]) -> bool:
    return not words or Words(words).accepts(option.value or "")


def _shown(value: str | None) -> str:
    """Return a value for a message: quoted, on one line and short."""
    if not value:
        return "no value"
    return repr(value if len(value) <= _LONGEST_SHOWN else f"{value[:_LONGEST_SHOWN]}…")


def _message(option: Option, problem: str, remedy: str) -> str:
    name = option.name if re.fullmatch("[A-Za-z]{1,60}", option.name) else _shown(option.name)
    return f"line {option.line}: <{name}> {problem}; {remedy}"


def _bad(option: Option, problem: str, remedy: str) -> RequestRefused:
    return RequestRefused(ErrorCode.BAD_REQUEST, _message(option, problem, remedy))


def _not_allowed(option: Option, problem: str, remedy: str) -> RequestRefused:
    return RequestRefused(ErrorCode.OPTION_NOT_ALLOWED, _message(option, problem, remedy))
