"""The sections of a report by task: classification, verification, identification, detection, quality and others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from angulus.core import checks
from angulus.data.sets.images import Images
from angulus.evaluation.metrics.curves import error_curve
from angulus.evaluation.protocols import (
    calibrate,
    classification,
    degradation,
    detection,
    distractors,
    error_discard,
    groups,
    open_set,
    pairs,
    quality,
    template_identification,
    template_verification,
    trillion_pairs,
    videos,
)
from angulus.evaluation.protocols.figures import interval_notes
from angulus.evaluation.protocols.result import Number, Result
from angulus.report import charts, error_curves, error_rates, fnir, retrieval, saved_results, thumbnails
from angulus.report.chart import Chart
from angulus.report.content import Content
from angulus.report.finished_run import MOST_PAIRED, FinishedRun, ImagePairs
from angulus.report.page import Album, Charts, Section, Table
from angulus.report.tables import NONE

MOST_SHOWN = 8  # runs whose images are shown
RUN_COLUMNS = {  # heads of the table of runs, by their numbers
    "accuracy, entire": "accuracy %",
    "accuracy, good": "accuracy %, good",
    "accuracy, low": "accuracy %, low",
    "mean norm, entire": "mean norm",
    "mean norm, good": "norm, good",
    "mean norm, low": "norm, low",
}
TASKS = {  # by anchor: title, introduction, protocols; results of other protocols have a section of their own
    "classification": ("Classification", "Which class is it?", (classification.PROTOCOL,)),
    "verification": (
        "Verification",
        "Do two images show the same person or thing?",
        (pairs.PROTOCOL, videos.PROTOCOL, groups.PROTOCOL, template_verification.PROTOCOL, calibrate.PROTOCOL),
    ),
    "identification": (
        "Identification",
        "Who is it, out of many?",
        (template_identification.PROTOCOL, open_set.PROTOCOL, distractors.MEGAFACE, trillion_pairs.PROTOCOL),
    ),
    "retrieval": ("Retrieval", "Which images show the same thing as the query?", ("retrieval", "reid")),
    "detection": (
        "Detection",
        "Which lesions do the marks find, with how many false marks?",
        (detection.PROTOCOL, detection.LUNA16, detection.CANDIDATES),
    ),
    "quality": (
        "Quality",
        "Does the norm say which images are hard?",
        (quality.PROTOCOL, quality.BINS, quality.CHANGED, error_discard.PROTOCOL, degradation.PROTOCOL),
    ),
}


def build_tasks(content: Content, source: Path | None) -> list[Section]:
    """A section for each task; the images of results' pairs come from `source`, and without one their ids are shown."""
    images = _read_images(content.results, source)
    sections = []
    known = {protocol for *_, protocols in TASKS.values() for protocol in protocols}
    others = tuple({result.protocol for result in content.results.values()} - known)
    for anchor, (title, intro, protocols) in {**TASKS, "others": ("Other results", "", others)}.items():
        results = {name: result for name, result in content.results.items() if result.protocol in protocols}
        blocks: list[Any] = [*saved_results.result_tables(results)]
        if anchor == "classification":
            blocks += _classification(content)
        blocks += error_rates.fnmr_tables(results)
        bands = error_rates.det_bands(results, content.draws)
        discard_tables, discard_charts = error_rates.discard_blocks(results, content.draws, content.runs_of_results)
        curves = saved_results.result_curves(results, content.runs_of_results, bands) + discard_charts
        fnir_tables, fnir_charts = fnir.fnir_blocks(results, content.draws, content.runs_of_results)
        blocks += fnir_tables
        curves += fnir_charts
        blocks += [*([Charts(curves)] if curves else []), *discard_tables]
        blocks += saved_results.group_tables(results)
        if maps := saved_results.group_maps(results):
            blocks.append(Charts(maps))
        if anchor == "verification":
            blocks += _verification(content, results, images)
            if any(ImagePairs.of(run) for run in content.runs):
                intro += (
                    f" Pairs of test images are all pairs of up to {MOST_PAIRED:,} images, scored by the cosine of "
                    "their features. Their classes are those of training, so they say nothing about unseen classes."
                )
        blocks += retrieval.retrieval_blocks(results, images)
        if anchor == "classification" and (said := _missing_images(content.runs)):
            intro += f" {said}"
        sections.append(Section(anchor, title, intro, blocks))
    return sections


def _read_images(results: Mapping[str, Result], source: Path | None) -> dict[str, str]:
    """The images that results show, as data URIs by id; none without a source of them."""
    if source is None:
        return {}
    ids = {str(name) for result in results.values() for name in retrieval.shown_ids(result)}
    for result in filter(_has_pairs, results.values()):
        groups_of_pairs = thumbnails.wrong_result_pairs(result, {}).values()
        ids |= {image.alt for group in groups_of_pairs for captioned in group for image in captioned.images}
    if not ids and not any(map(_has_pairs, results.values())):
        raise checks.InputError(
            "images are for the pairs and queries of saved results, but there are none here; leave them out"
        )
    return thumbnails.read_images(source, ids)


