"""Identification and verification among very many distractors: MegaFace."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation import scoring
from angulus.evaluation.lists.megaface import FeatureList
from angulus.evaluation.metrics.intervals import Flags, Rows, Samples
from angulus.evaluation.protocols.by_group import Point, measure_groups
from angulus.evaluation.protocols.by_group_scale import pair_figures, with_failed
from angulus.evaluation.protocols.failures import BELOW, CHOICE, NEVER, failed_pairs, rate_among
from angulus.evaluation.protocols.figures import Resampling, rate_label, supported_rates
from angulus.evaluation.protocols.gallery_sizes import SizedSearches, best_by_size, sizes_up_to
from angulus.evaluation.protocols.group_rates import GroupFigures
from angulus.evaluation.protocols.group_trials import searches
from angulus.evaluation.protocols.result import Curve, Result
from angulus.evaluation.protocols.sides import (
    Side,
    Tally,
    count_left_out,
    numbered_groups,
    require_apart,
    tally_result,
)
from angulus.evaluation.protocols.vectors import METRICS, flip_choice, require_alike
from angulus.evaluation.registry import WITHOUT_FAILURES

Lists = tuple[FeatureList, FeatureList] | None  # of the probes, of the distractors
Noises = tuple[NDArray[np.str_] | None, NDArray[np.str_] | None]  # of the probes, of the distractors

MEGAFACE = "megaface"

MEGAFACE_FARS = (1e-4, 1e-5, 1e-6)  # CM and MV report the last
NOISE_RULES = ("remove", "replace")
_UNCLEANED = (
    "no list of noise is given: figures that are published for cleaned lists (97 % and more, since ArcFace) are not "
    "comparable"
)
FPIRS = (1e-1, 1e-2, 1e-3)  # of the FNIR by the number of distractors


def megaface(
    probes: Embeddings,
    distractors: Embeddings,
    *,
    lists: Lists = None,
    noises: Noises = (None, None),
    noise_rule: str = "remove",
    missing: str = "refuse",
    flip: str | None = None,
    ranks: Sequence[int] = (1, 10),
    fars: Sequence[float] | None = None,
    draws: int = 1000,
    seed: int = 0,
    options: scoring.ScoringOptions = scoring.DEFAULT,
) -> Result:
    """Rank-k among the first 10, 100, ... distractors and among all, their CMC, and TAR at FARs.

    For each two photos (p, m) of a person, in both orders, p is looked for in a gallery of m and the distractors. Its
    rank is one more than the distractors that score at least as high with p as m does: ties count against. Rank-k is
    the share of these searches with rank <= k. For verification, each two photos of a person are a genuine pair, and
    each probe with each distractor an impostor pair. Scores are cosines in float64; all pairs are looked at.

    Args:
        probes: photos of people, by `labels` where no list names the people; photos of unknown people are left out and
            counted.
        distractors: of other people, in the order in which they fill the gallery.
        lists: of the probes and of the distractors: which are used, and in which order; None: all.
        noises: the images of both lists that show another person or no face. Such distractors are removed.
        noise_rule: for such probes: "remove" leaves them out; "replace": the mean of the person's other
            photos, as unit vectors, stands for each, as in insightface's script, by which ArcFace reports its figures.
        missing: images of the lists without embedding: "refuse" them; or "fail": failures to enrol, see `failures`. A
            distractor that failed is ahead of nobody.
        flip: None, "sum" or "concat".
        ranks: k of rank-k.
        fars: where TAR is reported, each of which the pairs must support; None: those of 1e-4, 1e-5, 1e-6 that they do.
        draws, seed: resamples of the people for the intervals (0 for none), and their seed; thresholds stay fixed.
        options: of the scoring; they change no figure.

    Raises:
        InputError: people unknown, nobody with two photos, an image on both sides or without embedding, a FAR
            that needs more pairs.

    Source: I. Kemelmacher-Shlizerman et al., "The MegaFace Benchmark", CVPR 2016, Sec. 3; CM Table 5, MV Table 5, IAM
    Table 6. Differs: a smaller gallery holds the first distractors of the list, not one of the kit's random sets.
    """
    for k in ranks:
        checks.integer("rank", k, low=1)
    checks.choice("noise_rule", noise_rule, NOISE_RULES)
    require_alike(probes, distractors)
    given, others, choices = _sides((probes, distractors), lists, noises, (noise_rule, missing), flip)
    sought = given.known_people()
    require_apart(sought.listed, others.listed)
    people, everyone, photos = np.unique(sought.listed.labelled(), return_inverse=True, return_counts=True)
    person, lost = everyone[: len(sought)], everyone[len(sought) :]
    enrolled = np.bincount(person, minlength=len(people))
    if enrolled.max() < 2:
        raise InputError(f"{sought.source} must hold two photos of a person, probe and mate; it holds one of each")
    without = len(lost) + len(others.listed) - len(others)
    # searches of each person that failed
    failed = (photos * (photos - 1) - enrolled * (enrolled - 1)) if without else None
    among, impostors = len(sought) * len(others), len(sought.listed) * len(others.listed)
    kept, notes = supported_rates(fars, among, standard=MEGAFACE_FARS)
    tally = Tally(len(people))
    genuine = scoring.PairBatch.concatenate(scoring.genuine(sought.vectors, None, ids=person, options=options))
    sizes = sizes_up_to(len(others))
    looked_for = np.concatenate([genuine.probes, genuine.gallery])
    mates = looked_for, np.concatenate([genuine.scores, genuine.scores])
    places = scoring.rows_ahead(sought.vectors, others.vectors, mates, sizes=sizes, options=options).numpy() + 1
    for end, more in (("", failed), (WITHOUT_FAILURES, None))[: 1 + (without > 0)]:
        for column, size in enumerate(sizes):
            for k in dict.fromkeys(ranks):
                tally.add(
                    f"rank-{k}, {size:,} distractors{end}", person[looked_for], places[:, column] <= k, failed=more
                )
        wanted = [rate_among(far, among if end else impostors, among) for far in kept]
        found = scoring.thresholds_at(sought.vectors, others.vectors, wanted, zero_ok=True, options=options)
        if not end:
            points = [replace(point, fmr=far) for point, far in zip(found, kept, strict=True)]
        for point, far in zip(found, kept, strict=True):
            tally.add(
                f"TAR@FAR={rate_label(far)}{end}",
                person[genuine.probes],
                genuine.scores >= point.threshold,
                point.threshold,
                None if more is None else more // 2,
            )
    fpirs, _ = supported_rates(None, len(sought), standard=FPIRS)
    gone = np.repeat(np.arange(len(people)), 0 if failed is None else failed)
    places = np.concatenate([places, np.full((len(gone), len(sizes)), NEVER)])
    best = best_by_size(sought.vectors, others.vectors, sizes, options)
    sized = {
        "sizes": np.array(sizes),
        "fpirs": np.array(fpirs),
        "size_mates": np.append(person[looked_for], gone),
        "size_mate_scores": np.append(mates[1], np.full(len(gone), BELOW)),
        "size_ranks": places,
        "size_strangers": everyone,
        "size_scores": np.concatenate([best, np.full((len(lost), len(sizes)), BELOW)]),
    }
    alone = int((photos == 1).sum())
    resampling, unequal = Resampling("people", draws, seed), GroupFigures()
    if (numbered := numbered_groups(sought.listed, others.listed)) is not None:
        names, groups = numbered
        own = groups[0][: len(sought)], None if groups[1] is None else groups[1][: len(others)]
        absent = np.arange(len(everyone)) >= len(sought)
        unequal = pair_figures(
            names,
            (sought.vectors, others.vectors),
            (own, (own[0], own[0])),
            (person, None),
            [genuine],
            points,
            (options, resampling),
            partial(with_failed, groups=groups, people=(everyone, None), failed=absent, held=len(others.listed)),
        )
        tried = np.concatenate([looked_for, *failed_pairs(everyone, absent)])
        missed = np.stack([places[:, -1] > k for k in dict.fromkeys(ranks)])
        at = [Point(f"rank-{k}, {sizes[-1]:,} distractors", 0, None) for k in dict.fromkeys(ranks)]
        unequal += measure_groups(
            names, None, searches(groups[0][tried], everyone[tried], missed), at, resampling, "identification"
        )
    return tally_result(
        MEGAFACE,
        tally,
        {
            "score": METRICS["cosine"],
            "flip": flip_choice(probes, flip),
            **choices,
            **(CHOICE if missing == "fail" else {}),
            "smaller galleries": "the first distractors of the list",
            "searches without mate": "each probe among the distractors alone",
        },
        {
            "people": len(people),
            "probes": len(sought.listed),
            **count_left_out("probes", given.listed, sought.listed),
            "distractors": len(others.listed),
            **({"images without embedding": without} if without else {}),
            "searches": len(places),
            "genuine pairs": len(places) // 2,
            "impostor pairs": impostors,
        },
        resampling,
        curves=tuple(_cmc(places[:, column], size) for column, size in enumerate(sizes)),
        guessing=(f"rank-{min(ranks)}, {sizes[0]:,} distractors", min(ranks) / (sizes[0] + 1)),
        notes=notes
        + (() if any(names is not None for names in noises) else (_UNCLEANED,))
        + ((f"{alone} people have one photo, which is no more than an impostor",) if alone else ()),
        sources={**probes.origin, "embeddings": sought.source, "distractors": others.source},
        more=sized,
        by_group=unequal,
    )


def by_size(samples: Samples) -> list[SizedSearches]:
    """The searches of `megaface` among growing numbers of distractors, if a result has them."""
    if "size_scores" not in samples or not len(samples["fpirs"]):
        return []
    return [
        SizedSearches(
            samples["sizes"],
            samples["size_mates"],
            samples["size_strangers"],
            samples["size_mate_scores"],
            samples["size_ranks"],
            samples["size_scores"],
            samples["fpirs"].tolist(),
            within=1,
        )
    ]


def _sides(
    both: tuple[Embeddings, Embeddings], lists: Lists, noises: Noises, rules: tuple[str, str], flip: str | None
) -> tuple[Side, Side, dict[str, str]]:
    """Probes and distractors without their noise, and the choices that describe how it was treated."""
    rule, missing = rules
    choices = {"noisy probes": "no list of them", "noisy distractors": "no list of them"}
    if lists is None:
        if any(names is not None for names in noises):
            raise InputError("noises need lists; give the lists of probes and of distractors")
        return Side.from_embeddings(both[0], None, flip), Side.from_embeddings(both[1], None, flip), choices
    (sought, others), (of_probes, of_others) = lists, noises
    if of_others is not None:
        before, others = len(others), others.without(of_others)
        choices["noisy distractors"] = f"{before - len(others):,} removed"
    far = Side.from_embeddings(both[1], others, flip, missing)
    if of_probes is None:
        return Side.from_embeddings(both[0], sought, flip, missing), far, choices
    if rule == "remove":
        choices["noisy probes"] = f"{sought.noisy(of_probes).sum():,} removed"
        return Side.from_embeddings(both[0], sought.without(of_probes), flip, missing), far, choices
    given = Side.from_embeddings(both[0], sought, flip, missing)
    noisy = np.isin(given.ids, sought.ids[sought.noisy(of_probes)])
    side = _replaced(given, noisy)
    gone = len(given) - len(side)
    removed = f" ({gone:,} of people without another photo removed)" if gone else ""
    choices["noisy probes"] = f"{noisy.sum() - gone:,} replaced by the mean of the person's others{removed}"
    return side, far, choices


def _replaced(side: Side, noisy: Flags) -> Side:
    """Noisy images as the mean of the unit vectors of the person's others; people without others are left out.

    Source: insightface, recognition/_evaluation_/megaface/remove_noises.py. Differs: that adds random numbers of at
    most 0.001 to the mean, so that two replaced photos of a person are not quite equal.
    """
    _, person = np.unique(side.labelled(), return_inverse=True)
    units = side.vectors.astype(np.float64)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    sums = np.zeros((int(person.max()) + 1, units.shape[1]))  # of the direction of the mean
    np.add.at(sums, person[~noisy], units[~noisy])
    vectors = np.where(noisy[:, None], sums[person], side.vectors)
    kept = np.isin(person, person[~noisy])
    return side.select(kept, vectors)


def _cmc(places: Rows, size: int) -> Curve:
    """Share of searches within each rank that occurs, and within the first and the last that can."""
    x = np.unique(np.concatenate([[1, size + 1], places[places <= size]]))
    shares = np.searchsorted(np.sort(places), x, side="right") / len(places)
    return Curve("cmc", f"{size:,} distractors", x.astype(np.float64), shares)
