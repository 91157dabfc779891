"""Where the rows of `metrics.jsonl` go besides that file: TensorBoard, Weights & Biases, MLflow.

Each writes below the run's folder; nothing leaves the machine unless the user's own environment asks for it.
"""

import contextlib
import functools
import importlib.util
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from angulus.core import checks, extras, files

# what MLflow's names must not hold: also ":" on Windows, and "//" or "./", since a name must be a normal path
_NAMELESS = re.compile(r"[^\w\-. ]", re.ASCII)


class About(NamedTuple):
    """What a logger knows of a run: its folder, its name and its settings by dotted keys, secrets masked."""

    folder: Path
    name: str
    settings: Mapping[str, Any]
    resume_step: int  # 0 for a new run


class Logger(Protocol):
    """What takes the rows."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take finite numbers by name."""

    def note(self, step: int, what: str, text: str) -> None:
        """Take a sentence."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Files in `tensorboard/`; a resume drops the rows past its step."""

    def __init__(self, about: About) -> None:
        _load("tensorboard")
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        _hush_thread()
        self.board: Any = SummaryWriter(str(about.folder / "tensorboard"), purge_step=about.resume_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def note(self, step: int, what: str, text: str) -> None:
        self.board.add_text(what, text, step)

    def close(self) -> None:
        self.board.close()


@functools.cache
def _hush_thread() -> None:
    """Keep TensorBoard's own thread quiet about a full disk: the next row gets the error, and `Forward` says it."""
    before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not (isinstance(failure.exc_value, OSError) and type(failure.thread).__module__.startswith("tensorboard")):
            before(failure)

    threading.excepthook = hook


class WandB:
    """A run of Weights & Biases in `wandb/`: offline unless WANDB_MODE is set; `wandb sync` uploads it.

    A resumed run has the same id. Neither the command line nor the code nor the terminal's output is recorded.
    """

    def __init__(self, about: About) -> None:
        wandb = _load("wandb")
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "angulus"),
            name=about.name,
            id=_id(about, "wandb", os.urandom(4).hex()),
            resume="allow",
            dir=str(about.folder),
            config=dict(about.settings),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(
                silent=True, console="off", save_code=False, disable_code=True, disable_git=True,
                x_disable_meta=True, x_disable_stats=True,
            ),
        )  # fmt: skip

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def note(self, step: int, what: str, text: str) -> None:
        self.run.summary[f"note at step {step}: {what}"] = text

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """A run of MLflow in the database `mlflow/mlflow.db`, or where MLFLOW_TRACKING_URI is. A resumed run goes on."""

    def __init__(self, about: About) -> None:
        tracking = _load("mlflow", ".tracking")
        self.entities = _load("mlflow", ".entities")
        home = (about.folder / "mlflow").resolve()
        files.make_folder(home)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"
        self.client = tracking.MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "angulus")
        experiment = self.client.get_experiment_by_name(name)
        place = {} if os.environ.get("MLFLOW_TRACKING_URI") else {"artifact_location": (home / "artifacts").as_uri()}
        number = experiment.experiment_id if experiment else self.client.create_experiment(name, **place)
        self.run = _id(about, "mlflow", "")
        if not self.run:
            self.run = self.client.create_run(number, run_name=about.name).info.run_id
            files.write_text(_id_file(about, "mlflow"), self.run)
            named = {_NAMELESS.sub("_", key)[:250]: str(value)[:500] for key, value in about.settings.items()}
            params = [self.entities.Param(key, value) for key, value in named.items()]
            for start in range(0, len(params), 100):  # its limits
                self.client.log_batch(self.run, params=params[start : start + 100])

    def write(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self.entities.Metric(name, value, now, step) for name, value in values.items()]
        self.client.log_batch(self.run, metrics=metrics)

    def note(self, step: int, what: str, text: str) -> None:
        self.client.set_tag(self.run, f"note at step {step} {what}", text)

    def close(self) -> None:
        self.client.set_terminated(self.run)


LOGGERS: dict[str, Callable[[About], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}  # each needs the package of its name


def chosen(names: Sequence[str] | None) -> Sequence[str]:
    """The loggers that `training.loggers` names; None: TensorBoard if it is installed."""
    if names is None:
        return ["tensorboard"] if importlib.util.find_spec("tensorboard") is not None else []
    return list(dict.fromkeys(names))


def refuse_missing(names: Sequence[str] | None) -> None:
    """Refuse a logger whose package is not installed, before a training starts."""
    for name in names or ():
        extras.require(name, f"training.loggers {name}", name)


class Forward:
    """Passes rows on to loggers; one that fails is left out from then on, with a warning: the file has every row."""

    def __init__(self, names: Sequence[str] | None, about: About) -> None:
        self.loggers: dict[str, Logger] = {}
        for name in chosen(names):
            with self._tolerate(name):
                self.loggers[name] = LOGGERS[name](about)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, logger in list(self.loggers.items()):
            with self._tolerate(name):
                logger.write(step, values)

    def note(self, step: int, what: str, text: str) -> None:
        for name, logger in list(self.loggers.items()):
            with self._tolerate(name):
                logger.note(step, what, text)

    def close(self) -> None:
        for name, logger in list(self.loggers.items()):
            with self._tolerate(name):
                logger.close()

    @contextlib.contextmanager
    def _tolerate(self, name: str) -> Any:
        try:
            yield
        except Exception as error:  # a package of others, perhaps with a server
            self.loggers.pop(name, None)
            checks.warn(
                f"{name} no longer gets this training's rows ({checks.one_line(error)[:200]}); the file has all"
            )


def _load(name: str, module: str = "") -> Any:
    return extras.load(name + module, name, f"training.loggers {name}")


def _id_file(about: About, name: str) -> Path:
    return about.folder / f"{name}-run.txt"


def _id(about: About, name: str, new: str) -> str:
    """The id of the run that is resumed, or the new one, which is stored."""
    path = _id_file(about, name)
    if about.resume_step and path.is_file():
        return path.read_text(encoding="utf-8").strip()
    if new:
        files.write_text(path, new)
    return new
