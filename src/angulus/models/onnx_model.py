"""Any ONNX model as one that embeds: its file, how pixels are prepared for it, and which output holds the features.

A file from a stranger is read, not trusted: it runs in ONNX Runtime with the operators that come with it, and reads no
file outside its own folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from angulus.core import checks, extras, limits
from angulus.core.checks import InputError
from angulus.core.contract import Contract, fingerprint, model_name
from angulus.models.artifact import MOST_SIZE, MOST_VALUES, Config

Layout = Literal["nchw", "nhwc"]
OPERATORS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")  # domains that ONNX Runtime itself computes
MOST_IMAGES = 32  # at a time, where the model takes any number
MOST_BATCH = 2**28  # numbers of a batch whose size the model fixes: 1 GiB in float32

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
_WHAT = "embedding with an ONNX model"


class OnnxModel:
    """An ONNX model that gives one feature per image: what `embed.run` and `Embedder` need of a model.

    Attributes:
        config: the size and channels of its images, the size of its features, and how pixels are prepared.
        precision: "float32"; the file decides what its layers compute in.
    """

    def __init__(self, session: Any, wanted: _Input, output: str, config: Config, means: _Scaling, digits: str) -> None:
        self._session, self._input, self._output, self._scaling = session, wanted, output, means
        self.config, self.fingerprint, self.precision = config, digits, "float32"

    @property
    def name(self) -> str:
        """Fingerprint and flip rule, as of `artifact.Model`; the fingerprint is of the file and the preparation."""
        return model_name(self.fingerprint, self.config.contract.flip)

    def embed(self, pixels: Tensor) -> Tensor:
        """Features [B, d], float32, of images uint8 [B, channels, height, width]: RGB, or grey with one channel."""
        expected = [self.config.in_channels, *self.config.image_size]
        if list(pixels.shape[1:]) != expected:
            listed = ", ".join(map(str, expected))
            raise InputError(f"this model takes images [batch, {listed}]; got {list(pixels.shape)}")
        return self.config.contract.features(self._network, pixels.cpu())

    def _network(self, images: Tensor) -> Tensor:
        """Features of images that the contract has scaled, in batches of the size that the graph has."""
        values = self._input.arrange(self._scaling(images.numpy()))
        size = self._input.batch or MOST_IMAGES
        parts = []
        for start in range(0, len(values), size):
            part = values[start : start + size]
            missing = size - len(part) if self._input.batch else 0
            padded = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
            parts.append(self._run(padded)[: len(part)])
        return torch.from_numpy(np.concatenate(parts))

    def _run(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Features [B, d] of one batch."""
        try:
            (features,) = self._session.run([self._output], {self._input.name: values})
        except Exception as error:  # ONNX Runtime's own classes, which share no base
            given = f"{values.dtype} {list(values.shape)}"
            raise InputError(f"{self._input} cannot run on {given}: {checks.one_line(error)[:300]}") from error
        if not isinstance(features, np.ndarray) or features.ndim != 2 or len(features) != len(values):
            got = list(features.shape) if isinstance(features, np.ndarray) else type(features).__name__
            rule = f"the output {self._output!r} must be features [batch, d], one row per image"
            raise InputError(f"{rule}; got {got} for {len(values)} images; name another with --output")
        if not 0 < features.shape[1] <= MOST_SIZE:
            raise InputError(
                f"the output {self._output!r} must be 1 to {MOST_SIZE:,} numbers; got {features.shape[1]:,}"
            )
        if features.dtype.kind != "f":
            raise InputError(f"the output {self._output!r} must be floating point; got {features.dtype}")
        return features.astype(np.float32, copy=False)


@dataclasses.dataclass(frozen=True)
class _Scaling:
    """(x − mean) / scale per channel, [channels]; None: the contract scales, or the graph."""

    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.mean is None or self.scale is None:
            return images
        mean, scale = (np.array(values, np.float32)[:, None, None] for values in (self.mean, self.scale))
        return (images - mean) / scale


