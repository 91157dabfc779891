"""Whether a model's images are what it was trained on: what changes to them do to norms and to scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data.sources import SourceOptions
from angulus.doctor.measure import Measured, has_pairs, intervals, measure
from angulus.doctor.sample import take_sample
from angulus.doctor.trials import FAULTS, MENDS, Trial, after, trials
from angulus.evaluation.metrics.intervals import MOST_DRAWS, Interval
from angulus.models import artifact

LEAST = 0.05  # a change must do better by this share of what there is, or it is not named, however sure
FALSE_ALARM = 0.05  # of all trials together: each has an interval of 1 − FALSE_ALARM / trials
FEW = 10  # identities below which resampling them says little


@dataclass(frozen=True)
class Outcome:
    """What a change does, beside the images as they are; differences are paired, image by image.

    Attributes:
        name, family: of the trial.
        norm_ratio: geometric mean of the norm with the change over the one without.
        norm_interval: of that ratio.
        before, separation: without and with the change; None where no two images are of one identity.
        gain: their mean difference, and `gain_interval` of that.
        better: the change does better, beyond chance and by `LEAST`: by the separation if there is one, else by norms.
    """

    name: str
    family: str
    norm_ratio: float
    norm_interval: Interval | None
    before: float | None
    separation: float | None
    gain: float | None
    gain_interval: Interval | None
    better: bool


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        images, identities: how many were looked at; identities with two images or more.
        norm: geometric mean of the features' norms; None where the model scales them to 1.
        separation: see `separations`; None where no two images are of one identity.
        facts: what is beyond doubt, and what cannot be judged.
        outcomes: of every trial, beside the images as they are.
        likely: the trial that does best, if any does better; then the one that does best on top of it; and so on, of a
            family each. What only seemed to help while another fault was there is not among them.
        draws: resamples behind the intervals.
    """

    images: int
    identities: int
    norm: float | None
    separation: float | None
    facts: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    likely: tuple[Outcome, ...]
    draws: int

    def sentences(self) -> list[str]:
        """The diagnosis to read."""
        said = [self._state(), *self.facts]
        said += [self._suspicion(each, first=not n) for n, each in enumerate(self.likely)]
        if not self.likely:
            said.append(
                f"Nothing stands out: of {len(self.outcomes)} changes to the images, none does better than the images "
                f"as they are by {LEAST:.0%} and beyond chance."
            )
        if self.likely:
            said.append(
                "This is evidence from these images, not proof: a model that was trained badly, or images unlike those "
                "that it was trained on, can look the same."
            )
        if 0 < self.identities < FEW:
            said.append(f"{self.identities} identities are few: the intervals are rough; give {FEW} or more.")
        if self.separation is None:
            said.append(
                "No two images are of one identity, so only norms were compared, which are the weaker evidence and say "
                "nothing of pixel values on another scale; give images with identities."
            )
        return said

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return asdict(self) | {"sentences": self.sentences()}

    def _state(self) -> str:
        said = f"{self.images:,} images as the contract has them:"
        if self.separation is not None:
            said += (
                f" genuine scores of {self.identities:,} identities lie {self.separation:.2f} standard deviations of "
                "the impostor scores above them (the separation);"
            )
        return said + (" norms are all 1." if self.norm is None else f" geometric mean norm {self.norm:.4g}.")

    def _suspicion(self, each: Outcome, first: bool) -> str:
        resampled = "images" if each.gain is None else "identities"
        bounds = each.gain_interval or each.norm_interval
        level = f"{bounds.level if bounds else 0.95:.1%} of {self.draws:,} paired resamples of the {resampled}"
        said = (
            f"Likely {FAULTS[each.family]}: with {each.name}, "
            if first
            else (f"Beside that, likely {FAULTS[each.family]}: with {each.name} as well, ")
        )
        if each.gain is not None and each.gain_interval is not None:
            said += (
                f"the separation goes from {each.before:.2f} to {each.separation:.2f}, by {each.gain:+.2f} "
                f"({each.gain_interval.low:+.2f} to {each.gain_interval.high:+.2f} in {level})"
            )
            if self.norm is not None and each.family != "values":
                said += f", and norms to {_ratio(each)}"
        else:
            said += f"norms go to {_ratio(each)} in {level}"
        return f"{said}. If so, {MENDS[each.family]}."


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

    Where a change does better, the others are tried again on top of the best. Two faults of which neither can be seen
    while the other is there are not found.

    Args:
        model: its folder.
        images: records, or what `sources.read_source` reads; best 10 identities or more with several images each.
        limit: images looked at, in [2, 5,000].
        draws: resamples of the identities (images, where no identities are known), in [100, 100,000].
        options: as `sources.read_source` takes them.
        device: where the model runs; None: the CPU.
        on_trial: told how many changes were tried, and how many there are to try, as far as is known then.

    Raises:
        checks.InputError: no model, no images, or neither norms nor identities to compare by.
    """
    checks.integer("limit", limit, low=2)
    checks.integer("draws", draws, low=100, high=MOST_DRAWS)
    trained = artifact.load(model).to(device or torch.device("cpu"))
    sample = take_sample(trained, images, limit, options)
    every = list(trials(trained))
    paired = has_pairs(sample.identities)
    if trained.config.normalize and not paired:
        raise InputError(
            "images must have identities, two images of one and others of another, or the model must keep norms; this "
            f"model scales features to length 1, and {images} gives no such pairs; name the identities by folders"
        )
    done = planned = 0

    def tried(some: list[Trial | None]) -> list[Measured]:
        nonlocal done, planned
        planned += len(some)
        found = []
        for trial in some:
            on_trial(done, planned)
            found.append(measure(trained, sample, trial, paired))
            done += 1
        return found

    def compared(given: Measured, others: list[Measured], some: list[Trial]) -> list[Outcome]:
        return _compare(given, others, some, sample.identities, draws, norms=not trained.config.normalize)

    given, *others = tried([None, *every])
    outcomes = compared(given, others, every)
    likely = _best_steps(every, others, outcomes, tried, compared)
    counts = np.unique(sample.identities[sample.identities != ""], return_counts=True)[1]
    facts = list(sample.facts)
    if given.alike is not None and given.alike > 0.999:
        facts.append(
            f"The features hardly depend on the image (mean cosine of two images {given.alike:.4f}): the weights are "
            "not trained, or the input is far from what they were trained on."
        )
    return Diagnosis(
        len(sample.pixels),
        int((counts > 1).sum()),
        None if trained.config.normalize else float(np.exp(given.log_norms.mean())),
        float(np.nanmean(given.separations)) if paired else None,
        tuple(facts),
        tuple(outcomes),
        likely,
        draws,
    )


def _best_steps(
    every: list[Trial],
    others: list[Measured],
    outcomes: list[Outcome],
    tried: Callable[[list[Trial | None]], list[Measured]],
    compared: Callable[[Measured, list[Measured], list[Trial]], list[Outcome]],
) -> tuple[Outcome, ...]:
    """The trial that does best, then the best on top of it of another family, while any does better."""
    steps: list[Outcome] = []
    while any(each.better for each in outcomes):
        best = max((n for n, each in enumerate(outcomes) if each.better), key=lambda n: _strength(outcomes[n]))
        steps.append(outcomes[best])
        given, mended = others[best], every[best]
        every = [after(mended, each) for each in every if each.family != mended.family]
        others = tried([*every])
        outcomes = compared(given, others, every) if every else []
    return tuple(steps)


def _compare(
    given: Measured,
    others: list[Measured],
    every: list[Trial],
    identities: NDArray[np.str_],
    draws: int,
    *,
    norms: bool,
) -> list[Outcome]:
    """Each trial beside what is given, on the same resamples."""
    level = 1 - FALSE_ALARM / len(every)
    judged = ~np.isnan(given.separations)
    rows = np.array([f"\x01{row}" for row in range(len(identities))])  # no identity's name
    people = rows if not judged.any() else np.where(identities == "", rows, identities)
    logs = np.stack([each.log_norms - given.log_norms for each in others])
    by_norm = intervals(logs, people, draws, level)
    if not judged.any():
        return [
            _outcome(trial, ratios, None, None, norms and trial.family != "values" and _clear(*ratios, LEAST))
            for trial, ratios in zip(every, by_norm, strict=True)
        ]
    before = float(given.separations[judged].mean())
    gaps = np.stack([each.separations[judged] - given.separations[judged] for each in others])
    by_gap = intervals(gaps, identities[judged], draws, level)
    return [
        _outcome(trial, ratios, before, gain, _clear(*gain, LEAST * max(abs(before), 1.0)))
        for trial, ratios, gain in zip(every, by_norm, by_gap, strict=True)
    ]


def _clear(value: float, interval: Interval | None, least: float) -> bool:
    return interval is not None and value >= least and interval.low > 0


def _outcome(
    trial: Trial,
    ratios: tuple[float, Interval | None],
    before: float | None,
    gain: tuple[float, Interval | None] | None,
    better: bool,
) -> Outcome:
    log, interval = ratios
    value, bounds = (None, None) if gain is None else gain
    return Outcome(
        trial.name,
        trial.family,
        float(np.exp(log)),
        interval and Interval(float(np.exp(interval.low)), float(np.exp(interval.high)), interval.level),
        before,
        None if before is None or value is None else before + value,
        value,
        bounds,
        better,
    )


def _strength(each: Outcome) -> float:
    return each.norm_ratio if each.gain is None else each.gain


def _ratio(each: Outcome) -> str:
    between = each.norm_interval
    said = f" ({between.low:.3f} to {between.high:.3f})" if between else ""
    return f"{each.norm_ratio:.3f} times theirs{said}"
