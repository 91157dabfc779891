"""Marks of lung nodules: a classifier of patches at given positions of CT scans, written as LUNA16 evaluates them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks, extras, files
from angulus.data.sets.luna16_prepare import cut_patches
from angulus.data.volumes import find_volumes, list_series
from angulus.evaluation.lists.luna16_csv import read_positions
from angulus.models.artifact import Model
from angulus.models.model_card import list_classes

HEADING = ("seriesuid", "coordX", "coordY", "coordZ", "probability")


def mark_candidates(
    model: Model,
    scans: Path,
    candidates: Path,
    out: Path,
    *,
    mark: str = "nodule",
    batch: int = 256,
    on_scan: Callable[[str, int, int], None] = lambda scan, number, count: None,
) -> tuple[int, int]:
    """Write the probability of a class at each position of a list, in its order, as `read_marks` reads it.

    Patches are cut as `luna16_prepare.prepare` does for training, at its default spacing, in the model's size.

    Args:
        model: of volumes of one channel, with class weights.
        scans: a folder with the scans as NAME.mhd, .mha, .nii or .nii.gz, or with subset0/ to subset9/ that hold them;
            or with DICOM series, in folders NAME/ or named by their SeriesInstanceUIDs.
        candidates: .csv: seriesuid, coordX, coordY, coordZ; a fifth column, class or probability, does not count.
        out: the .csv file.
        mark: the class whose probability is written.
        batch: patches at a time.
        on_scan: called with each scan, its number from 1, and the number of scans.

    Returns:
        The number of marks, and of scans.

    Raises:
        checks.InputError: a model without class weights, of flat images or without that class; a missing scan, a
            position outside its scan; nothing is written then.
    """
    checks.integer("batch", batch, low=1)
    names = model.need_classes().names
    if mark not in names:
        raise checks.InputError(
            f"--class must be a class of this model ({list_classes(names)}); got {checks.shown(mark)}"
            f"{checks.nearest(mark, names)}"
        )
    if len(model.config.image_size) != 3 or model.config.in_channels != 1:
        raise checks.InputError(
            f"marks in CT scans need a model of volumes [1, depth, height, width]; this one takes "
            f"{[model.config.in_channels, *model.config.image_size]}; classify images without --candidates"
        )
    extras.require("nodules", "reading CT volumes", "SimpleITK")
    positions = read_positions(candidates)
    paths = _find_scans(scans, sorted(set(positions.cases.tolist())), candidates)
    probabilities = np.empty(len(positions), dtype=np.float64)
    depth, height, width = model.config.image_size
    for number, (scan, path) in enumerate(paths.items(), 1):
        on_scan(scan, number, len(paths))
        rows = np.flatnonzero(positions.cases == scan)
        centres = positions.centres[rows]
        patches = cut_patches(path, centres, (depth, height, width), candidates=str(candidates), series=scan)
        probabilities[rows] = _probabilities(model, patches, names.index(mark), batch)
    files.make_folder(out.parent)
    files.write_text(out, _table(positions.cases.tolist(), positions.centres, probabilities))
    return len(positions), len(paths)


def _probabilities(model: Model, patches: NDArray[np.uint8], label: int, batch: int) -> NDArray[np.float64]:
    parts = [
        model.predict(part[:, None]).probabilities[:, label] for part in torch.split(torch.from_numpy(patches), batch)
    ]
    return torch.cat(parts).cpu().numpy().astype(np.float64)


def _find_scans(folder: Path, wanted: list[str], candidates: Path) -> dict[str, Path]:
    """The file of every scan of the list, or the folder that holds its DICOM series."""
    if not folder.is_dir():
        raise checks.InputError(f"the scans must be a folder of volumes; {folder} is not a folder")
    found: dict[str, Path] = {}
    for place in (folder, *sorted(folder.glob("subset*"))):
        for name, path in find_volumes(place).items():
            if name in found:
                raise checks.InputError(f"{folder} must hold a scan once; it has {found[name]} and {path}")
            found[name] = path
    found |= {name: folder / name for name in wanted if name not in found and (folder / name).is_dir()}
    if any(name not in found for name in wanted):
        found |= dict.fromkeys(list_series(folder), folder)
    missing = [scan for scan in wanted if scan not in found]
    if missing:
        raise checks.InputError(
            f"{folder} must hold the {len(wanted)} scans of {candidates} as NAME.mhd, .mha, .nii or .nii.gz, in itself "
            "or in subset0/ to subset9/, or as DICOM series in folders NAME/; "
            f"{len(missing)} are missing, {missing[0]} first"
        )
    return {scan: found[scan] for scan in wanted}


def _table(scans: list[str], centres: NDArray[np.float64], probabilities: NDArray[np.float64]) -> str:
    """The marks as LUNA16's evaluation reads them, so names of scans stay as they are."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADING)
    for scan, centre, value in zip(scans, centres.tolist(), probabilities.tolist(), strict=True):
        writer.writerow([scan, *map(repr, centre), f"{value:.9g}"])
    return file.getvalue()
