"""Backbones of the library timm, by their names there: an optional extra."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from angulus.backbones.layers import Backbone, FeatureLayer, ImageSize, check_sizes
from angulus.core import checks, extras
from angulus.core.checks import InputError

PREFIX = "timm:"
_NAME = re.compile(r"\w+(\.[\w-]+)?", re.ASCII)  # timm takes "hf-hub:..." and "local-dir:..." for places to load from
_Check = Callable[[str, Any], object]


def _side(name: str, value: Any) -> object:
    sides = value if isinstance(value, list | tuple) and len(value) == 2 else [value]
    return [checks.integer(name, side, low=1, high=2**14) for side in sides]


def _word(name: str, value: Any) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9_]{0,40}", value):
        rule = f"{name} must be one of timm's words, of small letters, digits and _"
        raise InputError(f"{rule}; got {checks.shown(value)}")
    return value


def _text(name: str, value: Any) -> object:
    if not isinstance(value, str) or not value:
        raise InputError(f"{name} must be text; got {checks.shown(value)}")
    return value


def _place(name: str, value: Any) -> object:
    """Where weights are; whatever else timm reads of this mapping would shape the net, and not be stored."""
    known = ("file", "hf_hub_filename", "hf_hub_id", "source", "url")
    if not isinstance(value, dict) or not set(value) <= set(known):
        raise InputError(f"{name} must hold nothing but {', '.join(known)}; got {checks.shown(value)}")
    return value


_rate: _Check = partial(checks.number, low=0, high=1, open_high=True)
_factor: _Check = partial(checks.number, low=0, high=100)
_count: _Check = partial(checks.integer, low=0, high=2**14)

# What timm's constructors take that shapes a net and is a plain value. Whatever else they take may load or run things.
_OPTIONS: dict[str, _Check] = {
    **dict.fromkeys(("img_size", "patch_size", "window_size"), _side),
    **dict.fromkeys(("act_layer", "class_pool", "global_pool", "norm_layer", "pool_type"), _word),
    **dict.fromkeys(
        ("attn_drop_rate", "drop_block_rate", "drop_path_rate", "drop_rate", "patch_drop_rate", "pos_drop_rate",
         "proj_drop_rate"),
        _rate,
    ),
    **dict.fromkeys(("init_values", "ls_init_value", "mlp_ratio"), _factor),
    **dict.fromkeys(
        ("base_width", "cardinality", "depth", "embed_dim", "num_heads", "output_stride", "reg_tokens", "stem_width"),
        _count,
    ),
    **dict.fromkeys(
        ("class_token", "dynamic_img_pad", "dynamic_img_size", "no_embed_class", "qk_norm", "qkv_bias", "use_rel_pos"),
        checks.flag,
    ),
}  # fmt: skip
# Where the first weights come from. These read files, fetch, or unpickle: a recipe may have them, a stored model not.
_FIRST_WEIGHTS: dict[str, _Check] = {
    "pretrained": checks.flag,
    "pretrained_cfg_overlay": _place,
    "checkpoint_path": _text,
    "cache_dir": _text,
}
FIRST_WEIGHTS = tuple(_FIRST_WEIGHTS)


def timm_net(name: str, /, in_channels: int, image_size: ImageSize, embedding_size: int, **options: object) -> Backbone:
    """The net of that name in timm, pooled and without its classes, then a feature layer.

    Args:
        name: the name in timm, without the prefix "timm:".
        image_size: height and width in pixels, or one number for both; nets with positions want `img_size` as well.
        options: of what else `timm.create_model` takes, plain values that shape the net (`img_size`, `drop_path_rate`,
            `global_pool` ...), and `FIRST_WEIGHTS`, such as `pretrained`. A model is stored without those, and rebuilt
            from the others.

    Raises:
        InputError: timm cannot be imported, knows no such net, or an option or images of that size are refused.
    """
    sides = check_sizes(f"{PREFIX}{name}", in_channels, image_size, embedding_size, smallest=1)
    _check_options(name, options)
    timm = extras.load("timm", "timm", f"the backbone '{PREFIX}{name}'")
    if not _NAME.fullmatch(name) or not timm.is_model(name):
        raise InputError(f"timm has no net {checks.shown(name)}{checks.nearest(name, timm.list_models())}")
    try:
        net = timm.create_model(name, in_chans=in_channels, num_classes=0, **options)
    except Exception as error:  # whatever the net's constructor raises for an option that is not its own
        reason = f"{checks.shown(options)}: {checks.one_line(error)}"
        raise InputError(f"timm cannot build {name!r} with {reason}") from error
    width = _width(name, net, in_channels, sides)
    layers = [net, FeatureLayer(width, embedding_size)]
    backbone = Backbone(layers, in_channels, sides, embedding_size, initialize=None)
    backbone.net_prefix = "layers.0."
    return backbone


def _check_options(name: str, options: dict[str, object]) -> None:
    """Refuse options that a stored model could not be rebuilt with."""
    known = _OPTIONS | _FIRST_WEIGHTS
    for option, value in options.items():
        if option not in known:
            rule = f"options of the backbone '{PREFIX}{name}' must be among {', '.join(sorted(known))}"
            raise InputError(f"{rule}; got {checks.shown(option)}{checks.nearest(option, known)}")
        if value is not None:  # timm takes None for its own default
            known[option](f"the option {option} of '{PREFIX}{name}'", value)


def _width(name: str, net: nn.Module, in_channels: int, sides: tuple[int, ...]) -> int:
    """How many pooled features the net gives, found by an image of zeros; refuses sizes that the net refuses."""
    training = net.training
    try:
        with torch.no_grad():
            pooled = net.eval()(torch.zeros(1, in_channels, *sides))
    except (AssertionError, RuntimeError, ValueError) as error:
        fault = f"timm's {name!r} cannot take images of {' x '.join(map(str, sides))} pixels: {checks.one_line(error)}"
        raise InputError(f"{fault}; give another image_size, or the option img_size where the net has one") from error
    net.train(training)
    if pooled.ndim != 2:
        rule = f"timm's {name!r} must give [batch, features]"
        raise InputError(f"{rule}; it gives {list(pooled.shape)}: leave its pooling on")
    return int(pooled.shape[1])
