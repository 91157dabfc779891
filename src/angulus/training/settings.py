"""The settings of a training run: plain frozen dataclasses, which a recipe fills in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from angulus.core import checks

STRICT: dict[str, Any] = {"extra": "forbid", "strict": True}


@dataclass(frozen=True)
class Optimizer:
    """Which optimiser.

    Args:
        kind: SGD with momentum, AdamW or RMSProp.
        lr: the full learning rate, > 0; None is 0.1 for SGD, 0.001 for the others.
        momentum: of SGD and RMSProp, in [0, 1).
        nesterov: Nesterov momentum (SGD).
        weight_decay: ≥ 0, on weights.
        decay_bias_and_norm: True decays biases, norm layers and other parameters of one dimension too.
        decay_objective: True decays what the objective learns (s, R) too.
        backbone_lr_scale: what multiplies the rate of the backbone, > 0; below 1 in fine-tuning.
    """

    kind: Literal["sgd", "adamw", "rmsprop"] = "sgd"
    lr: float | None = None
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    decay_bias_and_norm: bool = False
    decay_objective: bool = False
    backbone_lr_scale: float = 1.0
    __pydantic_config__: ClassVar[Any] = STRICT
    # keys that not every kind takes, with those that do; a recipe that gives one to another kind is refused
    of_kinds: ClassVar[dict[str, tuple[str, ...]]] = {"momentum": ("sgd", "rmsprop"), "nesterov": ("sgd",)}

    def __post_init__(self) -> None:
        if self.lr is None:
            object.__setattr__(self, "lr", 0.1 if self.kind == "sgd" else 1e-3)
        checks.number("training.optimizer.lr", self.rate, low=0, open_low=True)
        checks.number("training.optimizer.momentum", self.momentum, low=0, high=1, open_high=True)
        checks.number("training.optimizer.weight_decay", self.weight_decay, low=0)
        checks.number("training.optimizer.backbone_lr_scale", self.backbone_lr_scale, low=0, open_low=True)
        if self.nesterov and (self.kind != "sgd" or self.momentum == 0):
            raise checks.InputError("training.optimizer.nesterov needs kind: sgd and a momentum above 0")

    @property
    def rate(self) -> float:
        """The full learning rate, resolved."""
        assert self.lr is not None
        return self.lr


@dataclass(frozen=True)
class Schedule:
    """How the learning rate moves, as a factor of the optimiser's lr.

    Args:
        kind: constant; steps: times `factor` after each of `milestones` (epochs); cosine: to `final`; one_cycle: up
            from 1/25 for the first 30%, then down to `final`, by cosines; polynomial: (1 − t)^`power`; plateau: times
            `factor` when the training error has not fallen for `patience` epochs, at most `drops` times.
        warmup_epochs: the factor first rises linearly, from 1/n at the first of n steps; not with one_cycle.
        milestones: epochs, rising (steps).
        factor: in (0, 1) (steps, plateau).
        power: > 0 (polynomial).
        final: in [0, 1), the last factor (cosine, one_cycle).
        patience: epochs, ≥ 1 (plateau).
        drops: ≥ 1 (plateau).
    """

    kind: Literal["constant", "steps", "cosine", "one_cycle", "polynomial", "plateau"] = "cosine"
    warmup_epochs: float = 0.0
    milestones: list[float] = field(default_factory=list)
    factor: float = 0.1
    power: float = 1.0
    final: float = 0.0
    patience: int = 3
    drops: int = 3
    __pydantic_config__: ClassVar[Any] = STRICT
    of_kinds: ClassVar[dict[str, tuple[str, ...]]] = {  # as the optimiser's
        "milestones": ("steps",),
        "factor": ("steps", "plateau"),
        "power": ("polynomial",),
        "final": ("cosine", "one_cycle"),
        "patience": ("plateau",),
        "drops": ("plateau",),
    }

    def __post_init__(self) -> None:
        name = "training.schedule."
        checks.number(name + "warmup_epochs", self.warmup_epochs, low=0)
        checks.number(name + "factor", self.factor, low=0, high=1, open_low=True, open_high=True)
        checks.number(name + "power", self.power, low=0, open_low=True)
        checks.number(name + "final", self.final, low=0, high=1, open_high=True)
        checks.integer(name + "patience", self.patience, low=1)
        checks.integer(name + "drops", self.drops, low=1)
        if self.milestones != sorted(self.milestones) or any(epoch <= 0 for epoch in self.milestones):
            raise checks.InputError(f"{name}milestones must be rising epochs above 0; got {self.milestones}")
        if self.kind == "steps" and not self.milestones:
            raise checks.InputError(f"{name}milestones must name at least one epoch with kind: steps; got none")
        if self.kind == "one_cycle" and self.warmup_epochs:
            raise checks.InputError(f"{name}warmup_epochs must be 0 with kind: one_cycle, which rises by itself")


@dataclass(frozen=True)
class Snapshots:
    """Models kept on the way, over which an evaluation is averaged.

    Args:
        every: steps from one to the next, ≥ 1.
        after: the first is kept `every` steps after this one, ≥ 0.

    Source: NF Sec. 4.2, whose results are means over five models, 1,000 iterations apart.
    """

    every: int
    after: int = 0
    __pydantic_config__: ClassVar[Any] = STRICT

    def __post_init__(self) -> None:
        checks.integer("training.snapshots.every", self.every, low=1)
        checks.integer("training.snapshots.after", self.after, low=0)

    def due(self, step: int) -> bool:
        """Whether the model after `step` steps is kept.

        >>> [step for step in range(12) if Snapshots(every=2, after=5).due(step)]
        [7, 9, 11]
        """
        return step > self.after and (step - self.after) % self.every == 0


@dataclass(frozen=True)
class Validation:
    """Verification of people held out of the training, while it goes on.

    Args:
        identities: the share of the classes that is held out, in (0, 1); which, the training's seed draws.
        every: epochs between validations, ≥ 1.
        fmr: the false match rate at which TAR is told, in (0, 1).
        pairs: genuine pairs, and as many impostor pairs, that are drawn of the held-out images; 1/pairs ≤ fmr.
    """

    identities: float = 0.05
    every: int = 1
    fmr: float = 0.001
    pairs: int = 3000
    __pydantic_config__: ClassVar[Any] = STRICT

    def __post_init__(self) -> None:
        for name in ("identities", "fmr"):
            checks.number(f"validation.{name}", getattr(self, name), low=0, high=1, open_low=True, open_high=True)
        checks.integer("validation.every", self.every, low=1)
        checks.integer("validation.pairs", self.pairs, low=1)
        if self.pairs * self.fmr < 1:
            raise checks.InputError(
                f"validation.pairs must be at least 1 / validation.fmr = {1 / self.fmr:,.0f}, else no threshold shows "
                f"that rate; got {self.pairs:,}"
            )


@dataclass(frozen=True)
class Training:
    """How long, how big, how precise.

    Args:
        epochs: passes over the training images, ≥ 1.
        batch_size: images a step, over all processes, ≥ 2; a last, smaller batch is trained on too.
        accumulate: micro-batches that a step's images are cut into, one after the other through the network, ≥ 1. Their
            gradients sum to that of the whole batch (batch norm, which sees a micro-batch, aside).
        optimizer: see `Optimizer`.
        schedule: see `Schedule`.
        precision: of the backbone's products: "float32", or "bfloat16" by autocast. The loss is float32 either way.
        channels_last: keep the backbone and its images in channels-last memory, which convolutions are faster on;
            for images, not volumes. The numbers are the same up to rounding.
        sync_batch_norm: batch norm by the images of all processes, and not by each one's own.
        compile: the backbone through torch.compile.
        clip_norm: the gradient's norm is cut to this, > 0; None leaves it.
        seed: of weights and of the order of images, ≥ 0.
        checkpoint_every: steps between checkpoints, ≥ 0; 0 is every epoch. There is one at the end in any case.
        log_every: steps between rows of metrics.jsonl, ≥ 1.
        device: "auto" takes CUDA where it is, else a Mac's "mps", else the CPU.
        threads: CPU threads, ≥ 0; 0 leaves PyTorch's choice.
        start_from: a model folder, or a run's folder or checkpoint, whose weights training starts from: the backbone's,
            and the class weights where it was a run on the same classes.
        snapshots: see `Snapshots`; None keeps the last model alone.
    """

    epochs: int = 10
    batch_size: int = 128
    accumulate: int = 1
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    sync_batch_norm: bool = False
    compile: bool = False
    clip_norm: float | None = None
    seed: int = 0
    checkpoint_every: int = 0
    log_every: int = 10
    device: str = "auto"
    threads: int = 0
    start_from: str | None = None
    snapshots: Snapshots | None = None
    __pydantic_config__: ClassVar[Any] = STRICT

    def __post_init__(self) -> None:
        checks.integer("training.epochs", self.epochs, low=1)
        checks.integer("training.batch_size", self.batch_size, low=2, hint="batch norm cannot train on one row")
        checks.integer("training.accumulate", self.accumulate, low=1, high=self.batch_size)
        checks.integer("training.seed", self.seed, low=0, high=2**32 - 1)
        checks.integer("training.checkpoint_every", self.checkpoint_every, low=0)
        checks.integer("training.log_every", self.log_every, low=1)
        checks.integer("training.threads", self.threads, low=0)
        if self.clip_norm is not None:
            checks.number("training.clip_norm", self.clip_norm, low=0, open_low=True)
