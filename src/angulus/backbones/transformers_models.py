"""Vision transformers of the library transformers (DINOv2 and v3, SigLIP, CLIP, ViT): an optional extra.

A recipe names a folder or a repository on a hub, and the weights are read from its safetensors. A trained model is
stored with the kind of net and its plain settings instead, so that loading it reads and fetches nothing else.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from angulus.backbones import foreign
from angulus.backbones.layers import Backbone, ImageSize, check_sizes
from angulus.core import checks, extras, hub, limits
from angulus.core.checks import InputError

PREFIX = "transformers:"
CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
FETCHED = (CONFIG, PROCESSOR, "model*.safetensors", "model.safetensors.index.json")
ATTENTION = "sdpa"  # transformers' own default; a config.json could name a kernel on a hub, whose code would run
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


class _Kind(NamedTuple):
    model: str  # its class in transformers
    pooling: str  # unless another is asked for
    class_token: bool = True
    options: tuple[tuple[str, Any], ...] = ()  # of the class


_KINDS = {
    "dinov2": _Kind("Dinov2Model", "cls"),
    "dinov2_with_registers": _Kind("Dinov2WithRegistersModel", "cls"),
    "dinov3_vit": _Kind("DINOv3ViTModel", "cls"),
    "siglip_vision_model": _Kind("SiglipVisionModel", "attention", class_token=False),
    "clip_vision_model": _Kind("CLIPVisionModel", "cls"),
    "vit": _Kind("ViTModel", "cls", options=(("add_pooling_layer", False),)),
}
KINDS = tuple(_KINDS)
_TOWERS = {"siglip": "siglip_vision_model", "clip": "clip_vision_model"}  # the image tower of two
_Check = Callable[[str, Any], object]


def _word(name: str, value: Any) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9_]{1,40}", value):
        raise InputError(f"{name} must be a word of small letters, digits and _; got {checks.shown(value)}")
    return value


_count: _Check = partial(checks.integer, low=0, high=2**14)
_factor: _Check = partial(checks.number, low=0, high=1e6)
_rate: _Check = partial(checks.number, low=0, high=1, open_high=True)
# The plain settings that shape these nets. Whatever else a config.json holds is left out, and must change no feature.
_SETTINGS: dict[str, _Check] = {
    **dict.fromkeys(
        ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels", "image_size",
         "patch_size", "num_register_tokens"),
        _count,
    ),
    **dict.fromkeys(("mlp_ratio", "layer_norm_eps", "layerscale_value", "rope_theta", "pos_embed_rescale"), _factor),
    **dict.fromkeys(
        ("attention_dropout", "attention_probs_dropout_prob", "hidden_dropout_prob", "drop_path_rate"), _rate
    ),
    **dict.fromkeys(
        ("qkv_bias", "query_bias", "key_bias", "value_bias", "proj_bias", "mlp_bias", "use_gated_mlp",
         "use_swiglu_ffn", "use_mask_token"),
        checks.flag,
    ),
    "hidden_act": _word,
}  # fmt: skip


class Tokens(nn.Module):
    """The tokens of a net of transformers, normalised, in place of its output structure: [B, T, C]."""

    def __init__(self, net: nn.Module, kind: str, resize: bool, own_head: bool) -> None:
        super().__init__()
        self.net, self.own_head = net, own_head
        self.resize = {"interpolate_pos_encoding": True} if resize else {}
        self.clip = kind == "clip_vision_model"  # whose last norm stands after its pooling

    def forward(self, images: Tensor) -> Tensor:
        """Map images to tokens, or to the net's own pooled features [B, C]."""
        outputs = self.net(pixel_values=images, **self.resize)
        if self.own_head:
            return cast(Tensor, outputs.pooler_output)
        tokens = outputs.last_hidden_state
        return cast(Tensor, self.net.post_layernorm(tokens) if self.clip else tokens)  # type: ignore[operator]


