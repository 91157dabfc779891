"""A comparison as a table, in the terminal and in Markdown, and its pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table

from angulus import build, files, plots
from angulus.compare import GROUPS, Cell, Comparison, Row, load_test, run_folder, section
from angulus.training import checkpoint

PICTURES = {
    "features.png": "the 2-D test features, a class a colour",
    "norms.png": "histograms of the feature norm",
    "best-and-worst.png": "the test images with the highest and lowest norms",
}


def cell(value: Cell, digits: int) -> str:
    """Mean ± deviation over seeds; the mean alone for one seed.

    >>> cell(Cell([99.0, 99.2]), 2), cell(Cell([99.0]), 2)
    ('99.10 ± 0.14', '99.00')
    """
    deviation = "" if math.isnan(value.deviation) else f" ± {value.deviation:.{digits}f}"
    return f"{value.mean:.{digits}f}{deviation}"


def columns(comparison: Comparison, *, own: bool = False) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table: accuracy in % by quality group, then mean norms; by the shared or its own split."""
    accuracy, norm = ("own_accuracy", "own_mean_norm") if own else ("accuracy", "mean_norm")
    head = ["loss", *(f"accuracy {name} %" for name in GROUPS), *(f"norm {name}" for name in GROUPS)]
    body = [
        [row.variant, *(cell(getattr(row, quantity)[name], 2) for quantity in (accuracy, norm) for name in GROUPS)]
        for row in comparison.rows
    ]
    return head, body


def terminal(comparison: Comparison) -> Group:
    """The comparison for the terminal, each table within 80 columns: accuracy, norms, and the paper's numbers."""
    published = comparison.recipe.published
    tables = []
    for title, quantity in (("test accuracy in %", "accuracy"), ("mean feature norm", "mean_norm")):
        tables.append(_table(title, [(row.variant, _cells(row, quantity)) for row in comparison.rows]))
        paper = getattr(published, quantity, None)
        if published is not None and paper:
            rows = [(row.variant, [_number(paper.get(row.variant, {}), n) for n in GROUPS]) for row in comparison.rows]
            tables.append(_table(f"{title}: {published.source}", rows))
    return Group(comparison.recipe.title, "", *tables, caption(comparison))


def _cells(row: Row, quantity: str) -> list[str]:
    return [cell(getattr(row, quantity)[name], 2) for name in GROUPS]


def _table(title: str, rows: list[tuple[str, list[str]]]) -> Table:
    table = Table(title=title)
    table.add_column("loss", no_wrap=True)
    for name in GROUPS:
        table.add_column(name, justify="right", no_wrap=True)
    for variant, cells in rows:
        table.add_row(variant, *cells)
    return table


def caption(comparison: Comparison) -> str:
    """How the numbers came about."""
    grid = section(comparison.recipe)
    counts = comparison.rows[0].counts
    splitter = f"the {grid.quality_split} model" if grid.quality_split else "each model itself"
    seeds = f"mean ± standard deviation of {len(grid.seeds)} seeds" if len(grid.seeds) > 1 else "one seed"
    return (
        f"{seeds}; low = the {counts['low']:,} of {counts['entire']:,} test images with the smallest feature norms of "
        f"{splitter}"
    )


def markdown(comparison: Comparison) -> str:
    """The comparison as a Markdown page: its table, the paper's numbers, each model's own split, the environment."""
    recipe = comparison.recipe
    training, environment = recipe.training, comparison.environment
    total = sum(row.seconds for row in comparison.rows)
    parts = [
        f"# {recipe.title}",
        _markdown_table(*columns(comparison)),
        f"{caption(comparison)}.",
    ]
    if recipe.published is not None:
        parts += [f"## Beside the paper ({recipe.published.source})", _markdown_table(*beside_paper(comparison))]
    parts += ["## Each model's own split", _markdown_table(*columns(comparison, own=True))]
    parts += [
        "## How",
        f"Backbone {recipe.backbone.name}, {recipe.backbone.embedding_size}-D features; {training.epochs} epochs over "
        f"all training images, batch {training.batch_size}, {training.optimizer.kind}, lr {training.optimizer.lr:g}, "
        f"{training.schedule.kind} schedule, {training.precision}; seeds {', '.join(map(str, section(recipe).seeds))}. "
        f"{environment['device']}, {environment['threads']} threads; training took {total:,.0f} s in all. "
        f"angulus {environment['angulus']}, torch {environment['torch']}, Python {environment['python']}.",
    ]
    return "\n\n".join(parts) + "\n"


def write(comparison: Comparison) -> list[Path]:
    """Write `table.md` and the pictures into the comparison's folder; returns the pictures."""
    files.write_text(comparison.folder / "table.md", markdown(comparison))
    recipe, grid = comparison.recipe, section(comparison.recipe)
    seed = grid.seeds[0]
    folders = {name: run_folder(comparison.folder, name, seed) for name in grid.variants}
    tests = {name: load_test(folder) for name, folder in folders.items()}
    images = build.splits(recipe).test
    written = []

    def save(name: str, figure: Figure) -> None:
        path = comparison.folder / "plots" / name
        files.make_folder(path.parent)
        plots.save(figure, path)
        written.append(path)

    if all(test["features"].shape[1] == 2 for test in tests.values()):
        weights = [checkpoint.load(folder / checkpoint.NAME)["head"]["weight"] for folder in folders.values()]
        models = [(name, test["features"], test["labels"]) for name, test in tests.items()]
        save("features.png", plots.features_2d(models, images.class_names, [_array(weight) for weight in weights]))
    correct = {name: test["labels"] == test["predictions"] for name, test in tests.items()}
    save("norms.png", plots.norm_histograms([(name, test["norms"], correct[name]) for name, test in tests.items()]))
    judge = grid.quality_split or next(iter(grid.variants))
    test = tests[judge]
    title = f"{judge}: test images by feature norm (label, or label → wrong prediction)"
    pixels = images.pixels.numpy()
    picture = plots.best_and_worst(pixels, test["norms"], test["labels"], test["predictions"], title)
    save("best-and-worst.png", picture)
    return written


def beside_paper(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the paper's numbers beside these, of a recipe that has them."""
    published = comparison.recipe.published
    assert published is not None
    head, body = ["loss"], [[row.variant] for row in comparison.rows]
    for unit, quantity in (("%", "accuracy"), ("norm", "mean_norm")):
        paper = getattr(published, quantity)
        if paper:
            head += [f"{name} {unit}: {where}" for where in ("paper", "here") for name in GROUPS]
            for cells, row in zip(body, comparison.rows, strict=True):
                cells += [_number(paper.get(row.variant, {}), name) for name in GROUPS]
                cells += [cell(getattr(row, quantity)[name], 2) for name in GROUPS]
    return head, body


def _number(values: Mapping[str, float], name: str) -> str:
    return f"{values[name]:.2f}" if name in values else "—"


def _markdown_table(head: list[str], body: list[list[str]]) -> str:
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _array(weight: torch.Tensor) -> np.ndarray:
    return weight.float().numpy()
