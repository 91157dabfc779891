"""Result: the numbers of a protocol, each with its interval, and every choice behind them."""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks, environment, files
from angulus.core.checks import InputError
from angulus.core.formats.columns import shortened
from angulus.core.wording import counted
from angulus.evaluation.metrics.intervals import Interval
from angulus.evaluation.protocols.group_rates import ByGroup, tables

if TYPE_CHECKING:
    from rich.console import Group

FORMAT = 2  # of the JSON file, whose schema is in `score_sheet`
SAMPLES = ".samples.npz"  # in place of .json; another name than embeddings have, which may lie in the same folder
KINDS = ("roc", "det", "cmc", "froc", "discard")
WARNING = "warning: "  # how a note begins that is shown first and in red
MOST_POINTS = 2000  # of a saved curve; more cannot be seen

_RATE = re.compile(r"@[^=]*=([0-9.]+(?:e[+-]?[0-9]+)?)")


@dataclass(frozen=True)
class Number:
    """One figure of a protocol, as it was computed: a share in [0, 1] unless its name says otherwise.

    Args:
        name: such as "accuracy" or "TAR@FAR=1e-3".
        value: NaN where it is undefined, which the result's notes then explain.
        interval: a percentile interval, or None if there is none; never with NaN ends or without width.
        threshold: pairs with this score or more are accepted; None for figures without a threshold.
        spread: a standard error or deviation, if the protocol asks for one.
        no_interval: why an interval that was asked for is None.
    """

    name: str
    value: float
    interval: Interval | None = None
    threshold: float | None = None
    spread: float | None = None
    no_interval: str = ""


