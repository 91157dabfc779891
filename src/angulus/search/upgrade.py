"""Move a gallery of an old model to a new one by a map of its vectors, without its images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from angulus.core.checks import InputError
from angulus.core.contract import describe_model
from angulus.models.vector_map import VectorMap
from angulus.search.transfer import check_places, copy
from angulus.search.vector_gallery import Gallery
from angulus.search.vector_store import About


def check_source(gallery: Gallery, old: str | None) -> About:
    """What a gallery holds, if it is of vectors of the old model; else an error."""
    about, where = gallery.about(), gallery.store.where
    if about.model != old:
        fault = f"{where} holds vectors of {describe_model(about.model)}, and the map is of {describe_model(old)}"
        raise InputError(f"{fault}; give the model that made the gallery as OLD")
    if about.flip is not None:
        raise InputError(
            f"{where} was filled with flip {about.flip} of two vectors per image, which a map of single ones does not "
            "take; embed the images with angulus embed --flip, and make another gallery"
        )
    return about


def upgrade(gallery: Gallery, out: Gallery, mapping: VectorMap, *, on_rows: Callable[[int], None] | None = None) -> int:
    """Write the mapped vectors of a gallery to another, as `transfer.copy` does; returns how many.

    The old gallery stays as it is. A stopped copy is completed by another: rows of the same ids are replaced.

    Args:
        gallery: of the map's old model.
        out: new, or of an earlier, stopped call.
        mapping: `mapping.name` becomes the model of the new gallery.
        on_rows: called with the number of rows written after each commit.

    Raises:
        checks.InputError: a gallery of another model, one gallery as both, another gallery in `out`.
    """
    about = check_target(gallery, out, mapping)
    return copy(gallery, out, about, mapping, on_rows)


def check_target(gallery: Gallery, out: Gallery, mapping: VectorMap) -> About:
    """What `out` holds after `upgrade`; a gallery of another model, or of another map, is refused."""
    about = replace(check_source(gallery, mapping.old), size=mapping.sizes[1], model=mapping.name)
    check_places(gallery, out)
    existing = out.store.about()
    if existing is not None and existing.model != about.model:
        raise InputError(
            f"{out.store.where} holds vectors of {describe_model(existing.model)}, and these are of "
            f"{describe_model(about.model)}; give another --out"
        )
    return about
