"""The one table of formats: what a path holds, and who reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from angulus import checks
from angulus.checks import InputError
from angulus.data import layout
from angulus.data.records import Records
from angulus.data.sources import archive, bin_file, csv_list, folder, lst, recordio, shards, tables
from angulus.data.sources.common import Item


@dataclass(frozen=True)
class Options:
    """What some readers ask for.

    Attributes:
        depth: folder, zip: which folder of an image's path, from 1, names the identity; None: the path of its folder.
        root: csv, lst: the folder that listed paths are relative to; None: the list's own.
    """

    depth: int | None = None
    root: Path | None = None

    def __post_init__(self) -> None:
        if self.depth is not None:
            checks.integer("depth", self.depth, low=1)
        if self.root is not None and not self.root.is_dir():
            raise InputError(f"root must be a folder; got {str(self.root)!r}")


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
        raise InputError(f"a source must be there; there is no {path}")
    kind = kind_of(path) if kind is None else checks.choice("kind", kind, KINDS)
    options = options or Options()
    if options.depth is not None and kind not in ("folder", "zip"):
        raise InputError(f"depth goes with a folder or a zip; {path} is of kind {kind}")
    if options.root is not None and kind not in ("csv", "lst"):
        raise InputError(f"root goes with a csv or lst list; {path} is of kind {kind}")
    return _READERS[kind](path, options)


def kind_of(path: Path) -> str:
    """The format of a path, by its name or what a folder holds.

    Raises:
        checks.InputError: a file of another name.
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
    if (path / layout.ABOUT).is_file():
        return "records"
    for kind in ("rec", "tar", "parquet"):
        if _inside(path, kind):
            return kind
    return "folder"


def _inside(path: Path, kind: str) -> list[Path]:
    """A path itself, or the files of a kind in a folder."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.name.lower().endswith(_SUFFIXES[kind]) and file.is_file())


def _each_rec(path: Path, options: Options) -> Iterator[Item]:
    found = _inside(path, "rec")
    if len(found) != 1:
        raise InputError(
            f"{path} must hold one .rec; got {', '.join(file.name for file in found) or 'none'}; name the one"
        )
    return recordio.read(found[0])


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
    "lst": (".lst",),
    "rec": (".rec",),
    "bin": (".bin",),
    "tar": shards.SUFFIXES,
    "parquet": (".parquet",),
}
_READERS: dict[str, Callable[[Path, Options], Iterator[Item]]] = {
    "folder": lambda path, options: folder.read(path, options.depth),
    "zip": lambda path, options: archive.read(path, options.depth),
    "csv": lambda path, options: csv_list.read(path, options.root),
    "lst": lambda path, options: lst.read(path, options.root),
    "rec": _each_rec,
    "bin": lambda path, options: bin_file.read(path),
    "tar": lambda path, options: shards.read(_some(path, "tar")),
    "parquet": lambda path, options: tables.read(_some(path, "parquet")),
    "records": _records,
}
KINDS = tuple(_READERS)
