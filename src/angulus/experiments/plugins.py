"""Plugins: files with losses of one's own, which run only because the user named them on the command line.

A recipe may say that it needs one, by its name; that alone never runs it.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from angulus.core import checks
from angulus.losses import ALIASES, penalties
from angulus.losses.serialize import ADDED, PLAIN, SLOTS

# what a plugin may add to: a piece's or an alias's table, by the words for it
TABLES: dict[str, dict[str, Any]] = {
    **{slot: cast(dict[str, Any], table) for slot, table in SLOTS.items()},
    "penalty": penalties.TABLE,
    "loss": ALIASES,
}
_loaded: dict[str, str] = {}  # name of the file -> SHA-256; for the whole process, as the tables are


PREFIX = "angulus_plugin_"  # of the modules' names
TAKEN = {*PLAIN, *SLOTS, *ADDED}  # keys of an objective that no penalty may take


def load(files: Iterable[Path | str]) -> list[str]:
    """Run plugins, so that recipes know the pieces that they register; returns their names.

    A file that is loaded already is not run again.

    Raises:
        InputError: a file is missing or fails, or registers a name that exists; the tables are unchanged then.
    """
    return [_load(Path(file)) for file in files]


def digests(names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of loaded plugins, by name."""
    return {name: _loaded[name] for name in names}


def refuse_unloaded(names: object) -> None:
    """Refuse a recipe whose plugins the command line does not name; of another type than a list, the schema does."""
    for name in names if isinstance(names, list) else ():
        if not isinstance(name, str) or Path(name).name != name:
            raise checks.InputError(
                f"plugins must be names of files without folders, such as my_losses.py; got {checks.shown(name)}"
            )
        if name not in _loaded:
            raise checks.InputError(
                f"the recipe needs the plugin {name}, whose code runs only if you name it yourself: read it, then add "
                f"--plugin {name} to the command"
            )


def refuse_changed(stored: Mapping[str, Any], names: Iterable[str], folder: Path) -> None:
    """Refuse to continue a run whose plugins had another content; `stored` are their SHA-256 by name."""
    for name, digest in digests(names).items():
        if stored.get(name) != digest:
            was = f"{str(stored[name])[:8]}... there" if name in stored else "not stored there"
            raise checks.InputError(
                f"the plugin {name} is not the one that {folder} was trained with (SHA-256 {was}, {digest[:8]}... "
                "here); restore that file, or choose another --out"
            )


def _load(path: Path) -> str:
    source = _read(path)
    digest = hashlib.sha256(source).hexdigest()
    if path.name in _loaded:
        if _loaded[path.name] != digest:
            raise checks.InputError(f"--plugin {path}: another file named {path.name} is loaded; rename one of them")
        return path.name
    before = {what: dict(table) for what, table in TABLES.items()}
    try:
        _run(path, source)
        for what, table in TABLES.items():
            _check_table(path, source, what, before[what], table)
    except BaseException:
        sys.modules.pop(PREFIX + path.stem, None)
        for what, table in TABLES.items():
            table.clear()
            table.update(before[what])
        raise
    _loaded[path.name] = digest
    return path.name


def _read(path: Path) -> bytes:
    if path.suffix != ".py":
        raise checks.InputError(f"--plugin must name a Python file, such as my_losses.py; got {path}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise checks.InputError(f"--plugin {path} cannot be read: {checks.why_unread(error)}") from error


def _run(path: Path, source: bytes) -> None:
    """Run the code as a module; what it raises becomes one sentence with the line."""
    module = ModuleType(PREFIX + path.stem)
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look up their module there
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else (lines or [None])[-1]
        where = f" at line {line}" if line else ""
        what = error.msg if isinstance(error, SyntaxError) else checks.one_line(error)
        raise checks.InputError(
            f"--plugin {path} fails{where}: {type(error).__name__}: {what}; correct the file"
        ) from error


def _check_table(path: Path, source: bytes, what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Refuse entries that replace or remove another, or whose own name differs from that in the table."""
    for name in before:
        if after.get(name) is not before[name]:
            done = "registers" if name in after else "removes"
            raise checks.InputError(
                f"--plugin {path} {done} the {what} {name!r}{_line(source, name)}, which exists already; choose "
                "another name"
            )
    for name in after.keys() - before.keys():
        if what == "penalty" and name in TAKEN:
            place = f"--plugin {path} registers the penalty {name!r}{_line(source, name)}"
            raise checks.InputError(f"{place}, which is a key of every objective; choose another name")
        own = name if what == "loss" else getattr(after[name], "name" if what == "penalty" else "kind", None)
        if own != name or not callable(after[name]):
            raise checks.InputError(
                f"--plugin {path} registers the {what} {name!r}{_line(source, name)}, but the class calls itself "
                f"{own!r}; give both the same name"
            )


def _line(source: bytes, name: str) -> str:
    """Where a file first holds that text: " at line N"."""
    nodes = ast.walk(ast.parse(source))
    lines = [node.lineno for node in nodes if isinstance(node, ast.Constant) and node.value == name]
    return f" at line {min(lines)}" if lines else ""


def blame(error: BaseException) -> str | None:
    """The sentence on an error that was raised in a plugin's code, while it ran; None if no plugin is to blame."""
    files = {getattr(module, "__file__", None) for name, module in sys.modules.items() if name.startswith(PREFIX)}
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files - {None}]
    if not lines:
        return None
    place = f"--plugin {lines[-1].filename} fails at line {lines[-1].lineno}"
    return f"{place}: {type(error).__name__}: {checks.one_line(error)}; correct the file"
