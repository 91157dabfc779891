"""Checkpoints of other projects as model folders: insightface, AdaFace, CVLface, facenet, pytorch-metric-learning.

A checkpoint's tensors are taken by name and shape; nothing in it can run code.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from angulus import losses
from angulus.backbones.arcface import CHANNELS, DEPTHS
from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.contract import Contract
from angulus.models import artifact
from angulus.models.classifier import Classifier

COLOURS = ("rgb", "bgr")  # of its contract
State = dict[str, Tensor]
Names = list[tuple[str, str]]  # of layers in our order: name, kind

_KINDS = {  # what a layer keeps, in PyTorch's order
    "conv": ("weight",),
    "biased": ("weight", "bias"),
    "norm": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
}
_WRAPPED = ("state_dict", "state_dict_backbone", "model", "backbone")  # keys under which trainers put the weights
_SHARD = re.compile(r"(?:softmax_fc_gpu|checkpoint_gpu|rank)_(\d+)(?:_softmax_weight)?\.pt")
_SHOWN = 3  # tensors that an error names


@dataclass(frozen=True)
class Source:
    """One project: what its networks are called here, how images are prepared for them, and its tensors' names."""

    title: str
    contract: Contract
    drop: tuple[str, ...] = ()  # beginnings of names that belong to something else than the backbone
    prefix: str = ""  # of the backbone's names, if others are dropped
    options: Mapping[str, Any] = field(default_factory=dict)

    def clean(self, state: State) -> State:
        """The backbone's tensors under their names in the network."""
        names = {name: name.removeprefix("module.") for name in state}
        if self.prefix and any(name.startswith(self.prefix) for name in names.values()):
            names = {name: text[len(self.prefix) :] for name, text in names.items() if text.startswith(self.prefix)}
        return {text: state[name] for name, text in names.items() if not text.startswith(self.drop or ("\0",))}


SOURCES = {
    "insightface": Source("insightface's iresnet", Contract(size=(112, 112), colour="rgb", template="five_points")),
    "adaface": Source(
        "AdaFace's net",
        Contract(size=(112, 112), colour="bgr", template="five_points"),
        prefix="model.",
        options={"subsample": True},
    ),
    "cvlface": Source(
        "CVLface's iresnet",
        Contract(size=(112, 112), colour="rgb", template="five_points"),
        prefix="net.",
        options={"subsample": True},
    ),
    "facenet": Source(
        "facenet-pytorch's InceptionResnetV1", Contract(127.5, 128.0, size=(160, 160), colour="rgb"), ("logits.",)
    ),
}


def import_model(
    kind: str,
    checkpoint: Path,
    out: Path,
    classes: Path | None = None,
    scale: float = 64.0,
    colour: Literal["rgb", "bgr"] | None = None,
) -> artifact.Config:
    """Write a checkpoint of another project as a model folder.

    Args:
        kind: a name of `SOURCES`.
        checkpoint: of `torch.save`: a state dict, or a mapping that holds one.
        out: the folder.
        classes: class weights to keep with the model, as `read_classes` takes them.
        scale: s of the logits of these classes.
        colour: the order of the channels, in place of the project's usual one.

    Raises:
        InputError: a file that is no checkpoint or would run code, tensors that do not fit, class weights of another
            size.
    """
    checks.choice("kind", kind, SOURCES)
    weights = None if classes is None else read_classes(classes)
    config, backbone = convert(kind, read_state(checkpoint), checkpoint)
    if colour is not None:
        checks.choice("colour", colour, COLOURS)
        config = replace(config, contract=replace(config.contract, colour=colour))
    classifier = None if weights is None else _classifier(weights, config.embedding_size, scale)
    artifact.save(config, backbone, out, classifier=classifier)
    return config


