"""Images in a report: the best and the worst by norm, and the pairs that are taken wrongly."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from angulus.core import checks
from angulus.data.sets.images import Images
from angulus.evaluation.protocols import quality
from angulus.evaluation.protocols.result import Result
from angulus.report.model import ImagePairs, Model

SIDE = 112  # pixels, at most
COUNT = 12  # of a kind
LOSSLESS = 32  # pixels: what is smaller is a digit or an icon, which JPEG would blur

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """One image: its data URI, or "" where it is not there, and what it shows in words."""

    source: str
    alt: str


@dataclass(frozen=True)
class Picture:
    """One image or a pair, with what is to be said of it."""

    images: tuple[Shown, ...]
    caption: str
    wrong: bool = False


def source(pixels: Pixels) -> str:
    """Pixels [height, width] or [height, width, 3] as a data URI, no larger than `SIDE`."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    stream, kind = io.BytesIO(), "png" if max(image.size) <= LOSSLESS else "jpeg"
    image.save(stream, kind, **({"quality": 85} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def by_norm(model: Model, images: Images, *, highest: bool) -> list[Picture]:
    """The test images with the highest or the lowest norms. CM Fig. 1."""
    order = np.argsort(model.test["norms"], kind="stable")
    return [_single(model, images, int(row)) for row in (order[::-1] if highest else order)[:COUNT]]


def mistakes(model: Model, images: Images) -> list[Picture]:
    """The test images that are classified wrongly, those of the highest norms first."""
    wrong = np.flatnonzero(~model.correct)
    return [
        _single(model, images, int(row))
        for row in wrong[np.argsort(-model.test["norms"][wrong], kind="stable")][:COUNT]
    ]


def model_pairs(model: Model, images: Images, pairs: ImagePairs) -> dict[str, list[Picture]]:
    """Of all pairs of test images those taken wrongly at the most accurate threshold, the worst first."""

    def picture(row: int) -> Picture:
        ends = (int(pairs.left[row]), int(pairs.right[row]))
        shown = tuple(_shown(model, images, each) for each in ends)
        return Picture(shown, f"{' and '.join(each.alt for each in shown)}, cosine {pairs.scores[row]:.3f}")

    return _worst(pairs.scores, pairs.same, pairs.accepted == pairs.same, pairs.left, pairs.right, picture)


def result_pairs(result: Result, images: Mapping[str, str]) -> dict[str, list[Picture]]:
    """Of a result's pairs those taken wrongly, the worst first; images by their ids, as data URIs."""
    samples = result.samples
    left, right, scores = samples["left"].tolist(), samples["right"].tolist(), samples["scores"]

    def picture(row: int) -> Picture:
        shown = tuple(Shown(images.get(name, ""), name) for name in (str(left[row]), str(right[row])))
        return Picture(shown, f"{' and '.join(each.alt for each in shown)}, score {scores[row]:.4g}")

    correct = quality.judge_result(result).correct
    return _worst(scores, samples["same"], correct, samples["left"], samples["right"], picture)


def ids_of(pictures: Iterable[Picture]) -> set[str]:
    """What images pictures of a result ask for."""
    return {shown.alt for picture in pictures for shown in picture.images}


def read(path: Path, wanted: set[str]) -> dict[str, str]:
    """Images of a source (a folder, a zip, records, a .bin ...) by id, with or without a file's ending, as data URIs.

    Raises:
        checks.InputError: no such source, or it holds none of the images that are wanted.
    """
    from angulus.data.decode import decode
    from angulus.data.records import Row
    from angulus.data.sources.kinds import read_source

    found: dict[str, str] = {}
    for item in read_source(path):
        if not isinstance(item, Row):
            continue
        for name in {item.id, item.id.rpartition(".")[0]} & wanted:
            found[name] = source(decode(item.image, item.id))
    if wanted and not found:
        raise checks.InputError(
            f"{path} must hold the images of the pairs, by the ids that the pairs name; it has none of these "
            f"{len(wanted):,}, such as {min(wanted)!r}"
        )
    return found


def _worst(
    scores: NDArray[Any],
    same: NDArray[np.bool_],
    correct: NDArray[np.bool_],
    left: NDArray[Any],
    right: NDArray[Any],
    picture: Callable[[int], Picture],
) -> dict[str, list[Picture]]:
    """False matches of the highest scores, false non-matches of the lowest; each image in one pair of a kind only."""
    kinds = {"Taken for the same, and are not": (~same, -scores), "Not known as the same": (same, scores)}
    found = {}
    for name, (member, key) in kinds.items():
        rows = np.flatnonzero(member & ~correct)
        seen: set[Any] = set()
        chosen: list[Picture] = []
        for row in rows[np.argsort(key[rows], kind="stable")].tolist():
            ends = {left[row], right[row]}
            if not ends & seen:
                seen |= ends
                chosen.append(picture(row))
            if len(chosen) == COUNT:
                break
        found[name] = chosen
    return found


def _single(model: Model, images: Images, row: int) -> Picture:
    label, guess = (model.class_name(int(model.test[name][row])) for name in ("labels", "predictions"))
    wrong = label != guess
    said = f"{label}, taken for {guess}" if wrong else label
    return Picture((_shown(model, images, row),), f"{said}; norm {model.test['norms'][row]:.3g}", wrong)


def _shown(model: Model, images: Images, row: int) -> Shown:
    image = images.pixels[torch.tensor([row])][0]
    if image.ndim == 4:  # of a volume, its middle slice
        image = image[:, image.shape[1] // 2]
    pixels = np.moveaxis(image.numpy(), 0, -1)
    if pixels.shape[2] != 3:
        pixels = pixels[:, :, 0]  # of other channels than red, green, blue the first
    return Shown(
        source(np.ascontiguousarray(pixels)), f"{model.class_name(int(model.test['labels'][row]))} (test image {row})"
    )
