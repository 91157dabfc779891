"""Recipes: an experiment as YAML, checked to the last key, with `key.path=value` overrides."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML

from angulus import backbones, data
from angulus.core import checks, files, redact, schema, urls
from angulus.core.checks import InputError
from angulus.core.contract import Contract
from angulus.data.augment import Augment
from angulus.data.sets.images import FILES, GIVEN
from angulus.data.sets.registry import SETS
from angulus.experiments import plugins as plugin_files
from angulus.experiments.claims import Claim, Compare, Evaluation, Published, RowContent
from angulus.experiments.overrides import override, parse_yaml, tag, variant
from angulus.heads.sampling import ClassSampling
from angulus.kernels import dispatch
from angulus.losses import from_recipe
from angulus.losses.objective import Objective
from angulus.losses.serialize import to_mapping
from angulus.training.settings import SGD, STRICT, Compatible, Count, Training, Validation

__all__ = [
    "Recipe", "compose", "default_folder", "dump", "find", "flat", "load", "override", "parse_yaml", "read", "shipped",
    "stored", "to_yaml", "validate", "variant", "with_own_input",
]  # fmt: skip

OWN_DATA = ("image_column", "label_column", "split", "test", "size")  # keys of data that only `path` has
SKIPPING = [name for name, entry in SETS.items() if entry.skips]
FOLDERS = (Path(__file__).parents[1] / "recipes", Path(__file__).parents[3] / "recipes")


@partial(schema.from_python, section="data")
@dataclass(frozen=True, config=STRICT)
class DataSection:
    """Which data set to use: one by its name, or images of your own by their path."""

    name: str = FILES
    """One of those that `angulus list datasets` shows; `files` means the images at `path`, and `python` images that
    Python code gave to `Trainer`."""
    path: str | None = None
    """Images of your own: a folder with one subfolder per class, records, a .csv, .lst, .rec, .tar, .parquet or .arrow,
    a folder of such files, or a data set saved by the package `datasets`."""
    image_column: str | None = None
    """The column of the images or their paths, in a .csv, Parquet or Arrow file; null: image, path and the like."""
    label_column: str | None = None
    """The column of the classes; null: label, class, identity and the like."""
    split: str | None = None
    """The part of `path` to train on; null: train if there is one, else everything."""
    test: str | None = None
    """The part of `path` to test on, or another path, also below ANGULUS_DATA; null: its test or validation, else one
    image in ten of each class."""
    size: list[Count] | None = None
    """Height and width in pixels that images are resized to, as `angulus prepare images` does; null: they have one
    size."""
    on_error: Literal["skip", "stop"] = "skip"
    """What an image that cannot be read does: skip leaves it out and lists it in left-out.jsonl of the run's folder,
    stop ends the training. For `path` and for records."""
    most_bad: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.01
    """The share of the images that may be skipped; more of them (and more than ten) end the training."""
    root: str | None = None
    """The folder of the data set; null: ANGULUS_DATA or the cache. For `path`: the folder that the paths in a list are
    relative to; null: the list's own."""
    download: bool = False
    """Whether to fetch it if it is missing."""
    options: dict[str, Any] = field(default_factory=dict)
    """What else `angulus.data.load` takes for this set, such as the fold."""

    def __post_init__(self) -> None:
        if self.name != GIVEN:
            checks.choice("data.name", self.name, data.list_datasets())
        own = [key for key in ("path", *OWN_DATA) if getattr(self, key) is not None]
        if self.name != FILES and own:
            raise InputError(
                f"data.{own[0]} is for images of your own, and data.name is {self.name!r}; give one of them, such as "
                "'data={path: PATH}'"
            )
        if self.name == FILES and self.path is None:
            raise InputError(
                "data must have a name, one that `angulus list datasets` shows, or the path of your images"
            )

    def arguments(self) -> dict[str, Any]:
        """What `angulus.data.load` takes for this set, without the places on the disk."""
        chosen = {key: value for key in OWN_DATA if (value := getattr(self, key)) is not None}
        skipping = {"on_error": self.on_error, "most_bad": self.most_bad} if self.name in SKIPPING else {}
        return {**chosen, **skipping, **self.options}


