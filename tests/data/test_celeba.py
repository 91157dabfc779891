"""CelebA: its lists and images, written here small, from a folder, a zip and records."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from angulus import InputError, data
from angulus.data.records import Row, write_records
from angulus.data.sets import celeba

# 1 has 11 images, 7 has 10, 30 has 3 images: the 10th is held out
IDENTITIES = [7, 1, 30, 1, 7, 1, 1, 7, 30, 1, 7, 1, 7, 1, 7, 1, 7, 30, 1, 7, 1, 7, 1, 7]
NAMES = [f"{number:06d}.jpg" for number in range(1, len(IDENTITIES) + 1)]
PART = {1: 0, 7: 1, 30: 2}


def png(value: int, size: tuple[int, int] = (6, 5)) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lists; images of the grey of their number; the counts of this small set are the published ones."""
    monkeypatch.delenv("ANGULUS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(celeba, "PUBLISHED", (24, 3))
    monkeypatch.setattr(celeba, "PARTS", {"train": 11, "valid": 10, "test": 3})
    root = tmp_path / "celeba"
    root.mkdir()
    lines = [f"{name} {identity}" for name, identity in zip(NAMES, IDENTITIES, strict=True)]
    (root / celeba.IDENTITIES).write_text("\n".join(lines) + "\n")
    lines = [f"{name} {PART[identity]}" for name, identity in zip(NAMES, IDENTITIES, strict=True)]
    (root / celeba.PARTITION).write_text("\n".join(reversed(lines)) + "\n")
    return root


def put_images(root: Path, zipped: bool, names: list[str] = NAMES) -> None:
    if not zipped:
        (root / "img_align_celeba").mkdir()
    with zipfile.ZipFile(root / "img_align_celeba.zip", "w") if zipped else zipfile.ZipFile(io.BytesIO(), "w") as file:
        for name in names:
            content = png(int(name[:6]))
            if zipped:
                file.writestr(f"img_align_celeba/{name}", content)
            else:
                (root / "img_align_celeba" / name).write_bytes(content)


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_every_tenth_image_of_an_identity_is_held_out(folder: Path, zipped: bool) -> None:
    put_images(folder, zipped)
    splits = data.load("celeba", root=folder)
    numbers = np.arange(1, 25)
    identities = np.array(IDENTITIES)
    held_out = [int(numbers[identities == one][9]) for one in (1, 7)]
    assert splits.test.pixels[:, 0, 0, 0].tolist() == sorted(held_out)
    assert splits.train.pixels[:, 0, 0, 0].tolist() == [n for n in numbers.tolist() if n not in held_out]
    assert splits.train.class_names == ("1", "7", "30")  # as numbers, not as text
    shown = [int(splits.train.class_names[label]) for label in splits.train.labels.tolist()]
    assert shown == [IDENTITIES[n - 1] for n in numbers.tolist() if n not in held_out]
    assert splits.train.pixels.shape[1:] == (3, 6, 5)
    assert "24 images of 3 identities" in splits.source and not splits.generated


def test_all_images_are_tested_on_where_that_is_asked_for(folder: Path) -> None:
    put_images(folder, zipped=False)
    splits = data.load("celeba", root=folder, test="trained_on")
    assert len(splits.train) == len(splits.test) == 24
    assert "tested on what is trained on" in splits.source


@pytest.mark.parametrize(("part", "identity"), [("train", 1), ("valid", 7)])
def test_a_part_of_the_partition_has_its_own_identities(folder: Path, part: str, identity: int) -> None:
    put_images(folder, zipped=True)
    splits = data.load("celeba", root=folder, part=part)
    assert splits.train.class_names == (str(identity),)
    assert len(splits.train) + len(splits.test) == IDENTITIES.count(identity)


def test_a_zip_is_read_by_other_processes_and_threads(folder: Path) -> None:
    put_images(folder, zipped=True)
    images = pickle.loads(pickle.dumps(celeba.open_images(folder)))
    rows = [images.names[name] for name in ("000003.jpg", "000001.jpg", "000003.jpg")]
    assert images.images(rows) == [png(3), png(1), png(3)]


def test_sets_beyond_memory_are_decoded_when_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_images(folder, zipped=True)
    whole = data.load("celeba", root=folder).train
    monkeypatch.setattr("angulus.data.sets.identity_sets.IN_MEMORY_BYTES", 0)
    lazy = data.load("celeba", root=folder).train
    assert isinstance(whole.pixels, torch.Tensor) and not isinstance(lazy.pixels, torch.Tensor)
    assert lazy.pixels.shape == whole.pixels.shape and lazy.pixels.dtype == torch.uint8
    for rows in (torch.tensor([5, 0, 5]), slice(3, 9)):
        assert torch.equal(lazy.pixels[rows], whole.pixels[rows])


def test_records_are_taken_with_their_own_identities(folder: Path) -> None:
    write_records(folder / "records", (Row(f"{n}.png", png(n), str(n % 2)) for n in range(20)))
    assert len(data.load("celeba", root=folder / "records").test) == 2
    with pytest.raises(InputError, match="part must be 'all' with records"):
        data.load("celeba", root=folder / "records", part="train")


def test_what_is_missing_or_wrong_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs identity_CelebA.txt .* in .*nowhere.*`angulus data celeba` says"):
        data.load("celeba", root=tmp_path / "nowhere")
    with pytest.raises(InputError, match="'celeba' cannot be downloaded for you: agree to the terms on https"):
        data.load("celeba", root=folder, download=True)
    with pytest.raises(InputError, match="part must be one of 'all', 'train', 'valid', 'test'; got 'val'"):
        data.load("celeba", root=folder, part="val")
    with pytest.raises(InputError, match="test must be one of 'held_out', 'trained_on'; got 'all'"):
        data.load("celeba", root=folder, test="all")
    with pytest.raises(InputError, match=r"must hold img_align_celeba/ or img_align_celeba\.zip"):
        data.load("celeba", root=folder)
    put_images(folder, zipped=False, names=NAMES[1:])
    with pytest.raises(InputError, match=r"lacks 1, 000001.jpg first"):
        data.load("celeba", root=folder)
    (folder / "img_align_celeba" / "000001.jpg").write_bytes(png(1, (8, 5)))
    with pytest.raises(InputError, match=r"row 1 of .*img_align_celeba must be 5x8 as the others; got 5x6"):
        data.load("celeba", root=folder)
    (folder / "img_align_celeba" / "000001.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"000001.jpg of .* must be an image"):
        data.load("celeba", root=folder)


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("identity_CelebA.txt", "000001.jpg 7\n000001.jpg 7\n", r"line 2 must be an image and the number"),
        ("identity_CelebA.txt", "000001.jpg seven\n", r"line 1 must be an image and the number of its identity"),
        ("identity_CelebA.txt", f"000001.jpg {'9' * 5000}\n", r"line 1 must be an image and the number"),
        ("identity_CelebA.txt", "000001.jpg \u00b2\n", r"line 1 must be an image and the number"),
        ("identity_CelebA.txt", "000001.jpg 7\n", r"published 24 images of 3 identities; got 1 of 1"),
        ("list_eval_partition.txt", "000001.jpg 3\n", r"line 1 must be an image and 0, 1 or 2"),
        ("list_eval_partition.txt", "000001.jpg 0\n", r"must name the images that identity_CelebA.txt names"),
        (
            "list_eval_partition.txt",
            "".join(f"{n} 0\n" for n in NAMES),
            r"\[11, 10, 3\] images .*; got \[24, 0, 0\]",
        ),
    ],
)
def test_bad_lists_are_refused(folder: Path, file: str, text: str, sentence: str) -> None:
    put_images(folder, zipped=False)
    (folder / file).write_text(text)
    with pytest.raises(InputError, match=rf"{file} {sentence}|{file} must .*{sentence}"):
        data.load("celeba", root=folder, part="train")


def test_bad_zips_are_refused(folder: Path) -> None:
    path = folder / "img_align_celeba.zip"
    path.write_bytes(b"PK no zip")
    with pytest.raises(InputError, match="must be a whole zip"):
        data.load("celeba", root=folder)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../../000001.jpg", png(1))
    with pytest.raises(InputError, match="its path leaves the archive"):
        data.load("celeba", root=folder)
    put_images(folder, zipped=True)
    content = bytearray(path.read_bytes())
    content[content.index(b"IHDR")] ^= 0xFF  # in the first image
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"000001.jpg: it cannot be unpacked: .*CRC"):
        data.load("celeba", root=folder)


def test_a_zip_of_another_system(folder: Path) -> None:
    put_images(folder, zipped=True)
    path = folder / "img_align_celeba.zip"
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name.replace("/", "\\"), content)
            file.writestr(f"__MACOSX/._{name.rpartition('/')[2]}", b"\0\5\x16\7")
    assert len(data.load("celeba", root=folder).train) > 0
