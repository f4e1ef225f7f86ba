"""The host's configuration: a TOML file, checked whole before anything starts.

Source: DESIGN section 7 (docs/configuration.md). Every key is optional but the broker's address, which only
the commands that talk to a broker need.
"""

import math
import os
import re
import socket
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote, urlsplit

import msgspec
from msgspec import Meta

from worker.errors import TsmWorkerError
from worker.words import FailureClass

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class ConfigError(TsmWorkerError):
    """The configuration cannot be used; the message names file, line, key and remedy."""

    exit_code = 78


class Duration(float):
    """A time in seconds, written as a number with ms, s, m, h or d."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> "Duration":
        """Given `"30s"` and its like, return the duration. Raise ValueError for anything else."""
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)", text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(
                f'Expected a duration such as "30s" (a number with ms, s, m, h or d), got {text!r}'
            )
        seconds = float(match[1]) * _UNITS[match[2]]
        if not math.isfinite(seconds):
            raise ValueError('Expected a duration such as "30s", got one beyond all numbers')
        return cls(seconds)


Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file."""


class Broker(_Table, frozen=True):
    """`[broker]`: where RabbitMQ is and what this host may do there."""

    url: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    declare: bool = True
    reply_via: Literal["default-exchange", "exchange"] = "default-exchange"
    heartbeat: Annotated[int, Meta(ge=2, le=600)] = 20


class Allow(_Table, frozen=True):
    """`[dsmc.allow]`: what a request may ask of dsmc on this host."""

    options: tuple[str, ...] = ("*",)
    volumes: tuple[str, ...] = ("*",)
    snapshot_commands: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


class Dsmc(_Table, frozen=True):
    """`[dsmc]`: the program and its limits."""

    command: Annotated[tuple[str, ...], Meta(min_length=1)] = ("dsmc",)
    default_timeout: Duration = Duration(86400)
    max_timeout: Duration = Duration(7 * 86400)
    kill_grace: Duration = Duration(10)
    allow: Allow = Allow()


class Volumes(_Table, frozen=True):
    """`[volumes]`: how eligibility is decided."""

    gpt_linux_data: bool = True
    probe_timeout: Duration = Duration(30)


class Retry(_Table, frozen=True):
    """`[retry]`: how often and when a transient failure is tried again."""

    attempts: Count = 3
    first_delay: Duration = Duration(30)
    max_delay: Duration = Duration(1800)
    classes: dict[str, FailureClass] = {}


class Response(_Table, frozen=True):
    """`[response]`: how much of dsmc's output an answer carries."""

    max_lines: Annotated[int, Meta(ge=2)] = 10_000
    max_bytes: Annotated[int, Meta(ge=65536)] = 8_388_608


class Journal(_Table, frozen=True):
    """`[journal]`: how long finished jobs are remembered."""

    keep: Duration = Duration(30 * 86400)


