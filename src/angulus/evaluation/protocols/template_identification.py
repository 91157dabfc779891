"""IJB's 1:N identification: rank-k, and TPIR at FPIRs, over the two galleries."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.evaluation import scoring
from angulus.evaluation.metrics.identification import OpenSetCurve, cmc, dir_at_far, open_set_curve, rank_k
from angulus.evaluation.metrics.intervals import Floats, Rows, Samples, Statistic, Units
from angulus.evaluation.protocols.by_group import Point, measure_groups
from angulus.evaluation.protocols.failures import BELOW, FAILED, NEVER, both_ways, without_failures
from angulus.evaluation.protocols.figures import Resampling, measure, rate_label, share_warnings, supported_rates
from angulus.evaluation.protocols.gallery_sizes import SizedSearches, best_by_size, sizes_up_to
from angulus.evaluation.protocols.group_rates import GroupFigures
from angulus.evaluation.protocols.group_trials import number_groups, searches
from angulus.evaluation.protocols.result import Curve, Result
from angulus.evaluation.protocols.templates import Templates

PROTOCOL = "ijb-identify"
# the samples that the embeddings gave, or that do not change the figures; the others say which searches they are
MEASURED = ("scores", "ranks", "sizes", "size_ranks", "size_scores", FAILED)
_OF_SEARCHES = ("gallery", "probes", "subjects", "mated", "scores", "ranks", "size_ranks", "size_scores")

FPIRS = (1e-1, 1e-2, 1e-3)
RANKS = (1, 5, 10)
_MAX_RANK = 100  # of the CMC


def identify(
    galleries: Sequence[Templates],
    probes: Templates,
    *,
    ranks: Sequence[int] = RANKS,
    fpirs: Sequence[float] | None = None,
    within: int | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Search each gallery for every probe: rank-k of those in it, TPIR at FPIRs; of each gallery, and their mean.

    A search for a person who is not in the gallery is a false positive where its best score reaches the threshold. The
    TPIR is the share of the others whose subject reaches it, and is within a rank where one is asked for.

    Args:
        galleries: G1 and G2, pooled; one template a subject.
        probes: pooled as the galleries were.
        ranks: k of rank-k.
        fpirs: where TPIR is reported, each of which the searches must support; None: those of 1e-1, 1e-2, 1e-3 that do.
        within: the subject must be within this rank for the TPIR; None: any rank.
        draws, seed: resamples of the probes' subjects for the intervals (0 for none), and their seed; galleries stay.

    Raises:
        InputError: lists without subjects, a subject twice in a gallery, a gallery that holds none of the
            probes' subjects, another pooling, or an FPIR that needs more searches.

    Source: C. Whitelam et al., "IARPA Janus Benchmark-B Face Dataset", CVPR Workshops 2017; B. Maze et al., "IARPA
    Janus Benchmark - C", ICB 2018; ISO/IEC 19795-1 (FPIR, TPIR).
    """
    if not galleries:
        raise InputError("identification needs at least one gallery; got none")
    for k in ranks:
        checks.integer("rank", k, low=1)
    if within is not None:
        checks.integer("within", within, low=1)
    held = [len(gallery) - int(gallery.is_failed.sum()) for gallery in galleries]
    sizes = sizes_up_to(min(held))[:-1]
    searches = [_search(gallery, probes, number, sizes, seed) for number, gallery in enumerate(galleries)]
    samples = {name: np.concatenate([search[name] for search in searches]) for name in searches[0]}
    if not samples[FAILED].any():
        samples.pop(FAILED)
    strangers = min(int((~search["mated"] & ~search[FAILED]).sum()) for search in searches)
    kept, notes = supported_rates(fpirs, strangers, standard=FPIRS, impostors="searches without mate", name="TPIR@FPIR")
    samples |= {
        "k": np.array(list(dict.fromkeys(ranks)), dtype=np.int64),
        "fpirs": np.array(kept, dtype=np.float64),
        "within": np.array(within or max(len(gallery) for gallery in galleries)),
        "sizes": np.array([[*sizes, size] for size in held]),
    }
    resampling = Resampling("probes' subjects", draws, seed)
    return measure(
        PROTOCOL,
        statistic(samples),
        samples,
        {
            **probes.choices(),
            "TPIR within rank": "any" if within is None else within,
            "smaller galleries": f"the first subjects of a random order (seed {seed}), and the one searched for",
        },
        {
            "galleries": len(galleries),
            **{f"subjects of G{number}": len(gallery) for number, gallery in enumerate(galleries, 1)},
            "probes": len(probes),
            "images": probes.images + sum(gallery.images for gallery in galleries),
            **_count_failed(probes, galleries),
            "searches with mate": int(samples["mated"].sum()),
            "searches without mate": int((~samples["mated"]).sum()),
        },
        resampling,
        curves=_curves(samples, len(galleries)),
        notes=_warnings(samples, galleries) + notes,
        by_group=_by_group(samples, probes, kept, resampling),
        about={**probes.origin, "probes": probes.source},
    )


