"""Result: the numbers of a protocol, each with its interval, and every choice behind them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table

from angulus import checks, environment, files
from angulus.metrics.intervals import Interval

FORMAT = 1  # of the JSON file
KINDS = ("roc", "det", "cmc", "froc", "discard")
MOST_POINTS = 2000  # of a saved curve; more cannot be seen


@dataclass(frozen=True)
class Number:
    """One figure of a protocol, as it was computed: a share in [0, 1] unless its name says otherwise.

    Args:
        name: such as "accuracy" or "TAR@FAR=1e-3".
        value: NaN where it is undefined, which the result's notes then explain.
        interval: a percentile interval, or None where none is defined.
        threshold: the score from which on a pair is accepted, where the figure has one.
        spread: a standard error or deviation that the protocol asks for, where it does.
    """

    name: str
    value: float
    interval: Interval | None = None
    threshold: float | None = None
    spread: float | None = None


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
            raise checks.InputError(
                f"a curve has x and y of one shape [K]; got {list(self.x.shape)} and {list(self.y.shape)}"
            )

    def thinned(self) -> Curve:
        """At most `MOST_POINTS` of the points, both ends among them, evenly by place (by log of it on a log axis)."""
        if len(self.x) <= MOST_POINTS:
            return self
        even = np.linspace(0, len(self.x) - 1, MOST_POINTS // 2)
        early = np.geomspace(1, len(self.x), MOST_POINTS // 2) - 1  # the low-error end, where log axes look
        chosen = np.unique(np.concatenate([even, early]).round().astype(int))
        return Curve(self.kind, self.name, self.x[chosen], self.y[chosen])


@dataclass(frozen=True)
class Result:
    """What a protocol gives.

    Args:
        protocol: its name, as `angulus evaluate --list` prints it.
        numbers: the figures.
        choices: every choice that was made (flip, normalise, PCA, pooling, seed, ...), as plain values.
        counts: how much there was of everything (pairs, identities, folds, rows left out, ...).
        curves: what can be drawn.
        notes: what a reader must know: what was left out and why, which figures are undefined.
        samples: arrays from which the figures can be computed again (scores, identities, ...), so that two results can
            be compared on the same resamples; saved beside the JSON as `.npz`.
        about: versions, device and command.
    """

    protocol: str
    numbers: tuple[Number, ...]
    choices: Mapping[str, Any]
    counts: Mapping[str, int]
    curves: tuple[Curve, ...] = ()
    notes: tuple[str, ...] = ()
    samples: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=lambda: environment.describe(torch.device("cpu")))

    def __getitem__(self, name: str) -> float:
        """The value of a number by its name."""
        return self.number(name).value

    def number(self, name: str) -> Number:
        """A number by its name."""
        for number in self.numbers:
            if number.name == name:
                return number
        names = [number.name for number in self.numbers]
        raise checks.InputError(f"{self.protocol} has no number {name!r}{checks.nearest(name, names)}; it has {names}")

    def table(self, digits: int = 4) -> Group:
        """For the terminal: the numbers to so many significant digits, then counts, choices and notes."""
        checks.integer("digits", digits, low=1, high=17)
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
        for number in self.numbers:
            cells = {
                "interval": _interval(number.interval, digits),
                "threshold": _digits(number.threshold, digits),
                "spread": _digits(number.spread, digits),
            }
            table.add_row(
                number.name, _digits(number.value, digits), *(cells[n] for n, shown in optional.items() if shown)
            )
        counts = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        choices = ", ".join(f"{name}: {_plain(value)}" for name, value in self.choices.items())
        return Group(table, counts, choices, *self.notes)

    def save(self, path: Path) -> None:
        """Write the result as JSON, with the curves thinned, and its samples beside it as `.npz`, each atomically.

        Numbers keep all their digits; an undefined one is null.
        """
        if path.suffix != ".json":
            raise checks.InputError(f"a result is saved as .json; got {path}")
        content = {
            "format": FORMAT,
            "protocol": self.protocol,
            "numbers": [asdict(number) for number in self.numbers],
            "choices": dict(self.choices),
            "counts": dict(self.counts),
            "notes": list(self.notes),
            "curves": [
                {"kind": curve.kind, "name": curve.name, "x": curve.x.tolist(), "y": curve.y.tolist()}
                for curve in (curve.thinned() for curve in self.curves)
            ],
            "samples": path.with_suffix(".npz").name if self.samples else None,
            "environment": dict(self.about),
        }
        if self.samples:
            arrays = {name: np.asarray(values) for name, values in self.samples.items()}
            files.write_atomically(path.with_suffix(".npz"), lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
        files.write_json(path, null_for_nan(content))

    @staticmethod
    def read(path: Path) -> Result:
        """A saved result, or what is wrong with the file."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            numbers = tuple(_number(number) for number in content["numbers"])
            curves = tuple(
                Curve(curve["kind"], curve["name"], np.array(curve["x"], float), np.array(curve["y"], float))
                for curve in content["curves"]
            )
            beside = content["samples"]
            fields = {name: content[name] for name in ("protocol", "choices", "counts")}
            notes, about = tuple(content["notes"]), content["environment"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise checks.InputError(
                f"{path} is not a saved result ({error}); give the .json that angulus evaluate --json wrote"
            ) from error
        samples = {} if beside is None else _samples(path.with_name(Path(beside).name))
        return Result(**fields, numbers=numbers, curves=curves, notes=notes, samples=samples, about=about)


def _samples(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise checks.InputError(
            f"the result's samples {path} cannot be read ({error}); keep it beside the .json"
        ) from error


def _number(saved: dict[str, Any]) -> Number:
    interval = read_interval(saved["interval"])
    return Number(saved["name"], nan_for_null(saved["value"]), interval, saved["threshold"], saved["spread"])


def read_interval(saved: Mapping[str, Any] | None) -> Interval | None:
    """An interval from JSON."""
    if saved is None:
        return None
    return Interval(nan_for_null(saved["low"]), nan_for_null(saved["high"]), saved["level"])


def nan_for_null(value: float | None) -> float:
    """A number from JSON, where null stands for an undefined one."""
    return math.nan if value is None else float(value)


def null_for_nan(value: Any) -> Any:
    """The value with null for what JSON cannot say."""
    if isinstance(value, Mapping):
        return {name: null_for_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [null_for_nan(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _digits(value: float | None, digits: int) -> str:
    """To so many significant digits, trailing zeros kept; small magnitudes as powers of ten."""
    if value is None:
        return ""
    if math.isnan(value):
        return "undefined"
    return f"{value:#.{digits}g}".rstrip(".")


def _interval(interval: Interval | None, digits: int) -> str:
    if interval is None:
        return ""
    return f"[{_digits(interval.low, digits)}, {_digits(interval.high, digits)}]"


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | dict | bool) else str(value)
