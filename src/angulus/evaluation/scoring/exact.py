"""The exact score: a float64 cosine whose bits depend only on the two vectors; and rows read block by block."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from angulus.core import checks

Matrix = Tensor | NDArray[Any]
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NUMPY = ("f2", "f4", "f8")
CACHED = 2**17  # numbers per step, so that float64 vectors stay in a core's cache, and memory is reused


def pair_scores(probes: Matrix, gallery: Matrix, rows: Tensor, columns: Tensor) -> Tensor:
    """Cosines of chosen pairs, in float64: the definition of a score.

        s(a, b) = Σ(a ∘ b) / sqrt(Σ(a ∘ a) · Σ(b ∘ b))

    Computed in float64 from the vectors as stored. Σ adds the upper half of its terms to the lower half until one is
    left: element-wise additions only, so that two vectors give the same bits in any block, on any number of threads
    and on any device, and equal pairs tie exactly. s(a, b) = s(b, a) bit for bit, equal vectors score exactly 1, and a
    vector of zeros scores 0 with all.

    Args:
        probes: [P, d] of floats, tensor or NumPy array or memory map; rows need not have unit length.
        gallery: [N, d].
        rows: [M] of int64, rows of probes.
        columns: [M] of int64, rows of gallery.

    Returns:
        [M] of float64, in [-1, 1] up to rounding.

    Raises:
        checks.InputError: shapes or types that do not match, or a row with NaN or Inf.

    >>> a = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    >>> pair_scores(a, a, torch.tensor([0, 0]), torch.tensor([0, 1])).tolist()
    [1.0, 0.8]
    """
    first, second = rows_of(probes, gallery)
    for name, index, total in (("rows", rows, len(first)), ("columns", columns, len(second))):
        _check_index(name, index, total)
    if len(rows) != len(columns):
        raise checks.InputError(f"rows and columns must be as many; got {len(rows)} and {len(columns)}")
    return score(first, second, rows.to(first.device), columns.to(first.device))


@dataclass(frozen=True)
class RowReader:
    """Reads embeddings [N, d] from memory or disk; keeps the squared lengths computed so far (the others are NaN)."""

    name: str
    values: Matrix
    device: torch.device
    squared: Tensor  # [N] float64, on the CPU

    def __len__(self) -> int:
        return int(self.values.shape[0])

    @property
    def size(self) -> int:
        """The length d of a row."""
        return int(self.values.shape[1])

    def block(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) as they are stored, on the device."""
        values = self.values[start:stop]
        return (values if isinstance(values, Tensor) else torch.from_numpy(_native(values))).to(self.device)

    def double(self, index: Tensor) -> Tensor:
        """Rows `index` in float64, on the device."""
        if isinstance(self.values, Tensor):
            chosen: Tensor = self.values.index_select(0, index.to(self.values.device))
        else:
            chosen = torch.from_numpy(_native(self.values[index.cpu().numpy()]))
        return chosen.to(self.device, torch.float64)

    def squares(self, index: Tensor, vectors: Tensor) -> Tensor:
        """Squared lengths of rows `index` with these float64 vectors, 1 for zeros; computed once per row."""
        where = index.cpu()
        squares = self.squared[where]
        missing = squares.isnan()
        if bool(missing.any()):
            chosen = vectors[missing.to(vectors.device)]
            squares[missing] = self._usable(halving_sum(chosen * chosen), chosen, where[missing]).cpu()
            self.squared[where[missing]] = squares[missing]
        return squares.to(self.device)

    def low(self, start: int, stop: int, dtype: torch.dtype) -> tuple[Tensor, float]:
        """Rows [start, stop) at unit length in a low precision, and the largest distance ‖low − exact‖ of any of them.

        With y the unit row in float32 (for float32 rows: in float64) and z its rounding to `dtype`, z − y is exact in
        the precision of y, so ‖z − y‖ is measured, not estimated. y differs from the exact unit row by at most
        δ = (d + 8) u with u = 2⁻²⁴ (2⁻⁵³): a sum of d squares, a root and a division, each rounded.
        """
        rounded = torch.empty(stop - start, self.size, dtype=dtype, device=self.device)
        distance = 0.0
        step = max(1, CACHED // self.size)
        for begin in range(start, stop, step):
            end = min(begin + step, stop)
            unit = self.unit(torch.arange(begin, end)) if dtype == torch.float32 else self._unit(begin, end)
            part = rounded[begin - start : begin - start + len(unit)].copy_(unit)
            distance = max(distance, float(torch.linalg.vector_norm(unit.sub_(part), dim=1).max()))
        slack = (self.size + 8) * (2.0**-53 if dtype == torch.float32 else 2.0**-24)
        return rounded, distance * (1 + slack) + slack

    def unit(self, index: Tensor) -> Tensor:
        """Rows `index` at unit length in float64, on the device; zeros stay zeros."""
        vectors = self.double(index)
        return vectors.div_(self.squares(index, vectors).sqrt()[:, None])

    def _unit(self, start: int, stop: int) -> Tensor:
        """Rows at unit length in float32; computed in float64 if the norm exceeds float32's range."""
        vectors = self.block(start, stop)
        if vectors.dtype != torch.float64:
            narrow = vectors.float()
            lengths: Tensor = torch.linalg.vector_norm(narrow, dim=1, keepdim=True)
            if bool(((lengths > 1e-15) & (lengths < 1e15)).all()):
                return narrow / lengths
        exact = vectors.double()
        squares = self._usable((exact * exact).sum(dim=1), exact, torch.arange(start, stop))
        return (exact / squares.sqrt()[:, None]).float()

    def _usable(self, squares: Tensor, vectors: Tensor, index: Tensor) -> Tensor:
        """Squared lengths, with 1 for zeros; refuses vectors that are not finite or whose squares overflow."""
        odd = ~((squares >= 1e-150) & (squares <= 1e150))
        if not bool(odd.any()):
            return squares
        bad = odd.clone()
        bad[odd] = (vectors[odd] != 0).any(dim=1)
        if bool(bad.any()):
            row = int(index[bad.cpu()][0])
            raise checks.InputError(
                f"{self.name} must be finite numbers of lengths between 1e-75 and 1e75, or zeros; got others at row "
                f"{row}; leave that row out, or scale it"
            )
        return torch.where(odd, torch.ones_like(squares), squares)


def rows_of(
    probes: Matrix, gallery: Matrix | None, device: torch.device | str | None = None
) -> tuple[RowReader, RowReader]:
    """Readers of both sides on one device, checked to fit each other; without a gallery, the probes twice."""
    place = _device(probes, gallery, device)
    first = _rows("probes", probes, place)
    second = first if gallery is None else _rows("gallery", gallery, place)
    if first.size != second.size:
        raise checks.InputError(f"probes and gallery must agree on d; got {first.size} and {second.size}")
    return first, second


def score(first: RowReader, second: RowReader, rows: Tensor, columns: Tensor) -> Tensor:
    """`pair_scores` of checked sides."""
    parts = []
    chunk = max(1, CACHED // first.size)
    for one, other in zip(torch.split(rows, chunk), torch.split(columns, chunk), strict=True):
        a, b = first.double(one), second.double(other)
        lengths = (first.squares(one, a) * second.squares(other, b)).sqrt_()
        parts.append(halving_sum(a.mul_(b)).div_(lengths))
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64, device=first.device)


def halving_sum(terms: Tensor) -> Tensor:
    """Sum of each row, the upper half added to the lower until one is left; overwrites `terms` [M, d] -> [M].

    >>> halving_sum(torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]])).tolist()
    [6.0, 5.0]
    """
    while terms.shape[1] > 1:
        half = (terms.shape[1] + 1) // 2
        terms[:, : terms.shape[1] - half] += terms[:, half:]
        terms = terms[:, :half]
    return terms[:, 0].clone()  # a view would keep all of them


def _check_index(name: str, index: Tensor, total: int) -> None:
    rule = f"{name} must be [M] of int64 in [0, {total})"
    if index.dtype != torch.int64 or index.ndim != 1:
        raise checks.InputError(f"{rule}; got {index.dtype} of shape {list(index.shape)}")
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < total:
        raise checks.InputError(f"{rule}; got numbers from {int(index.min())} to {int(index.max())}")


def _rows(name: str, values: Matrix, device: torch.device) -> RowReader:
    if not isinstance(values, Tensor | np.ndarray):
        raise checks.InputError(f"{name} must be a torch.Tensor or a NumPy array; got {type(values).__name__}")
    if values.ndim != 2 or values.shape[1] < 1:
        raise checks.InputError(f"{name} must have shape [rows, d] with d >= 1; got {list(values.shape)}")
    known = values.dtype in FLOATS if isinstance(values, Tensor) else f"{values.dtype.kind}{values.itemsize}" in NUMPY
    if not known:
        raise checks.InputError(f"{name} must be floating point of 16, 32 or 64 bits; got {values.dtype}")
    if isinstance(values, Tensor):
        values = values.detach()
    return RowReader(name, values, device, torch.full((int(values.shape[0]),), float("nan"), dtype=torch.float64))


def _device(probes: Matrix, gallery: Matrix | None, device: torch.device | str | None) -> torch.device:
    """The requested device; else the first device other than the CPU that holds a tensor; else the CPU."""
    if device is None:
        places = [side.device for side in (probes, gallery) if isinstance(side, Tensor)]
        place = next((place for place in places if place.type != "cpu"), torch.device("cpu"))
    else:
        try:
            place = torch.device(device)
        except RuntimeError:  # a name that torch does not know
            place = torch.device("meta")
    if place.type not in ("cpu", "cuda"):
        raise checks.InputError(f"device must be cpu or cuda, since scores are float64; got {str(device or place)!r}")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise checks.InputError(
            f"device must be one that this machine has; it has {torch.cuda.device_count()} CUDA devices; got {place}"
        )
    return place


def _native(values: NDArray[Any]) -> NDArray[Any]:
    """A copy in memory, in the machine's byte order, for torch to wrap."""
    return np.array(values, dtype=values.dtype.newbyteorder("="), order="C")
