"""Settings that a comparison chooses on classes held out of the training data."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny
from angulus import InputError
from angulus.experiments import recipe as recipes
from angulus.experiments.choose import Choice, in_words
from angulus.experiments.compare import collect, compare
from angulus.report import tables
from angulus.report.unfinished_run import keep_finished
from angulus.training.log import read_lines

VALIDATION = {"identities": 0.3, "fmr": 0.05, "pairs": 200}


def recipe(folder: Path, **choose: Any) -> str:
    """A recipe file of two losses with two trials each."""
    content = recipes.dump(tiny.validated("training.epochs=2"))
    trials = [{"objective.m": 0.1}, {"objective.m": 0.3, "training.optimizer.lr": 0.02}]
    content["compare"] = {
        "seeds": [0],
        "variants": {
            "CosFace": {"objective": {"kind": "cosface", "s": 8}},
            "ArcFace": {"objective": {"kind": "arcface"}},
        },
        "choose": {
            "settings": {"CosFace": trials, "ArcFace": trials},
            "epochs": 1,
            "validation": VALIDATION,
            **choose,
        },
    }
    for key in ("sweep", "folds"):
        if key in choose:
            content["compare"][key] = content["compare"]["choose"].pop(key)
    if "sweep" in choose:
        content["compare"]["choose"]["settings"] = {
            f"{name}, {key.rsplit('.', 1)[-1]}={value}": trials
            for name in ("CosFace", "ArcFace")
            for key, values in choose["sweep"].items()
            for value in values
        }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(content))
    return str(path)


def test_the_best_trial_is_trained_on_all_classes_and_the_table_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("angulus.experiments.build.splits", lambda _: tiny.splits())
    out = tmp_path / "runs"
    comparison = compare(recipe(tmp_path), out)
    for name, choice in comparison.chosen.items():
        scores = []
        for trial, settings in enumerate(choice.settings):
            folder = out / name / f"choose-{trial}"
            own = recipes.load(folder / "recipe.yaml")
            assert (own.training.epochs, own.validation.pairs, own.training.seed) == (1, 200, 0)  # type: ignore[union-attr]
            assert own.objective.margin.m == settings["objective.m"]  # type: ignore[union-attr]
            rows = read_lines(folder / "metrics.jsonl")
            scores.append([row["validation_accuracy"] for row in rows if "validation_accuracy" in row][-1])
        assert choice.scores == scores
        final = recipes.load(out / name / "seed-0" / "recipe.yaml")
        assert (final.training.epochs, final.validation) == (2, None)
        assert final.objective.margin.m == choice.best["objective.m"]  # type: ignore[union-attr]
    stored = json.loads((out / "comparison.json").read_text())["chosen"]
    assert stored["ArcFace"]["best"] == comparison.chosen["ArcFace"].best
    best = "; ".join(f"{name} {in_words(choice.best)}" for name, choice in comparison.chosen.items())
    assert f"2 trials of 1 epochs each: {best}" in tables.caption(comparison)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("checkpoint.pt")}
    again = compare(recipe(tmp_path), out)  # nothing is trained again
    assert again.chosen == comparison.chosen
    assert {path: path.stat().st_mtime_ns for path in out.rglob("checkpoint.pt")} == times


def test_of_equal_scores_the_first_is_chosen() -> None:
    assert Choice([{"a": 1}, {"a": 2}, {"a": 3}], [0.5, 0.7, 0.7]).best == {"a": 2}


@pytest.mark.parametrize(
    ("choose", "sentence"),
    [
        ({"settings": {"CosFace": [{}]}}, "as many trials as the others; got {'CosFace': 1, 'ArcFace': 0}"),
        ({"settings": {"CosFace": [{}, {}], "ArcFace": [{}]}}, "got {'CosFace': 2, 'ArcFace': 1}"),
        ({"settings": {"Cosface": [{}], "ArcFace": [{}]}}, "compare.choose.settings must be one of"),
        (
            {"settings": {"CosFace": [{"training.epochs": 3}], "ArcFace": [{}]}},
            "objective and training.optimizer alone; CosFace changes training.epochs",
        ),
        ({"by": "accuracy"}, "compare.choose.by must"),
        ({"sweep": {"objective.m": [0.2, 0.5]}}, "objective.m is both swept and chosen"),
        ({"sweep": {"objective": [{"kind": "cosface"}]}}, "objective.m is both swept and chosen"),
        ({"folds": {"data.options.fold": [0, 1]}}, "compare.choose and compare.folds exclude each other"),
        ({"settings": {"CosFace": [{"objective.q": 3}], "ArcFace": [{}]}}, "compare.choose.settings.CosFace: "),
    ],
)
def test_an_uneven_or_wrong_choice_gets_a_sentence_before_anything_is_trained(
    choose: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("angulus.experiments.build.splits", lambda _: tiny.splits())
    with pytest.raises(InputError, match=re.escape(sentence)):
        compare(recipe(tmp_path, **choose), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("angulus.experiments.build.splits", lambda _: tiny.splits())


@pytest.mark.usefixtures("digits")
def test_a_trial_that_stops_loses_and_is_named(tmp_path: Path) -> None:
    trials = [{"training.optimizer.lr": 1e30}, {"objective.m": 0.1}]
    comparison = compare(recipe(tmp_path, settings={"CosFace": trials, "ArcFace": trials}), tmp_path / "runs")
    for choice in comparison.chosen.values():
        assert choice.best == {"objective.m": 0.1}
        assert choice.scores[0] == -math.inf
    assert "; 1 of the trials of CosFace stopped" in tables.caption(comparison)
    assert json.loads((tmp_path / "runs/CosFace/choice.json").read_text())["scores"][0] is None
    for folder in (tmp_path / "runs").glob("*/choose-*"):
        shutil.rmtree(folder)  # the choice stays
    assert compare(recipe(tmp_path, settings={"CosFace": trials, "ArcFace": trials}), tmp_path / "runs").chosen == (
        comparison.chosen
    )
    with pytest.raises(InputError, match="every trial of CosFace stopped, since its loss was not finite"):
        compare(recipe(tmp_path, settings={"CosFace": trials[:1] * 2, "ArcFace": trials[:1] * 2}), tmp_path / "others")


@pytest.mark.usefixtures("digits")
def test_a_comparison_that_is_refused_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    compare(recipe(tmp_path), out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    other = recipe(tmp_path, settings={name: [{"objective.m": 0.2}, {}] for name in ("CosFace", "ArcFace")})
    with pytest.raises(InputError, match=r"choice\.json holds the choice from other settings; choose another --out"):
        compare(other, out)
    (out / "CosFace/choice.json").unlink()
    (out / "ArcFace/choice.json").unlink()
    with pytest.raises(InputError, match="choose another --out"):
        compare(other, out)
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {path for path in before if after.get(path) != before[path]} == {
        out / "CosFace/choice.json",
        out / "ArcFace/choice.json",
    }


@pytest.mark.usefixtures("digits")
def test_an_unfinished_comparison_says_what_was_chosen(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    whole = compare(recipe(tmp_path), out)
    shutil.rmtree(out / "ArcFace" / "seed-0")
    part, lines = keep_finished(recipes.load(out / "recipe.yaml"), out, {})
    assert part is not None
    assert collect(part, out).chosen == {"CosFace": whole.chosen["CosFace"]}
    (out / "ArcFace/choice.json").unlink()
    _, lines = keep_finished(recipes.load(out / "recipe.yaml"), out, {})
    assert "the settings of 1 of 2 variants are chosen so far" in "".join(lines)