def _by_group(samples: Samples, probes: Templates, fpirs: Sequence[float], resampling: Resampling) -> GroupFigures:
    """FPIR and FNIR by the group of the probe, over the searches of all galleries, each at its own thresholds."""
    if probes.groups is None:
        return GroupFigures()
    names, (group,) = number_groups(np.tile(probes.groups, len(np.unique(samples["gallery"]))))
    found = np.zeros((len(fpirs), len(group)), dtype=bool)
    points = []
    for number in np.unique(samples["gallery"]):
        rows = np.flatnonzero(samples["gallery"] == number)
        curve = _open_set(samples, rows, np.ones(len(group))) if fpirs else None
        for place, fpir in enumerate(fpirs):
            point = dir_at_far(curve, fpir, zero_ok=True)  # type: ignore[arg-type]
            found[place, rows] = samples["scores"][rows] >= point.threshold
            points.append(point.threshold)
    mated, within = samples["mated"], samples["ranks"] <= samples["within"]
    one = len(points) == len(fpirs)
    return measure_groups(
        names,
        searches(group[~mated], samples["subjects"][~mated], found[:, ~mated]),
        searches(group[mated], samples["subjects"][mated], ~(found & within)[:, mated]),
        [Point(f"FPIR={rate_label(f)}", f, points[place] if one else None) for place, f in enumerate(fpirs)],
        resampling,
        "identification",
    )


def _warnings(samples: Samples, galleries: Sequence[Templates]) -> tuple[str, ...]:
    """The warning if the model hardly tells subjects apart, by rank-1 in the smallest gallery."""
    number = int(np.argmin([len(gallery) for gallery in galleries]))
    ranks = samples["ranks"][(samples["gallery"] == number) & samples["mated"]]
    rate = 1 / len(galleries[number])
    return share_warnings(f"rank-1 in G{number + 1}", rank_k(ranks, 1), rate, len(ranks), "these subjects")


def statistic(samples: Samples) -> tuple[Statistic, Units]:
    """The figures of `identify` by weights of the searches, and the subjects that are searched for.

    A figure of a gallery for which no fitting search is drawn is absent, and so is its mean.
    """
    without = partial(without_failures, of_trials=_OF_SEARCHES)
    return both_ways(_figures, samples, without), Units.of(samples["subjects"])


def _figures(samples: Samples) -> Statistic:
    galleries = [np.flatnonzero(samples["gallery"] == number) for number in np.unique(samples["gallery"])]
    ks, fpirs = samples["k"].tolist(), samples["fpirs"].tolist()

    def figures(weights: Floats) -> dict[str, float]:
        per_gallery = []
        for rows in galleries:
            mated = rows[samples["mated"][rows]]
            values = {}
            if weights[mated].any():
                values = {f"rank-{k}": rank_k(samples["ranks"][mated], k, weights[mated]) for k in ks}
                if fpirs and weights[rows].sum() > weights[mated].sum():
                    curve = _open_set(samples, rows, weights)
                    values |= {f"TPIR@FPIR={rate_label(f)}": dir_at_far(curve, f, zero_ok=True).dir for f in fpirs}
            per_gallery.append(values)
        means = {
            name: float(np.mean([values[name] for values in per_gallery]))
            for name in per_gallery[0]
            if all(name in values for values in per_gallery)
        }
        if len(per_gallery) == 1:
            return means
        single = {f"{name}, G{g}": value for g, values in enumerate(per_gallery, 1) for name, value in values.items()}
        return means | single

    return figures


def by_size(samples: Samples) -> list[SizedSearches]:
    """The searches of each gallery in smaller ones; none of a gallery in which no FPIR is supported."""
    if "sizes" not in samples or not len(samples["fpirs"]):
        return []
    _, people = np.unique(samples["subjects"], return_inverse=True)
    searches = []
    for number, sizes in enumerate(samples["sizes"]):
        rows, mated = samples["gallery"] == number, samples["mated"]
        known, strange = rows & mated, rows & ~mated
        searches.append(
            SizedSearches(
                sizes,
                people[known],
                people[strange],
                samples["scores"][known],
                samples["size_ranks"][known],
                samples["size_scores"][strange],
                samples["fpirs"].tolist(),
                int(samples["within"]),
                f"G{number + 1}" if len(samples["sizes"]) > 1 else "",
            )
        )
    return searches


