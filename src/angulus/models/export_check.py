"""An ONNX file of a model next to PyTorch: its features, norms and probabilities, and decisions about pairs."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from angulus.core import checks, extras, formats
from angulus.core.checks import InputError
from angulus.core.contract import describe_model
from angulus.core.embeddings import Embeddings
from angulus.data.records import Row
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.metrics.intervals import MOST_DRAWS
from angulus.models import onnx_model
from angulus.models.artifact import Config, Model
from angulus.models.inputs import draw_pixels, read_pixels, row_labels
from angulus.models.parity import Parity, compare_features, compare_on_pairs

INPUT, OUTPUTS, PROBABILITIES = "pixels", ("features", "norms"), "probabilities"
TOLERANCE = 1e-5  # of float32
GENERATED = 32  # images to compare on if the caller has none

_BATCH = 64
_ROUNDINGS = 10  # times float32's own rounding: both sides round, in different orders


class Reference(NamedTuple):
    """Images uint8 [N, channels, height, width] to compare on, and PyTorch's features of them."""

    pixels: NDArray[np.uint8]
    own: Embeddings


def check(
    model: Model,
    path: Path,
    *,
    images: Path | None = None,
    pairs: PairList | None = None,
    draws: int = 1000,
    seed: int = 0,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> tuple[Parity, str]:
    """How far a file that `export` wrote is from PyTorch, also if another tool has changed it; writes nothing.

    Args:
        model: what it was exported from, on the CPU.
        path: the file. Its differences are reported, however large they are.
        images, pairs, draws, seed, on_stage: as of `export`.

    Returns:
        the differences, and the precision that the file's metadata state, "" if they state none.

    Raises:
        checks.InputError: a file of another model, or with other inputs and outputs; a pair whose image is absent.
    """
    refuse_pairs(images, pairs, draws)
    session = onnx_model.open_safely(path)
    about = session.get_modelmeta().custom_metadata_map
    inputs, outputs = ([each.name for each in nodes] for nodes in (session.get_inputs(), session.get_outputs()))
    if inputs != [INPUT] or not set(OUTPUTS) <= set(outputs):
        rule = f"{path} must take {INPUT!r} and give {' and '.join(OUTPUTS)}, as angulus export writes it"
        got = f"it takes {', '.join(inputs)} and gives {', '.join(outputs)}"
        raise InputError(f"{rule}; {got}; evaluate any other file with angulus embed --onnx")
    if about.get("angulus.model", model.name) != model.name:
        rule = f"{path} must be of {describe_model(model.name)}"
        raise InputError(f"{rule}; it is of {describe_model(about['angulus.model'])}; give that model, or its --flip")
    given = refer(model, images, pairs, seed, on_stage)
    classes = PROBABILITIES in outputs and bool(model.classes)
    parity = compare(model, path, given, pairs, draws, on_stage, classes=classes, strict=False)
    precision = about.get("angulus.precision", "")
    return parity, precision if precision.isalnum() else ""


def refer(
    model: Model, images: Path | None, pairs: PairList | None, seed: int, on_stage: Callable[[str], None]
) -> Reference:
    """PyTorch's features of the images of a source, or of generated ones; pairs of other images are refused."""
    on_stage("reading images")
    rows, pixels = _generated(model.config, seed) if images is None else read(images, model.config)
    on_stage(f"PyTorch's features of {len(rows):,} images")
    ids = formats.text_array([row.id for row in rows])
    own = Embeddings(_in_batches(model.embed, pixels), ids, labels=row_labels(rows), source=str(images))
    if pairs is not None:
        own.rows(pairs.ids, pairs.source)
    return Reference(pixels, own)


def read(source: Path, config: Config, most: int | None = None, seed: int = 0) -> tuple[list[Row], NDArray[np.uint8]]:
    """All images of a source, or at most `most` of them, drawn."""
    images = draw_pixels(source, config, most, seed) if most else list(read_pixels(source, config))
    if not images:
        raise InputError(f"{source} holds no image to measure on")
    return [row for row, _ in images], np.stack([pixels.numpy() for _, pixels in images])


def compare(
    model: Model,
    path: Path,
    given: Reference,
    pairs: PairList | None,
    draws: int,
    on_stage: Callable[[str], None],
    *,
    classes: bool,
    strict: bool,
) -> Parity:
    """Compare a file's output with PyTorch's; with `strict`, one further off than float32's rounding is refused."""
    pixels, own = given
    on_stage(f"ONNX Runtime's features of {len(pixels):,} images")
    names = (*OUTPUTS, *([PROBABILITIES] if classes else []))
    shapes = (own.vectors.shape, (len(pixels),), (len(pixels), len(model.classes)))
    found = _outputs(path, pixels, names)
    for name, values, shape in zip(names, found, shapes, strict=False):
        if values.shape != shape or values.dtype.kind != "f":
            rule = f"the output {name!r} of {path} must be {list(shape)} of floating point, as the model's"
            raise InputError(f"{rule}; got {list(values.shape)} of {values.dtype}; export the model again")
    features, norms, *others = found
    parity = compare_features(own.vectors, features, norms)
    if classes:
        error = _probability_error(model, pixels, others[0], strict)
        parity = dataclasses.replace(parity, probability_error=error)
    if strict and not max(parity.feature_error, parity.norm_error) <= TOLERANCE:
        parity = dataclasses.replace(parity, rounding=_rounding(model, pixels, own.vectors))
        _refuse_far(parity, model.config.backbone)
    if pairs is None:
        return parity
    on_stage(f"measuring {len(pairs):,} pairs")
    calibrated = model.calibration if model.calibration and model.calibration.model == model.name else None
    threshold = None if calibrated is None else calibrated.threshold.value
    other = Embeddings(features, own.ids, labels=own.labels, source="the exported model")
    return dataclasses.replace(parity, pairs=compare_on_pairs(own, other, pairs, threshold=threshold, draws=draws))


def run(path: Path, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features [N, d] and norms [N] that the file computes for images uint8 [N, channels, height, width]."""
    features, norms = _outputs(path, pixels, OUTPUTS)
    return features, norms


def predict(path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities [N, C] that the file computes for images uint8 [N, channels, height, width]."""
    return _outputs(path, pixels, (PROBABILITIES,))[0]


def _outputs(path: Path, pixels: NDArray[np.uint8], names: Sequence[str]) -> list[NDArray[np.float32]]:
    session = _session(path)
    try:
        parts = [session.run(list(names), {INPUT: batch}) for batch in batches(pixels)]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]
    except Exception as error:  # ONNX Runtime's own classes, which share no base
        given = f"{pixels.dtype} [any, {', '.join(map(str, pixels.shape[1:]))}]"
        raise InputError(f"{path} cannot run on images {given}: {checks.one_line(error):.300}") from error


def _session(path: Path) -> Any:
    runtime = extras.load("onnxruntime", "onnx", "exporting to ONNX")
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _in_batches(function: Callable[[Tensor], Tensor], pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return torch.cat([function(torch.from_numpy(batch)) for batch in batches(pixels)]).cpu().numpy()


def _rounding(model: Model, pixels: NDArray[np.uint8], own: NDArray[np.float32]) -> float:
    """The largest ‖x − x64‖ / ‖x64‖ of PyTorch's features in float32."""
    wide = copy.deepcopy(model.backbone).cpu().double()
    with torch.no_grad():
        rows = torch.split(torch.from_numpy(pixels), 1)
        exact = [model.preprocessing.features(lambda images: wide(images.double()), row) for row in rows]
    return compare_features(torch.cat(exact).numpy(), own, np.linalg.norm(own, axis=1)).feature_error


def _refuse_far(parity: Parity, backbone: str) -> None:
    """Refuse a float32 file that is further off than rounding explains."""
    worst = max(parity.feature_error, parity.norm_error)
    if parity.rounding is None or not worst <= _ROUNDINGS * parity.rounding:
        rule = f"the exported model must give PyTorch's features within {TOLERANCE:g}"
        got = f"{worst:.2g}, where float32 itself rounds by {parity.rounding or 0:.2g}"
        raise InputError(f"{rule}; got {got}; the backbone {backbone!r} holds what does not export")


def _probability_error(model: Model, pixels: NDArray[np.uint8], found: NDArray[np.float32], strict: bool) -> float:
    """The largest difference from PyTorch's probabilities; with `strict`, more than the logits' rounding is refused.

    A probability moves by at most half of what the logits move by, and those are as exact as features: relatively.
    """
    logits = torch.from_numpy(_in_batches(model.logits, pixels))
    error = float(np.abs(torch.softmax(logits, dim=1).numpy() - found).max())
    most = _ROUNDINGS * TOLERANCE * (1 + float(logits.abs().max()))
    if strict and not error <= most:
        raise checks.InputError(
            f"the exported model must give PyTorch's probabilities within {most:.2g}; got {error:.2g}; export it "
            "without classes"
        )
    return error


def _generated(config: Config, seed: int) -> tuple[list[Row], NDArray[np.uint8]]:
    """Smooth patterns with noise: a network hardly tells images of pure noise apart."""
    rng = np.random.default_rng(seed)
    axes = len(config.image_size)
    coarse = rng.integers(0, 256, (GENERATED, config.in_channels, *(4,) * axes)).astype(np.float32)
    mode = "bilinear" if axes == 2 else "trilinear"
    smooth = nn.functional.interpolate(torch.from_numpy(coarse), config.image_size, mode=mode).numpy()
    noisy = smooth + rng.normal(0, 16, smooth.shape)
    pixels = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return [Row(str(number), b"-", "") for number in range(GENERATED)], pixels


def batches(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Some images at a time."""
    return (pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH))


def refuse_pairs(images: Path | None, pairs: PairList | None, draws: int) -> None:
    """Refuse a list of pairs that nothing can be measured on."""
    checks.integer("draws", draws, low=0, high=MOST_DRAWS, hint="0 gives no intervals")
    if images is None and pairs is not None:
        raise InputError("a list of pairs needs images; give them with --images")
    if pairs is not None and (pairs.same.all() or not pairs.same.any()):
        kind = "genuine" if pairs.same.all() else "impostor"
        rule = f"{pairs.source} must hold genuine and impostor pairs"
        raise InputError(f"{rule}; got {len(pairs)} {kind} ones only; add others")
