"""`angulus list KIND`: what there is, by name, with one sentence each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated

import typer

from angulus.cli.output import say
from angulus.core import checks

Entry = tuple[str, str]  # a name and its sentence


def _recipes() -> list[Entry]:
    from angulus.experiments import recipe

    return [(name, str(recipe.read(str(file))["title"])) for name, file in recipe.shipped().items()]


def _losses() -> list[Entry]:
    from angulus.losses import ALIASES

    return [(name, (alias.__doc__ or "").partition("\n")[0]) for name, alias in ALIASES.items()]


def _backbones() -> list[Entry]:
    from angulus.backbones import list_backbones
    from angulus.backbones.about import ABOUT

    return [(name, ABOUT[name]) for name in list_backbones()]


def _protocols() -> list[Entry]:
    from angulus.evaluation.registry import PROTOCOLS

    note = {"recipe": " Only in recipes.", "command": " Only as a command.", "both": ""}
    return [(name, protocol.summary + note[protocol.available]) for name, protocol in PROTOCOLS.items()]


def _datasets() -> list[Entry]:
    from angulus.data.sets.registry import SETS

    return [(name, entry.title) for name, entry in SETS.items()]


def _keys() -> list[Entry]:
    from angulus.experiments.recipe_keys import list_keys

    return [(key.path, f"{key.words}. {key.about}") for key in list_keys()]


KINDS: dict[str, Callable[[], list[Entry]]] = {
    "recipes": _recipes,
    "losses": _losses,
    "backbones": _backbones,
    "protocols": _protocols,
    "datasets": _datasets,
    "keys": _keys,
}


def list_names(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS)}.")],
    part: Annotated[
        str,
        typer.Argument(
            help="Show only names with this in them; of keys, those that start with it.", show_default=False
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a list of names and sentences.")] = False,
) -> None:
    """List recipes, losses, backbones, protocols, data sets or the keys of recipes: the name and one sentence."""
    entries = find(kind, part)
    if as_json:
        say(json.dumps([{"name": name, "about": about} for name, about in entries], indent=2, ensure_ascii=False))
        return
    width = max(len(name) for name, _ in entries)
    for name, about in entries:
        say(f"{name:<{width}}  {about}")


def find(kind: str, part: str = "") -> list[Entry]:
    """The entries of a kind whose names contain `part`, ignoring case; the keys that start with it.

    Raises:
        InputError: no such kind, or no such name; the nearest is named.
    """
    entries = KINDS[checks.choice("KIND", kind, KINDS)]()
    matches, rule = (str.startswith, "starts with") if kind == "keys" else (str.__contains__, "contains")
    found = [(name, about) for name, about in entries if matches(name.lower(), part.lower())]
    if not found:
        near = checks.nearest(part, [name for name, _ in entries])
        raise checks.InputError(f"no name of {kind} {rule} {part!r}{near}; to see all: angulus list {kind}")
    return found
