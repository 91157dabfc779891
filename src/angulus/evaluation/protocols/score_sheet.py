"""The score sheet: the JSON file of a result as a versioned schema, so that two parties can exchange and compare.

`Sheet` is the schema. Its fields are those of `Result`, and what is optional may be left out, so that a program
without Angulus can write one.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
from pydantic import Field, JsonValue

from angulus.core import checks, limits, wording
from angulus.core.checks import InputError
from angulus.evaluation.metrics.intervals import Interval
from angulus.evaluation.protocols.group_rates import ByGroup, Cell, GroupRate
from angulus.evaluation.protocols.result import KINDS, Curve, Number, Result

VERSION = 2
NUMBERS = 'JSON has no NaN and no infinity: write null for an undefined number, "Infinity" or "-Infinity"'

Finite = Annotated[float, Field(allow_inf_nan=False)]
Figure = Finite | Literal["Infinity", "-Infinity"] | None
Count = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
_ROUNDED = 1e-6  # how far a rate may be from errors / trials


def _repeated(items: Iterable[Any]) -> tuple[Any, int] | None:
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
        if twice := _repeated(found):
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
        if twice := _repeated(number.name for number in self.numbers):
            raise ValueError(f"must have each number once; got {twice[0]!r} {twice[1]} times")
        return self


PARTS = (Sheet, NumberSheet, IntervalSheet, CurveSheet, SamplesSheet, ByGroupSheet, CellSheet, RateSheet)


def schema() -> dict[str, Any]:
    """The JSON Schema of the score sheet."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"angulus-result-{VERSION}",
        **Sheet.model_json_schema(),
    }


def read(path: Path) -> Sheet:
    """The score sheet in a file.

    Raises:
        InputError: the file cannot be read, or what is wrong with it: the first three sentences.
    """
    sheet, wrong = _check(path)
    if sheet is None:
        more = f"; and {len(wrong) - 3} more, which angulus results validate lists" if len(wrong) > 3 else ""
        raise InputError(
            f"{path} is not a saved result ({'; '.join(wrong[:3])}{more}); give the .json that angulus evaluate --json "
            "wrote"
        )
    return sheet


def find_errors(path: Path) -> list[str]:
    """What is wrong with a file, in sentences that name the place, the rule and the value; its samples too."""
    sheet, wrong = _check(path)
    if sheet is not None and sheet.samples is not None:
        try:
            Result.read(path)
        except InputError as error:
            return [str(error)]
    return wrong


def to_result(sheet: Sheet, samples: Mapping[str, Any]) -> Result:
    """The result of a score sheet, with its samples."""
    return Result(
        sheet.protocol,
        tuple(map(_number, sheet.numbers)),
        sheet.choices,
        sheet.counts,
        curves=tuple(Curve(part.kind, part.name, _array(part.x), _array(part.y)) for part in sheet.curves),
        notes=tuple(sheet.notes),
        samples=samples,
        about=sheet.environment,
        by_group=tuple(map(_by_group, sheet.by_group)),
    )


def by_group_from_json(content: Any) -> ByGroup:
    """One operating point from JSON; raises ValueError with a sentence."""
    try:
        return _by_group(ByGroupSheet.model_validate(content))
    except pydantic.ValidationError as error:
        raise ValueError("; ".join(_sentences(error)).replace("the file must", "the group rates must")) from error


def _check(path: Path) -> tuple[Sheet | None, list[str]]:
    try:
        content = _parse(path)
        if not isinstance(content, dict):
            raise ValueError(f"it must be a mapping of names to values; got {checks.shown(content)}")
        if content.get("format") != VERSION:
            got = checks.shown(content["format"]) if "format" in content else "none"
            raise ValueError(
                f"its format must be {VERSION}, the one that this Angulus reads; got {got}; evaluate again, or read it "
                "with the version that wrote it"
            )
        return Sheet.model_validate(content), []
    except pydantic.ValidationError as error:
        return None, list(_sentences(error))
    except OSError as error:
        return None, [checks.why_unread(error)]
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        what = "bytes that are no text" if isinstance(error, UnicodeDecodeError) else checks.one_line(error)
        return None, [f"it must be JSON text, as --json of angulus evaluate writes it; got {what}"]
    except (ValueError, RecursionError) as error:
        return None, [checks.one_line(error)]


def _parse(path: Path) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"it holds {name}; {NUMBERS}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := _repeated(name for name, _ in pairs):
            raise ValueError(f"it must hold each name once; got {twice[0]!r} {twice[1]} times")
        return dict(pairs)

    try:
        content = json.loads(path.read_bytes(), parse_constant=refuse, object_pairs_hook=once)
    except RecursionError:
        content = limits.parse_json(path.read_bytes(), "its content")  # which says how deep
    limits.check_nesting(content, "its content")
    return content


def _sentences(error: pydantic.ValidationError) -> Iterator[str]:
    """Each of pydantic's errors as a sentence: where, the rule, the value."""
    told: set[str] = set()
    for details in error.errors():
        said = _sentence(details)
        if said not in told:
            told.add(said)
            yield said


def _sentence(details: Any) -> str:
    kind, location = details["type"], details["loc"]
    if kind == "extra_forbidden":
        *parents, name = location
        known = [field for part in PARTS for field in part.model_fields]
        return f"{_where(parents)} must not have {name!r}, which the schema does not know{checks.nearest(name, known)}"
    if kind == "missing":
        return f"{_where(location[:-1])} must have {location[-1]!r}"
    got = checks.shown(details["input"])
    if "error" in details.get("ctx", {}):  # a rule of ours, with what it got
        return f"{_where(location)} {details['ctx']['error']}"
    places = [part for part in location if not _is_branch(part)]
    if len(places) < len(location) or kind in ("float_type", "finite_number"):
        return f'{_where(places)} must be a finite number, null, "Infinity" or "-Infinity"; got {got}'
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"{_where(location)} must be a mapping of names to values; got {got}"
    return f"{_where(location)} must {wording.plain_rule(details['msg'])}; got {got}"


def _is_branch(part: object) -> bool:
    """Whether a part of a location is pydantic's name of a type instead of a place in the file."""
    return isinstance(part, str) and re.fullmatch(r"constrained-float|float|literal\[.*\]", part) is not None


def _where(location: Any) -> str:
    """A place in the file.

    >>> _where(("numbers", 2, "interval", "low")), _where(())
    ('numbers[2].interval.low', 'the file')
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
    return text or "the file"


def _value(figure: Figure) -> float:
    return math.nan if figure is None else float(figure)


def _array(figures: list[Figure]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(list(map(_value, figures)), dtype=np.float64)


def _interval(part: IntervalSheet | None) -> Interval | None:
    return None if part is None else Interval(part.low, part.high, part.level)


def _number(part: NumberSheet) -> Number:
    threshold, spread = (None if value is None else float(value) for value in (part.threshold, part.spread))
    return Number(part.name, _value(part.value), _interval(part.interval), threshold, spread, part.no_interval)


def _rate(part: RateSheet | None) -> GroupRate | None:
    if part is None:
        return None
    return GroupRate(part.trials, part.errors, _value(part.value), _interval(part.interval), part.note)


def _by_group(part: ByGroupSheet) -> ByGroup:
    cells = tuple(Cell(tuple(cell.groups), _rate(cell.false_match), _rate(cell.false_non_match)) for cell in part.cells)
    threshold = None if part.threshold is None else float(part.threshold)
    return ByGroup(part.at, part.kind, threshold, cells, tuple(map(_number, part.differentials)))
