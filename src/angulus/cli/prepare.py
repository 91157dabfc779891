"""`angulus prepare`: photos of faces, or images of anything else, to training records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from angulus.cli.convert import summary
from angulus.cli.output import parse_size, resumable, say
from angulus.cli.workers import AllCores, Engine, RayAddress, Workers

Source = Annotated[Path, typer.Argument(help="A folder per identity, .zip, .csv, .lst, .rec, .tar, .parquet ...")]
Kind = Annotated[Optional[str], typer.Option(help="The source's format, if its name does not tell.")]  # noqa: UP045
Depth = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Folder, zip: which folder of the path names the identity, from 1; default: all of them."),
]
Root = Annotated[Optional[Path], typer.Option(help="Lists: the folder that paths are relative to.")]  # noqa: UP045

prepare_app = typer.Typer(no_args_is_help=True, help="Prepare photos for training.")


@prepare_app.command("faces")
def prepare_faces(
    source: Source,
    out: Annotated[Path, typer.Argument(help="Folder for records/, report.html, report.csv and report.jsonl.")],
    size: Annotated[
        str, typer.Option(help="Size of the crop in pixels: 112, 128, 144, 160 ..., or HEIGHTxWIDTH.")
    ] = "112",
    choose: Annotated[str, typer.Option(help="Which of several faces to take: largest or central.")] = "largest",
    min_score: Annotated[float, typer.Option(help="The detector's lowest confidence, 0 to 1.")] = 0.9,
    min_size: Annotated[float, typer.Option(help="The smallest face in the photo, in pixels across.")] = 30,
    detector: Annotated[str, typer.Option(help="mtcnn, or yunet:FILE with its ONNX model.")] = "mtcnn",
    encoding: Annotated[str, typer.Option(help="Format of the crops: jpeg (quality 95) or png.")] = "jpeg",
    kind: Kind = None,
    depth: Depth = None,
    root: Root = None,
    on_error: Annotated[
        str, typer.Option(help="At a photo at which worker processes die: stop (name it), or skip (leave it out).")
    ] = "stop",
    workers: AllCores = None,
    engine: Engine = "local",
    ray_address: RayAddress = None,
) -> None:
    """Find and align the face of each photo, write records, and report what is not plainly one good face.

    Resumes where it stopped.
    """
    from angulus.data.faces.align import Crops
    from angulus.data.faces.prepare import prepare_faces as prepare
    from angulus.data.sources import SourceOptions

    height, width = parse_size(size)
    crops = Crops(height, width, choose, min_score, min_size, encoding)  # type: ignore[arg-type]  # it checks
    console = Console()
    with resumable(), console.status("starting ...") as status:
        done = prepare(
            source,
            out,
            crops,
            detector=detector,
            workers=workers,
            engine=engine,
            ray_address=ray_address,
            on_error=on_error,
            kind=kind,
            options=SourceOptions(depth, root),
            on_photo=lambda count: status.update(f"{count:,} photos"),
        )
    lines = [f"{done.records}: {done.rows:,} crops {height}x{width} of {done.identities:,} identities"]
    lines += [f"  {problem}: {count:,}" for problem, count in done.problems.items()]
    lines.append(f"{done.report} shows them" if done.problems else "nothing to report")
    say("\n".join(lines))


@prepare_app.command("images")
def prepare_images(
    source: Source,
    out: Annotated[str, typer.Argument(help="The records: a new folder, or a URL such as s3://...")],
    size: Annotated[str, typer.Option(help="Of every image in pixels: 224, or HEIGHTxWIDTH.", show_default=False)],
    crop: Annotated[
        str, typer.Option(help="center: the middle, in this shape; resize: all, stretched; pad: all, on white.")
    ] = "center",
    encoding: Annotated[str, typer.Option(help="jpeg (quality 95) or png.")] = "jpeg",
    kind: Kind = None,
    depth: Depth = None,
    root: Root = None,
    workers: Workers = None,
    engine: Engine = "local",
    ray_address: RayAddress = None,
) -> None:
    """Bring images of products, animals or anything else without faces to one size, and write records.

    Resumes where it stopped.
    """
    from angulus.data.convert import convert
    from angulus.data.resize import Resize
    from angulus.data.sources import SourceOptions

    resize = Resize(*parse_size(size), crop, encoding)  # type: ignore[arg-type]  # it checks
    with resumable(), Console().status("reading ...") as status:
        done = convert(
            source,
            out,
            kind=kind,
            options=SourceOptions(depth, root),
            resize=resize,
            workers=workers,
            engine=engine,
            ray_address=ray_address,
            on_row=lambda count: status.update(f"{count:,} images"),
        )
    say("\n".join(summary(done, out)))
