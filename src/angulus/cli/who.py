"""`angulus who`: the person on a photo, by a gallery of known people or by a classifier of people."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from angulus.cli.output import JsonFile, refuse_unwritable, save_json, say
from angulus.core import checks

if TYPE_CHECKING:
    from angulus.models.artifact import Model
    from angulus.search.who import Identified


def who(
    where: Annotated[
        str,
        typer.Argument(metavar="GALLERY", help="A gallery as for `angulus search`, or a model folder with classes."),
    ],
    photo: Annotated[Path, typer.Argument(help="A photo, or a crop of the model's size.")],
    model: Annotated[
        Path | None, typer.Option(help="The model folder that made the gallery, such as RUN/model.", show_default=False)
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="A calibration, or a model folder that holds one [default: the model's own].", show_default=False
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="A threshold of your own: a cosine, or for a classifier a probability.", show_default=False),
    ] = None,
    face: Annotated[
        int | None, typer.Option(help="Which face, counted from the left. Else the largest.", show_default=False)
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="mtcnn, the default, or yunet:FILE with its ONNX model.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option(help="People to compare with in the answer.")] = 3,
    json: JsonFile = None,
) -> None:
    """Find the face on a photo, align it, and print who it is, with the score and what it means; or nobody."""
    from angulus.models import artifact

    refuse_unwritable("--json", json)
    checks.integer("--top", top, low=1)
    if "://" not in where and (Path(where) / artifact.CONFIG).is_file():
        if model is not None or calibration is not None:
            raise checks.InputError(
                f"{where} is a model folder, which answers by its own classes; --model and --calibration are for a "
                "gallery: give the gallery's folder in its place"
            )
        found = _by_class(artifact.load(where), photo, threshold, top, detector, face)
    else:
        found = _by_gallery(where, photo, model, calibration, threshold, top, detector, face)
    save_json(json, found)


def _by_gallery(
    where: str,
    photo: Path,
    model: Path | None,
    calibration: Path | None,
    threshold: float | None,
    top: int,
    detector: str | None,
    face: int | None,
) -> dict[str, Any]:
    from angulus.cli.search import explain_error_rates, read_calibration
    from angulus.core.contract import describe_model
    from angulus.models import artifact
    from angulus.search import open_gallery, threshold_of
    from angulus.search.who import as_gallery, identify

    if threshold is not None and calibration is not None:
        raise checks.InputError("give one of --calibration and --threshold; got both")
    gallery = open_gallery(where)
    about = gallery.about()
    folder = model or (calibration if calibration is not None and calibration.is_dir() else None)
    if folder is None:
        raise checks.InputError(
            f"{where} holds vectors of {describe_model(about.model)}, and that model must embed the photo; give its "
            "folder with --model"
        )
    loaded = as_gallery(artifact.load(folder), gallery)
    limit, calibrated = threshold, None
    if threshold is None:
        calibrated = (
            loaded.calibration_of(about.model) if calibration is None else read_calibration(calibration, about.model)
        )
        limit = None if calibrated is None else threshold_of(calibrated, about, where, loaded.name)
    else:
        checks.number("--threshold", threshold, low=-1, high=1)
    found = identify(gallery, loaded, photo, threshold=limit, top=top, detector=detector, face=face)
    if calibrated is not None and calibrated.warning:
        checks.warn(calibrated.warning)
    for warning in found.warnings:
        checks.warn(warning)
    for line in describe(found, len(gallery)):
        say(line)
    for line in [] if calibrated is None else explain_error_rates(calibrated, len(gallery)):
        say(f"  {line}")
    return asdict(found)


def describe(found: Identified, count: int) -> list[str]:
    """The answer and its reasons, as text: the name, or nobody."""
    from angulus.search.who import name_of

    best, *others = found.nearest
    if found.threshold is None:
        lines = [
            f"nearest: {name_of(best)}",
            f"  score {best.score:.4f} (cosine) with {best.id}, the highest of {count:,} images in the gallery",
            "  no threshold: somebody is always nearest, also to a stranger; calibrate the model (angulus calibrate "
            "--model), or give --threshold",
        ]
    elif found.name is None:
        lines = [
            "nobody in the gallery",
            f"  the nearest is {name_of(best)}: score {best.score:.4f} < threshold {found.threshold:.4f} (cosine)",
        ]
    else:
        lines = [
            found.name,
            f"  score {best.score:.4f} >= threshold {found.threshold:.4f} (cosine), with {best.id}",
        ]
    if others:
        listed = ", ".join(f"{name_of(match)} {match.score:.4f}" for match in others)
        lines.append(f"  then: {listed}")
    if found.face is not None:
        left, top, right, bottom = found.face.box
        place = f"x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}"
        lines.append(f"  face number {found.face.number} of {found.face.total} from the left ({place})")
    return [*lines, f"  norm of the feature {found.norm:.2f}"]


def _by_class(
    model: Model, photo: Path, threshold: float | None, top: int, detector: str | None, face: int | None
) -> dict[str, Any]:
    from angulus.cli.predict import percent
    from angulus.models.photos import read_crop_or_photo

    names = model.need_classes().names
    if threshold is not None:
        checks.number("--threshold", threshold, low=0, high=1)
    pixels, choice = read_crop_or_photo(photo, model.config, detector, face)
    values = model.predict(pixels[None]).probabilities[0]
    order = values.argsort(descending=True, stable=True)[:top].tolist()
    ranked = [(names[row], float(values[row])) for row in order]
    name, value = ranked[0]
    known = threshold is None or value >= threshold
    limit = "" if threshold is None else f" {'>=' if known else '<'} threshold {percent(threshold)}"
    say(name if known else f"nobody of the {len(names):,} classes")
    say(f"  probability {percent(value)}{limit}" + ("" if known else f": the likeliest is {name}"))
    if ranked[1:]:
        say(f"  then: {', '.join(f'{other} {percent(share)}' for other, share in ranked[1:])}")
    say(
        f"  a classifier compares {len(names):,} classes alone, and may be sure of one for a stranger too; a gallery "
        "(angulus search) can answer nobody"
    )
    warning = None if choice is None else choice.warning(photo)
    if warning is not None:
        checks.warn(warning)
    chosen = None if choice is None or choice.chosen is None else asdict(choice.chosen)
    nearest = [{"name": other, "probability": share} for other, share in ranked]
    return {"name": name if known else None, "nearest": nearest, "threshold": threshold, "face": chosen}
