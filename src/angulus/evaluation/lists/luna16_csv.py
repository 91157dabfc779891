"""LUNA16: nodules, excluded findings, the scans, and a detector's marks."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from angulus.core.checks import InputError
from angulus.core.formats.columns import text_array
from angulus.evaluation.lists.detection_csv import Lesions, Marks, Positions
from angulus.evaluation.lists.text import malformed, read_lines

_PLACE = ("seriesuid", "coordX", "coordY", "coordZ")


def read_findings(path: str | os.PathLike[str]) -> Lesions:
    """Read `annotations.csv`: seriesuid, coordX, coordY, coordZ, diameter_mm, each nodule measured.

    Raises:
        InputError: names file and line: another heading, a column too few or many, no finite number, a diameter <= 0.

    Source: A. A. A. Setio et al., "Validation, comparison, and combination of algorithms for automatic detection of
    pulmonary nodules in computed tomography images: the LUNA16 challenge", Medical Image Analysis 42, 2017.
    """
    scans, numbers = _table(path, (*_PLACE, "diameter_mm"))
    _refuse(path, numbers[:, 3] <= 0, "a finding with a diameter > 0", numbers[:, 3])
    return Lesions(scans, numbers[:, :3].copy(), numbers[:, 3].copy(), np.zeros(len(scans), dtype=bool))


def read_excluded(path: str | os.PathLike[str]) -> Lesions:
    """Read `annotations_excluded.csv`, where a diameter of -1 means not measured; it becomes NaN.

    Raises:
        InputError: as `read_findings`; a diameter that is neither -1 nor > 0.
    """
    scans, numbers = _table(path, (*_PLACE, "diameter_mm"))
    unmeasured = numbers[:, 3] == -1
    _refuse(path, (numbers[:, 3] <= 0) & ~unmeasured, "a finding with a diameter > 0, or -1", numbers[:, 3])
    diameters = np.where(unmeasured, np.nan, numbers[:, 3])
    return Lesions(scans, numbers[:, :3].copy(), diameters, np.ones(len(scans), dtype=bool))


def read_marks(path: str | os.PathLike[str]) -> Marks:
    """Read a detector's marks: seriesuid, coordX, coordY, coordZ, probability; any finite score is a probability.

    Raises:
        InputError: names file and line: another heading, a column too few or many, no finite number.
    """
    scans, numbers = _table(path, (*_PLACE, "probability"))
    return Marks(scans, numbers[:, :3].copy(), numbers[:, 3].copy())


@dataclass(frozen=True, eq=False)
class Candidates(Positions):
    """Positions to classify: labels [N] int64, 1 for a nodule."""

    labels: NDArray[np.int64]


def read_candidates(path: str | os.PathLike[str]) -> Candidates:
    """Read `candidates_V2.csv`: seriesuid, coordX, coordY, coordZ, class, which is 0 or 1.

    Raises:
        InputError: names file and line: another heading, a column too few or many, no finite number, another class.
    """
    scans, numbers = _table(path, (*_PLACE, "class"))
    _refuse(path, ~np.isin(numbers[:, 3], (0, 1)), "a candidate of class 0 or 1", numbers[:, 3])
    return Candidates(scans, numbers[:, :3].copy(), numbers[:, 3].astype(np.int64))


def read_positions(path: str | os.PathLike[str]) -> Positions:
    """Read positions to classify: seriesuid, coordX, coordY, coordZ, and a class or probability, which does not count.

    Raises:
        InputError: names file and line: another heading, a column too few or many, no finite number.
    """
    heading = tuple(cell.strip() for cell in read_lines(path)[0].split(","))
    more = heading[len(_PLACE) :]
    scans, numbers = _table(path, (*_PLACE, *more) if more in (("class",), ("probability",)) else _PLACE)
    return Positions(scans, numbers[:, :3].copy())


def read_scans(path: str | os.PathLike[str]) -> NDArray[np.str_]:
    """Read `seriesuids.csv`: one scan per line; a heading `seriesuid`, which the published list lacks, is skipped.

    Raises:
        InputError: names file and line: an empty line, a comma, a scan twice, a heading alone.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        scan = line.strip()
        if number == 1 and scan == "seriesuid":
            continue
        if not scan or "," in scan or scan in seen:
            raise malformed(path, number, "one scan that is not listed before", line)
        seen[scan] = number
    if not seen:
        raise InputError(f"{os.fspath(path)} must hold lines after its heading; got none")
    return text_array(list(seen))


def _table(path: str | os.PathLike[str], heading: Sequence[str]) -> tuple[NDArray[np.str_], NDArray[np.float64]]:
    """The scans [N] and the numbers of each line, one per column after the scan's."""
    lines = read_lines(path)
    if tuple(cell.strip() for cell in lines[0].split(",")) != tuple(heading):
        raise malformed(path, 1, f"the heading {','.join(heading)}", lines[0])
    scans, numbers = [], []
    for number, line in enumerate(lines[1:], 2):
        scan, *cells = line.split(",")
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            values = []
        if len(values) != len(heading) - 1 or not scan or not all(map(math.isfinite, values)):
            count = {3: "three", 4: "four"}[len(heading) - 1]
            raise malformed(path, number, f"{','.join(heading)}: a scan and {count} finite numbers", line)
        scans.append(scan)
        numbers.append(values)
    if not scans:
        raise InputError(f"{os.fspath(path)} must hold lines after its heading; got none")
    return text_array(scans), np.array(numbers)


def _refuse(path: str | os.PathLike[str], bad: NDArray[np.bool_], rule: str, values: NDArray[np.float64]) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise malformed(path, row + 2, rule, float(values[row]))
