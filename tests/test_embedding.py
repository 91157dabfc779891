"""From images and a model folder to an embeddings file."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from typer.testing import CliRunner

import angulus
from angulus import InputError
from angulus.cli.main import app
from angulus.core.contract import Contract
from angulus.core.embeddings import Embeddings
from angulus.data.records import Row, write_records
from angulus.distributed.runtime import Ranks
from angulus.models import artifact, atlas, embed
from angulus.models.artifact import Config
from data.pictures import BAD, every_kind


def pixels(count: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    contract = Contract(size=(16, 16), colour="rgb", flip="sum")
    config = Config("small", in_channels=3, image_size=(16, 16), embedding_size=5, contract=contract)
    artifact.save(config, config.build(), tmp_path / "model")
    return tmp_path / "model"


def test_records_become_the_features_that_the_model_gives(model: Path, tmp_path: Path) -> None:
    images = pixels(5)
    rows = [Row(f"{n}.png", png(image), f"person {n % 2}", score=n / 10) for n, image in enumerate(images)]
    write_records(tmp_path / "records", rows)
    told: list[int] = []
    assert embed.run(model, tmp_path / "records", tmp_path / "e.npz", batch=2, on_images=told.append) == 5
    assert told == [2, 4, 5]
    found = Embeddings.read(tmp_path / "e.npz")
    loaded = angulus.load(model)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    one = [loaded.embed(some) for some in tensor.split(2)]
    np.testing.assert_array_equal(found.vectors, torch.cat(one).numpy())
    plain = loaded.backbone(loaded.config.contract(tensor)) + loaded.backbone(loaded.config.contract(tensor.flip(-1)))
    np.testing.assert_allclose(found.vectors, plain.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert found.ids.tolist() == [row.id for row in rows]
    assert found.labels is not None and found.labels.tolist() == [row.identity for row in rows]
    assert found.detector_scores is not None and found.detector_scores.tolist() == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4]
    )
    np.testing.assert_allclose(found.feature_norms, np.linalg.norm(found.vectors.astype(float), axis=1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "ray", "ranks": Ranks(0, 2)}, "not under torchrun; leave out --engine ray"),
        ({"ray_address": "host:1"}, "ray_address needs the engine ray; got 'host:1' with local"),
    ],
)
def test_engines_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        embed.run(tmp_path / "model", tmp_path / "photos", tmp_path / "e.npz", **options)
    assert not list(tmp_path.iterdir())


def test_the_command_embeds_a_zip_without_flip(model: Path, tmp_path: Path) -> None:
    images = pixels(3)
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for number, image in enumerate(images):
            archive.writestr(f"anna/{number}.png", png(image))
    out = tmp_path / "e[b].parquet"  # a name with what could be markup
    result = CliRunner().invoke(app, ["embed", str(model), str(tmp_path / "some.zip"), str(out), "--flip", "none"])
    assert result.exit_code == 0, result.output
    assert "e[b].parquet: 3 embeddings" in result.output
    loaded = angulus.load(model)
    expected = loaded.backbone(loaded.config.contract(torch.from_numpy(images).permute(0, 3, 1, 2))).detach().numpy()
    np.testing.assert_allclose(Embeddings.read(out).vectors, expected, rtol=1e-6, atol=1e-7)


def test_a_map_holds_each_image_with_its_own_feature(model: Path, tmp_path: Path) -> None:
    images = pixels(5)
    (tmp_path / "photos" / "bob").mkdir(parents=True)
    for number, image in enumerate(images):
        kind = "tiff" if number == 3 else "png"  # browsers show no TIFF
        Image.fromarray(image).save(tmp_path / "photos" / "bob" / f"{number}.{kind}")
    (tmp_path / "photos" / "bob" / "9.png").write_bytes(b"no image")
    line = ["embed", str(model), str(tmp_path / "photos"), str(tmp_path / "e.npz"), "--on-error", "skip"]
    found = CliRunner().invoke(app, [*line, "--atlas", str(tmp_path / "maps" / "map.parquet")])
    assert found.exit_code == 0 and "embedding-atlas" in found.output, found.output
    written = Embeddings.read(tmp_path / "e.npz")
    table = parquet.read_table(tmp_path / "maps" / "map.parquet").to_pylist()
    assert [row["ids"] for row in table] == written.ids.tolist() and len(table) == 5
    for row, vector in zip(table, written.vectors, strict=True):
        np.testing.assert_array_equal(np.float32(row["embeddings"]), vector)
        assert row["labels"] == "bob" and row["norms"] == pytest.approx(np.linalg.norm(vector.astype(float)))
        shown = Image.open(io.BytesIO(row["image"]["bytes"]))
        assert shown.format == "PNG"
        np.testing.assert_array_equal(np.asarray(shown), images[int(row["ids"].removeprefix("bob/")[0])])
    (tmp_path / "photos" / "bob" / "0.png").unlink()
    with pytest.raises(InputError, match=r"must hold the 5 images of .*; it holds 4 of them; embed it again"):
        atlas.write(tmp_path / "e.npz", tmp_path / "photos", tmp_path / "other.parquet")
    assert not (tmp_path / "other.parquet").exists()
    for place, said in (("map.csv", "ends in .parquet"), ("photos/map.parquet", "must not lie in the source")):
        found = CliRunner().invoke(app, [*line, "--atlas", str(tmp_path / place)])
        assert isinstance(found.exception, InputError) and said in str(found.exception)


def test_every_kind_of_image_is_embedded_and_what_is_none_is_named(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    for name, data in every_kind(pixels(1)[0]).items():
        (source / name).write_bytes(data)
    assert embed.run(model, source, tmp_path / "e.npz") == len(list(source.iterdir()))
    found = Embeddings.read(tmp_path / "e.npz")
    unit = dict(zip(found.ids.tolist(), found.unit(np.arange(len(found.ids))), strict=True))
    for name in ("plain.bmp", "plain.webp", "alpha.png"):
        np.testing.assert_allclose(unit[name], unit["plain.png"], atol=1e-6)
    for name, (data, said) in BAD.items():
        (source / name).write_bytes(data)
        if name.endswith(".txt"):
            continue  # a note next to the photos
        with pytest.raises(InputError, match=f"{re.escape(name)} .*{re.escape(said)}"):
            embed.run(model, source, tmp_path / "not.npz")
        (source / name).unlink()
    assert not (tmp_path / "not.npz").exists()


def test_what_is_no_photo_stops_nothing(model: Path, tmp_path: Path) -> None:
    """System files, notes, what phones put next to photos, and what an earlier run wrote among them."""
    source = tmp_path / "photos"
    (source / "ann").mkdir(parents=True)
    (source / "ann" / "1.png").write_bytes(png(pixels(1)[0]))
    for name in (
        ".DS_Store",
        "ann/Thumbs.db",
        "ann/._1.png",
        "notes.txt",
        "ann/1.MOV",
        "ann/1.AAE",
        "ann/1.xmp",
        ".picasa.ini",
    ):
        (source / name).write_bytes(b"\0\5\x16\7")
    for suffix in (".npz", ".parquet", ".safetensors"):
        assert embed.run(model, source, tmp_path / f"e{suffix}") == 1
        shutil.copy(tmp_path / f"e{suffix}", source)


def test_a_lists_other_columns_are_no_images(model: Path, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(pixels(1)[0]))
    (tmp_path / "list.csv").write_text("path,identity,split\n1.png,ann,train\n", encoding="utf-8")
    assert embed.run(model, tmp_path / "list.csv", tmp_path / "e.npz") == 1
    (tmp_path / "list.csv").write_text("path,identity,split\n1.png,ann,train\n2.png,ann,train\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"2\.png cannot be embedded: there is no such file"):
        embed.run(model, tmp_path / "list.csv", tmp_path / "e.npz")


def test_what_cannot_be_embedded_is_refused_and_nothing_is_written(model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "photos", tmp_path / "e.npz"
    (source / "anna").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no image"):
        embed.run(model, source, out)
    (source / "anna" / "1.png").write_bytes(png(pixels(1, 8)[0]))
    with pytest.raises(InputError, match=r"1\.png cannot be embedded: the image must be 16 x 16 pixels.* got 8 x 8"):
        embed.run(model, source, out)
    (source / "anna" / "1.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1\.png cannot be embedded"):
        embed.run(model, source, out)
    with pytest.raises(InputError, match="batch must be"):
        embed.run(model, source, out, batch=0)
    assert not out.exists()


STOPPED = """
import os, signal, sys
from pathlib import Path
from angulus.models import embed
kill = lambda done: done >= 6 and os.kill(os.getpid(), signal.SIGKILL)
embed.run(*map(Path, sys.argv[1:]), batch=2, on_images=kill)
"""


@pytest.fixture
def records(tmp_path: Path) -> Path:
    rows = [Row(f"{n}.png", png(image), f"person {n % 3}") for n, image in enumerate(pixels(11))]
    write_records(tmp_path / "records", rows)
    return tmp_path / "records"


def test_a_killed_run_goes_on_to_the_same_bits(
    model: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed.run(model, records, tmp_path / "whole.npz", batch=2)
    out = tmp_path / "deep" / "e.npz"
    killed = subprocess.run([sys.executable, "-c", STOPPED, str(model), str(records), str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    parts = out.with_name("e.npz.parts")
    assert len(list(parts.glob("*.npz"))) == 3
    sizes: list[int] = []
    plain = artifact.Model.embed

    def counted(self: artifact.Model, images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return plain(self, images)

    monkeypatch.setattr(artifact.Model, "embed", counted)
    assert embed.run(model, records, out, batch=2) == 11
    assert sizes == [2, 2, 1]  # batches 4 to 6; 3 were done
    assert not parts.exists()
    found, expected = Embeddings.read(out), Embeddings.read(tmp_path / "whole.npz")
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert found.ids.tolist() == expected.ids.tolist()


def test_what_has_changed_since_a_stop_is_embedded_again(model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "photos", tmp_path / "e.npz"
    (source / "anna").mkdir(parents=True)
    first, second, third = pixels(3)
    (source / "anna" / "1.png").write_bytes(png(first))
    (source / "anna" / "2.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"2\.png cannot be embedded"):
        embed.run(model, source, out, batch=1)
    assert len(list((tmp_path / "e.npz.parts").glob("*.npz"))) == 1
    (source / "anna" / "1.png").write_bytes(png(second))
    (source / "anna" / "2.png").write_bytes(png(third))
    embed.run(model, source, out, batch=1, flip="none")
    loaded = angulus.load(model).with_flip("none")
    one = [loaded.embed(torch.from_numpy(each).permute(2, 0, 1)[None]) for each in (second, third)]
    np.testing.assert_array_equal(Embeddings.read(out).vectors, torch.cat(one).numpy())


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "angulus"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "embed", *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )


def test_a_failure_on_one_rank_is_one_on_all_and_two_processes_write_what_one_does(model: Path, tmp_path: Path) -> None:
    (tmp_path / "mixed" / "anna").mkdir(parents=True)
    for number, size in enumerate((16, 16, 16, 8)):  # the last batch, of rank 1, cannot be embedded
        (tmp_path / "mixed" / "anna" / f"{number}.png").write_bytes(png(pixels(1, size)[0]))
    found = torchrun(model, tmp_path / "mixed", tmp_path / "e.npz", "--batch", 1)
    assert found.returncode != 0
    assert found.stderr.count("anna/3.png cannot be embedded: the image must be 16 x 16 pixels") == 1
    assert not (tmp_path / "e.npz").exists()
    assert len(list((tmp_path / "e.npz.parts").glob("*.npz"))) == 3
    skipped = torchrun(model, tmp_path / "mixed", tmp_path / "e.npz", "--batch", 1, "--on-error", "skip")
    assert skipped.returncode == 0, skipped.stderr
    assert skipped.stdout.count("3 embeddings") == 1
    embed.run(model, tmp_path / "mixed", tmp_path / "one.npz", batch=1, on_error="skip")
    one, two = (Embeddings.read(tmp_path / name) for name in ("one.npz", "e.npz"))
    np.testing.assert_array_equal(one.vectors, two.vectors)
    assert one.ids.tolist() == two.ids.tolist() == [f"anna/{number}.png" for number in range(3)]
    assert skipped.stdout.count("left out: anna/3.png") == 1 and not (tmp_path / "e.npz.parts").exists()


def mixed(folder: Path, *sizes: int) -> Path:
    """Images of these sizes; 0 is no image."""
    (folder / "anna").mkdir(parents=True)
    for number, size in enumerate(sizes):
        data = png(pixels(1, size)[0]) if size else b"none"
        (folder / "anna" / f"{number}.png").write_bytes(data)
    return folder


def test_all_that_cannot_be_embedded_is_named_at_once_after_all_others_are_done(model: Path, tmp_path: Path) -> None:
    source, out = mixed(tmp_path / "photos", 16, 8, 0, 16, 0), tmp_path / "e.npz"
    with pytest.raises(InputError) as caught:
        embed.run(model, source, out, batch=2)
    said = str(caught.value)
    assert said.startswith("3 images cannot be embedded: ") and said.endswith("with --on-error skip")
    assert all(f"anna/{number}.png (" in said for number in (1, 2, 4)) and "got 8 x 8" in said
    assert not out.exists() and not (tmp_path / "e.npz.left-out.jsonl").exists()
    assert (tmp_path / "e.npz.parts").exists()
    told: list[object] = []
    count = embed.run(
        model, source, out, batch=2, on_error="skip", on_left_out=lambda left, listed: told.extend([len(left), listed])
    )
    assert (count, told) == (2, [3, tmp_path / "e.npz.left-out.jsonl"])
    assert Embeddings.read(out).ids.tolist() == ["anna/0.png", "anna/3.png"]
    lines = [json.loads(line) for line in (tmp_path / "e.npz.left-out.jsonl").read_text().splitlines()]
    assert sorted(line["where"] for line in lines) == [f"anna/{number}.png" for number in (1, 2, 4)]
    found = CliRunner().invoke(app, ["embed", str(model), str(source), str(out), "--on-error", "skip"])
    assert "left out: anna/1.png: the image must be 16 x 16" in found.output
    assert "3 images left out, listed in" in found.output and "e.npz: 2 embeddings" in found.output
    for number in (1, 2, 4):
        (source / "anna" / f"{number}.png").unlink()
    assert embed.run(model, source, out, on_error="skip") == 2
    assert not (tmp_path / "e.npz.left-out.jsonl").exists()


def test_what_was_embedded_before_a_bad_image_was_found_is_not_embedded_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = mixed(tmp_path / "photos", 16, 8, 16, 0, 16), tmp_path / "e.npz"
    with pytest.raises(InputError, match="2 images cannot be embedded"):
        embed.run(model, source, out, batch=2)

    def refuse(self: artifact.Model, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("it embedded")

    monkeypatch.setattr(artifact.Model, "embed", refuse)
    assert embed.run(model, source, out, batch=2, on_error="skip") == 3


def test_many_bad_images_are_listed_in_a_file(model: Path, tmp_path: Path) -> None:
    source = mixed(tmp_path / "photos", 16, *[0] * 7)
    with pytest.raises(
        InputError, match=r"^7 images cannot .*; and 2 more, all listed in .*left-out\.jsonl; take them"
    ):
        embed.run(model, source, tmp_path / "e.npz")
    assert len((tmp_path / "e.npz.parts" / "left-out.jsonl").read_text().splitlines()) == 7


def test_a_source_of_another_model_ends_early(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "HOPELESS", 3)
    source = mixed(tmp_path / "photos", 8, 8, 8, 8, 8, 16)
    for on_error in ("stop", "skip"):
        with pytest.raises(InputError, match=r"none of the first 3 images can be embedded: anna/2\.png: .* got 8 x 8"):
            embed.run(model, source, tmp_path / "e.npz", batch=1, on_error=on_error)
    with pytest.raises(InputError, match="--on-error must be one of 'stop', 'skip'; got 'go'"):
        embed.run(model, source, tmp_path / "e.npz", on_error="go")
    assert not list(tmp_path.glob("e.npz*"))


def test_an_image_without_identity_or_score_leaves_those_of_others(model: Path, tmp_path: Path) -> None:
    images = pixels(4)
    rows = [
        Row("0", png(images[0]), "ann", score=0.5),
        Row("1", png(images[1]), ""),
        Row("2", png(images[2]), "bob", score=0.25),
        Row("3", png(images[3]), "", score=1.0),
    ]
    write_records(tmp_path / "records", rows)
    for name in ("e.npz", "e.parquet", "e.safetensors"):
        embed.run(model, tmp_path / "records", tmp_path / name)
        found = Embeddings.read(tmp_path / name)
        assert found.labels is not None and found.labels.tolist() == ["ann", "", "bob", ""]
        assert found.detector_scores is not None
        np.testing.assert_array_equal(found.detector_scores, [0.5, np.nan, 0.25, 1.0])
    write_records(tmp_path / "unknown", [Row("1", png(images[1]), "")])
    embed.run(model, tmp_path / "unknown", tmp_path / "u.npz")
    found = Embeddings.read(tmp_path / "u.npz")
    assert found.labels is None and found.detector_scores is None


def test_one_long_id_does_not_widen_the_others(model: Path, tmp_path: Path) -> None:
    ids = ["x" * 9_000, *map(str, range(99))]
    write_records(tmp_path / "records", [Row(id, png(pixels(1)[0]), id) for id in ids])
    embed.run(model, tmp_path / "records", tmp_path / "e.parquet", batch=50)
    found = Embeddings.read(tmp_path / "e.parquet")
    assert found.labels is not None and found.ids.dtype == found.labels.dtype == object
    assert found.ids.tolist() == found.labels.tolist() == ids


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_feature_without_direction_is_named_and_not_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    source, out = mixed(tmp_path / "photos", 16, 16, 16), tmp_path / "e.npz"
    plain = artifact.Model.embed

    def broken(self: artifact.Model, images: torch.Tensor) -> torch.Tensor:
        features = plain(self, images)
        features[1] = value
        return features

    monkeypatch.setattr(artifact.Model, "embed", broken)
    with pytest.raises(
        InputError, match=r"anna/1\.png cannot be embedded: the model gives it a feature that is zero, Na"
    ):
        embed.run(model, source, out)
    assert not out.exists()
    assert embed.run(model, source, out, on_error="skip") == 2
    assert Embeddings.read(out).ids.tolist() == ["anna/0.png", "anna/2.png"]


def test_an_output_in_its_own_source_is_refused(model: Path, tmp_path: Path) -> None:
    source = mixed(tmp_path / "photos", 16)
    for out in (source / "e.npz", source / "anna" / "e.parquet", tmp_path / "x" / ".." / "photos" / "e.npz"):
        with pytest.raises(
            InputError, match=r"the output must not lie in the source, .*photos, which the next run reads"
        ):
            embed.run(model, source, out)
    assert [path.name for path in source.rglob("*")] == ["anna", "0.png"]
    assert embed.run(model, source, tmp_path / "e.npz") == embed.run(model, source, tmp_path / "e.npz") == 1
    (tmp_path / "images.parquet").write_bytes(b"images")
    with pytest.raises(InputError, match="must not lie in the source"):
        embed.run(model, tmp_path / "images.parquet", tmp_path / "images.parquet")
    assert (tmp_path / "images.parquet").read_bytes() == b"images"


def test_a_second_run_on_one_output_is_refused_and_harms_nothing(model: Path, records: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.npz"
    refused: list[str] = []

    def second(done: int) -> None:
        if done > 6:
            return
        found = subprocess.run(
            [sys.executable, "-m", "angulus", "embed", str(model), str(records), str(out)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 2
        refused.append(" ".join(found.stderr.split()))

    assert embed.run(model, records, out, batch=6, on_images=second) == 11
    assert len(refused) == 1
    assert refused[0].endswith("e.npz.parts is in use by another process; wait for it to end, or choose another output")
    assert not (tmp_path / "e.npz.parts").exists() and len(Embeddings.read(out)) == 11


def stop(done: int) -> None:
    if done >= 6:
        raise KeyboardInterrupt


def test_parts_of_another_model_and_half_written_ones_are_removed(model: Path, records: Path, tmp_path: Path) -> None:
    out, parts = tmp_path / "e.npz", tmp_path / "e.npz.parts"
    with pytest.raises(KeyboardInterrupt):
        embed.run(model, records, out, batch=2, flip="none", on_images=stop)
    (parts / f".half.npz.{'0' * 32}.tmp").write_bytes(b"half")
    before = {path.name for path in parts.glob("*.npz")}
    assert len(before) == 3
    with pytest.raises(KeyboardInterrupt):
        embed.run(model, records, out, batch=2, on_images=stop)
    after = {path.name for path in parts.iterdir()} - {".lock"}
    assert len(after) == 3 and not before & after
    assert embed.run(model, records, out, batch=2) == 11 and not parts.exists()


def test_a_part_that_was_damaged_is_made_again(model: Path, records: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.npz"
    with pytest.raises(KeyboardInterrupt):
        embed.run(model, records, out, batch=11, on_images=stop)
    (part,) = (tmp_path / "e.npz.parts").glob("*.npz")
    features = np.load(part)["features"]
    whole = part.read_bytes()
    for damaged in (whole[:-40], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], b""):
        part.write_bytes(damaged)
        with pytest.raises(KeyboardInterrupt):
            embed.run(model, records, out, batch=11, on_images=stop)
        np.testing.assert_array_equal(np.load(part)["features"], features)


STOPS_RANK_1 = """
import os, signal, sys
from pathlib import Path
from angulus.models import embed
from angulus.distributed.launch import AGAIN, LostRank, process_group
model, source, out, pid = map(Path, sys.argv[1:])

