"""A running mean of the weights, which is evaluated and saved in their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from angulus.training.job import Job
from angulus.training.sharding import own_part


class Ema:
    """A running mean of what trains: w̄ ← d·w̄ + (1 − d)·w after each step, from w̄ = the first weights.

    d = min(decay, (1 + t) / (10 + t)) after t steps, so that the first weights do not weigh on a short training. The
    mean covers the backbone's trained parameters and its running means of batch norm, and the head's parameters
    (class weights, s, R). Every rank keeps the mean of what it holds, so ranks agree as their weights do.

    Source: B. T. Polyak, A. B. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control and
    Optimization 1992, for the mean; the schedule of d is that of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, job: Job, decay: float) -> None:
        self.decay = decay
        self._modules: dict[str, nn.Module] = {"backbone": job.backbone, "head": job.head}
        live = {id(tensor): tensor for part, module in self._modules.items() for tensor in _averaged(part, module)}
        self._live = list(live.values())
        self._means = [tensor.detach().clone() for tensor in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps."""
        live, means = zip(*self._parts(), strict=True)
        torch._foreach_lerp_(means, live, 1 - min(self.decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their mean."""
        for live, mean in self._parts():
            kept = live.clone()
            live.copy_(mean)
            mean.copy_(kept)

    @torch.no_grad()
    def take(self) -> None:
        """Make the weights as they are now the mean."""
        for live, mean in self._parts():
            mean.copy_(live)

    def _parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What this rank holds of each weight and its mean."""
        return ((own_part(live), own_part(mean)) for live, mean in zip(self._live, self._means, strict=True))

    def state(self, part: str) -> dict[str, Tensor]:
        """The mean of the "backbone" or the "head", by the names of its state."""
        means = {id(live): mean for live, mean in zip(self._live, self._means, strict=True)}
        named = self._modules[part].state_dict(keep_vars=True)
        return {name: means[id(tensor)] for name, tensor in named.items() if id(tensor) in means}


def of(job: Job) -> Ema | None:
    """The running mean that the job's settings ask for, if any."""
    return None if job.settings.ema is None else Ema(job, job.settings.ema)


@contextmanager
def applied(ema: Ema | None) -> Iterator[None]:
    """Within, the job has the mean for weights."""
    if ema is None:
        yield
        return
    ema.swap()
    try:
        yield
    finally:
        ema.swap()


def _averaged(part: str, module: nn.Module) -> list[Tensor]:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    saved = module.state_dict(keep_vars=True).values()  # without masks and tables, whose -inf has no mean
    moving = [each for each in saved if not isinstance(each, nn.Parameter) and each.is_floating_point()]
    return [*trained, *(moving if part == "backbone" else [])]
