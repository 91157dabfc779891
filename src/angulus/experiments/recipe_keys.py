"""Every key of a recipe, from its schema: path, type in words, default and description."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, get_args, get_type_hints

from angulus.experiments.recipe import SCHEMA, Recipe
from angulus.training.settings import DEFAULT_KINDS

REQUIRED, SECTION = "required", "a section"


class Key(NamedTuple):
    """A key of a recipe.

    Args:
        path: dotted; NAME stands for a name of your own, and [] for each item of a list.
        type: what it holds, in words.
        default: as YAML; "required" if there is none, "" for a section, whose keys have their own.
        about: one or two sentences.
    """

    path: str
    type: str
    default: str
    about: str

    @property
    def words(self) -> str:
        """Its type and default in words.

        >>> Key("training.epochs", "a whole number at least 1", "10", "Passes.").words
        'a whole number at least 1, by default 10'
        """
        if self.default in ("", REQUIRED):
            return f"{self.type}, {REQUIRED}" if self.default else self.type
        return f"{self.type}, by default {self.default}"


@cache
def list_keys() -> tuple[Key, ...]:
    """The keys of a recipe in the order of its schema, those of a section below it."""
    schema = SCHEMA.json_schema()
    sections = {section.__name__: section for section in _find_sections(Recipe)}
    return tuple(_walk(schema, schema["$defs"], sections, ["Recipe"], ""))


def _walk(
    schema: dict[str, Any], defs: dict[str, Any], sections: dict[str, type], names: list[str], parent: str
) -> Iterator[Key]:
    """The keys below a section; of several kinds that may be there, the keys of all."""
    alternatives = {name: schema if name == "Recipe" else defs[name] for name in names}
    properties: dict[str, dict[str, dict[str, Any]]] = {}
    for name, alternative in alternatives.items():
        for key, value in alternative["properties"].items():
            properties.setdefault(key, {})[name] = value
    for key, by_section in properties.items():
        path = f"{parent}{key}"
        value = next(iter(by_section.values()))
        if key == "kind":
            kinds = [value["const"] for value in by_section.values()]
            default = DEFAULT_KINDS.get(parent.rstrip("."), REQUIRED)
            yield Key(path, _one_of(kinds), default, "Which of these; it decides the other keys.")
            continue
        below = _sections_below(value)
        about = next(filter(None, (_describe(sections[name], key) for name in by_section)), "")
        about = about or (_first_sentence(sections[below[0]]) if below else "")
        if len(by_section) < len(alternatives):
            kinds = [alternatives[name]["properties"]["kind"]["const"] for name in by_section]
            about += f" Only with kind {_one_of(kinds)}."
        optional = any(option.get("type") == "null" for option in value.get("anyOf", ()))
        default = _default(sections, alternatives, key, by_section)
        nothing = below and not optional and default == "{}"
        yield Key(path, _words(value), "" if nothing else default, about)
        if below:
            mark = "[]." if value.get("type") == "array" else ".NAME." if "additionalProperties" in value else "."
            yield from _walk(schema, defs, sections, below, f"{path}{mark}")


def _find_sections(section: type) -> Iterator[type]:
    """A section and all below it."""
    yield section
    hints = get_type_hints(section, include_extras=True)
    for field in dataclasses.fields(section):
        for found in _classes(hints[field.name]):
            yield from _find_sections(found)


def _classes(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if hint.__name__ != "Objective":  # its keys are those of the losses
            yield hint
        return
    for part in get_args(hint):
        yield from _classes(part)


def _sections_below(value: dict[str, Any]) -> list[str]:
    """The names of the sections that a key's value may be."""
    if "$ref" in value:
        return [value["$ref"].rpartition("/")[2]]
    inner = [value.get("items"), value.get("additionalProperties"), *value.get("anyOf", ()), *value.get("oneOf", ())]
    return [name for part in inner if isinstance(part, dict) for name in _sections_below(part)]


