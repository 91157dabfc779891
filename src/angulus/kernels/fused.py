"""The reduction as Triton kernels: products and reductions of a tile in one pass, exact first derivatives.

Forward: one kernel multiplies a tile of rows by a tile of classes and reduces it at once to a few numbers per row,
which are summed after every chunk of classes; the products are never stored. Backward: for each chunk the same products
again, turned into the coefficients [B, n] of their gradients; then dX and dW of the chunk are plain matrix products
(cuBLAS). That is one product more than without recomputation, and no atomics.

Memory besides W, dW and tensors of size B x d or C: a chunk holds `SCRATCH` elements of the larger of [B, n] and
[n, d], so at most the coefficients and, if the products' dtype is not the weight's, a rounded copy of the chunk's
weights and its dW before that is copied into place; forward, the numbers [·, n / TileShape.classes, B]. Never B x C.

Operands of products have the dtype of `unit`, or `Request.products`; products accumulate in the dtype of `unit`, which
everything else has too. float32 is IEEE float32 unless PyTorch may use TF32 for its own products. float64 is correct
but slow: it does not use `tl.dot`.

No host code waits for the GPU. Needs the package triton and a CUDA device; with TRITON_INTERPRET=1 Triton's interpreter
runs it anywhere, slowly.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from angulus.core import checks
from angulus.kernels.fused_launch import ClassChunk, Walk, kernels, scales
from angulus.kernels.memory import explained
from angulus.kernels.reduction import Reduced, Request

LEAST_CAPABILITY = (8, 0)  # of a GPU, for bfloat16 and TF32 products


def unavailable(device: torch.device, impl: str = "fused") -> str | None:
    """Why this kernel cannot run on tensors of that device, as a sentence; None if it can."""
    try:
        module = kernels()
    except ImportError as error:
        return (
            f"impl={impl!r} needs the package triton (pip install triton), which cannot be imported: {error}; "
            "or use impl='chunked'"
        )
    if module.INTERPRETED:
        return None
    if not module.COMPILED:
        return f"impl={impl!r} needs TRITON_INTERPRET as it was when triton was imported; set it before Python starts"
    if device.type != "cuda":
        return (
            f"impl={impl!r} needs tensors on a CUDA device; got {device}: use impl='chunked', or set "
            "TRITON_INTERPRET=1 before Python starts, for Triton's slow interpreter"
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        least, here = (".".join(map(str, version)) for version in (LEAST_CAPABILITY, capability))
        return f"impl={impl!r} needs a GPU of compute capability {least} or newer; got {here}: use impl='chunked'"
    return None


def unsupported(impl: str, weight: Tensor, request: Request) -> str | None:
    """Why this kernel cannot reduce what is asked, as a sentence; None if it can."""
    own_sums = request.shift is not None or request.sums_logits or bool(request.class_sums)
    if own_sums or request.power or request.slope or request.below is not None:
        return (
            f"impl={impl!r} computes no sigmoids, label smoothing, circle negatives, powers of the cosine or sums over "
            "the batch for each class; use impl='chunked'"
        )
    if weight.ndim == 3:
        return (
            f"impl={impl!r} reduces one weight row per class; got sub-centres, weight {list(weight.shape)}: use "
            "impl='chunked'"
        )
    return None


def reduce_rows(unit: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, request: Request) -> Reduced:
    """Reduce every row of non-target classes; see `kernels.reduction`. First derivatives only.

    Raises:
        checks.InputError: the kernel cannot run here, or does not compute in a dtype.
    """
    return reduce_by(_Fused, "fused", unit, weight, bias, labels, request)


def reduce_by(
    function: Any, impl: str, unit: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, request: Request
) -> Reduced:
    """Check and reduce by an autograd function of that kernel's name."""
    reason = unsupported(impl, weight, request) or unavailable(unit.device, impl)
    if reason is not None:
        raise checks.InputError(reason)
    if unit.dtype not in (torch.float32, torch.float64):
        raise checks.InputError(f"impl={impl!r} needs unit features in float32 or float64; got {unit.dtype}")
    if request.products not in (None, unit.dtype, torch.bfloat16):
        raise checks.InputError(f"products must be None, torch.bfloat16 or {unit.dtype}; got {request.products}")
    factors = scales(request)
    count, hinges = len(factors), len(request.hinge_offsets)
    if not count + hinges:
        return Reduced(None, (), (), weight[labels.clamp_min(0)])
    constant = dataclasses.replace(
        request,
        radius=None if request.radius is None else request.radius.detach(),
        plain_scales=tuple(scale.detach() for scale in request.plain_scales),
    )
    # needs_input_grad is also true under no_grad, so the mode is passed in
    outputs = function.apply(unit, weight, bias, labels, constant, torch.is_grad_enabled(), *factors)
    rows, log_sums = outputs[0], outputs[1 : 1 + count]
    pairs = tuple(zip(outputs[1 + count : 1 + count + hinges], outputs[1 + count + hinges :], strict=True))
    if request.radius is None:
        return Reduced(None, log_sums, pairs, rows)
    return Reduced(log_sums[0], log_sums[1:], pairs, rows)


