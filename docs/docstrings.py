"""What Markdown would take for a quotation in docstrings: doctests become blocks of code, and "n: > 0" stays a line."""

from __future__ import annotations

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^>>> .*?(?=\n\n|\Z)", flags=re.M | re.S)
RANGE = re.compile(r"^(\s+\w[\w, ]*: )>", flags=re.M)


class Doctests(griffe.Extension):
    """Puts every run of lines that a >>> begins between fences, and escapes a > that begins a description."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object that is found."""
        if obj.docstring is not None:
            text = RANGE.sub(r"\1\>", obj.docstring.value)
            obj.docstring.value = DOCTEST.sub(lambda match: f"```pycon\n{match[0]}\n```", text)
