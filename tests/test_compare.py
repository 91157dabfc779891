"""A grid of runs on a few digits: its numbers against NumPy, going on where it stopped, and its report."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny
from angulus.core.checks import InputError
from angulus.experiments import build, recipe
from angulus.experiments.claims import accuracy_title, norm_title
from angulus.experiments.compare import Cell, Comparison, compare, run_folder, to_json
from angulus.experiments.measure import load_test
from angulus.experiments.run import run
from angulus.experiments.run_files import read_results
from angulus.models.artifact import load
from angulus.report import analyses, tables
from angulus.report.analyses import ANALYSES, write_comparison
from angulus.report.feature_chart import class_features

GRID = [
    "training.epochs=1",
    "backbone.embedding_size=2",
    "title=Two losses on a few digits",
    "compare.seeds=[0, 3]",
    "compare.quality_split=Norm Face",
    "compare.variants={Norm Face: {}, Arc: {objective: {kind: arcface, s: 10, m: 0.2}, training.optimizer.lr: 0.1}}",
    "published={source: Table 7, accuracy: {Arc: {good: 98.5, low: 91, entire: 97.25}}, mean_norm: {Arc: {low: 3.5}}}",
]
GROUPS = ("good", "low", "entire")


@pytest.fixture(autouse=True, scope="module")
def few_digits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "splits", lambda recipe: tiny.splits())
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write(tmp_path_factory.mktemp("recipe"), *GRID)


@pytest.fixture(scope="module")
def grid(path: str, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compare(path, tmp_path_factory.mktemp("grid"))


def arrays(grid: Comparison, variant: str, seed: int) -> dict[str, np.ndarray]:
    with np.load(grid.folder / variant / f"seed-{seed}" / "test.npz") as content:
        return {name: content[name] for name in content.files}


def by_hand(test: dict[str, np.ndarray], norms: np.ndarray) -> dict[str, tuple[float, float]]:
    """Accuracy in % and mean norm by group, where `norms` part low from good."""
    ranked = sorted(range(60), key=lambda index: norms[index])
    members = {"low": ranked[:12], "good": ranked[12:], "entire": ranked}
    return {
        name: (
            100 * sum(test["labels"][i] == test["predictions"][i] for i in chosen) / len(chosen),
            sum(math.hypot(*test["features"][i].astype(float)) for i in chosen) / len(chosen),
        )
        for name, chosen in members.items()
    }


# numbers


def test_cells_have_the_mean_and_the_deviation_over_seeds() -> None:
    cell = Cell([99.0, 99.2, 99.7])
    assert cell.mean == pytest.approx(99.3)
    assert cell.deviation == pytest.approx(math.sqrt((0.3**2 + 0.1**2 + 0.4**2) / 2))
    assert math.isnan(Cell([99.0]).deviation)


def test_rows_are_those_of_the_runs(grid: Comparison) -> None:
    assert [row.variant for row in grid.rows] == ["Norm Face", "Arc"]
    for row, folder in zip(grid.rows, ("Norm-Face", "Arc"), strict=True):
        assert row.counts == {"good": 48, "low": 12, "entire": 60}
        for number, seed in enumerate((0, 3)):
            test, judge = arrays(grid, folder, seed), arrays(grid, "Norm-Face", seed)
            shared, own = by_hand(test, judge["norms"]), by_hand(test, test["norms"])
            for group in GROUPS:
                for cells, expected in ((row.columns, shared), (row.own, own)):
                    assert cells[accuracy_title(group)].values[number] == pytest.approx(expected[group][0])
                    assert cells[norm_title(group)].values[number] == pytest.approx(expected[group][1])


def test_a_shared_split_and_an_own_one_differ_where_the_models_do(grid: Comparison) -> None:
    judge, other = grid.rows
    assert judge.columns == judge.own
    assert other.columns["norm low"] != other.own["norm low"]
    assert other.own["norm low"].mean < other.columns["norm low"].mean  # its own are the smallest that it has
    assert other.columns["norm entire"] == other.own["norm entire"]


def test_without_a_shared_split_each_model_splits_for_itself(grid: Comparison, path: str) -> None:
    alone = compare(path, grid.folder, ["compare.quality_split=null"])
    for row, shared in zip(alone.rows, grid.rows, strict=True):
        assert row.columns == row.own == shared.own
    assert to_json(alone)["quality_split"] == "each variant's own"
    assert tables.caption(alone).endswith("feature norms of each model itself")
    compare(path, grid.folder)


def test_every_run_is_the_one_that_train_would_make(grid: Comparison, tmp_path: Path) -> None:
    arc = dict(recipe.parse_yaml(recipe.to_yaml(grid.recipe)))["compare"]["variants"]["Arc"]
    single = recipe.validate(recipe.variant(tiny.content(*GRID), arc, 3))
    assert single.training.optimizer.lr == 0.1
    run(single, tmp_path, splits=tiny.splits())
    assert tiny.differences(tiny.outcome(tmp_path), tiny.outcome(grid.folder / "Arc" / "seed-3")) == []


# the folder


def test_the_folder_holds_the_numbers_and_the_recipe(grid: Comparison) -> None:
    written = json.loads((grid.folder / "comparison.json").read_text())
    assert written == to_json(grid)
    assert written["seeds"] == [0, 3]
    assert written["quality_split"] == "Norm Face"
    for row, saved in zip(grid.rows, written["rows"], strict=True):
        assert saved["variant"] == row.variant
        assert saved["counts"] == row.counts
        for key, cells, title in (
            ("accuracy_percent", row.columns, accuracy_title),
            ("mean_norm", row.columns, norm_title),
            ("own_split_accuracy_percent", row.own, accuracy_title),
            ("own_split_mean_norm", row.own, norm_title),
        ):
            assert {title(name): Cell(values) for name, values in saved[key].items()}.items() <= cells.items()
        assert {title: Cell(values) for title, values in saved["columns"].items()} == row.columns
    assert written["environment"]["torch"]
    assert recipe.load(str(grid.folder / "recipe.yaml")) == grid.recipe


def finished(folder: Path) -> dict[Path, int]:
    return {
        path: path.stat().st_mtime_ns
        for name in ("results.json", "checkpoint.pt", "test.npz", "metrics.jsonl")
        for path in folder.glob(f"*/seed-*/{name}")
    }


def test_a_finished_grid_is_read_and_not_trained_again(grid: Comparison, path: str) -> None:
    before = finished(grid.folder)
    assert len(before) == 16

    def on_step(*_: object) -> None:
        raise AssertionError("a step was taken")

    calls: list[tuple[str, int, int]] = []
    again = compare(path, grid.folder, on_run=lambda *what: calls.append(what), on_step=on_step)
    assert finished(grid.folder) == before
    assert again.rows == grid.rows
    assert calls == [
        ("Norm Face, seed 0", 0, 4),
        ("Arc, seed 0", 1, 4),
        ("Norm Face, seed 3", 2, 4),
        ("Arc, seed 3", 3, 4),
    ]


def test_a_grid_goes_on_where_it_stopped_and_ends_the_same(grid: Comparison, path: str, tmp_path: Path) -> None:
    class Crash(Exception):
        pass

    steps = 0

    def on_step(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == 12:  # within the third run of five steps each
            raise Crash

    with pytest.raises(Crash):
        compare(path, tmp_path, on_step=on_step)
    before = finished(tmp_path)
    assert sum(each.name == "results.json" for each in before) == 2
    ended = compare(path, tmp_path)
    after = finished(tmp_path)
    assert all(after[each] == before[each] for each in before if "seed-0" in each.parts)
    assert [dataclasses.replace(row, seconds=0.0) for row in ended.rows] == [
        dataclasses.replace(row, seconds=0.0) for row in grid.rows
    ]


def test_a_new_seed_is_added_to_what_is_there(grid: Comparison, path: str, tmp_path: Path) -> None:
    first = compare(path, tmp_path, ["compare.seeds=[3]"])
    before = finished(tmp_path)
    both = compare(path, tmp_path, ["compare.seeds=[3, 0]"])
    assert all(finished(tmp_path)[each] == stamp for each, stamp in before.items())
    for one, two, whole in zip(first.rows, both.rows, grid.rows, strict=True):
        assert two.columns["accuracy good %"].values == whole.columns["accuracy good %"].values[::-1]
        assert one.columns["accuracy good %"].values == two.columns["accuracy good %"].values[:1]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.epochs=2", r"training.epochs is 1 there and 2 here\); choose another --out"),
        ("training.schedule={kind: cosine}", r"training.schedule.kind is 'constant' there and 'cosine' here\)"),
        ("objective.radius.s=11", r"objective.radius.s is 10 there and 11 here\)"),
        ("objective.iam={beta: 0.1}", r"objective.iam.beta is not given there and 0.1 here\)"),
        (
            "objective={kind: cosface, s: 10, m: 0.1}",
            r"objective.margin.kind is not given there and 'additive_cosine' here\)",
        ),
    ],
)
def test_a_folder_of_another_recipe_is_refused_and_the_key_named(
    override: str, sentence: str, grid: Comparison, path: str
) -> None:
    before, whole = finished(grid.folder), (grid.folder / "recipe.yaml").read_text()
    with pytest.raises(InputError, match=rf"Norm-Face/seed-0 holds a run of another recipe \({sentence}"):
        compare(path, grid.folder, [override])
    assert finished(grid.folder) == before
    assert (grid.folder / "recipe.yaml").read_text() == whole


def test_a_variant_that_has_changed_is_refused_before_any_is_trained(path: str, tmp_path: Path) -> None:
    compare(path, tmp_path, ["compare.seeds=[3]"])
    (tmp_path / "Norm-Face" / "seed-3" / "results.json").unlink()
    before = finished(tmp_path)

    def on_step(*_: object) -> None:
        raise AssertionError("a step was taken")

    changed = "compare.variants={Norm Face: {}, New: {}, Arc: {}}"
    with pytest.raises(InputError, match="Arc/seed-3 holds a run of another recipe"):
        compare(path, tmp_path, ["compare.seeds=[3]", changed], on_step=on_step)
    assert finished(tmp_path) == before
    assert "New" not in (tmp_path / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("there", "sentence"),
    [
        ("objective.iam={beta: 0.1}", "objective.iam.beta is 0.1 there and not given here"),
        ("objective={kind: cosface, s: 10, m: 0.1}", "objective.margin is not given there and None here"),
    ],
)
def test_what_only_the_old_recipe_has_is_another_recipe_too(there: str, sentence: str, tmp_path: Path) -> None:
    run(tiny.validated("training.epochs=1", there), tmp_path, splits=tiny.splits())
    with pytest.raises(InputError, match=sentence):
        run(tiny.validated("training.epochs=1"), tmp_path, resume=True, splits=tiny.splits())


def test_words_and_places_that_decide_no_number_do_not_make_another_recipe(path: str, grid: Comparison) -> None:
    before = finished(grid.folder)
    renamed = ["title=Other words", "chosen_by_us.rate=a reason", "published.source=Table 8"]
    assert compare(path, grid.folder, renamed).recipe.title == "Other words"
    assert finished(grid.folder) == before
    compare(path, grid.folder)


def test_a_grid_that_measures_in_another_way_is_measured_anew_and_not_trained(
    grid: Comparison, path: str, tmp_path: Path
) -> None:
    shutil.copytree(grid.folder, tmp_path / "grid")
    trained = {each.parent: each.stat().st_mtime_ns for each in (tmp_path / "grid").rglob("checkpoint.pt")}

    def on_step(*_: object) -> None:
        raise AssertionError("a step was taken")

    found = compare(path, tmp_path / "grid", ["evaluation.low_fraction=0.5"], on_step=on_step)
    assert [row.counts for row in found.rows] == [{"good": 30, "low": 30, "entire": 60}] * 2
    assert [row.columns["accuracy entire %"] for row in found.rows] == [
        row.columns["accuracy entire %"] for row in grid.rows
    ]
    assert [row.seconds for row in found.rows] == [row.seconds for row in grid.rows]
    assert trained == {each.parent: each.stat().st_mtime_ns for each in (tmp_path / "grid").rglob("checkpoint.pt")}
    for each in trained:
        assert read_results(each)["own_split"]["low"]["count"] == 30


# what is refused


def test_every_variant_is_looked_at_before_the_first_is_trained(path: str, tmp_path: Path) -> None:
    variants = {
        "no such key": ("{A: {}, B: {objectve: {}}}", "a recipe has no key 'objectve'"),
        "no such net": ("{A: {}, B: {backbone.name: smal}}", "backbone.name must be one of"),
        "no such option": (
            "{A: {}, B: {backbone.options: {depth: 3}}}",
            "options of the backbone 'small' must be left",
        ),
        "nothing that trains": (
            "{A: {}, B: {objective: {ring_loss: {lam: 0.1}}}}",
            "nothing here trains the class weights",
        ),
        "no such device": ("{A: {}, B: {training.device: abacus}}", "training.device 'abacus' cannot be used here"),
        "other evaluation": (
            "{A: {}, B: {evaluation.low_fraction: 0.5}}",
            "compare.variants.B changes evaluation or validation, which must be the same",
        ),
        "other data": (
            "{A: {}, B: {data.name: mnist}}",
            "compare.variants.B changes data; variants are compared on one",
        ),
    }
    for value, sentence in variants.values():
        with pytest.raises(InputError, match=sentence):
            compare(path, tmp_path / "out", [f"compare.variants={value}", "compare.quality_split=null"])
        assert not (tmp_path / "out").exists()


def test_a_split_that_would_leave_a_group_empty_is_refused_before_training(path: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a split at 0.001 of 60 samples leaves low empty"):
        compare(path, tmp_path / "out", ["evaluation.low_fraction=0.001"])
    assert not (tmp_path / "out").exists()


def test_a_recipe_without_a_grid_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe tiny has no compare section .*; train it by `angulus train`"):
        compare(path, tmp_path / "out", ["compare=null"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_result_is_told(share: float, path: str, tmp_path: Path) -> None:
    compare(path, tmp_path, ["compare.seeds=[0]"])
    for name, sentence in (("test.npz", "delete the run folder and train it again"), ("results.json", "delete it to")):
        file = tmp_path / "Arc" / "seed-0" / name
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=rf"{name} cannot be read \(.*\); {sentence}"):
            compare(path, tmp_path, ["compare.seeds=[0]"])
        file.write_bytes(whole)
    with pytest.raises(InputError, match="cannot be read"):
        load_test(tmp_path / "nowhere")
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / "nowhere")


def test_run_folders_are_plain_names() -> None:
    assert run_folder(Path("out"), "CM-M Softmax (m = 0.5)", 3) == Path("out/CM-M-Softmax-m-0.5-/seed-3")


# the report


def table(text: str, head: str) -> list[list[str]]:
    """The cells of the Markdown table whose head begins so."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(head))
    assert set(lines[start + 1]) <= set("| -:")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start + 2 : start + 4]]
    assert all(len(row) == lines[start].count("|") - 1 for row in rows)
    return rows


