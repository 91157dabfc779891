"""`angulus bench`: what is timed, as ratios to floors and peers in the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.table import Table

from angulus.cli.output import refuse_unwritable, show_table
from angulus.core import checks, files

bench_app = typer.Typer(no_args_is_help=True, help="Timings, as ratios to floors and peers in the same run.")


@bench_app.command("head")
def bench_head(
    batch: Annotated[int, typer.Option(help="Rows B.")] = 256,
    classes: Annotated[int, typer.Option(help="Classes C.")] = 100_000,
    size: Annotated[int, typer.Option(help="Embedding size d.")] = 512,
    rounds: Annotated[int, typer.Option(help="Times that each is timed, in turn with the others.")] = 5,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    only: Annotated[Optional[list[str]], typer.Option(help="Names from the table; all, if none.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="Append the results to this file, as JSON lines.")] = None,  # noqa: UP045
) -> None:
    """Time a training step of the head, and its memory beyond W and dW, beside bare products and a peer."""
    from angulus.bench import head

    refuse(out)
    shape = head.Shape(batch, classes, size, device)
    table = Table(title=f"B = {batch:,}, C = {classes:,}, d = {size}, {device}, {rounds} rounds")
    for name in ("step", "median ms", "ratio to 3 products", "MiB beyond W and dW"):
        table.add_column(name, justify="left" if name == "step" else "right")
    lines = []
    with Console(stderr=True).status("") as status:
        for timing in head.run(shape, rounds, tuple(only or ()), status.update):
            memory = "" if timing.extra_mib is None else f"{timing.extra_mib:,.1f}"
            ratio = f"{timing.ratio:.2f} [{timing.ratio_low:.2f}, {timing.ratio_high:.2f}]"
            table.add_row(timing.what, f"{timing.median_ms:,.1f}", ratio, memory)
            lines.append(json.dumps(head.record(shape, rounds, timing)) + "\n")
    show_table(table)
    if out is not None:
        append(out, lines)


@bench_app.command("accuracy")
def bench_accuracy(
    batch: Annotated[int, typer.Option(help="Rows B.")] = 256,
    classes: Annotated[int, typer.Option(help="Classes C.")] = 10_000,
    size: Annotated[int, typer.Option(help="Embedding size d.")] = 512,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Optional[Path], typer.Option(help="Append the results to this file, as JSON lines.")] = None,  # noqa: UP045
) -> None:
    """Compare every kernel and dtype with float64: relative errors of the loss and of both gradients."""
    from dataclasses import asdict

    import torch

    from angulus.bench import accuracy
    from angulus.bench.head import Shape
    from angulus.core import environment

    refuse(out)
    shape = Shape(batch, classes, size, device)
    table = Table(title=f"relative error against float64: B = {batch:,}, C = {classes:,}, d = {size}, {device}")
    for name in ("objective", "dtype", "impl", "loss", "dX", "dW"):
        table.add_column(name, justify="right" if name in ("loss", "dX", "dW") else "left")
    lines = []
    about = environment.of_timing(torch.device(device))
    for error in accuracy.run(shape):
        numbers = (f"{value:.1e}" for value in (error.loss, error.features, error.weight))
        table.add_row(error.objective, error.dtype, error.impl, *numbers)
        lines.append(json.dumps(asdict(shape) | asdict(error) | {"environment": about}) + "\n")
    show_table(table)
    if out is not None:
        append(out, lines)


@bench_app.command("sampling")
def bench_sampling(
    embeddings: Annotated[Path, typer.Argument(help="An embeddings file with labels (.npz, .safetensors, .parquet).")],
    rate: Annotated[Optional[list[float]], typer.Option(help="Share of the classes; 0.1, 0.3 and 1, if none.")] = None,  # noqa: UP045
    batch: Annotated[int, typer.Option(help="Rows a step.")] = 16,
    draws: Annotated[int, typer.Option(help="Steps for each rate.")] = 200,
    out: Annotated[Optional[Path], typer.Option(help="Append the results to this file, as JSON lines.")] = None,  # noqa: UP045
) -> None:
    """Compare class sampling with all classes on your features: bias of the sum, gradient, hardest negatives found."""
    from dataclasses import asdict

    import numpy as np
    import torch

    from angulus.bench import sampling
    from angulus.core import environment
    from angulus.core.embeddings import Embeddings

    refuse(out)
    given = Embeddings.read(embeddings)
    if given.labels is None:
        raise checks.InputError(f"{embeddings} has no labels; class sampling needs the identity of each row")
    names, labels = np.unique(given.labels[given.labelled], return_inverse=True)
    unknown = f" ({len(given) - len(labels):,} of unknown people left out)" if len(labels) < len(given) else ""
    table = Table(title=f"{len(labels):,} rows{unknown} of {len(names):,} classes, {draws} steps of {batch}")
    for name in ("rate", "corrected", "sum / full sum", "cos of gradients", "hardest negative found"):
        table.add_column(name, justify="right")
    lines = []
    about = environment.of_timing(torch.device("cpu"))
    features = torch.from_numpy(np.array(given.vectors[given.labelled], dtype=np.float32))
    for row in sampling.run(
        features, torch.from_numpy(labels), tuple(rate or (0.1, 0.3, 1.0)), batch=batch, draws=draws
    ):
        ratio = f"{row.ratio:.3f} ± {row.ratio_error:.3f}"
        corrected = "yes" if row.corrected else "no"
        table.add_row(f"{row.rate:g}", corrected, ratio, f"{row.gradient_cos:.3f}", f"{100 * row.recall:.1f} %")
        lines.append(
            json.dumps(
                {"rows": len(labels), "classes": len(names), "batch": batch, "draws": draws}
                | asdict(row)
                | {"environment": about}
            )
            + "\n"
        )
    show_table(table)
    if out is not None:
        append(out, lines)


def refuse(out: Path | None) -> None:
    """Refuse a file of results that cannot be written, before the timing."""
    if out is not None:
        refuse_unwritable("--out", out, ".jsonl")


def append(path: Path, lines: list[str]) -> None:
    """Add lines to a file of results; it is old or new, never half."""
    files.make_folder(path.parent)
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
    except OSError as error:
        raise checks.InputError(files.sentence(error, path)) from error
    files.write_text(path, before + "".join(lines))
