"""Build a network without drawing its first weights, where stored ones are loaded next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_CONSTANT = {"zeros_", "ones_", "constant_", "eye_", "dirac_"}
_DRAWS = {name for name in dir(nn.init) if name.endswith("_") and name[0] != "_"} - _CONSTANT | {
    *("bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_", "uniform_"),
}


class Unfilled(TorchFunctionMode):
    """Within, draws in place leave a tensor as it is in memory, and no random state moves; `torch.randn` still draws.

    Drawing takes most of the time that a model takes to load. Load weights with `strict=True` afterwards.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") not in _DRAWS:
            return func(*args, **kwargs)
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
        return next(tensors)
