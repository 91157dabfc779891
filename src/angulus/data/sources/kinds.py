"""The one table of source formats: how a path's format is recognised, and its reader."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from angulus.core import checks, limits
from angulus.core.checks import InputError
from angulus.data.records import Records
from angulus.data.records.parts import ABOUT
from angulus.data.sources import archive, arrow_images, csv_list, folder, lst, parquet_images, recordio, shards, tables
from angulus.data.sources.items import Item, Remark, SourceOptions, is_system, row_or_left_out
from angulus.evaluation.lists.bin_set import read_bin


def read_source(path: Path, kind: str | None = None, options: SourceOptions | None = None) -> Iterator[Item]:
    """Rows of a data set in any supported format, one at a time, and what is left out, with the reason.

    `kind` is one of `KINDS`; None: what `kind_of` finds. Options that do not apply to the format are refused.
    """
    if not path.exists():
        raise InputError(f"there is no source {path}; give a folder or a file that exists")
    kind = kind_of(path) if kind is None else checks.choice("kind", kind, KINDS)
    options = options or SourceOptions()
    for name, kinds in _USES.items():
        if getattr(options, name) not in (None, "stop") and kind not in kinds:
            known = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
            fault = f"{name} applies only to kind {known}, but {path} is of kind {kind}"
            raise InputError(f"{fault}; remove it")
    return _READERS[kind](path, options)


def kind_of(path: Path) -> str:
    """The format of a path, by its name or what a folder holds.

    A folder with archives at its top is of their kind; `InputError` if it holds photos or other archives too.
    """
    if not path.is_dir():
        name = path.name.lower().removesuffix(".gz") if not path.name.lower().endswith(".tar.gz") else path.name.lower()
        for kind, suffixes in _SUFFIXES.items():
            if name.endswith(suffixes):
                return kind
        known = ", ".join(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
        rule = f"a source must be a folder or end in {known}"
        raise InputError(f"{rule}; got {path}; or give its format with --kind, if the command has it")
    if (path / ABOUT).is_file() and (any(path.glob("rows-*.parquet")) or not folder.holds_images(path)):
        return "records"
    if (path / _SPLITS).is_file():
        return "arrow"
    found = {kind: _inside(path, kind) for kind in ("rec", "tar", "parquet", "arrow")}
    archives = {kind: files[0].name for kind, files in found.items() if files}
    photo = folder.holds_images(path) if archives else None
    for kind, open_table in _TABLES.items():
        may_be_other = kind in archives and (photo or len(archives) > 1)
        if may_be_other and not any(tables.holds_images(file, open_table) for file in found[kind]):
            del archives[kind]  # embeddings or scores that were written next to the photos
    if not archives:
        return "folder"
    if photo is not None or len(archives) > 1:
        both = [f"an archive, {name}" for name in archives.values()] + ([f"photos, such as {photo}"] if photo else [])
        rule = f"{path} must hold photos or archives of one kind; it holds {', and '.join(both)}"
        way = "name the one that is meant, move the other away, or choose with --kind, if the command has it"
        raise InputError(f"{rule}; {way}")
    return next(iter(archives))


def _inside(path: Path, kind: str) -> list[Path]:
    """A path itself, or the files of a kind in a folder, in its data/ (as hubs have it) or in the splits of a set."""
    if not path.is_dir():
        return [path]
    folders = [path, path / "data"] if kind in _TABLES else [path]
    if kind == "arrow" and (path / _SPLITS).is_file():
        folders = [path / name for name in _json(path / _SPLITS).get("splits", [])]
    if kind == "arrow":
        for place in folders:
            if (place / _STATE).is_file():
                arrow_images.refuse_selection(_json(place / _STATE), place)
    files = (file for place in folders if place.is_dir() for file in place.iterdir())
    named = (file for file in files if file.name.lower().endswith(_SUFFIXES[kind]))
    return sorted(file for file in named if file.is_file() and not _is_other(file.name))


def _is_other(name: str) -> bool:
    """Whether a file is the system's, or what `datasets` keeps of a map or a filter next to its own."""
    return is_system(name) or (name.startswith(("cache-", "tmp")) and name.endswith(".arrow"))


def _json(path: Path) -> dict[str, Any]:
    """What a small JSON file of `datasets` says; names of folders must be plain."""
    try:
        content = limits.parse_json(path.read_bytes(), path.name)
        names = content.get("splits", [])
        if not isinstance(names, list) or not all(isinstance(n, str) and re.fullmatch(r"\w[\w.-]*", n) for n in names):
            raise ValueError("its splits must be names of folders")
    except (OSError, ValueError, AttributeError) as error:
        why = checks.one_line(error)
        raise InputError(f"{path} must say how a data set was saved; reading it gave: {why}") from error
    return dict(content)


