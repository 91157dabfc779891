"""A recipe as a mapping, before it is checked: overrides and variants."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from angulus.core import checks, limits, redact
from angulus.core.checks import InputError
from angulus.experiments.benchmark import Benchmark
from angulus.experiments.claims import Compare, Evaluation, accuracy_title, norm_title
from angulus.training.settings import DEFAULT_KINDS

CHANGEABLE = (  # keys that may change after training
    "title", "rows", "claims", "needs", "chosen_by_us", "not_run", "published", "training.log_every",
    "training.checkpoint_every", "training.checkpoint_async", "training.threads", "training.loggers",
    "training.workers", "data.on_error", "data.most_bad",
    "evaluation.low_fraction", "evaluation.batch_size", "evaluation.benchmarks",
)  # fmt: skip
# the kind of a mapping that names none; an objective without one is written out in pieces
UNNAMED: dict[str, str | None] = {"objective": None, **DEFAULT_KINDS}
MOST_VALUES, MOST_LETTERS = 50_000, 2_000_000  # in a recipe; the longest shipped one has 400 values, 12,000 letters
# the tables of published numbers, and the titles of their columns
TITLES: dict[str, Callable[[str], str]] = {"accuracy": accuracy_title, "mean_norm": norm_title, "columns": str}


def parse_yaml(text: str, what: str = "the text") -> Any:
    """YAML 1.2, where `1e-4` is a number and `off` a word.

    Raises:
        InputError: no YAML, or more than a recipe holds once its aliases are written out; starts with `what`.

    >>> parse_yaml("{lr: 1e-4, mode: off}")
    {'lr': 0.0001, 'mode': 'off'}
    """
    _refuse_long(len(text), what)
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        # ruamel raises all but the first for values such as a date of month 13, !!int x or ten thousand brackets
        raise InputError(f"{what} is not YAML: {redact.text(checks.one_line(error)[:200])}") from error
    limits.check_nesting(value, what, MOST_VALUES)
    _refuse_long(_letters(value), what)
    return value


def _refuse_long(letters: int, what: str) -> None:
    if letters > MOST_LETTERS:
        raise InputError(f"{what} must hold at most {MOST_LETTERS:,} letters, aliases written out; got {letters:,}")


def _letters(value: Any) -> int:
    """The letters of all texts in nested mappings and lists; aliases count everywhere they are used."""
    if isinstance(value, Mapping):
        return sum(len(str(key)) + _letters(entry) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return sum(map(_letters, value))
    return len(value) if isinstance(value, str) else 0


def set_path(content: dict[str, Any], path: str, value: Any) -> None:
    """Set `a.b.c` in nested mappings; a new `kind` clears the keys next to it, which belong to the old kind.

    >>> recipe = {"objective": {"kind": "arcface", "s": 64, "m": 0.5}}
    >>> set_path(recipe, "objective.kind", "normface"); recipe
    {'objective': {'kind': 'normface'}}
    """
    *parents, last = path.split(".")
    for depth, key in enumerate(parents):
        if content.get(key) is None:
            content[key] = {}
        content = content[key]
        if not isinstance(content, dict):
            raise InputError(
                f"{'.'.join(parents[: depth + 1])} holds {checks.shown(redact.values(content, key))}, so {path} cannot "
                "be set in it"
            )
    if last == "kind" and content.get("kind", UNNAMED.get(".".join(parents), value)) != value:
        content.clear()
    content[last] = value


def override(content: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of a recipe's mapping with `key.path=value` texts applied.

    Published numbers of variants and columns that the overrides remove are removed too.
    """
    before, content = content, copy.deepcopy(content)
    parsed: list[tuple[str, Any]] = []
    for change in overrides:
        path, equals, text = change.partition("=")
        if not equals or not path:
            raise InputError(f"an override must read key.path=value; got {redact.text(change[:200])!r}")
        try:
            value = parse_yaml(text, f"the value of override {redact.text(change[:200])!r:.100}")
        except InputError as error:
            if text.count("{") > text.count("}") or text.count("[") > text.count("]"):
                raise InputError(
                    f"{error}; put the whole override in quotes, or the shell cuts it at spaces"
                ) from error
            raise
        parsed.insert(_position(path.strip(), parsed), (path.strip(), value))
    for path, value in parsed:
        set_path(content, path, value)
    _forget(content, _variants(before) - _variants(content), _titles(before) - _titles(content))
    return content


