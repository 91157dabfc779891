"""MNIST: the IDX reader, where the files are looked for, and their download from a server on this machine."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from angulus.core import limits
from angulus.core.checks import InputError
from angulus.data import load
from angulus.data.sets import digits as mnist
from data.mirrors import Mirrors

COUNTS = {"train": 5, "t10k": 3}
SIDE = 4


def idx(sizes: tuple[int, ...], body: bytes, *, kind: int = 0x08) -> bytes:
    return bytes([0, 0, kind, len(sizes)]) + b"".join(struct.pack(">I", size) for size in sizes) + body


def tiny_files() -> dict[str, bytes]:
    """The four IDX files, plain, of 5 training and 3 test images of 4x4 random bytes."""
    noise = random.Random(0)
    files = {}
    for part, count in COUNTS.items():
        files[f"{part}-images-idx3-ubyte"] = idx((count, SIDE, SIDE), noise.randbytes(count * SIDE * SIDE))
        files[f"{part}-labels-idx1-ubyte"] = idx((count,), bytes(noise.randrange(10) for _ in range(count)))
    return files


@pytest.fixture(autouse=True)
def tiny_mnist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """No real folder is looked in, and what counts as MNIST is tiny, except where a test asks for the real one."""
    monkeypatch.delenv("ANGULUS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    if "data_folder" not in request.fixturenames:
        monkeypatch.setattr(mnist, "COUNTS", COUNTS)
        monkeypatch.setattr(mnist, "SIDE", SIDE)


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The four tiny files as a mirror would hold them, their checksums being the official ones for this test."""
    files = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in tiny_files().items()}
    official = {name.removesuffix(".gz"): hashlib.md5(data).hexdigest() for name, data in files.items()}
    assert official.keys() == mnist.MD5.keys()
    monkeypatch.setattr(mnist, "MD5", {name: official[name] for name in mnist.MD5})
    return files


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def packed_files() -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(data) for name, data in tiny_files().items()}


def body_of(data: bytes, ndim: int) -> Tensor:
    return torch.tensor(list(data[4 + 4 * ndim :]), dtype=torch.uint8)


@pytest.mark.parametrize("pack", [True, False], ids=["gzipped", "plain"])
def test_reads_the_four_files(tmp_path: Path, pack: bool) -> None:
    files = tiny_files()
    folder = write(tmp_path / "here", packed_files() if pack else files)
    splits = load("mnist", root=folder)
    for part, prefix in ((splits.train, "train"), (splits.test, "t10k")):
        expected = body_of(files[f"{prefix}-images-idx3-ubyte"], 3).view(COUNTS[prefix], 1, SIDE, SIDE)
        assert torch.equal(part.pixels, expected)
        assert torch.equal(part.labels, body_of(files[f"{prefix}-labels-idx1-ubyte"], 1).long())
        assert part.class_names == tuple("0123456789")
    assert splits.name == "mnist"
    assert str(folder) in splits.source


def test_a_gzipped_file_goes_before_a_plain_one(tmp_path: Path) -> None:
    folder = write(tmp_path, {**packed_files(), "train-images-idx3-ubyte": b"damaged"})
    assert len(mnist.load_mnist(root=folder).train) == COUNTS["train"]


def test_real_files(data_folder: Path) -> None:
    folder = data_folder / "mnist"
    if not folder.is_dir():
        pytest.skip(f"needs MNIST's four files in {folder}")
    splits = mnist.load_mnist(root=data_folder)
    assert splits.train.pixels.shape == (60_000, 1, 28, 28)
    assert splits.test.pixels.shape == (10_000, 1, 28, 28)
    assert splits.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # the well-known first digits
    assert splits.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # The well-known mean and standard deviation of the training pixels.
    assert splits.train.pixels.double().mean().item() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert splits.train.pixels.double().std().item() / 255 == pytest.approx(0.3081, abs=5e-5)


@pytest.mark.parametrize("name", list(mnist.MD5))
def test_real_files_have_the_checksums_that_a_download_asks_for(data_folder: Path, name: str) -> None:
    path = data_folder / "mnist" / f"{name}.gz"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    assert hashlib.md5(path.read_bytes()).hexdigest() == mnist.MD5[name]


def test_read_idx_returns_the_sizes_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "some"
    path.write_bytes(idx((2, 1, 3), bytes([1, 2, 3, 4, 5, 255])))
    assert torch.equal(mnist.read_idx(path, 3), torch.tensor([[[1, 2, 3]], [[4, 5, 255]]], dtype=torch.uint8))


