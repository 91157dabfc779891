"""Images of one's own in every shape, through `data.load("files", path=...)`: the same data set from each."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import angulus
from angulus.cli.main import app
from angulus.core.checks import InputError
from angulus.data import Splits, load
from angulus.data.loader import DecodedPixels
from angulus.data.records import Row, write_records
from angulus.data.sets import identity_sets, index
from angulus.data.sets.index import index_of
from angulus.data.sources import LeftOut, SourceOptions, read_source
from angulus.data.sources.kinds import splits_of
from angulus.experiments import build, recipe
from data.pictures import face_rec, noise, png
from data.source_files import put, tarred, zipped

COUNT = 24
NAMES = [f"{number:02}" for number in range(COUNT)]
CLASSES = ["cat"] * 12 + ["dog"] * 12
IMAGES = [png(number) for number in range(COUNT)]
TREE = {f"{label}/{name}.png": image for label, name, image in zip(CLASSES, NAMES, IMAGES, strict=True)}
HUB = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "angulus" / "index"


def table(rows: slice = slice(None), image: str = "image", label: str = "label") -> pa.Table:
    """As the package `datasets` writes it: {bytes, path}, class numbers, and their names in the metadata."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    info = json.loads(json.dumps(HUB).replace('"label"', f'"{label}"'))
    schema = pa.schema([(image, kind), (label, pa.int64())], metadata={"huggingface": json.dumps(info)})
    values = [{"bytes": data, "path": None} for data in IMAGES[rows]]
    return pa.table({image: values, label: [int(name == "dog") for name in CLASSES[rows]]}, schema=schema)