def shown(cell: Cell) -> str:
    return f"{np.mean(cell.values):.2f} ± {np.std(cell.values, ddof=1):.2f}"


def test_the_markdown_has_the_rows_the_papers_numbers_and_each_models_own_split(grid: Comparison) -> None:
    write_comparison(grid)
    text = (grid.folder / "table.md").read_text(encoding="utf-8")
    assert text.startswith("# Two losses on a few digits\n")
    for row, cells in zip(grid.rows, table(text, "| loss | accuracy good % |"), strict=True):
        assert cells == [
            row.variant,
            *(shown(row.columns[title(n)]) for title in (accuracy_title, norm_title) for n in GROUPS),
        ]
    own = text[text.index("## Each model's own split") :]
    for row, cells in zip(grid.rows, table(own, "| loss |"), strict=True):
        assert cells[1:4] == [shown(row.own[accuracy_title(name)]) for name in GROUPS]
        assert cells[4:] == [shown(row.own[norm_title(name)]) for name in GROUPS]
    paper = text[text.index("## Next to the paper (Table 7)") :]
    first, second = table(
        paper, "| loss | accuracy good %: paper | accuracy low %: paper | accuracy entire %: paper | "
    )
    assert first[1:4] == ["—", "—", "—"]  # the paper has no such row
    assert second[1:4] == ["98.50", "91.00", "97.25"]
    assert second[4:7] == [shown(grid.rows[1].columns[accuracy_title(name)]) for name in GROUPS]
    assert second[7:10] == ["—", "3.50", "—"]
    assert second[10:] == [shown(grid.rows[1].columns[norm_title(name)]) for name in GROUPS]
    for part in ("Backbone small, 2-D features; 1 epoch over", "batch 16, sgd, lr 0.05", "seeds 0, 3", "torch 2."):
        assert part in text
    assert "mean ± standard deviation of 2 seeds; low = the 12 of 60 test images" in text


