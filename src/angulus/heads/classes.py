"""Add classes to a trained head, remove them, or start them from class means."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from angulus.core import checks
from angulus.heads.dense import DenseHead
from angulus.losses import per_class
from angulus.losses.objective import Objective


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Unit class weights from samples: ŵ_j along Σ_{y_i=j} x̂_i, [C, d].

    Args:
        features: [N, d], none of them zero.
        labels: [N] in [0, C), or −100 for ignored rows; every class needs a sample.
        num_classes: C.

    Raises:
        checks.InputError: a class has no samples, or its unit features cancel.
    """
    checks.integer("num_classes", num_classes, low=1)
    checks.batch(features, features[:1], labels, None)
    kept = labels.long() != checks.IGNORE_INDEX
    checks.label_range(labels, num_classes)
    points = features.detach()[kept].to(torch.promote_types(features.dtype, torch.float32))
    zero = (points == 0).all(dim=1).nonzero().flatten().tolist()
    if zero:
        raise checks.InputError(f"features must not be zero, which has no direction; got {len(zero)} such rows")
    sums = points.new_zeros(num_classes, features.shape[1])
    sums.index_add_(0, labels.long()[kept], torch.nn.functional.normalize(points))
    lengths = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
    empty = (lengths.squeeze(1) < 1e-6).nonzero().flatten().tolist()
    if empty:
        raise checks.InputError(
            f"{len(empty)} of {num_classes} classes have no direction to start from (no samples, or ones that cancel), "
            f"the first is class {empty[0]}; give features of each"
        )
    means: Tensor = sums / lengths
    return means


def with_classes(head: DenseHead, weight: Tensor, counts: Sequence[int] | None = None) -> DenseHead:
    """A head with new classes after the old ones, for fine-tuning on new people.

    The old rows, learned scales and running figures stay; new biases and centres are 0; a cross-batch
    memory starts empty. Values that depend on C (the
    bounds of a contraction, log(C − 1)) are those of the new C. The parameters are new: create a new optimiser.

    Args:
        head: the trained head.
        weight: rows for the new classes, [n, d], as from `class_means`; [n, K, d] for a head with K sub-centres per
            class, different ones, since equal ones stay equal.
        counts: training images of each class, old and new, for an objective with numbers per class such as
            `dynamic_margin`; else None.
    """
    _check_dense(head)
    shape = head.weight.shape[1:]
    if head.weight.ndim == 3 and weight.shape[1:] != shape:
        raise checks.InputError(
            f"this head has {shape[0]} sub-centres per class, so weight must have shape [n, {shape[0]}, {shape[1]}]; "
            f"got {list(weight.shape)}"
        )
    checks.matrices(head.weight.flatten(0, -2), weight.flatten(0, -2))
    rows = torch.cat([head.weight.detach(), weight.detach().to(head.weight)])
    spec = head.objective.spec
    if (counts is not None) != per_class.in_use(spec):
        need = "needs counts, the training images" if counts is None else "reads no counts"
        raise checks.InputError(f"this objective {need} of each class, old and new: {spec}")
    return _rebuild(
        head, rows, list(range(len(head.weight))), spec if counts is None else per_class.recount(spec, counts)
    )


def without_classes(head: DenseHead, classes: Sequence[int]) -> DenseHead:
    """A head without these classes; the others keep their order and are renumbered 0, 1, ..."""
    _check_dense(head)
    count = len(head.weight)
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise checks.InputError(f"classes must be class numbers, as in [3, 7]; got {classes!r}")
    removed = {checks.integer("classes", number, low=0, high=count - 1) for number in classes}
    others = [number for number in range(count) if number not in removed]
    if not others:
        raise checks.InputError(f"a head needs a class; cannot remove all {count}")
    return _rebuild(head, head.weight.detach()[others], others, per_class.keep(head.objective.spec, others))


def _check_dense(head: DenseHead) -> None:
    if not isinstance(head, DenseHead):
        raise checks.InputError(
            f"classes are added to and removed from a DenseHead; got {type(head).__name__}: save it by save_head, load "
            "it into a DenseHead, change that, save it again"
        )


def _rebuild(head: DenseHead, rows: Tensor, old: list[int], spec: Objective) -> DenseHead:
    """A head with these rows, the first of which are the classes `old` of `head`."""
    options = {
        "impl": head.kernel.impl,
        "products": head.kernel.products,
        "sampling": head.sampling,
        "alone": head.alone,
    }
    new = DenseHead(rows.shape[-1], len(rows), spec, **options)  # type: ignore[arg-type]
    new.to(rows)
    state = new.state_dict()
    for name, value in head.state_dict().items():
        if "cross_batch_memory." in name and value.ndim:
            continue  # features under the old numbers of the classes; it fills again
        if value.shape == state[name].shape and not (value.ndim and len(value) == len(head.weight)):
            state[name].copy_(value)
        else:  # one row per class: bias, centres
            state[name].zero_()[: len(old)] = value[old]
    state["weight"].copy_(rows)
    return new.train(head.training)
