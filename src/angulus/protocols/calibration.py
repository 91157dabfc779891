"""A calibration: the threshold for a target FMR, the error rates at it, and the map from score to probability."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus import checks, files
from angulus.metrics.intervals import Interval
from angulus.protocols.result import nan_for_null, null_for_nan, read_interval

FORMAT = 1  # of the JSON file


@dataclass(frozen=True)
class Rate:
    """An error rate in [0, 1], NaN where there is nothing to measure it on, and its interval over other people."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True)
class GroupRates:
    """Error rates at the one threshold in one group: of impostor pairs within the group, and of its genuine pairs."""

    name: str
    genuine: int
    impostors: int
    fmr: Rate
    fnmr: Rate


@dataclass(frozen=True)
class Calibration:
    """What turns the scores of one model, made in one way, into decisions and probabilities.

    Attributes:
        target_fmr: what was asked for.
        threshold: scores at or above it are accepted; its `interval` says how it moves with other people.
        fmr, fnmr: measured at the threshold, on the pairs that chose it.
        genuine, impostors: how many pairs.
        slope, intercept: of the log-likelihood ratio, slope · score + intercept.
        metric, flip: how the scores were made, which whoever uses the threshold has to repeat.
        model: which model and flip rule made the embeddings, as they say; None where they do not.
        groups: the rates of each group.
        about: embeddings, pairs, versions, seed.
    """

    target_fmr: float
    threshold: Rate
    fmr: Rate
    fnmr: Rate
    genuine: int
    impostors: int
    slope: float
    intercept: float
    metric: str = "cosine"
    flip: str | None = None
    model: str | None = None
    groups: tuple[GroupRates, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.number("target_fmr", self.target_fmr, low=0, high=1, open_low=True)
        checks.number("threshold", self.threshold.value)
        checks.number("slope", self.slope, low=0, open_low=True)
        checks.number("intercept", self.intercept)
        checks.choice("metric", self.metric, ("cosine",))
        if self.flip is not None:
            checks.choice("flip", self.flip, ("sum", "concat"), hint="or null")
        if self.model is not None and not isinstance(self.model, str):
            raise checks.InputError(f"model must be a name or null; got {self.model!r}")
        for name in ("genuine", "impostors"):
            checks.integer(name, getattr(self, name), low=1)

    def accepts(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Which scores are taken for the same person."""
        return np.asarray(_scores(scores) >= self.threshold.value)

    def log_likelihood_ratio(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Natural logarithm of how much likelier each score is for one person than for two."""
        return np.asarray(self.slope * _scores(scores) + self.intercept)

    def probability(self, scores: ArrayLike, prior: float = 0.5) -> NDArray[np.float64]:
        """Probability that it is the same person, if that is so for a share `prior` in (0, 1) of the pairs compared."""
        checks.number("prior", prior, low=0, high=1, open_low=True, open_high=True)
        odds = self.log_likelihood_ratio(scores) + math.log(prior / (1 - prior))
        return np.asarray(np.exp(-np.logaddexp(0, -odds)))

    def write(self, path: Path) -> None:
        """Write as JSON, whole or not at all; an undefined rate is null."""
        if path.suffix != ".json":
            raise checks.InputError(f"a calibration is written as .json; got {path}")
        files.write_json(path, null_for_nan({"format": FORMAT, **asdict(self)}))

    @staticmethod
    def read(path: Path) -> Calibration:
        """A calibration that was written, or what is wrong with the file."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            for part in (content, *content["groups"]):
                part |= {name: _rate(part[name]) for name in ("threshold", "fmr", "fnmr") if name in part}
            content["groups"] = tuple(GroupRates(**group) for group in content["groups"])
            return Calibration(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise checks.InputError(
                f"{path} is not a calibration ({reason}); give the .json that angulus calibrate wrote"
            ) from error


def _scores(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise checks.InputError("scores must be finite; got NaN or Inf")
    return values


def _rate(saved: Mapping[str, Any]) -> Rate:
    return Rate(nan_for_null(saved["value"]), read_interval(saved["interval"]))
