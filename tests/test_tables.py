"""Every recipe of a paper's table, two steps on generated stand-ins, through its protocols to its table and analyses.

MNIST's recipes and fi-t2-cifar10 keep their networks and sizes. The others, whose networks take a CPU too long, have
images of 16x16 pixels and a small net, nodules small volumes and the smallest of their nets. Of the variants the first
and the last are trained, and each variant's loss is computed on features drawn at random.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import benchmark_files
from angulus import data
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.data.records import Row, write_records
from angulus.data.sets.images import Splits
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.registry import DRAWS, PROTOCOLS
from angulus.experiments import build, recipe
from angulus.experiments.benchmark import Benchmark
from angulus.experiments.claims import Compare
from angulus.experiments.compare import Comparison, compare, run_folder, section
from angulus.experiments.recipe import Recipe
from angulus.experiments.reproduce import read_measured
from angulus.heads.dense import DenseHead
from angulus.report import analyses, render_png, tables
from angulus.report.chart import Chart, Panels

ROWS = {
    "CM": "T1a T1b T1c T2 T3 T4 T5",
    "NF": "F2 F3 s1 scratch F9 T1 T2 T3 T4 T5",
    "MV": "T2 T3 T4 T5 F2 F3",
    "IAM": "T2 T3 T4 T5 T6",
    "FI": "T1 T2 T3 T4 T5 T6 T7 F1 F2 F3 F6 F7 F8",
}
TABLES = [name for name, file in recipe.shipped().items() if "\nrows:" in file.read_text(encoding="utf-8")]
SMALL = (16, 16)


def as_it_is(loaded: Recipe) -> bool:
    """Whether a CPU trains the recipe's network, at its size of image, in a moment."""
    return loaded.data.name == "mnist" or loaded.name == "fi-t2-cifar10"


# what stands in for the benchmarks' images and lists

LISTS: dict[str, tuple[str, str | None, dict[str, str]]] = {  # protocol -> ids of images, of others, lists
    "lfw": ("model", None, {"pairs": "pairs.txt"}),
    "pairs": ("model", None, {"pairs": "my-pairs.txt"}),
    "cfp": ("cfp", None, {"protocol": "Protocol"}),
    "blufr": ("model", None, {"config": "blufr_lfw_config.mat"}),
    "ytf": ("frames", None, {"pairs": "splits.txt"}),
    "quality-ytf": ("frames", None, {"pairs": "splits.txt"}),
    "rfw": ("model", None, {}),
    "ijb-verify": ("ijb", None, {"templates": "face_tid_mid.txt", "comparisons": "template_pair_label.txt"}),
    "megaface": (
        "model",
        "megaface",
        {
            "probes": "facescrub_features_list.json",
            "distractors": "megaface_features_list.json",
            "probe_noises": "facescrub_noises.txt",
            "distractor_noises": "megaface_noises.txt",
        },
    ),
    "trillion-pairs": ("probes", "gallery", {}),
}


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of made-up people, and records of images of them, each person's with a shade of its own."""
    folder = tmp_path_factory.mktemp("benchmarks")
    benchmark_files.people(folder)
    writers: tuple[Callable[[Path], Any], ...] = (
        benchmark_files.cfp, benchmark_files.rfw, benchmark_files.blufr, benchmark_files.ytf,
        benchmark_files.ijb_verify, benchmark_files.megaface, benchmark_files.trillion_pairs,
    )  # fmt: skip
    for writer in writers:
        writer(folder)
    for name in ("model", "cfp", "frames", "ijb", "megaface", "probes", "gallery"):
        write_records(folder / f"images-{name}", pictures(Embeddings.read(folder / f"{name}.npz")))
    return folder


def pictures(embeddings: Embeddings) -> list[Row]:
    import cv2

    random = np.random.default_rng(0)
    labels = (
        embeddings.labels if embeddings.labels is not None else np.array([str(name)[:3] for name in embeddings.ids])
    )
    shades = {label: random.integers(40, 200, 3) for label in np.unique(labels).tolist()}
    rows = []
    for name, label in zip(embeddings.ids.tolist(), labels.tolist(), strict=True):
        pixels = np.clip(shades[label] + random.normal(0, 30, (*SMALL, 3)), 0, 255).astype(np.uint8)
        rows.append(Row(name, cv2.imencode(".png", pixels)[1].tobytes(), label))
    return rows


def stood_in(benchmark: Benchmark, folder: Path) -> dict[str, Any]:
    """The benchmark of a recipe, on made-up people."""
    fewer = {"draws": 20} if DRAWS in PROTOCOLS[benchmark.protocol].options else {}
    content = {
        "name": benchmark.name, "protocol": benchmark.protocol, "columns": benchmark.columns, "flip": benchmark.flip,
        "options": {name: value for name, value in benchmark.options.items() if name != "pca"} | fewer,
    }  # fmt: skip
    if benchmark.images is None:
        return content
    images, others, lists = LISTS[benchmark.protocol]
    if benchmark.protocol == "rfw":
        files = ("African.txt", "Asian.txt") * 2
        lists = dict(zip(benchmark.lists, files, strict=True))
    content |= {"images": f"images-{images}", "lists": lists, "others": others and f"images-{others}"}
    if "pca" in benchmark.options:
        content["options"]["pca"] = 2
    return content


