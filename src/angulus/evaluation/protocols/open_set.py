"""BLUFR on LFW: verification and open-set identification at low false accept rates, over the published trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from angulus.core import checks, environment
from angulus.core.embeddings import Embeddings
from angulus.evaluation import scoring
from angulus.evaluation.lists.blufr import Blufr, BlufrTrial
from angulus.evaluation.metrics.identification import OpenSetCurve, cmc, dir_at_far, open_set_curve
from angulus.evaluation.metrics.intervals import Flags, Floats, Rows, Samples, Statistic, Units
from angulus.evaluation.protocols import failures
from angulus.evaluation.protocols.by_group import Point, measure_groups, why_not
from angulus.evaluation.protocols.by_group_scale import genuine_trials, impostor_trials, with_failed
from angulus.evaluation.protocols.figures import Resampling, numbers, rate_label, share_warnings, supported_rates
from angulus.evaluation.protocols.gallery_sizes import best_by_size, sizes_up_to
from angulus.evaluation.protocols.group_rates import GroupFigures
from angulus.evaluation.protocols.group_trials import Trials, number_groups, searches
from angulus.evaluation.protocols.result import Curve, Result
from angulus.evaluation.protocols.vectors import METRICS, Vectors, flip_choice, projected
from angulus.evaluation.registry import WITHOUT_FAILURES

PROTOCOL = "blufr"
# the samples that the embeddings gave; the others say which figures of which trials they are
MEASURED = ("values", "sizes", "size_fars", "size_misses")
ORDER_SEED = 0  # of the order in which the people of a gallery fill smaller ones

VERIFICATION_FARS = (1e-3, 1e-4, 1e-5)  # NF reports the first, MV all three
IDENTIFICATION_FARS = (1e-2,)
CURVE_FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # each costs about as much as a reported one
MAX_RANK = 100  # of the CMC


def evaluate(
    embeddings: Embeddings,
    blufr: Blufr,
    *,
    flip: str | None = None,
    pca: int | None = None,
    fars: Sequence[float] | None = None,
    open_set_fars: Sequence[float] | None = None,
    rank: int = 1,
    missing: str = "refuse",
) -> Result:
    """VR at FARs over all pairs of a trial's test images, and DIR at FARs and a rank; mean and mean − deviation.

    Scores are float64 cosines of the vectors as they are stored, the same bits for a pair wherever it stands: all pairs
    of a trial (47 million in LFW) are streamed through products of lower precision that may only rule pairs out, and
    each that could pass a threshold is scored again in float64, so the counts are exact and little memory is used.

    Args:
        embeddings: of all images that the trials test (with PCA: and train on).
        blufr: the published configuration.
        flip: None, "sum" or "concat".
        pca: project onto this many directions, fitted on each trial's training images.
        fars: where the verification rate (TAR) is reported, each of which every trial must support; None: those of
            1e-3, 1e-4, 1e-5 that they do.
        open_set_fars: where the detection and identification rate is; None: 1e-2 if the trials support it.
        rank: the true subject must be within it.
        missing: "refuse" images without embedding; or "fail": failures to enrol, see `failures`.

    Raises:
        checks.InputError: an image without embedding, a trial without genuine or without impostor probes, or a FAR that
            needs more impostors than a trial has.

    Source: S. Liao, Z. Lei, D. Yi, S. Z. Li, "A Benchmark Study of Large-scale Unconstrained Face Recognition", IJCB
    2014; NF Table 3, MV Table 3. Differs: the published scripts accept round(FAR · n) impostors, which may exceed the
    FAR; here it never does.
    """
    checks.integer("rank", rank, low=1)
    if len(blufr.trials) < 2:
        raise checks.InputError(f"{blufr.source} must hold at least two trials, over which to take the deviation")
    for number, trial in enumerate(blufr.trials, 1):
        for name, probes in (("genuine", trial.genuine), ("impostor", trial.impostor)):
            if not len(probes):  # and so no pairs of that kind are ever missing
                raise checks.InputError(f"{blufr.source}: trial {number} has no {name} probe; it needs both kinds")
    listed = np.unique(np.concatenate([np.concatenate([t.test, t.gallery]) for t in blufr.trials]))
    rows = embeddings.rows(blufr.ids[listed], blufr.source, missing=missing)
    failed = np.zeros(len(blufr.ids), dtype=bool)
    failed[listed] = rows < 0
    if pca is not None and missing == "fail":
        trained = np.unique(np.concatenate([trial.train for trial in blufr.trials]))
        failed[trained] |= embeddings.rows(blufr.ids[trained], blufr.source, missing=missing) < 0
    enrolled = [_enrolled(trial, blufr.labels, failed) for trial in blufr.trials]
    for number, trial in enumerate(enrolled, 1):
        if not (len(trial.genuine) and len(trial.impostor)):
            raise checks.InputError(f"{blufr.source}: trial {number} needs probes of both kinds with embeddings")
    impostor_pairs = min(_impostor_pairs(blufr.labels[trial.test]) for trial in enrolled)
    impostor_probes = min(len(trial.impostor) for trial in enrolled)
    verified, notes = supported_rates(fars, impostor_pairs, standard=VERIFICATION_FARS, name="VR@FAR")
    detected, more = supported_rates(
        open_set_fars, impostor_probes, standard=IDENTIFICATION_FARS, impostors="impostor probes", name="DIR@FAR"
    )
    sizes = sizes_up_to(min(len(trial.gallery) for trial in enrolled))
    rates = _Rates(verified, tuple(far for far in CURVE_FARS if 1 / impostor_pairs <= far), detected, rank, sizes)
    names: tuple[str, ...] = ()
    group = None
    if (of_listed := embeddings.groups_of(rows, blufr.ids[listed])) is not None:
        names, (known,) = number_groups(of_listed)
        group = np.full(len(blufr.ids), -1)
        group[listed] = known
    compared = None if why_not(names) else group
    trials = [
        _trial(_vectors(embeddings, blufr, own, flip, pca), blufr.labels, (trial, own), rates, compared, failed)
        for trial, own in zip(blufr.trials, enrolled, strict=True)
    ]
    samples = {
        "figures": np.array(list(trials[0].values)),
        "values": np.array([list(trial.values.values()) for trial in trials]),
        **{f"{name} images": np.array([len(getattr(trial, name)) for trial in blufr.trials]) for name in _PARTS},
        "sizes": np.array(sizes),
        "size_fars": np.array(detected, dtype=np.float64),
        "size_misses": np.array([trial.misses for trial in trials]),
    }
    statistics, units = statistic(samples)
    name = f"VR@FAR={rate_label(max(verified, default=0))}"
    least = min(len(trial.genuine) for trial in blufr.trials)  # fewer than its genuine pairs
    warnings = share_warnings(name, statistics(np.ones(len(trials)))[name], max(verified), least) if verified else ()
    unequal = _by_group(names, trials, rates) if group is not None else GroupFigures()
    spreads = dict(zip(samples["figures"].tolist(), samples["values"].std(axis=0, ddof=1).tolist(), strict=True))
    return Result(
        PROTOCOL,
        numbers(statistics, units, 0, 0, spreads=spreads),
        {
            "score": METRICS["cosine"],
            "flip": flip_choice(embeddings, flip),
            "pca": "none" if pca is None else f"{pca} directions, fitted on each trial's training images",
            "±": "standard deviation over the trials, n − 1",
            "smaller galleries": f"the first people of a random order (seed {ORDER_SEED}), and who is searched for",
            "intervals": "none: the trials draw from the same people",
            **(failures.CHOICE if missing == "fail" else {}),
        },
        {
            "trials": len(blufr.trials),
            "images": len(blufr.ids),
            **({"images without embedding": int(failed.sum())} if failed.any() else {}),
            "least impostor pairs of a trial": impostor_pairs,
            "least impostor probes of a trial": impostor_probes,
        },
        curves=_curves(trials, rates),
        notes=warnings
        + notes
        + more
        + ("the trials draw from the same people: resampling them gives intervals too narrow",)
        + unequal.notes,
        samples=samples,
        about={**environment.describe(torch.device("cpu")), **embeddings.origin, "configuration": blufr.source},
        by_group=unequal.points,
    )


def statistic(samples: Samples) -> tuple[Statistic, Units]:
    """The figures of `evaluate` by weights of the trials, and the trials, each a unit."""
    names, values = samples["figures"].tolist(), samples["values"]
    ends = [WITHOUT_FAILURES * name.endswith(WITHOUT_FAILURES) for name in names]

    def figures(weights: Floats) -> dict[str, float]:
        total = weights.sum()
        means = weights @ values / total
        deviations = np.sqrt(weights @ (values - means) ** 2 / max(total - 1, 1))
        lower = [f"{name.removesuffix(end)}, mean − deviation{end}" for name, end in zip(names, ends, strict=True)]
        return dict(zip([*names, *lower], [*means.tolist(), *(means - deviations).tolist()], strict=True))

    return figures, Units.of(np.arange(len(values)))


_PARTS = ("train", "test", "gallery", "genuine", "impostor")


def _enrolled(trial: BlufrTrial, labels: Rows, failed: Flags) -> BlufrTrial:
    """The trial without the images that have no embedding, nor the genuine probes whose gallery image has none."""
    parts = {name: rows[~failed[rows]] for name in _PARTS for rows in [getattr(trial, name)]}
    mated = np.isin(labels[parts["genuine"]], labels[parts["gallery"]])
    return BlufrTrial(**{**parts, "genuine": parts["genuine"][mated]})


@dataclass(frozen=True)
class _Rates:
    """The FARs of the figures and of the ROC, the rank, and the sizes of smaller galleries."""

    verified: tuple[float, ...]
    drawn: tuple[float, ...]
    detected: tuple[float, ...]
    rank: int
    sizes: list[int]


@dataclass(frozen=True)
class _TrialScores:
    """One trial's figures, ROC at the drawn FARs, CMC, open-set curve, and FNIR by gallery size."""

    values: dict[str, float]
    roc: Floats
    cmc: Floats
    open_set: OpenSetCurve
    misses: Floats  # [S, F], 1 − DIR at each size and FAR
    pairs: tuple[Trials, Trials] | None  # by group: impostor and genuine pairs at the verified FARs
    searches: tuple[Trials, Trials] | None  # and searches at the detected FARs


