"""The audit itself: both sets are read once, each finding is put on a list, and all of it on a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks, files
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.data.audit import card as cards
from angulus.data.audit import duplicates, identities
from angulus.data.audit.inventory import Inventory, take_inventory
from angulus.data.audit.labels import Means
from angulus.data.audit.removals import SUFFIX, Removal, write_list
from angulus.data.sources import SourceOptions

JSON, MARKDOWN = "card.json", "card.md"

# What may go on a list, and whether it is certain: only certain ones are applied unless others are named.
LISTS: dict[str, tuple[bool, str]] = {
    "unreadable": (True, "the image cannot be decoded"),
    "duplicates": (True, "the same file or pixels as another image, which stays"),
    "conflicts": (False, "the same picture as one of another identity: one of the two names is wrong"),
    "near-duplicates": (False, "looks like another image, which stays"),
    "shared-images": (True, "the same file or pixels as an image of the other set"),
    "near-shared-images": (False, "looks like an image of the other set"),
    "shared-identities": (True, "of an identity that the other set has by name"),
    "alike-identities": (False, "of an identity whose mean embedding is near to one of the other set"),
    "wrong-labels": (False, "nearer to another identity than to the other images of its own"),
    "outliers": (False, "far from the other images of its identity"),
}
CERTAIN = tuple(name for name, (certain, _) in LISTS.items() if certain)

_ACROSS = ("shared-images", "near-shared-images", "shared-identities", "alike-identities")
_BY_EMBEDDING = ("alike-identities", "wrong-labels", "outliers")


@dataclass(frozen=True)
class AuditSet:
    """A data set and, where there are any, the embeddings of its images.

    Attributes:
        path: records, or what `sources.read_source` reads.
        embeddings: a file of them, with an id for each image that can be decoded.
        kind, options: as `sources.read_source` takes them.
    """

    path: Path
    embeddings: Path | None = None
    kind: str | None = None
    options: SourceOptions | None = None


@dataclass(frozen=True)
class AuditSettings:
    """What counts as a finding.

    Attributes:
        near: least cosine of two images' signatures for near duplicates, in (0, 1]. Among 6,139 aligned faces, no two
            different photos of different people reached 0.89; JPEG of quality 30 and half the size kept 0.995.
        near_embedding: least cosine of two images' embeddings for near duplicates; None: they are not compared.
        same_identity: least cosine of two identities' mean embeddings. What fits depends on the model: the card says
            how many of the set's own pairs of identities reach it.
        margin: how much nearer another identity must be for a label to be likely wrong, in cosine, >= 0.
        outlier: how many usual deviations below its identity's median an image must be, > 0.
        numbers: whether identities that are numbers are the same in both sets; they are where both sets come from one.
    """

    near: float = 0.92
    near_embedding: float | None = None
    same_identity: float = 0.8
    margin: float = 0.1
    outlier: float = 5.0
    numbers: bool = False

    def __post_init__(self) -> None:
        checks.number("near", self.near, low=0, high=1, open_low=True)
        if self.near_embedding is not None:
            checks.number("near_embedding", self.near_embedding, low=0, high=1, open_low=True)
        checks.number("same_identity", self.same_identity, low=-1, high=1)
        checks.number("margin", self.margin, low=0, high=2)
        checks.number("outlier", self.outlier, low=0, open_low=True)
        checks.flag("numbers", self.numbers)


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        card: counts, findings and what was stated, as JSON holds it.
        lists: of what was looked for, by the names in `LISTS`, the images and the reasons.
    """

    card: dict[str, Any]
    lists: dict[str, tuple[Removal, ...]]

    def write(self, folder: Path) -> None:
        """Write `card.json`, `card.md` and a list each, `NAME.txt`; lists of an earlier audit there are taken away."""
        files.make_folder(folder)
        for name in LISTS:
            path = folder / f"{name}{SUFFIX}"
            if name in self.lists:
                write_list(path, self.lists[name])
            else:
                path.unlink(missing_ok=True)
        files.write_text(folder / MARKDOWN, cards.markdown(self.card))
        files.write_json(folder / JSON, self.card)

    def chosen(self, names: tuple[str, ...] | None = None) -> dict[str, tuple[Removal, ...]]:
        """Lists by name; None: those that are certain.

        Raises:
            checks.InputError: a name that is not a list's, or of one that was not looked for.
        """
        for name in names or ():
            checks.choice("list", name, LISTS)
            if name not in self.lists:
                raise InputError(f"list {name!r} must have been looked for; {self.card['not_looked_for'][name]}")
        return {name: self.lists[name] for name in (CERTAIN if names is None else names) if name in self.lists}