def _position(path: str, parsed: list[tuple[str, Any]]) -> int:
    """The position of an override: a kind before the keys next to it, which it would clear; others at the end."""
    if not path.endswith(".kind"):
        return len(parsed)
    siblings = path.removesuffix("kind")
    return next((index for index, (other, _) in enumerate(parsed) if other.startswith(siblings)), len(parsed))


def tag(overrides: Iterable[str]) -> str:
    """Eight digits that distinguish overrides in a folder's name; "" if none changes what is trained.

    Keys that a resumed run may change do not count, nor does the seed, which has a folder of its own.

    >>> tag(["training.epochs=5"]) == tag(["training.epochs=9", "training.epochs=5"]), tag(["training.seed=3"])
    (True, '')
    """
    split = (change.partition("=") for change in overrides)
    values = {path.strip(): parse_yaml(text, path) for path, _, text in split}
    ignored = (*CHANGEABLE, "compare.", "plugins", "training.seed")
    counted = {path: value for path, value in values.items() if not path.startswith(ignored)}
    if not counted:
        return ""
    text = json.dumps(redact.values(counted), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def variant(content: Mapping[str, Any], changes: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A recipe's mapping with the changes of one variant and its seed, for a single run."""
    single = copy.deepcopy(dict(content))
    for path, value in changes.items():
        set_path(single, path, copy.deepcopy(value))
    set_path(single, "training.seed", seed)
    return single | {"compare": None, "published": None, "rows": {}, "claims": []}


def _variants(content: Mapping[str, Any]) -> set[str]:
    """The variants in a recipe's grid; none if it is not valid, which validation reports."""
    try:
        return set(Compare(**content["compare"]).grid)
    except (KeyError, TypeError, ValueError, AttributeError):
        return set()


def _titles(content: Mapping[str, Any]) -> set[str]:
    """The columns of a recipe's table; none if it is not valid, which validation reports."""
    try:
        benchmarks = (content.get("evaluation") or {}).get("benchmarks") or []
        return set(Evaluation(benchmarks=[Benchmark(**benchmark) for benchmark in benchmarks]).titles)
    except (KeyError, TypeError, ValueError, AttributeError):
        return set()


def _forget(content: dict[str, Any], variants: set[str], titles: set[str]) -> None:
    """Remove published numbers and claims of those variants and columns, and the columns from rows that name them."""
    if not (variants or titles):
        return
    published, rows = content.get("published"), content.get("rows")
    for name_of_table, title in TITLES.items():
        table = published.get(name_of_table) if isinstance(published, dict) else None
        if not isinstance(table, dict):
            continue
        for name, numbers in list(table.items()):
            if name in variants:
                del table[name]
            elif isinstance(numbers, dict):
                table[name] = {key: value for key, value in numbers.items() if title(key) not in titles}
    for row in rows.values() if isinstance(rows, dict) else ():
        if isinstance(row, dict) and row.get("column") in titles:
            row["column"] = None
    claims = content.get("claims")
    if isinstance(claims, list):
        content["claims"] = [claim for claim in claims if not _names_any(claim, variants, titles)]


def _names_any(claim: object, variants: set[str], titles: set[str]) -> bool:
    if not isinstance(claim, dict):
        return False
    return not variants.isdisjoint({claim.get("variant"), claim.get("than")}) or not titles.isdisjoint(
        {claim.get("column"), claim.get("than_column")}
    )
