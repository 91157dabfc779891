"""What a recipe measures and what its paper says: `evaluation`, `compare`, `published`, `rows` and `claims`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, Literal, NamedTuple

import pydantic
from pydantic.dataclasses import dataclass

from angulus.core import checks
from angulus.experiments.benchmark import Benchmark
from angulus.training.settings import STRICT, Count, OpenFraction, Positive, Validation

GROUPS = ("good", "low", "entire")
# what `report.analyses` draws or writes of a comparison, and where the papers have it
ANALYSES = {
    "norm_bins": "accuracy and number of test samples by feature norm: FI Fig. 1",
    "per_class": "mean norm and accuracy by class: FI Fig. 6",
    "image_norms": "accuracy where good and low are split by the norms of the test images' pixels",
    "changed": "samples that a variant fixes and breaks against the baseline, and their norms: FI Table 5",
    "weight_histograms": "the weights by layer, before and after training: FI Fig. 7",
    "curves": "loss, feature norm and accuracy of training batches, and of the test images, by step: FI Fig. 2, 8",
    "loss_by_epoch": "loss against epoch: MV Fig. 2",
    "sweep": "every column against the swept value: NF Fig. 8, IAM Tables 3 and 4",
    "result_curves": "the benchmarks' curves (ROC, CMC, FROC, ...): MV Fig. 3, CM Fig. 6",
    "probability_map": "the probability of class 0 over the plane of 2-D features: NF Fig. 2",
    "training_features": "2-D or 3-D features of 10,000 training images: NF Fig. 2, IAM Fig. 2",
    "pair_histograms": "histograms of the frame similarities of pairs of videos: NF Fig. 9",
}


def accuracy_title(group: str) -> str:
    """The column of a quality group's accuracy."""
    return f"accuracy {group} %"


def norm_title(group: str) -> str:
    """The column of a quality group's mean norm."""
    return f"norm {group}"


@dataclass(frozen=True, config=STRICT)
class Evaluation:
    """What to measure after training.

    The test split's accuracy and norms always are; the table shows them if no benchmark is named.
    """

    low_fraction: OpenFraction = 0.2
    """The share of samples that count as low quality."""
    batch_size: Count = 1000
    """Images per batch."""
    each_epoch: bool = False
    """Log loss, accuracy and mean norm of the test images after each epoch too, for curves such as FI Fig. 2 and 8;
    no model is chosen by them."""
    benchmarks: list[Benchmark] = field(default_factory=list)
    """What else to measure, each by a protocol."""

    def __post_init__(self) -> None:
        names = [benchmark.name for benchmark in self.benchmarks]
        titles = [title for benchmark in self.benchmarks for title in benchmark.columns]
        for what, values in (("names", names), ("columns", titles)):
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise checks.InputError(f"evaluation.benchmarks must have {what} that differ; {twice!r} is there twice")

    @property
    def titles(self) -> list[str]:
        """The columns of the table, in their order."""
        if self.benchmarks:
            return [title for benchmark in self.benchmarks for title in benchmark.columns]
        return [*map(accuracy_title, GROUPS), *map(norm_title, GROUPS)]


class Point(NamedTuple):
    """A point of the grid: its name, its variant, and the values of the sweep by key."""

    name: str
    variant: str
    values: dict[str, Any]


@dataclass(frozen=True, config=STRICT)
class Choose:
    """Choose each variant's settings before the grid is trained, on classes held out of the training data.

    Every variant gets as many trials. The chosen settings are then trained on all classes; the test images and the
    benchmarks take no part in the choice.
    """

    settings: dict[str, list[dict[str, Any]]]
    """Variant -> the trials, each a mapping `{key.path: value}` of overrides."""
    epochs: Count
    """Of each trial."""
    validation: Validation
    """The classes that are held out of the trials, and how pairs of them are verified."""
    by: Literal["validation_accuracy", "validation_tar"] = "validation_accuracy"
    """The highest of these at the end of a trial is chosen; of equal ones the first."""
    seed: Annotated[int, pydantic.Field(ge=0, le=2**32 - 1)] = 0
    """The seed of all trials."""


