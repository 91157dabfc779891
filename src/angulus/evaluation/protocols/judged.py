"""Samples that a model judged right or wrong, and their quality: what the protocols of quality start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks, environment
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.metrics.curves import Presorted
from angulus.evaluation.metrics.verification import best_of
from angulus.evaluation.protocols import pairs as pairs_protocol
from angulus.evaluation.protocols import scored, videos
from angulus.evaluation.protocols.result import Result

Floats = NDArray[np.float64]

QUALITY = "quality"  # the protocol that splits samples by their norms
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Judged:
    """Samples, images or pairs, that a model judged right or wrong, and their quality.

    Attributes:
        correct: [N] of bool.
        norms: [N] float64: of an image its feature's, of a pair the smaller of its two.
        columns: [N] each, by name, what says which samples these are: `labels` of images; of pairs `left`, `right`,
            `same`, and where known `left_identity` and `right_identity`, who are then resampled.
        source: where the samples came from.
        model: which model and flip rule made the features, where that is said.
    """

    correct: Flags
    norms: Floats
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    source: str = "these samples"
    model: str | None = None

    def __post_init__(self) -> None:
        shapes = [each.shape for each in (self.correct, self.norms, *self.columns.values())]
        if self.correct.ndim != 1 or not len(self.correct) or len(set(shapes)) > 1:
            raise checks.InputError(
                f"{self.source}: correct, norms and what names the samples must be [N] each with N >= 1; got shapes "
                + ", ".join(str(list(shape)) for shape in shapes)
            )
        if self.correct.dtype != np.bool_ or not np.isfinite(self.norms).all() or (self.norms < 0).any():
            raise checks.InputError(f"{self.source}: correct must be bool and norms finite numbers >= 0; got others")

    @property
    def samples(self) -> dict[str, NDArray[Any]]:
        """For a result."""
        return {**self.columns, "correct": self.correct, "norms": self.norms}

    @property
    def unit(self) -> str:
        """What is resampled."""
        return "people" if "left_identity" in self.columns else "samples"

    @property
    def about(self) -> dict[str, Any]:
        """For a result: versions, and where the samples came from."""
        named = {} if self.model is None else {"model": self.model}
        return {**environment.describe(torch.device("cpu")), "embeddings": self.source, **named}


def of_pairs(embeddings: Embeddings, pairs: PairList, *, flip: str | None = None) -> Judged:
    """Pairs judged by their cosine, at the most accurate threshold of the other folds (without folds, of all pairs).

    Raises:
        checks.InputError: an image without embedding, or pairs of one kind only in a fold or the list.
    """
    scored.require_norms(embeddings, flip)
    return _judged(scored.score(embeddings, pairs, flip=flip).samples, embeddings.origin)


def of_result(result: Result) -> Judged:
    """The pairs of a saved result of `pairs` or `ytf`, judged as there: of videos the norms are the mean embeddings'.

    Raises:
        checks.InputError: another result, or one that was saved without samples.
    """
    known = (pairs_protocol.PROTOCOL, videos.PROTOCOL)
    if result.protocol not in known or "norms" not in result.samples:
        lacking = "norms" if result.samples and result.protocol in known else "samples"
        got = result.protocol if result.samples and lacking == "samples" else f"{result.protocol} without {lacking}"
        raise checks.InputError(f"a result to judge pairs by must be one of {' or '.join(known)}; got {got}")
    return _judged(result.samples, result.about)


def of_quality(result: Result) -> Judged:
    """The samples of a saved result of `quality`.

    Raises:
        checks.InputError: another result, or one that was saved without samples.
    """
    samples = dict(result.samples)
    if result.protocol != QUALITY or "correct" not in samples:
        raise checks.InputError(f"a result of {QUALITY} with its samples is needed; got {result.protocol}")
    correct, norms = samples.pop("correct"), samples.pop("norms")
    columns = {name: values for name, values in samples.items() if name not in ("low", "own_low")}
    return Judged(correct, norms, columns, str(result.about["embeddings"]), result.about.get("model"))


def _judged(samples: Mapping[str, NDArray[Any]], origin: Mapping[str, Any]) -> Judged:
    scores, same, folds = samples["scores"], samples["same"], scored.folds_of(samples)
    if "histograms" in samples:
        thresholds = np.zeros(len(same))  # the machines' own
    elif folds is None:
        thresholds = np.full(len(same), best_of(Presorted.of(scores, same))[0])
    else:
        thresholds = folds.accuracy().thresholds[samples["folds"]]
    columns = {name: samples[name] for name in (*scored.COLUMNS, scored.DISTINCT) if name in samples}
    source, model = str(origin.get("embeddings", "unknown embeddings")), origin.get("model")
    return Judged((scores >= thresholds) == same, samples["norms"], columns, source, model)


def refuse_other_samples(given: Judged, reference: Judged) -> None:
    """Refuse two models' samples that are not the same ones in the same order."""
    for name in dict.fromkeys([*given.columns, *reference.columns, "correct"]):
        mine, theirs = given.samples.get(name), reference.samples.get(name)
        if mine is None or theirs is None or len(mine) != len(theirs):
            got = f"{len(given.correct)} and {len(reference.correct)}"
            if mine is None or theirs is None:
                got = f"{name} in one of them only"
            raise checks.InputError(
                f"{given.source} and {reference.source} must be of the same samples in the same order; got {got}"
            )
        if name != "correct" and not np.array_equal(mine, theirs):
            row = int(np.flatnonzero(mine != theirs)[0])
            raise checks.InputError(
                f"{given.source} and {reference.source} must be of the same samples in the same order; "
                f"{name} differs first at {row}: {mine[row]!s} and {theirs[row]!s}"
            )
