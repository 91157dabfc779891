"""Lists of pairs: reading one for a command, and `angulus data pairs`, which draws one from records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from angulus.cli.output import say
from angulus.evaluation.registry import ID_RULE

if TYPE_CHECKING:
    from angulus.evaluation.lists.pair_list import PairList

Embedded = Annotated[Path, typer.Argument(metavar="EMBEDDINGS", help=".npz, .safetensors or .parquet.")]
Format = Annotated[
    str, typer.Option("--format", help="plain (`a b 0|1` a line), lfw or two-line (CALFW, CPLFW); auto: detect it.")
]

_STRIP, _PARTS = ID_RULE
IdStrip = Annotated[Optional[list[str]], typer.Option(_STRIP.option, help=_STRIP.help, show_default=False)]  # noqa: UP045  # typer
IdParts = Annotated[Optional[int], typer.Option(_PARTS.option, help=_PARTS.help, show_default=False)]  # noqa: UP045


def read_list(path: Path, form: str) -> PairList:
    """Read a list of pairs; if its form is detected, print which it is."""
    from angulus.core import checks
    from angulus.evaluation.lists.lfw import FORMS
    from angulus.evaluation.runners import read_pairs

    return read_pairs(path, checks.choice("--format", form, ("auto", *FORMS)), say)


def data_pairs(
    records: Annotated[str, typer.Argument(help="Records of people, as `angulus convert` writes them.")],
    out: Annotated[Path, typer.Argument(help="The list, which `angulus evaluate pairs --pairs` reads.")],
    folds: Annotated[int, typer.Option(help="How many folds; no person is in two of them.")] = 10,
    pairs: Annotated[int, typer.Option(help="Genuine pairs in a fold, and as many impostor pairs.")] = 300,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
) -> None:
    """Draw pairs of images, of one person and of two, in folds of different people."""
    from angulus.core import files
    from angulus.data.records import Records
    from angulus.evaluation.lists.pair_list import pairs_text
    from angulus.evaluation.lists.sample_pairs import draw_folds

    found = Records(records)
    drawn = draw_folds(found.ids, found.identities, folds=folds, per=pairs, seed=seed)
    text = pairs_text(drawn)
    files.make_folder(out.parent)
    files.write_text(out, text)
    unknown = f"; {drawn.unknown:,} images of unknown people are left out" if drawn.unknown else ""
    say(f"{out}: {len(drawn):,} pairs in {folds} folds{unknown}")
