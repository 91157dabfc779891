"""Images read ahead by worker processes, images that cannot be read, and which images an epoch takes."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import tiny
from angulus.core.checks import InputError
from angulus.data import load, loader
from angulus.data.convert import LEFT_OUT
from angulus.data.loader import data_loader, read_batches
from angulus.data.sets import identity_sets
from angulus.distributed.runtime import Ranks
from angulus.experiments import build
from angulus.experiments.run import run
from angulus.training.batches import epoch_batches, rank_rows, remaining_batches, steps_per_epoch
from angulus.training.reading import Unreadable, listed_names
from angulus.training.settings import Training

CLASSES, EACH = 3, 20


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images that are decoded when they are needed, as those that do not fit in memory are."""
    monkeypatch.setattr(identity_sets, "IN_MEMORY_BYTES", 0)
    random = np.random.default_rng(0)
    for label, number in itertools.product(range(CLASSES), range(EACH)):
        path = tmp_path / "photos" / f"class-{label}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(80 * label, 80 * label + 60, (8, 8, 3), np.uint8)).save(path)
    return tmp_path / "photos"


def damage(path: Path) -> None:
    """Keep the header and spoil the pixels."""
    data = bytearray(path.read_bytes())
    place = data.index(b"IDAT") + 4
    data[place : place + 40] = bytes(40)
    path.write_bytes(data)


def trained(photos: Path, folder: Path, *overrides: str, **options: Any) -> dict[str, Any]:
    recipe = tiny.validated("data={path: " + str(photos) + "}", *overrides)
    return run(recipe, folder, **options)


def weights(folder: Path) -> dict[str, Any]:
    return {key: value for key, value in tiny.outcome(folder).items() if key != "results"}


def test_workers_change_no_number_and_end_with_the_training(photos: Path, tmp_path: Path) -> None:
    damage(photos / "class-1" / "07.png")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    with pytest.warns(
        UserWarning, match=r"class-1/07.png cannot be read: row 27 of .* must be a whole PNG; .*lists it"
    ):
        results = [trained(photos, tmp_path / f"{n}", f"training.workers={n}") for n in (0, 2)]
    assert tiny.differences(weights(tmp_path / "0"), weights(tmp_path / "2")) == []
    assert not multiprocessing.active_children()
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + CLASSES * EACH  # the images' own files, once each
    for number, result in zip((0, 2), results, strict=True):
        assert result["left_out"] == {"images": 1, "list": LEFT_OUT}
        (line,) = (tmp_path / f"{number}" / LEFT_OUT).read_text().splitlines()
        assert json.loads(line)["where"] == "class-1/07.png"


def test_five_hundred_batches_leave_nothing_behind(photos: Path) -> None:
    pixels: Any = load("files", path=photos).train.pixels
    rows = [torch.randint(len(pixels), (4,), generator=torch.Generator().manual_seed(n)) for n in range(500)]
    for read, wanted in zip(read_batches(data_loader(pixels, rows, 2, pin=False)), rows, strict=True):
        images, bad = read
        assert bad == {} and images.shape == (4, 3, 8, 8)
        if wanted is rows[-1]:
            assert torch.equal(images, pixels[wanted])
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_is_told_in_a_sentence(photos: Path) -> None:
    class Ends:
        def read(self, rows: Tensor) -> Any:
            os._exit(9)

    with pytest.raises(
        InputError, match=r"processes that read images must keep running; .*lower the number of workers"
    ):
        list(read_batches(data_loader(Ends(), [torch.arange(2)], 1, pin=False)))


def test_too_many_unreadable_images_stop_a_training_that_can_go_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "FEWEST_BAD", 0)
    for number in range(3):
        damage(photos / "class-0" / f"{number:02}.png")
    run_folder, whole = tmp_path / "run", tmp_path / "whole"
    with pytest.warns(UserWarning, match="cannot be read"):
        with pytest.raises(
            InputError, match=r"at most 1 of the 54 images .*may be unreadable; got [23], .*data.most_bad"
        ):
            trained(photos, run_folder, "data.most_bad=0.02")
        stopped = tiny.load_checkpoint(run_folder / "checkpoint.pt")["progress"]["step"]
        assert 0 < stopped < 8
        resumed = trained(photos, run_folder, "data.most_bad=0.5", resume=True)
        trained(photos, whole, "data.most_bad=0.5")
    assert tiny.differences(weights(run_folder), weights(whole)) == []
    assert resumed["left_out"]["images"] == 3 == len((run_folder / LEFT_OUT).read_text().splitlines())
    with pytest.raises(InputError, match=r"row [0-2] of .* must be a whole PNG"):
        trained(photos, tmp_path / "strict", "data.on_error=stop")


