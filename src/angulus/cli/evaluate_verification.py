"""Evaluation of pairs: LFW, lists of one's own, CFP, .bin sets, RFW, BLUFR, YouTube Faces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from angulus.cli.output import Digits, Draws, Fars, Flip, Json, Output, Plot, Seed, say
from angulus.core import checks

if TYPE_CHECKING:
    from angulus.evaluation.lists.pairs import Pairs

Embedded = Annotated[Path, typer.Argument(metavar="EMBEDDINGS", help=".npz, .safetensors or .parquet.")]
Metric = Annotated[str, typer.Option("--metric", help="cosine, inner, euclidean or unit-euclidean.")]
Pca = Annotated[
    Optional[int],  # noqa: UP045  # typer
    typer.Option("--pca", help="Project onto so many directions, fitted on the training folds.", show_default=False),
]
Format = Annotated[
    str, typer.Option("--format", help="plain (`a b 0|1` a line), lfw or two-line (CALFW, CPLFW); auto: as it looks.")
]


def read_list(path: Path, form: str) -> Pairs:
    """A list of pairs; says which form it was taken to have, where nobody said."""
    from angulus.evaluation.lists.lfw import FORMS, read_pair_list

    checks.choice("--format", form, ("auto", *FORMS))
    pairs, found = read_pair_list(path, form)
    if form == "auto":
        folds = f"{pairs.fold_count} folds" if pairs.folds is not None else "no folds"
        count = f"{len(pairs):,} pair{'s' * (len(pairs) != 1)}"
        say(f"{path} is read as {found} ({FORMS[found]}): {count}, {folds}")
    return pairs


def lfw(
    embeddings: Embedded,
    pairs: Annotated[Path, typer.Option("--pairs", help="LFW's pairs.txt; ids are Name/Name_0001.")],
    metric: Metric = "cosine",
    flip: Flip = None,
    pca: Pca = None,
    far: Fars = None,
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """LFW: accuracy over the ten folds, AUC, EER, TAR at FARs."""
    output = Output(json, plot, digits)
    _pairs(embeddings, read_list(pairs, "lfw"), metric, flip, pca, far, draws, seed, output)


def pairs(
    embeddings: Embedded,
    pairs: Annotated[Path, typer.Option("--pairs", help="The list of pairs.")],
    form: Format = "auto",
    metric: Metric = "cosine",
    flip: Flip = None,
    pca: Pca = None,
    far: Fars = None,
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """A list of pairs: accuracy over its folds, AUC, EER, TAR at FARs."""
    output = Output(json, plot, digits)
    _pairs(embeddings, read_list(pairs, form), metric, flip, pca, far, draws, seed, output)


def cfp(
    embeddings: Embedded,
    lists: Annotated[Path, typer.Option("--lists", help="CFP's Protocol: a folder, or a .tar.gz of it.")],
    part: Annotated[str, typer.Option("--part", help="fp: frontal with profile; ff: frontal with frontal.")] = "fp",
    metric: Metric = "cosine",
    flip: Flip = None,
    pca: Pca = None,
    far: Fars = None,
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """CFP: as `pairs`, of its frontal-profile or frontal-frontal list; ids are 001/frontal/01.jpg."""
    from angulus.evaluation.lists.cfp import read_cfp

    output = Output(json, plot, digits)
    checks.choice("--part", part, ("fp", "ff"))
    found = read_cfp(lists)
    chosen = found.fp if part == "fp" else found.ff
    _pairs(embeddings, chosen, metric, flip, pca, far, draws, seed, output)


def bin_set(
    embeddings: Embedded,
    bin_file: Annotated[Path, typer.Option("--bin", help="The .bin set, such as lfw.bin or agedb_30.bin.")],
    folds: Annotated[int, typer.Option("--folds", help="Runs of consecutive pairs; 1 for none.")] = 10,
    fold_seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--fold-seed", help="Draw the folds instead, for a set that is sorted by its flags.", show_default=False
        ),
    ] = None,
    metric: Metric = "cosine",
    flip: Flip = None,
    pca: Pca = None,
    far: Fars = None,
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """A .bin set: as `pairs`; the id of an embedding is its image's place in the set: 0, 1, 2, ..."""
    from angulus.evaluation.lists.bin_set import read_bin

    output = Output(json, plot, digits)
    found = read_bin(bin_file, folds=folds, fold_seed=fold_seed).pairs
    if fold_seed is None and found.folds is not None:
        for fold in range(found.fold_count):
            if len(set(found.same[found.folds == fold].tolist())) < 2:
                raise checks.InputError(
                    f"{bin_file}: fold {fold} must have both kinds of pairs, and has one, as in a set that is sorted "
                    "by kind; draw the folds with --fold-seed 0, or take none with --folds 1"
                )
    _pairs(embeddings, found, metric, flip, pca, far, draws, seed, output)


