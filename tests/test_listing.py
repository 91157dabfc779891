"""`angulus list`: every name is there with a sentence, and a wrong word is refused with the nearest."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable

import pytest
import torch

from angulus import backbones, data, losses
from angulus.backbones.about import ABOUT
from angulus.cli import listing
from angulus.cli import main as cli
from angulus.evaluation.registry import PROTOCOLS
from angulus.experiments import recipe

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def angulus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line; gives its exit code, output and errors."""

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["angulus", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err  # type: ignore[return-value]

    return command


NAMES = {
    "recipes": list(recipe.shipped()),
    "losses": losses.list_losses(),
    "backbones": backbones.list_backbones(),
    "protocols": list(PROTOCOLS),
    "datasets": data.list_datasets(),
}


@pytest.mark.parametrize("kind", NAMES)
def test_every_name_is_listed_with_one_line(kind: str, angulus: Run) -> None:
    code, out, err = angulus("list", kind)
    assert (code, err) == (0, "")
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert sorted(name for name, _ in lines) == sorted(NAMES[kind])
    assert all(len(about) > 10 for _, about in lines)
    assert set(NAMES) <= set(listing.KINDS)


def test_part_of_a_name_filters_and_json_is_for_machines(angulus: Run) -> None:
    code, out, _ = angulus("list", "backbones", "ResNet", "--json")
    entries = json.loads(out)
    assert code == 0
    assert [entry["name"] for entry in entries] == ["inception_resnet_v1", "resnet34", "resnet50", "slim_resnet"]
    assert all(entry["about"] == ABOUT[entry["name"]] for entry in entries)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("backbone",), "KIND must be one of 'recipes', .*got 'backbone'; did you mean 'backbones'?"),
        (("losses", "arcfase"), "no name of losses contains 'arcfase'; did you mean 'arcface'?; to see all: "),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest(arguments: tuple[str, ...], sentence: str, angulus: Run) -> None:
    code, out, err = angulus("list", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(re.sub(r"([?])", r"\\\1", sentence), err)


@pytest.mark.parametrize("name", backbones.list_backbones())
def test_the_size_in_a_backbones_sentence_is_one_that_it_takes(name: str) -> None:
    sizes = re.findall(r"\d+(?:x\d+)+", ABOUT[name].replace("3x3", ""))
    (size,) = sizes
    sides = tuple(map(int, size.split("x")))
    channels = 1 if name in ("luna_fusion", "light_cnn9") or name.startswith("luna") else 3
    with torch.device("meta"):
        net = backbones.build(name, in_channels=channels, image_size=sides, embedding_size=16)
    assert tuple(net.image_size) == sides  # type: ignore[arg-type]
    assert set(ABOUT) == set(backbones.list_backbones())
