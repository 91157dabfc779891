"""The settings of a training run: the part of a recipe's schema that the training loop reads.

Each class is a section of a recipe, checked on construction; optimisers and schedules are chosen by their `kind`.
"""

from __future__ import annotations

from dataclasses import field
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag
from pydantic.dataclasses import dataclass

from angulus.core import checks, schema
from angulus.training.sampling import Sampler

# descriptions of keys are the docstrings below them
STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
UpToOne = Annotated[float, Field(gt=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]


def _by_kind(default: str) -> Discriminator:
    """Choose a class by `kind`, or the default where a mapping names none."""

    def kind(value: Any) -> str | None:
        return str(value.get("kind", default)) if isinstance(value, dict) else getattr(value, "kind", None)

    return Discriminator(kind)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class OptimizerSettings:
    """What all optimisers take."""

    kind: str
    lr: Positive = 1e-3
    """The full learning rate: 0.1 by default for SGD, 0.001 for the others."""
    weight_decay: NonNegative = 5e-4
    """The weight decay of weights."""
    decay_bias_and_norm: bool = False
    """Whether biases, norm layers and other parameters of one dimension decay too."""
    decay_classes: bool = True
    """Whether class weights decay; if not, their biases do not either, whatever `decay_bias_and_norm` says."""
    decay_objective: bool = False
    """Whether what the objective learns (s, R) decays too."""
    backbone_lr_scale: Positive = 1.0
    """The factor on the backbone's learning rate; below 1 for fine-tuning."""
    layer_decay: UpToOne = 1.0
    """The factor from one layer of the backbone to the one before it: the first layers learn the slowest. 0.75 is usual
    for fine-tuning a transformer; see `training.finetune.layer_scales`."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SGD(OptimizerSettings):
    """SGD with momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: Positive = 0.1
    momentum: BelowOne = 0.9
    """The share of the last step that the next one keeps."""
    nesterov: bool = False
    """Nesterov momentum; needs a momentum above 0."""

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise checks.InputError("training.optimizer.nesterov needs a momentum above 0; got momentum 0")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class AdamW(OptimizerSettings):
    """AdamW with PyTorch's default betas."""

    kind: Literal["adamw"] = "adamw"


@dataclass(frozen=True, config=STRICT, kw_only=True)
class RMSProp(OptimizerSettings):
    """RMSProp with momentum."""

    kind: Literal["rmsprop"] = "rmsprop"
    momentum: BelowOne = 0.9
    """The share of the last step that the next one keeps."""
    alpha: BelowOne = 0.99
    """The share of the last mean squared gradient that the next one keeps."""
    eps: Positive = 1e-8
    """What is added to the root of the mean squared gradient."""


Optimizer = Annotated[
    Annotated[SGD, Tag("sgd")] | Annotated[AdamW, Tag("adamw")] | Annotated[RMSProp, Tag("rmsprop")], _by_kind(SGD.kind)
]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class WarmUp:
    """What all schedules but one_cycle take."""

    kind: str
    warmup_epochs: NonNegative = 0.0
    """Epochs in which the factor first rises linearly, from 1/n at the first of n steps."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Constant(WarmUp):
    """The full learning rate throughout."""

    kind: Literal["constant"] = "constant"


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Steps(WarmUp):
    """Multiplied by `factor` after each milestone."""

    kind: Literal["steps"] = "steps"
    milestones: Annotated[list[Positive], Field(min_length=1)]
    """Epochs, rising."""
    factor: OpenFraction = 0.1
    """What the learning rate is multiplied by at each drop."""

    def __post_init__(self) -> None:
        if self.milestones != sorted(self.milestones):
            raise checks.InputError(f"training.schedule.milestones must be rising epochs; got {self.milestones}")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Cosine(WarmUp):
    """Half a cosine from 1 down to `final`."""

    kind: Literal["cosine"] = "cosine"
    final: BelowOne = 0.0
    """The last factor."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class OneCycle:
    """Up from 1/25 for the first 30 %, then down to `final`, both by cosines; takes no warm-up, since it has one."""

    kind: Literal["one_cycle"] = "one_cycle"
    final: BelowOne = 0.0
    """The last factor."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Polynomial(WarmUp):
    """(1 − t)^`power`, with t from 0 to 1."""

    kind: Literal["polynomial"] = "polynomial"
    power: Positive = 1.0
    """The exponent: 1 falls in a straight line."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Plateau(WarmUp):
    """Multiplied by `factor` when the training error has not fallen for `patience` epochs, at most `drops` times."""

    kind: Literal["plateau"] = "plateau"
    factor: OpenFraction = 0.1
    """What the learning rate is multiplied by at each drop."""
    patience: Count = 3
    """Epochs without a lower training error before a drop."""
    drops: Count = 3
    """The most drops."""


Schedule = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Steps, Tag("steps")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[OneCycle, Tag("one_cycle")]
    | Annotated[Polynomial, Tag("polynomial")]
    | Annotated[Plateau, Tag("plateau")],
    _by_kind(Cosine.kind),
]
DEFAULT_KINDS = {"training.optimizer": SGD.kind, "training.schedule": Cosine.kind}  # of a mapping that names none


