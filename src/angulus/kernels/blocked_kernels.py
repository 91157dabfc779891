"""The Triton kernels of `kernels.blocked`: passes over the products of a block of classes, which cuBLAS has multiplied.

A block is class-major, [n, B], like the rows of dW. The table of values that differ by row and the flags are those of
`fused_kernels`. KEPT (forward) stores for backward what the radius multiplies; STASHED (backward) reads it.

Triton has no type stubs, so nothing here is typed; its callers are.
"""
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def _row(table, slot, rows, batch):
    """One row of the table at these rows, [1, BLOCK_B]; 0 beyond the batch."""
    return tl.load(table + slot * batch + rows, mask=rows < batch, other=0.0)[None, :]


@triton.jit
def _column(values, columns, classes, table):
    """One number per class, [BLOCK_C, 1], in the dtype of the table; 0 beyond the classes."""
    return tl.load(values + columns, mask=columns < classes, other=0.0).to(table.dtype.element_ty)[:, None]


@triton.jit
def _mapped(base, table, rows, batch, LOGS: tl.constexpr):
    """(the bases after mapping the negatives, the derivative with respect to the base)."""
    threshold = _row(table, LOGS, rows, batch)
    a2 = _row(table, LOGS + 1, rows, batch)
    a1 = _row(table, LOGS + 2, rows, batch)
    a0 = _row(table, LOGS + 3, rows, batch)
    above = base > threshold
    return tl.where(above, (a2 * base + a1) * base + a0, base), tl.where(above, 2.0 * a2 * base + a1, 1.0)


