"""Error rates by group at one common threshold, as a result keeps and prints them; `by_group` computes them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from angulus.evaluation.metrics.intervals import Interval

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from angulus.evaluation.protocols.result import Number

Kind = Literal["verification", "identification"]
Which = Literal["false_match", "false_non_match"]
RATES: dict[Kind, dict[Which, str]] = {
    "verification": {"false_match": "FMR", "false_non_match": "FNMR"},
    "identification": {"false_match": "FPIR", "false_non_match": "FNIR"},
}


@dataclass(frozen=True)
class GroupRate:
    """One error rate of one cell.

    Args:
        trials: how many there were.
        errors: how many of them went wrong at the threshold.
        value: errors / trials; NaN where it is undefined: without trials, or with fewer than the FMR asked for needs.
        interval: over other people, or None.
        note: why there is no value or no interval, or what the value can not show.
    """

    trials: int
    errors: int
    value: float
    interval: Interval | None = None
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """The rates within one group, or between two.

    Args:
        groups: one name, or two in their order.
        false_match: FMR, or FPIR in identification; None where the protocol has none.
        false_non_match: FNMR, or FNIR in identification; None where the protocol has none.
    """

    groups: tuple[str, ...]
    false_match: GroupRate | None
    false_non_match: GroupRate | None


@dataclass(frozen=True)
class ByGroup:
    """All groups at one operating point.

    Args:
        at: the operating point, such as "FAR=1e-3".
        kind: "verification" (FMR and FNMR) or "identification" (FPIR and FNIR).
        threshold: the common threshold; None where each trial or gallery of the protocol has its own.
        cells: one for each group, then one for each two groups that are compared.
        differentials: how unequal the groups are; a ratio may be infinite; `no_interval` of an undefined one says why.
    """

    at: str
    kind: Kind
    threshold: float | None
    cells: tuple[Cell, ...]
    differentials: tuple[Number, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups."""
        return tuple(cell.groups[0] for cell in self.cells if len(cell.groups) == 1)

    @property
    def rates(self) -> dict[Which, str]:
        """What the rates are called: FMR and FNMR, or FPIR and FNIR."""
        return RATES[self.kind]

    def matrix(self, which: Which) -> NDArray[np.float64]:
        """One rate of all groups and pairs of groups, [G, G], symmetric; NaN where it is undefined."""
        place = {name: number for number, name in enumerate(self.groups)}
        values = np.full((len(place), len(place)), np.nan)
        for cell in self.cells:
            first, last = place[cell.groups[0]], place[cell.groups[-1]]
            rate = getattr(cell, which)
            values[first, last] = values[last, first] = math.nan if rate is None else rate.value
        return values


@dataclass(frozen=True)
class GroupFigures:
    """What a protocol found by group, and what a reader must know of it."""

    points: tuple[ByGroup, ...] = ()
    notes: tuple[str, ...] = ()

    def __add__(self, other: GroupFigures) -> GroupFigures:
        return GroupFigures(self.points + other.points, tuple(dict.fromkeys(self.notes + other.notes)))


def rate_rows(point: ByGroup, digits: int = 4) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table of all cells: each rate with its interval, and its errors and trials.

    A rate that no cell has has no column: `undefined` says why.
    """
    present = [which for which in point.rates if any(_has(cell, which) for cell in point.cells)]
    head = ["group", *(name for which in present for name in (point.rates[which], "errors / trials"))]
    rows = []
    for cell in point.cells:
        rates = [getattr(cell, which) for which in present]
        shown = [["", ""] if r is None else [show_rate(r, digits), f"{r.errors:,} / {r.trials:,}"] for r in rates]
        rows.append([" × ".join(cell.groups), *(text for texts in shown for text in texts)])
    return head, rows


def difference_rows(point: ByGroup, digits: int = 4) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table of what compares the groups, without what is undefined."""
    from angulus.evaluation.protocols.result import shown, span

    defined = [number for number in point.differentials if not math.isnan(number.value)]
    rows = [[n.name, shown(n.value, digits), span(n, digits, "[{}, {}]")] for n in defined]
    return ["how unequal", "value", "interval"], rows


