"""`angulus results`: check saved results, and print the schema that they follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from angulus.cli.output import say

results_app = typer.Typer(no_args_is_help=True, help="Check saved results, and print their schema.")


@results_app.command("validate")
def validate(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Results saved as .json.")],
) -> None:
    """Check saved results, from Angulus or another program, and list all that is wrong; exit code 1 if anything is."""
    from angulus.evaluation.protocols import score_sheet

    bad = 0
    for path in results:
        wrong = score_sheet.find_errors(path)
        bad += bool(wrong)
        say(f"{path}: {'valid' if not wrong else f'{len(wrong)} wrong'}")
        for sentence in wrong:
            say(f"  {sentence}")
    if bad:
        raise typer.Exit(1)


@results_app.command("schema")
def schema() -> None:
    """Print the JSON Schema of a saved result."""
    from angulus.evaluation.protocols import score_sheet

    typer.echo(json.dumps(score_sheet.schema(), indent=2, ensure_ascii=False))
