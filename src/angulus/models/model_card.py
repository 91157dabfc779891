"""The card of a model: the README.md of its folder, in the form that Hugging Face's hub shows."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from angulus.backbones import OWN
from angulus.core.contract import Contract, describe_model, words
from angulus.evaluation.protocols.calibration import Calibration
from angulus.evaluation.protocols.group_rates import ByGroup, GroupRate, show_rate
from angulus.evaluation.protocols.result import shown

NAME = "README.md"

ERRORS, ACCURACY = "errors", "accuracy"  # sections that are written later
ERRORS_TITLE = "## Error rates"  # of pairs, within its section: a model that classifies has none until calibrated

_CARD = """---
library_name: angulus
pipeline_tag: {task}
license: unknown
tags: {tags}
---

# {title}

{summary}

## Load it

```python
import angulus

model = {load}
{use}
```
{more}
{hub}Nothing in the folder is code or pickle;
`config.json` holds the SHA-256 of the weights, and loading checks it.

## What it takes

{takes}

## Where it comes from

{about}
- Angulus {version}; fingerprint `{fingerprint}`; weights `{sha256}`

{accuracy}

{errors}

## Licence

Not stated: before you publish the weights, name one here and in the first lines of this file, and say whether the
training images allow it.
"""


_EMBEDS = {  # the parts of the card of a model whose features are compared
    "task": "image-feature-extraction",
    "summary": "A `{backbone}` that turns an image into {size} numbers, trained with Angulus (`pip install "
    "{package}`). Two images are\ncompared by the cosine of their features.",
    "use": "features = model.embed(pixels)  # {given}",
    "more": "",
}
_CLASSIFIES = {
    "task": "image-classification",
    "summary": "A `{backbone}` that tells which of {count} classes an image shows, trained with Angulus (`pip install "
    "{package}`).\n\nClasses: {names}.",
    "use": "labels, probabilities = model.predict(pixels)  # {given}",
    "more": "\nOn the command line: `angulus predict FOLDER IMAGES`. `model.embed(pixels)` gives the {size} features "
    "that the classes\nare compared with.\n",
}
_HUB = 'From a hub: `angulus.Embedder.from_pretrained("OWNER/NAME")`. '
_NAMED = 20  # classes that the card names; config.json has all


def text(content: Mapping[str, Any], contract: Contract, digits: str) -> str:
    """The card of a model with this config.json, checked contract and fingerprint; of its classes if it has some."""
    about, names = content["about"], content.get("classes", {}).get("names", [])
    facts = {
        "backbone": content["backbone"].removeprefix(OWN),
        "size": content["embedding_size"],
        "package": _package(content["backbone"]),
        "given": _given(content),
        "count": f"{len(names):,}",
        "names": list_classes(names, _code),
    }
    parts = {name: part.format(**facts) for name, part in (_CLASSIFIES if names else _EMBEDS).items()}
    parts |= _ways(content["backbone"])
    uncalibrated = ["Not calibrated: run `angulus calibrate --model` to find a threshold."]
    return _CARD.format(
        **parts,
        tags=json.dumps(["angulus", parts["task"], "embeddings", content["backbone"]]),  # JSON is YAML
        title=about.get("recipe", content["backbone"]),
        takes="\n".join(f"- {line}" for line in takes(content, contract)),
        about="\n".join(
            [
                *(f"- {name.replace('_', ' ')}: {_code(value)}" for name, value in about.items()),
                *(f"- compatible with the model of fingerprint `{old}`" for old in content.get("compatible_with", ())),
            ]
        ),
        version=content["angulus"],
        sha256=content["sha256"],
        fingerprint=digits,
        accuracy=_section(ACCURACY, []),
        errors=_section(ERRORS, [] if names else [ERRORS_TITLE, "", *uncalibrated]),
    )


def _package(backbone: str) -> str:
    """What pip installs to load the model: with the extra of the library that its network is of."""
    library, colon, _ = backbone.partition(":")
    return f"'angulus[{library}]'" if colon and not backbone.startswith(OWN) else "angulus"


def _ways(backbone: str) -> dict[str, str]:
    """How to load a model, and from where; no command can build a network of the user's own."""
    if not backbone.startswith(OWN):
        return {"load": 'angulus.load("FOLDER")', "hub": _HUB}
    own = f"`network` is a `{backbone.removeprefix(OWN)}`, whose code is not in this folder. "
    return {"load": 'angulus.load("FOLDER", backbone=network)', "hub": own, "more": ""}