@triton.jit(do_not_specialize=["classes"])
def invert_lengths(
    weight, weight_row, weight_column, inverse, eps, classes, size, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """1 / sqrt(‖w_j‖² + eps), in inverse [C]; 1 for a zero row with eps = 0."""
    columns = tl.program_id(0).to(tl.int64) * BLOCK_C + tl.arange(0, BLOCK_C)
    squares = tl.full((BLOCK_C,), 0.0, inverse.dtype.element_ty)
    for start in range(0, size, BLOCK_D):
        inner = (start + tl.arange(0, BLOCK_D)).to(tl.int64)
        places = weight + columns[:, None] * weight_row + inner[None, :] * weight_column
        w = tl.load(places, mask=(columns < classes)[:, None] & (inner < size)[None, :], other=0.0)
        w = w.to(inverse.dtype.element_ty)
        squares += tl.sum(w * w, axis=1)
    lengths = tl.sqrt(squares + eps)
    tl.store(inverse + columns, 1.0 / tl.where(lengths > 0.0, lengths, 1.0), mask=columns < classes)


@triton.jit(do_not_specialize=["batch", "classes", "first", "tiles"])
def reduce_block(
    products, products_row, inverse, bias, labels, table, running, stash, stash_row, batch, classes, first, tiles,
    RADIUS: tl.constexpr, LOGS: tl.constexpr, HINGES: tl.constexpr, UNIT: tl.constexpr, COSINES: tl.constexpr,
    MAPPED: tl.constexpr, BIASED: tl.constexpr, MEANS: tl.constexpr, KEPT: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    """Add a tile of the block to the running reductions [·, tiles, B], in the order of `fused_kernels.reduce_tile`.

    One program changes one place of them; the next block's programs start after this block's.
    """
    tile = tl.program_id(0)
    row_tiles = tl.cdiv(batch, BLOCK_B)
    rows = (tile % row_tiles) * BLOCK_B + tl.arange(0, BLOCK_B)
    columns = (tile // row_tiles) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (columns < classes)[:, None] & (rows < batch)[None, :]
    base = tl.load(products + columns.to(tl.int64)[:, None] * products_row + rows[None, :], mask=inside, other=0.0)
    own = tl.load(labels + rows, mask=rows < batch, other=-1) - first
    others = inside & (columns[:, None] != own[None, :])
    cosines = base
    if COSINES:
        cosines = base * _column(inverse, columns, classes, table)
    if UNIT:
        base = cosines
    if KEPT:
        # backward reads what the dtype of the stash can hold, so forward sums the same numbers
        kept = base.to(stash.dtype.element_ty)
        tl.store(stash + columns.to(tl.int64)[:, None] * stash_row + rows[None, :], kept, mask=inside)
        base = kept.to(table.dtype.element_ty)
        if UNIT:
            cosines = base
    if MAPPED:
        base, _ = _mapped(base, table, rows, batch, LOGS)

    place = running + (tile // row_tiles).to(tl.int64) * batch + rows
    step = tiles.to(tl.int64) * batch
    for slot in tl.static_range(LOGS):
        scaled = cosines
        if slot < RADIUS:
            scaled = base
        logits = scaled * _row(table, slot, rows, batch)
        if BIASED and slot < RADIUS:
            logits += _column(bias, columns, classes, table)
        logits = tl.where(others, logits, float("-inf"))
        before = tl.load(place + slot * step, mask=rows < batch, other=float("-inf"))
        top = tl.maximum(before, tl.max(logits, axis=0))
        shift = tl.where(top == float("-inf"), 0.0, top)  # all classes of a row may be masked so far
        shrink = tl.exp(before - shift)
        powers = tl.exp(logits - shift[None, :])
        sums = place + (LOGS + slot) * step
        total = tl.load(sums, mask=rows < batch, other=0.0) * shrink + tl.sum(powers, axis=0)
        tl.store(place + slot * step, top, mask=rows < batch)
        tl.store(sums, total, mask=rows < batch)
        if MEANS:
            sums += LOGS * step
            total = tl.load(sums, mask=rows < batch, other=0.0) * shrink + tl.sum(powers * scaled, axis=0)
            tl.store(sums, total, mask=rows < batch)
    for slot in tl.static_range(HINGES):
        inner = _row(table, LOGS + 4 * MAPPED + slot, rows, batch) + 2.0 * cosines
        active = others & (inner > 0.0)
        sums = place + ((2 + MEANS) * LOGS + slot) * step
        total = tl.load(sums, mask=rows < batch, other=0.0) + tl.sum(tl.where(active, inner, 0.0), axis=0)
        tl.store(sums, total, mask=rows < batch)
        sums += HINGES * step
        total = tl.load(sums, mask=rows < batch, other=0.0) + tl.sum(tl.where(active, 1.0, 0.0), axis=0)
        tl.store(sums, total, mask=rows < batch)


@triton.jit(do_not_specialize=["batch", "classes", "first"])
def coefficient_block(
    products, products_row, inverse, bias, labels, table, coefficients, coefficients_row, on_lengths, on_bias,
    batch, classes, first,
    RADIUS: tl.constexpr, LOGS: tl.constexpr, HINGES: tl.constexpr, UNIT: tl.constexpr, COSINES: tl.constexpr,
    MAPPED: tl.constexpr, BIASED: tl.constexpr, STASHED: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    """The gradient of the block's products, in coefficients [n, B], which may be the products themselves.

    Sums over the rows: the gradients of a class's length, divided by it, and of its bias, in on_lengths and on_bias
    [n]. A program has all rows of its classes, so no sum needs a second pass.
    """
    columns = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    shorten = tl.full((BLOCK_C, 1), 1.0, table.dtype.element_ty)
    if COSINES:
        shorten = _column(inverse, columns, classes, table)
    lengthwise = tl.full((BLOCK_C,), 0.0, table.dtype.element_ty)
    biases = tl.full((BLOCK_C,), 0.0, table.dtype.element_ty)
    past = LOGS + 4 * MAPPED + HINGES
    for start in range(0, batch, BLOCK_B):
        rows = start + tl.arange(0, BLOCK_B)
        inside = (columns < classes)[:, None] & (rows < batch)[None, :]
        base = tl.load(products + columns.to(tl.int64)[:, None] * products_row + rows[None, :], mask=inside, other=0.0)
        base = base.to(table.dtype.element_ty)
        own = tl.load(labels + rows, mask=rows < batch, other=-1) - first
        others = inside & (columns[:, None] != own[None, :])
        cosines = base
        if COSINES and not (STASHED and UNIT):
            cosines = base * shorten
        if UNIT:
            base = cosines
        if MAPPED:
            base, slope = _mapped(base, table, rows, batch, LOGS)

        on_products = tl.full((BLOCK_C, BLOCK_B), 0.0, table.dtype.element_ty)
        on_cosines = tl.full((BLOCK_C, BLOCK_B), 0.0, table.dtype.element_ty)
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
                    biases += tl.sum(on_logits, axis=1)
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
            lengthwise += tl.sum(on_cosines * cosines, axis=1)
            on_products += on_cosines * shorten
        place = coefficients + columns.to(tl.int64)[:, None] * coefficients_row + rows[None, :]
        tl.store(place, on_products, mask=inside)
    if COSINES:
        squared = tl.sum(shorten * shorten, axis=1)
        tl.store(on_lengths + columns, lengthwise * squared, mask=columns < classes)
    if BIASED:
        tl.store(on_bias + columns, biases, mask=columns < classes)


@triton.jit(do_not_specialize=["classes", "first"])
def finish_rows(
    gradient, gradient_row, weight, weight_row, weight_column, on_lengths, starts, order, grad_rows, out, out_row,
    classes, first, size,
    COSINES: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The gradient of the block's weights, in out [n, d], which may be the gradient itself, from Σ_i coefficient · x̂_i.

    It lacks what comes through the lengths, and what the rows of the batch add to their own classes: those of class j
    are order[starts[j]] to order[starts[j + 1]], added in that order, so that equal input gives equal bits.
    """
    columns = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inner = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = (columns < classes)[:, None] & (inner < size)[None, :]
    value = tl.load(gradient + columns.to(tl.int64)[:, None] * gradient_row + inner[None, :], mask=inside, other=0.0)
    if COSINES:
        places = weight + columns.to(tl.int64)[:, None] * weight_row + inner.to(tl.int64)[None, :] * weight_column
        w = tl.load(places, mask=inside, other=0.0).to(gradient.dtype.element_ty)
        value -= _column(on_lengths, columns, classes, gradient) * w
    begin = tl.load(starts + first + columns, mask=columns < classes, other=0)
    many = tl.load(starts + first + columns + 1, mask=columns < classes, other=0) - begin
    for number in range(0, tl.max(many, axis=0)):
        mine = number < many
        row = tl.load(order + begin + number, mask=mine, other=0)
        added = grad_rows + row[:, None] * size + inner[None, :]  # not `places`, whose type may differ
        value += tl.load(added, mask=mine[:, None] & inside, other=0.0).to(gradient.dtype.element_ty)
    tl.store(out + columns.to(tl.int64)[:, None] * out_row + inner[None, :], value, mask=inside)
