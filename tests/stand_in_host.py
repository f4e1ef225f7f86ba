"""The real daemon with stand-in volumes: whatever a test names under /dev/stand-in/ is an eligible partition."""

import os
from collections.abc import Sequence
from pathlib import Path

import faults

from worker import config, log
from worker.daemon import Daemon
from worker.volumes.verdict import Verdict
from worker.words import Platform


class StandInVolumes:
    platform = Platform.LINUX

    def judge(self, names: Sequence[str]) -> list[Verdict]:
        return [self._verdict(name) for name in names]

    def all(self) -> list[Verdict]:
        return []

    def _verdict(self, name: str) -> Verdict:
        if name.startswith("/dev/stand-in/"):
            return Verdict(name, eligible=True, reason="a stand-in", device=name, file_system="ext4")
        return Verdict(name, eligible=False, reason="no stand-in; name one under /dev/stand-in/")


if __name__ == "__main__":
    if point := os.environ.get("TSM_TEST_KILL_AT"):
        faults.arm(point, Path(os.environ["TSM_TEST_KILLED"]))
    settings = config.load(None)
    log.configure(settings.log)
    Daemon(settings, StandInVolumes(), lambda: config.load(None)).run()
