"""Runs command lines of Angulus in one process, and imports its modules: the other side of test_base_install.py.

The interpreter may be any that Angulus is installed in; this file uses the standard library alone. Standard input is
JSON: {"folder": ..., "commands": [[...], ...]} or {"modules": [...]}; standard output is JSON with what came of each.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import traceback


def run(arguments: list[str]) -> dict[str, object]:
    """Exit code, output and errors of `angulus ARGUMENTS`."""
    from angulus.cli import main as cli

    sys.argv = ["angulus", *arguments]
    out, err = io.StringIO(), io.StringIO()
    code: object = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            code, _ = 1, traceback.print_exc()
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def imported(module: str) -> str | None:
    """Why a module cannot be imported, or None."""
    try:
        importlib.import_module(module)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return None


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    if "modules" in asked:
        found: object = {module: imported(module) for module in asked["modules"]}
    else:
        os.chdir(asked["folder"])
        found = [run(arguments) for arguments in asked["commands"]]
    json.dump({"found": found, "loaded": sorted(sys.modules)}, sys.stdout)
