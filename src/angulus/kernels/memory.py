"""Out of memory in a kernel: a sentence that names the largest buffer and the setting that needs less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

COPIES = 4  # of B x C that the reference holds at least: products, cosines, logits, and a gradient


@contextmanager
def explained(impl: str, unit: Tensor, weight: Tensor, updating: bool) -> Iterator[None]:
    """A context whose `torch.OutOfMemoryError` says what was large and what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(f"{describe(impl, unit, weight, updating)}. PyTorch says: {error}") from error


def describe(impl: str, unit: Tensor, weight: Tensor, updating: bool) -> str:
    """The sentence: the largest buffer of that kernel beyond the weight, and the way out."""
    (batch, size), classes = unit.shape, weight.shape[:-1].numel()
    matrix, gradient = COPIES * batch * classes * unit.dtype.itemsize, classes * size * weight.dtype.itemsize
    if impl == "reference" and matrix > gradient:
        what = f"{COPIES} matrices of batch x classes, {batch:,} x {classes:,}, of impl='reference'"
        return _sentence(what, matrix, "impl='chunked' holds none of them; a smaller batch needs less")
    if updating:
        what = f"the momentum of the class weights, {classes:,} x {size:,}"
        return _sentence(what, gradient, "angulus.ShardedHead spreads it over GPUs, head.bfloat16() halves it")
    way = "angulus.BackwardSGD never holds it, angulus.ClassSampling holds a share, angulus.ShardedHead spreads it"
    return _sentence(f"the gradient of the class weights, {classes:,} x {size:,}", gradient, way)


def _sentence(what: str, size: int, way_out: str) -> str:
    return (
        f"out of memory in the loss over the classes; its largest buffer is {what}: {size / 2**30:.2f} GiB; {way_out}"
    )
