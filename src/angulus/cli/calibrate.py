"""`angulus calibrate`: choose a threshold; `angulus compare-results`: two results on the same resamples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from angulus.cli.output import (
    Digits,
    Draws,
    Flip,
    GroupsFile,
    Json,
    Output,
    Plot,
    Seed,
    refuse_no_groups,
    refuse_unwritable,
    say,
)
from angulus.cli.pair_lists import Embedded, Format, IdParts, IdStrip, read_list
from angulus.core import checks, files


def calibrate(
    embeddings: Embedded,
    out: Annotated[
        Optional[Path],  # noqa: UP045  # typer
        typer.Option("--out", help="The calibration, a .json.", show_default=False),
    ] = None,
    model: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--model", help="Keep it in this folder, of the model that made the embeddings.", show_default=False
        ),
    ] = None,
    pairs: Annotated[
        Optional[Path],  # noqa: UP045  # typer
        typer.Option(
            "--pairs", help="A list of labelled pairs; else all pairs of the embeddings' labels.", show_default=False
        ),
    ] = None,
    gallery: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--gallery",
            help="Embeddings of the same images by the model that made a gallery: the first are then the queries.",
            show_default=False,
        ),
    ] = None,
    form: Format = "auto",
    id_strip: IdStrip = None,
    id_parts: IdParts = None,
    groups: GroupsFile = None,
    fmr: Annotated[float, typer.Option("--fmr", help="The target: the threshold's FMR does not exceed it.")] = 1e-3,
    impostors: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--impostors", help="Without a list: impostor pairs to draw; else all.", show_default=False),
    ] = None,
    flip: Flip = None,
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    plot: Plot = None,
    digits: Digits = 4,
) -> None:
    """Choose the threshold for a target FMR on your own pairs or labelled images, and measure it, also by group."""
    from angulus.core.contract import comparable, describe_model
    from angulus.core.embeddings import Embeddings
    from angulus.core.id_rule import IdRule
    from angulus.evaluation.lists.groups_csv import with_groups
    from angulus.evaluation.protocols import calibrate as protocol
    from angulus.models import artifact
    from angulus.models.map_quality import mapped_as_kept

    output = Output(json, plot, digits)
    if (out is None) == (model is None):
        raise checks.InputError(
            "one of --out FILE.json and --model FOLDER must say where the calibration goes; got "
            + ("neither" if out is None else "both")
        )
    checks.number("--fmr", fmr, low=0, high=1, open_low=True)
    if out is not None:
        refuse_unwritable("--out", out)
        if json is not None and json.absolute() == out.absolute():
            raise checks.InputError(f"--out is the calibration and --json what was measured; both are {out}; name two")
    if pairs is not None and impostors is not None:
        raise checks.InputError("--impostors draws pairs of labelled images; leave it out where --pairs lists them")
    read = Embeddings.read(embeddings).match_by(IdRule(tuple(id_strip or ()), id_parts))
    if groups is not None:
        read = with_groups(read, groups)
    given = read_list(pairs, form) if pairs else protocol.pairs_of_images(read, impostors=impostors, seed=seed)
    asked: dict[str, Any] = {"target_fmr": fmr, "flip": flip, "draws": draws, "seed": seed}
    if gallery is None:
        calibration, found = protocol.calibrate(read, given, **asked)
    else:
        stored = Embeddings.read(gallery)
        owner = None if model is None else artifact.load(model)
        compatible = () if owner is None else owner.config.compatible_with
        if model is not None and not comparable(read.model, stored.model, compatible):
            stored = mapped_as_kept(model, stored, read.model)
        stored = stored.match_by(read.id_rule or IdRule())
        calibration, found = protocol.calibrate_across(read, stored, given, compatible_with=compatible, **asked)
    refuse_no_groups(groups, found)
    output.show(found)
    if model is not None:
        name = artifact.calibrate(model, calibration)
        if name != calibration.model:
            say(
                f"It is for {describe_model(calibration.model)}; the folder's own is {describe_model(name)}, which "
                "keeps its calibration: each is used for scores of its kind, as with verify --flip"
            )
    elif out is not None:
        files.make_folder(out.parent)
        calibration.write(out)
    say(f"The calibration is written to {out or model}")


def compare_results(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="A result that `evaluate --json` saved.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Another, of the same protocol and samples.")],
    differing: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--differing", help="A choice that may differ, such as flip; repeat.", show_default=False),
    ] = None,
    draws: Draws = 1000,
    seed: Seed = 0,
    json: Json = None,
    digits: Digits = 4,
) -> None:
    """Print the difference of two results, second − first, with intervals over the same resamples of both."""
    from angulus.evaluation.protocols.differences import compare_results as compare
    from angulus.evaluation.protocols.result import Result

    output = Output(json, None, digits)
    found = compare(Result.read(first), Result.read(second), differing=differing or (), draws=draws, seed=seed)
    output.show(found)
