"""The sections of a report's page, and writing it: `write_report`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from angulus.core import checks, files, redact
from angulus.data.sets.images import Images
from angulus.evaluation.metrics.curves import error_curve
from angulus.evaluation.protocols import pairs, quality, videos
from angulus.evaluation.protocols.figures import interval_notes
from angulus.evaluation.protocols.result import Number, Result
from angulus.experiments import compare
from angulus.experiments import recipe as recipes
from angulus.experiments.recipe import Recipe
from angulus.experiments.run_files import DIVERGED, FINDINGS, RECIPE
from angulus.report import charts, page, saved_results, tables, thumbnails
from angulus.report.conclusions import conclude
from angulus.report.content import Content, read_content
from angulus.report.feature_chart import run_features
from angulus.report.finished_run import MOST_PAIRED, FinishedRun, ImagePairs
from angulus.report.page import Album, Charts, Folded, Section, Table

MOST_SHOWN = 8  # runs whose images are shown
RUN_COLUMNS = {  # heads of the table of runs, by their numbers
    "accuracy, entire": "accuracy %",
    "accuracy, good": "accuracy %, good",
    "accuracy, low": "accuracy %, low",
    "mean norm, entire": "mean norm",
    "mean norm, good": "norm, good",
    "mean norm, low": "norm, low",
}


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
        _results(content),
        _features(content.runs),
        _curves(content),
        _norms(content),
        _images(content.runs),
        _wrong_pairs(content, source),
        _groups(content),
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


def _results(content: Content) -> Section:
    blocks: list[Any] = []
    warnings = [line for comparison in content.comparisons for line in tables.warning_lines(comparison) if line]
    if any(run.results.get("generated") for run in content.runs):
        warnings = warnings or [tables.GENERATED]
    if not content.comparisons:
        warnings += [f"{run.name}: {run.results[DIVERGED]}" for run in content.runs if DIVERGED in run.results]
    warnings += [f"{run.name}: {seen['sentence']}" for run in content.runs for seen in run.results.get(FINDINGS, ())]
    for comparison in content.comparisons:
        recipe = comparison.recipe
        notes = (*conclude(comparison), tables.caption(comparison) + ".", *_features_compared(recipe))
        blocks.append(Table(recipe.title, *tables.head_and_rows(comparison), notes=notes))
        if recipe.published is not None:
            caption = f"Next to the paper: {recipe.published.source}"
            blocks.append(Table(caption, *tables.with_published(comparison)))
    if content.runs:
        blocks.append(_runs_table(content))
    blocks += saved_results.result_tables(content.results)
    return Section("results", "Results", " ".join(dict.fromkeys(warnings)), blocks)


def _features_compared(recipe: Recipe) -> list[str]:
    """Which features the numbers of a comparison were computed from."""
    benchmarks = recipe.evaluation.benchmarks
    if not benchmarks:
        return [f"Features: {saved_results.FEATURES['none']}."]
    flips = {benchmark.name: benchmark.flip or recipe.input.flip for benchmark in benchmarks if benchmark.images}
    return [f"Features of {name}: {saved_results.FEATURES[flip]}." for name, flip in flips.items()]


def _runs_table(content: Content) -> Table:
    numbers = {run.name: [run.accuracies.number(name) for name in RUN_COLUMNS] for run in content.runs}
    rows = []
    for run in content.runs:
        cells = [_cell(number, percent="accuracy" in number.name) for number in numbers[run.name]]
        rows.append([run.name, *cells, f"{run.results['training']['seconds']:,.0f} s"])
    first = content.runs[0].accuracies
    split = "; ".join(dict.fromkeys(str(run.accuracies.choices["split by"]) for run in content.runs))
    if content.comparisons:
        split = "the norms that the comparison splits by"
    brackets = f"In brackets: {first.choices['intervals']}. " if first.numbers[0].interval else ""
    notes = (
        f"{brackets}Good and low quality are split by {split}. Features: {saved_results.FEATURES['none']}.",
        *(f"{name}: {note}" for name, row in numbers.items() for note in interval_notes(row)),
    )
    caption = f"Test images, {'the first seed of each variant' if content.comparisons else 'each run'}"
    return Table(caption, ["run", *RUN_COLUMNS.values(), "training"], rows, notes)


def _features(runs: Sequence[FinishedRun]) -> Section:
    formations = [run.formation for run in runs if run.formation is not None]
    longest: list[int] = max((formation.epochs.tolist() for formation in formations), key=len, default=[])
    epochs = [*(f"epoch {epoch}" for epoch in longest), "the end"] if longest else []
    intro = (
        "Each point is the feature of a test image, with one colour per class. A grey cross (in 3-D, a diamond) marks "
        "a wrongly classified image."
    )
    if any(run.weights is not None for run in runs):
        intro += " Rays are the directions of the class weights."
    if epochs:
        count = max(len(formation.rows) for formation in formations)
        intro += f" The slider shows how the features of {count:,} images formed; epoch 0 is before training."
    projected = any(run.test["features"].shape[1] > 3 for run in runs)
    blocks: list[Any] = [Charts([run_features(run) for run in runs], epochs, not projected)] if runs else []
    return Section("features", "Features", intro, blocks)


def _curves(content: Content) -> Section:
    curve_charts = saved_results.result_curves(content.results)
    test_pairs = [(run.name, ImagePairs.of(run)) for run in content.runs]
    own = [
        (name, pairs.curves(error_curve(image_pairs.scores, image_pairs.same), name))
        for name, image_pairs in test_pairs
        if image_pairs is not None
    ]
    for place, kind in enumerate(("roc", "det")):
        if own:
            look = charts.CURVES[kind]
            thinned = [curves[place].thinned([look.read_at]) for _, curves in own]
            lines = [(curve.name, curve.x, curve.y) for curve in thinned]
            curve_charts.append(charts.error_curves(kind, lines, f"{look.title}, pairs of test images"))
    intro = "Point at a curve, or touch it, for its values. Long curves are drawn with some of their points."
    if content.results:
        intro += " Circles mark the numbers of the tables."
    if own:
        intro += (
            f" Pairs of test images are all pairs of up to {MOST_PAIRED:,} images, scored by the cosine of their "
            "features. Their classes are those of training, so these curves say nothing about unseen classes."
        )
    return Section("curves", "Error curves", intro, [Charts(curve_charts)] if curve_charts else [])


def _norms(content: Content) -> Section:
    norms = [(run.name, run.test["norms"].astype(np.float64), run.correct) for run in content.runs]
    for name, result in content.results.items():
        if _has_pairs(result) and "norms" in result.samples:
            pair = quality.judge_result(result)
            norms.append((name, pair.norms, pair.correct))
    intro = (
        "Do short features mean doubtful decisions? Shown are the norms of test images, and for pairs the smaller of "
        "the two norms. Norms of test images are without the mirror image; for pairs, the table says so."
    )
    if not norms:
        return Section("norms", "Norms", intro)
    over_norm = [charts.accuracy_by_norm(norms), charts.error_by_discard(norms)]
    histograms = [charts.norm_histogram(*sample) for sample in norms]
    return Section("norms", "Norms", intro, [Charts(over_norm), Charts(histograms)])


def _images(runs: Sequence[FinishedRun]) -> Section:
    blocks: list[Any] = []
    for run in runs[:MOST_SHOWN]:
        if isinstance(run.images, Images):
            groups = {
                "Highest norms": thumbnails.by_norm(run, run.images, highest=True),
                "Lowest norms": thumbnails.by_norm(run, run.images, highest=False),
                "Mistakes, highest norms first": thumbnails.mistakes(run, run.images),
            }
            blocks.append(Album(run.name, groups, unfolded=not blocks))
    missing = dict.fromkeys(run.images for run in runs if isinstance(run.images, str))
    intro = [f"Images that cannot be read are left out: {'; '.join(missing)}."] if missing else []
    if len(runs) > MOST_SHOWN:
        intro.append(f"The first {MOST_SHOWN} of {len(runs)} models are shown.")
    return Section("images", "Best and worst images", " ".join(intro), blocks)


def _wrong_pairs(content: Content, source: Path | None) -> Section:
    blocks: list[Any] = []
    for run in content.runs[:MOST_SHOWN]:
        image_pairs = ImagePairs.of(run) if isinstance(run.images, Images) else None
        if image_pairs is not None and isinstance(run.images, Images):
            groups = thumbnails.wrong_test_pairs(run, run.images, image_pairs)
            blocks.append(Album(run.name, groups, unfolded=not blocks))
    results = {name: result for name, result in content.results.items() if _has_pairs(result)}
    if source is not None and not results:
        raise checks.InputError("images are for the pairs of saved results, but there are none here; leave them out")
    images: dict[str, str] = {}
    if source is not None:
        albums = [thumbnails.wrong_result_pairs(result, {}) for result in results.values()]
        shown = [captioned for groups in albums for group in groups.values() for captioned in group]
        images = thumbnails.read_images(source, {image.alt for captioned in shown for image in captioned.images})
    for name, result in results.items():
        blocks.append(Album(name, thumbnails.wrong_result_pairs(result, images), unfolded=not blocks))
    intro = (
        "Pairs on the wrong side of the threshold, the worst first; each image appears in one pair of a group only. "
        "For test images the threshold is the one with the highest accuracy on these pairs; a result has its own."
    )
    return Section("pairs", "Pairs decided wrongly", intro, blocks)


def _groups(content: Content) -> Section:
    group_charts = []
    by_classes: dict[tuple[int, ...], list[FinishedRun]] = {}
    for run in content.runs:
        by_classes.setdefault(tuple(np.unique(run.test["labels"]).tolist()), []).append(run)
    for labels, runs in by_classes.items():
        names = [runs[0].class_name(label) for label in labels]
        rows = [(run.name, [run.accuracies.number(f"accuracy, class {label}") for label in labels]) for run in runs]
        group_charts.append(charts.group_errors("Error by class", "class", names, rows))
    group_charts += saved_results.errors_by_group(content.results)
    intro = "Thin lines are the intervals, where there are any."
    return Section("groups", "Errors by group", intro, [Charts(group_charts)] if group_charts else [])


def _training(runs: Sequence[FinishedRun]) -> Section:
    keys = list(dict.fromkeys(key for run in runs for row in run.log for key in row if key != "step"))
    logs = [(run.name, run.log) for run in runs]
    log_charts = [charts.training_log(key, logs) for key in keys]
    intro = "Loss and diagnostics by optimiser step."
    return Section("training", "Training", intro, [Charts(log_charts)] if log_charts else [])


def _origins(content: Content) -> Section:
    blocks: list[Any] = []
    for comparison in content.comparisons:
        name = comparison.recipe.name
        whole = recipes.load(comparison.folder / RECIPE)  # with what has not finished
        blocks.append(Folded(f"Recipe of the comparison {name}", recipes.to_yaml(whole)))
        blocks.append(_values_table(f"Environment of the comparison {name}", comparison.environment))
    compared = {comparison.recipe.name for comparison in content.comparisons}
    for run in content.runs:
        blocks.append(Folded(f"Recipe of {run.name}", recipes.to_yaml(run.recipe)))
        if run.recipe.name not in compared:
            blocks.append(_values_table(f"Environment of {run.name}", run.results["environment"]))
    for name, result in content.results.items():
        blocks.append(_values_table(f"Choices of {name}", result.choices))
        blocks.append(_values_table(f"Environment of {name}", result.about))
    intro = "What the numbers were computed from and how, so that they can be reproduced."
    return Section("origins", "Recipe and environment", intro, blocks)


def _values_table(caption: str, values: Mapping[str, Any]) -> Table:
    def text(value: Any) -> str:
        if isinstance(value, list):
            return " ".join(redact.command(list(map(str, value))))
        return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)

    rows = [[str(name).replace("_", " "), text(value)] for name, value in redact.values(dict(values)).items()]
    return Table(caption, ["setting", "value"], rows, words=True, folded=True)


def _has_pairs(result: Result) -> bool:
    return result.protocol in (pairs.PROTOCOL, videos.PROTOCOL) and "left" in result.samples


def _cell(number: Number, *, percent: bool) -> str:
    scale = 100 if percent else 1
    text = f"{scale * number.value:.2f}"
    if number.interval is None:
        return text
    return f"{text} [{scale * number.interval.low:.2f}, {scale * number.interval.high:.2f}]"
