"""What nets of other libraries share: pooling by name, LoRA, and a feature layer after them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from angulus.backbones import lora
from angulus.backbones.layers import Backbone, check_feature_activation, feature_layers
from angulus.backbones.pooling import POOLINGS, Pool
from angulus.core import checks
from angulus.core.checks import InputError

OPTIONS = ("pooling", "feature_activation", "lora")


def split_options(what: str, options: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the checked options that all nets of other libraries take, the others)."""
    own: dict[str, Any] = {name: options[name] for name in OPTIONS if options.get(name) is not None}
    if "pooling" in own:
        checks.choice(f"the option pooling of {what!r}", own["pooling"], POOLINGS)
    if "feature_activation" in own:
        check_feature_activation(own["feature_activation"])
    if "lora" in own:
        own["lora"] = lora.check(f"the option lora of {what!r}", own["lora"])
    return own, {name: value for name, value in options.items() if name not in OPTIONS}


def add_lora(what: str, net: nn.Module, options: Mapping[str, Any]) -> None:
    """Put LoRA into the net where `options` ask for it."""
    if "lora" in options:
        lora.add(f"the option lora of {what!r}", net, **options["lora"])


def backbone(
    what: str,
    net: nn.Module,
    sizes: tuple[int, tuple[int, ...], int],
    options: Mapping[str, Any],
    *,
    prefix: int = 0,
    channels_last: bool = False,
    net_prefix: str = "layers.0.",
    hint: str = "bring the images to another size",
) -> Backbone:
    """The net, its pooling where `options` name one, and a feature layer.

    Args:
        what: the backbone's name, for messages.
        sizes: in_channels, image_size, embedding_size.
        options: the first of `split_options`.
        prefix, channels_last: see `Pool`.
        net_prefix: see `Backbone`.
        hint: what helps where the net refuses the images' size.
    """
    in_channels, sides, embedding_size = sizes
    layers: list[nn.Module] = [net]
    outputs = _outputs(what, net, in_channels, sides, hint)
    if "pooling" in options:
        if outputs.ndim not in (3, 4):
            raise InputError(f"pooling needs a map or tokens, but {what!r} gives {list(outputs.shape)}; leave it out")
        width = outputs.shape[1 if outputs.ndim == 4 and not channels_last else -1]
        try:
            layers.append(Pool(options["pooling"], width, prefix, channels_last=channels_last))
        except InputError as error:
            raise InputError(f"{what}: {error}") from error
    elif outputs.ndim != 2:
        rule = f"{what!r} must give [batch, features]"
        raise InputError(f"{rule}; it gives {list(outputs.shape)}: leave its pooling on, or name a pooling")
    else:
        width = outputs.shape[1]
    layers += feature_layers(width, embedding_size, options.get("feature_activation", "none"))
    built = Backbone(layers, in_channels, sides, embedding_size, initialize=None)
    built.net_prefix = net_prefix
    return built


def _outputs(what: str, net: nn.Module, in_channels: int, sides: tuple[int, ...], hint: str) -> Tensor:
    """What the net gives for an image of zeros; refuses sizes that the net refuses, and what is no tensor."""
    training = net.training
    try:
        with torch.no_grad():
            outputs = net.eval()(torch.zeros(1, in_channels, *sides))
    except (AssertionError, RuntimeError, ValueError) as error:
        fault = f"{what!r} cannot take images of {' x '.join(map(str, sides))} pixels: {checks.one_line(error)}"
        raise InputError(f"{fault.rstrip('.')}; {hint}") from error
    net.train(training)
    if not isinstance(outputs, Tensor):
        raise InputError(f"{what!r} must give one tensor; it gives a {type(outputs).__name__}: take another net")
    return outputs
