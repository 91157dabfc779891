"""`angulus convert`: convert a data set in one of the field's formats to records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from angulus.cli.output import resumable, say
from angulus.cli.workers import Engine, RayAddress, Workers

if TYPE_CHECKING:
    from angulus.data.convert import Converted

_SHOWN = 10  # things left out to print; the file has all


def convert(
    source: Annotated[
        Path, typer.Argument(help="A folder, .zip, .csv, .lst, .txt, .rec, .bin, .tar, .parquet or .arrow.")
    ],
    out: Annotated[str, typer.Argument(help="The records: a new folder, or a URL such as s3://...")],
    kind: Annotated[str | None, typer.Option(help="The source's format, if its name does not show it.")] = None,
    depth: Annotated[
        int | None,
        typer.Option(help="Folder, zip, tar: which folder of the path names the identity, from 1. Default: all."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Read only this split, such as train, by the names of folders, or of tars and tables."),
    ] = None,
    identity_pattern: Annotated[
        str | None,
        typer.Option(help="Folder, zip, tar: a regular expression whose group is the identity, such as '([0-9]+)_c'."),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="CSV, Parquet, Arrow: the column with a unique name for each image.")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="CSV, Parquet, Arrow: the column of the images or their paths.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="CSV, Parquet, Arrow: the column of the identities or classes.")
    ] = None,
    on_error: Annotated[
        str, typer.Option(help="At damage in a .csv, .lst, .rec, .tar, .parquet or .arrow: stop, or skip and list it.")
    ] = "stop",
    root: Annotated[Path | None, typer.Option(help="Lists and tables: the folder that paths are relative to.")] = None,
    listed: Annotated[
        Path | None, typer.Option("--list", help="A CSV about the images, with a column `id` or `path`, for --where.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="COLUMN=VALUE: take images whose line of --list has this value; repeat for several."),
    ] = None,
    hold_out: Annotated[
        int | None, typer.Option(help="N: leave out about one identity in N, by its name, as data to choose settings.")
    ] = None,
    held_out: Annotated[int | None, typer.Option(help="N: take the identities that --hold-out N leaves out.")] = None,
    workers: Workers = None,
    engine: Engine = "local",
    ray_address: RayAddress = None,
) -> None:
    """Convert a data set to records: images by row, with identity, landmarks and score. Resumes where it stopped."""
    from angulus.data import convert as conversion
    from angulus.data.convert import Selection
    from angulus.data.sources import SourceOptions

    selection = Selection(listed, tuple(where or ()), hold_out, held_out)
    console = Console()
    with resumable(), console.status("reading ...") as status:

        def on_row(count: int) -> None:
            if count % 1_000 == 0:
                status.update(f"{count:,} images")

        options = SourceOptions(depth, root, split, identity_pattern, id_column, image_column, label_column, on_error)
        done = conversion.convert(
            source,
            out,
            kind=kind,
            options=options,
            selection=selection,
            workers=workers,
            engine=engine,
            ray_address=ray_address,
            on_row=on_row,
        )
    lines = summary(done, out)
    if done.identities < 2 and "bin" not in (kind, source.suffix.lower()[1:]):  # pairs without identities by design
        lines.insert(1, _hint(done))
    say("\n".join(lines))


def summary(done: Converted, out: str) -> list[str]:
    """The result of a conversion, as lines of text."""
    from angulus.data.convert import LEFT_OUT
    from angulus.data.sources import Remark

    sizes = sorted(done.sizes, key=lambda size: -done.sizes[size])
    shown = ", ".join(f"{width}x{height}" for width, height in sizes[:3]) + (", ..." if len(sizes) > 3 else "")
    kinds = f"{len(sizes)} size{'s' * (len(sizes) != 1)}: {shown}"
    lines = [f"{out}: {done.rows:,} images of {done.identities:,} identities; {kinds}"]
    if done.not_taken:
        lines.append(f"{done.not_taken:,} images were not selected")
    if done.unknown:
        lines.append(f"{done.unknown:,} images have no identity")
    if done.single:
        lines.append(f"{done.single:,} identities have one image")
    remarks = [item for item in done.left_out if isinstance(item, Remark)]
    lines += [f"note: {_printable(item.reason)}" for item in remarks]
    left_out = [item for item in done.left_out if item not in remarks]
    if left_out:
        lines.append(f"{len(left_out):,} things were left out; {out}/{LEFT_OUT} lists them:")
        lines += [f"  {_printable(item.where)}: {_printable(item.reason)}" for item in left_out[:_SHOWN]]
    return lines


def _hint(done: Converted) -> str:
    """A warning about records that cannot train a model."""
    shown = "all images with an identity show the same one" if done.identities else "no image has an identity"
    return (
        f"warning: {shown}; training needs two or more: put the images of each into its own folder, or give a pattern "
        "for it in their names, such as --identity-pattern '([0-9]+)_' for 0002_c1s1_000451_03.jpg"
    )


def _printable(text: str) -> str:
    """Text with control characters escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