def test_the_markdown_tells_where_the_errors_are(grid: Comparison) -> None:
    counted = []
    for variant in ("Norm-Face", "Arc"):
        tests = [(arrays(grid, variant, seed), arrays(grid, "Norm-Face", seed)["norms"]) for seed in (0, 3)]
        wrong = [
            [test["labels"] != test["predictions"], np.argsort(norms, kind="stable")[:12]] for test, norms in tests
        ]
        counted.append(np.array([[errors[low].sum(), errors.sum()] for errors, low in wrong]))
    shares = [tables.cell(Cell(list(100 * errors[:, 0] / errors[:, 1])), 0) for errors in counted]
    fewer = [tables.cell(Cell(list(column)), 0) for column in 100 * (1 - counted[1] / counted[0]).T]
    paper = f"{100 * 0.2 * 9 / 2.75:.0f}"  # Table 7: 91 % of the low fifth and 97.25 % of all are right
    head = "| loss | errors on low images % | the same: paper | fewer errors than Norm Face %: low |"
    found = table(tables.to_markdown(grid), head)
    assert found == [["Norm Face", shares[0], "—", "—", "—"], ["Arc", shares[1], paper, *fewer]]
    for right in (100.0, math.nan):  # no error, or a training that diverged
        columns = {title: Cell([right] * 2) for title in grid.rows[0].columns}
        rows = [dataclasses.replace(row, columns=columns) for row in grid.rows]
        found = table(tables.to_markdown(dataclasses.replace(grid, rows=rows)), head)
        assert found[1] == ["Arc", "—", paper, "—", "—"]


