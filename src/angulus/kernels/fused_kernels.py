"""The two Triton kernels of `kernels.fused`: a tile of rows against a tile of classes, forward and backward.

Both multiply the tile and differ in what they compute from it. One program is one tile, and no two write to one place.
Values that differ by row are rows of a table [·, B] in the dtype of the statistics, in this order:

    scales [LOGS], the radius first if there is one; with MAPPED the threshold, a2, a1 and a0; offsets [HINGES];
    for backward also: log-sums [LOGS], their gradients [LOGS], gradients of the hinge sums [HINGES]

Flags, all known when a kernel is compiled: RADIUS (0 or 1, so that slot 0 is N), LOGS and HINGES (how many), UNIT (the
radius multiplies cosines), COSINES (something needs the lengths), MAPPED (negatives are changed), BIASED, MEANS (scales
need their gradients), PRECISION ("exact" for float64, else what tl.dot calls it).

Triton has no type stubs, so nothing here is typed; its callers are.
"""
# mypy: ignore-errors

import torch
import triton
import triton.language as tl
from triton.runtime import driver
from triton.runtime.jit import JITFunction


@triton.jit
def _row(table, slot, rows, batch):
    """One row of the table at the tile's rows, [BLOCK_B], to broadcast to [BLOCK_B, BLOCK_C]; 0 beyond the batch."""
    return tl.load(table + slot * batch + rows, mask=rows < batch, other=0.0)[:, None]


@triton.jit
def _column(values, columns, classes, table):
    """One number per class, in the dtype of the table; 0 beyond the classes."""
    return tl.load(values + columns, mask=columns < classes, other=0.0).to(table.dtype.element_ty)[None, :]