def transformers_net(
    name: str, /, in_channels: int, image_size: ImageSize, embedding_size: int, **options: object
) -> Backbone:
    """The vision transformer in that folder or repository, pooled, then a feature layer.

    Args:
        name: a folder with `config.json` and `model.safetensors`, or OWNER/NAME on a hub; or a kind of net (dinov2,
            dinov2_with_registers, dinov3_vit, siglip_vision_model, clip_vision_model, vit) with random weights.
        image_size: height and width in pixels, multiples of the patch; other sizes than the weights' interpolate the
            positions.
        options: those of `foreign.OPTIONS`: `pooling` (cls by default, SigLIP's own attention for SigLIP),
            `feature_activation` and `lora`; `config`, the settings of a net with random weights.

    Raises:
        InputError: transformers is not installed, the folder or repository cannot be read or holds another net, no
            safetensors, or an option, channels or image size that the net does not take.
    """
    what = f"{PREFIX}{name}"
    sides = check_sizes(what, in_channels, image_size, embedding_size, smallest=1)
    own, others = foreign.split_options(what, options)
    named = name in _KINDS
    if unknown := sorted(set(others) - ({"config"} if named else set())):
        known = [*foreign.OPTIONS, *(["config"] if named else [])]
        rule = f"options of the backbone {what!r} must be among {', '.join(known)}"
        raise InputError(f"{rule}; got {unknown[0]!r}{checks.nearest(unknown[0], known)}")
    if named:
        kind, settings, folder = name, check_config(what, others.get("config", {})), None
    else:
        folder = find(name, FETCHED)
        kind, settings = read_config(folder, what)
    pooling = own.setdefault("pooling", _KINDS[kind].pooling)
    if pooling == "cls" and not _KINDS[kind].class_token:
        raise InputError(f"{what!r} has no class token; take the pooling mean, gem or attention")
    own_head = kind == "siglip_vision_model" and pooling == "attention"
    stored = {"config": settings, **own}
    net, chosen = _build(what, kind, settings, own_head)
    if chosen.num_channels != in_channels:
        raise InputError(f"{what!r} takes images of {chosen.num_channels} channels; got {in_channels}")
    if any(side % chosen.patch_size for side in sides):
        rule = f"{what!r} needs sides that are multiples of its patches' {chosen.patch_size} pixels"
        raise InputError(f"{rule}; got {' x '.join(map(str, sides))}")
    if folder is not None:
        _load(what, kind, folder, net, own_head)
    resize = (
        sides != (chosen.image_size,) * 2 and "interpolate_pos_encoding" in inspect.signature(net.forward).parameters
    )
    for place, parameter in net.named_parameters():
        if place.endswith("mask_token"):  # used in pretraining alone: processes would wait for its gradient
            parameter.requires_grad_(False)
    foreign.add_lora(what, net, own)
    prefix = int(_KINDS[kind].class_token) + getattr(chosen, "num_register_tokens", 0)
    tokens = Tokens(net, kind, resize, own_head)
    used = {option: value for option, value in own.items() if option != "pooling" or not own_head}
    built = foreign.backbone(
        what, tokens, (in_channels, sides, embedding_size), used, prefix=prefix, net_prefix="layers.0.net."
    )
    built.stored = (f"{PREFIX}{kind}", stored)
    return built


def find(name: str, wanted: tuple[str, ...]) -> Path:
    """The folder of that name, or of the repository on a hub, of which the wanted files are fetched."""
    what, folder = f"{PREFIX}{name}", Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not _HUB_NAME.fullmatch(name):
        raise InputError(f"{what}: there is no folder {name!r}, and it is no OWNER/NAME on a hub{_kinds(name)}")
    try:
        return hub.fetch(name, wanted, "transformers")
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def _kinds(name: str) -> str:
    return checks.nearest(name, _KINDS) or f"; with random weights, the kinds are {', '.join(_KINDS)}"


def read_config(folder: Path, what: str) -> tuple[str, dict[str, Any]]:
    """(the kind of net, its plain settings) of a folder's config.json."""
    content = _json(folder / CONFIG, what)
    kind = content.get("model_type")
    if kind in _TOWERS:
        kind, content = _TOWERS[kind], content.get("vision_config", {})
    if kind not in _KINDS:
        rule = f"{what}: {CONFIG} must be of the model_type {', '.join([*_KINDS, *_TOWERS])}"
        raise InputError(f"{rule}; got {checks.shown(kind)}")
    for refused, why in (("quantization_config", "quantised"), ("auto_map", "code of its own")):
        if refused in content:
            raise InputError(
                f"{what}: {CONFIG} holds {refused!r}, and nets with {why} are not loaded; take plain weights"
            )
    if (folder / "adapter_config.json").exists():
        raise InputError(f"{what}: it holds an adapter; merge it into its net first")
    return kind, check_config(
        what, {key: value for key, value in content.items() if key in _SETTINGS and value is not None}
    )


