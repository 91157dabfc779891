"""What MegaFace, Trillion-Pairs and retrieval share: labelled images, and shares of trials counted per person."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.megaface import FeatureList
from angulus.evaluation.metrics.intervals import Flags, Floats, Rows, Samples, Statistic, Units
from angulus.evaluation.protocols.figures import Resampling, measure, share_warnings
from angulus.evaluation.protocols.group_rates import GroupFigures
from angulus.evaluation.protocols.group_trials import number_groups
from angulus.evaluation.protocols.result import Curve, Result
from angulus.evaluation.protocols.vectors import Vectors

MEASURED = ("hits", "thresholds")  # the samples that the embeddings gave; the others say what was tried


@dataclass(frozen=True, eq=False)
class Tally:
    """Per figure and person: how many trials there were, and how many succeeded."""

    people: int
    hits: dict[str, Floats] = field(default_factory=dict)
    trials: dict[str, Floats] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)

    def add(
        self,
        name: str,
        person: Rows,
        success: Flags | Floats,
        threshold: float | None = None,
        failed: Rows | None = None,
    ) -> None:
        """Count trials of a figure: the person of each [M], whether (how far) it succeeded [M], the threshold.

        `failed` [people]: further trials of each person that failed for want of an embedding.
        """
        nothing = np.zeros(self.people)
        self.hits[name] = self.hits.get(name, nothing) + np.bincount(person, success, self.people)
        self.trials[name] = self.trials.get(name, nothing) + np.bincount(person, minlength=self.people)
        if failed is not None:
            self.trials[name] += failed
        if threshold is not None:
            self.thresholds[name] = threshold

    def warnings(self, name: str, rate: float, people: str) -> tuple[str, ...]:
        """The warning if the model hardly tells people apart, by a figure that guessing brings to `rate`."""
        if name not in self.hits:
            return ()
        hits, trials = (float(counts[name].sum()) for counts in (self.hits, self.trials))
        return share_warnings(name, hits / trials, rate, round(trials), people)

    def samples(self) -> dict[str, NDArray[Any]]:
        """`figures` [F], and by figure and person `hits` and `trials` [F, people]; `thresholds` [F], NaN for none."""
        return {
            "figures": np.array(list(self.hits)),
            "hits": np.array(list(self.hits.values())),
            "trials": np.array(list(self.trials.values())),
            "thresholds": np.array([self.thresholds.get(name, np.nan) for name in self.hits]),
        }


def statistic(samples: Samples) -> tuple[Statistic, Units]:
    """The figures by how often each person is drawn, and the people.

    A trial counts as often as its person is drawn; a figure without any such trial is absent. Thresholds stay fixed.
    """
    names, hits, trials = samples["figures"].tolist(), samples["hits"], samples["trials"]

    def figures(drawn: Floats) -> dict[str, float]:
        counted = zip(names, hits @ drawn, trials @ drawn, strict=True)
        return {name: float(hit / total) for name, hit, total in counted if total > 0}

    return figures, Units.of(np.arange(hits.shape[1]))


@dataclass(frozen=True, eq=False)
class Side:
    """The images on one side: vectors [N, d], ids, and the people shown, where known."""

    vectors: Vectors
    ids: NDArray[np.str_]
    people: NDArray[np.str_] | None
    source: str
    groups: NDArray[np.str_] | None = None  # of the people shown, where known
    failed: "Side | None" = None  # images of the list without embedding, if any; without vectors

    @staticmethod
    def from_embeddings(
        embeddings: Embeddings, listed: FeatureList | None, flip: str | None, missing: str = "refuse"
    ) -> "Side":
        if listed is None:
            vectors = embeddings.vectors if flip is None else embeddings.fused(np.arange(len(embeddings)), flip)
            return Side(vectors, embeddings.ids, embeddings.labels, embeddings.source, embeddings.groups)
        rows = embeddings.rows(listed.ids, listed.source, missing=missing)
        people, there = listed.identities, rows >= 0
        if people is None and embeddings.labels is not None:
            people = np.append(embeddings.labels, "")[rows]
        whole = Side(
            np.empty((len(rows), 0)), listed.ids, people, listed.source, embeddings.groups_of(rows, listed.ids)
        )
        failed = None if there.all() else whole.select(~there)
        return replace(whole.select(there), vectors=embeddings.fused(rows[there], flip), failed=failed)

    @property
    def listed(self) -> "Side":
        """All images, those without embedding last; without vectors."""
        if self.failed is None:
            return self
        ids = np.concatenate([self.ids, self.failed.ids])

        def joined(name: str) -> NDArray[np.str_] | None:
            first, last = getattr(self, name), getattr(self.failed, name)
            return None if first is None else np.concatenate([first, last])

        return Side(np.empty((len(ids), 0)), ids, joined("people"), self.source, joined("groups"))

    def known_people(self) -> "Side":
        """The images of known people.

        Raises:
            checks.InputError: the people are not named, or no image is left.
        """
        known = self.labelled() != ""
        failed = None if self.failed is None else self.failed.select(self.failed.labelled() != "")
        if known.all():
            return replace(self, failed=failed)
        if not known.any():
            raise checks.InputError(f"{self.source} must say who each image shows; its labels name nobody")
        return replace(self.select(known), failed=failed)

    def select(self, kept: Flags, vectors: Vectors | None = None) -> "Side":
        """The chosen images, with other vectors [N, d] in place of theirs if they are given."""
        people, groups = (None if names is None else names[kept] for names in (self.people, self.groups))
        vectors = self.vectors if vectors is None else vectors
        return Side(vectors[kept], self.ids[kept], people, self.source, groups, self.failed)

    def __len__(self) -> int:
        return len(self.ids)

    def labelled(self) -> NDArray[np.str_]:
        """Who each image shows."""
        if self.people is None:
            raise checks.InputError(f"{self.source} must say who each image shows; give the embeddings labels")
        return self.people


def count_left_out(what: str, given: Side, used: Side) -> dict[str, int]:
    """For a result's counts: images of unknown people, if any."""
    count = len(given) - len(used)
    return {f"{what} of unknown people left out": count} if count else {}


