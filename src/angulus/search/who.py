"""Who is on a photo: the person of a gallery whose image is nearest, or nobody."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from angulus.core import checks
from angulus.core.contract import comparable, describe_model, query_name
from angulus.core.embeddings import Embeddings
from angulus.models.artifact import Model
from angulus.models.embedder import Embedder
from angulus.models.photos import ChosenFace, read_crop_or_photo
from angulus.search.vector_gallery import Gallery, Match

if TYPE_CHECKING:
    from angulus.data.faces.detector import Detector


@dataclass(frozen=True)
class Identified:
    """Who a photo shows.

    Attributes:
        name: the person's, or the image's id if the gallery does not know the person; None: nobody in the gallery.
        nearest: the most similar image of each person, by falling score, whether above the threshold or not.
        threshold: a cosine; None: the nearest is named, however far.
        norm: of the photo's feature; images that say little have low norms.
        face: the one that was looked at, if the photo was aligned.
        warnings: what makes the answer doubtful, such as several faces.
    """

    name: str | None
    nearest: tuple[Match, ...]
    threshold: float | None
    norm: float
    face: ChosenFace | None = None
    warnings: tuple[str, ...] = ()


def identify(
    gallery: Gallery,
    model: Model,
    photo: Path,
    *,
    threshold: float | None = None,
    top: int = 5,
    detector: str | Detector | None = None,
    face: int | None = None,
) -> Identified:
    """Find the person of a gallery that a photo shows.

    Args:
        gallery: of embeddings that `model` made; its rule for mirror images is used.
        model: with or without a calibration.
        photo: aligned to the model's template first, unless it has the size of a crop already.
        threshold: a cosine, as `threshold_of` gives it; below it, it is nobody. None names the nearest.
        top: people to return.
        detector, face: as `read_crop_or_photo` takes them.

    Raises:
        checks.InputError: another model than the gallery's, an empty gallery, a photo without a face that can be used,
            a feature of length zero.
    """
    checks.integer("top", top, low=1)
    model = as_gallery(model, gallery)
    pixels, choice = read_crop_or_photo(photo, model.config, detector, face)
    features = model.embed(pixels[None]).cpu().numpy()
    norm = float(np.linalg.norm(features.astype(np.float64)))
    if not 0 < norm < np.inf:
        raise checks.InputError(f"the feature of {photo} must have a length > 0, or it has no angle; got {norm:g}")
    query = Embeddings(features, np.array([str(photo)]), models=np.array([model.name]), source=str(photo))
    (answer,) = gallery.query(query, top=top, by="person", compatible_with=model.config.compatible_with)
    nearest = answer.matches
    matches = bool(nearest) and (threshold is None or nearest[0].score >= threshold)
    warning = None if choice is None else choice.warning(photo)
    return Identified(
        name_of(nearest[0]) if matches else None,
        nearest,
        threshold,
        norm,
        None if choice is None else choice.chosen,
        () if warning is None else (warning,),
    )


def as_gallery(model: Model, gallery: Gallery) -> Model:
    """The model with the gallery's rule for mirror images; one that may not search the gallery is refused."""
    about, where = gallery.about(), gallery.store.where
    made_by = query_name(about.model)
    wrong = (
        f"{where} holds vectors of {describe_model(about.model)}, and this is {describe_model(model.name)}; give "
        "the model that made the gallery or one that is compatible with it, or make a gallery with this one "
        "(angulus embed, angulus search add)"
    )
    if made_by is None or made_by.digits not in (model.fingerprint, *model.config.compatible_with):
        raise checks.InputError(wrong)
    if about.flip is not None:
        raise checks.InputError(
            f"{where} was filled with flip {about.flip} of two embeddings per image, which one photo does not have; "
            "embed the images with angulus embed --flip, and make another gallery"
        )
    if made_by.dimensions is not None:
        model = model.with_dimensions(made_by.dimensions)
    if model.config.contract.flip != made_by.flip:
        model = model.with_flip(made_by.flip)
    if not comparable(model.name, about.model, model.config.compatible_with):  # compatible with the target of a map
        raise checks.InputError(wrong)
    size = Embedder(model).size
    if size != about.size:
        raise checks.InputError(f"{where} holds vectors of {about.size} numbers, and this model gives {size}")
    return model


def name_of(match: Match) -> str:
    """The person of a match, or the id of the image if the person is unknown."""
    return match.identity or match.id
