"""A request before it leaves: built from what somebody asks for, and checked as far as that can be done here."""

from collections.abc import Iterable, Mapping

from lxml import etree

from worker.contract import options as dsmc_options
from worker.contract.request import BLANKS, Command, Option, parse
from worker.errors import RequestRefused
from worker.words import ErrorCode, Platform


def request(
    *volumes: str,
    options: Mapping[str, str | None] | Iterable[tuple[str, str | None]] = (),
    timeout: int | None = None,
) -> bytes:
    """Return the XML of a request for one image backup of `volumes`.

    `options` are dsmc's, name to value in their order, None for a flag; `timeout` is in seconds, the host's own
    where it is None. Raise RequestRefused, as `check` does, if no host could accept it.
    """
    root = etree.Element("tsm-request")
    etree.SubElement(root, "operation-name").text = "backup-image"
    command = etree.SubElement(root, "command-request")
    try:
        if timeout is not None:
            etree.SubElement(command, "timeout-secs").text = str(timeout)
        table = etree.SubElement(command, "command-options")
        for name, value in options.items() if isinstance(options, Mapping) else options:
            etree.SubElement(table, name).text = value
        arguments = etree.SubElement(command, "command-arguments")
        for volume in volumes:
            etree.SubElement(arguments, "volume-list").text = _quoted(volume)
    except ValueError as error:  # what XML cannot carry
        raise RequestRefused(ErrorCode.BAD_REQUEST, str(error)) from error
    etree.indent(root, " ")
    body = etree.tostring(root, encoding="utf-8")
    check(body)
    return body


def check(body: bytes) -> None:
    """Raise RequestRefused if no host could accept this request, whatever its platform and configuration.

    What only a host can tell, its volumes, its limits and what it allows, is left to it.
    """
    commands = parse(body).commands
    refusals: list[RequestRefused] = []
    for platform in Platform:
        try:
            for command in commands:
                dsmc_options.check(command.options, platform, _generous(command))
        except RequestRefused as refusal:
            refusals.append(refusal)
        else:
            return
    # "Wrong everywhere" says more than "not on this platform", which is what the other platform's check found.
    raise min(refusals, key=lambda refusal: refusal.code is not ErrorCode.BAD_REQUEST)


def option(text: str) -> tuple[str, str | None]:
    """Given `name=value`, or `name` for a flag, return name and value."""
    name, equals, value = text.partition("=")
    return name.strip().lstrip("-"), value.strip() if equals else None


def volumes(body: bytes) -> list[str]:
    """Return the volumes that a request names, in their order; none if it is no request."""
    try:
        return [volume for command in parse(body).commands for volume in command.volumes]
    except RequestRefused:
        return []


def _generous(command: Command) -> dsmc_options.Allow:
    """Allow every option, and as snapshot commands the very ones that are asked for: those are the host's to judge."""
    return dsmc_options.Allow(snapshot_commands=tuple(_values(command.options)))


def _values(options: Iterable[Option]) -> Iterable[str]:
    return (option.value for option in options if option.value is not None)


def _quoted(volume: str) -> str:
    if '"' in volume:
        raise RequestRefused(
            ErrorCode.BAD_REQUEST, f"{volume!r} holds a double quote, which no volume list can"
        )
    return f'"{volume}"' if any(blank in volume for blank in BLANKS) else volume