def stand_in(loaded: Recipe) -> Splits:
    name = loaded.data.name
    if as_it_is(loaded):
        return data.stand_in(name, images=6)
    return data.stand_in(name, size=(6, 20, 20) if name == "luna16" else SMALL)


def two_steps(name: str, folder: Path) -> tuple[dict[str, Any], Splits]:
    """A shipped recipe cut down to two steps of the stand-in, the first and the last of its variants and one seed."""
    content, loaded = recipe.read(name), recipe.load(name)
    splits = stand_in(loaded)
    content["training"] |= {
        "epochs": 1, "batch_size": math.ceil(len(splits.train) / 2), "precision": "float32", "log_every": 1,
    }  # fmt: skip
    content["training"]["schedule"] = {"kind": "constant"}
    content["training"].pop("start_from", None)  # a run of another recipe
    if "snapshots" in content["training"]:
        content["training"]["snapshots"] = {"every": 1}
    if not as_it_is(loaded):
        content["backbone"] = {"name": "small", "embedding_size": 8}
    if loaded.input.size is not None:
        content["input"]["size"] = list(SMALL)
        content["input"].pop("template", None)
    if loaded.data.name == "luna16":
        content["backbone"] = {"name": "luna_archi1", "embedding_size": 8}
    benches = [stood_in(each, folder) for each in loaded.evaluation.benchmarks]
    content["evaluation"] = content.get("evaluation", {}) | {"benchmarks": benches, "each_epoch": True}
    grid = content["compare"]
    grid["seeds"] = [0]
    grid["folds"] = {path: values[:2] for path, values in grid.get("folds", {}).items()}
    grid["sweep"] = {path: [values[0], values[-1]] for path, values in grid.get("sweep", {}).items()}
    variants = grid.get("variants", {})
    kept = {*list(variants)[:1], *list(variants)[-1:], grid.get("quality_split"), grid.get("baseline")}
    grid["variants"] = {
        each: {path: value for path, value in changes.items() if not path.startswith("backbone.")}
        for each, changes in variants.items()
        if each in kept
    }
    names, paper = Compare(**grid).grid, content.get("published") or {}
    for table in paper.keys() & {"accuracy", "mean_norm", "columns"}:
        paper[table] = {each: numbers for each, numbers in paper[table].items() if each in names}
    claims = content.get("claims", [])
    content["claims"] = [
        each for each in claims if {each["variant"], each.get("than", each["variant"])} <= names.keys()
    ]
    content["needs"] = {}
    return content, splits


@functools.cache
def pictured() -> set[str]:
    """One recipe of each kind of plots: of features in a plane, of volumes, of folds, of none of these."""
    kinds = {}
    for name in TABLES:
        loaded = recipe.load(name)
        kind = loaded.backbone.embedding_size == 2, loaded.data.name == "luna16", bool(section(loaded).folds)
        kinds.setdefault(kind, name)
    return set(kinds.values())


def draw_first(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw plots only for `pictured` recipes, and the first of analyses that differ in their number, such as sweeps."""
    draw = render_png.render_png

    def first(content: Chart | Panels, path: Path) -> None:
        if not re.search(r"-[1-9]\d*\.png$", path.name):
            draw(content, path)

    monkeypatch.setattr(render_png, "render_png", first)
    if name not in pictured():
        monkeypatch.setattr(analyses, "_write_plots", lambda comparison: [])


@pytest.mark.parametrize("name", TABLES)
def test_two_steps_on_a_stand_in_lead_to_the_table(
    name: str, benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, splits = two_steps(name, benchmarks)
    monkeypatch.setenv("ANGULUS_DATA", str(benchmarks))
    monkeypatch.setattr(build, "splits", lambda recipe: splits)
    path = tmp_path / f"{name}.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    found = compare(str(path), tmp_path / "runs")
    assert found.generated
    draw_first(name, monkeypatch)
    for row in found.rows:
        for title in found.recipe.evaluation.titles:
            assert math.isfinite(row.columns[title].mean) or beyond_the_stand_in(found.recipe, title), (
                row.variant,
                title,
            )
    written = analyses.write_comparison(found)
    text = (found.folder / "table.md").read_text(encoding="utf-8")
    assert "NOT A RESULT" in text
    assert all(f"| {row.variant} |" in text for row in found.rows)
    analysed = [each for each in written if each.parent.name == "analyses"]
    assert any(each.exists() for each in analysed) == bool(content["compare"].get("analyses"))
    for each in analysed:
        if each.suffix == ".png" and each.exists():
            with Image.open(each) as picture:
                assert len(picture.convert("RGB").getcolors(maxcolors=10**6) or ()) > 10, each.name
    assert steps(found) == 2 * len(section(found.recipe).parts)
    with pytest.raises(InputError, match="generated stand-in data: it is no result"):
        read_measured(found.folder / "comparison.json")


def test_the_softmax_model_splits_the_videos_of_all(
    benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CM Sec. 5 by the method of Sec. 3: good and low by one model's norms; counted by hand from the saved pairs."""
    content, splits = two_steps("cm-t4", benchmarks)
    monkeypatch.setenv("ANGULUS_DATA", str(benchmarks))
    monkeypatch.setattr(build, "splits", lambda recipe: splits)
    path = tmp_path / "cm-t4.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")
    found = compare(str(path), tmp_path / "runs")
    softmax, other = (
        Result.read(tmp_path / "runs" / row.variant / "seed-0" / "benchmarks" / "YTF.json").samples
        for row in found.rows
    )
    assert not np.array_equal(softmax["low"], other["low"])
    low = np.zeros(len(other["norms"]), dtype=bool)
    low[np.argsort(softmax["norms"], kind="stable")[: math.floor(0.2 * len(low) + 0.5)]] = True
    columns = found.rows[1].columns
    assert columns["YTF low %"].mean == pytest.approx(100 * other["correct"][low].mean())
    assert columns["YTF good %"].mean == pytest.approx(100 * other["correct"][~low].mean())
    assert columns["YTF entire %"].mean == pytest.approx(100 * other["correct"].mean())
    assert 50 <= columns["IJB-B balanced %"].mean <= 100
    assert "good and low are split by the norms of the Softmax model" in tables.caption(found)


