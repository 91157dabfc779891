"""Code and docs are in plain modern English: words that made readers stop do not come back."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# word -> what to write
AVOID = {
    "beside": "next to",
    "anew": "again",
    "whom": "who, or name the person",
    "thereof": "of it",
    "wherefore": "so",
    "whence": "from where",
    "thence": "from there",
    "amongst": "among",
    "whilst": "while",
    "so-manyth": "every n-th",
    "told apart": "separated, distinguished",
    "is told": "is reported",
    "of its own kind": "its own",
    "a bias a class": "one bias per class",
    "has no use with": "applies only to",
}
PATTERN = re.compile(rf"\b({'|'.join(AVOID)})\b", re.I)


def files() -> list[Path]:
    """What readers meet: the package, benchmarks, recipes and hand-written pages; not the changelog of the past."""
    listed = subprocess.run(
        ["git", "ls-files", "src", "benchmarks", "recipes", "docs", "*.md", "tests/*.py"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.splitlines()  # fmt: skip
    kept = [ROOT / name for name in listed if name.endswith((".py", ".md", ".yaml")) and name != "CHANGELOG.md"]
    return [path for path in kept if path.exists() and "results" not in path.parts and path != Path(__file__)]


def test_words_that_put_readers_off_stay_away() -> None:
    if not files():
        pytest.skip("needs a git checkout")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r}: write {AVOID[match[0].lower()]!r}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in PATTERN.finditer(line)
    ]
    assert not found, "\n".join(found)