@dataclass
class _Findings:
    """What is gathered on the way to the card."""

    lists: dict[str, tuple[Removal, ...]] = field(default_factory=dict)
    identities: dict[str, list[list[Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def audit(
    data: AuditSet,
    against: AuditSet | None = None,
    *,
    settings: AuditSettings | None = None,
    stated: Mapping[str, str] | None = None,
    on_image: Callable[[int], None] | None = None,
) -> Audit:
    """Look through a data set, alone and beside another that it must not overlap, such as the one to test on.

    Args:
        data: the set to audit; lists name its images only.
        against: the other set.
        settings: what counts as a finding.
        stated: "licence" and "provenance" as their owner states them, and more if wanted; "not stated" otherwise.
        on_image: told how many images are read.

    Raises:
        checks.InputError: a set cannot be read, or an image has no embedding in the file that is given.
    """
    settings = settings or AuditSettings()
    if settings.near_embedding is not None and data.embeddings is None:
        raise InputError("near_embedding compares embeddings; give those of the data too")
    if against is not None and (against.embeddings is None) != (data.embeddings is None):
        lacks = "the other set" if against.embeddings is None else "the data"
        raise InputError(f"embeddings must be given of both sets or of neither; {lacks} has none; embed it too")
    own = take_inventory(data.path, kind=data.kind, options=data.options, on_image=on_image)
    vectors, model = _vectors(data, own)
    found = _Findings()
    found.lists["unreadable"] = tuple(Removal(each.where, each.reason) for each in own.unreadable)
    _within(own, vectors, settings, found)
    other = None
    if against is not None:
        other = take_inventory(
            against.path,
            kind=against.kind,
            options=against.options,
            on_image=on_image and (lambda count: on_image(len(own) + count)),
        )
        others, their_model = _vectors(against, other)
        if vectors is not None and others is not None and vectors.shape[1] != others.shape[1]:
            raise InputError(
                f"embeddings of both sets must be of one model; got sizes {vectors.shape[1]} and {others.shape[1]}"
            )
        if model and their_model and model != their_model:
            raise InputError(f"embeddings of both sets must be of one model; got {model} and {their_model}")
        _across(own, other, vectors, others, settings, found)
    return Audit(_card(own, other, vectors is not None, settings, stated or {}, found), found.lists)


def _within(own: Inventory, vectors: duplicates.Vectors | None, settings: AuditSettings, found: _Findings) -> None:
    exact = duplicates.sort_out(own, duplicates.exact(own))
    near = duplicates.sort_out(own, duplicates.near(own, settings.near, vectors, settings.near_embedding))
    found.lists["duplicates"] = tuple(exact.removals)
    conflicts = {each.id: each for each in [*near.conflicts, *exact.conflicts]}
    found.lists["conflicts"] = tuple(conflicts.values())
    found.lists["near-duplicates"] = tuple(near.removals)
    names = np.unique(own.identities[own.identities != ""])
    found.identities["One name, several spellings"] = [list(group) for group in identities.spellings(names)]
    if vectors is None:
        return
    means = Means.of(vectors, own.identities)
    fit = identities.fit(vectors, means, margin=settings.margin, outlier=settings.outlier)
    found.lists["wrong-labels"] = tuple(
        Removal(
            str(own.ids[each.row]),
            f"{str(own.identities[each.row])!r}, but nearer to {each.name!r}: "
            f"cosine {each.other:.3f} against {each.own:.3f}",
        )
        for each in fit.wrong
    )
    found.lists["outliers"] = tuple(
        Removal(
            str(own.ids[each.row]),
            f"cosine {each.own:.3f} with the others of {str(own.identities[each.row])!r}, "
            f"where {each.other:.3f} is usual at the least",
        )
        for each in fit.outliers
    )
    suspects = {str(own.identities[each.row]) for each in fit.outliers}
    found.identities["Identities with an outlier"] = [[name] for name in sorted(suspects)]
    found.notes.append(
        f"{fit.judged:,} of {len(own):,} images have others of their identity to be held against; "
        "the labels of the rest cannot be judged"
    )
    twins = identities.alike(means, None, settings.same_identity)
    found.identities["Identities of the data that are alike"] = [list(pair) for pair in twins]


def _across(
    own: Inventory,
    other: Inventory,
    vectors: duplicates.Vectors | None,
    others: duplicates.Vectors | None,
    settings: AuditSettings,
    found: _Findings,
) -> None:
    both = None if vectors is None or others is None else (vectors, others)
    for name, twins in (
        ("shared-images", duplicates.exact_between(own, other)),
        ("near-shared-images", duplicates.near_between(own, other, settings.near, both, settings.near_embedding)),
    ):
        found.lists[name] = tuple(
            Removal(str(own.ids[each.second]), f"{each.reason(repr(str(other.ids[each.first])))} in {other.source}")
            for each in twins
        )
    mine, theirs = (np.unique(each.identities[each.identities != ""]) for each in (own, other))
    shared = identities.shared_names(mine, theirs, numbers=settings.numbers)
    found.identities["Identities shared by name"] = [list(pair) for pair in shared.items()]
    found.lists["shared-identities"] = _of_identities(
        own, {name: f"{name!r} is {there!r} in {other.source}" for name, there in shared.items()}
    )
    numbers = [name for name in np.intersect1d(mine, theirs).tolist() if identities.is_number(name)]
    if numbers and not settings.numbers:
        found.notes.append(
            f"{len(numbers):,} identities are equal numbers in both sets, {numbers[0]!r} among them, and were not "
            "taken for the same: a number names someone only within its set"
        )
    if both is None:
        return
    means, there = Means.of(both[0], own.identities), Means.of(both[1], other.identities)
    alike = identities.alike(means, there, settings.same_identity)
    found.identities["Identities shared by embedding"] = [list(pair) for pair in alike]
    reasons: dict[str, str] = {}
    for name, like, cosine in alike:
        reasons.setdefault(name, f"the mean of {name!r} is at cosine {cosine:.3f} of {like!r} in {other.source}")
    found.lists["alike-identities"] = _of_identities(own, reasons)
    found.notes.append(_chance(len(means.names), len(there.names), len(alike), settings, found))


def _chance(mine: int, theirs: int, met: int, settings: AuditSettings, found: _Findings) -> str:
    """How many pairs across the sets chance alone would give, as far as the data's own identities can say."""
    within = mine * (mine - 1) // 2
    own = len(found.identities["Identities of the data that are alike"])
    if not within:
        return "whether identities are alike by chance cannot be said: the data has fewer than two"
    return (
        f"{met:,} of {mine * theirs:,} pairs of identities across the sets have means at cosine "
        f"{settings.same_identity:g} or more; so do {own:,} of {within:,} pairs within the data, which would make "
        f"{own / within * mine * theirs:,.1f} across by chance, if the data has everyone once"
    )


def _of_identities(own: Inventory, reasons: Mapping[str, str]) -> tuple[Removal, ...]:
    """Every image of the identities, in the order of the set."""
    return tuple(
        Removal(id, reasons[name])
        for id, name in zip(own.ids.tolist(), own.identities.tolist(), strict=True)
        if name in reasons
    )


def _vectors(data: AuditSet, found: Inventory) -> tuple[NDArray[np.floating[Any]] | None, str]:
    """Unit embeddings of the images, and the model that made them, "" where the file does not say."""
    if data.embeddings is None:
        return None, ""
    embeddings = Embeddings.read(data.embeddings)
    rows = embeddings.rows(found.ids, f"the images of {found.source}")
    models = [] if embeddings.models is None else np.unique(embeddings.models[rows]).tolist()
    if len(models) > 1:
        raise InputError(f"{data.embeddings} must be of one model; got {models[0]} and {models[1]}; embed the set anew")
    return embeddings.unit(rows), models[0] if models else ""


def _card(
    own: Inventory,
    other: Inventory | None,
    embedded: bool,
    settings: AuditSettings,
    stated: Mapping[str, str],
    found: _Findings,
) -> dict[str, Any]:
    missing = {name: "there is no other set to hold the data against" for name in _ACROSS if other is None}
    if not embedded:
        missing |= {name: "it takes embeddings of the images" for name in _BY_EMBEDDING}
    return {
        "stated": {"licence": cards.NOT_STATED, "provenance": cards.NOT_STATED} | dict(stated),
        "data": cards.describe(own),
        "against": None if other is None else cards.describe(other),
        "lists": {
            name: {"images": len(found.lists[name]), "means": means, "certain": certain}
            for name, (certain, means) in LISTS.items()
            if name in found.lists
        },
        "not_looked_for": missing,
        "identities": found.identities,
        "settings": asdict(settings),
        "notes": found.notes,
    }
