"""What an auditor reads of verification: FNMR at fixed FMRs, bands of a DET, and error versus discard."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from angulus.evaluation.metrics.curves import Presorted
from angulus.evaluation.metrics.intervals import Floats, Interval, Statistic
from angulus.evaluation.metrics.verification import least_count
from angulus.evaluation.protocols import error_discard, scored
from angulus.evaluation.protocols.figures import RULE_OF_30, STANDARD_FARS, Resampling, numbers, rate_label
from angulus.evaluation.protocols.result import Number, Result, shown, span
from angulus.report.chart import Chart
from angulus.report.error_curves import MOST_FMR, NO_RUNS, Band, Runs, error_curves
from angulus.report.page import Table
from angulus.report.tables import NONE

Results = Mapping[str, Result]  # by their names in the report

TAR = ("TAR@FAR=", "VR@FAR=")  # how figures begin whose complement is an FNMR
GENUINE = ("genuine", "genuine pairs")  # their numbers, among a result's counts
IMPOSTORS = ("impostors", "impostor pairs", "least impostor pairs of a trial")
MOST_BANDS = 6  # of one chart; more hide each other
MOST_ROWS = 30  # of a table that is not folded
MOST_WEIGHED = 3 * 10**8  # pairs, over all resamples of a band
LEAST_DRAWS = 100
PLACES = 40  # of a DET's band
DISCARD_FMRS = (1e-3, 1e-2, 1e-1)  # error versus discard is at the first that the pairs support
DISCARDED = tuple(step / 20 for step in range(1, 11))  # shares of a band


def complement(number: Number, name: str) -> Number:
    """1 − a share, with its interval and threshold: the FNMR of a TAR, the FNIR of a TPIR."""
    interval = number.interval and Interval(1 - number.interval.high, 1 - number.interval.low, number.interval.level)
    return replace(number, name=name, value=1 - number.value, interval=interval)


def count_of(result: Result, names: Sequence[str]) -> int | None:
    """The first of these counts that a result has."""
    return next((result.counts[name] for name in names if name in result.counts), None)


def fnmr_tables(results: Results) -> list[Table]:
    """FNMR at each FMR of 1e-1, 1e-2, ... 1e-6 and of the results, by FMR; none without a TAR at a FAR.

    An FMR that a result does not show has a row that says so, and a note with the reason.
    """
    rates = {name: own for name, result in results.items() if (own := _rates(result))}
    if not rates:
        return []
    several = len(rates) > 1
    every = sorted({*STANDARD_FARS, *(rate for own in rates.values() for rate in own)}, reverse=True)
    rows = [
        [f"{rate_label(rate)}{f', {name}' if several else ''}", *_cells(results[name], rate, own.get(rate))]
        for rate in every
        for name, own in rates.items()
    ]
    head = ["FMR", "threshold", "FNMR", "95 % interval", "false non-matches", "false matches"]
    missing = (_missing(results[name], [r for r in STANDARD_FARS if r not in own]) for name, own in rates.items())
    notes = [
        "Each threshold is the lowest whose FMR does not exceed the one named: a pair is accepted if its score is at "
        f"least the threshold. A rate behind fewer than {RULE_OF_30} errors is rough (rule of 30).",
        *dict.fromkeys(filter(None, missing)),
    ]
    return [Table("FNMR at fixed FMR", head, rows, notes, folded=len(rows) > MOST_ROWS)]


def det_bands(results: Results, draws: int) -> dict[str, Band]:
    """Intervals of the FNMR along the FMR, by the results' names, on the resamples of their tables, at most `draws`.

    None for results without intervals or without scores, nor for more results than a chart can show.
    """
    banded = {name: result for name, result in results.items() if _has_scores(result)}
    if len(banded) > MOST_BANDS:
        return {}
    bands = {}
    for name, result in banded.items():
        samples, same = result.samples, result.samples["same"].astype(bool)
        lowest = 1 / max(int((~same).sum()), 1)
        if lowest < MOST_FMR:
            grid = np.geomspace(lowest, MOST_FMR, PLACES)
            grid = np.unique(np.concatenate([grid, [rate for rate in _rates(result) if rate >= lowest]]))
            used = limited(Resampling.of(result), len(same), draws)
            statistic = fnmr_statistic(Presorted.of(samples["scores"], same), grid)
            figures = numbers(statistic, scored.units_of(samples), used.draws, used.seed)
            if band := band_of(grid.tolist(), figures, used):
                bands[name] = band
    return bands


def fnmr_statistic(presorted: Presorted, fmrs: Floats) -> Statistic:
    """FNMR at each FMR, by weights of the pairs: the lowest at any threshold whose FMR does not exceed it."""
    names = [str(fmr) for fmr in fmrs.tolist()]

    def figures(weights: Floats) -> dict[str, float]:
        genuine, impostors = (np.append(0.0, np.cumsum(amount)) for amount in presorted.amounts(weights))
        if not (genuine[-1] and impostors[-1]):
            return {}
        rows = np.searchsorted(impostors / impostors[-1], fmrs, side="right") - 1
        return dict(zip(names, (1 - genuine[rows] / genuine[-1]).tolist(), strict=True))

    return figures


def discard_blocks(results: Results, draws: int, runs: Runs = NO_RUNS) -> tuple[list[Table], list[Chart]]:
    """FNMR at a fixed FMR as the genuine pairs of smallest norm are discarded, with partial areas, and its curve."""
    several, draws = len(results) > 1, draws if len(results) <= MOST_BANDS else 0
    rows, lines, bands = [], [], {}
    for name, result in results.items():
        fmr = _discard_fmr(result)
        if fmr is None:
            continue
        samples = {**result.samples, "fmr": np.array(fmr), "up_to": np.array(1.0)}
        used = limited(Resampling.of(result), len(samples["same"]), draws)
        found = numbers(*error_discard.statistic(samples, DISCARDED), used.draws, used.seed)
        by_name = {number.name: number for number in found}
        label = f"{name}, FMR {rate_label(fmr)}" if several else f"FMR {rate_label(fmr)}"
        rows += [_discard_row(label, share, by_name) for share in (0.0, *error_discard.SHARES)]
        curve = error_discard.draw(samples, fmr)
        kept = curve.x <= DISCARDED[-1]
        lines.append((label, curve.x[kept], curve.y[kept]))
        runs = {**runs, label: runs.get(name, name)}
        figures = [_fnmr_after(by_name, share) for share in (0.0, *DISCARDED)]
        if band := band_of((0.0, *DISCARDED), figures, used):
            bands[label] = band
    if not rows:
        return [], []
    notes = [
        "Pairs go by their quality, the smaller of their two norms, the lowest first; the threshold stays. The partial "
        "area is the one under the FNMR from 0 to the share discarded. The ratio divides it by the area if quality "
        "told nothing, FNMR × share: below 1, small norms predict false non-matches."
    ]
    head = ["threshold at, discarded", "FNMR", "95 % interval", "partial area", "95 % interval", "ratio"]
    chart = error_curves("discard", lines, runs=runs, bands=bands)
    title = "Error versus discard: FNMR at a fixed FMR, and partial areas"
    return [Table(title, head, rows, notes, folded=len(rows) > MOST_ROWS)], [
        replace(chart, y=replace(chart.y, low=0.0))
    ]


def _rates(result: Result) -> dict[float, Number]:
    """The TARs of a result, by their FARs."""
    starts = [(number, start) for number in result.numbers for start in TAR if number.name.startswith(start)]
    labels = [(number, number.name.removeprefix(start)) for number, start in starts]
    return {float(label): number for number, label in labels if label.replace(".", "").replace("e-", "").isdigit()}


def _cells(result: Result, rate: float, tar: Number | None) -> list[str]:
    if tar is None or np.isnan(tar.value):
        return [NONE, "not shown", *[NONE] * 3]
    fnmr, genuine, impostors = complement(tar, "FNMR"), count_of(result, GENUINE), count_of(result, IMPOSTORS)
    misses = NONE if genuine is None else f"{round(fnmr.value * genuine):,} of {genuine:,}"
    matches = NONE if impostors is None else f"at most {int(rate * impostors + 1e-9):,} of {impostors:,}"
    if _has_scores(result) and tar.threshold is not None:
        same = result.samples["same"].astype(bool)
        matches = f"{int((result.samples['scores'][~same] >= tar.threshold).sum()):,} of {int((~same).sum()):,}"
    threshold = NONE if tar.threshold is None else shown(tar.threshold)
    return [threshold, shown(fnmr.value), span(fnmr) or NONE, misses, matches]


def _missing(result: Result, rates: Sequence[float]) -> str:
    """Why a result does not show the FNMR at these FMRs."""
    count = count_of(result, IMPOSTORS)
    if scored.DISTINCT in result.samples:
        same = result.samples["same"].astype(bool)
        count = len(np.unique(result.samples[scored.DISTINCT][~same]))
    few = [rate for rate in rates if count is not None and count < least_count(rate)]
    others = [rate_label(rate) for rate in rates if rate not in few]
    needs = ", ".join(f"{rate_label(rate)} needs {least_count(rate):,}" for rate in few)
    reasons = []
    if few:
        reasons.append(f"Not shown, for there are {count:,} different impostor pairs: FMR {needs}.")
    if others:
        reasons.append(f"Not shown, for the result was not asked for them: FMR {', '.join(others)}.")
    return " ".join(reasons)


def _has_scores(result: Result) -> bool:
    """Whether a result holds the scores of its pairs, all of one list."""
    return {"scores", "same"} <= set(result.samples) and "groups" not in result.samples


def _discard_fmr(result: Result) -> float | None:
    """The FMR at which error versus discard is shown; None without norms, or with too few impostor pairs."""
    if not _has_scores(result) or "norms" not in result.samples or result.protocol == error_discard.PROTOCOL:
        return None
    impostors = int((~result.samples["same"].astype(bool)).sum())
    return next((fmr for fmr in DISCARD_FMRS if impostors >= least_count(fmr)), None)


def _discard_row(label: str, share: float, figures: Mapping[str, Number]) -> list[str]:
    fnmr = _fnmr_after(figures, share)
    cells = [f"{label}, {share:.0%}", shown(fnmr.value), span(fnmr) or NONE]
    if not share:
        return [*cells, NONE, NONE, NONE]
    area, useless = figures[f"area under FNMR to {share:.0%}"], figures["FNMR"].value * share
    return [*cells, shown(area.value), span(area) or NONE, f"{area.value / useless:.2f}" if useless else NONE]


def _fnmr_after(figures: Mapping[str, Number], share: float) -> Number:
    return figures[f"FNMR, {share:.0%} discarded" if share else "FNMR"]


def limited(resampling: Resampling, pairs: int, most: int) -> Resampling:
    """At most this many draws, and fewer of very many pairs."""
    affordable = max(LEAST_DRAWS, MOST_WEIGHED // max(pairs, 1))
    return replace(resampling, draws=min(resampling.draws, most, affordable))


def band_of(places: ArrayLike, figures: Sequence[Number], resampling: Resampling) -> Band | None:
    """The intervals of figures at places along x; an interval without width is its value."""
    if not resampling.draws or all(number.interval is None for number in figures):
        return None
    ends = [(n.interval.low, n.interval.high) if n.interval else (n.value, n.value) for n in figures]
    low, high = np.array(ends).T
    words = f"Band: {resampling.describe().partition(';')[0]}, at each place along the axis."
    return Band(np.asarray(places, dtype=np.float64), low, high, words)