@dataclass(frozen=True, config=STRICT)
class Snapshots:
    """Models kept during training, over which an evaluation is averaged.

    Source: NF Sec. 4.2, whose results are means over five models, 1,000 iterations apart.
    """

    every: Count
    """Steps from one snapshot to the next."""
    after: Natural = 0
    """The first snapshot is taken `every` steps after this one."""

    def due(self, step: int) -> bool:
        """Whether the model after `step` steps is kept.

        >>> [step for step in range(12) if Snapshots(every=2, after=5).due(step)]
        [7, 9, 11]
        """
        return step > self.after and (step - self.after) % self.every == 0


@dataclass(frozen=True, config=STRICT)
class Validation:
    """Verification during training, on people held out of it."""

    identities: OpenFraction = 0.05
    """The share of the classes that is held out, drawn by the training's seed."""
    every: Count = 1
    """Epochs between validations."""
    fmr: OpenFraction = 0.001
    """The false match rate at which TAR is measured."""
    pairs: Count = 3000
    """Genuine pairs, and as many impostor pairs, drawn from the held-out images; at least 1 / fmr."""

    def __post_init__(self) -> None:
        if self.pairs * self.fmr < 1:
            raise checks.InputError(
                f"validation.pairs must be at least 1 / validation.fmr = {1 / self.fmr:,.0f}, else no threshold shows "
                f"that rate; got {self.pairs:,}"
            )


@dataclass(frozen=True, config=STRICT)
class Compatible:
    """An old model, in whose galleries the new one's features are to be searched."""

    model: str
    """Its folder, such as RUN/model. `compatible_with: RUN/model` is short for this key alone."""
    weight: Positive = 1.0
    """λ, the factor of the loss over the old model's classes."""
    classes: Literal["auto", "weights", "means"] = "auto"
    """The old model's class vectors: its class weights, the means of its features of each class, or auto: its weights
    where it has them, else the means."""


