"""Runs the ```console blocks of the docs, in one folder and in this order, and writes what the commands print.

`python docs/console.py` rewrites the pages; tests/test_console_blocks.py compares them. Anyone can run these commands:
they train on scikit-learn's digits, and the first Python block of predict.md writes the images.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent
PAGES = (
    "training.md", "predict.md", "embed.md", "evaluate.md", "calibrate.md", "prepare.md", "export.md", "search.md",
    "capacity.md",
)  # fmt: skip
BLOCK = re.compile(r"^```console\n(\$ angulus .*?)^```$", flags=re.M | re.S)
IMAGES = re.compile(r"^```python\n(from pathlib.*?)^```$", flags=re.M | re.S)
WIDTH = "100"


def commands(block: str) -> list[str]:
    """The commands of a block, without the prompt."""
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def printed(command: str) -> str:
    """What a command prints to stdout; a command that fails raises."""
    from angulus.cli import main as cli

    out, err = io.StringIO(), io.StringIO()
    before, show = sys.argv, warnings.showwarning
    sys.argv = shlex.split(command, comments=True)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):
            cli.main()
            raise AssertionError("the command line always exits")
    finally:
        sys.argv, warnings.showwarning = before, show
    if not out.getvalue():
        raise RuntimeError(f"{command} printed nothing; its errors: {err.getvalue()}")
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines()) + "\n"


def run_pages() -> Iterator[tuple[Path, str]]:
    """Each page with its blocks as the commands print them now; the working folder gets the files."""
    os.environ["COLUMNS"] = WIDTH
    for name in PAGES:
        page = DOCS / name
        text = page.read_text(encoding="utf-8")
        for images in IMAGES.findall(text):
            exec(compile(images, name, "exec", dont_inherit=True), {})
        yield page, BLOCK.sub(lambda match: _fill(match[1]), text)


def _fill(block: str) -> str:
    filled = "".join(f"$ {command}\n{printed(command)}" for command in commands(block))
    return f"```console\n{filled}```"


def main() -> None:
    """Rewrite the pages."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for page, text in list(run_pages()):
            page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
