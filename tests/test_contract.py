"""The preprocessing contract: bytes to floats, and what is refused."""

from __future__ import annotations

import pytest
import torch

from angulus.checks import InputError
from angulus.contract import Contract


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
    ],
)
def test_contracts_are_refused(values: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Contract(**values)
