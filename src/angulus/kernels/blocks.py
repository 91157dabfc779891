"""Blocks of classes, and the sums and gradients of every reduction over them, for the chunked kernel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from angulus.kernels.reduction import Request
from angulus.kernels.reference import lengths

BLOCK_ELEMENTS = 1 << 20  # of a block's n x B products: 4 MiB in float32
LEAST_BLOCK = 64  # classes, however large the batch
SAFE_EXPONENT = 87.0  # of float32: exp and its sums stay finite without a running maximum


class Block(NamedTuple):
    """One block of n classes."""

    classes: slice
    weight: Tensor  # [n, d], as the caller has it
    operand: Tensor  # [n, d], in the dtype of the products
    products: Tensor  # w_j·x̂, [n, B]; read only: it may be the stash
    lengths: Tensor | None  # ‖w_j‖, [n], where cosines are wanted
    targets: tuple[Tensor, Tensor]  # where a row's own class stands: (class within the block, row)
    room: tuple[Tensor, ...]  # of [n, B]: for the cosines, what the negatives are mapped to, and logits


def blocks(
    unit: Tensor, weight: Tensor, labels: Tensor, request: Request, stash: Tensor | None, *, fill: bool
) -> Iterator[Block]:
    """The classes block by block; products go into the stash, where there is one, with `fill`, else come from it."""
    batch, classes = unit.shape[0], weight.shape[0]
    size = min(classes, max(BLOCK_ELEMENTS // batch, LEAST_BLOCK))
    cosines = request.unit_weight or request.plain_scales or request.hinge_offsets
    order = torch.argsort(labels)
    starts = torch.arange(0, classes + size, size, device=labels.device)
    bounds = torch.searchsorted(labels[order], starts).tolist()
    features = operand(unit, request)
    kept = None if stash is None else stash.view(features.dtype)
    buffer = None if stash is not None else features.new_empty(size, batch)
    room = [unit.new_empty(size, batch) for _ in range(4)]  # the system gives memory for those that are used
    for number, start in enumerate(range(0, classes, size)):
        chosen = slice(start, min(start + size, classes))
        part = weight[chosen]
        factor = operand(part, request, unit.dtype)
        if kept is not None:
            products = kept[chosen, :batch]
        else:
            assert buffer is not None
            products = buffer[: len(part)]
        if fill or stash is None:
            torch.mm(factor, features.T, out=products)
        rows = order[bounds[number] : bounds[number + 1]]
        yield Block(
            chosen,
            part,
            factor,
            products,
            lengths(part.to(unit.dtype), request.eps) if cosines else None,
            (labels[rows] - start, rows),
            tuple(each[: len(part)] for each in room),
        )


def operand(values: Tensor, request: Request, otherwise: torch.dtype | None = None) -> Tensor:
    """The values in the dtype of the products; `otherwise` where the request names none."""
    return values.to(request.products or otherwise or values.dtype)


def fits(unit: Tensor, weight: Tensor, request: Request) -> bool:
    """Whether a row of dW has room for the products of its class with the whole batch."""
    size = (request.products or unit.dtype).itemsize
    row = weight.shape[1] * weight.dtype.itemsize
    return row % size == 0 and unit.shape[0] * size <= row


def _bases(block: Block, request: Request) -> tuple[Tensor, Tensor | None]:
    """(what the radius multiplies, cosines where they are wanted), before the negatives are mapped."""
    cosines = None
    if block.lengths is not None:
        cosines = torch.mul(block.products, (1 / block.lengths)[:, None], out=block.room[0])
    if not request.unit_weight:
        return block.products.to(block.room[0].dtype), cosines
    assert cosines is not None
    return cosines, cosines


def _mapped(base: Tensor, request: Request, block: Block) -> tuple[Tensor, Tensor | None]:
    """(mapped bases, which of them are changed, or None for none)."""
    if request.threshold is None:
        return base, None
    a2, a1, a0 = request.coefficients
    above = base > request.threshold
    changed = torch.add(base.new_tensor(a0), base, alpha=a1, out=block.room[1])
    if a2 != 0:
        changed.addcmul_(base, base, value=a2)
    return torch.where(above, changed, base, out=changed), above


def _with_slope(factor: Tensor, base: Tensor, above: Tensor | None, request: Request, block: Block) -> Tensor:
    """The factor of each row, [B], times the derivative of the mapped bases by the bases, [n, B] where it is not 1."""
    a2, a1, _ = request.coefficients
    if above is None or (a2, a1) == (0, 1):
        return factor
    if a2 == 0:
        return torch.where(above, a1 * factor, factor, out=block.room[1])
    slope = torch.add(base.new_tensor(a1), base, alpha=2 * a2, out=block.room[1])
    return torch.where(above, slope.mul_(factor), factor, out=slope)


class Sums:
    """The running sums of every reduction, over the blocks."""

    def __init__(self, request: Request, unit: Tensor, classes: int, bias: Tensor | None, means: list[bool]) -> None:
        self.request = request
        room = SAFE_EXPONENT - math.log(classes) if unit.dtype == torch.float32 else 4 * SAFE_EXPONENT
        largest = max(1.0, sum(abs(a) for a in request.coefficients)) if request.threshold is not None else 1.0
        self.log_sums: list[_LogSum] = []
        if request.radius is not None:
            bounded = request.unit_weight and bias is None and float(request.radius.abs().max()) * largest < room
            self.log_sums.append(_LogSum(unit, bounded, means[0]))
        for scale, mean in zip(request.plain_scales, means[1:], strict=True):
            self.log_sums.append(_LogSum(unit, float(scale.abs().max()) < room, mean))
        self.hinges = [(unit.new_zeros(len(unit)), unit.new_zeros(len(unit))) for _ in request.hinge_offsets]

    def add(self, block: Block, bias: Tensor | None) -> None:
        request = self.request
        base, cosines = _bases(block, request)
        sums = iter(self.log_sums)
        if request.radius is not None:
            mapped, _ = _mapped(base, request, block)
            logits = torch.mul(mapped, request.radius, out=block.room[2])
            if bias is not None:
                logits += bias[block.classes, None].to(logits.dtype)
            next(sums).add(logits, mapped, block)
        for scale in request.plain_scales:
            assert cosines is not None
            next(sums).add(torch.mul(cosines, scale, out=block.room[2]), cosines, block)
        for offset, (total, count) in zip(request.hinge_offsets, self.hinges, strict=True):
            assert cosines is not None
            inner = torch.add(offset, cosines, alpha=2).index_put_(block.targets, cosines.new_zeros(()))
            total += inner.clamp_min(0).sum(dim=0)
            count += (inner > 0).sum(dim=0)

    def results(self) -> tuple[Tensor, ...]:
        flat = [number for pair in self.hinges for number in pair]
        return (*(each.value() for each in self.log_sums), *flat)

    def counts(self) -> list[Tensor]:
        return [count for _, count in self.hinges]

    def kept(self) -> list[Tensor | None]:
        """What backward needs, two a log-sum: its value, and the mean of what its scale multiplies, or None."""
        return [number for each in self.log_sums for number in (each.value(), each.mean())]


class _LogSum:
    """log Σ exp over the non-target classes, and the mean of what its scale multiplies, block by block.

    `bounded`: no logit can leave the range of exp, so no maximum is kept.
    """

    def __init__(self, unit: Tensor, bounded: bool, mean: bool) -> None:
        self.top = unit.new_zeros(len(unit)) if bounded else unit.new_full((len(unit),), -torch.inf)
        self.bounded = bounded
        self.total = unit.new_zeros(len(unit))
        self.weighted = unit.new_zeros(len(unit)) if mean else None

    def add(self, logits: Tensor, scaled: Tensor, block: Block) -> None:
        """Take one block; `logits` is overwritten."""
        logits.index_put_(block.targets, logits.new_full((), -torch.inf))
        if not self.bounded:
            top = torch.maximum(self.top, logits.amax(dim=0))
            shift = torch.where(torch.isfinite(top), top, 0.0)  # a row may be all masked so far
            shrink = torch.exp(self.top - shift)
            self.total *= shrink
            if self.weighted is not None:
                self.weighted *= shrink
            self.top = top
            logits -= shift
        exponentials = logits.exp_()
        self.total += exponentials.sum(dim=0)
        if self.weighted is not None:
            self.weighted += exponentials.mul_(scaled).sum(dim=0)

    def value(self) -> Tensor:
        return torch.where(self.total > 0, self.top + torch.log(self.total), -torch.inf)

    def mean(self) -> Tensor | None:
        return None if self.weighted is None else self.weighted / torch.where(self.total > 0, self.total, 1.0)


class Backward:
    """The coefficients that carry the gradients of the reductions back to a block's products."""

    def __init__(self, request: Request, kept: list[Tensor], grads: tuple[Tensor, ...]) -> None:
        self.request = request
        count = len(kept) // 2
        self.values, self.means = kept[0::2], kept[1::2]
        self.of_log_sums = grads[:count]
        self.of_hinges = grads[count::2]

    def of_scales(self) -> list[Tensor | None]:
        """Gradients of the radius and the plain scales, [B] each, or None."""
        pairs = zip(self.of_log_sums, self.means, strict=True)
        gradients: list[Tensor | None] = [None if mean is None else gradient * mean for gradient, mean in pairs]
        return gradients if self.request.radius is not None else [None, *gradients]

    def coefficients(self, block: Block, bias: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(gradient by the products [n, B], by the lengths over the length [n], by the bias [n])."""
        request = self.request
        base, cosines = _bases(block, request)
        on_products: Tensor | None = None
        on_cosines: Tensor | None = None
        on_bias: Tensor | None = None
        log_sums = iter(zip(self.of_log_sums, self.values, strict=True))
        if request.radius is not None:
            gradient, value = next(log_sums)
            mapped, above = _mapped(base, request, block)
            own = None if bias is None else bias[block.classes]
            shares = _shares(mapped, request.radius, value, own, block, block.room[2])
            if bias is not None:
                on_bias = torch.mv(shares, gradient)
            on_base = shares.mul_(_with_slope(gradient * request.radius, base, above, request, block))
            if request.unit_weight:
                on_cosines = on_base
            else:
                on_products = on_base
        for scale, (gradient, value) in zip(request.plain_scales, log_sums, strict=True):
            assert cosines is not None
            shares = _shares(cosines, scale, value, None, block, block.room[3 if on_cosines is None else 1])
            if on_cosines is None:
                on_cosines = shares.mul_(gradient * scale)
            else:
                on_cosines.addcmul_(shares, gradient * scale)
        for offset, gradient in zip(request.hinge_offsets, self.of_hinges, strict=True):
            assert cosines is not None
            inner = torch.add(offset, cosines, alpha=2).index_put_(block.targets, cosines.new_zeros(()))
            on_cosines = _sum(on_cosines, (inner > 0) * (2 * gradient))
        on_lengths = None
        if on_cosines is not None:
            assert cosines is not None and block.lengths is not None
            # cos = product / l: by the product 1 / l, and through l = sqrt(‖w‖² + eps): −cos · w / l²
            on_lengths = torch.mul(on_cosines, cosines).sum(dim=1) / block.lengths.square()
            on_products = _sum(on_products, on_cosines.mul_((1 / block.lengths)[:, None]))
        assert on_products is not None
        return on_products, on_lengths, on_bias


def _shares(scaled: Tensor, scale: Tensor, value: Tensor, bias: Tensor | None, block: Block, out: Tensor) -> Tensor:
    """Each class's share of a log-sum-exp's sum, exp(logit − value), [n, B]; 0 for targets."""
    logits = torch.addcmul(-torch.where(torch.isfinite(value), value, 0.0), scaled, scale, out=out)
    if bias is not None:
        logits += bias[:, None].to(logits.dtype)
    return logits.exp_().index_put_(block.targets, logits.new_zeros(()))


def _sum(first: Tensor | None, second: Tensor) -> Tensor:
    return second if first is None else first.add_(second)
