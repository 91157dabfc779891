"""Validation during training: verify pairs of images of people who are held out of it."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core.checks import InputError
from angulus.data.sets.images import Images, Splits, select_rows
from angulus.evaluation.metrics.curves import error_curve
from angulus.evaluation.metrics.verification import kfold_accuracy, tar_at_far
from angulus.training.features import extract_features
from angulus.training.job import Job
from angulus.training.settings import Validation

FOLDS = 10  # of the accuracy; each uses the threshold of the nine others


def hold_out(splits: Splits, settings: Validation, seed: int) -> tuple[Splits, Images]:
    """(the data set without the held-out classes, the training images of the held-out classes).

    ⌈share · C⌉ classes are drawn by the seed; the others are renumbered in order. Test images of held-out classes are
    left out too, since the head has no such class.

    Raises:
        InputError: fewer than two classes on either side, or no held-out class with two images.
    """
    classes = splits.train.num_classes
    count = int(np.ceil(settings.identities * classes - 1e-9))
    if count < 2 or classes - count < 2:
        raise InputError(
            f"validation.identities {settings.identities:g} holds {count} of the {classes} classes of {splits.name} "
            "out; pairs need at least two, and so does training"
        )
    chosen = np.zeros(classes, dtype=bool)
    chosen[np.random.default_rng((seed, 0x1D)).choice(classes, count, replace=False)] = True
    train, test = (select_classes(images, ~chosen) for images in (splits.train, splits.test))
    held_out = select_classes(splits.train, chosen)
    draw_pairs(held_out.labels.numpy(), 1, seed)
    return dataclasses.replace(splits, train=train, test=test), held_out


def select_classes(images: Images, chosen: NDArray[np.bool_]) -> Images:
    """The images of some classes, renumbered."""
    rows = torch.from_numpy(chosen[images.labels.numpy()]).nonzero()[:, 0]
    if not len(rows):
        raise InputError("validation.identities leaves part of the data without images; choose another share, or seed")
    numbers = torch.from_numpy(np.cumsum(chosen) - 1)
    names = tuple(name for name, selected in zip(images.class_names, chosen, strict=True) if selected)
    return dataclasses.replace(
        images,
        pixels=select_rows(images.pixels, rows),
        labels=numbers[images.labels[rows]],
        class_names=names,
        columns={name: values[rows.numpy()] for name, values in images.columns.items()},
        ids=tuple(images.ids[row] for row in rows.tolist()) if images.ids else (),
    )


@dataclass(frozen=True, eq=False)
class ValidationPairs:
    """The two rows of each pair, [2n, 2], and whether they are of the same class, [2n]."""

    rows: NDArray[np.int64]
    same: NDArray[np.bool_]


def draw_pairs(labels: NDArray[np.int64], count: int, seed: int) -> ValidationPairs:
    """`count` genuine and as many impostor pairs of different images; depends on its arguments alone.

    A genuine pair is an image, drawn among those whose class has another, and another of its class; an impostor pair is
    an image and one of another class. A pair may be drawn more than once.
    """
    generator = np.random.default_rng((seed, 0x9A))
    order = np.argsort(labels, kind="stable")
    numbers, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    place = np.searchsorted(numbers, labels)
    several = np.flatnonzero(sizes[place] > 1)
    if not len(several) or len(numbers) < 2:
        raise InputError("the classes that validation.identities holds out have no two images of one; hold out more")
    first = generator.choice(several, count)
    group, size = starts[place[first]], sizes[place[first]]
    within = np.empty(len(labels), dtype=np.int64)
    within[order] = np.arange(len(labels)) - np.repeat(starts, sizes)
    genuine = order[group + (within[first] + 1 + generator.integers(0, size - 1)) % size]
    other = generator.integers(0, len(labels), count)
    group, size = starts[place[other]], sizes[place[other]]
    stranger = order[(group + size + generator.integers(0, len(labels) - size)) % len(labels)]
    rows = np.concatenate([np.stack([first, genuine], axis=1), np.stack([other, stranger], axis=1)])
    return ValidationPairs(rows, np.repeat([True, False], count))


def validate(job: Job, batch_size: int = 256) -> dict[str, float]:
    """TAR at the false match rate, and accuracy over ten folds of the pairs, by cosine; every rank calls it.

    An error on one rank is raised on all. Backbone and head are in evaluation mode afterwards. Folds share people, so
    the accuracy is for watching a training, not for a table.
    """
    assert job.validation is not None and job.held_out is not None
    settings, held_out = job.validation, job.held_out
    features, *_ = extract_features(job, held_out, batch_size, predict=False)

    def figures() -> dict[str, float]:
        pairs = draw_pairs(held_out.labels.numpy(), settings.pairs, job.settings.seed)
        return verification_rates(features, pairs, settings.fmr)

    return job.ranks.run_on_all(figures)


def verification_rates(features: NDArray[np.float32], pairs: ValidationPairs, fmr: float) -> dict[str, float]:
    """The result of `validate` for features [N, d]."""
    features = features.astype(np.float64)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    scores = np.einsum("nd,nd->n", unit[pairs.rows[:, 0]], unit[pairs.rows[:, 1]])
    folds = np.arange(len(scores)) % FOLDS
    return {
        "validation_tar": tar_at_far(error_curve(scores, pairs.same), fmr).tar,
        "validation_accuracy": kfold_accuracy(scores, pairs.same, folds).mean,
    }
