"""The command line: every wrong input ends in a sentence and exit code 2."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer
from rich.console import Console

from angulus import __version__
from angulus.cli.audit import audit
from angulus.cli.bench import bench_app
from angulus.cli.bench_faces import bench_faces
from angulus.cli.bench_records import bench_records
from angulus.cli.bench_search import bench_search
from angulus.cli.calibrate import calibrate, compare_results
from angulus.cli.convert import convert
from angulus.cli.data import data_app
from angulus.cli.doctor import doctor
from angulus.cli.embed import embed
from angulus.cli.evaluate import evaluate_app
from angulus.cli.export import export
from angulus.cli.info import info
from angulus.cli.prepare import prepare_app
from angulus.cli.report import report
from angulus.cli.reproduce import compare, demo, reproduce
from angulus.cli.search import search_app
from angulus.cli.train import train
from angulus.cli.verify import verify
from angulus.core import checks, files, limits, redact
from angulus.distributed import launch
from angulus.distributed.runtime import SharedError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, measure and compare embeddings told apart by angle and norm.",
)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
bench_app.command("faces")(bench_faces)
bench_app.command("records")(bench_records)
bench_app.command("search")(bench_search)
app.command()(train)
app.add_typer(prepare_app, name="prepare")
app.command()(demo)
app.command()(compare)
app.command()(reproduce)
app.command()(convert)
app.command()(info)
app.command()(embed)
app.command()(audit)
app.command()(doctor)
app.command()(verify)
app.command()(export)
app.command()(report)
app.add_typer(search_app, name="search")
app.add_typer(evaluate_app, name="evaluate")
app.command("calibrate")(calibrate)
app.command("compare-results")(compare_results)
out_console = Console()
error_console = Console(stderr=True)
SHARED = {"train", "embed", "evaluate megaface", "evaluate trillion-pairs"}  # what processes under torchrun share


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    max_unpacked: Annotated[
        str | None,
        typer.Option(help="Bytes that one file may unpack to, such as 16G [default: 1G, or 20 times its size]."),
    ] = None,
    read_damaged: Annotated[
        bool, typer.Option("--read-damaged", help="Read images that are cut short, with a warning for each.")
    ] = False,
) -> None:
    """Train, measure and compare embeddings told apart by angle and norm."""
    if max_unpacked is not None:
        limits.set_most_unpacked(max_unpacked)
    if read_damaged:
        os.environ[limits.READ_DAMAGED] = "1"
    if version:
        out_console.print(f"angulus {__version__}", highlight=False)
        raise typer.Exit


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    text = redact.within(str(message), sys.argv[1:])
    if text not in _shown and launch.speaks():
        _shown.add(text)
        error_console.print(f"warning: {text}", highlight=False, markup=False, soft_wrap=True)


_shown: set[str] = set()


def main() -> None:
    """Run the command line."""
    from angulus.training.signals import Interrupted

    warnings.showwarning = _show_warning
    try:
        if launch.several() and not SHARED & {" ".join(sys.argv[1:2]), " ".join(sys.argv[1:3])}:
            raise SharedError(
                f"torchrun starts several processes, which only {', '.join(sorted(SHARED))} take; start this without it"
            )
        app(prog_name="angulus")
    except checks.InputError as error:
        _fail(str(error), 2, told=not launch.speaks(error))
    except Interrupted as stopped:
        again = "run the same command again (train: with --resume) to continue"
        _fail(f"{stopped}; its checkpoint is saved: {again}", 130, told=not launch.speaks())
    except launch.LostRank as lost:
        _fail(str(lost), 1)
    except OSError as error:
        _fail(files.sentence(error), 2)


def _fail(message: str, code: int, *, told: bool = False) -> None:
    """End with a sentence, unless another process tells it."""
    if not told:
        message = redact.within(message, sys.argv[1:])
        error_console.print(f"angulus: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
