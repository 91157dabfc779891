"""Compares the version in code, CITATION.cff and CHANGELOG.md; `--print` prints it, `--release` wants a dated entry."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def find(path: str, pattern: str) -> str:
    """The first match in a file of the checkout."""
    match = re.search(pattern, (ROOT / path).read_text(encoding="utf-8"), flags=re.M)
    if match is None:
        sys.exit(f"{path} has no line that matches {pattern}")
    return match[1]


def main(arguments: list[str]) -> None:
    version = find("src/angulus/core/version.py", r'^__version__ = "([^"]+)"$')
    if "--print" in arguments:
        print(version)
        return
    cited = find("CITATION.cff", r"^version: (.+)$")
    if cited != version:
        sys.exit(f"CITATION.cff names version {cited}, but src/angulus/core/version.py {version}: change the wrong one")
    top = find("CHANGELOG.md", r"^## (.+)$")
    dated = re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", top)
    if not dated and (top != "[Unreleased]" or "--release" in arguments):
        sys.exit(f"CHANGELOG.md begins with {top}; a release of {version} needs '## [{version}] - YYYY-MM-DD' there")
    print(f"version {version} in the code and CITATION.cff; CHANGELOG.md begins with {top}")


if __name__ == "__main__":
    main(sys.argv[1:])
