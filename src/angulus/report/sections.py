"""What a report says, part by part: tables, charts, images and where they come from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from angulus.core import checks, redact
from angulus.data.sets.images import Images
from angulus.evaluation.metrics.curves import error_curve
from angulus.evaluation.protocols import pairs, quality, videos
from angulus.evaluation.protocols.figures import interval_notes
from angulus.evaluation.protocols.result import Number, Result
from angulus.experiments import compare
from angulus.experiments import recipe as recipes
from angulus.experiments.recipe import Recipe
from angulus.experiments.run_files import DIVERGED, RECIPE
from angulus.report import charts, comparison, measured, pictures, space, verdict
from angulus.report.gather import Content
from angulus.report.model import PAIRED, ImagePairs, Model
from angulus.report.page import Album, Charts, Folded, Gallery, Section, Table
from angulus.report.pictures import Picture

MOST_SHOWN = 8  # models whose images are shown
FIGURES = {  # of a run's table: what stands in its head
    "accuracy, entire": "accuracy %",
    "accuracy, good": "of good quality %",
    "accuracy, low": "of low quality %",
    "mean norm, entire": "mean norm",
    "mean norm, good": "norm, good",
    "mean norm, low": "norm, low",
}


def of(content: Content, source: Path | None = None) -> list[Section]:
    """All sections; those without anything to show have no blocks.

    Args:
        content: what is reported.
        source: where the images of results' pairs lie: anything that `angulus convert` reads; None shows their ids.
    """
    return [
        _results(content),
        _features(content.models),
        _curves(content),
        _norms(content),
        _images(content.models),
        _wrong_pairs(content, source),
        _groups(content),
        _training(content.models),
        _origins(content),
    ]


def about(content: Content) -> str:
    """One sentence: what the page is of."""
    said = [
        f"{len(each.rows)} variants, seeds {', '.join(map(str, compare.section(each.recipe).seeds))}"
        for each in content.comparisons
    ]
    if not content.comparisons and content.models:
        said.append("run " + ", ".join(model.name for model in content.models))
    said += [f"result {name} ({result.protocol})" for name, result in content.measured.items()]
    data = list(dict.fromkeys(model.results["data"] for model in content.models))
    return "; ".join(said + data)


def _results(content: Content) -> Section:
    blocks: list[Any] = []
    warnings = [line for each in content.comparisons for line in comparison.warning(each) if line]
    if any(model.results.get("generated") for model in content.models):
        warnings = warnings or [comparison.GENERATED]
    if not content.comparisons:
        warnings += [f"{each.name}: {each.results[DIVERGED]}" for each in content.models if DIVERGED in each.results]
    for each in content.comparisons:
        notes = (*verdict.sentences(each), comparison.caption(each) + ".", *_of_features(each.recipe))
        blocks.append(Table(each.recipe.title, *comparison.columns(each), notes=notes))
        if each.recipe.published is not None:
            paper = f"Beside the paper: {each.recipe.published.source}"
            blocks.append(Table(paper, *comparison.beside_paper(each)))
    if content.models:
        blocks.append(_models(content))
    blocks += measured.tables(content.measured)
    return Section("results", "Results", " ".join(dict.fromkeys(warnings)), blocks)


def _of_features(recipe: Recipe) -> list[str]:
    """Which features the numbers of a comparison are of."""
    flips = {each.name: each.flip or recipe.input.flip for each in recipe.evaluation.benchmarks if each.images}
    if not recipe.evaluation.benchmarks:
        return [f"Features: {measured.FEATURES['none']}."]
    return [f"Features of {name}: {measured.FEATURES[flip]}." for name, flip in flips.items()]


def _models(content: Content) -> Table:
    rows = []
    for model in content.models:
        cells = [_cell(model.figures.number(name), percent="accuracy" in name) for name in FIGURES]
        rows.append([model.name, *cells, f"{model.results['training']['seconds']:,.0f} s"])
    of_seed = "the first seed of each variant" if content.comparisons else "each run"
    first = content.models[0].figures
    split = "; ".join(dict.fromkeys(str(model.figures.choices["split by"]) for model in content.models))
    if content.comparisons:
        split = "the norms that the comparison splits by"
    brackets = f"In brackets: {first.choices['intervals']}. " if first.numbers[0].interval else ""
    notes = (
        f"{brackets}Good and low quality are split by {split}. Features: {measured.FEATURES['none']}.",
        *(
            f"{model.name}: {note}"
            for model in content.models
            for note in interval_notes([model.figures.number(name) for name in FIGURES])
        ),
    )
    return Table(f"Test images, {of_seed}", ["run", *FIGURES.values(), "training"], rows, notes)


def _features(models: Sequence[Model]) -> Section:
    drawn = [space.features(model) for model in models]
    longest: list[int] = max(
        (model.formation.epochs.tolist() for model in models if model.formation is not None), key=len, default=[]
    )
    epochs = [*(f"epoch {epoch}" for epoch in longest), "the end"] if longest else []
    intro = (
        "Each point is the feature of a test image, a class a colour; a grey cross (in space a diamond) is an image "
        "taken for another class."
    )
    if any(model.weights is not None for model in models):
        intro += " Rays are the directions of the class weights."
    if epochs:
        count = max(len(model.formation.rows) for model in models if model.formation is not None)
        intro += f" The slider shows how they formed, by {count:,} of the images; epoch 0 is before training."
    projected = any(model.test["features"].shape[1] > 3 for model in models)
    return Section("features", "Features", intro, [Charts(drawn, epochs, not projected)] if drawn else [])


def _curves(content: Content) -> Section:
    drawn = measured.curves(content.measured)
    found = [(model.name, ImagePairs.of(model)) for model in content.models]
    own = [(name, pairs.curves(error_curve(each.scores, each.same), name)) for name, each in found if each is not None]
    for place, kind in enumerate(("roc", "det")):
        if own:
            thinned = [curves_[place].thinned([charts.PLACES[kind][0]]) for _, curves_ in own]
            title = f"{charts.KINDS[kind]}, pairs of test images"
            drawn.append(charts.curve(kind, [(each.name, each.x, each.y) for each in thinned], title))
    intro = "Point at a curve, or touch it, for its values; of a long one some of the points are drawn."
    if content.measured:
        intro += " Circles are the numbers of the tables, as they stand there."
    if own:
        intro += (
            f" Pairs of test images are all of up to {PAIRED:,} images, by the cosine of their features; the classes "
            "are those of training, so this says nothing of classes that the model has not seen."
        )
    return Section("curves", "Error curves", intro, [Charts(drawn)] if drawn else [])


def _norms(content: Content) -> Section:
    found = [(model.name, model.test["norms"].astype(np.float64), model.correct) for model in content.models]
    for name, result in content.measured.items():
        if _has_pairs(result) and "norms" in result.samples:
            each = quality.judge_result(result)
            found.append((name, each.norms, each.correct))
    intro = (
        "Norms of right and wrong test images, and of pairs the smaller norm: is a short feature a doubtful one? Test "
        "images have no mirror image added; of pairs the table says whether they have."
    )
    if not found:
        return Section("norms", "Norms", intro)
    over = [charts.norm_bins(found), charts.norm_discard(found)]
    return Section("norms", "Norms", intro, [Charts(over), Charts([charts.norm_histogram(*each) for each in found])])


def _images(models: Sequence[Model]) -> Section:
    blocks: list[Any] = []
    for model in models[:MOST_SHOWN]:
        if isinstance(model.images, Images):
            kinds = {
                "Highest norms": pictures.by_norm(model, model.images, highest=True),
                "Lowest norms": pictures.by_norm(model, model.images, highest=False),
                "Mistakes, highest norms first": pictures.mistakes(model, model.images),
            }
            blocks.append(_album(model.name, kinds, unfolded=not blocks))
    return Section("images", "Best and worst images", _unseen(models), blocks)


def _album(name: str, kinds: Mapping[str, Sequence[Picture]], *, unfolded: bool) -> Album:
    return Album(name, [Gallery(kind, shown) for kind, shown in kinds.items()], unfolded)


def _unseen(models: Sequence[Model]) -> str:
    """Whose images the page does not show, and why."""
    missing = dict.fromkeys(model.images for model in models if isinstance(model.images, str))
    said = [f"Images are left out where they cannot be read: {'; '.join(missing)}."] if missing else []
    if len(models) > MOST_SHOWN:
        said.append(f"The first {MOST_SHOWN} of {len(models)} models are shown.")
    return " ".join(said)


def _wrong_pairs(content: Content, source: Path | None) -> Section:
    blocks: list[Any] = []
    for model in content.models[:MOST_SHOWN]:
        found = None if isinstance(model.images, str) else ImagePairs.of(model)
        if found is not None and isinstance(model.images, Images):
            blocks.append(_album(model.name, pictures.model_pairs(model, model.images, found), unfolded=not blocks))
    results = {name: result for name, result in content.measured.items() if _has_pairs(result)}
    if source is not None and not results:
        raise checks.InputError(
            "images are for the pairs of saved results, of which there are none here; leave them out"
        )
    named = {name: pictures.result_pairs(result, {}) for name, result in results.items()}
    wanted = {each for kinds in named.values() for shown in kinds.values() for each in pictures.ids_of(shown)}
    images = pictures.read(source, wanted) if source is not None else {}
    for name, result in results.items():
        blocks.append(_album(name, pictures.result_pairs(result, images), unfolded=not blocks))
    intro = (
        "Pairs on the wrong side of the threshold, the most wrong first, each image in one pair only. Of test images "
        "the threshold is the one that is the most accurate for these very pairs; of a result it is its own."
    )
    return Section("pairs", "Pairs taken wrongly", intro, blocks)


def _groups(content: Content) -> Section:
    drawn = []
    by_class: dict[tuple[int, ...], list[Model]] = {}
    for model in content.models:
        by_class.setdefault(tuple(np.unique(model.test["labels"]).tolist()), []).append(model)
    for labels, models in by_class.items():
        names = [models[0].class_name(label) for label in labels]
        series = [(m.name, [m.figures.number(f"accuracy, class {label}") for label in labels]) for m in models]
        drawn.append(charts.errors("Error by class", "class", names, series))
    drawn += measured.group_errors(content.measured)
    return Section(
        "groups", "Errors by group", "Bars show the intervals where there are any.", [Charts(drawn)] if drawn else []
    )


def _training(models: Sequence[Model]) -> Section:
    keys = list(dict.fromkeys(key for model in models for row in model.log for key in row if key != "step"))
    drawn = [charts.log(key, models) for key in keys]
    return Section("training", "Training", "Loss and diagnostics by optimiser step.", [Charts(drawn)] if drawn else [])


def _origins(content: Content) -> Section:
    blocks: list[Any] = []
    for each in content.comparisons:
        whole = recipes.load(each.folder / RECIPE)  # with what has not ended too
        blocks.append(Folded(f"Recipe of the comparison {each.recipe.name}", recipes.to_yaml(whole)))
        blocks.append(_values("Environment of the comparison", each.environment))
    compared = {each.recipe.name for each in content.comparisons}
    for model in content.models:
        blocks.append(Folded(f"Recipe of {model.name}", recipes.to_yaml(model.recipe)))
        if model.recipe.name not in compared:
            blocks.append(_values(f"Environment of {model.name}", model.results["environment"]))
    for name, result in content.measured.items():
        blocks.append(_values(f"Choices of {name}", result.choices))
        blocks.append(_values(f"Environment of {name}", result.about))
    return Section("origins", "Recipe and environment", "All that the numbers came from.", blocks)


def _values(caption: str, values: Mapping[str, Any]) -> Table:
    def said(value: Any) -> str:
        if isinstance(value, list):
            return " ".join(redact.command(list(map(str, value))))
        return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)

    return Table(
        caption,
        ["what", "value"],
        [[str(name), said(value)] for name, value in redact.values(dict(values)).items()],
        words=True,
        folded=True,
    )


def _has_pairs(result: Result) -> bool:
    return result.protocol in (pairs.PROTOCOL, videos.PROTOCOL) and "left" in result.samples


def _cell(number: Number, *, percent: bool) -> str:
    scaled = dataclasses.replace(number, value=100 * number.value) if percent else number
    said = f"{scaled.value:.2f}"
    if number.interval is None:
        return said
    low, high = (each * (100 if percent else 1) for each in (number.interval.low, number.interval.high))
    return f"{said} [{low:.2f}, {high:.2f}]"
