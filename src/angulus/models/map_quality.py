"""How well mapped vectors work for people held out of the fit of the map."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.contract import split_model_name
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.sample_pairs import impostor_count
from angulus.evaluation.protocols import pairs as verification
from angulus.evaluation.protocols import retrieval
from angulus.evaluation.protocols.calibrate import pairs_of_images
from angulus.evaluation.protocols.differences import compare_results
from angulus.evaluation.protocols.result import Number, Result, null_for_nan
from angulus.evaluation.protocols.two_models import across
from angulus.models.vector_map import VectorMap, fit, split_people

_MOST_IMPOSTORS = 100_000  # pairs drawn for the test
OLD, NEW, MAPPED = "old on old", "new on new", "new on mapped old"
FIRST = "Recall@1"
_GAIN = f"{MAPPED} − {OLD}"


@dataclass(frozen=True)
class Quality:
    """Figures of queries on stored vectors, with intervals over the people.

    Attributes:
        rows: AUC, TAR at FARs ..., and Recall@1 of each image among all others, by comparison, and the difference of
            the mapped to the old vectors.
        people, images, fitted_on: held out, their images, and the images that the map was fitted on.
        notes: what a reader must know.
    """

    rows: dict[str, dict[str, Number]]
    people: int
    images: int
    fitted_on: int
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The figures that all rows have."""
        return tuple(name for name in next(iter(self.rows.values())) if all(name in row for row in self.rows.values()))

    @property
    def verdict(self) -> tuple[str, ...]:
        """What the interval of the AUC's difference says, as a sentence; none without intervals."""
        gain = self.rows.get(_GAIN, {}).get("AUC")
        if gain is None or gain.interval is None:
            return ()
        low, high = gain.interval.low, gain.interval.high
        change = f"AUC {100 * gain.value:+.2f} points, {100 * low:+.2f} to {100 * high:+.2f}"
        if high < 0:
            way = "try more images or another kind, or train the new model with compatible_with"
            return (f"The mapped vectors are worse than the old ones ({change}): {way}",)
        if low > 0:
            return (f"The mapped vectors are better than the old ones ({change})",)
        return (f"Whether the mapped vectors are better than the old ones is undecided ({change})",)

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return dict(null_for_nan(asdict(self)))


def fit_and_test(
    old: Embeddings,
    new: Embeddings,
    *,
    kind: str = "orthogonal",
    held_out: float = 0.3,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[VectorMap, Quality]:
    """Fit a map without some of the people, and verify pairs of these: old on old, new on new, new on mapped old.

    Args:
        old, new: vectors of the same images under both models, with labels.
        kind, seed: as for `vector_map.fit`; the seed also draws the people and the pairs.
        held_out: the share of the people, in (0, 1).
        draws: resamples of the people for the intervals; 0 for none.

    Raises:
        InputError: what `vector_map.fit` refuses, fewer than four people, no two images of a held-out person.
    """
    checks.number("held_out", held_out, low=0, high=1, open_low=True, open_high=True)
    new = _select(new, new.rows(old.ids, old.source)) if set(new.ids.tolist()) == set(old.ids.tolist()) else new
    tested = split_people(old, held_out, seed)
    mapping = fit(_select(old, np.flatnonzero(~tested)), _select(new, np.flatnonzero(~tested)), kind=kind, seed=seed)
    rows = np.flatnonzero(tested)
    before, after = (
        _select(old, rows),
        replace(_select(new, rows), labels=None if old.labels is None else old.labels[rows]),
    )
    _, people = np.unique(before.labels if before.labels is not None else [], return_inverse=True)
    listed = pairs_of_images(before, impostors=min(impostor_count(people), _MOST_IMPOSTORS), seed=seed)
    stored = {OLD: (before, before), NEW: (after, after), MAPPED: (after, mapping.of(before))}
    first, resampled = retrieval.Figures(ks=(1,), at=None), dict[str, Any](draws=draws, seed=seed)
    results = {
        name: (
            verification.evaluate(*across(query, gallery, listed), **resampled),
            retrieval.evaluate(*(replace(each, models=None) for each in (query, gallery)), reported=first, **resampled),
        )
        for name, (query, gallery) in stored.items()
    }
    table = {name: _figures(*both) for name, both in results.items()}
    if draws:
        gains = (compare_results(old, new, **resampled) for old, new in zip(results[OLD], results[MAPPED], strict=True))
        table[_GAIN] = _figures(*gains)
    count = int(people.max()) + 1
    notes = (
        f"{len(listed):,} pairs of {len(rows):,} images of {count:,} people; the map was fitted on the other "
        f"{len(old) - len(rows):,} images",
        *(["intervals: 95 % of the resamples of the people"] if draws else []),
    )
    return mapping, Quality(table, count, len(rows), len(old) - len(rows), notes)


def _figures(pairs: Result, found: Result) -> dict[str, Number]:
    """Those of pairs, and the share of the images that find an image of their person first."""
    return {number.name: number for number in (*pairs.numbers, *(each for each in found.numbers if each.name == FIRST))}


def map_path(folder: Path, old: str) -> Path:
    """Where the folder of a new model keeps the map of the vectors of the model with the name `old`."""
    return folder / f"map-{old}.safetensors"


def mapped_as_kept(folder: Path, stored: Embeddings, query: str | None) -> Embeddings:
    """Stored vectors mapped to the model `query` by the map that its folder keeps; as they are if it keeps none."""
    if split_model_name(stored.model) is None or not (path := map_path(folder, str(stored.model))).is_file():
        return stored
    mapping = VectorMap.read(path)
    return mapping.of(stored) if (mapping.old, mapping.new) == (stored.model, query) else stored


def _select(embeddings: Embeddings, rows: NDArray[np.int64]) -> Embeddings:
    columns = {name: getattr(embeddings, name) for name in ("labels", "models")}
    chosen: dict[str, Any] = {name: None if value is None else value[rows] for name, value in columns.items()}
    return Embeddings(embeddings.vectors[rows], embeddings.ids[rows], **chosen, source=embeddings.source)
