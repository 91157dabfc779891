"""LUNA16's candidates as patches, which `luna16_prepare` cuts out of the CT scans once; read from disk fold by fold.

Source: A. A. A. Setio et al., Medical Image Analysis 42, 2017, for the scans, candidates and folds; Q. Dou et al.,
"Multilevel contextual 3-D CNNs for false positive reduction in pulmonary nodule detection", IEEE TBME 64(7), 2017, for
the volumes, the window of Hounsfield units and the augmentation.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from angulus.core import checks, limits
from angulus.core.checks import InputError
from angulus.data.sampler import earlier_occurrences
from angulus.data.sets.download import md5_of, not_found, search_folders
from angulus.data.sets.images import Images, Splits
from angulus.evaluation.lists.detection_csv import Lesions
from angulus.evaluation.lists.luna16_csv import Candidates, read_candidates, read_findings

FORMAT = "angulus-luna16-patches-1"
CANDIDATES, ANNOTATIONS, PATCHES, ABOUT = "candidates_V2.csv", "annotations.csv", "patches", "about.json"
FOLDS = 10
SIZE = (26, 40, 40)  # depth, height, width in voxels: the largest of the paper's three
CLASS_NAMES = ("no nodule", "nodule")
MARGIN = 1  # voxels on every side of the largest patch, for the shifts
SHIFTS = ((0, 0, 0), *(tuple(step if axis == k else 0 for k in range(3)) for axis in range(3) for step in (-1, 1)))
VARIANTS = tuple(product(SHIFTS, range(4)))  # shift by axis, quarter turns; the first is the patch itself

_OPEN_FILES = 256  # a process has other files open too; systems allow 1,024 or more


def load(
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    fold: int = 0,
    size: Sequence[int] = SIZE,
    augment: bool = True,
) -> Splits:
    """Load the patches that `luna16_prepare.prepare` cut out: nine folds of scans to train on, one to test on.

    Every patch is uint8 [1, depth, height, width], read from disk when it is needed. `columns` has "scans" and, if
    annotations.csv exists, "nodules": the number in the list of the scan's nodule nearest to each candidate of class 1,
    else −1.

    Args:
        root: the folder that holds patches/; None: the usual folders.
        fold: 0 to 9, the subset to test on.
        size: depth, height, width of the middle to take, each smaller than the stored size by an even number; the
            paper's are (6, 20, 20), (10, 30, 30) and (26, 40, 40).
        augment: train on each nodule 28 times: unmoved and moved by one voxel along each axis, each in four turns by 90
            degrees within the transverse plane.
    """
    checks.integer("fold", fold, low=0, high=FOLDS - 1)
    checks.flag("augment", augment)
    sides = _sides(size, augment)
    folders = search_folders("luna16", root)
    folder = next((folder for folder in folders if (folder / PATCHES / ABOUT).is_file()), None)
    if download or folder is None:
        way_out = f"put the scans and {CANDIDATES} into one, and run `angulus data luna16 --prepare`"
        raise not_found(f"LUNA16 needs {PATCHES}/", folders, way_out)
    about = read_about(folder / PATCHES)
    candidates = read_candidates(folder / CANDIDATES)
    if md5_of(folder / CANDIDATES) != about["candidates_md5"]:
        rule = f"{folder / CANDIDATES} must be the list that {folder / PATCHES} was cut by"
        raise InputError(f"{rule}; remove the patches, and prepare them again")
    scans, owners = np.unique(candidates.cases, return_inverse=True)
    paths = [folder / PATCHES / f"{scan}.npy" for scan in scans.tolist()]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        rule = f"{folder / PATCHES} must hold the patches of {len(paths)} scans; it lacks {len(missing)}"
        raise InputError(f"{rule}, {missing[0].name} first; resume with `angulus data luna16 --prepare`")
    folds = np.array([about["scans"].get(scan, -1) for scan in scans.tolist()])[owners]
    if not (folds == fold).any() or (folds == fold).all():
        rule = "fold must leave scans to train on and to test on"
        raise InputError(f"{rule}; {folder} has {np.unique(folds).tolist()} alone")
    within = earlier_occurrences(owners)
    columns: dict[str, NDArray[Any]] = {"scans": candidates.cases}
    if (folder / ANNOTATIONS).is_file():
        columns["nodules"] = nearest_nodules(candidates, read_findings(folder / ANNOTATIONS))

    def part(chosen: NDArray[np.bool_], variants: int) -> Images:
        rows = np.flatnonzero(chosen)
        copies = np.where(candidates.labels[rows] == 1, variants, 1)
        rows, variant = np.repeat(rows, copies), earlier_occurrences(np.repeat(rows, copies))
        pixels = PatchPixels(paths, owners[rows], within[rows], variant, sides)
        labels = torch.from_numpy(candidates.labels[rows])
        return Images(pixels, labels, CLASS_NAMES, {name: values[rows] for name, values in columns.items()})

    times = len(VARIANTS) if augment else 1
    train, test = part(folds != fold, times), part(folds == fold, 1)
    tested = f"tested on fold {fold}: {len(test):,} candidates of {len(set(test.columns['scans']))} scans"
    source = f"LUNA16 patches in {folder}, {tested}; trained on {len(train):,} patches, nodules {times} times each"
    return Splits("luna16", train, test, source)


def nearest_nodules(candidates: Candidates, nodules: Lesions) -> NDArray[np.int64]:
    """The number of the nearest nodule in its scan for each candidate of class 1, in the order of the list; else −1."""
    numbers = np.full(len(candidates), -1, dtype=np.int64)
    for row in np.flatnonzero(candidates.labels == 1).tolist():
        in_scan = np.flatnonzero(nodules.cases == candidates.cases[row])
        if not len(in_scan):
            rule = f"{ANNOTATIONS} must have the nodules of {CANDIDATES}"
            raise InputError(f"{rule}; it has none in scan {candidates.cases[row]}")
        distances = np.linalg.norm(nodules.centres[in_scan] - candidates.centres[row], axis=1)
        numbers[row] = in_scan[distances.argmin()]
    return numbers


def _sides(size: Sequence[int], augment: bool) -> tuple[int, int, int]:
    if not isinstance(size, list | tuple) or len(size) != 3:
        raise InputError(f"size must be depth, height and width in voxels; got {size!r}")
    depth, height, width = (checks.integer("size", side, low=1) for side in size)
    if any(side > most or (most - side) % 2 for side, most in zip((depth, height, width), SIZE, strict=True)):
        rule = f"size must be {list(SIZE)} or smaller by even numbers, which leave a middle"
        raise InputError(f"{rule}; got {list(size)}")
    if augment and height != width:
        raise InputError(f"size must have height = width for quarter turns; got {list(size)}; or set augment to false")
    return depth, height, width


def read_about(folder: Path) -> dict[str, Any]:
    """Read the description of the patches in a folder."""
    path = folder / ABOUT
    try:
        about: dict[str, Any] = limits.parse_json(path.read_bytes(), path.name)
        if about["format"] != FORMAT or about["size"] != list(SIZE) or not isinstance(about["scans"], dict):
            raise ValueError("another format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} must describe patches ({error}); remove {folder} to prepare them again") from error
    return about


class PatchPixels:
    """uint8 [N, 1, depth, height, width]: row k is patch `places[k]` of file `owners[k]`, in variant `variants[k]`.

    An `angulus.data.sets.images.Pixels` that reads from disk at every indexing; cheap to fork and to pickle.
    """

    dtype = torch.uint8

    def __init__(
        self,
        paths: Sequence[Path],
        owners: NDArray[np.int64],
        places: NDArray[np.int64],
        variants: NDArray[np.int64],
        size: tuple[int, int, int],
    ) -> None:
        """`paths` are .npy files, uint8 [candidates, depth, height, width], with a margin of one voxel; read lazily."""
        self._paths, self._owners, self._places, self._variants = list(paths), owners, places, variants
        self._last = np.full(len(paths), -1)  # the highest place needed of each file
        np.maximum.at(self._last, owners, places)
        self._maps: dict[int, NDArray[np.uint8]] = {}
        self.shape = torch.Size((len(owners), 1, *size))

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """The patches of rows [B]."""
        chosen = np.arange(len(self))[rows.numpy() if isinstance(rows, Tensor) else rows]
        out = np.empty((len(chosen), *self.shape[1:]), dtype=np.uint8)
        for place, row in enumerate(chosen.tolist()):
            out[place, 0] = self._patch(row)
        return torch.from_numpy(out)

    def _patch(self, row: int) -> NDArray[np.uint8]:
        shift, turns = VARIANTS[self._variants[row]]
        whole = self._file(int(self._owners[row]))[self._places[row]]
        sides = self.shape[2:]
        starts = [(most - side) // 2 + step for most, side, step in zip(whole.shape, sides, shift, strict=True)]
        window = tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))
        return np.rot90(whole[window], turns, axes=(1, 2))

    def _file(self, owner: int) -> NDArray[np.uint8]:
        if owner not in self._maps:
            if len(self._maps) >= _OPEN_FILES:
                del self._maps[next(iter(self._maps))]  # the one that was opened first
            self._maps[owner] = self._open(owner)
        return self._maps[owner]

    def _open(self, owner: int) -> NDArray[np.uint8]:
        path = self._paths[owner]
        least = tuple(side + 2 * MARGIN for side in self.shape[2:])
        try:
            patches: NDArray[np.uint8] = np.load(path, mmap_mode="r")
            if patches.dtype != np.uint8 or patches.ndim != 4 or np.less(patches.shape[1:], least).any():
                raise ValueError(f"{patches.dtype} {list(patches.shape)}")
            if len(patches) <= self._last[owner]:
                raise ValueError(f"{len(patches)} patches")
        except (OSError, ValueError, EOFError) as error:
            rule = f"{path} must be a whole file of patches"
            raise InputError(f"{rule}; got {error}; delete it, and prepare again") from error
        return patches
