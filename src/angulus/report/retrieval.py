"""Searches of images in a report: queries with their nearest gallery images, and the figures of each class."""

from collections.abc import Mapping

import numpy as np

from angulus.evaluation.protocols.result import Result, shown
from angulus.report.page import Album, Table
from angulus.report.tables import NONE
from angulus.report.thumbnails import Captioned, Thumbnail

RIGHT, WRONG = "✓", "✗"
WHY = {"worst": "Worst queries: lowest average precision", "drawn": "Other queries, drawn by the seed"}
MOST_CLASSES = 30  # rows of a table
MOST_FIGURES = 4  # columns of it


def shown_ids(result: Result) -> set[str]:
    """The images that a result shows: its queries and their nearest gallery images."""
    if "shown_queries" not in result.samples:
        return set()
    names = (result.samples["shown_queries"], result.samples["shown_neighbours"])
    return set(np.concatenate([each.ravel() for each in names]).astype(str).tolist()) - {""}


def retrieval_blocks(results: Mapping[str, Result], images: Mapping[str, str]) -> list[Table | Album]:
    """Per result: figures by class, and rows of thumbnails of queries, or without images a table of their ids."""
    blocks: list[Table | Album] = []
    for name, result in results.items():
        if "classes" in result.samples and "trials" in result.samples:
            blocks.append(_class_table(name, result))
        if "shown_queries" in result.samples:
            title = f"Queries and their nearest gallery images: {name}"
            found = any(image in images for image in shown_ids(result))
            blocks.append(_album(title, result, images) if found else _ids_table(title, result))
    return blocks


def _class_table(name: str, result: Result) -> Table:
    """The figures of each class, those with the lowest first figure on top."""
    samples = result.samples
    figures = samples["figures"].astype(str).tolist()[:MOST_FIGURES]
    hits, trials = (samples[part][: len(figures)].astype(np.float64) for part in ("hits", "trials"))
    rates = np.divide(hits, trials, out=np.full_like(hits, np.nan), where=trials > 0)
    order = np.argsort(np.nan_to_num(rates[0], nan=np.inf), kind="stable")[:MOST_CLASSES]
    rows = [
        [
            str(samples["classes"][place]),
            f"{trials[0, place]:,.0f}",
            *(NONE if np.isnan(rate) else shown(float(rate)) for rate in rates[:, place]),
        ]
        for place in order.tolist()
    ]
    total = rates.shape[1]
    rest = f" The {MOST_CLASSES} of {total:,} with the lowest {figures[0]}." if total > len(rows) else ""
    note = f"One class per row, and how many queries of it there are.{rest}"
    return Table(f"{name}: by class", ["class", "queries", *figures], rows, [note], folded=True)


def _queries(result: Result) -> list[tuple[str, int]]:
    """Why each query is shown, and its place."""
    return [(str(why), place) for place, why in enumerate(result.samples["shown_why"].tolist())]


def _album(title: str, result: Result, images: Mapping[str, str]) -> Album:
    groups: dict[str, list[Captioned]] = {}
    for why, place in _queries(result):
        query = str(result.samples["shown_queries"][place])
        thumbnails = [Thumbnail(images.get(query, ""), f"query {query}")]
        for name, score, right in _neighbours(result, place):
            words = f"{name}, {'right' if right else 'wrong'}, cosine {score:.3f}"
            thumbnails.append(Thumbnail(images.get(name, ""), words, right))
        gone = sum(not image.source for image in thumbnails)
        missing = f"; {gone} of the images not found" if gone else ""
        precision = float(result.samples["shown_precision"][place])
        caption = f"{query}: average precision {shown(precision, 3)}{missing}"
        groups.setdefault(WHY.get(why, why), []).append(Captioned(tuple(thumbnails), caption))
    return Album(f"{title} ({RIGHT} right, {WRONG} wrong)", groups, unfolded=True, rows=True)


def _ids_table(title: str, result: Result) -> Table:
    """The ids of the queries and of their nearest, each with its sign."""
    rows = []
    for why, place in _queries(result):
        nearest = [
            f"{RIGHT if right else WRONG} {name} ({score:.3f})" for name, score, right in _neighbours(result, place)
        ]
        precision = float(result.samples["shown_precision"][place])
        rows.append([str(result.samples["shown_queries"][place]), why, shown(precision, 3), ", ".join(nearest)])
    note = f"{RIGHT} marks a match, {WRONG} another class; in brackets the cosine. Give --images to see the images."
    return Table(
        title, ["query", "why", "average precision", "nearest, in order"], rows, [note], words=True, folded=True
    )


def _neighbours(result: Result, place: int) -> list[tuple[str, float, bool]]:
    """Id, cosine and whether it is right, of the nearest gallery images of a query."""
    columns = (result.samples[name][place].tolist() for name in ("shown_neighbours", "shown_scores", "shown_right"))
    return [(str(name), float(score), bool(right)) for name, score, right in zip(*columns, strict=True) if name]
