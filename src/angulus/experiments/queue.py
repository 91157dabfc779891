"""A queue of rows of the papers' tables, worked off in the background: one process, lowest priority, resumable."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from angulus.core import checks, environment, files
from angulus.experiments import recipe as recipes
from angulus.experiments.compare import Comparison, compare, run_folder, section
from angulus.experiments.recipe import Recipe
from angulus.experiments.reproduce import missing_inputs, recipes_of_row
from angulus.experiments.run_files import RECIPE, RESULTS
from angulus.training.signals import Interrupted

LOG = "queue.jsonl"
STOPPED = "stopped: run the same command again to resume"
PAUSE_S = 1.0  # between looks at whether a benchmark still runs
LOG_EVERY_S = 600.0  # of a run in work: the most that a process which is killed leaves out of the log
OnRun = Callable[[str, int, int], None]
OnStep = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Entry:
    """One recipe of the queue.

    Args:
        name: of the recipe.
        overrides: `key.path=value`.
        recipe: with them.
    """

    name: str
    overrides: tuple[str, ...]
    recipe: Recipe

    def folder(self, runs: Path) -> Path:
        """Where its comparison goes."""
        return runs / recipes.default_folder(self.recipe, self.overrides).name

    @property
    def title(self) -> str:
        return shlex.join([self.name, *self.overrides])


@dataclass(frozen=True)
class EntryStatus:
    """How far a recipe of the queue is.

    Args:
        entry: the recipe.
        done, runs: runs that ended, and all of its grid.
        measured: all ended, and were measured as the queue asks.
        hours: that it took in all sittings, or 0.
        problem: the last sentence that stopped it, or None.
        running: a process is at work on it.
    """

    entry: Entry
    done: int
    runs: int
    measured: bool
    hours: float
    problem: str | None
    running: bool

    @property
    def failed(self) -> bool:
        """Whether something other than the end of the time stopped it, if only its table from being written."""
        return self.problem not in (None, STOPPED)

    @property
    def state(self) -> str:
        """In one word or sentence."""
        if self.running:
            return "running"
        if self.measured and not self.failed:
            return "measured"
        return self.problem or ("started" if self.done or self.hours else "waiting")


@dataclass
class Sitting:
    """One sitting at the queue: until when it works, and what it did.

    Args:
        ends: by `time.monotonic`, which no change of the clock moves.
        folder: of the log.
        on_run, on_step: as `compare` takes them.
        asked: whether the current run has been asked to stop.
        entry: in work.
        logged: until when the log has its time.
    """

    ends: float
    folder: Path
    on_run: OnRun | None = None
    on_step: OnStep | None = None
    asked: bool = field(default=False, init=False)
    entry: Entry | None = field(default=None, init=False)
    logged: float = field(default=0.0, init=False)

    def begin(self, entry: Entry) -> None:
        """Count the time from now on for this entry."""
        self.entry, self.logged = entry, time.monotonic()

    def log(self, problem: str | None) -> None:
        """Append the entry's time since the last line; if that fails, say so, and let the next line have it."""
        if self.entry is None:
            return
        now = time.monotonic()
        try:
            _log(self.folder, self.entry, now - self.logged, problem)
        except OSError as error:
            checks.warn(f"{files.sentence(error, self.folder / LOG)}; it lacks: {self.entry.title}: {problem}")
        else:
            self.logged = now

    def before_run(self, label: str, before: int, runs: int) -> None:
        """Stop between runs once the time is over."""
        if time.monotonic() >= self.ends:
            raise Interrupted("the queue's time is over")
        if self.on_run is not None:
            self.on_run(label, before, runs)

    def after_step(self, step: int, steps: int, loss: float) -> None:
        """Wait while a benchmark runs; ask the run to stop once the time is over, as Ctrl-C would."""
        if self.on_step is not None:
            self.on_step(step, steps, loss)
        if time.monotonic() - self.logged >= LOG_EVERY_S:
            self.log(STOPPED)  # what the last line says if the process is killed
        handler = signal.getsignal(signal.SIGINT)  # the training puts back the former one when it is asked to stop
        while environment.is_timing() and time.monotonic() < self.ends and signal.getsignal(signal.SIGINT) is handler:
            time.sleep(PAUSE_S)
        if time.monotonic() >= self.ends and not self.asked:
            self.asked = True
            signal.raise_signal(signal.SIGINT)  # os.kill would end the process on Windows


