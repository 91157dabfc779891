"""The schema of the score sheet, the JSON file of a result: its fields are those of `Result`.

What is optional may be left out, so that a program without Angulus can write one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, JsonValue

from angulus.evaluation.protocols.result import KINDS

VERSION = 2
NUMBERS = 'JSON has no NaN and no infinity: write null for an undefined number, "Infinity" or "-Infinity"'

Finite = Annotated[float, Field(allow_inf_nan=False)]
Figure = Finite | Literal["Infinity", "-Infinity"] | None
Count = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
_ROUNDED = 1e-6  # how far a rate may be from errors / trials


def repeated(items: Iterable[Any]) -> tuple[Any, int] | None:
    """The first item that comes more than once, and how often."""
    return next(((item, count) for item, count in Counter(items).items() if count > 1), None)


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class IntervalSheet(_Part):
    """The range of a figure in `level` of the resamples."""

    low: Finite
    """Its lower end."""
    high: Finite
    """Its upper end, at least `low`."""
    level: Annotated[float, Field(gt=0, lt=1)]
    """Share of the resamples inside, such as 0.95."""

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> IntervalSheet:
        if self.low > self.high:
            raise ValueError(f"must go from low to high; got {self.low:g} to {self.high:g}")
        return self


class NumberSheet(_Part):
    """One figure, with all its digits."""

    name: Text
    """Such as "accuracy" or "TAR@FAR=1e-3"; each name once."""
    value: Figure
    """The figure: a share in [0, 1] unless its name says otherwise; null where it is undefined."""
    interval: IntervalSheet | None = None
    """Its interval, or null."""
    threshold: Figure = None
    """Scores at or above it are accepted; null for figures without a threshold."""
    spread: Figure = None
    """A standard error or deviation, or null."""
    no_interval: str = ""
    """Why an interval that was asked for is null."""


class CurveSheet(_Part):
    """Points of one curve, at most some thousands."""

    kind: Literal[KINDS]  # type: ignore[valid-type]
    """What the axes are: roc (FMR, TAR), det (FMR, FNMR), cmc (rank, share), froc (false positives, sensitivity) ..."""
    name: str
    """What the curve is of."""
    x: Annotated[list[Figure], Field(min_length=1)]
    """The points' places on the horizontal axis."""
    y: Annotated[list[Figure], Field(min_length=1)]
    """The points' places on the vertical axis, as many as `x`."""

    @pydantic.model_validator(mode="after")
    def _even(self) -> CurveSheet:
        if len(self.x) != len(self.y):
            raise ValueError(f"must have as many x as y; got {len(self.x)} and {len(self.y)}")
        return self


class SamplesSheet(_Part):
    """The file with the arrays that the figures can be computed from again."""

    file: Annotated[str, Field(pattern=r"^[^/\\]+\.npz$")]
    """Its name, in the folder of the JSON file."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Its SHA-256, in hexadecimal."""


class RateSheet(_Part):
    """One error rate of one group, or between two."""

    trials: Count
    """How many trials there were."""
    errors: Count
    """How many of them went wrong at the threshold."""
    value: Figure
    """errors / trials; null where the trials are too few for the rate asked for."""
    interval: IntervalSheet | None = None
    """Its interval over other people, or null."""
    note: str = ""
    """Why there is no value or no interval."""

    @pydantic.model_validator(mode="after")
    def _counted(self) -> RateSheet:
        if self.errors > self.trials:
            raise ValueError(f"must have at most as many errors as trials; got {self.errors} of {self.trials}")
        if self.value is not None and not (
            self.trials and abs(float(self.value) - self.errors / self.trials) <= _ROUNDED
        ):
            raise ValueError(
                f"must have the value errors / trials; got {self.value} for {self.errors} of {self.trials}"
            )
        return self


class CellSheet(_Part):
    """The rates within one group (one name), or between two."""

    groups: Annotated[list[Text], Field(min_length=1, max_length=2)]
    """One name, or two."""
    false_match: RateSheet | None = None
    """FMR; in identification FPIR."""
    false_non_match: RateSheet | None = None
    """FNMR; in identification FNIR."""


class ByGroupSheet(_Part):
    """All groups at one operating point."""

    at: Text
    """The operating point, such as "FAR=1e-3"."""
    kind: Literal["verification", "identification"]
    """Whether the rates are FMR and FNMR, or FPIR and FNIR."""
    threshold: Figure = None
    """The common threshold; null where each trial or gallery of the protocol has its own."""
    cells: Annotated[list[CellSheet], Field(min_length=1)]
    """One for each group, then one for each two groups that are compared."""
    differentials: list[NumberSheet] = []
    """How unequal the groups are: ratios, Gini coefficients, FDR, GARBE."""

    @pydantic.model_validator(mode="after")
    def _named(self) -> ByGroupSheet:
        names = {cell.groups[0] for cell in self.cells if len(cell.groups) == 1}
        found = [tuple(sorted(cell.groups)) for cell in self.cells]
        if twice := repeated(found):
            raise ValueError(f"must have one cell for {' and '.join(twice[0])}; got {twice[1]}")
        alone = next((name for groups in found for name in groups if name not in names), None)
        if alone is not None:
            raise ValueError(f"must have a cell of group {alone!r} alone; got it only with another")
        return self


class Sheet(_Part):
    """The result of one protocol, as `angulus evaluate --json` saves it."""

    format: Literal[2]
    """The version of this schema."""
    protocol: Text
    """What was measured, such as "pairs"; only results of one protocol are compared."""
    numbers: list[NumberSheet]
    """The figures."""
    choices: dict[str, JsonValue] = {}
    """Every choice that was made (flip, pooling, PCA, seed, ...), by name."""
    counts: dict[str, Count] = {}
    """How much there was of everything (pairs, people, folds, ...), by name."""
    notes: list[str] = []
    """What a reader must know; warnings begin with "warning: "."""
    curves: list[CurveSheet] = []
    """What can be drawn."""
    samples: SamplesSheet | None = None
    """The arrays behind the figures, which `compare-results` needs; or null."""
    environment: dict[str, JsonValue] = {}
    """Where the result comes from: embeddings, lists, versions, device."""
    by_group: list[ByGroupSheet] = []
    """Error rates by group of people, one entry for each operating point."""

    @pydantic.model_validator(mode="after")
    def _once(self) -> Sheet:
        if twice := repeated(number.name for number in self.numbers):
            raise ValueError(f"must have each number once; got {twice[0]!r} {twice[1]} times")
        return self


PARTS = (Sheet, NumberSheet, IntervalSheet, CurveSheet, SamplesSheet, ByGroupSheet, CellSheet, RateSheet)
