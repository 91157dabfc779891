"""Verification of all pairs, and searches, at the scale of Trillion-Pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation import scoring
from angulus.evaluation.metrics.identification import OpenSetCurve, dir_at_far, open_set_curve
from angulus.evaluation.metrics.intervals import Flags, Floats, Rows
from angulus.evaluation.protocols.by_group import Point, measure_groups
from angulus.evaluation.protocols.by_group_scale import pair_figures
from angulus.evaluation.protocols.figures import Resampling, rate_label, supported_rates
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
from angulus.evaluation.scoring.mates import Identities

PROTOCOL = "trillion-pairs"

PAIRS_FARS = (1e-7, 1e-8, 1e-9)  # Trillion-Pairs reports the last
SEARCH_FARS = (1e-2, 1e-3)  # Trillion-Pairs reports the last
_AMONG = "of the probes among themselves: nobody of them is in the gallery, which holds distractors only"

# the curve of the searches; what was chosen; what was counted; by group
Measured = tuple[OpenSetCurve, dict[str, str], dict[str, int], GroupFigures]
How = tuple[scoring.ScoringOptions, Resampling]


def evaluate(
    probes: Embeddings,
    gallery: Embeddings,
    *,
    flip: str | None = None,
    fars: Sequence[float] | None = None,
    search_fars: Sequence[float] | None = None,
    draws: int = 1000,
    seed: int = 0,
    options: scoring.ScoringOptions = scoring.DEFAULT,
) -> Result:
    """TAR at FARs over all pairs of a probe and a gallery image; rank-1, and TPR at FARs, of searches in the gallery.

    Verification: pairs of one identity are genuine and all others impostors; all are looked at. Identification: a probe
    whose identity is in the gallery has rank 1 where an image of it scores higher than all images of others (ties count
    against), and is found where that score also reaches the threshold. A false accept is an impostor probe, one whose
    identity is not in the gallery, whose best score reaches the threshold. Where the gallery holds all identities,
    every probe stands for an impostor, with the images of its own identity left out.

    A gallery of distractors only, without labels or with labels of nobody among the probes, is Trillion-Pairs' own
    layout (probes ELFW, gallery DELFW). Genuine pairs are then those of the probes among themselves; each image of a
    pair is looked for among the other and the gallery, and each probe also stands for an impostor.

    Args:
        probes: with `labels`, the identities.
        gallery: with `labels` if it holds people of the probes; those of distractors are no probe's. Images of unknown
            people are left out and counted, among the probes and in such a gallery.
        fars: where TAR is reported, each of which the pairs must support; None: those of 1e-7, 1e-8, 1e-9 that they do.
        search_fars: where TPR is; None: those of 1e-2, 1e-3 that the impostor probes support.
        flip, draws, seed, options: as in `distractors.megaface`; the probes' identities are resampled.

    Raises:
        InputError: probes without labels, no two images of one identity, no impostor pair, an image on both sides, a
            FAR that needs more.

    Source: the Trillion-Pairs challenge, DeepGlint, 2018 (FAR = 1e-9 and 1e-3); MV Table 5.
    """
    require_alike(probes, gallery)
    given = Side.from_embeddings(probes, None, flip), Side.from_embeddings(gallery, None, flip)
    sought, held = given[0].known_people(), given[1]
    if held.people is not None and (held.people != "").any():
        held = held.known_people()
    require_apart(sought, held)
    labels = sought.labelled()
    mated = np.isin(labels, held.labelled()) if held.people is not None else np.zeros(len(labels), dtype=bool)
    people, person = np.unique(labels, return_inverse=True)
    tally = Tally(len(people))
    rates = _Rates(fars, search_fars)
    measure = _with_mates if mated.any() else _among_distractors
    resampling = Resampling("people", draws, seed)
    curve, choices, counts, unequal = measure(tally, sought, held, person, mated, rates, (options, resampling))
    return tally_result(
        PROTOCOL,
        tally,
        {"score": METRICS["cosine"], "flip": flip_choice(probes, flip), **choices},
        {
            "people": len(people),
            "probes": len(sought),
            **count_left_out("probes", given[0], sought),
            "gallery images": len(held),
            **count_left_out("gallery images", given[1], held),
            **counts,
        },
        resampling,
        curves=(Curve("roc", "search, rank 1", curve.fpir, curve.tpir),),
        guessing=rates.guessing,
        notes=tuple(rates.notes),
        sources={**probes.origin, "embeddings": sought.source, "gallery": held.source},
        by_group=unequal,
    )


@dataclass
class _Rates:
    """The FARs that are asked for, those that the data support, and notes on the others."""

    fars: Sequence[float] | None
    search_fars: Sequence[float] | None
    notes: list[str] = field(default_factory=list)
    kept: tuple[float, ...] = ()

    def settle(self, impostors: int, strangers: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The FARs of pairs and of searches that so many impostor pairs and impostor probes support."""
        self.kept, notes = supported_rates(self.fars, impostors, standard=PAIRS_FARS)
        detected, more = supported_rates(
            self.search_fars, strangers, standard=SEARCH_FARS, impostors="impostor probes", name="TPR@FAR"
        )
        self.notes += notes + more
        return self.kept, detected

    @property
    def guessing(self) -> tuple[str, float]:
        """A figure that guessing brings to a rate."""
        return f"TAR@FAR={rate_label(max(self.kept, default=0))}", max(self.kept, default=0)


