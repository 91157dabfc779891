"""How features form: what is kept of which epochs, the same after a stop as without one, and damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import angulus
import tiny
from angulus.core.checks import InputError
from angulus.experiments.run import run
from angulus.training import formation


def features(epoch: int) -> np.ndarray:
    return np.full((3, 2), epoch, dtype=np.float32)


ROWS = np.array([0, 4, 9])


def test_a_run_keeps_the_features_before_training_and_after_every_epoch(tmp_path: Path) -> None:
    run(tiny.validated("training.epochs=3"), tmp_path, splits=tiny.splits())
    found = formation.read(tmp_path)
    assert found.epochs.tolist() == [0, 1, 2, 3]
    assert found.features.shape == (4, tiny.TEST, 4)
    assert found.features.dtype == np.float32
    with np.load(tmp_path / "test.npz") as test:
        assert np.array_equal(found.features[-1], test["features"][found.rows])
    assert all(not np.allclose(one, other) for one, other in zip(found.features, found.features[1:], strict=False))
    model = angulus.load(tmp_path / "model")  # the last ones are the trained model's own
    assert np.allclose(found.features[-1], model.embed(tiny.splits().test.pixels[found.rows]).numpy(), atol=1e-6)


def test_a_stopped_run_keeps_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    chosen = tiny.validated("training.epochs=3", "training.checkpoint_every=4")
    run(chosen, tmp_path / "whole", splits=tiny.splits())

    class Cut(Exception):
        pass

    def cut(done: int, steps: int, loss: float) -> None:
        if done == 7:  # the last checkpoint is of step 4: the end of the first epoch, step 5, comes again
            raise Cut

    with pytest.raises(Cut):
        run(chosen, tmp_path / "cut", splits=tiny.splits(), on_step=cut)
    assert formation.read(tmp_path / "cut").epochs.tolist() == [0, 1]
    run(chosen, tmp_path / "cut", resume=True, splits=tiny.splits())
    whole, resumed = formation.read(tmp_path / "whole"), formation.read(tmp_path / "cut")
    assert np.array_equal(whole.epochs, resumed.epochs)
    assert np.array_equal(whole.features, resumed.features)


def test_an_epoch_takes_the_place_of_itself_and_of_later_ones(tmp_path: Path) -> None:
    for epoch in (0, 1, 2, 3):
        formation.record(tmp_path, epoch, ROWS, features(epoch))
    formation.record(tmp_path, 2, ROWS, features(20))
    found = formation.read(tmp_path)
    assert found.epochs.tolist() == [0, 1, 2]
    assert found.features[:, 0, 0].tolist() == [0, 1, 20]
    formation.record(tmp_path, 3, ROWS + 1, features(3))  # other images: what was kept is of no use
    assert formation.read(tmp_path).epochs.tolist() == [3]
    formation.record(tmp_path, 0, ROWS, features(0))  # a run from the start
    assert formation.read(tmp_path).epochs.tolist() == [0]


@pytest.mark.parametrize(("epochs", "most"), [(1, 2), (40, 41), (41, 22), (1000, 41)])
def test_long_runs_keep_some_epochs_the_first_and_the_last_among_them(epochs: int, most: int) -> None:
    chosen = [epoch for epoch in range(epochs + 1) if formation.is_recorded(epoch, epochs)]
    assert len(chosen) == most
    assert (chosen[0], chosen[-1]) == (0, epochs)


def test_wide_features_are_kept_of_fewer_images() -> None:
    for size in (2, 64, 512, 100_000):
        rows = formation.sample(10_000, size)
        assert len(set(rows.tolist())) == len(rows) <= 500
        assert len(rows) == 1 or len(rows) * size <= 65_536
    assert formation.sample(10_000, 2)[[0, -1]].tolist() == [0, 9_999]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"features"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / formation.NAME).write_bytes(content)
    with pytest.raises(InputError, match=r"formation\.npz cannot be read .*remove it"):
        formation.read(tmp_path)


def test_a_flipped_bit_never_reads_as_other_features(tmp_path: Path) -> None:
    features = np.array([[0.5, -1.0], [2.0, 0.25]], np.float32)
    formation.record(tmp_path, 0, np.arange(2), features)
    whole = (tmp_path / formation.NAME).read_bytes()
    refused = 0
    for place in range(len(whole)):
        for bit in (1, 64):
            (tmp_path / formation.NAME).write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            try:
                assert (formation.read(tmp_path).features == features).all(), (place, bit)
            except InputError:
                refused += 1
    assert refused > 16


def test_a_file_of_other_shapes_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / formation.NAME, rows=ROWS, epochs=np.arange(2), features=np.zeros((2, 2, 2), np.float32))
    with pytest.raises(InputError, match=r"must hold features \[epochs, images, size\]; got \[2, 2, 2\] for 2 epochs"):
        formation.read(tmp_path)
