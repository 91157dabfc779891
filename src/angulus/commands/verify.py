"""`angulus verify`: the same person or not, at the threshold that the model's folder holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from angulus import checks, files
from angulus.commands.output import refuse_unwritable, say

if TYPE_CHECKING:
    from angulus.verify import Decision


def verify(
    model: Annotated[Path, typer.Argument(help="A model folder with a calibration, such as RUN/model.")],
    first: Annotated[Path, typer.Argument(metavar="A", help="An image as the model wants it; with --align, a photo.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
    threshold: Annotated[
        Optional[float],  # noqa: UP045  # typer
        typer.Option("--threshold", help="In place of the calibrated one.", show_default=False),
    ] = None,
    prior: Annotated[float, typer.Option("--prior", help="Share of the compared pairs that are of one person.")] = 0.5,
    flip: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--flip", help="none, sum or concat, in place of the model's rule.", show_default=False),
    ] = None,
    align: Annotated[
        bool, typer.Option("--align", help="Find and align the face of each photo first, as `prepare faces` does.")
    ] = False,
    detector: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="For --align: mtcnn, the default, or yunet:FILE with its ONNX model.", show_default=False),
    ] = None,
    json: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--json", help="Save the decision to this file.", show_default=False),
    ] = None,
) -> None:
    """Say whether two images show the same person, with the error rate of the threshold that decides."""
    from angulus import artifact
    from angulus.protocols.result import null_for_nan
    from angulus.verify import verify as decide

    if json is not None:
        refuse_unwritable("--json", json)
    if detector is not None and not align:
        raise checks.InputError(f"--detector finds faces for --align; got {detector} without it; give both or neither")
    loaded = artifact.load(model)
    if flip is not None:
        loaded = loaded.with_flip(flip)
    found = decide(
        loaded, first, second, threshold=threshold, prior=prior, detector=(detector or "mtcnn") if align else None
    )
    say("same person" if found.same else "not the same person")
    for line in lines(found, prior):
        say(f"  {line}")
    if json is not None:
        files.make_folder(json.parent)
        files.write_json(json, null_for_nan(asdict(found)))


def lines(found: Decision, prior: float) -> list[str]:
    """What a decision rests on, as text."""
    sign = ">=" if found.same else "<"
    said = [f"score {found.score:.4f} {sign} threshold {found.threshold:.4f} (cosine)"]
    if found.fmr is None:
        said.append("the error rates of this threshold are not known: it was given, not calibrated")
    else:
        interval = found.fmr.interval
        between = f" [{interval.low:.2g}, {interval.high:.2g}]" if interval is not None else ""
        said.append(
            f"FMR {found.fmr.value:.2g}{between}: the share of {found.impostors:,} pairs of two people that pass it"
        )
        if found.fmr.value == 0 and found.impostors:
            said.append(f"none of them passed: the FMR may be as high as {3 / found.impostors:.2g} (rule of three)")
    if found.probability is not None:
        said.append(
            f"probability of the same person {found.probability:.4f}, if {prior:g} of the compared pairs are of one"
        )
    said.append(f"norms {found.norms[0]:.2f} and {found.norms[1]:.2f}")
    return said
