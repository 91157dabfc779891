"""Angulus: embeddings whose classes are told apart by the angle and the norm of their features."""

from angulus import losses
from angulus.core.checks import InputError
from angulus.evaluation.registry import list_protocols
from angulus.heads.class_loss import class_loss
from angulus.heads.dense import DenseHead
from angulus.heads.optimizers import BackwardSGD, SparseSGD
from angulus.heads.sampling import ClassSampling
from angulus.heads.sharded import ShardedHead
from angulus.losses import list_losses, theory
from angulus.models.artifact import Model, load

__version__ = "0.1.0"
__all__ = [
    "BackwardSGD",
    "ClassSampling",
    "DenseHead",
    "InputError",
    "Model",
    "ShardedHead",
    "SparseSGD",
    "__version__",
    "class_loss",
    "list_losses",
    "list_protocols",
    "load",
    "losses",
    "theory",
]