def undefined(point: ByGroup) -> list[str]:
    """Why rates and what compares the groups are undefined: one sentence for each reason."""
    sentences: dict[tuple[str, str], list[str]] = {}
    for which, called in point.rates.items():
        for cell in point.cells:
            rate: GroupRate | None = getattr(cell, which)
            if rate is not None and rate.trials and math.isnan(rate.value):
                trials, _, rule = rate.note.removeprefix("undefined: ").partition("; ")
                sentences.setdefault((called, rule), []).append(f"{' × '.join(cell.groups)} ({trials})")
    reasons: dict[str, list[str]] = {}
    for number in point.differentials:
        if not math.isfinite(number.value):
            reasons.setdefault(number.no_interval, []).append(number.name)
    return [
        *(
            f"{called} is undefined for {', '.join(names)}{rule and ': '}{rule}."
            for (called, rule), names in sentences.items()
        ),
        *(f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {why}." for why, names in reasons.items()),
    ]


def conclusions(point: ByGroup, digits: int = 4) -> list[str]:
    """Of each rate, which group fares worst, and whether its difference to the best is decided.

    It is if the interval of the worst lies above the interval of the best; overlapping intervals decide nothing.
    """
    from angulus.evaluation.protocols.result import shown

    sentences = []
    for which, called in point.rates.items():
        rates = [(c.groups[0], getattr(c, which)) for c in point.cells if len(c.groups) == 1 and _has(c, which)]
        if len(rates) < 2:
            continue
        (best, low), (worst, high) = (find(rates, key=lambda one: one[1].value) for find in (min, max))
        if low.value == high.value:
            sentences.append(f"{called} at {point.at}: all groups have {shown(low.value, digits)}.")
            continue
        without = [name for name, rate in ((worst, high), (best, low)) if rate.interval is None]
        if low.interval is None or high.interval is None:
            verdict = f"not decided: {' and '.join(without)} {'has' if len(without) == 1 else 'have'} no interval"
        elif high.interval.low > low.interval.high:
            verdict = "decided: the intervals are apart"
        else:
            verdict = "not decided: the intervals overlap"
        sentences.append(
            f"{called} at {point.at}: {worst} fares worst ({shown(high.value, digits)}), {best} best "
            f"({shown(low.value, digits)}); the difference is {verdict}."
        )
    return sentences


def titles(point: ByGroup, digits: int = 4) -> tuple[str, str]:
    """The titles of both tables."""
    from angulus.evaluation.protocols.result import shown

    at = "" if point.threshold is None else f", threshold {shown(point.threshold, digits)}"
    return f"by group at {point.at}{at}", f"how unequal the groups are at {point.at}"


def tables(points: tuple[ByGroup, ...], digits: int) -> Iterator[Table | Text]:
    """For the terminal, of each operating point: the rates of each cell, how unequal they are, and which is worst."""
    from rich.table import Table
    from rich.text import Text

    for point in points:
        parts = rate_rows(point, digits), difference_rows(point, digits)
        for title, (head, rows) in zip(titles(point, digits), parts, strict=True):
            if not rows:
                continue
            table = Table(title=title)
            for place, name in enumerate(head):
                table.add_column(name, justify="right" if place else "left", no_wrap=True)
            for row in rows:
                table.add_row(*map(Text, row))  # as Text, for rich takes a name in brackets for markup
            yield table
        yield from map(Text, conclusions(point, digits))


def _has(cell: Cell, which: Which) -> bool:
    rate: GroupRate | None = getattr(cell, which)
    return rate is not None and not math.isnan(rate.value)


def show_rate(rate: GroupRate, digits: int) -> str:
    """A rate with its interval; nothing where there were no trials."""
    from angulus.evaluation.protocols.result import Number, shown, span

    if not rate.trials:
        return ""
    return shown(rate.value, digits) + span(Number("", rate.value, rate.interval), digits, " [{}, {}]")
