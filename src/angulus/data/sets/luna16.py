"""LUNA16's candidates as patches: cut out of the CT scans once, kept on disk, and read fold by fold.

Source: A. A. A. Setio et al., Medical Image Analysis 42, 2017, for the scans, candidates and folds; Q. Dou et al.,
"Multilevel contextual 3-D CNNs for false positive reduction in pulmonary nodule detection", IEEE TBME 64(7), 2017, for
the volumes, the window of Hounsfield units and the augmentation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks, files, limits
from angulus.core.checks import InputError
from angulus.data.sampler import earlier_occurrences
from angulus.data.sets import places
from angulus.data.sets.download import md5_of
from angulus.data.sets.images import Images, Splits
from angulus.data.sets.patches import MARGIN, VARIANTS, PatchPixels
from angulus.data.sets.volumes import HIGHEST_HU, LOWEST_HU, read_volume, to_bytes
from angulus.evaluation.lists.luna16_csv import Candidates, Findings, read_candidates, read_findings

FORMAT = "angulus-luna16-patches-1"
CANDIDATES, ANNOTATIONS, PATCHES, ABOUT = "candidates_V2.csv", "annotations.csv", "patches", "about.json"
FOLDS = 10
SIZE = (26, 40, 40)  # depth, height, width in voxels: the largest of the paper's three
SPACING_MM = (1.25, 0.6, 0.6)  # chosen by us; docs/data.md says why
CLASS_NAMES = ("no nodule", "nodule")


def load(
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    fold: int = 0,
    size: Sequence[int] = SIZE,
    augment: bool = True,
) -> Splits:
    """Read the patches that `prepare` cut out: nine folds of scans to train on, one to test on.

    Every patch is uint8 [1, depth, height, width]; they are read from disk when asked for. `columns` has "scans", and
    "nodules" where annotations.csv is there: of a candidate of class 1 the nearest nodule of its scan, by its number in
    the list, else −1.

    Args:
        root: where the patches are, in patches/; None: the usual places.
        download: must be false.
        fold: 0 to 9, the subset that is tested on.
        size: depth, height, width of the middle that is taken, each smaller than the stored by an even number:
            (6, 20, 20), (10, 30, 30) and (26, 40, 40) are the paper's.
        augment: train on each nodule 28 times: as it is and moved by a voxel along each axis, each in four turns by 90
            degrees within the transverse plane.

    Raises:
        InputError: there are no patches, or not all; a size that they do not hold.
    """
    checks.integer("fold", fold, low=0, high=FOLDS - 1)
    checks.flag("augment", augment)
    sides = _sides(size, augment)
    looked_in = places.places("luna16", root)
    place = next((each for each in looked_in if (each / PATCHES / ABOUT).is_file()), None)
    if download or place is None:
        way = f"put the scans and {CANDIDATES} into one, and run `angulus data luna16 --prepare`"
        raise InputError(f"LUNA16 needs {PATCHES}/; looked in {' and '.join(map(str, looked_in))}; {way}")
    about = _read_about(place / PATCHES)
    candidates = _candidates(place, about)
    scans, owners = np.unique(candidates.scans, return_inverse=True)
    paths = [place / PATCHES / f"{scan}.npy" for scan in scans.tolist()]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"{place / PATCHES} must hold the patches of {len(paths)} scans; it lacks {len(missing)}, "
            f"{missing[0].name} first; go on with `angulus data luna16 --prepare`"
        )
    folds = np.array([about["scans"].get(scan, -1) for scan in scans.tolist()])[owners]
    within = earlier_occurrences(owners)
    columns: dict[str, NDArray[Any]] = {"scans": candidates.scans}
    if (place / ANNOTATIONS).is_file():
        columns["nodules"] = nearest_nodules(candidates, read_findings(place / ANNOTATIONS))

    def part(chosen: NDArray[np.bool_], variants: int) -> Images:
        rows = np.flatnonzero(chosen)
        copies = np.where(candidates.labels[rows] == 1, variants, 1)
        rows, variant = np.repeat(rows, copies), earlier_occurrences(np.repeat(rows, copies))
        pixels = PatchPixels(paths, owners[rows], within[rows], variant, sides)
        labels = torch.from_numpy(candidates.labels[rows])
        return Images(pixels, labels, CLASS_NAMES, {name: values[rows] for name, values in columns.items()})

    if not (folds == fold).any() or (folds == fold).all():
        raise InputError(
            f"fold must leave scans to train on and to test on; {place} has {np.unique(folds).tolist()} alone"
        )
    times = len(VARIANTS) if augment else 1
    train, test = part(folds != fold, times), part(folds == fold, 1)
    source = (
        f"LUNA16 patches in {place}, tested on fold {fold}: {len(test):,} candidates of "
        f"{len(set(test.columns['scans']))} scans; trained on {len(train):,} patches, nodules {times} times each"
    )
    return Splits("luna16", train, test, source)


def prepare(
    root: str | os.PathLike[str] | None = None,
    *,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    on_scan: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Cut every candidate out of its scan, into a file a scan; goes on where an earlier try stopped.

    Patches lie along the scan's own axes, at the spacing asked for, clipped to [−1000, 400] HU and scaled to bytes;
    what lies beyond the scan is air.

    Args:
        root: a folder with candidates_V2.csv and subset0/ to subset9/, which hold the .mhd and .raw files; None: the
            usual places.
        spacing_mm: depth, height, width between voxels, > 0.
        on_scan: told the scan, its number from 1, and how many there are.

    Returns:
        The folder of the patches.

    Raises:
        InputError: lists or scans that are not there, are damaged or do not belong together; patches of other settings.
    """
    for step in spacing_mm:
        checks.number("spacing_mm", step, low=0, open_low=True)
    looked_in = places.places("luna16", root)
    place = next((each for each in looked_in if (each / CANDIDATES).is_file()), None)
    if place is None:
        raise InputError(
            f"LUNA16 needs {CANDIDATES} beside subset0/ to subset9/; looked in {' and '.join(map(str, looked_in))}"
        )
    candidates = read_candidates(place / CANDIDATES)
    volumes = _volumes(place, candidates)
    about = {
        "format": FORMAT,
        "candidates_md5": md5_of(place / CANDIDATES),
        "spacing_mm": list(spacing_mm),
        "size": list(SIZE),
        "margin": MARGIN,
        "window_hu": [LOWEST_HU, HIGHEST_HU],
        "scans": {scan: fold for scan, (fold, _) in volumes.items()},
    }
    out = place / PATCHES
    with files.lock(out):
        if (out / ABOUT).is_file():
            if _read_about(out) != about:
                raise InputError(
                    f"{out} must hold patches of the same candidates, scans and settings; remove it to start anew"
                )
        else:
            files.write_json(out / ABOUT, about)
        for number, (scan, (_, path)) in enumerate(volumes.items(), 1):
            if not (out / f"{scan}.npy").is_file():
                patches = _cut(path, candidates.centres[candidates.scans == scan], spacing_mm)
                files.write_atomically(out / f"{scan}.npy", partial(np.save, arr=patches))
            if on_scan is not None:
                on_scan(scan, number, len(volumes))
    return out


