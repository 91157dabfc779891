"""Loggers: what Weights & Biases and MLflow are given, by stand-ins for their packages; failures; secrets."""

from __future__ import annotations

import errno
import json
import posixpath
import re
import sys
import threading
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import pytest

import tiny
from angulus.core.checks import InputError
from angulus.experiments.recipe import Recipe
from angulus.experiments.run import run
from angulus.training import loggers
from angulus.training.callbacks import Callback, Record
from angulus.training.loggers import LOGGERS, chosen


class Stop(Callback):
    def on_step(self, record: Record) -> None:
        if record.step == 7:
            raise LookupError


class FakeRun:
    """A run of Weights & Biases."""

    def __init__(self, options: dict[str, Any], fails_at: int | None) -> None:
        self.options, self.fails_at = options, fails_at
        self.rows: dict[int, dict[str, float]] = {}
        self.summary: dict[str, str] = {}
        self.finished = False

    def log(self, values: dict[str, float], step: int) -> None:
        if step == self.fails_at:
            raise ConnectionError("the server is away")
        self.rows[step] = values

    def finish(self) -> None:
        self.finished = True


class FakeWandb(ModuleType):
    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)  # as if installed
        self.runs: list[FakeRun] = []
        self.fails_at = fails_at
        self.Settings = lambda **options: options

    def init(self, **options: Any) -> FakeRun:
        self.runs.append(FakeRun(options, self.fails_at))
        return self.runs[-1]


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class FakeClient:
    """What a tracking server of MLflow keeps; shared by all clients of a test."""

    experiments: ClassVar[dict[str, dict[str, str]]] = {}
    runs: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, tracking_uri: str) -> None:
        self.uri = tracking_uri

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=name) if name in self.experiments else None

    def create_experiment(self, name: str, **options: str) -> str:
        self.experiments[name] = options
        return name

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.runs.append({"name": run_name, "uri": self.uri, "rows": {}, "params": {}, "ended": 0})
        return SimpleNamespace(info=SimpleNamespace(run_id=str(len(self.runs) - 1)))

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(params) <= 100
        # its rules, on Windows too
        assert all(
            re.fullmatch(r"[A-Za-z0-9_\-. /]{1,250}", key) and posixpath.normpath(key) == key for key, _ in params
        )
        kept = self.runs[int(run)]
        kept["params"] |= dict(params)
        for metric in metrics:
            kept["rows"].setdefault(metric.step, {})[metric.key] = metric.value

    def set_terminated(self, run: str) -> None:
        self.runs[int(run)]["ended"] += 1


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(FakeClient, "experiments", {})
    monkeypatch.setattr(FakeClient, "runs", [])
    parts: dict[str, dict[str, Any]] = {
        "mlflow": {},
        "mlflow.tracking": {"MlflowClient": FakeClient},
        "mlflow.entities": {"Metric": Metric, "Param": lambda key, value: (key, value)},
    }
    for name, content in parts.items():
        module = ModuleType(name)
        vars(module).update(content, __spec__=ModuleSpec(name, None))  # as if installed
        monkeypatch.setitem(sys.modules, name, module)
    return FakeClient


def fake_wandb(monkeypatch: pytest.MonkeyPatch, fails_at: int | None = None) -> FakeWandb:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    fake = FakeWandb(fails_at)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def logged_recipe(*names: str) -> Recipe:
    return tiny.validated(f"training.loggers=[{', '.join(names)}]", "training.log_every=2")