def beyond_the_stand_in(loaded: Recipe, title: str) -> bool:
    """Whether a column asks for a FAR below one of the few impostor pairs of the made-up people."""
    number = next(each.columns[title] for each in loaded.evaluation.benchmarks if title in each.columns)
    _, equals, far = number.partition("FAR=")
    return bool(equals) and float(far.partition(",")[0]) <= 0.01


def test_what_a_recipe_starts_from_is_where_another_leaves_it() -> None:
    for name in TABLES:
        start = recipe.load(name).training.start_from
        if start is not None:
            other = recipe.load(Path(start).parts[1])
            assert other.compare is not None
            variants = [run_folder(Path("runs") / other.name, variant, 0) for variant in other.compare.grid]
            assert Path(start) in variants
            assert other.backbone == recipe.load(name).backbone


@pytest.mark.parametrize("name", ["nf-t2", "nf-t2-release", "nf-t4", "nf-f8", "nf-f8-center"])
def test_five_snapshots_are_kept_1000_iterations_apart_after_10000(name: str) -> None:
    training = recipe.load(name).training
    assert training.snapshots is not None
    steps = training.epochs * math.ceil(494_000 / training.batch_size)
    kept = [step for step in range(1, steps + 1) if training.snapshots.due(step)]
    assert kept == [11_000, 12_000, 13_000, 14_000, 15_000]


def steps(found: Comparison) -> int:
    folder = run_folder(found.folder, found.rows[0].variant, 0)
    return int(json.loads((folder / "results.json").read_text())["training"]["steps"])


@pytest.mark.parametrize("name", TABLES)
def test_every_variant_has_a_finite_loss_and_gradient(name: str) -> None:
    content, loaded = recipe.read(name), recipe.load(name)
    assert loaded.compare is not None
    torch.manual_seed(0)
    classes = 2 if loaded.data.name == "luna16" else 10
    features = 5 * torch.randn(20, 16)
    labels = torch.arange(20) % classes
    for variant, changes in loaded.compare.grid.items():
        single = recipe.validate(recipe.variant(content, changes, 0))
        head = DenseHead(16, classes, single.objective)
        given = features.clone().requires_grad_()
        loss = head(given, labels)
        loss.backward()
        assert loss.isfinite(), variant
        assert given.grad is not None and given.grad.isfinite().all(), variant


def test_every_row_has_a_recipe() -> None:
    rows = {row for name in TABLES for row in recipe.load(name).rows}
    assert rows == {f"{paper}-{row}" for paper, each in ROWS.items() for row in each.split()}


@pytest.mark.parametrize("name", TABLES)
def test_what_a_recipe_reads_and_nobody_ships_is_said_where_to_get(name: str) -> None:
    loaded = recipe.load(name)
    read = {path for each in loaded.evaluation.benchmarks for path in each.paths()}
    read |= {loaded.data.root} if loaded.data.root is not None else set()
    read |= {loaded.training.start_from} if loaded.training.start_from is not None else set()
    assert read == set(loaded.needs)
    assert all(len(how) > 20 for how in loaded.needs.values())


@pytest.mark.parametrize("name", TABLES)
def test_published_numbers_are_of_columns_and_variants_that_are_there(name: str) -> None:
    loaded = recipe.load(name)
    assert loaded.compare is not None
    if loaded.published is not None:
        published = loaded.published
        for table in (published.accuracy, published.mean_norm, published.columns):
            assert table.keys() <= loaded.compare.grid.keys()
        for variant in loaded.compare.grid:
            assert published.of(variant).keys() <= set(loaded.evaluation.titles), variant


@pytest.mark.parametrize("name", TABLES)
def test_what_is_measured_of_seeds_has_room_for_chance(name: str) -> None:
    assert recipe.load(name).chosen_by_us, "a paper leaves something open; say what was chosen"
