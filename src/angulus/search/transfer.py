"""Copy a gallery: into another store, or into an embeddings file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.core.formats import text_array
from angulus.search import life
from angulus.search.vector_gallery import Gallery, check_dtype, check_same, open_gallery
from angulus.search.vector_store import DTYPES, About, Neighbours, Vectors

FILES = (".npz", ".safetensors", ".parquet")
_OTHER_FILES = (".bin", ".csv", ".h5", ".json", ".jsonl", ".npy", ".pkl", ".tsv", ".txt", ".zip")  # no galleries


def export(gallery: Gallery, out: str | Path, *, dtype: str | None = None) -> int:
    """Copy the rows as they are now into another gallery, or into an embeddings file; returns how many.

    Rows whose time has ended, and those of removed people, stay behind. Another gallery also gets the list of removed
    people. A file is written as a whole or not at all, and takes the memory of all vectors; the same command completes
    a copy into a gallery that was stopped.

    Args:
        out: PATH.npz, .safetensors or .parquet; or a gallery as `open_gallery` takes it.
        dtype: of the copy's vectors, "float32" or "float16"; None: as stored here.

    Raises:
        checks.InputError: an empty gallery; a file of another kind; fused vectors for a file, as no file says how they
            were fused; another gallery that is of another model, or from which some of the people were removed.
    """
    about = gallery.about()
    if dtype is not None:
        checks.choice("dtype", dtype, DTYPES)
        about = replace(about, dtype=dtype)
    suffix = "" if "://" in str(out) else Path(out).suffix
    if suffix.lower() in _OTHER_FILES:
        raise InputError(f"a file must end in {', '.join(FILES)}; got {out}; any other name is a gallery's")
    if suffix in FILES:
        if about.flip is not None:
            fault = f"{gallery.store.where} holds vectors fused by flip {about.flip}, which no file can say"
            raise InputError(f"{fault}; export it to another gallery")
        parts = (life.alive(part, about.removed, life.now()) for part in gallery.store.rows())
        kept = [part for part in parts if part.ids]
        if not kept:
            raise InputError(f"the time of all rows of {gallery.store.where} has ended; there is nothing to export")
        rows = as_embeddings(kept, about, gallery.store.where)
        rows.write(out)
        return len(rows)
    target = open_gallery(out)
    existing = target.store.about() if dtype else None
    if existing is not None:
        check_dtype(dtype, existing, target.store.where)
    return copy(gallery, target, about)


def copy(
    gallery: Gallery,
    out: Gallery,
    about: About,
    change: Callable[[Vectors], Vectors] | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> int:
    """Copy the rows of a gallery that have not ended into another, which becomes `about`; returns how many.

    People who were removed from `out` are looked for in all rows before the first is written.

    Args:
        change: makes the vectors of `about` from those of the gallery; None: they stay.
        on_rows: called with the number of rows written after each commit.
    """
    check_places(gallery, out)
    count, second = 0, life.now()
    with out.store.writing():
        existing = out.store.about()
        if existing is None:
            out.store.create(about)
        else:
            check_same(about, existing, gallery.store.where, out.store.where)
            if existing.removed:
                names = (
                    life.alive(part, about.removed, second).identities for part in gallery.store.rows(vectors=False)
                )
                out.admit([who for part in names for who in part if who], gallery.store.where)
            out.store.describe(replace(existing, removed=existing.removed | about.removed))
        for part in gallery.store.rows():
            kept = life.alive(part, about.removed, second)
            if kept.ids:  # again, as a row may have come since
                out.admit(kept.identities, gallery.store.where)
                out.store.put(kept if change is None else replace(kept, vectors=change(kept.vectors)))
                count += len(kept.ids)
                if on_rows is not None:
                    on_rows(count)
        out.store.tidy()
    return count


def check_places(gallery: Gallery, out: Gallery) -> None:
    """Refuse one gallery as both, and a place for `out` that cannot be one."""
    if Path(out.store.where).resolve() == Path(gallery.store.where).resolve():
        raise InputError(f"out must be another gallery; got {out.store.where} itself")
    out.store.about()


def as_embeddings(parts: Sequence[Neighbours], about: About, source: str) -> Embeddings:
    """Rows of a gallery as embeddings, which can be written to a file."""
    ids = [name for part in parts for name in part.ids]
    people = [who or "" for part in parts for who in part.identities]
    expires = ["" if end is None else _date(end) for part in parts for end in part.expires or [None] * len(part.ids)]
    norms = [np.nan if norm is None else norm for part in parts for norm in part.norms or [None] * len(part.ids)]
    unknown = int(np.isnan(norms).sum())
    if 0 < unknown < len(norms):
        checks.warn(f"{unknown:,} rows of {source} have no norm, so the file has none for any of its {len(norms):,}")
    return Embeddings(
        np.concatenate([part.vectors for part in parts]).astype(about.dtype, copy=False),
        text_array(ids),
        labels=text_array(people) if any(people) else None,
        norms=None if unknown else np.array(norms),
        models=None if about.model is None else np.full(len(ids), about.model),
        expires=text_array(expires) if any(expires) else None,
        source=source,
    )


def _date(second: int) -> str:
    """As `moment` reads it.

    >>> _date(1801389600)
    '2027-01-31T10:00:00+00:00'
    """
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)).isoformat()