@dataclass(frozen=True)
class Curve:
    """Points of one curve; `kind` names the axes: ROC (FMR, TAR), DET (FMR, FNMR), CMC (rank, share), FROC, discard."""

    kind: str
    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]

    def __post_init__(self) -> None:
        checks.choice("kind", self.kind, KINDS)
        if self.x.ndim != 1 or self.x.shape != self.y.shape or not len(self.x):
            raise InputError(f"a curve has x and y of one shape [K]; got {list(self.x.shape)} and {list(self.y.shape)}")

    def thinned(self, at: Sequence[float] = ()) -> Curve:
        """About `MOST_POINTS` of the points, both ends among them, evenly by place (by log of it on a log axis).

        The last point at or below each x of `at` is among them: what is read there is what the whole curve gives.
        """
        if len(self.x) <= MOST_POINTS:
            return self
        even = np.linspace(0, len(self.x) - 1, MOST_POINTS // 2)
        early = np.geomspace(1, len(self.x), MOST_POINTS // 2) - 1  # the low-error end, where log axes look
        read = np.searchsorted(self.x, at, side="right") - 1
        chosen = np.unique(np.concatenate([even, early, read[read >= 0]]).round().astype(int))
        return Curve(self.kind, self.name, self.x[chosen], self.y[chosen])


@dataclass(frozen=True)
class Result:
    """The outcome of a protocol.

    Args:
        protocol: what was measured; commands that measure the same by other lists share one.
        numbers: the figures.
        choices: every choice that was made (flip, normalise, PCA, pooling, seed, ...), as plain values.
        counts: how much there was of everything (pairs, identities, folds, rows left out, ...).
        curves: what can be drawn.
        notes: what a reader must know: what was left out and why, which figures are undefined.
        samples: arrays from which the figures can be computed again (scores, identities, ...), so that two results can
            be compared on the same resamples; saved next to the JSON as `.samples.npz`.
        about: versions, device and command.
        by_group: error rates of groups of people at the common thresholds; empty where no groups are known.
    """

    protocol: str
    numbers: tuple[Number, ...]
    choices: Mapping[str, Any]
    counts: Mapping[str, int]
    curves: tuple[Curve, ...] = ()
    notes: tuple[str, ...] = ()
    samples: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=lambda: environment.describe(torch.device("cpu")))
    by_group: tuple[ByGroup, ...] = ()

    def __getitem__(self, name: str) -> float:
        """The value of a number by its name."""
        return self.number(name).value

    def number(self, name: str) -> Number:
        """A number by its name."""
        for number in self.numbers:
            if number.name == name:
                return number
        names = [number.name for number in self.numbers]
        raise InputError(f"{self.protocol} has no number {name!r}{checks.nearest(name, names)}; it has {names}")

    @property
    def rates(self) -> list[float]:
        """The rates at which figures are taken, such as the 1e-3 of TAR@FAR=1e-3."""
        return [float(found[1]) for number in self.numbers if (found := _RATE.search(number.name))]

    def table(self, digits: int = 4) -> Group:
        """For the terminal: warnings, numbers to `digits` significant digits, counts, choices and notes."""
        checks.integer("digits", digits, low=1, high=17)
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self.protocol)
        table.add_column("number", no_wrap=True)
        optional = {
            "interval": any(number.interval for number in self.numbers),
            "threshold": any(number.threshold is not None for number in self.numbers),
            "spread": any(number.spread is not None for number in self.numbers),
        }
        level = next((number.interval.level for number in self.numbers if number.interval), 0.95)
        heads = {"interval": f"{100 * level:g} % interval", "threshold": "threshold", "spread": "±"}
        for head in ("value", *(heads[name] for name, shown in optional.items() if shown)):
            table.add_column(head, justify="right", no_wrap=True)
        for number in self.overall():
            cells = {
                "interval": span(number, digits, "[{}, {}]"),
                "threshold": "" if number.threshold is None else shown(number.threshold, digits),
                "spread": "" if number.spread is None else shown(number.spread, digits),
            }
            row = [number.name, shown(number.value, digits), *(cells[n] for n, shown in optional.items() if shown)]
            table.add_row(*map(Text, row))  # as Text, for rich takes a name in brackets for markup
        classes = []
        if by_class := self.by_class():
            classes = [Table(title="by class, the worst first")]
            classes[0].add_column("class", no_wrap=True)
            for figure in next(iter(by_class.values())):
                classes[0].add_column(figure, justify="right", no_wrap=True)
            for name, values in by_class.items():
                classes[0].add_row(Text(name), *(Text(shown(value, digits)) for value in values.values()))
        counts = ", ".join(counted(count, name) for name, count in self.counts.items())
        choices = (f"{name}: {_plain(value)}" for name, value in self.choices.items())
        warnings = [Text(note, style="bold red") for note in self.notes if note.startswith(WARNING)]
        notes = (note for note in self.notes if not note.startswith(WARNING))
        return Group(*warnings, table, *classes, *tables(self.by_group, digits), *map(Text, (counts, *choices, *notes)))

    def by_class(self) -> dict[str, dict[str, float]]:
        """By class its value of each figure, the worst class first; empty unless the numbers hold them."""
        figures, classes = (self.samples.get(name, np.empty(0, str)).tolist() for name in ("figures", "classes"))
        if len(self.numbers) <= len(figures) or not classes:
            return {}
        values = {number.name: number.value for number in self.numbers}
        table = {
            str(name): {figure: values[f"{figure}, {name}"] for figure in figures if f"{figure}, {name}" in values}
            for name in classes
        }
        return dict(sorted(((name, row) for name, row in table.items() if row), key=lambda item: [*item[1].values()]))

    def overall(self) -> tuple[Number, ...]:
        """The numbers that are not of one class."""
        single = {f"{figure}, {name}" for name, row in self.by_class().items() for figure in row}
        return tuple(number for number in self.numbers if number.name not in single)

    def save(self, path: Path) -> None:
        """Write the result as JSON, with thinned curves, and its samples next to it, each atomically.

        Numbers keep all their digits; an undefined one is null, an infinite one the text "Infinity". The JSON names the
        samples with their SHA-256, so that `read` refuses samples that a later run has put there and could not finish.
        """
        if path.suffix != ".json":
            raise InputError(f"a result is saved as .json; got {path}")
        sidecar = None
        if self.samples:
            arrays = {name: shortened(np.asarray(values)) for name, values in self.samples.items()}
            place = path.with_suffix(SAMPLES)
            files.write_atomically(place, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
            sidecar = {"file": place.name, "sha256": files.digest(place)}
        content = {
            "format": FORMAT,
            "protocol": self.protocol,
            "numbers": [asdict(number) for number in self.numbers],
            "choices": dict(self.choices),
            "counts": dict(self.counts),
            "notes": list(self.notes),
            "curves": [
                {"kind": curve.kind, "name": curve.name, "x": curve.x.tolist(), "y": curve.y.tolist()}
                for curve in (curve.thinned(self.rates) for curve in self.curves)
            ],
            "samples": sidecar,
            "environment": dict(self.about),
            "by_group": [asdict(point) for point in self.by_group],
        }
        files.write_json(path, null_for_nan(content))

    @staticmethod
    def read(path: Path) -> Result:
        """A saved result with its samples, or what is wrong with the files; `score_sheet` has the schema."""
        from angulus.evaluation.protocols import score_sheet  # pydantic takes a moment to import

        sheet = score_sheet.read(path)
        samples = sheet.samples and _samples(path.with_name(sheet.samples.file), sheet.samples.sha256)
        return score_sheet.to_result(sheet, samples or {})


def _samples(path: Path, sha256: str) -> dict[str, NDArray[Any]]:
    try:
        whole = files.digest(path) == sha256
        if whole:
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"the samples {path} cannot be read ({error}); keep them next to the .json") from error
    raise InputError(f"the result's samples {path} must be those saved with it; they have changed; evaluate again")


