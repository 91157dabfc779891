"""The Python pages of the site: what is public, grouped by what it is for. Nothing else has a page."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, NamedTuple


class Group(NamedTuple):
    """One page: names as a user writes them, and modules that are shown whole."""

    title: str
    about: str
    names: tuple[str, ...]


PIECES = ("radius", "margins", "negatives", "weighting", "classifiers", "subcenters", "penalties", "roles")


def groups() -> dict[str, Group]:
    """The pages by file name, in the order of the menu."""
    from angulus import losses

    listed = [name for name in losses.list_losses() if name in losses.__all__]
    build = ("angulus.losses.Objective", "angulus.losses.Ramp", "angulus.losses.build", "angulus.losses.from_recipe")
    state = ("angulus.losses.BoundObjective", "angulus.losses.Statistics")
    return {
        "losses": Group(
            "Losses",
            "Each function gives an `Objective`, which a head turns into a loss.",
            (*(f"angulus.losses.{name}" for name in listed), *build, "angulus.list_losses", *state),
        ),
        "heads": Group(
            "Heads",
            "A head holds the class weights and computes the loss: `DenseHead` on one device, `ShardedHead` on many.",
            (
                *("angulus.DenseHead", "angulus.ShardedHead", "angulus.class_loss", "angulus.ClassSampling"),
                *("angulus.SparseSGD", "angulus.BackwardSGD", "angulus.heads.clipping.clip_grad_norm_"),
                *("angulus.heads.saving.save_head", "angulus.heads.saving.load_head"),
            ),
        ),
        "training": Group(
            "Training",
            "Train from Python, by the code of `angulus train`. [How](../training.md#from-python).",
            (
                *("angulus.Trainer", "angulus.TrainingArguments", "angulus.Trained", "angulus.Callback"),
                "angulus.training.callbacks.Record",
            ),
        ),
        "models": Group(
            "Models",
            "Load a trained model, embed images and predict classes.",
            (
                "angulus.Embedder",
                "angulus.models.onnx_model.load",
                "angulus.models.export_check.check",
                "angulus.load",
                "angulus.Model",
                "angulus.models.hub.HubModel",
                "angulus.InputError",
            ),
        ),
        "backbones": Group(
            "Backbones",
            "The networks by name. [Which one to take](../backbones.md).",
            ("angulus.list_backbones", "angulus.backbones.build"),
        ),
        "data": Group(
            "Data",
            "Data sets by name, and records of your own images.",
            (
                *("angulus.list_datasets", "angulus.data.load", "angulus.data.stand_in", "angulus.data.Splits"),
                *("angulus.data.Images", "angulus.data.records.Records", "angulus.data.records.write_records"),
                *("angulus.data.records.Row", "angulus.data.sets.files.load"),
                *("angulus.core.urls.fetch", "angulus.core.urls.writing"),
            ),
        ),
        "evaluation": Group(
            "Evaluation",
            "The protocols by name. [How to run one](../evaluate.md).",
            ("angulus.list_protocols",),
        ),
        "pieces": Group(
            "Pieces of a loss",
            "What an `Objective` is made of. [How to add one](../add-a-loss.md).",
            tuple(f"angulus.losses.{name}" for name in PIECES),
        ),
        "theory": Group("Theory", "Bounds and closed forms of the papers.", ("angulus.losses.theory",)),
    }


def overview() -> str:
    """The page that lists every public name with its sentence."""
    parts = [
        "# Python overview",
        "These names are public. [What may change before version 1.0](../stability.md). The losses are the "
        "longest list, so begin with [heads](heads.md) or the [notebook](../quickstart.md).",
    ]
    for page, group in groups().items():
        rows = [f"| [`{name}`]({page}.md#{name}) | {sentence(name)} |" for name in group.names]
        head = f"## {group.title}\n\n{group.about}\n\n| name | what it is |\n|---|---|"
        parts.append("\n".join([head, *rows]))
    return "\n\n".join(parts) + "\n"


def page_text(group: Group) -> str:
    """One page of names, which mkdocstrings fills in."""
    blocks = "\n".join(f"::: {name}\n" for name in group.names)
    return f"# {group.title}\n\n{group.about}\n\n{blocks}"


def find(name: str) -> Any:
    """What a dotted name stands for."""
    holder, _, last = name.rpartition(".")
    module = import_module(holder)
    return getattr(module, last) if hasattr(module, last) else import_module(name)


def sentence(name: str) -> str:
    """The first line of a docstring, as a cell of a table."""
    return (inspect.getdoc(find(name)) or "").partition("\n")[0].replace("|", "&#124;")
