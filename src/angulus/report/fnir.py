"""FNIR(N, R, T): how often a search misses a person in a gallery of N, by the rate of false alarms."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from angulus.evaluation.metrics.intervals import Rows, Samples
from angulus.evaluation.protocols import distractors, open_set, template_identification
from angulus.evaluation.protocols.figures import Resampling, numbers, rate_label
from angulus.evaluation.protocols.gallery_sizes import SizedSearches, fnir_name
from angulus.evaluation.protocols.result import Number, Result, shown, span
from angulus.report.chart import Chart
from angulus.report.error_curves import CURVES, NO_RUNS, Runs, error_curves
from angulus.report.error_rates import MOST_BANDS, MOST_ROWS, band_of, complement, count_of, limited
from angulus.report.page import Table
from angulus.report.tables import NONE

SIZED: Mapping[str, Callable[[Samples], list[SizedSearches]]] = {  # by protocol
    template_identification.PROTOCOL: template_identification.by_size,
    distractors.MEGAFACE: distractors.by_size,
}
FOUND = ("TPIR@FPIR=", "DIR@FAR=", "TPR@FAR=")  # how figures begin whose complement is an FNIR at one gallery size
STANDARD_FPIRS = (1e-1, 1e-2, 1e-3)
HEAD = ["N, FPIR", "threshold", "FNIR", "95 % interval"]


@dataclass(frozen=True, eq=False)
class _Line:
    """FNIR by gallery size, at one FPIR."""

    of: str  # the gallery, if a result has several
    fpir: float
    sizes: Rows  # [S]
    thresholds: list[float | None]  # [S]; None where each trial has its own
    figures: list[Number]
    resampling: Resampling


def fnir_blocks(results: Mapping[str, Result], draws: int, runs: Runs = NO_RUNS) -> tuple[list[Table], list[Chart]]:
    """FNIR by gallery size and FPIR: one table, and a chart for each gallery; or the FNIR at one size, where known."""
    rows: list[list[str]] = []
    notes: list[str] = []
    drawn: dict[str, list[tuple[str, _Line]]] = {}  # by gallery, with the names of the lines
    for name, result in results.items():
        prefix = f"{name}, " if len(results) > 1 else ""
        lines = _lines(result, draws if len(results) <= MOST_BANDS else 0)
        notes += _notes(result, lines)
        if not lines:
            rows += _rows_of_numbers(prefix, result)
        for line in lines:
            label = f"{prefix}FPIR {rate_label(line.fpir)}"
            drawn.setdefault(line.of, []).append((label, line))
            runs = {**runs, label: runs.get(name, name)}
            gallery = f"{line.of}, " if line.of else ""
            for size, threshold, number in zip(line.sizes.tolist(), line.thresholds, line.figures, strict=True):
                what = f"{prefix}{gallery}{size:,}, {rate_label(line.fpir)}"
                cells = [NONE if threshold is None else shown(threshold), shown(number.value)]
                rows.append([what, *cells, f"± {shown(number.spread, 2)}" if number.spread else span(number) or NONE])
    title, folded = "FNIR by gallery size N and FPIR", len(rows) > MOST_ROWS
    tables = [Table(title, HEAD, rows, list(dict.fromkeys(notes)), folded=folded)] if rows else []
    return tables, [_chart(gallery, lines, runs) for gallery, lines in drawn.items()]


def _lines(result: Result, draws: int) -> list[_Line]:
    """Of each gallery and FPIR; none of a result that does not hold its searches at several sizes."""
    if result.protocol == open_set.PROTOCOL:
        return _lines_of_trials(result)
    lines = []
    for searched in SIZED[result.protocol](result.samples) if result.protocol in SIZED else []:
        used = limited(Resampling.of(result), searched.ranks.size + searched.best.size, draws)
        statistic, units = searched.statistic()
        found = {number.name: number for number in numbers(statistic, units, used.draws, used.seed)}
        for fpir in searched.fpirs:
            thresholds: list[float | None] = [
                searched.point(place, fpir).threshold for place in range(len(searched.sizes))
            ]
            figures = [found[fnir_name(fpir, size)] for size in searched.sizes.tolist()]
            lines.append(_Line(searched.of, fpir, searched.sizes, thresholds, figures, used))
    return lines


def _lines_of_trials(result: Result) -> list[_Line]:
    """The mean FNIR over trials, ± their deviation, which is no interval: the trials draw from the same people."""
    if "size_misses" not in result.samples:
        return []
    sizes, misses = result.samples["sizes"], result.samples["size_misses"]  # [S], [T, S, F]
    means, deviations = misses.mean(axis=0), misses.std(axis=0, ddof=1)
    none, fars = Resampling("trials", 0, 0), result.samples["size_fars"].tolist()
    lines = []
    for place, far in enumerate(fars):
        pairs = zip(means[:, place].tolist(), deviations[:, place].tolist(), strict=True)
        figures = [Number("FNIR", mean, spread=deviation) for mean, deviation in pairs]
        lines.append(_Line("", far, sizes, [None] * len(sizes), figures, none))
    return lines


def _chart(gallery: str, lines: list[tuple[str, _Line]], runs: Runs) -> Chart:
    curves = [(label, line.sizes, np.array([number.value for number in line.figures])) for label, line in lines]
    bands = {}
    for label, line in lines if len(lines) <= MOST_BANDS else []:
        if band := band_of(line.sizes, line.figures, line.resampling):
            bands[label] = band
    title = CURVES["fnir"].title + (f", {gallery}" if gallery else "")
    return error_curves("fnir", curves, title, {}, runs, bands)


def _notes(result: Result, lines: list[_Line]) -> list[str]:
    """How the galleries were made, what counts as a miss, and which rates are not shown."""
    if not lines:
        starts = dict.fromkeys(start for number in result.numbers for start in FOUND if number.name.startswith(start))
        return [f"FNIR is 1 − {start.partition('@')[0]}." for start in starts]
    missing = [rate_label(fpir) for fpir in STANDARD_FPIRS if fpir not in [line.fpir for line in lines]]
    return [
        "FNIR is the share of the searches with mate whose person is not found within the rank with a score of at "
        "least the threshold. FPIR is the share of the searches without mate in which anybody has such a score. The "
        "threshold is the lowest whose FPIR does not exceed the one named, for each N, and in each resample or trial.",
        f"Galleries of N: {result.choices.get('smaller galleries', 'a part of the whole')}. Rank: {_rank(result)}.",
        *(["± is the deviation over the trials."] if lines[0].figures[0].spread is not None else []),
        *([f"Not shown, for it needs more searches without mate: FPIR {', '.join(missing)}."] if missing else []),
    ]


def _rank(result: Result) -> str:
    """Within which rank the person must be found."""
    named = next((name.rpartition("rank ")[2] for name in (n.name for n in result.numbers) if "DIR@" in name), "1")
    return str(result.choices.get("TPIR within rank", named.partition(",")[0]))


def _rows_of_numbers(prefix: str, result: Result) -> list[list[str]]:
    """Rows of a result that has one gallery size only."""
    rows = []
    for number in result.numbers:
        start = next((start for start in FOUND if number.name.startswith(start)), None)
        if start is None or "deviation" in number.name:
            continue
        missed, fpir = complement(number, "FNIR"), number.name.removeprefix(start)
        threshold = NONE if number.threshold is None else shown(number.threshold)
        rows.append([f"{prefix}{_size(result)}, {fpir}", threshold, shown(missed.value), span(missed) or NONE])
    return rows


def _size(result: Result) -> str:
    images = result.samples.get("gallery images")  # of each trial
    if images is not None:
        return f"{int(images.min()):,}" if images.min() == images.max() else f"{images.min():,} to {images.max():,}"
    count = count_of(result, ("gallery images", "subjects of G1"))
    return "all" if count is None else f"{count:,}"
