"""Blocks of classes, and the sums and gradients of every reduction over them, for the chunked kernel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from angulus.kernels import threads
from angulus.kernels.columns import reduce_columns
from angulus.kernels.exponentials import exp_, exponent_unit
from angulus.kernels.reduction import Request, lengths
from angulus.kernels.running_sums import SoftplusSum, Total
from angulus.kernels.spreads import add_spread_gradient
from angulus.kernels.spreads import spread as mean_spread

BLOCK_ELEMENTS = 1 << 19  # of a block's n x B products: 2 MiB in float32, so that the block stays in cache
LEAST_BLOCK = 64  # classes, however large the batch
SAFE_EXPONENT = 87.0  # in float32: exp and its sums stay finite without a running maximum


class Block(NamedTuple):
    """One block of n classes, whose weight rows are n, or n · K with sub-centres: never a part of a class."""

    classes: slice
    rows: slice  # of the weight as a matrix
    weight: Tensor  # [rows, d], as the caller passes it
    operand: Tensor  # [rows, d], in the dtype of the products
    products: Tensor  # w_j·x̂, [rows, B], or w_j·x̂ / ‖w_j‖; read only: it may be the stash
    divided: bool  # whether the products are divided by ‖w_j‖ already
    inverse: Tensor | None  # 1 / ‖w_j‖, [rows], if cosines are needed
    targets: tuple[Tensor, Tensor]  # the places of the rows' own classes: (class within the block, row)
    room: tuple[Tensor, ...]  # buffers [n, B]: cosines, which of them are changed, and three for intermediate results
    # buffers [n, K, B] for the cosines of the sub-centres, if there are any, and for their shares or gradients
    each: tuple[Tensor, Tensor] | None


def inverse_lengths(unit: Tensor, weight: Tensor, request: Request) -> Tensor | None:
    """A buffer for 1 / ‖w_j‖, [C], if cosines are needed; `blocks` fills it."""
    return unit.new_empty(weight.shape[:-1].numel()) if request.needs_cosines else None


class Room:
    """The buffers of one walker: for products that are not stashed, and for intermediate results."""

    def __init__(self, walk: Walk) -> None:
        unit, size, count = walk.unit, walk.size, walk.count
        self.products = None if walk.stashed is not None else walk.features.new_empty(size * count, len(unit))
        self.buffers = [unit.new_empty(size, len(unit)) for _ in range(5)]  # only those that are used take memory
        self.each = None if count == 1 else unit.new_empty(2, size, count, len(unit))


class Walk:
    """The classes block by block; with `fill`, `inverse` and the stash (if any) are filled, else read."""

    def __init__(
        self,
        unit: Tensor,
        weight: Tensor,
        inverse: Tensor | None,
        labels: Tensor,
        request: Request,
        stash: Tensor | None,
        *,
        fill: bool,
    ) -> None:
        self.unit, self.inverse, self.request, self.fill = unit, inverse, request, fill
        self.classes, self.count = weight.shape[0], weight.shape[1] if weight.ndim == 3 else 1
        self.weight = weight.flatten(0, -2)
        self.size = min(self.classes, max(max(BLOCK_ELEMENTS // len(unit), LEAST_BLOCK) // self.count, 1))
        self.labels, self.order = labels.sort()
        starts = torch.arange(0, self.classes + self.size, self.size, device=labels.device)
        self.bounds = torch.searchsorted(self.labels, starts).tolist()
        self.segments = threads.segments(len(self.bounds) - 1, unit.device)
        self.features = operand(unit, request)
        self.stashed = None if stash is None else stash.flatten(0, -2).view(self.features.dtype)
        # the cosines take the place of the products, unless these are needed or would be rounded twice
        self.divides = request.unit_weight and self.features.dtype == unit.dtype

    def blocks(self, segment: range, room: Room) -> Iterator[Block]:
        """The blocks of a segment, in buffers that the next block overwrites."""
        for number in segment:
            start = number * self.size
            chosen = slice(start, min(start + self.size, self.classes))
            rows = slice(chosen.start * self.count, chosen.stop * self.count)
            part = self.weight[rows]
            factor = operand(part, self.request, self.unit.dtype)
            inverse = None if self.inverse is None else self.inverse[rows]
            if self.fill and inverse is not None:
                torch.reciprocal(lengths(part.to(self.unit.dtype), self.request.eps), out=inverse)
            if self.stashed is not None:
                products = self.stashed[rows, : len(self.unit)]
            else:
                assert room.products is not None
                products = room.products[: len(part)]
            if self.fill or self.stashed is None:
                torch.mm(factor, self.features.T, out=products)
                if self.divides:
                    assert inverse is not None
                    products *= inverse[:, None]
            own = slice(self.bounds[number], self.bounds[number + 1])
            size = chosen.stop - start
            yield Block(
                chosen,
                rows,
                part,
                factor,
                products,
                self.divides,
                inverse,
                (self.labels[own] - start, self.order[own]),
                tuple(buffer[:size] for buffer in room.buffers),
                None if room.each is None else (room.each[0, :size], room.each[1, :size]),
            )


def operand(values: Tensor, request: Request, otherwise: torch.dtype | None = None) -> Tensor:
    """The values in the dtype of the products; in `otherwise` if the request names none."""
    return values.to(request.products or otherwise or values.dtype)


def fits(unit: Tensor, weight: Tensor, request: Request) -> bool:
    """Whether a row of dW can hold the products of its class with the whole batch."""
    size = (request.products or unit.dtype).itemsize
    row = weight.shape[-1] * weight.dtype.itemsize
    return row % size == 0 and unit.shape[0] * size <= row


def _bases(block: Block, request: Request) -> tuple[Tensor, Tensor | None]:
    """(what the radius multiplies, cosines if they are needed), before the negatives are mapped."""
    cosines = None
    if block.each is not None:
        assert block.inverse is not None
        if block.divided:
            block.each[0].flatten(0, 1).copy_(block.products)
        else:
            torch.mul(block.products, block.inverse[:, None], out=block.each[0].flatten(0, 1))
        cosines = _combined(*block.each, request, block.room[0])
    elif block.divided:
        cosines = block.products
    elif block.inverse is not None:
        cosines = torch.mul(block.products, block.inverse[:, None], out=block.room[0])
    if not request.unit_weight:
        return block.products.to(block.room[0].dtype), cosines
    assert cosines is not None
    return cosines, cosines


def _mapped(base: Tensor, request: Request, block: Block) -> tuple[Tensor, Tensor | None]:
    """(mapped bases, 1 for changed ones and 0 for others, or None if none or all of them change)."""
    if request.power is not None:
        t, m = request.power
        half = torch.add(base, 1.0, out=block.room[2]).mul_(0.5).clamp_min_(0.0)  # 1 + cos may round below 0
        return half.pow_(t).mul_(2.0).add_(m - 1), None
    if request.threshold is None:
        return base, None
    a2, a1, a0 = request.read_coefficients
    above = torch.gt(base, request.threshold, out=block.room[1])  # as floats: several times faster than bools and where
    kept = 1 if request.below is None else 0
    below = 0.0 if request.below is None else request.below
    raised = torch.add(base.new_tensor(a0 - below), base, alpha=a1 - kept, out=block.room[2])
    if a2 != 0:
        raised.addcmul_(base, base, value=a2)
    if kept:
        return torch.addcmul(base, above, raised, out=raised), above
    raised *= above
    return (raised.add_(below) if below else raised), above


def _combined(each: Tensor, shares: Tensor, request: Request, out: Tensor) -> Tensor:
    """`reduction.combine` of the cosines [n, K, B] into `out`; with softness it fills `shares`."""
    torch.amax(each, dim=1, out=out)
    if request.softness is None:
        return out
    torch.sub(each, out[:, None], out=shares).mul_(exponent_unit(each) / request.softness)
    exp_(shares, exponent_unit(each))
    shares /= shares.sum(dim=1, keepdim=True)
    torch.mul(shares[:, 0], each[:, 0], out=out)
    for k in range(1, each.shape[1]):
        out.addcmul_(shares[:, k], each[:, k])
    return out


def _of_each(gradient: Tensor, cosines: Tensor, block: Block, request: Request) -> Tensor:
    """The gradient with respect to the cosines of the sub-centres, [n · K, B]; that of the classes' is overwritten."""
    assert block.each is not None
    each, found = block.each
    for k in range(each.shape[1]):
        if request.softness is None:  # the first of equals takes it all
            torch.eq(each[:, k], cosines, out=found[:, k])
            gradient -= found[:, k].mul_(gradient)
        else:
            slope = torch.sub(each[:, k], cosines, out=block.room[2]).mul_(1 / request.softness).add_(1)
            found[:, k].mul_(slope.mul_(gradient))
    return found.flatten(0, 1)


