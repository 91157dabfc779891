"""Cutting LUNA16's candidates out of the CT scans: volumes from .mhd and .raw files, and patches of them.

Source: see `luna16`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates

from angulus.core import checks, extras, files, limits
from angulus.core.checks import InputError, one_line, why_unread
from angulus.data.sets.download import md5_of, not_found, search_folders
from angulus.data.sets.luna16 import ABOUT, CANDIDATES, FOLDS, FORMAT, MARGIN, PATCHES, SIZE, read_about
from angulus.evaluation.lists.luna16_csv import Candidates, read_candidates

SPACING_MM = (1.25, 0.6, 0.6)  # depth, height, width; chosen by us: docs/data.md says why
AIR_HU, LOWEST_HU, HIGHEST_HU = -1000, -1000, 400  # beyond a scan; the window that is kept

_VOXEL_BYTES = 2  # of CT; a wider type makes an allowed volume a few times larger, not dangerously so


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
) -> NDArray[np.uint8]:
    """Cut patches of a scan, uint8 [N, *size], as training sees them.

    Args:
        path: the scan's .mhd file.
        centres: [N, 3] x, y, z in millimetres.
        size: depth, height, width of a patch in voxels.
        spacing_mm: depth, height, width between them.
        candidates: the list of the centres, for errors.
    """
    volume = read_volume(path)
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
        for path in sorted((folder / f"subset{fold}").glob("*.mhd")):
            if path.stem in scans:
                raise InputError(f"{path} must be in one subset; it is in subset{scans[path.stem][0]} too")
            scans[path.stem] = (fold, path)
    wanted = sorted(set(candidates.cases.tolist()))
    missing = [scan for scan in wanted if scan not in scans]
    if missing:
        rule = f"{folder} must hold the {len(wanted)} scans of {CANDIDATES} in subset0/ to subset9/"
        raise InputError(f"{rule}; {len(missing)} are missing, {missing[0]} first; fetch and unpack the subsets")
    return {scan: scans[scan] for scan in wanted}


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan in Hounsfield units, with its position in the scanner's coordinates."""

    voxels: NDArray[Any]  # [depth, height, width]
    origin: NDArray[np.float64]  # [3] x, y, z in millimetres of the centre of the first voxel
    spacing: NDArray[np.float64]  # [3] x, y, z in millimetres between voxels
    direction: NDArray[np.float64]  # [3, 3]; column k is the direction of the volume's axis k (x, y, z)

    def to_voxels(self, world: ArrayLike) -> NDArray[np.float64]:
        """Continuous indices x, y, z [..., 3] of points x, y, z [..., 3] in millimetres.

        index = spacing⁻¹ · direction⁻¹ · (point − origin); whole numbers are centres of voxels.
        """
        moved = np.asarray(world, dtype=np.float64) - self.origin
        return np.asarray(np.linalg.solve(self.direction, moved[..., None])[..., 0] / self.spacing)

    def holds(self, world: ArrayLike) -> NDArray[np.bool_]:
        """Whether points [..., 3] lie in the volume, up to half a voxel beyond the outermost centres."""
        index = self.to_voxels(world)
        inside = (index >= -0.5) & (index <= np.array(self.voxels.shape[::-1]) - 0.5)
        return np.asarray(inside.all(axis=-1))

    def patch(
        self, centre: ArrayLike, size: tuple[int, int, int], spacing: tuple[float, float, float]
    ) -> NDArray[np.float32]:
        """The values around a point, by linear interpolation on a grid along the volume's own axes; air beyond it.

        Args:
            centre: x, y, z in millimetres of the middle of the patch.
            size: depth, height, width in voxels of the patch.
            spacing: depth, height, width in millimetres between them.
        """
        middle = self.to_voxels(centre)[::-1]
        steps = zip(middle, size, spacing, self.spacing[::-1], strict=True)
        axes = [place + (np.arange(count) - (count - 1) / 2) * step / own for place, count, step, own in steps]
        grid, outside = np.stack(np.meshgrid(*axes, indexing="ij")), {"mode": "constant", "cval": AIR_HU}
        return np.asarray(map_coordinates(self.voxels, grid, output=np.float32, order=1, **outside))


def to_bytes(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Convert Hounsfield units to bytes: clipped to [−1000, 400], then round((v + 1000) · 255 / 1400), 5.5 HU per step.

    >>> to_bytes(np.array([-2000.0, -1000.0, -300.0, 400.0, 3000.0])).tolist()
    [0, 0, 128, 255, 255]
    """
    scaled = (np.clip(values, LOWEST_HU, HIGHEST_HU) - LOWEST_HU) * (255 / (HIGHEST_HU - LOWEST_HU))
    return np.asarray(np.rint(scaled), dtype=np.uint8)


def read_volume(path: Path) -> Volume:
    """Read a scan from its .mhd header and the .raw file next to it."""
    sitk = extras.load("SimpleITK", "nodules", "reading CT volumes")
    _check_header(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path} must be a whole volume; reading it gave: {one_line(error)[-200:]}") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        rule = f"{path} must be a volume of three axes with one number per voxel"
        raise InputError(f"{rule}; got {image.GetDimension()} axes and {image.GetNumberOfComponentsPerPixel()} numbers")
    origin, spacing, direction = (np.array(x) for x in (image.GetOrigin(), image.GetSpacing(), image.GetDirection()))
    return Volume(sitk.GetArrayFromImage(image), origin, spacing, direction.reshape(3, 3))


def _check_header(path: Path) -> None:
    """Refuse a header that names a file in another folder, or an implausible size."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path} must be a file that can be read; {why_unread(error)}") from error
    pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition("=") for line in lines)]
    named = [value for name, value in pairs if name == "ElementDataFile"]
    if len(named) != 1 or not named[0] or "/" in named[0] or "\\" in named[0]:
        raise InputError(f"{path} must name one file next to it as ElementDataFile; got {named}")
    raw = path.parent / named[0]
    sides = " ".join(value for name, value in pairs if name == "DimSize").split()
    voxels = math.prod(int(side) for side in sides if side.isascii() and side.isdigit() and len(side) < 10)
    packed = raw if raw.is_file() else path
    limits.check_unpacked(voxels * _VOXEL_BYTES, packed.stat().st_size, f"{path}, by its DimSize,")
    if named[0] != "LOCAL" and not raw.is_file():
        raise InputError(f"{path} needs {raw}, which it names; it is not there")