def refuse_again(ctx: Any, impl: str) -> None:
    """Refuse a second derivative, and a second backward."""
    if torch.is_grad_enabled():
        raise checks.InputError(f"impl={impl!r} has first derivatives only; use impl='reference' for create_graph")
    if ctx.spent:
        raise checks.InputError("this loss was differentiated already; run the head again before backward()")


class _Fused(torch.autograd.Function):
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
        *scales: Tensor,
    ) -> tuple[Tensor, ...]:
        recording = recording and any(ctx.needs_input_grad)
        walk = Walk(unit, weight, bias, labels, request)
        sums = Sums(unit, len(scales), len(request.hinge_offsets), recording and any(ctx.needs_input_grad[6:]))
        for chunk in walk.chunks(walk.slices(sums.numbers * len(unit) // walk.tile.classes)):
            sums.add(walk.reduce(chunk, sums.numbers, sums.means))
        value, hinges, counts = sums.value(), sums.hinges[0].unbind(), sums.hinges[1].unbind()
        if recording:
            ctx.save_for_backward(unit, weight, bias, labels, walk.inverse, walk.table, value, sums.mean())
            ctx.request, ctx.spent = request, False
        ctx.mark_non_differentiable(*counts)
        return (weight[labels.clamp_min(0)], *value.unbind(), *hinges, *counts)

    @staticmethod
    def backward(ctx: Any, grad_rows: Tensor, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # backward() may be called under autocast, which would round these products
        unit, weight = ctx.saved_tensors[:2]
        updating = ctx.request.update is not None
        with torch.autocast(grad_rows.device.type, enabled=False), explained("fused", unit, weight, updating):
            return _Fused.differentiate(ctx, grad_rows, *grads)

    @staticmethod
    def differentiate(ctx: Any, grad_rows: Tensor, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the inputs."""
        refuse_again(ctx, "fused")
        unit, weight, bias, labels, inverse, table, value, mean = ctx.saved_tensors
        ctx.spent = True
        upstream = torch.stack(grads[: len(value) + len(ctx.request.hinge_offsets)])
        table = torch.cat([table, value.masked_fill(value == -torch.inf, 0.0), upstream])
        walk = Walk(unit, weight, bias, labels, ctx.request, table, inverse)
        needs_unit, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_unit = torch.zeros_like(unit) if needs_unit else None
        grad_weight = torch.empty_like(weight) if needs_weight and ctx.request.update is None else None
        grad_bias = torch.empty_like(bias) if needs_bias and bias is not None else None
        for chunk in walk.chunks(walk.slices(len(unit))):
            coefficients, on_lengths, on_bias = walk.coefficients(chunk)
            if grad_unit is not None:
                add_product(grad_unit, coefficients, chunk.operand)
            if needs_weight:
                place = None if grad_weight is None else grad_weight[chunk.classes]
                direct = place is not None and place.dtype == walk.dtype
                gradient = _of_weight(walk, chunk, coefficients, on_lengths, place if direct else None)
                _add_own(gradient, labels - chunk.classes.start, grad_rows)
                if ctx.request.update is not None:
                    ctx.request.update(chunk.classes, gradient)
                elif place is not None and not direct:
                    place.copy_(gradient)
            if grad_bias is not None:
                grad_bias[chunk.classes] = on_bias.to(grad_bias.dtype)
        of_scales = [None] * len(value) if mean is None else (upstream[: len(value)] * mean).unbind()
        return (grad_unit, grad_weight, grad_bias, None, None, None, *of_scales)


def _add_own(gradient: Tensor, places: Tensor, grad_rows: Tensor) -> None:
    """Add the rows of the batch whose own class is in the chunk. The others add 0: to pick rows waits for the GPU."""
    inside = (places >= 0) & (places < len(gradient))
    values = torch.where(inside[:, None], grad_rows.to(gradient.dtype), 0.0)
    gradient.index_add_(0, places.clamp(0, len(gradient) - 1), values)


def _of_weight(walk: Walk, chunk: ClassChunk, coefficients: Tensor, on_lengths: Tensor, out: Tensor | None) -> Tensor:
    """The gradient of a chunk's weights, through the products and the lengths, [n, d]."""
    gradient = product(coefficients.T, walk.unit, walk.dtype, out)
    if walk.inverse is not None:
        gradient.addcmul_(walk.weight[chunk.classes].to(walk.dtype), on_lengths[:, None], value=-1.0)
    return gradient


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add the matrix product of operands that may be rounded."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += product(left, right, total.dtype)


def product(left: Tensor, right: Tensor, dtype: torch.dtype, out: Tensor | None = None) -> Tensor:
    """The matrix product of operands that may be rounded, accumulated and returned in `dtype`."""
    if left.dtype == dtype:
        return torch.mm(left, right, out=out)
    if dtype == torch.float32 and hasattr(torch.ops.aten.mm, "dtype"):  # since PyTorch 2.8; no CPU comes here
        return torch.mm(left, right, out_dtype=dtype, out=out)
    return torch.mm(left.to(dtype), right.to(dtype), out=out)


class Sums:
    """Every reduction so far, over the chunks: L log-sum-exps, the means of what is scaled, H hinges."""

    def __init__(self, unit: Tensor, logs: int, hinges: int, means: bool) -> None:
        self.means = means
        self.numbers = (3 if means else 2) * logs + 2 * hinges
        self.top = unit.new_full((logs, len(unit)), -torch.inf)
        self.totals = unit.new_zeros(2 if means else 1, logs, len(unit))  # Σ exp, and the same times what is scaled
        self.hinges = unit.new_zeros(2, hinges, len(unit))  # sums, and active numbers

    def add(self, partials: Tensor) -> None:
        """Add the result of `Walk.reduce`."""
        logs, hinges = self.top.shape[0], self.hinges.shape[1]
        split = self.numbers - 2 * hinges
        tops = partials[:logs]
        top = torch.maximum(self.top, tops.amax(dim=1))
        shift = top.masked_fill(top == -torch.inf, 0.0)  # all classes of a row may be masked so far
        sums = partials[logs:split].view(len(self.totals), *tops.shape)
        self.totals = self.totals * torch.exp(self.top - shift) + (sums * torch.exp(tops - shift[:, None])).sum(dim=2)
        self.top = top
        self.hinges = self.hinges + partials[split:].sum(dim=1).view_as(self.hinges)

    def value(self) -> Tensor:
        return torch.where(self.totals[0] > 0, self.top + torch.log(self.totals[0]), -torch.inf)

    def mean(self) -> Tensor | None:
        total = self.totals[0]
        return self.totals[1] / torch.where(total > 0, total, 1.0) if self.means else None
