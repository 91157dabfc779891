"""A watch that fails where the host would wait for a GPU, while a CPU poses as one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# what makes the host wait for the GPU: a number that is read, or a shape that depends on the data
READS = {"__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy", "cpu", "nonzero", "equal"}
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal", "lift_fresh", "bincount")


class Wait(AssertionError):
    pass


class NoRead(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") in READS:
            raise Wait(f"Tensor.{function.__name__} waits for a GPU")
        return function(*args, **(kwargs or {}))


class NoWait(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.removeprefix("aten::")
        flat = [each for arg in args for each in (arg if isinstance(arg, list | tuple) else [arg])]
        picks = name.startswith("index") and any(
            isinstance(each, Tensor) and each.dtype == torch.bool for each in flat[1:]
        )
        if picks or any(name.lstrip("_").startswith(wait.lstrip("_")) for wait in WAITS):
            raise Wait(f"aten::{name} waits for a GPU")
        return function(*args, **(kwargs or {}))
