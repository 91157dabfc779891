"""The score sheet: the JSON file of a result by a versioned schema, so that two parties can exchange and compare."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from angulus.core import checks, limits, wording
from angulus.core.checks import InputError
from angulus.evaluation.metrics.intervals import Interval
from angulus.evaluation.protocols.group_rates import ByGroup, Cell, GroupRate
from angulus.evaluation.protocols.result import Curve, Number, Result
from angulus.evaluation.protocols.score_sheet_schema import (
    NUMBERS,
    PARTS,
    VERSION,
    ByGroupSheet,
    Figure,
    IntervalSheet,
    NumberSheet,
    RateSheet,
    Sheet,
    repeated,
)


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
        if twice := repeated(name for name, _ in pairs):
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
