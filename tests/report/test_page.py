"""The page as text: what it is made of, that nothing in names or recipes can run, and what is refused."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

import reports
import tiny
from angulus.core.checks import InputError
from angulus.data.sets.images import Images
from angulus.evaluation.protocols import classification
from angulus.evaluation.protocols.result import Result
from angulus.experiments import build, compare
from angulus.experiments.claims import accuracy_title
from angulus.experiments.run_files import read_results
from angulus.report import legends, sections
from angulus.report.content import read_content
from angulus.report.error_curves import error_curves
from angulus.report.page import render
from angulus.report.sections import write_report
from angulus.training import formation
from reports import Page, charts


@pytest.fixture(scope="module", autouse=True)
def few_digits() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "splits", lambda recipe: reports.splits())
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in two dimensions, one in eight, and results."""
    here = tmp_path_factory.mktemp("reports")
    reports.train(here / reports.EVIL.replace("/", "_"), "backbone.embedding_size=2", f"title={reports.EVIL!r}")
    reports.train(here / "wide", "backbone.embedding_size=8")
    reports.result(here)
    reports.result(here, "rfw", grouped=True)
    reports.photos(here / "photos")
    return here


@pytest.fixture(scope="module")
def runs(folder: Path) -> list[Path]:
    return [folder / reports.EVIL.replace("/", "_"), folder / "wide", folder / "crowd.json", folder / "rfw.json"]


@pytest.fixture(scope="module")
def text(folder: Path, runs: list[Path]) -> str:
    write_report(runs, folder / "report.html", images=folder / "photos", draws=20)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


# nothing runs but what is the page's own


def test_names_make_no_elements(page: Page) -> None:
    assert len(page.all("script")) == 3  # data, plotly, the page's own
    assert not [attrs for tag, attrs, _ in page.elements if any(name.startswith("on") for name in attrs)]
    assert not page.all("iframe") and not page.all("link") and not page.all("base")
    assert all(str(attrs["src"]).startswith("data:image/") for attrs, _ in page.all("img"))
    assert all(str(attrs["href"]).startswith("#") for attrs, _ in page.all("a"))
    said = " ".join(each for _, each in page.all("body"))
    for name in reports.NAMES:
        assert name in said  # and yet each is shown


def test_only_the_two_scripts_may_run_and_nothing_may_be_fetched(page: Page) -> None:
    (policy,) = (a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in str(policy).split("; "))
    sums = {
        "'sha256-" + base64.b64encode(hashlib.sha256(said.encode()).digest()).decode() + "'"
        for attrs, said in page.all("script")
        if "type" not in attrs
    }
    assert set(rules["script-src"].split()) == sums
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data: blob:"
    assert "connect-src" not in rules  # default-src is its fallback


def test_names_are_no_markup_for_plotly(page: Page) -> None:
    names = [str(trace["name"]) for chart in charts(page) for trace in chart["traces"]]
    assert any("&lt;script&gt;" in name for name in names)
    hovered = [line for chart in charts(page) for trace in chart["traces"] for line in trace.get("text", [])]
    places = [str(y) for chart in charts(page) for trace in chart["traces"] for y in trace["y"] if isinstance(y, str)]
    for each in [*names, *hovered, *(place.replace("<br>", "") for place in places)]:
        assert "<" not in each and ">" not in each
    assert not re.search(
        "%{(?!x|y|z|text)", " ".join(t.get("hovertemplate", "") for c in charts(page) for t in c["traces"])
    )


def test_plotly_knows_every_property(page: Page) -> None:
    drawn = charts(page)
    assert len(drawn) > 15
    for chart in drawn:
        go.Figure(data=chart["traces"], layout=chart["layout"])  # refuses what it does not know


# it can be read without seeing the charts