def _with_mates(
    tally: Tally, sought: Side, held: Side, person: Rows, mated: Flags, rates: _Rates, how: How
) -> Measured:
    """Genuine pairs are of a probe and an image of its person in the gallery."""
    options = how[0]
    names, numbered = np.unique(np.concatenate([sought.labelled(), held.labelled()]), return_inverse=True)
    if len(names) == 1:
        raise InputError(f"{held.source} must hold another identity than the probes' of {sought.source}; it holds none")
    ids, sides = (numbered[: len(sought)], numbered[len(sought) :]), (sought.vectors, held.vectors)
    genuine = Identities.of(ids, len(sought), len(held)).pairs(within=False)
    impostors = len(sought) * len(held) - genuine
    strangers = ~mated if not mated.all() else mated
    kept, detected = rates.settle(impostors, int(strangers.sum()))
    points = scoring.thresholds_at(*sides, kept, ids=ids, zero_ok=True, options=options)
    own = np.full(len(sought), -np.inf)
    for pairs in scoring.genuine(*sides, ids=ids, options=options):
        np.maximum.at(own, pairs.probes, pairs.scores)
        _add_verified(tally, points, person[pairs.probes], pairs.scores)
    best = scoring.best_per_probe(*sides, ids=ids, options=options).numpy()
    searched = _Searches(person[mated], own[mated], (own > best)[mated], best[strangers])
    curve, thresholds = _add_searches(tally, searched, detected)
    unequal = GroupFigures()
    if (found := numbered_groups(sought, held)) is not None:
        of_groups, groups = found
        batches = scoring.genuine(*sides, ids=ids, options=options)
        unequal = pair_figures(of_groups, sides, (groups, groups), ids, batches, points, how)
        of_searches = groups[0][mated], groups[0][strangers], person[strangers]
        unequal += _searches_by_group(of_groups, searched, of_searches, thresholds, how[1])
    counts = {
        "genuine pairs": genuine,
        "impostor pairs": impostors,
        "probes in the gallery": int(mated.sum()),
        "impostor probes": int(strangers.sum()),
    }
    of_impostors = "all, without their own images" if mated.all() else "those not in the gallery"
    return curve, {"impostor probes": of_impostors}, counts, unequal


