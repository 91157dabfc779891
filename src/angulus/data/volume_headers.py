"""Headers of MetaImage and NIfTI files, checked before a library reads them."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

from angulus.core import limits
from angulus.core.checks import InputError, one_line, why_unread
from angulus.evaluation.lists.text import Unpacked

_BLOCK = 2**22  # bytes read at a time
_HEADER = 2**16  # bytes in which the text header of a MetaImage must end


def check_metaimage(path: Path) -> int:
    """The size of the file with the voxels; refuses a header that names one in another folder, or a list of files."""
    lines = _start(path, _HEADER).decode("utf-8", errors="replace").splitlines()
    pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition("=") for line in lines)]
    named = [value for name, value in pairs if name == "ElementDataFile"]
    if named[:1] == ["LOCAL"]:  # voxels follow
        return path.stat().st_size
    if len(named) != 1 or not named[0] or "/" in named[0] or "\\" in named[0] or named[0].startswith("LIST"):
        raise InputError(f"{path} must name one file next to it as ElementDataFile; got {named}")
    raw = path.parent / named[0]
    if not raw.is_file():
        raise InputError(f"{path} needs {raw}, which it names; it is not there")
    return raw.stat().st_size


def check_nifti(path: Path) -> int:
    """The size of the file; refuses one that holds fewer bytes than its header says: it would be read as zeros."""
    head = _start(path, 540)
    length = [order for order in "<>" if len(head) >= 4 and struct.unpack_from(f"{order}i", head)[0] in (348, 540)]
    order = length[0] if length else "<"
    if head[344:347] == b"n+1":
        dims, (bits,) = struct.unpack_from(f"{order}8h", head, 40), struct.unpack_from(f"{order}h", head, 72)
        (offset,) = struct.unpack_from(f"{order}f", head, 108)
    elif head[4:7] == b"n+2" and len(head) == 540:
        dims, (bits,) = struct.unpack_from(f"{order}8q", head, 16), struct.unpack_from(f"{order}h", head, 14)
        (offset,) = struct.unpack_from(f"{order}q", head, 168)
    else:
        raise InputError(f"{path} must be a NIfTI file of one piece; it does not begin as one")
    if not (0 < dims[0] <= 7 and min(dims[1 : dims[0] + 1]) > 0 and bits > 0 and 0 <= offset < 2**40):
        raise InputError(f"{path} must have a NIfTI header that describes a volume; got dim {list(dims)}, {bits} bits")
    packed, needed = path.stat().st_size, int(offset) + math.prod(dims[1 : dims[0] + 1]) * bits // 8
    limits.check_unpacked(needed, packed, f"{path}, by its header,")
    held = packed if path.suffix.lower() != ".gz" else _unpacked_size(path)
    if held < needed:
        raise InputError(
            f"{path} must be a whole volume; it holds {held:,} of the {needed:,} bytes that its header says"
        )
    return packed


def _start(path: Path, size: int) -> bytes:
    """The first bytes of a file, unpacked."""
    try:
        with Unpacked(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            return file.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise _unopened(path, error) from error


def _unpacked_size(path: Path) -> int:
    """The bytes that a gzipped file unpacks to; its checksum is verified."""
    size = 0
    try:
        with Unpacked(path) as file:
            while block := file.read(_BLOCK):
                size += len(block)
    except (OSError, EOFError, zlib.error) as error:
        raise _unopened(path, error) from error
    return size


def _unopened(path: Path, error: Exception) -> InputError:
    if isinstance(error, OSError) and error.errno is not None:
        return InputError(f"{path} must be a file that can be read; {why_unread(error)}")
    return InputError(f"{path} must be a whole gzip file; got {one_line(error)}")