@dataclass(frozen=True, config=STRICT)
class BackboneSection:
    """Which network to train."""

    name: str
    """One of those that `angulus list backbones` shows, or timm:NAME for a net of timm."""
    embedding_size: Count
    """The size of its features."""
    normalize: bool = False
    """Make features unit vectors before the head. This loses their norms, so losses and penalties that read norms are
    refused; heads normalise by themselves where their loss says so."""
    options: dict[str, Any] = field(default_factory=dict)
    """What else its constructor takes."""

    def __post_init__(self) -> None:
        backbones.check_name("backbone.name", self.name)
        for name in ("in_channels", "image_size", "embedding_size"):
            if name in self.options:
                raise InputError(
                    f"backbone.options must not hold {name}: the size of the features is backbone.embedding_size, and "
                    "the images' own is taken from the data"
                )


@dataclass(frozen=True, config=STRICT)
class HeadSection:
    """How to compute the class loss."""

    impl: str = "auto"
    """The kernel: auto, reference, chunked, fused or blocked; see `class_loss`."""
    products: Literal["float32", "bfloat16"] = "float32"
    """The dtype of the products with the class weights."""
    sharded: Literal[True, False, "auto"] = "auto"
    """Whether to split the classes over the processes: auto, if there are several; false refuses several."""
    sampling: ClassSampling | None = None
    """Train a share of the classes per step, by `SparseSGD`."""
    init: Literal["normal", "spread"] = "normal"
    """The first class weights: drawn, or pushed apart as far as there is room (`heads.init.spread`)."""
    update_in_backward: bool = False
    """Train the class weights by `BackwardSGD`, which never holds their gradient."""
    rounding: Literal["stochastic", "kahan"] | None = None
    """Keep the class weights in bfloat16, and round the updates of `BackwardSGD` this way, so that small ones add up;
    null keeps them in float32."""

    def __post_init__(self) -> None:
        checks.choice("head.impl", self.impl, dispatch.NAMES)
        if self.rounding is not None and not self.update_in_backward:
            raise InputError(
                f"head.rounding {self.rounding} rounds bfloat16 class weights that are trained within backward, so it "
                "needs head.update_in_backward: true; leave it out for float32 class weights"
            )
        if self.update_in_backward and (self.impl not in dispatch.UPDATING or self.sampling is not None):
            raise InputError(
                "head.update_in_backward needs head.impl chunked, fused or blocked, and no head.sampling; "
                f"got impl {self.impl}, sampling {self.sampling}"
            )


def _objective(value: Any) -> Objective:
    if isinstance(value, Objective):
        return value
    if not isinstance(value, dict):
        way = f"; for the loss of that name, set objective.kind={value}" if isinstance(value, str) else ""
        raise InputError(f"objective must be a mapping of keys to values; got {checks.shown(value)}{way}")
    return from_recipe(value)


def _compatible(value: Any) -> Any:
    """A model folder alone stands for its section."""
    return Compatible(model=value) if isinstance(value, str) else value