def _among_distractors(
    tally: Tally, sought: Side, held: Side, person: Rows, mated: Flags, rates: _Rates, how: How
) -> Measured:
    """Genuine pairs are of two probes, each looked for among the other and the gallery."""
    options = how[0]
    photos = np.bincount(person)
    if photos.max() < 2:
        raise InputError(
            f"{sought.source} must hold two images of an identity, or {held.source} an identity of it; they hold none"
        )
    kept, detected = rates.settle(len(sought) * len(held), len(sought))
    sides = sought.vectors, held.vectors
    points = scoring.thresholds_at(*sides, kept, zero_ok=True, options=options)
    best = scoring.best_per_probe(*sides, options=options).numpy()
    genuine = scoring.PairBatch.concatenate(scoring.genuine(sought.vectors, None, ids=person, options=options))
    _add_verified(tally, points, person[genuine.probes], genuine.scores)
    looked_for = np.concatenate([genuine.probes, genuine.gallery])
    scores = np.concatenate([genuine.scores, genuine.scores])
    searched = _Searches(person[looked_for], scores, scores > best[looked_for], best)
    curve, thresholds = _add_searches(tally, searched, detected)
    unequal = GroupFigures()
    if (found := numbered_groups(sought, held)) is not None:
        names, groups = found
        within = (groups[0], groups[0])
        unequal = pair_figures(names, sides, (groups, within), (person, None), [genuine], points, how)
        unequal += _searches_by_group(names, searched, (groups[0][looked_for], groups[0], person), thresholds, how[1])
    alone = int((photos == 1).sum())
    if alone:
        rates.notes.append(f"{alone} people have one photo, which is no more than an impostor")
    counts = {
        "searches": len(looked_for),
        "genuine pairs": len(genuine.scores),
        "impostor pairs": len(sought) * len(held),
        "impostor probes": len(sought),
    }
    return curve, {"genuine pairs": _AMONG, "impostor probes": "all"}, counts, unequal


def _add_verified(tally: Tally, points: Sequence[scoring.ThresholdAtFmr], person: Rows, scores: Floats) -> None:
    """TAR at each threshold, of genuine pairs."""
    for point in points:
        tally.add(f"TAR@FAR={rate_label(point.fmr)}", person, scores >= point.threshold, point.threshold)


@dataclass(frozen=True)
class _Searches:
    """Genuine searches: whose each is, its mate's score, whether that is first; and impostors' best scores."""

    person: Rows
    own: Floats
    first: Flags
    alarms: Floats

    @property
    def found(self) -> Floats:
        """The mate's score where it is first, else −inf."""
        return np.where(self.first, self.own, -np.inf)


def _add_searches(tally: Tally, searched: _Searches, fars: Sequence[float]) -> tuple[OpenSetCurve, dict[float, float]]:
    """Rank-1, and TPR at each FAR; returns the curve, and the threshold of each FAR."""
    tally.add("rank-1", searched.person, searched.first)
    curve = open_set_curve(searched.own, np.where(searched.first, 1, 2), searched.alarms)
    thresholds = {far: dir_at_far(curve, far, zero_ok=far == 0).threshold for far in fars}
    for far, threshold in thresholds.items():
        tally.add(f"TPR@FAR={rate_label(far)}", searched.person, searched.found >= threshold, threshold)
    return curve, thresholds


def _searches_by_group(
    names: Sequence[str],
    searched: _Searches,
    of_searches: tuple[Rows, Rows, Rows],
    thresholds: Mapping[float, float],
    resampling: Resampling,
) -> GroupFigures:
    """FPIR and FNIR by the group of the probe.

    `of_searches` are the groups of genuine searches, and groups and people of impostor probes.
    """
    mates, strangers, people = of_searches
    at = np.array(list(thresholds.values()), dtype=np.float64)[:, None]
    return measure_groups(
        names,
        searches(strangers, people, searched.alarms >= at),
        searches(mates, searched.person, searched.found < at),
        [Point(f"search FAR={rate_label(far)}", far, threshold) for far, threshold in thresholds.items()],
        resampling,
        "identification",
    )