def test_parts_are_named_for_screen_readers(page: Page) -> None:
    for tag in ("main", "nav", "header", "footer", "h1"):
        assert len(page.all(tag)) == 1
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(attrs.get("alt") for attrs, _ in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table")) > 3
    plots = [attrs for attrs, _ in page.all("div") if attrs.get("class") == "plot"]
    assert len(plots) == len(page.all("figcaption")) == len(charts(page))
    for attrs, (_, said) in zip(plots, page.all("figcaption"), strict=True):
        assert attrs["role"] == "img"
        assert len(said) > 20 and said.removeprefix("In words") in str(attrs["aria-label"])
    anchors = {attrs["href"] for attrs, _ in page.all("a")}
    assert anchors == {"#main", *(f"#{attrs['id']}" for attrs, _ in page.all("h2"))}
    assert dict(page.all("html")[0][0]) == {"lang": "en"}


# it says what the files hold


def test_the_table_has_the_accuracies_with_their_intervals(page: Page, runs: list[Path]) -> None:
    rows = ["".join(said.split()) for _, said in page.all("tr")]
    for run in runs[:2]:
        accuracy = 100 * read_results(run)["accuracy"]
        given = classification.Predictions.read(run / "test.npz")
        interval = classification.evaluate(given, draws=20).number("accuracy").interval
        assert interval is not None
        cell = f"{run.name}{accuracy:.2f}[{100 * interval.low:.2f},{100 * interval.high:.2f}]"
        assert any(row.startswith("".join(cell.split())) for row in rows)


def test_wrong_pairs_are_shown_with_their_images(page: Page, folder: Path) -> None:
    shown = [attrs for attrs, _ in page.all("img") if re.fullmatch(r"p\d+/\d", str(attrs["alt"]))]
    assert shown
    for attrs in shown:
        with Image.open(folder / "photos" / f"{attrs['alt']}.png") as photo:
            grey = photo.convert("L").getpixel((0, 0))
        stream = base64.b64decode(str(attrs["src"]).partition(",")[2])
        (folder / "shown").write_bytes(stream)
        with Image.open(folder / "shown") as picture:
            assert picture.size == (40, 40)
            assert abs(picture.convert("L").getpixel((20, 20)) - grey) <= 3


def test_without_images_the_ids_of_wrong_pairs_are_said(folder: Path) -> None:
    content = read_content([folder / "crowd.json"])
    page = Page(render(content.title, "", sections.build_sections(content)))
    assert not page.all("img")
    assert any(re.search(r"p\d+/\d and p\d+/\d, score", said) for _, said in page.all("li"))


def test_recipe_and_environment_are_there(page: Page, runs: list[Path]) -> None:
    recipes = [said for _, said in page.all("pre")]
    for run in runs[:2]:
        assert (run / "recipe.yaml").read_text() in recipes
    cells = [said for _, said in page.all("td")]
    assert read_results(runs[0])["environment"]["torch"] in cells


def test_groups_have_their_errors(page: Page, folder: Path) -> None:
    result = Result.read(folder / "rfw.json")
    drawn = [each for each in charts(page) if each["traces"] and each["traces"][0].get("x") == ["even", "odd"]]
    (chart,) = (each for each in drawn if each["traces"][0]["type"] == "bar")
    heat = next(each for each in drawn if each["traces"][0]["type"] == "heatmap")
    point = Result.read(folder / "crowd.json").by_group[0]
    assert heat["traces"][0]["z"][0][1] == pytest.approx(point.matrix("false_match")[0, 1], abs=1e-4)
    expected = [1 - result["accuracy even"], 1 - result["accuracy odd"]]
    assert chart["traces"][0]["y"] == pytest.approx(expected, abs=1e-4)


def test_a_comparison_is_shown_over_its_seeds_and_by_its_first_runs(tmp_path: Path) -> None:
    grid = "compare={seeds: [3, 4], quality_split: A, variants: {A: {}, B: {training.optimizer.lr: 0.1}}}"
    recipe = tiny.write(tmp_path, "backbone.embedding_size=2", "training.epochs=1", grid)
    compare.compare(recipe, tmp_path / "grid")
    content = read_content([tmp_path / "grid"], draws=0)
    assert [model.name for model in content.runs] == ["A", "B"]
    assert [model.folder.name for model in content.runs] == ["seed-3", "seed-3"]
    page = Page(render(content.title, "", sections.build_sections(content)))
    assert "Mean ± standard deviation of 2 seeds" in " ".join(said for _, said in page.all("p"))
    names = [trace["name"] for chart in charts(page) for trace in chart["traces"]]
    assert names.count("A") == names.count("B") > 5
    low = content.runs[1].accuracies.number("accuracy, low").value  # by A's norms, as in the comparison's table
    assert low == pytest.approx(content.comparisons[0].rows[1].columns[accuracy_title("low")].values[0] / 100)


def test_names_that_are_taken_get_their_folder(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "wide", tmp_path / "wide")
    content = read_content([folder / "wide", tmp_path / "wide", tmp_path / "wide" / "."], draws=0)
    assert [model.name for model in content.runs] == ["wide", f"{tmp_path.name}/wide"]


def test_a_run_of_a_comparison_has_its_variants_name(folder: Path, tmp_path: Path) -> None:
    for variant in ("A", "B"):
        shutil.copytree(folder / "wide", tmp_path / variant / "seed-0")
    content = read_content([tmp_path / "A" / "seed-0", tmp_path / "B" / "seed-0"], draws=0)
    assert [model.name for model in content.runs] == ["A/seed-0", "B/seed-0"]


def test_an_older_run_has_no_slider(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "wide", tmp_path / "old")
    for name in ("formation.npz", "checkpoint.pt"):
        (tmp_path / "old" / name).unlink()
    content = read_content([tmp_path / "old"], draws=0)
    page = Page(render(content.title, "", sections.build_sections(content)))
    assert not [attrs for attrs, _ in page.all("input") if attrs.get("type") == "range"]
    assert [attrs for attrs, _ in page.all("div") if attrs.get("class") == "plot"]


def test_benchmarks_of_a_run_are_shown_with_it(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "wide", tmp_path / "wide")
    (tmp_path / "wide" / "benchmarks").mkdir()
    reports.result(tmp_path / "wide" / "benchmarks")
    content = read_content([tmp_path / "wide"], draws=0)
    assert list(content.results) == ["wide: crowd"]
    captions = [said for _, said in Page(render(content.title, "", sections.build_sections(content))).all("caption")]
    assert "wide: crowd: pairs" in captions


def test_numbers_of_generated_data_are_said_to_be_none(page: Page, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "wide", tmp_path / "wide")
    results = read_results(tmp_path / "wide")
    (tmp_path / "wide" / "results.json").write_text(json.dumps(results | {"generated": True}))
    content = read_content([tmp_path / "wide"], draws=0)
    warned = "NOT A RESULT: made on generated stand-in data"
    assert warned in [said for _, said in Page(render(content.title, "", sections.build_sections(content))).all("p")]
    assert warned not in [said for _, said in page.all("p")]


def add_results(folder: Path, **added: Any) -> None:
    path = folder / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | added))


