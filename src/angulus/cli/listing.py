"""`angulus list KIND`: what there is, by name, with one sentence each."""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Callable
from typing import Annotated, Any

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


def _timm() -> list[Entry]:
    from angulus.backbones import timm_models

    return [(f"{timm_models.PREFIX}{name}", timm_models.describe(name)) for name in timm_models.list_names()]


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
            help="Show only names with this in them; of keys, those that start with it. The whole name of a loss shows "
            "its parameters; timm:NAME, of backbones, those of timm with NAME in them.",
            show_default=False,
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a list of names and sentences.")] = False,
) -> None:
    """List recipes, losses, backbones, protocols, data sets or the keys of recipes: the name and one sentence."""
    entries = find(kind, part)
    if as_json:
        items: list[dict[str, Any]] = [{"name": name, "about": about} for name, about in entries]
        if kind == "losses":
            items = [item | {"parameters": loss_defaults(item["name"])} for item in items]
        say(json.dumps(items, indent=2, ensure_ascii=False))
        return
    if kind == "losses" and part.lower() in dict(entries):
        say(describe_loss(part.lower()))
        return
    width = max(len(name) for name, _ in entries)
    for name, about in entries:
        say(f"{name:<{width}}  {about}")
    if kind == "backbones" and not part:
        say("\nAlso timm:NAME (angulus list backbones timm:resnet) and transformers:FOLDER: see docs/backbones.md")
    if kind == "losses":
        say(f"\nFor the parameters of a loss and their defaults: angulus list losses {entries[-1][0]}")


ALL_LOSSES = "digits-all-losses"  # the recipe that trains every loss


def loss_defaults(name: str) -> dict[str, Any]:
    """The parameters of a loss with their defaults, as plain values."""
    from angulus.losses import ALIASES

    defaults = {key: entry.default for key, entry in inspect.signature(ALIASES[name]).parameters.items()}
    return {key: _plain(value) for key, value in defaults.items()}


def _plain(value: Any) -> Any:
    """A default as a recipe writes it: a piece as a mapping; null where a parameter has to be given."""
    import dataclasses

    if value is inspect.Parameter.empty:
        return None
    return {"kind": value.kind, **dataclasses.asdict(value)} if hasattr(value, "kind") else value


def describe_loss(name: str) -> str:
    """A loss in full: what it is, its formula, its parameters with their defaults, and how a command sets them."""
    from angulus.losses import ALIASES
    from angulus.losses.roles import Spread

    about = inspect.getdoc(ALIASES[name]) or ""
    shown = {key: _shown(value) for key, value in loss_defaults(name).items()}
    width = max(map(len, shown), default=0)
    lines = [name, *(f"  {line}".rstrip() for line in about.splitlines()), ""]
    words, place = [f"objective.kind={name}"], "objective"
    try:
        objective = ALIASES[name]()
    except TypeError:  # a plugin's loss with a parameter that has no default
        pass
    else:
        lines.append(f"  formula with the defaults: {objective.formula()}")
        if objective.radius is None:
            spread = any(term.penalty.asks is Spread for term in objective.penalties)  # which needs sub-centres
            words, place = [f"objective.kind={'subcenter_arcface' if spread else 'arcface'}"], f"objective.{name}"
    lines.append("  parameters and defaults:" if shown else "  no parameters")
    lines += [f"    {key:<{width}}  {text}" for key, text in shown.items()]
    words += [f"{place}.{key}={shown[key]}" for key in list(shown)[:1]]
    command = _tried(name) or f"angulus train demo {shlex.join(words)}"
    return "\n".join([*lines, "", f"  {command}"])


def _tried(name: str) -> str:
    """A command with settings of this loss that are known to train; "" if the recipe of all losses has none."""
    from angulus.experiments import recipe

    for variant in recipe.read(ALL_LOSSES)["compare"]["variants"].values():
        objective = variant["objective"]
        if objective["kind"] == name or name in objective:
            return f"angulus train {ALL_LOSSES} {shlex.quote(f'objective={_flow(objective)}')}"
    return ""


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(entry)}" for key, entry in value.items()) + "}"
    return _shown(value)


def _shown(value: Any) -> str:
    """A default as a command line writes it."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def find(kind: str, part: str = "") -> list[Entry]:
    """The entries of a kind whose names contain `part`, ignoring case; the keys that start with it.

    Raises:
        InputError: no such kind, or no such name; the nearest is named.
    """
    names = KINDS[checks.choice("KIND", kind, KINDS)]
    of_timm = kind == "backbones" and part.lower().startswith("timm")
    entries = _timm() if of_timm else names()
    matches, rule = (str.startswith, "starts with") if kind == "keys" else (str.__contains__, "contains")
    found = [(name, about) for name, about in entries if matches(name.lower(), part.lower())]
    if not found:
        near = checks.nearest(part, [name for name, _ in entries])
        way = "; to see the parameters of a loss: angulus list losses NAME" if part.startswith("objective.") else near
        if kind == "backbones" and not of_timm:
            way += f"; for nets of timm: angulus list backbones timm:{part}"
        whole = f"{kind} timm:" if of_timm else kind
        raise checks.InputError(f"no name of {kind} {rule} {part!r}{way}; to see all: angulus list {whole}")
    return found
