"""`Embedder`: images in any form to features, and features to similarities, in a few lines of Python."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks, hub, wording
from angulus.core.checks import InputError
from angulus.core.progress_line import ProgressLine
from angulus.models import artifact, batching

if TYPE_CHECKING:  # `import angulus` must not import what decodes images
    from PIL.Image import Image

    from angulus.models.embed import Embeds
    from angulus.models.parity import Parity

    Images = str | os.PathLike[str] | Image | NDArray[np.uint8] | torch.Tensor | Iterable[Any]


class Embedder:
    """A model that turns images into features: one class for folders, hubs and ONNX files.

        model = angulus.Embedder.from_pretrained("run/model")
        features = model.encode(["one.jpg", "other.jpg"])
        print(model.similarity(features[0], features[1]))

    Attributes:
        model: what computes: an `angulus.Model`, or a `models.onnx_model.OnnxModel`.
    """

    def __init__(self, model: Embeds) -> None:
        self.model = model

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        flip: str | None = None,
        device: str | torch.device | None = None,
        precision: str = "float32",
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> Embedder:
        """Load a model folder, or the model folder of a repository on a hub; no code from it runs.

        Args:
            source: a folder, such as "run/model", or OWNER/NAME on a hub, which needs the extra `hub`.
            flip: "none", "sum" or "concat", in place of the model's rule for mirror images.
            device: where it runs; None: the GPU if there is one, otherwise the CPU.
            precision: "float32", or "bfloat16", which is faster where the processor has its instructions, and differs
                in the third digit of a feature.
            revision, token: of the repository, as huggingface_hub takes them.

        Raises:
            checks.InputError: no model in the folder, or none of this name on the hub.
        """
        checks.choice("precision", precision, artifact.PRECISIONS)
        model = artifact.load(_folder_of(source, revision, token))
        if flip is not None:
            model = model.with_flip(flip)
        model.precision = precision
        try:
            return cls(model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")))
        except (RuntimeError, AssertionError) as error:  # PyTorch's, of a device that is unknown, absent or full
            raise InputError(f"device must be one that PyTorch can use here; {device} gave: {error}"[:300]) from error

    @classmethod
    def from_onnx(cls, path: str | os.PathLike[str], **options: Any) -> Embedder:
        """Load an ONNX file, of `angulus export` or from elsewhere; needs the extra `onnx`.

        `options` are those of `angulus.models.onnx_model.load`: how pixels are prepared, and which output to take.
        """
        from angulus.models import onnx_model

        known = list(inspect.signature(onnx_model.load).parameters)[1:]
        for name in options.keys() - set(known):
            meant = (
                "; pixels become (x − mean) / scale: give a std as scale"
                if name == "std"
                else checks.nearest(name, known)
            )
            raise InputError(f"options must be among {', '.join(known)}; got {name!r}{meant}")
        return cls(onnx_model.load(Path(path), **options))

    @property
    def name(self) -> str:
        """Its name in embeddings, calibrations and galleries: fingerprint and flip rule."""
        return self.model.name

    @property
    def size(self) -> int:
        """Numbers of a feature, d."""
        size = getattr(self.model, "dimensions", None) or self.model.config.embedding_size
        return size * (2 if self.model.config.contract.flip == "concat" else 1)

    def encode(
        self, images: Images, *, batch_size: int = 256, progress: bool = False, dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """Features of images, float32 [N, d], in their order; of one image [d].

        The model scales the pixels and joins mirror images itself, as its contract states. Images must have the size
        that the model takes: nothing is resized, cropped or aligned here.

        Args:
            images: paths, Pillow images, or uint8 arrays [height, width, 3] (RGB) or [height, width] (grey), in a list
                or any iterable; one of those; an array [N, height, width, 3]; or a tensor as `angulus.Model.embed`
                takes it, uint8 [N, channels, height, width].
            batch_size: images that are decoded at a time, >= 1. It changes features by rounding only.
            progress: whether to print images/s and the time left.
            dimensions: keep the first numbers of each feature only, for a model that was trained with
                `objective.nested`. Compare such features with each other alone.

        Raises:
            checks.InputError: names the image that cannot be read, is of another size, or gets a feature that is zero,
                NaN or infinite.
        """
        checks.integer("batch_size", batch_size, low=1)
        if _is_one(images):
            feature: NDArray[np.float32] = self.encode([images], batch_size=batch_size, dimensions=dimensions)[0]
            return feature
        if not isinstance(images, Iterable):
            raise InputError(f"images must be paths, Pillow images or uint8 arrays; got {type(images).__name__}")
        model = self.model if dimensions is None else _whole(self.model).with_dimensions(dimensions)
        total = len(images) if isinstance(images, Sized) else None
        line = ProgressLine() if progress else None
        parts = [np.empty((0, Embedder(model).size), np.float32)]
        done = 0
        for names, pixels in self._batches(images, batch_size):
            features = model.embed(pixels).cpu().numpy()
            usable = np.isfinite(features).all(axis=1) & features.any(axis=1)
            if not usable.all():
                which = names[int(np.flatnonzero(~usable)[0])]
                raise InputError(f"the feature of {which} must be finite and not zero, or it has no angle; it is not")
            parts.append(features)
            done += len(features)
            if line is not None:
                line.show(wording.progress(done, total, line.seconds), ended=done == total)
        return np.concatenate(parts)

    def similarity(self, a: NDArray[Any], b: NDArray[Any] | None = None) -> NDArray[np.float64]:
        """Cosines of features in [-1, 1], float64, as numpy's `a @ b.T` of unit vectors.

            s(a, b) = a · b / (‖a‖ ‖b‖)

        Args:
            a: features [N, d], or [d] of one image.
            b: features [M, d] or [d]; None: those of `a`.

        Returns:
            [N, M]; without the axis of an argument that is one feature.

        Raises:
            checks.InputError: features of different sizes, or one that is zero, NaN or infinite.
        """
        first, second = _features("a", a), _features("b", a if b is None else b)
        if first.shape[-1] != second.shape[-1]:
            raise InputError(f"a and b must be features of one size; got {first.shape[-1]} and {second.shape[-1]}")
        first, second = _unit("a", first), _unit("b", second)
        return np.clip(first @ second.T, -1, 1)

    def export(self, out: str | os.PathLike[str], **options: Any) -> Parity:
        """Write the model as ONNX, as `angulus export` does, and return how far the file is from PyTorch.

        `options` are those of `angulus.models.export.export`: precision, images, classes ... Needs the extra `onnx`.
        """
        from angulus.models.export import export

        return export(_whole(self.model), Path(out), **options)

    def _batches(self, images: Iterable[Any], size: int) -> Iterator[tuple[Sequence[str], torch.Tensor]]:
        """The names and pixels of the images, batch by batch; the next batch is decoded meanwhile."""
        if isinstance(images, torch.Tensor):
            for start in range(0, len(images), size):
                part = images[start : start + size]
                yield [f"images[{start + place}]" for place in range(len(part))], part
            return
        from angulus.models import inputs

        def start_decoding(batch: list[tuple[str, Any]], pool: ThreadPoolExecutor) -> list[Future[torch.Tensor]]:
            return [pool.submit(inputs.item_pixels, item, self.model.config, name) for name, item in batch]

        items = ((_name(item, number), item) for number, item in enumerate(images))
        batches = iter(lambda: list(islice(items, size)), [])
        with contextlib.closing(batching.ahead(batches, start_decoding)) as started:
            for batch, pixels in started:
                yield [name for name, _ in batch], torch.stack([each.result() for each in pixels])


def _folder_of(source: str | os.PathLike[str], revision: str | None, token: str | bool | None) -> Path:
    """The model folder that is meant, downloaded if `source` names one on a hub."""
    folder, name = Path(source), str(source)
    parts = name.split("/")
    if folder.exists() or len(parts) != 2 or not all(part.strip(".") for part in parts):
        return folder
    return hub.fetch(name, artifact.FILES, "hub", revision=revision, token=token)


def _whole(model: Embeds) -> artifact.Model:
    """A model that is not an ONNX file."""
    if not isinstance(model, artifact.Model):
        raise InputError(
            "this model is an ONNX file, which can neither be exported nor cut to dimensions; export the model folder, "
            "with dimensions= if wanted"
        )
    return model


def _is_one(images: object) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim < 4 and images.dtype.kind not in "OU"  # arrays of paths are lists
    from PIL import Image

    return isinstance(images, str | os.PathLike | Image.Image)


def _name(item: object, number: int) -> str:
    """An image's name in errors."""
    return str(Path(item)) if isinstance(item, str | os.PathLike) else f"images[{number}]"


def _features(name: str, features: object) -> NDArray[Any]:
    values = np.asarray(features)
    if values.ndim not in (1, 2) or values.dtype.kind not in "fiu" or not values.shape[-1]:
        raise InputError(f"{name} must be features [N, d] or [d]; got {values.dtype} {list(values.shape)}")
    return values


def _unit(name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """Features scaled to length 1, in float64."""
    wide = values.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    good = np.isfinite(lengths) & (lengths > 0)
    if not good.all():
        row = int(np.flatnonzero(~good.ravel())[0])
        raise InputError(f"{name} must be features with a finite length > 0; row {row} has {lengths.ravel()[row]:g}")
    unit: NDArray[np.float64] = wide / lengths
    return unit