@pytest.mark.parametrize(
    ("data", "ndim", "sentence"),
    [
        (b"", 1, r"begins with 00000801; got an empty file"),
        (b"\x00\x00", 1, r"begins with 00000801; got 0000;"),
        (b"<html>not found</html>", 3, r"unsigned bytes with 3 dimensions, which begins with 00000803; got 3c68746d;"),
        (idx((2,), bytes(2)), 3, r"begins with 00000803; got 00000801;"),
        (idx((2,), bytes(2), kind=0x0D), 1, r"begins with 00000801; got 00000d01;"),
        (b"\x01" + idx((2,), bytes(2))[1:], 1, r"begins with 00000801; got 01000801;"),
        (gzip.compress(idx((2,), bytes(2)), mtime=0), 1, r"begins with 00000801; got 1f8b"),
        (idx((2, 2, 2), b"")[:12], 3, r"must have a header of 16 bytes; got 12;"),
        (idx((0,), b""), 1, r"must have sizes of at least 1; got \[0\];"),
        (idx((3,), bytes(2)), 1, r"exactly 3 bytes after its header, as its sizes \[3\] say; got 2;"),
        (idx((3,), bytes(4)), 1, r"exactly 3 bytes after its header, as its sizes \[3\] say; got 4;"),
        (idx((2**32 - 1,) * 3, bytes(4)), 3, r"exactly 79228162458924105385300197375 bytes .* got 4;"),
    ],
)
def test_read_idx_refuses_what_is_no_idx_file(tmp_path: Path, data: bytes, ndim: int, sentence: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"{path} .*{sentence}"):
        mnist.read_idx(path, ndim)


def gzip_damage() -> dict[str, bytes]:
    good = gzip.compress(idx((2000,), random.Random(1).randbytes(2000)))
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF
    checksum = bytearray(good)
    checksum[-8] ^= 0xFF
    return {
        "plain": idx((2,), bytes(2)),
        "cut": good[: len(good) // 2],
        "no trailer": good[:-8],
        "flipped": bytes(flipped),
        "checksum": bytes(checksum),
        "block": good[:10] + b"\xff" * 20,
        "garbage after": good + b"garbage",
    }


@pytest.mark.parametrize("damage", list(gzip_damage()))
def test_read_idx_refuses_a_damaged_gzip_file(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip_damage()[damage])
    with pytest.raises(InputError, match=rf"{path} must be a whole gzip file; got .+; delete it and fetch"):
        mnist.read_idx(path, 1)


def test_read_idx_refuses_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be a file that can be read; there is no such file"):
        mnist.read_idx(tmp_path / "absent", 1)
    with pytest.raises(InputError, match=r"must be a file that can be read; it is a folder"):
        mnist.read_idx(tmp_path, 1)
    with pytest.raises(InputError, match=r"ndim must be a whole number in \[1, 255\]; got 0"):
        mnist.read_idx(tmp_path, 0)
    with pytest.raises(InputError, match="path must be a path; got 3"):
        mnist.read_idx(3, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        (
            "t10k-labels-idx1-ubyte",
            idx((4,), bytes(4)),
            "images and labels must have the same number; got 3 in .* and 4 in",
        ),
        ("t10k-labels-idx1-ubyte", idx((3,), b"\x00\x0a\x09"), r"t10k-labels.* labels in \[0, 10\); got 10 at row 1"),
        (
            "train-images-idx3-ubyte",
            idx((5, 4, 3), bytes(60)),
            r"train-images.* must hold MNIST's \[5, 4, 4\] \(images, height, width\); got \[5, 4, 3\]",
        ),
    ],
)
def test_load_refuses_files_that_do_not_fit(tmp_path: Path, name: str, data: bytes, sentence: str) -> None:
    folder = write(tmp_path, {**tiny_files(), name: data})
    with pytest.raises(InputError, match=sentence):
        mnist.load_mnist(root=folder)


def test_load_refuses_another_number_of_images_than_mnist_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "COUNTS", {"train": 6, "t10k": 3})
    with pytest.raises(InputError, match=r"must hold MNIST's \[6, 4, 4\] .*; got \[5, 4, 4\]"):
        mnist.load_mnist(root=write(tmp_path, tiny_files()))


@pytest.mark.parametrize("inside", ["", "mnist"])
def test_root_is_the_folder_or_its_parent(tmp_path: Path, inside: str) -> None:
    write(tmp_path / "root" / inside, tiny_files())
    assert len(mnist.load_mnist(root=str(tmp_path / "root")).test) == 3


def test_environment_then_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = write(tmp_path / "cache" / "angulus" / "mnist", tiny_files())
    assert str(cached) in mnist.load_mnist().source
    monkeypatch.setenv("ANGULUS_DATA", str(tmp_path / "data"))
    assert str(cached) in mnist.load_mnist().source
    named = write(tmp_path / "data" / "mnist", tiny_files())
    assert str(named) in mnist.load_mnist().source
    monkeypatch.setenv("ANGULUS_DATA", "")
    assert str(cached) in mnist.load_mnist().source


