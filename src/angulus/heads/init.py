"""First class weights that are spread apart, instead of drawn: `DenseHead(..., init="spread")`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.losses.theory import margin_room

NAMES = ("normal", "spread")
MOST_SPREAD = 10_000  # classes beyond 2 d: a step costs 4 · C² · d operations
STEPS, RATE = 100, 0.7  # of the repulsion
SHARPNESS = (1.0, 100.0)  # at its first and last step, in units of 1 / (1 − cos of the room)
BLOCK = 1024  # classes whose cosines with all others are held at a time


def check_init(init: str, num_classes: int, embedding_size: int, subcenters: bool) -> str:
    """Return the name of a start, or raise InputError if it is unknown or cannot be had for these class weights."""
    checks.choice("init", init, NAMES)
    if init == "normal":
        return init
    if subcenters:
        raise InputError('init "spread" needs one weight per class; this objective has sub-centres: use "normal"')
    if embedding_size == 1 and num_classes > 2:
        raise InputError(f'init "spread" has no room for {num_classes} classes in one dimension; use "normal"')
    if num_classes > max(MOST_SPREAD, 2 * embedding_size):
        raise InputError(
            f'init "spread" compares all classes, so it takes at most {MOST_SPREAD:,} or 2 d of them; got '
            f'{num_classes:,}; use "normal", whose weights are far apart where there are so many dimensions'
        )
    return init


@torch.no_grad()
def spread(num_classes: int, embedding_size: int, seed: int) -> Tensor:
    """Unit vectors [C, d] whose smallest angle is large, in random directions, from a seed.

    C ≤ d + 1: a regular simplex, all angles acos(−1/(C − 1)). C ≤ 2d: axes of a random frame in both directions, at
    least 90°. d = 2: 360°/C. All three are the largest possible (`theory.margin_room`). Beyond, drawn vectors repel
    each other for 100 steps: w_i moves from Σ_j p_ij w_j, p_i the softmax of its cosines with the others, whose
    sharpness grows until the nearest count alone. The cosines are computed by blocks of rows.

    Source: Rankin 1955 for C ≤ 2d; the repulsion is Angulus's own.

    >>> frame = spread(4, 3, seed=0)
    >>> [f"{cosine:.3f}" for cosine in (frame @ frame.T)[0].tolist()]
    ['1.000', '-0.333', '-0.333', '-0.333']
    """
    classes, size = num_classes, embedding_size
    generator = torch.Generator().manual_seed(seed)
    if classes <= 2 * size:
        axes = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
        if classes > size + 1:
            return torch.cat([axes, -axes])[torch.randperm(2 * size, generator=generator)[:classes]].float()
        return torch.mm(_simplex(classes), axes[: max(classes - 1, 1)]).float()
    if size == 2:
        angles = (torch.randperm(classes, generator=generator) + torch.rand(1, generator=generator)).double()
        angles = angles * (2 * math.pi / classes)
        return torch.stack([angles.cos(), angles.sin()], dim=1).float()
    weight = F.normalize(torch.randn(classes, size, generator=generator, dtype=torch.float32))
    unit = 1 - math.cos(margin_room(classes, size))
    first, last = SHARPNESS
    for step in range(STEPS):
        done = step / STEPS
        push = _push(weight, first * (last / first) ** done / unit)
        along = push - (push * weight).sum(dim=1, keepdim=True) * weight
        weight = F.normalize(weight - RATE * (1 - done) * along)
    return weight


def _simplex(classes: int) -> Tensor:
    """The corners of a regular simplex around 0, unit vectors [C, C − 1]; of one class, [[1]]."""
    if classes == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    ones = torch.ones(classes, 1, dtype=torch.float64)
    rest = torch.eye(classes, classes - 1, dtype=torch.float64)
    return F.normalize(torch.linalg.qr(torch.cat([ones, rest], dim=1)).Q[:, 1:])


def _push(weight: Tensor, sharpness: float) -> Tensor:
    """Σ_j p_ij w_j for each row, p_i the softmax of sharpness · cosines with the others."""
    pushes = []
    for start in range(0, len(weight), BLOCK):
        cosines = weight[start : start + BLOCK] @ weight.T
        cosines.diagonal(start).fill_(-math.inf)
        pushes.append(torch.softmax(sharpness * cosines, dim=1) @ weight)
    return torch.cat(pushes)