@dataclasses.dataclass(frozen=True)
class _Input:
    """The one input of a graph: what it wants."""

    name: str
    type: str
    shape: tuple[Any, ...]  # a number, a name or None for each axis
    layout: Layout

    @property
    def batch(self) -> int | None:
        """Images at a time; None for any."""
        return self.shape[0] if isinstance(self.shape[0], int) else None

    @property
    def channels(self) -> int | None:
        return self._side(1 if self.layout == "nchw" else 3)

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width; None where the graph takes any."""
        first = 2 if self.layout == "nchw" else 1
        return self._side(first), self._side(first + 1)

    def _side(self, axis: int) -> int | None:
        return self.shape[axis] if isinstance(self.shape[axis], int) else None

    def arrange(self, images: NDArray[Any]) -> NDArray[Any]:
        """Images [B, channels, height, width] in the type and layout of the graph."""
        values = images.astype(_TYPES[self.type], copy=False)
        return np.ascontiguousarray(values.transpose(0, 2, 3, 1) if self.layout == "nhwc" else values)

    def __str__(self) -> str:
        dims = ", ".join("any" if side is None else str(side) for side in self.shape)
        return f"the model, which wants {self.name!r} as {self.type.removeprefix('tensor').strip('()')} [{dims}],"


def load(
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    mean: float | Sequence[float] | None = None,
    scale: float | Sequence[float] | None = None,
    colour: str | None = None,
    flip: str | None = None,
    layout: str | None = None,
    output: str | None = None,
    contract: Path | None = None,
) -> OnnxModel:
    """Load an ONNX model that turns images into features [batch, d].

    Pixels in 0..255 become (x − mean) / scale in the channel order `colour`; a graph with uint8 input gets them as they
    are. What is left out comes from the contract file, then from the graph, then from the defaults. A file of
    `angulus export` prepares pixels itself and needs nothing.

    Args:
        path: an .onnx file with one input of four axes, float32, float16 or uint8, any or a fixed batch.
        size: height and width, for a graph that does not say.
        mean, scale: one number or one per channel, in 0..255 units and in the order of `colour`; 127.5 by default.
        colour: "rgb" (default), "bgr" or "grey".
        flip: "none" (default), "sum" or "concat": how features of mirror images are joined.
        layout: "nchw" or "nhwc"; None: by the place of the channels in the graph, else "nchw".
        output: the name of the output; None: the only one, or `features` of a file that Angulus wrote.
        contract: a JSON file with the keys of a model folder's `contract`, or a folder's config.json; `mean` and
            `scale` may be lists.

    Raises:
        checks.InputError: no ONNX model, custom operators, data outside its folder, an input or output of another form,
            or a missing package.
    """
    onnx, runtime = (extras.load(name, "onnx", _WHAT) for name in ("onnx", "onnxruntime"))
    proto = _read(onnx, path)
    own = {item.key: item.value for item in proto.metadata_props}.get("angulus.contract")
    stated: dict[str, Any] = {
        "size": size,
        "mean": mean,
        "scale": scale,
        "colour": colour,
        "flip": flip,
        "layout": layout,
    }
    given = {name: value for name, value in stated.items() if value is not None}
    if contract is not None:
        given = _contract_file(contract) | given
    if own is not None and given:
        fault = f"{path} prepares pixels itself, as angulus export wrote it"
        raise InputError(f"{fault}; leave out {next(iter(given))} and every other setting of pixels")
    if own is not None:
        described = _object(own, f"the contract in {path}")
        given = {name: described[name] for name in ("template", "size") if described.get(name) is not None}
    digest = hashlib.sha256()
    for file in (path, *_external(onnx, proto, path)):
        digest.update(file.read_bytes())
    session = _session(runtime, path)
    wanted = _input(session, path, given.pop("layout", None))
    prepared, config = _prepare(wanted, given, own is not None)
    found = OnnxModel(session, wanted, _output(session, output, own is not None), config, prepared, "")
    example = torch.zeros(1, config.in_channels, *config.image_size, dtype=torch.uint8)
    plain = dataclasses.replace(config.contract, flip="none")
    width = plain.features(found._network, example).shape[1]
    found.config = dataclasses.replace(config, embedding_size=width)
    content = {
        "contract": dataclasses.asdict(config.contract),
        "scaling": dataclasses.asdict(prepared),
        "layout": wanted.layout,
        "output": found._output,
    }
    found.fingerprint = fingerprint(digest.hexdigest(), content)
    return found


def open_safely(path: Path) -> Any:
    """An ONNX Runtime session of a file, which must not need custom operators or data outside its folder."""
    onnx, runtime = (extras.load(name, "onnx", _WHAT) for name in ("onnx", "onnxruntime"))
    _external(onnx, _read(onnx, path), path)
    return _session(runtime, path)


def _prepare(wanted: _Input, given: dict[str, Any], own: bool) -> tuple[_Scaling, Config]:
    """How pixels are prepared, and the form of the images."""
    unknown = [name for name in given if name not in {field.name for field in dataclasses.fields(Contract)}]
    if unknown:
        known = [field.name for field in dataclasses.fields(Contract)]
        raise InputError(f"the contract has an unknown key {unknown[0]!r}{checks.nearest(unknown[0], known)}")
    if given.get("normalize") == "mean_image":
        raise InputError("an ONNX model cannot subtract a mean image; put the subtraction into the graph")
    size = _size(wanted, given.pop("size", None))
    channels = wanted.channels or (1 if given.get("colour") == "grey" else 3)
    colour = given.setdefault("colour", None if own else "grey" if channels == 1 else "rgb")
    if channels not in (1, 3) or (colour is not None and (colour == "grey") != (channels == 1)):
        raise InputError(f"{wanted} must take images of 1 or 3 channels in the colour that it is given; got {colour}")
    raw = wanted.type == "tensor(uint8)"
    pair = [given.pop(name, None) for name in ("mean", "scale")]
    if raw and any(value is not None for value in pair):
        raise InputError(f"{wanted} takes bytes of pixels and scales them itself; leave out mean and scale")
    scaling = _Scaling()
    if raw:
        given |= {"mean": 0.0, "scale": 1.0}
    elif any(isinstance(value, list | tuple) for value in pair):
        mean, scale = (_per_channel(n, v, channels) for n, v in zip(("mean", "scale"), pair, strict=True))
        scaling = _Scaling(mean, scale)
        given |= {"mean": 0.0, "scale": 1.0}
    else:
        given |= {name: v for name, v in zip(("mean", "scale"), pair, strict=True) if v is not None}
    values = channels * math.prod(size)
    if values > MOST_VALUES:
        raise InputError(f"{wanted} must take images of at most {MOST_VALUES:,} numbers; got {values:,}")
    if values * (wanted.batch or 1) > MOST_BATCH:
        rule = f"{wanted} must take batches of at most {MOST_BATCH:,} numbers"
        raise InputError(f"{rule}; got {values * (wanted.batch or 1):,}; export it with a batch of any size")
    return scaling, Config("onnx", channels, size, 1, contract=Contract(**given, size=size))


def _per_channel(name: str, value: Any, channels: int) -> tuple[float, ...]:
    """One finite number for each channel."""
    values = [value] * channels if not isinstance(value, list | tuple) else value
    values = [127.5 if item is None else item for item in values]
    if len(values) == 1:
        values = list(values) * channels
    if len(values) != channels:
        raise InputError(f"{name} must be one number, or one for each of {channels} channels; got {len(values)}")
    positive = name == "scale"
    return tuple(checks.number(name, item, low=0 if positive else -np.inf, open_low=positive) for item in values)


def _size(wanted: _Input, given: object) -> tuple[int, int]:
    """Height and width: the graph's, or those given where the graph takes any."""
    if given is not None and not (isinstance(given, list | tuple) and len(given) == 2):
        raise InputError(f"size must be height and width; got {checks.shown(given)}")
    asked: tuple[Any, Any] = (None, None) if given is None else (given[0], given[1])
    sides = []
    for own, other in zip(wanted.size, asked, strict=True):
        if own is None and other is None:
            raise InputError(f"{wanted} takes any size; give the one of its training with --size, such as 112x112")
        if own is not None and other not in (None, own):
            raise InputError(f"{wanted} takes no size {asked[0]}x{asked[1]}; leave out --size")
        sides.append(checks.integer("size", other if own is None else own, low=1))
    return sides[0], sides[1]


