"""Images in any form to features, in a few lines of Python: `angulus.Embedder`."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import angulus
from angulus import InputError
from angulus.cli.main import app
from angulus.core.contract import Contract
from angulus.core.embeddings import Embeddings
from angulus.models import artifact, batching, embed
from angulus.models.artifact import Config

CONTRACT = Contract(size=(16, 16), colour="rgb", flip="sum")
CONFIG = Config("small", in_channels=3, image_size=(16, 16), embedding_size=5, contract=CONTRACT)
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and next to it the images as PNG files."""
    folder = tmp_path_factory.mktemp("embedder")
    torch.manual_seed(0)
    artifact.save(CONFIG, CONFIG.build(), folder / "model")
    (folder / "photos").mkdir()
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / "photos" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def embedder(folder: Path) -> angulus.Embedder:
    return angulus.Embedder.from_pretrained(folder / "model", device="cpu")


def by_hand(folder: Path) -> np.ndarray:
    """The equation of the contract, without the library's preparation."""
    backbone = angulus.load(folder / "model").backbone
    x = (torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() - 127.5) / 127.5
    with torch.no_grad():
        features: np.ndarray = (backbone(x) + backbone(x.flip(-1))).numpy()
    return features


def paths(folder: Path) -> list[Path]:
    return [folder / "photos" / f"{number}.png" for number in range(len(IMAGES))]