def test_what_was_seen_in_the_training_of_any_seed_is_said(tmp_path: Path) -> None:
    grid = "compare={seeds: [3, 4], variants: {A: {}, B: {}}}"
    compare.compare(tiny.write(tmp_path, "training.epochs=1", grid), tmp_path / "grid")
    add_results(
        tmp_path / "grid" / "B" / "seed-4", findings=[{"step": 7, "sign": "stuck", "sentence": "step 7: stuck."}]
    )
    shutil.copytree(tmp_path / "grid" / "B" / "seed-4", tmp_path / "alone")
    add_results(tmp_path / "alone", diverged="It diverged.")
    content = read_content([tmp_path / "grid", tmp_path / "alone"], draws=0)
    assert sections.build_sections(content)[0].intro == (
        "alone: It diverged.\nB, seed 4: step 7: stuck.\nalone: step 7: stuck."
    )


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        (["x"], "holds 'x' as 'findings.0'"),
        ([{}], "it lacks 'findings.0.step'"),
        ([{"step": 1, "sign": "stuck", "sentence": 2}], "holds 2 as 'findings.0.sentence'"),
        ("x", "holds 'x' as 'findings'"),
    ],
)
def test_damaged_findings_are_refused(folder: Path, tmp_path: Path, findings: Any, said: str) -> None:
    shutil.copytree(folder / "wide", tmp_path / "wide")
    add_results(tmp_path / "wide", findings=findings)
    with pytest.raises(InputError, match=re.escape(said)):
        write_report([tmp_path / "wide"], tmp_path / "page.html", draws=0)


