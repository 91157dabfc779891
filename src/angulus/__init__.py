"""Angulus: embeddings whose classes are told apart by the angle and the norm of their features."""

from angulus import losses, theory
from angulus.checks import InputError
from angulus.heads.dense import DenseHead
from angulus.heads.functional import class_loss
from angulus.heads.sharded import ShardedHead

__version__ = "0.1.0"
__all__ = ["DenseHead", "InputError", "ShardedHead", "__version__", "class_loss", "losses", "theory"]
