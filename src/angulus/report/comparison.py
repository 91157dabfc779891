"""A comparison as a table, in the terminal and in Markdown, and its pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table
from rich.text import Text

from angulus.core import files
from angulus.core.environment import where
from angulus.evaluation.metrics.intervals import Difference
from angulus.experiments import build
from angulus.experiments import recipe as recipes
from angulus.experiments.claims import GROUPS, accuracy_title, norm_title
from angulus.experiments.compare import Comparison, model_folder, section
from angulus.experiments.measure import load_test
from angulus.experiments.run_files import RECIPE
from angulus.report import analyses, plots, verdict
from angulus.report.tables import NONE, cell, markdown_table, number
from angulus.training.state import CHECKPOINT, load_checkpoint

PICTURES = {
    "features.png": "the 2-D test features, a class a colour",
    "norms.png": "histograms of the feature norm",
    "best-and-worst.png": "the test images with the highest and lowest norms",
}


GENERATED = "NOT A RESULT: made on generated stand-in data"
ALIKE = "all alike"  # instead of ±: seeds whose differences have no spread tell nothing of other seeds
WIDE = 4  # columns of benchmarks in a table of the terminal


@dataclass(frozen=True)
class Section:
    """Columns that stand together: a name, their short heads with their titles, and whether variants are told apart."""

    name: str
    titles: dict[str, str]
    compared: bool = True


def sections(comparison: Comparison) -> list[Section]:
    """The columns of the table in parts that fit a terminal: by quality group, or by benchmark."""
    evaluation = comparison.recipe.evaluation
    if not evaluation.benchmarks:
        accuracy = {name: accuracy_title(name) for name in GROUPS}
        norms = {name: norm_title(name) for name in GROUPS}
        return [Section("test accuracy in %", accuracy), Section("mean feature norm", norms, compared=False)]
    titles = evaluation.titles
    parts = [titles[start : start + WIDE] for start in range(0, len(titles), WIDE)]
    return [Section("benchmarks", {title: title for title in part}) for part in parts]


def columns(comparison: Comparison, *, own: bool = False) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table; of the quality groups by the shared or each model's own split."""
    titles = comparison.recipe.evaluation.titles
    body = [
        [row.variant, *(cell((row.own if own else row.columns)[title], 2) for title in titles)]
        for row in comparison.rows
    ]
    return ["loss", *titles], body


def terminal(comparison: Comparison) -> Group:
    """The comparison for the terminal, each table within 80 columns: the numbers here, and the paper's."""
    tables: list[Table | str] = []
    for part in sections(comparison):
        here = [
            (row.variant, [cell(row.columns[title], 2) for title in part.titles.values()]) for row in comparison.rows
        ]
        tables.append(_table(part.name, list(part.titles), here))
        paper = _paper(comparison, list(part.titles.values()))
        if paper is not None and comparison.recipe.published is not None:
            tables.append(_table(f"{part.name}: {comparison.recipe.published.source}", list(part.titles), paper))
        if (found := differences(comparison, part)) is not None:
            tables.append(_table(f"{part.name}: minus {against(comparison)}, ± 95 %", list(part.titles), found))
    judged = verdict.sentences(comparison)
    words = map(Text, [caption(comparison) + ".", *([""] if judged else []), *judged])
    return Group(*map(Text, [*warning(comparison), comparison.recipe.title, ""]), *tables, *words)


def differences(comparison: Comparison, part: Section) -> list[tuple[str, list[str]]] | None:
    """Each variant's paired difference from the baseline, ± half its interval; None where there is none to tell."""
    grid = section(comparison.recipe)
    others = [row for row in comparison.rows if row.variant != grid.against]
    if len(grid.seeds) < 2 or not others or not part.compared:
        return None
    found = [(row, [comparison.difference(row, title) for title in part.titles.values()]) for row in others]
    return [(row.variant, [shift(each) for each in cells]) for row, cells in found]


def shift(difference: Difference) -> str:
    """A difference with half of its interval, or that there is none."""
    if math.isnan(difference.mean):
        return NONE
    if difference.no_interval:
        return f"{difference.mean:+.2f}, {ALIKE}"
    return f"{difference.mean:+.2f} ± {difference.high - difference.mean:.2f}"


def against(comparison: Comparison) -> str:
    """The variant that the others are compared with."""
    return section(comparison.recipe).against


def warning(comparison: Comparison) -> list[str]:
    """What must stand above the numbers: that they are no result, and which trainings diverged."""
    lines = [GENERATED] if comparison.generated else []
    lines += [f"{place}: {sentence}" for place, sentence in comparison.diverged.items()]
    return [*lines, ""] if lines else []


def _paper(comparison: Comparison, titles: list[str]) -> list[tuple[str, list[str]]] | None:
    """The paper's numbers of some columns, or None where it has none."""
    published = comparison.published
    if not any(title in numbers for numbers in published.values() for title in titles):
        return None
    return [(variant, [number(numbers, title) for title in titles]) for variant, numbers in published.items()]


def _table(title: str, heads: list[str], rows: list[tuple[str, list[str]]]) -> Table:
    table = Table(title=title)
    table.add_column("loss", no_wrap=True)
    for name in heads:
        table.add_column(name, justify="right", no_wrap=True)
    for variant, cells in rows:
        table.add_row(variant, *cells)
    return table


