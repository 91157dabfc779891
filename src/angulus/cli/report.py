"""`angulus report`: runs, comparisons and saved results as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from angulus.cli.output import Draws, Plugins, refuse_unwritable, say
from angulus.core import files


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of runs or comparisons, and results saved as .json, in any mixture.", show_default=False
        ),
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045  # typer
        typer.Option(
            "--out",
            help="File of the page. Default: report.html in the folder of a single run, else in the current folder.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--images", help="Images of the pairs in saved results: a folder, a zip, records, a .bin ..."),
    ] = None,
    draws: Draws = 1000,
    plugin: Plugins = None,
) -> None:
    """Write one HTML page that works offline: tables, features, curves, norms, images, training and recipe."""
    own = len(runs) == 1 and runs[0].is_dir() and str(runs[0]) not in files.ORIGINS  # not the copy of a URL
    page = out or (runs[0] if own else Path()) / "report.html"
    refuse_unwritable("--out", page, ".html")
    from angulus.experiments import plugins
    from angulus.report.sections import write_report

    plugins.load(plugin or [])
    size = write_report(runs, page, images=images, draws=draws)
    say(f"{page}: {size / 2**20:.1f} MiB; open it in a browser")