@dataclass(frozen=True, config=STRICT)
class Compare:
    """A grid of runs."""

    seeds: list[int]
    """Each variant is trained once per seed."""
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> overrides of the recipe, `{key.path: value}`."""
    sweep: dict[str, list[Any]] = field(default_factory=dict)
    """`{key.path: [values]}`: each variant is trained with each value; with several keys, with each combination."""
    folds: dict[str, list[Any]] = field(default_factory=dict)
    """`{key.path: [values]}`, one key: cross-validation. Each run of the grid is trained once per value, such as
    `{data.options.fold: [0, 1, 2]}`, and their test images are measured together."""
    choose: Choose | None = None
    """How each variant's settings are chosen, or null: as written."""
    quality_split: str | None = None
    """The variant whose norms split good from low for all, test images and pairs of benchmarks; null lets each model
    split for itself."""
    baseline: str | None = None
    """The variant that the others are compared with, seed by seed; null is the first one."""
    analyses: list[str] = field(default_factory=list)
    """Closer looks, such as norm_bins or changed; a wrong name gives an error with the list."""

    def __post_init__(self) -> None:
        if not self.grid or not self.seeds:
            raise checks.InputError("compare needs at least one variant and one seed, and in a sweep one value per key")
        if len(set(self.seeds)) < len(self.seeds):
            raise checks.InputError(f"compare.seeds must differ; got {self.seeds}")
        for path, values in self.folds.items():
            if (
                len(self.folds) > 1
                or len(set(map(str, values))) < max(2, len(values))
                or not path.startswith("data.options.")
            ):
                raise checks.InputError(
                    "compare.folds takes one option of the data and at least two values that differ, such as "
                    f"{{data.options.fold: [0, 1]}}; got {self.folds}"
                )
        for name, value in (("quality_split", self.quality_split), ("baseline", self.baseline)):
            if value is not None:
                checks.choice(f"compare.{name}", value, self.grid)
        for name in self.analyses:
            checks.choice("compare.analyses", name, ANALYSES)
        if self.folds and "image_norms" in self.analyses:
            raise checks.InputError(
                "compare.analyses image_norms reads one set of test images; got folds: leave one of them out"
            )
        if self.choose is not None:
            self._check_trials(self.choose.settings)

    def _sweeps(self, path: str) -> bool:
        """Whether the sweep sets this key, one above or one below it."""
        return any(f"{one}.".startswith(f"{two}.") for key in self.sweep for one, two in ((key, path), (path, key)))

    def _check_trials(self, settings: Mapping[str, Sequence[Any]]) -> None:
        for name, trials in settings.items():
            checks.choice("compare.choose.settings", name, self.grid)
            for path in [path for changes in (self.grid[name], *trials) for path in changes]:
                if path != "training.optimizer" and not path.startswith(("objective", "training.optimizer.")):
                    raise checks.InputError(
                        f"compare.choose compares losses, so variants and trials may change objective and "
                        f"training.optimizer alone; {name} changes {path}"
                    )
        if self.folds:
            raise checks.InputError(
                "compare.choose and compare.folds exclude each other: a trial would see the other folds' test images"
            )
        swept = [path for changes in settings.values() for trial in changes for path in trial if self._sweeps(path)]
        if swept:
            raise checks.InputError(
                f"{swept[0]} is both swept and chosen; leave it out of compare.sweep or compare.choose"
            )
        counts = {name: len(settings.get(name, ())) for name in self.grid}
        if len(set(counts.values())) > 1 or 0 in counts.values():
            raise checks.InputError(
                f"compare.choose.settings gives every variant as many trials as the others; got {counts}"
            )

    @property
    def grid(self) -> dict[str, dict[str, Any]]:
        """The variants crossed with the sweep, name -> overrides.

        >>> list(Compare([0], {"AM": {}}, {"objective.iam.beta": [0.1, 0.2]}).grid)
        ['AM, beta=0.1', 'AM, beta=0.2']
        """
        return {point.name: {**self.variants.get(point.variant, {}), **point.values} for point in self.points}

    @property
    def points(self) -> list[Point]:
        """The points of the grid in order: every variant with every combination of the sweep's values."""
        points = []
        names = list(self.variants) or ([""] if self.sweep else [])
        for variant, values in itertools.product(names, itertools.product(*self.sweep.values())):
            swept = dict(zip(self.sweep, values, strict=True))
            words = [f"{path.rsplit('.', 1)[-1]}={value}" for path, value in swept.items()]
            points.append(Point(", ".join([variant] * bool(variant) + words), variant, swept))
        return points

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """The folds' overrides by the name of their folder; without folds one part without a name.

        >>> Compare([0], {"AM": {}}, folds={"data.options.fold": [0, 1]}).parts
        {'fold=0': {'data.options.fold': 0}, 'fold=1': {'data.options.fold': 1}}
        """
        if not self.folds:
            return {"": {}}
        ((path, values),) = self.folds.items()
        return {f"{path.rsplit('.', 1)[-1]}={value}": {path: value} for value in values}

    @property
    def against(self) -> str:
        """The variant that the others are compared with."""
        return self.baseline or next(iter(self.grid))


