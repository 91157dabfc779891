"""URLs as paths: copies that follow the store, uploads that are whole, faults as sentences, no secrets anywhere."""

from __future__ import annotations

import importlib
import inspect
import json
import pickle
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pytest
import torch
import typer
from fsspec.implementations.memory import MemoryFileSystem

import stores
from angulus.cli import main as cli
from angulus.cli.urls import role
from angulus.core import files, urls
from angulus.core import stores as core_stores
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.data.convert import convert
from angulus.data.loader import DecodedPixels, data_loader, read_batches
from angulus.data.records import Records, Row, blobs, reader, write_records
from angulus.evaluation.protocols.result import SAMPLES
from angulus.training.batches import batches
from people import crowd
from stores import Store

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, no waiting between tries, and no copies of other tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(core_stores, "_WAITS_S", (0.0, 0.0))
    monkeypatch.setattr(files, "ORIGINS", {})


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with stores.serve() as store:
        yield store


@pytest.fixture
def s3(server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The server as s3://, with a bucket called `bucket`; packages below try once."""
    environment = {"AWS_ENDPOINT_URL": server.address, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    environment |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # which knows another server
    system = fsspec.filesystem("s3")
    monkeypatch.setattr(type(system), "retries", 1)
    if not system.exists("bucket"):
        system.mkdir("bucket")
    server.requests.clear()
    yield server
    server.faults, server.always, server.latency_s = [], None, 0.0


@pytest.fixture(params=["memory", "s3"])
def place(request: pytest.FixtureRequest) -> str:
    """A URL below which nothing is."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    return f"{request.param}://bucket/{uuid.uuid4().hex}"


def put(url: str, data: bytes) -> None:
    system, path = core_stores.connect(url)
    system.pipe_file(path, data)


def below(url: str) -> list[str]:
    system, root = core_stores.connect(url)
    system.invalidate_cache()
    return sorted(path.removeprefix(root + "/") for path in system.find(root))


def test_a_file_is_copied_again_only_when_it_has_changed(place: str) -> None:
    put(f"{place}/a.txt", b"one")
    copy = urls.fetch(f"{place}/a.txt")
    assert (copy.name, copy.read_bytes()) == ("a.txt", b"one")
    copy.write_bytes(b"ONE")  # shows whether it is copied
    assert urls.fetch(Path(f"{place}/a.txt")).read_bytes() == b"ONE"
    put(f"{place}/a.txt", b"two")
    assert urls.fetch(f"{place}/a.txt").read_bytes() == b"two"


def test_a_copy_that_has_lost_bytes_is_copied_again(place: str) -> None:
    put(f"{place}/a.txt", b"one")
    urls.fetch(f"{place}/a.txt").write_bytes(b"o")
    assert urls.fetch(f"{place}/a.txt").read_bytes() == b"one"


def test_an_old_copy_stays_until_the_new_one_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    put("memory://bucket/old/a.txt", b"one")
    copy = urls.fetch("memory://bucket/old/a.txt")
    put("memory://bucket/old/a.txt", b"two")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(MemoryFileSystem, "get", interrupt)
        with pytest.raises(KeyboardInterrupt):
            urls.fetch("memory://bucket/old/a.txt")
    assert copy.read_bytes() == b"one"
    assert {path.name for path in copy.parent.parent.iterdir()} == {".lock", "copied.json", "here"}
    assert urls.fetch("memory://bucket/old/a.txt").read_bytes() == b"two"


def test_a_file_is_read_where_its_folder_may_not_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    put("memory://bucket/unlisted/[1].json", b"{}")
    put("memory://bucket/unlisted/[1].samples.npz", b"samples")
    assert urls.fetch("memory://bucket/unlisted/[1].json").with_name("[1].samples.npz").read_bytes() == b"samples"

    def deny(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(MemoryFileSystem, "ls", deny)
    assert urls.fetch("memory://bucket/unlisted/[1].json").read_bytes() == b"{}"


def test_only_the_cache_says_that_a_folder_is_the_copy_of_records(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    convert(tmp_path / "photos", tmp_path / "here" / "records")
    for name in ("url", "here/url", "here/records/.url", "here/records/url"):
        (tmp_path / name).write_text("memory://bucket/of-a-stranger")
    records = Records(tmp_path / "here" / "records")
    assert (records.where, len(records)) == (str(tmp_path / "here" / "records"), 6)


def test_a_cache_that_cannot_be_written_is_named_and_rows_need_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(tmp_path / "photos")
    convert(tmp_path / "photos", "memory://bucket/uncached")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "photos" / "person-0" / "0.png"))
    assert len(Records("memory://bucket/uncached").images(range(6))) == 6
    with pytest.raises(InputError, match=r"must be a folder of your own, for copies of URLs; .*set XDG_CACHE_HOME"):
        urls.fetch("memory://bucket/uncached")


def test_a_folder_follows_the_store(place: str) -> None:
    for name in ("ann/1.jpg", "ann/2.jpg", "bob/1.jpg"):
        put(f"{place}/photos/{name}", name.encode())
    copy = urls.fetch(f"{place}/photos")
    system, root = core_stores.connect(place)
    system.rm(f"{root}/photos/bob/1.jpg")
    put(f"{place}/photos/cy/1.jpg", b"new")
    again = urls.fetch(f"{place}/photos/")
    assert again == copy
    there = {file.relative_to(copy).as_posix(): file.read_bytes() for file in copy.rglob("*") if file.is_file()}
    assert there == {"ann/1.jpg": b"ann/1.jpg", "ann/2.jpg": b"ann/2.jpg", "cy/1.jpg": b"new"}
    assert not (copy / "bob").exists()


def test_a_result_comes_with_its_samples(place: str) -> None:
    for name in ("lfw.json", f"lfw{SAMPLES}", "lfw.npz", "other.npz"):
        put(f"{place}/{name}", b"{}")
    copy = urls.fetch(f"{place}/lfw.json")
    assert sorted(file.name for file in copy.parent.iterdir()) == ["lfw.json", f"lfw{SAMPLES}"]


def test_embeddings_go_to_a_store_and_come_back(place: str) -> None:
    people = crowd()
    people.write(f"{place}/people.npz")
    back = Embeddings.read(f"{place}/people.npz")
    np.testing.assert_array_equal(back.vectors, people.vectors)
    assert back.source == f"{place}/people.npz"
    assert below(place) == ["people.npz"]


def test_descriptions_are_uploaded_last(s3: Store) -> None:
    with urls.writing("s3://bucket/model") as folder:
        folder.mkdir()
        for name in ("config.json", "model.safetensors", "README.md"):
            (folder / name).write_text(name)
    puts = [path for method, path in s3.requests if method == "PUT"]
    assert puts == ["/bucket/model/README.md", "/bucket/model/model.safetensors", "/bucket/model/config.json"]


def test_a_failed_command_uploads_nothing_and_goes_on_with_what_it_had(place: str) -> None:
    with pytest.raises(KeyError), urls.writing(f"{place}/out.npz") as path:
        path.with_name("out.npz.parts").write_bytes(b"half")
        raise KeyError
    assert below(place) == []
    with urls.writing(f"{place}/out.npz") as path:
        assert path.with_name("out.npz.parts").read_bytes() == b"half"


def test_an_upload_that_fails_keeps_what_was_written(s3: Store) -> None:
    sentence = r"s3://bucket/kept.npz must be there and writable.*is kept in (.*): copy"
    with pytest.raises(InputError, match=sentence) as caught, urls.writing("s3://bucket/kept.npz") as path:
        path.write_bytes(b"vectors")
        s3.always = "503 SlowDown"
    kept = Path(re.search(sentence, str(caught.value))[1])  # type: ignore[index]
    assert (kept / "kept.npz").read_bytes() == b"vectors"
    s3.always = None
    (kept / "kept.samples.npz").write_bytes(b"of the first command")
    with urls.writing("s3://bucket/kept.npz") as path:
        assert not path.exists()
        path.write_bytes(b"others")
    assert [name for name in below("s3://bucket") if name.startswith("kept")] == ["kept.npz"]
    assert (kept / "kept.npz").read_bytes() == b"vectors"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("a.npz?X-Amz-Date=1&X-Amz-Signature=2&X-Amz-Security-Token=3", "a.npz?X-Amz-Date=4&X-Amz-Signature=5", True),
        ("a.npz?X-Goog-Signature=1&generation=7", "a.npz?generation=7&X-Goog-Signature=9", True),
        ("a.npz?Expires=1&Signature=a&Key-Pair-Id=k", "a.npz", True),
        ("a.npz?sv=1&se=2024&sp=r&sig=x%3D", "a.npz?sv=1&se=2025&sp=r&sig=y%3D", True),
        ("get?file=a", "get?file=b", False),
        ("get?id=a&sig=1", "get?id=b&sig=1", False),
        ("a.npz?versionId=1&X-Amz-Signature=2", "a.npz?versionId=3&X-Amz-Signature=4", False),
        *((f"get?{name}=a", f"get?{name}=b", False) for name in ("st", "sp", "sig", "policy", "expires", "signature")),
        *(("get?x-amz-meta=a", "get?x-amz-meta=b", False), ("get?=a", "get?=b", False), ("get?a", "get?a&a", False)),
        ("get?design=a", "get?design=b", False),
    ],
)
def test_a_signed_address_has_one_copy(first: str, second: str, same: bool) -> None:
    entries = {urls.cache_entry(f"https://host/{url}", "read") for url in (first, second)}
    assert len(entries) == (1 if same else 2)
    plain = {urls.cache_entry(f"s3://bucket/a?sig={number}", "read") for number in range(2)}
    assert len(plain) == 2  # part of a name


def test_throttling_is_waited_for(s3: Store) -> None:
    put("s3://bucket/t/a.txt", b"one")
    s3.faults = ["503 SlowDown", None, "503 SlowDown", "500 InternalError"]
    assert urls.fetch("s3://bucket/t/a.txt").read_bytes() == b"one"
    assert s3.faults == []


def test_records_are_read_through_throttling_and_short_answers(s3: Store, tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    convert(tmp_path / "photos", "s3://bucket/records")
    assert convert(tmp_path / "photos", tmp_path / "records").rows == 6
    local, remote = Records(tmp_path / "records"), Records(urls.fetch("s3://bucket/records"))
    s3.faults = ["503 SlowDown", "short", None, "short"]  # the block, what its half lacks, and one of that again
    assert remote.images(range(5)) == local.images(range(5))
    assert s3.faults == []
    assert remote.where == "s3://bucket/records"
    shutil.rmtree(tmp_path / "cache")
    remote = Records("s3://bucket/records")
    s3.always = "short"
    with pytest.raises(
        InputError, match=r"s3://bucket/records/rows-00000.parquet must be as it was written; it is damaged"
    ):
        remote.images([5])


@pytest.fixture
def epoch(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Records, Records, Any]:
    """The same 60 images on this disk and in the store, in small blocks, and the batches of an epoch."""
    generator = np.random.default_rng(0)
    images = [cv2.imencode(".png", generator.integers(0, 255, (9, 9, 3), np.uint8))[1].tobytes() for _ in range(60)]
    rows = [Row(f"{n}.png", image, str(n % 5)) for n, image in enumerate(images)]
    url = f"s3://bucket/{uuid.uuid4().hex}"
    for place in (tmp_path / "records", url):
        write_records(place, rows)
    monkeypatch.setattr(reader, "_BLOCK", 1000)
    remote = Records(url)
    s3.requests.clear()
    return Records(tmp_path / "records"), remote, batches(60, 8, seed=0, epoch=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_from_a_store_is_that_from_the_disk_also_resumed_and_leaves_a_copy(
    s3: Store, epoch: tuple[Records, Records, Any], workers: int
) -> None:
    local, remote, order = epoch

    def read(records: Records, rows: Any) -> torch.Tensor:
        pixels = DecodedPixels(records, np.arange(60), (9, 9), threads=1)
        return torch.cat([pixels for pixels, _ in read_batches(data_loader(pixels, rows, workers, pin=False))])

    wanted = read(local, order)
    assert torch.equal(read(remote, order[:3]), wanted[:24])  # stopped after three batches
    assert torch.equal(read(pickle.loads(pickle.dumps(remote)), order[3:]), wanted[24:])
    assert s3.requests
    s3.always = "503 SlowDown"
    assert torch.equal(read(remote, order), wanted)


def test_requests_at_a_time_are_bounded(
    s3: Store, epoch: tuple[Records, Records, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    local, remote, order = epoch
    monkeypatch.setattr(blobs, "_AT_ONCE", 4)
    s3.latency_s, s3.most_open = 0.05, 0
    assert remote.images(order[0]) == local.images(order[0])
    assert s3.most_open == 4
    monkeypatch.setattr(blobs, "_LEAST_FREE", 2**62)
    s3.most_open = 0
    assert remote.images(range(60)) == local.images(range(60))
    assert s3.most_open == 4


def test_what_a_store_refuses_for_a_moment_is_asked_again_alone(s3: Store, epoch: tuple[Records, Records, Any]) -> None:
    local, remote, order = epoch
    assert remote.images(order[0][:1]) == local.images(order[0][:1])
    s3.requests.clear()
    s3.faults = [None, "503 SlowDown", "500 InternalError", None, "503 SlowDown"]
    assert remote.images(range(60)) == local.images(range(60))
    assert s3.faults == []
    assert len(s3.requests) == len(np.unique(local._starts // 1000)) - 1 + 3  # one block came with the first image


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("403 AccessDenied", "access is denied.*give credentials"),
        ("403 RequestTimeTooSkewed", "access is denied.*give credentials"),
        ("404 NoSuchBucket", "there is no such object, folder or bucket"),
        ("503 SlowDown", "readable; got: .*(SlowDown|Service Unavailable)"),
        ("short", r"readable; got: .*5 bytes came of 10"),
    ],
)
def test_faults_are_sentences_without_keys(s3: Store, angulus: Run, fault: str, sentence: str) -> None:
    put("s3://bucket/f/a.npz", b"0123456789")
    s3.always = fault
    with pytest.raises(InputError, match=sentence):
        urls.fetch("s3://bucket/f/a.npz")
    code, out, err = angulus("calibrate", "s3://bucket/f/a.npz")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1 and "s3://bucket/f/a.npz" in err
    assert KEY not in err and SECRET not in err


def test_a_user_in_a_url_is_shown_nowhere(s3: Store, angulus: Run) -> None:
    code, out, err = angulus("info", "s3://me:hunter22@bucket/model")
    assert (code, out) == (2, "")
    assert "s3://***@bucket/model must be there" in err and "hunter22" not in err


def test_a_bucket_that_is_not_there_is_refused_before_the_work(s3: Store) -> None:
    sentence = "must be in a bucket that is there; there is no missing; make it first"
    with pytest.raises(InputError, match=sentence), urls.writing("s3://missing/a.npz"):
        raise AssertionError("the work has begun")
    assert "missing" not in fsspec.filesystem("s3").ls("")


def test_a_store_without_a_bucket_is_refused(s3: Store, angulus: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    for arguments in (("convert", "photos", "s3://"), ("convert", "s3://", "out")):
        code, out, err = angulus(*arguments)
        assert (code, out) == (2, "")
        assert "s3:// must name a bucket and what is in it, such as s3://bucket/faces" in err
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["photos"]


def test_names_that_leave_the_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("memory://hostile/photos/1.jpg", b"x")
    listed = {"/hostile/photos/../../../up.jpg": {"name": "x", "size": 1, "type": "file", "created": 1}}
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_, **__: listed)
    with pytest.raises(InputError, match=r"names of objects must stay below /hostile/photos/; got '\.\./"):
        urls.fetch("memory://hostile/photos")
    assert not list(tmp_path.rglob("up.jpg"))
    put("memory://hostile/a.bin", b"x")
    hostile = [{"name": r"/hostile/a.bin.\..\..\up.txt", "size": 1, "type": "file", "created": 1}]  # Windows' paths
    monkeypatch.setattr(MemoryFileSystem, "ls", lambda *_, **__: hostile)
    with pytest.raises(InputError, match=r"names of objects must stay below /hostile/; got 'a.bin"):
        urls.fetch("memory://hostile/a.bin")


def test_http_is_read_and_never_written(server: Store) -> None:
    MemoryFileSystem.store.clear()
    fsspec.filesystem("http")  # needs aiohttp, which s3fs brings
    secret = f"{server.address}/bucket/a.npz?X-Amz-Signature=abcdef123456&X-Amz-Credential={KEY}"
    server.always = "403 AccessDenied"
    try:
        with pytest.raises(InputError) as caught:
            urls.fetch(secret)
    finally:
        server.always = None
    assert "access is denied" in str(caught.value)
    assert "abcdef123456" not in str(caught.value) and KEY not in str(caught.value)
    with pytest.raises(InputError, match="http has no uploads"), urls.writing(secret):
        pass


def test_a_store_that_refuses_signed_addresses_is_read_by_its_own_package(s3: Store, tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    convert(tmp_path / "photos", "s3://bucket/unsigned")
    records = Records("s3://bucket/unsigned")
    s3.faults = ["403 AccessDenied"]
    assert len(records.images([0])) == 1
    assert (s3.faults, records._blobs._signs) == ([], False)  # type: ignore[attr-defined]


def test_images_of_a_store_are_read_once_and_checked_again(s3: Store, tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    convert(tmp_path / "photos", "s3://bucket/kept")
    first = Records("s3://bucket/kept").images(range(6))
    records = Records("s3://bucket/kept")
    s3.requests.clear()
    assert records.images([5, 0, 0]) == [first[5], first[0], first[0]]
    assert s3.requests == []
    (copy,) = (tmp_path / "cache" / "angulus" / "urls" / "rows").rglob("rows-00000.parquet")
    start, length = int(records._starts[2]), len(first[2])
    with copy.open("r+b") as file:
        file.seek(start)
        file.write(bytes(length))
    assert records.images(range(6)) == first
    assert [method for method, _ in s3.requests] == ["GET"]
    assert copy.read_bytes()[start : start + length] == first[2]


# the command line


def photos(folder: Path) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(6):
        (folder / f"person-{number % 2}").mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"person-{number % 2}" / f"{number}.png")


def test_commands_read_and_write_urls(angulus: Run, place: str, tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    crowd().write(f"{place}/people.npz")
    system, root = core_stores.connect(place)
    system.put(str(tmp_path / "photos"), f"{root}/photos", recursive=True)
    code, out, err = angulus("convert", f"{place}/photos", f"{place}/records")
    assert (code, err) == (0, "")
    assert f"{place}/records: 6 images of 2 identities" in out
    code, out, err = angulus("audit", f"{place}/records", "--out", f"{place}/audit")
    assert (code, err) == (0, ""), err
    assert "card.json" in " ".join(below(f"{place}/audit"))
    code, out, err = angulus("calibrate", f"{place}/people.npz", "--fmr", "0.1", "--out", f"{place}/c.json")
    assert (code, err) == (0, ""), err
    assert f"{place}/people.npz" in system.cat_file(f"{root}/c.json").decode()
    for text in (out, system.cat_file(f"{root}/c.json").decode(), system.cat_file(f"{root}/audit/card.json").decode()):
        assert str(tmp_path) not in text


def test_a_url_of_a_local_file_is_a_path(angulus: Run, tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    code, _, err = angulus("audit", f"file://{tmp_path}/photos", "--out", f"file://{tmp_path}/audit")
    assert (code, err) == (0, "")
    assert (tmp_path / "audit" / "card.json").is_file()
    for path in (f"file://localhost{tmp_path}/x", Path(f"file://localhost{tmp_path}/x"), Path(f"file://{tmp_path}/x")):
        assert urls.local_of(path) == tmp_path / "x"
    assert urls.local_of("~nobody-of-this-name.npz") == Path("~nobody-of-this-name.npz")


def test_what_must_be_local_is_refused_at_once(angulus: Run) -> None:
    for arguments in (("train", "demo", "--out", "s3://b/run"), ("train", "demo", "--plugin", "s3://b/p.py")):
        code, out, err = angulus(*arguments)
        assert (code, out) == (2, "")
        assert "must be on this machine, as it " in err
    with pytest.raises(InputError, match="must be a folder of this machine"):
        files.make_folder(Path("s3://b/x"))


def test_every_path_of_every_command_has_a_role() -> None:
    """New arguments that write must be named as such, or they would be fetched."""
    found: dict[str, set[str]] = {"local": set(), "write": set(), "read": set()}

    def walk(group: typer.Typer, *above: str) -> None:
        for entry in group.registered_commands:
            words = " ".join((*above, entry.name or entry.callback.__name__.replace("_", "-")))
            for name, parameter in inspect.signature(entry.callback, eval_str=True).parameters.items():
                if "Path" in str(parameter.annotation):
                    found[role(words, name)].add(name)
        for inner in group.registered_groups:
            walk(inner.typer_instance, *above, inner.name)

    for name, (where, _, _) in cli.COMMANDS.items():
        module, _, attribute = where.partition(":")
        command, holder = getattr(importlib.import_module(f"angulus.cli.{module}"), attribute), typer.Typer()
        holder.add_typer(command, name=name) if isinstance(command, typer.Typer) else holder.command(name)(command)
        walk(holder)
    assert found["write"] == {"out", "json", "report", "plot", "atlas", "table", "onnx"}
    assert found["local"] == {"out", "queue", "plugin", "model", "new", "to"}
    assert found["read"] - {name for name in found["read"] if name.startswith("list_")} == READ


READ = {
    *("against", "against_embeddings", "calibration", "candidates", "checkpoint", "classes", "contract", "data"),
    *("embeddings", "first", "gallery", "groups", "images", "key_file", "listed", "model", "old", "onnx", "others"),
    *("pairs", "photo", "ranges", "results", "root", "runs", "samples", "second", "source", "sources", "stored_by"),
    *("strangers", "to"),  # angulus data files --to, a source
}


def test_json_of_a_command_names_the_url(angulus: Run, tmp_path: Path) -> None:
    crowd().write("memory://bucket/x/people.npz")
    code, _, err = angulus("calibrate", "memory://bucket/x/people.npz", "--fmr", "0.1", "--out", tmp_path / "c.json")
    assert (code, err) == (0, "")
    content: dict[str, Any] = json.loads((tmp_path / "c.json").read_text())
    assert "memory://bucket/x/people.npz" in json.dumps(content)
