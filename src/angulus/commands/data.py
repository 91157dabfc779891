"""`angulus data`: which sets there are, whether one is found, where to get it, and fetching it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from angulus.checks import InputError
from angulus.commands.output import say


def data_set(
    name: Annotated[Optional[str], typer.Argument(help="A set's name; without one they are listed.")] = None,  # noqa: UP045
    download: Annotated[bool, typer.Option("--download", help="Fetch it, checking its sums, if missing.")] = False,
    to: Annotated[Optional[Path], typer.Option("--to", help="Folder to fetch into, or to look in.")] = None,  # noqa: UP045
    prepare: Annotated[bool, typer.Option("--prepare", help="luna16: cut the candidates out of the scans.")] = False,
) -> None:
    """Say where a data set is found, or where to get it and what is checked; fetch it; without a name, list them."""
    from angulus import checks, data
    from angulus.data.table import SETS

    if name is None:
        for each, entry in SETS.items():
            say(f"{each:<14} {entry.title}")
        return
    entry = SETS[checks.choice("the data set", name, data.names())]
    if prepare:
        if name != "luna16":
            raise InputError(f"--prepare is for luna16, whose scans are cut into patches; got {name!r}")
        _prepare(to)
    try:
        splits = data.load(name, root=to, download=download)
    except InputError as error:
        raise InputError(f"{error}; to get it: {entry.get}; what is checked: {entry.checked}") from error
    say(f"{len(splits.train):,} training and {len(splits.test):,} test images: {splits.source}")
    say(f"checked: {entry.checked}")


def _prepare(folder: Path | None) -> None:
    from angulus.data import luna16

    luna16.prepare(folder, on_scan=lambda scan, number, scans: say(f"scan {number} of {scans}: {scan}"))
