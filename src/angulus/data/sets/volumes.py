"""CT volumes from .mhd and .raw files, and patches of them on a grid of another spacing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates

from angulus.core import extras, limits
from angulus.core.checks import InputError, one_line, why_unread

_VOXEL_BYTES = 2  # of CT; a wider type makes an allowed volume larger by a few times, and no bomb
AIR_HU, LOWEST_HU, HIGHEST_HU = -1000, -1000, 400  # what lies beyond a scan; the window that is kept


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan in Hounsfield units, with its place in the scanner's world.

    Attributes:
        voxels: [depth, height, width].
        origin: [3] x, y, z in millimetres of the centre of the first voxel.
        spacing: [3] x, y, z in millimetres between voxels.
        direction: [3, 3]; column k is the world's direction of the volume's axis k (x, y, z).
    """

    voxels: NDArray[Any]
    origin: NDArray[np.float64]
    spacing: NDArray[np.float64]
    direction: NDArray[np.float64]

    def to_voxels(self, world: ArrayLike) -> NDArray[np.float64]:
        """Continuous indices x, y, z [..., 3] of places x, y, z [..., 3] in millimetres.

        index = spacing⁻¹ · direction⁻¹ · (place − origin); whole numbers are centres of voxels.
        """
        moved = np.asarray(world, dtype=np.float64) - self.origin
        found: NDArray[np.float64] = np.linalg.solve(self.direction, moved[..., None])[..., 0] / self.spacing
        return found

    def holds(self, world: ArrayLike) -> NDArray[np.bool_]:
        """Whether places [..., 3] lie within the volume, to half a voxel beyond its outermost centres."""
        index = self.to_voxels(world)
        inside: NDArray[np.bool_] = (index >= -0.5) & (index <= np.array(self.voxels.shape[::-1]) - 0.5)
        return np.asarray(inside.all(axis=-1))

    def patch(
        self, centre: ArrayLike, size: tuple[int, int, int], spacing: tuple[float, float, float]
    ) -> NDArray[np.float32]:
        """The values around a place, by linear interpolation on a grid along the volume's own axes; air beyond it.

        Args:
            centre: x, y, z in millimetres; the middle of the patch.
            size: depth, height, width in voxels of the patch.
            spacing: depth, height, width in millimetres between them.
        """
        middle = self.to_voxels(centre)[::-1]
        axes = [
            place + (np.arange(count) - (count - 1) / 2) * step / own
            for place, count, step, own in zip(middle, size, spacing, self.spacing[::-1], strict=True)
        ]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"))
        found: NDArray[np.float32] = map_coordinates(
            self.voxels, grid, output=np.float32, order=1, mode="constant", cval=AIR_HU
        )
        return found


def to_bytes(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Hounsfield units as bytes: clipped to [−1000, 400], then round((v + 1000) · 255 / 1400), 5.5 HU a step.

    >>> to_bytes(np.array([-2000.0, -1000.0, -300.0, 400.0, 3000.0])).tolist()
    [0, 0, 128, 255, 255]
    """
    scaled = (np.clip(values, LOWEST_HU, HIGHEST_HU) - LOWEST_HU) * (255 / (HIGHEST_HU - LOWEST_HU))
    return np.asarray(np.rint(scaled), dtype=np.uint8)


def read_volume(path: Path) -> Volume:
    """Read a scan from its .mhd header and the .raw beside it.

    Raises:
        InputError: SimpleITK is missing, a file is missing or cut short, the header names a file elsewhere, or it is
            no volume of one number a voxel.
    """
    sitk = extras.load("SimpleITK", "nodules", "reading CT volumes")
    _check_header(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path} must be a whole volume; reading it gave: {one_line(error)[-200:]}") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(
            f"{path} must be a volume of three axes with one number a voxel; got {image.GetDimension()} axes and "
            f"{image.GetNumberOfComponentsPerPixel()} numbers"
        )
    return Volume(
        sitk.GetArrayFromImage(image),
        np.array(image.GetOrigin()),
        np.array(image.GetSpacing()),
        np.array(image.GetDirection()).reshape(3, 3),
    )


def _check_header(path: Path) -> None:
    """Refuse a header that would have another file read than one beside it."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path} must be a file that can be read; {why_unread(error)}") from error
    named = [line.partition("=")[2].strip() for line in lines if line.partition("=")[0].strip() == "ElementDataFile"]
    if len(named) != 1 or not named[0] or "/" in named[0] or "\\" in named[0]:
        raise InputError(f"{path} must name one file beside it as ElementDataFile; got {named}")
    raw = path.parent / named[0]
    sides = [line.partition("=")[2] for line in lines if line.partition("=")[0].strip() == "DimSize"]
    voxels = math.prod(
        int(side) for side in " ".join(sides).split() if side.isascii() and side.isdigit() and len(side) < 10
    )
    packed = raw if raw.is_file() else path
    limits.check_unpacked(voxels * _VOXEL_BYTES, packed.stat().st_size, f"{path}, by its DimSize,")
    if named[0] != "LOCAL" and not raw.is_file():
        raise InputError(f"{path} needs {raw}, which it names; it is not there")
