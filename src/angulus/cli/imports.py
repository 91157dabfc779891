"""`angulus import`: checkpoints of other projects as model folders."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from angulus.cli.output import say
from angulus.core import checks

import_app = typer.Typer(no_args_is_help=True, help="Make a model folder of another project's checkpoint.")

Checkpoint = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A file of torch.save; no code of it runs.")]
Out = Annotated[Path, typer.Option("--out", help="The model folder to write.", show_default=False)]
Classes = Annotated[
    Optional[Path],  # noqa: UP045  # typer
    typer.Option(
        "--classes",
        help="Class weights to keep: the folder of Partial FC's shards, or a file with weight, W or head.kernel.",
        show_default=False,
    ),
]
Scale = Annotated[float, typer.Option("--scale", help="s of the logits of these classes.")]


@import_app.command("insightface")
def insightface(checkpoint: Checkpoint, out: Out, classes: Classes = None, scale: Scale = 64.0) -> None:
    """Import an iresnet of insightface's arcface_torch: backbone.pth, model.pt; 18 to 200 layers."""
    _import("insightface", checkpoint, out, classes, scale)


@import_app.command("adaface")
def adaface(checkpoint: Checkpoint, out: Out, classes: Classes = None, scale: Scale = 64.0) -> None:
    """Import a net of AdaFace: a .ckpt of its training, or the weights alone; 18 to 100 layers."""
    _import("adaface", checkpoint, out, classes, scale)


@import_app.command("cvlface")
def cvlface(
    checkpoint: Checkpoint,
    out: Out,
    classes: Classes = None,
    scale: Scale = 64.0,
    colour: Annotated[str, typer.Option("--colour", help="rgb or bgr, as color_space in its model.yaml.")] = "rgb",
) -> None:
    """Import an iresnet of CVLface, whose layers are AdaFace's: model.pt; 18 to 100 layers."""
    _import("cvlface", checkpoint, out, classes, scale, colour)


@import_app.command("facenet")
def facenet(checkpoint: Checkpoint, out: Out, classes: Classes = None, scale: Scale = 64.0) -> None:
    """Import an InceptionResnetV1 of facenet-pytorch."""
    _import("facenet", checkpoint, out, classes, scale)


@import_app.command("pml")
def pml(
    checkpoint: Checkpoint,
    model: Annotated[Path, typer.Option("--model", help="The folder of the model that makes the features.")],
    out: Out,
    scale: Scale = 64.0,
) -> None:
    """Add the class weights W of a pytorch-metric-learning loss to a copy of a model folder."""
    from angulus.models.imports import import_classes

    _check(out, scale)
    classifier = import_classes(checkpoint, model, out, scale)
    say(f"{out}: {model} with {len(classifier.names):,} classes")


def _import(kind: str, checkpoint: Path, out: Path, classes: Path | None, scale: float, colour: Any = None) -> None:
    from angulus.models import model_card
    from angulus.models.imports import import_model

    _check(out, scale)
    config = import_model(kind, checkpoint, out, classes, scale, colour)
    say(f"{out}: {config.backbone}, features of {config.embedding_size} numbers")
    for line in model_card.takes(asdict(config), config.contract):
        say(f"  {line}")


def _check(out: Path, scale: float) -> None:
    checks.number("--scale", scale, low=0, open_low=True)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise checks.InputError(f"--out must be a new or empty folder; {out} holds something")