@partial(schema.from_python, section="training")
@dataclass(frozen=True, config=STRICT)
class Training:
    """How long, how big and how precisely to train."""

    epochs: Count = 10
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step, over all processes, at least 2; the last, smaller batch is used too."""
    accumulate: Count = 1
    """Micro-batches per step, at most batch_size; their gradients sum to that of the whole batch (except batch norm's,
    which sees one micro-batch at a time)."""
    sampler: Sampler | None = None
    """Which images an epoch takes; null takes each once, shuffled."""
    workers: Natural = 0
    """Processes that read and decode images ahead, of each process that trains; 0 reads them between steps. Images that
    fit in memory (2 GiB decoded) need none."""
    optimizer: Optimizer = field(default_factory=SGD)
    """How the weights follow the gradient."""
    schedule: Schedule = field(default_factory=Cosine)
    """How the learning rate changes during training."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """The precision of the backbone's products, bfloat16 by autocast; the loss is float32 either way."""
    channels_last: bool = False
    """Keep images and backbone in channels-last memory, which makes convolutions faster; not for volumes."""
    sync_batch_norm: bool = False
    """Compute batch norm over the images of all processes, not of each one alone."""
    compile: bool = False
    """Run the backbone through torch.compile."""
    shard_backbone: bool = False
    """Spread the backbone's parameters, gradients and optimiser over the processes (FSDP2), for one too large for each.
    Excludes compile and channels_last; one process does without."""
    clip_norm: Positive | None = None
    """The largest norm of the gradient; null does not clip."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """The seed of the first weights and of the order of images."""
    checkpoint_every: Natural = 0
    """Steps between checkpoints; 0 is once per epoch. The end always has one."""
    checkpoint_async: bool = False
    """Write checkpoints while training goes on, from a copy in the CPU's memory: of each process its share of the head,
    and of the first one the backbone and its optimiser. The next checkpoint waits for the last one."""
    log_every: Count = 10
    """Steps between rows of metrics.jsonl."""
    loggers: list[Literal["tensorboard", "wandb", "mlflow"]] | None = None
    """Where else the rows of metrics.jsonl go: tensorboard, wandb (Weights & Biases) and mlflow; null is tensorboard if
    it is installed."""
    device: str = "auto"
    """cuda, mps or cpu; auto takes the first of them that this machine has."""
    threads: Natural = 0
    """CPU threads; 0 leaves PyTorch's choice."""
    start_from: str | None = None
    """A model folder, or a run's folder or checkpoint, whose weights training starts from: the backbone's, and the
    class weights if it was trained on the same classes."""
    freeze: list[str] = field(default_factory=list)
    """Patterns (such as "patch_embed*", "blocks.0.*") of the backbone's parameters that stay as they are."""
    ema: OpenFraction | None = None
    """The decay, such as 0.999, of a running mean of the weights, which is evaluated and saved in their place."""
    activation_checkpointing: bool = False
    """Compute the activations of a timm or transformers net again in backward: less memory, one more forward."""
    save_classes: Literal[True, False, "auto"] = "auto"
    """Whether the model folder holds the class weights with their names, which `angulus predict` needs. auto: for at
    most 1,000 classes, unless images are aligned faces (input.template) or people are held out (validation), where
    classes are people and the features are what is used later."""
    snapshots: Snapshots | None = None

    def __post_init__(self) -> None:
        checks.integer("training.batch_size", self.batch_size, low=2, hint="batch norm cannot train on one row")
        checks.integer("training.accumulate", self.accumulate, low=1, high=self.batch_size)
        for key in ("compile", "channels_last"):
            if self.shard_backbone and getattr(self, key):
                raise checks.InputError(
                    f"training.shard_backbone cannot be combined with training.{key}; set one of them to false"
                )

    def steadier(self, *, clip: bool = True) -> str:
        """What would make a training that diverged steadier, beyond what these settings do already.

        Args:
            clip: whether the gradient may be clipped, which class sampling and `update_in_backward` exclude.

        >>> Training(clip_norm=5.0).steadier()
        'lower training.optimizer.lr (it was 0.1) or start with training.schedule.warmup_epochs'
        """
        ways = [f"lower training.optimizer.lr (it was {self.optimizer.lr:g})"]
        if clip and self.clip_norm is None:
            ways.append("set training.clip_norm")
        if getattr(self.schedule, "warmup_epochs", None) == 0:
            ways.append("start with training.schedule.warmup_epochs")
        return f"{', '.join(ways[:-1])} or {ways[-1]}" if ways[1:] else ways[0]


TrainingArguments = Training  # its name in Python code
