"""Pieces and objectives as plain mappings, for recipes: `{kind: additive_angle, m: 0.5}` and back."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.losses import classifiers, margins, negatives, penalties, radius, subcenters, weighting
from angulus.losses.objective import FEATURE_TERMS, Objective, Term
from angulus.losses.ramp import Ramp

SLOTS: dict[str, Mapping[str, Callable[..., Any]]] = {
    "radius": radius.TABLE,
    "margin": margins.TABLE,
    "negatives": negatives.TABLE,
    "weighting": weighting.TABLE,
    "classifier": classifiers.TABLE,
    "subcenters": subcenters.TABLE,
}
ADDED: dict[str, Callable[..., Any]] = {**FEATURE_TERMS, "ramp": Ramp}
# ends the error on a name that no table has: a plugin may define it
PLUGIN_HINT = "a loss of your own is known only with --plugin FILE.py"
PLAIN = ("weights", "bias", "eps", "cross_entropy")


def part_names() -> tuple[str, ...]:
    """The keys that an objective's mapping may have; computed, since tables of penalties may grow."""
    return (*PLAIN, *SLOTS, *penalties.TABLE, *ADDED, "nested")


def build_piece(slot: str, value: object) -> Any:
    """The piece that a mapping with `kind` describes; a piece or None is returned unchanged."""
    if not isinstance(value, Mapping):
        if value is None or hasattr(value, "kind"):
            return value
        raise InputError(
            f"{slot} must be a mapping with a kind, such as {{kind: {next(iter(SLOTS[slot]))}}}; got {value!r}"
        )
    parameters = dict(value)
    kind = checks.choice(f"{slot}.kind", parameters.pop("kind", None), SLOTS[slot], hint=PLUGIN_HINT)
    if isinstance(parameters.get("annealing"), Mapping):
        parameters["annealing"] = call_checked(margins.Annealing, f"{slot}.annealing", parameters["annealing"])
    return call_checked(SLOTS[slot][kind], f"{slot} {kind}", parameters)


def call_checked(make: Callable[..., Any], what: str, parameters: Mapping[str, Any]) -> Any:
    """Call `make(**parameters)`, with an error that names unknown and missing parameters."""
    accepted = inspect.signature(make).parameters
    for name in parameters:
        if name not in accepted:
            listed = ", ".join(accepted) or "nothing"
            raise InputError(f"{what} has no parameter {name!r}{checks.nearest(name, accepted)}; it takes {listed}")
    missing = [name for name, entry in accepted.items() if entry.default is entry.empty and name not in parameters]
    if missing:
        raise InputError(f"{what} needs {' and '.join(missing)}")
    return make(**parameters)


def to_mapping(objective: Objective) -> dict[str, Any]:
    """The objective as plain values, with all pieces; the inverse of `from_mapping`."""
    out: dict[str, Any] = {name: getattr(objective, name) for name in PLAIN}
    for slot in SLOTS:
        chosen = getattr(objective, slot)
        out[slot] = None if chosen is None else {"kind": chosen.kind, **_plain(chosen)}
    for weight, penalty in objective.penalties:
        spec: Any = penalty  # a dataclass, as an objective checks
        out[spec.name] = _plain(spec) | ({} if weight == 1 else {"weight": weight})
    for name in ADDED:
        part = getattr(objective, name)
        if part is not None:
            out[name] = _plain(part)
    if objective.nested:
        out["nested"] = list(objective.nested)
    return out


def _plain(piece: Any) -> dict[str, Any]:
    values = dataclasses.asdict(piece)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def from_mapping(mapping: Mapping[str, Any]) -> Objective:
    """The objective that a mapping of pieces describes; missing ones have `Objective`'s defaults.

    >>> from_mapping({"radius": {"kind": "fixed", "s": 64}, "iam": {"beta": 0.1}}).penalties[0].penalty.beta
    0.1
    """
    for name in mapping:
        if name not in part_names():
            raise InputError(f"an objective has no piece {name!r}{checks.nearest(name, part_names())}; {PLUGIN_HINT}")
    changes = {name: build_part(name, mapping[name]) for name in part_names() if mapping.get(name) is not None}
    terms = tuple(changes.pop(name) for name in penalties.TABLE if name in changes)
    return Objective(**changes, penalties=terms)


def build_part(name: str, value: object) -> Any:
    """The value of `Objective.replace` for this name, from plain values."""
    if name in SLOTS:
        return build_piece(name, value)
    if name in ADDED:
        return build_added(name, value)
    return build_term(name, value) if name in penalties.TABLE and value is not None else value


def build_term(name: str, value: object) -> Term:
    """A penalty from its parameters, with an optional factor `weight`."""
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must be a mapping of its parameters, or null; got {value!r}")
    parameters = dict(value)
    weight = checks.number(f"{name}.weight", parameters.pop("weight", 1.0), low=0)
    return Term(weight, call_checked(penalties.TABLE[name], name, parameters))


def build_added(name: str, value: object) -> Any:
    """Center loss, a memory or a ramp from its parameters; one that is built, or None, is returned unchanged."""
    if value is None or isinstance(value, ADDED[name]):  # type: ignore[arg-type]
        return value
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must be a mapping of its parameters, or null; got {value!r}")
    return call_checked(ADDED[name], name, value)
