"""`angulus export`: a trained model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from angulus.cli.output import Draws, JsonFile, ModelFlip, ModelFolder, refuse_unwritable, save_json, say, show_table

if TYPE_CHECKING:
    from angulus.evaluation.protocols.result import Number
    from angulus.models.parity import OnPairs, Parity


def export(
    model: ModelFolder,
    onnx: Annotated[Path, typer.Option("--onnx", help="The file to write, .onnx.")],
    precision: Annotated[str, typer.Option(help="float32, float16 or int8.")] = "float32",
    images: Annotated[
        Path | None, typer.Option(help="Images to compare on (a folder, records ...). Default: generated ones.")
    ] = None,
    ranges: Annotated[
        Path | None, typer.Option(help="int8: other images to measure the ranges of layers on. Default: --images.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="A list of pairs of --images, for accuracy before and after.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="plain (`a b 0|1` per line), or lfw (pairs.txt).")] = "plain",
    flip: ModelFlip = None,
    dimensions: Annotated[
        int | None,
        typer.Option(help="Keep the first numbers of each feature, of a model trained with objective.nested."),
    ] = None,
    classes: Annotated[
        bool | None,
        typer.Option(
            "--classes/--no-classes",
            help="Also write probabilities. Default: if the model has classes.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare a file that is there already, and write none.")
    ] = False,
    draws: Draws = 1000,
    json: JsonFile = None,
) -> None:
    """Write an ONNX file from bytes of pixels to features, norms and class probabilities; compare it with PyTorch."""
    from angulus.cli.pair_lists import read_list
    from angulus.cli.progress import stages
    from angulus.core import checks
    from angulus.core.contract import describe_model
    from angulus.models import artifact, export_check
    from angulus.models.export import export as write

    given = {"--precision": precision != "float32", "--ranges": ranges is not None, "--classes": classes is not None}
    if check and any(given.values()):
        name = next(name for name, is_given in given.items() if is_given)
        raise checks.InputError(f"{name} is for writing a file, and --check compares one that is there; leave it out")
    if not check:
        refuse_unwritable("--onnx", onnx, ".onnx")
    refuse_unwritable("--json", json)
    loaded = artifact.load(model)
    if flip is not None:
        loaded = loaded.with_flip(flip)
    if dimensions is not None:
        loaded = loaded.with_dimensions(dimensions)
    listed = read_list(pairs, form) if pairs else None
    options: dict[str, Any] = {"images": images, "pairs": listed, "draws": draws}
    with stages(Console(stderr=True)) as on_stage:
        if check:
            parity, precision = export_check.check(loaded, onnx, **options, on_stage=on_stage)
        else:
            options |= {"precision": precision, "ranges": ranges, "classes": classes}
            parity = write(loaded, onnx, **options, on_stage=on_stage)
    size = onnx.stat().st_size
    kind = precision or "of a precision that it does not state"
    say(f"{onnx}: {kind}, {size / 2**20:.1f} MiB, of {describe_model(loaded.name)}")
    _show(parity, "images" if images else "generated images, which say less than real ones; give --images")
    if parity.pairs is not None:
        _show_pairs(parity.pairs, f"ONNX {precision}".strip())
    if (
        precision == "int8"
        and not check
        and (ranges is None or (images is not None and ranges.resolve() == images.resolve()))
    ):
        say("  the ranges of layers were measured on these very images, which flatters; give others with --ranges")
    if json is not None:
        import torch

        from angulus.core import environment

        about = environment.of_timing(torch.device("cpu"), "onnx", "onnxscript", "onnxruntime")
        what = {"model": loaded.name, "precision": precision, "bytes": size, "ranges": str(ranges) if ranges else None}
        save_json(json, what | parity.as_json() | {"environment": about})


def _show(parity: Parity, kind: str) -> None:
    say(f"  largest relative error of a feature {parity.feature_error:.1e}, of a norm {parity.norm_error:.1e};")
    say(f"  smallest cosine of a feature with PyTorch's {parity.cosine:.6f}; over {parity.images:,} {kind}")
    if parity.probability_error is not None:
        say(f"  largest error of a class's probability {parity.probability_error:.1e}")
    if parity.rounding is not None:
        say(f"  PyTorch's own float32 is {parity.rounding:.1e} from float64: these features are sensitive to rounding")


def _show_pairs(pairs: OnPairs, name: str) -> None:
    """Show the figures of both in one table, the changed decisions, and notes."""
    table = Table()
    for column in ("", "PyTorch", name, "difference"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    changes = {} if pairs.difference is None else {number.name: number for number in pairs.difference.numbers}
    for number in pairs.own.numbers:
        after = pairs.other[number.name]
        change = _figure(changes[number.name], "+.4f") if number.name in changes else f"{after - number.value:+.4f}"
        table.add_row(*map(Text, (number.name, _figure(number, ".4f"), f"{after:.4f}", change)))
    show_table(table)
    counts, decided = pairs.own.counts, pairs.decisions
    kind = "calibrated" if decided.calibrated else "the most accurate for PyTorch's features on these pairs"
    say(f"{counts['genuine']:,} genuine and {counts['impostors']:,} impostor pairs")
    say(
        f"{decided.genuine + decided.impostors:,} of {counts['pairs']:,} decisions changed, {decided.genuine:,} of "
        f"genuine and {decided.impostors:,} of impostor pairs, at the threshold {decided.threshold:.4f} ({kind})"
    )
    say(f"largest difference of a score {pairs.score_error:.1e}")
    if pairs.difference is not None:
        say(f"in brackets: {pairs.own.choices['intervals']}")
    for note in pairs.own.notes:
        say(f"note: {note}")


def _figure(number: Number, form: str) -> str:
    """A value with its standard error and interval, if defined."""
    interval = number.interval
    text = format(number.value, form) + (f" ± {number.spread:.4f}" if number.spread is not None else "")
    return text if interval is None else f"{text} [{interval.low:{form}}, {interval.high:{form}}]"
