"""The one table of backbones: name -> constructor."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import nn

from angulus import checks
from angulus.backbones.lenet import LeNet5, LeNetPlusPlus
from angulus.backbones.small import SmallNet
from angulus.checks import InputError

_TABLE: dict[str, Callable[..., nn.Module]] = {"lenet5": LeNet5, "lenet++": LeNetPlusPlus, "small": SmallNet}
_SIZES = ("in_channels", "image_size", "embedding_size")


def build(name: str, *, in_channels: int, image_size: int, embedding_size: int, **options: object) -> nn.Module:
    """Build a backbone by its name, with PyTorch's default initialisation (seed it with `torch.manual_seed`).

    Every backbone maps float images [B, in_channels, image_size, image_size] to features [B, embedding_size] and ends
    in a plain linear layer: no activation and no normalisation after it.

    Arguments:
        name: one of `names()`.
        in_channels: channels of an image, >= 1.
        image_size: height and width in pixels; the least that works depends on the backbone.
        embedding_size: size of a feature, >= 1.
        options: what else the backbone's constructor takes.

    Raises:
        InputError: the name or an option is unknown (the nearest is named), or a size does not suit the backbone.

    >>> build("lenet++", in_channels=1, image_size=28, embedding_size=2).embedding_size
    2
    """
    constructor = _TABLE[checks.choice("name", name, names())]
    allowed = [option for option in inspect.signature(constructor).parameters if option not in _SIZES]
    for option in options:
        if option not in allowed:
            listed = f"one of {', '.join(map(repr, allowed))}" if allowed else "left out, since there are none"
            raise InputError(
                f"options of the backbone {name!r} must be {listed}; got {option!r}{checks.nearest(option, allowed)}"
            )
    return constructor(in_channels=in_channels, image_size=image_size, embedding_size=embedding_size, **options)


def names() -> tuple[str, ...]:
    """Name the backbones that `build` knows.

    >>> names()
    ('lenet5', 'lenet++', 'small')
    """
    return tuple(_TABLE)
