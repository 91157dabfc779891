"""The queue of rows: worked off, stopped and resumed to the same numbers, and refused with a sentence."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from angulus.core import environment, files
from angulus.core.checks import InputError
from angulus.experiments import queue
from angulus.experiments.compare import compare
from angulus.experiments.recipe import shipped

SMALL = (
    "training.epochs=2 compare.seeds=[0] 'compare.variants={A: {}, B: {objective.kind: softmax}}' "
    "compare.quality_split=null published=null"
)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.txt"
    path.write_text(f"# measured first\ndemo {SMALL}\n\ndemo {SMALL} training.batch_size=64  # then\n")
    return path


def columns(folder: Path) -> Any:
    (path,) = folder.rglob("comparison.json")
    return [row["columns"] for row in json.loads(path.read_text())["rows"]]


def test_a_queue_is_worked_off_once(rows: Path, tmp_path: Path) -> None:
    stored = []
    found = queue.work(rows, tmp_path / "runs", hours=1, store=stored.append)
    assert [each.state for each in found] == ["measured", "measured"]
    assert len(stored) == 2
    log = (tmp_path / "runs" / queue.LOG).read_text()
    again = queue.work(rows, tmp_path / "runs", hours=1, store=stored.append)
    assert [each.state for each in again] == ["measured", "measured"]
    assert len(stored) == 2
    assert (tmp_path / "runs" / queue.LOG).read_text() == log
    assert all(each.hours > 0 for each in again)


def test_a_queue_out_of_time_is_resumed_to_the_same_numbers(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.write_text(f"demo {SMALL}\n")
    runs = tmp_path / "runs"
    clock = time.monotonic
    ahead = 0.0
    monkeypatch.setattr(queue.time, "monotonic", lambda: clock() + ahead)

    def late(step: int, steps: int, loss: float) -> None:
        nonlocal ahead
        ahead = 7200.0 if step == 5 else ahead

    (stopped,) = queue.work(rows, runs, hours=1, on_step=late)
    assert stopped.state == "stopped: run the same command again to resume"
    assert stopped.done == 0
    with (runs / queue.LOG).open("a") as log:
        log.write('{"entry": "demo')  # a full disk
    (ended,) = queue.work(rows, runs, hours=1)
    assert ended.state == "measured"
    words = queue.read_queue(rows)[0].overrides
    compare("demo", tmp_path / "whole", [*words, "training.threads=1"])
    assert columns(runs) == columns(tmp_path / "whole")


def test_what_cannot_be_run_is_named_and_the_rest_goes_on(rows: Path, tmp_path: Path) -> None:
    rows.write_text(f"cm-t2 data.root={tmp_path}/none\ndemo {SMALL}\n")
    missing, measured = queue.work(rows, tmp_path / "runs", hours=1)
    assert "MNIST" in missing.state
    assert missing.done == 0
    assert measured.state == "measured"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("CM-T99", r"rows.txt, line 2: there is no row, recipe or file 'CM-T99'; did you mean 'CM-T\w+'\?"),
        ("demo training.epoch=1", r"rows.txt, line 2: .*epoch"),
        ("demo compare=null published=null", r"rows.txt, line 2: recipe demo has no compare section"),
        ("demmo", r"rows.txt, line 2: there is no row, recipe or file 'demmo'; did you mean 'demo'\?; rows: CM-T1a"),
        ("'demo", r"rows.txt, line 2: a quote or a backslash ends nothing: 'demo"),
    ],
)
def test_a_broken_line_is_named_before_anything_runs(line: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text(f"demo\n{line}\n")
    with pytest.raises(InputError, match=sentence):
        queue.work(path, tmp_path / "runs", hours=0.001)
    assert not (tmp_path / "runs").exists()


def test_two_queues_on_one_folder_and_an_empty_one_are_refused(rows: Path, tmp_path: Path) -> None:
    with files.lock(tmp_path / "runs"), pytest.raises(InputError, match=r"queue folder .* is in use"):
        queue.work(rows, tmp_path / "runs", hours=1)
    rows.write_text("# nothing\n")
    with pytest.raises(InputError, match="names no row; write one per line"):
        queue.read_queue(rows)


def test_the_queue_waits_while_a_benchmark_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not environment.is_timing()
    code = "from angulus.core import environment\nwith environment.timing():\n    print(1, flush=True)\n    input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as benchmark:
        assert benchmark.stdout is not None
        benchmark.stdout.readline()
        assert environment.is_timing()
        sitting = queue.Sitting(time.monotonic() + 60, tmp_path)
        monkeypatch.setattr(queue, "PAUSE_S", 0.01)
        naps: list[float] = []

        def nap(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) == 3:
                benchmark.communicate("\n")

        monkeypatch.setattr(queue.time, "sleep", nap)
        sitting.after_step(1, 2, 0.5)
    assert len(naps) == 3
    assert not sitting.asked


def test_other_evaluations_are_not_measured_yet_and_share_no_folder(tmp_path: Path) -> None:
    path, runs = tmp_path / "rows.txt", tmp_path / "runs"
    path.write_text(f"demo {SMALL}\n")
    queue.work(path, runs, hours=1)
    path.write_text(f"demo {SMALL} evaluation.low_fraction=0.4\n")
    (waiting,) = queue.status(queue.read_queue(path), runs)
    assert not waiting.measured
    (measured,) = queue.work(path, runs, hours=1, threads=2)  # on other threads, the runs are the same
    assert measured.state == "measured"
    path.write_text(f"demo {SMALL}\ndemo {SMALL} evaluation.low_fraction=0.4\n")
    with pytest.raises(InputError, match=r"would share the folder of demo .*; keep one of them"):
        queue.read_queue(path)


def test_a_request_to_stop_ends_the_pause(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(queue.environment, "is_timing", lambda: True)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def stop(seconds: float) -> None:
        signal.signal(signal.SIGINT, handler)  # as the training does when it is asked to stop

    monkeypatch.setattr(queue.time, "sleep", stop)
    queue.Sitting(time.monotonic() + 60, tmp_path).after_step(1, 2, 0.5)


def test_a_defect_in_one_recipe_leaves_the_others(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = queue.compare

    def broken(name: str, where: Path, overrides: list[str], **how: Any) -> Any:
        if not any("batch_size" in change for change in overrides):
            raise RuntimeError("CUDA out of memory")
        return compared(name, where, overrides, **how)

    monkeypatch.setattr(queue, "compare", broken)
    failed, measured = queue.work(rows, tmp_path / "runs", hours=1)
    assert failed.state == "RuntimeError: CUDA out of memory"
    assert measured.state == "measured"


def test_what_was_measured_but_not_written_out_is_written_by_the_next_sitting(rows: Path, tmp_path: Path) -> None:
    rows.write_text(f"demo {SMALL}\n")

    def full(comparison: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "table.md")

    (failed,) = queue.work(rows, tmp_path / "runs", hours=1, store=full)
    assert failed.failed
    assert "No space left" in failed.state
    stored: list[Any] = []
    (measured,) = queue.work(rows, tmp_path / "runs", hours=1, store=stored.append)
    assert measured.state == "measured" and not measured.failed
    assert len(stored) == 1


def test_a_killed_queue_has_logged_its_time(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows.write_text(f"demo {SMALL}\n")
    monkeypatch.setattr(queue, "LOG_EVERY_S", 0.0)
    found: list[tuple[float, str]] = []

    def look(step: int, steps: int, loss: float) -> None:
        (status,) = queue.status(queue.read_queue(rows), tmp_path / "runs")
        found.append((status.hours, status.state))

    (measured,) = queue.work(rows, tmp_path / "runs", hours=1, on_step=look)
    assert {state for _, state in found} == {"running"}
    hours = [hours for hours, _ in found]
    assert hours == sorted(hours)
    assert 0 < hours[-1] <= measured.hours


def test_a_log_that_cannot_be_written_stops_nothing(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*line: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(queue, "_log", full)
    with pytest.warns(UserWarning, match=r"cannot write .*queue.jsonl: No space left on device; .*it lacks: demo"):
        found = queue.work(rows, tmp_path / "runs", hours=1)
    assert [each.done for each in found] == [2, 2]


def test_a_byte_order_mark_and_a_line_twice_are_read_over(rows: Path, tmp_path: Path) -> None:
    plain = queue.read_queue(rows)
    rows.write_bytes(b"\xef\xbb\xbf" + rows.read_bytes().replace(b"\n", b"\r\n") * 2)
    assert queue.read_queue(rows) == plain


def test_recipes_of_one_name_are_refused_and_one_file_by_two_paths_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = shipped()["demo"].read_text()
    (tmp_path / "a.yaml").write_text(recipe)
    (tmp_path / "b.yaml").write_text(recipe.replace("epochs: ", "epochs: 1"))
    path = tmp_path / "rows.txt"
    path.write_text("a.yaml\n./a.yaml\n")
    assert len(queue.read_queue(path)) == 1
    path.write_text("a.yaml training.epochs=3\nb.yaml training.epochs=3 training.batch_size=64\n")
    assert len(queue.read_queue(path)) == 2
    path.write_text("a.yaml\nb.yaml\n")
    with pytest.raises(InputError, match=r"line 2: b.yaml and a.yaml are two recipes with the name 'demo'; rename one"):
        queue.read_queue(path)
