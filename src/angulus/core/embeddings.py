"""Embeddings of any model: vectors with ids and optional columns; checked, looked up by id, normalised.

One file is all that an evaluation needs: `.npz` (memory-mapped if not compressed), `.safetensors` (memory-mapped),
`.parquet`, or a `.bin` matrix; or a folder of `.bin` files, one per image.
"""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks, files, formats, urls
from angulus.core.checks import InputError
from angulus.core.contract import describe_model, split_model_name
from angulus.core.formats.columns import is_missing, is_text, known_or_empty, text_array
from angulus.core.id_rule import IdRule, propose, stem

NUMBERS = ("norms", "detector_scores")
TEXTS = ("labels", "groups", "media", "templates", "models", "cameras", "splits", "expires")
MISSING = ("refuse", "fail")  # what becomes of a list's ids without embedding
UNKNOWN_ONES = ("labels", "groups")  # columns where some texts mean unknown

_DTYPES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
SAME_LENGTH = 2e-3  # relative; float16 rounds a length by less
_BLOCK = 2**21  # numbers per block, so that float64 work on a mapped file takes tens of MiB


@dataclass(frozen=True, eq=False)
class Embeddings:
    """N embeddings of size d, named by ids, with optional columns of N entries.

    Attributes:
        vectors: [N, d] float16, float32 or float64, not normalised; may be a memory map.
        ids: [N] of str, unique, not empty: the names of the images in the benchmark's lists. All text may be an array
            of `str` objects, as `formats.text_array` makes it if one text is far longer than the others.
        norms: [N] float64, finite, >= 0: the lengths before the vectors were normalised; None: the vectors' lengths.
        detector_scores: [N] float64, finite, or NaN for an image without one.
        labels: [N] of str, the identities; "" if unknown, which None, NaN and the texts that tools write for them
            (None, nan, NaN, null, <NA>) become. See `labelled`.
        groups: [N] of str, such as the demographic group; unknown as in `labels`.
        media: [N] of str, the medium (a video or a still) that an image is from.
        templates: [N] of str.
        models: [N] of str, the model and flip rule that made each vector, as `angulus embed` names them.
        cameras: [N] of str, the camera that took each image, for re-identification.
        splits: [N] of str, such as query and gallery, or train and test.
        expires: [N] of str, the ISO 8601 date from which on a gallery must not use the row; "" if none.
        flipped: [N, d], the embeddings of the mirrored images.
        source: where they come from, for messages and results.
        zero_vectors: "refuse"; or "keep": vectors of zeros stay, and their cosine with anything is defined as 0.
        id_rule: under which the ids are, and by which `rows` shortens those of a list; see `match_by`.
        absent_groups: the groups of ids without embedding, where a file names them.

    >>> two = Embeddings(np.array([[3.0, 4.0], [0.0, 2.0]]), np.array(["a.jpg", "b.jpg"]))
    >>> two.unit(two.rows(["b"], "my list")).tolist(), two.feature_norms.tolist()
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
    cameras: NDArray[np.str_] | None = None
    splits: NDArray[np.str_] | None = None
    expires: NDArray[np.str_] | None = None
    flipped: NDArray[np.floating[Any]] | None = None
    source: str = "these embeddings"
    zero_vectors: str = "refuse"
    id_rule: IdRule | None = None
    absent_groups: Mapping[str, str] = field(default_factory=dict)

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
        """Read `.npz`, `.safetensors`, `.parquet`, a `.bin` matrix, a folder of `.bin` files, one per image; or a URL.

        The file holds `embeddings` [N, d] and `ids`, and optionally `norms`, `detector_scores`, `labels`, `groups`,
        `media`, `templates`, `models`, `cameras`, `splits`, `expires`, `flipped`. Whole numbers are accepted as text. A
        `.safetensors` has text as a JSON list in its metadata under the column's name, or one per line in
        `PATH.NAME.txt`; a `.bin` in such files. In a folder of `.bin` files, an id is the path below it up to its image
        suffix: `A/1.jpg` of `A/1.jpg_arcface.bin`. A warning names other columns, which are not read. Checksums are
        verified if the file has them, as every `.npz` does.
        """
        path = urls.fetch(path)
        names = ("embeddings", "ids", "flipped", *NUMBERS, *TEXTS)
        columns = formats.read(path, names, ("ids", *TEXTS), needed=("embeddings", "ids"))
        texts = {name: formats.as_text(path, name, columns[name]) for name in ("ids", *TEXTS) if name in columns}
        numbers = {name: formats.as_numbers(path, name, columns[name]) for name in NUMBERS if name in columns}
        flipped = {"flipped": formats.as_native(columns["flipped"])} if "flipped" in columns else {}
        vectors = formats.as_native(columns["embeddings"])
        return cls(vectors, **texts, **numbers, **flipped, source=files.shown(str(path)), zero_vectors=zero_vectors)  # type: ignore[arg-type]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write `.npz`, `.safetensors` or `.parquet` atomically, also to a URL, without `source`."""
        columns: dict[str, NDArray[Any]] = {"embeddings": self.vectors, "ids": self.ids}
        flipped = {} if self.flipped is None else {"flipped": self.flipped}
        with urls.writing(path) as local:
            formats.write(local, columns | flipped | dict(self._present(*NUMBERS, *TEXTS)))

    def match_by(self, rule: IdRule) -> Embeddings:
        """The same embeddings with ids under a rule; errors of `rows` then propose the rule that would fit.

        Raises:
            checks.InputError: ids that become the same, or empty.
        """
        if rule:
            return replace(self, ids=text_array(rule.change_all(self.ids.tolist(), self.source)), id_rule=rule)
        same = copy.copy(self)  # `replace` would check all vectors again
        object.__setattr__(same, "id_rule", rule)
        return same

    def rows(self, ids: ArrayLike, what: str, *, missing: str | None = None) -> NDArray[np.int64]:
        """Positions [K] in [0, N) of these ids [K], which may repeat; `what` names the list they are from, for errors.

        If some are not found as they are, image suffixes (.jpg, .png, ...) are dropped on both sides; then each id must
        match exactly one embedding, and no two different ids the same one.

        Args:
            missing: "fail": −1 for an id without embedding, as long as some id has one; "refuse": an error that names
                this option; None: an error.

        Raises:
            checks.InputError: ids are missing (counted, the first three named), or ambiguous without their suffix.
        """
        if missing is not None:
            checks.choice("missing", missing, MISSING)
        asked = list(map(str, np.asarray(ids).tolist()))
        if self.id_rule is not None:
            asked = self.id_rule.shorten_all(asked, what)
        rows = [self._row_of.get(name, -1) for name in asked]
        if -1 not in rows:
            return np.array(rows, dtype=np.int64)
        stems = [stem(name) for name in asked]
        unmatched = dict.fromkeys(name for name, row in zip(asked, rows, strict=True) if row == -1)
        absent = [name for name in unmatched if stem(name) not in self._row_of_stem]
        if absent and (missing != "fail" or len(absent) == len(set(asked))):
            raise self._absent(absent, asked, what, missing)
        self._check_unambiguous(asked, stems, what)
        return np.array([self._row_of_stem.get(name, -1) for name in stems], dtype=np.int64)

    def groups_of(self, rows: NDArray[np.int64], ids: ArrayLike) -> NDArray[np.str_] | None:
        """The groups [K] of a list's ids [K] at their `rows`, where −1 is without embedding; "" if unknown.

        None: there are no groups.
        """
        if self.groups is None:
            return None
        found = np.append(self.groups, "")[rows].tolist()
        asked = np.asarray(ids).tolist()
        for place in np.flatnonzero(rows < 0).tolist():
            name = str(asked[place]) if self.id_rule is None else self.id_rule.shorten(str(asked[place]))
            found[place] = self.absent_groups.get(name, self.absent_groups.get(stem(name), ""))
        return text_array(found)

    def fused(self, rows: slice | NDArray[np.int64], flip: str | None = None) -> NDArray[np.floating[Any]]:
        """Vectors of chosen rows (positions [K], or a slice), as stored or joined with the mirrored images' vectors.

        flip: None: as stored; "sum": plus the mirrored image's, float64 (NormFace); "concat": both, float64 [K, 2d].

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
            flip: None, "sum" or "concat", as for `fused`, before normalisation.
            dtype: np.float32 or np.float64; None: float64 if the vectors are float64, else float32.
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
            wide /= np.where(peak > 0, peak, 1)  # squares of very large or small numbers overflow float64
            wide /= np.maximum(np.sqrt(np.einsum("ij,ij->i", wide, wide)), 1e-300)[:, None]
            result[block] = wide
        return result

    @cached_property
    def labelled(self) -> NDArray[np.bool_]:
        """[N] of bool: which rows have an identity in `labels`."""
        return np.asarray(np.zeros(len(self)) if self.labels is None else self.labels != "", dtype=bool)

    @cached_property
    def model(self) -> str | None:
        """The model and flip rule that made all vectors, or None if unknown; several models are refused."""
        if len(self._makers) > 1:
            raise self._wrong("one model must have made all vectors", f"{len(self._makers)}: {_first(self._makers)}")
        return self._makers[0] if self._makers else None

    @cached_property
    def model_flips(self) -> tuple[str, ...]:
        """The flip rules ("sum", "concat") by which the models themselves joined mirror images."""
        rules = {name[1] for name in map(split_model_name, self._makers) if name is not None}
        return tuple(sorted(rules - {"none"}))

    @property
    def origin(self) -> dict[str, str]:
        """The source of the vectors, the model and flip rule if known, and the rule of the ids; for a result."""
        rule = {"id_rule": str(self.id_rule)} if self.id_rule else {}
        return {"embeddings": self.source} | ({} if self.model is None else {"model": self.model}) | rule

    def lengths(self, rows: NDArray[np.int64], flip: str | None = None) -> NDArray[np.float64]:
        """Norms of the features [K] float64, before any normalisation, joined by `flip` as in `fused`.

        Raises:
            checks.InputError: a flip is given, and the vectors were normalised (`norm_source`).
        """
        if self.norm_source(flip) is None:
            rule = "norms must be the lengths of the vectors if mirror images are joined"
            why = "because normalised vectors do not give the length of a joined one"
            way = "leave flip out, write the vectors as the model gave them, or leave norms out"
            raise self._wrong(f"{rule}, {why}", f"others; {way}")
        return self.feature_norms[rows] if flip is None else _lengths(self.fused(rows, flip))

    def norm_source(self, flip: str | None = None) -> str | None:
        """What `lengths` returns, for a result; None if the vectors were normalised before they were joined."""
        self._check_flip(flip)
        if self._normalised:
            return "the column norms, from before normalisation" if flip is None else None
        return "lengths of the vectors"

    @cached_property
    def feature_norms(self) -> NDArray[np.float64]:
        """[N] float64: `norms` if given, else the lengths of the vectors."""
        return self._vector_lengths if self.norms is None else np.asarray(self.norms, dtype=np.float64)

    @cached_property
    def _vector_lengths(self) -> NDArray[np.float64]:
        lengths = np.empty(len(self))
        for block in _blocks(*self.vectors.shape):
            lengths[block] = _lengths(self.vectors[block])
        return lengths

    @cached_property
    def _normalised(self) -> bool:
        """Whether `norms` differ from the lengths of the vectors."""
        return self.norms is not None and not np.allclose(self.norms, self._vector_lengths, rtol=SAME_LENGTH, atol=0)

    @cached_property
    def _makers(self) -> list[str]:
        names = [] if self.models is None else [str(name) for name in np.unique(self.models)]
        return [] if names == [""] else names

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return dict(zip(self.ids.tolist(), range(len(self)), strict=True))

    @cached_property
    def _row_of_stem(self) -> dict[str, int]:
        return {stem(name): row for name, row in self._row_of.items()}

    def _check_flip(self, flip: str | None) -> None:
        if flip is None:
            return
        checks.choice("flip", flip, ("sum", "concat"), hint="or None")
        if self.flipped is None:
            way = "leave flip out, or embed the images with angulus embed --flip"
            if self.model_flips:
                way = f"leave flip out: {describe_model(self._makers[0])} has joined them already"
            fault = f"flip={flip!r} needs the embeddings of mirrored images, 'flipped'"
            raise InputError(f"{fault}; {self.source} has none; {way}")

    def _positions(self, rows: ArrayLike) -> NDArray[np.int64]:
        rows = np.asarray(rows)
        if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
            raise InputError(f"rows must be whole numbers of shape [K]; got {rows.dtype} {list(rows.shape)}")
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise InputError(f"rows must be in [0, {len(self)}); got {int(rows.min())} to {int(rows.max())}")
        return rows.astype(np.int64)

    def _absent(self, absent: list[str], asked: list[str], what: str, missing: str | None) -> InputError:
        fault = f"{len(absent)} of the {len(set(asked))} ids of {what} have no embedding in {self.source}"
        rule = "" if self.id_rule is None else propose(self.ids.tolist(), asked)
        way = rule or f"name the embeddings as {what} does"
        if missing == "refuse" and not rule and len(absent) < len(set(asked)):
            way += ", or count images without embedding as failures to enrol with --missing fail"
        return InputError(f"{fault}: {_first(absent)}; its ids look like {checks.shown(str(self.ids[0]))}; {way}")

    def _check_unambiguous(self, asked: list[str], stems: list[str], what: str) -> None:
        wanted = dict(zip(stems, asked, strict=True))
        merged = [name for stem, name in zip(stems, asked, strict=True) if wanted[stem] != name]
        if merged:
            raise self._wrong(f"ids of {what} must stay different without their image suffix", _first(merged))
        rows = self._row_of_stem
        double = [name for name, row in self._row_of.items() if rows[stem(name)] != row and stem(name) in wanted]
        if double:
            rule = f"ids that {what} asks for without their image suffix must meet one embedding each"
            raise self._wrong(rule, _first(double))

    def _check_vectors(self, name: str, value: NDArray[np.floating[Any]]) -> None:
        if not isinstance(value, np.ndarray) or value.ndim != 2 or 0 in value.shape:
            raise self._wrong(f"{name} must be an array of shape [N, d], both at least 1", _shape(value))
        if value.dtype not in _DTYPES:
            raise self._wrong(f"{name} must be float16, float32 or float64", value.dtype)

    def _settle_texts(self) -> None:
        """Replace missing and unknown texts by "" in optional columns."""
        for name in TEXTS:
            value = getattr(self, name)
            if isinstance(value, np.ndarray) and value.dtype == object:
                filled = ["" if is_missing(text) else text for text in value.tolist()]
                value = text_array(filled) if all(type(text) is str for text in filled) else value
            if name in UNKNOWN_ONES and isinstance(value, np.ndarray) and is_text(value):
                value = known_or_empty(value)
            object.__setattr__(self, name, value)  # frozen for all others

    def _check_texts(self) -> None:
        for name, value in self._present("ids", *TEXTS):
            if not is_text(value):
                raise self._wrong(f"{name} must be an array of text", value.dtype)
        if len(self._row_of) < len(self):
            double = [name for name, count in Counter(self.ids.tolist()).items() if count > 1]
            raise self._wrong("ids must be unique", f"{len(double)} that repeat: {_first(double)}")
        if "" in self._row_of:
            raise self._wrong("ids must not be empty", f"an empty one at row {self._row_of['']}")

    def _check_numbers(self) -> None:
        for name, value in self._present(*NUMBERS):
            if value.dtype != np.float64:
                raise self._wrong(f"{name} must be float64", value.dtype)
            bad = ~np.isfinite(value) | (value < 0) if name == "norms" else np.isinf(value)
            if bad.any():
                rule = "finite and >= 0" if name == "norms" else "finite, or NaN if there is none"
                raise self._wrong(f"{name} must be {rule}", self._named(np.flatnonzero(bad)))

    def _present(self, *names: str) -> Iterator[tuple[str, NDArray[Any]]]:
        """The columns that are not None, checked for length."""
        for name in names:
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, np.ndarray) or value.shape != (len(self),):
                raise self._wrong(f"{name} must have shape [{len(self)}], one entry per embedding", _shape(value))
            yield name, value

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
            way = 'leave them out, or in Python pass zero_vectors="keep" to give them cosine 0'
            rule = f"{name} must not be vectors of zeros, which have no angle"
            raise self._wrong(rule, f"{self._named(rows)}; {way}")

    def _named(self, rows: NDArray[np.int64]) -> str:
        return f"{len(rows)} of {len(self)} rows: {_first(self.ids[rows[:4]].tolist(), len(rows))}"

    def _wrong(self, rule: str, got: object) -> InputError:
        return InputError(f"{self.source}: {rule}; got {got}")


def _blocks(rows: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, width))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _lengths(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The lengths of rows in float64, without overflow of the squares."""
    wide = vectors.astype(np.float64)
    peak = np.abs(wide).max(axis=1)
    wide /= np.where(peak > 0, peak, 1)[:, None]
    return np.asarray(peak * np.sqrt(np.einsum("ij,ij->i", wide, wide)))


def _shape(value: Any) -> object:
    return list(value.shape) if isinstance(value, np.ndarray) else type(value).__name__


def _first(names: list[str], count: int | None = None) -> str:
    more = (len(names) if count is None else count) > 3
    return ", ".join(checks.shown(name) for name in names[:3]) + (", ..." if more else "")