@dataclass(frozen=True, config=STRICT)
class RowContent:
    """What a row of a paper's table shows."""

    what: str
    """The table and its row, in words."""
    column: str | None = None
    """The column that a summary shows; null if the row is a picture, or needs several columns."""


@dataclass(frozen=True, config=STRICT)
class Claim:
    """A claim of the paper about a difference: one mean is above another, or equal to it."""

    says: str
    """The claim in one sentence."""
    variant: str
    """Whose mean is larger."""
    column: str
    """The column that is compared."""
    than: str | None = None
    """The variant that it is compared with; null is the same one."""
    than_column: str | None = None
    """The column that it is compared with; null is the same one."""
    within: Positive | None = None
    """Of a claim that there is no difference: the largest difference that would still count as none."""

    def __post_init__(self) -> None:
        if self.than is None and self.than_column is None:
            raise checks.InputError(f"the claim {self.says!r} needs than (a variant) or than_column (a column)")
        if self.sides[0] == self.sides[1]:
            raise checks.InputError(f"the claim {self.says!r} compares {self.variant} {self.column} with itself")

    @property
    def sides(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """(variant, column) of what is compared, and of what it is compared with."""
        return (self.variant, self.column), (self.than or self.variant, self.than_column or self.column)

    def check(self, variants: Iterable[str], titles: Iterable[str]) -> None:
        """Refuse a variant or a column that the recipe's table does not have."""
        variants, titles = list(variants), list(titles)
        for variant, column in self.sides:
            checks.choice(f"a variant of the claim {self.says!r}", variant, variants)
            checks.choice(f"a column of the claim {self.says!r}", column, titles)


@dataclass(frozen=True, config=STRICT)
class Published:
    """What the paper reports."""

    source: str
    """The paper and its table."""
    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)
    """The accuracy in % by variant and group (good, low, entire)."""
    mean_norm: dict[str, dict[str, float]] = field(default_factory=dict)
    """The mean norm by variant and group."""
    columns: dict[str, dict[str, float]] = field(default_factory=dict)
    """The numbers of the benchmarks' columns by variant."""

    def check(self, variants: Iterable[str], titles: Iterable[str]) -> None:
        """Refuse numbers of a variant or a column that the recipe's table does not have."""
        variants, titles = list(variants), list(titles)
        for name in {**self.accuracy, **self.mean_norm, **self.columns}:
            checks.choice("a variant of published", name, variants)
            for title in self.of(name):
                checks.choice(f"a column of published for {name!r}", title, titles)

    def only(self, variants: Iterable[str]) -> Published:
        """The numbers of some variants."""
        names = set(variants)
        tables = (self.accuracy, self.mean_norm, self.columns)
        return Published(self.source, *({name: table[name] for name in table if name in names} for table in tables))

    def of(self, variant: str) -> Mapping[str, float]:
        """A variant's numbers by the columns of the table."""
        return {
            **{accuracy_title(group): value for group, value in self.accuracy.get(variant, {}).items()},
            **{norm_title(group): value for group, value in self.mean_norm.get(variant, {}).items()},
            **self.columns.get(variant, {}),
        }
