"""Checks of a batch on a GPU that do not wait for it: their findings are read later, with the sentences of the others.

To look at a number on a GPU, the host must wait until the GPU has done everything before it, and then the GPU waits for
the host. So a training step on CUDA examines its batch on the device. A batch that breaks a rule gives a loss of NaN
with zero gradients and moves no figure; its findings travel to the host on their own, and the first later call on the
same class weights whose findings have arrived raises the error. `check(weight)` waits for all of them.

The alternatives: `torch._assert_async` ends the CUDA context, so that nothing can be saved, and loses the sentence; to
check only some steps would miss most bad batches.

Several ranks tell each other on the device whether their batch is good, so that none moves by a batch that is bad on
another; and on the host, before each step, whether one has read a bad finding, so that all raise at the same call.

Checked at once, as on a CPU: what is computed under no_grad or from a weight that is not a leaf, and pieces of one's
own that read the batch without `masks`, since only the host can drop the ignored rows for them.
"""

from __future__ import annotations

import warnings
from collections import deque
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from angulus.core import checks
from angulus.distributed.collectives import gather_numbers, total
from angulus.distributed.runtime import Ranks, RemoteError
from angulus.losses.objective import BoundObjective

MOST = 64  # steps that may be unread: beyond it a call waits for the oldest
POSING = False  # tests set it: tensors on a CPU are treated as if they were on a GPU
LATER = "; this is a batch of an earlier step, whose loss was NaN: on a GPU a batch is checked without waiting for it"

_PENDING: Any = WeakTensorKeyDictionary()  # class weights -> deque of `Findings`, oldest first


class Findings(NamedTuple):
    """What is wrong with a batch: the first bad row of each kind, or their number if there is none."""

    # int64: of bias, of features, of labels, that label, of losses, how many rows count, and the first rank with a bad
    # batch or -1; or one number of the features' gradient
    numbers: Tensor
    arrived: Any  # an event, or None if the numbers are here
    rows: int
    classes: int
    dtype: torch.dtype  # of the losses
    refusal: str | None = None  # by a piece, on the host


class Examined(NamedTuple):
    """A batch on a GPU, made harmless."""

    features: Tensor  # [B, d]; 1 in ignored rows, and in all rows of a bad batch
    labels: Tensor  # [B], in range
    kept: Tensor  # [B], bool: rows that are not ignored
    kept_rows: Tensor  # how many these are, at least 1
    sound: Tensor  # bool: all features are finite
    good: Tensor  # bool: nothing is wrong, but perhaps features that a gradient scaler expects to see
    found: tuple[Tensor, ...]  # what is known for `Findings`


def defers(features: Tensor, weight: Tensor, bound: BoundObjective) -> bool:
    """Whether the checks of this step can be read later."""
    if not (features.is_cuda or POSING) or not torch.is_grad_enabled() or not weight.is_leaf:
        return False
    weighting = bound.spec.weighting
    readers = [piece for piece in bound.bound_pieces if hasattr(piece, "prepare")]
    readers += [weighting] if weighting is not None and weighting.reads_batch else []
    return all(getattr(piece, "masks", False) for piece in readers)


def examine(
    features: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None, lenient: bool, num_classes: int | None = None
) -> Examined:
    """Check a batch on its device; `lenient` leaves features that are not finite to a gradient scaler.

    `num_classes` is C if `weight` holds only some of the classes; then other ranks may have the rows that count.
    """
    checks.layout(features, weight, labels, bias)
    labels, classes = labels.long(), len(weight) if num_classes is None else num_classes
    kept = labels != checks.IGNORE_INDEX
    outside = kept & ((labels < 0) | (labels >= classes))
    broken = ~torch.isfinite(features.detach()).all(dim=1)
    row, count = _first(outside), kept.sum()
    of_bias = torch.full_like(row, classes) if bias is None else _first(~torch.isfinite(bias.detach()))
    sound = ~broken.any()
    good = ~outside.any() & (of_bias == classes) & (num_classes is not None or count > 0)
    if not lenient:
        good = good & sound
    label = labels.index_select(0, row.clamp(max=len(labels) - 1)[None])[0]
    of_features = torch.full_like(row, len(features)) if lenient else _first(broken)
    features = torch.where((good & sound & kept)[:, None], features, 1.0)
    labels = torch.where(kept & ~outside, labels, 0)
    found = (of_bias, of_features, row, label, count)
    return Examined(features, labels, kept, count.clamp(min=1), sound, good, found)


