"""What a request means on this host: each command's arguments and limit, checked against what the host allows."""

import ntpath
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from worker.config import Dsmc
from worker.contract import options, request
from worker.dsmc import program
from worker.errors import RequestRefused
from worker.volumes import Volumes
from worker.volumes.verdict import Verdict
from worker.words import ErrorCode, Platform


class VolumesRefused(RequestRefused):
    """At least one volume of a request is not eligible; `verdicts` has one entry per volume named."""

    def __init__(self, verdicts: Sequence[Verdict]) -> None:
        refused = [verdict for verdict in verdicts if not verdict.eligible]
        message = "; ".join(
            f"{request.shown(verdict.volume)}: {request.shown(verdict.reason, 250)}"
            for verdict in refused[:5]
        )
        if len(refused) > 5:  # noqa: PLR2004 -- a message is a sentence or two
            message += f"; and {len(refused) - 5} more"
        super().__init__(ErrorCode.VOLUME_NOT_ELIGIBLE, message)
        self.verdicts = tuple(verdicts)


@dataclass(frozen=True, slots=True)
class Step:
    """One command as it is to be run: dsmc's arguments, the volumes among them, its time limit in seconds."""

    arguments: tuple[str, ...]
    volumes: tuple[str, ...]
    incremental: bool
    limit: float
    line: int


def make(body: bytes, platform: Platform, settings: Dsmc) -> tuple[Step, ...]:
    """Given a request's body, return its steps in order.

    Raise RequestRefused for what is malformed, or not allowed on this host as far as the text alone tells.
    """
    return tuple(_step(command, platform, settings) for command in request.parse(body).commands)


def _step(command: request.Command, platform: Platform, settings: Dsmc) -> Step:
    limit = (
        min(settings.default_timeout, settings.max_timeout) if command.timeout is None else command.timeout
    )
    if limit > settings.max_timeout:
        raise RequestRefused(
            ErrorCode.BAD_REQUEST,
            f"line {command.timeout_line}: <timeout-secs> is {command.timeout}; this host's dsmc.max_timeout is "
            f"{settings.max_timeout:.0f} seconds",
        )
    allow = options.Allow(settings.allow.options, settings.allow.snapshot_commands, settings.allow.unchecked)
    arguments = options.check(command.options, platform, allow)
    return Step(
        tuple(program.backup_image(arguments, command.volumes)),
        command.volumes,
        options.is_incremental(command.options),
        float(limit),
        command.line,
    )


def judge(steps: Sequence[Step], volumes: Volumes, allowed: Sequence[str]) -> list[Verdict]:
    """Given steps, return the verdict on each of their volumes, all of them eligible.

    `allowed` are `dsmc.allow.volumes`: patterns on a volume's name with `.` and `..` resolved; what they leave
    out is not even looked at. Raise VolumesRefused if a volume is not eligible, RequestRefused where a step
    asks for an incremental image of a raw volume, which dsmc cannot make (ANS4000E).
    """
    named = [volume for step in steps for volume in step.volumes]
    if forbidden := {volume for volume in named if not _allowed(volume, volumes.platform, allowed)}:
        reason = "this host's configuration does not list it in dsmc.allow.volumes"
        raise VolumesRefused(
            [
                Verdict(v, v not in forbidden, reason if v in forbidden else "listed, not looked at")
                for v in named
            ]
        )
    verdicts = volumes.judge(named)
    if not all(verdict.eligible for verdict in verdicts):
        raise VolumesRefused(verdicts)
    raw = {verdict.volume for verdict in verdicts if verdict.file_system is None}
    for step in steps:
        if step.incremental and not raw.isdisjoint(step.volumes):
            raise RequestRefused(
                ErrorCode.BAD_REQUEST,
                f"line {step.line}: mode=incremental needs a file system, and {min(raw & set(step.volumes))!r} "
                "holds none; leave the mode out",
            )
    return verdicts


def _allowed(volume: str, platform: Platform, patterns: Sequence[str]) -> bool:
    if platform is Platform.WINDOWS:
        name = ntpath.normpath(volume).lower()
        return any(fnmatchcase(name, pattern.lower()) for pattern in patterns)
    return any(fnmatchcase(posixpath.normpath(volume), pattern) for pattern in patterns)