def test_images_that_are_gone_are_said_to_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(recipe: object) -> object:
        raise InputError("there are no digits here")

    monkeypatch.setattr(build, "splits", gone)
    content = read_content([folder / "wide"], draws=0)
    (part,) = (each for each in sections.build_sections(content) if each.anchor == "classification")
    assert part.intro.endswith(" Images that cannot be read are left out: there are no digits here.")
    assert not any(block.kind == "album" for block in part.blocks)
    assert not Page(render(content.title, "", sections.build_sections(content))).all("img")


def test_other_images_than_those_tested_on_are_not_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "splits", lambda recipe: tiny.splits(72, 59))
    (model,) = read_content([folder / "wide"], draws=0).runs
    assert model.images == "the data set 'digits' is no longer the one that wide was tested on"


def rendered(*paths: Path, draws: int = 0) -> tuple[str, Page]:
    content = read_content(list(paths), draws=draws)
    text = render(content.title, "", sections.build_sections(content))
    return text, Page(text)


# it concludes, and explains


def test_a_single_run_has_a_sentence_with_its_interval_and_what_it_cannot_show(folder: Path) -> None:
    _, page = rendered(folder / "wide", draws=20)
    said = [said for _, said in page.all("p")]
    accuracy = 100 * read_results(folder / "wide")["accuracy"]
    interval = classification.evaluate(classification.Predictions.read(folder / "wide" / "test.npz"), draws=20)
    ends = interval.number("accuracy").interval
    assert ends is not None
    assert (
        f"wide classifies {accuracy:.2f} % of the 60 test images correctly, with a 95 % interval from "
        f"{100 * ends.low:.2f} to {100 * ends.high:.2f} % over the test images." in said
    )
    assert any(line.startswith("One run shows how well this one model does") for line in said)
    (mean,) = charts(page)[0]["traces"]
    assert mean["y"] == ["wide"] and mean["x"] == pytest.approx([accuracy], abs=0.01)
    assert mean["error_x"]["array"] == pytest.approx([100 * ends.high - accuracy], abs=0.01)
    assert not [1 for attrs, _ in page.all("div") if attrs.get("class") == "page-legend"]  # of one run


def test_a_saved_result_has_a_sentence_and_a_section_of_its_task(folder: Path) -> None:
    _, page = rendered(folder / "crowd.json")
    result = Result.read(folder / "crowd.json")
    number = next(each for each in result.numbers if each.interval and each.name != "EER")
    assert number.interval is not None
    ends = f"from {number.interval.low:#.4g} to {number.interval.high:#.4g}"
    sentence = f"crowd (pairs): {number.name} {number.value:#.4g}, with a 95 % interval {ends}, over 72 pairs."
    assert sentence in [said for _, said in page.all("p")]
    assert [said for _, said in page.all("h2")] == ["Conclusion", "Verification", "Recipe and environment"]


def test_all_charts_share_one_legend_and_one_colour_per_run(page: Page) -> None:
    (legend,) = (attrs for attrs, _ in page.all("div") if attrs.get("aria-label") == "Legend of all charts")
    entries = [attrs for attrs, _ in page.all("button") if str(attrs.get("data-group")).startswith("run:")]
    groups = [entry["data-group"] for entry in entries]
    assert len(set(groups)) == len(groups) == 4  # two runs and two results
    colours: dict[str, set[str]] = {}
    for chart in charts(page):
        assert "legend" not in chart["layout"]
        for trace in chart["traces"]:
            if trace.get("meta") in groups:
                looks = trace.get("line", trace.get("marker"))
                colour = looks["color"] if looks else trace["fillcolor"]  # of a band
                colours.setdefault(trace["meta"], set()).add(colour)
    assert colours.keys() == set(groups)
    assert all(len(found) == 1 for found in colours.values())
    assert len({min(found) for found in colours.values()}) == 4
    assert {attrs.get("data-group") for attrs, _ in page.all("figure")} - {None} <= set(groups)
    assert legend


