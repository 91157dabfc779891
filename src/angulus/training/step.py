"""Parts of a step: the loss of a micro-batch, what waits for the last one, and the gradient's norm over all ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from angulus.core import checks
from angulus.distributed.collectives import total
from angulus.distributed.runtime import Ranks
from angulus.heads.checkpoint import Head
from angulus.heads.sharded import ShardedHead
from angulus.losses.objective import Objective
from angulus.training import checkpoint


def refuse_whole_batch(objective: Objective) -> None:
    """Refuse what reads the whole batch, for micro-batches see a part of it."""
    for piece in objective.pieces:
        if piece.reads_batch:
            raise checks.InputError(
                "training.accumulate needs a loss whose rows stand alone, and this piece reads the whole batch (at "
                f"its first step at least): {piece.words()}; set training.accumulate=1, or change that piece"
            )


def checked_loss(head: Head, features: Tensor, labels: Tensor, step: int, folder: Path, ranks: Ranks) -> Tensor:
    """The loss, or what stops the training, on all ranks alike."""
    with ranks.raise_on_all():
        try:
            loss: Tensor = head(features, labels)
            checks.finite(loss[None], "the loss")
        except checks.InputError as error:
            kept = folder / checkpoint.NAME
            state = f"the last good checkpoint is {kept}" if kept.exists() else "no checkpoint was written yet"
            raise type(error)(
                f"training stopped at step {step}: {error}; {state}; lower training.optimizer.lr, set "
                "training.clip_norm, or start with training.schedule.warmup_epochs"
            ) from error
    return loss


@torch.no_grad()
def count_errors(head: Head, features: Tensor, labels: Tensor) -> Tensor:
    """How many of this rank's rows fall into another class, by the class weights of the step's own loss.

    To be called before backward, which may move them already. It is a second pass over the classes: the loss comes from
    kernels that keep no logits.
    """
    return (head.logits(features).argmax(1) != labels).sum()


@contextmanager
def defer_sync(network: nn.Module, head: Head, last: bool) -> Iterator[None]:
    """Before the last micro-batch gradients are not summed over the processes, and the head's figures do not move."""
    if last:
        yield
        return
    with head.accumulate(), network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext():
        yield


def clip(parameters: Sequence[nn.Parameter], limit: float, head: Head, ranks: Ranks) -> None:
    """Cut the norm of the whole gradient to `limit`: that of all ranks' class weights, and of what all hold alike."""
    if not isinstance(head, ShardedHead):
        nn.utils.clip_grad_norm_(parameters, limit)
        return
    rows = {id(head.weight), id(head.bias)}
    shards = [parameter.grad for parameter in parameters if id(parameter) in rows and parameter.grad is not None]
    common = [parameter.grad for parameter in parameters if id(parameter) not in rows and parameter.grad is not None]
    squares = [nn.utils.get_total_norm(each).square() for each in (shards, common)]
    norm = (total(squares[0], ranks) + squares[1]).sqrt()
    nn.utils.clip_grads_with_norm_(parameters, limit, norm)
