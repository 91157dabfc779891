"""Backbones of the library timm, by their names there: an optional extra."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

import torch
from torch import nn

from angulus.backbones.layers import Backbone, FeatureLayer, ImageSize, check_sizes
from angulus.checks import InputError

PREFIX = "timm:"


def timm_net(name: str, /, in_channels: int, image_size: ImageSize, embedding_size: int, **options: object) -> Backbone:
    """The net of that name in timm, pooled and without its classes, then a feature layer.

    Arguments:
        name: the name in timm, without the prefix "timm:".
        in_channels: channels of an image, >= 1.
        image_size: height and width in pixels, or one number for both; nets with positions want `img_size` as well.
        embedding_size: size of a feature, >= 1.
        options: what else `timm.create_model` takes: `pretrained`, `img_size`, `drop_path_rate` ...

    Raises:
        InputError: timm cannot be imported, knows no such net, or refuses an option or images of that size.
    """
    sides = check_sizes(f"{PREFIX}{name}", in_channels, image_size, embedding_size, smallest=1)
    timm = _timm(name)
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=1)
        raise InputError(f"timm has no net {name!r}{f'; did you mean {close[0]!r}?' if close else ''}")
    try:
        net = timm.create_model(name, in_chans=in_channels, num_classes=0, **options)
    except (TypeError, RuntimeError) as error:
        raise InputError(f"timm cannot build {name!r} with {options}: {_first_line(error)}") from error
    width = _width(name, net, in_channels, sides)
    return Backbone(nn.Sequential(net, FeatureLayer(width, embedding_size)), in_channels, sides, embedding_size)


def _timm(name: str) -> Any:
    try:
        return importlib.import_module("timm")
    except (ImportError, OSError, RuntimeError) as error:  # also where it is installed beside another torch's parts
        raise InputError(
            f"the backbone '{PREFIX}{name}' needs timm, which cannot be imported here ({_first_line(error)}); "
            "pip install timm, or choose a backbone of Angulus"
        ) from error


def _width(name: str, net: nn.Module, in_channels: int, sides: tuple[int, ...]) -> int:
    """How many pooled features the net gives, found by an image of zeros; refuses sizes that the net refuses."""
    training = net.training
    try:
        with torch.no_grad():
            pooled = net.eval()(torch.zeros(1, in_channels, *sides))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"timm's {name!r} cannot take images of {' x '.join(map(str, sides))} pixels: {_first_line(error)}; "
            "give another image_size, or the option img_size where the net has one"
        ) from error
    net.train(training)
    if pooled.ndim != 2:
        raise InputError(
            f"timm's {name!r} must give [batch, features]; it gives {list(pooled.shape)}: leave its pooling on"
        )
    return int(pooled.shape[1])


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
