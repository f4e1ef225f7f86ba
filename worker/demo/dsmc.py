# ruff: noqa: PLC0415, PTH100, PTH109, PTH123
# Why: pathlib, json, signal or typing, imported here, would each nearly double the time this needs to start.
"""The stand-in for IBM's dsmc, for the demo and the tests: speaks like the client 5.5 or 8.1, backs up nothing.

Run as `python -I -S worker/demo/dsmc.py backup image -option=value … volume …` (also `query session`). It checks
its arguments as dsmc would. What it then plays is told by a plan, a JSON file named by the environment variable
`DSM_STANDIN`; without one it plays a success of version 8.1. `write_plan` writes one:

    {"log": "/path/runs.ndjson", "default": BEHAVIOUR, "volumes": {"/dev/sdb1": BEHAVIOUR or [BEHAVIOUR, …]}}

The first volume of the command line decides; of a list the volume's first run takes the first behaviour, the
second the second, and the last repeats (runs are counted by the log, which a list therefore needs). A volume's
behaviour stands in place of the default, it is not merged with it. Keys of a behaviour, all optional:

    version      "8.1" or "5.5": how it speaks. Said outright, "8.1" also refuses the LVSA options (ANS1107E).
    node, server names to show. Default: this machine's host name, and SERVER1
    dates        [client's, server's, last access] as texts. Default: now
    messages     full message texts (any language, may hold line ends), or bare codes ("ANS1017E") whose text is
                 filled in where it is known. Each is printed where dsmc prints it: before the banner, in place
                 of the session, or in the first volume's block; an error before the volumes ends the run.
                 A volume that failed ends with ANS1813E, which need not be listed.
    exit         exit code. Default: follows from the messages: none 0, only skipped files 4, W 8, E or S 12
    seconds      how long the work takes, with progress lines now and then
    hang         true: never comes to an end once its messages are out
    prompt       "password" or "user": ANS1051I, then asks and reads stdin; at its end ANS2050E, ANS1029E, exit 12
    lines        this many numbered lines of output, each `line_length` characters long if that is given
    bytes        hex digits, or a list of them: bytes printed raw, each as a line
    stderr       lines for stderr
    ignore_term  true: SIGTERM does nothing (on Windows, where that cannot be refused, Ctrl-C and Ctrl-Break)
    orphan       seconds: a child in the same process group holds stdout, until so long after this process has gone
    crash        "SIGSEGV" or another signal: ends itself by it once its messages are out
    transcript   file printed as it is (but for lines that begin `# source:`) in place of all dsmc would say

The log gets one JSON line when a run starts, before it says or does anything, and one when it ends; a run ended by
a signal has no end line. `runs` reads it.

Sources: IBM's client messages and return codes (c_sched_rtncode), the transcripts in tests/fixtures/transcripts; no
transcript of an image backup of several volumes or by 8.1 is public, so these two are put together from others.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Any

    Behaviour = Mapping[str, Any]

# Tables are texts: a text costs nothing to compile, and this file is compiled at each start.
# Capitals are the shortest form. Kinds: flag, yes-no, text, size, mode, a range of numbers, `other` for an option
# that only other commands take. A version after it: an option that no other version knows (LVSA).
OPTIONS = """
IMAGEGapsize size
DYNAMICImage yes-no
SNAPSHOTPROVIDERImage text
SNAPSHOTCACHESize 1..100
SNAPSHOTCACHELocation text 5.5
SNAPSHOTFSIDLEWait text 5.5
SNAPSHOTFSIDLERetries 0..99 5.5
PRESNAPshotcmd text
POSTSNAPshotcmd text
MODE mode
IMAGETYpe text 5.5
COMPRESSIon yes-no
COMPRESSAlways yes-no
ASNODEname text
ENABLELANFree yes-no
SErvername text
OPTFILE text
NODename text
VIRTUALNodename text
PAssword text
QUIET flag
VErbose flag
ERRORLOGName text
DATEformat 0..9
TIMEformat 0..9
NUMberformat 0..9
TAPEPrompt yes-no
TRACEFILE text
TRACEFLAGS text
SNAPSHOTRoot other
DELetefiles other
INCREmental other
NOPrompt other
VERIFYImage other
IMAGETOfile other
INCRBYDate other
SUbdir other
"""

# A bar stands for a line end. A code that is not here is printed bare, as dsmc does without its message file.
MESSAGES = """
ANS0101E Unable to open English message repository 'dsmclientV3.cat'.
ANS0102W Unable to open the message repository. The American English repository will be used instead.
ANS0278S The transaction will be aborted.
ANS0326E This node has exceeded its maximum number of mount points.
ANS0348E Operation failed because the copy continue option was set to NO.
ANS0349E Transaction failed because of a problem during a store operation.
ANS0990W Options file '/opt/tivoli/tsm/client/ba/bin/dsm.opt' could not be found. Default option values will be used.
ANS1000E An unsupported communications method was specified.
ANS1005E TCP/IP read error on socket = 4, errno = 104, reason : 'Connection reset by peer'.
ANS1017E Session rejected: TCP/IP connection failure
ANS1025E Session rejected: Authentication failure
ANS1026E Session rejected: Communications protocol error
ANS1028S An internal program error occurred.
ANS1029E Communication with the server is lost.
ANS1030E The operating system refused a TSM request for memory allocation.
ANS1033E An invalid TCP/IP address was specified.
ANS1035S Options file '/opt/tivoli/tsm/client/ba/bin/dsm.sys' could not be found, or it cannot be read.
ANS1051I Invalid user id or password
ANS1063E The specified path is not a valid file system or logical volume name.
ANS1071E Invalid domain name entered: '{volume}'
ANS1072E Drive has no volume label.
ANS1076E The specified directory path '{volume}' could not be found.
ANS1092W No files matching search criteria were found
ANS1107E Invalid option/value: '{volume}'
ANS1113E The snapshot cache location is not valid.
ANS1114I Waiting for mount of offline media.
ANS1144W Password authentication not active
ANS1149E No domain is available for image backup.
ANS1184W Command not supported
ANS1217E Server name not found in System Options File
ANS1225E Insufficient memory for file compression/expansion
ANS1228E Sending of object '{space}' failed
ANS1229E MODE=INCREMENTAL is not valid for file space '{space}'. The file system is skipped.
ANS1252W Function not supported on the server
ANS1258E The image snapshot operation failed.
ANS1259E The image snapshot operation failed. Diagnostic text: {space}.
ANS1301E Server detected system error
ANS1302E No objects on server match query
ANS1309W Requested data is offline
ANS1310E Object too large for server limits
ANS1311E Server out of data storage space
ANS1312E Server media mount not possible
ANS1313E Size estimate exceeded
ANS1314E File data currently unavailable on server
ANS1315W Unexpected retry request. The server found an error while writing the data.
ANS1316E The server does not have enough recovery log space to continue the current activity
ANS1317E The server does not have enough database space to continue the current activity
ANS1318E The server does not have enough memory to continue the current activity.
ANS1320E The specified file space does not exist on the server. The file space might have been deleted.
ANS1327W The snapshot operation for '{space}' failed with error code: 671.
ANS1329S Server out of data storage space
ANS1330S This node currently has a pending restartable restore session.
ANS1351E Session rejected: All server sessions are currently in use
ANS1352E Session rejected: Password has expired
ANS1353E Session rejected: Unknown or incorrect ID entered
ANS1354E Session rejected: Duplicate ID entered
ANS1355E Session rejected: Server disabled
ANS1356E Session rejected: The server is not configured to allow open registration
ANS1357S Session rejected: Downlevel client code version
ANS1358S Session rejected: Downlevel server code version
ANS1359E Session rejected: The specified node name is currently in use
ANS1361E Session rejected: The specified node name is currently locked
ANS1362S Session rejected: Client licenses exceeded
ANS1363S Session rejected: The server does not have enough memory to allow a connection to be established
ANS1364S Session rejected: The server does not have enough database space to allow a connection to be established
ANS1365S Session rejected: The server does not have enough log space to allow a connection to be established
ANS1366E Session rejected: The server has an internal error
ANS1367E Session rejected: The client type is not licensed
ANS1369E Session rejected: The session was canceled by the server administrator
ANS1371E Session rejected: Not authorized
ANS1376E The image backup of '{space}' continues without snapshot support.
ANS1377W The image backup of '{space}' continues without snapshot support.
ANS1403E Error loading a required file 'libApiDS.so'
ANS1424W Retrying failed image operation for volume {space}.
ANS1425E The image operation for volume {space} cannot be|retried because of a severe error.
ANS1453W The IMAGEGAPSIZE option is not supported for non-NTFS file systems. The entire volume will be backed up.
ANS1532E Proxy Rejected: Proxy authority has not been granted to this node.
ANS1592E Failed to initialize SSL protocol.
ANS1737E PRESNAPSHOTCMD failed; VSS snapshot backup not performed.
ANS1802E Incremental backup of '{space}' finished with 1 failure(s)
ANS1809W A session with the server has been disconnected. An attempt will be made to reestablish the connection.
ANS1810E The session has been reestablished.
ANS1811S The session could not be reestablished.
ANS1813E Image Backup processing of '{space}' finished|with failures.
ANS1832W Option no longer supported
ANS1898I ***** Processed     1,000 files *****
ANS2050E TSM needs to prompt for the password but cannot prompt because the process is running in the background.
ANS2225W SNAPSHOTROOT is not compatible with snapshot providers. The operation continues without them.
ANS2820E An interrupt has occurred. The current operation will end and the client will shut down.
ANS4000E Error processing '{space}': file space does not exist.
ANS4005E Error processing '{space}': file not found
ANS4007E Error processing '{space}': access to the object is denied
ANS4037E Object '{space}' changed during processing. Object skipped.
ANS4987E Error processing '{space}': the object is in use by another process
ANS5250E An unexpected error was encountered.|  TSM function name : baInitSnapshot|  TSM function : \
Failed to take the snapshot|  TSM return code : 4353|  TSM file : backsnap.cpp (3767)
ANS5258E Microsoft volume shadow copy snapshot initialization failed.
ANS5261W An attempt to create a snapshot has failed. Another attempt will be made to create the snapshot in 30 seconds.
ANS5268W The Microsoft Volume Shadow Copy Services writer is in an invalid state.
ANS5283E The operation was unsuccessful.
ANS8023E Unable to establish session with server.
ANS9296W Performing image backup of the entire volume for volume {space}. The IMAGEGAPSIZE option is not supported \
for non-JFS2 file systems on AIX.
"""

# Where dsmc says it, if not in the block of a volume.
BEFORE_BANNER = "ANS0101E ANS0102W ANS0110E ANS0118E ANS0990W ANS1035S ANS1036S ANS1038S ANS1217E ANS1398E"
AFTER_BANNER = "ANS1102E ANS1107E ANS1108E ANS1138E ANS1149E ANS1184W"
IN_PLACE_OF_SESSION = (
    "ANS1000E ANS1017E ANS1025E ANS1026E ANS1033E ANS1051I ANS1144W ANS1330S ANS1351E ANS1352E ANS1353E ANS1354E "
    "ANS1355E ANS1356E ANS1357S ANS1358S ANS1359E ANS1361E ANS1362S ANS1363S ANS1364S ANS1365S ANS1366E ANS1367E "
    "ANS1369E ANS1371E ANS1375E ANS1532E ANS1592E ANS1593E ANS1695E ANS2050E ANS8023E"
)
SKIPPED_FILE = "ANS4005E ANS4007E ANS4037E ANS4987E"
NAMES_SKIPPED_FILE = "ANS1228E ANS1802E"  # an error, unless it only speaks of the skipped files beside it
NO_ERROR = "ANS1810E"  # good news, though it ends in E

SKIPPED, WARNED, FAILED = 4, 8, 12  # exit codes
COMMANDS = {"Backup": "IMage", "Query": "SEssion"}
MOST_OPERANDS = 20
IMAGE_BYTES = 102_760_448
GAP_LIMIT = 4_294_967_295
LOCK_AT = 0x7FFF0000  # Windows locks bytes, not files: one far behind the last
BLOCK = 65536


# ---- the face for tests and demo ---------------------------------------------------------------------------------


def command(python: str = sys.executable) -> list[str]:
    """Return the argv that starts the stand-in: the value of `dsmc.command` in a configuration."""
    return [python, "-I", "-S", os.path.abspath(__file__)]


def write_plan(
    path: str | Path,
    *,
    log: str | Path | None = None,
    default: Behaviour | None = None,
    volumes: Mapping[str, Behaviour | list[Behaviour]] | None = None,
) -> Path:
    """Write the plan that `DSM_STANDIN` is to name and return its path. A plan there is replaced at one stroke."""
    import json
    from pathlib import Path

    plan: dict[str, object] = {"default": default or {}, "volumes": volumes or {}}
    if log is not None:
        plan["log"] = os.path.abspath(log)
    target = Path(path).absolute()
    fresh = target.with_name(f"{target.name}.{os.getpid()}.new")
    fresh.write_text(json.dumps(plan, indent=1), encoding="utf-8")
    fresh.replace(target)
    return target


def runs(log: str | Path) -> list[dict[str, Any]]:
    """Return every run in the log, in the order of their starts; none where there is no log.

    Each holds what its start line says (`pid`, `volume`, `run` = which run of this volume it is, `argv`, `cwd`,
    `time` in seconds since the epoch, `env` with the DSM_* variables, `stdin` one of null, tty, pipe, file, closed,
    `orphan` = its child's pid), and `exit` and `ended`, both None while it runs and after a signal ended it.
    """
    import json

    try:
        fd = os.open(log, os.O_RDWR | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        return []
    try:
        _lock(fd)
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            lines = b"".join(iter(lambda: os.read(fd, 1 << 20), b"")).splitlines()
        finally:
            _unlock(fd)
    finally:
        os.close(fd)
    found: dict[tuple[str | None, int], dict[str, Any]] = {}
    for line in lines:
        entry = json.loads(line)
        event, key = entry.pop("event"), (entry["volume"], entry["run"])
        if event == "start":
            found[key] = {**entry, "exit": None, "ended": None}
        else:
            found[key].update(exit=entry["exit"], ended=entry["time"])
    return list(found.values())


# ---- plan and log ------------------------------------------------------------------------------------------------


def _read_plan() -> dict[str, Any]:
    path = os.environ.get("DSM_STANDIN")
    if not path:
        return {}
    with open(path, encoding="utf-8") as file:
        text = file.read()
    try:
        from _json import make_scanner
    except ImportError:
        from json import loads
    else:

        class Rules:
            strict, memo, object_hook, object_pairs_hook = True, {}, None, None  # type: ignore[var-annotated]
            parse_float, parse_int, parse_constant = float, int, float

        def loads(text: str) -> Any:  # type: ignore[misc]
            return make_scanner(Rules)(text.strip(), 0)[0]  # type: ignore[arg-type]

    plan: dict[str, Any] = loads(text)
    return plan


def _dump(value: Any) -> str:
    """Return the value as JSON (str, numbers, None, and lists and dicts of them), without the price of `json`."""
    if isinstance(value, str):
        try:
            from _json import encode_basestring_ascii
        except ImportError:
            from json import dumps as encode_basestring_ascii
        return encode_basestring_ascii(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_dump(key)}:{_dump(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dump, value)) + "]"
    return "null" if value is None else repr(value)


def _lock(fd: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(fd, LOCK_AT, os.SEEK_SET)
        locked = False
        while not locked:
            try:
                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
                locked = True
            except OSError:
                time.sleep(0.002)
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX)


def _unlock(fd: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(fd, LOCK_AT, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_UN)


def _runs_before(fd: int, marker: bytes) -> int:
    """Return the number of the last run whose start line begins with the marker, looking from the end; 0 for none."""
    rest, end = b"", os.lseek(fd, 0, os.SEEK_END)
    while end:
        begin = max(0, end - BLOCK)
        os.lseek(fd, begin, os.SEEK_SET)
        data = os.read(fd, end - begin) + rest
        at = data.rfind(marker)
        if at >= 0:
            return int(data[at + len(marker) :].split(b",", 1)[0])
        rest, end = data[: len(marker) + 20], begin
    return 0


class Log:
    """The two lines of one run. Lines of one log are counted and written by one process at a time."""

    def __init__(self, path: str | None, volume: str | None) -> None:
        self.path = path
        self.volume = volume
        self.run = 0
        # Open as long as the run: an interrupt may fall between lock and unlock, and only who holds a lock passes it.
        self._fd = -1

    def start(self, argv: list[str], stdin: str, choices: Behaviour | list[Behaviour]) -> Behaviour:
        """Count the run, get ready to play it, write its start line and return the behaviour that is its turn."""
        choices = choices if isinstance(choices, list) else [choices]
        if not self.path:
            _get_ready(choices[0])
            return choices[0]
        head = f'{{"event":"start","volume":{_dump(self.volume)},"run":'
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        fd = self._fd = os.open(self.path, flags, 0o666)  # the umask decides
        _lock(fd)
        try:
            self.run = _runs_before(fd, head.encode()) + 1
            behaviour = choices[min(self.run, len(choices)) - 1]
            entry: dict[str, Any] = {
                "pid": os.getpid(),
                "argv": argv,
                "cwd": os.getcwd(),
                "time": time.time(),
                "env": {name: value for name, value in os.environ.items() if name.startswith("DSM_")},
                "stdin": stdin,
                "orphan": _get_ready(behaviour, fd),
            }
            os.write(fd, f"{head}{self.run},{_dump(entry)[1:]}\n".encode())
        finally:
            _unlock(fd)
        return behaviour

    def end(self, code: int) -> None:
        """Write the end line, if there is a start line."""
        if not self.run:
            return
        entry = {
            "event": "end",
            "volume": self.volume,
            "run": self.run,
            "pid": os.getpid(),
            "exit": code,
            "time": time.time(),
        }
        _lock(self._fd)
        try:
            os.write(self._fd, f"{_dump(entry)}\n".encode())
        finally:
            _unlock(self._fd)


def _get_ready(behaviour: Behaviour, *keep_from_child: int) -> int | None:
    """Do what must hold when the start line can be read: TERM is ignored, the orphan exists. Return its pid."""
    if behaviour.get("ignore_term"):
        import signal

        if sys.platform == "win32":
            signal.signal(signal.SIGBREAK, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "orphan" in behaviour:
        return _fork_orphan(float(behaviour["orphan"]), keep_from_child)
    return None


def _fork_orphan(seconds: float, keep_from_child: Iterable[int]) -> int:
    """Start a child that holds stdout and stderr, and return its pid; a pipe tells it that its parent has gone."""
    if sys.platform == "win32":
        import subprocess

        code = f"import os, time; os.read(0, 1); time.sleep({seconds})"
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE)
        globals()["_orphan"] = child  # else its pipe would be closed at once
        return child.pid
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for fd in (writer, *keep_from_child):
                os.close(fd)
            os.read(reader, 1)
            time.sleep(seconds)
        finally:
            os._exit(0)
    os.close(reader)
    return pid


def _stdin_kind() -> str:
    """Return what stdin is: null, tty, pipe, file or closed."""
    import stat

    try:
        found = os.fstat(0)
    except OSError:
        return "closed"
    if stat.S_ISREG(found.st_mode):
        return "file"
    if not stat.S_ISCHR(found.st_mode):
        return "pipe"
    if sys.platform == "win32":  # where NUL, too, says that it is a terminal
        raw = getattr(getattr(sys.stdin, "buffer", None), "raw", None)
        return "tty" if type(raw).__name__ == "_WindowsConsoleIO" else "null"
    return "tty" if os.isatty(0) else "null"


# ---- messages ----------------------------------------------------------------------------------------------------


def _codes(text: str) -> list[str]:
    """Return the message codes in a text, in their order."""
    found = []
    at = text.find("ANS")
    while at >= 0:
        code = text[at : at + 8]
        if len(code) == 8 and code[3:7].isdigit() and code[7] in "IWES":  # noqa: PLR2004 -- ANSnnnnX
            found.append(code)
        at = text.find("ANS", at + 3)
    return found


def _severity(codes: list[str]) -> int:
    """Return the exit code that these messages give."""
    skipped = any(code in SKIPPED_FILE for code in codes)
    worst = 0
    for code in codes:
        if code in SKIPPED_FILE or (skipped and code in NAMES_SKIPPED_FILE):
            worst = max(worst, SKIPPED)
        elif code[7] in "ES" and code not in NO_ERROR:
            worst = FAILED
        elif code[7] == "W":
            worst = max(worst, WARNED)
    return worst


def _fails(messages: Iterable[str]) -> bool:
    """Return whether a session or volume with these messages has failed."""
    return _severity(_codes("\n".join(messages))) == FAILED


def _text(code: str, volume: str = "", space: str = "") -> str:
    """Return the message of a code with its text, or the bare code where its text is not known."""
    at = MESSAGES.find(f"\n{code} ")
    if at < 0:
        return code
    text = MESSAGES[at + 1 : MESSAGES.index("\n", at + 1)]
    return text.replace("|", "\n").replace("{volume}", volume).replace("{space}", space)


# ---- arguments ---------------------------------------------------------------------------------------------------


def _abbreviates(word: str, full: str) -> bool:
    """Return whether the word is the full one or a legal abbreviation of it: at least its capital letters."""
    shortest = len(full) - len(full.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    return len(word) >= shortest and full.lower().startswith(word.lower())


def _is_legal(value: str | None, kind: str) -> bool:
    """Return whether an option of this kind can have this value (None: the option was given without one)."""
    if kind == "flag" or value is None:
        return kind == "flag" and value is None
    value = value.lower()
    if kind == "yes-no":
        return value in {"yes", "no"}
    if kind == "mode":
        return any(_abbreviates(value, full) for full in ("SELective", "INCRemental"))
    if kind == "size":
        number = value[:-1] if value[-1:] in {"k", "m", "g"} else value
        return number.isdecimal() and int(number) <= GAP_LIMIT
    if ".." in kind:
        low, high = kind.split("..")
        return value.isdecimal() and int(low) <= int(value) <= int(high)
    return bool(value)


def _complaint(option: str, version: str | None) -> str | None:
    """Return the message that refuses the option, or None. `version` is None where any version's options do."""
    name, equals, value = option[1:].partition("=")
    for row in OPTIONS.strip().splitlines():
        full, kind, *only = row.split()
        if not _abbreviates(name, full):
            continue
        if kind == "other":
            return f"ANS1108E Invalid option ({option.upper()}) for the BACKUP IMAGE command"
        if _is_legal(value if equals else None, kind) and (not only or version in {None, *only}):
            return None
        break
    return f"ANS1107E Invalid option/value: '{option}'"


def _usage(argv: list[str], volumes: list[str], version: str | None) -> str | None:
    """Return the message with which dsmc refuses this command line, or None."""
    verb, noun, *_ = [*argv, "", ""]
    full = next((full for full in COMMANDS if _abbreviates(verb, full)), None)
    if full is None:
        return f"ANS1107E Invalid option/value: '{verb}'" if verb else "ANS1138E A command is missing"
    if not noun:
        return f"ANS1138E The '{verb}' command must be followed by a subcommand"
    if not _abbreviates(noun, COMMANDS[full]):
        return f"ANS1107E Invalid option/value: '{noun}'"
    complaints = [_complaint(word, version) for word in argv[2:] if word.startswith("-")]
    if full == "Backup" and not volumes:
        complaints.append(_text("ANS1149E"))
    if len(volumes) > MOST_OPERANDS:
        complaints.append("ANS1102E Excessive number of command line arguments passed to the program!")
    return next((complaint for complaint in complaints if complaint), None)


def _is_volume(name: str) -> bool:
    return name.startswith(("/", "\\\\")) or (name[:1].isalpha() and name[1:2] == ":")


# ---- speech ------------------------------------------------------------------------------------------------------

# What the sample response shows where the page that held it was wrapped; kept, for it is to be met exactly.
WRAP = " " * 8
BANNERS = {
    "5.5": (
        "IBM Tivoli Storage Manager",
        "Command Line Backup/Archive Client Interface",
        "  Client Version 5, Release 5, Level 0.0  ",
        "  Client date/time: {0}",
        f"(c) Copyright by IBM Corporation and other(s) 1990, 2007. {WRAP}All Rights Reserved.",
        "",
    ),
    "8.1": (
        "IBM Storage Protect",
        "Command Line Backup-Archive Client Interface",
        "  Client Version 8, Release 1, Level 23.0 ",
        "  Client date/time: {0}",
        "(c) Copyright by IBM Corporation and other(s) 1990, 2024. All Rights Reserved. ",
        "",
    ),
}
SESSIONS = {
    "5.5": (
        f"Session established with server {{server}}: {WRAP}Linux/i386",
        "  Server Version 5, Release 5, Level 0.0",
        f"  Server date/time: {{1}}  Last access: {WRAP}{{2}}",
        "",
    ),
    "8.1": (
        "Session established with server {server}: Linux/x86_64",
        "  Server Version 8, Release 1, Level 23.000",
        "  Server date/time: {1}  Last access: {2}",
        "",
    ),
}
_SESSION_INFORMATION = """\
PRODUCT Server Connection Information

Home Server Name........: {server}
Server Type.............: PLATFORM
Archive Retain Protect..: "No"
Server Version..........: Ver. RELEASE
Last Access Date........: {2}
Delete Backup Files.....: "No"
Delete Archive Files....: "Yes"

Node Name...............: {node}
User Name...............: root
"""
SESSION_INFORMATION = {
    version: _SESSION_INFORMATION.replace("PRODUCT", product)
    .replace("PLATFORM", platform)
    .replace("RELEASE", release)
    for version, product, platform, release in (
        ("5.5", "TSM", "Linux/i386", "5, Rel. 5, Lev. 0.0"),
        ("8.1", "IBM Storage Protect", "Linux/x86_64", "8, Rel. 1, Lev. 23.0"),
    )
}
DATE_FORMATS = {"1": "%m/%d/%Y", "2": "%d-%m-%Y", "3": "%Y-%m-%d"}


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _say(*lines: str) -> None:
    """Print the lines with one write: dsmc's output comes in blocks."""
    if lines:
        ends = [line.replace("\n", os.linesep) + os.linesep for line in lines]
        _write(1, "".join(ends).encode("utf-8", "surrogateescape"))


def _hear() -> bool:
    """Read a line from stdin and return whether there was one."""
    heard = b""
    while not heard.endswith(b"\n"):
        try:
            byte = os.read(0, 1)
        except OSError:
            byte = b""
        if not byte:
            break
        heard += byte
    return bool(heard)


def _die(name: str) -> None:
    """End this process by the signal of that name, without a core file; on Windows by what stands for it there."""
    import signal

    if sys.platform == "win32":
        os._exit(-1073741819 if name == "SIGSEGV" else 3)  # STATUS_ACCESS_VIOLATION; what abort() exits with
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    number = signal.Signals[name]
    if number not in {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


class Dsmc:
    """One run: what the command line asks for, played as the behaviour says."""

    def __init__(self, argv: list[str], volumes: list[str], behaviour: Behaviour) -> None:
        self.argv = argv
        self.volumes = volumes
        self.behaviour = behaviour
        self.version: str = behaviour.get("version", "8.1")
        self.messages = [
            _text(message, volumes[0] if volumes else "", self.space(volumes[0]) if volumes else "")
            if _codes(message) == [message]
            else str(message)
            for message in behaviour.get("messages", [])
        ]
        self.said: list[str] = []
        self.refused = False

    @property
    def node(self) -> str:
        """The node name as dsmc shows it."""
        name: str | None = self.behaviour.get("node")
        if name is None:
            if sys.platform == "win32":
                name = os.environ.get("COMPUTERNAME", "NODE")
            else:
                name = os.uname().nodename.split(".")[0]
        return name.upper()

    def space(self, volume: str) -> str:
        r"""Return the file space's name: on Windows `\\node\e$` for `e:`, elsewhere the volume itself."""
        if volume[1:2] != ":":
            return volume
        return f"\\\\{self.node.lower()}\\{volume[0].lower()}${volume[2:].rstrip(chr(92))}"

    def format(self, lines: Iterable[str]) -> list[str]:
        """Fill dates and names into a template."""
        dates = self.behaviour.get("dates")
        if not dates:
            day = "1"
            for word in self.argv:
                name, _, value = word[1:].partition("=")
                if word.startswith("-") and _abbreviates(name, "DATEformat"):
                    day = value
            dates = [time.strftime(f"{DATE_FORMATS.get(day, DATE_FORMATS['1'])} %H:%M:%S")] * 3
        server = self.behaviour.get("server", "SERVER1")
        return [line.format(*dates, node=self.node, server=server) for line in lines]

    def report(self, *messages: str) -> None:
        """Print messages; the exit code follows from what was printed."""
        self.said.extend(messages)
        _say(*messages)

    def stages(self) -> list[list[str]]:
        """Return the messages for before the banner, after it, in place of the session, in the first volume's block.

        A message without a code belongs to the one before it, as does all that follows an error that ends the run.
        """
        stages: list[list[str]] = [[], [], [], []]
        places = (BEFORE_BANNER, AFTER_BANNER, IN_PLACE_OF_SESSION)
        at, over = len(places), False
        for message in self.messages:
            codes = _codes(message)
            if codes and not over:
                at = next((index for index, place in enumerate(places) if codes[0] in place), len(places))
            stages[at].append(message)
            over = over or (at < len(places) and _fails([message]))
        return stages

    def exit_code(self) -> int:
        """Return the code the plan gives, else the one that follows from all that was said."""
        given = self.behaviour.get("exit")
        if given is None or self.refused:
            return _severity(_codes("\n".join(self.said)))
        return int(given)

    def play(self) -> int:
        """Say and do it all; return the exit code."""
        if "transcript" in self.behaviour:
            self.recite(self.behaviour["transcript"])
        else:
            self.perform()
        return self.exit_code()

    def perform(self) -> None:
        """Say what dsmc says, to the end or to the error that ends the run."""
        early, usage, session, block = self.stages()
        if self.ends_with(early):
            return
        _say(*self.format(BANNERS[self.version]))
        refusal = _usage(self.argv, self.volumes, self.behaviour.get("version"))
        if refusal:
            self.refused = True
            self.report(refusal)
            return
        if self.ends_with(usage):
            return
        _say(*self.format(["Node Name: {node}"]))
        if not self.is_let_in() or self.ends_with(session):
            return
        _say(*self.format(SESSIONS[self.version]))
        if self.volumes:
            self.back_up(block)
        else:
            self.work(block)
            _say(*self.format(SESSION_INFORMATION[self.version].splitlines()))

    def ends_with(self, messages: list[str]) -> bool:
        """Print the messages; return whether they end the run, in which case the work has been done before them."""
        if _fails(messages):
            self.work(messages)
            return True
        self.report(*messages)
        return False

    def recite(self, path: str) -> None:
        """Print the transcript, byte for byte."""
        with open(path, "rb") as file:
            lines = [line for line in file if not line.startswith(b"# source:")]
        _write(1, b"".join(lines))
        self.said.append(b"".join(lines).decode("utf-8", "replace"))
        self.work(self.messages)

    def is_let_in(self) -> bool:
        """Ask for what the plan says is missing, as after a wrong stored password; return whether it was answered."""
        what = self.behaviour.get("prompt")
        if what is None:
            return True
        self.report(_text("ANS1051I"))
        prompts = [f'Please enter password for user id "{self.node}":  ']
        if what == "user":
            prompts.insert(0, f"Please enter your user id <{self.node}>:      ")
        for prompt in prompts:
            _write(1, prompt.encode())
            if not _hear():
                self.report("\n" + _text("ANS2050E"), _text("ANS1029E"))
                return False
            _say("")
        return True

    def back_up(self, messages: list[str]) -> None:
        """Say the block of each volume and the one summary. What goes wrong goes wrong with the first volume."""
        began = time.monotonic()
        failed = skipped = 0
        for index, volume in enumerate(self.volumes):
            space = self.space(volume)
            _say("Backup Image Function Invoked.", "")
            if not _is_volume(volume):
                self.report(_text("ANS1228E", volume, space), _text("ANS1063E", volume, space), "")
                failed += 1
                continue
            using = self.wrapped("Using static image backup for volume ", f"'{space}'")
            _say(f"Image backup of volume '{volume}'", "", using)
            told = [] if index else messages
            if index == 0:
                self.work(told, space)
            if _fails(told):
                failed += 1
                if "ANS1813E" not in "\n".join(told):
                    self.report(_text("ANS1813E", volume, space))
                _say("")
                continue
            skipped += _severity(_codes("\n".join(told))) == SKIPPED
            sent = f"Volume -->    {IMAGE_BYTES:,} {space} [Sent]"
            finished = self.wrapped(f"Image Backup processing of '{space}' finished ", "without failure.")
            _say(self.wrapped(sent, " ") if self.version == "5.5" else sent, finished, "")
        _say(*self.summary(len(self.volumes), failed, skipped, time.monotonic() - began))

    def wrapped(self, head: str, tail: str) -> str:
        """Return one line, with the sample's gap in it for 5.5."""
        return head + (WRAP if self.version == "5.5" else "") + tail

    def work(self, messages: list[str], space: str = "") -> None:
        """Take the time and print the output that the plan asks for, then the messages; hang or crash if it says so."""
        plan = self.behaviour
        if plan.get("stderr"):
            _write(2, "".join(line + os.linesep for line in plan["stderr"]).encode())
        raw = plan.get("bytes", [])
        for digits in [raw] if isinstance(raw, str) else raw:
            _write(1, bytes.fromhex(digits) + os.linesep.encode())
        if plan.get("lines"):
            self.print_lines(int(plan["lines"]), int(plan.get("line_length", 0)))
        self.pass_time(float(plan.get("seconds", 0)), space)
        self.report(*messages)
        while plan.get("hang"):
            time.sleep(3600)
        if plan.get("crash"):
            _die(plan["crash"])

    def print_lines(self, count: int, length: int) -> None:
        """Print numbered lines, a few thousand with each write."""
        step = max(1, min(8192, (1 << 20) // max(1, length)))
        for first in range(1, count + 1, step):
            numbers = range(first, min(first + step, count + 1))
            if length:
                lines = [
                    f"output line {number} of {count} ".ljust(length, ".")[:length] for number in numbers
                ]
            else:
                lines = [f"output line {number} of {count}" for number in numbers]
            lines.append("")
            _write(1, os.linesep.join(lines).encode())

    def pass_time(self, seconds: float, space: str) -> None:
        """Wait, and tell of progress each second, but not more than about twenty times."""
        end = time.monotonic() + seconds
        pause = max(1.0, seconds / 20)
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            done = min(1.0, 1 - (end - time.monotonic()) / seconds)
            if space and done < 1:
                _say(f"Volume -->    {int(IMAGE_BYTES * done):>11,} {space}")

    def summary(self, volumes: int, failed: int, skipped: int, seconds: float) -> list[str]:
        """Return the statistics: one block for the whole command."""
        good = volumes - failed
        elapsed = max(1, round(seconds))
        clock = f"{elapsed // 3600:02}:{elapsed // 60 % 60:02}:{elapsed % 60:02}"
        new = self.version != "5.5"
        rows = [
            ("Total number of objects inspected:", f"{volumes}"),
            ("Total number of objects backed up:", f"{good}"),
            ("Total number of objects updated:", "0"),
            ("Total number of objects rebound:", "0"),
            ("Total number of objects deleted:", "0"),
            ("Total number of objects expired:", "0"),
            ("Total number of objects failed:", f"{failed + skipped}"),
        ]
        if new:
            rows += [
                ("Total number of objects encrypted:", "0"),
                ("Total number of objects grew:", "0"),
                ("Total number of retries:", "0"),
                ("Total number of bytes inspected:", f"{98 * good}.00 MB"),
            ]
        rows += [
            ("Total number of bytes transferred:", f"{170.56 * good:.2f} KB" if good else "0  B"),
            ("Data transfer time:", f"{2 * good}.00 sec"),
            ("Network data transfer rate:", f"{85.28 if good else 0:.2f} KB/sec"),
            ("Aggregate data transfer rate:", f"{88.05 if good else 0:.2f} {'' if new else WRAP}KB/sec"),
            ("Objects compressed by:", f"{94 if good else 0}%"),
        ]
        if new:
            rows.append(("Total data reduction ratio:", "99.83%" if good else "100.00%"))
        rows.append(("Elapsed processing time:", clock))
        column = 47 if new else 43
        lines = []
        for label, value in rows:
            number = value.split(" ")[0].rstrip("%")
            lines.append(label + number.rjust(column - len(label)) + value[len(number) :])
        return lines


def main(argv: list[str]) -> int:
    """Play one run of dsmc with these arguments and return its exit code."""
    stdin = _stdin_kind()
    volumes = [word for word in argv[2:] if not word.startswith("-")]
    first = volumes[0] if volumes else None
    plan = _read_plan()
    log = Log(plan.get("log"), first)
    code = FAILED
    try:
        behaviour = log.start(argv, stdin, plan.get("volumes", {}).get(first, plan.get("default", {})))
        code = Dsmc(argv, volumes, behaviour).play()
    except KeyboardInterrupt:
        _say("", _text("ANS2820E"))
    except BrokenPipeError:
        _die("SIGPIPE")
    log.end(code)
    return code


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
