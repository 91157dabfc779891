"""Benchmarks in recipes: what is refused, where files lie, what a column shows, and a run that embeds and measures."""

from __future__ import annotations

import inspect
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy import stats

import angulus
import tiny
from angulus.core.checks import InputError
from angulus.data.records import Row, write_records
from angulus.data.sets import digits
from angulus.evaluation import registry, runners
from angulus.evaluation.metrics.intervals import paired_difference
from angulus.evaluation.protocols import (
    classification,
    detection,
    distractors,
    error_discard,
    groups,
    open_set,
    pairs,
    quality,
    retrieval,
    template_identification,
    template_verification,
    templates,
    trillion_pairs,
    videos,
)
from angulus.evaluation.protocols.figures import STANDARD_FARS
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.registry import COMMANDS, PROTOCOLS, RECIPES
from angulus.experiments import build, recipe
from angulus.experiments.benchmark import Benchmark, place
from angulus.experiments.compare import compare
from angulus.experiments.run import run
from angulus.report import tables

PAIRS = "{name: Digits, protocol: pairs, images: images, lists: {pairs: pairs.txt}, columns: {Digits %: accuracy}}"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("protocol: pears", r"protocol of benchmark 'Digits' must be one of 'lfw'.*'pears'; did you mean 'pairs'\?"),
        ("images: null", "benchmark 'Digits': the protocol pairs needs images"),
        ("others: more", "benchmark 'Digits': the protocol pairs takes no others"),
        ("lists: {}", "benchmark 'Digits' needs lists.pairs"),
        (
            "lists: {pairs: p, pears: q}",
            r"benchmark 'Digits' has no list 'pears'; did you mean 'pairs'\?; known: pairs",
        ),
        (
            "options: {metrik: cosine}",
            r"benchmark 'Digits' has no option 'metrik'; did you mean 'metric'\?; known: format, metric, flip, pca",
        ),
        ("columns: {}", "benchmark 'Digits' needs a name and at least one column"),
        ("columns: {a: acuracy}", r"column 'a' shows 'acuracy', which the .*; did you mean 'accuracy'\?"),
        ("columns: {a: TAR@FAR=0.001}", r"does not measure; .*'TAR@FAR=1e-3', .*; did you mean 'TAR@FAR=1e-6'\?"),
        ("columns: {a: TAR@FAR=1e-3}, options: {fars: [0.01]}", "'EER', 'TAR@FAR=1e-2', 'best accuracy"),
        ('columns: {a: "AUC, without failures"}', "which the protocol pairs does not measure"),
        ("protocol: rfw, lists: {}", "benchmark 'Digits' needs lists, one per group: GROUP: FILE"),
        ("flip: maybe", r"flip must be 'none', 'sum' or 'concat'; got 'maybe'"),
        ("protocol: classification, lists: {}", "the protocol classification takes no images"),
    ],
)
def test_a_benchmark_that_cannot_be_measured_is_refused_before_training(change: str, sentence: str) -> None:
    changed = {**recipe.parse_yaml(PAIRS), **recipe.parse_yaml("{" + change + "}")}
    content = tiny.content()
    content["evaluation"] = {"benchmarks": [changed]}
    with pytest.raises(InputError, match=sentence):
        recipe.validate(content)


def test_rates_and_ranks_of_columns_are_those_that_the_protocols_report() -> None:
    usual = {
        "pairs": {"fars": STANDARD_FARS}, "ytf": {"fars": STANDARD_FARS}, "ijb-verify": {"fars": STANDARD_FARS},
        "blufr": {"fars": open_set.VERIFICATION_FARS, "open_set_fars": open_set.IDENTIFICATION_FARS},
        "megaface": {"fars": distractors.MEGAFACE_FARS, "ranks": (1, 10)},
        "trillion-pairs": {"fars": trillion_pairs.PAIRS_FARS, "search_fars": trillion_pairs.SEARCH_FARS},
        "retrieval": {"ks": retrieval.KS}, "reid": {"ks": retrieval.RANKS},
    }  # fmt: skip
    for name, values in usual.items():
        assert {option.name: option.usual for option in PROTOCOLS[name].options if option.usual} == values
    assert all(protocol.figures for protocol in RECIPES.values())