def _vectors(embeddings: Embeddings, blufr: Blufr, trial: BlufrTrial, flip: str | None, pca: int | None) -> Vectors:
    """The vectors of a trial's images [N, d], at the list's rows; rows that the trial does not use are zeros."""
    used = trial.test if pca is None else np.concatenate([trial.train, trial.test])
    vectors = embeddings.fused(embeddings.rows(blufr.ids[used], blufr.source), flip)
    if pca is not None:
        vectors = projected(vectors, np.arange(len(trial.train)), pca)
    placed = np.zeros((len(blufr.ids), vectors.shape[1]), dtype=vectors.dtype)
    placed[used] = vectors
    return placed


def _by_group(names: Sequence[str], trials: Sequence[_TrialScores], rates: _Rates) -> GroupFigures:
    """FMR and FNMR, and FPIR and FNIR, by group over the pairs and searches of all trials, each at its threshold."""
    verified = [Point(f"FAR={rate_label(far)}", far, None) for far in rates.verified]
    detected = [Point(f"open set FAR={rate_label(far)}, rank {rates.rank}", far, None) for far in rates.detected]
    pairs = _join([trial.pairs for trial in trials])
    tried = _join([trial.searches for trial in trials])
    none = Resampling("people", 0, 0)
    return measure_groups(names, *pairs, verified, none) + measure_groups(
        names, *tried, detected, none, "identification"
    )


