"""Pictures with real faces to find: a group photo, montages of aligned crops, and the crops with known landmarks."""

from __future__ import annotations

import csv
import gzip
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.templates import template_points
from angulus.data.decode import decode
from angulus.data.faces.align import similarity, transform
from angulus.data.faces.detector import Image

HEIGHT, WIDTH = 960, 1280  # of a montage
FACES = (4, 12)  # crops put into a montage, if there is room
SIDES = (48, 260)  # of such a crop, in pixels

_CROPS, _TABLE, _PHOTO = "celebrity-faces/aligned_112.zip", "celebrity-faces/images.csv.gz", "photos/t1.jpg"
_COORDINATES = [f"{point}_{axis}" for point in ("le", "re", "n", "lm", "rm") for axis in "xy"]


@dataclass(frozen=True, eq=False)
class Crop:
    """An aligned face, and its landmarks: those found in the source photo, moved as the photo was."""

    pixels: Image
    landmarks: NDArray[np.float64]


def crops(data: Path, count: int, seed: int) -> list[Crop]:
    """Some crops, drawn without repeats.

    Args:
        data: the folder of real data.
        count: how many, >= 1.
        seed: of the draw.

    Raises:
        checks.InputError: the data are not there, or fewer than asked for.
    """
    checks.integer("crops", count, low=1)
    try:
        with gzip.open(data / _TABLE, "rt", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        with zipfile.ZipFile(data / _CROPS) as archive:
            if count > len(rows):
                raise checks.InputError(
                    f"crops must be at most {len(rows):,}, which {data / _TABLE} lists; got {count:,}"
                )
            drawn = np.random.default_rng(seed).choice(len(rows), count, replace=False)
            return [_crop(rows[row], archive.read(rows[row]["path"])) for row in drawn.tolist()]
    except OSError as error:
        raise checks.InputError(f"{data} must hold {_CROPS} and {_TABLE}; {error}") from error


def photos(data: Path, count: int) -> Iterator[tuple[Image, int]]:
    """The group photo, then montages, each with the number of faces put into it; always the same."""
    try:
        yield decode((data / _PHOTO).read_bytes()), 0
    except OSError as error:
        raise checks.InputError(f"{data} must hold {_PHOTO}; {error}") from error
    generator = np.random.default_rng(1)
    faces = iter(crops(data, max(1, (count - 1) * FACES[1]), seed=1))
    for _ in range(count - 1):
        yield _montage(faces, generator)


def _crop(row: dict[str, str], image: bytes) -> Crop:
    points = np.array([float(row[name]) for name in _COORDINATES]).reshape(5, 2)
    pixels = decode(image)
    return Crop(pixels, transform(points, similarity(points, template_points("five_points", *pixels.shape[:2]))))


def _montage(faces: Iterator[Crop], generator: np.random.Generator) -> tuple[Image, int]:
    """Crops of many sizes, apart from each other, on smooth colours with noise."""
    coarse = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    ground = np.asarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), dtype=np.float64)
    image = (ground + generator.normal(0, 8, ground.shape)).clip(0, 255).astype(np.uint8)
    taken: list[tuple[int, int, int]] = []
    for _ in range(int(generator.integers(FACES[0], FACES[1] + 1))):
        side = int(np.exp(generator.uniform(*np.log(SIDES))))
        left, top = int(generator.integers(0, WIDTH - side)), int(generator.integers(0, HEIGHT - side))
        if any(left < x + s and x < left + side and top < y + s and y < top + side for x, y, s in taken):
            continue
        taken.append((left, top, side))
        how = cv2.INTER_AREA if side < 112 else cv2.INTER_CUBIC
        image[top : top + side, left : left + side] = cv2.resize(next(faces).pixels, (side, side), interpolation=how)
    return image, len(taken)
