"""What is secret by its name, and what is not."""

from __future__ import annotations

import time

import pytest

from angulus.core import redact


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("token", "abc", True),
        ("data.options.hfToken", "abc", True),
        ("AWS_SECRET_ACCESS_KEY", "abc", True),
        ("api-key", "abc", True),
        ("password", 1234, True),
        ("class_token", False, False),
        ("num_tokens", 4, False),
        ("monkey", "abc", False),
        ("tokenizer", "abc", False),
        ("megaface/facescrub_key list", "abc", False),
        ("training.seed", "abc", False),
    ],
)
def test_a_name_says_whether_its_value_is_secret(name: str, value: object, secret: bool) -> None:
    assert redact.is_secret(name, value) == secret
    assert redact.values({name: value}) == {name: redact.MASK if secret else value}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("a.b={x: {api_key: 'a b', y: 2}}", "a.b={x: {api_key: ***, y: 2}}"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("https://u:p@h:80/x?access_token=zz&b=1", "https://***@h:80/x?access_token=***&b=1"),
        ("s3://key:sec@bucket/p", "s3://***@bucket/p"),
        ('data={options: {password: "p q"}}', "data={options: {password: ***}}"),
        ("training.seed=1", "training.seed=1"),
        ("git@github.com:name", "git@github.com:name"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_secrets_within_a_text_are_masked(text: str, masked: str) -> None:
    assert redact.text(text) == masked


def test_a_message_loses_what_the_command_line_holds() -> None:
    words = ["train", "demo", "data.options={token: s3cr3t}", "--password", "hunter2", "--api-key=zzzz", "x.key=ab"]
    assert redact.within("got 's3cr3t', hunter2 and zzzz", words) == "got '***', *** and ***"
    assert redact.within("a table about", words) == "a table about"  # ab is too short to be looked for
    assert redact.command(words)[2:] == [
        "data.options={token: ***}", "--password", "***", "--api-key=***", "x.key=***",
    ]  # fmt: skip


def test_long_texts_take_no_longer_than_their_length() -> None:
    for text in ("x" * 3_000_000, "a." * 500_000, "a " * 500_000, "://" * 300_000):
        start = time.perf_counter()
        redact.text(text)
        redact.values({"a": text + "https://host"})
        assert time.perf_counter() - start < 20, text[:5]
