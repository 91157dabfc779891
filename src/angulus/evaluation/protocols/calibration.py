"""A calibration: the threshold for a target FMR, the error rates at it, and the map from score to probability."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks, files, limits
from angulus.core.checks import InputError
from angulus.evaluation.metrics.intervals import Interval
from angulus.evaluation.protocols.figures import auc_warning
from angulus.evaluation.protocols.group_rates import ByGroup
from angulus.evaluation.protocols.result import WARNING, nan_for_null, null_for_nan, read_interval

FORMAT = 2  # of the JSON file

_RATES = ("threshold", "fmr", "fnmr", "auc")
_HIGHEST = 1 + 1e-9  # of a cosine; a threshold that accepts none lies just above all scores


@dataclass(frozen=True)
class Rate:
    """An error rate in [0, 1], and its interval over other people."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True)
class Calibration:
    """Turns the scores of one model into decisions and probabilities.

    Attributes:
        target_fmr: the FMR that the threshold must not exceed.
        threshold: scores at or above it are accepted; its `interval` says how it moves with other people.
        fmr, fnmr: measured at the threshold, on the pairs that chose it.
        genuine, impostors: how many pairs.
        slope, intercept: of the log-likelihood ratio, slope · score + intercept.
        auc: how well the model tells these people apart; None if not measured.
        metric, flip: how the scores were made; use the threshold with scores made in the same way.
        model: the model and flip rule that made the embeddings; None if unknown.
        gallery: the model and flip rule of the stored side, where that is another, of which `model` makes the queries.
        by_group: the rates of each group and pair of groups at the threshold; None where no groups are known.
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
    by_group: ByGroup | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    auc: Rate | None = None
    gallery: str | None = None

    def __post_init__(self) -> None:
        checks.number("target_fmr", self.target_fmr, low=0, high=1, open_low=True)
        checks.number("threshold", self.threshold.value, low=-_HIGHEST, high=_HIGHEST, hint="it is a cosine")
        _check_rate("FMR", self.fmr, high=self.target_fmr)
        _check_rate("FNMR", self.fnmr)
        if self.auc is not None:
            _check_rate("AUC", self.auc)
        checks.number("slope", self.slope, low=0, open_low=True)
        checks.number("intercept", self.intercept)
        checks.choice("metric", self.metric, ("cosine",))
        if self.flip is not None:
            checks.choice("flip", self.flip, ("sum", "concat"), hint="or null")
        for name in ("model", "gallery"):
            if not isinstance(getattr(self, name), str | None):
                raise InputError(f"{name} must be a name or null; got {getattr(self, name)!r}")
        for name in ("genuine", "impostors"):
            checks.integer(name, getattr(self, name), low=1)

    @property
    def stored(self) -> str | None:
        """The model and flip rule of the stored side."""
        return self.model if self.gallery is None else self.gallery

    @property
    def warning(self) -> str:
        """The sentence for a model that hardly tells people apart, as measured here; empty for one that does."""
        if self.auc is None:
            return ""
        return auc_warning(self.auc.value, self.auc.interval, "people").removeprefix(WARNING)

    def accepts(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Which scores count as the same person."""
        return np.asarray(_scores(scores) >= self.threshold.value)

    def log_likelihood_ratio(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Natural logarithm of how much likelier a score is for one person than for two."""
        return np.asarray(self.slope * _scores(scores) + self.intercept)

    def probability(self, scores: ArrayLike, prior: float = 0.5) -> NDArray[np.float64]:
        """Probability that it is the same person, if that is so for a share `prior` in (0, 1) of the pairs compared."""
        checks.number("prior", prior, low=0, high=1, open_low=True, open_high=True)
        odds = self.log_likelihood_ratio(scores) + math.log(prior / (1 - prior))
        return np.asarray(np.exp(-np.logaddexp(0, -odds)))

    def write(self, path: Path) -> None:
        """Write as JSON, whole or not at all; an undefined rate is null."""
        if path.suffix != ".json":
            raise InputError(f"a calibration is written as .json; got {path}")
        files.write_json(path, null_for_nan({"format": FORMAT, **asdict(self)}))

    @staticmethod
    def read(path: Path) -> "Calibration":
        """A calibration that was written, or what is wrong with the file."""
        try:
            content = limits.parse_json(path.read_bytes(), "its content")
            if (found := content.pop("format")) != FORMAT:
                raise ValueError(f"its format is {checks.shown(found)} and not {FORMAT}: calibrate again")
            content |= {name: _rate(content[name]) for name in _RATES if content.get(name) is not None}
            if content.get("by_group") is not None:
                from angulus.evaluation.protocols import score_sheet  # pydantic takes a moment to import

                content["by_group"] = score_sheet.by_group_from_json(content["by_group"])
            return Calibration(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            reason: object = f"it lacks {error}" if isinstance(error, KeyError) else error
            reason = (isinstance(error, OSError) and error.strerror) or reason
            raise InputError(f"{path} is not a calibration ({reason}); give the .json of angulus calibrate") from error


def _scores(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError("scores must be finite; got NaN or Inf")
    return values


def _rate(saved: Mapping[str, Any]) -> Rate:
    interval = None if saved["interval"] is None else read_interval(saved["interval"])
    return Rate(nan_for_null(saved["value"]), interval)


def _check_rate(name: str, rate: Any, *, high: float = 1.0) -> None:
    """Refuse a rate outside [0, `high`] or an interval outside [0, 1]."""
    if not isinstance(rate, Rate):
        raise InputError(f"{name} must have a value and an interval; got {checks.shown(rate)}")
    checks.number(name, rate.value, low=0, high=high)
    for end in (rate.interval.low, rate.interval.high) if rate.interval else ():
        checks.number(f"the interval of {name}", end, low=0, high=1)
