"""Options that several commands share, and how results are printed, saved and drawn."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from angulus.core import checks, files

if TYPE_CHECKING:
    from angulus.evaluation.protocols.result import Result

Json = Annotated[
    Path | None,
    typer.Option("--json", help="Save the result to this .json file, and its samples next to it.", show_default=False),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", help="Save everything to this .json file.", show_default=False),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot", help="Draw the result's curves and groups into this folder, as NAME-KIND.png.", show_default=False
    ),
]
GroupsFile = Annotated[
    Path | None,
    typer.Option(
        "--groups",
        help="A CSV id,group: error rates by group of people. Else the embeddings' groups.",
        show_default=False,
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report", help="Write the result as one .html page: tables, curves, choices, hashes.", show_default=False
    ),
]
Digits = Annotated[int, typer.Option("--digits", min=1, max=17, help="Significant digits that are printed.")]
Draws = Annotated[int, typer.Option("--draws", help="Resamples behind the intervals; 0 for none.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the resamples.")]
Flip = Annotated[
    str | None,
    typer.Option("--flip", help="Fuse with the mirrored images' embeddings: sum or concat.", show_default=False),
]
ModelFlip = Annotated[
    str | None,
    typer.Option("--flip", help="none, sum or concat, in place of the model's rule.", show_default=False),
]
Plugins = Annotated[
    Optional[list[Path]],  # noqa: UP045  # typer
    typer.Option(
        "--plugin", help="A Python file with losses of your own, which is run; repeat for several.", show_default=False
    ),
]
ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, such as RUN/model.")]


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """End on Ctrl-C or SIGTERM with exit code 130, and print how to resume."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        say("Stopped. Progress is saved. Run the same command again to resume.")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class Output:
    """Where a result is written; created before any computation, so that a wrong path is refused at once."""

    json: Path | None
    plot: Path | None
    digits: int
    report: Path | None = None

    def __post_init__(self) -> None:
        refuse_unwritable("--json", self.json)
        refuse_unwritable("--report", self.report, ".html")
        if self.plot is not None:
            _refuse_beneath_file("--plot", self.plot / "any.png")

    def show(self, result: Result) -> None:
        """Print a result; save and draw it if asked."""
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
        if self.report is not None:
            _write_page(result, self.json, self.report)


def refuse_no_groups(path: Path | None, result: Result) -> None:
    """Refuse a CSV of groups that gave no error rates by group, with the reason."""
    if path is not None and not result.by_group:
        start = "no error rates by group: "
        reasons = [note.removeprefix(start) for note in result.notes if note.startswith(start)]
        raise checks.InputError(f"{path} gives no error rates by group: {'; '.join(reasons) or 'no groups are known'}")


def save_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write a result to the file of `--json`, if one was given."""
    if path is not None:
        files.make_folder(path.parent)
        files.write_json(path, content)


def refuse_unwritable(option: str, path: Path | None, suffix: str = ".json") -> None:
    """Refuse a file that cannot be written, or has not this suffix, before the work that it is for."""
    if path is None:
        return
    if path.suffix != suffix:
        raise checks.InputError(f"{option} must name a file that ends in {suffix}; got {path}")
    if path.is_dir():
        raise checks.InputError(f"{option} must name a file; {path} is a folder")
    _refuse_beneath_file(option, path)


def _refuse_beneath_file(option: str, path: Path) -> None:
    """Refuse a path below a file, or in a folder without write permission."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise checks.InputError(f"{option} must be in a folder; {there} is a file")
    if not os.access(there, os.W_OK):
        raise checks.InputError(f"{option} must be in a folder that you may write to; {there} is not")


def show_table(table: Table) -> None:
    """Print a table in full width, even on a narrow terminal."""
    console = Console()
    console.width = max(console.width, Measurement.get(console, console.options.update(max_width=1000), table).maximum)
    console.print(table)


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from `112` or `112x96`."""
    match = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", text.lower())
    if match is None:
        raise checks.InputError(f"size must be pixels, such as 112, or 112x96 for height and width; got {text!r:.80}")
    return int(match[1]), int(match[2] or match[1])


def say(text: str) -> None:
    """Print text without markup or wrapping, with URLs in place of their copies' paths."""
    Console().print(files.shown(text), highlight=False, markup=False, soft_wrap=True)


def _write_page(result: Result, saved: Path | None, page: Path) -> None:
    """Write the page that `angulus report` makes of the saved result; one that is not kept is saved for the moment."""
    from angulus.report.sections import write_report

    with tempfile.TemporaryDirectory() as folder:
        if saved is None:
            saved = Path(folder) / f"{result.protocol}.json"
            result.save(saved)
        size = write_report([saved], page)
    say(f"{page}: {size / 2**20:.1f} MiB; open it in a browser")


def _name(result: Result) -> str:
    """Protocol, embeddings and list of a result, so that pictures of two models can share a folder."""
    files = [Path(str(result.about[which])).name for which in ("embeddings", "pairs") if which in result.about]
    return "-".join([result.protocol, *(file.partition(".")[0] for file in files)])


def _draw(result: Result, folder: Path, name: str) -> list[Path]:
    from angulus.report.charts import group_heat_map
    from angulus.report.error_curves import error_curves
    from angulus.report.render_png import render_png

    files.make_folder(folder)
    drawn = []
    for kind in dict.fromkeys(curve.kind for curve in result.curves):
        lines = [(curve.name, curve.x, curve.y) for curve in result.curves if curve.kind == kind]
        drawn.append(folder / f"{name}-{kind}.png")
        render_png(error_curves(kind, lines, title=name), drawn[-1])
    for point in result.by_group:
        if any(len(cell.groups) > 1 for cell in point.cells):
            drawn.append(folder / f"{name}-groups-{re.sub('[^A-Za-z0-9.-]+', '-', point.at)}.png")
            render_png(group_heat_map(point), drawn[-1])
    return drawn
