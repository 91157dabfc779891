"""URLs as path arguments of commands: what is read is fetched first, what is written is uploaded at the end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from angulus.core import files, stores, urls
from angulus.core.checks import InputError
from angulus.distributed import launch

WRITTEN = frozenset(("out", "json", "report", "plot", "atlas", "table", "export onnx"))
_RUN = "it holds locks and checkpoints, which need a disk; copy it to the store when the command has ended"
_MODEL = "the command changes files in it; copy the folder here, and back when the command has ended"
LOCAL = {  # arguments, by name or by command and name, that must be on this machine, and why
    **{f"{command} out": _RUN for command in ("train", "compare", "demo", "reproduce")},
    "queue": "other processes lock it",
    "plugin": "it is code that runs; look at it and copy it here first",
    "calibrate model": _MODEL,
    "upgrade new": _MODEL,
    "to": "downloads lie on a disk",
}
_TEXTS = {"who where", "serve where", "search export out"}  # text that may be a path; http is Qdrant's


def add_urls(group: typer.Typer, *above: str) -> None:
    """Let the path arguments of all commands of a group take URLs."""
    for entry in group.registered_commands:
        if entry.callback is not None and not hasattr(entry.callback, "takes_urls"):
            name = entry.name or entry.callback.__name__.replace("_", "-")
            entry.callback = with_urls(entry.callback, " ".join((*above, name)))
            entry.callback.takes_urls = True  # type: ignore[attr-defined]  # a group may be loaded again
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            add_urls(inner.typer_instance, *above, inner.name or "")


def with_urls(command: Callable[..., Any], words: str) -> Callable[..., Any]:
    """A command that takes a URL wherever it takes a path, or says why it does not; `words` are its name."""

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        with ExitStack() as stack:
            local = {name: _local(words, name, value, stack) for name, value in _in_order(words, given)}
            return command(**given | local)

    return run


def role(words: str, name: str) -> str:
    """What a command does with an argument: read, write, or local for one that must be on this machine."""
    own = f"{words} {name}"
    if own in LOCAL or (name in LOCAL and own != "data files to"):
        return "local"
    return "write" if own in WRITTEN or name in WRITTEN else "read"


def _in_order(words: str, given: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The arguments, those first that may be refused at once."""
    return sorted(given.items(), key=lambda item: ("local", "write", "read").index(role(words, item[0])))


def _local(words: str, name: str, value: Any, stack: ExitStack) -> Any:
    """A value with paths of this machine in place of URLs."""
    if isinstance(value, list | tuple):
        return type(value)(_local(words, name, item, stack) for item in value)
    text = isinstance(value, str) and f"{words} {name}" in _TEXTS and not value.startswith(("http://", "https://"))
    url = files.url_of(value) if isinstance(value, Path) or text else None
    if url is None:
        return urls.local_of(value) if isinstance(value, Path) else value
    kind = role(words, name)
    if kind == "local":
        why = LOCAL.get(f"{words} {name}") or LOCAL[name]
        raise InputError(f"{name} of angulus {words} must be on this machine, as {why}; got {stores.masked(url)}")
    if kind == "write":
        new = name == "out" and not value.suffix if isinstance(value, Path) else False
        path = stack.enter_context(urls.writing(url, new=new, upload=launch.reports()))
    else:
        path = urls.fetch(url)
    return path if isinstance(value, Path) else str(path)
