"""The reduction in blocks of classes that stay in a GPU's L2: products by cuBLAS, and one Triton pass over each block.

Forward, for each block: the products w_j·x̂, [n, B]; one pass that maps the negatives, takes exponentials and adds to
running sums. Backward: the products again, one pass that turns them into their gradients, the products dX and dW, and
one pass over dW. The products of a block never have to leave L2, and no host code waits for the GPU.

If a row of dW has room for the products of its class with the whole batch, forward stashes them there, as the chunked
kernel does, and backward does not multiply again: three products instead of four. With bfloat16 products the stash
holds the cosines in float16, whose rounding is an eighth of bfloat16's, and forward sums those same numbers. Products
of raw weights have any size, so they are stashed in the dtype of the statistics.

It needs what the fused kernel needs, and has its flags, table and precision. First derivatives only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from angulus.kernels import fused
from angulus.kernels.fused import Sums, add_product, product
from angulus.kernels.fused_launch import count_tiles, flags_of, table_of
from angulus.kernels.fused_launch import kernels as fused_kernels
from angulus.kernels.memory import explained
from angulus.kernels.reduction import Reduced, Request
from angulus.kernels.tuned import Blocking, PassShape, tuned

LENGTHS, FINISH = (16, 128), (16, 128)  # classes and part of d that a program has at a time


def unavailable(device: torch.device) -> str | None:
    """Why this kernel cannot run on tensors of that device, as a sentence; None if it can."""
    return fused.unavailable(device, "blocked")


def reduce_rows(unit: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, request: Request) -> Reduced:
    """Reduce every row of non-target classes; see `kernels.reduction`. First derivatives only.

    Raises:
        checks.InputError: the kernel cannot run here, or does not compute in a dtype.
    """
    return fused.reduce_by(_Blocked, "blocked", unit, weight, bias, labels, request)


class _Blocked(torch.autograd.Function):
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
        walk = BlockWalk(unit, weight, bias, labels, request)
        stash = walk.new_stash() if recording and ctx.needs_input_grad[1] and request.update is None else None
        sums = Sums(unit, len(scales), len(request.hinge_offsets), recording and any(ctx.needs_input_grad[6:]))
        running = walk.new_sums(sums.numbers)
        for classes in walk.slices:
            walk.reduce(classes, walk.products(classes, walk.rounded(weight[classes])), running, sums.means, stash)
        sums.add(running)
        value, hinges, counts = sums.value(), sums.hinges[0].unbind(), sums.hinges[1].unbind()
        if recording:
            ctx.save_for_backward(unit, weight, bias, labels, walk.inverse, walk.table, value, sums.mean())
            ctx.request, ctx.stash, ctx.spent = request, stash, False
        ctx.mark_non_differentiable(*counts)
        return (weight[labels.clamp_min(0)], *value.unbind(), *hinges, *counts)

    @staticmethod
    def backward(ctx: Any, grad_rows: Tensor, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # backward() may be called under autocast, which would round these products
        unit, weight = ctx.saved_tensors[:2]
        updating = ctx.request.update is not None
        with torch.autocast(grad_rows.device.type, enabled=False), explained("blocked", unit, weight, updating):
            return _Blocked.differentiate(ctx, grad_rows, *grads)

    @staticmethod
    def differentiate(ctx: Any, grad_rows: Tensor, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the inputs."""
        fused.refuse_again(ctx, "blocked")
        unit, weight, bias, labels, inverse, table, value, mean = ctx.saved_tensors
        stash, ctx.stash, ctx.spent = ctx.stash, None, True
        request: Request = ctx.request
        upstream = torch.stack(grads[: len(value) + len(request.hinge_offsets)])
        table = torch.cat([table, value.masked_fill(value == -torch.inf, 0.0), upstream])
        walk = BlockWalk(unit, weight, bias, labels, request, table, inverse)
        needs_unit, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_unit = torch.zeros_like(unit) if needs_unit else None
        grad_weight = stash
        if grad_weight is None and needs_weight and request.update is None:
            grad_weight = torch.empty_like(weight)
        grad_bias = torch.zeros_like(bias) if needs_bias and bias is not None else None
        own = OwnRows(grad_rows, labels, len(weight)) if needs_weight else None
        for classes in walk.slices:
            operand = walk.rounded(weight[classes])
            kept = walk.products(classes, operand) if stash is None else walk.stashed(stash, classes)
            coefficients, on_lengths, on_bias = walk.coefficients(classes, kept, stash is not None)
            if grad_unit is not None:
                add_product(grad_unit, coefficients.T, operand)
            if own is not None:
                place = None if grad_weight is None else grad_weight[classes]
                gradient = walk.finish(classes, coefficients, on_lengths, own, place)
                if request.update is not None:
                    request.update(classes, gradient)
            if grad_bias is not None and walk.flags["BIASED"]:
                grad_bias[classes] = on_bias.to(grad_bias.dtype)
        del stash  # a second reference would make autograd copy the gradient
        of_scales = [None] * len(value) if mean is None else (upstream[: len(value)] * mean).unbind()
        return (grad_unit, grad_weight, grad_bias, None, None, None, *of_scales)


