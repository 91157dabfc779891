"""Which class weights are updated within backward, and by what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

Update = Callable[[slice, Tensor], None]

# By the weight itself and not in the head: a copy of a head, or one given another weight, is a head like any other.
_UPDATES: Any = WeakTensorKeyDictionary()


def attach(weight: Tensor, update: Update) -> None:
    """Let backward call `update` with each block of the classes of this weight."""
    _UPDATES[weight] = update


def attached(weight: Tensor) -> Update | None:
    """What backward calls for this weight, or None: its gradient is made as usual."""
    update: Update | None = _UPDATES.get(weight)
    return update


def detach(weight: Tensor) -> None:
    """Make this weight's gradient as usual from now on."""
    _UPDATES.pop(weight, None)
