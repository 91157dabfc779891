"""`angulus export`: a trained model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.table import Table

from angulus.commands.output import say, show_table


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
    pairs: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--pairs", help="A list of pairs of --images, for accuracy before and after.", show_default=False),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="plain: `a b 0|1` a line; lfw: as LFW's pairs.txt.")] = "plain",
    flip: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--flip", help="none, sum or concat, in place of the model's rule.", show_default=False),
    ] = None,
) -> None:
    """Write ONNX that takes bytes of pixels and gives features and norms, and compare it with PyTorch."""
    from angulus import artifact
    from angulus.commands.evaluate_verification import read_list
    from angulus.export import export as write

    loaded = artifact.load(model)
    if flip is not None:
        loaded = loaded.with_flip(flip)
    listed = read_list(pairs, form) if pairs else None
    found = write(loaded, onnx, precision=precision, images=images, pairs=listed)
    kind = "images" if images else "generated images, which say less than real ones; give --images"
    say(f"{onnx}: {precision}, {onnx.stat().st_size / 2**20:.1f} MiB")
    say(f"  largest relative error of a feature {found.feature_error:.1e}, of a norm {found.norm_error:.1e}")
    say(f"  over {found.images:,} {kind}")
    if found.rounding is not None:
        say(f"  PyTorch's own float32 is {found.rounding:.1e} from float64: these features are sensitive to rounding")
    if found.accuracy:
        table = Table()
        for name in ("", "PyTorch", f"ONNX {precision}"):
            table.add_column(name, justify="right" if name else "left")
        for name, values in found.accuracy.items():
            table.add_row(name, *(f"{value:.4f}" for value in values))
        show_table(table)
