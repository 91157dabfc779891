"""How the kernels of `kernels.fused` are launched: chunks of classes, compile-time flags, and tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from angulus.kernels.reduction import Request, lengths
from angulus.kernels.tuned import TileShape, tuned

SCRATCH = 1 << 25  # elements of a chunk's largest buffer: 128 MiB in float32


LEAST_SIDE = 16  # of the operands of tl.dot


class ClassChunk(NamedTuple):
    """A slice of n classes."""

    classes: slice
    operand: Tensor  # their weights, rounded to the dtype of the products, [n, d]


class Walk:
    """The chunks of classes, and the two kernels on a chunk; `table` and `inverse` are passed in backward."""

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
        self.fresh = table is None and self.flags["COSINES"]
        self.inverse = unit.new_empty(len(weight)) if self.fresh else inverse  # 1 / ‖w_j‖, [C]
        precision = _precision(request, unit.dtype)
        self.flags["PRECISION"] = "ieee" if precision == "bf16" else precision
        tile = _fitting(tuned(unit.device).tiles[precision][table is not None], len(unit), *weight.shape)
        self.tile = _staged(tile, self.unit.element_size(), kernels().shared_memory(unit.device))
        self.table = table_of(request, unit) if table is None else table

    def rounded(self, values: Tensor) -> Tensor:
        """The values in the dtype of the products; for the interpreter, only rounded to that dtype."""
        operand = values.to(self.request.products or self.dtype)
        return operand.to(self.dtype) if kernels().INTERPRETED else operand  # its bfloat16 products are wrong

    def slices(self, per_class: int) -> list[slice]:
        """The classes in order, as many at a time as `SCRATCH` allows at `per_class` or d elements a class."""
        fit = SCRATCH // max(per_class, self.weight.shape[1])
        size = max(fit // self.tile.classes, 1) * self.tile.classes
        return [slice(start, min(start + size, len(self.weight))) for start in range(0, len(self.weight), size)]

    def chunks(self, slices: list[slice]) -> Iterator[ClassChunk]:
        """The weights of these classes; forward also computes their lengths."""
        for classes in slices:
            part = self.weight[classes]
            if self.fresh and self.inverse is not None:
                self.inverse[classes] = 1 / lengths(part.to(self.dtype), self.request.eps)
            yield ClassChunk(classes, self.rounded(part))

    def reduce(self, chunk: ClassChunk, numbers: int, means: bool) -> Tensor:
        """The partial reductions of each tile, [numbers, class tiles, B]; see `reduce_tile`."""
        partials = self.table.new_empty(numbers, count_tiles(len(chunk.operand), self.tile.classes), len(self.unit))
        self._launch(kernels().reduce_tile, chunk, partials, MEANS=int(means))
        return partials

    def coefficients(self, chunk: ClassChunk) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients with respect to (the products, rounded [B, n], the lengths, divided by them [n], the bias [n])."""
        n = len(chunk.operand)
        row = count_tiles(n, LEAST_SIDE) * LEAST_SIDE  # so that every row is aligned
        room = self.unit.new_empty(len(self.unit), row)
        by_class = self.table.new_zeros(2, count_tiles(len(self.unit), self.tile.rows), n)
        self._launch(kernels().coefficient_tile, chunk, room, row, by_class)
        on_lengths, on_bias = by_class.sum(dim=1)
        return self.rounded(room[:, :n]), on_lengths, on_bias

    def _launch(self, kernel: Any, chunk: ClassChunk, *outputs: Any, **flags: int) -> None:
        batch, n, tile = len(self.unit), len(chunk.operand), self.tile
        with torch.cuda.device_of(self.unit):  # type: ignore[no-untyped-call]
            # a fused multiply-add would round a large logit differently from its maximum
            kernel[(count_tiles(batch, tile.rows) * count_tiles(n, tile.classes),)](
                *(self.unit, *self.unit.stride(), chunk.operand, *chunk.operand.stride()),
                None if self.inverse is None else self.inverse[chunk.classes],
                None if self.bias is None else self.bias[chunk.classes],
                *(self.labels, self.table, *outputs),
                *(batch, n, chunk.classes.start, self.unit.shape[1]),
                **flags,
                **self.flags,
                **{"BLOCK_B": tile.rows, "BLOCK_C": tile.classes, "BLOCK_D": tile.inner},
                **{"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": False},
            )


def kernels() -> Any:
    """The module of kernels, imported at first use because it needs triton."""
    from angulus.kernels import fused_kernels

    return fused_kernels


def scales(request: Request) -> tuple[Tensor, ...]:
    """The scales of the log-sums, the radius first."""
    return request.plain_scales if request.radius is None else (request.radius, *request.plain_scales)


def count_tiles(many: int, size: int) -> int:
    """How many tiles of that size hold so many."""
    return -(-many // size)


def table_of(request: Request, unit: Tensor) -> Tensor:
    """The values that differ by row and are known in forward; see `fused_kernels`."""
    rows = [*scales(request)]
    if request.threshold is not None:
        rows.append(request.threshold)
        rows += [
            number.expand(len(unit)) if isinstance(number, Tensor) else unit.new_full((len(unit),), number)
            for number in request.coefficients
        ]
    return torch.stack([row.to(unit.dtype) for row in (*rows, *request.hinge_offsets)])


def flags_of(request: Request, bias: Tensor | None) -> dict[str, Any]:
    """The compile-time flags of the kernels; see `fused_kernels`."""
    radius = request.radius is not None
    return {
        "RADIUS": int(radius),
        "LOGS": len(scales(request)),
        "HINGES": len(request.hinge_offsets),
        "UNIT": int(request.unit_weight),
        "COSINES": int(request.unit_weight or bool(request.plain_scales or request.hinge_offsets)),
        "MAPPED": int(request.threshold is not None),
        "BIASED": int(radius and bias is not None),
    }


def _precision(request: Request, dtype: torch.dtype) -> str:
    """The key of `tuned.TILES`."""
    if dtype == torch.float64:
        return "exact"
    if request.products == torch.bfloat16:
        return "bf16"
    matmul = torch.backends.cuda.matmul
    # the older name cannot be read after the newer one was set
    allowed = matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
    return "tf32" if allowed else "ieee"


def _fitting(tile: TileShape, batch: int, num_classes: int, size: int) -> TileShape:
    """The tile, each side at most the next power of two of the actual size."""
    rows, classes, inner = (
        max(LEAST_SIDE, min(most, 1 << (actual - 1).bit_length()))
        for most, actual in zip(tile[:3], (batch, num_classes, size), strict=True)
    )
    return TileShape(rows, classes, inner, tile.warps if rows * classes >= 128 * 128 else 4, tile.stages)


def _staged(tile: TileShape, itemsize: int, shared: int) -> TileShape:
    """The tile with no more stages than fit into `shared` bytes: 3 on an H100 and an A100, 2 on smaller GPUs."""
    stage = (tile.rows + tile.classes) * tile.inner * itemsize
    return tile._replace(stages=max(1, min(tile.stages, shared // stage)))
