"""The reduction in blocks of classes: no B x C buffer, exact gradients, on any device, without a compiler.

Forward walks the blocks once (one product, w_j·x̂) and keeps running log-sum-exps. Backward needs each block's
products again. While B ≤ d they are *stashed* in the storage of the weight's gradient: the products of class j lie in
row j of dW until backward overwrites that row with the gradient itself. The whole then costs three products (w_j·x̂, dX,
dW) and no memory except W, dW and a few blocks. If B > d they do not fit, and backward multiplies again.

Blocks are class-major, [n, B], like the rows of dW. The mapped cosines and their derivatives are computed from the
products both times, so one walk serves every objective: the kernel knows the reductions, but no losses.

With `products=torch.bfloat16` the operands of the three products are rounded to bfloat16. On a CPU with AMX nothing
else is (`rounds_within`); elsewhere the results of the products are rounded too, and the stash takes half the room
(B ≤ 2d). Lengths, exponentials, sums and dX stay in the dtype of the features.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from angulus.core import checks
from angulus.kernels import threads
from angulus.kernels.blocks import Backward, Block, Room, Sums, Walk, fits, inverse_lengths, operand
from angulus.kernels.reduction import Reduced, Request, per_row

_TURN = threading.RLock()


def reduce_rows(unit: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, request: Request) -> Reduced:
    """Reduce every row of non-target classes; see `kernels.reduction`. First derivatives only."""
    scales = (request.radius, *request.plain_scales, request.shift)
    constant = dataclasses.replace(
        request,
        radius=None if request.radius is None else request.radius.detach(),
        plain_scales=tuple(scale.detach() for scale in request.plain_scales),
        shift=None if request.shift is None else request.shift.detach(),
        coefficients=request.read_coefficients,
    )
    if weight.ndim == 3:
        weight = weight.contiguous()  # the rows of a class are a view
    # needs_input_grad is also true under no_grad, so the mode is passed in
    outputs = _Streamed.apply(unit, weight, bias, labels, constant, torch.is_grad_enabled(), *scales)  # type: ignore[no-untyped-call]
    rows, *numbers = outputs
    scattered = [numbers.pop() for _ in request.spreads][::-1]
    log_sum = None if request.radius is None else numbers.pop(0)
    plain = tuple(numbers.pop(0) for _ in request.plain_scales)
    hinges = tuple((numbers.pop(0), numbers.pop(0)) for _ in request.hinge_offsets)
    total = numbers.pop(0) if request.sums_logits else None
    sums = tuple((numbers.pop(0), numbers.pop(0), numbers.pop(0)) for _ in request.class_sums)
    spreads = tuple(per_row(each, weight, len(unit)) for each in scattered)
    return Reduced(log_sum, plain, hinges, rows, total, sums, spreads)


class _Streamed(torch.autograd.Function):
    """One walk over the classes forward, one backward."""

    @staticmethod
    def forward(
        ctx: Any,
        unit: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        request: Request,
        recording: bool,
        *scales: Tensor | None,
    ) -> tuple[Tensor, ...]:
        recording = recording and any(ctx.needs_input_grad)
        within = rounds_within(unit, request)
        if within:
            request = dataclasses.replace(request, products=None)
        wanted = recording and ctx.needs_input_grad[1] and request.update is None
        stash = None
        if wanted and fits(unit, weight, request):
            stash = torch.empty_like(weight, memory_format=torch.contiguous_format)
        means = [recording and needed for needed in ctx.needs_input_grad[6:]]
        inverse = inverse_lengths(unit, weight, request)
        walk = Walk(unit, weight, inverse, labels, request, stash, fill=True)
        parts = [Sums(request, unit, weight.shape[0], bias, means) for _ in walk.segments]

        def add(numbers: Iterator[int]) -> None:
            room = Room(walk)
            for number in numbers:
                for block in walk.blocks(walk.segments[number], room):
                    parts[number].add(block, bias)

        with rounded_products(within):
            threads.walk(add, range(len(parts)), unit.device)
        sums, *later = parts
        for part in later:
            sums.merge(part)
        if recording:
            ctx.save_for_backward(unit, weight, bias, labels, inverse, *sums.saved())
            ctx.request, ctx.within, ctx.stash, ctx.spent = request, within, stash, False
            ctx.bounded = sums.bounded()
        ctx.mark_non_differentiable(*sums.counts())
        return (weight[labels.clamp_min(0)], *sums.results())

    @staticmethod
    def backward(ctx: Any, grad_rows: Tensor, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # backward() may be called under autocast, which would round these products
        with torch.autocast(grad_rows.device.type, enabled=False), rounded_products(ctx.within):
            return _Streamed.differentiate(ctx, grad_rows, *grads)

    @staticmethod
    def differentiate(ctx: Any, grad_rows: Tensor, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the inputs."""
        if torch.is_grad_enabled():
            raise checks.InputError("impl='chunked' has first derivatives only; use impl='reference' for create_graph")
        if ctx.spent:
            raise checks.InputError("this loss was differentiated already; run the head again before backward()")
        unit, weight, bias, labels, inverse, *saved = ctx.saved_tensors
        request: Request = ctx.request
        stash, ctx.stash, ctx.spent = ctx.stash, None, True
        back = Backward(request, saved, grads, ctx.bounded)
        needs_unit, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        if stash is not None:
            grad_weight = stash
        else:
            grad_weight = torch.empty_like(weight) if needs_weight and request.update is None else None
        grad_unit = torch.zeros_like(unit) if needs_unit else None
        grad_bias = torch.zeros_like(bias) if needs_bias and bias is not None else None
        rows = grad_rows if needs_weight else None
        total = None if grad_unit is None else threads.InOrder(grad_unit)
        walk = Walk(unit, weight, inverse, labels, request, stash, fill=False)

        def differentiate(numbers: Iterator[int]) -> None:
            room = Room(walk)
            for number in numbers:
                part = None if total is None else torch.zeros_like(unit)
                for block in walk.blocks(walk.segments[number], room):
                    _differentiate(block, walk, back, bias, rows, part, grad_weight, grad_bias)
                if total is not None and part is not None:
                    total.add(number, part)

        # an update sees the first classes before all others, so that it can refuse a second backward
        first = min(len(walk.segments), 0 if request.update is None else 1)
        for numbers in (range(first), range(first, len(walk.segments))):
            threads.walk(differentiate, numbers, unit.device)
        del stash  # a second reference would make autograd copy the gradient
        return (grad_unit, grad_weight, grad_bias, None, None, None, *back.of_scales())


