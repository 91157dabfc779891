"""The sections of a report's page, and writing it: `write_report`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from angulus.core import checks, files, redact
from angulus.data.sets.images import Images
from angulus.experiments import compare
from angulus.experiments import recipe as recipes
from angulus.experiments.measure import BY_DIMENSION
from angulus.experiments.run_files import DIVERGED, FINDINGS, RECIPE
from angulus.report import charts, page, summary_section, tables, task_sections, thumbnails
from angulus.report.chart import Sheet
from angulus.report.content import Content, read_content
from angulus.report.feature_chart import run_features, shown_rows
from angulus.report.finished_run import FinishedRun
from angulus.report.page import Charts, Folded, Section, Table

FIRST_LOGGED = ("loss", "accuracy", "validation_tar", "test_accuracy")  # the other logged numbers are folded


def write_report(paths: Sequence[Path], out: Path, *, images: Path | None = None, draws: int = 1000) -> int:
    """Write a report as one HTML page, and warn of what is left out of it; returns its size in bytes.

    `paths` and `draws` are those of `read_content`; `images` is a source with the images of results' pairs.
    """
    content = read_content(paths, draws=draws)
    html = page.render(content.title, describe(content), build_sections(content, images), content.left_out)
    files.make_folder(out.parent)
    files.write_atomically(out, lambda file: file.write(html.encode(errors="backslashreplace")))
    for line in content.left_out:
        checks.warn(f"not in the report: {line}")
    return out.stat().st_size


def build_sections(content: Content, source: Path | None = None) -> list[Section]:
    """All sections; the images of results' pairs come from `source`, and without one their ids are shown."""
    return [
        summary_section.summarize(content, _warnings(content)),
        _dimensions(content.runs),
        _features(content.runs),
        *task_sections.build_tasks(content, source),
        _training(content.runs),
        _origins(content),
    ]


def describe(content: Content) -> str:
    """What the page shows, in one line."""
    parts = [
        f"{len(comparison.rows)} variants, seeds {', '.join(map(str, compare.section(comparison.recipe).seeds))}"
        for comparison in content.comparisons
    ]
    if not content.comparisons and content.runs:
        parts.append("run " + ", ".join(run.name for run in content.runs))
    parts += [f"result {name} ({result.protocol})" for name, result in content.results.items()]
    return "; ".join(parts + list(dict.fromkeys(run.results["data"] for run in content.runs)))


def _warnings(content: Content) -> str:
    """What a reader must know before the numbers: generated data, trainings that diverged, and what the watch saw."""
    warnings = [line for comparison in content.comparisons for line in tables.warning_lines(comparison) if line]
    if any(run.results.get("generated") for run in content.runs):
        warnings = warnings or [tables.GENERATED]
    single = summary_section.single_runs(content)
    warnings += [f"{run.name}: {run.results[DIVERGED]}" for run in single if DIVERGED in run.results]
    for comparison in content.comparisons:
        warnings += [f"{run}: {sentence}" for run, seen in comparison.findings.items() for sentence in seen]
    warnings += [f"{run.name}: {seen['sentence']}" for run in single for seen in run.results.get(FINDINGS, ())]
    return "\n".join(dict.fromkeys(warnings))


def _dimensions(runs: Sequence[FinishedRun]) -> Section:
    """Accuracy by the first numbers of the features, of the runs with nested dimensions."""
    nested = {run.name: run.results[BY_DIMENSION] for run in runs if BY_DIMENSION in run.results}
    intro = (
        "The accuracy on the test images by the first numbers of the features and class weights alone. These models "
        "were trained for each of the sizes; angulus embed --dimensions writes such features."
    )
    if not nested:
        return Section("dimensions", "Accuracy by dimension", intro)
    curves = {
        name: tuple(np.array([part[key] for part in parts], dtype=np.float64) for key in ("dimensions", "accuracy"))
        for name, parts in nested.items()
    }
    axes = {"x_label": "numbers of the feature", "y_label": "accuracy"}
    chart = charts.lines(curves, title="accuracy by dimension", symbol=True, **axes)  # type: ignore[arg-type]
    rows = [
        [name, str(part["dimensions"]), f"{100 * part['accuracy']:.2f}"]
        for name, parts in nested.items()
        for part in parts
    ]
    table = Table("Accuracy by dimension", ["run", "numbers of the feature", "accuracy in %"], rows)
    return Section("dimensions", "Accuracy by dimension", intro, [table, Charts([chart])])


