"""Augmentations against slow loops, planted answers and their laws."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from angulus.core.checks import InputError
from angulus.data.augment import Augment

SHARES = ("flip", "crop", "low_res", "photometric", "grey", "blur", "erase")


def some(count: int = 64, height: int = 12, width: int = 10) -> Tensor:
    torch.manual_seed(0)
    return torch.randint(1, 256, (count, 3, height, width), dtype=torch.uint8)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(name: str, share: float = 1.0) -> Augment:
    return Augment(**({"flip": 0.0} | {name: share}))


def test_nothing_asked_is_nothing_done() -> None:
    assert torch.equal(Augment(flip=0)(some(), chance()), some())


def test_flip_mirrors_about_half() -> None:
    pixels = some(1000, 4, 4)
    moved = Augment(flip=0.5)(pixels, chance())
    mirrored = [bool((now == then.flip(-1)).all()) for now, then in zip(moved, pixels, strict=True)]
    kept = [bool((now == then).all()) for now, then in zip(moved, pixels, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 430 < sum(mirrored) < 570


def test_shift_moves_by_whole_pixels_and_shows_nothing_behind() -> None:
    pixels = some(300)
    moved = Augment(flip=0, shift_px=2)(pixels, chance())
    seen = set()
    for now, then in zip(moved.numpy(), pixels.numpy(), strict=True):
        padded = np.pad(then, ((0, 0), (2, 2), (2, 2)))
        found = [(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[:, y : y + 12, x : x + 10], now)]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) == 25


def test_shift_and_flip_together() -> None:
    pixels = some(200)
    for now, then in zip(Augment(flip=1, shift_px=1)(pixels, chance()), pixels, strict=True):
        padded = np.pad(then.numpy(), ((0, 0), (1, 1), (1, 1)))
        assert any(
            np.array_equal(padded[:, y : y + 12, x : x + 10][..., ::-1], now.numpy())
            for y in range(3)
            for x in range(3)
        )


def boxes(before: Tensor, after: Tensor, *, outside: bool) -> list[tuple[int, int]]:
    """Sides of the box that was kept (or erased); everything else must be as the rule says."""
    sides = []
    for now, then in zip(after.numpy(), before.numpy(), strict=True):
        inside = (now != 0).all(axis=0) if outside else (now == 0).all(axis=0)
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        box = np.zeros_like(inside)
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        assert np.array_equal(box, inside)
        assert np.array_equal(now, then * (box if outside else ~box))
        sides.append((len(rows), len(columns)))
    return sides


def test_crop_keeps_a_box_where_it_is() -> None:
    pixels = some(200, 40, 40)
    sides = boxes(pixels, only("crop")(pixels, chance()), outside=True)
    areas = [height * width / 1600 for height, width in sides]
    ratios = [width / height for height, width in sides]
    assert 0.17 < min(areas) < 0.3 and 0.85 < max(areas) <= 1
    assert 0.7 < min(ratios) < 0.85 and 1.2 < max(ratios) < 1.45


def test_erase_takes_a_box_out() -> None:
    pixels = some(200, 40, 40)
    sides = boxes(pixels, only("erase")(pixels, chance()), outside=False)
    areas = [height * width / 1600 for height, width in sides]
    assert 0.01 < min(areas) < 0.06 and 0.3 < max(areas) < 0.45


def test_low_res_loses_detail() -> None:
    pixels = some(64, 40, 40)
    small = only("low_res")(pixels, chance())
    assert small.shape == pixels.shape
    detail, was = (
        (images[..., 1:].float() - images[..., :-1].float()).abs().mean(dim=(1, 2, 3)) for images in (small, pixels)
    )
    assert (detail <= 1.05 * was).all() and (detail < 0.5 * was).sum() > 20
    flat = torch.full((8, 3, 20, 20), 77, dtype=torch.uint8)
    assert torch.equal(only("low_res")(flat, chance()), flat)


def test_photometric_is_brightness_contrast_saturation() -> None:
    grey = torch.full((200, 3, 6, 6), 100, dtype=torch.uint8)
    changed = only("photometric")(grey, chance())
    assert (changed.float().std(dim=(1, 2, 3)) == 0).all()  # contrast and saturation leave a flat grey as it is
    values = changed[:, 0, 0, 0]
    assert 50 <= values.min() < 60 and 140 < values.max() <= 150
    colour = some(50)
    assert not torch.equal(only("photometric")(colour, chance()), colour)


def test_grey_weighs_the_channels() -> None:
    pixels = some()
    grey = only("grey")(pixels, chance())
    expected = (pixels.double() * torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]).sum(1)
    assert (grey[:, 0].double() - expected).abs().max() <= 0.51
    assert torch.equal(grey[:, 0], grey[:, 1]) and torch.equal(grey[:, 0], grey[:, 2])


def test_blur_spreads_a_point() -> None:
    point = torch.zeros(40, 3, 21, 21, dtype=torch.uint8)
    point[:, :, 10, 10] = 255
    blurred = only("blur")(point, chance()).float()
    assert (blurred[:, :, 10, 10] < 255).all() and (blurred[:, :, 10, 11] > 0).all()
    assert torch.equal(blurred, blurred.flip(-1)) and torch.equal(blurred, blurred.transpose(-1, -2))
    peaks = blurred[:, 0, 10, 10] / 255  # 1 / (2 π σ²), for σ where that holds
    sigmas = (1 / (2 * torch.pi * peaks)).sqrt()
    assert 0.45 < sigmas.min() < 0.8 and 1.7 < sigmas.max() < 2.3


@pytest.mark.parametrize("name", SHARES[1:])
def test_a_share_is_the_share_of_images(name: str) -> None:
    pixels = some(400, 16, 16)
    changed = (only(name, 0.25)(pixels, chance()) != pixels).flatten(1).any(dim=1)
    assert 65 < int(changed.sum()) < 135


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_chance_comes_from_the_generator_alone(layout: torch.memory_format) -> None:
    everything = Augment(0.5, 2, *[0.5] * 6)
    pixels = some(32, 16, 16)
    torch.manual_seed(1)
    first = everything(pixels, chance(4))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(first, everything(pixels.to(memory_format=layout), chance(4)))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, everything(pixels, chance(5)))
    assert torch.equal(pixels, some(32, 16, 16))


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "half"])
def test_shares_are_checked(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"augment.{name} must be"):
        Augment(**{name: value})


def test_pixels_and_shifts_are_checked() -> None:
    with pytest.raises(InputError, match="shift_px must be a whole number >= 0"):
        Augment(shift_px=-1)
    with pytest.raises(InputError, match="less than the image's sides; got 10"):
        Augment(shift_px=10)(some(), chance())
    for pixels in (some().float(), some()[0], some()[:, :1]):
        with pytest.raises(InputError, match=r"pixels must be uint8 \[B, 3, height, width\]"):
            Augment()(pixels, chance())


def test_kornia_is_asked_for_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    Augment(flip=0.5, shift_px=2, crop=0.2, low_res=0.2, erase=0.2)(some(), chance())
    for name in ("photometric", "grey", "blur"):
        with pytest.raises(InputError, match=r"needs `pip install 'angulus\[faces\]'`"):
            only(name)