@pytest.mark.parametrize("setting", [None, "", "relative/cache"])
def test_cache_folder_without_an_absolute_xdg_cache_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if setting is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", setting)
    assert mnist.mnist_folder() == tmp_path / ".cache" / "angulus" / "mnist"


def test_folder_for_says_where_a_download_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mnist.mnist_folder() == tmp_path / "cache" / "angulus" / "mnist"
    monkeypatch.setenv("ANGULUS_DATA", str(tmp_path / "data"))
    assert mnist.mnist_folder() == tmp_path / "data" / "mnist"
    assert mnist.mnist_folder(tmp_path / "data") == tmp_path / "data" / "mnist"
    assert mnist.mnist_folder(tmp_path / "mnist") == tmp_path / "mnist"
    write(tmp_path / "begun", {"t10k-labels-idx1-ubyte.gz": b""})
    assert mnist.mnist_folder(tmp_path / "begun") == tmp_path / "begun"


def test_missing_files_are_named_with_the_places_and_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tiny_files()
    del files["t10k-labels-idx1-ubyte"]
    write(tmp_path / "data" / "mnist", files)
    monkeypatch.setenv("ANGULUS_DATA", str(tmp_path / "data"))
    with pytest.raises(InputError) as caught:
        mnist.load_mnist()
    assert str(caught.value) == (
        "MNIST needs four files together in one folder; "
        f"looked in {tmp_path}/data/mnist (lacks t10k-labels-idx1-ubyte[.gz]) "
        f"and {tmp_path}/cache/angulus/mnist (no such folder); set ANGULUS_DATA to a folder that holds mnist/, "
        "or fetch the files with `angulus data mnist --download` or data.download=true"
    )


def test_load_refuses_bad_arguments() -> None:
    with pytest.raises(InputError, match="root must be a path; got 5"):
        mnist.load_mnist(root=5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="root must be a path; got ''"):
        mnist.load_mnist(root="")
    with pytest.raises(InputError, match="download must be true or false; got 1"):
        mnist.load_mnist(download=1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="root must be a path; got 5"):
        mnist.mnist_folder(5)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_download_puts_the_four_files_in_place(tmp_path: Path, server: Mirrors, packed: dict[str, bytes]) -> None:
    folder = tmp_path / "new" / "folder"
    paths = mnist.download_mnist(folder, [server.holds("good", packed)])
    assert contents(folder) == packed  # and there is no temporary file
    assert paths == tuple(folder / f"{name}.gz" for name in mnist.MD5)
    assert len(mnist.load_mnist(root=folder).train) == COUNTS["train"]


def test_download_keeps_good_files_and_replaces_bad_ones(
    tmp_path: Path, server: Mirrors, packed: dict[str, bytes]
) -> None:
    bad, *good = packed
    write(tmp_path, {**packed, bad: b"damaged"})
    mnist.download_mnist(tmp_path, [server.holds("good", packed)])
    assert server.asked == [f"/good/{bad}"]
    assert contents(tmp_path) == packed
    assert len(good) == 3


def truncated(data: bytes) -> tuple[int, bytes, int]:
    return 200, data[:-5], len(data)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda data: (404, b"", 0), "HTTP Error 404: Not Found"),
        (lambda data: (500, b"oops", 4), "HTTP Error 500: Internal Server Error"),
        (truncated, r"the body ended after \d+ of \d+ bytes"),
        (lambda data: (200, data[:-5], len(data) - 5), r"\d+ bytes with md5 [0-9a-f]{32}, not [0-9a-f]{32}"),
        (lambda data: (200, b"<html>", 6), "6 bytes with md5 [0-9a-f]{32}, not [0-9a-f]{32}"),
    ],
    ids=["404", "500", "truncated body", "short body", "wrong checksum"],
)
def test_download_goes_on_to_the_next_mirror(
    tmp_path: Path, server: Mirrors, packed: dict[str, bytes], answer: Any, reason: str
) -> None:
    name = "train-labels-idx1-ubyte.gz"
    broken, good = server.holds("broken", packed), server.holds("good", packed)
    server.answers["broken"][name] = answer(packed[name])
    mnist.download_mnist(tmp_path / "both", [broken, good])
    assert contents(tmp_path / "both") == packed
    assert f"/good/{name}" in server.asked
    assert len(server.asked) == 5  # only the failed file was asked for twice
    with pytest.raises(InputError, match=f"must give {name} .*; got {broken}{name}: {reason}; try again later"):
        mnist.download_mnist(tmp_path / "one", [broken])
    # What came before the failure stays; of the failed file nothing is left.
    before = "train-images-idx3-ubyte.gz"
    assert contents(tmp_path / "one") == {before: packed[before]}