def _features(runs: Sequence[FinishedRun]) -> Section:
    formations = [run.formation for run in runs if run.formation is not None]
    longest: list[int] = max((formation.epochs.tolist() for formation in formations), key=len, default=[])
    epochs = [*(f"epoch {epoch}" for epoch in longest), "the end"] if longest else []
    intro = (
        "Each point is the feature of a test image, with one colour per class. A grey cross (in 3-D, a diamond) marks "
        "a wrongly classified image. Point at a feature, or touch it, to see its image."
    )
    if any(run.weights is not None for run in runs):
        intro += " Rays are the directions of the class weights."
    if epochs:
        count = max(len(formation.rows) for formation in formations)
        intro += f" The slider shows how the features of {count:,} images formed; epoch 0 is before training."
    projected = any(run.test["features"].shape[1] > 3 for run in runs)
    drawn = [run_features(run, sheet) for run, sheet in zip(runs, _sheets(runs), strict=True)]
    return Section("features", "Features", intro, [Charts(drawn, epochs, not projected)] if runs else [])


def _sheets(runs: Sequence[FinishedRun]) -> list[Sheet | None]:
    """The pictures of each run's features; runs with the same test images share one sheet."""
    made: dict[tuple[int, bytes], Sheet] = {}
    sheets: list[Sheet | None] = []
    for run in runs:
        if not isinstance(run.images, Images):
            sheets.append(None)
            continue
        rows = shown_rows(run)[1]
        key = id(run.images.pixels), rows.tobytes()
        if key not in made:
            made[key] = thumbnails.draw_sheet(run.images, rows)
        sheets.append(made[key])
    return sheets


def _training(runs: Sequence[FinishedRun]) -> Section:
    keys = list(dict.fromkeys(key for run in runs for row in run.log for key in row if key != "step"))
    logs = [(run.name, run.log) for run in runs]
    first = [charts.training_log(key, logs) for key in keys if key in FIRST_LOGGED]
    others = [charts.training_log(key, logs) for key in keys if key not in FIRST_LOGGED]
    intro = "What training logged, by optimiser step. Numbers are means over one batch unless they say otherwise."
    blocks: list[Any] = [Charts(first)] if first else []
    blocks += [Charts(others, title="All other diagnostics")] if others else []
    return Section("training", "Training", intro, blocks)


def _origins(content: Content) -> Section:
    blocks: list[Any] = []
    for comparison in content.comparisons:
        name = comparison.recipe.name
        whole = recipes.stored(comparison.folder / RECIPE)  # with what has not finished
        blocks.append(Folded(f"Recipe of the comparison {name}", recipes.to_yaml(whole)))
        blocks.append(_values_table(f"Environment of the comparison {name}", comparison.environment))
    compared = {comparison.recipe.name for comparison in content.comparisons}
    for run in content.runs:
        blocks.append(Folded(f"Recipe of {run.name}", recipes.to_yaml(run.recipe)))
        if run.recipe.name not in compared:
            blocks.append(_values_table(f"Environment of {run.name}", run.results["environment"]))
    folded = bool(content.runs or content.comparisons)  # a page of results is also read on paper
    for name, result in content.results.items():
        about = dict(result.about)
        if isinstance(about.get("files"), dict):  # another program may keep something else there
            about |= {f"SHA-256 of {path}": digest for path, digest in about.pop("files").items()}
        blocks.append(_values_table(f"Choices of {name}", result.choices, folded=folded))
        blocks.append(_values_table(f"Environment of {name}", about, folded=folded))
    intro = "What the numbers were computed from and how, so that they can be reproduced."
    return Section("origins", "Recipe and environment", intro, blocks)


def _values_table(caption: str, values: Mapping[str, Any], *, folded: bool = True) -> Table:
    def text(value: Any) -> str:
        if isinstance(value, list):
            return " ".join(redact.command(list(map(str, value))))
        return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)

    rows = [[str(name).replace("_", " "), text(value)] for name, value in redact.values(dict(values)).items()]
    return Table(caption, ["setting", "value"], rows, words=True, folded=folded)
