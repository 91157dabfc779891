"""What a recipe's `compare.analyses` asks for: closer looks at its runs, as pictures and tables in `analyses/`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from angulus.core import files
from angulus.evaluation.metrics import image_quality
from angulus.evaluation.protocols.classification import Predictions
from angulus.evaluation.protocols.quality import evaluate_changes
from angulus.evaluation.protocols.result import Result
from angulus.experiments import recipe as recipes
from angulus.experiments.compare import Cell, Comparison, model_folder, run_folder, section
from angulus.experiments.measure import BENCHMARKS, MODEL, load_test
from angulus.experiments.run_files import RECIPE
from angulus.heads.dense import DenseHead
from angulus.models import artifact
from angulus.report import drawn, plots
from angulus.report.tables import markdown_table
from angulus.training.log import METRICS, read_lines
from angulus.training.state import CHECKPOINT, load_checkpoint

FOLDER = "analyses"
SHOWN_PAIRS = 200  # of videos, in NF Fig. 9

Test = dict[str, np.ndarray]


def write(comparison: Comparison) -> list[Path]:
    """Write what the recipe asks for into `analyses/`; returns the files. Of each variant, the first seed is shown."""
    written = []
    for name in section(comparison.recipe).analyses:
        for file, content in TABLE[name](comparison):
            path = comparison.folder / FOLDER / file
            files.make_folder(path.parent)
            if isinstance(content, str):
                files.write_text(path, content)
            else:
                plots.save(content, path)
            written.append(path)
    return written


def _folders(comparison: Comparison) -> dict[str, Path]:
    grid = section(comparison.recipe)
    return {name: model_folder(comparison.folder, grid, name) for name in grid.grid}


def _tests(comparison: Comparison) -> dict[str, Test]:
    return {name: load_test(folder) for name, folder in _folders(comparison).items()}


def _norm_bins(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    models = []
    for name, test in _tests(comparison).items():
        found = image_quality.norm_bins(test["norms"], test["labels"] == test["predictions"], edges="width")
        models.append((name, found))
    yield "norm-bins.png", drawn.norm_bins(models)


def _per_class(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    tests = _tests(comparison)
    labels = next(iter(tests.values()))["labels"]
    classes = np.unique(labels)

    def by_class(values: Callable[[Test], np.ndarray]) -> dict[str, list[float]]:
        return {name: [float(values(test)[labels == each].mean()) for each in classes] for name, test in tests.items()}

    heads = [str(each) for each in classes]
    norms, correct = by_class(lambda test: test["norms"]), by_class(lambda test: test["labels"] == test["predictions"])
    yield "per-class-norm.png", drawn.bars(heads, norms, title="mean feature norm by class", y_label="norm")
    yield "per-class-accuracy.png", drawn.bars(heads, correct, title="test accuracy by class", y_label="accuracy")


def _changed(comparison: Comparison) -> Iterator[tuple[str, str]]:
    base = section(comparison.recipe).against
    judged = {
        name: Predictions.from_arrays(
            test["labels"], predictions=test["predictions"], norms=test["norms"], source=name
        ).judged()
        for name, test in _tests(comparison).items()
    }
    parts = []
    for name, after in judged.items():
        if name != base:
            found = evaluate_changes(judged[base], after, draws=0)
            values = {number.name: number.value for number in found.numbers}
            body = []
            for kind in ("right before", "wrong before", "right after", "wrong after", "fixed", "broken"):
                norms = [values.get(f"mean norm {when}, {kind}") for when in ("before", "after")]
                cells = ["—" if norm is None else f"{norm:.2f}" for norm in norms]
                body.append([kind, f"{found.counts[kind]:,}", *cells])
            head = ["samples", "count", f"mean norm, {base}", f"mean norm, {name}"]
            parts.append(f"## {base} (before) and {name} (after)\n\n{markdown_table(head, body)}")
    yield "changed.md", "# Who changed\n\n" + "\n\n".join(parts) + "\n"


def _weight_histograms(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    models = []
    for number, (name, folder) in enumerate(_folders(comparison).items()):
        trained = artifact.load(folder / MODEL)
        if not number:
            torch.manual_seed(section(comparison.recipe).seeds[0])
            models.append(("before training", _layers(trained.config.build())))
        models.append((name, _layers(trained.backbone)))
    yield "weights.png", drawn.weight_histograms(models)


def _layers(network: torch.nn.Module) -> dict[str, np.ndarray]:
    """The weights of the first, middle and last layers that multiply."""
    found = {
        name: parameter.detach().numpy().ravel() for name, parameter in network.named_parameters() if parameter.ndim > 1
    }
    chosen = sorted({0, len(found) // 2, len(found) - 1})
    return {list(found)[place]: list(found.values())[place] for place in chosen}


def _curves(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    rows = {name: read_lines(folder / METRICS) for name, folder in _folders(comparison).items()}
    for prefix, whose in (("", "of the training batches"), ("test_", "of the test images")):
        for key, label in (("loss", "loss"), ("norm", "mean feature norm"), ("accuracy", "accuracy")):
            lines = {}
            for name, some in rows.items():
                found = [row for row in some if prefix + key in row]
                lines[name] = np.array([row["step"] for row in found]), np.array([row[prefix + key] for row in found])
            if any(len(steps) for steps, _ in lines.values()):
                figure = drawn.lines(lines, title=f"{label} {whose}", x_label="step", y_label=label)
                yield f"curve-{prefix.replace('_', '-')}{key}.png", figure


def _loss_by_epoch(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    lines = {}
    for name, folder in _folders(comparison).items():
        rows = [row for row in read_lines(folder / METRICS) if "loss" in row]  # others are of measurings between
        epochs = recipes.load(folder / RECIPE).training.epochs
        losses = defaultdict(list)
        for row in rows:
            losses[1 + (row["step"] - 1) * epochs // rows[-1]["step"]].append(row["loss"])
        lines[name] = np.array(list(losses)), np.array([np.mean(each) for each in losses.values()])
    yield "loss-by-epoch.png", drawn.lines(lines, title="mean logged loss of an epoch", x_label="epoch", y_label="loss")


def _sweep(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    recipe = comparison.recipe
    columns = {row.variant: row.columns for row in comparison.rows}
    for path in section(recipe).sweep:
        for number, title in enumerate(recipe.evaluation.titles):
            points: dict[str, list[tuple[float, float]]] = defaultdict(list)
            for point in section(recipe).points:
                rest = [f"{key}={value}" for key, value in point.values.items() if key != path]
                label = ", ".join([point.variant or recipe.name, *rest])
                points[label].append((float(point.values[path]), Cell(columns[point.name][title].values).mean))
            lines = {name: tuple(map(np.array, zip(*sorted(some), strict=True))) for name, some in points.items()}
            key = path.rsplit(".", 1)[-1]
            figure = drawn.lines(lines, title=recipe.title, x_label=key, y_label=title, marker="o")  # type: ignore[arg-type]
            yield f"sweep-{key}-{number}.png", figure


def _results(comparison: Comparison) -> Iterator[tuple[str, str, Result]]:
    """(benchmark, variant, result) of every saved result."""
    grid = section(comparison.recipe)
    for benchmark in comparison.recipe.evaluation.benchmarks:
        for name in grid.grid:
            folder = run_folder(comparison.folder, name, grid.seeds[0])
            yield benchmark.name, name, Result.read(folder / BENCHMARKS / f"{benchmark.name}.json")


def _result_curves(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    found: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for benchmark, name, result in _results(comparison):
        last = {curve.kind: curve for curve in result.curves}  # of several of a kind, that of all distractors
        for kind, curve in last.items():
            found[benchmark, kind].append((name, curve.x, curve.y))
    for (benchmark, kind), lines in found.items():
        yield f"{benchmark}-{kind}.png", plots.result_curve(kind, lines, title=benchmark)


def _probability_map(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    for name, folder in _folders(comparison).items():
        features = load_test(folder)["features"]
        if features.shape[1] == 2:
            state = load_checkpoint(folder / CHECKPOINT)["head"]
            objective = recipes.load(folder / RECIPE).objective
            head = DenseHead(2, len(state["weight"]), objective)
            head.load_state_dict(state)
            reach = float(np.abs(features).max()) * 1.05
            axis = torch.linspace(-reach, reach, 201)
            points = torch.cartesian_prod(axis, axis)
            with torch.no_grad():
                share = torch.softmax(head.eval().logits(points), dim=1)[:, 0].reshape(201, 201).T
            figure = drawn.probability_map(axis.numpy(), share.numpy(), title=f"{name}: probability of class 0")
            yield f"probability-{run_folder(Path(), name, 0).parent.name}.png", figure


def _pair_histograms(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    for benchmark, name, result in _results(comparison):
        if "histograms" in result.samples:
            same = result.samples["same"]
            chosen = np.concatenate([np.flatnonzero(same)[:SHOWN_PAIRS], np.flatnonzero(~same)[:SHOWN_PAIRS]])
            histograms = result.samples["histograms"][chosen]
            figure = drawn.pair_histograms(histograms, same[chosen], title=f"{benchmark}, {name}")
            yield f"{benchmark}-{run_folder(Path(), name, 0).parent.name}-histograms.png", figure


TABLE: dict[str, Callable[[Comparison], Iterator[tuple[str, Any]]]] = {
    "norm_bins": _norm_bins,
    "per_class": _per_class,
    "changed": _changed,
    "weight_histograms": _weight_histograms,
    "curves": _curves,
    "loss_by_epoch": _loss_by_epoch,
    "sweep": _sweep,
    "result_curves": _result_curves,
    "probability_map": _probability_map,
    "pair_histograms": _pair_histograms,
}
