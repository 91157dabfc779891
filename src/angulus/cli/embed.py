"""`angulus embed`: images to an embeddings file, which every evaluation takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from angulus.cli.engine import TimeoutS
from angulus.cli.output import ModelFolder, say

if TYPE_CHECKING:
    from angulus.data.sources import LeftOut

_SHOWN = 10  # images left out that are printed; the file has all


def embed(
    model: ModelFolder,
    source: Annotated[
        Path, typer.Argument(help="Records, or what `angulus convert` reads: a folder, a zip, a list ...")
    ],
    out: Annotated[Path, typer.Argument(help="The embeddings file: .npz, .safetensors or .parquet.")],
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 256,
    flip: Annotated[
        str | None,
        typer.Option(help="none, sum or concat: how features of mirror images are joined; default: the model's rule."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    on_error: Annotated[
        str,
        typer.Option(
            help="Images that cannot be embedded: stop (name them, after all others) or skip (leave them out).",
        ),
    ] = "stop",
    timeout_s: TimeoutS = 600.0,
) -> None:
    """Write the features, norms and identities of images, prepared by the model's contract.

    Run it again to resume after a stop. Under torchrun, each process embeds its share.
    """
    from angulus.core import checks
    from angulus.distributed import launch
    from angulus.experiments import build
    from angulus.models import embed

    console = Console(stderr=True)
    checks.choice("flip", flip or "none", ("none", "sum", "concat"))
    try:
        with (
            launch.process_group(timeout_s, launch.AGAIN) as ranks,
            console.status("embedding ...") as status,
        ):
            count = embed.run(
                model,
                source,
                out,
                batch=batch,
                flip=flip,
                device=build.device(device, ranks, what="--device"),
                ranks=ranks,
                on_error=on_error,
                on_images=lambda done: status.update(f"{done:,} images"),
                on_left_out=_show_left_out,
            )
    except KeyboardInterrupt:
        console.print(f"stopped; progress is saved in {out}.parts: run the same command again to resume", markup=False)
        raise typer.Exit(130) from None
    if ranks.rank == 0:
        say(f"{out}: {count:,} embeddings")


def _show_left_out(left_out: list[LeftOut], listed: Path) -> None:
    for item in left_out[:_SHOWN]:
        say(f"left out: {item.where}: {item.reason}")
    say(f"{len(left_out):,} images left out, listed in {listed}")
