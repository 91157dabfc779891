"""Keep secrets out of files, reports and messages: mask values by the names of their keys, and users in URLs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

MASK = "***"
# words in a name that make it secret: always, or only if the value is text (token: false is a setting)
SECRET = {"password", "passwd", "passphrase", "pwd", "secret", "secrets", "credential", "credentials"}
OFTEN = {"token", "tokens", "key", "keys", "apikey", "auth", "authorization", "bearer", "cookie", "signature", "sig"}

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_NAME = re.compile(r"[\w.-]+")
_USER = re.compile(r"((?<![\w+.-])[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s?#@]*@")
_PAIR = re.compile(  # name=value or name: value, within a flow mapping, a header or the query of a URL
    r"""(?<![\w.-])(?P<name>[\w.-]+)(?P<between>["']?(?:=|:\s)\s*)(?P<value>"[^"]*"|'[^']*'|(?:(?:Bearer|Basic)\s+)?[^\s,&{}\[\]]+)"""
)


def is_secret(name: str, value: object = "") -> bool:
    """Whether a key of this name holds a secret; the last part of a dotted one counts.

    >>> is_secret("data.options.api_key"), is_secret("monkey"), is_secret("class_token", False)
    (True, False, False)
    """
    if not _NAME.fullmatch(name):
        return False
    words = {word.lower() for word in _WORDS.findall(name.rpartition(".")[2])}
    return bool(words & SECRET) or bool(words & OFTEN and isinstance(value, str))


def values(value: Any, name: str = "") -> Any:
    """Nested mappings and lists with secrets masked; other values unchanged.

    >>> values({"url": "https://me:pass@host/x", "options": {"token": "abc", "fold": 1}})
    {'url': 'https://***@host/x', 'options': {'token': '***', 'fold': 1}}
    """
    if isinstance(value, Mapping):
        return {key: values(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [values(item, name) for item in value]
    if value not in (None, "") and not isinstance(value, bool) and is_secret(name, value):
        return MASK
    return text(value) if isinstance(value, str) and "://" in value else value


def text(line: str) -> str:
    """A text with users of URLs and secret values masked.

    >>> text("data.options={token: abc, fold: 1} https://me:pass@host/?key=xyz&n=2")
    'data.options={token: ***, fold: 1} https://***@host/?key=***&n=2'
    """
    line, place = _USER.sub(rf"\1{MASK}@", line), 0
    while (pair := _PAIR.search(line, place)) is not None:
        place = pair.start("value")  # the value may hold names too, as in data.root=https://host/?key=xyz
        if is_secret(pair["name"]):
            line = line[:place] + MASK + line[pair.end() :]
            place += len(MASK)
    return line


def command(words: Sequence[str]) -> list[str]:
    """A command line with secrets masked: `key.path=value`, `--name value` and `--name=value`.

    >>> command(["train", "demo", "data.options.token=a b", "--password", "x"])
    ['train', 'demo', 'data.options.token=***', '--password', '***']
    """
    return [MASK if secret else _word(word) for word, secret in _words(words)]


def within(message: str, words: Iterable[str]) -> str:
    """A message with the secrets of a command line masked wherever they occur."""
    for secret in sorted(_secrets(words), key=len, reverse=True):
        message = message.replace(secret, MASK)
    return _USER.sub(rf"\1{MASK}@", message)


def _words(words: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Each word, and whether it is the value of an option with a secret's name."""
    follows = False
    for word in words:
        yield word, follows
        follows = not follows and word.startswith("--") and "=" not in word and is_secret(word.lstrip("-"))


def _word(word: str) -> str:
    name, equals, _ = word.partition("=")
    return f"{name}={MASK}" if equals and is_secret(name.lstrip("-")) else text(word)


def _secrets(words: Iterable[str]) -> set[str]:
    """The values that `command` masks."""
    secrets: set[str] = set()
    for word, secret in _words(words):
        name, equals, value = word.partition("=")
        if secret:
            secrets.add(word)
        elif equals and is_secret(name.lstrip("-")):
            secrets |= {value, value.strip("\"'")}
        else:
            pairs = [*_PAIR.finditer(word), *_PAIR.finditer(value)]
            secrets |= {pair["value"].strip("\"'") for pair in pairs if is_secret(pair["name"])}
    return {secret for secret in secrets if len(secret) > 3}  # shorter ones occur in other words by chance
