"""Cross-validation in a comparison: folds of digits, pooled, against the folds' own numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from angulus.core.checks import InputError
from angulus.data.sets.images import Images, Splits
from angulus.evaluation.protocols import detection
from angulus.experiments import build
from angulus.experiments.compare import Comparison, compare
from angulus.experiments.measure import load_test
from angulus.experiments.recipe import Recipe
from angulus.experiments.run_files import read_results
from angulus.report.analyses import write_comparison
from angulus.report.content import read_content

VARIANTS = "compare.variants={Norm: {}, Arc: {objective: {kind: arcface, s: 10, m: 0.2}}}"
GRID = [
    "training.epochs=1",
    "evaluation.benchmarks=[{name: LUNA16, protocol: luna16-candidates, columns: {CPM: CPM}, options: {draws: 2}}]",
    "compare.seeds=[0]",
    "compare.folds={data.options.fold: [0, 1, 2]}",
    VARIANTS,
]
LARGER = 8  # fold 2 has so many test images more


def odd_or_even(recipe: Recipe) -> Splits:
    """Digits classified as odd or even, in three folds of scans; 40, 40 and 48 are tested on."""
    fold = recipe.data.options.get("fold", 0)
    whole = tiny.splits(120, 150)

    def part(images: Images, rows: range) -> Images:
        scans = np.array([f"scan-{row // 10}" for row in rows])
        return Images(images.pixels[rows], images.labels[rows] % 2, ("even", "odd"), {"scans": scans})

    test = range(40 * fold, 40 * fold + 40 + LARGER * (fold == 2))
    return Splits("digits", part(whole.train, range(40 * fold, 40 * fold + 30)), part(whole.test, test), f"fold {fold}")


@pytest.fixture(autouse=True)
def folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "splits", odd_or_even)


@pytest.fixture
def grid(tmp_path: Path) -> Comparison:
    return compare(tiny.write(tmp_path, *GRID), tmp_path / "runs")


def test_pooled_numbers_are_those_of_all_test_images(grid: Comparison) -> None:
    for row in grid.rows:
        where = grid.folder / row.variant / "seed-0"
        parts = [where / f"fold={fold}" for fold in range(3)]
        tests = [load_test(each) for each in parts]
        hits = np.concatenate([each["labels"] == each["predictions"] for each in tests])
        low = np.concatenate(
            [np.argsort(np.argsort(each["norms"])) < round(0.2 * len(each["norms"])) for each in tests]
        )
        results = read_results(where)
        assert results["accuracy"] == pytest.approx(hits.mean())
        assert results["own_split"]["low"]["count"] == 8 + 8 + 10
        assert results["own_split"]["low"]["accuracy"] == pytest.approx(hits[low].mean())
        assert row.columns["accuracy good %"].values == [pytest.approx(100 * hits[~low].mean())]
        own = [read_results(each)["training"] for each in parts]
        assert row.seconds == pytest.approx(sum(each["seconds"] for each in own))
        assert results["training"]["steps"] == sum(each["steps"] for each in own)

        scans = np.concatenate(
            [odd_or_even(tiny.validated(f"data.options.fold={fold}")).test.columns["scans"] for fold in range(3)]
        )
        labels, probabilities = (np.concatenate([each[name] for each in tests]) for name in ("labels", "probabilities"))
        expected = detection.candidates(labels, probabilities, scans, None, draws=2)
        assert row.columns["CPM"].values == [pytest.approx(expected["CPM"])]


def test_models_of_folds_are_trained_on_their_own_images(grid: Comparison) -> None:
    weights = [
        torch.load(grid.folder / "Norm" / "seed-0" / f"fold={fold}" / "checkpoint.pt")["head"]["weight"]
        for fold in (0, 1)
    ]
    assert not torch.equal(*weights)


def test_it_goes_on_where_it_stopped(grid: Comparison, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    before = (grid.folder / "comparison.json").read_text()
    shutil.rmtree(grid.folder / "Arc" / "seed-0" / "fold=2")
    again = compare(str(tmp_path / "tiny.yaml"), grid.folder, on_run=lambda *each: calls.append(each))
    assert calls[0] == ("Norm, seed 0, fold=0", 0, 6)
    assert calls[-1] == ("Arc, seed 0, fold=2", 5, 6)
    one, other = (json.loads(each) for each in (before, (again.folder / "comparison.json").read_text()))
    for each in (one, other):
        for row in each["rows"]:
            row.pop("training_seconds")
    assert one == other


def test_what_was_seen_in_any_fold_is_kept(grid: Comparison, tmp_path: Path) -> None:
    path = grid.folder / "Arc" / "seed-0" / "fold=1" / "results.json"
    seen = {"step": 2, "sign": "stuck", "sentence": "step 2: stuck."}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"findings": [seen]}))
    again = compare(str(tmp_path / "tiny.yaml"), grid.folder)
    assert again.findings == {"Norm, seed 0": [], "Arc, seed 0": ["fold=1, step 2: stuck."]}


def test_a_report_shows_the_first_fold_s_models_beside_the_pooled_numbers(grid: Comparison) -> None:
    content = read_content([grid.folder])
    assert [each.name for each in content.runs] == ["Norm, fold=0", "Arc, fold=0"]
    assert all(len(each.test["labels"]) == 40 and isinstance(each.images, Images) for each in content.runs)
    assert [len(each.samples["scores"]) for each in content.results.values()] == [128, 128]
    assert list(content.results) == ["Norm: LUNA16", "Arc: LUNA16"]
    assert content.runs_of_results == {"Norm: LUNA16": "Norm", "Arc: LUNA16": "Arc"}
    assert content.in_comparisons == set(content.results)
    with pytest.raises(InputError, match="pools folds, each with its own model; give the comparison, or one of its"):
        read_content([grid.folder / "Norm" / "seed-0"])
    written = {each.name for each in write_comparison(grid)}
    assert {"norms.png", "best-and-worst.png"} <= written
    assert "3 folds pooled" in (grid.folder / "table.md").read_text(encoding="utf-8")


def test_a_report_of_folds_that_have_not_all_ended_says_which(grid: Comparison) -> None:
    for name in ("fold=2/results.json", "results.json"):
        (grid.folder / "Arc" / "seed-0" / name).unlink()
    content = read_content([grid.folder])
    assert [each.name for each in content.runs] == ["Norm, fold=0"]
    assert content.left_out[1] == "runs: Arc, seed 0: 2 of its 3 folds have finished"


def test_folds_and_the_whole_are_not_mixed(grid: Comparison, tmp_path: Path) -> None:
    path = str(tmp_path / "tiny.yaml")
    with pytest.raises(InputError, match="holds a run of a comparison with folds; choose another --out"):
        compare(path, grid.folder, ["compare.folds={}"])
    compare(path, tmp_path / "whole", ["compare.folds={}"])
    with pytest.raises(InputError, match="holds a run of a comparison without folds; choose another --out"):
        compare(path, tmp_path / "whole")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("compare.folds={data.options.fold: [0]}", "takes one option of the data and at least two values"),
        ("compare.folds={training.seed: [0, 1]}", "takes one option of the data and at least two values"),
        ("compare.folds={data.options.fold: [0, 1], data.options.part: [0, 1]}", "takes one option of the data"),
        ("compare.folds={data.options.fold: [0, 0]}", "at least two values that differ"),
        (
            "evaluation.benchmarks=[{name: LFW, protocol: lfw, columns: {a: AUC}, images: x, lists: {pairs: y}}]",
            "the benchmark 'LFW' embeds images of its own by one model",
        ),
        (
            "evaluation.benchmarks=[{name: low, protocol: classification, columns: {a: accuracy}}]",
            "the benchmark 'low' tells low quality by the norms of one model",
        ),
        ("training.snapshots={every: 1}", "training.snapshots is of one model"),
        ("validation={identities: 0.5, fmr: 0.1}", "validation"),
    ],
)
def test_refusals(override: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x", "y"):
        (tmp_path / name).touch()
    monkeypatch.setenv("ANGULUS_DATA", str(tmp_path))
    with pytest.raises(InputError, match=sentence):
        compare(tiny.write(tmp_path, *GRID), tmp_path / "runs", [override])
    assert not (tmp_path / "runs").exists()
