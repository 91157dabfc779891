"""After training with sub-centres: keep the dominant one of each class, and list the rows far from it."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from angulus.core import checks
from angulus.heads.class_loss import check_rows
from angulus.heads.dense import DenseHead
from angulus.heads.row_loss import geometry, nearest_subcenters
from angulus.losses.angles import normalize
from angulus.losses.roles import Spread

ROWS_AT_ONCE = 4096


class Dominant(NamedTuple):
    """Which sub-centre of each class most rows are nearest to, and how far the rows are from it."""

    chosen: Tensor  # [C], in [0, K)
    counts: Tensor  # rows nearest to each sub-centre, [C, K]
    angles: Tensor  # of each row to the dominant sub-centre of its class, degrees, [N]; NaN for ignored rows


class Dropped(NamedTuple):
    """A head with the dominant sub-centre of each class alone, and what was far from it."""

    head: DenseHead
    dominant: Dominant
    outliers: Tensor  # rows farther than the angle from it, the farthest first; likely wrong labels


@torch.no_grad()
def find_dominant(features: Tensor, labels: Tensor, weight: Tensor, eps: float = 0.0) -> Dominant:
    """The dominant sub-centre of each class: the nearest one of most of its rows; of equal numbers the first.

    Args:
        features: of the training images, [N, d].
        labels: [N] in [0, C), or −100 for ignored rows.
        weight: class weights with sub-centres, [C, K, d].
        eps: of the objective.

    Raises:
        checks.InputError: a class without a row, which has no dominant sub-centre.
    """
    if not isinstance(weight, Tensor) or weight.ndim != 3:
        got = list(weight.shape) if isinstance(weight, Tensor) else repr(weight)
        raise checks.InputError(f"weight must have shape [num_classes, K, embedding_size], with sub-centres; got {got}")
    features, labels, kept = check_rows(features, weight, labels)
    wide = torch.promote_types(torch.promote_types(features.dtype, weight.dtype), torch.float32)
    count = weight.shape[1]
    counts = torch.zeros(weight.shape[0] * count, dtype=torch.int64, device=weight.device)
    parts = list(zip(torch.split(features, ROWS_AT_ONCE), torch.split(labels, ROWS_AT_ONCE), strict=True))
    for part, own in parts:
        nearest = nearest_subcenters(normalize(part.to(wide), eps)[1], weight[own].to(wide), eps)
        counts += torch.bincount(own * count + nearest, minlength=len(counts))
    by_class = counts.view(-1, count)
    empty = (by_class.sum(dim=1) == 0).nonzero().flatten().tolist()
    if empty:
        raise checks.InputError(
            f"{len(empty)} of {len(weight)} classes have no row, so none of their sub-centres is dominant; the first "
            f"is class {empty[0]}; give features of each"
        )
    chosen = by_class.argmax(dim=1)
    angles = torch.full((len(kept),), torch.nan, dtype=wide, device=weight.device)
    found = []
    for part, own in parts:
        norms, unit = normalize(part.to(wide), eps)
        found.append(geometry(norms, unit, weight[own, chosen[own]], eps).theta)
    angles[kept] = torch.rad2deg(torch.cat(found))
    return Dominant(chosen, by_class, angles)


def find_outliers(angles: Tensor, max_angle: float = 75.0) -> Tensor:
    """The rows farther than `max_angle` degrees from the dominant sub-centre of their class, the farthest first."""
    checks.number("max_angle", max_angle, low=0, high=180, hint="it is in degrees")
    rows = (angles > max_angle).nonzero().flatten()
    return rows[angles[rows].argsort(descending=True, stable=True)]


def drop_subcenters(head: DenseHead, features: Tensor, labels: Tensor, max_angle: float = 75.0) -> Dropped:
    """A head with one row per class, the dominant sub-centre, to train on without the outliers.

    The objective is the same without sub-centres and without their spread; learned scales and running figures stay.

    Args:
        head: trained with sub-centres.
        features: of the training images by the trained backbone, [N, d].
        labels: [N] in [0, C), or −100 for ignored rows; every class needs a row.
        max_angle: rows farther than this from the dominant sub-centre are outliers, in degrees; 75 in the paper.

    Source: Deng et al. 2020, Sec. 3.4.

    >>> import torch, angulus
    >>> from angulus import losses
    >>> head = angulus.DenseHead(8, 10, losses.subcenter_arcface())
    >>> dropped = drop_subcenters(head, torch.randn(50, 8), torch.arange(50) % 10)
    >>> dropped.head.weight.shape, dropped.dominant.counts.shape
    (torch.Size([10, 8]), torch.Size([10, 3]))
    """
    if not isinstance(head, DenseHead) or head.objective.spec.subcenters is None:
        raise checks.InputError(
            f"sub-centres are dropped from a DenseHead that was trained with them; got {head}; save a sharded head by "
            "save_head and load it into a DenseHead"
        )
    spec = head.objective.spec
    checks.number("max_angle", max_angle, low=0, high=180, hint="it is in degrees")
    dominant = find_dominant(features, labels, head.weight, spec.eps)
    kept = tuple(term for term in spec.penalties if term.penalty.asks is not Spread)
    plain = dataclasses.replace(spec, subcenters=None, penalties=kept)
    options = {"impl": head.kernel.impl, "products": head.kernel.products, "sampling": head.sampling}
    new = DenseHead(head.embedding_size, head.num_classes, plain, **options, alone=head.alone)  # type: ignore[arg-type]
    new.to(head.weight)
    state = head.state_dict()
    state["weight"] = head.weight.detach()[torch.arange(head.num_classes, device=head.weight.device), dominant.chosen]
    new.load_state_dict(state)
    return Dropped(new.train(head.training), dominant, find_outliers(dominant.angles, max_angle))
