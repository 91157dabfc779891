"""The one table of source formats: how a path's format is recognised, and its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data.records import Records
from angulus.data.records.parts import ABOUT
from angulus.data.sources import archive, csv_list, folder, lst, parquet_images, recordio, shards
from angulus.data.sources.items import Item, SourceOptions, is_system, row_or_left_out
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
            fault = f"--{name.replace('_', '-')} applies only to kind {known}, but {path} is of kind {kind}"
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
    archives = {kind: _inside(path, kind)[0].name for kind in ("rec", "tar", "parquet") if _inside(path, kind)}
    photo = folder.holds_images(path) if archives else None
    may_be_other = "parquet" in archives and (photo or len(archives) > 1)
    if may_be_other and not any(map(parquet_images.holds_images, _inside(path, "parquet"))):
        del archives["parquet"]  # embeddings or scores that were written next to the photos
    if not archives:
        return "folder"
    if photo is not None or len(archives) > 1:
        both = [f"an archive, {name}" for name in archives.values()] + ([f"photos, such as {photo}"] if photo else [])
        rule = f"{path} must hold photos or archives of one kind; it holds {', and '.join(both)}"
        way = "name the one that is meant, move the other away, or choose with --kind, if the command has it"
        raise InputError(f"{rule}; {way}")
    return next(iter(archives))


def _inside(path: Path, kind: str) -> list[Path]:
    """A path itself, or the files of a kind in a folder."""
    if not path.is_dir():
        return [path]
    named = (file for file in path.iterdir() if file.name.lower().endswith(_SUFFIXES[kind]))
    return sorted(file for file in named if file.is_file() and not is_system(file.name))


def _rec(path: Path, options: SourceOptions) -> Iterator[Item]:
    files = _inside(path, "rec")
    if len(files) != 1:
        listed = ", ".join(file.name for file in files) or "none"
        raise InputError(f"{path} must hold one .rec; got {listed}; name the one")
    return recordio.read(files[0], options)


def _files(path: Path, kind: str) -> list[Path]:
    files = _inside(path, kind)
    if not files:
        raise InputError(f"{path} must hold files of kind {kind} ({', '.join(_SUFFIXES[kind])}); there are none")
    return files


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
}
_USES = {
    "depth": ("folder", "zip", "tar"),
    "root": ("csv", "lst"),
    "split": ("folder", "zip", "tar"),
    "identity_pattern": ("folder", "zip", "tar"),
    "id_column": ("csv", "parquet"),
    "on_error": ("csv", "lst", "rec", "tar", "parquet"),
}
_READERS: dict[str, Callable[[Path, SourceOptions], Iterator[Item]]] = {
    "folder": folder.read,
    "zip": archive.read,
    "csv": csv_list.read,
    "lst": lst.read,
    "rec": _rec,
    "bin": _bin,
    "tar": lambda path, options: shards.read(_files(path, "tar"), options),
    "parquet": lambda path, options: parquet_images.read(_files(path, "parquet"), options),
    "records": lambda path, options: iter(Records(path)),
}
KINDS = tuple(_READERS)
