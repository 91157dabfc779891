"""The preprocessing contract: how pixels are prepared for a model, and the name that ties features to the model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.templates import TEMPLATES, image_size

Colour = Literal["rgb", "bgr", "grey"]
Normalize = Literal["fixed", "per_image", "mean_image"]
Template = Literal["five_points"]
Flip = Literal["none", "sum", "concat"]

_TO = "-to-"  # in the name of mapped vectors
_MAPPED = re.compile(r"(.+)-by-([0-9a-f]{8})-to-(.+)")
_NAME = re.compile(r"([0-9a-f]{16})-(none|sum|concat)(?:-([1-9][0-9]*))?")


class ModelName(NamedTuple):
    """What the name of a model says in embeddings, calibrations and galleries."""

    digits: str  # the fingerprint
    flip: Flip
    dimensions: int | None = None  # only the first numbers of its features; None: all


@dataclass(frozen=True)
class Contract:
    """How pixels are prepared for a model: x in 0..255 becomes (x − mean) / scale.

    Args:
        mean, scale: what is subtracted from pixels, and what the rest is divided by, in 0..255 units; scale > 0.
            Each is one number, or three, of red, green and blue.
        normalize: "fixed": use mean and scale; "per_image": use each image's own mean and standard deviation (at least
            1/√n of its n values, so that a uniform image stays finite); "mean_image": subtract the average image of the
            training data, then divide by scale.
        size: height and width; None: any.
        colour: the channel order that the model expects; None: one or three channels, unchanged. Images come as RGB or
            grey.
        template: the positions of a face's landmarks; None for images that are not aligned.
        flip: how the features of an image and its mirror image are joined: not at all, added, or concatenated.
    """

    mean: float | tuple[float, ...] = 127.5
    scale: float | tuple[float, ...] = 127.5
    normalize: Normalize = "fixed"
    size: tuple[int, int] | None = None
    colour: Colour | None = None
    template: Template | None = None
    flip: Flip = "none"
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _per_channel("input.mean", self.mean))
        object.__setattr__(self, "scale", _per_channel("input.scale", self.scale, low=0, open_low=True))
        checks.choice("input.normalize", self.normalize, get_args(Normalize))
        checks.choice("input.flip", self.flip, get_args(Flip))
        if self.colour is not None:
            checks.choice("input.colour", self.colour, get_args(Colour))
        if self.template is not None:
            checks.choice("input.template", self.template, TEMPLATES)
        if self.size is not None:
            object.__setattr__(self, "size", image_size(self.size))  # JSON knows lists only
        unused = {"fixed": (), "per_image": ("mean", "scale"), "mean_image": ("mean",)}[self.normalize]
        for name in unused:
            if getattr(self, name) != 127.5:
                rule = f"does not apply to input.normalize {self.normalize}, which measures it"
                raise InputError(f"input.{name} {rule}; leave it out")
        if self.template is not None and self.size is None:
            raise InputError("input.template needs input.size, the height and width of the crop")
        if self.colour == "grey" and self._by_colour:
            raise InputError("input.mean and input.scale must be one number each for input.colour grey; got three")

    @property
    def _by_colour(self) -> bool:
        return isinstance(self.mean, tuple) or isinstance(self.scale, tuple)

    def __call__(self, pixels: Tensor, mean_image: Tensor | None = None) -> Tensor:
        """uint8 [B, channels, height, width], RGB or grey, or volumes -> float32 of the same shape.

        `mean_image`: [channels, height, width] in 0..255 units, RGB, if and only if normalize is "mean_image".
        """
        self.check(pixels)
        if (mean_image is not None) != (self.normalize == "mean_image"):
            raise _mean_image_mismatch(mean_image, self.normalize)
        x = pixels.float()
        if mean_image is not None:
            if mean_image.shape != pixels.shape[1:]:
                shapes = f"{list(pixels.shape[1:])}; got {list(mean_image.shape)}"
                raise InputError(f"mean_image must have the images' shape {shapes}")
            x = (x - mean_image.to(x)) / _spread(self.scale, x)
        elif self.normalize == "per_image":
            own = tuple(range(1, x.ndim))
            deviation = x.std(dim=own, keepdim=True, correction=0).clamp_min(x[0].numel() ** -0.5)
            x = (x - x.mean(dim=own, keepdim=True)) / deviation
        else:
            x = (x - _spread(self.mean, x)) / _spread(self.scale, x)
        return x.flip(1) if self.colour == "bgr" else x

    def check(self, pixels: Tensor) -> None:
        """Refuse pixels of the wrong type, size or number of channels."""
        if pixels.dtype != torch.uint8:
            raise InputError(f"pixels must be uint8 in 0..255; got {pixels.dtype}")
        if self.size is not None and tuple(pixels.shape[-2:]) != self.size:
            high, wide = self.size
            way = f"`angulus prepare images --size {high}x{wide}`, or faces with `angulus prepare faces`"
            rule = f"pixels must be {high} high and {wide} wide, as input.size says"
            raise InputError(f"{rule}; got {list(pixels.shape)}; bring the images to that size with {way}")
        if self._by_colour and pixels.shape[1] != 3:
            rule = "input.mean and input.scale must be one number each for images that are not RGB"
            raise InputError(f"{rule}; got three, and images of {pixels.shape[1]} channel(s)")
        channels = {None: None, "grey": 1}.get(self.colour, 3)
        if channels is not None and (pixels.ndim != 4 or pixels.shape[1] != channels):
            rule = f"[batch, {channels}, height, width] for input.colour {self.colour}"
            raise InputError(f"pixels must be {rule}; got {list(pixels.shape)}")

    def features(self, network: Callable[[Tensor], Tensor], pixels: Tensor, mean_image: Tensor | None = None) -> Tensor:
        """Features [B, d] of images, joined with those of their mirror images by the flip rule ("concat": [B, 2 d])."""
        own = network(self(pixels, mean_image))
        if self.flip == "none":
            return own
        mirrored = network(self(pixels.flip(-1), mean_image))
        return own + mirrored if self.flip == "sum" else torch.cat([own, mirrored], dim=1)


class Preprocessing(nn.Module):
    """A contract with the mean image that it subtracts, if any; a model is trained and stored with it.

    Attributes:
        contract: how pixels are prepared.
        mean_image: [channels, height, width] in 0..255 units, RGB; None unless normalize is "mean_image".
    """

    mean_image: Tensor | None

    def __init__(self, contract: Contract, mean_image: Tensor | None = None) -> None:
        super().__init__()
        if (mean_image is not None) != (contract.normalize == "mean_image"):
            raise _mean_image_mismatch(mean_image, contract.normalize)
        if mean_image is not None and not bool(((mean_image >= 0) & (mean_image <= 255)).all()):
            raise InputError("mean_image must be numbers in [0, 255], as pixels are; it holds others")
        self.contract = contract
        self.register_buffer("mean_image", mean_image)

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 [B, channels, height, width] -> float32 of the same shape."""
        return self.contract(pixels, self.mean_image)

    def features(self, network: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
        """Features [B, d] of images, joined with those of their mirror images by the flip rule ("concat": [B, 2 d])."""
        return self.contract.features(network, pixels, self.mean_image)


def fingerprint(sha256: str, content: Mapping[str, Any]) -> str:
    """16 hexadecimal digits; models with equal ones give equal features, apart from the flip rule.

    Args:
        sha256: of the weights, as hexadecimal digits.
        content: of the configuration, as JSON holds it; `about`, `compatible_with` and the contract's `flip` do not
            count.
    """
    contract = {name: value for name, value in content["contract"].items() if name != "flip"}
    counted = {name: value for name, value in content.items() if name not in ("about", "compatible_with")}
    counted |= {"contract": contract}
    return hashlib.sha256(json.dumps([sha256, counted], sort_keys=True).encode()).hexdigest()[:16]


def is_fingerprint(value: object) -> bool:
    """Whether this is a model's fingerprint, 16 hexadecimal digits."""
    return isinstance(value, str) and split_model_name(model_name(value, "none")) is not None


def model_name(digits: str, flip: Flip, dimensions: int | None = None) -> str:
    """The name of a model with this flip rule, and this many of its numbers, in embeddings, calibrations and galleries.

    >>> model_name("0123456789abcdef", "sum"), model_name("0123456789abcdef", "none", 128)
    ('0123456789abcdef-sum', '0123456789abcdef-none-128')
    """
    return f"{digits}-{flip}" + ("" if dimensions is None else f"-{dimensions}")


def split_model_name(name: str | None) -> ModelName | None:
    """What a name says; None for a name that is not Angulus' own.

    >>> split_model_name("0123456789abcdef-none-128"), split_model_name("resnet-sum")
    (ModelName(digits='0123456789abcdef', flip='none', dimensions=128), None)
    """
    match = _NAME.fullmatch(name or "")
    return None if match is None else ModelName(match[1], cast(Flip, match[2]), int(match[3]) if match[3] else None)


def mapped_name(old: str, new: str, digits: str) -> str:
    """The name of an old model's vectors that were mapped to a new model's, in galleries and calibrations.

    `digits` are 8 hexadecimal ones of the map: vectors of two maps are not comparable, and each needs its threshold.

    >>> mapped_name("0123456789abcdef-sum", "fedcba9876543210-none", "89abcdef")
    '0123456789abcdef-sum-by-89abcdef-to-fedcba9876543210-none'
    """
    return f"{old}-by-{digits}{_TO}{new}"


def query_name(stored: str | None) -> ModelName | None:
    """The model whose queries stored vectors were made or mapped for; None if they are not of Angulus' models.

    >>> query_name("0123456789abcdef-sum-by-89abcdef-to-fedcba9876543210-none-128")
    ModelName(digits='fedcba9876543210', flip='none', dimensions=128)
    """
    return split_model_name((stored or "").rpartition(_TO)[2])


def comparable(query: str | None, stored: str | None, compatible_with: Collection[str] = ()) -> bool:
    """Whether a model's query vectors may be compared with stored ones.

    They may if one model made both by one flip rule, if the stored ones were mapped to the queries' model, or if that
    was trained to be compatible with the model that made the stored ones, and flip rule and dimensions are the same.

    Args:
        query, stored: names of models, as embeddings and galleries have them.
        compatible_with: fingerprints that the queries' model is compatible with.
    """
    if query == stored:
        return True
    if query is None or stored is None:
        return False
    if stored.endswith(f"{_TO}{query}"):
        return True
    own, other = split_model_name(query), split_model_name(stored)
    return bool(own and other and own[1:] == other[1:] and other.digits in compatible_with)


def describe_model(name: str | None) -> str:
    """A model's name as messages show it.

    >>> describe_model("0123456789abcdef-sum"), describe_model("resnet")
    ('the model with fingerprint 0123456789abcdef, flip sum', "the model 'resnet'")
    """
    mapped = _MAPPED.fullmatch(name or "")
    if mapped and split_model_name(mapped[1]) and split_model_name(mapped[3]):
        return f"{describe_model(mapped[1])}, mapped to {describe_model(mapped[3])} by the map {mapped[2]}"
    own = split_model_name(name)
    if own is not None:
        first = "" if own.dimensions is None else f", first {own.dimensions} numbers"
        return f"the model with fingerprint {own.digits}, flip {own.flip}{first}"
    return "a model that is not named" if name is None else f"the model {name!r}"


def _mean_image_mismatch(mean_image: Tensor | None, normalize: str) -> InputError:
    got = "one" if mean_image is not None else "none"
    return InputError(f"mean_image goes with input.normalize mean_image; got {got} with {normalize}")


def words(value: float | tuple[float, ...]) -> str:
    """A mean or scale as cards show it.

    >>> words(127.5), words((123.675, 116.28, 103.53))
    ('127.5', '(123.675, 116.28, 103.53)')
    """
    return f"({', '.join(f'{each:g}' for each in value)})" if isinstance(value, tuple) else f"{value:g}"


def _per_channel(name: str, value: object, **limits: Any) -> float | tuple[float, ...]:
    if not isinstance(value, list | tuple):
        checks.number(name, value, **limits)
        return cast(float, value)
    if len(value) != 3:
        raise InputError(f"{name} must be one number, or three of red, green and blue; got {len(value)}")
    return tuple(checks.number(name, each, **limits) for each in value)


def _spread(value: float | tuple[float, ...], pixels: Tensor) -> Tensor | float:
    """One number, or those of the channels as [channels, 1, 1]."""
    if not isinstance(value, tuple):
        return value
    return torch.tensor(value, dtype=pixels.dtype, device=pixels.device).view(-1, *[1] * (pixels.ndim - 2))
