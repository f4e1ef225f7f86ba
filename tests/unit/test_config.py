"""The host's configuration: every key of the contract is taken, and what is wrong is named with key and line."""

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from worker import config
from worker.config import Config, ConfigError, Duration, broker_url, load, parse
from worker.words import FailureClass

ROOT = Path(__file__).parents[2]

# The contract: a copy of the design's section 7.
CONTRACT = """
host = "web01"                          # default: this machine's host name, lower case
groups = ["web"]
state_dir = "/var/lib/tsm-worker"
slots = 1                               # dsmc runs at once
drain = "30s"                           # how long a stop waits for a running dsmc before it leaves it

[broker]
url = "amqps://web01@rabbit.example.com/backup"
password_file = "/etc/tsm-worker/password"
ca_file = "/etc/tsm-worker/ca.pem"      # also cert_file, key_file
cert_file = "/etc/tsm-worker/cert.pem"
key_file = "/etc/tsm-worker/key.pem"
declare = true                          # false: an administrator has declared the topology
reply_via = "default-exchange"          # or "exchange"

[dsmc]
command = ["dsmc"]
default_timeout = "24h"
max_timeout = "7d"
kill_grace = "10s"

[dsmc.allow]
options = ["*"]
volumes = ["*"]                         # patterns
snapshot_commands = []                  # pre/postsnapshotcmd only if listed here, exactly

[retry]
attempts = 3
first_delay = "30s"                     # doubled each time, jittered
max_delay = "30m"

[response]
max_lines = 10000
max_bytes = 8388608

[journal]
keep = "30d"

[log]
level = "info"
format = "auto"                         # json unless on a terminal

[metrics]
listen = "127.0.0.1:9877"               # absent: off
"""
NO_DEFAULT = {"host", "groups", "metrics.listen"} | {
    f"broker.{key}" for key in ("url", "password_file", "ca_file", "cert_file", "key_file")
}


def leaves(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


KEYS = dict(leaves(tomllib.loads(CONTRACT)))


def value_of(settings: Config, key: str) -> Any:
    found: Any = settings
    for part in key.split("."):
        found = getattr(found, part)
    return list(found) if isinstance(found, tuple) else found


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TSM_WORKER_CONFIG", "TSM_WORKER_BROKER_URL", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


def error(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "worker.toml")
    return str(caught.value)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_the_contract_is_taken(key: str) -> None:
    taken = value_of(parse(f"{key} = {json.dumps(KEYS[key])}"), key)
    wanted = KEYS[key]
    assert taken == (Duration.parse(wanted) if isinstance(taken, Duration) else wanted)


def test_the_contracts_file_is_taken_whole() -> None:
    settings = parse(CONTRACT)
    assert settings.host == "web01"
    assert settings.dsmc.max_timeout == Duration(7 * 86400)


@pytest.mark.parametrize("key", [key for key in KEYS if key not in NO_DEFAULT])
def test_the_contract_shows_the_defaults(key: str) -> None:
    default = value_of(Config(), key)
    assert default == (Duration.parse(KEYS[key]) if isinstance(default, Duration) else KEYS[key])


def test_without_a_host_it_is_this_machines_name_in_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse("").host == socket.gethostname().lower()
    monkeypatch.setattr(socket, "gethostname", lambda: "WEB01")
    assert parse("").host == "web01"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("30s", 30.0),
        ("30 s", 30.0),
        ("5m", 300.0),
        ("24h", 86_400.0),
        ("7d", 604_800.0),
    ],
)
def test_a_duration_is_a_number_with_its_unit(text: str, seconds: float) -> None:
    assert parse(f'drain = "{text}"').drain == seconds


@pytest.mark.parametrize(
    "text",
    ['"30"', '""', '"s"', '"-1s"', '"+1s"', '"1.s"', '".5s"', '"1w"', '"1S"', '"1s2m"', '"1e3s"', '"\u0661s"',
     '"inf"', '" 1s"', '"1s "', "30", "1.5", "true", '["1s"]', "{s = 1}"],
)  # fmt: skip
def test_anything_else_is_no_duration(text: str) -> None:
    message = error(f"slots = 1\ndrain = {text}\n")
    assert message.startswith("worker.toml: line 2: drain: ")
    assert "30s" in message


