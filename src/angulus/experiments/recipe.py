"""Recipes: an experiment as YAML, checked to the last key, with `key.path=value` overrides."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_type_hints

import pydantic
from ruamel.yaml import YAML

from angulus import backbones, data
from angulus.core import checks, redact
from angulus.core.contract import Contract
from angulus.data.augment import Augment
from angulus.experiments.claims import Claim, Compare, Evaluation, Published
from angulus.experiments.overrides import (
    override,
    parse_yaml,
    refuse_unused,
    tag,
    variant,
    without_strangers,
    without_unused,
)
from angulus.heads.sampling import ClassSampling
from angulus.kernels import dispatch
from angulus.losses import from_recipe
from angulus.losses.pieces import to_mapping
from angulus.training.settings import STRICT, Training, Validation

__all__ = [
    "Recipe", "default_folder", "find", "load", "load_written", "override", "parse_yaml", "read", "shipped", "to_yaml",
    "validate", "variant",
]  # fmt: skip

FOLDERS = (Path(__file__).parents[1] / "recipes", Path(__file__).parents[3] / "recipes")


@dataclass(frozen=True)
class Data:
    """Which data set: its name, the folder it lies in (None: ANGULUS_DATA or the cache), and whether to fetch it.

    `options` is what else `angulus.data.load` takes for that set, such as the fold.
    """

    name: str
    root: str | None = None
    download: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    __pydantic_config__: ClassVar[Any] = STRICT

    def __post_init__(self) -> None:
        checks.choice("data.name", self.name, data.list_datasets())


@dataclass(frozen=True)
class Backbone:
    """Which network, the size of its features, and what else its constructor takes.

    `normalize` makes the features unit vectors before the head sees them; norms are then lost, so a loss or penalty
    that reads them is refused. Heads normalise by themselves where their loss says so.
    """

    name: str
    embedding_size: int
    normalize: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    __pydantic_config__: ClassVar[Any] = STRICT

    def __post_init__(self) -> None:
        backbones.check_name("backbone.name", self.name)
        checks.integer("backbone.embedding_size", self.embedding_size, low=1)
        for name in ("in_channels", "image_size", "embedding_size"):
            if name in self.options:
                raise checks.InputError(
                    f"backbone.options must not hold {name}: the size of the features is backbone.embedding_size, and "
                    "the images' own is taken from the data"
                )


@dataclass(frozen=True)
class Head:
    """How the head computes.

    Args:
        impl, products: the kernel, and the dtype of its products with the class weights; see `class_loss`.
        sharded: the classes are spread over the processes: "auto", where there are several; true, also where there is
            one; false refuses several.
        sampling: see `ClassSampling`; the class weights are then trained by `SparseSGD`.
        update_in_backward: the class weights are trained by `BackwardSGD`, which never holds their gradient.
    """

    impl: str = "auto"
    products: Literal["float32", "bfloat16"] = "float32"
    sharded: bool | Literal["auto"] = "auto"
    sampling: ClassSampling | None = None
    update_in_backward: bool = False
    __pydantic_config__: ClassVar[Any] = STRICT

    def __post_init__(self) -> None:
        checks.choice("head.impl", self.impl, dispatch.NAMES)
        if self.update_in_backward and (self.impl not in ("chunked", "fused") or self.sampling is not None):
            raise checks.InputError(
                "head.update_in_backward needs head.impl chunked or fused, and no head.sampling; "
                f"got impl {self.impl}, sampling {self.sampling}"
            )


@dataclass(frozen=True)
class Recipe:
    """An experiment, resolved: everything that decides its result but the code.

    Beside what is trained and measured: `rows` says which rows of the papers' tables it is for, by their ids, and what
    each is about; `needs` says of each path that it reads, and that nobody may ship, where to get it; `chosen_by_us`
    says what the paper leaves open.
    """

    name: str
    title: str
    data: Data
    backbone: Backbone
    objective: dict[str, Any]
    input: Contract = field(default_factory=Contract)
    augment: Augment | None = None
    head: Head = field(default_factory=Head)
    training: Training = field(default_factory=Training)
    validation: Validation | None = None
    evaluation: Evaluation = field(default_factory=Evaluation)
    compare: Compare | None = None
    published: Published | None = None
    rows: dict[str, Claim] = field(default_factory=dict)
    needs: dict[str, str] = field(default_factory=dict)
    chosen_by_us: dict[str, str] = field(default_factory=dict)
    __pydantic_config__: ClassVar[Any] = STRICT

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9+-][A-Za-z0-9.+_-]*", self.name):  # it names a folder
            raise checks.InputError(f"name must be letters, digits and any of . + - _, for a folder; got {self.name!r}")
        for row, claim in self.rows.items():
            if claim.column is not None:
                checks.choice(f"rows.{row}.column", claim.column, self.evaluation.titles)
        if self.compare is not None and self.published is not None:
            self.published.check(self.compare.grid, self.evaluation.titles)
        self._check_class_optimizer()

    def _check_class_optimizer(self) -> None:
        """Class weights that SparseSGD or BackwardSGD trains exclude what needs their whole gradient."""
        name = "head.sampling" if self.head.sampling is not None else "head.update_in_backward"
        if self.head.sampling is None and not self.head.update_in_backward:
            return
        optimizer, training = self.training.optimizer, self.training
        for broken, way in (
            (optimizer.kind != "sgd" or optimizer.nesterov, "training.optimizer.kind sgd without nesterov"),
            (training.clip_norm is not None, "training.clip_norm left out: it reads the whole gradient"),
            (training.accumulate > 1, "training.accumulate 1: each micro-batch would draw or move classes of its own"),
        ):
            if broken:
                raise checks.InputError(f"{name} gives the class weights an optimiser of their own, which needs {way}")


def load(path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe from a file, or a shipped one by its name, and apply `key.path=value` overrides."""
    return validate(override(read(path), overrides))