@triton.jit
def _products(
    unit, unit_row, unit_column, weight, weight_row, weight_column, table, rows, columns, batch, classes, size,
    PRECISION: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """w_j·x̂ of the tile, [BLOCK_B, BLOCK_C], accumulated in the dtype of the table."""
    left = unit + rows.to(tl.int64)[:, None] * unit_row
    right = weight + columns.to(tl.int64)[:, None] * weight_row
    products = tl.full((BLOCK_B, BLOCK_C), 0.0, table.dtype.element_ty)
    for start in range(0, size, BLOCK_D):
        inner = (start + tl.arange(0, BLOCK_D)).to(tl.int64)[None, :]
        x = tl.load(left + inner * unit_column, mask=(rows < batch)[:, None] & (inner < size), other=0.0)
        w = tl.load(right + inner * weight_column, mask=(columns < classes)[:, None] & (inner < size), other=0.0)
        if PRECISION == "exact":
            x, w = x.to(products.dtype), w.to(products.dtype)
            products += tl.sum(x[:, None, :] * w[None, :, :], axis=2)
        else:
            products = tl.dot(x, tl.trans(w), products, input_precision=PRECISION)
    return products


@triton.jit
def _mapped(base, table, rows, batch, LOGS: tl.constexpr):
    """(the bases after mapping the negatives, the derivative with respect to the base)."""
    threshold = _row(table, LOGS, rows, batch)
    a2 = _row(table, LOGS + 1, rows, batch)
    a1 = _row(table, LOGS + 2, rows, batch)
    a0 = _row(table, LOGS + 3, rows, batch)
    above = base > threshold
    return tl.where(above, (a2 * base + a1) * base + a0, base), tl.where(above, 2.0 * a2 * base + a1, 1.0)


@triton.jit(do_not_specialize=["batch", "classes", "first"])
def reduce_tile(
    unit, unit_row, unit_column, weight, weight_row, weight_column, inverse, bias, labels, table, partials,
    batch, classes, first, size,
    RADIUS: tl.constexpr, LOGS: tl.constexpr, HINGES: tl.constexpr, UNIT: tl.constexpr, COSINES: tl.constexpr,
    MAPPED: tl.constexpr, BIASED: tl.constexpr, MEANS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The partial reductions of a tile: partials [·, class tiles, B].

    In order: the largest logit [LOGS], Σ exp of what is below it [LOGS], with MEANS the same times what is scaled
    [LOGS], sums [HINGES], active numbers [HINGES]. A row whose only class here is its own has largest −inf and sum 0.
    """
    tile = tl.program_id(0)
    row_tiles = tl.cdiv(batch, BLOCK_B)
    class_tiles = tl.cdiv(classes, BLOCK_C)
    rows = (tile % row_tiles) * BLOCK_B + tl.arange(0, BLOCK_B)
    columns = (tile // row_tiles) * BLOCK_C + tl.arange(0, BLOCK_C)
    base = _products(
        unit, unit_row, unit_column, weight, weight_row, weight_column, table, rows, columns, batch, classes, size,
        PRECISION, BLOCK_B, BLOCK_C, BLOCK_D,
    )  # fmt: skip
    own = tl.load(labels + rows, mask=rows < batch, other=-1) - first
    others = (columns < classes)[None, :] & (columns[None, :] != own[:, None])
    cosines = base
    if COSINES:
        cosines = base * _column(inverse, columns, classes, table)
    if UNIT:
        base = cosines
    if MAPPED:
        base, _ = _mapped(base, table, rows, batch, LOGS)

    out = partials + (tile // row_tiles).to(tl.int64) * batch + rows
    step = class_tiles.to(tl.int64) * batch
    for slot in tl.static_range(LOGS):
        scaled = cosines
        if slot < RADIUS:
            scaled = base
        logits = scaled * _row(table, slot, rows, batch)
        if BIASED and slot < RADIUS:
            logits += _column(bias, columns, classes, table)
        logits = tl.where(others, logits, float("-inf"))
        top = tl.max(logits, axis=1)
        powers = tl.exp(logits - tl.where(top == float("-inf"), 0.0, top)[:, None])
        tl.store(out + slot * step, top, mask=rows < batch)
        tl.store(out + (LOGS + slot) * step, tl.sum(powers, axis=1), mask=rows < batch)
        if MEANS:
            tl.store(out + (2 * LOGS + slot) * step, tl.sum(powers * scaled, axis=1), mask=rows < batch)
    for slot in tl.static_range(HINGES):
        inner = _row(table, LOGS + 4 * MAPPED + slot, rows, batch) + 2.0 * cosines
        active = others & (inner > 0.0)
        sums = out + ((2 + MEANS) * LOGS + slot) * step
        tl.store(sums, tl.sum(tl.where(active, inner, 0.0), axis=1), mask=rows < batch)
        tl.store(sums + HINGES * step, tl.sum(tl.where(active, 1.0, 0.0), axis=1), mask=rows < batch)


@triton.jit(do_not_specialize=["batch", "classes", "first"])
def coefficient_tile(
    unit, unit_row, unit_column, weight, weight_row, weight_column, inverse, bias, labels, table,
    coefficients, coefficients_row, by_class, batch, classes, first, size,
    RADIUS: tl.constexpr, LOGS: tl.constexpr, HINGES: tl.constexpr, UNIT: tl.constexpr, COSINES: tl.constexpr,
    MAPPED: tl.constexpr, BIASED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The gradient of a tile's products, in coefficients [B, n], and sums over its rows, in by_class [2, row tiles, n].

    The sums are the gradients of a class's length, divided by it (with COSINES), and of its bias (with BIASED).
    """
    tile = tl.program_id(0)
    row_tiles = tl.cdiv(batch, BLOCK_B)
    rows = (tile % row_tiles) * BLOCK_B + tl.arange(0, BLOCK_B)
    columns = (tile // row_tiles) * BLOCK_C + tl.arange(0, BLOCK_C)
    base = _products(
        unit, unit_row, unit_column, weight, weight_row, weight_column, table, rows, columns, batch, classes, size,
        PRECISION, BLOCK_B, BLOCK_C, BLOCK_D,
    )  # fmt: skip
    own = tl.load(labels + rows, mask=rows < batch, other=-1) - first
    others = (columns < classes)[None, :] & (columns[None, :] != own[:, None])
    cosines = base
    if COSINES:
        shorten = _column(inverse, columns, classes, table)
        cosines = base * shorten
    if UNIT:
        base = cosines
    if MAPPED:
        base, slope = _mapped(base, table, rows, batch, LOGS)

    sums = by_class + (tile % row_tiles).to(tl.int64) * classes + columns
    on_products = tl.full((BLOCK_B, BLOCK_C), 0.0, table.dtype.element_ty)
    on_cosines = tl.full((BLOCK_B, BLOCK_C), 0.0, table.dtype.element_ty)
    past = LOGS + 4 * MAPPED + HINGES
    for slot in tl.static_range(LOGS):
        scale = _row(table, slot, rows, batch)
        logits = cosines * scale
        if slot < RADIUS:
            logits = base * scale
            if BIASED:
                logits += _column(bias, columns, classes, table)
        logits = tl.where(others, logits - _row(table, past + slot, rows, batch), float("-inf"))
        on_logits = tl.exp(tl.minimum(logits, 0.0)) * _row(table, past + LOGS + slot, rows, batch)
        if slot < RADIUS:
            if BIASED:
                tl.store(sums + row_tiles.to(tl.int64) * classes, tl.sum(on_logits, axis=0), mask=columns < classes)
            on_base = on_logits * scale
            if MAPPED:
                on_base *= slope
            if UNIT:
                on_cosines += on_base
            else:
                on_products += on_base
        else:
            on_cosines += on_logits * scale
    for slot in tl.static_range(HINGES):
        inner = _row(table, LOGS + 4 * MAPPED + slot, rows, batch) + 2.0 * cosines
        gradient = 2.0 * _row(table, past + 2 * LOGS + slot, rows, batch)
        on_cosines += tl.where(others & (inner > 0.0), gradient, 0.0)
    if COSINES:
        # cos = product / l: ∂/∂product = 1 / l, and through l = sqrt(‖w‖² + eps): −cos · w / l²
        tl.store(sums, tl.sum(on_cosines * cosines * (shorten * shorten), axis=0), mask=columns < classes)
        on_products += on_cosines * shorten
    tl.store(
        coefficients + rows.to(tl.int64)[:, None] * coefficients_row + columns[None, :],
        on_products,
        mask=(rows < batch)[:, None] & (columns < classes)[None, :],
    )


# check both: Triton decides for its own functions when it is imported, and for these here
INTERPRETED = not isinstance(tl.sum, JITFunction) and not isinstance(reduce_tile, JITFunction)
COMPILED = isinstance(tl.sum, JITFunction) and isinstance(reduce_tile, JITFunction)


def shared_memory(device):
    """The bytes of shared memory that one program may use; the interpreter has no limit."""
    if INTERPRETED:
        return 1 << 30
    index = torch.cuda.current_device() if device.index is None else device.index
    return driver.active.utils.get_device_properties(index)["max_shared_mem"]
