"""Small pieces of text that many modules write: plurals, and cells that a spreadsheet does not run."""

from __future__ import annotations

import re

_PLAIN = {  # for what pydantic's messages say
    "greater than or equal to": "at least", "less than or equal to": "at most", "greater than": "above",
    "less than": "below", " after validation": "", "a valid array": "a list, such as [1, 2]",
}  # fmt: skip
_IRREGULAR = {"people": "person"}
_SINGULAR = re.compile(r"(ies|(ss|ch|sh|x)es|(?<!s)s)$")  # an ending of a plural
_FORMULA = (*"=+-@＝＋－＠", "\t", "\r", "\n")  # the full-width signs too
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def plural(word: str, count: int) -> str:
    """A word that takes an s in the plural, for this count.

    >>> [f"{count} {plural('image', count)}" for count in (0, 1, 2)]
    ['0 images', '1 image', '2 images']
    """
    return word if count == 1 else f"{word}s"


def counted(count: int, name: str) -> str:
    """A count with its name, which is given as a plural; the noun before "of", "without" or "in" changes with it.

    >>> [counted(1, name) for name in ("negative cases", "classes", "queries without a match", "pairs of Ms", "people")]
    ['1 negative case', '1 class', '1 query without a match', '1 pair of Ms', '1 person']
    >>> counted(1, "genuine"), counted(1, "in bin 2"), counted(1200, "searches")
    ('1 genuine', '1 in bin 2', '1,200 searches')
    """
    parts = re.fullmatch(r"((?!of |in )(?:\S+ )*?)(\S+)((?: (?:of|without|in) .*)?)", name, re.DOTALL)
    if count != 1 or parts is None:
        return f"{count:,} {name}"
    before, noun, after = parts.groups()
    return f"1 {before}{_IRREGULAR.get(noun) or _SINGULAR.sub(_one, noun)}{after}"


def _one(ending: re.Match[str]) -> str:
    return "y" if ending[0] == "ies" else ending[0][:-2] if ending[0] != "s" else ""


def plain_rule(message: str) -> str:
    """The rule in one of pydantic's messages, to follow "must".

    >>> plain_rule("Input should be greater than or equal to 0")
    'be at least 0'
    """
    rule = message.partition(" should ")[2] or message
    for pydantics, plain in _PLAIN.items():
        rule = rule.replace(pydantics, plain)
    return rule


def progress(done: int, total: int | None, seconds: float) -> str:
    """How many images are done, how fast, and how long the others will take.

    >>> progress(512, 2088, 4.0)
    '512 of 2,088 images, 128 images/s, 12 s left'
    >>> progress(90, None, 40.0)
    '90 images, 2.2 images/s'
    """
    speed = done / seconds if seconds > 0 else 0.0
    text = f"{done:,} images" if total is None else f"{done:,} of {total:,} images"
    text += f", {speed:,.{0 if speed >= 10 else 1}f} images/s"
    return text if total is None or not done else f"{text}, {(total - done) / speed:,.0f} s left" if speed else text


def guard_formula(text: str) -> str:
    """The text of a cell, with an apostrophe in front if a spreadsheet would run it as a formula.

    Names and labels of images come from strangers. A number with a sign is no formula.

    Source: OWASP, "CSV Injection".

    >>> guard_formula("=cmd|' /C calc'!A0/1.jpg"), guard_formula("1.jpg"), guard_formula("-1")
    ("'=cmd|' /C calc'!A0/1.jpg", '1.jpg', '-1')
    """
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
