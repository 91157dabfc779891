"""Named columns in `.npz`, `.safetensors` and `.parquet`, whose suffix names the format; `.bin` is only read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from angulus.core import checks, files
from angulus.core.checks import InputError, one_line
from angulus.core.formats import matrices, npz, parquet, tensors
from angulus.core.formats.columns import Columns, as_native, as_numbers, as_text, text_array

__all__ = ["FORMATS", "as_native", "as_numbers", "as_text", "read", "suffix_of", "text_array", "write"]

FORMATS: dict[str, ModuleType] = {".npz": npz, ".safetensors": tensors, ".parquet": parquet}
READ_ONLY: dict[str, ModuleType] = {".bin": matrices}

_FILES = ("file", "files", "filename", "filenames")
_MEANT = {  # names that other tools use
    "embeddings": ("features", "feature", "vectors", "vector", "embs", "emb", "x"),
    "ids": ("path", "paths", "image", "images", "image_path", *_FILES, "name", "names"),
    "labels": ("identity", "identities", "person", "people", "subject", "subjects", "class", "classes", "y"),
}


_SAVEZ = "np.savez(path, embeddings=vectors, ids=names) writes one"


def read(path: Path, known: Sequence[str], texts: Sequence[str], needed: Sequence[str] = ()) -> Columns:
    """Read the `known` columns of a file; a warning names the others.

    `texts` are those of them that are text, which `.safetensors` stores in its metadata or in files next to it; the
    `needed` names must be there.

    Raises:
        checks.InputError: another suffix, no such file, a damaged file, a needed name that is missing, arrays that
            need pickle, or a small file that unpacks to very much.
    """
    if path.is_dir():
        return matrices.read_tree(path)
    suffix = suffix_of(path, FORMATS | READ_ONLY, f"; {_SAVEZ}, and angulus embed makes one of images")
    if not path.is_file():
        raise InputError(f"embeddings must be in a file that can be read; there is no file {path}")
    try:
        columns, others = (FORMATS | READ_ONLY)[suffix].read(path, known, texts)
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{path} must be a whole {suffix} file; reading it gave: {one_line(error)[:300]}") from error
    for name in needed:
        if name not in columns:
            listed = ", ".join(sorted(columns.keys() | set(others))) or "nothing"
            way_out = _rename(name, others) or (f"; {_SAVEZ}" if {"embeddings", "ids"} <= set(needed) else "")
            raise InputError(f"{path} must hold {name!r}; it holds {listed:.300}{way_out}")
    if others:
        meant = "".join(_rename(name, others) for name in known if name not in columns)
        verb = "is" if len(others) == 1 else "are"
        checks.warn(f"{path} also holds {', '.join(sorted(others)):.300}, which {verb} not read{meant}")
    return dict(columns)


def write(path: Path, columns: Columns) -> None:
    """Write the columns, completely or not at all; the suffix of `path` names the format."""
    module = FORMATS[suffix_of(path)]
    files.write_atomically(path, lambda file: module.write(file, path, columns))


def suffix_of(path: Path, known: Iterable[str] = FORMATS, hint: str = "") -> str:
    """The suffix, which names the format; `InputError` lists those that are supported, and ends in the hint."""
    if path.suffix not in known:
        raise InputError(f"embeddings must be in a file that ends in {', '.join(known)}; got {path}{hint}")
    return path.suffix


def _rename(name: str, others: Sequence[str]) -> str:
    """A clause that suggests which of the other columns may be the missing one, or nothing."""
    meant = [other for other in others if other.casefold() in (name, name.rstrip("s"), *_MEANT.get(name, ()))]
    meant = meant or difflib.get_close_matches(name, others, n=1, cutoff=0.75)
    return f"; rename {meant[0]!r} to {name!r} if that is what it is" if len(meant) == 1 else ""