@schema.from_python
@dataclass(frozen=True, config=STRICT)
class Recipe:
    """An experiment: everything that decides its result but the code."""

    name: str
    """Letters, digits and . + - _, since it names a folder; a file without it has its file name."""
    title: str
    """The title of tables and reports; a file without it has the name as title."""
    data: DataSection
    backbone: BackboneSection
    objective: Annotated[
        Objective,
        pydantic.PlainValidator(_objective),
        pydantic.PlainSerializer(to_mapping),
        pydantic.WithJsonSchema({"type": "object"}),
    ]
    """A loss by its `kind` with its parameters, which `angulus list losses NAME` shows, or its pieces written out. It
    also takes `ramp`, `nested` and penalties as keys (docs/losses.md)."""
    input: Contract = field(default_factory=Contract)
    augment: Augment | None = None
    head: HeadSection = field(default_factory=HeadSection)
    training: Training = field(default_factory=Training)
    validation: Validation | None = None
    compatible_with: Annotated[Compatible | None, pydantic.BeforeValidator(_compatible)] = None
    """An old model, in whose galleries the new one's features are to be searched, by the influence loss: null for none,
    a model folder, or a section."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    compare: Compare | None = None
    published: Published | None = None
    rows: dict[str, RowContent] = field(default_factory=dict)
    """The rows of papers' tables that the recipe reproduces, by their ids."""
    claims: list[Claim] = field(default_factory=list)
    """What the paper says of its numbers, as differences that a comparison can decide."""
    needs: dict[str, str] = field(default_factory=dict)
    """Where to get each path that the recipe reads and that nobody may redistribute."""
    chosen_by_us: dict[str, str] = field(default_factory=dict)
    """The choices that the paper leaves open."""
    not_run: str | None = None
    """Why the project has no result of the recipe; null if it has one, or if `needs` says it."""
    plugins: list[str] = field(default_factory=list)
    """Files with losses of your own that the recipe needs, by name; they run only if `--plugin` names them too."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9+-][A-Za-z0-9.+_-]*", self.name):
            raise InputError(f"name must be letters, digits and any of . + - _, for a folder; got {self.name!r}")
        for row, content in self.rows.items():
            if content.column is not None:
                checks.choice(f"rows.{row}.column", content.column, self.evaluation.titles)
        if self.claims and self.compare is None:
            raise InputError("claims are about the variants of a comparison: give the recipe a section compare")
        for claim in self.claims:
            claim.check(self.compare.grid if self.compare else (), self.evaluation.titles)
        if self.compare is not None and self.published is not None:
            self.published.check(self.compare.grid, self.evaluation.titles)
        self._check_class_optimizer()

    def _check_class_optimizer(self) -> None:
        """Refuse what needs the whole gradient of class weights that SparseSGD or BackwardSGD trains."""
        if self.head.sampling is None and not self.head.update_in_backward:
            return
        name = "head.sampling" if self.head.sampling is not None else "head.update_in_backward"
        optimizer, training = self.training.optimizer, self.training
        for broken, way in (
            (not isinstance(optimizer, SGD) or optimizer.nesterov, "training.optimizer.kind sgd without nesterov"),
            (training.clip_norm is not None, "training.clip_norm left out: it reads the whole gradient"),
            (training.accumulate > 1, "training.accumulate 1: each micro-batch would draw or move its own classes"),
            (
                training.ema is not None and self.head.rounding is not None,
                "training.ema left out with head.rounding: a mean in bfloat16 would lose small changes",
            ),
        ):
            if broken:
                raise InputError(f"{name} gives the class weights an optimiser of their own, which needs {way}")


SCHEMA = pydantic.TypeAdapter(Recipe)


def load(path: str | Path, overrides: Iterable[str] = (), plugins: Iterable[str] = ()) -> Recipe:
    """Read a recipe from a file, or a shipped one by its name, and apply `key.path=value` overrides."""
    return validate(compose(str(path), overrides, plugins))


def stored(path: Path) -> Recipe:
    """The recipe in a run's folder, which a stranger may have written: nothing that it names is read or fetched."""
    return _validate(read(str(path)))


def compose(path: str, overrides: Iterable[str] = (), plugins: Iterable[str] = ()) -> dict[str, Any]:
    """The mapping in a recipe file with overrides and the names of further loaded plugins."""
    content = override(read(path), overrides)
    own = content.get("plugins") or []
    if plugins and isinstance(own, list):
        content["plugins"] = [*own, *(name for name in plugins if name not in own)]
    return content


def default_folder(recipe: Recipe, overrides: Iterable[str]) -> Path:
    """The default folder of a recipe's runs: its name and a digest of the overrides, so that no two share one.

    >>> default_folder(load("demo"), []).as_posix(), default_folder(load("demo"), ["objective.kind=arcface"]).as_posix()
    ('runs/demo', 'runs/demo-e81cb780')
    """
    suffix = tag(overrides)
    return Path("runs") / (f"{recipe.name}-{suffix}" if suffix else recipe.name)


