"""`angulus doctor`: whether images are what a model was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from angulus.cli.output import JsonFile, ModelFolder, refuse_unwritable, save_json, say, show_table


def doctor(
    model: ModelFolder,
    images: Annotated[Path, typer.Argument(help="Records, or what `angulus convert` reads; best with identities.")],
    limit: Annotated[int, typer.Option(help="Images examined, up to 5,000.")] = 400,
    draws: Annotated[int, typer.Option(help="Resamples behind the intervals.")] = 2000,
    depth: Annotated[
        int | None,
        typer.Option(help="Folder, zip: which folder of the path names the identity, from 1; default: all of them."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    json: JsonFile = None,
) -> None:
    """Find swapped colours, wrong pixel values and crops that are not aligned, by what they do to norms and scores."""
    from rich.table import Table

    from angulus.cli import progress
    from angulus.data.sources import SourceOptions
    from angulus.doctor import diagnose
    from angulus.experiments import build

    refuse_unwritable("--json", json)
    with progress.counted(Console(stderr=True)) as show:
        show("reading images", 0, limit)
        diagnosis = diagnose(
            model,
            images,
            limit=limit,
            draws=draws,
            options=SourceOptions(depth),
            device=build.device(device, what="--device"),
            on_trial=lambda done, of: show("changes to the images tried", done, of),
        )
    table = Table("images with", "norms times", "separation", "gain", "interval of the gain", "better")
    for effect in diagnosis.outcomes:
        gain = effect.gain_interval
        table.add_row(
            effect.name,
            f"{effect.norm_ratio:.3f}",
            "" if effect.separation is None else f"{effect.separation:.2f}",
            "" if effect.gain is None else f"{effect.gain:+.2f}",
            "" if gain is None else f"{gain.low:+.2f} to {gain.high:+.2f}",
            "yes" if effect.better else "",
        )
    show_table(table)
    for sentence in diagnosis.sentences():
        say(sentence)
    save_json(json, diagnosis.as_json())
