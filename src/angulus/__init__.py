"""Angulus: train, evaluate and compare embeddings with angular-margin losses."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from angulus.core.version import __version__

if TYPE_CHECKING:
    from angulus import losses
    from angulus.backbones import list_backbones
    from angulus.core.checks import InputError
    from angulus.data.sets.registry import list_datasets
    from angulus.evaluation.registry import list_protocols
    from angulus.experiments.trainer import Trained, Trainer
    from angulus.heads.class_loss import class_loss
    from angulus.heads.dense import DenseHead
    from angulus.heads.optimizers import BackwardSGD, SparseSGD
    from angulus.heads.sampling import ClassSampling
    from angulus.heads.sharded import ShardedHead
    from angulus.losses import list_losses, theory
    from angulus.models.artifact import Model, load
    from angulus.models.embedder import Embedder
    from angulus.training.callbacks import Callback
    from angulus.training.settings import TrainingArguments

__all__ = [
    "BackwardSGD",
    "Callback",
    "ClassSampling",
    "DenseHead",
    "Embedder",
    "InputError",
    "Model",
    "ShardedHead",
    "SparseSGD",
    "Trained",
    "Trainer",
    "TrainingArguments",
    "__version__",
    "class_loss",
    "list_backbones",
    "list_datasets",
    "list_losses",
    "list_protocols",
    "load",
    "losses",
    "theory",
]

_PACKAGES = {
    *("backbones", "core", "data", "distributed", "doctor", "evaluation", "experiments", "heads", "kernels", "losses"),
    *("models", "report", "search", "training"),
}
_MODULE_OF = {
    "BackwardSGD": "heads.optimizers",
    "Callback": "training.callbacks",
    "ClassSampling": "heads.sampling",
    "DenseHead": "heads.dense",
    "Embedder": "models.embedder",
    "InputError": "core.checks",
    "Model": "models.artifact",
    "ShardedHead": "heads.sharded",
    "SparseSGD": "heads.optimizers",
    "Trained": "experiments.trainer",
    "Trainer": "experiments.trainer",
    "TrainingArguments": "training.settings",
    "class_loss": "heads.class_loss",
    "list_backbones": "backbones",
    "list_datasets": "data.sets.registry",
    "list_losses": "losses",
    "list_protocols": "evaluation.registry",
    "load": "models.artifact",
    "theory": "losses",
}

if not TYPE_CHECKING:  # type checkers read the imports above, and refuse every other name

    def __getattr__(name: str) -> Any:
        """Import a name at its first use: `import angulus` and the command line's help need no torch."""
        if name in _PACKAGES:
            return importlib.import_module(f"angulus.{name}")
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'angulus' has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(f"angulus.{_MODULE_OF[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_PACKAGES})