def _classification(content: Content) -> list[Any]:
    runs = content.runs
    if not runs:
        return []
    norms = [(run.name, run.test["norms"].astype(np.float64), run.correct) for run in runs]
    by_norm = [charts.accuracy_by_norm(norms), charts.error_by_discard(norms)]
    histograms = [charts.norm_histogram(*sample) for sample in norms]
    blocks: list[Any] = [_runs_table(content), Charts([*_class_errors(runs), *by_norm])]
    blocks.append(Charts(histograms, title="Norms of right and wrong test images, as histograms"))
    for run in runs[:MOST_SHOWN]:
        if isinstance(run.images, Images):
            albums = {
                "Highest norms": thumbnails.by_norm(run, run.images, highest=True),
                "Lowest norms": thumbnails.by_norm(run, run.images, highest=False),
                "Mistakes, highest norms first": thumbnails.mistakes(run, run.images),
            }
            first = not any(isinstance(block, Album) for block in blocks)
            blocks.append(Album(f"Best and worst images: {run.name}", albums, unfolded=first))
    return blocks


def _missing_images(runs: Sequence[FinishedRun]) -> str:
    missing = dict.fromkeys(run.images for run in runs if isinstance(run.images, str))
    said = [f"Images that cannot be read are left out: {'; '.join(missing)}."] if missing else []
    if len(runs) > MOST_SHOWN:
        said.append(f"Images of the first {MOST_SHOWN} of {len(runs)} models are shown.")
    return " ".join(said)


def _class_errors(runs: Sequence[FinishedRun]) -> list[Chart]:
    by_classes: dict[tuple[int, ...], list[FinishedRun]] = {}
    for run in runs:
        by_classes.setdefault(tuple(np.unique(run.test["labels"]).tolist()), []).append(run)
    drawn = []
    for labels, group in by_classes.items():
        names = [group[0].class_name(label) for label in labels]
        rows = [(run.name, [run.accuracies.number(f"accuracy, class {label}") for label in labels]) for run in group]
        drawn.append(charts.group_errors("Error by class", "class", names, rows))
    return drawn


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


def _verification(content: Content, results: dict[str, Result], images: Mapping[str, str]) -> list[Any]:
    blocks: list[Any] = []
    test_pairs = {run.name: ImagePairs.of(run) for run in content.runs}
    own = [
        (name, pairs.curves(error_curve(image_pairs.scores, image_pairs.same), name))
        for name, image_pairs in test_pairs.items()
        if image_pairs is not None
    ]
    drawn = saved_results.errors_by_group(results, content.runs_of_results)
    for place, kind in enumerate(("roc", "det")):
        if own:
            look = error_curves.CURVES[kind]
            thinned = [curves[place].thinned([look.read_at]) for _, curves in own]
            lines = [(curve.name, curve.x, curve.y) for curve in thinned]
            drawn.append(error_curves.error_curves(kind, lines, f"{look.title}, pairs of test images"))
    judged = {name: quality.judge_result(each) for name, each in results.items() if _has_norms(each)}
    if norms := [(name, pair.norms, pair.correct) for name, pair in judged.items()]:
        by_norm = (charts.accuracy_by_norm, charts.error_by_discard)
        drawn += [draw(norms, content.runs_of_results) for draw in by_norm]
    if drawn:
        blocks.append(Charts(drawn))
    if norms:
        histograms = [charts.norm_histogram(*sample, content.runs_of_results) for sample in norms]
        blocks.append(Charts(histograms, title="Norms of right and wrong pairs, as histograms"))
    return blocks + _wrong_pairs(content.runs, test_pairs, results, images)


def _wrong_pairs(
    runs: Sequence[FinishedRun],
    test_pairs: dict[str, ImagePairs | None],
    results: dict[str, Result],
    images: Mapping[str, str],
) -> list[Album]:
    """Pairs on the wrong side of the threshold, the worst first."""
    albums: list[Album] = []
    results = {name: result for name, result in results.items() if _has_pairs(result)}
    for name, result in results.items():
        title = f"Pairs decided wrongly: {name}"
        albums.append(Album(title, thumbnails.wrong_result_pairs(result, images), unfolded=not albums))
    for run in runs[:MOST_SHOWN]:
        image_pairs = test_pairs[run.name]
        if image_pairs is not None and isinstance(run.images, Images):
            title = f"Pairs of test images decided wrongly at the most accurate threshold: {run.name}"
            albums.append(Album(title, thumbnails.wrong_test_pairs(run, run.images, image_pairs)))
    return albums


def _has_pairs(result: Result) -> bool:
    return result.protocol in (pairs.PROTOCOL, videos.PROTOCOL) and "left" in result.samples


def _has_norms(result: Result) -> bool:
    return _has_pairs(result) and "norms" in result.samples


def _cell(number: Number, *, percent: bool) -> str:
    if np.isnan(number.value):
        return NONE
    scale = 100 if percent else 1
    text = f"{scale * number.value:.2f}"
    if number.interval is None:
        return text
    return f"{text} [{scale * number.interval.low:.2f}, {scale * number.interval.high:.2f}]"