def test_a_gallery_of_its_own_is_optional() -> None:
    for others in ("", "others: gallery, "):
        tiny.validated(
            f"evaluation.benchmarks=[{{name: R, protocol: retrieval, images: queries, {others}options: {{ks: [1]}}, "
            "columns: {Recall@1 %: Recall@1}}]"
        )
    with pytest.raises(InputError, match="the protocol megaface needs others"):
        tiny.validated("evaluation.benchmarks=[{name: M, protocol: megaface, images: a, columns: {r: rank-1}}]")


def test_names_and_columns_are_there_once() -> None:
    with pytest.raises(InputError, match="must have names that differ; 'Digits' is there twice"):
        tiny.validated(f"evaluation.benchmarks=[{PAIRS}, {PAIRS}]")
    other = PAIRS.replace("Digits,", "Others,")
    with pytest.raises(InputError, match="must have columns that differ; 'Digits %' is there twice"):
        tiny.validated(f"evaluation.benchmarks=[{PAIRS}, {other}]")


def test_files_lie_where_they_are_given_or_below_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANGULUS_DATA", str(tmp_path / "data"))
    assert place("lfw/pairs.txt") == tmp_path / "data/lfw/pairs.txt"
    assert place("/lfw/pairs.txt") == Path("/lfw/pairs.txt")
    (tmp_path / "lfw").mkdir()
    assert place("lfw") == Path("lfw")
    monkeypatch.delenv("ANGULUS_DATA")
    assert place("nowhere") == Path("nowhere")


def test_a_column_shows_a_share_in_percent_the_last_of_several_and_nothing_of_what_is_not_there() -> None:
    columns = {"rank-1 %": "rank-1", "TAR": "TAR@FAR=1e-5", "TAR %": "TAR@FAR=1e-6"}
    one = Benchmark("MegaFace", "megaface", columns, images="a", others="b")
    numbers = {
        "rank-1, 10 distractors": {"value": 0.9}, "rank-1, 100 distractors": {"value": 0.5},
        "TAR@FAR=1e-5": {"value": 0.25}, "rank-10, 100 distractors": {"value": 1.0},
    }  # fmt: skip
    assert one.value("rank-1 %", numbers) == 50
    assert one.value("TAR", numbers) == 0.25
    assert math.isnan(one.value("TAR %", numbers))
    assert one.value("TAR", {"TAR@FAR=1e-5": {"value": 1.0}, "TAR@FAR=1e-5, other": {"value": 0.0}}) == 1
    assert math.isnan(one.value("TAR", {"TAR@FAR=1e-5": {"value": None}}))


# a run that measures pairs of digits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 40 test digits as records, and all their neighbours as pairs in two folds."""
    folder = tmp_path_factory.mktemp("digits")
    images = digits.load_digits().test
    rows = []
    for number in range(40):
        pixels = images.pixels[number, 0].numpy()
        png = cv2.imencode(".png", np.repeat(pixels[..., None], 3, axis=2))[1].tobytes()
        rows.append(Row(f"{number}.png", png, str(int(images.labels[number]))))
    write_records(folder / "images", rows)
    labels = images.labels[:40].tolist()
    numbers = [(a, b) for a in range(40) for b in range(a + 1, 40)]
    kinds: dict[tuple[bool, int], list[str]] = {}
    for a, b in numbers:
        kinds.setdefault((labels[a] == labels[b], a % 2), []).append(f"{a}.png\t{b}.png\t{int(labels[a] == labels[b])}")
    lines = [line for fold in (0, 1) for same in (True, False) for line in kinds[same, fold][:20]]
    (folder / "pairs.txt").write_text("\n".join(["2\t20", *lines]))
    return folder


