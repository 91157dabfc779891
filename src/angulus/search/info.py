"""What a gallery holds, counted."""

from __future__ import annotations

from dataclasses import dataclass

from angulus.core.contract import describe_model
from angulus.search import life
from angulus.search.vector_gallery import Gallery
from angulus.search.vector_store import About, Files


@dataclass(frozen=True)
class Info:
    """What a gallery holds.

    Attributes:
        rows: all that are stored.
        people: who have a row that matches; `nameless` is the number of those rows without identity.
        ended: rows whose time has ended, or of removed people, which match nobody and wait for `expire`.
        ending: rows that match and have an end.
        with_norm: rows whose feature's length is known.
        about, files: the description, and what the store says of its own.
    """

    rows: int
    people: int
    nameless: int
    ended: int
    ending: int
    with_norm: int
    about: About
    files: Files

    def lines(self, where: str) -> list[str]:
        """As sentences for a reader."""
        about, files = self.about, self.files
        fused = f", fused with the mirrored images' by flip {about.flip}" if about.flip else ""
        first = f"{where}: {self.rows:,} vectors of {about.size} numbers, of {describe_model(about.model)}{fused}"
        people = f"people: {self.people:,}" + (f"; rows without identity: {self.nameless:,}" if self.nameless else "")
        removed = f"removed people, whose photos are refused: {len(about.removed):,}"
        life = f"rows with an end: {self.ending:,}; that ended, and wait for angulus search expire: {self.ended:,}"
        quality = f"rows with a norm, by which --best chooses photos: {self.with_norm:,}"
        stored = f"stored as {about.dtype}"
        if files.bytes is not None:
            stored += f", {_size(files.bytes)} in all"
        if files.changed is not None:
            stored += f", last changed {files.changed:%Y-%m-%d %H:%M} UTC"
        index = "no index: every query is exact" if files.index is None else f"index {files.index}"
        if files.index_bytes is not None:
            index += f", {_size(files.index_bytes)}"
        if files.not_indexed:
            index += f"; {files.not_indexed:,} rows came later and are compared without it"
        return [first, *(f"  {line}" for line in (people, removed, life, quality, stored, index))]


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"


def describe(gallery: Gallery) -> Info:
    """Count what a gallery holds; reads all of it but the vectors.

    Raises:
        checks.InputError: no gallery, or an empty one.
    """
    about, second = gallery.about(), life.now()

    def read() -> tuple[set[str], list[int]]:
        people, counts = set[str](), [0] * 5
        for part in gallery.store.rows(vectors=False):
            alive = life.alive(part, about.removed, second)
            people.update(who for who in alive.identities if who)
            found = (
                len(part.ids),
                sum(not who for who in alive.identities),
                len(part.ids) - len(alive.ids),
                sum(end is not None for end in alive.expires),
                sum(norm is not None for norm in part.norms),
            )
            counts = [count + more for count, more in zip(counts, found, strict=True)]
        return people, counts

    people, (rows, nameless, ended, ending, with_norm) = gallery.store.repeated(read)
    return Info(rows, len(people), nameless, ended, ending, with_norm, about, gallery.store.files())
