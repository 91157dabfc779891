"""`angulus train`: one recipe, on one process or under torchrun."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console

from angulus.cli.engine import TimeoutS
from angulus.cli.output import Plugins, say
from angulus.core import extras
from angulus.core.checks import InputError

if TYPE_CHECKING:
    from angulus.experiments.benchmark import Benchmark
    from angulus.experiments.recipe import Recipe

GROUP_NOTES = {"good": " (the others)", "low": " (the smallest feature norms)"}


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe: a file, or the name of a shipped one.")],
    overrides: Annotated[Optional[list[str]], typer.Argument(help="Changes to the recipe, key.path=value.")] = None,  # noqa: UP045
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", help="Folder for the results; by default runs/NAME-seed-N, or the next that is free."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the folder; without --out, the newest.")
    ] = False,
    auto_resume: Annotated[
        bool,
        typer.Option(
            "--auto-resume",
            help="Start the run in --out, or continue it if there is one: for a job that is started again by itself.",
        ),
    ] = False,
    plugin: Plugins = None,
    timeout_s: TimeoutS = 600.0,
) -> None:
    """Train a recipe and evaluate it on its test images; under torchrun, on all processes together."""
    from angulus.cli import progress
    from angulus.distributed import launch
    from angulus.experiments import plugins
    from angulus.experiments import recipe as recipes
    from angulus.experiments.run import run
    from angulus.experiments.run_files import choose_folder

    with launch.process_group(timeout_s) as ranks:
        loaded = ranks.run_on_all(lambda: recipes.load(recipe, overrides or [], plugins.load(plugin or [])))
        default = recipes.default_folder(loaded, overrides or [])
        default = default.with_name(f"{default.name}-seed-{loaded.training.seed}")
        digests = plugins.digests(loaded.plugins)
        ranks.agree(
            recipe=recipes.to_yaml(loaded), out=str(out or default), resume=(resume, auto_resume), plugins=digests
        )
        resume = ranks.broadcast(lambda: resume or (auto_resume and _holds_run(out)))
        folder = ranks.broadcast(lambda: out or choose_folder(default, resume))
        started = False

        def on_start() -> None:
            nonlocal started
            started = True
            say(f"Training {loaded.name} in {folder}/")

        if ranks.rank == 0:
            with progress.bar(Console(stderr=True)) as bar:
                results = run(loaded, folder, resume=resume, on_step=bar.on_step, on_start=on_start)
        else:
            run(loaded, folder, resume=resume)
    if launch.reports():
        if resume and not started:
            say(
                f"The run in {folder}/ is complete, so nothing was trained. These are its results; for another run, "
                "choose another --out"
            )
        _show_results(loaded, results, folder)


def _holds_run(out: Path | None) -> bool:
    from angulus.experiments.run_files import holds_run

    if out is None:
        raise InputError("--auto-resume needs --out, so that a job that starts again finds its run; add --out FOLDER")
    return holds_run(out)


def _show_results(recipe: Recipe, results: dict[str, Any], folder: Path) -> None:
    from angulus.experiments.measure import MODEL
    from angulus.experiments.run_files import DIVERGED

    if DIVERGED in results:
        Console().print(results[DIVERGED], style="red", highlight=False, markup=False, soft_wrap=True)
    say(f"test accuracy {100 * results['accuracy']:.2f} %")
    for name, group in results["own_split"].items():
        say(
            f"  {name:<6} {group['count']:>7,} images, accuracy {100 * group['accuracy']:.2f} %, "
            f"mean norm {group['mean_norm']:.2f}" + GROUP_NOTES.get(name, "")
        )
    for benchmark in recipe.evaluation.benchmarks:
        numbers = results["benchmarks"][benchmark.name]["numbers"]
        for title in benchmark.columns:
            say(f"{benchmark.name}: {title} {_figure(benchmark, title, numbers)}")
    if importlib.util.find_spec("tensorboard") is None:
        say(extras.missing("tensorboard", f"Next to {folder}/metrics.jsonl, a log for TensorBoard", "tensorboard"))
    plugins = "".join(f" --plugin {name}" for name in recipe.plugins)
    say(f"The run is in {folder}/, its model in {folder / MODEL}/; for a report: angulus report {folder}{plugins}")


def _figure(benchmark: Benchmark, title: str, numbers: dict[str, Any]) -> str:
    """A column's number, with its interval or spread if it has one."""
    name = benchmark.number(title, numbers)
    if name is None or numbers[name]["value"] is None:
        return "undefined" if name is not None else "not measured: the data cannot support it"
    number, scale = numbers[name], benchmark.scale(title)
    text = f"{scale * number['value']:.2f}"
    low, high = number["interval"] or (None, None)
    if low is not None and high is not None:
        text += f" (95 % interval {scale * low:.2f} to {scale * high:.2f})"
    elif number["spread"] is not None:
        text += f" ± {scale * number['spread']:.2f}"
    return text
