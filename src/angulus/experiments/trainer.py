"""`Trainer`: train a model from Python, by the same code as `angulus train`, and get it ready to embed."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from angulus.backbones import OWN
from angulus.core import checks, files, wording
from angulus.core.checks import InputError
from angulus.core.contract import Contract
from angulus.core.progress_line import ProgressLine
from angulus.data.sets.images import GIVEN, Images, Splits
from angulus.data.sets.registry import SETS
from angulus.losses import from_recipe
from angulus.losses.objective import Objective
from angulus.models import artifact
from angulus.models.embedder import Embedder
from angulus.training.callbacks import Callback, Record

if TYPE_CHECKING:  # pydantic, YAML and what evaluates are imported when a trainer is made
    from angulus.training.settings import Training

EVENTS = ("on_start", "on_step", "on_epoch", "on_end")
SECTIONS = (  # of a recipe, as keywords
    "backbone", "input", "augment", "head", "validation", "evaluation", "compatible_with",
)  # fmt: skip
OPTIONS = ("normalize", "options")  # of backbone; the second for one by its name
EMBEDDING_SIZE = 128  # of a backbone by its name
TIMEOUT_S = 600.0  # that a process of torchrun waits for another


@dataclass(frozen=True)
class Trained:
    """What a training gives.

    Attributes:
        model: embeds images; `model.model` is the `angulus.Model`, which also predicts classes.
        metrics: the content of results.json: "accuracy" on the test images, norms, steps, seconds ...
        folder: the run's, with its recipe, metrics, checkpoint and model/.
    """

    model: Embedder
    metrics: dict[str, Any]
    folder: Path


class Trainer:
    """Trains a model from Python: the run that `angulus train` makes of the same settings, to the bit.

        trainer = angulus.Trainer("small", angulus.losses.arcface(), "digits", angulus.TrainingArguments(epochs=3))
        trained = trainer.train()
        features = trained.model.encode(images)

    Ctrl-C ends a training after its step and keeps a checkpoint; `train(resume=True)`, also of the same trainer made
    again, goes on to the same weights. Under torchrun all processes train together.

    Attributes:
        recipe: what the arguments amount to; the run's folder gets it as recipe.yaml.
        splits: the images to train and test on.
        folder: of the last run; None before the first.
    """

    def __init__(
        self,
        model: str | nn.Module | Embedder,
        loss: Objective | str | Mapping[str, Any],
        dataset: Any,
        args: Training | None = None,
        *,
        test: Any = None,
        out: str | os.PathLike[str] | None = None,
        name: str | None = None,
        embedding_size: int | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        **sections: Any,
    ) -> None:
        """Load the data and check the settings; nothing is written. `train` checks how they fit, before its first step.

        Args:
            model: a backbone's name (`angulus.list_backbones()`, or timm:NAME); a network of your own, from
                [B, channels, height, width] to features [B, d], which is trained in place; or a loaded model
                (`angulus.load`, `angulus.Embedder`), of which a copy is trained further.
            loss: such as `losses.arcface()`, or its name.
            dataset: a name (`angulus.list_datasets()`); the path of images of your own, in any shape that docs/data.md
                lists; a mapping, the `data` section of a recipe, such as {"path": FILE, "label_column": NAME}; what
                `angulus.data.load` gives; `Images`; or (images, labels), uint8 arrays [N, height, width(, 3)] or
                tensors [N, channels, height, width], and numbers or names. Without images to test on, one in ten of
                each class is held out.
            args: `angulus.TrainingArguments`, the `training` section of a recipe; None: its defaults.
            test: `Images` or (images, labels) to test on, with classes of `dataset`.
            out: the run's folder; None: runs/NAME-seed-N, or the next that is free.
            name: of the run; None: the backbone's and the data's.
            embedding_size: d, 128 by default; of your own network or a loaded model it is known.
            callbacks: see `angulus.Callback`.
            progress: whether to show loss, images/s and time left.
            sections: others of a recipe, as mappings: backbone (normalize, and options of one by its name), input,
                augment, head, validation, evaluation, compatible_with (or the old model's folder alone). `input` is a
                loaded model's own by default, or that of the first weights of a backbone by its name, or
                (x − 127.5) / 127.5.

        Raises:
            InputError: names the argument, the rule and the value.
        """
        from angulus.experiments.recipe import Recipe, with_own_input
        from angulus.training.settings import Training

        for keyword in sections:
            checks.choice("a keyword of Trainer", keyword, SECTIONS)
        if args is not None and not isinstance(args, Training):
            raise InputError(f"args must be angulus.TrainingArguments(...); got {type(args).__name__}")
        if not isinstance(callbacks, list | tuple):
            raise InputError(f"callbacks must be a list; got {type(callbacks).__name__}")
        for callback in callbacks:
            lacking = next((event for event in EVENTS if not callable(getattr(callback, event, None))), None)
            if isinstance(callback, type) or lacking:
                got = f"{callback!r:.80}" + (f", which has no {lacking}" if lacking else ", a class")
                raise InputError(f"callbacks must be objects of classes that inherit from angulus.Callback; got {got}")
        self.callbacks, self.progress = list(callbacks), checks.flag("progress", progress)
        if not isinstance(out, str | os.PathLike | None):
            raise InputError(f"out must be the path of a folder; got {out!r}")
        self.out = None if out is None else Path(out)
        self.folder: Path | None = None
        section, self.splits = _data(dataset, test)
        self.model = model.model if isinstance(model, Embedder) else model
        if "input" not in sections and isinstance(self.model, artifact.Model):
            sections["input"] = self.model.config.contract
        options = sections.pop("backbone", {})
        if not isinstance(options, Mapping):
            raise InputError(f"backbone must be a mapping, such as {{'normalize': True}}; got {type(options).__name__}")
        for key in options:
            checks.choice("a key of backbone", key, OPTIONS if isinstance(model, str) else OPTIONS[:1])
        backbone = _backbone(self.model, embedding_size) | dict(options)
        label = backbone["name"].removeprefix(OWN)
        recipe = Recipe(
            name=name or re.sub(r"[^A-Za-z0-9.+_-]", "-", f"{label}-{self.splits.name}"),
            title=f"{label} on {self.splits.name}",
            data=section,
            objective=_objective(loss),
            training=args or Training(),
            **with_own_input({**sections, "backbone": backbone}),
        )
        if isinstance(self.model, nn.Module):
            size = _feature_size(self.model, recipe.input, self.splits.train)
            if embedding_size not in (None, size):
                raise InputError(f"embedding_size must be {size}, as the network's features are; got {embedding_size}")
            recipe = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, embedding_size=size))
        self.recipe = recipe

    def train(self, *, resume: bool = False) -> Trained:
        """Train, measure the accuracy on the test images and save the model.

        Args:
            resume: go on with the run in `out`, or with this trainer's last run, or with the newest of its name.

        Raises:
            training.signals.Interrupted: Ctrl-C; the checkpoint is written.
            InputError: a loss that is not finite, a folder that holds another run, or nothing to resume.
            Exception: what a callback raised; the checkpoint is written.
        """
        from angulus.distributed import launch
        from angulus.distributed.runtime import Ranks
        from angulus.experiments.measure import MODEL
        from angulus.experiments.run import run
        from angulus.experiments.run_files import DIVERGED, choose_folder
        from angulus.training.signals import Interrupted

        recipe, network = self.recipe, self._network()
        default = Path("runs") / f"{recipe.name}-seed-{recipe.training.seed}"
        last = self.folder if resume else None
        try:
            joined = torch.distributed.is_available() and torch.distributed.is_initialized()  # by the user's own code
            with nullcontext(Ranks.here()) if joined else launch.process_group(TIMEOUT_S) as ranks:
                folder = ranks.broadcast(lambda: self.out or last or choose_folder(default, resume))
                self.folder = folder
                shown = [Progress()] if self.progress and ranks.rank == 0 else []
                callbacks = [*shown, *self.callbacks]
                with launch.patient(ranks) as waiting:
                    own = run(recipe, folder, resume=resume, splits=self.splits, backbone=network, callbacks=callbacks)
                    metrics = waiting.broadcast(lambda: own)  # rank 0 alone measured them
        except InputError as error:
            said = (
                str(error).replace("with --resume", "by train(resume=True)").replace("without --resume", "by train()")
            )
            said = said.replace("--out", "out")
            if said == str(error):
                raise
            raise InputError(said) from None
        except Interrupted as stopped:
            way = "its checkpoint is saved: the same lines with train(resume=True) go on"
            raise Interrupted(f"{stopped} in {self.folder}; {way}") from None
        if DIVERGED in metrics and ranks.rank == 0:
            checks.warn(metrics[DIVERGED])
        given = network if recipe.backbone.name.startswith(OWN) else None
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return Trained(Embedder(artifact.load(folder / MODEL, backbone=given).to(device)), metrics, folder)

    def _network(self) -> nn.Module | None:
        """The network to train, if the recipe does not name it; of a loaded model a copy."""
        if not isinstance(self.model, artifact.Model):
            return self.model if isinstance(self.model, nn.Module) else None
        network = copy.deepcopy(self.model.backbone)
        return network[0] if self.model.config.normalize else network  # type: ignore[index]  # a Sequential


def _data(dataset: Any, test: Any) -> tuple[Any, Splits]:
    """(the data section of the recipe, the images)."""
    from angulus.data.sets import given
    from angulus.experiments import build
    from angulus.experiments.recipe import DataSection

    if type(dataset).__module__.partition(".")[0] == "datasets":  # a DatasetDict is a Mapping
        raise InputError("dataset must lie on the disk; save it by dataset.save_to_disk(FOLDER) and give that folder")
    if isinstance(dataset, str | os.PathLike | Splits | Mapping):
        if test is not None:
            raise InputError(
                "test goes with images to train on, (images, labels) or Images; this dataset has its own test"
            )
        if isinstance(dataset, Splits):
            return {"name": GIVEN}, dataset
        if isinstance(dataset, Mapping):
            section = DataSection(**dataset)
        elif dataset in SETS:
            section = DataSection(name=str(dataset))
        elif (url := files.url_of(dataset)) is not None or Path(dataset).expanduser().exists():
            section = DataSection(path=url or str(Path(dataset).expanduser()))
        else:
            near = checks.nearest(str(dataset), SETS)
            raise InputError(f"dataset must be one of {', '.join(SETS)}, or a path; there is no {str(dataset)!r}{near}")
        return section, build.load_data(section)
    train = _images("dataset", dataset, None)
    tested = None if test is None else _images("test", test, train.class_names)
    return {"name": GIVEN}, given.hold_out_test(train, tested)


def _images(what: str, images: Any, class_names: tuple[str, ...] | None) -> Images:
    from angulus.data.sets import given

    if isinstance(images, Images):
        return images
    if not isinstance(images, tuple | list) or len(images) != 2:
        name = "a name, a path, Splits, " if what == "dataset" else ""
        raise InputError(f"{what} must be {name}Images or (images, labels); got {type(images).__name__}")
    pixels, labels = images
    return given.from_arrays(pixels, labels, class_names)


def _objective(loss: Any) -> Objective:
    if isinstance(loss, Objective):
        return loss
    if isinstance(loss, str | Mapping):
        return from_recipe(loss)
    got = getattr(loss, "__name__", type(loss).__name__)
    raise InputError(f"loss must be such as losses.arcface(), or the name of a loss; got {got}")


def _backbone(model: Any, embedding_size: int | None) -> dict[str, Any]:
    """The backbone section of the recipe; the size of a network of the user's own is measured later."""
    if isinstance(model, artifact.Model):
        config = model.config
        size = {"name": config.backbone, "embedding_size": config.embedding_size}
        return size | {"normalize": config.normalize, "options": dict(config.options)}
    if isinstance(model, nn.Module):
        return {"name": f"{OWN}{type(model).__name__}", "embedding_size": 1}
    if not isinstance(model, str):
        rule = "model must be a backbone's name, a torch.nn.Module, or a model of angulus.load or Embedder"
        raise InputError(f"{rule}; got {type(model).__name__}")
    return {"name": model, "embedding_size": EMBEDDING_SIZE if embedding_size is None else embedding_size}


@torch.no_grad()
def _feature_size(model: nn.Module, contract: Contract, images: Images) -> int:
    """The size of a network's features, measured on one image without changing it."""
    from angulus.experiments import build

    network = model.backbone if isinstance(model, artifact.Model) else model
    pixels, training = images.pixels[:1], network.training
    where = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    shape = list(pixels.shape)
    network.eval()
    try:
        features = network(build.preprocessing(contract, images)(pixels).to(where))
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"model cannot take images {shape}: {checks.one_line(error)[:200]}") from error
    finally:
        network.train(training)
    if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != 1:
        got = list(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        raise InputError(
            f"model must turn images [B, channels, height, width] into features [B, d]; {shape} gave {got}"
        )
    return features.shape[1]


class Progress(Callback):
    """Shows the epoch, the loss, images/s and the time left on standard error."""

    def on_start(self, record: Record) -> None:
        self.line, self.done = ProgressLine(), 0
        self.total = round(record.images * (1 - record.step / record.steps))  # of this start

    def on_step(self, record: Record) -> None:
        self.done += record.batch
        epoch, ended = min(record.epoch + 1, record.epochs), record.step == record.steps
        total = self.done if ended else max(self.total, self.done)
        text = wording.progress(self.done, total, self.line.seconds)
        self.line.show(f"epoch {epoch} of {record.epochs}, loss {record.loss:.4f}, {text}", ended=ended)
