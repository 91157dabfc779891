"""A benchmark of a recipe, and where its files are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from angulus.core import checks, urls
from angulus.core.checks import InputError
from angulus.evaluation.registry import PROTOCOLS, RECIPES

STRICT: dict[str, Any] = {"extra": "forbid", "strict": True}
PERCENT = " %"  # how the title of a column ends whose numbers are shares, shown times 100


@dataclass(frozen=True)
class Benchmark:
    """Images that the trained model embeds, and the protocol that measures the embeddings.

    Args:
        name: what it is called, such as "LFW"; unique in a recipe.
        protocol: one of those that `angulus list protocols` shows, except those only for commands.
        columns: title in the table -> number of the protocol; a title that ends in " %" shows a share times 100.
        images: records, or what `angulus convert` reads; a path, or one below ANGULUS_DATA. Not of `classification`
            and `luna16-candidates`, which measure the test split.
        others: the distractors of MegaFace, the gallery of Trillion-Pairs; of `retrieval` and `reid` the gallery, where
            queries and gallery are not in one.
        lists: what the benchmark publishes, by the names that the protocol asks for.
        flip: how features of mirror images are combined; None: as in the recipe's input.
        options: the options of the protocol.
    """

    name: str
    protocol: str
    columns: dict[str, str]
    images: str | None = None
    others: str | None = None
    lists: dict[str, str] = field(default_factory=dict)
    flip: Literal["none", "sum", "concat"] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    __pydantic_config__: ClassVar[Any] = STRICT

    def __post_init__(self) -> None:
        where = f"benchmark {self.name!r}"
        if not self.name or not self.columns:
            raise InputError(f"{where} needs a name and at least one column, title: number of the protocol")
        protocol = PROTOCOLS[checks.choice(f"protocol of {where}", self.protocol, RECIPES)]
        for key in ("images", "others"):
            known, given = getattr(protocol, key), getattr(self, key) is not None
            if given != (known is not None) and (given or known.required):
                rule = "takes no" if given else "needs"
                raise InputError(f"{where}: the protocol {self.protocol} {rule} {key}")
        protocol.check(where, self.lists, self.options, self.columns)

    @property
    def by_quality(self) -> bool:
        """Whether it splits samples into good and low quality by their norms."""
        return PROTOCOLS[self.protocol].by_quality

    def value(self, title: str, numbers: dict[str, Any]) -> float:
        """What a column shows of the numbers that `evaluation` kept; NaN where one is absent or undefined.

        A protocol leaves out what its data cannot support, such as TAR at a FAR below one impostor pair.
        """
        found = numbers.get(self.number(title, numbers) or "", {"value": None})["value"]
        return float("nan") if found is None else float(found) * self.scale(title)

    def scale(self, title: str) -> int:
        """What a column multiplies its number by."""
        return 100 if title.endswith(PERCENT) else 1

    def number(self, title: str, names: Iterable[str]) -> str | None:
        """The number that a column shows: the one of that name, else the last of "NAME, ...", else none.

        MegaFace has "rank-1, 10 distractors", "rank-1, 100 distractors" and so on: the last is among all.
        """
        name, names = self.columns[title], list(names)
        return name if name in names else next((full for full in reversed(names) if full.startswith(f"{name}, ")), None)

    def paths(self) -> Iterator[str]:
        """The files and folders that it reads, as the recipe names them."""
        yield from (path for path in (self.images, self.others, *self.lists.values()) if path is not None)


def refuse_missing(benchmarks: Iterable[Benchmark], needs: Mapping[str, str]) -> None:
    """Refuse benchmarks whose files are not there, before a training that could not be measured.

    Args:
        benchmarks: of a recipe.
        needs: path -> where to get it.
    """
    for benchmark in benchmarks:
        for path in benchmark.paths():
            if not place(path).exists():
                how = f": {needs[path]}" if path in needs else ""
                raise InputError(f"benchmark {benchmark.name!r} needs {path}, neither here nor below ANGULUS_DATA{how}")


def place(path: str) -> Path:
    """Where a path of a recipe lies: as it is given if something is there, else below ANGULUS_DATA; a URL's copy."""
    given = urls.fetch(path)
    folder = os.environ.get("ANGULUS_DATA", "")
    return given if given.exists() or given.is_absolute() or not folder else Path(folder).expanduser() / given
