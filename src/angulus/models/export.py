"""Export a trained model as one ONNX file that runs without Angulus: bytes of pixels in, features and norms out, and
probabilities of its classes.

The contract is part of the graph. The output is compared with PyTorch's before the file is put in place.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from angulus.backbones.layers import UnitFeatures
from angulus.core import checks, extras, files, formats
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.metrics.intervals import MOST_DRAWS
from angulus.models.artifact import Config, Model
from angulus.models.inputs import draw_pixels, read_pixels, row_labels
from angulus.models.parity import Parity, compare_features, compare_on_pairs

INPUT, OUTPUTS, PROBABILITIES = "pixels", ("features", "norms"), "probabilities"
PRECISIONS = ("float32", "float16", "int8")
OPSET = 18
TOLERANCE = 1e-5  # of float32
GENERATED = 32  # images to compare on if the caller has none
MOST_RANGES = 1000  # images that the ranges of layers are measured on

_BATCH = 64
_ROUNDINGS = 10  # times float32's own rounding: both sides round, in different orders


@dataclass(frozen=True, eq=False)
class _Images:
    """N images as the model takes them: ids [N], uint8 [N, channels, height, width], identities [N] ("": unknown)."""

    ids: NDArray[np.str_]
    pixels: NDArray[np.uint8]
    labels: NDArray[np.str_] | None = None


def export(
    model: Model,
    out: Path,
    *,
    precision: str = "float32",
    images: Path | None = None,
    ranges: Path | None = None,
    pairs: PairList | None = None,
    draws: int = 1000,
    seed: int = 0,
    classes: bool | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Parity:
    """Write a model as ONNX, and measure how far its output in ONNX Runtime is from PyTorch's.

    Input `pixels`: uint8 [batch, channels, height, width], any batch. Outputs `features` [batch, d] and
    `norms` [batch], float32, with the contract's rule for mirror images, and with `classes` the `probabilities`
    [batch, C] of `Model.predict`. The metadata describe the pixels and name the classes.

    Args:
        model: on the CPU.
        precision: "float32"; "float16": for weights and layers, with pixels scaled and norms computed in float32;
            "int8": weights per channel, and the inputs of layers by their range over `ranges`.
        images: any source that `angulus embed` reads, to compare on; None: generated images, which say less.
        ranges: for int8: images like those that the model will see, up to 1,000 of which are drawn; None: `images`,
            which then flatters the errors.
        pairs: of the images, for accuracy before and after.
        draws: resamples of the people on the pairs, for intervals; 0 for none.
        seed: of the generated images, and of the draw of `ranges`.
        classes: whether to add the probabilities; None: if the model has class weights.
        on_stage: called with the name of each stage.

    Raises:
        checks.InputError: missing packages, int8 without images, `classes` without class weights, a pair whose image is
            absent, or a float32 file that differs by more than 1e-5 and more than rounding explains; nothing is written
            then.
    """
    _refuse_early(out, precision, images, ranges, pairs)
    checks.integer("draws", draws, low=0, high=MOST_DRAWS, hint="0 gives no intervals")
    if classes:
        model.need_classes()
    classes = bool(model.classes) if classes is None else classes
    on_stage("reading images")
    given = _generated(model.config, seed) if images is None else _read(images, model.config)
    on_stage(f"PyTorch's features of {len(given.ids):,} images")
    own = _in_batches(model.embed, given.pixels)
    if pairs is not None:
        _embeddings(given, own, str(images)).rows(pairs.ids, pairs.source)  # refused before the long part
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / "model.onnx"
        on_stage("writing the graph")
        _write(model, draft, precision, classes)
        if precision == "int8":
            fitted = given if ranges is None else _read(ranges, model.config, MOST_RANGES, seed)
            on_stage(f"measuring the ranges of layers on {len(fitted.ids):,} images")
            draft = _quantized(draft, fitted.pixels)
        on_stage(f"ONNX Runtime's features of {len(given.ids):,} images")
        features, norms, *others = _outputs(draft, given.pixels, (*OUTPUTS, *([PROBABILITIES] if classes else [])))
        parity = compare_features(own, features, norms)
        if classes:
            error = _probability_error(model, given.pixels, others[0], precision)
            parity = dataclasses.replace(parity, probability_error=error)
        if precision == "float32" and not max(parity.feature_error, parity.norm_error) <= TOLERANCE:
            parity = dataclasses.replace(parity, rounding=_rounding(model, given.pixels, own))
            _check(parity, model.config.backbone)
        if pairs is not None:
            on_stage(f"measuring {len(pairs):,} pairs")
            both = _embeddings(given, own, str(images)), _embeddings(given, features, "the exported model")
            calibrated = model.calibration if model.calibration and model.calibration.model == model.name else None
            threshold = None if calibrated is None else calibrated.threshold.value
            parity = dataclasses.replace(parity, pairs=compare_on_pairs(*both, pairs, threshold=threshold, draws=draws))
        content = draft.read_bytes()
    files.make_folder(out.parent)
    files.write_atomically(out, lambda file: file.write(content))
    return parity


def run(path: Path, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features [N, d] and norms [N] that the file computes for images uint8 [N, channels, height, width]."""
    features, norms = _outputs(path, pixels, OUTPUTS)
    return features, norms