def _read(onnx: Any, path: Path) -> Any:
    """The model without its external data; custom operators are refused."""
    if not path.is_file():
        reason = "it is a folder" if path.exists() else "there is no such file"
        raise InputError(f"{path} must be an .onnx file; {reason}")
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, and what onnx raises for other formats
        raise InputError(f"{path} must be an ONNX model; reading it gave: {checks.one_line(error)[:200]}") from error
    if not proto.graph.node:
        raise InputError(f"{path} must be an ONNX model; it holds no operator")
    local = {(function.domain, function.name) for function in proto.functions}
    for node in _nodes(proto):
        if node.domain not in OPERATORS and (node.domain, node.op_type) not in local:
            raise InputError(
                f"{path} needs the custom operator {node.domain}:{node.op_type}, which would be code from its author; "
                "export it with ONNX's own operators"
            )
    return proto


def _nodes(proto: Any) -> Iterator[Any]:
    """All nodes, of functions and of graphs within nodes too."""
    left = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    while left:
        node = left.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                left += graph.node


def _external(onnx: Any, proto: Any, path: Path) -> list[Path]:
    """The files next to a model that hold its weights; one outside the model's folder is refused."""
    graphs = [proto.graph]
    tensors = []
    for node in _nodes(proto):
        for attribute in node.attribute:
            graphs += [attribute.g, *attribute.graphs]
            tensors += [attribute.t, *attribute.tensors]
            sparse = [attribute.sparse_tensor, *attribute.sparse_tensors]
            tensors += [part for each in sparse for part in (each.values, each.indices)]
    for graph in graphs:
        tensors += graph.initializer
        tensors += [part for each in graph.sparse_initializer for part in (each.values, each.indices)]
    # a hub's cache links both the model and its weights to another folder, which they share
    own, files = {path.parent.resolve(), path.resolve().parent}, set()
    for tensor in tensors:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((item.value for item in tensor.external_data if item.key == "location"), "")
        file = Path(os.path.realpath(path.parent / location)) if "\0" not in location else path.parent.parent
        if not location or not any(file.is_relative_to(folder) for folder in own):
            raise InputError(
                f"{path} must keep its weights in its own folder; it names {checks.shown(location)}, which lies outside"
            )
        if not os.path.isfile(file):  # unlike Path.is_file, it takes a name that is too long for any file
            raise InputError(
                f"{path} needs the file {checks.shown(location)} next to it, which is not there; fetch it too"
            )
        files.add(file)
    return sorted(files)


