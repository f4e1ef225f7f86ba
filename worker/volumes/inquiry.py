"""What judging volumes is on every platform: an answer for each name within a time, and none named twice."""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Thread

from worker.errors import TsmWorkerError
from worker.volumes.verdict import Verdict

LOOKERS = 16  # threads at most; with so many volumes hung, the rest of one call goes unjudged


def in_time(
    asked: Sequence[Verdict], look: Callable[[Verdict], Verdict], timeout: float, hung: str
) -> list[Verdict]:
    """Return `look`'s verdict for each of `asked`, or a refusal where it has none after `timeout` seconds.

    An error of ours (TsmWorkerError) that `look` raises is the reason of a refusal; any other is raised again.
    The daemon thread that waits for what hangs is left behind; `hung` says in the refusal what to look at.
    """
    todo, answers, faults = deque(enumerate(asked)), dict[int, Verdict](), list[BaseException]()

    def following() -> tuple[int, Verdict] | None:
        try:
            return todo.popleft()
        except IndexError:
            return None

    def work() -> None:
        try:
            while step := following():
                index, verdict = step
                try:
                    answers[index] = look(verdict)
                except TsmWorkerError as refusal:
                    answers[index] = replace(verdict, reason=str(refusal))
        except BaseException as fault:  # noqa: BLE001 -- raised again below, in the thread that asked
            faults.append(fault)

    threads = [Thread(target=work, name="volumes", daemon=True) for _ in asked[:LOOKERS]]
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for fault in faults:
        raise fault
    todo.clear()
    silent = f"no answer about it within {timeout:g} s; {hung}"
    return [answers.get(index, replace(verdict, reason=silent)) for index, verdict in enumerate(asked)]


def refuse_repeated(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return `verdicts`, with those refused whose device more than one of the eligible ones has."""
    times = Counter(verdict.device for verdict in verdicts if verdict.eligible)
    return [
        replace(
            verdict,
            eligible=False,
            reason=f"{verdict.device} is named {times[verdict.device]} times in this request, as "
            + " and ".join(shown(other.volume) for other in verdicts if other.device == verdict.device)
            + "; name it once",
        )
        if verdict.eligible and times[verdict.device] > 1
        else verdict
        for verdict in verdicts
    ]


def shown(text: str) -> str:
    """Return `text` as a message may carry it: as it is, or escaped where it cannot be printed."""
    return text if text.isprintable() else ascii(text)[1:-1]


def unfit(name: str) -> str:
    """Return the characters of `name` that dsmc's output and a log line cannot carry, as a list in words."""
    return ", ".join(sorted({shown(char) for char in name if _unfit(char)}))


def _unfit(char: str) -> bool:
    return char < " " or "\x7f" <= char < "\xa0" or "\ud800" <= char <= "\udfff"