def _search(
    gallery: Templates, probes: Templates, number: int, sizes: Sequence[int], seed: int
) -> dict[str, NDArray[Any]]:
    """All searches of one gallery: whether the subject is in it, its score and rank, or the best score and 0.

    `size_ranks` and `size_scores` [P, S] are the same in galleries of the first `sizes` subjects of a seeded order, and
    of all.
    """
    if gallery.subjects is None or probes.subjects is None:
        raise InputError(f"{gallery.source} and {probes.source} must say who each template shows, for searches")
    if gallery.how != probes.how:
        raise InputError(f"galleries and probes must be pooled in the same way; got {gallery.how} and {probes.how}")
    people, first = np.unique(gallery.subjects, return_index=True)
    if len(people) < len(gallery):
        raise InputError(f"{gallery.source} must have one template per subject; got {len(gallery)} for {len(people)}")
    place = np.minimum(np.searchsorted(people, probes.subjects), len(people) - 1)
    mated = people[place] == probes.subjects
    if not mated.any():
        raise InputError(f"{gallery.source} must hold subjects of {probes.source}; it holds none of them")
    enrolled = np.flatnonzero(~gallery.is_failed)
    mates = first[place]
    failed = probes.is_failed | (mated & gallery.is_failed[mates])
    found, strange = mated & ~failed, ~mated & ~failed
    if not found.any():
        raise InputError(
            f"{gallery.source} must hold a subject of {probes.source}, both with embeddings; it holds none"
        )
    order = np.random.default_rng(seed).permutation(enrolled)
    cuts = [*sizes, len(order)]
    sides = probes.units[found], gallery.units
    own = scoring.pair_scores(*sides, torch.arange(int(found.sum())), torch.from_numpy(mates[found]))
    ids, shuffled = (probes.subjects[found], gallery.subjects[order]), gallery.units[order]
    size_ranks = np.where(mated, NEVER, 0)[:, None].repeat(len(cuts), axis=1)
    size_scores = np.full((len(probes), len(cuts)), BELOW)
    size_ranks[found] = scoring.rows_ahead(sides[0], shuffled, own, sizes=cuts, ids=ids).numpy() + 1
    size_scores[found] = own.numpy()[:, None]
    size_scores[strange] = best_by_size(probes.units[strange], shuffled, cuts)
    return {
        "gallery": np.full(len(probes), number),
        "probes": probes.numbers,
        "subjects": probes.subjects,
        "mated": mated,
        FAILED: failed,
        "scores": size_scores[:, -1].copy(),
        "ranks": size_ranks[:, -1].copy(),
        "size_ranks": size_ranks,
        "size_scores": size_scores,
    }


def _count_failed(probes: Templates, galleries: Sequence[Templates]) -> dict[str, int]:
    """For a result's counts: images without embedding, if any."""
    counted = [templates.counts() for templates in (probes, *galleries)]
    return {name: sum(counts.get(name, 0) for counts in counted) for name in max(counted, key=len)}


def _open_set(samples: Samples, rows: Rows, weights: Floats) -> OpenSetCurve:
    mated = samples["mated"][rows]
    known, strange = rows[mated], rows[~mated]
    return open_set_curve(
        samples["scores"][known],
        samples["ranks"][known],
        samples["scores"][strange],
        rank=int(samples["within"]),
        genuine_weights=weights[known],
        impostor_weights=weights[strange],
    )


def _curves(samples: Samples, galleries: int) -> tuple[Curve, ...]:
    """CMC and open-set ROC of each gallery; without a point at which searches that failed would be accepted."""
    curves = []
    for number in range(galleries):
        rows = np.flatnonzero(samples["gallery"] == number)
        ranks = samples["ranks"][rows[samples["mated"][rows]]]
        x = np.arange(1.0, min(_MAX_RANK, int(ranks[ranks < NEVER].max())) + 1)
        curves.append(Curve("cmc", f"G{number + 1}", x, cmc(ranks, len(x))))
        if not samples["mated"][rows].all():
            open_set = _open_set(samples, rows, np.ones(len(samples["scores"])))
            there = open_set.thresholds > BELOW
            if there.any():
                curves.append(Curve("roc", f"open set, G{number + 1}", open_set.fpir[there], open_set.tpir[there]))
    return tuple(curves)
