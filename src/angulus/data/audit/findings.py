"""The audit: reads both sets once, puts each finding on a list, and sums up on a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from angulus.core import checks, files
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.data.audit import datacard, duplicates, labels
from angulus.data.audit.inventory import Inventory, take_inventory
from angulus.data.audit.labels import Means
from angulus.data.audit.removals import SUFFIX, Removal, write_list
from angulus.data.sources import SourceOptions
from angulus.evaluation.scoring.cells import Vectors

JSON, MARKDOWN = "card.json", "card.md"

# The lists, and whether their findings are certain: only certain ones are applied unless others are named.
LISTS: dict[str, tuple[bool, str]] = {
    "unreadable": (True, "the image cannot be decoded"),
    "duplicates": (True, "the same file or pixels as another image, which stays"),
    "conflicts": (False, "the same picture as one of another identity: one of the two names is wrong"),
    "near-duplicates": (False, "looks like another image, which stays"),
    "shared-images": (True, "the same file or pixels as an image of the other set"),
    "near-shared-images": (False, "looks like an image of the other set"),
    "shared-identities": (True, "of an identity that the other set has by name"),
    "similar-identities": (False, "of an identity whose mean embedding is near to one of the other set"),
    "wrong-labels": (False, "nearer to another identity than to the other images of its own"),
    "outliers": (False, "far from the other images of its identity"),
}
CERTAIN = tuple(name for name, (certain, _) in LISTS.items() if certain)

_ACROSS = ("shared-images", "near-shared-images", "shared-identities", "similar-identities")
_BY_EMBEDDING = ("similar-identities", "wrong-labels", "outliers")
_SIMILAR_WITHIN = "Similar identities within the data"


@dataclass(frozen=True)
class AuditSet:
    """A data set to audit and, optionally, the embeddings of its images."""

    path: Path  # records, or what `sources.read_source` reads
    embeddings: Path | None = None  # a file of them, with an id for each image that can be decoded
    kind: str | None = None  # as `sources.read_source` takes them
    options: SourceOptions | None = None


@dataclass(frozen=True)
class AuditSettings:
    """Thresholds of the findings.

    Attributes:
        near: least cosine of two images' signatures for near duplicates, in (0, 1]. Among 6,139 aligned faces, no two
            different photos of different people reached 0.89; JPEG of quality 30 and half the size kept 0.995.
        near_embedding: least cosine of two images' embeddings for near duplicates; None: they are not compared.
        same_identity: least cosine of two identities' mean embeddings. The right value depends on the model: the card
            reports how many of the set's own pairs of identities reach it.
        margin: how much nearer another identity must be for a label to be likely wrong, in cosine, >= 0.
        outlier: how many typical deviations below its identity's median an image must be, > 0.
        exact_below: images from which on an index looks for near duplicates; the card says how much it found.
        numbers: whether identities that are numbers are the same in both sets, as in parts of one data set.
    """

    near: float = 0.92
    near_embedding: float | None = None
    same_identity: float = 0.8
    margin: float = 0.1
    outlier: float = 5.0
    numbers: bool = False
    exact_below: int = duplicates.EXACT_BELOW

    def __post_init__(self) -> None:
        checks.number("near", self.near, low=0, high=1, open_low=True)
        if self.near_embedding is not None:
            checks.number("near_embedding", self.near_embedding, low=0, high=1, open_low=True)
        checks.number("same_identity", self.same_identity, low=-1, high=1)
        checks.number("margin", self.margin, low=0, high=2)
        checks.number("outlier", self.outlier, low=0, open_low=True)
        checks.flag("numbers", self.numbers)
        checks.integer("exact_below", self.exact_below, low=1)


@dataclass(frozen=True)
class Audit:
    """The result of an audit."""

    card: dict[str, Any]  # counts, findings and the owner's statements, for JSON
    lists: dict[str, tuple[Removal, ...]]  # for each search that ran, by the names in `LISTS`: images and reasons

    def write(self, folder: Path) -> None:
        """Write `card.json`, `card.md` and one `NAME.txt` per list; remove lists of an earlier audit."""
        files.make_folder(folder)
        for name in LISTS:
            path = folder / f"{name}{SUFFIX}"
            if name in self.lists:
                write_list(path, self.lists[name])
            else:
                path.unlink(missing_ok=True)
        files.write_text(folder / MARKDOWN, datacard.markdown(self.card))
        files.write_json(folder / JSON, self.card)

    def chosen(self, names: tuple[str, ...] | None = None) -> dict[str, tuple[Removal, ...]]:
        """Lists by name; None: those that are certain. InputError for a list whose search did not run."""
        for name in names or ():
            checks.choice("list", name, LISTS)
            if name not in self.lists:
                raise InputError(f"list {name!r} must have been looked for; {self.card['not_looked_for'][name]}")
        return {name: self.lists[name] for name in (CERTAIN if names is None else names) if name in self.lists}


@dataclass
class _Findings:
    """The findings so far."""

    lists: dict[str, tuple[Removal, ...]] = field(default_factory=dict)
    identities: dict[str, list[list[Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def audit(
    data: AuditSet,
    against: AuditSet | None = None,
    *,
    settings: AuditSettings | None = None,
    stated: Mapping[str, str] | None = None,
    workers: int | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    on_image: Callable[[int], None] | None = None,
) -> Audit:
    """Audit a data set, alone and against another that it must not overlap, such as the test set.

    Args:
        data: the set to audit; lists name only its images.
        stated: "licence" and "provenance" as their owner states them, and more if wanted; "not stated" otherwise.
        workers, engine, ray_address: as `workers.start_workers` takes them; this process alone if not given.
        on_image: called with the number of images read.
    """
    settings = settings or AuditSettings()
    if settings.near_embedding is not None and data.embeddings is None:
        raise InputError("near_embedding compares embeddings; give those of the data too")
    if against is not None and (against.embeddings is None) != (data.embeddings is None):
        lacks = "the other set" if against.embeddings is None else "the data"
        raise InputError(f"embeddings must be given of both sets or of neither; {lacks} has none; embed it too")
    take = partial(take_inventory, workers=workers, engine=engine, ray_address=ray_address)
    own = take(data.path, kind=data.kind, options=data.options, on_image=on_image)
    vectors, model = _read_vectors(data, own)
    findings = _Findings()
    findings.lists["unreadable"] = tuple(Removal(item.where, item.reason) for item in own.unreadable)
    _compare_within(own, vectors, settings, findings)
    other = None
    if against is not None:
        count_on = on_image and (lambda count: on_image(len(own) + count))
        other = take(against.path, kind=against.kind, options=against.options, on_image=count_on)
        other_vectors, other_model = _read_vectors(against, other)
        both = None
        if vectors is not None and other_vectors is not None:
            both = (vectors, other_vectors)
            if vectors.shape[1] != other_vectors.shape[1]:
                sizes = f"sizes {vectors.shape[1]} and {other_vectors.shape[1]}"
                raise InputError(f"embeddings of both sets must be of one model; got {sizes}")
        if model and other_model and model != other_model:
            raise InputError(f"embeddings of both sets must be of one model; got {model} and {other_model}")
        _compare_across(own, other, both, settings, findings)
    read = [own] if other is None else [own, other]
    size = sum(each.on_disk for each in read) / 1e6
    findings.notes.append(f"facts on {sum(map(len, read)):,} images were in temporary files, {size:,.1f} MB")
    return Audit(_make_card(own, other, vectors is not None, settings, stated or {}, findings), findings.lists)


def _compare_within(own: Inventory, vectors: Vectors | None, settings: AuditSettings, findings: _Findings) -> None:
    exact = duplicates.sort_out(own, duplicates.exact(own))
    search: dict[str, Any] = {"exact_below": settings.exact_below, "notes": findings.notes}
    near = duplicates.sort_out(own, duplicates.near(own, settings.near, vectors, settings.near_embedding, **search))
    findings.lists["duplicates"] = tuple(exact.removals)
    conflicts = {removal.id: removal for removal in [*near.conflicts, *exact.conflicts]}
    findings.lists["conflicts"] = tuple(conflicts.values())
    findings.lists["near-duplicates"] = tuple(near.removals)
    findings.identities["One name, several spellings"] = [list(group) for group in labels.spellings(own.names())]
    if vectors is None:
        return
    means = Means.compute(vectors, own.identities)
    fit = labels.fit(vectors, means, margin=settings.margin, outlier=settings.outlier)
    ids, identities = own.ids, own.identities
    wrong, far = [], []
    for image in fit.wrong:
        name = f"{identities[image.row]!r}, but nearer to {image.name!r}"
        wrong.append(Removal(ids[image.row], f"{name}: cosine {image.other:.3f} against {image.own:.3f}"))
    for image in fit.outliers:
        low = f"cosine {image.own:.3f} with the others of {identities[image.row]!r}"
        far.append(Removal(ids[image.row], f"{low}; at least {image.other:.3f} is usual"))
    findings.lists |= {"wrong-labels": tuple(wrong), "outliers": tuple(far)}
    suspects = {identities[image.row] for image in fit.outliers}
    findings.identities["Identities with an outlier"] = [[name] for name in sorted(suspects)]
    judged = f"{fit.judged:,} of {len(own):,} images have others of their identity to compare with"
    findings.notes.append(f"{judged}; the labels of the rest cannot be judged")
    similar = labels.similar_identities(means, None, settings.same_identity)
    findings.identities[_SIMILAR_WITHIN] = [list(pair) for pair in similar]


def _compare_across(
    own: Inventory,
    other: Inventory,
    vectors: tuple[Vectors, Vectors] | None,
    settings: AuditSettings,
    findings: _Findings,
) -> None:
    search: dict[str, Any] = {"exact_below": settings.exact_below, "notes": findings.notes}
    near = duplicates.near_between(own, other, settings.near, vectors, settings.near_embedding, **search)
    for name, twins in (("shared-images", duplicates.exact_between(own, other)), ("near-shared-images", near)):
        rows = [(str(own.ids[twin.second]), twin.reason(repr(str(other.ids[twin.first])))) for twin in twins]
        findings.lists[name] = tuple(Removal(id, f"{reason} in {other.source}") for id, reason in rows)
    shared = labels.shared_names(own.names(), other.names(), numbers=settings.numbers)
    findings.identities["Identities shared by name"] = [list(pair) for pair in shared.items()]
    found = {name: f"{name!r} is {there!r} in {other.source}" for name, there in shared.items()}
    findings.lists["shared-identities"] = _images_of(own, found)
    numbers = [name for name in np.intersect1d(own.names(), other.names()).tolist() if labels.is_number(name)]
    if numbers and not settings.numbers:
        fact = f"{len(numbers):,} identities are equal numbers in both sets, such as {numbers[0]!r}"
        why = "a number identifies someone only within its set"
        findings.notes.append(f"{fact}, and were not taken as the same: {why}")
    if vectors is None:
        return
    means, other_means = Means.compute(vectors[0], own.identities), Means.compute(vectors[1], other.identities)
    similar = labels.similar_identities(means, other_means, settings.same_identity)
    findings.identities["Identities shared by embedding"] = [list(pair) for pair in similar]
    reasons: dict[str, str] = {}
    for name, other_name, cosine in similar:
        reasons.setdefault(name, f"the mean of {name!r} has cosine {cosine:.3f} with {other_name!r} in {other.source}")
    findings.lists["similar-identities"] = _images_of(own, reasons)
    counts = (len(means.names), len(other_means.names), len(similar), len(findings.identities[_SIMILAR_WITHIN]))
    findings.notes.append(_chance(*counts, settings.same_identity))


def _chance(own: int, others: int, similar_across: int, similar_within: int, cosine: float) -> str:
    """Estimate, from the data's own identities, how many similar pairs across the sets are due to chance."""
    across, within = own * others, own * (own - 1) // 2
    if not within:
        return "how many identities are similar by chance is unknown: the data has fewer than two"
    pairs = f"{similar_across:,} of {across:,} pairs of identities across the sets have means"
    chance = f"{similar_within / within * across:,.1f} across by chance, if the data has everyone once"
    own_pairs = f"{similar_within:,} of {within:,} pairs within the data, which would make {chance}"
    return f"{pairs} at cosine {cosine:g} or more; so do {own_pairs}"


