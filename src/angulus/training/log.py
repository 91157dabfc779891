"""The metrics that a run writes during training: JSON lines, and the loggers that pass them on."""

import contextlib
import json
import math
import sys
from pathlib import Path
from typing import Any, TextIO

from angulus.core import checks, files, limits
from angulus.training.job import Job
from angulus.training.loggers import About, Forward

METRICS = "metrics.jsonl"


class MetricsLog:
    """Rows of numbers by step, in `metrics.jsonl` and the job's loggers; a resume drops rows past its step.

    Every rank calls it; rank 0's writes, and its errors are raised on all.
    """

    def __init__(self, folder: Path, resume_step: int, job: Job) -> None:
        self.path, self.ranks = folder / METRICS, job.ranks
        self.file: TextIO | None = None
        self.forward: Forward | None = None
        self.ranks.run_on_first(lambda: self._open(resume_step, job))

    def _open(self, resume_step: int, job: Job) -> None:
        earlier = [line for line in read_lines(self.path) if line["step"] <= resume_step]
        files.write_text(self.path, "".join(json.dumps(line) + "\n" for line in earlier))
        self.file = self.path.open("a", encoding="utf-8")
        about = About(self.path.parent, job.name, job.about, resume_step)
        self.forward = Forward(job.settings.loggers, about)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write the finite values; the mean norm of no samples, for example, is left out."""
        self.ranks.run_on_all(lambda: self._write(step, values))

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self.file is None or self.forward is None:
            return
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        try:
            self.file.write(json.dumps({"step": step, **values}) + "\n")
            self.file.flush()
        except OSError as error:
            raise checks.InputError(files.sentence(error, self.path)) from error
        self.forward.write(step, values)

    def note(self, step: int, what: str, text: str) -> None:
        """Pass a sentence on to the loggers."""
        if self.forward is not None:
            self.forward.note(step, what, text)

    def close(self) -> None:
        """Close the file and the loggers; `write` has already reported what could not be written."""
        for output in (self.file, self.forward):
            if output is not None:
                with contextlib.suppress(OSError):
                    output.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file, up to the first line that a crash cut short or damaged."""
    return _read(path)[0]


def find_damage(path: Path) -> str:
    """What is wrong with a metrics file, with the number of the line; "" if it is whole."""
    return _read(path)[1]


def _read(path: Path) -> tuple[list[dict[str, Any]], str]:
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows, ""
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            row = limits.parse_json(line, f"line {number}")
        except checks.InputError as error:
            return rows, str(error)
        if not isinstance(row, dict) or not _is_step(row.get("step")):
            return rows, f"line {number} must be a mapping with a step, a whole number; got {checks.shown(row)}"
        odd = next((name for name, value in row.items() if not _is_number(value)), None)
        if odd is not None:
            got = checks.shown(row[odd])
            return rows, f"line {number} must hold finite numbers; got {got} for {checks.shown(odd)}"
        rows.append(row)
    return rows, ""


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