def convert(kind: str, state: State, where: Path) -> tuple[artifact.Config, nn.Module]:
    """The configuration and the network, in evaluation mode, of a checkpoint's tensors.

    Args:
        kind: a name of `SOURCES`.
        state: from `read_state`.
        where: the checkpoint, for messages and the configuration.
    """
    source = SOURCES[kind]
    state = source.clean(state)
    name, layers = _inception() if kind == "facenet" else _improved(kind, state, where)
    size = _feature_size(kind, state, where)
    names = [f"{layer}.{part}" for layer, kept in layers for part in _KINDS[kept]]
    about = {"imported from": f"{source.title}, {where.name}"}
    sides, options = source.contract.size or (), dict(source.options)
    config = artifact.Config(name, 3, sides, size, options, contract=source.contract, about=about)
    with torch.device("meta"):  # shapes without numbers
        backbone = config.build()
    expected = dict(zip(names, backbone.state_dict().items(), strict=True))
    _check_fit(f"{source.title} ({name}, the nearest that is known)", state, expected, where)
    backbone.load_state_dict(
        {own: _value(theirs, state, empty) for theirs, (own, empty) in expected.items()}, assign=True
    )
    return config, backbone.eval()


def import_classes(classes: Path, model: Path, out: Path, scale: float = 64.0) -> Classifier:
    """Write a copy of a model folder with the class weights of another project's head."""
    loaded = artifact.load(model)
    classifier = _classifier(read_classes(classes), loaded.config.embedding_size, scale)
    artifact.save(loaded.config, loaded.backbone, out, loaded.preprocessing.mean_image, classifier=classifier)
    return classifier


def read_state(path: Path) -> State:
    """The tensors of a checkpoint by name; of a mapping that holds several states, the backbone's.

    Raises:
        InputError: no such file, one that would run code, or one without tensors.
    """
    content = _load(path)
    for key in _WRAPPED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    state = (
        {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not state:
        raise InputError(f"{path} must hold a state dict, names with tensors; it holds {type(content).__name__}")
    return state


def read_classes(path: Path) -> Tensor:
    """Class weights [C, d] of another project.

    Args:
        path: a folder with insightface's shards (softmax_fc_gpu_0.pt, ..., checkpoint_gpu_0.pt, ... or
            rank_0_softmax_weight.pt, ...), joined in the order of their ranks, or one of them alone; or a file with
            the state dict of pytorch-metric-learning's loss (W [d, C]), or AdaFace's checkpoint (head.kernel [d, C]).

    Raises:
        InputError: a shard that is missing or of another size, no class weights, or numbers that are not finite.
    """
    if path.is_dir():
        shards: dict[int, Path] = {}
        for file in sorted(path.iterdir()):
            if found := _SHARD.fullmatch(file.name):
                other = shards.setdefault(int(found[1]), file)
                if other != file:
                    raise InputError(f"{path} must hold one shard per rank; it has {other.name} and {file.name}")
        if sorted(shards) != list(range(len(shards))) or not shards:
            got = ", ".join(shards[rank].name for rank in sorted(shards)) or "none"
            raise InputError(f"{path} must hold all shards, softmax_fc_gpu_0.pt, softmax_fc_gpu_1.pt, ...; got {got}")
        parts = [_class_rows(shards[rank]) for rank in sorted(shards)]
        counts = [len(part) for part in parts]
        if (
            len({part.shape[1] for part in parts}) > 1
            or counts != sorted(counts, reverse=True)
            or counts[0] - counts[-1] > 1
        ):
            got = ", ".join(str(list(part.shape)) for part in parts)
            raise InputError(
                f"{path}: shards must share the classes evenly, the first ranks one more; got {got}; one is missing"
            )
        weight = torch.cat(parts)
    else:
        weight = _class_rows(path)
    if not bool(torch.isfinite(weight).all()):
        raise InputError(f"{path}: class weights must be finite; they hold NaN or Inf")
    return weight


def _class_rows(path: Path) -> Tensor:
    content = _load(path)
    if isinstance(content, Mapping):
        for key in ("state_dict_softmax_fc", "state_dict"):
            if isinstance(content.get(key), Mapping):
                content = content[key]
        for name, turned in (("weight", False), ("W", True), ("head.kernel", True)):
            if isinstance(content.get(name), Tensor):
                content = content[name].mT if turned and content[name].ndim == 2 else content[name]
                break
    if (
        not isinstance(content, Tensor)
        or not _holds_numbers(content)
        or content.ndim != 2
        or not content.numel()
        or not content.is_floating_point()
    ):
        raise InputError(
            f"{path} must hold class weights: `weight` [C, d], `W` [d, C] or `head.kernel` [d, C]; it does not"
        )
    return content.detach().float().contiguous()


def _holds_numbers(tensor: Tensor) -> bool:
    """Whether a tensor is dense and real: not sparse, quantized, complex, or on the device "meta", which has shapes."""
    usual = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return usual and not tensor.is_quantized and not tensor.is_complex()


def _load(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"a checkpoint must be a file of torch.save; there is no file {path}")
    try:
        with warnings.catch_warnings(action="ignore"):  # of old or foreign pickles, which are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file can raise nearly anything
        named = re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error))
        way = 'save the weights alone where you trust it: torch.save(model.state_dict(), "weights.pth")'
        if named:
            fault = f"{path} names {named[1]}, which a pickle may use to run code, and is not read"
            raise InputError(f"{fault}; {way}") from error
        raise InputError(f"{path} cannot be read as a file of torch.save that holds tensors alone; {way}") from error