def test_a_run_embeds_the_images_and_keeps_the_numbers_of_the_protocol(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANGULUS_DATA", str(folder))
    made = tiny.validated(f"evaluation.benchmarks=[{PAIRS}]", "training.epochs=1")
    results = run(made, tmp_path / "run", splits=tiny.splits())
    kept = results["benchmarks"]["Digits"]
    assert kept["protocol"] == "pairs"
    whole = Result.read(tmp_path / "run/benchmarks/Digits.json")
    number = whole.number("accuracy")
    assert kept["numbers"]["accuracy"]["value"] == number.value
    if number.interval is None:  # undefined where resamples often lack a kind of pair
        assert kept["numbers"]["accuracy"]["interval"] is None
        assert kept["numbers"]["accuracy"]["no_interval"] == number.no_interval != ""
    else:
        assert kept["numbers"]["accuracy"]["interval"] == [number.interval.low, number.interval.high]
    assert 0.5 < number.value <= 1
    assert json.loads((tmp_path / "run/results.json").read_text()) == json.loads(json.dumps(results))
    assert not list((tmp_path / "run").glob(".embeddings-*"))
    by_command = tmp_path / "by-command.npz"
    from angulus.core.embeddings import Embeddings
    from angulus.evaluation.lists.pair_list import read_pairs
    from angulus.models import embed

    embed.run(tmp_path / "run/model", folder / "images", by_command)  # as `angulus embed` and `evaluate` do
    assert pairs.evaluate(Embeddings.read(by_command), read_pairs(folder / "pairs.txt"))["accuracy"] == number.value


def test_benchmarks_are_the_columns_of_the_table_beside_the_papers_numbers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANGULUS_DATA", str(folder))
    monkeypatch.setattr(build, "splits", lambda recipe: tiny.splits())
    test = "{name: test, protocol: classification, columns: {error %: error}, options: {draws: 0}}"
    path = tiny.write(
        tmp_path,
        "training.epochs=1", f"evaluation.benchmarks=[{PAIRS}, {test}]",
        "compare={seeds: [0, 1, 2], variants: {Norm Face: {}, Arc: {objective: {kind: arcface, s: 10, m: 0.2}}}}",
        "published={source: Table 9, columns: {Arc: {Digits %: 98.5}}}",
    )  # fmt: skip
    found = compare(path, tmp_path / "runs")
    for row, variant in zip(found.rows, ("Norm-Face", "Arc"), strict=True):
        for number in range(3):
            results = json.loads((tmp_path / f"runs/{variant}/seed-{number}/results.json").read_text())
            expected = 100 * results["benchmarks"]["Digits"]["numbers"]["accuracy"]["value"]
            assert row.columns["Digits %"].values[number] == expected
            assert row.columns["error %"].values[number] == pytest.approx(100 - 100 * results["accuracy"])
    written = json.loads((tmp_path / "runs/comparison.json").read_text())
    assert written["columns"] == ["Digits %", "error %"]
    assert written["published"] == {"source": "Table 9", "rows": {"Norm Face": {}, "Arc": {"Digits %": 98.5}}}
    base, other = (row.columns["Digits %"].values for row in found.rows)
    saved = written["rows"][1]["differences"]["Digits %"]
    assert saved["mean"] == pytest.approx(np.mean(other) - np.mean(base))
    low, high = stats.ttest_rel(other, base).confidence_interval(0.95)
    assert [saved["low"], saved["high"]] == pytest.approx([low, high], nan_ok=True)
    assert written["rows"][0]["differences"] == {}
    text = tables.to_markdown(found)
    assert "| loss | Digits % | error % |" in text
    assert "| loss | Digits %: paper | error %: paper | Digits %: here | error %: here |" in text
    assert "| Arc | 98.50 | — |" in text
    assert "minus Norm Face, seed by seed" in text
    assert "own split" not in text


def test_what_a_benchmark_reads_must_be_there_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANGULUS_DATA", str(tmp_path))
    made = tiny.validated(f"evaluation.benchmarks=[{PAIRS}]", "needs={images: from its makers}")
    with pytest.raises(InputError, match=r"'Digits' needs images, neither here nor .*: from its makers"):
        run(made, tmp_path / "run", splits=tiny.splits())
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=r"'Digits' needs pairs.txt, neither here nor below ANGULUS_DATA$"):
        run(made, tmp_path / "run", splits=tiny.splits())
    assert not (tmp_path / "run").exists()


# seeds


def test_the_paired_interval_is_students() -> None:
    random = np.random.default_rng(0)
    for count in (2, 3, 8):
        first, second = random.normal(size=(2, count))
        found = paired_difference((second - first).tolist(), 0.9)
        expected = stats.ttest_rel(second, first).confidence_interval(0.9)
        assert [found.low, found.high] == pytest.approx([expected.low, expected.high])
        assert found.mean == pytest.approx(second.mean() - first.mean())
        assert found.decided == (stats.ttest_rel(second, first).pvalue < 0.1)
    for alike in ([0.01, 0.01], [0.0, 0.0, 0.0], [0.3, 0.1 + 0.2, 0.3]):  # 100 % thrice, or two that agree by chance
        found = paired_difference(alike)
        assert not found.decided and found.no_interval
        assert math.isnan(found.low) and math.isnan(found.high)
        assert tables.difference_cell(found) == f"{alike[0]:+.2f}, same for all seeds"
    with pytest.raises(InputError, match="differences must be of at least two seeds; got 1"):
        paired_difference([0.5])


