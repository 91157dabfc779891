"""A trained model as a folder: weights in safetensors, a configuration in JSON, and nothing that runs code.

model.safetensors    the backbone's weights, and the mean of the training images if the contract subtracts it
config.json          the backbone, the preprocessing contract, where the weights come from, and their checksum
classes.safetensors  the class weights, if the model classifies; config.json has the names and what makes the logits
calibration.json     a threshold for this model's scores, if it was calibrated
calibration-*.json   thresholds for other flip rules and sizes, and for its queries on stored vectors of other models
map-*.safetensors    maps of other models' vectors to this one's (`models.vector_map`)
README.md            the model card, for people
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from angulus import backbones
from angulus.backbones import timm_models
from angulus.backbones.layers import FirstNumbers, UnitFeatures
from angulus.backbones.unfilled import Unfilled
from angulus.core import checks, files, limits, urls
from angulus.core.checks import InputError
from angulus.core.contract import (
    Contract,
    Flip,
    Preprocessing,
    comparable,
    describe_model,
    fingerprint,
    is_fingerprint,
    model_name,
    split_model_name,
)
from angulus.core.embeddings import Embeddings
from angulus.core.version import __version__
from angulus.evaluation.protocols.calibration import Calibration
from angulus.models import batching, model_card
from angulus.models import classifier as classes
from angulus.models.classifier import Classifier, Prediction

WEIGHTS, CONFIG, CALIBRATION, FORMAT = "model.safetensors", "config.json", "calibration.json", 1
PAIR, MAPS = "calibration-{}.json", "map-*.safetensors"  # of the stored side's name, which may be the model's own, cut
FILES = (WEIGHTS, CONFIG, CALIBRATION, classes.FILE, model_card.NAME, PAIR.format("*"), MAPS)  # patterns of all
MEAN_IMAGE = "input.mean_image"  # its name among the weights
PRECISIONS = ("float32", "bfloat16")
MOST_NAME = 200  # bytes of a model's name in a file's name
MOST_SIZE = 2**20  # numbers of a feature, or channels; far more than any network has
MOST_VALUES = 2**26  # of an image: 67 million


@dataclass(frozen=True)
class Config:
    """A model without its weights.

    Args:
        backbone: its name in `angulus.backbones`.
        in_channels, image_size: of an image, in pixels: (height, width), or (depth, height, width) of a volume.
        embedding_size: d.
        options: other arguments of the backbone's constructor, except for its pretrained weights.
        normalize: whether features are scaled to length 1, which makes norms meaningless.
        contract: how pixels must be prepared.
        about: where the weights come from (recipe, data, seed, versions), as plain values.
        compatible_with: fingerprints of models whose vectors may be compared with its own, as it was trained for that.
    """

    backbone: str
    in_channels: int
    image_size: tuple[int, ...]
    embedding_size: int
    options: Mapping[str, Any] = field(default_factory=dict)
    normalize: bool = False
    contract: Contract = field(default_factory=Contract)
    about: Mapping[str, Any] = field(default_factory=dict)
    compatible_with: tuple[str, ...] = ()

    def build(self) -> nn.Module:
        """The network with random weights; reads, fetches or imports nothing that `options` could name."""
        sizes = {name: getattr(self, name) for name in ("in_channels", "image_size", "embedding_size")}
        return self.wrap(backbones.rebuild(self.backbone, **sizes, **self.options))

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network, with unit features if the model has them."""
        return nn.Sequential(network, UnitFeatures()) if self.normalize else network


