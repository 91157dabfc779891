"""Which images of a source to convert: by the columns of a list, and by identities held out or not."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data.sources.csv_list import PATHS, check_column, read_cells
from angulus.data.sources.items import Item, LeftOut, Remark, column_of

_SHOWN = 5  # values of a column in an error


@dataclass(frozen=True)
class Selection:
    """Conditions on the images to take, all of which must hold.

    Attributes:
        list: a CSV with the ids of images under `id`, or if it has no `id` under `path`; None: every image.
        where: `column=value` conditions on an image's line of the list.
        hold_out: N: leave out about one identity in N, by a checksum of its name, so the same ones in any data set.
        held_out: N: take only the identities that `hold_out` leaves out.

    Raises:
        checks.InputError: a list without conditions or conditions without a list, both of hold_out and held_out.
    """

    list: Path | None = None
    where: tuple[str, ...] = ()
    hold_out: int | None = None
    held_out: int | None = None

    def __post_init__(self) -> None:
        if (self.list is None) != (not self.where):
            got = "only where" if self.list is None else "only list"
            raise InputError(f"list, a CSV, and where, column=value of its lines, must be given together; got {got}")
        for condition in self.where:
            if not condition.partition("=")[0] or "=" not in condition:
                raise InputError(f"where must be column=value, such as split=train; got {condition!r}")
        if self.hold_out is not None and self.held_out is not None:
            raise InputError("hold_out takes all but the identities that held_out takes; give one of them")
        for name in ("hold_out", "held_out"):
            if getattr(self, name) is not None:
                checks.integer(name, getattr(self, name), low=2)

    def about(self) -> dict[str, Any]:
        """What records store of it: only the conditions that are set."""
        stated = asdict(self) | {"list": self.list and self.list.name, "where": [*self.where]}
        return {name: value for name, value in stated.items() if value}

    def takes_identity(self, identity: str) -> bool:
        """Whether to take an identity, by `hold_out` and `held_out`.

        >>> [name for name in ("ann", "bob", "cy", "dan") if Selection(held_out=2).takes_identity(name)]
        ['bob']
        """
        every = self.hold_out or self.held_out
        if every is None:
            return True
        return (zlib.crc32(identity.encode()) % every == 0) == (self.held_out is not None)


def select(items: Iterable[Item], selection: Selection) -> Iterator[Item | None]:
    """The items to take, and None for each other item.

    Images that the list does not name, names without an image, and, if identities are held out, images without
    identity become items left out.

    Raises:
        checks.InputError: the list has no such column or id, names an id twice, or its lines hold no such value.
    """
    listed = None if selection.list is None else _read_list(selection.list, selection.where)
    return _select(items, selection, listed)


def _select(items: Iterable[Item], selection: Selection, listed: dict[str, bool] | None) -> Iterator[Item | None]:
    by_identity = selection.hold_out is not None or selection.held_out is not None
    missing = {id for id, taken in (listed or {}).items() if taken}
    for item in items:
        if isinstance(item, Remark):
            yield item
            continue
        id = item.where if isinstance(item, LeftOut) else item.id
        missing.discard(id)
        if listed is not None and not listed.get(id, True):
            yield None
        elif isinstance(item, LeftOut):
            yield item
        elif listed is not None and id not in listed:
            yield LeftOut(id, f"{selection.list} does not name it")
        elif by_identity and not item.identity:
            yield LeftOut(id, "it has no identity, which decides what is held out")
        else:
            yield item if selection.takes_identity(item.identity) else None
    for id in listed or {}:
        if id in missing:
            yield LeftOut(id, f"{selection.list} names it, but the source does not have it")


def _read_list(path: Path, where: tuple[str, ...]) -> dict[str, bool]:
    """Id -> whether its line meets the conditions."""
    names, lines = read_cells(path)
    wanted = dict(condition.split("=", 1) for condition in where)
    for name in wanted:
        check_column("where", name, path, names)
    key = column_of(path, names, "id") or column_of(path, names, "path", PATHS)
    if key is None:
        raise InputError(f"{path} must have a column `id` or `path` that names the images; got {', '.join(names)}")
    listed: dict[str, bool] = {}
    met: dict[str, set[str]] = {name: set() for name in wanted}
    for number, cell in lines:
        if isinstance(cell, LeftOut):
            raise InputError(cell.reason)
        if cell[key] in listed:
            raise InputError(f"{path} line {number} must name an image that no line before it names; got {cell[key]!r}")
        listed[cell[key]] = all(cell[name] == value for name, value in wanted.items())
        for name in wanted:
            met[name].add(cell[name])
    if not any(listed.values()):
        shown = "; ".join(f"{name} holds {', '.join(sorted(values)[:_SHOWN])}" for name, values in met.items())
        raise InputError(f"where must hold for a line of {path}; got {' and '.join(where)}: {shown}")
    return listed
