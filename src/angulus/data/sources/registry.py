"""The one table of formats: what a path holds, and who reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data.records import layout
from angulus.data.records.reader import Records
from angulus.data.sources import archive, bin_file, csv_list, folder, lst, parquet_images, recordio, shards
from angulus.data.sources.common import Item, is_system
from angulus.data.sources.damage import OnError
from angulus.data.sources.naming import Wish, check_pattern


@dataclass(frozen=True)
class Options:
    """What some readers ask for.

    Attributes:
        depth: folder, zip, tar: which folder of an image's path, from 1, names the identity; None: the path of its
            folder, without the one that is a split.
        root: csv, lst: the folder that listed paths are relative to; None: the list's own.
        split: folder, zip, tar: the folder, such as train or val, whose images alone are read; None: all.
        identity_pattern: folder, zip, tar: a regular expression whose first group, found in an image's path, is the
            identity.
        id_column: csv, parquet: the column of ids; None: the one that the format names.
        on_error: csv, lst, rec, tar, parquet: "stop", or "skip" to leave out and name what is damaged.
    """

    depth: int | None = None
    root: Path | None = None
    split: str | None = None
    identity_pattern: str | None = None
    id_column: str | None = None
    on_error: str = "stop"

    def __post_init__(self) -> None:
        if self.depth is not None:
            checks.integer("depth", self.depth, low=1)
            if self.identity_pattern is not None:
                raise InputError("depth and identity_pattern both say where the identity stands; give one of them")
        if self.root is not None and not self.root.is_dir():
            raise InputError(f"root must be a folder; got {str(self.root)!r}")
        if self.identity_pattern is not None:
            check_pattern(self.identity_pattern)
        OnError(self.on_error)

    def about(self) -> dict[str, Any]:
        """What records say of them; nothing of those that were not given."""
        given = {"split": self.split, "identity_pattern": self.identity_pattern, "id_column": self.id_column}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def wish(self) -> Wish:
        """How paths name identities."""
        return Wish(self.depth, self.identity_pattern, self.split)


def read_source(path: Path, kind: str | None = None, options: Options | None = None) -> Iterator[Item]:
    """Rows of a data set in any format that is known, one at a time, and what is left out, with the reason.

    Args:
        path: a file or folder.
        kind: one of `KINDS`; None: what `kind_of` finds.
        options: what some readers ask for.

    Raises:
        checks.InputError: nothing there, no format that is known, options that the format has no use for, or what the
            format's reader refuses.
    """
    if not path.exists():
        raise InputError(f"there is no source {path}; give a folder or a file that exists")
    kind = kind_of(path) if kind is None else checks.choice("kind", kind, KINDS)
    options = options or Options()
    for name, kinds in _USES.items():
        if getattr(options, name) not in (None, "stop") and kind not in kinds:
            known = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
            raise InputError(
                f"--{name.replace('_', '-')} goes with a {known}; {path} is of kind {kind}; leave the option off"
            )
    return _READERS[kind](path, options)


def kind_of(path: Path) -> str:
    """The format of a path, by its name or what a folder holds.

    A folder with archives at its top is of their kind, where it holds no photos: those next to them are not lost.

    Raises:
        checks.InputError: a file of another name; a folder that holds archives and photos, or archives of two kinds.
    """
    if not path.is_dir():
        name = path.name.lower().removesuffix(".gz") if not path.name.lower().endswith(".tar.gz") else path.name.lower()
        for kind, suffixes in _SUFFIXES.items():
            if name.endswith(suffixes):
                return kind
        known = ", ".join(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
        raise InputError(
            f"a source must be a folder or end in {known}; got {path}; "
            "or say what it is with --kind, where the command has it"
        )
    if (path / layout.ABOUT).is_file() and (any(path.glob("rows-*.parquet")) or not folder.holds_images(path)):
        return "records"
    found = {kind: _inside(path, kind)[0].name for kind in ("rec", "tar", "parquet") if _inside(path, kind)}
    if not found:
        return "folder"
    photo = folder.holds_images(path)
    if (
        "parquet" in found
        and (photo or len(found) > 1)
        and not any(map(parquet_images.holds_images, _inside(path, "parquet")))
    ):
        del found["parquet"]  # embeddings or scores that were written next to the photos
    if not found:
        return "folder"
    if photo is not None or len(found) > 1:
        both = [f"an archive, {name}" for name in found.values()] + ([f"photos, such as {photo}"] if photo else [])
        raise InputError(
            f"{path} must hold photos or archives of one kind; it holds {', and '.join(both)}; name the one that is "
            "meant, move the other away, or say which with --kind, where the command has it"
        )
    return next(iter(found))


def _inside(path: Path, kind: str) -> list[Path]:
    """A path itself, or the files of a kind in a folder."""
    if not path.is_dir():
        return [path]
    named = (file for file in path.iterdir() if file.name.lower().endswith(_SUFFIXES[kind]))
    return sorted(file for file in named if file.is_file() and not is_system(file.name))


def _each_rec(path: Path, options: Options) -> Iterator[Item]:
    found = _inside(path, "rec")
    if len(found) != 1:
        raise InputError(
            f"{path} must hold one .rec; got {', '.join(file.name for file in found) or 'none'}; name the one"
        )
    return recordio.read(found[0], OnError(options.on_error))


def _some(path: Path, kind: str) -> list[Path]:
    found = _inside(path, kind)
    if not found:
        raise InputError(f"{path} must hold files of kind {kind} ({', '.join(_SUFFIXES[kind])}); there are none")
    return found


def _records(path: Path, options: Options) -> Iterator[Item]:
    records = Records(path)
    for row in range(len(records)):
        yield from records.rows([row])


_SUFFIXES: dict[str, tuple[str, ...]] = {
    "zip": (".zip",),
    "csv": (".csv", ".tsv"),
    "lst": (".lst", ".txt"),
    "rec": (".rec",),
    "bin": (".bin",),
    "tar": shards.SUFFIXES,
    "parquet": (".parquet",),
}
_USES = {
    "depth": ("folder", "zip", "tar"),
    "root": ("csv", "lst"),
    "split": ("folder", "zip", "tar"),
    "identity_pattern": ("folder", "zip", "tar"),
    "id_column": ("csv", "parquet"),
    "on_error": ("csv", "lst", "rec", "tar", "parquet"),
}
_READERS: dict[str, Callable[[Path, Options], Iterator[Item]]] = {
    "folder": lambda path, options: folder.read(path, options.wish),
    "zip": lambda path, options: archive.read(path, options.wish),
    "csv": lambda path, options: csv_list.read(path, options.root, options.id_column, OnError(options.on_error)),
    "lst": lambda path, options: lst.read(path, options.root, OnError(options.on_error)),
    "rec": _each_rec,
    "bin": lambda path, options: bin_file.read(path),
    "tar": lambda path, options: shards.read(_some(path, "tar"), options.wish, OnError(options.on_error)),
    "parquet": lambda path, options: parquet_images.read(
        _some(path, "parquet"), options.id_column, OnError(options.on_error)
    ),
    "records": _records,
}
KINDS = tuple(_READERS)