def _improved(kind: str, state: State, where: Path) -> tuple[str, Names]:
    """The net of the depth that the tensors have, and its layers in our order."""
    found = _units(kind, state)
    nets = {units: name for name, units in DEPTHS.items()}
    if found not in nets:
        other = next((name for name in SOURCES if name != kind and _looks_like(name, state)), None)
        nearest = min(DEPTHS, key=lambda name: sum(abs(a - b) for a, b in zip(DEPTHS[name], found, strict=True)))
        strange = ", ".join(list(state)[:_SHOWN])
        way = f"the nearest that is known is {nearest}" if any(found) else "give a checkpoint of that project"
        if other:
            way = f"it looks like {SOURCES[other].title}: use angulus import {other}"
        has = f"{', '.join(map(str, found))} units per stage" if any(found) else "none of its units"
        raise InputError(
            f"{where} must be of {SOURCES[kind].title}, as deep as {', '.join(DEPTHS)}; it has {has}, and tensors such "
            f"as {strange}; {way}"
        )
    return nets[found], list(_iresnet(found) if kind == "insightface" else _adaface(found))


def _units(kind: str, state: State) -> tuple[int, ...]:
    """Units of each stage."""
    if kind == "insightface":
        blocks = {
            found.group(1, 2) for name in state if (found := re.match(r"layer([1-4])\.(\d+)\.conv1\.weight$", name))
        }
        return tuple(sum(stage == str(number) for stage, _ in blocks) for number in range(1, 5))
    ends = [value.shape[0] for name, value in state.items() if re.fullmatch(r"body\.\d+\.res_layer\.4\.weight", name)]
    return tuple(ends.count(channels) for channels in CHANNELS)


def _looks_like(kind: str, state: State) -> bool:
    first = {
        "insightface": "layer1.0.conv1.weight",
        "adaface": "body.0.res_layer.1.weight",
        "cvlface": "net.body.0.res_layer.1.weight",
        "facenet": "conv2d_1a.conv.weight",
    }
    return first[kind] in {*state, *SOURCES[kind].clean(state)}


def _iresnet(units: Sequence[int]) -> Iterator[tuple[str, str]]:
    yield from (("conv1", "conv"), ("bn1", "norm"), ("prelu", "conv"))
    for stage, count in enumerate(units, 1):
        for unit in range(count):
            parts = (
                ("bn1", "norm"),
                ("conv1", "conv"),
                ("bn2", "norm"),
                ("prelu", "conv"),
                ("conv2", "conv"),
                ("bn3", "norm"),
            )
            yield from ((f"layer{stage}.{unit}.{part}", kind) for part, kind in parts)
            if unit == 0:
                yield from ((f"layer{stage}.0.downsample.0", "conv"), (f"layer{stage}.0.downsample.1", "norm"))
    yield from (("bn2", "norm"), ("fc", "biased"), ("features", "norm"))


def _adaface(units: Sequence[int]) -> Iterator[tuple[str, str]]:
    yield from (("input_layer.0", "conv"), ("input_layer.1", "norm"), ("input_layer.2", "conv"))
    number = 0
    for stage, count in enumerate(units):
        for unit in range(count):
            kinds = ("norm", "conv", "norm", "conv", "conv", "norm")
            yield from ((f"body.{number}.res_layer.{place}", kind) for place, kind in enumerate(kinds))
            if unit == 0 and stage > 0:
                yield from ((f"body.{number}.shortcut_layer.0", "conv"), (f"body.{number}.shortcut_layer.1", "norm"))
            number += 1
    yield from (("output_layer.0", "norm"), ("output_layer.3", "biased"), ("output_layer.4", "norm"))


