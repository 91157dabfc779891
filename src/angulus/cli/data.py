"""`angulus data NAME`: show whether a data set is there and where to get it, or download it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from angulus.cli.output import say
from angulus.cli.pair_lists import data_pairs
from angulus.core.checks import InputError
from angulus.data.sets.registry import SETS

Download = Annotated[bool, typer.Option("--download", help="Download it if it is missing, and check its md5.")]
To = Annotated[Optional[Path], typer.Option("--to", help="Folder to download to, or to look in.")]  # noqa: UP045
Prepare = Annotated[bool, typer.Option("--prepare", help="Cut the candidates out of the scans; resumes if stopped.")]

data_app = typer.Typer(no_args_is_help=True, help="Show and download data sets; draw pairs.")
data_app.command("pairs")(data_pairs)


def _add_command(name: str) -> None:
    entry = SETS[name]

    @data_app.command(name, help=f"{entry.title}. To get it: {entry.get}.", short_help=entry.title)
    def show(download: Download = False, to: To = None) -> None:
        _show(name, download, to)


for _name in SETS:
    if _name != "luna16":
        _add_command(_name)


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
    say(f"{len(splits.train):,} training and {len(splits.test):,} test images: {splits.source}")
    say(f"checked: {entry.checked}")