def rows(folder: Path) -> dict[int, dict[str, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {line.pop("step"): line for line in lines}


def stop_and_resume(chosen: Recipe, folder: Path) -> None:
    with pytest.raises(LookupError):
        run(chosen, folder, splits=tiny.splits(), callbacks=[Stop()])
    run(chosen, folder, splits=tiny.splits(), resume=True)


def test_wandb_gets_the_rows_and_the_recipe_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = fake_wandb(monkeypatch)
    chosen = tiny.validated(
        "training.loggers=[wandb]", "training.log_every=2", "needs={'https://me:pass@host/x?token=abcdef': there}"
    )
    stop_and_resume(chosen, tmp_path)
    first, second = fake.runs
    assert first.rows | second.rows == rows(tmp_path)
    assert sorted(second.rows) == [8, 10]
    assert first.finished
    assert second.finished
    assert first.options["id"] == second.options["id"] == (tmp_path / "wandb-run.txt").read_text()
    options = first.options
    assert (options["mode"], options["resume"], options["dir"]) == ("offline", "allow", str(tmp_path))
    assert options["name"] == "tiny"
    assert options["config"]["training.epochs"] == 2
    assert options["settings"]["x_disable_meta"]  # the command line, which may hold secrets
    assert not options["settings"]["save_code"]


def test_mlflow_gets_the_rows_in_one_run_that_a_resume_continues(mlflow: type[FakeClient], tmp_path: Path) -> None:
    needs = "needs={'https://host/a+b?c': there}"
    stop_and_resume(tiny.validated("training.loggers=[mlflow]", "training.log_every=2", needs), tmp_path)
    (kept,) = mlflow.runs
    assert kept["params"]["needs.https___host_a_b_c"] == "there"
    assert kept["rows"] == rows(tmp_path)
    assert kept["ended"] == 2
    assert (kept["name"], kept["params"]["objective.radius.s"]) == ("tiny", "10")
    assert kept["uri"] == f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    assert mlflow.experiments == {"angulus": {"artifact_location": (tmp_path / "mlflow/artifacts").as_uri()}}


def test_mlflow_uses_the_users_server(
    mlflow: type[FakeClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:pass@localhost:5000")
    run(logged_recipe("mlflow"), tmp_path, splits=tiny.splits())
    assert mlflow.runs[0]["uri"] == "http://me:pass@localhost:5000"
    assert mlflow.experiments == {"angulus": {}}
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"me:pass" in path.read_bytes()]
    assert kept == []


def test_a_logger_that_fails_is_left_out_with_one_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = fake_wandb(monkeypatch, fails_at=4)
    with pytest.warns(UserWarning, match="wandb no longer gets this training's rows .the server is away.") as caught:
        run(logged_recipe("wandb"), tmp_path, splits=tiny.splits())
    assert len([each for each in caught if "no longer" in str(each.message)]) == 1
    assert list(fake.runs[0].rows) == [2]
    assert list(rows(tmp_path)) == [2, 4, 6, 8, 10]


def test_tensorboard_on_a_full_disk_is_left_out_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(thread: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    told: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer._AsyncWriterThread._run", full)
    loggers._hush_thread.cache_clear()
    with pytest.warns(UserWarning, match="tensorboard no longer gets this training's rows .*No space left on device"):
        run(logged_recipe("tensorboard"), tmp_path, splits=tiny.splits())
    assert list(rows(tmp_path)) == [2, 4, 6, 8, 10]
    assert told == []
    other = threading.Thread(target=full, args=(None,))
    other.start()
    other.join()
    assert len(told) == 1
    loggers._hush_thread.cache_clear()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_told_before_anything_is_written(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # not installed
    sentence = rf"^training.loggers {name} needs `pip install 'angulus\[{name}\]'` \(there is no package {name}\)$"
    with pytest.raises(InputError, match=sentence):
        run(logged_recipe(name), tmp_path / "run", splits=tiny.splits())
    assert not (tmp_path / "run").exists()


def test_no_logger_and_the_default_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(logged_recipe(), tmp_path, splits=tiny.splits())
    assert not (tmp_path / "tensorboard").exists()
    assert chosen(None) == ["tensorboard"]
    assert chosen(["mlflow", "wandb", "mlflow"]) == ["mlflow", "wandb"]
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # not installed
    assert chosen(None) == []
    assert set(LOGGERS) == {"tensorboard", "wandb", "mlflow"}


def test_loggers_may_change_on_resume(tmp_path: Path) -> None:
    with pytest.raises(LookupError):
        run(logged_recipe("tensorboard"), tmp_path, splits=tiny.splits(), callbacks=[Stop()])
    run(logged_recipe(), tmp_path, splits=tiny.splits(), resume=True)
    assert len(rows(tmp_path)) == 5
