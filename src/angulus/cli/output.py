"""What the commands that measure share: their options, and how a result is shown, saved and drawn."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from angulus.core import checks, files

if TYPE_CHECKING:
    from angulus.evaluation.protocols.result import Result

Json = Annotated[
    Optional[Path],  # noqa: UP045  # typer
    typer.Option("--json", help="Save the result to this .json, and its samples beside it.", show_default=False),
]
Plot = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--plot", help="Draw the result's curves into this folder, as NAME-KIND.png.", show_default=False),
]
Digits = Annotated[int, typer.Option("--digits", min=1, max=17, help="Significant digits that are printed.")]
Draws = Annotated[int, typer.Option("--draws", help="Resamples behind the intervals; 0 for none.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the resamples.")]
Flip = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--flip", help="Fuse with the mirrored images' embeddings: sum or concat.", show_default=False),
]
Fars = Annotated[
    Optional[list[float]],  # noqa: UP045
    typer.Option(
        "--far",
        help="FAR where TAR is reported; repeat for several. Else all that the data support.",
        show_default=False,
    ),
]


@contextlib.contextmanager
def kept_on_a_stop() -> Iterator[None]:
    """Ctrl-C and SIGTERM end a command that can be gone on with in a sentence that says so, and exit code 130."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        say("stopped; what is done is kept: run the same command again to go on")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class Output:
    """Where a result goes; made before anything is computed, so that what cannot be is refused at once."""

    json: Path | None
    plot: Path | None
    digits: int

    def __post_init__(self) -> None:
        if self.json is not None:
            refuse_unwritable("--json", self.json)
        if self.plot is not None:
            _refuse_beneath_file("--plot", self.plot / "any.png")

    def show(self, result: Result) -> None:
        """Print a result, and save and draw it where that is asked for."""
        for part in result.table(self.digits).renderables:
            if isinstance(part, Table):
                show_table(part)
            else:
                Console().print(part, highlight=False, soft_wrap=True)
        if self.json is not None:
            files.make_folder(self.json.parent)
            result.save(self.json)
            say(f"The result is saved as {self.json}")
        if self.plot is not None:
            drawn = _draw(result, self.plot, self.json.stem if self.json else _name(result))
            say(f"Drawn: {', '.join(map(str, drawn))}" if drawn else f"{result.protocol} has no curves to draw")


def refuse_unwritable(option: str, path: Path, suffix: str = ".json") -> None:
    """Refuse a file that cannot be written, or has not this suffix, before the work that it is for."""
    if path.suffix != suffix:
        raise checks.InputError(f"{option} must name a file that ends in {suffix}; got {path}")
    if path.is_dir():
        raise checks.InputError(f"{option} must name a file; {path} is a folder")
    _refuse_beneath_file(option, path)


def _refuse_beneath_file(option: str, path: Path) -> None:
    """Refuse a path below a file, or in a folder that may not be written."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise checks.InputError(f"{option} must lie in a folder; {there} is a file")
    if not os.access(there, os.W_OK):
        raise checks.InputError(f"{option} must lie in a folder that you may write; {there} is not")


def show_table(table: Table) -> None:
    """Print a table, as wide as it is: a narrow terminal cuts nothing off."""
    console = Console()
    console.width = max(console.width, Measurement.get(console, console.options.update(max_width=1000), table).maximum)
    console.print(table)


def say(text: str) -> None:
    """Print text as it is."""
    Console().print(text, highlight=False, markup=False, soft_wrap=True)


def _name(result: Result) -> str:
    """Protocol, embeddings and list of a result: two models' or lists' pictures in one folder have two names."""
    files = [Path(str(result.about[which])).name for which in ("embeddings", "pairs") if which in result.about]
    return "-".join([result.protocol, *(file.partition(".")[0] for file in files)])


def _draw(result: Result, folder: Path, name: str) -> list[Path]:
    from angulus.report.charts import error_curves
    from angulus.report.render_png import render_png

    files.make_folder(folder)
    drawn = []
    for kind in dict.fromkeys(curve.kind for curve in result.curves):
        lines = [(curve.name, curve.x, curve.y) for curve in result.curves if curve.kind == kind]
        drawn.append(folder / f"{name}-{kind}.png")
        render_png(error_curves(kind, lines, title=name), drawn[-1])
    return drawn