def _by_class(block: Block, dtype: torch.dtype) -> Tensor:
    """The block's weights, [n, K, d]."""
    assert block.each is not None
    return block.weight.view(-1, block.each[0].shape[1], block.weight.shape[1]).to(dtype)


def _times_slope(gradient: Tensor, base: Tensor, above: Tensor | None, request: Request, block: Block) -> Tensor:
    """The gradient with respect to the bases, from that of the mapped bases, which is overwritten."""
    if above is None:
        return gradient if request.power is None else _times_power_slope(gradient, base, request, block)
    a2, a1, _ = request.read_coefficients
    d1, d0 = (2 * a2, a1) if request.slope is None else request.slope
    if request.below is not None:
        return gradient.mul_(torch.add(base.new_tensor(d0), base, alpha=d1, out=block.room[2]).mul_(above))
    if d1 == 0:
        return gradient if d0 == 1 else gradient.addcmul_(gradient, above, value=d0 - 1)
    steeper = torch.add(base.new_tensor(d0 - 1), base, alpha=d1, out=block.room[2])
    return gradient.addcmul_(gradient, steeper.mul_(above))


def _times_power_slope(gradient: Tensor, base: Tensor, request: Request, block: Block) -> Tensor:
    assert request.power is not None
    t, _ = request.power
    if request.slope is not None:
        d1, d0 = request.slope
        if (d1, d0) == (0, 1):
            return gradient
        return gradient.mul_(torch.add(base.new_tensor(d0), base, alpha=d1, out=block.room[2]))
    half = torch.add(base, 1.0, out=block.room[2]).mul_(0.5).clamp_min_(0.0)
    return gradient.mul_(half.pow_(t - 1).mul_(t))


