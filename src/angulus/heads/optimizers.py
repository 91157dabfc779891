"""Optimisers of class weights: one that changes only the sampled rows, one that updates within backward."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from angulus.core import checks
from angulus.core.seeds import mixed
from angulus.heads.class_loss import UPDATES
from angulus.heads.dense import DenseHead
from angulus.heads.sharded import ShardedHead
from angulus.kernels.dispatch import UPDATING

ROUNDINGS = ("nearest", "stochastic", "kahan")


class SparseSGD(torch.optim.Optimizer):
    """SGD with momentum that changes only the rows of a sparse gradient: no decay and no momentum for the others.

    For each row j of the gradient g: v_j ← μ v_j + g_j + λ w_j, w_j ← w_j − η v_j. With all rows present (or a dense
    gradient) it is `torch.optim.SGD`. A row that was not sampled keeps w_j and v_j bit by bit.

    Args:
        params: parameters, or groups of them.
        lr: η ≥ 0.
        momentum: μ in [0, 1).
        weight_decay: λ ≥ 0.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(params, _defaults(lr, momentum, weight_decay))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        rows, values = None, gradient
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
        own = parameter if rows is None else parameter[rows]
        if group["weight_decay"]:
            values = values.add(own, alpha=group["weight_decay"])
        if group["momentum"]:
            velocity = _buffer(self.state[parameter], "momentum_buffer", parameter)
            moved = velocity if rows is None else velocity[rows]
            values = moved.mul_(group["momentum"]).add_(values)
            if rows is not None:
                velocity.index_copy_(0, rows, values)
        if rows is None:
            parameter.add_(values, alpha=-group["lr"])
        else:
            parameter.index_copy_(0, rows, own.add_(values, alpha=-group["lr"]))


