"""`angulus subcenters`: images far from their class's dominant sub-centre, and the model with that one alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from angulus.cli.output import ModelFolder, refuse_unwritable, say
from angulus.core import checks, files
from angulus.core.wording import plural

_SHOWN = 5  # images printed; the file has all


def subcenters(
    model: ModelFolder,
    embeddings: Annotated[
        Path,
        typer.Argument(
            metavar="EMBEDDINGS", help="Embeddings of its training images, made by angulus embed --flip none."
        ),
    ],
    table: Annotated[
        Path | None,
        typer.Option("--csv", help="Save id, label and angle of the far images to this .csv.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the model with only the dominant sub-centres here.", show_default=False),
    ] = None,
    max_angle: Annotated[float, typer.Option(help="List images farther than this, in degrees.")] = 75.0,
) -> None:
    """List images far from the dominant sub-centre of their class, whose labels may be wrong.

    With --out, write the model without the other sub-centres.
    """
    from angulus.core.embeddings import Embeddings
    from angulus.models import artifact
    from angulus.models import subcenters as stored

    refuse_unwritable("--csv", table, ".csv")
    if out is not None and out.exists():
        raise checks.InputError(f"--out must be a new folder; {out} exists")
    loaded = artifact.load(model)
    found = stored.examine(loaded, Embeddings.read(embeddings), max_angle)
    shares = found.dominant.counts.double() / found.dominant.counts.sum(dim=1, keepdim=True)
    say(
        f"{found.images:,} images of {len(shares):,} classes with {shares.shape[1]} sub-centres; the dominant one has "
        f"{shares.amax(dim=1).mean():.1%} of the images of its class on average"
    )
    number = len(found.far)
    images = f"{number:,} {plural('image', number)} {'is' if number == 1 else 'are'}"
    say(f"{images} farther than {max_angle:g}° from the dominant sub-centre of their class")
    for far in found.far[:_SHOWN]:
        say(f"  {far.id}: {far.label}, {far.angle:.1f}°")
    if number > _SHOWN:
        say("  ...")
    if out is not None:
        stored.save_dominant(loaded, found.dominant, out)
        say(f"{out}/ is the model with one weight row per class")
    if table is not None:
        files.make_folder(table.parent)
        files.write_text(table, found.as_csv(), errors="backslashreplace")  # ids need not be UTF-8
        say(f"{table} lists the far images")