def predict(path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities [N, C] that the file computes for images uint8 [N, channels, height, width]."""
    return _outputs(path, pixels, (PROBABILITIES,))[0]


def _outputs(path: Path, pixels: NDArray[np.uint8], names: Sequence[str]) -> list[NDArray[np.float32]]:
    runtime = _library("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = [session.run(list(names), {INPUT: batch}) for batch in _batches(pixels)]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def _in_batches(function: Callable[[Tensor], Tensor], pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return torch.cat([function(torch.from_numpy(batch)) for batch in _batches(pixels)]).cpu().numpy()


class _Graph(nn.Module):
    """The exported graph: scaling, mirror images, layers, norms, and the probabilities of classes if asked."""

    def __init__(self, model: Model, half: bool, classes: bool) -> None:
        super().__init__()
        self.preprocessing = copy.deepcopy(model.preprocessing).cpu()
        self.layers, self.unit = copy.deepcopy(model.backbone).cpu(), model.config.normalize
        if self.unit:  # squares of float16 features may overflow: lengths are computed in float32
            self.layers = self.layers[0]  # type: ignore[index]
        self.classifier = copy.deepcopy(model.classifier).cpu() if classes and model.classifier else None
        self.dtype = torch.float16 if half else torch.float32
        self.layers.to(self.dtype).eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Images uint8 [B, C, H, W] -> features [B, d], norms [B], and the probabilities of the classes."""
        passes: list[Tensor] = []  # of the network: the images, then the mirrored ones if the contract wants them

        def network(images: Tensor) -> Tensor:
            passes.append(self._network(images))
            return passes[-1]

        features = self.preprocessing.features(network, pixels)
        norms = torch.linalg.vector_norm(features, dim=1)
        if self.classifier is None:
            return features, norms
        return features, norms, torch.softmax(self.classifier(passes[0]).float(), dim=1)

    def _network(self, images: Tensor) -> Tensor:
        features = self.layers(images.to(self.dtype)).float()
        return UnitFeatures()(features) if self.unit else features  # type: ignore[no-any-return]


def _write(model: Model, path: Path, precision: str, classes: bool) -> None:
    onnx = _library("onnx")
    config = model.config
    example = torch.zeros(2, config.in_channels, *config.image_size, dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            _Graph(model, precision == "float16", classes).eval(),
            (example,),
            input_names=[INPUT],
            output_names=[*OUTPUTS, *([PROBABILITIES] if classes else [])],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise InputError(f"the backbone {config.backbone!r} cannot be exported by this version of PyTorch")
    proto = program.model_proto
    about = _about(model, precision) | ({"angulus.classes": json.dumps(model.classes)} if classes else {})
    onnx.helper.set_model_props(proto, about)
    onnx.save(proto, str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress report and its own deprecation warnings."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _about(model: Model, precision: str) -> dict[str, str]:
    """The file's metadata: plain text, which the graph does not need."""
    config = model.config
    shape = f"[batch, {config.in_channels}, {', '.join(map(str, config.image_size))}]"
    about = {
        "angulus": metadata.version("angulus"),
        "angulus.model": model.name,
        "angulus.sha256": model.sha256,
        "angulus.backbone": config.backbone,
        "angulus.precision": precision,
        "angulus.contract": json.dumps(dataclasses.asdict(config.contract)),
        "angulus.input": f"uint8 {shape}, {'grey' if config.in_channels == 1 else 'RGB'}; the graph scales them",
    }
    if model.calibration is not None:
        about["angulus.threshold"] = repr(model.calibration.threshold.value)
        about["angulus.calibrated_for"] = str(model.calibration.model)
    return about


class _Reader:
    """Passes images to the library that measures the ranges of layers."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.parts = _batches(pixels)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        part = next(self.parts, None)
        return None if part is None else {INPUT: part}


def _quantized(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """The same model with 8-bit weights and layer inputs, in a file next to it."""
    quantization = _library("onnxruntime.quantization")
    onnx = _library("onnx")
    about = {item.key: item.value for item in onnx.load(str(path)).metadata_props}
    prepared, out = path.with_name("prepared.onnx"), path.with_name("quantized.onnx")
    quantization.shape_inference.quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    bits = dict.fromkeys(("activation_type", "weight_type"), quantization.QuantType.QInt8)
    options = {"per_channel": True, "op_types_to_quantize": ["Conv", "Gemm", "MatMul"], **bits}
    form = quantization.QuantFormat.QDQ
    quantization.quantize_static(str(prepared), str(out), _Reader(pixels), quant_format=form, **options)
    proto = onnx.load(str(out))
    onnx.helper.set_model_props(proto, about)
    onnx.save(proto, str(out))
    return out


def _rounding(model: Model, pixels: NDArray[np.uint8], own: NDArray[np.float32]) -> float:
    """The largest ‖x − x64‖ / ‖x64‖ of PyTorch's features in float32."""
    wide = copy.deepcopy(model.backbone).cpu().double()
    with torch.no_grad():
        rows = torch.split(torch.from_numpy(pixels), 1)
        exact = [model.preprocessing.features(lambda images: wide(images.double()), row) for row in rows]
    return compare_features(torch.cat(exact).numpy(), own, np.linalg.norm(own, axis=1)).feature_error


def _check(parity: Parity, backbone: str) -> None:
    """Refuse a float32 file that is further off than rounding explains."""
    worst = max(parity.feature_error, parity.norm_error)
    if parity.rounding is None or not worst <= _ROUNDINGS * parity.rounding:
        rule = f"the exported model must give PyTorch's features within {TOLERANCE:g}"
        got = f"{worst:.2g}, where float32 itself rounds by {parity.rounding or 0:.2g}"
        raise InputError(f"{rule}; got {got}; the backbone {backbone!r} holds what does not export")


def _probability_error(model: Model, pixels: NDArray[np.uint8], found: NDArray[np.float32], precision: str) -> float:
    """The largest difference from PyTorch's probabilities; a float32 file further off than its logits round is refused.

    A probability moves by at most half of what the logits move by, and those are as exact as features: relatively.
    """
    logits = torch.from_numpy(_in_batches(model.logits, pixels))
    error = float(np.abs(torch.softmax(logits, dim=1).numpy() - found).max())
    most = _ROUNDINGS * TOLERANCE * (1 + float(logits.abs().max()))
    if precision == "float32" and not error <= most:
        raise checks.InputError(
            f"the exported model must give PyTorch's probabilities within {most:.2g}; got {error:.2g}; export it "
            "without classes"
        )
    return error


def _refuse_early(out: Path, precision: str, images: Path | None, ranges: Path | None, pairs: PairList | None) -> None:
    """Refuse wrong arguments before any work."""
    checks.choice("precision", precision, PRECISIONS)
    if out.suffix != ".onnx":
        raise InputError(f"the model must be written to a file that ends in .onnx; got {out}")
    if ranges is not None and precision != "int8":
        raise InputError(f"ranges of layers apply only to precision int8; got {precision}; leave --ranges out")
    if images is None and pairs is not None:
        raise InputError("a list of pairs needs images; give them with --images")
    if pairs is not None and (pairs.same.all() or not pairs.same.any()):
        kind = "genuine" if pairs.same.all() else "impostor"
        rule = f"{pairs.source} must hold genuine and impostor pairs"
        raise InputError(f"{rule}; got {len(pairs)} {kind} ones only; add others")
    if images is None and ranges is None and precision == "int8":
        fault = "precision int8, which measures the range of every layer, needs images"
        raise InputError(f"{fault}; give some like those that the model will see with --ranges, or --images")
    for name in ("onnx", "onnxscript", "onnxruntime"):
        _library(name)


def _read(source: Path, config: Config, most: int | None = None, seed: int = 0) -> _Images:
    """All images of a source, or at most `most` of them, drawn."""
    images = draw_pixels(source, config, most, seed) if most else list(read_pixels(source, config))
    if not images:
        raise InputError(f"{source} holds no image to measure on")
    rows = [row for row, _ in images]
    pixels = np.stack([pixels.numpy() for _, pixels in images])
    return _Images(formats.text_array([row.id for row in rows]), pixels, row_labels(rows))


def _embeddings(given: _Images, features: NDArray[np.float32], source: str) -> Embeddings:
    return Embeddings(features, given.ids, labels=given.labels, source=source)


def _generated(config: Config, seed: int) -> _Images:
    """Smooth patterns with noise: a network hardly tells images of pure noise apart."""
    rng = np.random.default_rng(seed)
    axes = len(config.image_size)
    coarse = rng.integers(0, 256, (GENERATED, config.in_channels, *(4,) * axes)).astype(np.float32)
    mode = "bilinear" if axes == 2 else "trilinear"
    smooth = nn.functional.interpolate(torch.from_numpy(coarse), config.image_size, mode=mode).numpy()
    noisy = smooth + rng.normal(0, 16, smooth.shape)
    return _Images(np.arange(GENERATED).astype(np.str_), np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def _batches(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    return (pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH))


def _library(name: str) -> Any:
    return extras.load(name, "onnx", "exporting to ONNX")
