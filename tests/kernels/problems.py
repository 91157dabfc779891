"""Random requests to a kernel, and the rule that it may be no further from the truth than the plain code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from angulus.kernels import reduction
from angulus.kernels.reduction import ReduceRows, Request

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Problem:
    """Leaves in float64, and what is asked of them."""

    leaves: dict[str, Tensor]
    labels: Tensor
    request: Request  # without its tensors, but for their number
    biased: bool


def problem(
    sizes: tuple[int, int, int],
    request: Request | None = None,
    *,
    biased: bool = False,
    mapped: bool = False,
    subcenters: int = 1,
) -> Problem:
    """Random rows, weights and scales; `request` gives numbers of scales and offsets by empty tensors."""
    rows, classes, size = sizes
    request = request or Request(torch.empty(0))
    generator = torch.Generator().manual_seed(rows * classes + size)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    leaves = {
        "unit": torch.nn.functional.normalize(draw(rows, size)),
        "weight": draw(classes, size) if subcenters == 1 else draw(classes, subcenters, size),
        "bias": draw(classes),
        "radius": 4 + draw(rows),
        "threshold": 0.3 * draw(rows),
        **{f"scale {n}": 6 + draw(rows) for n in range(len(request.plain_scales))},
        **{f"offset {n}": draw(rows) for n in range(len(request.hinge_offsets))},
    }
    if request.shift is not None:
        leaves["shift"] = 3 * draw(rows)
    if request.kept is not None:
        request = replace(request, kept=torch.arange(rows, device=DEVICE) % 3 != 1)
    if mapped:
        request = replace(request, threshold=torch.empty(0), coefficients=(0.2, 1.3, 0.1))
    return Problem(leaves, torch.randint(classes, (rows,), generator=generator), request, biased)


def everything(scales: int = 2, offsets: int = 2, **more: Any) -> Request:
    empty = torch.empty(0)
    return Request(empty, plain_scales=(empty,) * scales, hinge_offsets=(empty,) * offsets, **more)


def answers(
    kernel: ReduceRows, p: Problem, dtype: torch.dtype, products: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Every output and gradient, by name; the outputs are weighted by fixed random numbers."""
    t = {name: leaf.to(DEVICE, dtype).requires_grad_() for name, leaf in p.leaves.items()}
    own = p.request
    request = replace(
        own,
        radius=None if own.radius is None else t["radius"],
        threshold=None if own.threshold is None else t["threshold"].detach(),
        plain_scales=tuple(t[f"scale {n}"] for n in range(len(own.plain_scales))),
        hinge_offsets=tuple(t[f"offset {n}"].detach() for n in range(len(own.hinge_offsets))),
        shift=t.get("shift"),
        products=products,
    )
    reduced = kernel(t["unit"], t["weight"], t["bias"] if p.biased else None, p.labels.to(DEVICE), request)
    outputs = {"rows": reduced.rows} | ({} if reduced.log_sum is None else {"N": reduced.log_sum})
    outputs |= {f"P {n}": value for n, value in enumerate(reduced.plain)}
    outputs |= {f"H {n}": value for n, (value, _) in enumerate(reduced.hinges)}
    outputs |= {} if reduced.total is None else {"T": reduced.total}
    outputs |= {f"K {n} {place}": pair[place] for n, pair in enumerate(reduced.class_sums) for place in (0, 1)}
    outputs |= {f"S {n}": value for n, (value, _) in enumerate(reduced.spreads)}
    generator = torch.Generator().manual_seed(5)
    total = torch.zeros((), dtype=dtype, device=DEVICE)
    for value in outputs.values():
        factor = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
        total = total + (factor * value.masked_fill(value == -torch.inf, 0.0)).sum()
    gradients = torch.autograd.grad(total, list(t.values()), allow_unused=True)
    named = {f"grad {name}": each for name, each in zip(t, gradients, strict=True) if each is not None}
    counts = {f"active {n}": count for n, (_, count) in enumerate(reduced.hinges)}
    counts |= {f"classes {n}": count for n, (*_, count) in enumerate(reduced.class_sums)}
    return {name: each.detach().cpu() for name, each in (outputs | counts | named).items()}


def assert_no_worse(
    found: dict[str, Tensor], plain: dict[str, Tensor], truth: dict[str, Tensor], tolerance: float
) -> None:
    """No element is further from the truth than the plain code's worst, and a tolerance of the largest value.

    What nothing depends on has no gradient, or zeros.
    """
    for name in truth.keys() ^ found.keys():
        assert not (truth | found)[name].any(), name
    for name in truth.keys() & found.keys():
        right, got = truth[name].double(), found[name].double()
        same = torch.where(right == got, 0.0, got - right)  # −inf is −inf
        deviation = torch.where(right == plain[name], 0.0, plain[name] - right).abs().max()
        largest = right[right.isfinite()].abs().max() if right.isfinite().any() else 0.0
        worst = int(same.abs().nan_to_num(torch.inf).argmax())
        place = [int(each) for each in torch.unravel_index(torch.tensor(worst), right.shape)]
        assert same.flatten()[worst].abs() <= 2 * deviation + tolerance * max(1.0, float(largest)), (
            f"{name} at {place}: {got.flatten()[worst]} for {right.flatten()[worst]}; the reference is {deviation} away"
        )


def check(
    kernel: ReduceRows, p: Problem, dtype: torch.dtype = torch.float64, products: torch.dtype | None = None
) -> None:
    """Hold the kernel to the rule, in every output and gradient."""
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-6}[dtype] if products is None else 1e-2
    truth = answers(reduction.reduce_rows, p, torch.float64)
    plain = answers(reduction.reduce_rows, p, dtype, products)
    assert_no_worse(answers(kernel, p, dtype, products), plain, truth, tolerance)


def changed(p: Problem, **leaves: Callable[[Tensor], Tensor]) -> Problem:
    return replace(p, leaves=p.leaves | {name: change(p.leaves[name].clone()) for name, change in leaves.items()})
