"""What a comparison writes into its folder: `table.md`, `plots/`, and in `analyses/` what its recipe asks for.

Of each variant, the charts show the model of the first seed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from angulus.core import files
from angulus.data.sets.images import Splits
from angulus.evaluation.metrics import image_quality
from angulus.evaluation.protocols import scored
from angulus.evaluation.protocols.classification import Predictions
from angulus.evaluation.protocols.quality import evaluate_changes
from angulus.evaluation.protocols.result import Result
from angulus.experiments import build
from angulus.experiments import recipe as recipes
from angulus.experiments.compare import Cell, Comparison, model_folder, run_folder, section
from angulus.experiments.measure import BENCHMARKS, MODEL, load_test
from angulus.experiments.run_files import RECIPE
from angulus.heads.dense import DenseHead
from angulus.models import artifact
from angulus.report import charts, render_png
from angulus.report.chart import Chart, Panels
from angulus.report.error_curves import error_curves
from angulus.report.feature_chart import DRAWN, class_features
from angulus.report.summary_section import comparison_dots
from angulus.report.tables import NONE, cell, markdown_table, to_markdown
from angulus.training.log import METRICS, read_lines
from angulus.training.state import CHECKPOINT, class_rows, load_checkpoint, saved_weights

FOLDER = "analyses"
SHOWN_PAIRS = 200  # of videos, in NF Fig. 9
SHOWN_IMAGES = 10_000  # of those trained on, as in NF Fig. 2 and IAM Fig. 2

Test = dict[str, np.ndarray]


def write_comparison(comparison: Comparison) -> list[Path]:
    """Write the table, the charts and the analyses into the comparison's folder; returns the charts and analyses."""
    files.write_text(comparison.folder / "table.md", to_markdown(comparison))
    return _write_plots(comparison) + _write_analyses(comparison)


