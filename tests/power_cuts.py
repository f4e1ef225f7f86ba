"""Power cuts at random moments of a run of requests, then an audit. A command, not a test: deploy/power-cuts.sh."""

import argparse
import random
import sys
import time
from collections import Counter

from brokers import wait_until
from guest import RUNS, install, sound, start
from hosts import Answer, Requester, request
from machine import Machine

from worker.broker import topology
from worker.demo.broker import open_broker


def main() -> int:
    """Cut the power as often as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", default="private")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with open_broker(arguments.broker) as broker, Machine(disks=(16,)) as machine:
        machine.say("echo ',,83' | sfdisk --quiet --label dos /dev/vdc; udevadm settle")
        install(machine, broker.url, {"default": {"seconds": 1.5}}, attempts=arguments.cuts + 1)
        machine.say("sync")
        start(machine)
        return cuts(arguments.cuts, chance, machine, Requester(broker.url))


def cuts(count: int, chance: random.Random, machine: Machine, scheduler: Requester) -> int:
    """Ask, cut, boot, look, again; then wait for what is still owed, and audit."""
    asked: list[str] = []
    answers: dict[str, list[Answer]] = {}
    damaged = 0
    for cut in range(count):
        asked += [scheduler.ask(request("/dev/vdc1"), "host.vm01") for _ in range(chance.randint(1, 4))]
        until = time.monotonic() + chance.uniform(0.2, 8)
        wait_until(lambda until=until: time.monotonic() > until, 60, "the moment of the cut")  # type: ignore[misc]
        machine.power_cut()
        machine.boot()
        damaged += not sound(machine)
        start(machine)
        collect(scheduler, answers)
        print(f"{cut + 1:3} cuts, {len(asked)} asked, {len(answers)} answered", file=sys.stderr)

    def all_there() -> bool:
        collect(scheduler, answers)
        return len(answers) >= len(asked)

    wait_until(all_there, 300, "every answer")
    attempts = Counter(got[0].headers["tsm-attempts"] for got in answers.values())
    letters = scheduler.channel.queue_declare(topology.DEAD_QUEUE, passive=True).method.message_count
    lost = [name for name in asked if name not in answers]
    runs = machine.say(f"grep -c start {RUNS}").strip()
    print(f"power cuts       {count}")
    print(f"requests         {len(asked)}")
    print(f"responses        {sum(map(len, answers.values()))}")
    print(f"outcomes         {dict(Counter(got[0].headers['tsm-outcome'] for got in answers.values()))}")
    print(f"attempts         {dict(sorted(attempts.items()))}")
    print(f"runs on record   {runs} (of those the disk still knows)")
    print(f"dead letters     {letters}")
    print(f"lost             {len(lost)}")
    print(f"damaged journals {damaged}")
    good = not lost and not damaged
    print("audit passed" if good else "audit failed")
    return 0 if good else 1


def collect(scheduler: Requester, answers: dict[str, list[Answer]]) -> None:
    """Take every answer that is there."""
    while not scheduler.silent():
        answer = scheduler.answer()
        answers.setdefault(answer.headers["tsm-request-id"], []).append(answer)


if __name__ == "__main__":
    sys.exit(main())