def read_queue(path: Path) -> list[Entry]:
    """Read a queue: one row or recipe per line, with overrides after it; `#` starts a comment.

    Raises:
        checks.InputError: a line that names no row or recipe, or a recipe without `compare` section; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise checks.InputError(f"the queue {path} cannot be read: {checks.why_unread(error)}") from error
    except UnicodeDecodeError as error:
        raise checks.InputError(f"the queue {path} must be text in UTF-8; got {checks.one_line(error)}") from error
    entries: dict[Path, Entry] = {}
    seen: set[tuple[str, ...]] = set()
    for number, line in enumerate(lines, 1):
        try:
            words = tuple(_words(line))
            for entry in _entries(words) if words not in seen else ():
                other = entries.setdefault(entry.folder(path), entry)
                if other.recipe != entry.recipe:
                    raise checks.InputError(_clash(entry, other))
            seen.add(words)
        except checks.InputError as error:
            raise checks.InputError(f"{path}, line {number}: {error}") from error
    if not entries:
        raise checks.InputError(f"the queue {path} names no row; write one per line, such as CM-T2")
    return list(entries.values())


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise checks.InputError(f"a quote or a backslash ends nothing: {line.strip():.60}") from error


def _clash(entry: Entry, other: Entry) -> str:
    """Why two recipes have one folder."""
    if entry.name != other.name:
        return f"{entry.name} and {other.name} are two recipes with the name {entry.recipe.name!r}; rename one"
    return (
        f"{entry.title} would share the folder of {other.title}: they differ only in what does not change the "
        "training; keep one of them"
    )


def _entries(words: Sequence[str]) -> Iterator[Entry]:
    """The recipes that a line names: one, or those of a row."""
    if not words:
        return
    name, *overrides = words
    is_recipe = name in recipes.shipped() or Path(name).is_file()
    for recipe_name in [name] if is_recipe else [row.recipe.name for row in recipes_of_row(name)]:
        recipe = recipes.load(recipe_name, overrides)
        section(recipe)
        yield Entry(recipe_name, tuple(overrides), recipe)


def work(
    queue: Path,
    folder: Path,
    *,
    hours: float,
    threads: int = 1,
    store: Callable[[Comparison], object] = lambda comparison: None,
    on_run: OnRun | None = None,
    on_step: OnStep | None = None,
) -> list[EntryStatus]:
    """Work through a queue until it is done or the time is over; what was measured is kept at any cut-off.

    A recipe whose data are missing, or that fails, is logged with its sentence and left; the others go on.

    Args:
        queue: see `read_queue`.
        folder: gets one folder per recipe, and `queue.jsonl`, the log.
        hours: after which the current run writes its checkpoint and stops.
        threads: of each run.
        store: called with each comparison that is complete, as soon as it is.
        on_run, on_step: as `compare` takes them.

    Raises:
        checks.InputError: a broken queue, hours or threads out of range, or another process at work in the folder.
    """
    checks.number("hours", hours, low=0, open_low=True)
    checks.integer("threads", threads, low=1)
    entries = read_queue(queue)
    with files.lock(folder, "queue folder", way="give the second queue another --out"):
        sitting = Sitting(time.monotonic() + 3600 * hours, folder, on_run, on_step)
        for entry in entries:
            if not _work_on(entry, threads, sitting, store):
                break
        return status(entries, folder)


def _work_on(entry: Entry, threads: int, sitting: Sitting, store: Callable[[Comparison], object]) -> bool:
    """Train what a recipe lacks; returns whether there is time left."""
    where = entry.folder(sitting.folder)
    if _is_measured(entry, where) and _stored(entry, sitting.folder):
        return True
    problem: str | None = STOPPED
    sitting.begin(entry)
    try:
        problem = "; ".join(missing_inputs(entry.recipe)) or None
        if problem is None:
            problem = STOPPED
            overrides = [f"training.threads={threads}", *entry.overrides]
            store(compare(entry.name, where, overrides, on_run=sitting.before_run, on_step=sitting.after_step))
            problem = None
    except Interrupted:
        if time.monotonic() < sitting.ends:  # somebody stopped it
            raise
    except (checks.InputError, OSError) as error:
        problem = files.sentence(error) if isinstance(error, OSError) else str(error)
    except Exception as error:  # out of memory, or a defect: the other recipes go on
        problem = f"{type(error).__name__}: {checks.one_line(error):.300}"
    finally:
        sitting.log(problem)
    return time.monotonic() < sitting.ends


def status(entries: list[Entry], folder: Path) -> list[EntryStatus]:
    """How far each recipe of a queue is, from what lies in the folder."""
    lines = _read_log(folder)
    found = []
    for entry in entries:
        own = [line for line in lines if line["entry"] == entry.title]
        where = entry.folder(folder)
        done, runs = _ended_runs(entry, where)
        problem = own[-1]["problem"] if own else None
        hours = sum(line["seconds"] for line in own) / 3600
        found.append(EntryStatus(entry, done, runs, _is_measured(entry, where), hours, problem, files.is_locked(where)))
    return found


def _stored(entry: Entry, folder: Path) -> bool:
    """Whether its last line in the log says that nothing stopped it, so that its table and report were written too."""
    own = [line for line in _read_log(folder) if line["entry"] == entry.title]
    return bool(own) and own[-1]["problem"] is None


def _is_measured(entry: Entry, where: Path) -> bool:
    """Whether all runs ended and the comparison is of this recipe, whatever number of threads it took."""
    done, runs = _ended_runs(entry, where)
    if done < runs or not (where / "comparison.json").exists():
        return False
    try:
        saved = recipes.stored(where / RECIPE)
    except checks.InputError:
        return False
    threads = dataclasses.replace(saved.training, threads=entry.recipe.training.threads)
    return dataclasses.replace(saved, training=threads) == entry.recipe


def _ended_runs(entry: Entry, folder: Path) -> tuple[int, int]:
    """Runs with results, and all runs of the grid."""
    grid = section(entry.recipe)
    places = [run_folder(folder, name, seed) for name in grid.grid for seed in grid.seeds]
    return sum((place / RESULTS).exists() for place in places), len(places)


def _log(folder: Path, entry: Entry, seconds: float, problem: str | None) -> None:
    """Append a line, flushed to the disk."""
    line = {
        "entry": entry.title, "ended": time.strftime("%Y-%m-%d %H:%M"), "seconds": round(seconds, 1), "problem": problem
    }  # fmt: skip
    with (folder / LOG).open("a+", encoding="utf-8") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
        cut = file.read() not in ("", "\n")  # by a full disk
        file.write("\n" * cut + json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of the log; one that a full disk cut short is left out."""
    path = folder / LOG
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            content = json.loads(line)
            found.append(
                {"entry": content["entry"], "seconds": float(content["seconds"]), "problem": content["problem"]}
            )
        except (ValueError, KeyError, TypeError):
            continue
    return found