def _mask(values: Tensor, block: Block, value: float) -> Tensor:
    """Write a value at the places of the rows' own classes."""
    return values.index_put_(block.targets, values.new_tensor(value)) if len(block.targets[1]) else values


class Sums:
    """The running sums of all reductions over the blocks."""

    def __init__(self, request: Request, unit: Tensor, classes: int, bias: Tensor | None, means: list[bool]) -> None:
        self.request = request
        room = SAFE_EXPONENT - math.log(classes) if unit.dtype == torch.float32 else 4 * SAFE_EXPONENT
        largest = max(1.0, sum(abs(a) for a in request.read_coefficients)) if request.threshold is not None else 1.0
        largest = max(largest, abs(request.below or 0.0), 1.0 if request.power is None else 1 + request.power[1])
        self.log_sums: list[_LogSum | SoftplusSum] = []
        self.total = Total(unit) if request.sums_logits else None
        if request.radius is not None and request.shift is not None:
            self.log_sums.append(SoftplusSum(unit, request.shift, means[0], means[-1]))
        elif request.radius is not None:
            bounded = request.unit_weight and bias is None and float(request.radius.abs().max()) * largest < room
            self.log_sums.append(_LogSum(unit, bounded, means[0], binary=not request.sums_logits))
        for scale, mean in zip(request.plain_scales, means[1:-1], strict=True):
            self.log_sums.append(_LogSum(unit, float(scale.abs().max()) < room, mean))
        self.hinges = [(unit.new_zeros(len(unit)), unit.new_zeros(len(unit))) for _ in request.hinge_offsets]
        self.columns = [tuple(unit.new_zeros(()) for _ in range(3)) for _ in request.class_sums]
        self.spreads = [unit.new_zeros(()) for _ in request.spreads]

    def add(self, block: Block, bias: Tensor | None) -> None:
        request = self.request
        base, cosines = _bases(block, request)
        sums = iter(self.log_sums)
        if request.radius is not None:
            mapped, _ = _mapped(base, request, block)
            log_sum = next(sums)
            logits = torch.mul(mapped, log_sum.unit * request.radius, out=block.room[3])
            if bias is not None:
                logits += bias[block.classes, None].to(logits.dtype)
            if self.total is not None:
                self.total.add(logits, mapped, block)
            log_sum.add(logits, mapped, block)
        for scale in request.plain_scales:
            assert cosines is not None
            log_sum = next(sums)
            log_sum.add(torch.mul(cosines, log_sum.unit * scale, out=block.room[3]), cosines, block)
        for offset, (total, count) in zip(request.hinge_offsets, self.hinges, strict=True):
            assert cosines is not None
            inner = _mask(torch.add(offset, cosines, alpha=2, out=block.room[2]), block, 0.0)
            count += (inner > 0).sum(dim=0)
            total += inner.clamp_min_(0).sum(dim=0)
        for (alpha, delta), (own, others, classes) in zip(request.class_sums, self.columns, strict=True):
            assert cosines is not None
            found = reduce_columns(cosines, block.targets, request.kept, alpha, delta, block.room[2])
            own += found.own.sum()
            others += found.others.sum()
            classes += found.present
        for eps, spread in zip(request.spreads, self.spreads, strict=True):
            spread += mean_spread(_by_class(block, base.dtype), eps)

    def merge(self, later: Sums) -> None:
        """Add the sums of a later segment."""
        for log_sum, addend in zip(self.log_sums, later.log_sums, strict=True):
            log_sum.merge(addend)  # type: ignore[arg-type]  # both are of one kind
        if self.total is not None and later.total is not None:
            self.total.merge(later.total)
        pairs = [*zip(self.hinges, later.hinges, strict=True), *zip(self.columns, later.columns, strict=True)]
        for own, others in [*pairs, (self.spreads, later.spreads)]:
            for number, other in zip(own, others, strict=True):
                number += other

    def results(self) -> tuple[Tensor, ...]:
        flat = [number for pair in self.hinges for number in pair]
        total = [] if self.total is None else [self.total.value]
        columns = [number for numbers in self.columns for number in numbers]
        return (*(log_sum.value() for log_sum in self.log_sums), *flat, *total, *columns, *self.spreads)

    def bounded(self) -> list[bool]:
        """For each log-sum, whether its logits stay within the range of exp."""
        return [log_sum.bounded for log_sum in self.log_sums]

    def counts(self) -> list[Tensor]:
        return [count for _, count in self.hinges] + [classes for *_, classes in self.columns]

    def saved(self) -> list[Tensor | None]:
        """What backward needs, two per log-sum: see their `saved`; and what the radius multiplies in the total."""
        numbers = [number for log_sum in self.log_sums for number in log_sum.saved()]
        return numbers if self.total is None else [*numbers, self.total.scaled]


