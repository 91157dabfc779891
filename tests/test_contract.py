"""The preprocessing contract: bytes to floats, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

import tiny
from angulus.core.checks import InputError
from angulus.core.contract import Contract
from angulus.experiments import recipe


def test_pixels_become_their_distance_from_the_mean_in_scales() -> None:
    pixels = torch.tensor([[[[0, 78, 255]]]], dtype=torch.uint8)
    floats = Contract(mean=78, scale=96)(pixels)
    assert floats.dtype == torch.float32
    assert floats.shape == pixels.shape
    assert floats.flatten().tolist() == pytest.approx([-78 / 96, 0.0, 177 / 96])
    assert Contract()(pixels).flatten().tolist() == pytest.approx([-1.0, 78 / 127.5 - 1, 1.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_what_is_not_bytes_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match=rf"pixels must be uint8 in 0..255; got {dtype}"):
        Contract()(torch.zeros(1, 1, 2, 2, dtype=dtype))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"scale": 0.0}, "input.scale must be a finite number > 0; got 0.0"),
        ({"scale": -1.0}, "input.scale must be a finite number > 0; got -1.0"),
        ({"mean": float("nan")}, "input.mean must be a finite number; got nan"),
        ({"mean": "78"}, "input.mean must be a number; got '78'"),
        ({"mean": [1.0, 2.0]}, "input.mean must be one number, or three of red, green and blue; got 2"),
        ({"scale": [1.0, 0.0, 2.0]}, "input.scale must be a finite number > 0; got 0.0"),
        ({"mean": [1.0, 2.0, 3.0], "colour": "grey"}, "must be one number each for input.colour grey; got three"),
        ({"normalize": "batch"}, "input.normalize must be one of 'fixed', 'per_image', 'mean_image'; got 'batch'"),
        ({"normalize": "per_image", "scale": 128.0}, "input.scale does not apply to input.normalize per_image"),
        ({"normalize": "mean_image", "mean": 0.0}, "input.mean does not apply to input.normalize mean_image"),
        ({"colour": "gray"}, "input.colour must be one of 'rgb', 'bgr', 'grey'; got 'gray'; did you mean 'grey'"),
        ({"flip": "mean"}, "input.flip must be one of 'none', 'sum', 'concat'; got 'mean'"),
        ({"size": 112}, "input.size must be two whole numbers, height and width; got 112"),
        ({"size": (112, 0)}, "input.size must be a whole number >= 1; got 0"),
        ({"size": (112, 112), "template": "68"}, "input.template must be one of 'five_points'; got '68'"),
        ({"template": "five_points"}, "input.template needs input.size"),
    ],
)
def test_contracts_are_refused(values: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Contract(**values)


@pytest.mark.parametrize("colour", [None, "bgr"])
def test_a_mean_and_a_scale_by_colour_are_those_of_red_green_and_blue(colour: str | None) -> None:
    mean, scale = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    contract = Contract(mean=mean, scale=scale, colour=colour)  # type: ignore[arg-type]  # as JSON has them
    pixels = torch.arange(2 * 3 * 2 * 2, dtype=torch.uint8).view(2, 3, 2, 2)
    found = contract(pixels)
    for place in range(3):
        from_rgb = 2 - place if colour == "bgr" else place
        expected = (pixels[:, from_rgb].double() - mean[from_rgb]) / scale[from_rgb]
        torch.testing.assert_close(found[:, place].double(), expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(InputError, match=r"for images that are not RGB; got three, and images of 1 channel"):
        Contract(mean=mean)(pixels[:, :1])  # type: ignore[arg-type]


FACES = {"size": (4, 3), "colour": "rgb", "template": "five_points"}


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_each_image_by_its_own_mean_and_deviation(images: torch.Tensor) -> None:
    found = Contract(normalize="per_image")(images)
    for image, values in zip(images.double(), found, strict=True):
        flat = image.flatten().tolist()
        mean = sum(flat) / len(flat)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in flat) / len(flat))
        assert values.flatten().tolist() == pytest.approx([(value - mean) / deviation for value in flat], abs=1e-5)


def test_an_even_image_stays_finite_and_a_faint_one_faint() -> None:
    even = torch.full((1, 1, 4, 4), 7, dtype=torch.uint8)
    assert Contract(normalize="per_image")(even).tolist() == torch.zeros(1, 1, 4, 4).tolist()
    faint = torch.full((1, 1, 100, 100), 7, dtype=torch.uint8)
    faint[0, 0, 0, 0] = 8  # its deviation, 1/100, is the least that counts
    assert Contract(normalize="per_image")(faint)[0, 0, 0, 0].item() == pytest.approx(1 / 0.01, rel=1e-3)


def test_a_mean_image_is_taken_off(images: torch.Tensor) -> None:
    mean = torch.arange(36.0).reshape(3, 4, 3)
    contract = Contract(normalize="mean_image", scale=2.0)
    torch.testing.assert_close(contract(images, mean), (images.float() - mean) / 2)
    swapped = Contract(normalize="mean_image", scale=2.0, colour="bgr")
    torch.testing.assert_close(swapped(images, mean), contract(images, mean)[:, [2, 1, 0]])
    with pytest.raises(InputError, match=r"must have the images' shape \[3, 4, 3\]; got \[3, 3, 4\]"):
        contract(images, mean.reshape(3, 3, 4))
    with pytest.raises(InputError, match=r"goes with input.normalize mean_image; got none with mean_image"):
        contract(images)
    with pytest.raises(InputError, match=r"goes with input.normalize mean_image; got one with fixed"):
        Contract()(images, mean)


def test_colours_are_swapped_for_models_that_see_bgr(images: torch.Tensor) -> None:
    torch.testing.assert_close(Contract(colour="bgr")(images), Contract()(images)[:, [2, 1, 0]])
    torch.testing.assert_close(Contract(colour="rgb")(images), Contract()(images))


@pytest.mark.parametrize(
    ("contract", "shape", "sentence"),
    [
        (Contract(**FACES), (1, 3, 3, 4), r"4 high and 3 wide, as input.size says; got \[1, 3, 3, 4\]"),
        (
            Contract(**FACES),
            (1, 1, 4, 3),
            r"must be \[batch, 3, height, width\] for input.colour rgb; got \[1, 1, 4, 3\]",
        ),
        (Contract(colour="grey"), (1, 3, 4, 3), r"must be \[batch, 1, height, width\] for input.colour grey"),
        (
            Contract(colour="bgr"),
            (3, 4, 3),
            r"must be \[batch, 3, height, width\] for input.colour bgr; got \[3, 4, 3\]",
        ),
    ],
)
def test_images_that_break_the_contract_are_refused(contract: Contract, shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        contract(torch.zeros(shape, dtype=torch.uint8))


def test_features_of_an_image_and_its_mirror_image(images: torch.Tensor) -> None:
    def network(x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 0, 0]  # the upper left corner, so the upper right one of the mirror image

    own, mirrored = Contract()(images)[:, :, 0, 0], Contract()(images)[:, :, 0, -1]
    torch.testing.assert_close(Contract().features(network, images), own)
    torch.testing.assert_close(Contract(flip="sum").features(network, images), own + mirrored)
    torch.testing.assert_close(Contract(flip="concat").features(network, images), torch.cat([own, mirrored], dim=1))
    mean = torch.arange(36.0).reshape(3, 4, 3)  # the mirror image loses the mean image as it is, not mirrored
    found = Contract(normalize="mean_image", flip="sum").features(network, images, mean)
    expected = images[:, :, 0, 0] + images[:, :, 0, -1].float() - 2 * mean[:, 0, 0]
    torch.testing.assert_close(found, expected / 127.5)


def test_a_contract_goes_through_json_and_recipes() -> None:
    contract = Contract(normalize="per_image", size=(112, 96), colour="bgr", template="five_points", flip="sum")
    stored = json.loads(json.dumps(dataclasses.asdict(contract)))
    assert stored["size"] == [112, 96]
    assert Contract(**stored) == contract
    loaded = recipe.validate(tiny.CONTENT | {"input": stored})
    assert loaded.input == contract
    assert recipe.validate(recipe.parse_yaml(recipe.to_yaml(loaded))).input == contract
    assert recipe.validate(tiny.CONTENT).input == Contract(mean=78, scale=96)  # as before there was more to say
