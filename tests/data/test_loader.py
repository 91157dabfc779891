"""The loader: the right pixels and labels, in any number of workers, the same after a resume, faults in a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from angulus.core.checks import InputError
from angulus.data.augment import Augment
from angulus.data.decode import decode
from angulus.data.loader import Batch, Loader, Part, part_of
from angulus.data.records import Records, Row, write_records
from angulus.data.sampler import Balanced, Shuffled
from data.pictures import encoded, noise, png, turned
from records import time_stores, write_stores

COUNT = 23


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    path = tmp_path_factory.mktemp("loader") / "records"
    write_records(path, (Row(f"{n}.png", png(n, 9, 7), f"p{(n * 7) % 5}") for n in range(COUNT)))
    return Records(path)


def same(ours: list[Batch], theirs: list[Batch]) -> bool:
    return len(ours) == len(theirs) and all(
        torch.equal(a.pixels, b.pixels) and torch.equal(a.labels, b.labels) and torch.equal(a.rows, b.rows)
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_pixels_labels_and_rows_belong_together(records: Records, workers: int) -> None:
    part = part_of(records, np.arange(COUNT)[::-2].copy())
    loader = Loader(records, part, Shuffled(len(part.rows), 4, 3), workers=workers)
    assert loader.steps == 3
    for epoch in range(2):
        seen = []
        for batch in loader.epoch(epoch):
            assert (batch.pixels.dtype, list(batch.pixels.shape[1:])) == (torch.uint8, [3, 7, 9])
            for pixels, label, row in zip(batch.pixels, batch.labels.tolist(), batch.rows.tolist(), strict=True):
                assert np.array_equal(pixels.permute(1, 2, 0).numpy(), noise(row, 9, 7))
                assert part.names[label] == f"p{(row * 7) % 5}"
                seen.append(row)
        assert sorted(seen) == sorted(part.rows.tolist())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_epoch_is_the_rest_of_the_whole_one(records: Records, workers: int) -> None:
    part = part_of(records)
    for sampler in (Shuffled(COUNT, 4, 3), Balanced(part.labels, 3, 2, 3)):
        whole = Loader(records, part, sampler, augment=Augment(0.5, 2, 0.5, 0.5, 0.5), workers=workers)
        first = list(whole.epoch(2))
        left = whole.epoch(2)
        next(left)
        left.close()  # a run that stops in the middle of an epoch
        assert same(list(whole.epoch(2)), first)
        resumed = Loader(records, part, sampler, augment=Augment(0.5, 2, 0.5, 0.5, 0.5), workers=0)
        assert same(list(resumed.epoch(2, 2)), first[2:])
        assert not same(list(resumed.epoch(1)), first)


def test_ranks_see_other_images_and_other_chances(records: Records) -> None:
    part = part_of(records)
    loaders = [Loader(records, part, Shuffled(COUNT, 4, 0, rank, 2), workers=0) for rank in range(2)]
    rows = [torch.cat([batch.rows for batch in loader.epoch(0)]).tolist() for loader in loaders]
    assert sorted(rows[0] + rows[1]) == list(range(COUNT))
    states = [loader._generator(0, 0).get_state() for loader in loaders]
    assert not torch.equal(states[0], states[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path, workers: int) -> None:
    torn = bytearray(png(1, 40, 40))
    torn[200] ^= 1
    write_records(tmp_path / "r", [Row("a", png(0, 40, 40), "x"), Row("b", bytes(torn), "x")])
    records = Records(tmp_path / "r")
    loader = Loader(records, part_of(records), Shuffled(2, 2), workers=workers)
    with pytest.raises(InputError, match=r"^row 1 of .*/r must be a whole PNG; decoding it gave: "):
        list(loader.epoch(0))


def test_an_image_that_its_tag_turns_is_named(tmp_path: Path) -> None:
    write_records(tmp_path / "r", [Row("a", png(0, 9, 7), "x"), Row("b", turned(noise(1, 9, 7), 6, "PNG"), "x")])
    records = Records(tmp_path / "r")
    with pytest.raises(InputError, match=r"row 1 of .* must be 9x7 as the others; got 7x9, as its EXIF tag turns it"):
        list(Loader(records, part_of(records), Shuffled(2, 2), workers=0).epoch(0))


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
    with pytest.raises(InputError, match="sampler must be over the 23 rows of the part"):
        Loader(records, part_of(records), Shuffled(COUNT + 1, 4))
    with pytest.raises(InputError, match="workers"):
        Loader(records, part_of(records), Shuffled(COUNT, 4), workers=-1)


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
    part = part_of(records)
    loader = Loader(records, part, Balanced(part.labels, 32, 4, 0), augment=Augment(0.5, 4), workers=2)
    batches = [batch for _, batch in zip(range(6), loader.epoch(0), strict=False)]
    assert all(batch.pixels.shape == (128, 3, 112, 112) for batch in batches)
    plain = Loader(records, part, Balanced(part.labels, 32, 4, 0), workers=0)
    batch = next(plain.epoch(0))
    assert torch.equal(batch.rows, batches[0].rows)
    images = [decode(image) for image in records.images(batch.rows.numpy())]
    assert np.array_equal(batch.pixels.permute(0, 2, 3, 1).numpy(), np.stack(images))
    assert encoded(images[0])