def test_quality_by_the_norms_of_images_is_that_of_a_slow_loop(grid: Comparison) -> None:
    pixels = tiny.splits().test.pixels
    ink = [math.sqrt(sum(float(value) ** 2 for value in pixels[row].flatten())) for row in range(60)]
    ranked = sorted(range(60), key=lambda row: ink[row])
    expected = []
    for variant in ("Norm-Face", "Arc"):
        columns: list[list[float]] = [[] for _ in range(5)]
        for seed in (0, 3):
            test = arrays(grid, variant, seed)
            right = test["labels"] == test["predictions"]
            by_feature = sorted(range(60), key=lambda row: test["norms"][row])
            values = [100 * right[ranked[12:]].mean(), 100 * right[ranked[:12]].mean()]
            values += [100 * sum(~right[each[:12]]) / sum(~right) for each in (ranked, by_feature)]
            values.append(statistics.correlation(ink, test["norms"].tolist()))
            for column, value in zip(columns, values, strict=True):
                column.append(value)
        digits = (2, 2, 0, 0, 2)
        cells = [tables.cell(Cell(each), places) for each, places in zip(columns, digits, strict=True)]
        expected.append([variant.replace("-", " "), *cells])
    [(name, text)] = ANALYSES["image_norms"](grid)
    assert name == "image-norms.md" and "Low are the 12 of 60 test images" in text
    assert table(text, "| loss | accuracy good % |") == expected
    folds = {"variants": {"A": {}}, "seeds": [0], "analyses": ["image_norms"], "folds": {"data.options.fold": [0, 1]}}
    with pytest.raises(InputError, match="image_norms reads one set of test images; got folds: leave one of them out"):
        recipe.load("cm-t1a", [f"compare={json.dumps(folds)}", "published=null", "claims=[]"])