class OwnRows:
    """What the rows of the batch add to the gradient of their own classes, by class."""

    def __init__(self, grad_rows: Tensor, labels: Tensor, num_classes: int) -> None:
        self.grad_rows = grad_rows.contiguous()
        ordered, self.order = labels.sort(stable=True)
        every = torch.arange(num_classes + 1, device=labels.device)
        self.starts = torch.searchsorted(ordered, every.to(ordered.dtype), out_int32=True)  # in `order`, [C + 1]


class BlockWalk:
    """The blocks of classes and the passes over one; `table` and `inverse` are passed in backward."""

    def __init__(
        self,
        unit: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        request: Request,
        table: Tensor | None = None,
        inverse: Tensor | None = None,
    ) -> None:
        self.request, self.dtype = request, unit.dtype
        self.unit, self.weight, self.labels = self.rounded(unit), weight, labels.contiguous()
        self.bias = None if bias is None else bias.contiguous()
        self.flags = flags_of(request, bias)
        self.table = table_of(request, unit) if table is None else table
        self.shapes = _fitting(tuned(unit.device).blocking, len(unit), len(weight))
        most = max(self.shapes.elements // len(unit) // self.shapes.reduce.classes, 1) * self.shapes.reduce.classes
        self.size = min(most, len(weight))  # of a block
        self.slices = [slice(start, min(start + self.size, len(weight))) for start in range(0, len(weight), self.size)]
        self.room: dict[str, Tensor] = {}
        self.inverse = self._invert_lengths() if table is None and self.flags["COSINES"] else inverse  # 1 / ‖w_j‖, [C]

    def rounded(self, values: Tensor) -> Tensor:
        """The values in the dtype of the products; for the interpreter, only rounded to that dtype."""
        operand = values.to(self.request.products or self.dtype)
        return operand.to(self.dtype) if fused_kernels().INTERPRETED else operand  # a CPU would round the sums as well

    def new_stash(self) -> Tensor | None:
        """A new dW, if its rows have room for the products of a class with the batch."""
        row = self.weight.shape[1] * self.weight.dtype.itemsize
        size = self._stash_dtype().itemsize
        if row % size or len(self.unit) * size > row:
            return None
        return torch.empty_like(self.weight, memory_format=torch.contiguous_format)

    def stashed(self, stash: Tensor, classes: slice) -> Tensor:
        """The place of a block's products in dW, [n, B]."""
        return stash.view(self._stash_dtype())[classes, : len(self.unit)]

    def _stash_dtype(self) -> torch.dtype:
        rounds = self.request.products is not None and self.request.unit_weight and self.dtype == torch.float32
        return torch.float16 if rounds else self.dtype

    def new_sums(self, numbers: int) -> Tensor:
        """The running reductions before any block, [numbers, tiles, B]; see `reduce_block`."""
        tiles = count_tiles(self.size, self.shapes.reduce.classes)
        running = self.table.new_zeros(numbers, tiles, len(self.unit))
        running[: self.flags["LOGS"]].fill_(-torch.inf)
        return running

    def products(self, classes: slice, operand: Tensor) -> Tensor:
        """w_j·x̂ of a block, [n, B], in a buffer that every block uses."""
        out = self._buffer("products", len(operand), len(self.unit), self.dtype)
        return product(operand, self.unit.T, self.dtype, out)

    def reduce(self, classes: slice, products: Tensor, running: Tensor, means: bool, stash: Tensor | None) -> None:
        """Add a block to the running reductions, and keep what backward reads."""
        kept = None if stash is None else self.stashed(stash, classes)
        shape, n = self.shapes.reduce, len(products)
        grid = count_tiles(len(self.unit), shape.rows) * count_tiles(n, shape.classes)
        values: tuple[Any, ...] = (
            products,
            products.stride(0),
            *self._columns(classes),
            self.labels,
            self.table,
            running,
        )
        values += (kept, 0 if kept is None else kept.stride(0), len(self.unit), n, classes.start, running.shape[1])
        flags = self.flags | {"MEANS": int(means), "KEPT": int(kept is not None)}
        self._launch(kernels().reduce_block, (grid,), values, flags | _blocks(shape), shape.warps)

    def coefficients(self, classes: slice, kept: Tensor, stashed: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients with respect to (the products [n, B], rounded, the lengths, divided by them [n], the bias [n])."""
        shape, n = self.shapes.coefficients, len(kept)
        in_place = kept.dtype == self.unit.dtype and not stashed
        out = kept if in_place else self._buffer("coefficients", n, len(self.unit), self.unit.dtype)
        by_class = self._buffer("by class", 2, n, self.table.dtype)
        values: tuple[Any, ...] = (
            kept,
            kept.stride(0),
            *self._columns(classes),
            self.labels,
            self.table,
            out,
            out.stride(0),
        )
        values += (by_class[0], by_class[1], len(self.unit), n, classes.start)
        flags = self.flags | {"STASHED": int(stashed)}
        grid = (count_tiles(n, shape.classes),)
        self._launch(kernels().coefficient_block, grid, values, flags | _blocks(shape), shape.warps)
        return self.rounded(out), by_class[0], by_class[1]

    def finish(
        self, classes: slice, coefficients: Tensor, on_lengths: Tensor, own: OwnRows, place: Tensor | None
    ) -> Tensor:
        """The gradient of a block's weights, [n, d]: in `place` if there is one, else in a buffer."""
        n, size = len(coefficients), self.weight.shape[1]
        direct = place is not None and place.dtype == self.dtype and place.stride(1) == 1
        room = place if direct else self._buffer("gradient", n, size, self.dtype)
        gradient = product(coefficients, self.unit, self.dtype, room)
        tidy = place is None or place.stride(1) == 1
        out = gradient if place is None or not tidy else place
        part = self.weight[classes]
        values: tuple[Any, ...] = (
            gradient,
            gradient.stride(0),
            part,
            *part.stride(),
            on_lengths,
            own.starts,
            own.order,
            own.grad_rows,
        )
        values += (out, out.stride(0), n, classes.start, size)
        sizes = {"BLOCK_C": FINISH[0], "BLOCK_D": FINISH[1], "COSINES": self.flags["COSINES"]}
        grid = (count_tiles(n, FINISH[0]), count_tiles(size, FINISH[1]))
        self._launch(kernels().finish_rows, grid, values, sizes, 4)
        if place is not None and not tidy:
            place.copy_(gradient)
        return out

    def _invert_lengths(self) -> Tensor:
        inverse = self.table.new_empty(len(self.weight))
        values = (self.weight, *self.weight.stride(), inverse, self.request.eps, *self.weight.shape)
        sizes = {"BLOCK_C": LENGTHS[0], "BLOCK_D": LENGTHS[1]}
        self._launch(kernels().invert_lengths, (count_tiles(len(inverse), LENGTHS[0]),), values, sizes, 4)
        return inverse

    def _columns(self, classes: slice) -> tuple[Tensor | None, Tensor | None]:
        return tuple(None if values is None else values[classes] for values in (self.inverse, self.bias))  # type: ignore[return-value]

    def _buffer(self, name: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """[rows, columns] of the room of that name, which is made for the first block, the largest."""
        if name not in self.room:
            self.room[name] = self.unit.new_empty(rows, columns, dtype=dtype)
        return self.room[name][:rows, :columns]

    def _launch(self, kernel: Any, grid: Any, values: Any, sizes: dict[str, Any], warps: int) -> None:
        with torch.cuda.device_of(self.unit):  # type: ignore[no-untyped-call]
            # a fused multiply-add would round a large logit differently from its maximum
            kernel[grid](*values, **sizes, num_warps=warps, enable_fp_fusion=False)


def kernels() -> Any:
    """The module of kernels, imported at first use because it needs triton."""
    from angulus.kernels import blocked_kernels

    return blocked_kernels


def _blocks(shape: PassShape) -> dict[str, int]:
    return {"BLOCK_C": shape.classes, "BLOCK_B": shape.rows}


def _fitting(blocking: Blocking, batch: int, classes: int) -> Blocking:
    """The blocking with tiles at most the next power of two of the actual sizes."""

    def fit(shape: PassShape) -> PassShape:
        most = [1 << (actual - 1).bit_length() for actual in (classes, batch)]
        return PassShape(min(shape.classes, most[0]), min(shape.rows, most[1]), shape.warps)

    return Blocking(blocking.elements, fit(blocking.reduce), fit(blocking.coefficients))
