"""Evaluation of templates and galleries: IJB 1:1 and 1:N, MegaFace, Trillion-Pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from angulus.cli.engine import Device, TimeoutS, engine
from angulus.cli.evaluate_verification import Embedded
from angulus.cli.output import Digits, Draws, Fars, Flip, Json, Output, Plot, Seed
from angulus.core import checks

if TYPE_CHECKING:
    from angulus.evaluation.lists.ijb import TemplateImages

Ids = Annotated[
    str, typer.Option("--ids", help="file: ids are img/1.jpg; file-subject: img/1.jpg#123, if images show two people.")
]
Pool = Annotated[str, typer.Option("--pool", help="media: mean within a medium, then over media; flat: of all images.")]
Norm = Annotated[bool, typer.Option("--norm/--no-norm", help="Weight images by the feature's norm (N1) or not (N0).")]
Detector = Annotated[
    bool, typer.Option("--detector/--no-detector", help="Weight images by the detector's score (D1) or not (D0).")
]


def ijb_verify(
    embeddings: Embedded,
    templates: Annotated[
        list[Path],
        typer.Option(
            "--templates", help="Lists of the templates' images: metadata .csv, repeated; or face_tid_mid.txt."
        ),
    ],
    comparisons: Annotated[
        Path, typer.Option("--comparisons", help="`template template 0|1`, or `template,template`.")
    ],
    ids: Ids = "file",
    pool: Pool = "media",
    norm: Norm = True,
    detector: Detector = False,
    flip: Flip = None,
    far: Fars = None,
    folds: Annotated[int, typer.Option("--folds", help="For the accuracy.")] = 10,
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """IJB-A, IJB-B, IJB-C, 1:1: TAR at FARs of template comparisons, streamed; accuracy over folds of subjects."""
    from angulus.core.embeddings import Embeddings
    from angulus.evaluation.lists.ijb import read_comparisons
    from angulus.evaluation.protocols import templates as pooling
    from angulus.evaluation.protocols.template_verification import verify

    output = Output(json, plot, digits)
    images = _read(templates, ids)
    how = pooling.Pooling(pool, norm, detector, flip)
    pooled = pooling.pool(Embeddings.read(embeddings), images, how)
    if images.subjects is None:
        pooled = pooling.link(pooled, read_comparisons(comparisons))
    stream = read_comparisons(comparisons, images if images.subjects is not None else None)
    output.show(verify(pooled, stream, fars=far or None, folds=folds, draws=draws, seed=seed))


def ijb_identify(
    embeddings: Embedded,
    gallery: Annotated[list[Path], typer.Option("--gallery", help="Metadata .csv of G1, and again of G2.")],
    probes: Annotated[list[Path], typer.Option("--probes", help="Metadata .csv of the probes.")],
    ids: Ids = "file",
    pool: Pool = "media",
    norm: Norm = True,
    detector: Detector = False,
    flip: Flip = None,
    rank: Annotated[
        Optional[list[int]],  # noqa: UP045  # typer
        typer.Option("--rank", help="k of rank-k; repeat for several. Else 1, 5 and 10.", show_default=False),
    ] = None,
    fpir: Annotated[
        Optional[list[float]],  # noqa: UP045
        typer.Option("--fpir", help="FPIR where TPIR is reported; repeat for several.", show_default=False),
    ] = None,
    within: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--within", help="Rank within which a subject has to be for the TPIR; else any.", show_default=False
        ),
    ] = None,
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """IJB, 1:N: rank-k, and TPIR at FPIRs, of each gallery and their mean."""
    from angulus.core.embeddings import Embeddings
    from angulus.evaluation.protocols import template_identification as protocol
    from angulus.evaluation.protocols import templates as pooling

    output = Output(json, plot, digits)
    how, read = pooling.Pooling(pool, norm, detector, flip), Embeddings.read(embeddings)
    galleries = [pooling.pool(read, _read([each], ids), how) for each in gallery]
    found = protocol.identify(
        galleries,
        pooling.pool(read, _read(probes, ids), how),
        ranks=rank or protocol.RANKS,
        fpirs=fpir or None,
        within=within,
        draws=draws,
        seed=seed,
    )
    output.show(found)


def megaface(
    probes: Annotated[Path, typer.Argument(metavar="PROBES", help="Embeddings of the probes, such as FaceScrub's.")],
    distractors: Annotated[Path, typer.Argument(metavar="DISTRACTORS", help="Embeddings of the distractors.")],
    probe_list: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--probe-list", help="facescrub_features_list.json; else all, with labels.", show_default=False),
    ] = None,
    distractor_list: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--distractor-list", help="megaface_features_list.json_...; else all.", show_default=False),
    ] = None,
    probe_noises: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--probe-noises", help="Probes that show somebody else; needs both lists.", show_default=False),
    ] = None,
    distractor_noises: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--distractor-noises", help="Distractors to leave out; needs both lists.", show_default=False),
    ] = None,
    noise_rule: Annotated[
        str,
        typer.Option(
            "--noise-rule",
            help="Noisy probes: remove, or replace by the mean of the person's others, as insightface does.",
        ),
    ] = "remove",
    flip: Flip = None,
    rank: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option("--rank", help="k of rank-k; repeat for several. Else 1 and 10.", show_default=False),
    ] = None,
    far: Fars = None,
    device: Device = "cpu",
    timeout_s: TimeoutS = 3600.0,
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """MegaFace: rank-k among 10, 100, ... all distractors, and TAR at FARs."""
    from angulus.core.embeddings import Embeddings
    from angulus.evaluation.lists.megaface import read_feature_list, read_noises
    from angulus.evaluation.protocols import gallery as protocol

    output = Output(json, plot, digits)
    if (probe_list is None) != (distractor_list is None):
        raise checks.InputError("--probe-list and --distractor-list go together; give both, or neither")
    lists = None
    if probe_list is not None and distractor_list is not None:
        lists = read_feature_list(probe_list), read_feature_list(distractor_list)
    elif probe_noises is not None or distractor_noises is not None:
        raise checks.InputError("noises are taken out of lists; give --probe-list and --distractor-list")
    noisy = [None if path is None else read_noises(path) for path in (probe_noises, distractor_noises)]
    with engine(device, timeout_s) as options:
        found = protocol.megaface(
            Embeddings.read(probes),
            Embeddings.read(distractors),
            lists=lists,
            noises=(noisy[0], noisy[1]),
            noise_rule=noise_rule,
            flip=flip,
            ranks=rank or (1, 10),
            fars=far or None,
            draws=draws,
            seed=seed,
            options=options,
        )
        if options.ranks.rank == 0:
            output.show(found)


def trillion_pairs(
    probes: Annotated[Path, typer.Argument(metavar="PROBES", help="Embeddings of the probes, with labels.")],
    gallery: Annotated[Path, typer.Argument(metavar="GALLERY", help="Embeddings of the gallery, with labels.")],
    flip: Flip = None,
    far: Fars = None,
    search_far: Annotated[
        Optional[list[float]],  # noqa: UP045
        typer.Option("--search-far", help="FAR of the searches; repeat for several.", show_default=False),
    ] = None,
    device: Device = "cpu",
    timeout_s: TimeoutS = 3600.0,
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """Trillion-Pairs: TAR at FARs over all pairs, and TPR at FARs of searching the gallery; exact, never stored."""
    from angulus.core.embeddings import Embeddings
    from angulus.evaluation.protocols import gallery as protocol

    output = Output(json, plot, digits)
    with engine(device, timeout_s) as options:
        found = protocol.trillion_pairs(
            Embeddings.read(probes),
            Embeddings.read(gallery),
            flip=flip,
            fars=far or None,
            search_fars=search_far or None,
            draws=draws,
            seed=seed,
            options=options,
        )
        if options.ranks.rank == 0:
            output.show(found)


def _read(paths: list[Path], ids: str) -> TemplateImages:
    from angulus.evaluation.lists.ijb import read_template_media, read_templates

    if len(paths) == 1 and ".csv" not in paths[0].suffixes:
        return read_template_media(paths[0])
    return read_templates(*paths, ids=ids)