def _join(kinds: Sequence[tuple[Trials, Trials] | None]) -> tuple[Trials | None, Trials | None]:
    """The trials of both kinds, of all of BLUFR's trials."""
    known = [each for each in kinds if each is not None]
    if not known:
        return None, None
    return Trials.concatenate([first for first, _ in known]), Trials.concatenate([second for _, second in known])


def _trial(
    vectors: Vectors,
    labels: Rows,
    trials: tuple[BlufrTrial, BlufrTrial],
    rates: _Rates,
    groups: Rows | None,
    failed: Flags,
) -> _TrialScores:
    """The figures of a trial, of which the second of `trials` are the images with embeddings."""
    whole, trial = trials
    tested, people = vectors[trial.test], labels[trial.test]
    fars = list(dict.fromkeys(rates.verified + rates.drawn))
    everyone, among = (_impostor_pairs(labels[each.test]) for each in trials)
    genuine = scoring.PairBatch.concatenate(scoring.genuine(tested, None, ids=people))
    total = _genuine_pairs(labels[whole.test])
    sizes = [*rates.sizes[:-1], len(trial.gallery)]
    order = np.random.default_rng(ORDER_SEED).permutation(trial.gallery)
    ranks, mates = _ranks(vectors, labels, trial, order, sizes)
    best = best_by_size(vectors[trial.impostor], vectors[order], sizes)

    def verified(fmrs: Sequence[float], of: int) -> tuple[Floats, Floats]:
        """Threshold and verification rate at each FMR."""
        points = scoring.thresholds_at(tested, None, fmrs, ids=people, zero_ok=True)
        at = np.array([point.threshold for point in points])
        return at, np.array([float((genuine.scores >= threshold).sum()) / of for threshold in at])

    def searched(lost: int, unseen: int) -> list[OpenSetCurve]:
        """The open-set curve of each size, with so many genuine and impostor probes that failed."""
        own, alarms = np.append(mates, np.full(lost, failures.BELOW)), np.full((unseen, len(sizes)), failures.BELOW)
        places = np.concatenate([ranks, np.full((lost, len(sizes)), failures.NEVER)])
        alarms = np.concatenate([best, alarms])
        return [open_set_curve(own, places[:, s], alarms[:, s], rank=rates.rank) for s in range(len(sizes))]

    def figures(rate: Floats, curve: OpenSetCurve) -> dict[str, float]:
        values = {f"VR@FAR={rate_label(far)}": rate[fars.index(far)] for far in rates.verified}
        return values | {
            f"DIR@FAR={rate_label(far)}, rank {rates.rank}": dir_at_far(curve, far, zero_ok=far == 0).dir
            for far in rates.detected
        }

    lost, unseen = len(whole.genuine) - len(trial.genuine), len(whole.impostor) - len(trial.impostor)
    at, rate = verified([failures.rate_among(far, everyone, among) for far in fars], total)
    by_size = searched(lost, unseen)
    curve = by_size[-1]
    values = figures(rate, curve)
    if failed.any():
        values |= failures.renamed(figures(verified(fars, len(genuine.scores))[1], searched(0, 0)[-1]))
    misses = [[1 - dir_at_far(one, far, zero_ok=far == 0).dir for far in rates.detected] for one in by_size]
    pairs, tried = None, None
    if groups is not None:
        own = groups[trial.test], groups[trial.test]
        pairs = (
            impostor_trials((tested, None), own, (people, None), at[: len(rates.verified)].tolist()),
            genuine_trials(genuine, own, people, at[: len(rates.verified)].tolist()),
        )
        if failed[whole.test].any():
            everybody = groups[whole.test]
            pairs = with_failed(*pairs, (everybody, everybody), (labels[whole.test], None), failed[whole.test])
        detected = np.array([[dir_at_far(curve, far, zero_ok=far == 0).threshold] for far in rates.detected])
        detected = detected.reshape(len(rates.detected), 1)
        found = np.zeros((len(rates.detected), len(whole.genuine)), dtype=bool)
        found[:, np.isin(whole.genuine, trial.genuine)] = (mates >= detected) & (ranks[:, -1] <= rates.rank)
        alarms = np.zeros((len(rates.detected), len(whole.impostor)), dtype=bool)
        alarms[:, np.isin(whole.impostor, trial.impostor)] = best[:, -1] >= detected
        tried = (
            searches(groups[whole.impostor], labels[whole.impostor], alarms),
            searches(groups[whole.genuine], labels[whole.genuine], ~found),
        )
    highest = min(MAX_RANK, len(trial.gallery))
    closed = cmc(np.append(ranks[:, -1], np.full(lost, failures.NEVER)), highest)
    drawn = rate[[fars.index(far) for far in rates.drawn]]
    return _TrialScores(values, drawn, closed, curve, np.array(misses), pairs, tried)


