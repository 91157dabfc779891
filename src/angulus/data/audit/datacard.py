"""The data card: facts that can be counted, the owner's statements for the rest, and nothing guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.data import decode
from angulus.data.audit.inventory import Inventory

NOT_STATED = "not stated"
QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # percent
_SHOWN = 20  # entries per list in the Markdown; the JSON has all


def describe(data: Inventory) -> dict[str, Any]:
    """The counts of a data set, for JSON.

    Quantiles of images per identity are counts that occur: the least count that q percent of identities do not exceed.
    """
    names, counts = np.unique(data.identities[data.identities != ""], return_counts=True)
    quantiles = np.percentile(counts, QUANTILES, method="inverted_cdf").astype(int).tolist() if len(names) else []
    return {
        "source": data.source,
        "kind": data.kind,
        "recorded": data.about,
        "images": len(data),
        "identities": len(names),
        "images_without_identity": int((data.identities == "").sum()),
        "identities_with_one_image": int((counts == 1).sum()),
        "images_per_identity": {f"{q} %": count for q, count in zip(QUANTILES, quantiles, strict=False)},
        "sizes": {f"{size >> 32}x{size % 2**32}": n for size, n in _most_common(_packed(data.sizes))},
        "encodings": {decode.KINDS[kind]: n for kind, n in _most_common(data.encodings)},
        "without_landmarks": int((~data.has_landmarks).sum()),
        "without_detector_score": int((~data.has_score).sum()),
        "unreadable": [{"where": item.where, "reason": item.reason} for item in data.unreadable],
        "left_out": [{"where": item.where, "reason": item.reason} for item in data.left_out],
    }


def _packed(sizes: NDArray[np.int32]) -> NDArray[np.int64]:
    """[N] of width and height as one number."""
    packed = sizes[:, 0].astype(np.int64) << 32
    packed += sizes[:, 1]
    return packed


def _most_common(values: NDArray[Any]) -> list[tuple[int, int]]:
    """Numbers and how often they occur, the most frequent first; of equally frequent ones, the first to occur."""
    numbers, firsts, counts = np.unique(values, return_index=True, return_counts=True)
    order = np.lexsort((firsts, -counts))
    return [*zip(numbers[order].tolist(), counts[order].tolist(), strict=True)]


def markdown(card: dict[str, Any]) -> str:
    """The card as Markdown; long lists are cut, with a note."""
    stated = [f"- {name}: {_cell(text)}" for name, text in card["stated"].items()]
    parts = [f"# Data card: {_cell(card['data']['source'])}", "", *stated, ""]
    for name in ("data", "against"):
        if card[name] is not None:
            parts += [f"## {'The data' if name == 'data' else 'Compared with'}", "", *_counts(card[name]), ""]
    parts += ["## Findings", "", "| list | images | |", "|---|---:|---|"]
    parts += [f"| {name} | {entry['images']:,} | {_cell(entry['means'])} |" for name, entry in card["lists"].items()]
    parts += ["", *(f"- Not looked for: {name}: {why}" for name, why in card["not_looked_for"].items()), ""]
    for title, rows in card["identities"].items():
        if rows:
            parts += [f"## {title} ({len(rows):,})", "", *(f"- {_words(row)}" for row in rows[:_SHOWN])]
            parts += [f"- and {len(rows) - _SHOWN:,} more, in the JSON"] if len(rows) > _SHOWN else []
            parts.append("")
    parts += ["## How it was looked for", "", *(f"- {name}: {value}" for name, value in card["settings"].items())]
    parts += [f"- {note}" for note in card["notes"]]
    return "\n".join(parts) + "\n"


def _counts(data: dict[str, Any]) -> list[str]:
    def row(name: str, value: object) -> str:
        return f"| {name.replace('_', ' ')} | {_number(value) if isinstance(value, int) else _cell(value)} |"

    lines = ["| | |", "|---|---|"]
    for name in ("source", "kind", "images", "identities", "images_without_identity", "identities_with_one_image"):
        lines.append(row(name, data[name]))
    for name in ("images_per_identity", "sizes", "encodings", "recorded"):
        entries = [f"{key}: {_number(value)}" for key, value in data[name].items()]
        more = f", and {len(entries) - 8} more" if len(entries) > 8 else ""
        lines.append(row(name, ", ".join(entries[:8]) + more or "none"))
    lines += [row(name, data[name]) for name in ("without_landmarks", "without_detector_score")]
    return lines + [row(name, len(data[name])) for name in ("unreadable", "left_out")]


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _words(row: list[Any]) -> str:
    return ", ".join(f"cosine {cell:.3f}" if isinstance(cell, float) else f"`{cell}`" for cell in row)


def _cell(text: object) -> str:
    return " ".join(str(text).replace("|", "\\|").split())
