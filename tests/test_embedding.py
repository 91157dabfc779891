"""From images and a model folder to an embeddings file."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import angulus
from angulus import InputError, artifact, embedding
from angulus.artifact import Config
from angulus.cli import app
from angulus.contract import Contract
from angulus.data.records import Row, write_records
from angulus.embeddings import Embeddings
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
    assert embedding.run(model, tmp_path / "records", tmp_path / "e.npz", batch=2, on_images=told.append) == 5
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


def test_every_kind_of_image_is_embedded_and_what_is_none_is_named(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    for name, data in every_kind(pixels(1)[0]).items():
        (source / name).write_bytes(data)
    assert embedding.run(model, source, tmp_path / "e.npz") == len(list(source.iterdir()))
    found = Embeddings.read(tmp_path / "e.npz")
    unit = dict(zip(found.ids.tolist(), found.unit(np.arange(len(found.ids))), strict=True))
    for name in ("plain.bmp", "plain.webp", "alpha.png"):
        np.testing.assert_allclose(unit[name], unit["plain.png"], atol=1e-6)
    for name, (data, said) in BAD.items():
        (source / name).write_bytes(data)
        if name.endswith(".txt"):
            continue  # a note next to the photos
        with pytest.raises(InputError, match=f"{re.escape(name)} .*{re.escape(said)}"):
            embedding.run(model, source, tmp_path / "not.npz")
        (source / name).unlink()
    assert not (tmp_path / "not.npz").exists()


def test_what_is_no_photo_stops_nothing(model: Path, tmp_path: Path) -> None:
    """System files, notes, and what an earlier run wrote among the photos."""
    source = tmp_path / "photos"
    (source / "ann").mkdir(parents=True)
    (source / "ann" / "1.png").write_bytes(png(pixels(1)[0]))
    for name in (".DS_Store", "ann/Thumbs.db", "ann/._1.png", "notes.txt"):
        (source / name).write_bytes(b"\0\5\x16\7")
    for suffix in (".npz", ".parquet", ".safetensors"):
        assert embedding.run(model, source, source / f"e{suffix}") == 1
    assert embedding.run(model, source, tmp_path / "e.npz") == 1


def test_a_lists_other_columns_are_no_images(model: Path, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(pixels(1)[0]))
    (tmp_path / "list.csv").write_text("path,identity,split\n1.png,ann,train\n", encoding="utf-8")
    assert embedding.run(model, tmp_path / "list.csv", tmp_path / "e.npz") == 1
    (tmp_path / "list.csv").write_text("path,identity,split\n1.png,ann,train\n2.png,ann,train\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"2\.png cannot be embedded: there is no such file"):
        embedding.run(model, tmp_path / "list.csv", tmp_path / "e.npz")


def test_what_cannot_be_embedded_is_refused_and_nothing_is_written(model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "photos", tmp_path / "e.npz"
    (source / "anna").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no image"):
        embedding.run(model, source, out)
    (source / "anna" / "1.png").write_bytes(png(pixels(1, 8)[0]))
    with pytest.raises(InputError, match=r"takes images \[batch, 3, 16, 16\]"):
        embedding.run(model, source, out)
    (source / "anna" / "1.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1\.png cannot be embedded"):
        embedding.run(model, source, out)
    with pytest.raises(InputError, match="batch must be"):
        embedding.run(model, source, out, batch=0)
    assert not out.exists()


STOPPED = """
import os, signal, sys
from pathlib import Path
from angulus import embedding
kill = lambda done: done >= 6 and os.kill(os.getpid(), signal.SIGKILL)
embedding.run(*map(Path, sys.argv[1:]), batch=2, on_images=kill)
"""


@pytest.fixture
def records(tmp_path: Path) -> Path:
    rows = [Row(f"{n}.png", png(image), f"person {n % 3}") for n, image in enumerate(pixels(11))]
    write_records(tmp_path / "records", rows)
    return tmp_path / "records"


def test_a_killed_run_goes_on_to_the_same_bits(
    model: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding.run(model, records, tmp_path / "whole.npz", batch=2)
    out = tmp_path / "deep" / "e.npz"
    killed = subprocess.run([sys.executable, "-c", STOPPED, str(model), str(records), str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    parts = out.with_name("e.npz.parts")
    assert len(list(parts.iterdir())) == 3
    sizes: list[int] = []
    embed = artifact.Model.embed

    def counted(self: artifact.Model, images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return embed(self, images)

    monkeypatch.setattr(artifact.Model, "embed", counted)
    assert embedding.run(model, records, out, batch=2) == 11
    assert sizes == [2, 2, 1]  # batches 4 to 6; 3 were done
    assert not parts.exists()
    found, expected = Embeddings.read(out), Embeddings.read(tmp_path / "whole.npz")
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert found.ids.tolist() == expected.ids.tolist()


def test_what_has_changed_since_a_stop_is_embedded_anew(model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "photos", tmp_path / "e.npz"
    (source / "anna").mkdir(parents=True)
    first, second, third = pixels(3)
    (source / "anna" / "1.png").write_bytes(png(first))
    (source / "anna" / "2.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"2\.png cannot be embedded"):
        embedding.run(model, source, out, batch=1)
    assert len(list((tmp_path / "e.npz.parts").iterdir())) == 1
    (source / "anna" / "1.png").write_bytes(png(second))
    (source / "anna" / "2.png").write_bytes(png(third))
    embedding.run(model, source, out, batch=1, flip="none")
    loaded = angulus.load(model).with_flip("none")
    one = [loaded.embed(torch.from_numpy(each).permute(2, 0, 1)[None]) for each in (second, third)]
    np.testing.assert_array_equal(Embeddings.read(out).vectors, torch.cat(one).numpy())


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "angulus"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "embed", *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )


def test_two_processes_under_torchrun_write_what_one_does(model: Path, records: Path, tmp_path: Path) -> None:
    embedding.run(model, records, tmp_path / "one.npz", batch=2)
    found = torchrun(model, records, tmp_path / "two.npz", "--batch", 2)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("11 embeddings") == 1
    one, two = (Embeddings.read(tmp_path / name) for name in ("one.npz", "two.npz"))
    np.testing.assert_array_equal(one.vectors, two.vectors)
    assert one.ids.tolist() == two.ids.tolist() and not (tmp_path / "two.npz.parts").exists()


def test_a_failure_on_one_rank_is_one_on_all(model: Path, tmp_path: Path) -> None:
    (tmp_path / "mixed" / "anna").mkdir(parents=True)
    for number, size in enumerate((16, 16, 16, 8)):  # the last batch, of rank 1, cannot be embedded
        (tmp_path / "mixed" / "anna" / f"{number}.png").write_bytes(png(pixels(1, size)[0]))
    found = torchrun(model, tmp_path / "mixed", tmp_path / "e.npz", "--batch", 1)
    assert found.returncode != 0
    assert found.stderr.count("takes images [batch, 3, 16, 16]") >= 1
    assert "rank 1 failed" in found.stderr
    assert not (tmp_path / "e.npz").exists()
    assert len(list((tmp_path / "e.npz.parts").iterdir())) == 3
