"""Heads on disk; that they load on other numbers of ranks is compared in ranks.py."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from angulus import DenseHead, InputError, losses
from angulus.core import tensor_files
from angulus.heads import saving
from angulus.heads.saving import load_head, read_rows, read_weight, save_head

OBJECTIVE = losses.normface(16.0, learn=True)


def head(classes: int = 7, size: int = 4, objective: losses.Objective = OBJECTIVE) -> DenseHead:
    return DenseHead(size, classes, objective)


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    saved, loaded = head(), head()
    save_head(saved, tmp_path)
    load_head(loaded, tmp_path)
    assert all(
        bool((a == b).all()) for a, b in zip(saved.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    assert bool((read_weight(tmp_path) == saved.weight).all())


def test_a_save_that_fails_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = head(), head()
    save_head(first, tmp_path)

    def full(*_: object) -> None:
        raise InputError("the disk is full")

    monkeypatch.setattr(saving.files, "write_json", full)
    with pytest.raises(InputError, match="the disk is full"):
        save_head(second, tmp_path)
    assert bool((read_weight(tmp_path) == first.weight).all())


def test_a_full_disk_ends_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(tensor_files, "save_file", full)
    with pytest.raises(InputError, match=r"cannot write .*: No space left on device; free some space"):
        save_head(head(), tmp_path)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (head(classes=8), r"num_classes = 7, this one has 8"),
        (head(size=5), r"embedding_size = 4, this one has 5"),
        (head(objective=losses.softmax()), "another objective"),
    ],
    ids=["C", "d", "objective"],
)
def test_a_checkpoint_of_another_head_is_refused(other: DenseHead, said: str, tmp_path: Path) -> None:
    save_head(head(), tmp_path)
    with pytest.raises(InputError, match=said):
        load_head(other, tmp_path)


def test_what_is_not_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no readable head"):
        read_weight(tmp_path / "nothing")
    save_head(head(), tmp_path)
    index = json.loads((tmp_path / "head.json").read_text())
    shard = tmp_path / index["shards"][0]["file"]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-8])
    with pytest.raises(InputError, match="cannot be read"):
        load_head(head(), tmp_path)
    shard.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_weight(tmp_path)
    shard.write_bytes(whole)
    (tmp_path / index["common"]).write_bytes(b"rubbish")
    with pytest.raises(InputError, match="cannot be read"):
        load_head(head(), tmp_path)
    (tmp_path / "head.json").write_text(json.dumps(index | {"shards": []}))
    with pytest.raises(InputError, match="holds no readable head"):
        read_weight(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_classes": "6"},
        {"num_classes": 10**4000},
        {"embedding_size": 1.5},
        {"shards": [{"start": 0, "stop": "6", "file": "x"}]},
        {"shards": [{"start": 0, "stop": 6, "file": ["x"]}]},
        {"shards": [{"start": 0, "stop": 9, "file": "x"}, {"start": 9, "stop": 6, "file": "x"}]},
        {"shards": {"start": 0}},
        {"common": 3},
        {"optimizers": []},
        {"format": [1]},
    ],
)
def test_an_index_of_other_kinds_of_values_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    save_head(head(), tmp_path)
    index = json.loads((tmp_path / "head.json").read_text())
    (tmp_path / "head.json").write_text(json.dumps(index | changes))
    with pytest.raises(InputError, match="holds no readable head"):
        load_head(head(), tmp_path)
    with pytest.raises(InputError, match="holds no readable head"):
        read_weight(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "9" * 5000, "[1]", '"x"', "\udcff"])
def test_an_index_that_python_cannot_read_is_refused(text: str, tmp_path: Path) -> None:
    save_head(head(), tmp_path)
    (tmp_path / "head.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match="holds no readable head"):
        load_head(head(), tmp_path)


def test_a_head_of_a_size_that_nobody_has_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    save_head(head(), tmp_path)
    index = json.loads((tmp_path / "head.json").read_text())
    (tmp_path / "head.json").write_text(json.dumps(index | {"embedding_size": 10**12}))
    with pytest.raises(InputError, match="embedding_size = 1000000000000, this one has"):
        load_head(head(), tmp_path)


def test_the_index_cannot_point_outside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "head"
    save_head(head(), folder)
    index = json.loads((folder / "head.json").read_text())
    name = index["shards"][0]["file"]
    (folder / name).rename(tmp_path / name)
    index["shards"][0]["file"] = f"../{name}"
    (folder / "head.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="cannot be read"):
        read_weight(folder)


def test_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 6])

    def train(own: DenseHead, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        own(features, labels).backward()
        optimizer.step()

    through, stopped, resumed = head(), head(), head()
    stopped.load_state_dict(through.state_dict())
    one, two, three = (torch.optim.SGD(own.parameters(), lr=0.1, momentum=0.9) for own in (through, stopped, resumed))
    train(through, one)
    train(through, one)
    train(stopped, two)
    save_head(stopped, tmp_path, two)
    load_head(resumed, tmp_path, three)
    train(resumed, three)
    assert bool((resumed.weight == through.weight).all())
    assert bool((resumed.objective.radius.s == through.objective.radius.s).all())


def test_files_of_others_are_left_alone_and_old_ones_go(tmp_path: Path) -> None:
    stranger = tmp_path / "model.safetensors"
    stranger.write_bytes(b"someone else's")
    for _ in range(3):
        save_head(head(), tmp_path)
    assert stranger.read_bytes() == b"someone else's"
    assert len(list(tmp_path.iterdir())) == 4


def test_state_of_another_optimiser_is_refused(tmp_path: Path) -> None:
    saved = head()
    save_head(saved, tmp_path)
    other = torch.optim.Adam(saved.parameters())
    with pytest.raises(InputError, match=r"holds no state of Adam for weight \(it was saved with None\)"):
        load_head(saved, tmp_path, other)
    saved(torch.randn(3, 4), torch.tensor([0, 1, 2])).backward()
    factored = torch.optim.Adafactor([saved.weight])
    factored.step()
    with pytest.raises(InputError, match=r"Adafactor keeps .* of weight"):
        save_head(saved, tmp_path, factored)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_head_is_changed_only_once_everything_fits(tmp_path: Path) -> None:
    save_head(head(), tmp_path)
    index = json.loads((tmp_path / "head.json").read_text())
    from safetensors.torch import save_file

    save_file({"other": torch.zeros(2)}, tmp_path / index["common"])
    loaded = head()
    before = loaded.weight.detach().clone()
    with pytest.raises(InputError, match="is damaged"):
        load_head(loaded, tmp_path)
    assert bool((loaded.weight == before).all())
    del index["common"]
    (tmp_path / "head.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="holds no readable head"):
        load_head(loaded, tmp_path)


@pytest.mark.parametrize("rows", [None, range(2, 5)], ids=["all rows", "some rows"])
def test_a_flipped_bit_in_a_shard_is_refused_whatever_rows_are_read(rows: range | None, tmp_path: Path) -> None:
    save_head(head(), tmp_path)
    shard = next(tmp_path.glob("classes-*"))
    flip_last_byte(shard)
    with pytest.raises(InputError, match=rf"{shard.name} is damaged: the checksum of weight"):
        read_rows(tmp_path, rows)
    with pytest.raises(InputError, match=rf"{shard.name} is damaged"):
        load_head(head(), tmp_path)


def flip_last_byte(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 64  # of the last number, the highest bit of the exponent
    path.write_bytes(whole)


def test_a_file_without_checksums_is_read_as_before(tmp_path: Path) -> None:
    save_file({"weight": torch.arange(4.0)}, tmp_path / "old.safetensors")
    assert tensor_files.read(tmp_path / "old.safetensors")["weight"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_any_tensor_comes_back_and_its_checksum_is_zlibs(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "any.safetensors"
    value = (torch.arange(12) % 5).reshape(4, 3).to(dtype)
    tensor_files.write(path, {"some": value, "one": torch.tensor(2.5), "none": torch.empty(0, 3)})
    found = tensor_files.read(path)
    tensor_files.write(tmp_path / "empty.safetensors", {})  # what all ranks share of a head without state
    assert tensor_files.read(tmp_path / "empty.safetensors") == {}
    assert torch.equal(found["some"], value) and found["one"] == 2.5 and found["none"].shape == (0, 3)
    assert torch.equal(tensor_files.read(path, slice(1, 3), "some")["some"], value[1:3])
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["crc32 one"] == str(zlib.crc32(struct.pack("<f", 2.5)))