def _images_of(own: Inventory, reasons: Mapping[str, str]) -> tuple[Removal, ...]:
    """Every image of the identities, in the order of the set."""
    return tuple(Removal(own.ids[row], reasons[name]) for row, name in enumerate(own.identities) if name in reasons)


def _read_vectors(data: AuditSet, inventory: Inventory) -> tuple[Vectors | None, str]:
    """Unit embeddings of the images, and the model that made them, "" if the file does not say."""
    if data.embeddings is None:
        return None, ""
    embeddings = Embeddings.read(data.embeddings)
    rows = embeddings.rows([*inventory.ids], f"the images of {inventory.source}")
    models = [] if embeddings.models is None else np.unique(embeddings.models[rows]).tolist()
    if len(models) > 1:
        rule = f"{data.embeddings} must be of one model"
        raise InputError(f"{rule}; got {models[0]} and {models[1]}; embed the set with one")
    return embeddings.unit(rows), models[0] if models else ""


def _make_card(
    own: Inventory,
    other: Inventory | None,
    embedded: bool,
    settings: AuditSettings,
    stated: Mapping[str, str],
    findings: _Findings,
) -> dict[str, Any]:
    missing = {name: "there is no other set to compare with" for name in _ACROSS if other is None}
    if not embedded:
        missing |= {name: "it takes embeddings of the images" for name in _BY_EMBEDDING}
    return {
        "stated": {"licence": datacard.NOT_STATED, "provenance": datacard.NOT_STATED} | dict(stated),
        "data": datacard.describe(own),
        "against": None if other is None else datacard.describe(other),
        "lists": {
            name: {"images": len(findings.lists[name]), "means": means, "certain": certain}
            for name, (certain, means) in LISTS.items()
            if name in findings.lists
        },
        "not_looked_for": missing,
        "identities": findings.identities,
        "settings": asdict(settings),
        "notes": findings.notes,
    }