def read(path: str) -> dict[str, Any]:
    """The mapping in a recipe file."""
    file = find(path)
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"), f"recipe {file}")
    except UnicodeDecodeError as error:
        raise InputError(f"recipe {file} is not YAML: {checks.one_line(error)}") from error
    except OSError as error:
        raise InputError(f"recipe {file} cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise InputError(f"recipe {file} must be a mapping of keys to values; got {type(content).__name__}")
    name = re.sub(r"[^A-Za-z0-9+.-]+", "-", file.stem).strip(".-_") or "recipe"
    content = {"name": name, **content}
    return {"title": str(content["name"]), **content}


def shipped() -> dict[str, Path]:
    """The shipped recipes, by name."""
    return {file.stem: file for folder in FOLDERS if folder.is_dir() for file in sorted(folder.glob("*.yaml"))}


def find(path: str) -> Path:
    """The file at that path or URL, or the shipped recipe of that name or table row, ignoring case."""
    if files.url_of(path) is not None:
        return urls.fetch(path)
    if Path(path).is_file():
        return Path(path)
    recipes = shipped()
    name = Path(path).name.removesuffix(".yaml").lower()
    if Path(path).parent in (Path("."), Path("recipes")):
        if name in recipes:
            return recipes[name]
        with_row = [file for file in recipes.values() if _has_row(file, name)]
        if len(with_row) == 1:
            return with_row[0]
        if with_row:
            parts = ", ".join(file.stem for file in with_row)
            raise InputError(f"{path} is a row of several recipes: {parts}; name one, or run `angulus reproduce`")
    known = f"give a YAML file or one of {', '.join(recipes)}"
    if "=" in path:
        raise InputError(f"the recipe comes before its changes; got {path!r} first; {known}")
    if Path(path).exists():
        own = f"to train on it, write a recipe with data: {{path: {path}}} (docs/data.md shows a whole one), or"
        raise InputError(f"a recipe must be a YAML file; {path!r} is a folder; {own} {known}")
    raise InputError(f"there is no recipe {path!r}{checks.nearest(name, recipes)}; {known}")


def _has_row(file: Path, row: str) -> bool:
    """Whether a recipe has that row, in lower case; files that do not mention it are not parsed, which is slow."""
    mentioned = f"{row}:" in file.read_text(encoding="utf-8").lower()
    return mentioned and row in map(str.lower, read(str(file)).get("rows", {}))


def dump(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, every default written out, the objective in pieces, secrets masked."""
    values: dict[str, Any] = redact.values(SCHEMA.dump_python(recipe))
    return values


def flat(recipe: Recipe) -> dict[str, Any]:
    """The recipe as `dump` gives it, by dotted keys."""

    def items(value: Any, path: str) -> list[tuple[str, Any]]:
        if not isinstance(value, dict) or not value:
            return [(path, value)]
        return [item for key, entry in value.items() for item in items(entry, f"{path}.{key}" if path else str(key))]

    return dict(items(dump(recipe), ""))


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML, as `dump` gives it; `load` reads it back."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 120
    yaml.dump(dump(recipe), stream)
    return stream.getvalue()


def validate(content: Mapping[str, Any]) -> Recipe:
    """Check a mapping against the schema; the first three errors are reported."""
    return _validate(with_own_input(content))


def _validate(content: Mapping[str, Any]) -> Recipe:
    plugin_files.refuse_unloaded(content.get("plugins"))  # first, since the loss may be theirs
    try:
        text = json.dumps(content, default=str)  # strict pydantic takes dataclasses from JSON, not from dicts
    except (TypeError, ValueError) as error:
        raise InputError(f"a recipe must be plain keys and values: {error}") from error
    try:
        return SCHEMA.validate_json(text)
    except pydantic.ValidationError as error:
        raise InputError(schema.sentences(error, Recipe)) from error


def with_own_input(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The content with the mean, scale and size that the backbone's first weights were trained with as its input.

    What the recipe says itself stays. This reads what is known of those weights, and may fetch it.
    """
    backbone, given = content.get("backbone"), content.get("input", {})
    if not isinstance(backbone, Mapping) or not isinstance(given, Mapping) or not isinstance(backbone.get("name"), str):
        return content  # which the schema refuses
    missing = {"mean", "scale", "size"} - given.keys()
    if not missing:
        return content  # as of a run's own recipe, which is read where the weights no longer are
    options = backbone.get("options", {})
    own = backbones.own_input(backbone["name"], options if isinstance(options, Mapping) else {})
    if given.get("normalize", "fixed") != "fixed":
        own = {key: value for key, value in own.items() if key == "size"}
    return content if not own else {**content, "input": {**own, **given}}