def remember(
    weight: Tensor, examined: Examined, rows: Tensor, ranks: Ranks, classes: int, refusal: str | None = None
) -> tuple[Tensor, Tensor]:
    """Send the findings of a step, with those of its losses [B], to the host.

    Returns whether all is well, and whether a gradient scaler finds all features finite; both on all ranks. Nothing is
    sent while a CUDA graph is captured: a loss of NaN is then the only sign. `refusal` is what a piece refused on the
    host, after the last exchange of forward: the other ranks go on, so this rank raises it with them.
    """
    *of_batch, count = examined.found
    of_losses = _first(examined.kept & ~torch.isfinite(rows.detach()))
    good = examined.good & (of_losses == len(rows))
    if refusal is not None:
        good = torch.zeros_like(good)
    sound, of_ranks = examined.sound, torch.full_like(of_losses, -1)
    if ranks.count > 1:
        here = torch.arange(ranks.count + 1, device=rows.device)
        bad = torch.where(here == ranks.rank, ~good, (here == ranks.count) & ~sound)
        *of_all, unsound = (total(bad.long(), ranks) > 0).unbind()
        bad = torch.stack(of_all)
        good, sound, of_ranks = ~bad.any(), ~unsound, torch.where(bad.any(), _first(bad), -1)
    _send(weight, torch.stack([*of_batch, of_losses, count, of_ranks]), rows, classes, refusal)
    return good, sound


@torch.no_grad()
def remember_gradient(weight: Tensor, gradient: Tensor) -> None:
    """Send the first row of a gradient of float16 features [B, d] that leaves its range, to be warned of."""
    row = _first((gradient.abs() > torch.finfo(torch.float16).max).any(dim=1))
    _send(weight, row[None], gradient, len(weight))


def _send(weight: Tensor, numbers: Tensor, rows: Tensor, classes: int, refusal: str | None = None) -> None:
    if _capturing(numbers):
        return
    arrived = None
    if numbers.is_cuda:
        numbers = numbers.to("cpu", non_blocking=True)  # to pinned memory
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
    _PENDING.setdefault(weight, deque()).append(Findings(numbers, arrived, len(rows), classes, rows.dtype, refusal))


def raise_arrived(weight: Tensor) -> None:
    """Raise the error of the first bad batch whose findings have arrived."""
    queue = _PENDING.get(weight)
    while queue and not _capturing(weight):
        arrived = queue[0].arrived
        if arrived is not None and not arrived.query():
            if len(queue) <= MOST:
                return
            arrived.synchronize()
        _raise(queue, weight)


def agree(weight: Tensor, facts: list[int], ranks: Ranks, refusal: Exception | None = None) -> list[list[int]]:
    """The facts ≥ 0 of all ranks, by rank; if one refuses, as by the findings of an earlier batch, all raise."""
    table = gather_numbers(facts if refusal is None else [-1] * len(facts), ranks)
    refused = [rank for rank, row in enumerate(table) if row[0] < 0]
    if refused:
        check(weight)  # may be by an earlier batch, whose findings have arrived on that rank alone
    if refusal is not None:
        raise refusal
    if refused:
        raise RemoteError(f"rank {refused[0]} refused its batch or an earlier one; its own message says why")
    return table


def check(weight: Tensor) -> None:
    """Wait for the findings of all steps of these class weights so far, and raise the first error.

    Raises:
        checks.InputError: a batch broke a rule.
    """
    queue = _PENDING.get(weight)
    while queue:
        if queue[0].arrived is not None:
            queue[0].arrived.synchronize()
        _raise(queue, weight)


def _raise(queue: deque[Findings], weight: Tensor) -> None:
    """Raise the error of the oldest findings, if they have one; or warn."""
    findings = queue.popleft()
    if len(findings.numbers) == 1:
        row = int(findings.numbers)
        if row < findings.rows:
            warnings.warn(checks.gradient_overflow(row), stacklevel=3)
        return
    of_bias, of_features, of_labels, label, of_losses, count, of_ranks = findings.numbers.tolist()
    message, kind = findings.refusal, checks.InputError
    if message is not None:
        pass
    elif of_bias < findings.classes:
        message = checks.not_finite("bias", of_bias)
    elif of_features < findings.rows:
        message = checks.not_finite("features", of_features)
    elif count == 0:
        message = checks.ALL_IGNORED
    elif of_labels < findings.rows:
        message = checks.outside("labels", label, of_labels, findings.classes)
    elif of_losses < findings.rows:
        sane = bool(torch.isfinite(weight.detach()).all())
        then = "" if sane else "; by now the class weights hold NaN or Inf, so go back to a checkpoint"
        message = checks.loss_not_finite(of_losses, findings.dtype) + then
    elif of_ranks >= 0:
        message, kind = f"rank {of_ranks} refused its batch or its loss; its own message says why", RemoteError
    if message is not None:
        queue.clear()
        raise kind(message + LATER)


def _first(bad: Tensor) -> Tensor:
    """The first place of True, or the number of places."""
    places = torch.arange(len(bad), device=bad.device)
    return torch.where(bad, places, len(bad)).amin()


def _capturing(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()
