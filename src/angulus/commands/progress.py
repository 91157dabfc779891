"""The bar that a run, or a grid of runs, shows on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console


class Bar:
    """Progress of one run, or of a grid of runs, as one bar."""

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
    """Show a bar while the block runs, where the console is a terminal."""
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
        yield Bar(lambda text, share: shown.update(task, description=text, completed=share))
