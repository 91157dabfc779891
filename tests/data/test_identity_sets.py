"""Records as a data set in memory."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from angulus import InputError, data
from angulus.data.records import Row, write_records


def png(value: int, size: tuple[int, int] = (16, 16)) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(stream, "png")
    return stream.getvalue()


def rows(identities: dict[str, int]) -> list[Row]:
    """As many images as asked of each identity, each of its own grey."""
    names = [name for name, count in identities.items() for _ in range(count)]
    return [Row(f"{place}.png", png(place), name) for place, name in enumerate(names)]


def test_each_tenth_image_of_an_identity_is_held_out(tmp_path: Path) -> None:
    write_records(tmp_path / "records", rows({"b": 21, "a": 9, "c": 10}))
    splits = data.load("faces", root=tmp_path / "records")
    assert splits.train.class_names == ("a", "b", "c")
    assert splits.test.pixels[:, 0, 0, 0].tolist() == [9, 19, 39]
    assert splits.test.labels.tolist() == [1, 1, 2]
    assert len(splits.train) == 37 and torch.bincount(splits.train.labels).tolist() == [9, 19, 9]
    assert splits.train.pixels.shape == (37, 3, 16, 16)
    assert "40 images of 3 identities" in splits.source


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set data\.root to records"):
        data.load("faces")
    with pytest.raises(InputError, match="'faces' cannot be downloaded"):
        data.load("faces", root=tmp_path, download=True)
    write_records(tmp_path / "few", rows({"a": 9}))
    with pytest.raises(InputError, match=r"has 10 images \(the most is 9\), so none can be held out"):
        data.load("faces", root=tmp_path / "few")
    write_records(tmp_path / "unnamed", [*rows({"a": 10}), Row("x.png", png(1), "")])
    with pytest.raises(InputError, match=r"1 in .*unnamed have none, row 10 \(x\.png\) first"):
        data.load("faces", root=tmp_path / "unnamed")
    write_records(tmp_path / "mixed", [*rows({"a": 10}), Row("x.png", png(1, (8, 16)), "a")])
    with pytest.raises(InputError, match=r"one size to make batches; .*mixed has 2"):
        data.load("faces", root=tmp_path / "mixed")


def test_where_there_are_no_records_the_way_to_them_is_named(tmp_path: Path) -> None:
    write_records(tmp_path / "faces" / "records", rows({"a": 10}))
    with pytest.raises(InputError, match=r"they lie in .*faces/records: set data.root=.*faces/records$"):
        data.load("faces", root=tmp_path / "faces")
    for name in ("people/ann", "flat"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.PNG").write_bytes(png(1))
    people = tmp_path / "people"
    with pytest.raises(InputError, match=rf"holds photos: run `angulus prepare faces {people} OUT` .*data.root=OUT$"):
        data.load("faces", root=people)
    with pytest.raises(InputError, match=r"data.root=OUT; put each person's photos into a folder of their own first$"):
        data.load("faces", root=tmp_path / "flat")
    with pytest.raises(InputError, match=r"; name them by data\.root$"):
        data.load("faces", root=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("most", "sentence"), [(5, r"set data.options.every=5, to hold out one in 5, or set "), (1, r"for testing; set ")]
)
def test_few_photos_of_each_person_are_refused_with_the_way_out(most: int, sentence: str, tmp_path: Path) -> None:
    write_records(tmp_path / "few", rows({"a": most, "b": most}))
    with pytest.raises(InputError, match=rf"\(the most is {most}\), .*{sentence}data.options.test=trained_on"):
        data.load("faces", root=tmp_path / "few")
    assert len(data.load("faces", root=tmp_path / "few", test="trained_on").train) == 2 * most
    if most > 1:
        assert len(data.load("faces", root=tmp_path / "few", every=most).test) == 2