def load_written(file: Path) -> Recipe:
    """The resolved recipe beside a run or a comparison, which an older version may have written.

    Left are keys that its kinds have no use for, and published numbers of variants and columns that its table lacks.
    """
    return validate(without_strangers(without_unused(read(str(file)))))


def default_folder(recipe: Recipe, overrides: Iterable[str]) -> Path:
    """Where a recipe's runs go if nobody says: by its name and what the overrides change, so that none meets another.

    >>> default_folder(load("demo"), []).as_posix(), default_folder(load("demo"), ["objective.kind=arcface"]).as_posix()
    ('runs/demo', 'runs/demo-e81cb780')
    """
    own = tag(overrides)
    return Path("runs") / (f"{recipe.name}-{own}" if own else recipe.name)


def read(path: str) -> dict[str, Any]:
    """The mapping in a recipe file."""
    file = find(path)
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"), f"recipe {file}")
    except UnicodeDecodeError as error:
        raise checks.InputError(f"recipe {file} is not YAML: {checks.one_line(error)}") from error
    except OSError as error:
        raise checks.InputError(f"recipe {file} cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise checks.InputError(f"recipe {file} must be a mapping of keys to values; got {type(content).__name__}")
    return content


def shipped() -> dict[str, Path]:
    """The recipes that ship, by their names."""
    return {file.stem: file for folder in FOLDERS if folder.is_dir() for file in sorted(folder.glob("*.yaml"))}


def find(path: str) -> Path:
    """The file of that path, or the shipped recipe of that name or row of a paper's table, whatever its case."""
    if Path(path).is_file():
        return Path(path)
    known = shipped()
    name = Path(path).name.removesuffix(".yaml").lower()
    if Path(path).parent in (Path("."), Path("recipes")):
        if name in known:
            return known[name]
        of_row = [file for file in known.values() if _has_row(file, name)]
        if len(of_row) == 1:
            return of_row[0]
        if of_row:
            parts = ", ".join(file.stem for file in of_row)
            raise checks.InputError(
                f"{path} is a row of several recipes: {parts}; name one, or run `angulus reproduce`"
            )
    raise checks.InputError(
        f"there is no recipe {path!r}{checks.nearest(name, known)}; give a YAML file or one of {', '.join(known)}"
    )


def _has_row(file: Path, row: str) -> bool:
    """Whether a recipe is for that row, in lower case; files that do not name it are not parsed, which is slow."""
    mentioned = f"{row}:" in file.read_text(encoding="utf-8").lower()
    return mentioned and row in map(str.lower, read(str(file)).get("rows", {}))


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe as YAML, the objective written out in pieces, secrets masked; `load` reads it back."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 120
    yaml.dump(redact.values(without_unused(dataclasses.asdict(recipe))), stream)
    return stream.getvalue()


def validate(content: Mapping[str, Any]) -> Recipe:
    """Check a mapping against the schema; the objective comes out resolved into its pieces."""
    try:
        text = json.dumps(content, default=str)  # strict pydantic takes dataclasses from JSON, not from dicts
    except (TypeError, ValueError) as error:
        raise checks.InputError(f"a recipe must be plain keys and values: {error}") from error
    try:
        recipe = pydantic.TypeAdapter(Recipe).validate_json(text)
    except pydantic.ValidationError as error:
        raise checks.InputError("; ".join(_sentence(each) for each in _plain_first(error))) from error
    refuse_unused(content)
    return dataclasses.replace(recipe, objective=to_mapping(from_recipe(recipe.objective)))


def _plain_first(error: pydantic.ValidationError) -> list[Any]:
    return sorted(error.errors(), key=lambda each: len(each["loc"]))[:3]


def _sentence(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        *parents, last = error["loc"]  # the last part alone is compared: what stands before it is alike in all
        known = {key: ".".join([*map(str, parents), key]) for key in _known_keys(parents)}
        inner = [f"{name}.{last}" for name in known if last in _known_keys([*parents, name])]
        hint = f"; did you mean {inner[0]!r}?" if len(inner) == 1 else checks.nearest(last, known)
        return f"a recipe has no key {where!r}{hint}; known here: {', '.join(known.values())}"
    if error["type"] in ("missing", "missing_argument"):
        return f"the recipe needs {where}"
    if "error" in error.get("ctx", {}):
        return str(error["ctx"]["error"])
    got = checks.shown(redact.values(error["input"], where))
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}; got {got}"


def _known_keys(location: Iterable[Any]) -> list[str]:
    """The keys that a recipe has at that place."""
    here: Any = Recipe
    for part in location:
        hint = get_type_hints(here)[part]
        here = next((each for each in getattr(hint, "__args__", ()) if dataclasses.is_dataclass(each)), hint)
    return [each.name for each in dataclasses.fields(here)] if dataclasses.is_dataclass(here) else []