def arrow(path: Path, content: pa.Table, stream: bool = True, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as file, new(file, content.schema, **options) as writer:
        for batch in content.to_batches(max_chunksize=5):
            writer.write_batch(batch)
    return path


def saved(folder: Path) -> Path:
    """A folder as `save_to_disk` of datasets 5.2.0 leaves it, in two files."""
    for number, rows in enumerate((slice(0, 13), slice(13, None))):
        arrow(folder / f"data-{number:05}-of-00002.arrow", table(rows))
    files = [{"filename": f"data-{number:05}-of-00002.arrow"} for number in range(2)]
    unset = ("_format_columns", "_format_type", "_split")
    state = {"_data_files": files, "_fingerprint": "0f1e", "_format_kwargs": {}, "_output_all_columns": False}
    (folder / "state.json").write_text(json.dumps(state | dict.fromkeys(unset)))
    (folder / "dataset_info.json").write_text(json.dumps({"features": HUB["info"]["features"]}))
    return folder


def listed(path: Path, rows: list[str], header: str = "file,species") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def csv(folder: Path) -> dict[str, Any]:
    put(folder / "photos", TREE)
    rows = [f"{label}/{name}.png,{label}" for label, name in zip(CLASSES, NAMES, strict=True)]
    return {"path": listed(folder / "list.csv", rows), "root": folder / "photos", "label_column": "species"}


def samples(path: Path, mode: str = "w") -> Path:
    members = [
        member
        for name, label, image in zip(NAMES, CLASSES, IMAGES, strict=True)
        for member in ((f"{name}.png", image), (f"{name}.cls", label.encode()))
    ]
    return tarred(path, members, mode)


def records(folder: Path) -> Path:
    write_records(folder, (Row(n, i, c) for n, i, c in zip(NAMES, IMAGES, CLASSES, strict=True)))
    return folder


def parquet(path: Path, content: pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path)
    return path


SHAPES: dict[str, Callable[[Path], Any]] = {
    "a folder per class": lambda top: put(top / "photos", TREE),
    "a zip": lambda top: zipped(top / "photos.zip", TREE),
    "a CSV and a folder": csv,
    "a tar of photos": lambda top: tarred(top / "photos.tar", list(TREE.items())),
    "a tar of samples": lambda top: samples(top / "shard.tar"),
    "a packed tar": lambda top: samples(top / "shard.tar.gz", "w:gz"),
    "Parquet": lambda top: parquet(top / "set.parquet", table()),
    "Parquet, columns of other names": lambda top: {
        "path": parquet(top / "set.parquet", table(image="photo", label="species")),
        "image_column": "photo",
        "label_column": "species",
    },
    "a saved data set": lambda top: saved(top / "saved"),
    "an Arrow file, random access": lambda top: arrow(top / "set.arrow", table(), stream=False),
    "an Arrow file, packed": lambda top: arrow(
        top / "set.arrow", table(), options=pa.ipc.IpcWriteOptions(compression="zstd")
    ),
    "records": lambda top: records(top / "records"),
}


def of(shape: Any, **options: Any) -> Splits:
    arguments = shape if isinstance(shape, dict) else {"path": shape}
    return load("files", **arguments, **options)


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_the_same_data_set(tmp_path: Path, name: str, cache: Path) -> None:
    shape = SHAPES[name](tmp_path)
    kept = np.array([number for number in range(COUNT) if number % 12 != 9])  # the tenth of each class is for testing
    for _ in range(2):  # the second time from the index in the cache, where the shape has one
        splits = of(shape)
        assert splits.train.class_names == splits.test.class_names == ("cat", "dog")
        assert splits.train.labels.tolist() == [int(CLASSES[number] == "dog") for number in kept]
        pixels = splits.train.pixels[:].permute(0, 2, 3, 1).numpy()
        assert np.array_equal(pixels, np.stack([noise(number) for number in kept]))
        assert splits.test.pixels[:].permute(0, 2, 3, 1).numpy().tolist() == [noise(n).tolist() for n in (9, 21)]
        assert splits.left_out == ()
    stored = [*cache.glob("*.npz")]
    assert len(stored) == (name in ("a tar of photos", "a tar of samples", "a saved data set") or "random" in name)


def test_images_in_a_place_can_be_read_again_there(tmp_path: Path) -> None:
    (tmp_path / "rec").mkdir()
    face_rec(tmp_path / "rec", IMAGES, [0] * 12 + [1] * 12)
    for name, make in SHAPES.items():
        (tmp_path / name).mkdir()
        make(tmp_path / name)
    placed = {}
    for source in tmp_path.glob("*/*"):
        if source.name in ("list.csv", "records", "train.idx", "train.lst", "property") or "other names" in str(source):
            continue
        rows = [item for item in read_source(source) if isinstance(item, Row)]
        for row in rows:
            if row.place is not None:
                with row.place.path.open("rb") as file:
                    file.seek(row.place.start)
                    assert file.read(row.place.length) == row.image
        placed[str(source.relative_to(tmp_path))] = len(rows), {row.place is not None for row in rows}
    packed = {name for name, (_, values) in placed.items() if values == {False}}
    assert packed == {
        "a zip/photos.zip",
        "a packed tar/shard.tar.gz",
        "Parquet/set.parquet",
        "an Arrow file, packed/set.arrow",
    }
    in_place = {name for name, found in placed.items() if found == (COUNT, {True})}
    assert {name.partition("/")[2] for name in in_place} == {
        *("photos", "photos.tar", "shard.tar", "saved", "set.arrow", "train.rec")
    }


def test_packed_images_beyond_the_memory_are_told_how_to_be_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "PACKED_BYTES", 1000)
    with pytest.raises(InputError, match=r"set.parquet \(read as parquet\) holds more; convert it .*set data.path=REC"):
        of(SHAPES["Parquet"](tmp_path))