def list_classes(names: Sequence[str], show: Callable[[object], str] | None = None, most: int = _NAMED) -> str:
    """The names of some classes in one line, the first ones if there are many.

    >>> list_classes(["cat", "dog"]), list_classes(list("abcd"), most=2)
    ('cat, dog', 'a, b and 2 more')
    """
    shown = ", ".join(map(show or plain, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def with_accuracy(card: str, accuracy: float, images: int) -> str:
    """The card with the accuracy on the test images."""
    line = f"- {100 * accuracy:.2f} % of {images:,} test images, not seen in training, are classified correctly"
    return _replaced(card, ACCURACY, [line])


def with_errors(card: str, calibration: Calibration) -> str:
    """The card with the error rates that a calibration measured."""
    titled = ERRORS_TITLE in _replaced(card, ERRORS, [])  # outside the section, as older cards have it
    lines = [
        *([] if titled else [ERRORS_TITLE, ""]),
        f"Threshold {calibration.threshold.value:.4f} (cosine), for features of {describe_model(calibration.model)}: "
        f"FMR {calibration.fmr.value:.2g} over {calibration.impostors:,} pairs of two people, FNMR "
        f"{calibration.fnmr.value:.2g} over {calibration.genuine:,} pairs of one. On other people and photos the rates "
        "differ.",
        *([] if calibration.by_group is None else by_group_lines(calibration.by_group)),
    ]
    return _replaced(card, ERRORS, lines)


def by_group_lines(point: ByGroup) -> list[str]:
    """Error rates by group in Markdown: a table of the groups and of pairs of them, and how unequal they are."""

    def cells(rate: GroupRate | None) -> list[str]:
        return ["", ""] if rate is None else [show_rate(rate, 2), f"{rate.trials:,}"]

    names = point.rates
    rows = [
        [" × ".join(map(_cell, cell.groups)), *cells(cell.false_match), *cells(cell.false_non_match)]
        for cell in point.cells
    ]
    small = [
        f"{_code(cell.groups[0])} ({names[which]}: {rate.note})"
        for cell in point.cells
        for which in names
        if len(cell.groups) == 1 and (rate := getattr(cell, which)) is not None and math.isnan(rate.value)
    ]
    unequal = ", ".join(f"{number.name} {shown(number.value, 3)}" for number in point.differentials)
    return [
        "",
        f"By group, at this one threshold ({point.at}); two names: pairs of these two groups.",
        "",
        f"| group | {names['false_match']} | trials | {names['false_non_match']} | trials |",
        "|---|---|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        f"How unequal the groups are: {unequal}. Equal groups have ratios of 1, Gini and GARBE 0, and FDR 1.",
        *(["", f"Too small to have a rate, and left out of these figures: {', '.join(small)}."] if small else []),
    ]


def _replaced(card: str, name: str, lines: list[str]) -> str:
    """The card with one section replaced, if it has that section; the rest stays as its author wrote it."""
    return re.sub(f"<!-- {name}: .*?<!-- end of {name} -->", lambda _: _section(name, lines), card, flags=re.S)


def _section(name: str, lines: list[str]) -> str:
    start, end = f"<!-- {name}: Angulus writes everything up to the next mark -->", f"<!-- end of {name} -->"
    return "\n".join([start, "", *lines, "", end] if lines else [start, end])


def _given(content: Mapping[str, Any]) -> str:
    return f"uint8 [batch, {content['in_channels']}, {', '.join(map(str, content['image_size']))}]"


def takes(content: Mapping[str, Any], contract: Contract) -> list[str]:
    """What images a model takes, and how it prepares them, in three lines."""
    scaled = {
        "fixed": f"scaled to (x − {words(contract.mean)}) / {words(contract.scale)}",
        "per_image": "scaled by each image's own mean and deviation",
        "mean_image": f"minus the mean image, divided by {words(contract.scale)}",
    }[contract.normalize]
    flip = {
        "none": "mirror images are not used",
        "sum": "features of an image and its mirror image are added",
        "concat": "features of an image and its mirror image are concatenated",
    }[contract.flip]
    aligned = f", aligned by the template `{contract.template}`" if contract.template else ""
    return [
        f"{_given(content)}, {'grey' if content['in_channels'] == 1 else 'RGB'}{aligned}",
        f"{scaled}{', in the order BGR' if contract.colour == 'bgr' else ''}, by the model itself",
        f"{flip}" + ("; features have length 1" if content["normalize"] else ""),
    ]


def plain(value: object) -> str:
    """A value in one line, without terminal control characters.

    >>> plain("two\\n lines\\x1b[2J")
    'two lines?[2J'
    """
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(sign if sign.isprintable() else "?" for sign in " ".join(shown.split()))


def _cell(name: str) -> str:
    """A name in a cell of a Markdown table."""
    return _code(name).replace("|", "/")


def _code(value: object) -> str:
    """A value in one line of Markdown code."""
    return f"`{plain(value).replace('`', chr(39))}`"
