"""Cutting LUNA16's candidates out of the CT scans.

Source: see `luna16`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks, files
from angulus.core.checks import InputError
from angulus.data.sets.download import md5_of, not_found, search_folders
from angulus.data.sets.luna16 import ABOUT, CANDIDATES, FOLDS, FORMAT, MARGIN, PATCHES, SIZE, read_about
from angulus.data.volumes import AIR_HU, find_volumes, read_volume
from angulus.evaluation.lists.luna16_csv import Candidates, read_candidates

SPACING_MM = (1.25, 0.6, 0.6)  # depth, height, width; chosen by us: docs/data.md says why
LOWEST_HU, HIGHEST_HU = AIR_HU, 400  # the window that is kept


def prepare(
    root: str | os.PathLike[str] | None = None,
    *,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    on_scan: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Cut every candidate out of its scan, into one file per scan, and return their folder; a stopped run resumes.

    Patches lie along the scan's own axes, at the given spacing, clipped to [−1000, 400] HU and scaled to bytes; beyond
    the scan is air.

    Args:
        root: a folder with candidates_V2.csv and subset0/ to subset9/, which hold the .mhd and .raw files; None: the
            usual folders.
        spacing_mm: depth, height, width between voxels, > 0.
        on_scan: called with the scan, its number from 1, and the number of scans.
    """
    for step in spacing_mm:
        checks.number("spacing_mm", step, low=0, open_low=True)
    folders = search_folders("luna16", root)
    folder = next((folder for folder in folders if (folder / CANDIDATES).is_file()), None)
    if folder is None:
        needs = f"LUNA16 needs {CANDIDATES} next to subset0/ to subset9/"
        raise not_found(needs, folders, "`angulus data luna16` says where to get them")
    candidates = read_candidates(folder / CANDIDATES)
    scans = _find_scans(folder, candidates)
    about = {
        "format": FORMAT,
        "candidates_md5": md5_of(folder / CANDIDATES),
        "spacing_mm": list(spacing_mm),
        "size": list(SIZE),
        "margin": MARGIN,
        "window_hu": [LOWEST_HU, HIGHEST_HU],
        "scans": {scan: fold for scan, (fold, _) in scans.items()},
    }
    out = folder / PATCHES
    with files.lock(out):
        if (out / ABOUT).is_file():
            if read_about(out) != about:
                rule = f"{out} must hold patches of the same candidates, scans and settings"
                raise InputError(f"{rule}; remove it to start again")
        else:
            files.write_json(out / ABOUT, about)
        for number, (scan, (_, path)) in enumerate(scans.items(), 1):
            if not (out / f"{scan}.npy").is_file():
                patches = _cut(path, candidates.centres[candidates.cases == scan], spacing_mm)
                files.write_atomically(out / f"{scan}.npy", partial(np.save, arr=patches))
            if on_scan is not None:
                on_scan(scan, number, len(scans))
    return out


def _cut(path: Path, centres: NDArray[np.float64], spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Cut patches uint8 [N, depth, height, width], with the margin for shifts."""
    depth, height, width = (side + 2 * MARGIN for side in SIZE)
    return cut_patches(path, centres, (depth, height, width), spacing_mm, CANDIDATES)


def cut_patches(
    path: Path,
    centres: NDArray[np.float64],
    size: tuple[int, int, int],
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    candidates: str = CANDIDATES,
    series: str | None = None,
) -> NDArray[np.uint8]:
    """Cut patches of a scan, uint8 [N, *size], as training sees them.

    Args:
        path: the scan, as `read_volume` takes it.
        centres: [N, 3] x, y, z in millimetres.
        size: depth, height, width of a patch in voxels.
        spacing_mm: depth, height, width between them.
        candidates: the list of the centres, for errors.
        series: the series to read in a folder of several.
    """
    volume = read_volume(path, series)
    outside = np.flatnonzero(~volume.holds(centres))
    if len(outside):
        raise InputError(
            f"{path} must hold its candidates; {len(outside)} lie outside, {centres[outside[0]].tolist()} first; fetch "
            f"{candidates} and the scan again"
        )
    patches = np.empty((len(centres), *size), dtype=np.uint8)
    for number, centre in enumerate(centres):
        patches[number] = to_bytes(volume.patch(centre, size, spacing_mm))
    return patches


def _find_scans(folder: Path, candidates: Candidates) -> dict[str, tuple[int, Path]]:
    """Fold and header of every scan that has candidates, in the order of their names."""
    scans: dict[str, tuple[int, Path]] = {}
    for fold in range(FOLDS):
        for scan, path in find_volumes(folder / f"subset{fold}").items():
            if scan in scans:
                raise InputError(f"{path} must be in one subset; it is in subset{scans[scan][0]} too")
            scans[scan] = (fold, path)
    wanted = sorted(set(candidates.cases.tolist()))
    missing = [scan for scan in wanted if scan not in scans]
    if missing:
        rule = f"{folder} must hold the {len(wanted)} scans of {CANDIDATES} in subset0/ to subset9/"
        raise InputError(f"{rule}; {len(missing)} are missing, {missing[0]} first; fetch and unpack the subsets")
    return {scan: scans[scan] for scan in wanted}


def to_bytes(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Convert Hounsfield units to bytes: clipped to [−1000, 400], then round((v + 1000) · 255 / 1400), 5.5 HU per step.

    >>> to_bytes(np.array([-2000.0, -1000.0, -300.0, 400.0, 3000.0])).tolist()
    [0, 0, 128, 255, 255]
    """
    scaled = (np.clip(values, LOWEST_HU, HIGHEST_HU) - LOWEST_HU) * (255 / (HIGHEST_HU - LOWEST_HU))
    return np.asarray(np.rint(scaled), dtype=np.uint8)