def test_a_duration_beyond_all_numbers_is_an_error() -> None:
    assert error(f'drain = "{"9" * 400}d"').startswith("worker.toml: line 1: drain: ")


# the file, the line, the key, and a word of what is wrong
WRONG: dict[str, tuple[str, int, str, str]] = {
    "unknown key": ("slots = 1\n\nslot = 2", 3, "slot", "unknown"),
    "unknown table": ("slots = 1\n[borker]\nurl = 'x'", 2, "borker", "unknown"),
    "unknown key in a table": ("[broker]\n# a comment\nurls = 'x'", 3, "broker.urls", "unknown"),
    "unknown key in a table within": (
        "[dsmc]\n[dsmc.allow]\noption = ['*']",
        3,
        "dsmc.allow.option",
        "unknown",
    ),
    "unknown dotted key": ("broker.declare = true\nbroker.port = 1", 2, "broker.port", "unknown"),
    "unknown key in quotes": ('[log]\n"levels" = "info"', 2, "log.levels", "unknown"),
    "unknown key in an inline table": ("slots = 1\nlog = {level = 'info', x = 1}", 2, "log.x", "unknown"),
    "text for a number": ("slots = 'one'", 1, "slots", "int"),
    "number for text": ("[broker]\nurl = 5", 2, "broker.url", "str"),
    "fraction for a whole number": ("slots = 1.5", 1, "slots", "int"),
    "truth for a number": ("slots = true", 1, "slots", "int"),
    "text for truth": ("[broker]\ndeclare = 'no'", 2, "broker.declare", "bool"),
    "number for a table": ("slots = 1\nbroker = 5", 2, "broker", "object"),
    "text for a list": ("[dsmc]\ncommand = 'dsmc'", 2, "dsmc.command", "array"),
    "number in a list": ("[dsmc.allow]\nvolumes = [\n 'a',\n 5]", 2, "dsmc.allow.volumes", "str"),
    "no command": ("[dsmc]\ncommand = []", 2, "dsmc.command", "length"),
    "no slot": ("slots = 0", 1, "slots", ">= 1"),
    "no attempt": ("[retry]\nattempts = 0", 2, "retry.attempts", ">= 1"),
    "too few lines": ("[response]\n\nmax_lines = 1", 3, "response.max_lines", ">="),
    "too few bytes": ("[response]\nmax_bytes = 100", 2, "response.max_bytes", ">="),
    "another level": ("[log]\nlevel = 'loud'", 2, "log.level", "loud"),
    "another way to reply": ("[broker]\nreply_via = 'queue'", 2, "broker.reply_via", "queue"),
    "another class": ("[retry.classes]\nANS1312E = 'maybe'", 2, "retry.classes.ANS1312E", "maybe"),
    "a class for what is no code": (
        "[retry.classes]\nANS1312 = 'transient'",
        2,
        "retry.classes.ANS1312",
        "ANS",
    ),
    "host with a blank": ("host = 'web 01'", 1, "host", "regex"),
    "host with a dot first": ("host = '.web'", 1, "host", "regex"),
    "host with a wildcard": ("host = 'web#'", 1, "host", "regex"),
    "empty host": ("host = ''", 1, "host", "regex"),
    "host with a line end": ('host = "web\\n"', 1, "host", "regex"),
    "group with a slash": ("groups = ['a', 'b/c']", 1, "groups", "regex"),
    "bad duration in a table": ("[retry]\nattempts = 3\nmax_delay = '1 year'", 3, "retry.max_delay", "30s"),
    "the same key as in another table": (
        "[log]\nlevel = 'info'\n[journal]\nlevel = 1",
        4,
        "journal.level",
        "unknown",
    ),
    "a key that a comment holds too": ("# slots = 'x'\nslots = 'x'", 2, "slots", "int"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line_with_file_line_and_key(name: str) -> None:
    text, line, key, words = WRONG[name]
    message = error(text)
    assert message.startswith(f"worker.toml: line {line}: {key}")
    assert words in message
    assert message.isprintable()


@pytest.mark.parametrize(
    "text", ["slots = ", "slots = 1\nslots = 2", "[broker\nurl = 'x'", "slots", "a = 'x\n'", "\x00", "= 1"]
)
def test_what_is_no_toml_is_one_line_with_the_line(text: str) -> None:
    message = error(text)
    assert message.startswith("worker.toml: not valid TOML: ")
    assert re.search(r"line \d", message)
    assert message.isprintable()


def test_the_classes_of_codes_can_be_set() -> None:
    settings = parse("[retry.classes]\nANS1353E = 'transient'\nANS7777E = 'permanent'")
    assert settings.retry.classes == {"ANS1353E": FailureClass.TRANSIENT, "ANS7777E": FailureClass.PERMANENT}


def test_a_configuration_cannot_be_altered() -> None:
    with pytest.raises(AttributeError):
        parse("").slots = 2  # type: ignore[misc]


# -- where it comes from -------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "worker.toml"
    path.write_text('slots = 3\n[broker]\nurl = "amqp://web01@rabbit/backup"\n', encoding="utf-8")
    return path


def test_a_file_named_on_the_command_line_is_read(file: Path) -> None:
    assert load(str(file)).slots == 3


def test_a_file_named_in_the_environment_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSM_WORKER_CONFIG", str(file))
    assert load(None).slots == 3


def test_the_command_line_goes_before_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSM_WORKER_CONFIG", "/nowhere")
    assert load(str(file)).slots == 3


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = str(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"none\.toml: no such file"):
        load(missing)
    monkeypatch.setenv("TSM_WORKER_CONFIG", missing)
    with pytest.raises(ConfigError, match=r"none\.toml: no such file"):
        load(None)


def test_without_the_systems_file_all_is_as_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "default_path", lambda: tmp_path / "none.toml")
    assert load(None) == Config()


@pytest.mark.skipif(sys.platform == "win32", reason="lacks /etc")
def test_the_systems_file_is_in_etc() -> None:
    assert config.default_path() == Path("/etc/tsm-worker/worker.toml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(str(tmp_path))


def test_a_file_that_is_no_utf_8_is_an_error(file: Path) -> None:
    file.write_bytes(b"host = 'gr\xfcn'")
    with pytest.raises(ConfigError, match=r"worker\.toml: cannot be read"):
        load(str(file))


# -- the broker's address ------------------------------------------------------------------------------------


def test_the_environment_overrides_the_url_and_nothing_else(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSM_WORKER_BROKER_URL", "amqps://other@broker/x")
    settings = load(str(file))
    assert settings.broker.url == "amqps://other@broker/x"
    assert settings.slots == 3


GOOD_URLS = [
    "amqp://localhost",
    "amqp://guest:guest@localhost:5672/%2F",
    "amqps://web01@rabbit.example.com/backup",
    "amqps://web01:p%40ss@[2001:db8::1]:5671/backup",
]
BAD_URLS = [
    "",
    "localhost",
    "http://localhost",
    "amqp://",
    "amqp:///vhost",
    "amqp://user@/vhost",
    "amqp://host:0/x",
    "amqp://host:99999/x",
    "amqp://host:port/x",
    "amqp://[::1/x",
    "amqp://[not-an-address]/x",
    "amqp//host/x",
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_an_address_of_a_broker_is_taken(file: Path, url: str) -> None:
    file.write_text(f'[broker]\nurl = "{url}"', encoding="utf-8")
    assert load(str(file)).broker.url == url


@pytest.mark.parametrize("url", BAD_URLS)
def test_what_is_no_address_is_an_error_with_key_and_line(file: Path, url: str) -> None:
    file.write_text(f'slots = 1\n[broker]\nurl = "{url}"', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(str(file))
    message = str(caught.value)
    assert message.startswith(f"{file}: line 3: broker.url")
    assert "amqp[s]://" in message
    assert message.isprintable()


@pytest.mark.parametrize("url", [url for url in BAD_URLS if url])
def test_what_is_no_address_in_the_environment_names_the_variable(
    file: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("TSM_WORKER_BROKER_URL", url)
    with pytest.raises(ConfigError, match="TSM_WORKER_BROKER_URL"):
        load(str(file))


def test_an_error_never_shows_the_password_of_an_address(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSM_WORKER_BROKER_URL", "http://web01:s3cret@host")
    with pytest.raises(ConfigError) as caught:
        load(str(file))
    assert "s3cret" not in str(caught.value)


def settings(url: str | None, password_file: Path | None = None) -> Config:
    return Config(broker=config.Broker(url=url, password_file=str(password_file) if password_file else None))


def test_without_an_address_the_error_says_how_to_set_one() -> None:
    with pytest.raises(ConfigError, match=r"broker\.url is missing.*TSM_WORKER_BROKER_URL"):
        broker_url(settings(None))


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("amqps://web01@rabbit/backup", "amqps://web01:s%40%2F%3A%20%C3%A9@rabbit/backup"),
        ("amqps://web01:old@rabbit:5671/%2F", "amqps://web01:s%40%2F%3A%20%C3%A9@rabbit:5671/%2F"),
        (
            "amqp://a%40b@[::1]:5672/x?heartbeat=5",
            "amqp://a%40b:s%40%2F%3A%20%C3%A9@[::1]:5672/x?heartbeat=5",
        ),
        ("amqp://rabbit", "amqp://guest:s%40%2F%3A%20%C3%A9@rabbit"),
    ],
)
def test_the_password_comes_from_its_file_whatever_is_in_it(tmp_path: Path, url: str, whole: str) -> None:
    secret = tmp_path / "password"
    secret.write_bytes("s@/: é\r\n".encode())
    assert broker_url(settings(url, secret)) == whole


def test_without_a_password_file_the_address_is_as_given() -> None:
    assert broker_url(settings("amqp://a:b@rabbit/x")) == "amqp://a:b@rabbit/x"


def test_a_password_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="password-none"):
        broker_url(settings("amqp://a@rabbit", tmp_path / "password-none"))
    broken = tmp_path / "broken"
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="broken"):
        broker_url(settings("amqp://a@rabbit", broken))


def test_the_password_comes_from_systemds_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broker-password").write_text("from systemd\n", encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert broker_url(settings("amqp://a:b@rabbit/x")) == "amqp://a:from%20systemd@rabbit/x"


def test_a_password_file_goes_before_systemds_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broker-password").write_text("from-systemd", encoding="utf-8")
    (tmp_path / "own").write_text("own", encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert broker_url(settings("amqp://a@rabbit/x", tmp_path / "own")) == "amqp://a:own@rabbit/x"


def test_credentials_for_something_else_are_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert broker_url(settings("amqp://a:b@rabbit/x")) == "amqp://a:b@rabbit/x"


# -- what a user sees ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    "text", ["slots = 'one'", "slots = ", "[broker]\nurl = 'nonsense'", "[broker]\nurl = 'amqp://[::1/x'"]
)
def test_a_bad_configuration_ends_a_command_with_78_and_one_line(file: Path, command: str, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "worker", command, "--config", str(file)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (78, "")
    (line,) = done.stderr.splitlines()
    assert "worker.toml" in line
    assert re.search(r"line \d", line)


def test_a_password_in_the_overriding_url_is_that_account_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broker-password").write_text("the host's\n", encoding="utf-8")
    (tmp_path / "worker.toml").write_text(f"[broker]\npassword_file = '{tmp_path / 'broker-password'}'\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("TSM_WORKER_BROKER_URL", "amqp://night:its-own@rabbit/x")
    assert broker_url(load(str(tmp_path / "worker.toml"))) == "amqp://night:its-own@rabbit/x"
    monkeypatch.setenv("TSM_WORKER_BROKER_URL", "amqp://night@rabbit/x")
    assert broker_url(load(str(tmp_path / "worker.toml"))) == "amqp://night:the%20host%27s@rabbit/x"
