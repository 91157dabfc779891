"""Retrieval and re-identification: how well queries find images of their class in a gallery."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation import scoring
from angulus.evaluation.metrics import retrieval as metrics
from angulus.evaluation.metrics.intervals import Floats, Rows
from angulus.evaluation.metrics.retrieval import AP_RULES, MatchRanks
from angulus.evaluation.protocols import query_sides, sides
from angulus.evaluation.protocols.figures import Resampling
from angulus.evaluation.protocols.query_sides import Chosen, Searched
from angulus.evaluation.protocols.result import WARNING, Curve, Result
from angulus.evaluation.protocols.sides import Tally, tally_result
from angulus.evaluation.protocols.single_shot import SingleShot
from angulus.evaluation.protocols.vectors import METRICS, flip_choice

RETRIEVAL, REID = "retrieval", "reid"
TIES = ("expected", "pessimistic", "optimistic")
CHOICES = {"ties": TIES, "ap": AP_RULES}
KS = (1, 10, 100)
RANKS = (1, 5, 10)
MOST_CLASSES = 200  # that a table shows; the samples hold any number
MATES = 2**19  # matches whose ranks are counted in one pass over the gallery
SHOWN, NEIGHBOURS = 32, 10  # queries kept with their nearest images, half of them the worst
MEASURED = (
    *sides.MEASURED,
    *(f"shown_{name}" for name in ("queries", "why", "precision", "neighbours", "scores", "right")),
)

_FURTHER = 256  # ignored images among the nearest of a shown query; where there are more, fewer neighbours are shown
_CURVE = np.unique(np.geomspace(1, 1000, 40).round().astype(int))  # ranks of the CMC curve


@dataclass(frozen=True)
class Figures:
    """What is reported, and how.

    Args:
        ks: k of Recall@k (rank-k of re-identification).
        at: k of mAP@k; None: left out.
        ap: "rank": precision at the rank of each match; "trapezoid": its mean with the precision before it.
        ties: "expected": the mean over all orders of equal scores; "pessimistic": non-matches first; "optimistic".
        per_class: report each figure of each class, too.
        single_shot: repeats of a gallery with one random image of each identity; 0 for none.
    """

    ks: Sequence[int] = KS
    at: int | None = 100
    ap: str = "rank"
    ties: str = "expected"
    per_class: bool = False
    single_shot: int = 0

    def __post_init__(self) -> None:
        for k in self.ks:
            checks.integer("k", k, low=1)
        if self.at is not None:
            checks.integer("at", self.at, low=1)
        checks.integer("single_shot", self.single_shot, low=0, high=1000)
        for name, values in CHOICES.items():
            checks.choice(name, getattr(self, name), values)

    def names(self, kind: str) -> dict[str, Any]:
        """Each figure by name: ranks -> [Q]."""
        recall = "rank-{}" if kind == REID else "Recall@{}"
        figures: dict[str, Any] = {
            recall.format(k): lambda ranks, k=k: metrics.recall(ranks, k) for k in dict.fromkeys(self.ks)
        }
        figures["mAP"] = lambda ranks: metrics.average_precision(ranks, rule=self.ap)
        if self.at is not None:
            figures[f"mAP@{self.at}"] = lambda ranks: metrics.average_precision(ranks, self.at, rule=self.ap)
        figures["mINP"] = metrics.inverse_negative_penalty
        return figures | {"R-precision": metrics.r_precision, "MAP@R": metrics.map_at_r}


def figures(kind: str, **given: Any) -> Figures:
    """The figures of a kind by default, but for those given."""
    return Figures(**{**({"ks": RANKS, "at": None} if kind == REID else {}), **given})


def evaluate(
    embeddings: Embeddings,
    others: Embeddings | None = None,
    *,
    kind: str = RETRIEVAL,
    chosen: Chosen | None = None,
    reported: Figures | None = None,
    flip: str | None = None,
    draws: int = 1000,
    seed: int = 0,
    options: scoring.ScoringOptions = scoring.DEFAULT,
) -> Result:
    """Recall@k (the CMC at k), mAP, mAP@k, mINP, R-precision and MAP@R of queries that search a gallery by cosine.

    A query never matches itself. Queries without a match in the gallery are left out and counted. All scores are
    looked at, in float64 where it matters, and never stored. `metrics.retrieval` has the formulas.

    The result's samples, for reports: `figures` [F], `hits` and `trials` [F, C] by figure and class, `classes` [C]; and
    a few queries with their nearest gallery images: `shown_queries` [S] of ids, first those with the lowest average
    precision, then some drawn (`shown_why`: "worst", "drawn"), `shown_precision` [S], `shown_neighbours` [S, 10] of
    ids by falling score ("" where there are fewer), `shown_scores` (NaN) and `shown_right`, whether each is a match.

    Args:
        embeddings: with `labels`; queries and gallery in one, or the queries.
        others: the gallery; an image in both (by id) is left out for itself.
        kind: "retrieval" or "reid"; only the names and the defaults differ.
        chosen: which rows search which, and what is ignored; None: the defaults of `kind`.
        reported: the figures, and how they are computed; None: the defaults of `kind`.
        flip: None, "sum" or "concat".
        draws, seed: resamples of the classes for the intervals (0 for none); the seed also draws what is drawn.
        options: of the scoring; they change no figure.

    Raises:
        InputError: no labels, no query with a match, cameras without a rule for them, or a rule without cameras.

    Source: K. Musgrave et al., ECCV 2020; L. Zheng et al., "Scalable Person Re-identification", ICCV 2015 (the camera
    rule, junk and distractors); M. Ye et al., TPAMI 2021 (mINP).
    """
    checks.choice("kind", kind, (RETRIEVAL, REID))
    chosen = chosen or query_sides.defaults(kind)
    reported = reported or figures(kind)
    searched = query_sides.choose(embeddings, others, chosen, flip)
    measured = _Measured.of(searched, reported, kind, options, seed)
    tally = Tally(len(searched.classes))
    person = searched.query_class[measured.queries]
    for name, values in measured.figures.items():
        tally.add(name, person, values)
    recall = next(iter(measured.figures))
    notes: tuple[str, ...] = ()
    if not np.ptp(searched.gallery_class):
        notes = (f"{WARNING}the gallery shows one class alone: every model finds a match first; add images of others",)
    k = reported.ks[0]
    others_of = len(searched.gallery) - measured.counts
    guess = float(np.mean(1 - np.clip(others_of / len(searched.gallery), 0, 1) ** k))
    result = tally_result(
        kind,
        tally,
        {
            "score": METRICS["cosine"],
            "flip": flip_choice(embeddings, flip),
            **searched.choices,
            "ties": reported.ties,
            "precision of AP": "at each match" if reported.ap == "rank" else "mean of before and at each match",
        },
        {
            "queries": len(measured.queries),
            "queries without a match": len(searched.queries) - len(measured.queries),
            "gallery images": len(searched.gallery),
            "classes": len(np.unique(person)),
            **searched.counts,
            "matches": int(measured.counts.sum()),
        },
        Resampling("classes", draws, seed),
        curves=(Curve("cmc", kind, _CURVE.astype(np.float64), measured.curve),),
        guessing=(recall, guess),
        notes=(*notes, *searched.notes, *measured.notes),
        sources=embeddings.origin | ({} if others is None else {"gallery": others.source}),
        more={"classes": searched.classes, **_nearest(searched, measured, seed, options)},
        people="these people" if kind == REID else "these classes",
    )
    return _with_classes(result) if reported.per_class else result


@dataclass
class _Measured:
    """Figures of the queries that have a match."""

    searched: Searched
    queries: Rows = field(default_factory=lambda: np.empty(0, dtype=np.int64))  # rows of `searched.queries`
    counts: Rows = field(default_factory=lambda: np.empty(0, dtype=np.int64))  # matches of each
    figures: dict[str, Floats] = field(default_factory=dict)
    precision: Floats = field(default_factory=lambda: np.empty(0))
    curve: Floats = field(default_factory=lambda: np.zeros(len(_CURVE)))
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(searched: Searched, how: Figures, kind: str, options: scoring.ScoringOptions, seed: int) -> _Measured:
        measured = _Measured(searched)
        names = how.names(kind)
        parts: list[tuple[Rows, Rows, dict[str, Floats]]] = []
        bounds: dict[str, Floats] = {name: np.zeros(2) for name in names}
        tied = 0
        shots = SingleShot.of(searched, how.single_shot, seed)
        for first, last, pairs in _matches(searched, options):
            shots.see(pairs)
            counts = scoring.ahead_and_tied(
                searched.query_vectors[first:last],
                searched.gallery_vectors,
                (pairs.probes - first, pairs.scores),
                ids=(searched.query_class[first:last], searched.gallery_class),
                options=options,
            )
            found, ranks = MatchRanks.of(pairs.probes, pairs.scores, *counts)
            low, high = (ranks.bound(optimistic=good) for good in (False, True))
            used = {"expected": ranks, "pessimistic": low, "optimistic": high}[how.ties]
            parts.append((found, ranks.counts, {name: figure(used) for name, figure in names.items()}))
            measured.precision = np.append(measured.precision, metrics.average_precision(used, rule=how.ap))
            measured.curve += [float(metrics.recall(used, int(k)).sum()) for k in _CURVE]
            tied += int(ranks.has_ties.sum())
            if tied:
                for name, figure in names.items():
                    bounds[name] += figure(low).sum(), figure(high).sum()
            else:
                for name in names:
                    bounds[name] += parts[-1][2][name].sum()
        if not parts:
            raise InputError(searched.no_match())
        measured.queries, measured.counts = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
        measured.figures = {name: np.concatenate([part[2][name] for part in parts]) for name in names}
        measured.curve /= len(measured.queries)
        for k, values in shots.shares(how.ks, measured.queries, options).items():
            measured.figures[f"rank-{k}, single shot"] = values
        if tied:
            total = len(measured.queries)
            spans = ", ".join(f"{name} {low / total:.6g} to {high / total:.6g}" for name, (low, high) in bounds.items())
            measured.notes = (
                f"{tied:,} of {total:,} queries have a match that scores the same as a non-match; by the order of "
                f"these, figures are: {spans}",
            )
        return measured


def _matches(searched: Searched, options: scoring.ScoringOptions) -> Iterator[tuple[int, int, scoring.PairBatch]]:
    """Ranges of queries with all their matches that count, as many as one pass over the gallery takes."""
    ids = searched.query_class, searched.gallery_class
    waiting: list[scoring.PairBatch] = []
    first = 0
    for pairs in scoring.genuine(searched.query_vectors, searched.gallery_vectors, ids=ids, options=options):
        kept = ~searched.ignored(pairs.probes, pairs.gallery)
        if kept.any():
            waiting.append(scoring.PairBatch(pairs.probes[kept], pairs.gallery[kept], pairs.scores[kept]))
        if sum(len(part.scores) for part in waiting) >= MATES:
            last = int(pairs.probes[-1]) + 1
            yield first, last, scoring.PairBatch.concatenate(waiting)
            first, waiting = last, []
    if waiting:
        yield first, int(waiting[-1].probes[-1]) + 1, scoring.PairBatch.concatenate(waiting)


def _nearest(
    searched: Searched, measured: _Measured, seed: int, options: scoring.ScoringOptions
) -> Mapping[str, NDArray[Any]]:
    """A few queries with their nearest gallery images, as `evaluate` describes them."""
    worst = np.argsort(measured.precision, kind="stable")[: SHOWN // 2]
    rest = np.setdiff1d(np.arange(len(measured.queries)), worst)
    drawn = np.random.default_rng(seed).permutation(rest)[: SHOWN - len(worst)]
    places = np.append(worst, drawn)
    rows = measured.queries[places]
    k = min(len(searched.gallery), NEIGHBOURS + _FURTHER)
    found, columns = scoring.top_k(searched.query_vectors[rows], searched.gallery_vectors, k, options=options)
    names = np.full((len(rows), NEIGHBOURS), "", dtype=object)
    scores, right = np.full(names.shape, np.nan), np.zeros(names.shape, dtype=np.bool_)
    for place, row in enumerate(rows.tolist()):
        near = columns[place].numpy()
        used = np.flatnonzero(~searched.ignored(np.full(k, row), near))[:NEIGHBOURS]
        names[place, : len(used)] = searched.gallery_ids[searched.gallery[near[used]]]
        scores[place, : len(used)] = found[place].numpy()[used]
        right[place, : len(used)] = searched.gallery_class[near[used]] == searched.query_class[row]
    return {
        "shown_queries": np.array(searched.query_ids[searched.queries[rows]], dtype=object),
        "shown_why": np.repeat(["worst", "drawn"], [len(worst), len(drawn)]),
        "shown_precision": measured.precision[places],
        "shown_neighbours": names,
        "shown_scores": scores,
        "shown_right": right,
    }


def _with_classes(result: Result) -> Result:
    """The result with a number for each figure and class."""
    from dataclasses import replace

    from angulus.evaluation.protocols.result import Number

    samples = result.samples
    tried = np.flatnonzero(samples["trials"][0])
    if len(tried) > MOST_CLASSES:
        raise InputError(
            f"per_class shows at most {MOST_CLASSES} classes; the queries have {len(tried):,}; leave it out: "
            "hits and trials by class are in the .samples.npz of the saved result"
        )
    rows = zip(samples["figures"].tolist(), samples["hits"], samples["trials"], strict=True)
    return replace(
        result,
        numbers=(
            *result.numbers,
            *(
                Number(f"{name}, {samples['classes'][place]}", float(hits[place] / trials[place]))
                for name, hits, trials in rows
                for place in tried
            ),
        ),
    )
