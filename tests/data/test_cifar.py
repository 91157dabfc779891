"""CIFAR's binary version: archives written here in the published layout, small, and what is wrong with bad ones."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from angulus import InputError, data
from angulus.data.sets import cifar
from archives import unpack
from data.mirrors import Mirrors

COUNTS = {"train": 200, "test": 100}
NAMES = {
    "cifar10": [f"class {k}" for k in range(10)],
    "cifar100": [f"fine_{k}" for k in range(100)],
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No real folder is looked in; a set has 200 and 100 images."""
    monkeypatch.delenv("ANGULUS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar, "IMAGES", COUNTS)


def images(name: str, count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """[N, height, width, 3] pixels, and as many images of each class in a mixed order."""
    chance = np.random.default_rng(seed)
    classes = len(NAMES[name])
    return chance.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), chance.permutation(np.arange(count) % classes)


def binary(name: str, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    """The published layout, byte by byte: label (CIFAR-100: superclass, then label), 1,024 red, green, blue."""
    out = bytearray()
    for image, label in zip(pixels, labels, strict=True):
        out += bytes([label]) if name == "cifar10" else bytes([19, label])
        for channel in range(3):
            out += image[:, :, channel].tobytes()
    return bytes(out)


def members(name: str) -> dict[str, bytes]:
    (train, train_labels), (test, test_labels) = images(name, 200, 0), images(name, 100, 1)
    lines = ("\n".join(NAMES[name]) + "\n\n").encode()
    if name == "cifar100":
        folder = "cifar-100-binary/"
        return {
            folder + "coarse_label_names.txt": b"a\nb\n",
            folder + "fine_label_names.txt": lines,
            folder + "test.bin": binary(name, test, test_labels),
            folder + "train.bin": binary(name, train, train_labels),
        }
    folder = "cifar-10-batches-bin/"
    parts = {
        folder + f"data_batch_{k + 1}.bin": binary(
            name, train[40 * k : 40 * (k + 1)], train_labels[40 * k : 40 * (k + 1)]
        )
        for k in range(5)
    }
    # in another order than one reads them, as in the official archive
    return {
        folder + "data_batch_1.bin": parts.pop(folder + "data_batch_1.bin"),
        folder + "batches.meta.txt": lines,
        folder + "data_batch_3.bin": parts.pop(folder + "data_batch_3.bin"),
        **parts,
        folder + "test_batch.bin": binary(name, test, test_labels),
        folder + "readme.html": b"<html>",
    }


def packed(contents: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def publish(monkeypatch: pytest.MonkeyPatch, name: str, archive: bytes) -> None:
    """Let the archive be the published one for this test."""
    version = cifar.VERSIONS[name]
    changed = type(version)(**{**vars(version), "md5": hashlib.md5(archive).hexdigest()})
    monkeypatch.setitem(cifar.VERSIONS, name, changed)


def put(folder: Path, name: str, archive: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / cifar.VERSIONS[name].archive
    path.write_bytes(archive)
    return path


@pytest.mark.parametrize("unpacked", [False, True], ids=["archive", "unpacked"])
@pytest.mark.parametrize("name", NAMES)
def test_pixels_labels_and_names_are_as_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, unpacked: bool
) -> None:
    archive = packed(members(name))
    publish(monkeypatch, name, archive)
    if unpacked:
        with tarfile.open(fileobj=io.BytesIO(archive)) as file:
            unpack(file, tmp_path / "here")
    else:
        put(tmp_path / "here", name, archive)
    splits = data.load(name, root=tmp_path / "here")
    for part, count, seed in ((splits.train, 200, 0), (splits.test, 100, 1)):
        pixels, labels = images(name, count, seed)
        assert torch.equal(part.pixels[:], torch.from_numpy(pixels).permute(0, 3, 1, 2))
        assert part.labels.tolist() == labels.tolist()
        assert part.class_names == tuple(NAMES[name])
    assert not splits.generated
    said = "counts checked" if unpacked else cifar.VERSIONS[name].md5
    assert str(tmp_path / "here") in splits.source and said in splits.source


def test_places_and_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Mirrors) -> None:
    archive = packed(members("cifar10"))
    publish(monkeypatch, "cifar10", archive)
    monkeypatch.setattr(cifar, "MIRRORS", (server.holds("good", {"cifar-10-binary.tar.gz": archive}),))
    with pytest.raises(InputError) as raised:
        data.load("cifar10")
    assert str(raised.value) == (
        "CIFAR-10 needs cifar-10-binary.tar.gz, or its folder cifar-10-batches-bin; looked in "
        f"{tmp_path}/cache/angulus/cifar10; set ANGULUS_DATA to a folder that holds cifar10/, or fetch it with "
        "`angulus data cifar10 --download` or data.download=true"
    )
    assert len(data.load("cifar10", download=True).train) == 200
    assert [path.name for path in (tmp_path / "cache/angulus/cifar10").iterdir()] == ["cifar-10-binary.tar.gz"]
    data.load("cifar10", download=True)
    assert len(server.asked) == 1  # it was there the second time
    monkeypatch.setenv("ANGULUS_DATA", str(tmp_path / "data"))
    put(tmp_path / "data" / "cifar10", "cifar10", archive)
    assert str(tmp_path / "data") in data.load("cifar10").source


def test_a_bad_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Mirrors) -> None:
    archive = packed(members("cifar100"))
    publish(monkeypatch, "cifar100", archive)
    name = "cifar-100-binary.tar.gz"
    monkeypatch.setattr(cifar, "MIRRORS", (server.holds("bad", {name: archive[:-1] + b"x"}),))
    with pytest.raises(InputError, match=f"mirrors must give {name} .*not {cifar.VERSIONS['cifar100'].md5}; try again"):
        data.load("cifar100", root=tmp_path / "here", download=True)
    server.answers["bad"][name] = (200, archive[:1000], len(archive))
    with pytest.raises(InputError, match=f"the body ended after 1000 of {len(archive)} bytes"):
        data.load("cifar100", root=tmp_path / "here", download=True)
    assert list((tmp_path / "here" / "cifar100").iterdir()) == []


def changed(name: str, change: Callable[[dict[str, bytes]], object]) -> bytes:
    contents = members(name)
    change(contents)
    return packed(contents)


BATCH = "cifar-10-batches-bin/data_batch_2.bin"
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut": (lambda: packed(members("cifar10"))[:-5000], "must be a whole archive"),
    "no gzip": (lambda: b"<html>not found</html>", "must be a whole archive"),
    "leaves": (
        lambda: changed("cifar10", lambda has: has.update({"../../outside": b"x"})),
        r"must not hold '../../outside': its path leaves the archive",
    ),
    "absolute": (lambda: changed("cifar10", lambda has: has.update({"/etc/x": b"x"})), "its path leaves the archive"),
    "missing": (lambda: changed("cifar10", lambda has: has.pop(BATCH)), f"must hold {BATCH}; it does not"),
    "short": (
        lambda: changed("cifar10", lambda has: has.update({BATCH: has[BATCH][:-1]})),
        r"data_batch_2.bin must have 122920 bytes, 40 images of 3073; got 122919",
    ),
    "label": (
        lambda: changed("cifar10", lambda has: has.update({BATCH: b"\x0a" + has[BATCH][1:]})),
        r"train files must hold 20 images of each of 10 classes; got \d+ to \d+ of 11",
    ),
    "names": (
        lambda: changed("cifar10", lambda has: has.update({"cifar-10-batches-bin/batches.meta.txt": b"cat\ncat\n"})),
        "batches.meta.txt must hold 10 names, each once; got 1",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_archives_end_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    make, sentence = BAD[bad]
    archive = make()
    publish(monkeypatch, "cifar10", archive)
    path = put(tmp_path, "cifar10", archive)
    with pytest.raises(InputError, match=rf"{tmp_path}.*{sentence}"):
        data.load("cifar10", root=tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_the_place_of_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        info = tarfile.TarInfo(BATCH)
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    publish(monkeypatch, "cifar10", stream.getvalue())
    put(tmp_path, "cifar10", stream.getvalue())
    with pytest.raises(InputError, match=f"must hold {BATCH} once, as a file of its size"):
        data.load("cifar10", root=tmp_path)


def test_another_archive_than_the_published_one_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "cifar10", packed(members("cifar10")))
    with pytest.raises(InputError, match=r"must have the published md5 c32a1d4a.*got .*; delete it and fetch it again"):
        data.load("cifar10", root=tmp_path)


def test_unpacked_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for name, content in members("cifar100").items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "cifar-100-binary" / "test.bin").write_bytes(b"x")
    with pytest.raises(InputError, match=r"test.bin must have 307400 bytes, 100 images of 3074; got 1"):
        data.load("cifar100", root=tmp_path)
    with (tmp_path / "cifar-100-binary" / "test.bin").open("wb") as file:
        file.truncate(2**33)  # not read, and sparse: it takes no space
    with pytest.raises(InputError, match=r"test.bin must have at most [0-9,]+ bytes"):
        data.load("cifar100", root=tmp_path)
