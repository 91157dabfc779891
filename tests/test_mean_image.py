"""The mean image: measured on the training images, and the same in training, evaluation, the model folder and ONNX."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import angulus
import tiny
from angulus import InputError
from angulus.core.contract import Contract, Preprocessing
from angulus.data import Images, Splits
from angulus.data.sets.images import mean_image
from angulus.experiments import build
from angulus.experiments.run import run
from angulus.models import artifact, export, export_check
from angulus.models.artifact import Config

MEAN = "input={normalize: mean_image, scale: 96}"
CONTRACT = Contract(scale=96.0, normalize="mean_image")
CONFIG = Config("small", in_channels=1, image_size=(8, 8), embedding_size=3, contract=CONTRACT)


def mirrored() -> Splits:
    """Images and their negatives, so that each value's mean is 127.5 to the bit."""
    whole = tiny.splits()

    def with_negatives(images: Images) -> Images:
        pixels = images.pixels[:]
        return Images(torch.cat([pixels, 255 - pixels]), images.labels.repeat(2), images.class_names)

    return Splits("digits", with_negatives(whole.train), whole.test, "digits and their negatives")


def test_it_is_the_mean_of_each_value_over_all_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 3, 5, 4), dtype=np.uint8)
    images = Images(torch.from_numpy(pixels), torch.zeros(50, dtype=torch.int64), ("one", "other"))
    for batch in (7, 1000):
        np.testing.assert_allclose(mean_image(images, batch), pixels.astype(np.float64).mean(axis=0), rtol=1e-6)


def test_training_takes_it_off(tmp_path: Path) -> None:
    run(tiny.validated(MEAN), tmp_path / "mean", splits=mirrored())
    run(tiny.validated("input={mean: 127.5, scale: 96}"), tmp_path / "fixed", splits=mirrored())
    one, other = tiny.outcome(tmp_path / "mean"), tiny.outcome(tmp_path / "fixed")
    assert not tiny.differences(one, other)
    run(tiny.validated("input={mean: 120, scale: 96}"), tmp_path / "another", splits=mirrored())
    assert tiny.differences(one, tiny.outcome(tmp_path / "another"))


def test_evaluation_and_the_saved_model_take_off_that_of_the_training_images(tmp_path: Path) -> None:
    splits = tiny.splits()
    run(tiny.validated(MEAN), tmp_path, splits=splits)
    model = angulus.load(tmp_path / "model")
    mean = splits.train.pixels[:].double().mean(dim=0)
    assert model.preprocessing.mean_image is not None
    torch.testing.assert_close(model.preprocessing.mean_image.double(), mean, rtol=1e-6, atol=1e-4)
    with np.load(tmp_path / "test.npz") as arrays:
        evaluated = torch.from_numpy(arrays["features"])
    pixels = splits.test.pixels[:]
    with torch.no_grad():
        by_hand = model.backbone((pixels - mean.float()) / 96)
    torch.testing.assert_close(evaluated, by_hand)
    torch.testing.assert_close(model.embed(pixels), evaluated)
    assert model.with_flip("concat").embed(pixels).shape == (len(pixels), 2 * evaluated.shape[1])


def saved(folder: Path, mean: torch.Tensor | None) -> Path:
    torch.manual_seed(0)
    artifact.save(CONFIG, CONFIG.build(), folder, mean)
    return folder


def rewritten(folder: Path, mean: torch.Tensor | None) -> None:
    """Put another mean image, or none, among the weights, with the checksum that fits."""
    tensors = safetensors.torch.load_file(folder / artifact.WEIGHTS)
    del tensors[artifact.MEAN_IMAGE]
    data = safetensors.torch.save(tensors | ({} if mean is None else {artifact.MEAN_IMAGE: mean}))
    (folder / artifact.WEIGHTS).write_bytes(data)
    content = json.loads((folder / artifact.CONFIG).read_text())
    content["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / artifact.CONFIG).write_text(json.dumps(content))


def test_two_models_that_differ_in_it_alone_have_two_names(tmp_path: Path) -> None:
    one = angulus.load(saved(tmp_path / "one", torch.full((1, 8, 8), 100.0)))
    other = angulus.load(saved(tmp_path / "other", torch.full((1, 8, 8), 101.0)))
    assert one.name != other.name


def test_the_exported_file_takes_it_off(tmp_path: Path) -> None:
    mean = torch.linspace(0, 255, 64).reshape(1, 8, 8)
    model = angulus.load(saved(tmp_path / "model", mean))
    parity = export.export(model, tmp_path / "model.onnx")
    assert parity.feature_error < 1e-5
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    features, _ = export_check.run(tmp_path / "model.onnx", pixels)
    with torch.no_grad():
        expected = model.backbone((torch.from_numpy(pixels) - mean) / 96)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_bad_input(tmp_path: Path) -> None:
    mean = torch.full((1, 8, 8), 100.0)
    with pytest.raises(InputError, match=r"mean_image goes with .*; got none with mean_image"):
        saved(tmp_path / "none", None)
    fixed = replace(CONFIG, contract=Contract())
    with pytest.raises(InputError, match="got one with fixed"):
        artifact.save(fixed, fixed.build(), tmp_path / "none", mean)
    assert not (tmp_path / "none").exists()
    with pytest.raises(InputError, match=r"mean_image must be numbers in \[0, 255\]"):
        Preprocessing(CONTRACT, mean / 0)
    folder = saved(tmp_path / "model", mean)
    rewritten(folder, None)
    with pytest.raises(InputError, match=r"model.safetensors: mean_image goes with .*got none.*; fetch or save"):
        angulus.load(folder)
    folder = saved(tmp_path / "model", mean)
    rewritten(folder, torch.full((1, 8, 8), torch.nan))
    with pytest.raises(InputError, match=r"model.safetensors: mean_image must be numbers in \[0, 255\]"):
        angulus.load(folder)


def test_a_recipe_without_it_has_none() -> None:
    assert build.job(tiny.validated(), tiny.splits()).contract.mean_image is None
