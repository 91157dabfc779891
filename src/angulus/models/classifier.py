"""The classes of a trained model: their weights and names, and what makes logits of them, apart from the margins."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.heads.class_loss import class_logits
from angulus.losses import radius as radii
from angulus.losses.objective import BoundObjective, Objective
from angulus.losses.serialize import from_mapping, to_mapping

FILE = "classes.safetensors"
_PARTS = ("radius", "weights", "bias", "eps", "subcenters")  # of an objective, those that its logits depend on
_KEYS = {"sha256", "names", "logits"}
_WAY_OUT = "fetch or save the model again"


class Prediction(NamedTuple):
    """The likeliest class of each image, by name, and the probabilities of all classes, float32 [B, C]."""

    labels: list[str]
    probabilities: Tensor


def has_own_radius(spec: Objective) -> bool:
    """Whether the radius, if there is one, is Angulus' own: a plugin's is unknown to those who load the folder."""
    return spec.radius is None or type(spec.radius).__module__ == radii.__name__


class Classifier(nn.Module):
    """Class weights with names: features in, logits without margins out, as `DenseHead.logits`.

    Attributes:
        names: of the C classes.
        spec: the part of the objective that makes logits: radius, weights, bias, eps, sub-centres.
        weight, bias: [C, d], or [C, K, d] with sub-centres, and [C] or None.
        radius: the bound radius, with the learned scale or the running figure that it has; None for cosines.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, names: Sequence[str], spec: Objective, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.names = _check_names(names, len(weight))
        self.spec = Objective(**{part: getattr(spec, part) for part in _PARTS})
        if not has_own_radius(self.spec):
            raise checks.InputError(
                "classes are stored with a radius of Angulus' own, for a model folder loads no plugin; got "
                f"{self.spec.radius.kind!r}; train with training.save_classes=false"  # type: ignore[union-attr]
            )
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # training has warned of bounds that C and d break
            self.radius: Any = self.spec.radius and self.spec.radius.bind(weight.shape[-1], weight.shape[0])

    @staticmethod
    def of(names: Sequence[str], bound: BoundObjective, weight: Tensor, bias: Tensor | None = None) -> Classifier:
        """The classes of a trained head: `Classifier.of(names, head.objective, head.weight, head.bias)`, copied."""
        copied = [None if part is None else part.detach().clone() for part in (weight, bias)]
        assert copied[0] is not None
        made = Classifier(names, bound.spec, copied[0], copied[1])
        if isinstance(made.radius, nn.Module):
            made.radius.load_state_dict(bound.radius.state_dict())
            made.radius.to(weight.device)
        return made.eval().requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Logits without margins, [B, C], of features [B, d]."""
        return class_logits(features, self.weight, self.bias, self.spec, self.radius)


def encode(classifier: Classifier) -> tuple[bytes, dict[str, Any]]:
    """(the content of `classes.safetensors`, the entry `classes` of `config.json`)."""
    state = classifier.state_dict()
    data = safetensors.torch.save({name: value.detach().cpu().clone().contiguous() for name, value in state.items()})
    mapping = to_mapping(classifier.spec)
    return data, {
        "sha256": hashlib.sha256(data).hexdigest(),
        "names": list(classifier.names),
        "logits": {part: mapping[part] for part in _PARTS if part in mapping},
    }


def decode(entry: object, folder: Path, embedding_size: int) -> Classifier:
    """The classes in a model's folder, checked; no code runs.

    Args:
        entry: `classes` of `config.json`.
        folder: of the model.
        embedding_size: d.

    Raises:
        checks.InputError: a file that is not the one of the entry, or tensors that do not fit it or are not finite.
    """
    path = folder / FILE
    if not isinstance(entry, dict) or set(entry) != _KEYS or not isinstance(entry["logits"], dict):
        raise checks.InputError(f"classes in {folder}/config.json must have the keys sha256, names, logits; {_WAY_OUT}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise checks.InputError(f"{path} cannot be read: {error.strerror}; {_WAY_OUT}") from error
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise checks.InputError(f"{path} is not the file that config.json was written for (another sha256); {_WAY_OUT}")
    try:
        tensors = safetensors.torch.load(data)
        return _build(entry, tensors, embedding_size)
    except (safetensors.SafetensorError, RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise checks.InputError(f"{path}: {checks.one_line(error):.300}; {_WAY_OUT}") from error


def _build(entry: Mapping[str, Any], tensors: dict[str, Tensor], embedding_size: int) -> Classifier:
    unknown = set(entry["logits"]) - set(_PARTS)
    if unknown:
        raise checks.InputError(f"logits must be made of {', '.join(_PARTS)}; got {checks.shown(sorted(unknown)[0])}")
    spec = from_mapping(entry["logits"])
    weight, bias = tensors.pop("weight", None), tensors.pop("bias", None)
    one_class = spec.weight_shape(1, embedding_size)[1:]
    if weight is None or weight.ndim < 2 or weight.shape[1:] != one_class or not weight.is_floating_point():
        got = "none" if weight is None else f"{weight.dtype} {list(weight.shape)}"
        shape = ", ".join(map(str, ("classes", *one_class)))
        raise checks.InputError(f"weight must be floating point [{shape}]; got {got}")
    if spec.bias != (bias is not None) or (bias is not None and list(bias.shape) != [len(weight)]):
        wanted = f"[{len(weight)}]" if spec.bias else "left out"
        raise checks.InputError(f"bias must be {wanted}; got {'none' if bias is None else list(bias.shape)}")
    made = Classifier(entry["names"], spec, weight, bias)
    if isinstance(made.radius, nn.Module):
        made.radius.load_state_dict({name.removeprefix("radius."): value for name, value in tensors.items()})
    elif tensors:
        raise checks.InputError(f"it holds the unknown tensor {checks.shown(next(iter(tensors)))}")
    for name, value in made.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise checks.InputError(f"{name} must be finite; it holds NaN or Inf, as after a training that diverged")
    return made.eval().requires_grad_(False)


def _check_names(names: object, count: int) -> tuple[str, ...]:
    """The names of the classes, all different, one per row of the class weights."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise checks.InputError(f"names of classes must be a list of text; got {checks.shown(names)}")
    if len(names) != count or len(set(names)) != count:
        raise checks.InputError(
            f"names of classes must be different, one for each of the {count:,} class weights; got {len(names):,}, "
            f"{len(set(names)):,} of them different"
        )
    return tuple(names)