FORMS: dict[str, Callable[[Path], Any]] = {
    "paths": paths,
    "names": lambda folder: np.array(list(map(str, paths(folder)))),
    "pillow": lambda folder: [Image.fromarray(image) for image in IMAGES],
    "arrays": lambda folder: list(IMAGES),
    "batch": lambda folder: IMAGES,
    "generator": lambda folder: (image for image in IMAGES),
    "mixed": lambda folder: [paths(folder)[0], Image.fromarray(IMAGES[1]), *IMAGES[2:]],
    "tensor": lambda folder: torch.from_numpy(IMAGES).permute(0, 3, 1, 2),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_images_gives_the_same_features_in_order(
    folder: Path, embedder: angulus.Embedder, form: str
) -> None:
    found = embedder.encode(FORMS[form](folder), batch_size=3)
    assert found.dtype == np.float32 and found.shape == (7, embedder.size) == (7, 5)
    np.testing.assert_allclose(found, by_hand(folder), rtol=1e-5, atol=1e-6)


def test_one_image_gives_one_feature_and_no_image_none(folder: Path, embedder: angulus.Embedder) -> None:
    expected = by_hand(folder)[0]
    for one in (paths(folder)[0], str(paths(folder)[0]), Image.fromarray(IMAGES[0]), IMAGES[0]):
        np.testing.assert_allclose(embedder.encode(one), expected, rtol=1e-5, atol=1e-6)
    assert embedder.encode([]).shape == (0, 5)
    wide = angulus.Embedder.from_pretrained(folder / "model", flip="concat", device="cpu")
    assert wide.size == 10 and wide.encode(IMAGES[:2]).shape == (2, 10) and wide.encode([]).shape == (0, 10)


def test_it_gives_what_angulus_embed_writes(folder: Path, embedder: angulus.Embedder, tmp_path: Path) -> None:
    embed.run(folder / "model", folder / "photos", tmp_path / "e.npz")
    written = Embeddings.read(tmp_path / "e.npz")
    np.testing.assert_array_equal(embedder.encode(paths(folder)), written.vectors)
    assert embedder.name == written.models[0]  # type: ignore[index]


def test_a_grey_model_takes_colour_and_grey_alike(tmp_path: Path) -> None:
    config = Config("small", 1, (8, 8), 3, contract=Contract(size=(8, 8)))
    artifact.save(config, config.build(), tmp_path)
    model = angulus.Embedder.from_pretrained(tmp_path, device="cpu")
    grey = IMAGES[0, :8, :8, 0]
    expected = model.encode([grey, grey[..., None], np.repeat(grey[..., None], 3, axis=2), Image.fromarray(grey)])
    np.testing.assert_allclose(expected, expected[:1].repeat(4, axis=0), rtol=1e-6)
    with pytest.raises(InputError, match=r"images\[0\] must be 8 x 8 pixels"):
        model.encode(IMAGES)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ([IMAGES[0], IMAGES[1, :8]], r"images\[1\] must be 16 x 16 pixels.*got 8 x 16.*angulus prepare faces"),
        ([IMAGES[0] / 255], r"images\[0\] must be .*0\.\.255; got an array of float64"),
        (IMAGES.transpose(0, 3, 1, 2), r"images\[0\] must be .*channels last; got the shape \[3, 16, 16\]"),
        ([IMAGES[0], None], r"images\[1\] must be a path, .*got NoneType"),
        (["no.png"], "the image no.png cannot be read: No such file"),
        (7, "images must be paths, Pillow images or uint8 arrays; got int"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"this model takes images \[batch, 3, 16, 16\]; got \[2, 3, 8, 8"),
    ],
)
def test_an_image_that_does_not_fit_is_named(embedder: angulus.Embedder, images: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        embedder.encode(images)


def test_what_is_no_image_is_named(embedder: angulus.Embedder, tmp_path: Path) -> None:
    (tmp_path / "note.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"note\.png must be an image"):
        embedder.encode([IMAGES[0], tmp_path / "note.png"])
    with pytest.raises(InputError, match="batch_size must be a whole number >= 1; got 0"):
        embedder.encode(IMAGES, batch_size=0)


def test_a_name_with_a_zero_byte_is_refused(embedder: angulus.Embedder) -> None:
    with pytest.raises(InputError, match="cannot be read: embedded null byte"):
        embedder.encode(["a\0b.png"])


def test_a_feature_without_angle_is_named(embedder: angulus.Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: artifact.Model, pixels: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.full((5,), float(image.float().mean() != 0)) for image in pixels])

    monkeypatch.setattr(artifact.Model, "embed", broken)
    with pytest.raises(InputError, match=r"the feature of images\[4\] must be finite and not zero"):
        embedder.encode([*IMAGES[:4], np.zeros_like(IMAGES[0])], batch_size=2)


def test_similarity_is_the_cosine_of_every_pair(embedder: angulus.Embedder) -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 4, 6))
    expected = [[sum(p * q for p, q in zip(x, y)) / math.hypot(*x) / math.hypot(*y) for y in b] for x in a]  # noqa: B905
    np.testing.assert_allclose(embedder.similarity(a, b), expected, rtol=1e-12)
    np.testing.assert_allclose(embedder.similarity(a[1], b), expected[1], rtol=1e-12)
    assert float(embedder.similarity(a[1], b[2])) == pytest.approx(expected[1][2])
    np.testing.assert_allclose(np.diag(embedder.similarity(a)), 1, rtol=1e-12)
    assert embedder.similarity(a * 1e-30, b * 1e30) == pytest.approx(np.array(expected))
    for bad, sentence in ((b[:, :5], "of one size; got 6 and 5"), (b * [[1], [0], [1], [1]], "row 1 has 0")):
        with pytest.raises(InputError, match=sentence):
            embedder.similarity(a, bad)
    with pytest.raises(InputError, match=r"b must be features \[N, d\] or \[d\]; got"):
        embedder.similarity(a, np.array(["x"]))
    with pytest.raises(InputError, match="a and b must be features of one size; got 2 and 3"):
        embedder.similarity(np.ones(2), np.zeros((2, 3)))


def test_an_unknown_option_of_an_onnx_file_names_the_one_that_is_meant() -> None:
    with pytest.raises(InputError, match=r"got 'std'; pixels become \(x − mean\) / scale: give a std as scale"):
        angulus.Embedder.from_onnx("x.onnx", std=3)
    with pytest.raises(InputError, match=r"options must be among size, mean, .*; got 'color'; did you mean 'colour'"):
        angulus.Embedder.from_onnx("x.onnx", color="rgb")


def test_progress_tells_speed_and_time_left(embedder: angulus.Embedder, capsys: pytest.CaptureFixture[str]) -> None:
    embedder.encode(IMAGES, batch_size=2, progress=True)
    assert re.search(r"7 of 7 images, [\d.,]+ images/s, 0 s left", capsys.readouterr().err)
    embedder.encode(IMAGES)
    assert capsys.readouterr().err == ""


