"""How ids of embeddings become those of a list, by cutting texts off and keeping the last parts of a path."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from angulus.core import checks, files
from angulus.core.checks import InputError

_SEPARATORS = re.compile(r"[/\\]")
_MOST_PARTS = 4  # of a path that a proposal keeps
_TRIED = 3  # ids of the list from which proposals are made


@dataclass(frozen=True)
class IdRule:
    r"""How ids of embeddings are changed before they are looked up; `--id-strip` and `--id-parts` of the commands.

    Attributes:
        strip: texts to cut off where an id begins or ends with them, in this order.
        parts: how many parts of a path, divided by / or \, to keep, counted from the last; of the list's ids too, so
            that folders may be missing on either side. None: all.

    >>> IdRule(strip=("_arcface.bin",), parts=2).change("/data/lfw/A/A_1.jpg_arcface.bin")
    'A/A_1.jpg'
    """

    strip: tuple[str, ...] = ()
    parts: int | None = None

    def __post_init__(self) -> None:
        if self.parts is not None:
            checks.integer("id_parts", self.parts, low=1)
        if not all(type(text) is str and text for text in self.strip):
            raise InputError(f"id_strip must be texts that are not empty; got {checks.shown(list(self.strip))}")

    def __bool__(self) -> bool:
        return bool(self.strip) or self.parts is not None

    def __str__(self) -> str:
        """The options that set it."""
        options = [f"--id-strip {shlex.quote(text)}" for text in self.strip]
        return " ".join(options + ([] if self.parts is None else [f"--id-parts {self.parts}"]))

    def change(self, name: str) -> str:
        """An id of the embeddings under this rule."""
        for text in self.strip:
            name = name.removeprefix(text).removesuffix(text)
        return self.shorten(name)

    def shorten(self, name: str) -> str:
        """An id of the list under this rule: its last parts."""
        return name if self.parts is None else "/".join(_SEPARATORS.split(name)[-self.parts :])

    def change_all(self, ids: Sequence[str], source: str) -> list[str]:
        """The ids of embeddings under this rule.

        Raises:
            InputError: ids that become the same, or empty.
        """
        changed = [self.change(name) for name in ids]
        return self._apart(ids, changed, f"ids of {source}", "keep more parts, or strip less")

    def shorten_all(self, ids: Sequence[str], what: str) -> list[str]:
        """The ids of a list under this rule; each may occur several times.

        Raises:
            InputError: different ids that become the same.
        """
        if self.parts is None:
            return list(ids)
        whole = list(dict.fromkeys(ids))
        after = self._apart(whole, [*map(self.shorten, whole)], f"ids of {what}", "keep more parts")
        short = dict(zip(whole, after, strict=True))
        return [short[name] for name in ids]

    def _apart(self, before: Sequence[str], after: list[str], what: str, way: str) -> list[str]:
        double = [name for name, count in Counter(after).items() if count > 1 or not name]
        if double:
            were = [one for one, other in zip(before, after, strict=True) if other == double[0]][:2]
            examples = " and ".join(map(checks.shown, were))
            raise InputError(
                f"{what} must stay different and not empty under {self}; got {len(double):,} that do not: {examples} "
                f"become {checks.shown(double[0])}; {way}"
            )
        return after


AS_THEY_ARE = IdRule()


def stem(name: str) -> str:
    """An id without its image suffix.

    >>> stem("a/b.JPG"), stem("a/b.bin")
    ('a/b', 'a/b.bin')
    """
    head, dot, suffix = name.rpartition(".")
    return head if dot and f".{suffix.lower()}" in files.IMAGE_SUFFIXES else name


def propose(own: Sequence[str], asked: Sequence[str]) -> str:
    """The rule under which most ids of a list have an embedding, as a clause with its count; empty if none helps.

    >>> propose(["/lfw/A/A_1.jpg_x.bin", "/lfw/B/B_2.jpg_x.bin"], ["A/A_1", "B/B_2.jpg"])
    '--id-strip /lfw/ --id-strip .jpg_x.bin would match all 2'
    """
    wanted = list(dict.fromkeys(asked))
    best, most = AS_THEY_ARE, _matched(AS_THEY_ARE, own, wanted)
    for rule in dict.fromkeys(_candidates(own, wanted)):
        count = _matched(rule, own, wanted)
        if count > most:
            best, most = rule, count
        if most == len(wanted):
            break
    if not best:
        return ""
    return f"{best} would match {f'all {most:,}' if most == len(wanted) else f'{most:,} of the {len(wanted):,}'}"


def _candidates(own: Sequence[str], wanted: Sequence[str]) -> Iterator[IdRule]:
    """Rules to try, the simplest first."""
    for parts in range(_MOST_PARTS, 0, -1):
        yield IdRule(parts=parts)
    known = set(map(stem, own))
    for name in [name for name in wanted if stem(name) not in known][:_TRIED]:
        inner = stem(name)
        for tail in dict.fromkeys((inner, _SEPARATORS.split(inner)[-1])):
            whole = next((text for text in own if tail in text), None)
            if not tail or whole is None:
                continue
            before, _, after = whole.rpartition(tail)
            ending = () if stem(tail + after) == tail else (after,)
            yield IdRule((*((before,) if before else ()), *ending))
            yield IdRule(ending, len(_SEPARATORS.split(tail)))


def _matched(rule: IdRule, own: Sequence[str], wanted: Sequence[str]) -> int:
    """How many ids of the list would have an embedding; 0 if the rule makes different ids equal."""
    changed = {stem(rule.change(name)) for name in own}
    short = [stem(rule.shorten(name)) for name in wanted]
    if len(changed) < len(own) or len(set(short)) < len(wanted):
        return 0
    return sum(name in changed for name in short)