class Log(_Table, frozen=True):
    """`[log]`: what is told, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Metrics(_Table, frozen=True):
    """`[metrics]`: where Prometheus finds them; without an address they are off."""

    listen: Annotated[str, Meta(pattern=r"^(\[[0-9A-Fa-f:]+\]|[^:\s]+):[0-9]{1,5}$")] | None = None


def _host_name() -> str:
    return socket.gethostname().lower()


def _state_dir() -> str:
    if sys.platform == "win32":
        return str(_program_data() / "state")
    return "/var/lib/tsm-worker"


class Config(_Table, frozen=True):
    """The whole file."""

    host: Name = msgspec.field(default_factory=_host_name)
    groups: tuple[Name, ...] = ()
    state_dir: str = msgspec.field(default_factory=_state_dir)
    slots: Count = 1
    drain: Duration = Duration(30)
    broker: Broker = Broker()
    dsmc: Dsmc = Dsmc()
    volumes: Volumes = Volumes()
    retry: Retry = Retry()
    response: Response = Response()
    journal: Journal = Journal()
    log: Log = Log()
    metrics: Metrics = Metrics()


def load(path: str | None) -> Config:
    """Given `--config`'s value or None, return the configuration.

    Without a path, TSM_WORKER_CONFIG names the file, else the system's place does, where a missing file means
    that all is as by default. Raise ConfigError with file, line and key.
    """
    named = path or os.environ.get("TSM_WORKER_CONFIG")
    file = Path(named) if named else default_path()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if named:
            raise ConfigError(
                f"{file}: no such file; name another with --config or TSM_WORKER_CONFIG"
            ) from None
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    config = parse(text, str(file))
    url = os.environ.get("TSM_WORKER_BROKER_URL")
    if url:
        broker = msgspec.structs.replace(config.broker, url=url)
        config = msgspec.structs.replace(config, broker=broker)
    if config.broker.url is not None:
        _check_url(
            config.broker.url,
            "TSM_WORKER_BROKER_URL" if url else f"{file}: line {_line_of('broker.url', text)}: broker.url",
        )
    return config


def default_path() -> Path:
    """Return where the configuration is when nobody says: `/etc/tsm-worker`, or under %ProgramData%."""
    if sys.platform == "win32":
        return _program_data() / "worker.toml"
    return Path("/etc/tsm-worker/worker.toml")


def parse(text: str, file: str = "worker.toml") -> Config:
    """Given TOML text, return the configuration in it. Raise ConfigError with file, line and key."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        end = f"at line {text.count(chr(10)) + 1}, the end"
        raise ConfigError(
            f"{file}: not valid TOML: {str(error).replace('at end of document', end)}"
        ) from error
    for code, its_class in _classes(data).items():
        if not re.fullmatch("ANS[0-9]{4}[IWES]", code) or its_class not in list(FailureClass):
            line = _line_of(f"retry.classes.{code}", text)
            raise ConfigError(
                f'{file}: line {line}: retry.classes.{code}: Expected ANSnnnnX = "transient" or "permanent", got {its_class!r}'
            )
    try:
        return msgspec.convert(data, Config, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigError(_located(error, text, file)) from error


def at_broker(url: str, where: str, config: Config | None = None) -> Config:
    """Return the configuration, or the default one, with another broker's address, which holds its own password.

    Raise ConfigError if it is none; `where` says whose it is.
    """
    _check_url(url, where)
    config = config or Config()
    broker = msgspec.structs.replace(config.broker, url=url, password_file=None)
    return msgspec.structs.replace(config, broker=broker)


def broker_url(config: Config) -> str:
    """Return the broker's address with the password in it, wherever the password is kept.

    The order: an overriding url's own, which is another account's; `broker.password_file`; systemd's
    credential `broker-password`; the url. Raise ConfigError if there is no address, or the password's file cannot be read.
    """
    url = config.broker.url
    if url is None:
        raise ConfigError(
            'broker.url is missing: set url = "amqps://HOST-ACCOUNT@BROKER/VHOST" under [broker], '
            "or the environment variable TSM_WORKER_BROKER_URL"
        )
    if url == os.environ.get("TSM_WORKER_BROKER_URL") and urlsplit(url).password:
        return url
    file = config.broker.password_file
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if file is None and credentials and Path(credentials, "broker-password").exists():
        file = str(Path(credentials, "broker-password"))
    if file is None:
        return url
    try:
        password = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the broker's password file {file} cannot be read: {error}") from error
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = quote(unquote(parts.username or "guest"), safe="")
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}").geturl()


def _program_data() -> Path:
    return Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData"), "tsm-worker")


def _check_url(url: str, where: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("amqp", "amqps") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"{where} is not an address of the form amqp[s]://ACCOUNT@BROKER[:PORT]/VHOST")


def _classes(data: dict[str, Any]) -> dict[str, Any]:
    retry = data.get("retry")
    classes = retry.get("classes") if isinstance(retry, dict) else None
    return classes if isinstance(classes, dict) else {}


def _decode(wanted: type, value: Any) -> Any:
    if wanted is Duration:
        return Duration.parse(value)
    raise NotImplementedError


def _located(error: msgspec.ValidationError, text: str, file: str) -> str:
    """Given a validation error, return it as one line with the key and the line it stands in."""
    what, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    unknown = re.search(r"unknown field `(.*)`", what)
    if unknown:
        path = ".".join(filter(None, (path, unknown[1])))
        what = "unknown key"
    key = re.sub(r"\[(\.\.\.|\d+)\].*", "", path)
    line = _line_of(key, text)
    return f"{file}: line {line}: {path}: {what}" if line else f"{file}: {path}: {what}"


def _line_of(key: str, text: str) -> int | None:
    """Given a dotted key, return the line that sets it, or the nearest table around it; None if there is none."""
    found: int | None = None
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", line)
        assignment = re.match(r"""\s*((?:[A-Za-z0-9_.-]|"[^"]*"|'[^']*')+)\s*=""", line)
        if header:
            table = header[1].replace('"', "").replace("'", "")
            name = table
        elif assignment:
            name = ".".join(filter(None, (table, re.sub("[\"']", "", assignment[1]))))
        else:
            continue
        if name == key:
            return number
        if key.startswith(f"{name}."):
            found = number
    return found