def stop(done):
    if done >= 4 and os.environ["RANK"] == "1":
        pid.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)

try:
    with process_group(20.0, AGAIN) as ranks:
        embed.run(model, source, out, batch=1, ranks=ranks, on_images=stop)
except LostRank as lost:
    pid.with_name("said").write_text(str(lost))
    raise SystemExit(1)
"""


def test_a_stopped_process_ends_the_others_with_a_sentence(model: Path, records: Path, tmp_path: Path) -> None:
    script = tmp_path / "stops.py"
    script.write_text(STOPS_RANK_1)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    arguments = [str(each) for each in (model, records, tmp_path / "e.npz", tmp_path / "pid")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*run, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 240
        while not (tmp_path / "said").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
    finally:
        if (tmp_path / "pid").exists():
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        process.communicate()
    said = (tmp_path / "said").read_text()
    assert said.startswith("another process of the run has ended, or did not answer for 20 s")
    assert said.endswith("run the same command again")
    assert embed.run(model, records, tmp_path / "e.npz", batch=1) == 11


def test_a_model_loads_without_opencv(model: Path) -> None:
    code = """
import sys
sys.modules["cv2"] = None
import angulus.models.artifact, angulus.cli.embed, angulus.cli.info
print(angulus.models.artifact.load(sys.argv[1]).name)
"""
    found = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
