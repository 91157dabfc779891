"""What a report leaves out: runs that have not ended, damaged folders, parts of comparisons; each is named."""

from __future__ import annotations

import itertools
import json
import random
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reports
import tiny
from angulus.cli import main as cli
from angulus.core.checks import InputError
from angulus.experiments import build, compare
from angulus.experiments.claims import Compare, accuracy_title
from angulus.experiments.run import run
from angulus.report import unfinished_run
from angulus.report.content import read_content
from angulus.report.sections import write_report
from reports import Page

GRID = "compare={seeds: [3, 4], quality_split: A, variants: {A: {}, B: {training.optimizer.lr: 0.1}, C: {}}}"
PAPER = "published={source: Table 1, accuracy: {A: {entire: 99}, C: {entire: 98, low: 90}}}"
STEPS = 5  # of the grid's runs


class Crash(Exception):
    pass


class After:
    """Crashes at the given step."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise Crash


@pytest.fixture(scope="module", autouse=True)
def few_digits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "splits", lambda recipe: reports.splits())
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended, one stopped in its second epoch of five steps, and a result."""
    here = tmp_path_factory.mktemp("left-out")
    reports.train(here / "ended")
    with pytest.raises(Crash):
        run(tiny.validated(), here / "stopped", splits=reports.splits(), on_step=After(7))
    reports.result(here)
    return here


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that has ended: two seeds of three variants."""
    here = tmp_path_factory.mktemp("grid")
    compare.compare(tiny.write(here, "training.epochs=1", GRID, PAPER), here / "grid")
    return here / "grid"


def began_by(folder: Path, *command: str) -> None:
    there = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps({**there, "command": list(command)}))


def noted(path: Path) -> list[str]:
    """What the page says that it lacks, read as a reader finds it: under a heading of its own, before all else."""
    page = Page(path.read_text())
    asides = page.all("aside")
    if not asides:
        return []
    ((attrs, said),) = asides
    names = [tag for tag, _, _ in page.elements]
    assert names.index("aside") < names.index("section")
    headings = [text for found, text in page.all("h2") if found.get("id") == attrs["aria-labelledby"]]
    assert headings == ["Not in this report"]
    return [line for line in said.strip().splitlines()[1:] if line.strip()]


def test_a_run_that_has_not_ended_is_named_beside_those_that_have(folder: Path, tmp_path: Path) -> None:
    began_by(folder / "stopped", "angulus", "train", "my recipe.yaml", "a=1", "--out", "stopped")
    with pytest.warns(UserWarning, match="not in the report: .*stopped: its training has not finished") as warned:
        write_report([folder / "stopped", folder / "ended"], tmp_path / "page.html", draws=0)
    (line,) = noted(tmp_path / "page.html")
    assert [f"not in the report: {line}"] == [str(each.message) for each in warned]
    assert line == (
        f"{folder / 'stopped'}: its training has not finished (5 steps of 10 are done); unless it is still running, "
        "resume it by `angulus train 'my recipe.yaml' a=1 --out stopped --resume`"
    )
    content = read_content([folder / "ended", folder / "stopped"], draws=0)
    assert [model.name for model in content.runs] == ["ended"]


def test_steps_are_told_where_the_data_are_gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(recipe: object) -> object:
        raise InputError("there are no digits here")

    monkeypatch.setattr(build, "splits", gone)
    (line,) = read_content([folder / "ended", folder / "stopped"], draws=0).left_out
    assert "(5 steps of 2 epochs are done)" in line


def test_the_command_that_is_named_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def angulus(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["angulus", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0)

    monkeypatch.chdir(tmp_path)
    assert angulus("train", tiny.write(tmp_path), "training.epochs=1", "--out", "run") == 0
    Path("run/results.json").unlink()
    reports.result(tmp_path)
    (line,) = read_content([Path("run"), Path("crowd.json")], draws=0).left_out
    assert line.startswith("run: its training has not finished (all 5 steps are done, the evaluation is not)")
    (command,) = re.findall("`(.*)`", line)
    assert angulus(*shlex.split(command)[1:]) == 0
    assert read_content([Path("run"), Path("crowd.json")], draws=0).left_out == []


@pytest.mark.parametrize("command", [["pytest", "-k", "x"], ["angulus"], [], None])
def test_without_a_command_to_name_the_way_is_still_said(folder: Path, command: Any) -> None:
    began_by(folder / "stopped", *command) if command is not None else (folder / "stopped/environment.json").unlink()
    (line,) = read_content([folder / "ended", folder / "stopped"], draws=0).left_out
    assert line.endswith("unless it is still running, resume it by the command that started it (train: with --resume)")


def test_what_is_damaged_or_not_there_is_named_beside_the_rest(folder: Path, tmp_path: Path) -> None:
    damaged = [tmp_path / name for name in ("test.npz", "results.json", "recipe.yaml", "formation.npz")]
    for path in damaged:
        shutil.copytree(folder / "ended", path)
        (path / path.name).write_bytes(b"\xff\x00 damaged")
    (tmp_path / "bad.json").write_text("[]")
    others = [tmp_path / "bad.json", tmp_path / "nowhere"]
    content = read_content([*damaged, folder / "crowd.json", *others, folder / "ended"], draws=0)
    assert list(content.results) == ["crowd"]
    left_out = dict(zip([*damaged, *others], content.left_out, strict=True))
    for path, line in left_out.items():
        assert str(path) in line
        assert path not in damaged or path.name in line.replace(str(path), "")
    assert [model.name for model in content.runs] == ["ended"]


@pytest.mark.parametrize("text", ["{}", "[]", "5", '{"name": "a"}', "\xff"])
def test_results_of_something_else_are_refused(folder: Path, tmp_path: Path, text: str) -> None:
    shutil.copytree(folder / "ended", tmp_path / "run")
    (tmp_path / "run" / "results.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"results\.json cannot be read \(.*\); delete it to evaluate again"):
        read_content([tmp_path / "run"], draws=0)


def test_a_log_is_read_up_to_what_is_damaged(folder: Path, tmp_path: Path) -> None:
    whole = read_content([folder / "ended"], draws=0).runs[0].log
    shutil.copytree(folder / "ended", tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    for broken in (b"5\n", b'{"loss": 1}\n', b"\xff\xfe\n"):
        (tmp_path / "run" / "metrics.jsonl").write_bytes(b"".join([*lines[:4], broken, *lines[4:]]))
        assert read_content([tmp_path / "run"], draws=0).runs[0].log == whole[:4]


ODD_LINES = {
    "a text": ('{"step": 3, "loss": "low"}', "line 5 must hold finite numbers; got 'low' for 'loss'"),
    "a list": ('{"step": 3, "loss": [1]}', "got [1] for 'loss'"),
    "null": ('{"step": 3, "loss": null}', "got None for 'loss'"),
    "NaN": ('{"step": 3, "loss": NaN}', "got nan for 'loss'"),
    "a float too large": ('{"step": 3, "loss": 1' + "0" * 400 + "}", "must hold finite numbers"),
    "5,000 digits": ('{"step": ' + "9" * 5_000 + "}", "line 5 must be JSON"),
    "a step that is text": ('{"step": "3"}', "line 5 must be a mapping with a step, a whole number"),
    "deep": ("[" * 50_000, "line 5 must nest lists and mappings at most 64 deep"),
}


@pytest.mark.parametrize("case", ODD_LINES)
def test_an_odd_value_in_a_log_is_named_and_the_rest_is_shown(case: str, folder: Path, tmp_path: Path) -> None:
    line, sentence = ODD_LINES[case]
    shutil.copytree(folder / "ended", tmp_path / "odd")
    path = tmp_path / "odd" / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], line, *lines[4:]]))
    content = read_content([tmp_path / "odd", folder / "ended"], draws=0)
    assert [(model.name, len(model.log)) for model in content.runs] == [("odd", 4), ("ended", len(lines))]
    assert len(content.left_out) == 1
    assert content.left_out[0].startswith(f"{path}: ") and sentence in content.left_out[0]
    assert write_report([tmp_path / "odd"], tmp_path / "page.html", draws=0) > 0


ODD_RESULTS: dict[str, Any] = {
    "accuracy": "high", "training": [], "environment": None, "name": 3,
    "training.seconds": {"steps": 3, "seconds": "long"}, "training.steps": {"steps": 10**30, "seconds": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_RESULTS)
def test_an_odd_value_in_results_is_named_and_the_rest_is_shown(name: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "ended", tmp_path / "odd")
    path = tmp_path / "odd" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name.partition(".")[0]: ODD_RESULTS[name]}))
    content = read_content([tmp_path / "odd", folder / "ended"], draws=0)
    assert [model.name for model in content.runs] == ["ended"]
    assert re.search(rf"odd/results.json holds .* as '{re.escape(name)}'; delete it", content.left_out[0])


@pytest.mark.parametrize("text", ["[" * 50_000, '{"accuracy": ' + "9" * 5_000 + "}"])
def test_results_that_json_cannot_hold_are_named(text: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "ended", tmp_path / "odd")
    (tmp_path / "odd" / "results.json").write_text(text)
    content = read_content([tmp_path / "odd", folder / "ended"], draws=0)
    assert [model.name for model in content.runs] == ["ended"]
    assert "odd/results.json cannot be read (results.json must" in content.left_out[0]


def test_where_nothing_can_be_shown_each_reason_is_in_the_refusal(folder: Path, grid: Path, tmp_path: Path) -> None:
    shutil.copytree(grid, tmp_path / "grid")
    for each in (tmp_path / "grid").glob("*/seed-*/results.json"):
        each.unlink()
    with pytest.raises(InputError) as refused:
        write_report([folder / "stopped", tmp_path / "nowhere", tmp_path / "grid"], tmp_path / "page.html", draws=0)
    for said in (r"stopped: its training has not finished", r"does not exist", r"0 of the comparison's 6 runs"):
        assert re.search(said, str(refused.value))
    assert not (tmp_path / "page.html").exists()
    with pytest.raises(InputError, match=r"^draws must be a whole number in \[0, 100000\]; got -1"):
        read_content([folder / "ended", folder / "stopped"], draws=-1)


# comparisons


def accuracies(comparison: compare.Comparison) -> dict[str, list[float]]:
    return {row.variant: row.columns[accuracy_title("low")].values for row in comparison.rows}


def test_of_a_comparison_that_goes_on_what_has_ended_is_shown(grid: Path, tmp_path: Path) -> None:
    path = tiny.write(tmp_path, "training.epochs=1", "training.checkpoint_every=2", GRID)
    with pytest.raises(Crash):
        compare.compare(path, tmp_path / "grid", on_step=After(2 * STEPS + 3))  # in the third run, C with seed 3
    with pytest.warns(UserWarning, match="not in the report"):
        write_report([tmp_path / "grid"], tmp_path / "page.html", draws=0)
    lines = noted(tmp_path / "page.html")
    assert re.fullmatch(
        r".*grid: 2 of the comparison's 6 runs can be shown; unless it is still running, resume it .*", lines[0]
    )
    assert lines[1:] == [
        "grid: C, seed 3: 2 steps of 5 are done",
        "grid: not started: A, seed 4; B, seed 4; C, seed 4",
    ]
    content = read_content([tmp_path / "grid"], draws=0)
    assert [model.name for model in content.runs] == ["A", "B"]
    (found,) = content.comparisons
    (whole,) = read_content([grid], draws=0).comparisons
    assert accuracies(found) == {name: values[:1] for name, values in accuracies(whole).items() if name != "C"}
    recipes = [said for _, said in Page((tmp_path / "page.html").read_text()).all("pre")]
    assert (tmp_path / "grid" / "recipe.yaml").read_text() in recipes  # whole, with what is still to come


def test_runs_that_not_all_variants_have_are_named_as_in_no_table(grid: Path, tmp_path: Path) -> None:
    shutil.copytree(grid, tmp_path / "grid")
    shutil.rmtree(tmp_path / "grid" / "C" / "seed-4")
    np.savez(tmp_path / "grid" / "B" / "seed-4" / "test.npz", norms=np.zeros(3))
    content = read_content([tmp_path / "grid"], draws=0)
    assert [row.variant for row in content.comparisons[0].rows] == ["A", "B", "C"]
    assert [len(values) for values in accuracies(content.comparisons[0]).values()] == [1, 1, 1]
    assert re.match(r".*grid: 4 of the comparison's 6 runs can be shown", content.left_out[0])
    assert "B, seed 4: " in content.left_out[1] and "test.npz must hold features" in content.left_out[1]
    assert content.left_out[2:] == [
        "grid: not started: C, seed 4",
        "grid: finished, but in no table, because all variants of a table need the same seeds: A, seed 4",
    ]


def test_without_the_variant_that_splits_each_model_splits_for_itself(grid: Path, tmp_path: Path) -> None:
    shutil.copytree(grid, tmp_path / "grid")
    for seed in (3, 4):
        (tmp_path / "grid" / "A" / f"seed-{seed}" / "results.json").unlink()
    content = read_content([tmp_path / "grid"], draws=0)
    (found,) = content.comparisons
    assert accuracies(found) == {row.variant: row.own[accuracy_title("low")].values for row in found.rows}
    assert list(accuracies(found)) == ["B", "C"]
    assert [model.accuracies.choices["split by"] for model in content.runs] == ["own norms"] * 2


def test_a_damaged_first_run_leaves_the_table_and_is_named(grid: Path, tmp_path: Path) -> None:
    shutil.copytree(grid, tmp_path / "grid")
    (tmp_path / "grid" / "B" / "seed-3" / "formation.npz").write_bytes(b"damaged")
    content = read_content([tmp_path / "grid"], draws=0)
    assert [model.name for model in content.runs] == ["A", "C"]
    assert len(content.comparisons[0].rows) == 3
    assert len(content.left_out) == 1 and "formation.npz cannot be read" in content.left_out[0]


@pytest.mark.parametrize(
    "added", [[], ["evaluation.benchmarks=[{name: b, protocol: classification, columns: {x: accuracy}}]"]]
)
def test_a_comparison_that_is_being_measured_anew_shows_what_is_measured_so(
    added: list[str], grid: Path, tmp_path: Path
) -> None:
    shutil.copytree(grid, tmp_path / "grid")
    path = tiny.write(tmp_path, "training.epochs=1", GRID, PAPER, "evaluation.low_fraction=0.5", *added)

    def stop(words: str, done: int, total: int) -> None:
        if done == 2:
            raise Crash

    with pytest.raises(Crash):
        compare.compare(path, tmp_path / "grid", on_run=stop)
    content = read_content([tmp_path / "grid"], draws=0)
    assert [row.variant for row in content.comparisons[0].rows] == ["A", "B"]
    assert content.comparisons[0].rows[0].counts["low"] == content.comparisons[0].rows[0].counts["good"]
    assert "grid: C, seed 3: measured by another recipe, and not yet again by this one" in content.left_out


def test_a_comparison_without_its_recipe_is_shown_by_its_runs(grid: Path, tmp_path: Path) -> None:
    shutil.copytree(grid, tmp_path / "grid")
    for name in ("recipe.yaml", "comparison.json", "B/seed-4/results.json"):
        (tmp_path / "grid" / name).unlink()
    content = read_content([tmp_path / "grid"], draws=0)
    assert [model.name for model in content.runs] == ["A/seed-3", "A/seed-4", "B/seed-3", "C/seed-3", "C/seed-4"]
    assert len(content.left_out) == 1 and "seed-4: its training has not finished" in content.left_out[0]


def test_the_part_that_is_shown_has_most_variants_and_then_most_seeds() -> None:
    names, seeds = ["A", "B", "C", "D"], [5, 6, 7]
    grid = Compare(seeds, {name: {} for name in names})
    places = list(itertools.product(names, seeds))
    draw = random.Random(0)
    for _ in range(200):
        ended = set(draw.sample(places, draw.randint(1, len(places))))
        shown, of = unfinished_run._largest_grid(grid, ended)
        assert shown and of and set(itertools.product(shown, of)) <= ended
        best = max(
            (wide, long)
            for wide, long in itertools.product(range(1, 5), range(1, 4))
            if any(
                set(itertools.product(some, few)) <= ended
                for some in itertools.combinations(names, wide)
                for few in itertools.combinations(seeds, long)
            )
        )
        assert (len(shown), len(of)) == best
