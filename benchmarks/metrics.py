"""Time of the figures themselves, without scoring: accuracy over folds, a curve of very many scores, LUNA16.

    python benchmarks/metrics.py folds [--repeats 20] [--save]
    python benchmarks/metrics.py curve [--scores 100000000] [--repeats 3] [--save]
    python benchmarks/metrics.py luna16 FOLDER [--repeats 3] [--save]

`folds`: LFW's 6,000 pairs in ten folds, after their scores. `curve`: the ROC of that many scores, AUC and TAR at a FAR,
beside one numpy.sort of the same scores in the same round. `luna16`: a detector's marks in FOLDER (the one
*submission.csv, annotations.csv, annotations_excluded.csv, seriesuids.csv, or with .gz) read, matched and scored,
without intervals.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from angulus.core.environment import of_timing
from angulus.evaluation.lists import luna16_csv
from angulus.evaluation.metrics.curves import auc, error_curve
from angulus.evaluation.metrics.verification import kfold_accuracy, tar_at_far
from angulus.evaluation.protocols import detection

RESULTS = Path(__file__).parent / "results" / "metrics.jsonl"


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
        found = error_curve(scores, same)
        return auc(found), tar_at_far(found, 1e-4).tar

    return {"one sort": lambda: np.sort(scores), "curve, AUC and TAR": whole}


def nodules(folder: Path) -> dict[str, Callable[[], Any]]:
    """Reading and scoring."""

    def there(name: str) -> Path:
        (path,) = (*folder.glob(name), *folder.glob(f"{name}.gz"))
        return path

    def whole() -> float:
        given = luna16_csv.read_marks(there("*submission.csv")), luna16_csv.read_findings(there("annotations.csv"))
        scans = luna16_csv.read_scans(there("seriesuids.csv"))
        excluded = luna16_csv.read_excluded(there("annotations_excluded.csv"))
        return detection.luna16(*given, excluded, scans, draws=0)["CPM"]

    return {"luna16": whole}


def main() -> None:
    """Run, print, and store where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["folds", "curve", "luna16"])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("."))
    parser.add_argument("--scores", type=int, default=10**8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results/metrics.jsonl")
    arguments = parser.parse_args()
    if arguments.what == "folds":
        timed = folds()
    else:
        timed = curve(arguments.scores) if arguments.what == "curve" else nodules(arguments.folder)
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(arguments.repeats):
        for name, run in timed.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    first = next(iter(seconds.values()))
    rows = [
        {
            "what": name,
            "median_s": round(statistics.median(values), 5),
            "low_s": round(min(values), 5),
            "high_s": round(max(values), 5),
            "ratio_to_first": round(statistics.median(a / b for a, b in zip(values, first, strict=True)), 3),
        }
        for name, values in seconds.items()
    ]
    print(*rows, sep="\n")
    if arguments.save:
        store(rows, arguments)


def store(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Append one line a row, with the shape, device, versions, date, command and commit."""
    RESULTS.parent.mkdir(exist_ok=True)
    shape = {"scores": arguments.scores} if arguments.what == "curve" else {}
    facts = of_timing(torch.device("cpu"))
    facts["command"] = ["python", "benchmarks/metrics.py", arguments.what, *sys.argv[2:]]
    with RESULTS.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(shape | {"repeats": arguments.repeats} | row | {"environment": facts}) + "\n")


if __name__ == "__main__":
    main()
