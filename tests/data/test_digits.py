"""The in-memory image sets, the table of data sets, and scikit-learn's digits."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits

from angulus.core.checks import InputError
from angulus.data import Images, Splits, list_datasets, load
from angulus.data.sets import digits

PIXELS = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
LABELS = torch.tensor([0, 1, 1])
NAMES = ("a", "b")


def test_images_count_themselves_and_their_classes() -> None:
    images = Images(PIXELS, LABELS, ("a", "b", "never seen"))
    assert len(images) == 3
    assert images.num_classes == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"pixels": PIXELS.float()}, r"pixels must be a uint8 tensor; got torch.float32"),
        ({"pixels": [[0]]}, r"pixels must be a uint8 tensor; got list"),
        ({"pixels": PIXELS[:, 0]}, r"must have shape \[N, channels, height, width\] or \[N, .*; got \[3, 2, 2\]"),
        ({"pixels": PIXELS[:0], "labels": LABELS[:0]}, r"at least one image of at least one pixel; got \[0, 1, 2, 2\]"),
        ({"pixels": PIXELS[:, :, :0]}, r"at least one image of at least one pixel; got \[3, 1, 0, 2\]"),
        ({"labels": LABELS.int()}, r"labels must be an int64 tensor; got torch.int32"),
        ({"labels": [0, 1, 1]}, r"labels must be an int64 tensor; got list"),
        ({"labels": LABELS[:2]}, r"labels must have shape \[3\], one per image; got \[2\]"),
        ({"labels": LABELS[:, None]}, r"labels must have shape \[3\], one per image; got \[3, 1\]"),
        ({"labels": torch.tensor([0, 1, 2])}, r"labels must be in \[0, 2\); got 2 at row 2"),
        ({"labels": torch.tensor([0, -1, 9])}, r"labels must be in \[0, 2\); got -1 at row 1"),
        ({"class_names": ()}, r"class_names must be a tuple of at least one str; got \(\)"),
        ({"class_names": ["a", "b"]}, r"class_names must be a tuple"),
        ({"class_names": ("a", 1)}, r"class_names must be a tuple of at least one str"),
        ({"class_names": ("a", "b", "a")}, r"class_names must be distinct; got 'a' more than once"),
    ],
)
def test_images_refuse(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Images(**{"pixels": PIXELS, "labels": LABELS, "class_names": NAMES, **change})


def test_splits_refuse_sets_that_do_not_belong_together() -> None:
    train = Images(PIXELS, LABELS, NAMES)
    with pytest.raises(InputError, match=r"agree on \[channels, sides\]; got \[1, 2, 2\] and \[1, 2, 1\]"):
        Splits("x", train, Images(PIXELS[..., :1], LABELS, NAMES), "nowhere")
    with pytest.raises(InputError, match=r"the same class_names in the same order; got \('a', 'b'\) and \('b', 'a'\)"):
        Splits("x", train, Images(PIXELS, LABELS, ("b", "a")), "nowhere")


def test_digits_have_the_documented_shapes() -> None:
    splits = digits.load_digits()
    assert splits.name == "digits"
    assert "scikit-learn" in splits.source
    assert splits.train.pixels.shape == (1198, 1, 8, 8)
    assert splits.test.pixels.shape == (599, 1, 8, 8)
    assert splits.train.class_names == tuple("0123456789")


def test_digits_bytes_are_the_values_scaled_by_255_over_16() -> None:
    splits = digits.load_digits()
    # round(v * 255 / 16) for v = 0..16, by hand; 8 gives 127.5, which rounds to the even 128.
    table = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]
    expected = sorted((bytes(table[int(v)] for v in row), int(y)) for row, y in zip(*_raw(), strict=True))
    got = [
        (bytes(image.flatten().tolist()), int(label))
        for part in (splits.train, splits.test)
        for image, label in zip(part.pixels, part.labels, strict=True)
    ]
    assert sorted(got) == expected  # every image once, with its own label, in exactly one of the splits


def _raw() -> tuple[Any, Any]:
    bunch = load_digits()
    return bunch.data, bunch.target


def test_digits_split_is_stratified() -> None:
    splits = digits.load_digits()
    train, test = (torch.bincount(part.labels, minlength=10) for part in (splits.train, splits.test))
    assert bool(((test - (train + test) / 3).abs() <= 1).all())


def test_digits_split_never_changes() -> None:
    # A hash of the test split: whoever sees it fail has another split, so results are not comparable any more.
    test = digits.load_digits().test
    content = test.pixels.numpy().tobytes() + test.labels.numpy().astype("<i8").tobytes()
    assert hashlib.sha256(content).hexdigest() == "63145a1a4684aa576da5007a2e7080242bc3acd36b44ff0ab4d4ab2f7c4ba2f5"


def test_table_loads_digits() -> None:
    assert torch.equal(load("digits").test.pixels, digits.load_digits().test.pixels)
    assert torch.equal(load("digits", download=True).test.labels, digits.load_digits().test.labels)
    assert list_datasets()[:2] == ["digits", "mnist"]


def test_table_refuses() -> None:
    with pytest.raises(InputError, match=r"name must be one of 'digits', .*'mnits'; did you mean 'mnist'\?"):
        load("mnits")
    with pytest.raises(InputError, match=r"name must be one of 'digits', .*; got None"):
        load(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"'faces' has no option 'evry'; did you mean 'every'\?; known: every"):
        load("faces", root=Path("there"), evry=3)
    with pytest.raises(InputError, match=r"'digits' has no option 'fold'; known: none"):
        load("digits", fold=3)
    with pytest.raises(InputError, match="download must be true or false; got 'yes'"):
        load("digits", download="yes")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="root must be left out for 'digits', which scikit-learn carries; got 'there'"):
        load("digits", root=Path("there"))
