"""The worker as a guest of the virtual machine: configured, started, its journal looked at."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

import pytest
from brokers import wait_until
from machine import HOST, TREE, Machine

CONFIG = "/etc/tsm-worker/worker.toml"
LOG = "/var/log/worker.log"
RUNS = "/var/log/runs.ndjson"
STATE = "/var/lib/tsm-worker"
PLAN = "/etc/tsm-worker/plan.json"
INTEGRITY = """
import sqlite3
print(sqlite3.connect("/tmp/copy/journal.sqlite").execute("pragma integrity_check").fetchall())
"""


def install(machine: Machine, url: str, plan: Mapping[str, Any], attempts: int = 3) -> None:
    """Configure a worker `vm01` in the machine, on the broker that this side knows as `url`."""
    dsmc = ["/usr/bin/python3", "-I", "-S", f"{TREE}/worker/demo/dsmc.py"]
    machine.write(
        CONFIG,
        f"""\
host = "vm01"
state_dir = "{STATE}"

[broker]
url = {json.dumps(url.replace("@127.0.0.1:", f"@{HOST}:"))}

[dsmc]
command = {json.dumps(dsmc)}

[retry]
attempts = {attempts}
first_delay = "1s"
""",
    )
    machine.write(PLAN, json.dumps({"log": RUNS, **plan}))


def start(machine: Machine) -> None:
    """Start the worker in the machine; return once it takes requests."""
    machine.say(f"DSM_STANDIN={PLAN} setsid python3 -m worker run >{LOG} 2>&1 </dev/null &")
    try:
        wait_until(
            lambda: "broker connected" in machine.say(f"cat {LOG}"),
            60,
            "the worker in the machine to connect",
        )
    except pytest.fail.Exception:
        print(machine.say(f"cat {LOG}"))  # noqa: T201 -- pytest shows it beside the failure
        raise


def sound(machine: Machine) -> bool:
    """Whether the journal is whole; a copy is looked at, so that the worker finds it as the power cut left it."""
    machine.say(f"rm -rf /tmp/copy && mkdir /tmp/copy && cp {STATE}/journal.sqlite* /tmp/copy/")
    return machine.say(f"python3 -c {shlex.quote(INTEGRITY)}") == "[('ok',)]\n"