def _differentiate(
    block: Block,
    walk: Walk,
    back: Backward,
    bias: Tensor | None,
    grad_rows: Tensor | None,
    grad_unit: Tensor | None,
    grad_weight: Tensor | None,
    grad_bias: Tensor | None,
) -> None:
    """Add a block's gradients to those that are given; `grad_rows` is None if the weight needs none."""
    request, features = walk.request, walk.features
    on_products, on_lengths, on_bias = back.coefficients(block, bias)
    on_products = operand(on_products, request)
    if grad_unit is not None:
        if features.dtype == grad_unit.dtype:
            grad_unit.addmm_(on_products.T, block.operand)
        else:
            grad_unit += torch.mm(on_products.T, block.operand)
    if grad_rows is not None:
        place = grad_weight.flatten(0, -2)[block.rows] if grad_weight is not None else None
        direct = place is not None and place.dtype == features.dtype
        gradient = torch.mm(on_products, features, out=place if direct else None).to(walk.unit.dtype)
        if on_lengths is not None:
            gradient.addcmul_(block.weight.to(walk.unit.dtype), on_lengths[:, None], value=-1.0)
        inside, batch_rows = block.targets
        if len(inside):
            by_class = gradient.view(-1, *grad_rows.shape[1:])
            by_class.index_add_(0, inside, grad_rows[batch_rows].to(walk.unit.dtype))
        back.add_spreads(gradient, block)
        if request.update is not None:
            request.update(block.rows, gradient)
        elif place is not None and gradient.data_ptr() != place.data_ptr():
            place.copy_(gradient)
    if grad_bias is not None and on_bias is not None:
        grad_bias[block.classes] = on_bias.to(grad_bias.dtype)


def rounds_within(unit: Tensor, request: Request) -> bool:
    """Whether oneDNN can round the operands of this request's products.

    A CPU product of bfloat16 tensors returns bfloat16, which rounds its sums as well. oneDNN can round the operands
    itself: nothing is copied, and the result is float32. It does so only with AMX, and only by a setting of the whole
    process, which is changed while a kernel runs, by one thread at a time. It may leave small products, of less than
    about 24 rows, in float32.
    """
    wanted = request.products == torch.bfloat16 and unit.dtype == torch.float32 and unit.device.type == "cpu"
    return wanted and amx_available()


@functools.cache
def amx_available() -> bool:
    """Whether oneDNN rounds on this machine when asked to: 1 + 2^-12 is not a bfloat16 number."""
    if not hasattr(torch.backends.mkldnn, "matmul"):  # the setting came with PyTorch 2.9
        return False
    with rounded_products(True):
        return bool((torch.full((64, 64), 1 + 2**-12) @ torch.ones(64, 64) == 64).all())


@contextlib.contextmanager
def rounded_products(wanted: bool) -> Iterator[None]:
    """A context in which float32 products on the CPU round their operands to bfloat16, if wanted."""
    if not wanted:
        yield
        return
    setting: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    with _TURN:
        before = setting.fp32_precision
        setting.fp32_precision = "bf16"
        try:
            yield
        finally:
            setting.fp32_precision = before