def caption(comparison: Comparison) -> str:
    """How the numbers came about."""
    grid = section(comparison.recipe)
    seeds = f"mean ± standard deviation of {len(grid.seeds)} seeds" if len(grid.seeds) > 1 else "one seed"
    if grid.folds:
        seeds += f", {len(grid.parts)} folds pooled"
    splitter = f"the {grid.quality_split} model" if grid.quality_split else "each model itself"
    if comparison.recipe.evaluation.benchmarks:
        split = any(each.by_quality for each in comparison.recipe.evaluation.benchmarks)
        return f"{seeds}; good and low are split by the norms of {splitter}" if split else seeds
    counts = comparison.rows[0].counts
    return (
        f"{seeds}; low = the {counts['low']:,} of {counts['entire']:,} test images with the smallest feature norms of "
        f"{splitter}"
    )


def markdown(comparison: Comparison) -> str:
    """The comparison as a Markdown page: its table, the paper's numbers, differences, each model's own split, how."""
    recipe = comparison.recipe
    training, environment = recipe.training, comparison.environment
    total = sum(row.seconds for row in comparison.rows)
    parts = [
        f"# {recipe.title}",
        *(f"**{line}**" for line in warning(comparison) if line),
        markdown_table(*columns(comparison)),
        f"{caption(comparison)}.",
        *([" ".join(judged)] if (judged := verdict.sentences(comparison)) else []),
    ]
    if recipe.published is not None:
        parts += [f"## Beside the paper ({recipe.published.source})", markdown_table(*beside_paper(comparison))]
    for part in sections(comparison):
        if (found := differences(comparison, part)) is not None:
            parts += [
                f"## {part.name}: minus {against(comparison)}, seed by seed",
                markdown_table(["loss", *part.titles], [[name, *cells] for name, cells in found]),
                "Mean of the paired differences ± half of its 95 % interval, by Student's t over the seeds; none "
                "where all seeds differ alike.",
            ]
    if not recipe.evaluation.benchmarks:
        parts += ["## Each model's own split", markdown_table(*columns(comparison, own=True))]
    parts += [
        "## How",
        f"Backbone {recipe.backbone.name}, {recipe.backbone.embedding_size}-D features; {training.epochs} epochs over "
        f"all training images, batch {training.batch_size}, {training.optimizer.kind}, lr {training.optimizer.lr:g}, "
        f"{training.schedule.kind} schedule, {training.precision}; seeds {', '.join(map(str, section(recipe).seeds))}. "
        f"{where(environment)}; training took {total:,.0f} s in all. "
        f"angulus {environment['angulus']}, torch {environment['torch']}, Python {environment['python']}.",
    ]
    return "\n\n".join(parts) + "\n"


def write(comparison: Comparison) -> list[Path]:
    """Write `table.md` and the pictures into the comparison's folder; returns the pictures."""
    files.write_text(comparison.folder / "table.md", markdown(comparison))
    recipe, grid = comparison.recipe, section(comparison.recipe)
    folders = {name: model_folder(comparison.folder, grid, name) for name in grid.grid}
    tests = {name: load_test(folder) for name, folder in folders.items()}
    judge = grid.quality_split or next(iter(grid.grid))
    images = build.splits(recipes.load(folders[judge] / RECIPE) if grid.folds else recipe).test
    written = []

    def save(name: str, figure: Figure) -> None:
        path = comparison.folder / "plots" / name
        files.make_folder(path.parent)
        plots.save(figure, path)
        written.append(path)

    if all(test["features"].shape[1] == 2 for test in tests.values()):
        weights = [load_checkpoint(folder / CHECKPOINT)["head"]["weight"] for folder in folders.values()]
        models = [(name, test["features"], test["labels"]) for name, test in tests.items()]
        save("features.png", plots.features_2d(models, images.class_names, [_array(weight) for weight in weights]))
    correct = {name: test["labels"] == test["predictions"] for name, test in tests.items()}
    save("norms.png", plots.norm_histograms([(name, test["norms"], correct[name]) for name, test in tests.items()]))
    test = tests[judge]
    title = f"{judge}: test images by feature norm (label, or label → wrong prediction)"
    shown = _extremes(test["norms"])
    pixels = images.pixels[torch.from_numpy(shown)]
    if pixels.ndim == 5:  # of a volume, its middle slice
        pixels = pixels[:, :, pixels.shape[2] // 2]
    norms, labels, predictions = (test[key][shown] for key in ("norms", "labels", "predictions"))
    picture = plots.best_and_worst(pixels.numpy(), norms, labels, predictions, title)
    save("best-and-worst.png", picture)
    return written + analyses.write(comparison)


def _extremes(norms: np.ndarray, count: int = 12) -> np.ndarray:
    """The rows of the lowest and the highest norms, `count` of each, rising: pixels of other rows are not read."""
    order = np.argsort(norms, kind="stable")
    return np.unique(np.concatenate([order[:count], order[-count:]]))


def beside_paper(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the paper's numbers beside these, of a recipe that has them."""
    head, body = ["loss"], [[row.variant] for row in comparison.rows]
    for part in sections(comparison):
        titles = list(part.titles.values())
        paper = _paper(comparison, titles)
        if paper is not None:
            head += [f"{title}: {where}" for where in ("paper", "here") for title in titles]
            for cells, row, (_, numbers) in zip(body, comparison.rows, paper, strict=True):
                cells += [*numbers, *(cell(row.columns[title], 2) for title in titles)]
    return head, body


def _array(weight: torch.Tensor) -> np.ndarray:
    return weight.float().numpy()