def check_config(what: str, settings: object) -> dict[str, Any]:
    """Return settings of a net if all are known and plain, else say which is not."""
    if not isinstance(settings, Mapping):
        raise InputError(f"the option config of {what!r} must be names with values; got {checks.shown(settings)}")
    for key, value in settings.items():
        if key not in _SETTINGS:
            rule = f"the option config of {what!r} must hold {', '.join(_SETTINGS)}"
            raise InputError(f"{rule}; got {checks.shown(key)}{checks.nearest(key, _SETTINGS)}")
        _SETTINGS[key](f"{key} of {what!r}", value)
    return dict(settings)


def own_input(name: str) -> dict[str, Any]:
    """The mean and scale (red, green, blue, in 0..255 units) and size that the weights were trained with, if said."""
    if name in _KINDS:
        return {}
    what, folder = f"{PREFIX}{name}", find(name, (CONFIG, PROCESSOR))
    read_config(folder, what)  # refuses a folder of something else before it misses a file in it
    if not (folder / PROCESSOR).exists():
        checks.warn(f"{what} has no {PROCESSOR}: give input.mean, input.scale and input.size of its weights")
        return {}
    content = _json(folder / PROCESSOR, what)
    found: dict[str, Any] = {}
    factor = checks.number(f"rescale_factor of {what}", content.get("rescale_factor", 1 / 255), low=0, open_low=True)
    unit = 1 / factor if content.get("do_rescale", True) else 1.0
    for key, source in (("mean", "image_mean"), ("scale", "image_std")):
        values = content.get(source)
        if content.get("do_normalize", True) and isinstance(values, list) and len(values) == 3:
            found[key] = [round(checks.number(f"{source} of {what}", value) * unit, 6) for value in values]
    size = content.get("crop_size") if content.get("do_center_crop", "crop_size" in content) else content.get("size")
    if isinstance(size, dict) and {"height", "width"} <= size.keys():
        found["size"] = [checks.integer(f"size of {what}", size[side], low=1) for side in ("height", "width")]
    return found


def _json(path: Path, what: str) -> dict[str, Any]:
    try:
        content = limits.parse_json(path.read_bytes(), path.name)
    except OSError as error:
        raise InputError(f"{what}: {path.name} cannot be read: {error.strerror}; give a folder of a net") from error
    if not isinstance(content, dict):
        raise InputError(f"{what}: {path.name} must hold names with values; got {checks.shown(content)}")
    return content


def _build(what: str, kind: str, settings: Mapping[str, Any], own_head: bool) -> tuple[nn.Module, Any]:
    """(the net with random weights, its whole configuration)."""
    transformers: Any = extras.load("transformers", "transformers", f"the backbone {what!r}")
    more = {"vision_use_head": own_head} if kind == "siglip_vision_model" else {}
    try:
        chosen = transformers.AutoConfig.for_model(kind, **settings, **more)
        return getattr(transformers, _KINDS[kind].model)(chosen, **dict(_KINDS[kind].options)), chosen
    except Exception as error:  # whatever the net's constructor raises for settings that do not fit
        raise InputError(f"transformers cannot build {what!r}: {checks.one_line(error)}") from error


def _load(what: str, kind: str, folder: Path, net: nn.Module, own_head: bool) -> None:
    """Load the folder's weights, and check that the settings which are stored describe its net."""
    transformers: Any = extras.load("transformers", "transformers", f"the backbone {what!r}")
    more = {"vision_use_head": own_head} if kind == "siglip_vision_model" else {}
    try:
        theirs, report = getattr(transformers, _KINDS[kind].model).from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, dtype=torch.float32,
            attn_implementation=ATTENTION, **dict(_KINDS[kind].options), **more,
        )  # fmt: skip
    except Exception as error:  # no or damaged weights, or of another shape
        raise InputError(f"{what}: its {WEIGHTS} cannot be loaded: {checks.one_line(error):.300}") from error
    missing = sorted(each for each in report["missing_keys"] if not each.endswith("mask_token"))
    if missing:
        rest = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{what}: its weights lack {missing[0]}{rest} of a {kind}; take those of this net")
    chosen: Any = theirs.config
    pixels = torch.linspace(-1, 1, chosen.num_channels * chosen.image_size**2)
    pixels = pixels.view(1, chosen.num_channels, chosen.image_size, chosen.image_size)
    try:
        net.load_state_dict(theirs.state_dict())
        with torch.no_grad():
            one, other = (each.eval()(pixel_values=pixels).last_hidden_state for each in (theirs, net))
    except RuntimeError as error:
        raise InputError(f"{what}: its settings do not describe its weights: {checks.one_line(error):.300}") from error
    net.train()
    if not torch.allclose(one, other, rtol=1e-4, atol=1e-4):
        raise InputError(f"{what}: {CONFIG} has settings that change its features and cannot be stored; take another")