class _LogSum:
    """log Σ exp over the non-target classes, and the mean of what its scale multiplies, block by block.

    `bounded`: no logit can leave the range of exp, so no running maximum is needed. Then, if `binary`, logits are given
    as multiples of `unit`, so that their exponentials are powers of two.
    """

    def __init__(self, unit: Tensor, bounded: bool, mean: bool, binary: bool = True) -> None:
        self.unit = exponent_unit(unit) if bounded and binary else 1.0
        self.top = unit.new_zeros(len(unit)) if bounded else unit.new_full((len(unit),), -torch.inf)
        self.bounded = bounded
        self.total = unit.new_zeros(len(unit))
        self.weighted = unit.new_zeros(len(unit)) if mean else None

    def add(self, logits: Tensor, scaled: Tensor, block: Block) -> None:
        """Add one block; `logits` is overwritten."""
        _mask(logits, block, -math.inf)
        if not self.bounded:
            top = torch.maximum(self.top, logits.amax(dim=0))
            shift = torch.where(torch.isfinite(top), top, 0.0)  # all classes of a row may be masked so far
            shrink = torch.exp(self.top - shift)
            self.total *= shrink
            if self.weighted is not None:
                self.weighted *= shrink
            self.top = top
            logits -= shift
        exponentials = exp_(logits, self.unit)
        self.total += exponentials.sum(dim=0)
        if self.weighted is not None:
            self.weighted += exponentials.mul_(scaled).sum(dim=0)

    def merge(self, later: _LogSum) -> None:
        top = torch.maximum(self.top, later.top)
        shift = torch.where(torch.isfinite(top), top, 0.0)
        own, other = torch.exp(self.top - shift), torch.exp(later.top - shift)
        self.top, self.total = top, own * self.total + other * later.total
        if self.weighted is not None and later.weighted is not None:
            self.weighted = own * self.weighted + other * later.weighted

    def value(self) -> Tensor:
        return torch.where(self.total > 0, self.top + torch.log(self.total), -torch.inf)

    def saved(self) -> tuple[Tensor, Tensor | None]:
        """Its value, and the mean of what its scale multiplies, or None."""
        if self.weighted is None:
            return self.value(), None
        return self.value(), self.weighted / torch.where(self.total > 0, self.total, 1.0)


