"""The loader: the right pixels in any number of workers, classes by their names, faults in a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from angulus.core.checks import InputError
from angulus.data.decode import decode
from angulus.data.loader import DecodedPixels, Part, data_loader, part_of, read_batches
from angulus.data.records import Records, Row, write_records
from data.pictures import encoded, noise, png, turned
from records import time_stores, write_stores

COUNT = 23


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    path = tmp_path_factory.mktemp("loader") / "records"
    write_records(path, (Row(f"{n}.png", png(n, 9, 7), f"p{(n * 7) % 5}") for n in range(COUNT)))
    return Records(path)


def batches(records: Records, order: list[np.ndarray], workers: int = 0) -> list[torch.Tensor]:
    part = part_of(records)
    pixels = DecodedPixels(records, part.rows, part.size, threads=1)
    return [read for read, _ in read_batches(data_loader(pixels, order, workers, pin=False))]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_batches_hold_the_images_of_their_rows(records: Records, workers: int) -> None:
    order = np.array_split(np.random.default_rng(0).permutation(COUNT), 6)
    for pixels, rows in zip(batches(records, order, workers), order, strict=True):
        assert (pixels.dtype, list(pixels.shape)) == (torch.uint8, [len(rows), 3, 7, 9])
        assert np.array_equal(pixels.permute(0, 2, 3, 1).numpy(), np.stack([noise(row, 9, 7) for row in rows]))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path, workers: int) -> None:
    torn = bytearray(png(1, 40, 40))
    torn[200] ^= 1
    write_records(tmp_path / "r", [Row("a", png(0, 40, 40), "x"), Row("b", bytes(torn), "x")])
    records = Records(tmp_path / "r")
    with pytest.raises(InputError, match=r"^row 1 of .*/r must be a whole PNG; decoding it gave: "):
        batches(records, [np.arange(2)], workers)


def test_an_image_that_its_tag_turns_is_named(tmp_path: Path) -> None:
    write_records(tmp_path / "r", [Row("a", png(0, 9, 7), "x"), Row("b", turned(noise(1, 9, 7), 6, "PNG"), "x")])
    records = Records(tmp_path / "r")
    with pytest.raises(InputError, match=r"row 1 of .* must be 9x7 as the others; got 7x9, as its EXIF tag turns it"):
        batches(records, [np.arange(2)])


def test_records_that_do_not_make_batches(tmp_path: Path, records: Records) -> None:
    rows = [Row("a", png(0, 9, 7), "x"), Row("b", png(1, 9, 7), ""), Row("c", png(2, 8, 8), "y")]
    write_records(tmp_path / "r", rows)
    mixed = Records(tmp_path / "r")
    with pytest.raises(InputError, match=r"to train on must have an identity; 1 in .* have none, row 1 \(b\) first"):
        part_of(mixed)
    with pytest.raises(
        InputError, match=r"must be of one size to make batches; .* has 2: 8x8 \(1\), 9x7 \(1\); 'c' \(row 2\) is one"
    ):
        part_of(mixed, [0, 2])
    assert part_of(mixed, [2]).size == (8, 8)
    for rows_asked in ([], [0, 0], [[0]], [0.5]):
        with pytest.raises(InputError, match=r"rows must be \[N\] whole numbers"):
            part_of(records, rows_asked)
    with pytest.raises(InputError, match=r"rows must be in \[0, 23\)"):
        part_of(records, [23])
    with pytest.raises(InputError, match="workers"):
        batches(records, [], -1)


def test_classes_are_the_names_in_order(records: Records) -> None:
    part = part_of(records, [3, 1, 0])
    assert part.names.tolist() == ["p0", "p1", "p2"]
    assert part.labels.tolist() == [1, 2, 0]
    assert isinstance(part, Part)


def test_every_store_of_the_benchmark_holds_the_same_images(records: Records, tmp_path: Path) -> None:
    stores = write_stores(records, tmp_path)
    stores.pop("Lance", None)  # once imported, it would stand in the way of every later fork of this process
    assert len(stores) == 5
    for store in stores.values():
        assert store.images([5, 0, 22, 5]) == records.images([5, 0, 22, 5])


def test_the_benchmark_runs(records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no Lance: it would spoil forks that follow
    (tmp_path / "scratch").mkdir()
    rows = list(time_stores(Path(records.where), tmp_path / "scratch", rounds=1, workers=(1, 0), decoded=(True,)))
    assert {row["store"] for row in rows} >= {"folder of files", "records", "zip"}
    assert all(row["images_per_s"] > 0 and row["mib"] > 0 for row in rows)
    assert all((row["cpu_us"] is None) == (row["workers"] == 1) for row in rows)


def test_real_faces(data_folder: Path, tmp_path: Path) -> None:
    from angulus.data.convert import convert

    convert(data_folder / "celebrity-faces" / "aligned_112.zip", tmp_path / "faces")
    records = Records(tmp_path / "faces")
    rows = np.random.default_rng(0).permutation(len(records))[:128]
    (batch,) = batches(records, [rows], 2)
    images = [decode(image) for image in records.images(rows)]
    assert batch.shape == (128, 3, 112, 112)
    assert np.array_equal(batch.permute(0, 2, 3, 1).numpy(), np.stack(images))
    assert encoded(images[0])
