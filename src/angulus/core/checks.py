"""Argument checks.

Every message names the argument, the rule, the value and, if possible, the way out.
"""

from __future__ import annotations

import difflib
import math
import numbers
import reprlib
import sys
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the functions that check tensors import torch: the command line's help needs none of it
    from torch import Tensor

IGNORE_INDEX = -100
INNER = ("angulus", "torch", "pydantic")  # packages whose lines say nothing to the user
ALL_IGNORED = f"every label is {IGNORE_INDEX} (ignored); a batch needs one row that counts"


class InputError(ValueError):
    """Input that breaks a rule; the command line shows the message and exits with 2."""


def number(
    name: str,
    value: object,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
    hint: str = "",
) -> float:
    """`value` as a float in the range; otherwise an error that states the rule."""
    rule = _range(low, high, open_low, open_high)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{name} must be a number{rule}; got {shown(value)}{_hint(hint)}")
    try:
        plain = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        plain = math.inf
    inside = (low < plain if open_low else low <= plain) and (plain < high if open_high else plain <= high)
    if not inside or not math.isfinite(plain):
        raise InputError(f"{name} must be a finite number{rule}; got {shown(value)}{_hint(hint)}")
    return plain


def integer(name: str, value: object, *, low: int | None = None, high: int | None = None, hint: str = "") -> int:
    """`value` as an int in [low, high]; otherwise an error that states the rule."""
    rule = _range(-math.inf if low is None else low, math.inf if high is None else high, False, False)
    plain = int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else None
    if plain is None or (low is not None and plain < low) or (high is not None and plain > high):
        got = shown(value if plain is None else plain)
        raise InputError(f"{name} must be a whole number{rule}; got {got}{_hint(hint)}")
    return plain


def flag(name: str, value: object) -> bool:
    """`value` if it is a bool; otherwise an error."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false; got {shown(value)}")
    return value


def choice(name: str, value: object, options: Iterable[str], *, hint: str = "") -> str:
    """`value` if it is one of `options`; otherwise an error that suggests the nearest one."""
    options = tuple(options)
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(repr(option) for option in options)
        raise InputError(f"{name} must be one of {listed}; got {shown(value)}{nearest(value, options)}{_hint(hint)}")
    return value


def nearest(word: object, known: Iterable[str], *, least: float = 0.6) -> str:
    """A clause that suggests the known word most like `word`, or nothing; `least` is how alike, in [0, 1].

    >>> nearest("gama", ["gamma", "lower"])
    "; did you mean 'gamma'?"
    """
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=least)
    return f"; did you mean {close[0]!r}?" if close else ""


def why_unread(error: OSError) -> str:
    """The reason why a file cannot be read.

    >>> why_unread(IsADirectoryError(21, "Is a directory"))
    'it is a folder'
    """
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return error.strerror or str(error)


def one_line(error: BaseException) -> str:
    """The message of an error, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


class _Short(reprlib.Repr):
    """Values as `repr` writes them, shortened if long or deep."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 4, 120, 120, 40
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 8

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write ints with too many digits
        return super().repr_int(x, level) if x.bit_length() < 10_000 else f"a whole number of {x.bit_length():,} bits"


shown = _Short().repr  # a value in an error: like `repr`, but always short


def warn(message: str) -> None:
    """Warn of a choice that is valid but unusual, such as outside a paper's range, at the user's own line."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in INNER:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def batch(
    features: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None, *, finite_features: bool = True
) -> None:
    """Check types, shapes, dtypes, devices and finiteness of what a class loss is given; not the labels' range."""
    layout(features, weight, labels, bias)
    if bias is not None:
        finite(bias, "bias")
    if finite_features:
        finite(features, "features")


