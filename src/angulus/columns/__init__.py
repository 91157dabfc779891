"""Named columns in `.npz`, `.safetensors` and `.parquet`; the suffix of a path names its format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from angulus import files
from angulus.checks import InputError, one_line
from angulus.columns import npz, parquet, tensors
from angulus.columns.common import Columns, as_native, as_numbers, as_text

__all__ = ["FORMATS", "as_native", "as_numbers", "as_text", "read", "suffix_of", "write"]

FORMATS: dict[str, ModuleType] = {".npz": npz, ".safetensors": tensors, ".parquet": parquet}


def read(path: Path, known: Sequence[str], texts: Sequence[str]) -> Columns:
    """The columns of a file; a name that is not `known` is refused.

    Args:
        path: the file; its suffix names the format.
        known: names that it may hold.
        texts: those of them that are text, which `.safetensors` keeps in its metadata or beside itself.

    Raises:
        checks.InputError: another suffix, no such file, a damaged file, an unknown name, arrays that need pickle.
    """
    suffix = suffix_of(path)
    if not path.is_file():
        raise InputError(f"embeddings must be in a file that can be read; there is no file {path}")
    try:
        columns: Columns = FORMATS[suffix].read(path, known, texts)
        return columns
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{path} must be a whole {suffix} file; reading it gave: {one_line(error)}") from error


def write(path: Path, columns: Columns) -> None:
    """Write the columns, whole or not at all; the suffix of `path` names the format."""
    files.write_atomically(path, FORMATS[suffix_of(path)].writer(path, columns))


def suffix_of(path: Path) -> str:
    """The suffix, which names the format, or the error that says which there are."""
    if path.suffix not in FORMATS:
        raise InputError(f"embeddings must be in a file that ends in {', '.join(FORMATS)}; got {path}")
    return path.suffix
