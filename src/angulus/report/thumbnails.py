"""Small images in a report: the ones with extreme norms, the mistakes, and the pairs decided wrongly."""

import base64
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from angulus.core import checks
from angulus.data.sets.images import Images
from angulus.evaluation.protocols import quality, scored
from angulus.evaluation.protocols.result import Result
from angulus.report.chart import Sheet
from angulus.report.finished_run import FinishedRun, ImagePairs

SIDE = 112  # pixels, at most
COUNT = 12  # thumbnails in a group
SHEET_SIDE = 48  # pixels of a picture on a sheet, at most
LOSSLESS = 32  # pixels: smaller images are digits or icons, which JPEG would blur
FALSE_MATCHES, FALSE_NON_MATCHES = "Wrongly accepted as the same", "Wrongly rejected as different"


@dataclass(frozen=True)
class Thumbnail:
    """One image: its data URI ("" if it is missing), and what it shows, in words."""

    source: str
    alt: str
    right: bool | None = None  # whether it is framed and signed as right or as wrong


@dataclass(frozen=True)
class Captioned:
    """One thumbnail or a pair of them with a caption."""

    images: tuple[Thumbnail, ...]
    caption: str
    wrong: bool = False


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """Pixels [height, width] or [height, width, 3] as a data URI, no larger than `SIDE`."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    return _encode(image, lossless=max(image.size) <= LOSSLESS)


def _encode(image: Image.Image, *, lossless: bool) -> str:
    stream, kind = io.BytesIO(), "png" if lossless else "jpeg"
    image.save(stream, kind, **({"quality": 85} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def draw_sheet(images: Images, rows: NDArray[Any]) -> Sheet:
    """The images of some rows on one sheet, each at most `SHEET_SIDE` pixels wide and high."""
    count, (height, width) = len(rows), images.pixels.shape[-2:]
    side, columns = min(SHEET_SIDE, max(height, width)), math.ceil(math.sqrt(count))
    grey = images.pixels.shape[1] != 3
    sheet = Image.new("L" if grey else "RGB", (columns * side, math.ceil(count / columns) * side))
    for place, row in enumerate(rows.tolist()):
        image = Image.fromarray(_pixels(images, row))
        image.thumbnail((side, side))
        left, top = (side - image.width) // 2, (side - image.height) // 2
        sheet.paste(image, (place % columns * side + left, place // columns * side + top))
    return Sheet(_encode(sheet, lossless=side <= LOSSLESS), side, columns)


def by_norm(run: FinishedRun, images: Images, *, highest: bool) -> list[Captioned]:
    """The test images with the highest or the lowest norms. CM Fig. 1."""
    order = np.argsort(run.test["norms"], kind="stable")
    return [_test_image(run, images, int(row)) for row in (order[::-1] if highest else order)[:COUNT]]


def mistakes(run: FinishedRun, images: Images) -> list[Captioned]:
    """The test images that are classified wrongly, those with the highest norms first."""
    wrong = np.flatnonzero(~run.correct)
    rows = wrong[np.argsort(-run.test["norms"][wrong], kind="stable")]
    return [_test_image(run, images, int(row)) for row in rows[:COUNT]]


def wrong_test_pairs(run: FinishedRun, images: Images, pairs: ImagePairs) -> dict[str, list[Captioned]]:
    """Pairs of test images decided wrongly at the most accurate threshold, the worst first."""

    def captioned(row: int) -> Captioned:
        shown = tuple(_thumbnail(run, images, int(end[row])) for end in (pairs.left, pairs.right))
        return Captioned(shown, f"{' and '.join(image.alt for image in shown)}, cosine {pairs.scores[row]:.3f}")

    correct = pairs.accepted == pairs.same
    return _worst_pairs(pairs.scores, pairs.same, correct, pairs.left, pairs.right, captioned)


def wrong_result_pairs(result: Result, images: Mapping[str, str]) -> dict[str, list[Captioned]]:
    """A saved result's pairs that are decided wrongly, the worst first; `images` are data URIs by id.

    Pairs with an image without embedding are left out, since no score decided them.
    """
    samples = scored.without_failures(result.samples)
    left, right, scores = samples["left"], samples["right"], samples["scores"]

    def captioned(row: int) -> Captioned:
        thumbnails = tuple(Thumbnail(images.get(name, ""), name) for name in (str(left[row]), str(right[row])))
        return Captioned(thumbnails, f"{' and '.join(image.alt for image in thumbnails)}, score {scores[row]:.4g}")

    return _worst_pairs(scores, samples["same"], quality.correct_pairs(samples), left, right, captioned)


def read_images(path: Path, ids: set[str]) -> dict[str, str]:
    """The images with these ids, with or without a file's ending, as data URIs.

    Args:
        path: a folder, a zip, records, a .bin: whatever `angulus convert` reads.
        ids: of the images.

    Raises:
        checks.InputError: there is no such source, or it has none of the images.
    """
    from angulus.data.decode import decode
    from angulus.data.records import Row
    from angulus.data.sources import read_source

    images: dict[str, str] = {}
    for item in read_source(path):
        if isinstance(item, Row):
            for name in {item.id, item.id.rpartition(".")[0]} & ids:
                images[name] = data_uri(decode(item.image, item.id))
    if ids and not images:
        raise checks.InputError(
            f"{path} must hold the images that the results show, by their ids; it has none of these {len(ids):,}, such "
            f"as {min(ids)!r}"
        )
    return images


def _worst_pairs(
    scores: NDArray[Any],
    same: NDArray[np.bool_],
    correct: NDArray[np.bool_],
    left: NDArray[Any],
    right: NDArray[Any],
    captioned: Callable[[int], Captioned],
) -> dict[str, list[Captioned]]:
    """The false matches with the highest scores and the false non-matches with the lowest; each image in one pair."""
    worst = {}
    for name, member, key in ((FALSE_MATCHES, ~same, -scores), (FALSE_NON_MATCHES, same, scores)):
        rows = np.flatnonzero(member & ~correct)
        seen: set[Any] = set()
        chosen: list[Captioned] = []
        for row in rows[np.argsort(key[rows], kind="stable")].tolist():
            ends = {left[row], right[row]}
            if not ends & seen and len(chosen) < COUNT:
                seen |= ends
                chosen.append(captioned(row))
        worst[name] = chosen
    return worst


def _test_image(run: FinishedRun, images: Images, row: int) -> Captioned:
    label, prediction = (run.class_name(int(run.test[name][row])) for name in ("labels", "predictions"))
    wrong = label != prediction
    words = f"{label}, taken for {prediction}" if wrong else label
    return Captioned((_thumbnail(run, images, row),), f"{words}; norm {run.test['norms'][row]:.3g}", wrong)


def _pixels(images: Images, row: int) -> NDArray[np.uint8]:
    """One image, [height, width] or [height, width, 3]."""
    image = images.pixels[torch.tensor([row])][0]
    if image.ndim == 4:  # of a volume, its middle slice
        image = image[:, image.shape[1] // 2]
    pixels = np.moveaxis(image.numpy(), 0, -1)
    if pixels.shape[2] != 3:
        pixels = pixels[:, :, 0]  # the first of channels other than red, green and blue
    return np.ascontiguousarray(pixels)


def _thumbnail(run: FinishedRun, images: Images, row: int) -> Thumbnail:
    alt = f"{run.class_name(int(run.test['labels'][row]))} ({run.image_id(row)})"
    return Thumbnail(data_uri(_pixels(images, row)), alt)
