"""`angulus demo`, `compare` and `reproduce`: grids of runs, and the papers' tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console
from rich.table import Table

from angulus.cli import progress
from angulus.cli.output import Plugins, say, show_table
from angulus.core import checks, files

if TYPE_CHECKING:
    from angulus.experiments.compare import Comparison

Out = Annotated[Optional[Path], typer.Option("--out", help="Folder for the results.")]  # noqa: UP045  # typer
Overrides = Annotated[Optional[list[str]], typer.Argument(help="Changes to the recipe, key.path=value.")]  # noqa: UP045


def demo(out: Out = None) -> None:
    """Train five losses on real digits, compare them on good and low quality images, and plot their features."""
    folder = out or Path("angulus-demo")
    _compare("demo", folder, [])
    say(
        f"\nTable and plots are in {folder}/: open {folder}/report.html in a browser. "
        f"Try next: angulus train demo objective.kind=arcface objective.s=16 objective.m=0.3 --out {folder}-arcface"
    )


def compare(
    recipe: Annotated[str, typer.Argument(help="A recipe with a compare section: a file, a name, or a row.")],
    overrides: Overrides = None,
    out: Out = None,
    plugin: Plugins = None,
) -> None:
    """Train every variant of a recipe with every seed, or resume that, and print the table."""
    folder = _compare(recipe, out, overrides or [], plugin or [])
    say(f"\nTable, numbers, plots and report.html are in {folder}/")


def reproduce(
    row: Annotated[
        Optional[str],  # noqa: UP045  # typer
        typer.Argument(help="A row of a paper's table, such as CM-T2.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the runs, one folder per recipe.")] = Path("runs"),
    show_list: Annotated[bool, typer.Option("--list", help="List all rows, and which can be run here.")] = False,
    table: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--table", help="Write a page of all rows, published next to measured.", show_default=False),
    ] = None,
    results: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--results",
            help="Folder of comparison.json files; by default docs/results, else runs.",
            show_default=False,
        ),
    ] = None,
    queue: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Work through a file of rows, one per line, in the background.", show_default=False),
    ] = None,
    hours: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="With --queue: stop after so long; the same command resumes. Default: 2.5."),
    ] = None,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="With --queue: CPU threads of each run. Default: 1."),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="With --queue: show how far each row is, and stop.")] = False,
    plugin: Plugins = None,
) -> None:
    """Run a row of a paper's table, or resume it, and print the results next to the paper's."""
    if queue is not None and row is not None:
        raise checks.InputError(
            f"--queue reads rows and their overrides from its file; write {row!r} into a line of it"
        )
    if sum((row is not None, show_list, table is not None, queue is not None)) != 1:
        raise checks.InputError("give a row such as CM-T2, or --list, or --table FILE, or --queue FILE")
    if queue is not None and plugin:
        raise checks.InputError("--plugin does not go with --queue; run a recipe with plugins by angulus compare")
    if queue is not None:
        _work_through(queue, out, 2.5 if hours is None else hours, 1 if threads is None else threads, status)
        return
    for option, value in (("--status", status or None), ("--hours", hours), ("--threads", threads)):
        if value is not None:
            raise checks.InputError(f"{option} needs --queue FILE, a file of rows; leave it out, or give that")
    from angulus.experiments import reproduce as rows

    if row is None:
        from angulus.report import reproduction

        folder = reproduction.results_folder(results)
        if table is not None:
            found = rows.read_results_folder(folder)
            files.write_text(table, reproduction.to_markdown(rows.table_rows(), found))
            say(f"{table}: {len(found)} recipes measured")
        else:
            show_table(reproduction.to_terminal(rows.table_rows(), rows.read_results_folder(folder, stand_ins=True)))
        return
    from angulus.experiments import plugins

    names = plugins.load(plugin or [])
    with progress.bar(Console(stderr=True)) as bar:
        comparisons = rows.reproduce(row, out, overrides or [], plugins=names, on_run=bar.on_run, on_step=bar.on_step)
    for comparison in comparisons:
        _report(comparison)
        say(f"\nTable, numbers, plots and report.html are in {comparison.folder}/")


def _work_through(queue: Path, out: Path, hours: float, threads: int, status_only: bool) -> None:
    from angulus.experiments import queue as queues

    if status_only:
        found = queues.status(queues.read_queue(queue), out)
    else:
        if hasattr(os, "nice"):  # not on Windows
            os.nice(19)  # everything else on the machine goes first
        with progress.bar(Console(stderr=True)) as bar:
            found = queues.work(
                queue, out, hours=hours, threads=threads, store=_report, on_run=bar.on_run, on_step=bar.on_step
            )
    table = Table("recipe", "runs", "hours", "state")
    for each in found:
        table.add_row(each.entry.title, f"{each.done} of {each.runs}", f"{each.hours:.2f}", each.state)
    show_table(table)
    if not status_only and any(each.failed for each in found):
        raise typer.Exit(1)


def _compare(recipe: str, out: Path | None, overrides: list[str], files: list[Path] | None = None) -> Path:
    from angulus.experiments import plugins
    from angulus.experiments.compare import compare as run_comparison

    names = plugins.load(files or [])
    with progress.bar(Console(stderr=True)) as bar:
        comparison = run_comparison(recipe, out, overrides, plugins=names, on_run=bar.on_run, on_step=bar.on_step)
    _report(comparison)
    return comparison.folder


def _report(comparison: Comparison) -> None:
    from angulus.report.analyses import write_comparison
    from angulus.report.sections import write_report
    from angulus.report.tables import to_terminal

    write_comparison(comparison)
    write_report([comparison.folder], comparison.folder / "report.html")
    Console().print(to_terminal(comparison))
