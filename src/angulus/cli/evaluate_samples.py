"""Evaluation of marks, candidates and predictions: LUNA16, classification, and norms as quality."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from angulus.cli.evaluate_verification import Format, read_list
from angulus.cli.output import Digits, Draws, Flip, Json, Output, Plot, Seed
from angulus.core import checks

if TYPE_CHECKING:
    from angulus.evaluation.protocols.judged import Judged

MEASURES = ("split", "bins", "changed", "discard", "degradation")

Reference = Annotated[
    Optional[Path],  # noqa: UP045  # typer
    typer.Option("--reference", help="Another model's, of the same samples, whose norms decide.", show_default=False),
]
LowFraction = Annotated[float, typer.Option("--low-fraction", help="Share of the samples that is low quality.")]


def luna16(
    marks: Annotated[Path, typer.Argument(metavar="MARKS", help="seriesuid,coordX,coordY,coordZ,probability (.csv).")],
    annotations: Annotated[Path, typer.Option("--annotations", help="annotations.csv: the nodules.")],
    excluded: Annotated[Path, typer.Option("--excluded", help="annotations_excluded.csv: what counts neither way.")],
    scans: Annotated[Path, typer.Option("--scans", help="seriesuids.csv: every scan that was searched.")],
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """LUNA16: FROC and CPM of a detector's marks, by the challenge's rules."""
    from angulus.evaluation.lists.luna16 import read_excluded, read_findings, read_marks, read_scans
    from angulus.evaluation.protocols import detection

    output = Output(json, plot, digits)
    given = read_marks(marks), read_findings(annotations), read_excluded(excluded), read_scans(scans)
    output.show(detection.luna16(*given, source=str(marks), draws=draws, seed=seed))


def luna16_candidates(
    candidates: Annotated[
        Path, typer.Argument(metavar="CANDIDATES", help=".npz: labels, probabilities, scans, and maybe nodules.")
    ],
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """FROC and CPM of candidates that are each labelled a nodule or not, without their places."""
    from angulus.evaluation.protocols import detection

    output = Output(json, plot, digits)
    output.show(
        detection.candidates(**detection.read_candidates(candidates), source=str(candidates), draws=draws, seed=seed)
    )


def classification(
    predictions: Annotated[
        list[Path],
        typer.Argument(
            metavar="PREDICTIONS...", help=".npz: labels, predictions or logits, norms; several: runs with other seeds."
        ),
    ],
    reference: Reference = None,
    low_fraction: LowFraction = 0.2,
    per_class: Annotated[bool, typer.Option("--per-class/--no-per-class", help="Also each class's accuracy.")] = True,
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """Top-1 and top-5 accuracy and error, by class, of good and low quality; over seeds mean ± standard deviation."""
    from angulus.evaluation.protocols import classification as protocol

    output = Output(json, plot, digits)
    other = None if reference is None else protocol.Predictions.read(reference)
    several = len(predictions) > 1
    found = [
        protocol.evaluate(
            protocol.Predictions.read(path),
            other,
            low_fraction=low_fraction,
            per_class=per_class,
            draws=0 if several else draws,
            seed=seed,
        )
        for path in predictions
    ]
    output.show(protocol.over_seeds(found) if several else found[0])


def quality(
    samples: Annotated[
        Path,
        typer.Argument(
            metavar="SAMPLES",
            help="Predictions (.npz); embeddings, with --pairs; a saved result of pairs or ytf (.json); for degradation"
            " an .npz of norms, strengths, images, kinds.",
        ),
    ],
    measure: Annotated[
        str,
        typer.Option(
            "--measure",
            help="split: good and low; bins: accuracy by norm; changed: what --reference got otherwise; discard: FNMR "
            "as the worst pairs go; degradation: correlation of norm and strength.",
        ),
    ] = "split",
    pairs: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--pairs", help="A list of pairs, if SAMPLES are embeddings.", show_default=False),
    ] = None,
    form: Format = "auto",
    reference: Reference = None,
    low_fraction: LowFraction = 0.2,
    bins: Annotated[int, typer.Option("--bins", help="Bins of norm.")] = 10,
    edges: Annotated[str, typer.Option("--edges", help="Bins of equal count (quantile) or width.")] = "quantile",
    fmr: Annotated[float, typer.Option("--fmr", help="Discard: FMR of the threshold.")] = 1e-3,
    up_to: Annotated[float, typer.Option("--up-to", help="Discard: share where the area ends.")] = 1.0,
    flip: Flip = None,
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """The feature norm as quality: good and low, bins of norm, what changed, error versus discard, degradation."""
    from angulus.core.embeddings import Embeddings
    from angulus.evaluation.protocols import changed, degradation, discard, norm_bins
    from angulus.evaluation.protocols import quality as protocol

    output = Output(json, plot, digits)
    checks.choice("--measure", measure, MEASURES)
    if measure == "degradation":
        found = degradation.evaluate(**degradation.read(samples), source=str(samples), draws=draws, seed=seed)
    elif measure == "discard":
        if pairs is None:
            raise checks.InputError("--measure discard needs embeddings and their list: give --pairs")
        read = Embeddings.read(samples), read_list(pairs, form)
        found = discard.evaluate(*read, fmr=fmr, up_to=up_to, flip=flip, draws=draws, seed=seed)
    else:
        given = _judged(samples, pairs, form, flip)
        other = None if reference is None else _judged(reference, pairs, form, flip)
        if measure == "bins":
            found = norm_bins.evaluate(given, bins, edges=edges, draws=draws, seed=seed)
        elif measure == "split":
            found = protocol.evaluate(given, other, low_fraction=low_fraction, draws=draws, seed=seed)
        elif other is None:
            raise checks.InputError("--measure changed needs the model before: give --reference")
        else:
            found = changed.evaluate(other, given, draws=draws, seed=seed)
    output.show(found)


def _judged(path: Path, pairs: Path | None, form: str, flip: str | None) -> Judged:
    from angulus.core.embeddings import Embeddings
    from angulus.evaluation.protocols import judged
    from angulus.evaluation.protocols.classification import Predictions
    from angulus.evaluation.protocols.result import Result

    if path.suffix == ".json":
        return judged.of_result(Result.read(path))
    if pairs is not None:
        return judged.of_pairs(Embeddings.read(path), read_list(pairs, form), flip=flip)
    return Predictions.read(path).judged()
