"""`angulus list`: every name is there with a sentence, and a wrong word is refused with the nearest."""

from __future__ import annotations

import inspect
import json
import re
import runpy
import shlex
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from angulus import backbones, data, losses
from angulus.backbones.about import ABOUT
from angulus.cli import listing
from angulus.evaluation.registry import PROTOCOLS
from angulus.experiments import recipe
from angulus.experiments.recipe_keys import list_keys

Run = Callable[..., tuple[int, str, str]]


NAMES = {
    "recipes": list(recipe.shipped()),
    "losses": losses.list_losses(),
    "backbones": backbones.list_backbones(),
    "protocols": list(PROTOCOLS),
    "datasets": data.list_datasets(),
    "keys": [key.path for key in list_keys()],
}


@pytest.mark.parametrize("kind", NAMES)
def test_every_name_is_listed_with_one_line(kind: str, angulus: Run) -> None:
    code, out, err = angulus("list", kind)
    assert (code, err) == (0, "")
    table, _, after = out.partition("\n\n")
    assert bool(after) == (kind in ("losses", "backbones"))
    lines = [line.split(maxsplit=1) for line in table.splitlines()]
    assert sorted(name for name, _ in lines) == sorted(NAMES[kind])
    assert all(len(about) > 10 for _, about in lines)
    assert set(NAMES) == set(listing.KINDS)


def test_part_of_a_name_filters_and_json_is_for_machines(angulus: Run) -> None:
    code, out, _ = angulus("list", "backbones", "ResNet", "--json")
    entries = json.loads(out)
    assert code == 0
    assert [entry["name"] for entry in entries] == ["inception_resnet_v1", "resnet34", "resnet50", "slim_resnet"]
    assert all(entry["about"] == ABOUT[entry["name"]] for entry in entries)


def test_nets_of_timm_are_listed_where_they_are_asked_for(angulus: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"vit_a": types.SimpleNamespace(input_size=(3, 24, 32)), "vit_b": None, "resnet_a": None}
    toy = types.SimpleNamespace(list_models=lambda: list(sizes), get_pretrained_cfg=sizes.get)
    monkeypatch.setitem(sys.modules, "timm", toy)
    code, out, err = angulus("list", "backbones", "timm:ViT")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "timm:vit_a  A net of timm, for images of 24x32 pixels.",
        "timm:vit_b  A net of timm.",
    ]
    code, out, _ = angulus("list", "backbones", "timm", "--json")
    assert (code, len(json.loads(out))) == (0, 3)
    code, _, err = angulus("list", "backbones", "timm:vit_bb")
    assert code == 2
    assert err.endswith(
        "contains 'timm:vit_bb'; did you mean 'timm:vit_b'?; to see all: angulus list backbones timm:\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("backbone",), "KIND must be one of 'recipes', .*got 'backbone'; did you mean 'backbones'?"),
        (("keys", "epochs"), "no name of keys starts with 'epochs'"),
        (
            ("backbones", "vit"),
            "no name of backbones contains 'vit'; for nets of timm: angulus list backbones timm:vit",
        ),
        (("losses", "arcfase"), "no name of losses contains 'arcfase'; did you mean 'arcface'?; to see all: "),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest(arguments: tuple[str, ...], sentence: str, angulus: Run) -> None:
    code, out, err = angulus("list", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(re.sub(r"([?])", r"\\\1", sentence), err)


@pytest.mark.parametrize("name", losses.list_losses())
def test_a_loss_by_its_whole_name_shows_formula_parameters_and_defaults(name: str, angulus: Run) -> None:
    code, out, _ = angulus("list", "losses", name)
    assert code == 0
    assert f"formula with the defaults: {losses.ALIASES[name]().formula()}" in out and "Source: " in out
    entries = inspect.signature(losses.ALIASES[name]).parameters
    shown = dict(re.findall(r"^    (\w+) +(\S.*)$", out, flags=re.M))
    assert list(shown) == list(entries)
    for key, entry in entries.items():
        if isinstance(entry.default, float):
            assert float(shown[key]) == entry.default
    ((which, command),) = re.findall(r"^  angulus train (\S+) (.*)$", out, flags=re.M)
    loaded, made = recipe.load(which, shlex.split(command)).objective, losses.build(name)
    if made.radius is not None or any(term.penalty.trains_classes for term in made.penalties):
        assert f"kind: {name}" in command
    else:
        assert name in {term.penalty.name for term in loaded.penalties} | {term.name for term in loaded.feature_terms}
    found = json.loads(angulus("list", "losses", name, "--json")[1])
    assert [set(item["parameters"]) for item in found if item["name"] == name] == [set(entries)]


def test_every_key_of_a_recipe_has_a_type_a_default_and_a_description() -> None:
    keys = {key.path: key for key in list_keys()}
    assert len(keys) == len(list_keys()) > 100
    for key in keys.values():
        assert key.about.endswith(".") and len(key.about) > 12, f"{key.path} needs a docstring"
        assert not key.about.startswith(" ") and key.type
    assert keys["training.optimizer.lr"].default == "0.1 (sgd); 0.001 (adamw and rmsprop)"
    assert keys["training.schedule.milestones"].type == "a list of numbers above 0"
    assert keys["training.schedule.milestones"].default == "required"
    assert keys["input.size"].type == "a list of 2 whole numbers or null"
    assert keys["validation"].type == "a section or null"
    assert keys["head.sharded"].type == "true, false or auto"
    assert keys["rows.NAME.what"].about == "The table and its row, in words."


@pytest.mark.parametrize("name", sorted(recipe.shipped()))
def test_the_keys_of_a_recipe_are_listed(name: str) -> None:
    paths = {key.path for key in list_keys()}
    by_name = {"objective", "data.options", "backbone.options", "needs", "chosen_by_us", "compare.variants"}
    by_name |= {"compare.sweep", "compare.folds", "published.accuracy", "published.mean_norm", "published.columns"}
    by_name.add("compare.choose.settings")

    def visit(value: object, path: str) -> None:
        assert path in paths
        if path == "evaluation.benchmarks" and isinstance(value, list):
            assert {f"{path}[].{key}" for benchmark in value for key in benchmark} <= paths
        elif path == "rows" and isinstance(value, dict):
            assert {f"{path}.NAME.{key}" for claim in value.values() for key in claim} <= paths
        elif isinstance(value, dict) and path not in by_name:
            for key, inner in value.items():
                visit(inner, f"{path}.{key}")

    for key, value in recipe.read(name).items():
        visit(value, key)


def test_keys_start_with_the_given_part(angulus: Run) -> None:
    code, out, _ = angulus("list", "keys", "training.opt")
    assert code == 0
    assert all(line.startswith("training.optimizer") for line in out.splitlines())
    assert re.search(r"optimizer\.nesterov +true or false, by default false\. Nesterov momentum; needs a mom", out)


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


def test_the_sites_page_of_keys_has_a_row_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs", reason="needs mkdocs, which builds the site")
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "docs")
    page = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "site_pages.py"))["_keys"]()
    rows = re.findall(r"^\| `([^`]+)` \|", page, flags=re.M)
    assert sorted(rows) == sorted(key.path for key in list_keys())
    assert all(line.count("|") == 3 for line in page.splitlines() if line.startswith("| `"))
