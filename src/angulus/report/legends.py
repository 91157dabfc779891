"""The legends of a page: one of its runs and variants, which switches all charts, and one per group of charts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from angulus.report.chart import CLASS, DASHES, RUN, Chart, Series, line_style, summarize

DASH_WORDS = {"solid": "solid", "dash": "dashed", "dot": "dotted"}
Looks = Mapping[str, int]  # the number of each run's group, which decides its colour and dash


@dataclass(frozen=True)
class Entry:
    """One entry of a legend."""

    group: str
    name: str
    colour: str
    shape: str  # the class of its swatch


def assign(charts: Sequence[Chart]) -> Looks:
    """Number the runs of all charts, in the order in which they come; a run's results share its number."""
    ordered = sorted(charts, key=lambda chart: chart.y.names)  # charts with names along y are sorted by their numbers
    groups = [group for chart in ordered for group in (chart.group, *(series.group for series in chart.series))]
    looks: dict[str, int] = {}
    for group in dict.fromkeys(groups):
        if group.startswith(RUN):
            looks[group] = len(looks)
    return looks


def dress(charts: Sequence[Chart], looks: Looks) -> list[Chart]:
    """The charts of one block with the colour of each run, so that each of their lines can be told from the others.

    On a page of one run, its lines on one chart differ by their colours, and the block's legend names them. Otherwise
    they differ by their dashes, which the chart's note names.
    """
    if len(looks) != 1:
        return [_name_dashes(apply(chart, looks), looks) for chart in charts]
    names = [dict.fromkeys(name for name, _ in _lines(chart, looks)) for chart in charts]
    several = [name for found in names if len(found) > 1 for name in found]
    styles = {name: line_style(number) for number, name in enumerate(dict.fromkeys(several))}

    def recolour(one: Series) -> Series:
        return replace(one, group=one.name, **styles[one.name]) if one.group in looks else one

    return [
        replace(chart, series=list(map(recolour, chart.series))) if len(found) > 1 else apply(chart, looks)
        for chart, found in zip(charts, names, strict=True)
    ]


def _lines(chart: Chart, looks: Looks) -> list[tuple[str, Series]]:
    """The lines of runs, by their names."""
    return [
        (one.name, one)
        for one in chart.series
        if one.group in looks and one.in_legend and one.kind in ("line", "steps")
    ]


def _name_dashes(chart: Chart, looks: Looks) -> Chart:
    """The chart, whose note says what the dashes mean if a run has several lines."""
    lines = _lines(chart, looks)
    groups = [one.group for _, one in lines]
    said = [f"{name} is {DASH_WORDS[one.dash]}" for name, one in lines if groups.count(one.group) > 1]
    return replace(chart, note=f"{chart.note} {summarize(said)}".strip()) if said else chart


def apply(chart: Chart, looks: Looks) -> Chart:
    """The chart with the colour of each run; several lines of one run differ by their dashes."""
    names: dict[str, list[str]] = {}  # of the series of each run
    series = []
    for one in chart.series:
        if one.group not in looks:
            series.append(one)
            continue
        lines = names.setdefault(one.group, [])
        if one.name not in lines:
            lines.append(one.name)
        style = line_style(looks[one.group])
        if one.kind in ("line", "steps"):
            dash = DASHES[(DASHES.index(style["dash"]) + lines.index(one.name)) % len(DASHES)]
            series.append(replace(one, colour=style["colour"], dash=dash))
        else:
            series.append(replace(one, colour=style["colour"]))
    return replace(chart, series=series)


def page_entries(looks: Looks) -> list[Entry]:
    """The legend of runs; none for a single one."""
    if len(looks) < 2:
        return []
    styles = [(group, line_style(number)) for group, number in looks.items()]
    return [Entry(group, group.removeprefix(RUN), style["colour"], style["dash"]) for group, style in styles]


def block_entries(charts: Sequence[Chart]) -> list[Entry]:
    """The legend of what the charts show besides runs, such as classes; none for a single entry."""
    entries: dict[str, Entry] = {}
    for chart in charts:
        for series in chart.series:
            group = series.group or series.name
            if series.in_legend and not series.group.startswith(RUN):
                shape = series.symbol or ("hatched" if series.hatched else "solid")
                entries.setdefault(group, Entry(group, group.removeprefix(CLASS), series.colour, shape))
    return list(entries.values()) if len(entries) > 1 else []
