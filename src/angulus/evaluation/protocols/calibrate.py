"""A threshold for a target FMR, chosen on labelled pairs or images, with its error rates overall and per group."""

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from angulus.core import checks
from angulus.core.contract import comparable, describe_model
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.lists.sample_pairs import genuine_rows, impostor_count, impostor_rows
from angulus.evaluation.metrics.curves import Presorted, auc
from angulus.evaluation.metrics.intervals import Flags, Floats, Samples, Statistic, Units
from angulus.evaluation.metrics.verification import likelihood_ratio, require_support, tar_at_far
from angulus.evaluation.protocols import by_group, scored, two_models
from angulus.evaluation.protocols.calibration import Calibration, Rate
from angulus.evaluation.protocols.figures import RULE_OF_30, Resampling, few_pairs_notes, measure, rate_label
from angulus.evaluation.protocols.pairs import curves
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.protocols.scored import ScoredPairs

PROTOCOL = "calibrate"
MEASURED = (*scored.MEASURED, "threshold")

MOST_IMPOSTORS = 1_000_000  # pairs of images made without being asked how many
MOST_DRAWN = 100_000_000  # pairs of images at all; they take about 10 GB


def calibrate(
    embeddings: Embeddings,
    pairs: PairList,
    *,
    target_fmr: float = 1e-3,
    flip: str | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[Calibration, Result]:
    """The lowest threshold whose FMR does not exceed the target, FMR and FNMR at it, overall and by group.

    A group's FMR is that of the impostor pairs within it; pairs of two groups have rates of their own (`by_group`).
    Intervals are over other people: of the threshold, were it chosen on them; of the rates, at the threshold chosen
    here. A pair that is listed several times counts once.

    Args:
        embeddings: of all images of the pairs; where the pairs do not say so, its labels are the identities and its
            groups the groups.
        pairs: labelled pairs; `pairs_of_images` makes them of labelled images.
        target_fmr: in (0, 1].
        flip, draws, seed: as in `pairs.evaluate`.

    Raises:
        checks.InputError: an image without embedding, a pair listed as genuine and as impostor, fewer than
            1 / target_fmr distinct impostor pairs, no genuine pair, or genuine scores that are no higher than the
            impostors'.

    Source: ISO/IEC 19795-1; G. Doddington et al., Speech Communication 31, 2000 (the rule of 30).
    """
    checks.number("target_fmr", target_fmr, low=0, high=1, open_low=True)
    all_pairs = scored.score(embeddings, pairs, flip=flip)
    sides = scored.sides_of(embeddings, pairs, all_pairs)
    if sides is not None:
        all_pairs.samples["groups"] = np.where(sides[0] == sides[1], sides[0], "")
        if all_pairs.distinct.notes:
            sides = sides[0][all_pairs.distinct.first], sides[1][all_pairs.distinct.first]
    found = _drop_repeats(all_pairs)
    scores, same = found.samples["scores"], found.samples["same"]
    curve = Presorted.of(scores, same).curve()
    require_support(target_fmr, found.distinct.impostors, of=found.distinct.supporting, name="FMR")
    point = tar_at_far(curve, target_fmr)
    slope, intercept = likelihood_ratio(scores, same)
    samples = {**found.samples, "target_fmr": np.array(target_fmr), "threshold": np.array(point.threshold)}
    name = f"threshold for FMR={rate_label(target_fmr)}"
    ratio = f"{slope:.6g} · score {'+' if intercept >= 0 else '−'} {abs(intercept):.6g}"
    resampling = Resampling(found.unit, draws, seed)
    result = measure(
        PROTOCOL,
        statistic(samples),
        samples,
        {**found.choices, "log-likelihood ratio": ratio},
        found.counts,
        resampling,
        thresholds=dict.fromkeys(("FMR", "FNMR"), point.threshold),
        curves=curves(curve, PROTOCOL),
        notes=_notes(samples, target_fmr, point.false_accepts) + found.notes,
        by_group=by_group.of_pairs(sides, samples, {target_fmr: point.threshold}, resampling),
        about=found.about,
    )
    measured = {number.name: Rate(number.value, number.interval) for number in result.numbers}
    calibration = Calibration(
        target_fmr=target_fmr,
        threshold=measured[name],
        fmr=measured["FMR"],
        fnmr=measured["FNMR"],
        genuine=found.distinct.genuine,
        impostors=found.distinct.impostors,
        slope=slope,
        intercept=intercept,
        auc=measured["AUC"],
        flip=flip,
        model=embeddings.model,
        by_group=result.by_group[0] if result.by_group else None,
        about={**result.about, "intervals": result.choices["intervals"]},
    )
    return calibration, result


def calibrate_across(
    queries: Embeddings, gallery: Embeddings, pairs: PairList, *, compatible_with: Collection[str] = (), **asked: Any
) -> tuple[Calibration, Result]:
    """`calibrate` for queries of one model on stored vectors of another: left images as queries, right as stored.

    Args:
        queries, gallery: the same images under the two models.
        pairs: as for `calibrate`.
        compatible_with: fingerprints that the queries' model is compatible with.
        asked: as for `calibrate`.

    Raises:
        checks.InputError: models that are not compatible, or one and the same; what `calibrate` refuses.
    """
    for embeddings in (queries, gallery):
        if embeddings.model is None:
            raise checks.InputError(
                f"{embeddings.source} must say which model made it, for the calibration of a pair of models to name; "
                "write it with angulus embed"
            )
    if queries.model == gallery.model:
        fault = f"both {queries.source} and {gallery.source} are of {describe_model(queries.model)}"
        raise checks.InputError(f"a pair of models must be two; {fault}; leave --gallery out")
    if not comparable(queries.model, gallery.model, compatible_with):
        raise checks.InputError(
            f"{queries.source} is of {describe_model(queries.model)}, which is not known to be compatible with "
            f"{describe_model(gallery.model)} of {gallery.source}; give the folder of the former with --model, if it "
            "was trained with compatible_with or holds the map that angulus upgrade makes"
        )
    joined, across = two_models.across(queries, gallery, pairs)
    calibration, found = calibrate(joined, across, **asked)
    return replace(calibration, model=queries.model, gallery=gallery.model), found


def statistic(samples: Samples) -> tuple[Statistic, Units]:
    """The figures of `calibrate` by weights of the pairs, and the people (or pairs) that are resampled.

    The threshold is chosen again in each resample; the rates are at the one that was chosen on all.
    """
    presorted = Presorted.of(samples["scores"], samples["same"])
    target, threshold = float(samples["target_fmr"]), float(samples["threshold"])
    accepted, same = samples["scores"] >= threshold, samples["same"]
    parts = {"": np.ones(len(same), dtype=bool)}
    parts |= {f", group {name}": samples["groups"] == name for name in _group_names(samples)}
    name = f"threshold for FMR={rate_label(target)}"

    def figures(weights: Floats) -> dict[str, float]:
        values: dict[str, float] = {}
        both = all(amount.any() for amount in presorted.amounts(weights))
        curve = presorted.curve(weights) if both else None
        if curve is not None:
            values[name] = tar_at_far(curve, target, zero_ok=True).threshold
        for part, member in parts.items():
            values[f"FMR{part}"] = _share(accepted, weights * (member & ~same))
            values[f"FNMR{part}"] = _share(~accepted, weights * (member & same))
        return values if curve is None else values | {"AUC": auc(curve)}

    return figures, scored.units_of(samples)


def pairs_of_images(embeddings: Embeddings, *, impostors: int | None = None, seed: int = 0) -> PairList:
    """Pairs of labelled images: all genuine ones, and all or `impostors` impostor ones, drawn without repeats.

    Images of unknown people are in no pair; `calibrate` counts them.

    Args:
        embeddings: with labels, the identities.
        impostors: how many impostor pairs to draw; None: all, where they are a million or fewer.
        seed: of the draw.

    Raises:
        checks.InputError: no labels, no genuine or no impostor pair, more impostor pairs asked for than there are, or
            more than a million without being asked how many.
    """
    rng = np.random.default_rng(checks.integer("seed", seed, low=0))
    if embeddings.labels is None:
        raise checks.InputError(f"{embeddings.source} must have labels, the identities; it has none")
    known = np.flatnonzero(embeddings.labelled)
    _, people = np.unique(embeddings.labels[known], return_inverse=True)
    genuine, total = genuine_rows(people), impostor_count(people)
    if not len(genuine) or not total:
        raise checks.InputError(
            f"{embeddings.source} must show two people or more, and one of them twice; got {len(genuine)} genuine and "
            f"{total} impostor pairs"
        )
    if impostors is None and total > MOST_IMPOSTORS:
        raise checks.InputError(
            f"{embeddings.source} gives {total:,} impostor pairs; draw fewer, such as impostors={MOST_IMPOSTORS:,}"
        )
    if impostors is not None:
        checks.integer("impostors", impostors, low=1, high=min(total, MOST_DRAWN))
    drawn = impostor_rows(people, total if impostors is None else impostors, rng)
    rows = known[np.concatenate([genuine, drawn])]
    left, right = rows.T
    return PairList(
        embeddings.ids[left],
        embeddings.ids[right],
        np.repeat([True, False], [len(genuine), len(drawn)]),
        left_identity=embeddings.labels[left],
        right_identity=embeddings.labels[right],
        source=f"pairs of {embeddings.source}",
        unknown=len(embeddings) - len(known),
    )


def _drop_repeats(found: ScoredPairs) -> ScoredPairs:
    """The pairs without repeats."""
    if not found.distinct.notes:
        return found
    first = found.distinct.first
    kept = {name: values[first] for name, values in found.samples.items() if name not in (scored.DISTINCT, "folds")}
    counts = {"genuine": found.distinct.genuine, "impostors": found.distinct.impostors}
    return replace(found, samples=kept, left=found.left[first], right=found.right[first], counts=found.counts | counts)


def _share(flags: Flags, weights: Floats) -> float:
    total = float(weights.sum())
    return float(weights[flags].sum()) / total if total > 0 else math.nan


def _group_names(samples: Samples) -> list[str]:
    return [name for name in np.unique(samples["groups"]).tolist() if name] if "groups" in samples else []


def _notes(samples: Samples, target: float, false_accepts: float) -> tuple[str, ...]:
    notes = ["the rates are measured on the pairs that chose the threshold"]
    notes += few_pairs_notes({"genuine": int(samples["same"].sum())})
    if false_accepts < RULE_OF_30:
        notes.append(
            f"the FMR rests on {false_accepts:.0f} false accepts; with {RULE_OF_30} or more it is known to "
            f"± 30 % (rule of 30), which takes {math.ceil(RULE_OF_30 / target):,} impostor pairs"
        )
    for name in _group_names(samples):
        member, same = samples["groups"] == name, samples["same"]
        few = [kind for kind, flags in (("genuine", same), ("impostor", ~same)) if not (member & flags).any()]
        notes += [f"group {name} has no {kind} pairs: its rate is undefined" for kind in few]
        impostors = member & ~same
        if impostors.any() and not (samples["scores"][impostors] >= samples["threshold"]).any():
            count = int(impostors.sum())
            notes.append(
                f"group {name} has no false accept among {count:,}: its FMR may be as high as {3 / count:.2g} (95 %, "
                "the rule of three), whatever the interval says"
            )
    between = int((samples["groups"] == "").sum()) if "groups" in samples else 0
    if between:
        notes.append(f"{between:,} pairs that belong to no one group count in the overall rates only")
    return tuple(notes)