# sweeps


def grid(**parts: Any) -> recipe.Compare:
    found = tiny.validated(f"compare={json.dumps({'seeds': [0], **parts})}").compare
    assert found is not None
    return found


def test_a_sweep_crosses_the_variants() -> None:
    variants = {"AM": {"objective": {"kind": "cosface", "s": 10, "m": 0.1}}, "Norm": {}}
    crossed = grid(variants=variants, sweep={"objective.iam.beta": [0, 0.1], "training.optimizer.lr": [0.1, 0.2]})
    assert list(crossed.grid)[:3] == ["AM, beta=0, lr=0.1", "AM, beta=0, lr=0.2", "AM, beta=0.1, lr=0.1"]
    assert len(crossed.grid) == 8
    assert crossed.grid["Norm, beta=0.1, lr=0.2"] == {"objective.iam.beta": 0.1, "training.optimizer.lr": 0.2}
    assert crossed.grid["AM, beta=0, lr=0.1"]["objective"] == variants["AM"]["objective"]
    assert list(grid(sweep={"training.optimizer.lr": [0.1]}).grid) == ["lr=0.1"]
    assert grid(sweep={"training.optimizer.lr": [0.1, 1]}, baseline="lr=1").against == "lr=1"


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({}, "compare needs at least one variant and one seed"),
        ({"sweep": {"training.optimizer.lr": []}}, "and in a sweep one value per key"),
        ({"sweep": {"training.optimizer.lr": [1]}, "baseline": "lr=2"}, r"compare.baseline must be one of 'lr=1'; got"),
        ({"variants": {"A": {}}, "analyses": ["who_changed"]}, "compare.analyses must be one of 'norm_bins'"),
    ],
)
def test_a_grid_that_is_none_is_refused(parts: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        grid(**parts)


# the registry


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("pca: many", "benchmark 'Digits': options.pca must be a whole number; got 'many'"),
        ("draws: true", "options.draws must be a whole number; got True"),
        ("fars: 0.1", "options.fars must be a list of numbers; got 0.1"),
        ("metric: 2", "options.metric must be text; got 2"),
    ],
)
def test_options_of_another_type_are_refused_before_training(option: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        tiny.validated(f"evaluation.benchmarks=[{PAIRS[:-1]}, options: {{{option}}}}}]")


def test_protocols_are_listed_and_each_has_a_runner() -> None:
    assert angulus.list_protocols() == list(PROTOCOLS)
    assert COMMANDS.keys() | RECIPES.keys() == set(PROTOCOLS)
    assert COMMANDS.keys() - RECIPES.keys() == {"froc", "ijb-identify", "luna16", "quality"}
    for name, protocol in PROTOCOLS.items():
        assert callable(getattr(runners, protocol.runner or name.replace("-", "_")))


def test_the_registry_imports_nothing_heavy() -> None:
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); print(sorted({'torch', 'numpy', 'pydantic'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, registry.__file__], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "function"),
    [
        *((name, pairs.evaluate) for name in ("lfw", "pairs", "cfp", "bin")),
        ("rfw", groups.evaluate),
        ("blufr", open_set.evaluate),
        ("ytf", videos.evaluate),
        ("ijb-verify", template_verification.verify),
        ("ijb-verify", templates.Pooling),
        ("ijb-identify", template_identification.identify),
        ("megaface", distractors.megaface),
        ("trillion-pairs", trillion_pairs.evaluate),
        ("froc", detection.evaluate),
        *((name, function) for name in ("retrieval", "reid") for function in (retrieval.evaluate, retrieval.Figures)),
        ("luna16", detection.luna16),
        ("luna16-candidates", detection.candidates),
        ("classification", classification.evaluate),
        ("quality", quality.evaluate),
        ("quality", error_discard.evaluate),
        ("quality", quality.evaluate_bins),
        ("quality-ytf", videos.evaluate),
        ("quality-ytf", quality.evaluate),
    ],
)
def test_defaults_of_the_registry_are_those_of_the_functions(name: str, function: Callable[..., Any]) -> None:
    defaults = {key: entry.default for key, entry in inspect.signature(function).parameters.items()}
    options = [option for option in PROTOCOLS[name].options if option.name in defaults]
    assert options
    for option in options:
        assert option.default is None or option.default == defaults[option.name], option.name
