"""Train a part of a backbone, or its layers at rates of their own: frozen parameters, layer-wise decay, recomputation.

Patterns and layers go by the names of `backbone.named_parameters()`, and for a net of another library by the names
that it has there: `blocks.0.attn.qkv.weight` rather than `layers.0.blocks.0.attn.qkv.weight`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from torch import nn

from angulus.backbones.layers import shell
from angulus.core import checks
from angulus.core.checks import InputError

if TYPE_CHECKING:
    from angulus.training.settings import Training

# the numbered part that a parameter lies in: blocks.3, encoder.layer.3, stages.1.blocks.2, layer1.0
_LAYER = re.compile(r"(?:[^.]+\.)*?\d+(?:\.blocks\.\d+)?(?=\.|$)")
_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def prepare(backbone: nn.Module, settings: Training) -> None:
    """Freeze, and recompute activations, as the settings say; doing it twice changes nothing."""
    freeze(backbone, settings.freeze)
    if settings.activation_checkpointing:
        recompute_activations(backbone)


def parameters_by_name(backbone: nn.Module) -> list[tuple[str, nn.Parameter, bool]]:
    """(name, parameter, whether it comes after a net of another library) of each parameter, in the net's order."""
    outer, inner = _prefixes(backbone)
    foreign = inner != outer
    return [
        (
            name.removeprefix(inner if name.startswith(inner) else outer),
            parameter,
            foreign and not name.startswith(inner),
        )
        for name, parameter in backbone.named_parameters()
    ]


def _prefixes(backbone: nn.Module) -> tuple[str, str]:
    """What the names of the network's parameters begin with, and those of a net of another library in it."""
    place, own = shell(backbone)
    outer = f"{place}." if place else ""
    return outer, f"{outer}{own.net_prefix}" if own is not None else outer


def blocks(backbone: nn.Module) -> list[nn.Module]:
    """The numbered layers or blocks of a net that hold parameters, in its order."""
    parts = _numbered(backbone).values()
    return [part for part in parts if part is not None and not isinstance(part, nn.ModuleList | nn.ModuleDict)]


def _numbered(backbone: nn.Module) -> dict[str, nn.Module | None]:
    """The numbered layers or blocks by their names, in the net's order; None is a parameter of a list.

    Single layers before the first block, such as the convolutions and norms of a stem, belong to the stem.
    """
    inner = _prefixes(backbone)[1]
    named = (name for name, _, after in parameters_by_name(backbone) if not after)
    names = dict.fromkeys(match[0] for name in named if (match := _LAYER.match(name)))
    modules = dict(backbone.named_modules())
    found = [(name, modules.get(inner + name)) for name in names]
    is_block = [part is not None and next(part.children(), None) is not None for _, part in found]
    return dict(found[is_block.index(True) :] if True in is_block else found)


def freeze(backbone: nn.Module, patterns: Sequence[str]) -> None:
    """Let the parameters whose name matches a pattern (`*`, `?`, `[...]`) stay as they are.

    Raises:
        InputError: a pattern matches no parameter, or nothing of the backbone is left to train.
    """
    if not patterns:
        return
    named = parameters_by_name(backbone)
    for pattern in patterns:
        matched = [parameter for name, parameter, _ in named if fnmatchcase(name, pattern)]
        if not matched:
            names = [name for name, *_ in named]
            near = (
                _nearest_pattern(pattern.removeprefix(_prefixes(backbone)[1]), names)
                or f"; names are as {names[0]!r} and {names[-1]!r}"
            )
            raise InputError(f"training.freeze: {pattern!r} matches no parameter of the backbone{near}")
        for parameter in matched:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for _, parameter, _ in named):
        raise InputError(
            "training.freeze leaves nothing of the backbone to train; freeze less, such as all but the feature layer"
        )


def _nearest_pattern(pattern: str, names: Sequence[str]) -> str:
    """A clause that suggests the name, or the pattern of a part, that is most like a pattern that matches nothing."""
    parts = {f"{name[:end]}.*": None for name in names for end in range(len(name)) if name[end] == "."}
    for meant in (pattern, f"{pattern.rstrip('.*')}.*"):
        if any(fnmatchcase(name, meant) for name in names):
            return f"; did you mean {meant!r}?"
    return checks.nearest(pattern, [*names, *parts])


def train_mode(network: nn.Module) -> None:
    """Training mode, except for batch norm whose weights are frozen: its running means stay as they are, too."""
    network.train()
    for module in network.modules():
        own = list(module.parameters(recurse=False)) if isinstance(module, _BATCH_NORM) else []
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()


def layer_scales(backbone: nn.Module, decay: float) -> dict[int, float]:
    """The factor on the learning rate of each parameter, by its id: decay^(L − l) for layer l of 0..L.

    Layer 0 is what comes before the first numbered part of the net (patch embedding, positions, stem), layers 1, 2, ...
    are the numbered parts in their order, each with what lies between it and the next, and layer L is the rest: the
    last norm and the feature layer. A net without such a rest ends in its last numbered part.

    Source: K. Clark et al., "ELECTRA", ICLR 2020, Sec. 3.1 and A.2; H. Bao et al., "BEiT", ICLR 2022, for images.

    Raises:
        InputError: the net has no numbered parts.
    """
    numbers = {name: number for number, name in enumerate(_numbered(backbone), start=1)}
    if not numbers:
        raise InputError("training.optimizer.layer_decay needs a net with numbered layers or blocks; leave it out")
    named = parameters_by_name(backbone)
    matches = [None if after else _LAYER.match(name) for name, _, after in named]
    own = [numbers.get(match[0], 0) if match else 0 for match in matches]
    layers = list(itertools.accumulate(own, max))  # what has no number is of the part before it
    rest = max(place for place, number in enumerate(own) if number) + 1
    last = len(numbers) + (rest < len(own))
    layers[rest:] = [last] * (len(own) - rest)
    return {id(parameter): decay ** (last - layer) for (_, parameter, _), layer in zip(named, layers, strict=True)}


def recompute_activations(backbone: nn.Module) -> None:
    """Let the net compute activations again in backward instead of keeping them, by its library's own switch.

    Raises:
        InputError: the net has no such switch, or batch norm, whose running means would move twice per step.
    """
    net: Any = next((module for module in backbone.modules() if _can_recompute(module)), None)
    what = "training.activation_checkpointing"
    if net is None:
        raise InputError(f"{what} needs a transformer of timm or transformers that supports it; leave it out")
    if any(isinstance(module, _BATCH_NORM) for module in net.modules()):
        raise InputError(f"{what} computes each layer twice, which moves the means of batch norm twice; leave it out")
    if hasattr(net, "set_grad_checkpointing"):
        try:
            net.set_grad_checkpointing(True)
        except AssertionError as error:  # how timm says that a net cannot
            raise InputError(f"{what}: this net of timm does not support it; leave it out") from error
    else:
        net.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


def _can_recompute(module: nn.Module) -> bool:
    return hasattr(module, "set_grad_checkpointing") or bool(getattr(module, "supports_gradient_checkpointing", False))