def _write_plots(comparison: Comparison) -> list[Path]:
    grid, folder = section(comparison.recipe), comparison.folder / "plots"
    folders, tests = _folders(comparison), _tests(comparison)
    splitter = grid.quality_split or next(iter(grid.grid))
    images = _images(folders[splitter]).test
    files.make_folder(folder)
    written = []
    if (dots := comparison_dots(comparison)) is not None:
        written.append(folder / "conclusion.png")
        render_png.render_png(dots, written[-1])
    if all(test["features"].shape[1] in DRAWN for test in tests.values()):
        points = [
            class_features(name, test["features"], test["labels"], images.class_names, _class_weights(folders[name]))
            for name, test in tests.items()
        ]
        written.append(folder / "features.png")
        render_png.render_png(Panels(points, legend="class"), written[-1])
    correct = {name: test["labels"] == test["predictions"] for name, test in tests.items()}
    written.append(folder / "norms.png")
    histograms = [charts.norm_histogram(name, test["norms"], correct[name]) for name, test in tests.items()]
    render_png.render_png(Panels(histograms), written[-1])
    test = tests[splitter]
    order = np.argsort(test["norms"], kind="stable")
    rows = np.unique(np.concatenate([order[:12], order[-12:]]))  # pixels of other rows are not read
    pixels = images.pixels[torch.from_numpy(rows)]
    if pixels.ndim == 5:  # of a volume, its middle slice
        pixels = pixels[:, :, pixels.shape[2] // 2]
    norms, labels, predictions = (test[key][rows] for key in ("norms", "labels", "predictions"))
    title = f"{splitter}: test images by feature norm (label, or label → wrong prediction)"
    written.append(folder / "best-and-worst.png")
    render_png.save(render_png.draw_extremes(pixels.numpy(), norms, labels, predictions, title), written[-1])
    return written


def _write_analyses(comparison: Comparison) -> list[Path]:
    written = []
    for name in section(comparison.recipe).analyses:
        for file, content in ANALYSES[name](comparison):
            path = comparison.folder / FOLDER / file
            files.make_folder(path.parent)
            if isinstance(content, str):
                files.write_text(path, content)
            else:
                render_png.render_png(content, path)
            written.append(path)
    return written


def _folders(comparison: Comparison) -> dict[str, Path]:
    grid = section(comparison.recipe)
    return {name: model_folder(comparison.folder, grid, name) for name in grid.grid}


def _images(folder: Path) -> Splits:
    """What the run in a folder trained and tested on."""
    recipe = recipes.stored(folder / RECIPE)
    return build.hold_out(recipe, build.splits(recipe))[0]


def _class_weights(folder: Path) -> np.ndarray:
    return class_rows(load_checkpoint(folder / CHECKPOINT), folder)["weight"].float().numpy()


def _tests(comparison: Comparison) -> dict[str, Test]:
    return {name: load_test(folder) for name, folder in _folders(comparison).items()}


def _norm_bins(comparison: Comparison) -> Iterator[tuple[str, Panels]]:
    bins = [
        charts.norm_bins(name, test["norms"], test["labels"] == test["predictions"])
        for name, test in _tests(comparison).items()
    ]
    yield "norm-bins.png", Panels(bins, columns=2, size=(5.0, 3.4))


def _per_class(comparison: Comparison) -> Iterator[tuple[str, Chart]]:
    tests = _tests(comparison)
    labels = next(iter(tests.values()))["labels"]
    classes = np.unique(labels)

    def by_class(values: Callable[[Test], np.ndarray]) -> dict[str, list[float]]:
        return {name: [float(values(test)[labels == c].mean()) for c in classes] for name, test in tests.items()}

    names = [str(label) for label in classes]
    norms, correct = by_class(lambda test: test["norms"]), by_class(lambda test: test["labels"] == test["predictions"])
    yield "per-class-norm.png", charts.bars(names, norms, title="mean feature norm by class", y_label="norm")
    yield "per-class-accuracy.png", charts.bars(names, correct, title="test accuracy by class", y_label="accuracy")


def _image_norms(comparison: Comparison) -> Iterator[tuple[str, str]]:
    grid, fraction = section(comparison.recipe), comparison.recipe.evaluation.low_fraction
    low, body = np.empty(0, bool), []
    for name in grid.grid:
        by_seed = []
        for folder in (run_folder(comparison.folder, name, seed) for seed in grid.seeds):
            test, images = load_test(folder), _images(folder).test
            parts = torch.split(torch.arange(len(images)), 1000)
            ink = np.concatenate([images.pixels[rows].double().flatten(1).norm(dim=1).numpy() for rows in parts])
            low = image_quality.low_quality(ink, fraction)
            right = test["labels"] == test["predictions"]
            shares = [
                100 * np.sum(~right[group]) / np.sum(~right) if not right.all() else float("nan")
                for group in (low, image_quality.low_quality(test["norms"], fraction))
            ]
            accuracies = [100 * right[group].mean() for group in (~low, low)]
            by_seed.append([*accuracies, *shares, np.corrcoef(ink, test["norms"])[0, 1]])
        columns = zip(np.transpose(by_seed), (2, 2, 0, 0, 2), strict=True)
        body.append([name, *(cell(Cell(column.tolist()), digits) for column, digits in columns)])
    head = ["accuracy good %", "accuracy low %", "errors on low images %", "the same, by feature norms", "correlation"]
    words = (
        f"Low are the {low.sum():,} of {len(low):,} test images whose own norm, the root of the sum of squared pixels, "
        "is smallest. The last column is the correlation of that norm with the feature norm."
    )
    table = markdown_table(["loss", *head], body)
    yield "image-norms.md", f"# Quality by the norm of the image\n\n{words}\n\n{table}\n"


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
        if name == base:
            continue
        result = evaluate_changes(judged[base], after, draws=0)
        values = {number.name: number.value for number in result.numbers}
        rows = []
        for group in ("right before", "wrong before", "right after", "wrong after", "fixed", "broken"):
            norms = [values.get(f"mean norm {when}, {group}") for when in ("before", "after")]
            cells = [NONE if norm is None else f"{norm:.2f}" for norm in norms]
            rows.append([group, f"{result.counts[group]:,}", *cells])
        head = ["samples", "count", f"mean norm, {base}", f"mean norm, {name}"]
        parts.append(f"## {base} (before) and {name} (after)\n\n{markdown_table(head, rows)}")
    yield "changed.md", "# Samples that changed\n\n" + "\n\n".join(parts) + "\n"


def _weight_histograms(comparison: Comparison) -> Iterator[tuple[str, Panels]]:
    models = []
    for number, (name, folder) in enumerate(_folders(comparison).items()):
        trained = artifact.load(folder / MODEL)
        if not number:
            torch.manual_seed(section(comparison.recipe).seeds[0])
            models.append(("before training", _layers(trained.config.build())))
        models.append((name, _layers(trained.backbone)))
    yield "weights.png", charts.weight_histograms(models)


def _layers(network: torch.nn.Module) -> dict[str, np.ndarray]:
    """The weights of the first, middle and last layers that multiply."""
    weights = [(name, weight) for name, weight in network.named_parameters() if weight.ndim > 1]
    chosen = [weights[place] for place in sorted({0, len(weights) // 2, len(weights) - 1})]
    return {name: weight.detach().numpy().ravel() for name, weight in chosen}


def _curves(comparison: Comparison) -> Iterator[tuple[str, Chart]]:
    logs = {name: read_lines(folder / METRICS) for name, folder in _folders(comparison).items()}
    for prefix, source in (("", "of the training batches"), ("test_", "of the test images")):
        for key, label in (("loss", "loss"), ("norm", "mean feature norm"), ("accuracy", "accuracy")):
            logged = {name: [row for row in rows if prefix + key in row] for name, rows in logs.items()}
            lines = {
                name: (np.array([row["step"] for row in rows]), np.array([row[prefix + key] for row in rows]))
                for name, rows in logged.items()
            }
            if any(logged.values()):
                chart = charts.lines(lines, title=f"{label} {source}", x_label="step", y_label=label)
                yield f"curve-{prefix.replace('_', '-')}{key}.png", chart


def _loss_by_epoch(comparison: Comparison) -> Iterator[tuple[str, Chart]]:
    lines = {}
    for name, folder in _folders(comparison).items():
        rows = [row for row in read_lines(folder / METRICS) if "loss" in row]  # others hold measurements only
        epochs = recipes.stored(folder / RECIPE).training.epochs
        losses = defaultdict(list)
        for row in rows:
            losses[1 + (row["step"] - 1) * epochs // rows[-1]["step"]].append(row["loss"])
        lines[name] = np.array(list(losses)), np.array([np.mean(of_epoch) for of_epoch in losses.values()])
    yield "loss-by-epoch.png", charts.lines(lines, title="mean logged loss per epoch", x_label="epoch", y_label="loss")


def _sweep(comparison: Comparison) -> Iterator[tuple[str, Chart]]:
    recipe = comparison.recipe
    columns = {row.variant: row.columns for row in comparison.rows}
    for path in section(recipe).sweep:
        for number, title in enumerate(recipe.evaluation.titles):
            points: dict[str, list[tuple[float, float]]] = defaultdict(list)
            for point in section(recipe).points:
                rest = [f"{key}={value}" for key, value in point.values.items() if key != path]
                label = ", ".join([point.variant or recipe.name, *rest])
                points[label].append((float(point.values[path]), Cell(columns[point.name][title].values).mean))
            lines = {}
            for name, unordered in points.items():
                x, y = np.array(sorted(unordered)).T
                lines[name] = x, y
            key = path.rsplit(".", 1)[-1]
            chart = charts.lines(lines, title=recipe.title, x_label=key, y_label=title, symbol=True)
            yield f"sweep-{key}-{number}.png", chart


def _results(comparison: Comparison) -> Iterator[tuple[str, str, Result]]:
    """(benchmark, variant, result) of every saved result."""
    grid = section(comparison.recipe)
    for benchmark in comparison.recipe.evaluation.benchmarks:
        for name in grid.grid:
            folder = run_folder(comparison.folder, name, grid.seeds[0])
            yield benchmark.name, name, Result.read(folder / BENCHMARKS / f"{benchmark.name}.json")


def _result_curves(comparison: Comparison) -> Iterator[tuple[str, Chart]]:
    lines: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for benchmark, name, result in _results(comparison):
        last = {curve.kind: curve for curve in result.curves}  # of several of one kind, the one with all distractors
        for kind, curve in last.items():
            lines[benchmark, kind].append((name, curve.x, curve.y))
    for (benchmark, kind), curves in lines.items():
        yield f"{benchmark}-{kind}.png", error_curves(kind, curves, title=benchmark)


def _probability_map(comparison: Comparison) -> Iterator[tuple[str, Chart]]:
    for name, folder in _folders(comparison).items():
        features = load_test(folder)["features"]
        if features.shape[1] == 2:
            state = saved_weights(load_checkpoint(folder / CHECKPOINT), "head")
            objective = recipes.stored(folder / RECIPE).objective
            if objective.needs_counts:  # by margins, which logits have none of: any counts will do
                objective = objective.with_counts(range(1, len(state["weight"]) + 1))
            head = DenseHead(2, len(state["weight"]), objective)
            head.load_state_dict(state)
            reach = float(np.abs(features).max()) * 1.05
            axis = torch.linspace(-reach, reach, 201)
            points = torch.cartesian_prod(axis, axis)
            with torch.no_grad():
                first = torch.softmax(head.eval().logits(points), dim=1)[:, 0].reshape(201, 201).T
            chart = charts.probability_map(axis.numpy(), first.numpy(), title=f"{name}: probability of class 0")
            yield f"probability-{_file_name(name)}.png", chart


def _training_features(comparison: Comparison) -> Iterator[tuple[str, Panels]]:
    points = []
    for name, folder in _folders(comparison).items():
        if load_test(folder)["features"].shape[1] not in DRAWN:
            continue
        model, images = artifact.load(folder / MODEL).with_flip("none"), _images(folder).train
        shown = np.linspace(0, len(images) - 1, min(len(images), SHOWN_IMAGES))
        rows = torch.from_numpy(shown.round().astype(np.int64))
        features = torch.cat([model.embed(images.pixels[part]) for part in torch.split(rows, 500)])
        labels = images.labels[rows].numpy()
        points.append(class_features(name, features.numpy(), labels, images.class_names, _class_weights(folder)))
    if points:
        yield "training-features.png", Panels(points, legend="class")


def _pair_histograms(comparison: Comparison) -> Iterator[tuple[str, Chart]]:
    for benchmark, name, result in _results(comparison):
        if "histograms" in result.samples:
            samples = scored.without_failures(result.samples)
            same = samples["same"]
            rows = np.concatenate([np.flatnonzero(same)[:SHOWN_PAIRS], np.flatnonzero(~same)[:SHOWN_PAIRS]])
            histograms = samples["histograms"][rows]
            chart = charts.pair_histograms(histograms, same[rows], title=f"{benchmark}, {name}")
            yield f"{benchmark}-{_file_name(name)}-histograms.png", chart


def _file_name(variant: str) -> str:
    """The variant as its folder names it."""
    return run_folder(Path(), variant, 0).parent.name


ANALYSES: dict[str, Callable[[Comparison], Iterator[tuple[str, Any]]]] = {
    "norm_bins": _norm_bins,
    "per_class": _per_class,
    "image_norms": _image_norms,
    "changed": _changed,
    "weight_histograms": _weight_histograms,
    "curves": _curves,
    "loss_by_epoch": _loss_by_epoch,
    "sweep": _sweep,
    "result_curves": _result_curves,
    "probability_map": _probability_map,
    "training_features": _training_features,
    "pair_histograms": _pair_histograms,
}
