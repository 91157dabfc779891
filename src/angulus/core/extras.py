"""Import optional packages on first use; if one is missing, the error names the extra that installs it."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from angulus.core import checks
from angulus.core.checks import InputError


def load(module: str, extra: str, what: str) -> Any:
    """Import an optional package that an `extra` of Angulus installs; `what`, which needs it, starts the InputError.

    >>> load("no_package", "faces", "aligning faces")
    Traceback (most recent call last):
    angulus.core.checks.InputError: aligning faces needs `pip install 'angulus[faces]'` (there is no package no_package)
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == module.partition(".")[0]:
            raise InputError(missing(extra, what, error.name)) from error
        raise _broken(module, what, error) from error
    except (ImportError, OSError, RuntimeError) as error:  # as with parts of another torch version
        raise _broken(module, what, error) from error


def require(extra: str, what: str, *modules: str) -> None:
    """Raise an error that names the extra if one of `modules` is not installed; imports nothing."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise InputError(missing(extra, what, module))


def missing(extra: str, what: str, module: str) -> str:
    """The message for a package that is not installed."""
    return f"{what} needs `pip install 'angulus[{extra}]'` (there is no package {module})"


def _broken(module: str, what: str, error: Exception) -> InputError:
    reason = checks.one_line(error)
    return InputError(f"{what} needs the package {module}, which is installed but cannot be imported: {reason}")
