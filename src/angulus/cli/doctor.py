"""`angulus doctor`: whether images are what a model was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console


def doctor(
    model: Annotated[Path, typer.Argument(help="A model folder, such as RUN/model.")],
    images: Annotated[Path, typer.Argument(help="Records, or what `angulus convert` reads; best with identities.")],
    limit: Annotated[int, typer.Option(help="Images looked at, up to 5,000.")] = 400,
    draws: Annotated[int, typer.Option(help="Resamples behind the intervals.")] = 2000,
    depth: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Folder, zip: which folder of the path names the identity, from 1; else all of them."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    json: Annotated[Optional[Path], typer.Option(help="Save all figures to this file.")] = None,  # noqa: UP045
) -> None:
    """Find swapped colours, wrong pixel values and crops that are not aligned, by what they do to norms and scores."""
    from rich.table import Table

    from angulus.cli import progress
    from angulus.cli.output import refuse_unwritable, say, show_table
    from angulus.core import files
    from angulus.data.sources import SourceOptions
    from angulus.doctor import diagnose
    from angulus.experiments import build

    if json is not None:
        refuse_unwritable("--json", json)
    with progress.counted(Console(stderr=True)) as show:
        show("reading images", 0, limit)
        found = diagnose(
            model,
            images,
            limit=limit,
            draws=draws,
            options=SourceOptions(depth),
            device=build.device(device, what="--device"),
            on_trial=lambda done, of: show("changes to the images tried", done, of),
        )
    table = Table("images with", "norms times", "separation", "gain", "interval of the gain", "better")
    for each in found.outcomes:
        gain = each.gain_interval
        table.add_row(
            each.name,
            f"{each.norm_ratio:.3f}",
            "" if each.separation is None else f"{each.separation:.2f}",
            "" if each.gain is None else f"{each.gain:+.2f}",
            "" if gain is None else f"{gain.low:+.2f} to {gain.high:+.2f}",
            "yes" if each.better else "",
        )
    show_table(table)
    for sentence in found.sentences():
        say(sentence)
    if json is not None:
        files.make_folder(json.parent)
        files.write_json(json, found.as_json())
