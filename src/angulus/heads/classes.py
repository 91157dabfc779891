"""Classes that come and go: rows added to a trained head, rows removed, rows that start from class means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from angulus.core import checks
from angulus.heads.dense import DenseHead


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Unit class weights from samples: ŵ_j along Σ_{y_i=j} x̂_i, [C, d].

    Args:
        features: [N, d], of any length but 0.
        labels: [N] in [0, C), or −100 for rows that do not count; every class needs a sample.
        num_classes: C.

    Raises:
        checks.InputError: a class without samples, or whose unit features cancel.
    """
    checks.integer("num_classes", num_classes, low=1)
    checks.batch(features, features[:1], labels, None)
    kept = labels.long() != checks.IGNORE_INDEX
    checks.label_range(labels, num_classes)
    points = features.detach()[kept].to(torch.promote_types(features.dtype, torch.float32))
    zero = (points == 0).all(dim=1).nonzero().flatten().tolist()
    if zero:
        raise checks.InputError(f"features must not be zero, since that has no direction; got {len(zero)} such rows")
    sums = points.new_zeros(num_classes, features.shape[1])
    sums.index_add_(0, labels.long()[kept], torch.nn.functional.normalize(points))
    lengths = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
    empty = (lengths.squeeze(1) < 1e-6).nonzero().flatten().tolist()
    if empty:
        raise checks.InputError(
            f"{len(empty)} of {num_classes} classes have no direction to start from (no samples, or ones that cancel), "
            f"class {empty[0]} the first; give features of each"
        )
    means: Tensor = sums / lengths
    return means


def with_classes(head: DenseHead, weight: Tensor) -> DenseHead:
    """A head with new classes after the old ones, for fine-tuning on people seen later.

    The old rows, learned scales and running figures are as they were; new biases and centres are 0. What follows from C
    (the bounds of a contraction, log(C − 1)) is that of the larger C. Parameters are new: make a new optimiser.

    Args:
        head: the trained head.
        weight: rows for the new classes, [n, d], as from `class_means`.
    """
    _dense(head)
    checks.matrices(head.weight, weight)
    rows = torch.cat([head.weight.detach(), weight.detach().to(head.weight)])
    return _rebuilt(head, rows, list(range(len(head.weight))))


def without_classes(head: DenseHead, classes: Sequence[int]) -> DenseHead:
    """A head without these classes; the others keep their order, and are numbered 0, 1, ... again."""
    _dense(head)
    count = len(head.weight)
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise checks.InputError(f"classes must be class numbers, as in [3, 7]; got {classes!r}")
    gone = {checks.integer("classes", each, low=0, high=count - 1) for each in classes}
    kept = [each for each in range(count) if each not in gone]
    if not kept:
        raise checks.InputError(f"a head needs a class; all {count} were to be removed")
    return _rebuilt(head, head.weight.detach()[kept], kept)


def _dense(head: DenseHead) -> None:
    if not isinstance(head, DenseHead):
        raise checks.InputError(
            f"classes are added to and removed from a DenseHead; got {type(head).__name__}: save it by save_head, load "
            "it into a DenseHead, change that, save it again"
        )


def _rebuilt(head: DenseHead, rows: Tensor, old: list[int]) -> DenseHead:
    """A head of these rows, the first of which are the classes `old` of `head`."""
    options = {
        "impl": head.kernel.impl,
        "products": head.kernel.products,
        "sampling": head.sampling,
        "alone": head.alone,
    }
    new = DenseHead(rows.shape[1], len(rows), head.objective.spec, **options)  # type: ignore[arg-type]
    new.to(rows)
    state = new.state_dict()
    for name, value in head.state_dict().items():
        if value.shape == state[name].shape and not (value.ndim and len(value) == len(head.weight)):
            state[name].copy_(value)
        else:  # one row per class: bias, centres
            state[name].zero_()[: len(old)] = value[old]
    state["weight"].copy_(rows)
    return new.train(head.training)
