"""`angulus train`: one recipe, on one process or on those that torchrun starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console

from angulus.commands.engine import TimeoutS
from angulus.commands.output import say


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe: a file, or a shipped one's name.")],
    overrides: Annotated[Optional[list[str]], typer.Argument(help="key.path=value, over the recipe.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option("--out", help="Folder for what is written.")] = None,  # noqa: UP045
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in the folder stopped.")] = False,
    timeout_s: TimeoutS = 600.0,
) -> None:
    """Train one recipe and evaluate it on its test images; under torchrun, on all its processes together."""
    from angulus import recipe as recipes
    from angulus.commands import progress
    from angulus.distributed import launch
    from angulus.run import run

    with launch.process_group(timeout_s) as ranks:
        loaded = ranks.together(lambda: recipes.load(recipe, overrides or []))
        folder = out or Path("runs") / f"{loaded.name}-seed-{loaded.training.seed}"
        ranks.agree(recipe=recipes.to_yaml(loaded), out=str(folder), resume=resume)
        if ranks.rank == 0:
            with progress.bar(Console(stderr=True)) as bar:
                results = run(loaded, folder, resume=resume, on_step=bar.on_step)
        else:
            run(loaded, folder, resume=resume)
    if launch.speaks():
        _tell(results, folder)


def _tell(results: dict[str, Any], folder: Path) -> None:
    say(f"test accuracy {100 * results['accuracy']:.2f} %")
    for name, group in results["own_split"].items():
        say(
            f"  {name:<6} {group['count']:>7,} images, accuracy {100 * group['accuracy']:.2f} %, "
            f"mean norm {group['mean_norm']:.2f}"
        )
    say(f"The run lies in {folder}/")