def rfw(
    embeddings: Embedded,
    pairs: Annotated[
        list[str],
        typer.Option("--pairs", help="GROUP=FILE, repeated; or one FILE, with the embeddings' groups. All with folds."),
    ],
    form: Format = "auto",
    metric: Metric = "cosine",
    flip: Flip = None,
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """RFW: accuracy over folds of each group, their standard deviation, and the skewed error ratio."""
    from angulus.core.embeddings import Embeddings
    from angulus.evaluation.protocols import groups

    output = Output(json, plot, digits)
    given = _grouped(pairs, form)
    found = groups.evaluate(Embeddings.read(embeddings), given, metric=metric, flip=flip, draws=draws, seed=seed)
    output.show(found)


def blufr(
    embeddings: Embedded,
    config: Annotated[Path, typer.Option("--config", help="blufr_lfw_config.mat.")],
    flip: Flip = None,
    pca: Pca = None,
    far: Fars = None,
    open_set_far: Annotated[
        Optional[list[float]],  # noqa: UP045
        typer.Option("--open-set-far", help="FAR of DIR; repeat for several. Else 1e-2.", show_default=False),
    ] = None,
    rank: Annotated[int, typer.Option("--rank", help="Within which the true subject has to be for the DIR.")] = 1,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """BLUFR on LFW: TAR at FARs over all pairs, and open-set DIR at a FAR; mean, and mean less deviation."""
    from angulus.core.embeddings import Embeddings
    from angulus.evaluation.lists.blufr import read_blufr
    from angulus.evaluation.protocols import open_set

    output = Output(json, plot, digits)
    found = open_set.evaluate(
        Embeddings.read(embeddings),
        read_blufr(config),
        flip=flip,
        pca=pca,
        fars=far or None,
        open_set_fars=open_set_far or None,
        rank=rank,
    )
    output.show(found)


def ytf(
    embeddings: Embedded,
    pairs: Annotated[Path, typer.Option("--pairs", help="YouTube Faces' splits.txt.")],
    score: Annotated[str, typer.Option("--score", help="mean, cosine, max, or histogram (an SVM).")] = "mean",
    c: Annotated[float, typer.Option("--c", help="The SVM's regularisation.")] = 1.0,
    flip: Flip = None,
    far: Fars = None,
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """YouTube Faces: accuracy over folds of pairs of videos; frames have ids Name/1/0023.jpg, or templates Name/1."""
    from angulus.core.embeddings import Embeddings
    from angulus.evaluation.lists.ytf import read_ytf_pairs
    from angulus.evaluation.protocols import videos

    output = Output(json, plot, digits)
    found = videos.evaluate(
        Embeddings.read(embeddings),
        read_ytf_pairs(pairs),
        score=score,
        c=c,
        flip=flip,
        fars=far or None,
        draws=draws,
        seed=seed,
    )
    output.show(found)


def _pairs(
    embeddings: Path,
    given: Pairs,
    metric: str,
    flip: str | None,
    pca: int | None,
    far: list[float] | None,
    draws: int,
    seed: int,
    output: Output,
) -> None:
    from angulus.core.embeddings import Embeddings
    from angulus.evaluation.protocols import pairs as protocol

    read = Embeddings.read(embeddings)
    found = protocol.evaluate(read, given, metric=metric, flip=flip, pca=pca, fars=far or None, draws=draws, seed=seed)
    output.show(found)


def _grouped(given: list[str], form: str) -> Pairs:
    """One list, or the lists of groups one after the other, each pair with its group's name."""
    from angulus.evaluation.lists.grouped import joined

    named = [item.partition("=") for item in given]
    if len(named) == 1 and not named[0][1]:
        return read_list(Path(given[0]), form)
    without = [item for item, (_, sign, path) in zip(given, named, strict=True) if not sign or not path]
    if without or len({name for name, _, _ in named}) < len(named):
        raise checks.InputError(f"--pairs must be GROUP=FILE, each group once; got {' '.join(without or given)}")
    return joined({name: read_list(Path(path), form) for name, _, path in named})
