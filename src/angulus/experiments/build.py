"""Build the objects that a recipe names."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from angulus import backbones, data
from angulus.backbones.layers import UnitFeatures
from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.contract import Contract, Preprocessing
from angulus.data.sets.images import GIVEN, Images, Splits, mean_image
from angulus.data.sources.kinds import splits_of
from angulus.distributed import launch
from angulus.distributed.runtime import Ranks
from angulus.evaluation.metrics import image_quality
from angulus.experiments import recipe as recipes
from angulus.experiments.benchmark import place, refuse_missing
from angulus.experiments.recipe import DataSection, Recipe
from angulus.heads.dense import DenseHead
from angulus.heads.saving import Head
from angulus.heads.sharded import ShardedHead
from angulus.models import artifact
from angulus.models.classifier import Classifier, has_own_radius
from angulus.training import batches, compatible, loggers, start, validation
from angulus.training.compatible import OldClasses
from angulus.training.job import Job, has_batch_norm
from angulus.training.state import CHECKPOINT, load_checkpoint

MOST_AUTO_CLASSES = 1000  # whose weights a model folder holds unless asked for more


def splits(recipe: Recipe) -> Splits:
    """The data set of a recipe."""
    return load_data(recipe.data)


def load_data(section: DataSection) -> Splits:
    """The data set of a recipe's section `data`."""
    if section.name == GIVEN:
        raise InputError(
            f"data.name {GIVEN} means images that Python code gave to angulus.Trainer, and no file holds them; train "
            "from that code, or name a data set"
        )
    root = None if section.root is None else place(section.root)
    options = section.arguments()
    if section.path is not None:
        options["path"] = path = place(section.path)
        if section.test is not None and not (path.exists() and section.test in splits_of(path)):
            test = place(section.test)
            options["test"] = str(test) if test.exists() else section.test
    return data.load(section.name, root=root, download=section.download, **options)


def hold_out(recipe: Recipe, images: Splits) -> tuple[Splits, Images | None]:
    """(the data to train and test on, the images that the recipe's validation holds out of them, or None)."""
    if recipe.validation is None:
        return images, None
    return validation.hold_out(images, recipe.validation, recipe.training.seed)


def job(
    recipe: Recipe,
    images: Splits,
    held_out: Images | None = None,
    backbone: nn.Module | None = None,
    *,
    old_model: bool = True,
) -> Job:
    """Network, head and settings, with weights drawn from the recipe's seed; refuses what would fail during training.

    Every rank calls it; an error on one is raised on all. A `backbone` is trained as it is, in place of the one that
    the recipe names. Without `old_model`, that of the recipe's `compatible_with` is not read, as no training needs it.
    """
    ranks = Ranks.here()
    backbone, where = ranks.run_on_all(lambda: _build_locally(recipe, images, ranks, backbone))
    with ranks.raise_on_all():
        head = _head(recipe, images, ranks)
    contract = ranks.run_on_all(lambda: preprocessing(recipe.input, images.train).to(where))
    known = old_classes(recipe, images, ranks, where) if old_model else None
    return Job(
        backbone,
        head,
        contract,
        images.train,
        recipe.training,
        where,
        recipe.augment,
        ranks,
        recipe.head.update_in_backward,
        None if held_out is None else recipe.validation,
        held_out,
        recipe.name,
        recipes.flat(recipe),
        known,
        recipe.head.rounding,
    )


def _build_locally(
    recipe: Recipe, images: Splits, ranks: Ranks, backbone: nn.Module | None
) -> tuple[nn.Module, torch.device]:
    """The backbone and its device, which a rank builds without the others; checks all that needs no head."""
    if images.train.num_classes < 2:
        raise InputError(
            f"training needs at least two classes; {images.source} has {images.train.num_classes}: give each person "
            "or class a folder of its own, or name the column of identities when you convert"
        )
    image_quality.low_count(len(images.test), recipe.evaluation.low_fraction)
    refuse_missing(recipe.evaluation.benchmarks, recipe.needs)
    loggers.refuse_missing(recipe.training.loggers)
    torch.manual_seed(recipe.training.seed)
    _, channels, *sides = images.train.pixels.shape
    _compare_input(recipe, tuple(sides))
    recipe.input.check(images.train.pixels[:1])
    if recipe.augment is not None and channels != 3:
        raise InputError(f"augment takes images of three channels; {images.name} has {channels}: leave it out")
    if backbone is None:
        backbone = backbones.build(
            recipe.backbone.name,
            in_channels=channels,
            image_size=tuple(sides),
            embedding_size=recipe.backbone.embedding_size,
            **recipe.backbone.options,
        )
    if recipe.backbone.normalize:
        if readers := recipe.objective.reads_norms:
            raise InputError(
                f"backbone.normalize gives every feature length 1, and {readers[0]} needs the length; leave "
                "backbone.normalize out: the head normalises if its loss does"
            )
        backbone = nn.Sequential(backbone, UnitFeatures())
    settings = recipe.training
    batches.refuse_classes(images.train.labels, settings)
    batches.refuse_small(images.train.labels, settings, ranks.count, has_batch_norm(backbone))
    batches.refuse_no_snapshot(images.train.labels, settings)
    batches.refuse_late_start(recipe.objective, images.train.labels, settings)
    if settings.accumulate > 1:
        batches.refuse_whole_batch(recipe.objective)
    return backbone, device(settings.device, ranks)


