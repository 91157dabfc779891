"""Time to start: `import angulus` after torch, every public name, and `angulus --help`, next to `import torch` alone.

    python benchmarks/start.py [--rounds 9] [--save]

Every time is that of a new process. The imports are timed inside it, after torch's; the command lines as a whole, next
to a Python that does nothing. The first round is not counted: it brings the files into the page cache.
"""

from __future__ import annotations

import os
import time
from functools import partial

import angulus
from harness import Clock, options, python, run, show, store, take_turns

IMPORTS = {  # what is timed: what the process has imported before
    "import torch": "pass",
    "import angulus": "import torch",
    "from angulus import *": "import torch",
}
COMMANDS = {
    "python -c pass": ("-c", "pass"),
    "angulus --version": ("-m", "angulus", "--version"),
    "angulus --help": ("-m", "angulus", "--help"),
    "angulus train --help": ("-m", "angulus", "train", "--help"),
}


def time_import(statement: str, before: str) -> Clock:
    """Time an import in a new process."""
    code = (
        f"{before}\nimport time\nstarted, cpu = time.perf_counter(), time.process_time()\n{statement}\n"
        "print(time.perf_counter() - started, time.process_time() - cpu)"
    )
    return Clock(*map(float, python("-c", code).split()))


def time_command(words: tuple[str, ...]) -> Clock:
    """Time a new process as a whole."""
    started, before = time.perf_counter(), os.times()
    python(*words)
    spent, after = time.perf_counter() - started, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Clock(spent, cpu)


def main(arguments: list[str] | None = None) -> None:
    asked = options(__doc__ or "", rounds=9).parse_args(arguments)
    steps = {statement: partial(time_import, statement, before) for statement, before in IMPORTS.items()}
    steps |= {command: partial(time_command, words) for command, words in COMMANDS.items()}
    rows = [
        {"what": timing.what, "rounds": asked.rounds, "median_s": timing.seconds}
        | {"low_s": min(timing.clocks).seconds, "high_s": max(timing.clocks).seconds, "cpu_s": timing.cpu_seconds}
        for timing in take_turns(steps, asked.rounds)
    ]
    show(
        f"angulus {angulus.__version__}, {asked.rounds} new processes each",
        [
            {
                "what": row["what"],
                "median s": f"{row['median_s']:.3f}",
                "low .. high": f"{row['low_s']:.3f} .. {row['high_s']:.3f}",
                "processor s": f"{row['cpu_s']:.3f}",
            }
            for row in rows
        ],
    )
    if asked.save:
        store("start", rows)


if __name__ == "__main__":
    run(main)
