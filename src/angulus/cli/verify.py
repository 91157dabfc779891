"""`angulus verify`: the same person or not, at the threshold that the model's folder holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from angulus.cli.output import refuse_unwritable, say
from angulus.core import checks, files

if TYPE_CHECKING:
    from angulus.evaluation.protocols.calibration import Rate
    from angulus.models.verify import Decision


def verify(
    model: Annotated[Path, typer.Argument(help="A model folder with a calibration, such as RUN/model.")],
    first: Annotated[Path, typer.Argument(metavar="A", help="An image as the model wants it; with --align, a photo.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The other image.")],
    threshold: Annotated[
        Optional[float],  # noqa: UP045  # typer
        typer.Option(
            "--threshold", help="A cosine of your own instead of the calibrated threshold.", show_default=False
        ),
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
    face: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option(
            "--face",
            help="For --align: which face of A, counted from the left; given again, which of B. Else the largest.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--json", help="Save the decision to this file.", show_default=False),
    ] = None,
) -> None:
    """Decide whether two images show the same person, and print the error rates of the threshold."""
    from angulus.evaluation.protocols.result import null_for_nan
    from angulus.models import artifact
    from angulus.models.verify import verify as decide

    if json is not None:
        refuse_unwritable("--json", json)
    if detector is not None and not align:
        raise checks.InputError(f"--detector finds faces for --align; got {detector} without it; give both or neither")
    if face and not align:
        raise checks.InputError(
            f"--face chooses among faces for --align; got {face[0]} without it; give both or neither"
        )
    loaded = artifact.load(model)
    if flip is not None:
        loaded = loaded.with_flip(flip)
    finder = (detector or "mtcnn") if align else None
    found = decide(loaded, first, second, threshold=threshold, prior=prior, detector=finder, faces=face or ())
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
    if found.fmr is None or found.fnmr is None:
        said.append("the error rates of this threshold are not known: it was given, not calibrated")
    else:
        said.append(f"{_rate('FMR', found.fmr)}: {_share(found.fmr)} pairs of two people pass it{_on(found.impostors)}")
        if found.fmr.value == 0 and found.impostors:
            said.append(f"none of them passed: the FMR may be as high as {3 / found.impostors:.2g} (rule of three)")
        said.append(
            f"{_rate('FNMR', found.fnmr)}: {_share(found.fnmr)} pairs of one person fail it{_on(found.genuine)}"
        )
    if found.probability is not None:
        said.append(
            f"probability of one person {100 * found.probability:.3g} %, if {100 * prior:g} % of the pairs that you "
            "compare are of one person"
        )
        said += _disagreement(found, found.probability)
    for name, taken in zip("AB", found.faces, strict=False):
        left, top, right, bottom = taken.box
        place = f"x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}"
        said.append(f"face of {name}: number {taken.number} of {taken.found} from the left ({place})")
    said.append(f"norms {found.norms[0]:.2f} and {found.norms[1]:.2f}")
    return said


def _disagreement(found: Decision, probability: float) -> list[str]:
    """Why the answer is another than the likelier one, where it is."""
    passing = "" if found.fmr is None else f" ({_share(found.fmr)})"
    if not found.same and probability > 0.5:
        return [
            f"both are right: the threshold is strict, so that few pairs of two people pass{passing}, and it rejects "
            "some pairs that are probably of one person"
        ]
    if found.same and probability < 0.5:
        return [
            f"both are right: few pairs of two people pass the threshold{passing}, but so few of the pairs that you "
            "compare are of one person that most pairs of this score are of two"
        ]
    return []


def _rate(name: str, rate: Rate) -> str:
    between = f" [{rate.interval.low:.2g}, {rate.interval.high:.2g}]" if rate.interval is not None else ""
    return f"{name} {rate.value:.2g}{between}"


def _on(pairs: int | None) -> str:
    return "" if pairs is None else f" (measured on {pairs:,})"


def _share(rate: Rate) -> str:
    """How many pairs, in words."""
    if not rate.value > 0:
        return "no" if rate.value == 0 else "nobody knows how many"
    return f"1 in {1 / rate.value:,.0f}" if rate.value < 0.1 else f"{100 * rate.value:.0f} in 100"