def _compare_input(recipe: Recipe, sides: tuple[int, ...]) -> None:
    """Name what the recipe's input, or the data, has otherwise than the backbone's first weights were trained with."""
    own = backbones.own_input(recipe.backbone.name, recipe.backbone.options)
    size = tuple(own.get("size", sides))
    if recipe.input.size == size != sides:
        high, wide = size
        raise InputError(
            f"the weights of {recipe.backbone.name} were trained with images of {high}x{wide}, and these are "
            f"{'x'.join(map(str, sides))}; bring them to that size with `angulus prepare images --size {high}x{wide}`, "
            f"or set input.size={list(sides)} to train on them as they are"
        )
    for key, value in own.items():
        said = getattr(recipe.input, key)
        applies = key == "size" or recipe.input.normalize == "fixed"
        if applies and (list(said) if isinstance(said, tuple) else said) != value:
            checks.warn(f"input.{key} is {said}, but the weights of {recipe.backbone.name} were trained with {value}")


def old_classes(recipe: Recipe, images: Splits, ranks: Ranks, device: torch.device) -> OldClasses | None:
    """The classes of the old model that the recipe names, as a second, frozen head; every rank calls it."""
    asked = recipe.compatible_with
    if asked is None:
        return None

    def load() -> artifact.Model:
        old = artifact.load(place(asked.model))
        compatible.refuse_other(old, recipe.backbone.embedding_size, asked.model)
        return old

    settings = dataclasses.replace(recipe.head, sampling=None, init="normal", update_in_backward=False, rounding=None)
    objective, train = compatible.influence(recipe.objective), images.train
    with torch.random.fork_rng(devices=[]):  # the training draws what it would without
        old = ranks.run_on_all(load)
        with ranks.raise_on_all():
            head = _head(dataclasses.replace(recipe, objective=objective, head=settings), images, ranks)
            vectors = compatible.class_vectors(old, train, recipe.input, asked.classes, ranks, device, asked.model)
    return compatible.OldClasses.of(head, vectors, asked.weight, old.fingerprint)


def _head(recipe: Recipe, images: Splits, ranks: Ranks) -> Head:
    """The head, with the same class weights for any number of ranks."""
    head = _float32_head(recipe, images, ranks)
    if recipe.head.rounding is not None:
        head.weight.data = head.weight.data.bfloat16()  # the bias has an optimiser that does not round so
    return head


def _float32_head(recipe: Recipe, images: Splits, ranks: Ranks) -> Head:
    size, classes = recipe.backbone.embedding_size, images.train.num_classes
    objective = recipe.objective
    if objective.needs_counts:
        objective = objective.with_counts(torch.bincount(images.train.labels, minlength=classes))
    if objective.ramp is not None and objective.ramp.steps is None:
        steps = recipe.training.epochs * batches.steps_per_epoch(images.train.labels, recipe.training)
        objective = objective.replace(ramp=dataclasses.replace(objective.ramp, steps=steps))
    options: dict[str, Any] = {
        "impl": recipe.head.impl,
        "products": torch.bfloat16 if recipe.head.products == "bfloat16" else None,
        "sampling": recipe.head.sampling,
        "init": recipe.head.init,
    }
    if recipe.head.sharded is False and ranks.count > 1:
        raise InputError(f"head.sharded false keeps all classes in one process; got {ranks.count}: set it to auto")
    if recipe.head.sharded is False or (recipe.head.sharded == "auto" and ranks.count == 1):
        return DenseHead(size, classes, objective, **options)
    before = torch.get_rng_state()
    head = ShardedHead(size, classes, objective, **options)
    if recipe.head.init == "normal":
        torch.set_rng_state(before)
        start.draw_as_dense(head)
    return head