def test_bfloat16_is_close_to_float32_and_is_left_as_it_was(folder: Path, embedder: angulus.Embedder) -> None:
    low = angulus.Embedder.from_pretrained(folder / "model", device="cpu", precision="bfloat16")
    exact, found = embedder.encode(IMAGES), low.encode(IMAGES)
    errors = np.linalg.norm(exact - found, axis=1) / np.linalg.norm(exact, axis=1)
    assert 0 < errors.max() < 0.05
    parity = embed.compare_precision(low.model, torch.from_numpy(IMAGES).permute(0, 3, 1, 2), found)
    assert parity.feature_error == pytest.approx(errors.max(), rel=1e-3) and low.model.precision == "bfloat16"
    with pytest.raises(InputError, match="precision must be one of 'float32', 'bfloat16'"):
        angulus.Embedder.from_pretrained(folder / "model", precision="int3")


def test_how_images_are_grouped_changes_rounding_only(
    folder: Path, embedder: angulus.Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = np.random.default_rng(2).integers(0, 256, (70, 16, 16, 3), dtype=np.uint8)
    whole = embedder.encode(many)
    np.testing.assert_array_equal(whole, embedder.encode(many))
    np.testing.assert_allclose(embedder.encode(many, batch_size=1), whole, rtol=1e-4, atol=1e-6)
    model = angulus.load(folder / "model")
    sizes: list[int] = []
    model.backbone.register_forward_pre_hook(lambda layer, inputs: sizes.append(len(inputs[0])))
    one_at_a_time: list[int] = []  # bytes of each layer's output for one image
    for layer in model.backbone.modules():
        layer.register_forward_hook(lambda layer, inputs, output: one_at_a_time.append(output[0].numel() * 4))
    model.embed(torch.from_numpy(many[:1]).permute(0, 3, 1, 2))
    monkeypatch.setattr(batching, "MOST_BYTES", 32 * max(one_at_a_time))
    found = angulus.Embedder(model).encode(many)
    assert sizes == [1, 1, 1, *[32, 32] * 2, 6, 6]  # the image and its mirror image, once to measure; then parts
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-6)


def test_batches_of_another_thread_do_not_change_how_many_images_go_at_a_time() -> None:
    layer = torch.nn.Conv2d(1, 4, 1)

    class Shared(torch.nn.Module):
        """Another thread sends a whole batch through the layer while it is measured."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            other = threading.Thread(target=layer, args=(torch.zeros(64, 1, 512, 512),))
            other.start()
            other.join()
            found: torch.Tensor = self.layer(images)
            return found

    image = torch.zeros(1, 1, 512, 512)
    assert batching.images_at_a_time(Shared(), image) == batching.images_at_a_time(layer, image) == 4


@pytest.mark.parametrize("device", ["xx", "cuda:99"])
def test_a_device_that_is_not_here_is_refused(folder: Path, device: str) -> None:
    with pytest.raises(InputError, match=f"device must be one that PyTorch can use here; {device} gave"):
        angulus.Embedder.from_pretrained(folder / "model", device=device)


def test_the_command_prints_the_error_of_bfloat16(folder: Path, tmp_path: Path) -> None:
    line = ["embed", str(folder / "model"), str(folder / "photos"), str(tmp_path / "e.npz"), "--device", "cpu"]
    found = CliRunner().invoke(app, [*line, "--precision", "bfloat16"])
    said = re.search(r"bfloat16: largest relative error of a feature (\S+), smallest cosine 0\.99", found.output)
    assert said and 0 < float(said[1]) < 0.05 and "over the first 7 images" in found.output
    exact = embed.run(folder / "model", folder / "photos", tmp_path / "exact.npz")
    vectors = [Embeddings.read(tmp_path / name).vectors for name in ("e.npz", "exact.npz")]
    errors = np.linalg.norm(vectors[0] - vectors[1], axis=1) / np.linalg.norm(vectors[1], axis=1)
    assert exact == 7 and errors.max() == pytest.approx(float(said[1]), rel=0.05)


def test_a_name_is_a_folder_or_one_on_a_hub(
    folder: Path, embedder: angulus.Embedder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fetch(name: str, **options: Any) -> str:
        if name == "me/model":
            return str(folder / "model")
        raise OSError("no route to the hub")

    client = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(client, "snapshot_download", fetch)
    monkeypatch.chdir(tmp_path)
    assert angulus.Embedder.from_pretrained("me/model", device="cpu").name == embedder.name
    with pytest.raises(InputError, match="there is no such folder"):
        angulus.Embedder.from_pretrained("nothing")
    with pytest.raises(InputError, match=r"there is no folder 'me/nothing', .*: OSError: no route"):
        angulus.Embedder.from_pretrained("me/nothing")
