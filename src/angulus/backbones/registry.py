"""The table of backbones, and how they are built by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from angulus.backbones import timm_models, transformers_models
from angulus.backbones.arcface import DEPTHS, improved_residual_net, slim_resnet
from angulus.backbones.attention import attention56_irse
from angulus.backbones.imagenet import resnet, vgg13
from angulus.backbones.inception import inception_resnet_v1
from angulus.backbones.layers import ImageSize, shell
from angulus.backbones.light_cnn import light_cnn9
from angulus.backbones.mobilefacenet import mobilefacenet
from angulus.backbones.nodules import luna_fusion, luna_net
from angulus.backbones.small_images import feature_incay_net, iam_mnist, lenet5, lenet_plus_plus, small_net
from angulus.backbones.sphereface import spherenet, wen28
from angulus.backbones.timm_models import OVERLAY, PREFIX, timm_net
from angulus.backbones.transformers_models import transformers_net
from angulus.core import checks
from angulus.core.checks import InputError

_TABLE: dict[str, Callable[..., nn.Module]] = {
    "lenet5": lenet5,
    "lenet++": lenet_plus_plus,
    "small": small_net,
    "iam_mnist": iam_mnist,
    **{net: partial(feature_incay_net, net) for net in ("fi_mnist", "fi_cifar10", "fi_cifar100")},
    "vgg13": vgg13,
    **{net: partial(resnet, net) for net in ("resnet34", "resnet50")},
    **{net: partial(improved_residual_net, net) for net in DEPTHS},
    **{net: partial(spherenet, net) for net in ("spherenet20", "spherenet64")},
    "wen28": wen28,
    "light_cnn9": light_cnn9,
    "inception_resnet_v1": inception_resnet_v1,
    "attention56_irse": attention56_irse,
    "mobilefacenet": mobilefacenet,
    "slim_resnet": slim_resnet,
    **{net: partial(luna_net, net) for net in ("luna_archi1", "luna_archi2", "luna_archi3")},
    "luna_fusion": luna_fusion,
}
OWN = "module:"  # the start of the name of a network of the user's own, such as module:MyNet
_SIZES = ("in_channels", "image_size", "embedding_size")


def list_backbones(*, timm: bool = False) -> list[str]:
    """The names that `build` knows, sorted; with `timm=True` also those of the nets in timm, as "timm:NAME".

    >>> list_backbones()[:3]
    ['attention56_irse', 'fi_cifar10', 'fi_cifar100']
    """
    others = timm_models.list_names() if timm else []
    return sorted(_TABLE) + sorted(f"{PREFIX}{name}" for name in others)


def build(name: str, *, in_channels: int, image_size: ImageSize, embedding_size: int, **options: object) -> nn.Module:
    """Build a backbone by its name, with the initialisation of its source (seed it with `torch.manual_seed`).

    Every backbone maps float images [B, in_channels, *image_size] to features [B, embedding_size], in float32 also
    under autocast. Most end in a plain linear layer, with neither activation nor normalisation after it; the
    improved residual nets, their kin, MobileFaceNet and Inception-ResNet end in batch norm, and Light CNN in a maximum
    of two linear layers, as their papers have it.

    Args:
        name: one of `list_backbones()`; or "timm:" and the name of a net in timm, or "transformers:" and a folder or
            repository of one for transformers, where that library is installed.
        in_channels: channels of an image, >= 1.
        image_size: height and width in pixels (depth, height and width for volumes), or one number for a square or
            cube; the least that works depends on the backbone.
        embedding_size: size of a feature, >= 1.
        options: what else the backbone's constructor takes.

    Raises:
        InputError: the name or an option is unknown (the nearest is named), or a size does not suit the backbone.

    >>> build("lenet++", in_channels=1, image_size=28, embedding_size=2).embedding_size
    2
    >>> build("spherenet20", in_channels=3, image_size=(112, 96), embedding_size=512).image_size
    (112, 96)
    """
    return _build(name, in_channels, image_size, embedding_size, options)


def rebuild(name: str, *, in_channels: int, image_size: ImageSize, embedding_size: int, **options: object) -> nn.Module:
    """Build the backbone of a stored model, which gets its weights afterwards.

    As `build`, for options from a file that a stranger may have written: none of them reads, fetches or imports
    anything. A stored `pretrained` is left out, for the weights are the stored ones.

    Raises:
        InputError: as `build`, and an option that says where to load weights from.
    """
    check_stored(name, options)
    return _build(name, in_channels, image_size, embedding_size, stored_options(name, options))


def stored_options(name: str, options: Mapping[str, object]) -> dict[str, object]:
    """The options that a stored model is rebuilt with: all but those that say where the first weights come from."""
    left_out = timm_models.FIRST_WEIGHTS if name.startswith(PREFIX) else ()
    return {option: value for option, value in options.items() if option not in left_out}


def stored(network: nn.Module | None, name: str, options: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    """The name and options to store a model with, from which `rebuild` makes the network without its first weights.

    A network of the user's own keeps its name, also if it contains one of these backbones.
    """
    own = None if network is None or name.startswith(OWN) else shell(network)[1]
    return (name, stored_options(name, options)) if own is None or own.stored is None else own.stored


def own_input(name: str, options: Mapping[str, object]) -> dict[str, Any]:
    """The mean, scale and size, as a contract has them, that the first weights of a backbone were trained with.

    {} for random weights. Reads, and may fetch, what says so.
    """
    if name.startswith(transformers_models.PREFIX):
        return transformers_models.own_input(name.removeprefix(transformers_models.PREFIX))
    if name.startswith(PREFIX) and options.get("pretrained") is True and not options.get(OVERLAY):
        return timm_models.own_input(name.removeprefix(PREFIX), options)
    return {}


def check_stored(name: str, options: Mapping[str, object]) -> None:
    """Refuse options that a stored model must not have, since they load weights or code from elsewhere."""
    if name.startswith(transformers_models.PREFIX):
        kind = name.removeprefix(transformers_models.PREFIX)
        checks.choice(f"the net of a stored model of {transformers_models.PREFIX}", kind, transformers_models.KINDS)
    for option in options:
        if name.startswith(PREFIX) and option in timm_models.FIRST_WEIGHTS and option != "pretrained":
            rule = f"options of a stored model of the backbone {name!r} must not hold {option!r}"
            way = "take it out of config.json, if you trust the rest"
            raise InputError(f"{rule}, which makes timm load other weights; {way}")


def _build(
    name: str, in_channels: int, image_size: ImageSize, embedding_size: int, options: Mapping[str, object]
) -> nn.Module:
    check_name("name", name)
    if name.startswith(OWN):
        raise InputError(
            f"the backbone {name!r} is a network of somebody's own code, which its name cannot rebuild; give the "
            "network itself: angulus.load(folder, backbone=...), or angulus.Trainer(network, ...)"
        )
    sizes: Any = dict(zip(_SIZES, (in_channels, image_size, embedding_size), strict=True))
    if name.startswith(PREFIX):
        return timm_net(name.removeprefix(PREFIX), **sizes, **options)  # type: ignore[arg-type]
    if name.startswith(transformers_models.PREFIX):
        return transformers_net(name.removeprefix(transformers_models.PREFIX), **sizes, **options)  # type: ignore[arg-type]
    constructor = _TABLE[name]
    allowed = [option for option in inspect.signature(constructor).parameters if option not in _SIZES]
    for option in options:
        if option not in allowed:
            listed = f"one of {', '.join(map(repr, allowed))}" if allowed else "left out, since there are none"
            near = checks.nearest(option, allowed)
            raise InputError(f"options of the backbone {name!r} must be {listed}; got {option!r}{near}")
    return constructor(**sizes, **options)


def check_name(argument: str, name: object) -> str:
    """Return `name` if `build` knows it, it names a net of timm or transformers, or one of the user's own."""
    if isinstance(name, str) and name.startswith((PREFIX, transformers_models.PREFIX, OWN)):
        return name
    hint = f"or {PREFIX}NAME for a net of timm, {transformers_models.PREFIX}FOLDER for one of transformers"
    return checks.choice(argument, name, tuple(_TABLE), hint=hint)