def start_from(path: Path, job: Job) -> None:
    """Load the weights of a model folder, or of a run's folder or checkpoint, into a job; every rank calls it.

    Class weights are loaded if they are of the same classes: of a model folder by their names, in any order.

    Raises:
        InputError: nothing there, another backbone, a run that has not ended, or one that was trained on classes
            which the job holds out.
    """
    if not (path / artifact.CONFIG).exists():
        start.from_checkpoint(path, job)
        return
    model = artifact.load(path)
    run = path.parent / CHECKPOINT  # a model folder may hold no class names; the run around it does
    if job.held_out is not None:
        names = model.classes or (load_checkpoint(run)["class_names"] if run.is_file() else None)
        start.refuse_seen_classes(names, job, path)
    start.load_backbone(job.backbone, model.backbone.state_dict(), path)
    if model.classifier is not None:
        start.load_classes(job, model.classifier.names, model.classifier.weight, model.classifier.bias)


def preprocessing(contract: Contract, images: Images) -> Preprocessing:
    """The contract, with the mean of the training images if it subtracts that."""
    return Preprocessing(contract, mean_image(images) if contract.normalize == "mean_image" else None)


def config(
    recipe: Recipe, images: Splits, backbone: nn.Module | None = None, old: OldClasses | None = None
) -> artifact.Config:
    """The configuration in the trained model's folder; `backbone` is what was trained, where its name is a folder."""
    name, options = backbones.stored(backbone, recipe.backbone.name, recipe.backbone.options)
    return artifact.Config(
        backbone=name,
        in_channels=images.train.pixels.shape[1],
        image_size=tuple(images.train.pixels.shape[2:]),
        embedding_size=recipe.backbone.embedding_size,
        options=options,
        normalize=recipe.backbone.normalize,
        contract=recipe.input,
        about={"recipe": recipe.name, "data": images.source, "seed": recipe.training.seed}
        | ({"nested": list(recipe.objective.nested)} if recipe.objective.nested else {}),
        compatible_with=() if old is None else (old.model,),
    )


def saves_classes(recipe: Recipe, images: Splits) -> bool:
    """Whether the trained model's folder holds its class weights, by `training.save_classes`."""
    asked = recipe.training.save_classes
    if asked != "auto":
        return asked
    people = recipe.input.template is not None or recipe.validation is not None
    return not people and images.train.num_classes <= MOST_AUTO_CLASSES and has_own_radius(recipe.objective)


def classifier(job: Job) -> Classifier:
    """The class weights of a job's head, of all ranks, with the names; every rank calls it."""
    head = job.head
    weight = head.weight.detach().float()  # bfloat16 by head.rounding
    bias = None if head.bias is None else head.bias.detach()
    if isinstance(head, ShardedHead):
        parts = job.ranks.gather_objects((weight.cpu(), None if bias is None else bias.cpu()))
        weight = torch.cat([rows for rows, _ in parts])
        bias = None if bias is None else torch.cat([values for _, values in parts])
    return Classifier.of(job.images.class_names, head.objective, weight, bias).cpu()


def device(name: str, ranks: Ranks | None = None, *, what: str = "training.device") -> torch.device:
    """The device of that name, this rank's own if several train; "auto" is CUDA, else mps (a Mac's), else the CPU."""
    ranks = ranks or Ranks()
    if name == "auto":
        mac = ranks.count == 1 and torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mac else "cpu"
    if ranks.count > 1:
        if name not in ("cpu", "cuda"):
            raise InputError(f"{what} must be auto, cpu or cuda where {ranks.count} processes train; got {name!r}")
        if name == "cuda" and launch.local_rank() >= torch.cuda.device_count():
            raise InputError(
                f"this machine has {torch.cuda.device_count()} CUDA devices, too few for process {launch.local_rank()} "
                f"on it (from 0); start at most one per device, or set {what} to cpu"
            )
        name = f"cuda:{launch.local_rank()}" if name == "cuda" else name
    try:
        chosen = torch.device(name)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"{what} {name!r} cannot be used here; use auto or cpu") from error
    if ranks.count > 1 and chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return chosen