def test_benchmarks_of_a_run_share_its_colour_and_differ_by_dashes() -> None:
    x = np.array([0.1, 0.2])
    named = [("A", x, x), ("B", x, x), ("A: lfw", x, x), ("A: cfp", x, x)]
    curves = error_curves("roc", named, runs={"A: lfw": "A", "A: cfp": "A"})
    looks = legends.assign([curves])
    assert [entry.name for entry in legends.page_entries(looks)] == ["A", "B"]
    series = {one.name: one for one in legends.apply(curves, looks).series}
    assert series["A"].colour == series["A: lfw"].colour == series["A: cfp"].colour != series["B"].colour
    assert len({series[name].dash for name in ("A", "A: lfw", "A: cfp")}) == 3


def test_lines_of_one_result_are_told_apart_without_hover() -> None:
    """On a page of one run by colours, which the block's legend names; of several by dashes, which the note names."""
    x, sizes = np.array([0.1, 0.5]), {"A, 10": "A", "A, 100": "A"}
    two = error_curves("cmc", [(name, x, x) for name in sizes], runs=sizes)
    other = error_curves("roc", [("A, open", x, x), ("A, closed", x, x)], runs={"A, open": "A", "A, closed": "A"})
    single = error_curves("det", [("A", x, x)])
    looks = legends.assign([two, other, single])
    dressed = legends.dress([two, other, single], looks)
    entries = {entry.name: entry.colour for entry in legends.block_entries(dressed)}
    assert list(entries) == ["A, 10", "A, 100", "A, open", "A, closed"] and len(set(entries.values())) == 4
    assert [one.colour for chart in dressed[:2] for one in chart.series] == list(entries.values())
    assert [one.group for one in dressed[2].series] == ["run:A"]
    looks = legends.assign([two, error_curves("roc", [("B", x, x)])])
    (dashed,) = legends.dress([two], looks)
    assert dashed.note.endswith("A, 10 is solid; A, 100 is dashed.")
    assert {one.group for one in dashed.series} == {"run:A"}


def test_a_variant_whose_name_begins_like_another_is_its_own(tmp_path: Path) -> None:
    x = np.array([0.1, 0.2])
    looks = legends.assign([error_curves("roc", [("A", x, x), ("A: b", x, x)])])
    assert [entry.name for entry in legends.page_entries(looks)] == ["A", "A: b"]
    grid = "compare={seeds: [3], variants: {A: {}, B: {}}}"
    compare.compare(tiny.write(tmp_path, "training.epochs=1", grid), tmp_path / "grid")
    alone = reports.result(tmp_path, "A: b")
    benchmarks = tmp_path / "grid" / "A" / "seed-3" / "benchmarks"
    benchmarks.mkdir()
    reports.result(benchmarks)
    content = read_content([tmp_path / "grid", alone], draws=0)
    assert content.runs_of_results == {"A: crowd": "A"}
    page = Page(render(content.title, "", sections.build_sections(content)))
    said = " ".join(said for _, said in page.all("p"))
    assert "A: b (pairs): " in said and "A: crowd (pairs): " not in said  # which the comparison's table has
    entries = [said for attrs, said in page.all("button") if str(attrs.get("data-group")).startswith("run:")]
    assert [entry.strip() for entry in entries] == ["A", "B", "A: b"]


def test_each_section_has_content_and_each_table_can_scroll(page: Page, text: str) -> None:
    parts = re.findall(r"<section.*?</section>", text, flags=re.S)
    assert len(parts) == len(page.all("section")) == len(page.all("h2"))
    assert all(re.search("<figure|<table|<details|<img", part) for part in parts)
    assert all("<p></p>" not in part for part in parts)
    assert text.count('<div class="scroll"') == text.count("<table")
    metas = {attrs.get("name"): attrs.get("content") for attrs, _ in page.all("meta")}
    assert metas["viewport"] == "width=device-width, initial-scale=1" and metas["color-scheme"] == "light dark"


def test_recipes_are_folded(text: str) -> None:
    for part in re.finditer(r"<pre", text):
        before = text[: part.start()]
        assert before.rfind("<details>") > before.rfind("</details>")


