"""`angulus data NAME`: show whether a data set is there and where to get it, or download it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from angulus.cli.output import say
from angulus.cli.pair_lists import data_pairs
from angulus.core.checks import InputError
from angulus.data.sets.registry import SETS

if TYPE_CHECKING:
    from angulus.data.sets.images import Splits

Download = Annotated[bool, typer.Option("--download", help="Download it if it is missing, and check its md5.")]
To = Annotated[Optional[Path], typer.Option("--to", help="Folder to download to, or to look in.")]  # noqa: UP045
SHOWN = 10  # classes that are named
Prepare = Annotated[bool, typer.Option("--prepare", help="Cut the candidates out of the scans; resumes if stopped.")]

data_app = typer.Typer(no_args_is_help=True, help="Show and download data sets; draw pairs.")
data_app.command("pairs")(data_pairs)


def _add_command(name: str) -> None:
    entry = SETS[name]

    @data_app.command(name, help=f"{entry.title}. To get it: {entry.get}.", short_help=entry.title)
    def show(download: Download = False, to: To = None) -> None:
        _show(name, download, to)


for _name in SETS:
    if _name not in ("luna16", "files"):
        _add_command(_name)


@data_app.command("files", short_help=SETS["files"].title)
def own_files(
    to: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--to", help="A folder, a list, tars, Parquet or a saved data set."),
    ] = None,
    root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The folder that paths in a list are relative to; by default the list's own."),
    ] = None,
    image_column: Annotated[Optional[str], typer.Option(help="The column of the images or their paths.")] = None,  # noqa: UP045
    label_column: Annotated[Optional[str], typer.Option(help="The column of the classes.")] = None,  # noqa: UP045
) -> None:
    """Show what training reads of images of your own: how many, and of which classes."""
    from angulus import data

    if to is None:
        raise InputError("--to must name the folder or file to read; add --to PATH")
    splits = data.load("files", path=to, root=root, image_column=image_column, label_column=label_column)
    _say("files", splits)
    counts = splits.train.labels.bincount(minlength=len(splits.train.class_names)).tolist()
    named = [f"{name} {count:,}" for name, count in zip(splits.train.class_names, counts, strict=True)]
    more = f" and {len(named) - SHOWN:,} more" if len(named) > SHOWN else ""
    say(f"training images by class: {', '.join(named[:SHOWN])}{more}")


@data_app.command("luna16", short_help=SETS["luna16"].title)
def luna16(download: Download = False, to: To = None, prepare: Prepare = False) -> None:
    """Show where LUNA16's patches are, or cut them out of the scans."""
    if prepare:
        from angulus.data.sets.luna16_prepare import prepare as cut_patches

        cut_patches(to, on_scan=lambda scan, number, scans: say(f"scan {number} of {scans}: {scan}"))
    _show("luna16", download, to)


def _show(name: str, download: bool, to: Path | None) -> None:
    from angulus import data

    entry = SETS[name]
    try:
        splits = data.load(name, root=to, download=download)
    except InputError as error:
        raise InputError(f"{error}; to get it: {entry.get}; what is checked: {entry.checked}") from error
    _say(name, splits)


def _say(name: str, splits: Splits) -> None:
    say(f"{len(splits.train):,} training and {len(splits.test):,} test images: {splits.source}")
    say(f"checked: {SETS[name].checked}")
