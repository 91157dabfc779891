"""The site's page of commands: a table for each command that fits a phone, made from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

HIDDEN = {"help"}


def page_text() -> str:
    """Every command, grouped as in `angulus --help`."""
    from angulus.cli.main import COMMANDS, load_all

    tree = load_all()
    panels: dict[str, list[str]] = {}
    for name, (_, panel, _) in COMMANDS.items():
        panels.setdefault(panel, []).append(name)
    parts = ["# Commands", "`angulus COMMAND --help` shows the same in the terminal."]
    parts += [_contents(panel, {name: COMMANDS[name][2] for name in names}) for panel, names in panels.items()]
    for name in COMMANDS:
        for command, words in _leaves(tree.commands[name], [name]):
            parts.append(_section(command, words))
    return "\n\n".join(parts) + "\n"


def _contents(panel: str, abouts: dict[str, str]) -> str:
    from angulus.cli.main import load_command

    def link(name: str) -> str:
        _, first = next(_leaves(load_command(name), [name]))
        return f"[`{name}`](#angulus-{'-'.join(first)})"

    rows = [f"| {link(name)} | {_cell(about)} |" for name, about in abouts.items()]
    return "\n".join([f"**{panel}**", "", "| command | what it does |", "|---|---|", *rows])


def _leaves(command: Any, words: list[str]) -> Iterator[tuple[Any, list[str]]]:
    """The commands that run, with the words that call them."""
    inner = getattr(command, "commands", None)
    if not inner:
        yield command, words
    for name, each in (inner or {}).items():
        yield from _leaves(each, [*words, name])


def _section(command: Any, words: list[str]) -> str:
    """A heading, what the command does, how it is called, and its arguments and options."""
    shown = [param for param in command.params if param.name not in HIDDEN]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    options = [param for param in shown if param.param_type_name == "option"]
    usage = " ".join(["angulus", *words, *map(_usage, arguments), *(["[OPTIONS]"] if options else [])])
    example = command.epilog.removeprefix("Example: ")
    parts = [f"## angulus {' '.join(words)}", command.help or "", f"```text\n{usage}\n```"]
    if rows := [_row(param) for param in [*arguments, *options]]:
        parts.append("\n".join(["| | |", "|---|---|", *rows]))
    return "\n\n".join([*parts, "For example:", f"```sh\n{example}\n```"])


def _usage(argument: Any) -> str:
    text = _name(argument) + ("..." if argument.nargs == -1 else "")
    return text if argument.required else f"[{text}]"


def _name(param: Any) -> str:
    if param.param_type_name == "argument":
        return str(param.metavar or param.name).removesuffix("...").upper()
    return ", ".join([*param.opts, *param.secondary_opts])


def _row(param: Any) -> str:
    """The name in one cell; what it is, whether it is required, and its default in the other."""
    facts = []
    if param.required:
        facts.append("required")
    elif (
        getattr(param, "show_default", True)
        and param.default not in (None, False, True, (), [])
        and not callable(param.default)
    ):
        facts.append(f"default `{param.default}`")
    if param.multiple or param.nargs == -1:
        facts.append("may be repeated")
    notes = f" ({', '.join(facts)})" if facts else ""
    return f"| `{_name(param)}` | {_cell(param.help or '')}{notes} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "&#124;").replace("<", "&lt;")