def test_no_number_is_nan(folder: Path, tmp_path: Path) -> None:
    result = Result.read(folder / "crowd.json")
    numbers = tuple(dataclasses.replace(each, value=math.nan, interval=None) for each in result.numbers)
    dataclasses.replace(result, numbers=numbers, notes=("all numbers are undefined",)).save(tmp_path / "odd.json")
    shutil.copytree(folder / "wide", tmp_path / "run")
    with np.load(tmp_path / "run" / "test.npz") as saved:
        arrays = dict(saved)
    wrong = (arrays["labels"] + 1) % 10  # nothing is right, and no feature has a direction
    arrays |= {"predictions": wrong, "features": 0 * arrays["features"], "norms": 0 * arrays["norms"]}
    np.savez(tmp_path / "run" / "test.npz", **arrays)
    (tmp_path / "run" / "formation.npz").unlink()
    for text, page in (rendered(tmp_path / "run", tmp_path / "odd.json"), rendered(tmp_path / "run", draws=20)):
        shown = [each for tag in ("p", "td", "th", "figcaption", "li") for _, each in page.all(tag)]
        labels = [str(value) for _, attrs, _ in page.elements for value in attrs.values()]
        (data,) = (each for attrs, each in page.all("script") if attrs.get("type") == "application/json")
        assert not [each for each in [*shown, *labels] if re.search(r"\b(nan|inf)\b", each, re.I)]
        assert not re.search(r"\bNaN\b|\bnan\b|Infinity", data)
        assert text


# what is refused


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a report is made from run folders .*; .* does not exist$"):
        read_content([tmp_path / "nowhere"])
    with pytest.raises(InputError, match=r"is none of them$"):
        read_content([tmp_path])
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(
        InputError,
        match=r"its training has not finished \(no step is saved yet\); unless it is still running, resume it by the "
        r"command that started it \(train: with --resume\)$",
    ):
        read_content([tmp_path])
    with pytest.raises(InputError, match=r"needs at least one run, comparison or saved result; got none"):
        read_content([])


def test_damaged_files_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    for name in ("test.npz", "results.json", "formation.npz", "checkpoint.pt", "recipe.yaml"):
        there = tmp_path / name
        shutil.copytree(folder / reports.EVIL.replace("/", "_"), there)
        (there / name).write_bytes(b"\x00 damaged")
        with pytest.raises(InputError, match=re.escape(name)):
            read_content([there])
    np.savez(tmp_path / "test.npz" / "test.npz", features=np.zeros((3, 2)), norms=np.zeros(3), labels=np.zeros(3, int))
    with pytest.raises(InputError, match=r"test.npz must hold features \[N, d\], norms, labels and predictions \[N\]"):
        read_content([tmp_path / "test.npz"])


def test_a_run_that_held_classes_out_is_shown_without_them(tmp_path: Path) -> None:
    reports.train(tmp_path / "run", "backbone.embedding_size=2", "validation={identities: 0.2, fmr: 0.1, pairs: 20}")
    (model,) = read_content([tmp_path / "run"], draws=0).runs
    assert isinstance(model.images, Images)
    assert len(model.images.class_names) == 8
    assert set(model.images.class_names) < set(reports.NAMES)
    assert model.weights is not None and len(model.weights) == 8


def test_features_of_other_images_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "wide", tmp_path / "wide")
    for rows, size in ((np.array([0, 60]), 8), (np.array([0, 59]), 7)):  # of 60 images with features of eight
        formation.record(tmp_path / "wide", 0, rows, np.zeros((2, size), np.float32))
        with pytest.raises(
            InputError, match=r"formation\.npz must hold the images and features of test\.npz, but it holds others"
        ):
            read_content([tmp_path / "wide"], draws=0)


def test_images_that_no_pair_names_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(folder / "photos" / "p0" / "0.png", tmp_path / "other" / "stranger.png")
    with pytest.raises(
        InputError, match=r"other must hold the images that the results show, .* it has none of these \d+, such as"
    ):
        write_report([folder / "crowd.json"], tmp_path / "page.html", images=tmp_path / "other")
    with pytest.raises(
        InputError, match="images are for the pairs and queries of saved results, but there are none here"
    ):
        write_report([folder / "wide"], tmp_path / "page.html", images=folder / "photos", draws=0)
    assert not (tmp_path / "page.html").exists()