class Model(nn.Module):
    """A trained backbone with its contract: bytes of pixels in, features out.

    Attributes:
        config: what it is.
        backbone: the network, in evaluation mode.
        preprocessing: the contract, with the mean image if it subtracts one.
        sha256: of its weights, as hexadecimal digits.
        calibration: the threshold for its scores, if it was calibrated.
        pairs: the others: for another flip rule or size, by the name of the model with it, and for queries on stored
            vectors of another model, by the name of that.
        card: the text of its folder's README.md, if there is one.
        classifier: the class weights that it was trained with, if they were saved.
        dimensions: how many numbers of a feature it keeps, the first ones; None: all. See `with_dimensions`.
        precision: of its layers: "float32", or "bfloat16" for all but the last. Set it freely.
    """

    def __init__(
        self,
        config: Config,
        backbone: nn.Module,
        sha256: str,
        calibration: Calibration | None = None,
        mean_image: Tensor | None = None,
        card: str | None = None,
        classifier: Classifier | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone.eval()
        self.preprocessing = Preprocessing(config.contract, mean_image)
        self.sha256, self.calibration, self.card = sha256, calibration, card
        self.pairs: dict[str, Calibration] = {}
        self.classifier = classifier
        self.dimensions: int | None = None
        self.precision = "float32"
        self._at_a_time: int | None = None  # images on the CPU, once measured

    @property
    def fingerprint(self) -> str:
        """16 digits that change with everything that its features depend on, except for the flip rule."""
        return fingerprint(self.sha256, dataclasses.asdict(self.config))

    @property
    def name(self) -> str:
        """Its name in embeddings, calibrations and galleries: fingerprint, flip rule and, if not all, dimensions."""
        return model_name(self.fingerprint, self.config.contract.flip, self.dimensions)

    def with_flip(self, flip: str) -> Model:
        """The same model with another rule for mirror images: "none", "sum" or "concat"."""
        checks.choice("flip", flip, get_args(Flip))
        contract = dataclasses.replace(self.config.contract, flip=flip)  # type: ignore[arg-type]  # checked
        config = dataclasses.replace(self.config, contract=contract)
        mean_image = self.preprocessing.mean_image
        other = Model(config, self.backbone, self.sha256, self.calibration, mean_image, self.card, self.classifier)
        return self._pass_on(other, self.dimensions)

    def with_dimensions(self, dimensions: int) -> Model:
        """The same model with the first numbers of its features only, of length 1 if the whole ones are.

        It names no classes. Its features are not comparable with the whole ones, so its name is another. Sizes that the
        model was not trained for, by `objective.nested`, are warned of.

        Args:
            dimensions: from 1 to the size of its features.
        """
        size = self.dimensions or self.config.embedding_size
        if checks.integer("dimensions", dimensions, low=1, high=size, hint="the size of a feature") == size:
            return self
        nested = self.config.about.get("nested") or []
        if dimensions not in nested:
            trained = f"for its first {', '.join(map(str, nested))}" if nested else "as a whole only"
            way = "see how accurate it is, or train one with objective.nested"
            checks.warn(f"this model was trained {trained}, and not for its first {dimensions} numbers: {way}")
        layers = self.backbone[0] if self.config.normalize else self.backbone  # type: ignore[index]
        cut = self.config.wrap(nn.Sequential(layers, FirstNumbers(dimensions)))
        other = Model(self.config, cut, self.sha256, self.calibration, self.preprocessing.mean_image, self.card)
        return self._pass_on(other, dimensions)

    def _pass_on(self, other: Model, dimensions: int | None) -> Model:
        """Give a model with the same weights the settings and all calibrations of this one; returns it."""
        other.precision, other._at_a_time, other.dimensions = self.precision, self._at_a_time, dimensions
        own = {} if self.calibration is None else {str(self.calibration.model): self.calibration}
        other.pairs = own | self.pairs
        other.calibration = other.pairs.get(other.name, self.calibration)
        return other

    def calibration_of(self, stored: str | None) -> Calibration | None:
        """The calibration for its scores with stored vectors of that model and flip rule, if there is one."""
        own = self.calibration if stored == self.name else self.pairs.get(stored or "")  # with_dimensions has its own
        return own if own is not None and own.model == self.name else None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that `predict` knows; empty if the folder holds none."""
        return () if self.classifier is None else self.classifier.names

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """Features [B, d], float32, of images uint8 [B, channels, height, width] prepared as the contract states.

        By the contract's flip rule, the features of the mirror images are added to them or concatenated. On the CPU a
        large batch goes through the network in parts (`batching.images_at_a_time`); how images are grouped changes
        features by float32's rounding only.
        """
        network = self._network
        return self._in_parts(pixels, lambda part: self.preprocessing.features(network, part))

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """Logits of the classes without margins, [B, C], as the training's `head.logits`; see `predict`."""
        classifier = self.need_classes()
        return self._in_parts(pixels, lambda part: classifier(self._network(self.preprocessing(part))))

    def _in_parts(self, pixels: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """A function of images [B, ...], float32, computed for as many images at a time as suits the device."""
        pixels = self._checked(pixels).contiguous()  # strides choose the kernels, and they round differently
        size = len(pixels)
        if size > 1 and pixels.device.type == "cpu":
            if self._at_a_time is None:
                self._at_a_time = batching.images_at_a_time(self.backbone, self.preprocessing(pixels[:1]))
            size = self._at_a_time
        with torch.autocast(pixels.device.type, enabled=False):
            return torch.cat([function(part).float() for part in torch.split(pixels, max(size, 1))])

    def _network(self, images: Tensor) -> Tensor:
        """The backbone, in the model's precision; on the CPU with channels last, which saves up to a quarter."""
        if images.ndim == 4 and images.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            features = self.backbone(images)
        size = self.dimensions or self.config.embedding_size
        if not isinstance(features, Tensor) or features.shape != (len(images), size):
            got = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            rule = f"the backbone must return a tensor of features [{len(images)}, {size}] for {len(images)} image(s)"
            raise InputError(f"{rule}; got {got}; wrap a network of your own in one that returns only those")
        return features

    def predict(self, pixels: Tensor) -> Prediction:
        """(the names of the likeliest classes, the probabilities [B, C]) of images as `embed` takes them.

        Softmax of the logits without margins, as training measures its accuracy: the classes were trained on images as
        they are, so the contract's rule for mirror images does not apply.

        Raises:
            checks.InputError: a model without class weights, or images of another size.
        """
        probabilities = torch.softmax(self.logits(pixels), dim=1)
        return Prediction([self.classes[label] for label in probabilities.argmax(dim=1).tolist()], probabilities)

    def need_classes(self) -> Classifier:
        """The class weights, or an error that says how to get them."""
        if self.classifier is None:
            raise checks.InputError(
                "this model holds no class weights, so it embeds images and cannot name their classes; train it with "
                "training.save_classes=true, or compare its features with angulus embed, verify or search"
            )
        return self.classifier

    def _checked(self, pixels: Tensor) -> Tensor:
        """The images on the model's device; a wrong shape is refused."""
        expected = [self.config.in_channels, *self.config.image_size]
        if not isinstance(pixels, Tensor):
            rule = f"images must be a torch.Tensor, uint8 [batch, {', '.join(map(str, expected))}]"
            raise InputError(f"{rule}; got {type(pixels).__name__}; see torch.from_numpy")
        if list(pixels.shape[1:]) != expected:
            raise checks.InputError(
                f"this model takes images [batch, {', '.join(map(str, expected))}]; got {list(pixels.shape)}; "
                "align and scale them as its config.json says"
            )
        return pixels.to(next(self.backbone.parameters()).device)

    def train(self, mode: bool = True) -> Model:
        """Stay in evaluation mode: a stored model is for inference."""
        return super().train(False)


def save(
    config: Config,
    backbone: nn.Module,
    folder: Path,
    mean_image: Tensor | None = None,
    card: str | None = None,
    classifier: Classifier | None = None,
) -> None:
    """Write a model folder; `config.json`, which holds the checksum of the weights, is written last.

    A calibration in the folder is deleted: it is not for these weights.

    Args:
        mean_image: [channels, height, width] in 0..255 units, if and only if the contract subtracts it.
        card: the README.md; None: one made from the configuration.
        classifier: class weights, for a model that is to name classes.

    Raises:
        checks.InputError: a configuration that `load` refuses, such as an unknown backbone or options that a stored
            model must not have; a missing or superfluous mean image; class weights of another size than the features.
    """
    content = dataclasses.asdict(config)
    _check_values(content | {"image_size": list(config.image_size)}, "the configuration")  # as `load` will
    _check_compatible(list(config.compatible_with), "the configuration")
    Preprocessing(config.contract, mean_image)  # refused before anything is written
    if classifier is not None and classifier.weight.shape[-1] != config.embedding_size:
        raise checks.InputError(
            f"class weights must be [classes, {config.embedding_size}], as the features are; got "
            f"{list(classifier.weight.shape)}"
        )
    files.make_folder(folder)
    for leftover in (folder / CALIBRATION, folder / classes.FILE, *folder.glob(PAIR.format("*")), *folder.glob(MAPS)):
        leftover.unlink(missing_ok=True)
    state = backbone.state_dict() | ({} if mean_image is None else {MEAN_IMAGE: mean_image})
    # cloned: the format holds no tensors that share memory or are not contiguous
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    weights = safetensors.torch.save(tensors)
    files.write_atomically(folder / WEIGHTS, lambda file: file.write(weights))
    content = {
        "format": FORMAT,
        "library_name": "angulus",
        "angulus": __version__,
        "sha256": hashlib.sha256(weights).hexdigest(),
        **content,
    }
    if not config.compatible_with:
        del content["compatible_with"]  # earlier versions do not know the key
    if classifier is not None:
        data, content["classes"] = classes.encode(classifier)
        files.write_atomically(folder / classes.FILE, lambda file: file.write(data))
    digits = fingerprint(content["sha256"], dataclasses.asdict(config))
    files.write_text(folder / model_card.NAME, card or model_card.text(content, config.contract, digits))
    files.write_json(folder / CONFIG, content)


def load(folder: Path | str, *, backbone: nn.Module | None = None) -> Model:
    """Load a model folder on the CPU; on one machine, features equal those of the saved model bit for bit.

    No code from the folder runs, and no pickle is read.

    Args:
        folder: a model folder, such as "run/model", or its URL.
        backbone: the network that gets the weights, for a model whose network is your own code; else None.

    Raises:
        checks.InputError: no model in the folder, weights that do not match `config.json`, a configuration that names
            something unknown, or another model's calibration.
    """
    folder = urls.fetch(folder)
    if backbone is not None and not isinstance(backbone, nn.Module):
        raise InputError(f"backbone must be a network, a torch.nn.Module; got {type(backbone).__name__}")
    model = _load(folder, backbone)
    if (folder / CALIBRATION).exists():
        model.calibration = Calibration.read(folder / CALIBRATION)
        _check_calibration(model, model.calibration, str(folder / CALIBRATION))
    for path in sorted(folder.glob(PAIR.format("*"))):
        pair = Calibration.read(path)
        _check_calibration(model, pair, str(path))
        model.pairs[str(pair.gallery or pair.model)] = pair
    model.card = _card(folder)
    return model


def _load(folder: Path, own: nn.Module | None = None) -> Model:
    """The model in a folder, without its calibration and card."""
    content = _content(folder)
    config = _config(content, folder / CONFIG)
    if config.backbone.startswith(backbones.OWN) != (own is not None):
        raise InputError(_own_or_not(folder, config.backbone))
    try:
        weights = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        fault = f"{folder / WEIGHTS} cannot be read: {error.strerror}"
        raise InputError(f"{fault}; fetch or save the model again") from error
    sha256 = hashlib.sha256(weights).hexdigest()
    if sha256 != content["sha256"]:
        digests = f"sha256 {sha256[:12]}... in place of {str(content['sha256'])[:12]}..."
        fault = f"{folder / WEIGHTS} is not the file that {CONFIG} was written for: {digests}"
        raise InputError(f"{fault}; fetch or save the model again")
    try:
        tensors = safetensors.torch.load(weights)
        mean_image = tensors.pop(MEAN_IMAGE, None)
        if own is None:
            _check_shapes(config, tensors, folder / CONFIG)
        with Unfilled():
            backbone = config.build() if own is None else config.wrap(own)
        backbone.load_state_dict(tensors)
    except (safetensors.SafetensorError, RuntimeError) as error:
        library, colon, _ = config.backbone.partition(":")
        which, way = f"the backbone {config.backbone!r} that {CONFIG} names", "fetch or save the model again"
        if own is not None:
            which, way = f"the {type(own).__name__} that was given", "give the network that was trained"
        elif colon:
            way += f", or install the version of {library} that it was trained with"
        fault = f"{folder / WEIGHTS} does not hold the weights of {which}"
        raise InputError(f"{fault} ({checks.one_line(error)[:200]}); {way}") from error
    try:
        for name, value in backbone.state_dict().items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise checks.InputError(
                    f"weights must be finite; {name} holds NaN or Inf, as after a training that diverged"
                )
        loaded = Model(config, backbone, sha256, mean_image=mean_image)
    except checks.InputError as error:
        raise checks.InputError(f"{folder / WEIGHTS}: {error}; fetch or save the model again") from error
    if "classes" in content:
        loaded.classifier = classes.decode(content["classes"], folder, config.embedding_size)
    return loaded


def _own_or_not(folder: Path, name: str) -> str:
    """Why a network must be given to `load`, or must not."""
    if name.startswith(backbones.OWN):
        rule = f"{folder} holds the weights of {name.removeprefix(backbones.OWN)}, a network of somebody's own code"
        return f"{rule}, which no folder can rebuild: give it, angulus.load({str(folder)!r}, backbone=...)"
    return f"{folder} rebuilds its backbone {name!r} by itself; leave backbone out"


def _check_shapes(config: Config, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that do not fit the network (RuntimeError), before memory is allocated for it."""
    try:
        with torch.device("meta"):  # shapes without numbers
            empty = config.build()
    except InputError as error:
        # a timm net that cannot be built on "meta": at least its last layer must not be larger than the file
        last = any(value.ndim == 2 and len(value) == config.embedding_size for value in tensors.values())
        if config.backbone.startswith(timm_models.PREFIX) and last:
            return
        raise InputError(f"{path}: {error}") from error
    expected = {name: list(value.shape) for name, value in empty.state_dict().items()}
    got = {name: list(value.shape) for name, value in tensors.items()}
    for name in (*expected, *got):
        if expected.get(name) != got.get(name):
            raise RuntimeError(f"{name} must be {expected.get(name, 'left out')}; got {got.get(name, 'none')}")


def calibrate(folder: Path, calibration: Calibration) -> str:
    """Store a calibration in a model's folder, and its error rates in the card; returns the model's name.

    One for another flip rule than the model's own, for the first numbers of its features, or for its queries on stored
    vectors of another model, gets a file of its own; the card stays.
    """
    model = _load(folder)
    _check_calibration(model, calibration, "the calibration")
    apart = calibration.gallery or (calibration.model if calibration.model != model.name else None)
    if apart is not None:
        calibration.write(pair_path(folder, apart))
        return model.name
    calibration.write(folder / CALIBRATION)
    _edit_card(folder, lambda card: model_card.with_errors(card, calibration))
    return model.name


def pair_path(folder: Path, stored: str) -> Path:
    """Where a model's folder keeps the calibration of its queries on stored vectors of that name."""
    if not stored.isprintable() or Path(stored).name != stored or len(stored.encode()) > MOST_NAME:
        rule = f"the name of the stored vectors' model must be part of a file's name, of at most {MOST_NAME} bytes"
        raise InputError(f"{rule}; got {checks.shown(stored)}")
    return folder / PAIR.format(stored)


def record_accuracy(folder: Path, accuracy: float, images: int) -> None:
    """Write into a model's card which share of its test images the model classified correctly."""
    _edit_card(folder, lambda card: model_card.with_accuracy(card, accuracy, images))


def _edit_card(folder: Path, edit: Callable[[str], str]) -> None:
    card = _card(folder)
    if card is not None:
        files.write_text(folder / model_card.NAME, edit(card))


def _card(folder: Path) -> str | None:
    """The text of a folder's README.md, on which nothing depends; None if it cannot be read."""
    try:
        return (folder / model_card.NAME).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def check_made_by(model: Model, embeddings: Embeddings, what: str) -> None:
    """Refuse embeddings that another model made, by whatever flip rule."""
    made_by = split_model_name(embeddings.model)
    if made_by is None or made_by[0] != model.fingerprint:
        raise InputError(
            f"{embeddings.source} must hold vectors of {what}, {describe_model(model.name)}; it holds those of "
            f"{describe_model(embeddings.model)}; embed the images with that model by angulus embed"
        )


def check_comparable(model: Model, query: str | None, stored: str | None, what: str) -> None:
    """Refuse stored vectors that a model's queries must not be compared with."""
    if comparable(query, stored, model.config.compatible_with):
        return
    listed = ", ".join(model.config.compatible_with) or "none"
    raise InputError(
        f"{what}: {describe_model(query)} cannot be compared with {describe_model(stored)}: it is compatible with "
        f"fingerprints {listed}, by the same flip rule; train it with compatible_with, or map the stored vectors with "
        "angulus upgrade"
    )


def _check_calibration(model: Model, calibration: Calibration, what: str) -> None:
    way = "embed images with this one by angulus embed, and calibrate those embeddings"
    if calibration.model is None:
        raise InputError(f"{what} does not say which model it is for; {way}")
    made_by = split_model_name(calibration.model)
    if made_by is None or made_by[0] != model.fingerprint:
        fault = f"{what} is for {describe_model(calibration.model)}, and this is {describe_model(model.name)}"
        raise InputError(f"{fault}; {way}")
    if calibration.gallery is not None:
        check_comparable(model, calibration.model, calibration.gallery, what)
    if calibration.flip is not None:
        rule = f"{what} must be of embeddings that the model's own flip rule made"
        raise InputError(f"{rule}; it fuses them by flip {calibration.flip!r} afterwards; use angulus embed --flip")


def _content(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        content = limits.parse_json(path.read_bytes(), path.name)
    except (OSError, InputError) as error:
        there = (folder / "model" / CONFIG).is_file()
        way = f"did you mean {folder / 'model'}?" if there else "give one that angulus train wrote as RUN/model"
        if folder.suffix == ".onnx":
            way = f"give an ONNX file to angulus embed as --onnx {folder}, or in Python to Embedder.from_onnx"
        raise InputError(f"{folder} is not a model folder ({_reason(folder, error)}); {way}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or "sha256" not in content:
        raise InputError(f"{path} must be an Angulus model of format {FORMAT}, with a sha256; it is not")
    return content


def _reason(folder: Path, error: OSError | InputError) -> str:
    """Why a folder is not a model."""
    if not folder.is_dir():
        return "it is a file" if folder.exists() else "there is no such folder"
    if isinstance(error, FileNotFoundError):
        return f"it has no {CONFIG}"
    return f"{CONFIG}: {error.strerror}" if isinstance(error, OSError) else str(error)


def _config(content: dict[str, Any], path: Path) -> Config:
    known = {field.name for field in dataclasses.fields(Config)}
    unknown = [
        name for name in content if name not in known | {"format", "library_name", "angulus", "sha256", "classes"}
    ]
    if unknown:
        raise InputError(f"{path} has an unknown key {checks.shown(unknown[0])}{checks.nearest(unknown[0], known)}")
    try:
        contract = Contract(**content["contract"])
        values = {name: content[name] for name in known - {"contract", "compatible_with"}}
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} lacks or mistakes a key ({error}); fetch or save the model again") from error
    except InputError as error:
        raise InputError(f"{path}: {error}; fetch or save the model again") from error
    _check_values(values, path)
    compatible = content.get("compatible_with", [])
    _check_compatible(compatible, path)
    values |= {"image_size": tuple(values["image_size"]), "compatible_with": tuple(compatible)}
    return Config(contract=contract, **values)


def _check_compatible(compatible: object, path: Path | str) -> None:
    if not isinstance(compatible, list) or not all(map(is_fingerprint, compatible)):
        raise InputError(f"compatible_with in {path} must be a list of fingerprints; got {checks.shown(compatible)}")


def _check_values(values: dict[str, Any], path: Path | str) -> None:
    """Refuse values of the wrong type or size."""
    backbone = backbones.check_name(f"the backbone that {path} names", values["backbone"])
    size = values["image_size"]
    if not isinstance(size, list) or len(size) > 3 or not all(type(side) is int and side > 0 for side in size):
        raise InputError(f"{path} must give image_size as [height, width]; got {checks.shown(size)}")
    for name in ("in_channels", "embedding_size"):
        checks.integer(f"{name} in {path}", values[name], low=1, high=MOST_SIZE)
    if values["in_channels"] * math.prod(size) > MOST_VALUES:
        rule = f"{path} must give images of at most {MOST_VALUES:,} numbers"
        raise InputError(f"{rule}; got in_channels {values['in_channels']} and image_size {checks.shown(size)}")
    checks.flag(f"normalize in {path}", values["normalize"])
    for name in ("options", "about"):
        if not isinstance(values[name], dict):
            raise InputError(f"{name} in {path} must be names with values; got {checks.shown(values[name])}")
    backbones.check_stored(backbone, values["options"])