def _session(runtime: Any, path: Path) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors come as exceptions
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes, which share no base
        raise InputError(f"{path} cannot be run by ONNX Runtime: {checks.one_line(error)[:300]}") from error


def _input(session: Any, path: Path, layout: str | None) -> _Input:
    """The input of the graph, if it is one batch of images."""
    inputs = session.get_inputs()
    listed = "; ".join(f"{each.name!r} {each.type} {list(each.shape)}" for each in inputs)
    if len(inputs) != 1:
        raise InputError(f"{path} must have one input, a batch of images; it has {len(inputs)}: {listed}")
    (only,) = inputs
    if only.type not in _TYPES or len(only.shape) != 4:
        rule = f"{path} must take images [batch, channels, height, width], float32, float16 or uint8"
        raise InputError(f"{rule}; it wants {listed}")
    if layout is not None:
        checks.choice("layout", layout, get_args(Layout))
    last = only.shape[3] in (1, 3) and only.shape[1] not in (1, 3)
    return _Input(only.name, only.type, tuple(only.shape), layout or ("nhwc" if last else "nchw"))  # type: ignore[arg-type]


def _output(session: Any, name: str | None, own: bool) -> str:
    """The name of the output that holds the features."""
    names = [output.name for output in session.get_outputs()]
    listed = ", ".join(f"{output.name} {list(output.shape)}" for output in session.get_outputs())
    if name is not None:
        if name not in names:
            raise InputError(f"--output must be one of {listed}; got {name!r}{checks.nearest(name, names)}")
        return name
    if own and "features" in names:
        return "features"
    if len(names) > 1:
        raise InputError(f"the model has several outputs; name the one with the features with --output: {listed}")
    return str(names[0])


def _contract_file(path: Path) -> dict[str, Any]:
    """The settings in a JSON file: a contract, or a model folder's config.json, which holds one."""
    content = _object(limits.read_file(path), str(path))
    inner = content.get("contract", content)
    if not isinstance(inner, Mapping):
        raise InputError(f"the contract in {path} must be names with values; got {checks.shown(inner)}")
    return {name: value for name, value in inner.items() if value is not None}


def _object(text: str | bytes, what: str) -> dict[str, Any]:
    content = limits.parse_json(text, what)
    if not isinstance(content, dict):
        raise InputError(f"{what} must be a JSON object; got {checks.shown(content)}")
    return content
