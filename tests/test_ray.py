"""On a Ray cluster of this machine, whose processes die: the same files as without, to the byte."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from angulus.cli.main import app
from angulus.core import workers
from angulus.core.checks import InputError
from angulus.core.contract import Contract
from angulus.core.workers import Died, map_tasks, start_workers
from angulus.data.faces import prepare as preparing
from angulus.data.faces.align import Crops
from angulus.data.faces.prepare import prepare_faces
from angulus.models import artifact
from angulus.models.artifact import Config
from data.pictures import png
from planted_faces import DiesOnce, photo
from planted_faces import png as photo_png
from worker_jobs import start_doubtful, start_fragile, start_square, start_uneven

ray = pytest.importorskip("ray")


def begin() -> None:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Of two processes, that this program has started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        try:
            begin()
        except Exception:  # Ray waits half a minute for its processes, which a busy machine exceeds
            ray.shutdown()
            begin()
        yield
        ray.shutdown()


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by path."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_prepare_gives_the_same_though_a_process_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_TASK_PHOTOS", 3)
    for number in range(14):
        faces = [(60, 40, 60, 250), (130, 40, 40, 250)][: (1, 1, 0, 2)[number % 4]]
        put(tmp_path / "photos" / f"p{number % 3}" / f"{number}.png", photo_png(photo(*faces, width=200 + number)))
    put(tmp_path / "photos" / "note.txt", b"milk")
    prepare_faces(tmp_path / "photos", tmp_path / "local", Crops(), detector=DiesOnce(), workers=1)
    seen = tmp_path / "seen"
    prepare_faces(tmp_path / "photos", tmp_path / "ray", Crops(), detector=DiesOnce(seen), engine="ray")
    assert len(seen.read_text().splitlines()) > 14  # some were done again
    expected = content(tmp_path / "local")
    assert content(tmp_path / "ray") == expected and len(expected) == 5


def test_the_other_commands_give_the_same(tmp_path: Path) -> None:
    for number in range(9):
        put(tmp_path / "photos" / f"p{number % 2}" / f"{number}.png", png(number % 7))
    put(tmp_path / "photos" / "p0" / "broken.png", png(1)[:60] + b"\0" * 40 + png(1)[100:])
    torch.manual_seed(0)
    size = (24, 32)
    config = Config("small", in_channels=3, image_size=size, embedding_size=5, contract=Contract(size=size))
    artifact.save(config, config.build(), tmp_path / "model")
    for engine in ("local", "ray"):
        (tmp_path / engine).mkdir()
        squares = ["prepare", "images", f"{tmp_path}/photos", f"{tmp_path}/{engine}/squares", "--size", "24x32"]
        lines = [["convert", f"{tmp_path}/photos", f"{tmp_path}/{engine}/records"], squares]
        lines += [["audit", f"{tmp_path}/photos", "--out", f"{tmp_path}/{engine}/audit"]]
        lines += [["embed", f"{tmp_path}/model", f"{tmp_path}/local/squares", f"{tmp_path}/{engine}/e.npz"]]
        for line in lines:
            done = CliRunner().invoke(
                app, [*line, "--engine", engine, *(["--batch", "2"] if line[0] == "embed" else [])]
            )
            assert done.exit_code == 0, done.output
    expected = content(tmp_path / "local")
    assert content(tmp_path / "ray") == expected and len(expected) >= 12
    assert expected["records/left-out.jsonl"].count(b"\n") == 1
    assert b"broken.png" in expected["audit/unreadable.txt"]


def test_an_item_that_kills_its_process_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_RETRIES", 0)
    found = start_workers(partial(start_fragile, tmp_path), "ray")
    results = [result for _, results in map_tasks(found, [("", [1, 13]), ("", [2])]) for result in results]
    assert results == [1, Died(), 4]
    with pytest.raises(ValueError, match="fourteen"):
        found.submit([14])()
    assert found.ahead == 4


def test_a_process_that_is_slow_is_told_and_does_not_hold_up_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_SLOW_S", 0.5)
    found = start_workers(partial(start_uneven, tmp_path), "ray")
    tasks = [("", [2 * task, 2 * task + 1]) for task in range(40)]
    with pytest.warns(UserWarning) as warned:
        results = [result for _, results in map_tasks(found, tasks) for result in results]
    assert results == [number**2 for number in range(80)]
    said = "2 items, [0-9]+ to [0-9]+, are not done after [1-9] s, where as many usually take 0.[0-9] s: another"
    assert any(re.search(said, str(each.message)) for each in warned)
    assert len((tmp_path / "by fast").read_text().split()) >= 36  # in turn with it, the slow one would do ten


def test_of_two_that_do_the_same_the_first_result_counts_and_a_death_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_SLOW_S", 0.3)
    monkeypatch.setattr(workers, "_RETRIES", 0)
    found = start_workers(partial(start_doubtful, tmp_path), "ray")
    assert [found.submit([number])() for number in (1, 2)] == [[1], [4]]
    with pytest.warns(UserWarning, match="20 is not done"):
        assert found.submit([20])() == [400]
    assert not (tmp_path / "20 slowly").exists()  # the other result came first
    with pytest.warns(UserWarning, match="21 is not done"):
        assert found.submit([21])() == [441]
    assert (tmp_path / "21 slowly").exists()
    time.sleep(3.0)
    assert not (tmp_path / "20 slowly").exists()  # nor did the slow one go on


def test_a_cluster_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(
        InputError, match=r"^ray_address must be that of a running Ray cluster.*'there': nobody answers"
    ):
        start_workers(start_square, "ray", ray_address="there")
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(InputError, match=f"^ray_address must be that of a running Ray cluster.*{closed}.*refused"):
        start_workers(start_square, "ray", ray_address=closed)
    monkeypatch.setenv("RAY_ADDRESS", "h:2")
    with pytest.raises(InputError, match="workers must be left out with a Ray cluster that runs, h:2; got 3"):
        start_workers(start_square, "ray", 3)
