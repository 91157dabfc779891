"""What a data set is, as a card: counted where it can be, as stated where it cannot, and never guessed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from angulus.data.audit.inventory import Inventory

NOT_STATED = "not stated"
QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # percent
_SHOWN = 20  # of each list in the Markdown; the JSON has all


def describe(found: Inventory) -> dict[str, Any]:
    """The counts of a data set, as JSON holds them.

    Quantiles of images per identity are counts that occur: the least count that so many percent of identities do not
    exceed.
    """
    names, counts = np.unique(found.identities[found.identities != ""], return_counts=True)
    per_identity = (
        {f"{q} %": int(np.percentile(counts, q, method="inverted_cdf")) for q in QUANTILES} if len(names) else {}
    )
    sizes = Counter(f"{width}x{height}" for width, height in found.sizes.tolist())
    return {
        "source": found.source,
        "kind": found.kind,
        "recorded": found.about,
        "images": len(found),
        "identities": len(names),
        "images_without_identity": int((found.identities == "").sum()),
        "identities_with_one_image": int((counts == 1).sum()),
        "images_per_identity": per_identity,
        "sizes": dict(sizes.most_common()),
        "encodings": dict(Counter(found.encodings.tolist()).most_common()),
        "without_landmarks": int((~found.has_landmarks).sum()),
        "without_detector_score": int((~found.has_score).sum()),
        "unreadable": [{"where": each.where, "reason": each.reason} for each in found.unreadable],
        "left_out": [{"where": each.where, "reason": each.reason} for each in found.left_out],
    }


def markdown(card: dict[str, Any]) -> str:
    """The card to read; long lists are cut, saying so."""
    parts = [f"# Data card: {_cell(card['data']['source'])}", "", *_stated(card), ""]
    for name in ("data", "against"):
        if card[name] is not None:
            parts += [f"## {'The data' if name == 'data' else 'Held against'}", "", *_counts(card[name]), ""]
    parts += ["## Findings", "", "| list | images | |", "|---|---:|---|"]
    parts += [f"| {name} | {one['images']:,} | {_cell(one['means'])} |" for name, one in card["lists"].items()]
    parts += ["", *(f"- Not looked for: {name}: {why}" for name, why in card["not_looked_for"].items()), ""]
    for title, rows in card["identities"].items():
        if rows:
            parts += [f"## {title} ({len(rows):,})", "", *(f"- {_words(row)}" for row in rows[:_SHOWN])]
            parts += [f"- and {len(rows) - _SHOWN:,} more, in the JSON"] if len(rows) > _SHOWN else []
            parts.append("")
    parts += ["## How it was looked for", "", *(f"- {name}: {value}" for name, value in card["settings"].items())]
    parts += [f"- {note}" for note in card["notes"]]
    return "\n".join(parts) + "\n"


def _stated(card: dict[str, Any]) -> list[str]:
    return [f"- {name}: {_cell(text)}" for name, text in card["stated"].items()]


def _counts(found: dict[str, Any]) -> list[str]:
    lines = ["| | |", "|---|---|"]
    for name in ("source", "kind", "images", "identities", "images_without_identity", "identities_with_one_image"):
        value = found[name]
        lines.append(f"| {name.replace('_', ' ')} | {f'{value:,}' if isinstance(value, int) else _cell(value)} |")
    for name in ("images_per_identity", "sizes", "encodings", "recorded"):
        some = list(found[name].items())
        shown = ", ".join(
            f"{key}: {value:,}" if isinstance(value, int) else f"{key}: {value}" for key, value in some[:8]
        )
        more = f", and {len(some) - 8} more" if len(some) > 8 else ""
        lines.append(f"| {name.replace('_', ' ')} | {_cell(shown + more) or 'none'} |")
    for name in ("without_landmarks", "without_detector_score"):
        lines.append(f"| {name.replace('_', ' ')} | {found[name]:,} |")
    for name in ("unreadable", "left_out"):
        lines.append(f"| {name.replace('_', ' ')} | {len(found[name]):,} |")
    return lines


def _words(row: list[Any]) -> str:
    return ", ".join(f"cosine {each:.3f}" if isinstance(each, float) else f"`{each}`" for each in row)


def _cell(text: object) -> str:
    return " ".join(str(text).replace("|", "\\|").split())