def layout(features: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None) -> None:
    """Check types, shapes, dtypes and devices of what a class loss is given, which a host knows without the values."""
    import torch

    matrices(features, weight, sub_centers=True)
    if not isinstance(labels, torch.Tensor):
        raise InputError(f"labels must be a torch.Tensor; got {type(labels).__name__}")
    if not features.device == weight.device == labels.device:
        devices = f"{features.device}, {weight.device} and {labels.device}"
        raise InputError(f"features, weight and labels must be on one device; got {devices}")
    if labels.shape != features.shape[:1]:
        raise InputError(f"labels must have shape [{len(features)}], one per row of features; got {list(labels.shape)}")
    if labels.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise InputError(f"labels must be integers; got {labels.dtype}")
    if bias is not None and (not isinstance(bias, torch.Tensor) or bias.shape != weight.shape[:1]):
        got = list(bias.shape) if isinstance(bias, torch.Tensor) else repr(bias)
        raise InputError(f"bias must have shape [{weight.shape[0]}]; got {got}")
    if features.shape[0] == 0:
        raise InputError("features must hold at least one row; got an empty batch")


def matrices(features: Tensor, weight: Tensor, *, sub_centers: bool = False) -> None:
    """Check that features [B, d] and weight [C, d] are floats that go together; or [C, K, d], with sub-centres."""
    import torch

    for name, value in (("features", features), ("weight", weight)):
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{name} must be a torch.Tensor; got {type(value).__name__}")
    if features.ndim != 2:
        raise InputError(f"features must have shape [batch, embedding_size]; got {list(features.shape)}")
    if weight.ndim != 2 and not (sub_centers and weight.ndim == 3):
        raise InputError(f"weight must have shape [num_classes, embedding_size]; got {list(weight.shape)}")
    if features.shape[1] != weight.shape[-1]:
        sizes = f"{features.shape[1]} and {weight.shape[-1]}"
        raise InputError(f"features and weight must agree on embedding_size; got {sizes}")
    if not features.is_floating_point() or not weight.is_floating_point():
        raise InputError(f"features and weight must be floating point; got {features.dtype} and {weight.dtype}")


def finite(values: Tensor, name: str) -> None:
    """Refuse NaN and Inf, naming the first row that holds one."""
    import torch

    ok = torch.isfinite(values.detach()).flatten(1).all(dim=1) if values.ndim > 1 else torch.isfinite(values.detach())
    if not bool(ok.all()):
        row = int((~ok).nonzero()[0, 0])
        raise InputError(not_finite(name, row))


def not_finite(name: str, row: int) -> str:
    """The sentence of `finite`."""
    return f"{name} must be finite; got NaN or Inf at row {row}"


def gradient_overflow(row: int) -> str:
    """The warning about a gradient that float16 cannot hold."""
    return (
        f"the gradient of features row {row} exceeds float16's 65504 and becomes infinite, as it does near a zero "
        "feature; a torch.amp.GradScaler skips such a step, without one give the head features in float32"
    )


def loss_not_finite(row: int, dtype: object) -> str:
    """The sentence about a loss that is not finite though its inputs are."""
    return (
        f"the loss is not finite at row {row}, though features and weight are: a logit or penalty leaves the range "
        f"of {dtype}; scale features or weight down, give them in float64, or give a penalty that divides by the norm "
        "of a zero feature an eps > 0"
    )


def label_range(labels: Tensor, num_classes: int) -> None:
    """Refuse labels outside [0, num_classes), naming the first row."""
    bad = ((labels < 0) | (labels >= num_classes)) & (labels != IGNORE_INDEX)
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        raise InputError(outside("labels", int(labels[row]), row, num_classes))


def outside(name: str, label: int, row: int, num_classes: int) -> str:
    """The sentence of `label_range`."""
    return f"{name} must be in [0, {num_classes}) or {IGNORE_INDEX} (ignored); got {label} at row {row}"


def _range(low: float, high: float, open_low: bool, open_high: bool) -> str:
    if low == -math.inf and high == math.inf:
        return ""
    if high == math.inf:
        return f" {'>' if open_low else '>='} {low:g}"
    if low == -math.inf:
        return f" {'<' if open_high else '<='} {high:g}"
    return f" in {'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"


def _hint(hint: str) -> str:
    return f"; {hint}" if hint else ""
