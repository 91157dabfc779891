"""`angulus embed`: images to an embeddings file, which every evaluation takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from angulus.commands.output import say


def embed(
    model: Annotated[Path, typer.Argument(help="A model folder, such as RUN/model.")],
    source: Annotated[
        Path, typer.Argument(help="Records, or what `angulus convert` reads: a folder, a zip, a list ...")
    ],
    out: Annotated[Path, typer.Argument(help="The embeddings file: .npz, .safetensors or .parquet.")],
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 256,
    flip: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="none, sum or concat: how features of mirror images are joined; else as the model says."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Write the features, norms and identities of images, as the model's contract wants them prepared.

    Goes on where it stopped. Under torchrun, each process embeds its share.
    """
    from angulus import build, checks, embedding
    from angulus.distributed import launch

    console = Console(stderr=True)
    checks.choice("flip", flip or "none", ("none", "sum", "concat"))
    try:
        with launch.process_group(launch.LONGEST_S) as ranks, console.status("embedding ...") as status:
            count = embedding.run(
                model,
                source,
                out,
                batch=batch,
                flip=flip,
                device=build.device(device, ranks, what="--device"),
                ranks=ranks,
                on_images=lambda done: status.update(f"{done:,} images"),
            )
    except KeyboardInterrupt:
        console.print(
            f"stopped; what is done is kept in {out}.parts: run the same command again to go on", markup=False
        )
        raise typer.Exit(130) from None
    if ranks.rank == 0:
        say(f"{out}: {count:,} embeddings")
