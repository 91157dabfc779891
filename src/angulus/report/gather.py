"""What a report is made of: runs, comparisons of runs and saved results, read from disk."""

from __future__ import annotations

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
from angulus.report import model, unfinished
from angulus.report.model import DataSets, Model
from angulus.training import log

COMPARISON = "comparison.json"
OF_COMPARISON = ("*/seed-*", "*/seed-*/*")  # where the runs of a comparison lie in its folder, the second of folds


@dataclass(frozen=True, eq=False)
class Content:
    """All that a report shows: comparisons over seeds, models (of a comparison the first seed's), saved results.

    What was given and cannot be shown is said in `left_out`, a sentence each.
    """

    comparisons: list[Comparison] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    measured: dict[str, Result] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Of the page."""
        named = [*(each.recipe for each in self.comparisons), *(each.recipe for each in self.models)]
        if named:
            return named[0].title or named[0].name
        return ", ".join(dict.fromkeys(result.protocol for result in self.measured.values()))


def gather(paths: Sequence[Path], *, draws: int = 1000) -> Content:
    """Read folders of runs and comparisons, and results saved as .json, in any mixture.

    What has not ended or is damaged is left out, and said to be.

    Args:
        paths: at least one; what is given twice is shown once.
        draws: resamples of the test images behind the intervals of runs, 0 for none.

    Raises:
        checks.InputError: nothing is given, or nothing of it can be shown, with the reason of each.
    """
    if not paths:
        raise checks.InputError("a report needs at least one run, comparison or saved result; got none")
    checks.integer("draws", draws, low=0, high=MOST_DRAWS, hint="0 gives no intervals")
    reader = _Reader(Content(), draws)
    for path in dict.fromkeys(each.resolve() for each in paths):
        with reader.kept(path):
            reader.read(path)
    content = reader.content
    if not (content.comparisons or content.models or content.measured):
        raise checks.InputError("; ".join(dict.fromkeys(content.left_out)))
    return content


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads one path after the other into the content."""

    content: Content
    draws: int
    data: DataSets = field(default_factory=DataSets)

    @contextlib.contextmanager
    def kept(self, path: Path) -> Iterator[None]:
        """What is wrong within is said in the content, which is kept as far as it has come."""
        try:
            yield
        except (checks.InputError, OSError) as error:
            self.content.left_out.append(str(error))
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
            # of files that hold something else than what was written: the rest is shown all the same
            self.content.left_out.append(f"{path} is damaged ({type(error).__name__}: {checks.one_line(error):.200})")

    def read(self, path: Path) -> None:
        """Whatever lies there."""
        content = self.content
        if path.suffix == ".json" and path.is_file():
            content.measured[_new_name(path.stem, path.parent.name, content.measured)] = Result.read(path)
        elif (path / RESULTS).is_file():
            seed = re.fullmatch(r"seed-\d+", path.name)  # of a comparison: the variant's folder says more
            name = f"{path.parent.name}/{path.name}" if seed else path.name
            self._run(name, path.parent.name, path)
            self._results(name, path.parent.name, path)
        elif (path / RECIPE).is_file() and ((path / COMPARISON).is_file() or _runs_in(path)):
            self._comparison(path)
        elif _runs_in(path):  # a comparison from before these wrote their recipe first
            for each in _runs_in(path):
                with self.kept(each):
                    self.read(each)
        elif (path / RECIPE).is_file():
            raise checks.InputError(unfinished.run(path, self.data))
        else:
            there = "" if path.exists() else ": there is nothing there"
            raise checks.InputError(
                f"a report is of run folders ({RESULTS}), comparisons ({COMPARISON}) and results that `angulus "
                f"evaluate --json` saved; {path} is none of them{there}"
            )

    def _run(self, name: str, holder: str, folder: Path, reference: Path | None = None) -> None:
        content = self.content
        name = _new_name(name, holder, [each.name for each in content.models])
        content.models.append(model.read(name, folder, reference, self.data, self.draws))
        if wrong := log.find_damage(folder / log.METRICS):
            content.left_out.append(f"{folder / log.METRICS}: {wrong}; what stands before it is shown")

    def _results(self, name: str, holder: str, folder: Path) -> None:
        content = self.content
        for saved in sorted((folder / BENCHMARKS).glob("*.json")):
            with self.kept(saved):
                content.measured[_new_name(f"{name}: {saved.stem}", holder, content.measured)] = Result.read(saved)

    def _comparison(self, path: Path) -> None:
        recipe, lines = unfinished.finished_part(recipes.load(path / RECIPE), path, self.data)
        self.content.left_out.extend(lines)
        if recipe is None:
            return
        self.content.comparisons.append(compare.collect(recipe, path))
        grid = compare.section(recipe)
        judge, part = grid.quality_split, next(iter(grid.parts))
        reference = None if judge is None else compare.model_folder(path, grid, judge)
        for name in grid.grid:
            shown = f"{name}, {part}" if part else name  # of folds, the first one's model beside what all found
            with self.kept(path / name):
                self._run(shown, path.name, compare.model_folder(path, grid, name), reference)
                self._results(name, path.name, compare.run_folder(path, name, grid.seeds[0]))


def _runs_in(path: Path) -> list[Path]:
    return sorted(each for runs in OF_COMPARISON for each in path.glob(runs) if (each / RECIPE).is_file())


def _new_name(name: str, folder: str, taken: Collection[str]) -> str:
    """A name that is not taken: with its folder before it, or else a number after it."""
    candidates = (name, f"{folder}/{name}", *(f"{name} ({number})" for number in range(2, len(taken) + 2)))
    return next(each for each in candidates if each not in taken)
