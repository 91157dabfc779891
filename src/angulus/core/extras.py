"""Optional packages: imported when first used, or named together with the extra that installs them."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from angulus.core import checks
from angulus.core.checks import InputError


def load(module: str, extra: str, what: str) -> Any:
    """Import an optional package.

    Args:
        module: its name, as in `import MODULE`.
        extra: the extra of Angulus that installs it.
        what: what needs it, as the start of the error.

    Raises:
        checks.InputError: it is not installed, or it is and cannot be imported.

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
    except (ImportError, OSError, RuntimeError) as error:  # also where it is installed next to another torch's parts
        raise _broken(module, what, error) from error


def require(extra: str, what: str, *modules: str) -> None:
    """Refuse at once where one of `modules` is not installed; nothing is imported.

    Raises:
        checks.InputError: names the extra, once, and the first package that is absent.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise InputError(missing(extra, what, module))


def missing(extra: str, what: str, module: str) -> str:
    """The sentence for a package that is not installed."""
    return f"{what} needs `pip install 'angulus[{extra}]'` (there is no package {module})"


def _broken(module: str, what: str, error: Exception) -> InputError:
    reason = checks.one_line(error)
    return InputError(f"{what} needs the package {module}, which is installed but cannot be imported: {reason}")