def _inception() -> tuple[str, Names]:
    def convolutions(*names: str) -> Names:
        return [(f"{name}.{part}", kind) for name in names for part, kind in (("conv", "conv"), ("bn", "norm"))]

    def unit(name: str, lengths: Sequence[int]) -> Names:
        """Branches of so many convolutions each; a single one has no number."""
        return convolutions(
            *(
                f"{name}.branch{branch}" + (f".{place}" if length > 1 else "")
                for branch, length in enumerate(lengths)
                for place in range(length)
            )
        )

    def residual(name: str, lengths: Sequence[int]) -> Names:
        return [*unit(name, lengths), (f"{name}.conv2d", "biased")]

    layers = convolutions(*(f"conv2d_{name}" for name in ("1a", "2a", "2b", "3b", "4a", "4b")))
    layers += [layer for number in range(5) for layer in residual(f"repeat_1.{number}", (1, 2, 3))]
    layers += unit("mixed_6a", (1, 3))
    layers += [layer for number in range(10) for layer in residual(f"repeat_2.{number}", (1, 3))]
    layers += unit("mixed_7a", (2, 2, 3))
    layers += [layer for number in range(5) for layer in residual(f"repeat_3.{number}", (1, 3))]
    layers += [*residual("block8", (1, 3)), ("last_linear", "conv"), ("last_bn", "norm")]
    return "inception_resnet_v1", layers


def _feature_size(kind: str, state: State, where: Path) -> int:
    own = {"insightface": "fc.weight", "facenet": "last_linear.weight"}
    name = own.get(kind, "output_layer.3.weight")
    if name not in state or state[name].ndim != 2:
        other = next((source for source in SOURCES if source != kind and _looks_like(source, state)), None)
        way = f"; it looks like {SOURCES[other].title}: use angulus import {other}" if other else ""
        raise InputError(
            f"{where} must hold {name} of {SOURCES[kind].title}; it has {', '.join(list(state)[:_SHOWN])}{way}"
        )
    return len(state[name])


def _optional(name: str) -> bool:
    """Whether a tensor may be missing: a counter, or the gain and offset of AdaFace's last batch norm, 1 and 0."""
    return name.endswith("num_batches_tracked") or name in ("output_layer.4.weight", "output_layer.4.bias")


def _value(name: str, state: State, empty: Tensor) -> Tensor:
    if name in state:
        return state[name].to(empty.dtype)
    return torch.full(empty.shape, 1 if name.endswith("weight") else 0, dtype=empty.dtype)


def _check_fit(net: str, state: State, expected: Mapping[str, tuple[str, Tensor]], where: Path) -> None:
    """Refuse a state that does not fit the network; names the first tensors that do not."""
    wrong = []
    for name, (_, empty) in expected.items():
        if name not in state and not _optional(name):
            wrong.append(f"{name} is missing")
        elif name in state and state[name].shape != empty.shape:
            wrong.append(f"{name} must be {list(empty.shape)}, and is {list(state[name].shape)}")
        elif name in state and not (_holds_numbers(state[name]) and bool(torch.isfinite(state[name]).all())):
            wrong.append(f"{name} must hold finite numbers")
    wrong += [f"{name} is not known" for name in state if name not in expected]
    if wrong:
        more = f" and {len(wrong) - _SHOWN:,} more" if len(wrong) > _SHOWN else ""
        raise InputError(f"{where} does not fit {net}: {', '.join(wrong[:_SHOWN])}{more}")


def _classifier(weight: Tensor, embedding_size: int, scale: float) -> Classifier:
    if weight.shape[1] != embedding_size:
        raise InputError(
            f"class weights must be [classes, {embedding_size}], as the features are; got {list(weight.shape)}"
        )
    return Classifier([str(label) for label in range(len(weight))], losses.arcface(s=scale), weight)
