"""Angulus: embeddings whose classes are told apart by the angle and the norm of their features."""

from angulus import losses, theory
from angulus.artifact import Model, load
from angulus.checks import InputError
from angulus.heads.dense import DenseHead
from angulus.heads.functional import class_loss
from angulus.heads.optimizers import BackwardSGD, SparseSGD
from angulus.heads.sampling import ClassSampling
from angulus.heads.sharded import ShardedHead
from angulus.losses import list_losses

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
    "load",
    "losses",
    "theory",
]