def splits_of(path: Path, kind: str | None = None) -> tuple[str, ...]:
    """The splits that a data set is stored in, such as train and test: by its folders, or by the names of its files.

    () if it has none, or only one.
    """
    kind = kind_of(path) if kind is None else kind
    if kind in _SHARDED:
        found = _by_split(_inside(path, kind)) if path.is_dir() else {}
        names = [name for name in found if name is not None]
        return tuple(names) if len(names) == len(found) > 1 else ()
    if kind != "folder":
        return ()
    names = [entry.name for entry in sorted(path.iterdir()) if entry.is_dir() and not is_system(f"{entry.name}/x")]
    return tuple(names) if len(names) > 1 and all(name.lower() in folder.SPLITS for name in names) else ()


def _by_split(files: list[Path]) -> Mapping[str | None, list[Path]]:
    """Files by the split in their name or in that of their folder; None: of those without."""
    splits: dict[str | None, list[Path]] = {}
    for file in files:
        found = _SPLIT.fullmatch(file.stem.lower()) or _SPLIT.fullmatch(file.parent.name.lower())
        splits.setdefault(found[1] if found else None, []).append(file)
    return splits


def _rec(path: Path, options: SourceOptions) -> Iterator[Item]:
    files = _inside(path, "rec")
    if len(files) != 1:
        listed = ", ".join(file.name for file in files) or "none"
        raise InputError(f"{path} must hold one .rec; got {listed}; name the one")
    return recordio.read(files[0], options)


def files_of(path: Path, kind: str) -> list[Path]:
    """The files of a kind that hold the images of a source; at least one."""
    files = _inside(path, kind)
    if not files:
        raise InputError(f"{path} must hold files of kind {kind} ({', '.join(_SUFFIXES[kind])}); there are none")
    return files


def _shards(path: Path, options: SourceOptions, kind: str) -> Iterator[Item]:
    """The images of one or several files; of one split, if the files have them in their names."""
    read = {"tar": shards.read, "parquet": parquet_images.read, "arrow": arrow_images.read}[kind]
    files, splits = files_of(path, kind), splits_of(path, kind)
    if options.split is not None and (splits or kind != "tar"):
        by_split = _by_split(files)
        if options.split not in by_split:
            got = f"its splits are {', '.join(splits)}" if splits else "its files have none in their names"
            raise InputError(f"split must be one of {path}; got {options.split!r}; {got}")
        return read(by_split[options.split], dataclasses.replace(options, split=None))
    if not splits:
        return read(files, options)
    text = f"the splits {', '.join(splits)} are read as one; `angulus convert --split NAME` reads one"
    return itertools.chain([Remark(".", text)], read(files, options))


def _bin(path: Path, options: SourceOptions) -> Iterator[Item]:
    """The images of a pickled verification set, named "0", "1", ... as its pairs name them; without identities."""
    for number, image in enumerate(read_bin(path, folds=1).images):
        yield row_or_left_out(str(number), image, "")


_SUFFIXES: dict[str, tuple[str, ...]] = {
    "zip": (".zip",),
    "csv": (".csv", ".tsv"),
    "lst": (".lst", ".txt"),
    "rec": (".rec",),
    "bin": (".bin",),
    "tar": shards.SUFFIXES,
    "parquet": (".parquet",),
    "arrow": (".arrow",),
}
_SHARDED = ("tar", "parquet", "arrow")
_TABLES: dict[str, tables.Open] = {"parquet": parquet_images.ParquetTable, "arrow": arrow_images.ArrowTable}
_SPLITS, _STATE = "dataset_dict.json", "state.json"  # of what `datasets` saves: of several splits, of one
_SPLIT = re.compile(r"(?:.*[-_.])?(train|training|val|valid|validation|dev|test|testing|eval)(?=[-_.]|$)(?:[-_.].*)?")
_USES = {
    "depth": ("folder", "zip", "tar"),
    "root": ("csv", "lst", "parquet", "arrow"),
    "split": ("folder", "zip", "tar", "parquet", "arrow"),
    "identity_pattern": ("folder", "zip", "tar"),
    "id_column": ("csv", "parquet", "arrow"),
    "image_column": ("csv", "parquet", "arrow"),
    "label_column": ("csv", "parquet", "arrow"),
    "on_error": ("csv", "lst", "rec", "tar", "parquet", "arrow"),
}
_READERS: dict[str, Callable[[Path, SourceOptions], Iterator[Item]]] = {
    "folder": folder.read,
    "zip": archive.read,
    "csv": csv_list.read,
    "lst": lst.read,
    "rec": _rec,
    "bin": _bin,
    **{kind: partial(_shards, kind=kind) for kind in _SHARDED},
    "records": lambda path, options: iter(Records(path)),
}
KINDS = tuple(_READERS)
