"""Versions, device and machine, saved with every result; with a timing, everything else it depends on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock
import numpy
import torch

from angulus.core import redact
from angulus.core.version import __version__

LIBRARIES = ("timm", "transformers")  # whose networks may be another one in another version


def describe(device: torch.device) -> dict[str, Any]:
    """Versions, device, machine and command, as plain values."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "angulus": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        **{name: _version(name) for name in LIBRARIES if name in sys.modules},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{device.type}: {name}",
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "command": ["angulus", *redact.command(sys.argv[1:])],
    }


def of_timing(device: torch.device, *packages: str) -> dict[str, Any]:
    """`describe` plus date, commit, huge pages, and the versions of these packages (None if absent)."""
    about = describe(device) | {"date": time.strftime("%Y-%m-%d"), "commit": _commit()}
    about["THP_MEM_ALLOC_ENABLE"] = os.environ.get("THP_MEM_ALLOC_ENABLE", "0")
    return about | {name: _version(name) for name in packages}


def where(about: Mapping[str, Any]) -> str:
    """The device in the output of `describe`, with the threads of a CPU.

    >>> where({"device": "cpu: Zen", "threads": 1}), where({"device": "cuda: H100", "threads": 16})
    ('cpu: Zen, 1 thread', 'cuda: H100')
    """
    device, threads = about["device"], about["threads"]
    return f"{device}, {threads} thread{'s' * (threads != 1)}" if device.startswith("cpu") else device


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that this package runs from, with "+" if its code was changed; None elsewhere."""
    package = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", "core/environment.py")  # an installed copy may lie in another repository
        return git("rev-parse", "--short", "HEAD").strip() + ("+" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@contextmanager
def timing() -> Iterator[None]:
    """Mark that this process measures times: background work of Angulus on this machine pauses, see `is_timing`."""
    with _timing_lock():
        yield


def is_timing() -> bool:
    """Whether another process of this user measures times."""
    try:
        with _timing_lock().acquire(timeout=0.2, poll_interval=0.01):  # others that look hold it for an instant
            return False
    except filelock.Timeout:
        return True
    except OSError:  # a file of another user
        return False


def _timing_lock() -> filelock.BaseFileLock:
    user = os.getuid() if hasattr(os, "getuid") else "all"
    return filelock.FileLock(Path(tempfile.gettempdir()) / f"angulus-timing-{user}.lock")
