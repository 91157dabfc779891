"""Download from Hugging Face's hub, or from a server with the same API (HF_ENDPOINT)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from angulus.core import checks, extras
from angulus.core.checks import InputError

_UNREACHED = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectionError", "TimeoutException"}
_LOG_IN = "log in with `hf auth login`"


def fetch(name: str, files: Iterable[str], extra: str, **options: Any) -> Path:
    """Download the files of the repository OWNER/NAME that match the patterns; the folder that they lie in.

    Args:
        name: of the repository.
        files: patterns of what is wanted; nothing else is fetched.
        extra: of Angulus, which installs the client.
        options: of `huggingface_hub.snapshot_download`, such as revision and token.

    Raises:
        InputError: it is missing, private or gated, the hub cannot be reached, or there is no client.
    """
    place = f"there is no folder {name!r}, and no model of this name can be fetched from a hub"
    try:
        client = extras.load("huggingface_hub", extra, "the hub")
        return Path(client.snapshot_download(name, allow_patterns=list(files), **options))
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    except Exception as error:  # the client raises its own kinds, httpx's and OSErrors
        raise InputError(f"{place}: {_reason(error, options.get('revision'))}") from error


def _reason(error: Exception, revision: str | None) -> str:
    """Why the hub's client failed, and the way out."""
    kinds = {kind.__name__ for kind in type(error).__mro__}  # by name, as the package may be another version
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "GatedRepoError" in kinds:
        return f"it is gated; accept its licence on its page on the hub, and {_LOG_IN}"
    if "RevisionNotFoundError" in kinds:
        return f"it has no revision {revision!r}; leave the revision out, or choose one that its page shows"
    if "RepositoryNotFoundError" in kinds:
        return f"it is missing or private; check the name, or {_LOG_IN} if it is private"
    if status in (401, 403):
        return f"the hub refuses it (status {status}); {_LOG_IN}, or check the token"
    short = checks.one_line(error)[:200]
    if kinds & _UNREACHED:
        return f"the hub does not answer ({short}); check the network, or download it elsewhere and give its folder"
    return f"{type(error).__name__}: {short}; check the name, or download it elsewhere and give its folder"