def read_interval(saved: Mapping[str, Any]) -> Interval:
    """An interval from JSON."""
    low, high, level = (float(saved[name]) for name in ("low", "high", "level"))
    if low > high or math.inf in (high, -low) or not 0 < level < 1:
        raise ValueError(f"an interval must go from low to high at a level in (0, 1); got {low} to {high} at {level}")
    return Interval(low, high, level)


def nan_for_null(value: float | str | None) -> float:
    """A number from JSON, where null stands for an undefined one, and the text "Infinity" for an infinite one."""
    return math.nan if value is None else float(value)


def null_for_nan(value: Any) -> Any:
    """The value with null for NaN, and the texts "Infinity" and "-Infinity" for the infinities that JSON lacks.

    >>> null_for_nan([math.nan, -math.inf, 1.5])
    [None, '-Infinity', 1.5]
    """
    if isinstance(value, Mapping):
        return {name: null_for_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [null_for_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def shown(value: float, digits: int = 4) -> str:
    """To `digits` significant digits, with trailing zeros; small magnitudes as powers of ten.

    >>> shown(0.5), shown(28), shown(math.nan), shown(math.inf)
    ('0.5000', '28.00', 'undefined', 'infinite')
    """
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    return "undefined" if math.isnan(value) else f"{value:#.{digits}g}".rstrip(".")


def span(number: Number, digits: int = 4, form: str = "{} to {}") -> str:
    """Both ends of a figure's interval, with more digits if needed to distinguish them; "none" if a note says why.

    >>> span(Number("TAR", 0.99997, Interval(0.99996, 0.99998)))
    '0.99996 to 0.99998'
    >>> span(Number("TAR", 1.0, no_interval="all resamples agree"))
    'none'
    """
    if number.interval is None:
        return "none" if number.no_interval else ""
    low, high = number.interval.low, number.interval.high
    while digits < 17 and shown(low, digits) == shown(high, digits):
        digits += 1
    return form.format(shown(low, digits), shown(high, digits))


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | dict | bool) else str(value)