def _cut(path: Path, centres: NDArray[np.float64], spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Patches uint8 [N, depth, height, width], with the margin that shifts need."""
    volume = read_volume(path)
    outside = np.flatnonzero(~volume.holds(centres))
    if len(outside):
        raise InputError(
            f"{path} must hold its candidates; {len(outside)} lie outside, {centres[outside[0]].tolist()} first; fetch "
            f"{CANDIDATES} and the scan again"
        )
    depth, height, width = (side + 2 * MARGIN for side in SIZE)
    patches = np.empty((len(centres), depth, height, width), dtype=np.uint8)
    for place, centre in enumerate(centres):
        patches[place] = to_bytes(volume.patch(centre, (depth, height, width), spacing_mm))
    return patches


def _volumes(place: Path, candidates: Candidates) -> dict[str, tuple[int, Path]]:
    """Fold and header of every scan that has candidates, in the order of their names."""
    found: dict[str, tuple[int, Path]] = {}
    for fold in range(FOLDS):
        for path in sorted((place / f"subset{fold}").glob("*.mhd")):
            if path.stem in found:
                raise InputError(f"{path} must be in one subset; it is in subset{found[path.stem][0]} too")
            found[path.stem] = (fold, path)
    wanted = sorted(set(candidates.scans.tolist()))
    missing = [scan for scan in wanted if scan not in found]
    if missing:
        raise InputError(
            f"{place} must hold the {len(wanted)} scans of {CANDIDATES} in subset0/ to subset9/; {len(missing)} are "
            f"missing, {missing[0]} first; fetch and unpack the subsets"
        )
    return {scan: found[scan] for scan in wanted}


def nearest_nodules(candidates: Candidates, nodules: Findings) -> NDArray[np.int64]:
    """For each candidate of class 1 the number of the nearest nodule in its scan, in the order of the list; else −1.

    Raises:
        InputError: a candidate of class 1 in a scan without nodules.
    """
    found = np.full(len(candidates), -1, dtype=np.int64)
    for row in np.flatnonzero(candidates.labels == 1).tolist():
        there = np.flatnonzero(nodules.scans == candidates.scans[row])
        if not len(there):
            raise InputError(
                f"{ANNOTATIONS} must have the nodules of {CANDIDATES}; it has none in scan {candidates.scans[row]}"
            )
        distances = np.linalg.norm(nodules.centres[there] - candidates.centres[row], axis=1)
        found[row] = there[distances.argmin()]
    return found


def _sides(size: Sequence[int], augment: bool) -> tuple[int, int, int]:
    if not isinstance(size, list | tuple) or len(size) != 3:
        raise InputError(f"size must be depth, height and width in voxels; got {size!r}")
    depth, height, width = (checks.integer("size", side, low=1) for side in size)
    if any(side > most or (most - side) % 2 for side, most in zip((depth, height, width), SIZE, strict=True)):
        raise InputError(
            f"size must be {list(SIZE)} or smaller by even numbers, which leave a middle; got {list(size)}"
        )
    if augment and height != width:
        raise InputError(f"size must have height = width for quarter turns; got {list(size)}; or set augment to false")
    return depth, height, width


def _candidates(place: Path, about: dict[str, Any]) -> Candidates:
    path = place / CANDIDATES
    candidates = read_candidates(path)
    if md5_of(path) != about["candidates_md5"]:
        raise InputError(
            f"{path} must be the list that {place / PATCHES} was cut by; remove the patches, and prepare them again"
        )
    return candidates


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT
    try:
        about: dict[str, Any] = limits.parse_json(path.read_bytes(), path.name)
        if about["format"] != FORMAT or about["size"] != list(SIZE) or not isinstance(about["scans"], dict):
            raise ValueError("another format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} must describe patches ({error}); remove {folder} to prepare them anew") from error
    return about
