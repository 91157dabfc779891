"""Sub-centres of a stored model: the dominant one of each class, images far from it, the model without the others."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.contract import describe_model, split_model_name
from angulus.core.embeddings import Embeddings
from angulus.core.wording import guard_formula
from angulus.heads.subcenters import Dominant, find_dominant, find_outliers
from angulus.models import artifact
from angulus.models.classifier import Classifier


class Far(NamedTuple):
    """An image far from the dominant sub-centre of its class."""

    id: str
    label: str
    angle: float  # degrees


class Subcenters(NamedTuple):
    """What embeddings of the training images say about a model's sub-centres."""

    dominant: Dominant
    far: list[Far]  # the farthest first
    images: int  # that have a label

    def as_csv(self) -> str:
        """id, label and angle in degrees, the farthest first; no cell is a spreadsheet's formula."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("id", "label", "angle"))
        writer.writerows((guard_formula(far.id), guard_formula(far.label), f"{far.angle:.2f}") for far in self.far)
        return text.getvalue()


def examine(model: artifact.Model, embeddings: Embeddings, max_angle: float = 75.0) -> Subcenters:
    """The dominant sub-centres, and the images farther from the one of their class than an angle.

    Args:
        model: with class weights that have sub-centres.
        embeddings: of its training images by this model, without mirror images; labels are names of its classes.
        max_angle: in degrees; 75 in the paper.

    Raises:
        InputError: a model without sub-centres, embeddings of another model or without labels, a label that is no class
            of the model, a class without an image.

    Source: Deng et al. 2020, Sec. 3.4.
    """
    checks.number("max_angle", max_angle, low=0, high=180, hint="it is in degrees")
    classifier = _need_subcenters(model)
    _refuse_other_embeddings(model, embeddings)
    labels = _class_numbers(classifier.names, embeddings)
    _refuse_empty_classes(classifier.names, labels, embeddings.source)
    features = torch.from_numpy(embeddings.vectors.copy())
    found = find_dominant(features, labels, classifier.weight.cpu(), classifier.spec.eps)
    rows = find_outliers(found.angles, max_angle).tolist()
    assert embeddings.labels is not None
    far = [Far(str(embeddings.ids[row]), str(embeddings.labels[row]), float(found.angles[row])) for row in rows]
    return Subcenters(found, far, int((labels >= 0).sum()))


def save_dominant(model: artifact.Model, dominant: Dominant, folder: Path) -> None:
    """Write the model with the dominant sub-centre of each class as its only class weight."""
    old = _need_subcenters(model)
    weight = old.weight[torch.arange(len(old.weight)), dominant.chosen].clone()
    new = Classifier(old.names, dataclasses.replace(old.spec, subcenters=None), weight, old.bias)
    if isinstance(new.radius, nn.Module):
        new.radius.load_state_dict(old.radius.state_dict())
    artifact.save(model.config, model.backbone, folder, model.preprocessing.mean_image, classifier=new)


def _need_subcenters(model: artifact.Model) -> Classifier:
    classifier = model.need_classes()
    if classifier.spec.subcenters is None:
        raise InputError(
            "this model has one weight row per class; sub-centres come from training with subcenters in the objective, "
            "such as kind: subcenter_arcface"
        )
    return classifier


def _refuse_other_embeddings(model: artifact.Model, embeddings: Embeddings) -> None:
    own = split_model_name(embeddings.model)
    if own is not None and own != (model.fingerprint, "none", None):
        raise InputError(
            f"{embeddings.source} is by {describe_model(embeddings.model)}, but class weights are compared with "
            f"features of their own model, {model.fingerprint}, without mirror images; write them by "
            "angulus embed --flip none"
        )
    if embeddings.vectors.shape[1] != model.config.embedding_size:
        raise InputError(
            f"{embeddings.source} holds vectors of size {embeddings.vectors.shape[1]}, this model's have "
            f"{model.config.embedding_size}; write them by angulus embed --flip none"
        )


def _refuse_empty_classes(names: Sequence[str], labels: Tensor, source: str) -> None:
    counts = torch.bincount(labels[labels >= 0], minlength=len(names))
    empty = [name for name, count in zip(names, counts.tolist(), strict=True) if not count]
    if empty:
        raise InputError(
            f"every class of the model needs an image, or none of its sub-centres is dominant; {source} has no image "
            f"of {len(empty):,} of {len(names):,} classes, such as {checks.shown(empty[0])}; embed all training images"
        )


def _class_numbers(names: Sequence[str], embeddings: Embeddings) -> Tensor:
    """The class of each row, −100 for rows without a label."""
    if embeddings.labels is None or not embeddings.labelled.any():
        raise InputError(
            f"{embeddings.source} has no labels; embed the training images from records or a labelled list"
        )
    number = {name: place for place, name in enumerate(names)} | {"": checks.IGNORE_INDEX}
    unknown = [str(label) for label in embeddings.labels if str(label) not in number]
    if unknown:
        raise InputError(
            f"labels of {embeddings.source} must be classes of the model; got {checks.shown(unknown[0])} and "
            f"{len(unknown) - 1:,} more; give the images that it was trained on"
        )
    return torch.tensor([number[str(label)] for label in embeddings.labels])
