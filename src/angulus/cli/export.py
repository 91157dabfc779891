"""`angulus export`: a trained model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from angulus.cli.output import Draws, refuse_unwritable, say, show_table
from angulus.core import files

if TYPE_CHECKING:
    from angulus.evaluation.protocols.result import Number
    from angulus.models.parity import OnPairs, Parity


def export(
    model: Annotated[Path, typer.Argument(help="A model folder, such as RUN/model.")],
    onnx: Annotated[Path, typer.Option("--onnx", help="The file to write, .onnx.")],
    precision: Annotated[str, typer.Option("--precision", help="float32, float16 or int8.")] = "float32",
    images: Annotated[
        Optional[Path],  # noqa: UP045  # typer
        typer.Option(
            "--images", help="Images to compare on (a folder, records ...); else generated ones.", show_default=False
        ),
    ] = None,
    ranges: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--ranges",
            help="int8: other images, to measure the ranges of layers on; else --images.",
            show_default=False,
        ),
    ] = None,
    pairs: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--pairs", help="A list of pairs of --images, for accuracy before and after.", show_default=False),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="plain: `a b 0|1` a line; lfw: as LFW's pairs.txt.")] = "plain",
    flip: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--flip", help="none, sum or concat, in place of the model's rule.", show_default=False),
    ] = None,
    draws: Draws = 1000,
    json: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--json", help="Save all that was measured to this file.", show_default=False),
    ] = None,
) -> None:
    """Write ONNX that takes bytes of pixels and gives features and norms, and compare it with PyTorch."""
    from angulus.cli.pair_lists import read_list
    from angulus.cli.progress import stages
    from angulus.core.fingerprint import described
    from angulus.models import artifact
    from angulus.models.export import export as write

    refuse_unwritable("--onnx", onnx, ".onnx")
    if json is not None:
        refuse_unwritable("--json", json)
    loaded = artifact.load(model)
    if flip is not None:
        loaded = loaded.with_flip(flip)
    listed = read_list(pairs, form) if pairs else None
    with stages(Console(stderr=True)) as on_stage:
        found = write(
            loaded,
            onnx,
            precision=precision,
            images=images,
            ranges=ranges,
            pairs=listed,
            draws=draws,
            on_stage=on_stage,
        )
    size = onnx.stat().st_size
    say(f"{onnx}: {precision}, {size / 2**20:.1f} MiB, of {described(loaded.name)}")
    _show(found, "images" if images else "generated images, which say less than real ones; give --images")
    if found.pairs is not None:
        _show_pairs(found.pairs, f"ONNX {precision}")
    if precision == "int8" and (ranges is None or (images is not None and ranges.resolve() == images.resolve())):
        say("  the ranges of layers were measured on these very images, which flatters; give others with --ranges")
    if json is not None:
        import torch

        from angulus.core import environment

        about = environment.of_timing(torch.device("cpu"), "onnx", "onnxscript", "onnxruntime")
        said = {"model": loaded.name, "precision": precision, "bytes": size, "ranges": str(ranges) if ranges else None}
        files.make_folder(json.parent)
        files.write_json(json, said | found.as_json() | {"environment": about})


def _show(found: Parity, kind: str) -> None:
    say(f"  largest relative error of a feature {found.feature_error:.1e}, of a norm {found.norm_error:.1e};")
    say(f"  smallest cosine of a feature with PyTorch's {found.cosine:.6f}; over {found.images:,} {kind}")
    if found.rounding is not None:
        say(f"  PyTorch's own float32 is {found.rounding:.1e} from float64: these features are sensitive to rounding")


def _show_pairs(found: OnPairs, name: str) -> None:
    """The figures side by side, what changed, and what a reader must know."""
    table = Table()
    for column in ("", "PyTorch", name, "difference"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    changes = {} if found.difference is None else {each.name: each for each in found.difference.numbers}
    for number in found.own.numbers:
        after = found.other[number.name]
        change = _figure(changes[number.name], "+.4f") if number.name in changes else f"{after - number.value:+.4f}"
        table.add_row(*map(Text, (number.name, _figure(number, ".4f"), f"{after:.4f}", change)))
    show_table(table)
    counts, decided = found.own.counts, found.decisions
    kind = "calibrated" if decided.calibrated else "the most accurate for PyTorch's features on these pairs"
    say(f"{counts['genuine']:,} genuine and {counts['impostors']:,} impostor pairs")
    say(
        f"{decided.genuine + decided.impostors:,} of {counts['pairs']:,} decisions changed, {decided.genuine:,} of "
        f"genuine and {decided.impostors:,} of impostor pairs, at the threshold {decided.threshold:.4f} ({kind})"
    )
    if found.difference is not None:
        say(f"in brackets: {found.own.choices['intervals']}")
    for note in found.own.notes:
        say(f"note: {note}")


def _figure(number: Number, form: str) -> str:
    """A value with its standard error and its interval, where they are defined."""
    interval = number.interval
    said = format(number.value, form) + (f" ± {number.spread:.4f}" if number.spread is not None else "")
    if interval is None:
        return said
    return f"{said} [{interval.low:{form}}, {interval.high:{form}}]"