def test_download_names_every_mirror_and_why_it_failed(
    tmp_path: Path, server: Mirrors, packed: dict[str, bytes]
) -> None:
    first = "train-images-idx3-ubyte.gz"
    wrong = server.holds("wrong", dict.fromkeys(packed, b"x"))
    md5 = hashlib.md5(packed[first]).hexdigest()
    refused = f"[Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}"
    with pytest.raises(InputError) as caught:
        mnist.download_mnist(tmp_path, [f"{server.address}/none", "http://127.0.0.1:1/", "http://[broken", wrong])
    assert str(caught.value) == (
        f"mirrors must give {first} with its official md5; "
        f"got {server.address}/none/{first}: HTTP Error 404: Not Found; "
        f"http://127.0.0.1:1/{first}: <urlopen error {refused}>; "
        f"http://[broken/{first}: Invalid IPv6 URL; "
        f"{wrong}{first}: 1 bytes with md5 9dd4e461268c8034f5c8564e155c67a6, not {md5}; "
        "try again later, or put the four files there by hand and set ANGULUS_DATA"
    )
    assert contents(tmp_path) == {}


def test_a_wrong_checksum_never_replaces_what_is_there(
    tmp_path: Path, server: Mirrors, packed: dict[str, bytes]
) -> None:
    before = {"train-images-idx3-ubyte.gz": gzip.compress(tiny_files()["train-images-idx3-ubyte"], 1, mtime=9)}
    write(tmp_path, before)
    with pytest.raises(InputError, match="mirrors must give train-images"):
        mnist.download_mnist(tmp_path, [server.holds("wrong", dict.fromkeys(packed, b"x"))])
    assert contents(tmp_path) == before


def test_a_mirror_that_sends_too_much_is_cut_off(
    tmp_path: Path, server: Mirrors, packed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = "train-images-idx3-ubyte.gz"
    monkeypatch.setattr(mnist, "_LARGEST_DOWNLOAD", len(packed[first]))
    good = server.holds("good", packed)
    endless = server.holds("endless", {first: packed[first] + b"x"})
    with pytest.raises(InputError, match=f"{first}: the body has more than {len(packed[first])} bytes; try again"):
        mnist.download_mnist(tmp_path, [endless])
    mnist.download_mnist(tmp_path, [good])
    assert contents(tmp_path) == packed


def test_a_silent_mirror_times_out(tmp_path: Path, server: Mirrors, packed: dict[str, bytes]) -> None:
    server.silence_s = 1.0
    with pytest.raises(InputError, match="timed out"):
        mnist.download_mnist(tmp_path, [server.holds("good", packed)], timeout_s=0.1)


def test_download_says_when_the_folder_cannot_be_written(
    tmp_path: Path, server: Mirrors, packed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = server.holds("good", packed)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot write .*file/mnist: Not a directory"):
        mnist.download_mnist(tmp_path / "file" / "mnist", [good])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*full.*No space left on device; free some space"):
        mnist.download_mnist(tmp_path / "full", [good])
    assert contents(tmp_path / "full") == {}


def test_download_refuses_bad_arguments(tmp_path: Path) -> None:
    for mirrors in ((), "http://one.example/", None, 3):
        with pytest.raises(InputError, match="mirrors must be a sequence of at least one address; got"):
            mnist.download_mnist(tmp_path, mirrors)  # type: ignore[arg-type]
    for mirror in ("ftp://one.example/", "file:///etc/", 7):
        with pytest.raises(InputError, match=f"mirrors must be http:// or https:// addresses; got {mirror!r}"):
            mnist.download_mnist(tmp_path, [mirror])  # type: ignore[list-item]
    with pytest.raises(InputError, match="timeout_s must be a finite number > 0; got 0"):
        mnist.download_mnist(tmp_path, timeout_s=0)
    with pytest.raises(InputError, match="folder must be a path; got None"):
        mnist.download_mnist(None)  # type: ignore[arg-type]
    assert contents(tmp_path) == {}


def test_load_downloads_only_what_is_missing(
    tmp_path: Path, server: Mirrors, packed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "MIRRORS", (server.holds("good", packed),))
    splits = load("mnist", download=True)
    assert contents(tmp_path / "cache" / "angulus" / "mnist") == packed
    assert len(splits.test) == COUNTS["t10k"]
    assert len(server.asked) == 4
    load("mnist", download=True)
    assert len(server.asked) == 4
    elsewhere = load("mnist", root=tmp_path / "elsewhere", download=True)
    assert str(tmp_path / "elsewhere" / "mnist") in elsewhere.source


def test_a_packed_idx_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(bytes(2**24)))
    limits.set_most_unpacked("1M")
    try:
        with pytest.raises(InputError, match=r"must unpack to at most 1,048,576 bytes.*--max-unpacked"):
            mnist.read_idx(path, 1)
    finally:
        limits.set_most_unpacked(None)
