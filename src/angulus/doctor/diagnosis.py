"""Diagnose whether images are what a model was trained on, by how changes to them move norms and scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data.sources import SourceOptions
from angulus.doctor.changes import FAULTS, MENDS, ImageChange, changes_for, combine
from angulus.doctor.effects import FeatureStatistics, has_pairs, intervals, measure
from angulus.doctor.sample import take_sample
from angulus.evaluation.metrics.intervals import MOST_DRAWS, Interval
from angulus.models import artifact

LEAST = 0.05  # a change must do better by this share, or it is not reported, however certain it is
FALSE_ALARM = 0.05  # of all changes together: each has an interval of 1 − FALSE_ALARM / changes
FEW = 10  # identities below which resampling them says little


@dataclass(frozen=True)
class ChangeEffect:
    """The effect of a change, compared image by image with the unchanged images."""

    name: str
    family: str
    norm_ratio: float  # geometric mean of the norm with the change over the norm without
    norm_interval: Interval | None
    before: float | None  # the separation without the change; None if no two images are of one identity
    separation: float | None  # with it
    gain: float | None  # the mean difference of the two
    gain_interval: Interval | None
    better: bool  # beyond chance and by `LEAST`: by the separation if there is one, else by norms

    @property
    def strength(self) -> float:
        """What the best change is chosen by."""
        return self.norm_ratio if self.gain is None else self.gain

    @property
    def norm_text(self) -> str:
        """The norm ratio and its interval, for a sentence."""
        interval = self.norm_interval
        bounds = f" ({interval.low:.3f} to {interval.high:.3f})" if interval else ""
        return f"{self.norm_ratio:.3f} times theirs{bounds}"


@dataclass(frozen=True)
class Diagnosis:
    """The findings.

    Attributes:
        images, identities: how many were examined; identities with two images or more.
        norm: geometric mean of the features' norms; None if the model scales them to 1.
        separation: see `separations`; None if no two images are of one identity.
        facts: what is certain, and what cannot be judged.
        outcomes: the effect of every change.
        likely: the best change, if any does better; then the best on top of it, from another family; and so on. A
            change that only seemed to help while another fault was present is not in it.
        draws: resamples behind the intervals.
    """

    images: int
    identities: int
    norm: float | None
    separation: float | None
    facts: tuple[str, ...]
    outcomes: tuple[ChangeEffect, ...]
    likely: tuple[ChangeEffect, ...]
    draws: int

    def sentences(self) -> list[str]:
        """The diagnosis as text."""
        lines = [self._state(), *self.facts]
        lines += [self._suspicion(effect, first=not number) for number, effect in enumerate(self.likely)]
        if self.likely:
            fact = "a model that was trained badly, or images unlike those that it was trained on, can look the same"
            lines.append(f"This is evidence from these images, not proof: {fact}.")
        else:
            fact = f"of {len(self.outcomes)} changes to the images, none does better than the images as they are"
            lines.append(f"Nothing stands out: {fact} by {LEAST:.0%} and beyond chance.")
        if 0 < self.identities < FEW:
            lines.append(f"{self.identities} identities are few: the intervals are rough; give {FEW} or more.")
        if self.separation is None:
            weak = "which are the weaker evidence and say nothing of pixel values on another scale"
            fact = "No two images are of one identity, so only norms were compared"
            lines.append(f"{fact}, {weak}; give images with identities.")
        return lines

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return asdict(self) | {"sentences": self.sentences()}

    def _state(self) -> str:
        text = f"{self.images:,} images prepared as the contract states:"
        if self.separation is not None:
            text += f" genuine scores of {self.identities:,} identities lie {self.separation:.2f} standard deviations"
            text += " of the impostor scores above them (the separation);"
        return text + (" norms are all 1." if self.norm is None else f" geometric mean norm {self.norm:.4g}.")

    def _suspicion(self, effect: ChangeEffect, first: bool) -> str:
        resampled = "images" if effect.gain is None else "identities"
        interval = effect.gain_interval or effect.norm_interval
        level = f"{interval.level if interval else 0.95:.1%} of {self.draws:,} paired resamples of the {resampled}"
        fault = FAULTS[effect.family]
        start = f"Likely {fault}: with {effect.name}" if first else f"Also likely {fault}: with {effect.name} as well"
        if effect.gain is not None and effect.gain_interval is not None:
            bounds = f"{effect.gain_interval.low:+.2f} to {effect.gain_interval.high:+.2f} in {level}"
            text = f"the separation goes from {effect.before:.2f} to {effect.separation:.2f}"
            text += f", by {effect.gain:+.2f} ({bounds})"
            if self.norm is not None and effect.family != "values":
                text += f", and norms to {effect.norm_text}"
        else:
            text = f"norms go to {effect.norm_text} in {level}"
        return f"{start}, {text}. If so, {MENDS[effect.family]}."


def diagnose(
    model: Path,
    images: Path,
    *,
    limit: int = 400,
    draws: int = 2000,
    options: SourceOptions | None = None,
    device: torch.device | None = None,
    on_trial: Callable[[int, int], None] = lambda done, of: None,
) -> Diagnosis:
    """Embed images as they are and under each change that would mend a fault, and compare.

    If a change does better, the others are tried again on top of the best. Two faults that hide each other are missed.

    Args:
        images: records, or any source for `sources.read_source`; best 10 identities or more with several images each.
        limit: images examined, in [2, 5,000].
        draws: resamples of the identities (of the images, if no identities are known), in [100, 100,000].
        on_trial: called with the number of changes tried, and the number to try as far as known.

    Raises:
        checks.InputError: no model, no images, or neither norms nor identities to compare by.
    """
    checks.integer("limit", limit, low=2)
    checks.integer("draws", draws, low=100, high=MOST_DRAWS)
    trained = artifact.load(model).to(device or torch.device("cpu"))
    sample = take_sample(trained, images, limit, options)
    changes = list(changes_for(trained))
    paired = has_pairs(sample.identities)
    if trained.config.normalize and not paired:
        rule = "images must have identities, two images of one and others of another, or the model must keep norms"
        got = f"this model scales features to length 1, and {images} gives no such pairs"
        raise InputError(f"{rule}; {got}; name the identities by folders")
    done = planned = 0

    def measure_all(changes: list[ImageChange | None]) -> list[FeatureStatistics]:
        nonlocal done, planned
        planned += len(changes)
        statistics = []
        for change in changes:
            on_trial(done, planned)
            statistics.append(measure(trained, sample, change, paired))
            done += 1
        return statistics

    unchanged, *changed = measure_all([None, *changes])
    before, likely = unchanged, []
    compare = partial(_compare, identities=sample.identities, draws=draws, norms=not trained.config.normalize)
    effects = first_effects = compare(before, changed, changes)
    while any(effect.better for effect in effects):  # the best change, then the best of another family on top of it
        best = max((n for n, effect in enumerate(effects) if effect.better), key=lambda n: effects[n].strength)
        likely.append(effects[best])
        before, mended = changed[best], changes[best]
        changes = [combine(mended, change) for change in changes if change.family != mended.family]
        if not changes:
            break
        changed = measure_all([*changes])
        effects = compare(before, changed, changes)
    counts = np.unique(sample.identities[sample.identities != ""], return_counts=True)[1]
    facts = list(sample.facts)
    if unchanged.mean_cosine is not None and unchanged.mean_cosine > 0.999:
        why = "the weights are not trained, or the input is far from what they were trained on"
        same = f"mean cosine of two images {unchanged.mean_cosine:.4f}"
        facts.append(f"The features hardly depend on the image ({same}): {why}.")
    norm = None if trained.config.normalize else float(np.exp(unchanged.log_norms.mean()))
    separation = float(np.nanmean(unchanged.separations)) if paired else None
    found = tuple(facts), tuple(first_effects), tuple(likely)
    return Diagnosis(len(sample.pixels), int((counts > 1).sum()), norm, separation, *found, draws)


def _compare(
    before: FeatureStatistics,
    changed: list[FeatureStatistics],
    changes: list[ImageChange],
    identities: NDArray[np.str_],
    draws: int,
    *,
    norms: bool,
) -> list[ChangeEffect]:
    """The effect of each change, on the same resamples; without separations, `norms` decide if they may."""
    level = 1 - FALSE_ALARM / len(changes)
    judged = ~np.isnan(before.separations)
    paired = bool(judged.any())
    rows = np.array([f"\x01{row}" for row in range(len(identities))])  # no identity's name
    people = np.where(identities == "", rows, identities) if paired else rows
    ratios = intervals(np.stack([each.log_norms - before.log_norms for each in changed]), people, draws, level)
    separation = float(before.separations[judged].mean()) if paired else None
    gains: list[tuple[float | None, Interval | None]] = [(None, None)] * len(changes)
    if paired:
        gaps = np.stack([each.separations[judged] - before.separations[judged] for each in changed])
        gains = [*intervals(gaps, identities[judged], draws, level)]
    effects = []
    for change, (log, interval), (gain, gain_interval) in zip(changes, ratios, gains, strict=True):
        if gain is None or separation is None:
            better = norms and change.family != "values" and _exceeds(log, interval, LEAST)
        else:
            better = _exceeds(gain, gain_interval, LEAST * max(abs(separation), 1.0))
        bounds = interval and Interval(float(np.exp(interval.low)), float(np.exp(interval.high)), interval.level)
        after = None if gain is None or separation is None else separation + gain
        measured = float(np.exp(log)), bounds, separation, after, gain, gain_interval
        effects.append(ChangeEffect(change.name, change.family, *measured, better))
    return effects


def _exceeds(value: float, interval: Interval | None, least: float) -> bool:
    return interval is not None and value >= least and interval.low > 0