class Backward:
    """The gradients of the reductions with respect to a block's products, as coefficients."""

    def __init__(
        self, request: Request, saved: list[Tensor], grads: tuple[Tensor, ...], bounded: Sequence[bool]
    ) -> None:
        self.request, self.bounded = request, bounded
        self.in_total = saved.pop() if request.sums_logits else None
        count, hinges = len(saved) // 2, 2 * len(request.hinge_offsets)
        self.means = saved[1::2]
        self.by_shift = None if request.shift is None else saved[0]
        values = saved[0::2] if request.shift is None else saved[2::2]
        self.shifts = [] if request.shift is None else [request.shift]
        self.shifts += [torch.where(torch.isfinite(value), -value, 0.0) for value in values]
        self.of_log_sums = grads[:count]
        self.of_hinges = [2 * gradient for gradient in grads[count : count + hinges : 2]]
        self.of_total = grads[count + hinges] if request.sums_logits else None
        first = count + hinges + request.sums_logits
        self.of_spreads = grads[first + 3 * len(request.class_sums) :]
        sums = grads[first : first + 3 * len(request.class_sums)]
        self.of_columns = list(zip(sums[0::3], sums[1::3], strict=True))
        scales = ([] if request.radius is None else [request.radius]) + list(request.plain_scales)
        self.factors = [gradient * scale for gradient, scale in zip(self.of_log_sums, scales, strict=True)]
        self.units = [exponent_unit(scale) if small else 1.0 for scale, small in zip(scales, bounded, strict=True)]
        self.scales = [unit * scale for unit, scale in zip(self.units, scales, strict=True)]
        self.shifts = [unit * shift for unit, shift in zip(self.units, self.shifts, strict=True)]

    def of_scales(self) -> list[Tensor | None]:
        """Gradients of the radius, the plain scales and the shift, [B] each, or None."""
        pairs = zip(self.of_log_sums, self.means, strict=True)
        gradients: list[Tensor | None] = [None if mean is None else gradient * mean for gradient, mean in pairs]
        if self.request.radius is None:
            gradients = [None, *gradients]
        elif gradients[0] is not None and self.of_total is not None and self.in_total is not None:
            gradients[0] = gradients[0] + self.of_total * self.in_total
        return [*gradients, None if self.by_shift is None else self.of_log_sums[0] * self.by_shift]

    def coefficients(self, block: Block, bias: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Gradients with respect to (the products [n, B], the lengths, divided by the length [n], the bias [n])."""
        request = self.request
        base, cosines = _bases(block, request)
        on_products: Tensor | None = None
        on_cosines: Tensor | None = None
        on_bias: Tensor | None = None
        log_sums = iter(zip(self.scales, self.shifts, self.factors, self.bounded, self.units, strict=True))
        if request.radius is not None:
            radius, shift, factor, bounded, unit = next(log_sums)
            mapped, above = _mapped(base, request, block)
            own = None if bias is None else bias[block.classes, None].to(mapped.dtype)
            if request.shift is None:
                shares = _shares(mapped, radius, own, shift, bounded, unit, block.room[3])
            else:
                shares = torch.mul(mapped, radius, out=block.room[3])
                shares = (shares if own is None else shares.add_(own)).add_(shift).sigmoid_()
            _mask(shares, block, 0.0)
            if bias is not None:
                on_bias = torch.mv(shares, self.of_log_sums[0])
            shares *= factor
            if self.of_total is not None:
                _mask(shares.add_(self.of_total * request.radius), block, 0.0)
                if on_bias is not None:
                    on_bias += self.of_total.sum()
                    on_bias.index_add_(0, block.targets[0], self.of_total[block.targets[1]], alpha=-1)
            _times_slope(shares, base, above, request, block)
            if request.unit_weight:
                on_cosines = shares
            else:
                on_products = shares
        for scale, shift, factor, bounded, unit in log_sums:
            assert cosines is not None
            out = block.room[4 if on_cosines is None else 2]
            shares = _mask(_shares(cosines, scale, None, shift, bounded, unit, out), block, 0.0)
            on_cosines = shares.mul_(factor) if on_cosines is None else on_cosines.addcmul_(shares, factor)
        for offset, gradient in zip(request.hinge_offsets, self.of_hinges, strict=True):
            assert cosines is not None
            inner = _mask(torch.add(offset, cosines, alpha=2, out=block.room[2]), block, 0.0)
            active = torch.gt(inner, 0.0, out=inner)
            on_cosines = active * gradient if on_cosines is None else on_cosines.addcmul_(active, gradient)
        for (alpha, delta), (of_own, of_others) in zip(request.class_sums, self.of_columns, strict=True):
            assert cosines is not None
            out = block.room[4 if on_cosines is None else 2]
            columns = reduce_columns(cosines, block.targets, request.kept, alpha, delta, out)
            gradient = columns.other_shares.mul_(alpha * of_others)
            gradient.index_put_(block.targets, columns.own_shares * (-alpha * of_own))
            on_cosines = gradient if on_cosines is None else on_cosines.add_(gradient)
        on_lengths = None
        if on_cosines is not None:
            assert cosines is not None and block.inverse is not None
            # cos = product / l: ∂/∂product = 1 / l, and through l = sqrt(‖w‖² + eps): −cos · w / l²
            room = block.room[2]
            if block.each is not None:
                on_cosines = _of_each(on_cosines, cosines, block, request)
                room = cosines = block.each[0].flatten(0, 1)
            on_lengths = torch.mul(on_cosines, cosines, out=room).sum(dim=1) * block.inverse.square()
            on_cosines *= block.inverse[:, None]
            on_products = on_cosines if on_products is None else on_products.add_(on_cosines)
        assert on_products is not None
        return on_products, on_lengths, on_bias

    def add_spreads(self, gradient: Tensor, block: Block) -> None:
        """Add the gradient of the sub-centres' distances to that of the block's weight."""
        for eps, factor in zip(self.request.spreads, self.of_spreads, strict=True):
            weight = _by_class(block, gradient.dtype)
            add_spread_gradient(gradient.view(weight.shape), weight, eps, factor)


def _shares(
    scaled: Tensor, scale: Tensor, bias: Tensor | None, shift: Tensor, bounded: bool, unit: float, out: Tensor
) -> Tensor:
    """exp(scale · scaled + bias + shift) into `out`; scale and shift are multiples of `unit`.

    A large logit minus its log-sum must be rounded as in forward: a single multiply-add rounds only once, and at logits
    of 1e8 the difference is several units, which exp would blow up.
    """
    if bounded:  # then there is no bias
        return exp_(torch.addcmul(shift, scaled, scale, out=out), unit)
    shares = torch.mul(scaled, scale, out=out)
    if bias is not None:
        shares += bias
    return exp_(shares.add_(shift), unit)
