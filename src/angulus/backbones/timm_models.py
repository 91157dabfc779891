"""Backbones of the library timm, by their names there: an optional extra."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from angulus.backbones import foreign
from angulus.backbones.layers import Backbone, ImageSize, check_sizes
from angulus.core import checks, extras
from angulus.core.checks import InputError

PREFIX = "timm:"
OVERLAY = "pretrained_cfg_overlay"  # which names weights of one's own
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
    OVERLAY: _place,
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
            from the others. Also those of `foreign.OPTIONS`: `pooling` (cls, mean, gem, attention) in place of the
            net's own, `feature_activation` (such as bnneck), and `lora`.

    Raises:
        InputError: timm cannot be imported, knows no such net, or an option or images of that size are refused.
    """
    sides = check_sizes(f"{PREFIX}{name}", in_channels, image_size, embedding_size, smallest=1)
    own, options = foreign.split_options(f"{PREFIX}{name}", options)
    _check_options(name, options)
    if "pooling" in own and options.get("global_pool"):
        raise InputError(f"'{PREFIX}{name}' takes one of the options pooling and global_pool; leave one out")
    unpooled = {"global_pool": ""} if "pooling" in own else {}
    timm = extras.load("timm", "timm", f"the backbone '{PREFIX}{name}'")
    if not _NAME.fullmatch(name) or not timm.is_model(name):
        raise InputError(f"timm has no net {checks.shown(name)}{checks.nearest(name, timm.list_models())}")
    try:
        net = timm.create_model(name, in_chans=in_channels, num_classes=0, **options | unpooled)
    except Exception as error:  # whatever the net's constructor raises for an option that is not its own
        reason = checks.one_line(error)
        if unpooled and "pool" in reason:
            fault = f"'{PREFIX}{name}' cannot leave out its own pooling: {reason}"
            raise InputError(f"{fault.rstrip('.')}; leave the option pooling out") from error
        raise InputError(f"timm cannot build {name!r} with {checks.shown(options)}: {reason}") from error
    # tokens before those of patches; the first is the class token, unless the net has registers alone
    prefix = getattr(net, "num_prefix_tokens", 0)
    if own.get("pooling") == "cls" and getattr(net, "cls_token", None) is None:
        raise InputError(f"'{PREFIX}{name}' has no class token; take the pooling mean, gem or attention")
    last = getattr(net, "output_fmt", "") == "NHWC"  # as Swin's
    hint = _size_hint(net, sides)
    sizes = (in_channels, sides, embedding_size)
    foreign.add_lora(f"{PREFIX}{name}", net, own)
    return foreign.backbone(f"{PREFIX}{name}", net, sizes, own, prefix=prefix, channels_last=last, hint=hint)


def _size_hint(net: Any, sides: tuple[int, ...]) -> str:
    """What helps where a net refuses images of that size."""
    _, *made_for = (getattr(net, "pretrained_cfg", None) or {}).get("input_size") or (0,)
    known = f", such as {'x'.join(map(str, made_for))}, for which it is made" if made_for else ""
    size = sides[0] if len(set(sides)) == 1 else f"[{', '.join(map(str, sides))}]"
    option = f"set the option img_size (in a recipe backbone.options.img_size={size}) where the net has one"
    return f"bring the images to another size{known}; or {option}"


def list_names() -> list[str]:
    """The names of timm's nets, without the prefix."""
    names: list[str] = extras.load("timm", "timm", "the list of its backbones").list_models()
    return names


def describe(name: str) -> str:
    """One sentence on a net of timm."""
    weights = extras.load("timm", "timm", "the list of its backbones").get_pretrained_cfg(name)
    made_for = "" if weights is None else f", for images of {'x'.join(map(str, weights.input_size[1:]))} pixels"
    return f"A net of timm{made_for}."


def own_input(name: str, options: Mapping[str, object]) -> dict[str, Any]:
    """The mean, scale and size that timm's weights of that name were trained with, as a contract has them."""
    timm = extras.load("timm", "timm", f"the backbone '{PREFIX}{name}'")
    weights = timm.get_pretrained_cfg(name) if _NAME.fullmatch(name) and timm.is_model(name) else None
    if weights is None:
        return {}
    colours = (("mean", weights.mean), ("scale", weights.std))
    found: dict[str, Any] = {key: [round(255 * value, 6) for value in values] for key, values in colours}
    size = options.get("img_size", list(weights.input_size[1:]))
    return found | {"size": list(size) if isinstance(size, list | tuple) else [size, size]}


def _check_options(name: str, options: dict[str, object]) -> None:
    """Refuse options that a stored model could not be rebuilt with."""
    known = _OPTIONS | _FIRST_WEIGHTS
    for option, value in options.items():
        if option not in known:
            taken = sorted([*known, *foreign.OPTIONS])
            rule = f"options of the backbone '{PREFIX}{name}' must be among {', '.join(taken)}"
            raise InputError(f"{rule}; got {checks.shown(option)}{checks.nearest(option, taken)}")
        if value is not None:  # timm takes None for its own default
            known[option](f"the option {option} of '{PREFIX}{name}'", value)
