"""YuNet, through OpenCV, from a model file of the user's.

Source: W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 20, 2023.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from angulus.core import checks, extras
from angulus.data.faces.detect import Faces, Image, check_image


class YuNet:
    """OpenCV's FaceDetectorYN, image by image."""

    def __init__(self, path: str | os.PathLike[str], threshold: float = 0.6, overlap: float = 0.3) -> None:
        """Read the model.

        Args:
            path: its ONNX file, face_detection_yunet_*.onnx.
            threshold: the least score of a face, in (0, 1).
            overlap: of two boxes that is let stand, in (0, 1).

        Raises:
            checks.InputError: no such file, or none that OpenCV takes for YuNet.
        """
        checks.number("threshold", threshold, low=0, high=1, open_low=True, open_high=True)
        checks.number("overlap", overlap, low=0, high=1, open_low=True, open_high=True)
        self._cv2 = cv2 = extras.load("cv2", "faces", "the detector yunet")
        if not os.path.isfile(path):
            raise checks.InputError(f"detector yunet needs its ONNX file; there is no file {os.fspath(path)}")
        try:
            self._model = cv2.FaceDetectorYN.create(os.fspath(path), "", (320, 320), threshold, overlap)
            self.detect([np.zeros((320, 320, 3), dtype=np.uint8)])  # another network is found out at its first run
        except self._cv2.error as error:
            raise checks.InputError(
                f"detector yunet needs an ONNX file that OpenCV {cv2.__version__} takes for YuNet; "
                f"{os.fspath(path)} is none: {' '.join(str(error.err).split())}"
            ) from error

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """Find the faces in images uint8 RGB [height, width, 3].

        Raises:
            checks.InputError: an image of another kind.
        """
        return [self._one(image) for image in images]

    def _one(self, image: Image) -> Faces:
        check_image(image)
        height, width = image.shape[:2]
        self._model.setInputSize((width, height))
        _, found = self._model.detect(self._cv2.cvtColor(image, self._cv2.COLOR_RGB2BGR))
        rows = np.zeros((0, 15), dtype=np.float32) if found is None else np.asarray(found, dtype=np.float32)
        rows = rows[np.argsort(-rows[:, 14], kind="stable")]
        # left, top, width, height; then five points, the person's right eye, which is the image's left, first
        return Faces(
            np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1),
            rows[:, 4:14].reshape(-1, 5, 2),
            rows[:, 14],
        )
