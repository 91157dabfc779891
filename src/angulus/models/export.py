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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from angulus.backbones.layers import UnitFeatures
from angulus.core import checks, extras, files
from angulus.core.checks import InputError
from angulus.core.version import __version__
from angulus.evaluation.lists.pair_list import PairList
from angulus.models.artifact import Model
from angulus.models.export_check import INPUT, OUTPUTS, PROBABILITIES, batches, compare, read, refer, refuse_pairs
from angulus.models.parity import Parity

PRECISIONS = ("float32", "float16", "int8")
OPSET = 18
MOST_RANGES = 1000  # images that the ranges of layers are measured on


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
    _refuse_early(out, precision, images, ranges)
    refuse_pairs(images, pairs, draws)
    if classes:
        model.need_classes()
    classes = bool(model.classes) if classes is None else classes
    given = refer(model, images, pairs, seed, on_stage)
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / "model.onnx"
        on_stage("writing the graph")
        _write(model, draft, precision, classes)
        if precision == "int8":
            fitted = given.pixels if ranges is None else read(ranges, model.config, MOST_RANGES, seed)[1]
            on_stage(f"measuring the ranges of layers on {len(fitted):,} images")
            draft = _quantized(draft, fitted)
        strict = precision == "float32"
        parity = compare(model, draft, given, pairs, draws, on_stage, classes=classes, strict=strict)
        content = draft.read_bytes()
    files.make_folder(out.parent)
    files.write_atomically(out, lambda file: file.write(content))
    return parity


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
        "angulus": __version__,
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
        self.parts = batches(pixels)

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


def _refuse_early(out: Path, precision: str, images: Path | None, ranges: Path | None) -> None:
    """Refuse wrong arguments before any work."""
    checks.choice("precision", precision, PRECISIONS)
    if out.suffix != ".onnx":
        raise InputError(f"the model must be written to a file that ends in .onnx; got {out}")
    if ranges is not None and precision != "int8":
        raise InputError(f"ranges of layers apply only to precision int8; got {precision}; leave --ranges out")
    if images is None and ranges is None and precision == "int8":
        fault = "precision int8, which measures the range of every layer, needs images"
        raise InputError(f"{fault}; give some like those that the model will see with --ranges, or --images")
    for name in ("onnx", "onnxscript", "onnxruntime"):
        _library(name)


def _library(name: str) -> Any:
    return extras.load(name, "onnx", "exporting to ONNX")