def _describe(section: type, key: str) -> str:
    """A key's description: the docstring below it, here or in a parent class, else its line in the class's `Args:`."""
    for parent in section.__mro__:
        field = getattr(parent, "__pydantic_fields__", {}).get(key)
        if field is not None and field.description:
            return " ".join(field.description.split())
    block = (section.__doc__ or "").partition("Args:\n")[2].split("\n\n")[0]
    found = re.search(rf"^ {{8}}(?:\w+, )*{key}(?:, \w+)*: (.*?)(?=\n {{8}}\w|\Z)", block, re.M | re.S)
    text = " ".join(found[1].split()) if found else ""
    for python, yaml in (("None", "null"), ("True", "true"), ("False", "false")):
        text = re.sub(rf"\b{python}\b", yaml, text)
    return text[:1].upper() + text[1:]


def _first_sentence(section: type) -> str:
    return (section.__doc__ or "").strip().partition("\n")[0]


def _default(
    sections: dict[str, type], alternatives: dict[str, Any], key: str, by_section: dict[str, dict[str, Any]]
) -> str:
    """The default as YAML; if kinds differ in it, each with its kinds."""
    texts: dict[str, list[str]] = {}
    for name, value in by_section.items():
        if key in alternatives[name].get("required", ()):
            text = REQUIRED
        elif "default" in value:
            text = _yaml(value["default"])
        else:
            field = next(field for field in dataclasses.fields(sections[name]) if field.name == key)
            made = field.default_factory() if callable(field.default_factory) else {}
            text = "[]" if made == [] else "{}"
        kind = alternatives[name]["properties"].get("kind", {}).get("const", "")
        texts.setdefault(text, []).append(kind)
    if len(texts) == 1:
        return next(iter(texts))
    return "; ".join(f"{text} ({_one_of(kinds, 'and')})" for text, kinds in texts.items())


def _words(value: dict[str, Any]) -> str:
    """A type of the schema in words."""
    if _sections_below(value):
        if value.get("type") == "array":
            return "a list of sections"
        if "additionalProperties" in value:
            return "sections by name"
        return f"{SECTION} or null" if {"type": "null"} in value.get("anyOf", ()) else SECTION
    if "anyOf" in value:
        return " or ".join(_words(option) for option in value["anyOf"])
    if "enum" in value:
        return _one_of(value["enum"])
    kind = value.get("type")
    if kind == "array":
        count = f"{len(value['prefixItems'])} " if "prefixItems" in value else ""
        return f"a list of {count}{_plural((value.get('prefixItems') or [value.get('items', {})])[0])}"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"a mapping of names to {_plural(inner)}" if isinstance(inner, dict) and inner else "a mapping"
    plain = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}
    words = plain.get(str(kind), "null" if kind == "null" else "any value")
    rules = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{rule} {value[name]:,}" for name, rule in rules.items() if name in value]
    return " ".join([words, " and ".join(limits)]).strip()


def _plural(value: dict[str, Any]) -> str:
    """
    >>> _plural({"type": "number", "exclusiveMinimum": 0}), _plural({"type": "array", "items": {"type": "integer"}})
    ('numbers above 0', 'lists of whole numbers')
    """
    words = _words(value)
    for one, many in {"a whole number": "whole numbers", "a number": "numbers", "a list": "lists",
                      "a mapping": "mappings", "text": "texts", "any value": "values"}.items():  # fmt: skip
        if words.startswith(one):
            return many + words.removeprefix(one)
    return words


def _one_of(values: list[Any], joint: str = "or") -> str:
    """
    >>> _one_of(["sgd", True, None]), _one_of(["sgd"])
    ('sgd, true or null', 'sgd')
    """
    *others, last = [value if isinstance(value, str) else _yaml(value) for value in values]
    return f"{', '.join(others)} {joint} {last}" if others else last


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