def test_one_seed_and_no_paper_show_no_deviation_and_no_second_table(grid: Comparison, path: str) -> None:
    one = compare(path, grid.folder, ["compare.seeds=[0]", "published=null"])
    text = tables.to_markdown(one)
    assert "±" not in text
    assert "Next to the paper" not in text
    assert "one seed; low = the 12 of 60 test images with the smallest feature norms of the Norm Face model" in text
    compare(path, grid.folder)


def test_the_pictures_are_pngs(grid: Comparison) -> None:
    written = write_comparison(grid)
    assert [each.name for each in written] == ["features.png", "norms.png", "best-and-worst.png"]  # each diverged
    for each in written:
        with Image.open(each) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(maxcolors=10**6)) > 10


def test_features_are_drawn_only_where_all_are_flat(path: str, tmp_path: Path) -> None:
    variants = "compare.variants={A: {}, B: {backbone.embedding_size: 4}}"
    mixed = compare(path, tmp_path, [variants, "compare.quality_split=null", "compare.seeds=[0]"])
    assert [each.name for each in write_comparison(mixed)] == ["conclusion.png", "norms.png", "best-and-worst.png"]


def test_features_in_space_are_those_of_the_people_that_were_trained_on(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, tuple[Any, ...]] = {}

    def draw(name: str, *what: Any) -> Any:
        drawn[name] = what
        return class_features(name, *what)

    monkeypatch.setattr(analyses, "class_features", draw)
    changes = ["compare.variants={A: {}, B: {}}", "compare.quality_split=null", "compare.seeds=[0]", "published=null"]
    changes += ["backbone.embedding_size=3", "input.flip=concat", "compare.analyses=[training_features]"]
    found = compare(path, tmp_path, [*changes, "validation={identities: 0.3, fmr: 0.1, pairs: 10}"])
    written = write_comparison(found)
    assert {"features.png", "training-features.png"} <= {each.name for each in written}
    features, labels, names, weights = drawn["B"]
    model = load(tmp_path / "B/seed-0/model").with_flip("none")
    assert features.shape == (len(labels), 3)
    assert len(names) == len(weights) == labels.max() + 1 < 10
    recipe_of_b = recipe.stored(tmp_path / "B/seed-0/recipe.yaml")
    images = build.hold_out(recipe_of_b, build.splits(recipe_of_b))[0].train
    assert len(images) == len(labels)  # fewer than are drawn at most
    expected = [model.backbone(model.preprocessing(image[None])).detach().numpy()[0] for image in images.pixels[:5]]
    assert features[:5] == pytest.approx(np.stack(expected), abs=1e-4)
    assert labels.tolist() == images.labels.tolist()


