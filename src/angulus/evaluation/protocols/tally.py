"""Shares of trials that succeed, kept by the person that each trial is of, so that people can be resampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.evaluation.metrics.intervals import Statistic, Units

Floats = NDArray[np.float64]

MEASURED = ("hits", "thresholds")  # the samples that the embeddings gave; the others say what was tried


@dataclass(frozen=True, eq=False)
class Tally:
    """Of each figure and each of `people`: how many trials there were, and how many succeeded."""

    people: int
    hits: dict[str, Floats] = field(default_factory=dict)
    trials: dict[str, Floats] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)

    def add(
        self, name: str, person: NDArray[np.int64], success: NDArray[np.bool_], threshold: float | None = None
    ) -> None:
        """Count trials of a figure: whose each is [M], whether it succeeded [M], and the figure's threshold if any."""
        nothing = np.zeros(self.people)
        self.hits[name] = self.hits.get(name, nothing) + np.bincount(person, success, self.people)
        self.trials[name] = self.trials.get(name, nothing) + np.bincount(person, minlength=self.people)
        if threshold is not None:
            self.thresholds[name] = threshold

    def samples(self) -> dict[str, NDArray[Any]]:
        """`figures` [F], and by figure and person `hits` and `trials` [F, people]; `thresholds` [F], NaN for none."""
        return {
            "figures": np.array(list(self.hits)),
            "hits": np.array(list(self.hits.values())),
            "trials": np.array(list(self.trials.values())),
            "thresholds": np.array([self.thresholds.get(name, np.nan) for name in self.hits]),
        }


def statistic(samples: Mapping[str, NDArray[Any]]) -> tuple[Statistic, Units]:
    """What gives the figures for how often each person is drawn, and the people.

    A trial counts as often as its person is drawn; a figure without any such trial is absent. Thresholds stay where
    all people put them.
    """
    names, hits, trials = samples["figures"].tolist(), samples["hits"], samples["trials"]

    def figures(drawn: Floats) -> dict[str, float]:
        of = trials @ drawn
        return {name: float(hit / total) for name, hit, total in zip(names, hits @ drawn, of, strict=True) if total > 0}

    return figures, Units.of(np.arange(hits.shape[1]))
