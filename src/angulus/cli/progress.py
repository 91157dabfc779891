"""Progress of a command: a bar or a spinner on a terminal; otherwise lines, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

EVERY_S = 10.0  # seconds between lines without a terminal
TRAINING_EVERY_S = 60.0  # the same for a training, whose log may be of days


class Bar:
    """One bar for one run or a grid of runs."""

    def __init__(self, show: Callable[[str, float], None]) -> None:
        self.show = show
        self.label, self.before, self.runs = "training", 0, 1

    def on_run(self, label: str, before: int, runs: int) -> None:
        self.label, self.before, self.runs = label, before, runs
        self.show(f"{label} ({before + 1} of {runs})", before / runs)

    def on_step(self, step: int, steps: int, loss: float) -> None:
        number = f" ({self.before + 1} of {self.runs})" if self.runs > 1 else ""
        self.show(f"{self.label}{number}  loss {loss:7.4f}", (self.before + step / steps) / self.runs)


@contextmanager
def bar(console: Console) -> Iterator[Bar]:
    """Show a bar while the block runs on a terminal, otherwise a line per minute with the share and the time left."""
    started = last = time.monotonic()

    def line(text: str, share: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= TRAINING_EVERY_S and share > 0:
            last = now
            _line(console, f"{text}  {share:.1%}, about {(now - started) * (1 - share) / share / 60:,.0f} min left")

    with _progress_bar(console) as show:
        yield Bar(show if console.is_terminal else line)


@contextmanager
def counted(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show `(text, done, total)`: as a bar on a terminal, otherwise as a line per new text and every ten seconds."""
    last_text, last_time = "", 0.0

    def line(text: str, done: int, total: int) -> None:
        nonlocal last_text, last_time
        if text != last_text or time.monotonic() - last_time >= EVERY_S:
            last_text, last_time = text, time.monotonic()
            _line(console, f"{text}: {done:,} of {total:,}")

    with _progress_bar(console) as show:
        yield (lambda text, done, total: show(text, done / max(total, 1))) if console.is_terminal else line


@contextmanager
def stages(console: Console) -> Iterator[Callable[[str], None]]:
    """Show what is done next: next to a spinner on a terminal, otherwise as lines."""
    if not console.is_terminal:
        yield lambda text: _line(console, f"{text} ...")
        return
    from rich.text import Text

    with console.status("") as status:
        yield lambda text: status.update(Text(f"{text} ..."))


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _progress_bar(console: Console) -> Iterator[Callable[[str, float], None]]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    shown = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with shown:
        task = shown.add_task("starting", total=1.0)
        yield lambda text, share: shown.update(task, description=text, completed=share)