def _ranks(vectors: Vectors, labels: Rows, trial: BlufrTrial, images: Rows, sizes: list[int]) -> tuple[Rows, Floats]:
    """Rank of each genuine probe's person [G, S] among the first `sizes` gallery images, and the score with the person.

    Ties count against the person.
    """
    gallery, probes = labels[images], labels[trial.genuine]
    order = np.argsort(gallery)
    mate = order[np.searchsorted(gallery, probes, sorter=order)]
    sides = vectors[trial.genuine], vectors[images]
    own = scoring.pair_scores(*sides, torch.arange(len(probes)), torch.from_numpy(mate))
    return scoring.rows_ahead(*sides, own, sizes=sizes, ids=(probes, gallery)).numpy() + 1, own.numpy()


def _genuine_pairs(people: Rows) -> int:
    counts = np.unique(people, return_counts=True)[1]
    return int((counts * (counts - 1)).sum()) // 2


def _impostor_pairs(people: Rows) -> int:
    return len(people) * (len(people) - 1) // 2 - _genuine_pairs(people)


def _curves(trials: Sequence[_TrialScores], rates: _Rates) -> tuple[Curve, ...]:
    """Means over the trials: ROC and open-set ROC at fixed FARs, and CMC up to the rank that all trials have."""
    fars = np.array(rates.drawn)
    places = [far for far in CURVE_FARS if all(1 / trial.open_set.impostors <= far for trial in trials)]
    detected = [[dir_at_far(trial.open_set, far).dir for far in places] for trial in trials]
    ranks = min(len(trial.cmc) for trial in trials)
    closed = _mean([t.cmc[:ranks] for t in trials])
    drawn = [Curve("cmc", "closed set, mean over the trials", np.arange(1.0, ranks + 1), closed)]
    if len(fars):
        drawn.append(Curve("roc", "verification, mean over the trials", fars, _mean([t.roc for t in trials])))
    if places:
        name = f"open set, rank {rates.rank}, mean over the trials"
        drawn.append(Curve("roc", name, np.array(places), _mean(detected)))
    return tuple(drawn)


def _mean(rows: Sequence[Any]) -> Floats:
    return np.asarray(np.mean(rows, axis=0), dtype=np.float64)