def test_the_terminal_shows_whole_numbers_in_80_columns(grid: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    Console(width=80).print(tables.to_terminal(grid))
    printed = capsys.readouterr().out
    assert "…" not in printed
    for row in grid.rows:
        assert all(shown(cells) in printed for cells in row.columns.values())


def test_the_environment_of_the_first_run_stands_beside_the_numbers(grid: Comparison) -> None:
    written: dict[str, Any] = read_results(grid.folder / "Norm-Face" / "seed-0")
    assert grid.environment == written["environment"]
    assert grid.environment["threads"] == 1


def test_the_folder_of_a_single_run_is_left_alone(path: str, tmp_path: Path) -> None:
    run(tiny.validated(), tmp_path / "run", splits=tiny.splits())
    before = {each.name: each.read_bytes() for each in (tmp_path / "run").iterdir() if each.is_file()}
    with pytest.raises(InputError, match=r"holds a single run, which .* would overwrite; choose another --out"):
        compare(path, tmp_path / "run")
    assert {each.name: each.read_bytes() for each in (tmp_path / "run").iterdir() if each.is_file()} == before


def test_a_run_without_a_checkpoint_may_be_started_anew_with_other_settings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint was written yet"):
        run(tiny.validated("training.optimizer.lr=1e30"), tmp_path / "run", splits=tiny.splits())
    results = run(tiny.validated("training.optimizer.lr=0.01"), tmp_path / "run", splits=tiny.splits())
    assert results["training"]["steps"] > 0


def test_a_finished_run_of_other_settings_is_told_apart_before_resume_is_advised(tmp_path: Path) -> None:
    run(tiny.validated(), tmp_path / "run", splits=tiny.splits())
    with pytest.raises(InputError, match="holds a run of another recipe"):
        run(tiny.validated("training.seed=5"), tmp_path / "run", splits=tiny.splits())
