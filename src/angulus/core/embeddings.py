"""Embeddings of any model: vectors, their ids, and what a protocol may ask of them; checked, looked up, normalised.

A file of them is all that an evaluation needs: `.npz` (mapped from disk where it is not compressed), `.safetensors`
(mapped) or `.parquet`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks, files, formats
from angulus.core.checks import InputError
from angulus.core.fingerprint import described, parts
from angulus.core.formats.columns import is_missing, is_text, known_or_empty, text_array

NUMBERS = ("norms", "detector_scores")
TEXTS = ("labels", "groups", "media", "templates", "models")
UNKNOWN_ONES = ("labels", "groups")  # columns where some texts stand for nobody

_DTYPES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
_SAME_LENGTH = 2e-3  # float16 rounds a length by less
_BLOCK = 2**21  # numbers a block, so that float64 work on a mapped file stays in tens of MiB


@dataclass(frozen=True, eq=False)
class Embeddings:
    """N embeddings of size d, named by ids, with optional columns of N entries.

    Attributes:
        vectors: [N, d] float16, float32 or float64, not normalised; may be a memory map.
        ids: [N] of str, unique, not empty: what the benchmark's lists call the images. This and all text may be an
            array of `str` objects, as `formats.text_array` makes it where one text is far longer than the others.
        norms: [N] float64, finite, >= 0: the lengths before someone normalised the vectors; None: the vectors' lengths.
        detector_scores: [N] float64, finite, or NaN where there is none.
        labels: [N] of str, the identities; "" where nobody knows, as None, NaN and the texts that tools write for them
            (None, nan, NaN, null, <NA>) become. An unknown one is nobody's: `known` says which have one.
        groups: [N] of str, such as the demographic group; unknown as in `labels`.
        media: [N] of str, the medium (a video or a still) that an image is from.
        templates: [N] of str.
        models: [N] of str, which model and flip rule made each vector, as `angulus embed` names them.
        flipped: [N, d], the embeddings of the mirrored images.
        source: where they come from, for messages and results.
        zero_vectors: "refuse", or "keep": a vector of zeros stays, and its cosine with anything is defined as 0.

    Raises:
        checks.InputError: a shape, type or length that does not fit; NaN or Inf; ids that repeat; vectors of zeros.

    >>> few = Embeddings(np.array([[3.0, 4.0], [0.0, 2.0]]), np.array(["a.jpg", "b.jpg"]))
    >>> few.unit(few.rows(["b"], "my list")).tolist(), few.feature_norms.tolist()
    ([[0.0, 1.0]], [5.0, 2.0])
    """

    vectors: NDArray[np.floating[Any]]
    ids: NDArray[np.str_]
    norms: NDArray[np.float64] | None = None
    detector_scores: NDArray[np.float64] | None = None
    labels: NDArray[np.str_] | None = None
    groups: NDArray[np.str_] | None = None
    media: NDArray[np.str_] | None = None
    templates: NDArray[np.str_] | None = None
    models: NDArray[np.str_] | None = None
    flipped: NDArray[np.floating[Any]] | None = None
    source: str = "these embeddings"
    zero_vectors: str = "refuse"

    def __post_init__(self) -> None:
        checks.choice("zero_vectors", self.zero_vectors, ("refuse", "keep"))
        self._check_vectors("embeddings", self.vectors)
        self._settle_texts()
        self._check_texts()
        if self.flipped is not None:
            self._check_vectors("flipped", self.flipped)
            if self.flipped.shape != self.vectors.shape:
                raise self._wrong(f"flipped must have the shape {list(self.vectors.shape)}", list(self.flipped.shape))
        self._check_numbers()
        self._check_rows("embeddings", self.vectors)
        if self.flipped is not None:
            self._check_rows("flipped", self.flipped)

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, zero_vectors: str = "refuse") -> Embeddings:
        """Read `.npz`, `.safetensors` or `.parquet`.

        Names in the file: `embeddings` [N, d] and `ids`, and where there are any `norms`, `detector_scores`, `labels`,
        `groups`, `media`, `templates`, `models`, `flipped`. Whole numbers stand for text where text is due. A
        `.safetensors` keeps text as a JSON list in its metadata under the column's name, or one a line in
        `PATH.NAME.txt`. A warning names other columns, which are not read. Checksums are verified where the file has
        them, as every `.npz` does.

        Raises:
            checks.InputError: the file cannot be read, is damaged, lacks a name, or holds what `Embeddings` refuses.
        """
        path = Path(path)
        known = ("embeddings", "ids", "flipped", *NUMBERS, *TEXTS)
        found = formats.read(path, known, ("ids", *TEXTS), needed=("embeddings", "ids"))
        texts = {name: formats.as_text(path, name, found[name]) for name in ("ids", *TEXTS) if name in found}
        numbers = {name: formats.as_numbers(path, name, found[name]) for name in NUMBERS if name in found}
        flipped = {"flipped": formats.as_native(found["flipped"])} if "flipped" in found else {}
        vectors = formats.as_native(found["embeddings"])
        return cls(vectors, **texts, **numbers, **flipped, source=str(path), zero_vectors=zero_vectors)  # type: ignore[arg-type]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write `.npz`, `.safetensors` or `.parquet`, whole or not at all; `source` is not kept."""
        found: dict[str, NDArray[Any]] = {"embeddings": self.vectors, "ids": self.ids}
        for name in ("flipped", *NUMBERS, *TEXTS):
            value = getattr(self, name)
            if value is not None:
                found[name] = value
        formats.write(Path(path), found)

    def rows(self, ids: ArrayLike, what: str) -> NDArray[np.int64]:
        """Where the asked ids stand.

        Where not all are found as they are, image suffixes (.jpg .jpeg .png .bmp .webp) are dropped on both sides: that
        match counts only if each asked id then meets exactly one embedding, and no two asked ids the same.

        Args:
            ids: [K] of str, repeats allowed.
            what: what asks for them, for the message: a list's name.

        Returns:
            [K] positions in [0, N).

        Raises:
            checks.InputError: ids are missing (counted, the first three named), or ambiguous without their suffix.
        """
        asked = list(map(str, np.asarray(ids).tolist()))
        found = [self._row_of.get(name, -1) for name in asked]
        if -1 not in found:
            return np.array(found, dtype=np.int64)
        stems = [_stem(name) for name in asked]
        missing = [
            name for name, row in zip(asked, found, strict=True) if row == -1 and _stem(name) not in self._row_of_stem
        ]
        if missing:
            missing = list(dict.fromkeys(missing))
            raise InputError(
                f"{len(missing)} of the {len(set(asked))} ids of {what} have no embedding in {self.source}: "
                f"{_first(missing)}; its ids look like {checks.shown(str(self.ids[0]))}; name the embeddings as {what} "
                "does"
            )
        self._check_unambiguous(asked, stems, what)
        return np.array([self._row_of_stem[stem] for stem in stems], dtype=np.int64)

    def fused(self, rows: slice | NDArray[np.int64], flip: str | None = None) -> NDArray[np.floating[Any]]:
        """Vectors of chosen rows as they are stored, or in float64 joined with the mirrored images' vectors.

        Args:
            rows: [K] positions, or a slice.
            flip: None: the vectors; "sum": each plus the mirrored image's (NormFace); "concat": one after the other,
                [K, 2d].

        Raises:
            checks.InputError: no mirrored embeddings, or a sum of zeros where zeros are refused.
        """
        self._check_flip(flip)
        if flip is None or self.flipped is None:
            return self.vectors[rows]
        own, mirrored = (part[rows].astype(np.float64) for part in (self.vectors, self.flipped))
        if flip == "concat":
            return np.concatenate([own, mirrored], axis=1)
        own += mirrored
        zero = ~own.any(axis=1)
        if zero.any() and self.zero_vectors == "refuse":
            which = np.arange(len(self))[rows][zero]
            raise self._wrong("the sum of a vector and its mirrored one must not be zero", self._named(which))
        return own

    def unit(
        self, rows: ArrayLike | None = None, *, flip: str | None = None, dtype: type[np.floating[Any]] | None = None
    ) -> NDArray[np.floating[Any]]:
        """Unit vectors x / ‖x‖ of chosen rows; computed in float64, then rounded once. Zeros stay zeros.

        Args:
            rows: [K] positions, or None for all.
            flip: None, "sum" or "concat": x is the vector, or `fused`; before any normalisation.
            dtype: np.float32 or np.float64; None: float64 where the vectors are float64, else float32.

        Raises:
            checks.InputError: no mirrored embeddings, a row out of range, or a sum of zeros where zeros are refused.
        """
        self._check_flip(flip)
        if dtype not in (None, np.float32, np.float64):
            raise InputError(f"dtype must be np.float32, np.float64 or None; got {dtype!r}")
        if dtype is None:
            dtype = np.float64 if self.vectors.dtype == np.float64 else np.float32
        chosen = None if rows is None else self._positions(rows)
        count = len(self) if chosen is None else len(chosen)
        width = self.vectors.shape[1] * (2 if flip == "concat" else 1)
        result: NDArray[np.floating[Any]] = np.empty((count, width), dtype=dtype)
        for block in _blocks(count, width):
            part = block if chosen is None else chosen[block]
            wide = self.fused(part, flip).astype(np.float64)
            peak = np.abs(wide).max(axis=1, keepdims=True)
            wide /= np.where(peak > 0, peak, 1)  # squares of very large or small numbers leave float64
            wide /= np.maximum(np.sqrt(np.einsum("ij,ij->i", wide, wide)), 1e-300)[:, None]
            result[block] = wide
        return result

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """[N] of bool: whose identity `labels` say."""
        return np.asarray(np.zeros(len(self)) if self.labels is None else self.labels != "", dtype=bool)

    @cached_property
    def model(self) -> str | None:
        """Which model and flip rule made all vectors; None where that is not said.

        Raises:
            checks.InputError: several models made them, whose vectors have no angles between them.
        """
        if len(self._makers) > 1:
            raise self._wrong("one model must have made all vectors", f"{len(self._makers)}: {_first(self._makers)}")
        return self._makers[0] if self._makers else None

    @cached_property
    def model_flips(self) -> tuple[str, ...]:
        """How the models joined mirror images before these vectors were written: "sum", "concat"; one or none."""
        rules = {own[1] for own in map(parts, self._makers) if own is not None}
        return tuple(sorted(rules - {"none"}))

    @property
    def origin(self) -> dict[str, str]:
        """Where the vectors come from, and which model and flip rule made them where that is said; for a result."""
        return {"embeddings": self.source} | ({} if self.model is None else {"model": self.model})

    def lengths(self, rows: NDArray[np.int64], flip: str | None = None) -> NDArray[np.float64]:
        """Norms of the features [K] float64: before someone normalised them, and joined as `flip` says; see `fused`.

        Raises:
            checks.InputError: joined vectors are asked for, and only normalised ones are there (`norm_source`).
        """
        if self.norm_source(flip) is None:
            raise self._wrong(
                "norms must be the lengths of the vectors where mirror images are joined, for the length of a joined "
                "vector cannot be told from normalised ones",
                "others; leave flip out, write the vectors as the model gave them, or leave norms out",
            )
        return self.feature_norms[rows] if flip is None else _lengths(self.fused(rows, flip))

    def norm_source(self, flip: str | None = None) -> str | None:
        """What `lengths` takes, for a result; None where the vectors were normalised before they were joined."""
        self._check_flip(flip)
        if self._normalised:
            return "the column norms, from before normalisation" if flip is None else None
        return "lengths of the vectors"

    @cached_property
    def feature_norms(self) -> NDArray[np.float64]:
        """[N] float64: `norms` where given, else the lengths of the vectors."""
        return self._vector_lengths if self.norms is None else np.asarray(self.norms, dtype=np.float64)

    @cached_property
    def _vector_lengths(self) -> NDArray[np.float64]:
        lengths = np.empty(len(self))
        for block in _blocks(*self.vectors.shape):
            lengths[block] = _lengths(self.vectors[block])
        return lengths

    @cached_property
    def _normalised(self) -> bool:
        """Whether `norms` are other than the lengths of the vectors."""
        return self.norms is not None and not np.allclose(self.norms, self._vector_lengths, rtol=_SAME_LENGTH, atol=0)

    @cached_property
    def _makers(self) -> list[str]:
        names = [] if self.models is None else [str(name) for name in np.unique(self.models)]
        return [] if names == [""] else names

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return dict(zip(self.ids.tolist(), range(len(self)), strict=True))

    @cached_property
    def _row_of_stem(self) -> dict[str, int]:
        return {_stem(name): row for name, row in self._row_of.items()}

    def _check_flip(self, flip: str | None) -> None:
        if flip is None:
            return
        checks.choice("flip", flip, ("sum", "concat"), hint="or None")
        if self.flipped is None:
            way = "leave flip out, or embed the images with angulus embed --flip"
            if self.model_flips:
                way = f"leave flip out: {described(self._makers[0])} has joined them already"
            raise InputError(
                f"flip={flip!r} needs the embeddings of mirrored images, 'flipped'; {self.source} has none; {way}"
            )

    def _positions(self, rows: ArrayLike) -> NDArray[np.int64]:
        rows = np.asarray(rows)
        if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
            raise InputError(f"rows must be whole numbers of shape [K]; got {rows.dtype} {list(rows.shape)}")
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise InputError(f"rows must be in [0, {len(self)}); got {int(rows.min())} to {int(rows.max())}")
        return rows.astype(np.int64)

    def _check_unambiguous(self, asked: list[str], stems: list[str], what: str) -> None:
        wanted = dict(zip(stems, asked, strict=True))
        merged = [name for stem, name in zip(stems, asked, strict=True) if wanted[stem] != name]
        if merged:
            raise self._wrong(f"ids of {what} must stay different without their image suffix", _first(merged))
        if len(self._row_of_stem) == len(self):
            return
        double = [name for name, row in self._row_of.items() if self._row_of_stem[_stem(name)] != row]
        double = [name for name in double if _stem(name) in wanted]
        if double:
            raise self._wrong(
                f"ids that {what} asks for without their image suffix must meet one embedding each", _first(double)
            )

    def _check_vectors(self, name: str, value: NDArray[np.floating[Any]]) -> None:
        if not isinstance(value, np.ndarray) or value.ndim != 2 or 0 in value.shape:
            shape = list(value.shape) if isinstance(value, np.ndarray) else type(value).__name__
            raise self._wrong(f"{name} must be an array of shape [N, d], both at least 1", shape)
        if value.dtype not in _DTYPES:
            raise self._wrong(f"{name} must be float16, float32 or float64", value.dtype)

    def _settle_texts(self) -> None:
        """Put "" for what is missing or unknown, in columns that may lack some."""
        for name in TEXTS:
            value = getattr(self, name)
            if isinstance(value, np.ndarray) and value.dtype == object:
                filled = ["" if is_missing(each) else each for each in value.tolist()]
                value = text_array(filled) if all(type(each) is str for each in filled) else value
            if name in UNKNOWN_ONES and isinstance(value, np.ndarray) and is_text(value):
                value = known_or_empty(value)
            object.__setattr__(self, name, value)  # frozen for all others

    def _check_texts(self) -> None:
        for name in ("ids", *TEXTS):
            value = getattr(self, name)
            if value is None:
                continue
            self._check_length(name, value)
            if not is_text(value):
                raise self._wrong(f"{name} must be an array of text", value.dtype)
        if len(self._row_of) < len(self):
            double = [name for name, count in Counter(self.ids.tolist()).items() if count > 1]
            raise self._wrong("ids must be unique", f"{len(double)} that repeat: {_first(double)}")
        if "" in self._row_of:
            raise self._wrong("ids must not be empty", f"an empty one at row {self._row_of['']}")

    def _check_numbers(self) -> None:
        for name in NUMBERS:
            value = getattr(self, name)
            if value is None:
                continue
            self._check_length(name, value)
            if value.dtype != np.float64:
                raise self._wrong(f"{name} must be float64", value.dtype)
            bad = ~np.isfinite(value) | (value < 0) if name == "norms" else np.isinf(value)
            if bad.any():
                rule = "finite and >= 0" if name == "norms" else "finite, or NaN where there is none"
                raise self._wrong(f"{name} must be {rule}", self._named(np.flatnonzero(bad)))

    def _check_length(self, name: str, value: NDArray[Any]) -> None:
        if not isinstance(value, np.ndarray) or value.shape != (len(self),):
            shape = list(value.shape) if isinstance(value, np.ndarray) else type(value).__name__
            raise self._wrong(f"{name} must have shape [{len(self)}], one entry an embedding", shape)

    def _check_rows(self, name: str, value: NDArray[np.floating[Any]]) -> None:
        infinite, zero = [], []
        for block in _blocks(*value.shape):
            part = value[block]
            infinite.append(block.start + np.flatnonzero(~np.isfinite(part).all(axis=1)))
            zero.append(block.start + np.flatnonzero(~part.any(axis=1)))
        rows = np.concatenate(infinite)
        if len(rows):
            raise self._wrong(f"{name} must be finite", f"NaN or Inf in {self._named(rows)}")
        rows = np.concatenate(zero)
        if len(rows) and self.zero_vectors == "refuse":
            raise self._wrong(
                f"{name} must not be vectors of zeros, which have no angle",
                f'{self._named(rows)}; leave them out, or in Python pass zero_vectors="keep" to give them cosine 0',
            )

    def _named(self, rows: NDArray[np.int64]) -> str:
        return f"{len(rows)} of {len(self)} rows: {_first(self.ids[rows[:4]].tolist(), len(rows))}"

    def _wrong(self, rule: str, got: object) -> InputError:
        return InputError(f"{self.source}: {rule}; got {got}")


def _blocks(rows: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, width))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _lengths(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The lengths of rows, in float64, whose squares may leave it."""
    wide = vectors.astype(np.float64)
    peak = np.abs(wide).max(axis=1)
    wide /= np.where(peak > 0, peak, 1)[:, None]
    return np.asarray(peak * np.sqrt(np.einsum("ij,ij->i", wide, wide)))


def _stem(name: str) -> str:
    head, dot, suffix = name.rpartition(".")
    return head if dot and f".{suffix.lower()}" in files.IMAGE_SUFFIXES else name


def _first(names: list[str], count: int | None = None) -> str:
    more = (len(names) if count is None else count) > 3
    return ", ".join(checks.shown(name) for name in names[:3]) + (", ..." if more else "")
