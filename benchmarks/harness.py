"""What the benchmarks share: steps timed in turn, ratios to a floor, peak memory, tables and stored results.

The steps take turns, so that the machine's drift falls on all of them. A ratio compares two times of one round; its
median, least and most over the rounds are reported.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from angulus.core import environment
from angulus.core.checks import InputError, integer

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
Step = Callable[[], object]


class Clock(NamedTuple):
    """Seconds of one step by the clock, and of this process's cores."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Timing:
    """One step's time in each round, and the floor's in the same rounds."""

    what: str
    clocks: list[Clock]
    floor: list[Clock]

    @property
    def seconds(self) -> float:
        return statistics.median(clock.seconds for clock in self.clocks)

    @property
    def cpu_seconds(self) -> float:
        return statistics.median(clock.cpu_seconds for clock in self.clocks)

    def slower(self, clock: str = "seconds") -> Row:
        """Ratios of the time to the floor's: by the clock, or of "cpu_seconds"."""
        pairs = zip(self.clocks, self.floor, strict=True)
        return spread([getattr(own, clock) / getattr(floor, clock) for own, floor in pairs])

    def faster(self) -> Row:
        """Ratios of the speed to the floor's."""
        return spread([floor.seconds / own.seconds for own, floor in zip(self.clocks, self.floor, strict=True)])


def spread(ratios: Sequence[float]) -> Row:
    """Median, least and most of some ratios."""
    return {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}


def ratio_text(row: Row) -> str:
    """A row's ratio with its range, for a table."""
    return f"{row['ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"


def clock(step: Step, wait: Step = lambda: None) -> Clock:
    """Time a step, unless it returns a `Clock` of its own; `wait` returns when the device has finished its work."""
    wait()
    started, cpu_started = time.perf_counter(), time.process_time()
    result = step()
    wait()
    own = Clock(time.perf_counter() - started, time.process_time() - cpu_started)
    return result if isinstance(result, Clock) else own


def take_turns(steps: Mapping[str, Step], rounds: int, *, warm_up: bool = True) -> list[Timing]:
    """Time steps in turn; the first is the floor. A step that returns a `Clock` has timed itself.

    Args:
        steps: by name.
        rounds: how often each is timed, >= 1; every second round goes from the last to the first.
        warm_up: whether each runs once before, for processes to start and libraries to load.
    """
    integer("rounds", rounds, low=1)
    clocks: dict[str, list[Clock]] = {name: [] for name in steps}
    with environment.timing(), Console(stderr=True).status("") as status:
        for name, step in steps.items() if warm_up else ():
            status.update(f"warming up: {name}")
            step()
        for number in range(rounds):
            for name in list(steps)[:: -1 if number % 2 else 1]:
                status.update(f"round {number + 1} of {rounds}: {name}")
                clocks[name].append(clock(steps[name]))
    floor = next(iter(clocks.values()))
    return [Timing(name, values, floor) for name, values in clocks.items()]


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Meanwhile so many processes keep a core each busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(10**6))"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def peak_mib(run: Callable[[], Any]) -> tuple[float | None, Any]:
    """How far this process's memory rises during a call, and what the call returns; None where Linux does not say."""
    peak = Path("/proc/self/clear_refs")
    if not peak.exists():
        return None, run()
    before = _status_mib("VmRSS")
    peak.write_text("5")  # the peak is measured from here on
    result = run()
    return _status_mib("VmHWM") - before, result


def _status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def cpu_seconds(pid: int) -> float:
    """The core time of a process, of its threads and of the kernel for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def python(*arguments: object) -> str:
    """What a new Python process prints: one that has imported and allocated nothing yet."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def options(about: str, **numbers: int) -> argparse.ArgumentParser:
    """A parser with whole numbers by name and default, and --save."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"default {default:,}")
    parser.add_argument("--save", action="store_true", help="append the results to benchmarks/results/")
    return parser


def show(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Print a table of texts, as wide as it is."""
    table = Table(title=title)
    for number, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row.values())
    console = Console()
    console.width = max(console.width, Measurement.get(console, console.options.update(max_width=1000), table).maximum)
    console.print(table)


def store(script: str, rows: Sequence[Row], *packages: str, device: str = "cpu") -> None:
    """Append a line per row to results/SCRIPT.jsonl, with device, versions, date, command and commit."""
    facts = environment.of_timing(torch.device(device), *packages)
    facts["command"] = ["python", f"benchmarks/{script}.py", *facts["command"][1:]]
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{script}.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row | {"environment": facts}) + "\n" for row in rows)


def run(main: Callable[[], None]) -> None:
    """Run a script; wrong input ends in a sentence and exit code 2."""
    try:
        main()
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