def require_apart(sought: Side, others: Side) -> None:
    """Refuse an image that is on both sides."""
    both = np.intersect1d(sought.ids, others.ids)
    if len(both):
        raise checks.InputError(
            f"an image must not be in both {sought.source} and {others.source}; {len(both)} are, {str(both[0])!r} first"
        )


def numbered_groups(sought: Side, others: Side) -> tuple[tuple[str, ...], tuple[Rows, Rows | None]] | None:
    """The groups of both sides as numbers, and their names; None where the probes have none.

    Where the others have none, a pair counts in the probe's group.
    """
    if sought.groups is None:
        return None
    if others.groups is None:
        names, (own,) = number_groups(sought.groups)
        return names, (own, None)
    names, (own, far) = number_groups(sought.groups, others.groups)
    return names, (own, far)


def tally_result(
    protocol: str,
    tally: Tally,
    choices: Mapping[str, Any],
    counts: Mapping[str, int],
    resampling: Resampling,
    *,
    curves: tuple[Curve, ...],
    guessing: tuple[str, float],
    notes: tuple[str, ...],
    sources: Mapping[str, str],
    more: Mapping[str, NDArray[Any]] | None = None,
    people: str = "these people",
    by_group: GroupFigures | None = None,
) -> Result:
    """The result of a tally; `guessing` names a figure that guessing brings to a rate, for the warning about it.

    `more` are further samples to keep; `people` is what the model should distinguish.
    """
    samples = tally.samples() | dict(more or {})
    return measure(
        protocol,
        statistic(samples),
        samples,
        {**choices, **({"thresholds in the intervals": "as of all people"} if tally.thresholds else {})},
        counts,
        resampling,
        thresholds=tally.thresholds,
        curves=curves,
        notes=(*tally.warnings(*guessing, people), *notes),
        by_group=by_group,
        about=sources,
    )
