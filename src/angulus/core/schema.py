"""Errors of pydantic dataclasses in plain sentences, and such dataclasses built from Python as from a file."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterable
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import pydantic
import pydantic_core

from angulus.core import checks, redact, wording
from angulus.core.checks import InputError

T = TypeVar("T")
_SECTION = "__section__"  # the attribute with a class's path in a recipe


def from_python(cls: type[T], section: str = "") -> type[T]:
    """Let a strict pydantic dataclass take mappings for its sections from Python, and raise InputError in a sentence.

    Strict pydantic takes a dataclass from JSON, but not from a mapping in Python. `section` is what sentences call it.
    """
    construct = cls.__init__
    setattr(cls, _SECTION, section)

    @functools.cache
    def types() -> dict[str, Any]:
        hints = get_type_hints(cls, include_extras=True)
        return {field.name: pydantic.TypeAdapter(hints[field.name]) for field in dataclasses.fields(cls)}  # type: ignore[arg-type]

    @functools.wraps(construct)
    def from_values(self: T, *args: Any, **values: Any) -> None:
        name = ""
        try:
            for name, value in values.items():
                if isinstance(value, dict) and name in types():
                    values[name] = types()[name].validate_json(pydantic_core.to_json(value))
            name = ""
            construct(self, *args, **values)
        except pydantic.ValidationError as error:
            raise InputError(sentences(error, cls, *filter(None, [name]))) from error
        except pydantic_core.PydanticSerializationError as error:
            raise InputError(f"{name} must be plain keys and values: {error}") from error

    cls.__init__ = from_values  # type: ignore[method-assign, assignment]
    return cls


def sentences(error: pydantic.ValidationError, root: type, *within: str) -> str:
    """What is wrong with values for `root`, or for its key `within`, in a sentence each; the first three."""
    errors = sorted(error.errors(), key=lambda details: len(details["loc"]))[:3]
    return "; ".join(_sentence({**details, "loc": (*within, *details["loc"])}, root) for details in errors)


def _sentence(error: Any, root: type) -> str:
    """One of pydantic's errors as a sentence with the key, the rule, the value and the way out."""
    path, sections = _locate(error["loc"], root)
    where, context = ".".join(path), error.get("ctx", {})
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return _unknown_key(error["loc"], root)
    if error["type"] in ("missing", "missing_argument"):
        return f"the recipe needs {where}"
    if error["type"] == "union_tag_invalid":
        kinds = ", ".join(map(repr, sections))
        return f"{where}.kind must be one of {kinds}; got {context['tag']!r}{checks.nearest(context['tag'], sections)}"
    if "error" in context:  # one of our own checks
        return str(context["error"])
    got = checks.shown(redact.values(error["input"], where))
    if error["type"] in ("dataclass_type", "dict_type", "union_tag_not_found"):
        return f"{where} must be a mapping of keys to values; got {got}"
    return f"{where} must {wording.plain_rule(error['msg'])}; got {got}"


def _unknown_key(location: tuple[str | int, ...], root: type) -> str:
    """The sentence on a key that its section does not have: which kinds take it, or the nearest key that is there."""
    path, _ = _locate(location, root)
    *parents, last = path
    _, sections = _locate(location[:-1], root)
    _, kinds = _locate(location[:-2], root)
    takers = [kind for kind, section in kinds.items() if last in _keys(section)]
    if len(kinds) > 1 and takers:
        (kind,) = sections
        return f"{'.'.join(path)} applies only to kind {' or '.join(takers)}, but kind is {kind}. Remove it."
    # the last part alone is compared, because the parts before it are the same for all
    known = {key: ".".join([*parents, key]) for section in sections.values() for key in _keys(section)}
    below = {key: _locate([*location[:-1], key], root)[1].values() for key in known}
    inner = [f"{key}.{last}" for key in known if any(last in _keys(section) for section in below[key])]
    typed = difflib.get_close_matches(last, known, 1, cutoff=0.85)  # a slip of the pen comes before a key further down
    hint = f"; did you mean {inner[0]!r}?" if len(inner) == 1 and not typed else checks.nearest(last, known)
    return f"a recipe has no key {'.'.join(path)!r}{hint}; known here: {', '.join(known.values())}"


def _locate(location: Iterable[str | int], root: type) -> tuple[list[str], dict[str, type]]:
    """(the path of keys without the kinds that pydantic adds to it, the sections that may be there, by kind)."""
    path = [*filter(None, [getattr(root, _SECTION, "")])]
    sections: dict[str, type] = {"": root}
    in_mapping = False
    for part in location:
        if len(sections) > 1 and part in sections:
            sections = {str(part): sections[str(part)]}
            continue
        path.append(str(part))
        if isinstance(part, str) and not in_mapping:
            hint = next((_keys(section)[part] for section in sections.values() if part in _keys(section)), None)
            sections = _sections(hint)
            in_mapping = get_origin(hint) is dict  # of sections by names that are no keys
        else:
            in_mapping = False
    return path, sections


def _sections(hint: Any) -> dict[str, type]:
    """The sections that a field of that type may hold, by their kind."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return {getattr(hint, "kind", ""): hint}
    return {kind: section for part in get_args(hint) for kind, section in _sections(part).items()}


def _keys(section: type) -> dict[str, Any]:
    """The keys of a section and their types."""
    hints = get_type_hints(section, include_extras=True)
    return {key.name: hints[key.name] for key in dataclasses.fields(section)}