class BackwardSGD(torch.optim.Optimizer):
    """SGD with momentum on a head's class weights, block by block within backward: their gradient is never stored.

    While attached, `head.weight.grad` stays None and backward() does the update. `step()` marks its end: a second
    backward() before step() is an error, and learning-rate schedules work as with any optimiser. There is one forward
    and one backward per step. Gradient accumulation, two losses in one graph, clipping and gradient scalers need the
    whole gradient first: use another optimiser (clipping cannot warn, since there is no gradient to clip). The rest of
    the head (bias, s, R) needs its own optimiser. Each step costs one more product (the logits twice). A copy of the
    head, or a head with another weight, is not attached.

    Args:
        head: a head with impl="chunked", "fused" or "blocked", without class sampling and without another BackwardSGD.
        lr, momentum, weight_decay: as in `SparseSGD`.
        rounding: of bfloat16 weights. "nearest" drops an update below 2^-9 of a weight. The others compute it in
            float32, so that small updates add up. "stochastic" rounds up or down, with probabilities that make the mean
            exact, and keeps no further buffer. Its draws depend on seed, step, and the rows of a block alone: a
            training that is resumed with its optimiser state and batch size gets the same bits. "kahan" keeps what
            rounding dropped in a second bfloat16 buffer, and adds it before the next update; both together have about
            16 bits, and nothing is drawn. float32 weights need "nearest".
        seed: of the draws, ≥ 0.

    Source: Gupta et al. 2015, Deep Learning with Limited Numerical Precision, Sec. 3 (stochastic rounding); Kahan 1965
    (compensated summation). Differs: the compensation is added in float32 and kept in bfloat16.
    """

    def __init__(
        self,
        head: DenseHead | ShardedHead,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        *,
        rounding: str = "nearest",
        seed: int = 0,
    ) -> None:
        if not isinstance(head, DenseHead | ShardedHead):
            raise checks.InputError(f"head must be a DenseHead or a ShardedHead; got {type(head).__name__}")
        if head.kernel.impl not in UPDATING or head.sampling is not None:
            raise checks.InputError(
                "an update within backward needs a head with impl='chunked', 'fused' or 'blocked' and no sampling; "
                f"got impl={head.kernel.impl!r}, sampling={head.sampling}"
            )
        if head.weight in UPDATES:
            raise checks.InputError("this head's weights have a BackwardSGD already; call its detach() first")
        checks.choice("rounding", rounding, ROUNDINGS)
        if rounding != "nearest" and head.weight.dtype != torch.bfloat16:
            raise checks.InputError(
                f"rounding={rounding!r} is for bfloat16 weights, and these are {head.weight.dtype}; call "
                "head.bfloat16() first, or use rounding='nearest'"
            )
        super().__init__([head.weight], _defaults(lr, momentum, weight_decay))
        self._rounding, self._seed = rounding, checks.integer("seed", seed, low=0)
        UPDATES[head.weight] = self.update
        self._updated = False  # whether backward() has updated since the last step()

    def __getstate__(self) -> dict[str, Any]:
        raise checks.InputError(  # for copies and pickles, whose step() would change nothing
            "a BackwardSGD updates the weights of the head that it was made for, and cannot be copied or pickled; make "
            "one for the copied head, and give it copy.deepcopy(optimizer.state_dict()) by load_state_dict()"
        )

    def detach(self) -> None:
        """Let backward compute the weights' gradient again."""
        UPDATES.pop(self._weight(), None)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """End this step, so that the next backward() may update. A closure is called with gradients enabled."""
        loss = _evaluate(closure)
        self._updated = False
        if self._rounding == "stochastic":
            state = self.state[self._weight()]
            state["step"] = int(state.get("step", 0)) + 1  # no tensor, since a step on a GPU reads nothing
        return loss

    @torch.no_grad()
    def update(self, rows: slice, gradient: Tensor) -> None:
        """Update these rows of the weight as a matrix; the kernel calls it with each block, the first one first.

        Raises:
            checks.InputError: a second backward() before step(), or weights that are to be rounded and are no longer
                bfloat16; nothing is changed.
        """
        if self._rounding != "nearest" and self._weight().dtype != torch.bfloat16:
            raise checks.InputError(
                f"rounding={self._rounding!r} is for bfloat16 weights, and these have become {self._weight().dtype}; "
                "call detach() and make a BackwardSGD with rounding='nearest'"
            )
        if rows.start == 0:
            if self._updated:
                raise checks.InputError(
                    "BackwardSGD updates within backward(), and this is the second one before step(); call step() "
                    "after each backward(), and accumulate gradients with another optimiser"
                )
            self._updated = True
        group, weight = self.param_groups[0], self._weight()
        place = weight.detach().flatten(0, -2)[rows]
        own = place if self._rounding == "nearest" else place.float()
        dropped = None
        if self._rounding == "kahan":
            dropped = _buffer(self.state[weight], "compensation", weight).flatten(0, -2)[rows]
            own.add_(dropped)
        gradient = gradient.to(own.dtype)
        if group["weight_decay"]:
            gradient.add_(own, alpha=group["weight_decay"])
        if group["momentum"]:
            velocity = _buffer(self.state[weight], "momentum_buffer", weight)
            gradient = velocity.flatten(0, -2)[rows].mul_(group["momentum"]).add_(gradient)
        own.add_(gradient, alpha=-group["lr"])
        if self._rounding == "stochastic":
            step = int(self.state[weight].get("step", 0))
            place.copy_(_round_stochastically(own, mixed(self._seed, step, rows.start)))
        if dropped is not None:
            place.copy_(own)
            dropped.copy_(own.sub_(place))

    def _weight(self) -> Tensor:
        weight: Tensor = self.param_groups[0]["params"][0]
        return weight


def _round_stochastically(values: Tensor, seed: int) -> Tensor:
    """float32 [n, d] to bfloat16: up with the probability of the part that bfloat16 drops; the mean is exact."""
    generator = torch.Generator(values.device).manual_seed(seed)
    noise = torch.randint(1 << 16, values.shape, generator=generator, dtype=torch.int32, device=values.device)
    rounded = ((values.view(torch.int32) + noise) & -(1 << 16)).view(torch.float32)
    return torch.where(values.isnan(), values, rounded).to(torch.bfloat16)  # a NaN's bits may overflow to a zero's


def _buffer(state: dict[str, Any], name: str, parameter: Tensor) -> Tensor:
    """A buffer of the parameter's shape and dtype, zero at first."""
    if name not in state:
        state[name] = torch.zeros_like(parameter)
    buffer: Tensor = state[name]
    return buffer


def _evaluate(closure: Callable[[], float] | None) -> float | None:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _defaults(lr: float, momentum: float, weight_decay: float) -> dict[str, float]:
    return {
        "lr": checks.number("lr", lr, low=0),
        "momentum": checks.number("momentum", momentum, low=0, high=1, open_high=True),
        "weight_decay": checks.number("weight_decay", weight_decay, low=0),
    }
