"""`angulus predict`: the classes of images, or of positions in CT scans, by a trained classifier."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from angulus.cli.output import JsonFile, ModelFolder, refuse_unwritable, save_json, say, show_table
from angulus.core import checks, files
from angulus.core.wording import guard_formula, plural

if TYPE_CHECKING:
    from angulus.models.artifact import Model
    from angulus.models.predict import Predictions

SHOWN = 20  # images, or classes of a summary, that are printed
NODULE = "nodule"


def predict(
    model: ModelFolder,
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE", help="Images, or what `angulus convert` reads: a folder, records ...; or a CT folder."
        ),
    ],
    top: Annotated[int, typer.Option(help="Classes to print and save per image.")] = 5,
    json: JsonFile = None,
    table: Annotated[
        Path | None,
        typer.Option("--csv", help="Save id, class, probability (and label) to this .csv file.", show_default=False),
    ] = None,
    on_error: Annotated[str, typer.Option(help="Images that cannot be classified: stop or skip.")] = "stop",
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 256,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    candidates: Annotated[
        Path | None,
        typer.Option(
            help="LUNA16 positions in the scans of SOURCE: seriesuid,coordX,coordY,coordZ.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="With --candidates: the .csv of marks to write.", show_default=False)
    ] = None,
    mark: Annotated[
        str | None,
        typer.Option(
            "--class", help="With --candidates: the class of the marks; nodule if not given.", show_default=False
        ),
    ] = None,
) -> None:
    """Print the classes of images with their probabilities; with --candidates, mark nodules in CT scans."""
    from angulus.experiments import build
    from angulus.models import artifact

    refuse_unwritable("--json", json)
    refuse_unwritable("--csv", table, ".csv")
    refuse_unwritable("--out", out, ".csv")
    if candidates is None and (out is not None or mark is not None):
        option = "--out" if out is not None else "--class"
        raise checks.InputError(f"{option} is for marks in CT scans; give the positions with --candidates as well")
    loaded = artifact.load(model).to(build.device(device, what="--device"))
    loaded.need_classes()
    if candidates is None:
        _predict_images(loaded, sources, json, table, top=top, batch=batch, on_error=on_error)
        return
    if out is None or json is not None or table is not None or len(sources) > 1:
        raise checks.InputError("--candidates takes one folder of scans and --out, and neither --json nor --csv")
    _mark_scans(loaded, sources[0], candidates, out, mark or NODULE, batch)


def _predict_images(
    model: Model, sources: list[Path], json: Path | None, table: Path | None, *, top: int, batch: int, on_error: str
) -> None:
    from angulus.models.embed import refuse_within
    from angulus.models.predict import predict as classify

    for path in filter(None, (json, table)):
        for source in sources:
            refuse_within(source, path)
    with Console(stderr=True).status("classifying ...") as status:
        found = classify(
            model,
            sources,
            top=top,
            batch=batch,
            on_error=on_error,
            on_images=lambda done: status.update(f"{done:,} images"),
        )
    (_show_images if len(found.ids) <= SHOWN else _show_summary)(found)
    for item in found.left_out[:SHOWN]:
        say(f"left out: {item.where}: {item.reason}")
    if len(found.left_out) > SHOWN:
        say(f"and {len(found.left_out) - SHOWN:,} more left out")
    say(describe_accuracy(found))
    save_json(json, as_json(model, found))
    if table is not None:
        files.make_folder(table.parent)
        files.write_text(table, as_csv(found), errors="backslashreplace")  # a folder's name need not be UTF-8


def _show_images(found: Predictions) -> None:
    """One line per image: the likeliest class, and the next ones."""
    labelled = any(found.labels)
    table = Table()
    for name in ("image", "class", "probability", "next", *(["label"] if labelled else [])):
        table.add_column(name, justify="right" if name == "probability" else "left")
    for row, name in enumerate(found.ids):
        classes = [found.names[number] for number in found.order[row].tolist()]
        shares = [percent(value) for value in found.probabilities[row].tolist()]
        others = ", ".join(f"{other} {share}" for other, share in zip(classes[1:], shares[1:], strict=True))
        cells = [name, classes[0], shares[0], others, *([found.labels[row]] if labelled else [])]
        table.add_row(*map(Text, cells))
    show_table(table)


def _show_summary(found: Predictions) -> None:
    """One line per predicted class, the most frequent first."""
    best, counts = found.best, dict.fromkeys(found.names, 0)
    sums = dict.fromkeys(found.names, 0.0)
    for name, value in zip(best, found.probabilities[:, 0].tolist(), strict=True):
        counts[name] += 1
        sums[name] += value
    ranked = sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])
    table = Table()
    for column in ("class", "images", "mean probability"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name in ranked[:SHOWN]:
        table.add_row(Text(name), f"{counts[name]:,}", percent(sums[name] / counts[name]))
    show_table(table)
    more = f"; the {SHOWN} most frequent of {len(ranked):,} classes are shown" if len(ranked) > SHOWN else ""
    say(f"{len(best):,} images{more}")


def describe_accuracy(found: Predictions) -> str:
    """How many images are classified as their source says, as a sentence."""
    labelled, known = sum(map(bool, found.labels)), int(found.known.sum())
    if not labelled:
        return "accuracy unknown: the source has no labels (a folder of its own for each class gives them)"
    strange = next((label for label in found.labels if label and label not in found.names), "")
    count = labelled - known
    unknown = f"{count:,} {plural('label', count)} that the model has no class for, such as {strange!r}"
    if found.accuracy is None:
        return f"accuracy unknown: the source has {unknown}"
    right = round(found.accuracy * known)
    text = (
        f"accuracy {100 * found.accuracy:.2f} %: {right:,} of {known:,} images are of the class that their label says"
    )
    return f"{text}; not counted: {unknown}" if labelled > known else text


def percent(value: float) -> str:
    """A probability for people; what is not certain is not shown as 0 or 100 %.

    >>> percent(0.97312), percent(0.00004), percent(0.99996), percent(1.0)
    ('97.3 %', '< 0.1 %', '> 99.9 %', '100 %')
    """
    if value in (0, 1):
        return f"{100 * value:.0f} %"
    if value < 0.0005:
        return "< 0.1 %"
    return "> 99.9 %" if value >= 0.9995 else f"{100 * value:.1f} %"


def as_json(model: Model, found: Predictions) -> dict[str, Any]:
    """All predictions, for --json."""
    rows = zip(found.ids, found.labels, found.order.tolist(), found.probabilities.tolist(), strict=True)
    return {
        "model": model.fingerprint,
        "classes": list(found.names),
        "images": len(found.ids),
        "labelled": int(found.known.sum()),
        "accuracy": found.accuracy,
        "predictions": [
            {
                "id": name,
                "label": label or None,
                "top": [
                    {"class": found.names[number], "probability": value}
                    for number, value in zip(order, values, strict=True)
                ],
            }
            for name, label, order, values in rows
        ],
        "left_out": [{"where": item.where, "reason": item.reason} for item in found.left_out],
    }


def as_csv(found: Predictions) -> str:
    """id, class and probability of every image, and its label if the source has any, for --csv.

    No cell is a spreadsheet's formula.
    """
    labelled = any(found.labels)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", "class", "probability", *(["label"] if labelled else [])])
    best = zip(found.ids, found.best, found.probabilities[:, 0].tolist(), found.labels, strict=True)
    for name, label, value, truth in best:
        own = [guard_formula(truth)] if labelled else []
        writer.writerow([guard_formula(name), guard_formula(label), f"{value:.6g}", *own])
    return file.getvalue()


def _mark_scans(model: Model, scans: Path, candidates: Path, out: Path, mark: str, batch: int) -> None:
    from angulus.models.nodules import mark_candidates

    with Console(stderr=True).status("reading scans ...") as status:
        count, number = mark_candidates(
            model,
            scans,
            candidates,
            out,
            mark=mark,
            batch=batch,
            on_scan=lambda scan, done, total: status.update(f"scan {done} of {total}: {scan}"),
        )
    marks, read = f"{count:,} {plural('mark', count)}", f"{number:,} {plural('scan', number)}"
    say(f"{out}: {marks} in {read}, each with its probability of {mark!r}")
    say(f"angulus evaluate luna16 {out} --annotations ... --excluded ... --scans ... measures them")