def test_splits_by_folder_by_file_and_of_a_saved_set(tmp_path: Path) -> None:
    put(tmp_path / "folders", {f"{part}/{name}": i for part in ("train", "val") for name, i in TREE.items()})
    parquet(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet", table())
    parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", table(slice(6, 18)))
    arrow(tmp_path / "cache" / "pets-train.arrow", table())
    arrow(tmp_path / "cache" / "pets-test.arrow", table(slice(6, 18)))
    (tmp_path / "cache" / "cache-0f1e.arrow").write_bytes(b"what a map left")
    for part, rows in (("train", slice(None)), ("test", slice(6, 18))):
        arrow(tmp_path / "dict" / part / "data-00000-of-00001.arrow", table(rows))
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for name, other, count in (
        ("folders", "val", 24),
        ("hub", "test", 12),
        ("cache", "test", 12),
        ("dict", "test", 12),
    ):
        assert set(splits_of(tmp_path / name)) == {"train", other}
        splits = of(tmp_path / name)
        assert (len(splits.train), len(splits.test)) == (24, count), name
        assert f"(train): 24 images of 2 classes; tested on {tmp_path / name} ({other})" in splits.source
    swapped = of(tmp_path / "dict", split="test", test="train")
    assert (len(swapped.train), len(swapped.test)) == (12, 24)
    elsewhere = of(tmp_path / "hub", test=str(tmp_path / "folders" / "val"))
    assert (len(elsewhere.train), len(elsewhere.test)) == (24, 24)
    whole = [item for item in read_source(tmp_path / "dict") if isinstance(item, Row)]
    assert len({row.id for row in whole}) == 36  # both parts call their file the same
    for options, sentence in (
        ({"split": "dev"}, r"split must be one of .*got 'dev'; its splits are"),
        ({"test": "dev"}, r"data.test must be a split of .*dict or a path; there is no 'dev'"),
    ):
        with pytest.raises(InputError, match=sentence):
            of(tmp_path / "dict", **options)


def test_images_are_resized_as_prepare_images_does(tmp_path: Path) -> None:
    from angulus.data.resize import Resize

    put(tmp_path / "photos", {f"{c}/{n}.png": png(n, 12 + n, 10) for c in ("a", "b") for n in range(10)})
    with pytest.raises(InputError, match=r"images must be of one size .*set data.size"):
        of(tmp_path / "photos")
    splits = of(tmp_path / "photos", size=[8, 6])
    wanted = [np.asarray(Resize(8, 6).apply(noise(number, 12 + number, 10))[0]) for number in range(9)]
    assert np.array_equal(splits.train.pixels[:9].permute(0, 2, 3, 1).numpy(), np.stack(wanted))
    with pytest.raises(InputError, match=r"data.size must be \[height, width\]"):
        of(tmp_path / "photos", size=[8])


def cut(path: Path, size: int) -> Path:
    os.truncate(path, size)
    return path


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no such column": (
        lambda top: {"path": parquet(top / "x.parquet", table()), "label_column": "labell"},
        r"label_column must be a column of .*got 'labell'; did you mean 'label'\?; its columns are image, label$",
    ),
    "an image column of numbers": (
        lambda top: {"path": parquet(top / "x.parquet", table()), "image_column": "label"},
        r"must have a column of image bytes .*'label' \(int64\).*image_column is 'label'",
    ),
    "labels that are fractions": (
        lambda top: parquet(top / "x.parquet", pa.table({"image": IMAGES, "label": [0.5] * COUNT})),
        r"at most 10 of the 24 images .*got 24, .*label must be text or a whole number; got 0.5",
    ),
    "labels that are missing": (
        lambda top: parquet(top / "x.parquet", pa.table({"image": IMAGES, "label": ["a", None] * 12})),
        "every image to train on must have an identity; 12 in .*have none",
    ),
    "no column of classes": (
        lambda top: parquet(top / "x.parquet", pa.table({"image": IMAGES, "species": CLASSES})),
        r"must have classes, and none has one; x.parquet: none of its columns \(species\) is called .*; label_column",
    ),
    "one class only": (
        lambda top: put(top / "photos", {f"cat/{name}.png": i for name, i in zip(NAMES, IMAGES, strict=True)}),
        "must show two classes or more; all its images are of 'cat'",
    ),
    "a tar cut short": (
        lambda top: cut(samples(top / "x.tar"), 20_000),
        r"x.tar must be a whole tar; .*`angulus convert --on-error skip`",
    ),
    "an Arrow file cut short": (
        lambda top: cut(arrow(top / "x.arrow", table()), 6_000),
        r"x.arrow must be a whole Arrow file; .*`angulus convert --on-error skip`",
    ),
    "no Arrow file": (
        lambda top: put(top, {"x.arrow": b"hello" * 99}) / "x.arrow",
        "x.arrow must be a whole Arrow file",
    ),
    "an Arrow file without an image": (lambda top: arrow(top / "x.arrow", table(slice(0, 0))), "it has none"),
    "paths out of the root": (
        lambda top: parquet(
            top / "x.parquet", pa.table({"image": ["/etc/passwd", "../x.png"] * 12, "label": [0, 1] * 12})
        ),
        r"got 24, .*its path leaves .*; pass the folder that holds all as root",
    ),
    "a CSV by a strange separator": (
        lambda top: listed(top / "x.csv", ["a.png|cat"], "path|label"),
        r"must name its columns in the first line, 'path' among them; got 'path\|label'",
    ),
    "absolute paths in a CSV": (
        lambda top: listed(top / "x.csv", [f"/elsewhere/{n}.png,{n % 2}" for n in range(COUNT)], "path,label"),
        r"its path leaves .*; pass the folder that holds all as root",
    ),
    "an empty split": (
        lambda top: put(top, {"photos/train/readme.txt": b"x", "photos/test/cat/1.png": IMAGES[0]}) / "photos",
        "must be a folder of .*photos that holds images; got 'train'",
    ),
    "a chosen selection": (
        lambda top: put(saved(top / "s"), {"state.json": b'{"_indices_data_files": [{"filename": "i.arrow"}]}'}),
        "chooses its rows by an index; call flatten_indices",
    ),
    "splits that lead elsewhere": (
        lambda top: put(top / "s", {"dataset_dict.json": b'{"splits": ["../../etc"]}'}),
        "dataset_dict.json must say how a data set was saved",
    ),
    "splits that lead up": (
        lambda top: (
            arrow(top / "secret.arrow", table()),
            put(top / "s", {"dataset_dict.json": b'{"splits": [".."]}'}),
        )[1],
        "dataset_dict.json must say how a data set was saved",
    ),
    "classes that training does not have": (
        lambda top: {
            "path": put(top / "photos", TREE),
            "test": str(put(top / "other", {"dgo/1.png": IMAGES[0]})),
        },
        "images to test on must be of the classes .*has 'dgo'; did you mean 'dog'",
    ),
    "images of another size to test on": (
        lambda top: {"path": put(top / "photos", TREE), "test": str(put(top / "other", {"dog/1.png": png(1, 5, 5)}))},
        "images to test on must be 12x10 .*has 5x5; set data.size",
    ),
    "no class with ten images": (
        lambda top: put(top / "photos", {f"{n % 2}/{n}.png": IMAGES[n] for n in range(6)}),
        "no identity of .*photos has 10 images .*every=3, to hold out one in 3, or set data.test to images to test on$",
    ),
    "nothing": (lambda top: top / "none", "data.path must exist"),
    "a column of records": (
        lambda top: {"path": records(top / "r"), "label_column": "x"},
        "data.label_column does not apply to records",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_told_in_a_sentence(tmp_path: Path, name: str) -> None:
    make, sentence = BROKEN[name]
    with pytest.raises(InputError, match=sentence) as error:
        of(make(tmp_path))
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_paths_within_the_root_are_read(tmp_path: Path) -> None:
    put(tmp_path / "photos", TREE)
    content = pa.table({"image": list(TREE), "label": CLASSES})
    splits = of(parquet(tmp_path / "lists" / "x.parquet", content), root=tmp_path / "photos")
    assert len(splits.train) == 22 and splits.train.ids[0] == "cat/00.png"


def test_columns_that_are_guessed_are_told(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", table(image="img", label="cls"))
    with pytest.warns(UserWarning, match="x.parquet: column 'img' is taken as image, 'cls' is taken as label"):
        of(path)


def test_keys_that_repeat_and_pickles_in_a_tar(tmp_path: Path) -> None:
    members = [(f"{label}/{name}.png", i) for label, name, i in zip(CLASSES, NAMES, IMAGES, strict=True)]
    path = tarred(tmp_path / "x.tar", [*members, ("cat/00.png", IMAGES[1]), ("cat/00.pkl", b"cos\nsystem\n")])
    with pytest.warns(UserWarning, match="1 image of .*x.tar left out; .*cat/00.png: .*before it"):
        splits = of(path)
    assert len(splits.train) == 22 and [item.where for item in splits.left_out] == ["cat/00.png"]
    path = tarred(tmp_path / "y.tar", [("00.png", IMAGES[0]), ("00.pyd", b"cos\nsystem\n"), ("00.cls", b"cat")])
    (reason,) = [item.reason for item in read_source(path) if isinstance(item, LeftOut)]
    assert reason == "these 1 members are pickles, which can run code, and are never read"


def test_an_index_is_made_again_when_a_file_changes_or_the_cache_is_damaged(tmp_path: Path, cache: Path) -> None:
    path = samples(tmp_path / "x.tar")
    assert len(index_of(path, SourceOptions())) == COUNT
    (kept,) = cache.glob("*.npz")
    for damage in (b"", b"PK\x03\x04", kept.read_bytes()[:200]):
        kept.write_bytes(damage)
        assert len(index_of(path, SourceOptions())) == COUNT
    old = index_of(path, SourceOptions())
    tarred(path, [("a.png", IMAGES[0]), ("a.cls", b"cat")])
    assert index_of(path, SourceOptions()).identities.tolist() == ["cat"]
    with pytest.raises(InputError, match="has changed since it was indexed: start again"):
        old.images([COUNT - 1])


def test_an_index_in_a_cache_that_cannot_be_written_is_used(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = samples(tmp_path / "x.tar")
    expected = index_of(path, SourceOptions()).ids

    def refused(*_: object) -> None:
        raise PermissionError("Read-only file system")

    monkeypatch.setattr(os, "utime", refused)
    monkeypatch.setattr(index, "_read", refused)  # it is not read again
    assert np.array_equal(index_of(path, SourceOptions()).ids, expected)


def test_an_index_that_nothing_used_for_a_month_is_removed(tmp_path: Path, cache: Path) -> None:
    for name in "ab":
        index_of(samples(tmp_path / f"{name}.tar"), SourceOptions())
    month_ago = time.time() - 31 * 86_400
    for kept in cache.glob("*.npz"):
        os.utime(kept, (month_ago, month_ago))
    index_of(tmp_path / "a.tar", SourceOptions())  # is used again
    index_of(samples(tmp_path / "c.tar"), SourceOptions())
    assert len(list(cache.glob("*.npz"))) == 2


def test_an_index_notices_images_elsewhere_and_the_list_of_a_rec(tmp_path: Path, cache: Path) -> None:
    names = [f"{name}.png" for name in NAMES]
    put(tmp_path, dict(zip(names[1:], IMAGES[1:], strict=True)))
    path = arrow(tmp_path / "x.arrow", pa.table({"image": names, "label": CLASSES}))
    assert index_of(path, SourceOptions()).ids.tolist() == names[1:]
    put(tmp_path, {names[0]: IMAGES[0]})
    assert index_of(path, SourceOptions()).ids.tolist() == names
    put(tmp_path, {names[3]: png(3, 40, 40)})  # longer than it was
    assert index_of(path, SourceOptions()).images([3]) == [png(3, 40, 40)]
    assert not cache.exists()
    (tmp_path / "rec").mkdir()
    path = face_rec(tmp_path / "rec", IMAGES, [0] * 12 + [1] * 12)
    assert index_of(path, SourceOptions()).ids[0] == "1"
    listed(path.with_suffix(".lst"), ["1\t0\tcat/00.png"], "2\t0\tcat/01.png")
    assert index_of(path, SourceOptions()).ids[0] == "cat/00.png"


def test_two_folders_of_many_images_are_read_with_few_open_files(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    for part in ("train", "test"):
        put(tmp_path / part, {f"{number:03}.png": IMAGES[0] for number in range(130)})
    both = [index_of(tmp_path / part, SourceOptions()) for part in ("train", "test")]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd" if Path("/proc/self/fd").is_dir() else "/dev/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 210, limits[1]))
    try:
        assert all(index.images(range(130)) == [IMAGES[0]] * 130 for index in both)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def damaged(number: int) -> bytes:
    """A PNG whose header can be read and whose pixels cannot."""
    data = bytearray(IMAGES[number])
    place = data.index(b"IDAT") + 4
    data[place : place + 40] = bytes(40)
    return bytes(data)


def test_images_that_cannot_be_decoded_are_left_out_when_they_are_loaded(tmp_path: Path) -> None:
    put(tmp_path, {**TREE, "cat/03.png": damaged(3), "dog/21.png": damaged(21)})
    splits = of(tmp_path)
    assert (len(splits.train), len(splits.test)) == (21, 1)
    assert [item.where for item in splits.left_out] == ["cat/03.png", "dog/21.png"]
    with pytest.raises(InputError, match="must be a whole PNG"):
        of(tmp_path, on_error="stop")
    put(tmp_path, {f"cat/{number:02}.png": damaged(number) for number in range(12) if number != 9})
    with pytest.raises(InputError, match=r"at most 10 of the 24 images .*; got 12, cat/00.png first:"):
        of(tmp_path)
    assert len(of(tmp_path, most_bad=0.9).train) == 11
    put(tmp_path, {"cat/09.png": damaged(9)})
    with pytest.raises(
        InputError, match=r"must hold an image that can be decoded, to train on and to test on; none of 2"
    ):
        of(tmp_path, most_bad=1.0)


def test_another_image_of_its_class_stands_in_for_one_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity_sets, "IN_MEMORY_BYTES", 0)
    put(tmp_path / "p", {**TREE, "cat/11.png": damaged(11), "dog/12.png": damaged(12), "dog/13.png": damaged(13)})
    put(tmp_path / "p", {f"owl/{number}.png": damaged(number) for number in range(2)})
    splits = of(tmp_path / "p")
    pixels: Any = splits.train.pixels
    assert isinstance(pixels, DecodedPixels) and splits.left_out == ()
    place = {name: number for number, name in enumerate(splits.train.ids)}
    rows = np.array([place[name] for name in ("cat/11.png", "dog/12.png", "owl/1.png", "cat/02.png")])
    decoded, bad = pixels.read(rows)
    shown = [decoded[number].permute(1, 2, 0).numpy() for number in range(4)]
    assert np.array_equal(shown[0], noise(0)) and np.array_equal(shown[1], noise(14)) and (shown[2] == 127).all()
    assert np.array_equal(shown[3], noise(2))
    assert [pixels.name_of(row) for row in bad] == ["cat/11.png", "dog/12.png", "owl/1.png"]
    (tmp_path / "p" / "cat" / "02.png").write_bytes(b"")  # gone in the middle of a training
    decoded, bad = pixels.read(rows)
    assert np.array_equal(decoded[3].permute(1, 2, 0).numpy(), noise(3)) and len(bad) == 4
    (tmp_path / "p" / "cat" / "02.png").write_bytes(IMAGES[2])
    strict: Any = of(tmp_path / "p", on_error="stop").train.pixels
    with pytest.raises(InputError, match=r"row 11 of .* must be a whole PNG"):
        strict.read(np.array([10]))


def test_a_recipe_and_a_trainer_take_the_same_argument(tmp_path: Path) -> None:
    content = {"path": str(parquet(tmp_path / "x.parquet", table(label="species"))), "label_column": "species"}
    trainer = angulus.Trainer("small", "arcface", content, name="x", progress=False)
    assert trainer.recipe.data == recipe.DataSection(**content)
    written = recipe.validate(recipe.parse_yaml(recipe.to_yaml(trainer.recipe)))
    assert written == trainer.recipe
    loaded = build.splits(written)
    assert loaded.source == trainer.splits.source and loaded.train.labels.tolist() == [0] * 11 + [1] * 11
    with pytest.raises(InputError, match=r"a recipe has no key 'data.labels_column'; did you mean 'label_column'"):
        angulus.Trainer("small", "arcface", content | {"labels_column": "x"})


def test_paths_of_a_recipe_are_looked_up_below_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANGULUS_DATA", str(tmp_path / "data"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    put(tmp_path / "data" / "pets", {f"{part}/{name}": i for part in ("train", "val") for name, i in TREE.items()})
    put(tmp_path / "data" / "more", dict(list(TREE.items())[6:18]))
    put(tmp_path / "data" / "val", dict(list(TREE.items())[:1]))  # a part of `path` goes before it

    def tested_on(test: str) -> int:
        return len(build.load_data(recipe.DataSection(path="pets", test=test)).test)

    assert (tested_on("more"), tested_on("val"), tested_on(str(tmp_path / "data" / "more"))) == (12, 24, 12)
    put(tmp_path / "here" / "more", dict(list(TREE.items())[10:14]))
    assert tested_on("more") == 4
    with pytest.raises(InputError, match=r"data.test must be a split of .*pets or a path; there is no 'les'"):
        tested_on("les")
    write_records(tmp_path / "data" / "records", [Row(name, image, name[:3]) for name, image in TREE.items()])
    with pytest.raises(InputError, match=r"data.test does not apply to records, .*; got '/?[^']*more'; leave it out"):
        build.load_data(recipe.DataSection(path="records", test="more"))


def test_every_is_refused_where_it_would_hold_nothing_out(tmp_path: Path) -> None:
    put(tmp_path / "parts", {f"{part}/{name}": i for part in ("train", "val") for name, i in TREE.items()})
    put(tmp_path / "whole", TREE)
    assert len(of(tmp_path / "whole", every=4).test) == 6
    rule = r"data.options.every holds out images of training where no others are tested on, and "
    with pytest.raises(InputError, match=rf"{rule}val is; got 4; leave it out$"):
        of(tmp_path / "parts", every=4)
    with pytest.raises(InputError, match=rf"{rule}.*val is; got 4; leave it out, or leave data.test out$"):
        of(tmp_path / "whole", test=str(tmp_path / "parts" / "val"), every=4)
    write_records(tmp_path / "records", [Row(name, image, name[:3]) for name, image in TREE.items()])
    assert len(load("faces", root=tmp_path / "records", every=4).test) == 6
    for name in ("faces", "celeba"):
        with pytest.raises(InputError, match="test trained_on none; got 4; leave it out, or leave test out"):
            load(name, root=tmp_path / "records", every=4, test="trained_on")


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({}, "data must have a name, one that `angulus list datasets` shows, or the path of your images"),
        ({"name": "digits", "path": "x"}, "data.path is for images of your own, and data.name is 'digits'"),
        ({"name": "digits", "split": "x"}, "data.split is for images of your own, and data.name is 'digits'"),
        ({"path": "x", "on_error": "ignore"}, "data.on_error must be 'skip' or 'stop'"),
        ({"path": "x", "most_bad": 2.0}, "data.most_bad must be at most 1; got 2.0"),
        ({"path": "x", "size": [8, 0]}, "data.size.1 must be at least 1; got 0"),
    ],
)
def test_a_section_that_is_wrong(section: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        recipe.DataSection(**section)


@pytest.mark.parametrize(("name", "parents"), [("arrow_dataset.Dataset", ()), ("dataset_dict.DatasetDict", (dict,))])
def test_a_data_set_in_memory_is_told_to_be_saved(name: str, parents: tuple[type, ...]) -> None:
    kind = type(name.rpartition(".")[2], parents, {"__module__": f"datasets.{name.rpartition('.')[0]}"})
    with pytest.raises(InputError, match=r"save it by dataset.save_to_disk\(FOLDER\) and give that folder"):
        angulus.Trainer("small", "arcface", kind())


def test_the_command_shows_what_is_read(tmp_path: Path) -> None:
    put(tmp_path / "photos", TREE)
    path = listed(tmp_path / "x.csv", [f"{name},{name[:3]}" for name in TREE])
    arguments = ["data", "files", "--to", str(path), "--root", str(tmp_path / "photos")]
    refused = CliRunner().invoke(app, arguments).exception
    assert "or name the column: data.label_column in a recipe, --label-column of angulus convert" in str(refused)
    shown = CliRunner().invoke(app, [*arguments, "--label-column", "species"]).output
    assert "22 training and 2 test images" in shown
    assert "training images by class: cat 11, dog 11\n" in shown


def test_offsets_that_do_not_fill_their_buffer(tmp_path: Path) -> None:
    path = arrow(tmp_path / "x.arrow", pa.table({"image": IMAGES[:3], "label": CLASSES[:3]}))
    data = path.read_bytes()
    length = (16).to_bytes(8, "little")  # of the buffer of four offsets, in the header of the batch
    path.write_bytes(data.replace(length, (17).to_bytes(8, "little"), 1))
    assert path.read_bytes() != data
    assert index_of(path, SourceOptions()).images([0, 1, 2]) == IMAGES[:3]