def test_too_many_unreadable_images_to_test_on_give_no_results(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "FEWEST_BAD", 0)
    for number in (9, 19):  # the images that are held out
        damage(photos / "class-0" / f"{number:02}.png")
    sentence = r"at most 0 of the 6 images .*may be unreadable; got 2, class-0/09.png first"
    with pytest.warns(UserWarning, match="09.png cannot be read"), pytest.raises(InputError, match=sentence):
        trained(photos, tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()
    resumed = trained(photos, tmp_path / "run", "data.most_bad=0.5", resume=True)
    assert resumed["left_out"]["images"] == 2


def test_processes_list_an_image_once_and_count_those_of_all(photos: Path, tmp_path: Path) -> None:
    images = load("files", path=photos, most_bad=0.2).train
    limit = images.pixels.limit  # type: ignore[union-attr]
    left_out = '{"where": "class-2/19.png", "reason": "gone", "image": true}\n'
    (tmp_path / LEFT_OUT).write_text(left_out)  # before the training
    lists = [Unreadable(tmp_path, images) for _ in range(2)]
    for row in range(limit + 1):
        refused = [each.add({row: "torn"}) for each in (lists[row % 2], lists[1 - row % 2])]
        assert [error is None for error in refused] == [row < limit] * 2
    assert "got 11" in str(refused[0]) and limit == 10
    assert (tmp_path / LEFT_OUT).read_text().count("\n") == limit + 2
    assert len(listed_names(tmp_path)) == limit + 2


def test_a_list_that_was_cut_short_is_read(tmp_path: Path) -> None:
    (tmp_path / LEFT_OUT).write_text('{"where": "a.png", "reason": "gone"}\n{"where": "b.p')
    assert listed_names(tmp_path) == {"a.png"}


# samplers

COUNTS = (40, 9, 3, 1)  # images of each class; the fifth class has none
LABELS = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))
SHARES = {
    "{kind: balanced}": [1 / 4] * 4,
    "{kind: square_root}": [n**0.5 / sum(m**0.5 for m in COUNTS) for n in COUNTS],
    # sum(0.9 ** i for i < n) is the effective number of n images, written out
    "{kind: effective_number, beta: 0.9}": [
        (n / sum(0.9**i for i in range(n))) / sum(m / sum(0.9**i for i in range(m)) for m in COUNTS) for n in COUNTS
    ],
}


def settings(sampler: str, batch_size: int = 8) -> Training:
    return tiny.validated(f"training.sampler={sampler}", f"training.batch_size={batch_size}").training


@pytest.mark.parametrize("sampler", SHARES)
def test_classes_have_their_share_of_every_epoch(sampler: str) -> None:
    total: Counter[int] = Counter()
    epochs = 40
    for epoch in range(epochs):
        parts = epoch_batches(LABELS, settings(sampler), epoch)
        assert [len(part) for part in parts] == [8] * 6 + [5]
        rows = torch.cat(parts).tolist()
        of_class = Counter(LABELS[rows].tolist())
        for label, share in enumerate(SHARES[sampler]):
            assert abs(of_class[label] - share * len(LABELS)) < 1
            times = Counter(row for row in rows if LABELS[row] == label)
            assert max(times.values()) - min(times.values()) <= 1 or len(times) < COUNTS[label]
            assert max(times.values()) <= -(-of_class[label] // COUNTS[label])  # all images before one comes again
        total += of_class
    for label, share in enumerate(SHARES[sampler]):
        assert total[label] / epochs == pytest.approx(share * len(LABELS), abs=0.3)


@pytest.mark.parametrize("sampler", [*SHARES, "{kind: p_k, images_per_class: 4}"])
def test_batches_are_the_same_after_a_stop_and_disjoint_between_ranks(sampler: str) -> None:
    chosen = settings(sampler)
    steps = steps_per_epoch(LABELS, chosen)
    whole = list(remaining_batches(LABELS, chosen, 0))
    assert len(whole) == chosen.epochs * steps
    for step in (1, steps - 1, steps, steps + 2):
        rest = list(remaining_batches(LABELS, chosen, step))
        assert all(torch.equal(one, other) for one, other in zip(rest, whole[step:], strict=True))
    assert not torch.equal(torch.cat(whole[:steps]).sort()[0], torch.cat(whole[steps:]).sort()[0]) or "p_k" in sampler
    shares = [torch.cat(rank_rows(whole[0], chosen, Ranks(rank, 3))) for rank in range(3)]
    assert torch.equal(torch.cat(shares), whole[0])


def test_p_times_k_has_k_images_of_p_classes_in_every_step() -> None:
    labels = torch.tensor([label for label in range(7) for _ in range(3 + 2 * label)])
    chosen = settings("{kind: p_k, images_per_class: 4}", 12)
    for rows in remaining_batches(labels, chosen, 0):
        assert list(Counter(labels[rows].tolist()).values()) == [4, 4, 4]
        assert all(
            len(set(rows[labels[rows] == label].tolist())) == min(4, 3 + 2 * label)
            for label in set(labels[rows].tolist())
        )


@pytest.mark.parametrize(
    ("sampler", "batch_size", "sentence"),
    [
        ("{kind: p_k, images_per_class: 5}", 16, "must be a multiple of training.sampler.images_per_class, 5"),
        ("{kind: p_k, images_per_class: 4}", 64, "at most 4 times the 10 classes that have images, 40; got 64"),
        ("{kind: pk}", 16, r"training.sampler.kind must be one of .*'p_k'; got 'pk'; did you mean 'p_k'"),
        ("{kind: effective_number, beta: 1.0}", 16, r"training.sampler.beta must be below 1; got 1.0"),
        ("balanced", 16, "training.sampler must be a mapping of keys to values; got 'balanced'"),
    ],
)
def test_samplers_that_do_not_fit_are_refused(sampler: str, batch_size: int, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build.job(tiny.validated(f"training.sampler={sampler}", f"training.batch_size={batch_size}"), tiny.splits())


def test_a_sampler_trains_and_resumes_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    from angulus.training.signals import Interrupted

    recipe = tiny.validated("training.sampler={kind: square_root}", "training.checkpoint_every=1")
    run(recipe, tmp_path / "whole", splits=tiny.splits())

    def stop(step: int, steps: int, loss: float) -> None:
        if step == 3:
            os.kill(os.getpid(), 15)

    with pytest.raises(Interrupted):
        run(recipe, tmp_path / "run", splits=tiny.splits(), on_step=stop)
    run(recipe, tmp_path / "run", splits=tiny.splits(), resume=True)
    assert tiny.differences(weights(tmp_path / "whole"), weights(tmp_path / "run")) == []
