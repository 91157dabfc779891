"""`angulus embed`: images to an embeddings file, which every evaluation takes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from angulus.cli.engine import TimeoutS
from angulus.cli.output import parse_size, refuse_unwritable, say
from angulus.cli.workers import Engine, RayAddress
from angulus.core import checks, files, wording

if TYPE_CHECKING:
    from angulus.data.sources import LeftOut
    from angulus.models.parity import Parity

_SHOWN = 10  # images left out that are printed; the file has all
_ONNX = "ONNX models"  # the panel of their options in --help


def embed(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model folder, such as RUN/model; left out with --onnx.")
    ],
    source: Annotated[
        Path, typer.Argument(help="Records, or what `angulus convert` reads: a folder, a zip, a list ...")
    ],
    out: Annotated[
        Path | None, typer.Argument(help="The embeddings file: .npz, .safetensors or .parquet.", show_default=False)
    ] = None,
    batch: Annotated[int, typer.Option(help="Images that are decoded and saved at a time.")] = 256,
    flip: Annotated[
        str | None,
        typer.Option(help="none, sum or concat: how features of mirror images are joined; default: the model's rule."),
    ] = None,
    dimensions: Annotated[
        int | None,
        typer.Option(help="Keep the first numbers of each feature, of a model trained with objective.nested."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="float32; or bfloat16: faster on new processors, with its error printed.")
    ] = "float32",
    on_error: Annotated[
        str,
        typer.Option(
            help="Images that cannot be embedded: stop (name them, after all others) or skip (leave them out).",
        ),
    ] = "stop",
    atlas: Annotated[
        Path | None,
        typer.Option(help="Also write a .parquet file with the images, to look at in Apple's Embedding Atlas."),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(help="An ONNX model in place of MODEL.", rich_help_panel=_ONNX, show_default=False),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Pixels, 112 or HEIGHTxWIDTH, if the file takes any.", rich_help_panel=_ONNX, show_default=False
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            help="Subtracted from pixels in 0..255: a number, or one per channel (123.7,116.3,103.5). Default: 127.5.",
            rich_help_panel=_ONNX,
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(help="What the rest is divided by. Default: 127.5.", rich_help_panel=_ONNX, show_default=False),
    ] = None,
    colour: Annotated[
        str | None,
        typer.Option(help="rgb, bgr or grey. Default: rgb.", rich_help_panel=_ONNX, show_default=False),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(help="nchw or nhwc. Default: as the file says.", rich_help_panel=_ONNX, show_default=False),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(help="The output with the features, of several.", rich_help_panel=_ONNX, show_default=False),
    ] = None,
    contract: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file with these settings: a model folder's config.json, or one of your own.",
            rich_help_panel=_ONNX,
            show_default=False,
        ),
    ] = None,
    timeout_s: TimeoutS = 600.0,
    engine: Engine = "local",
    ray_address: RayAddress = None,
) -> None:
    """Write the features, norms and identities of images, prepared by the model's contract.

    Run it again to resume after a stop. Under torchrun, each process embeds its share. With --onnx, any ONNX model
    embeds: angulus embed --onnx MODEL.onnx SOURCE OUT.
    """
    checks.choice("flip", flip or "none", ("none", "sum", "concat"))
    settings: dict[str, Any] = {"size": size, "mean": mean, "scale": scale, "colour": colour, "layout": layout}
    settings |= {"output": output, "contract": contract}
    if onnx is None:
        given = next((name for name, value in settings.items() if value is not None), None)
        if given is not None:
            raise checks.InputError(f"--{given} is for ONNX models, and a model folder has its own; give --onnx too")
        if out is None:
            raise checks.InputError("angulus embed takes MODEL SOURCE OUT; one of them is missing")
        path, images, target = model, source, out
    else:
        if out is not None:
            raise checks.InputError("with --onnx, angulus embed takes SOURCE OUT; leave out the model folder")
        if dimensions is not None:
            raise checks.InputError(
                "--dimensions is for model folders; write an ONNX file by angulus export --dimensions"
            )
        path, images, target = onnx, model, source
    refuse_unwritable("--atlas", atlas, ".parquet")
    if atlas is not None and atlas.resolve() == target.resolve():
        raise checks.InputError(f"--atlas must name another file than the embeddings; got {atlas} for both")
    asked = settings if onnx else None
    where = {"engine": engine, "ray_address": ray_address}
    _run(path, images, target, asked, batch, flip, dimensions, device, precision, on_error, timeout_s, atlas, where)


def _run(
    path: Path,
    source: Path,
    out: Path,
    settings: dict[str, Any] | None,
    batch: int,
    flip: str | None,
    dimensions: int | None,
    device: str,
    precision: str,
    on_error: str,
    timeout_s: float,
    atlas: Path | None,
    where: dict[str, Any],
) -> None:
    """Embed with a model folder, or, with settings, an ONNX file."""
    from angulus.distributed import launch
    from angulus.experiments import build
    from angulus.models import embed

    if atlas is not None:
        embed.refuse_within(source, atlas)
        files.make_folder(atlas.parent)
    console = Console(stderr=True)
    try:
        with (
            launch.process_group(timeout_s, launch.AGAIN) as ranks,
            console.status("embedding ...") as status,
        ):
            started = time.monotonic()
            chosen = build.device(device, ranks, what="--device")
            count = embed.run(
                path if settings is None else _onnx_model(path, settings | {"flip": flip}, precision),
                source,
                out,
                batch=batch,
                flip=flip,
                dimensions=dimensions,
                device=chosen,
                precision=precision,
                ranks=ranks,
                on_error=on_error,
                on_images=lambda done: status.update(wording.progress(done, None, time.monotonic() - started)),
                on_left_out=_show_left_out,
                on_parity=_show_parity,
                **where,
            )
    except KeyboardInterrupt:
        console.print(f"stopped; progress is saved in {out}.parts: run the same command again to resume", markup=False)
        raise typer.Exit(130) from None
    if ranks.rank > 0:
        return
    say(f"{out}: {count:,} embeddings")
    if atlas is not None:
        from angulus.models import atlas as with_images

        with console.status("writing the images ..."):
            with_images.write(out, source, atlas)
        say(f"{atlas}: with the images; look at them with: embedding-atlas {atlas} --vector embeddings --image image")


def _onnx_model(path: Path, settings: dict[str, Any], precision: str) -> Any:
    """The ONNX model with the settings of the command line."""
    from angulus.models import onnx_model

    if precision != "float32":
        raise checks.InputError(f"--precision is for model folders; an ONNX file has its own; got {precision}")
    size = settings["size"]
    numbers = {name: _numbers(name, settings[name]) for name in ("mean", "scale")}
    return onnx_model.load(path, **settings | numbers | {"size": parse_size(size) if size else None})


def _numbers(name: str, text: str | None) -> float | list[float] | None:
    """One number, or several with commas."""
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        rule = f"--{name} must be a number, or one per channel with commas"
        raise checks.InputError(f"{rule}, such as 123.7,116.3,103.5; got {text!r:.80}") from error
    return values[0] if len(values) == 1 else values


def _show_parity(parity: Parity) -> None:
    say(
        f"bfloat16: largest relative error of a feature {parity.feature_error:.1e}, smallest cosine "
        f"{parity.cosine:.6f}, from float32's over the first {parity.images:,} {wording.plural('image', parity.images)}"
    )


def _show_left_out(left_out: list[LeftOut], listed: Path) -> None:
    for item in left_out[:_SHOWN]:
        say(f"left out: {item.where}: {item.reason}")
    say(f"{len(left_out):,} images left out, listed in {listed}")
