"""`angulus verify`: whether two images show the same person."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from angulus.cli.output import JsonFile, ModelFlip, refuse_unwritable, save_json, say
from angulus.core import checks

if TYPE_CHECKING:
    from angulus.evaluation.protocols.calibration import Rate
    from angulus.models.verify import Decision


def verify(
    model: Annotated[Path, typer.Argument(help="A model folder with a calibration, such as RUN/model.")],
    first: Annotated[Path, typer.Argument(metavar="A", help="An image as the model wants it; with --align, a photo.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The other image.")],
    threshold: Annotated[
        float | None, typer.Option(help="A cosine of your own instead of the calibrated threshold.")
    ] = None,
    prior: Annotated[float, typer.Option(help="Share of the compared pairs that are of one person.")] = 0.5,
    flip: ModelFlip = None,
    align: Annotated[
        bool, typer.Option("--align", help="Find and align the face of each photo first, as `prepare faces` does.")
    ] = False,
    detector: Annotated[
        str | None, typer.Option(help="For --align: mtcnn, the default, or yunet:FILE with its ONNX model.")
    ] = None,
    face: Annotated[
        list[int] | None,
        typer.Option(
            help="For --align: which face of A, counted from the left; given again, which of B. Else the largest."
        ),
    ] = None,
    stored_by: Annotated[
        Path | None,
        typer.Option(help="The model folder that embeds B as a gallery holds it; MODEL must be compatible with it."),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Decide whether two images show the same person, and print the error rates of the threshold."""
    from angulus.evaluation.protocols.result import null_for_nan
    from angulus.models import artifact
    from angulus.models.verify import verify as decide

    refuse_unwritable("--json", json)
    if detector is not None and not align:
        raise checks.InputError(f"--detector finds faces for --align; got {detector} without it; give both or neither")
    if face and not align:
        raise checks.InputError(
            f"--face chooses among faces for --align; got {face[0]} without it; give both or neither"
        )
    loaded, stored = artifact.load(model), None if stored_by is None else artifact.load(stored_by)
    if flip is not None:
        loaded, stored = loaded.with_flip(flip), None if stored is None else stored.with_flip(flip)
    finder = (detector or "mtcnn") if align else None
    asked: dict[str, Any] = {
        "threshold": threshold,
        "prior": prior,
        "detector": finder,
        "faces": face or (),
        "stored_by": stored,
    }
    decision = decide(loaded, first, second, **asked)
    say("same person" if decision.same else "not the same person")
    for line in lines(decision, prior):
        say(f"  {line}")
    save_json(json, null_for_nan(asdict(decision)))


def lines(decision: Decision, prior: float) -> list[str]:
    """The reasons for a decision, as text."""
    sign = ">=" if decision.same else "<"
    text = [f"score {decision.score:.4f} {sign} threshold {decision.threshold:.4f} (cosine)"]
    if decision.fmr is None or decision.fnmr is None:
        text.append("the error rates of this threshold are not known: it is your own, not calibrated")
    else:
        text.append(
            f"{_rate('FMR', decision.fmr)}: {_share(decision.fmr)} pairs of two people pass it{_on(decision.impostors)}"
        )
        if decision.fmr.value == 0 and decision.impostors:
            text.append(f"none of them passed: the FMR may be as high as {3 / decision.impostors:.2g} (rule of three)")
        text.append(
            f"{_rate('FNMR', decision.fnmr)}: {_share(decision.fnmr)} pairs of one person fail it"
            f"{_on(decision.genuine)}"
        )
    if decision.probability is not None:
        text.append(
            f"probability of one person {100 * decision.probability:.3g} %, if {100 * prior:g} % of the pairs that you "
            "compare are of one person"
        )
        text += _disagreement(decision, decision.probability)
    for name, chosen in zip("AB", decision.faces, strict=False):
        left, top, right, bottom = chosen.box
        place = f"x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}"
        text.append(f"face of {name}: number {chosen.number} of {chosen.total} from the left ({place})")
    text.append(f"norms {decision.norms[0]:.2f} and {decision.norms[1]:.2f}")
    return text


def _disagreement(decision: Decision, probability: float) -> list[str]:
    """Explain an answer that differs from the likelier one."""
    passing = "" if decision.fmr is None else f" ({_share(decision.fmr)})"
    if not decision.same and probability > 0.5:
        return [
            f"both are right: the threshold is strict, so that few pairs of two people pass{passing}, and it rejects "
            "some pairs that are probably of one person"
        ]
    if decision.same and probability < 0.5:
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
    """The share of pairs, in words."""
    if not rate.value > 0:
        return "no" if rate.value == 0 else "nobody knows how many"
    return f"1 in {1 / rate.value:,.0f}" if rate.value < 0.1 else f"{100 * rate.value:.0f} in 100"
