"""The content of a report: runs, comparisons of runs and saved results, read from disk."""

import contextlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from angulus.core import checks
from angulus.evaluation.metrics.intervals import MOST_DRAWS
from angulus.evaluation.protocols.result import Result
from angulus.experiments import compare
from angulus.experiments import recipe as recipes
from angulus.experiments.compare import Comparison
from angulus.experiments.measure import BENCHMARKS
from angulus.experiments.run_files import RECIPE, RESULTS
from angulus.report.finished_run import DataSets, FinishedRun, read_run
from angulus.report.unfinished_run import describe_unfinished, keep_finished
from angulus.training import log

COMPARISON = "comparison.json"
RUNS_OF_COMPARISON = ("*/seed-*", "*/seed-*/*")  # in its folder; the second are folds


@dataclass(frozen=True, eq=False)
class Content:
    """Everything that a report shows."""

    comparisons: list[Comparison] = field(default_factory=list)
    runs: list[FinishedRun] = field(default_factory=list)  # single ones, and those of a comparison's first seed
    results: dict[str, Result] = field(default_factory=dict)  # saved ones, by name
    runs_of_results: dict[str, str] = field(default_factory=dict)  # by the result's name, if it belongs to a run
    in_comparisons: set[str] = field(default_factory=set)  # the names of results that the table of a comparison has
    left_out: list[str] = field(default_factory=list)  # a sentence for each input that cannot be shown
    draws: int = 1000  # at most, behind intervals that are computed for the report

    @property
    def title(self) -> str:
        """Of the page."""
        recipes = [*(comparison.recipe for comparison in self.comparisons), *(run.recipe for run in self.runs)]
        if recipes:
            return recipes[0].title or recipes[0].name
        return ", ".join(dict.fromkeys(result.protocol for result in self.results.values()))


def read_content(paths: Sequence[Path], *, draws: int = 1000) -> Content:
    """Read folders of runs and comparisons, and results saved as .json, in any mixture.

    What has not finished or is damaged is left out, with a sentence that says so.

    Args:
        paths: at least one; each is read once.
        draws: resamples of the test images for the intervals of runs, and the most for bands; 0 gives no intervals.

    Raises:
        checks.InputError: no path is given, or nothing can be shown; the message says why for each path.
    """
    if not paths:
        raise checks.InputError("a report needs at least one run, comparison or saved result; got none")
    checks.integer("draws", draws, low=0, high=MOST_DRAWS, hint="0 gives no intervals")
    reader = _ContentReader(Content(draws=draws))
    for path in dict.fromkeys(path.resolve() for path in paths):
        with reader.noting_errors(path):
            reader.read(path)
    content = reader.content
    if not (content.comparisons or content.runs or content.results):
        raise checks.InputError("; ".join(dict.fromkeys(content.left_out)))
    return content


@dataclass(frozen=True, eq=False)
class _ContentReader:
    """Reads one path after the other into the content."""

    content: Content
    data: DataSets = field(default_factory=DataSets)

    @contextlib.contextmanager
    def noting_errors(self, path: Path) -> Iterator[None]:
        """Turn an error into a sentence in `left_out`; what was read before it stays."""
        try:
            yield
        except (checks.InputError, OSError) as error:
            self.content.left_out.append(str(error))
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
            # files with unexpected content: the rest can still be shown
            self.content.left_out.append(f"{path} is damaged ({type(error).__name__}: {checks.one_line(error):.200})")

    def read(self, path: Path) -> None:
        """Read a run, a comparison or a saved result."""
        if path.suffix == ".json" and path.is_file():
            self._result(path.stem, path.parent.name, path)
        elif (path / RESULTS).is_file():
            in_comparison = re.fullmatch(r"seed-\d+", path.name)  # there the variant's folder says more
            name = f"{path.parent.name}/{path.name}" if in_comparison else path.name
            unique = self._run(name, path.parent.name, path)
            self._benchmarks(name, path.parent.name, path, unique)
        elif (path / RECIPE).is_file() and ((path / COMPARISON).is_file() or _runs_in(path)):
            self._comparison(path)
        elif runs := _runs_in(path):  # a comparison whose recipe is missing
            for run in runs:
                with self.noting_errors(run):
                    self.read(run)
        elif (path / RECIPE).is_file():
            raise checks.InputError(describe_unfinished(path, self.data))
        else:
            raise checks.InputError(
                f"a report is made from run folders ({RESULTS}), comparisons ({COMPARISON}) and results that `angulus "
                f"evaluate --json` saved; {path} {'is none of them' if path.exists() else 'does not exist'}"
            )

    def _run(self, name: str, parent: str, folder: Path, reference: Path | None = None) -> str:
        """Read a run; returns its name."""
        name = _unique_name(name, parent, [run.name for run in self.content.runs])
        self.content.runs.append(read_run(name, folder, reference, self.data, self.content.draws))
        if damage := log.find_damage(folder / log.METRICS):
            self.content.left_out.append(f"{folder / log.METRICS}: {damage}; the lines before it are shown")
        return name

    def _benchmarks(self, name: str, parent: str, folder: Path, run: str) -> list[str]:
        """Read the results of a run; returns their names."""
        names = []
        for path in sorted((folder / BENCHMARKS).glob("*.json")):
            with self.noting_errors(path):
                names.append(self._result(f"{name}: {path.stem}", parent, path))
                self.content.runs_of_results[names[-1]] = run
        return names

    def _result(self, name: str, parent: str, path: Path) -> str:
        """Read a saved result; returns its name."""
        name = _unique_name(name, parent, self.content.results)
        self.content.results[name] = Result.read(path)
        return name

    def _comparison(self, path: Path) -> None:
        recipe, lines = keep_finished(recipes.stored(path / RECIPE), path, self.data)
        self.content.left_out.extend(lines)
        if recipe is None:
            return
        self.content.comparisons.append(compare.collect(recipe, path))
        grid = compare.section(recipe)
        splitter, part = grid.quality_split, next(iter(grid.parts))
        reference = None if splitter is None else compare.model_folder(path, grid, splitter)
        for name in grid.grid:
            with self.noting_errors(path / name):
                label = f"{name}, {part}" if part else name  # of folds, the first one's model
                run = self._run(label, path.name, compare.model_folder(path, grid, name), reference)
                folder = compare.run_folder(path, name, grid.seeds[0])  # with folds, its results are of all of them
                self.content.in_comparisons.update(self._benchmarks(name, path.name, folder, name if part else run))


def _runs_in(path: Path) -> list[Path]:
    return sorted(run for pattern in RUNS_OF_COMPARISON for run in path.glob(pattern) if (run / RECIPE).is_file())


def _unique_name(name: str, folder: str, taken: Collection[str]) -> str:
    """The name itself; if it is taken, with its folder in front, or else with a number behind."""
    candidates = (name, f"{folder}/{name}", *(f"{name} ({number})" for number in range(2, len(taken) + 2)))
    return next(candidate for candidate in candidates if candidate not in taken)
