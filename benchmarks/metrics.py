"""Time of the figures themselves, without scoring: accuracy over folds, a curve of very many scores, LUNA16.

    python benchmarks/metrics.py folds [--rounds 20] [--save]
    python benchmarks/metrics.py curve [--scores 100000000] [--rounds 3] [--save]
    python benchmarks/metrics.py luna16 FOLDER [--rounds 3] [--save]

`folds`: LFW's 6,000 pairs in ten folds, after their scores. `curve`: the ROC of that many scores, AUC and TAR at a FAR,
next to one numpy.sort of the same scores. `luna16`: a detector's marks in FOLDER (the one *submission.csv,
annotations.csv, annotations_excluded.csv, seriesuids.csv, or with .gz) read, matched and scored, without intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from angulus.evaluation.lists import luna16_csv
from angulus.evaluation.metrics.curves import auc, error_curve
from angulus.evaluation.metrics.verification import kfold_accuracy, tar_at_far
from angulus.evaluation.protocols import detection
from harness import options, ratio_text, run, show, store, take_turns


def folds() -> dict[str, Callable[[], Any]]:
    """LFW's shape: 300 genuine and 300 impostor pairs in each of ten folds."""
    same, fold = np.tile(np.repeat([True, False], 300), 10), np.repeat(np.arange(10), 600)
    scores = np.random.default_rng(0).normal(size=6000) + 2 * same
    return {"accuracy over folds": lambda: kfold_accuracy(scores, same, fold)}


def curve(count: int) -> dict[str, Callable[[], Any]]:
    """One score in a hundred is genuine; the peer is the sort that any curve needs."""
    rng = np.random.default_rng(0)
    scores = rng.random(count)
    same = rng.random(count) < 0.01
    scores[same] += 0.5

    def whole() -> tuple[float, float]:
        rates = error_curve(scores, same)
        return auc(rates), tar_at_far(rates, 1e-4).tar

    return {"one sort": lambda: np.sort(scores), "curve, AUC and TAR": whole}


def nodules(folder: Path) -> dict[str, Callable[[], Any]]:
    """Reading and scoring."""

    def find(name: str) -> Path:
        (path,) = (*folder.glob(name), *folder.glob(f"{name}.gz"))
        return path

    def whole() -> float:
        marks = luna16_csv.read_marks(find("*submission.csv")), luna16_csv.read_findings(find("annotations.csv"))
        scans = luna16_csv.read_scans(find("seriesuids.csv"))
        excluded = luna16_csv.read_excluded(find("annotations_excluded.csv"))
        return detection.luna16(*marks, excluded, scans, draws=0)["CPM"]

    return {"luna16": whole}


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", scores=10**8, rounds=3)
    parser.add_argument("what", choices=["folds", "curve", "luna16"])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("."))
    asked = parser.parse_args(arguments)
    if asked.what == "folds":
        steps = folds()
    else:
        steps = curve(asked.scores) if asked.what == "curve" else nodules(asked.folder)
    shape = {"rounds": asked.rounds} | ({"scores": asked.scores} if asked.what == "curve" else {})
    timings = take_turns(steps, asked.rounds, warm_up=False)
    rows = [shape | {"what": timing.what, "median_s": timing.seconds} | timing.slower() for timing in timings]
    show(
        f"{asked.what}, {asked.rounds} rounds",
        [{"what": row["what"], "median s": f"{row['median_s']:.5f}", "ratio": ratio_text(row)} for row in rows],
    )
    if asked.save:
        store("metrics", rows)


if __name__ == "__main__":
    run(main)
