"""Recipes: those that ship, errors in one sentence, overrides and variants, and what is written back."""

from __future__ import annotations

import datetime
import itertools
import math
from pathlib import Path
from typing import Any

import pytest

import tiny
from angulus import losses
from angulus.core.checks import InputError
from angulus.experiments import overrides, recipe
from angulus.losses.serialize import from_mapping

SHIPPED = sorted(path.stem for folder in recipe.FOLDERS if folder.is_dir() for path in folder.glob("*.yaml"))


# those that ship


def test_the_recipes_that_ship() -> None:
    assert {"demo", "cm-t1a", "cm-t2", "cm-t2-lenet5"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_and_variant_is_valid_and_comes_back_from_yaml(name: str, tmp_path: Path) -> None:
    content = recipe.read(name)
    loaded = recipe.validate(content)
    assert loaded.name == name
    assert loaded.compare is not None
    path = tmp_path / "resolved.yaml"
    for variant, changes in loaded.compare.variants.items():
        single = recipe.validate(recipe.variant(content, changes, 3))
        assert single.training.seed == 3
        path.write_text(recipe.to_yaml(single), encoding="utf-8")
        assert recipe.load(str(path)) == single, variant
    path.write_text(recipe.to_yaml(loaded), encoding="utf-8")
    assert recipe.load(str(path)) == loaded


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_shipped_recipe_publishes_is_of_its_variants(name: str) -> None:
    loaded = recipe.load(name)
    if loaded.published is not None:
        assert loaded.compare is not None
        for table in (loaded.published.accuracy, loaded.published.mean_norm):
            assert table.keys() <= loaded.compare.grid.keys()
            assert all(row.keys() <= {"good", "low", "entire"} for row in table.values())


@pytest.mark.parametrize("name", ["demo", "DEMO", "demo.yaml", "recipes/demo.yaml", "./Demo"])
def test_a_shipped_recipe_is_found_by_its_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe.read(name)["name"] == "demo"


def test_a_file_comes_before_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo.yaml").write_text("name: mine")
    assert recipe.read("demo.yaml")["name"] == "mine"


@pytest.mark.parametrize(("file", "name"), [("shapes.yaml", "shapes"), ("my shapes (2).yaml", "my-shapes-2")])
def test_a_recipe_without_name_and_title_takes_those_of_its_file(file: str, name: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(
        "data: {name: digits}\nbackbone: {name: small, embedding_size: 4}\nobjective: {kind: arcface}"
    )
    loaded = recipe.load(tmp_path / file)
    assert (loaded.name, loaded.title) == (name, name)
    assert recipe.load(tmp_path / file, ["name=other"]).name == "other"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("demmo", "; did you mean 'demo'?"), ("cm-t2-lenet6", "; did you mean 'cm-t2-lenet5'?"), ("zzz", "; give a")],
)
def test_an_unknown_recipe_suggests_the_nearest_and_lists_all(name: str, hint: str) -> None:
    with pytest.raises(InputError) as raised:
        recipe.read(name)
    assert str(raised.value).startswith(f"there is no recipe {name!r}{hint}")
    assert all(each in str(raised.value) for each in SHIPPED)


def test_a_shipped_name_in_a_strange_folder_is_not_taken_for_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no recipe '.*demo.yaml'; did you mean 'demo'\?"):
        recipe.read(str(tmp_path / "demo.yaml"))


# what is written back


def test_the_resolved_recipe_stores_pieces_and_all_defaults() -> None:
    loaded = tiny.validated(
        "objective={kind: arcface, s: 64, m: 0.5, iam: {beta: 0.1}}", "training.optimizer={kind: adamw}"
    )
    assert loaded.objective == losses.arcface(64, 0.5) + losses.iam(0.1)
    written = recipe.parse_yaml(recipe.to_yaml(loaded))
    assert "kind" not in written["objective"]
    assert written["objective"]["radius"] == {"kind": "fixed", "s": 64}
    assert written["objective"]["margin"]["kind"] == "additive_angle"
    assert written["objective"]["margin"]["m"] == 0.5
    assert written["objective"]["iam"]["beta"] == 0.1
    assert from_mapping(written["objective"]) == loaded.objective
    assert written["training"]["optimizer"]["lr"] == 1e-3  # the default of adamw, written out
    assert written["compare"] is None


@pytest.mark.parametrize(
    "objective",
    [
        "{kind: cm_m_softmax, margin: {kind: additive_angle, m: 0.5}, gamma: auto}",
        "{kind: sphereface, m: 4, annealing: {start: 100, low: 1, rate: 0.5}}",
        "{kind: mv_softmax, s: 32, margin: {kind: additive_cosine, m: 0.35}, t: 0.2, mode: adaptive}",
        "{kind: focal_softmax, s: 30, gamma: 2}",
        "{kind: softmax, bias: true, center_loss: {lam: 0.01}, feature_incay: {lam: 0.1, weight: 0.5}}",
        "{kind: normface, eps: 1e-5}",
        "{kind: normface, c_triplet: {m: 0.8, center: gated, weight: 0.1}}",
    ],
)
def test_a_resolved_recipe_resolves_to_itself(objective: str, tmp_path: Path) -> None:
    loaded = tiny.validated(f"objective={objective}")
    path = tmp_path / "resolved.yaml"
    path.write_text(recipe.to_yaml(loaded), encoding="utf-8")
    again = recipe.load(str(path))
    assert again == loaded
    assert recipe.to_yaml(again) == recipe.to_yaml(loaded)


def test_an_objective_that_is_a_plain_name_says_how_to_write_it() -> None:
    with pytest.raises(InputError, match=r"objective must be a mapping .*'arcface'; .* set objective\.kind=arcface"):
        tiny.validated("objective=arcface")


# YAML


def test_numbers_are_numbers_and_words_are_words() -> None:
    read = recipe.parse_yaml("{a: 1e-4, b: off, c: yes, d: no, e: 5E3, f: .5, g: true, h: null, i: 010, j: '1e-4'}")
    assert read == {
        "a": 1e-4, "b": "off", "c": "yes", "d": "no", "e": 5000.0, "f": 0.5, "g": True, "h": None, "i": 10, "j": "1e-4",
    }  # fmt: skip
    assert isinstance(read["a"], float)


def test_a_small_rate_is_a_number_in_a_recipe_and_in_an_override() -> None:
    assert tiny.validated("training.optimizer.lr=1e-4").training.optimizer.lr == 1e-4
    with pytest.raises(InputError, match=r"training.optimizer.nesterov must be a valid boolean; got 'off'"):
        tiny.validated("training.optimizer.nesterov=off")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: [unclosed", "is not YAML"),
        ("name: a\nname: b", "is not YAML: .*duplicate key"),
        ("\tname: a", "is not YAML"),
        ("- a\n- b", "must be a mapping of keys to values; got list"),
        ("just words", "must be a mapping of keys to values; got str"),
        ("", "must be a mapping of keys to values; got NoneType"),
    ],
)
def test_a_file_that_holds_no_recipe_is_refused_in_one_line(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"recipe .*bad.yaml {sentence}") as raised:
        recipe.read(str(path))
    assert "\n" not in str(raised.value)


def bomb(anchors: int, width: int) -> str:
    """Lists of aliases of lists: width ** anchors values in a kilobyte."""
    lines = ["a0: &a0 [" + ", ".join("x" * width) + "]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * width) + "]" for n in range(1, anchors)]
    return "\n".join(lines)


BOMBS = {
    "aliases": (bomb(9, 9), "must hold at most 50,000 values, aliases written out"),
    "aliases of a long text": (
        "a: &a " + "x" * 100_000 + "\nb: [" + ", ".join(["*a"] * 100) + "]",
        "must hold at most 2,000,000 letters, aliases written out; got 10,100,002",
    ),
    "an alias of itself": ("a: &a [*a]", "must nest lists and mappings at most 64 deep"),
    "deep": ("a: " + "[" * 100 + "]" * 100, "must nest lists and mappings at most 64 deep"),
    "very deep": ("a: " + "[" * 20_000 + "]" * 20_000, "is not YAML: "),
    "a number of 5,000 digits": ("a: " + "9" * 5_000, "is not YAML: "),
    "a date that is none": ("a: 2020-13-45", "is not YAML: "),
    "a tag": ("a: !!int x", "is not YAML: "),
    "a long file": ("a: " + "x" * 3_000_000, "must hold at most 2,000,000 letters"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_small_file_fills_no_memory(case: str, tmp_path: Path) -> None:
    text, sentence = BOMBS[case]
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"recipe .*bomb.yaml {sentence}"):
        recipe.load(str(path))
    with pytest.raises(InputError, match=rf"the value of override .* {sentence}"):
        tiny.validated("title={" + text.replace("\n", ", ") + "}")


def test_every_shipped_recipe_is_far_from_the_limits() -> None:
    for path in recipe.shipped().values():
        assert path.stat().st_size < overrides.MOST_LETTERS / 50


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"name: \xff\xfe\xfa")
    with pytest.raises(InputError, match=r"recipe .*bad.yaml is not YAML"):
        recipe.read(str(path))


# the schema


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("nmae=x", "a recipe has no key 'nmae'; did you mean 'name'?; known here: name, title, data"),
        ("epochs=3", "a recipe has no key 'epochs'; did you mean 'training.epochs'?; known here: name, "),
        ("training.epoch=1", "no key 'training.epoch'; did you mean 'epochs'?; known here: training.epochs, training."),
        ("training.optimizer.weight_decy=1", "did you mean 'weight_decay'?; known here: training.optimizer.kind, "),
        ("training.optimizer.zzz=1", "no key 'training.optimizer.zzz'; known here: training.optimizer.kind, "),
        ("input.std=1", "a recipe has no key 'input.std'; known here: input.mean, input.scale"),  # nothing is near
        ("compare={seeds: [0], variants: {a: {}}, seed: 1}", "no key 'compare.seed'; did you mean 'seeds'?"),
        ("published={source: x, acuracy: {}}", "no key 'published.acuracy'; did you mean 'accuracy'?"),
        ("evaluation.low=0.1", "a recipe has no key 'evaluation.low'; "),
        ("training.title=x", "a recipe has no key 'training.title'; known here: training.epochs, "),
        (
            "rows={A-T1: {whta: x, what: y}}",
            "no key 'rows.A-T1.whta'; did you mean 'what'?; known here: rows.A-T1.what",
        ),
        (
            "evaluation.benchmarks=[{name: a, protocol: b, columns: {}, image: x}]",
            "no key 'evaluation.benchmarks.0.image'; did you mean 'images'?",
        ),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(override: str, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        tiny.validated(override)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.epochs=one", "training.epochs must be a valid integer; got 'one'"),
        ("training.epochs=2.5", "training.epochs must be a valid integer; got 2.5"),
        ("training.epochs=true", "training.epochs must be a valid integer; got True"),
        ("training.epochs='2'", "training.epochs must be a valid integer; got '2'"),
        ("training.optimizer.lr=fast", "training.optimizer.lr must be a valid number; got 'fast'"),
        (
            "training.optimizer.kind=sdg",
            "training.optimizer.kind must be one of 'sgd', 'adamw', 'rmsprop'; got 'sdg'; did you mean 'sgd'?",
        ),
        ("training.optimizer.kind=5", "training.optimizer.kind must be one of 'sgd', 'adamw', 'rmsprop'; got '5'"),
        ("training.optimizer=5", "training.optimizer must be a mapping of keys to values; got 5"),
        ("head.sharded=maybe", "head.sharded must be True, False or 'auto'; got 'maybe'"),
        ("training.precision=float16", "training.precision must be 'float32' or 'bfloat16'; got 'float16'"),
        ("training=5", "training must be a mapping of keys to values; got 5"),
        ("training.schedule={kind: steps, milestones: [a]}", "training.schedule.milestones.0 must be a valid"),
        ("title=5", "title must be a valid string; got 5"),
        ("compare={seeds: [0], variants: {a: 3}}", "compare.variants.a must be a mapping of keys to values; got 3"),
        ("training.optimizer.lr=-1", "training.optimizer.lr must be above 0; got -1"),
        ("training.optimizer.lr=.nan", "training.optimizer.lr must be a finite number; got nan"),
        ("training.optimizer.lr=.inf", "training.optimizer.lr must be a finite number; got inf"),
        ("input.scale=0", "input.scale must be a finite number > 0; got 0"),
        ("evaluation.low_fraction=1", "evaluation.low_fraction must be below 1; got 1"),
        ("evaluation.batch_size=0", "evaluation.batch_size must be at least 1; got 0"),
        ("data.name=digts", "data.name must be one of 'digits', 'mnist', "),
        ("backbone.name=lenet6", "backbone.name must be one of 'lenet5', 'lenet++', 'small', "),
        ("backbone.embedding_size=0", "backbone.embedding_size must be at least 1; got 0"),
        ("compare={seeds: [], variants: {a: {}}}", "compare needs at least one variant and one seed"),
        ("compare={seeds: [0], variants: {}}", "compare needs at least one variant and one seed"),
        ("compare={seeds: [1, 1], variants: {a: {}}}", "compare.seeds must differ; got [1, 1]"),
        (
            "compare={seeds: [0], variants: {Soft: {}}, quality_split: Sof}",
            "compare.quality_split must be one of 'Soft'; got 'Sof'; did you mean 'Soft'?",
        ),
    ],
)
def test_a_wrong_value_is_named(override: str, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        tiny.validated(override)
    assert str(raised.value).startswith(sentence)


@pytest.mark.parametrize("key", ["name", "title", "data", "backbone", "objective"])
def test_a_missing_key_is_named(key: str) -> None:
    content = tiny.content()
    del content[key]
    with pytest.raises(InputError, match=f"^the recipe needs {key}$"):
        recipe.validate(content)


def test_a_missing_key_further_in_is_named_with_its_path() -> None:
    with pytest.raises(InputError, match=r"^the recipe needs backbone.embedding_size$"):
        tiny.validated("backbone={name: small}")


def test_the_first_three_faults_are_told() -> None:
    with pytest.raises(InputError) as raised:
        recipe.validate({})
    assert str(raised.value) == "the recipe needs name; the recipe needs title; the recipe needs data"


def test_what_is_no_plain_value_is_refused() -> None:
    circle: dict[str, Any] = tiny.content()
    circle["data"] = circle
    for content in (circle, {**tiny.content(), datetime.date(2020, 1, 1): 1}):
        with pytest.raises(InputError, match="a recipe must be plain keys and values: "):
            recipe.validate(content)


@pytest.mark.parametrize(
    ("objective", "sentence"),
    [
        ("5", "objective must be a mapping of keys to values; got 5"),
        ("{kind: arcfce}", "objective.kind must be one of .* got 'arcfce'; did you mean 'arcface'"),
        ("{radius: {kind: fixed}}", "radius fixed needs s"),
        ("{kind: arcface, s: 64, m: 0.5, mm: 1}", "arcface has no parameter 'mm'; did you mean 'm'"),
        ("{kind: arcface, s: '64', m: 0.5}", "s must be a number > 0; got '64'"),
        ("{kind: arcface, s: -1, m: 0.5}", "s must be a finite number > 0; got -1"),
        ("{kind: normface, iam: {bta: 1}}", "iam has no parameter 'bta'; did you mean 'beta'"),
        ("{radius: 5}", "radius must be a mapping with a kind"),
        ("{radius: {kind: fixd}}", "radius.kind must be one of .* got 'fixd'; did you mean 'fixed'"),
        ("{radius: {kind: fixed, s: 5}, margn: null}", "an objective has no piece 'margn'; did you mean 'margin'"),
        ("{kind: softmax, iam: {beta: 0.1}}", "iam takes its scale from a base with one s"),
    ],
)
def test_what_is_wrong_with_an_objective_is_told(objective: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        tiny.validated(f"objective={objective}")


# overrides


def test_an_override_changes_one_value_and_not_what_it_was_given() -> None:
    before = tiny.content()
    after = recipe.override(before, ["training.epochs=7", "training.optimizer.lr=0.5"])
    assert after["training"].pop("epochs") == 7
    assert after["training"]["optimizer"].pop("lr") == 0.5
    assert before == tiny.CONTENT
    del before["training"]["epochs"], before["training"]["optimizer"]["lr"]
    assert after == before


def test_overrides_apply_in_their_order() -> None:
    assert tiny.validated("training.epochs=3", "training.epochs=4").training.epochs == 4


def test_a_kind_takes_what_other_overrides_give_in_any_order() -> None:
    content = tiny.content()
    given = ["training.optimizer.lr=0.007", "training.optimizer.kind=adamw", "training.optimizer.weight_decay=0.1"]
    for order in itertools.permutations(given):
        found = recipe.override(content, order)["training"]["optimizer"]
        assert found == {"kind": "adamw", "lr": 0.007, "weight_decay": 0.1}
    whole = ["training.schedule={kind: steps, milestones: [1]}", "training.schedule.kind=one_cycle"]
    assert recipe.override(content, whole)["training"]["schedule"] == {"kind": "one_cycle"}


def test_a_new_kind_clears_what_belonged_to_the_old_one_and_the_same_kind_does_not() -> None:
    content = tiny.content("objective={kind: arcface, s: 64, m: 0.5, iam: {beta: 0.1}}")
    assert recipe.override(content, ["objective.kind=normface"])["objective"] == {"kind": "normface"}
    assert recipe.override(content, ["objective.kind=arcface"])["objective"] == content["objective"]
    changed = recipe.override(content, ["objective.kind=cosface", "objective.s=30", "objective.m=0.35"])
    assert changed["objective"] == {"kind": "cosface", "s": 30, "m": 0.35}
    assert tiny.validated("training.optimizer.kind=adamw").training.optimizer.lr == 1e-3  # not SGD's 0.05


def test_a_mapping_without_a_kind_is_of_the_default_one() -> None:
    changed = tiny.content("training.schedule={final: 0.1}", "training.schedule.kind=plateau")
    assert changed["training"]["schedule"] == {"kind": "plateau"}
    changed = tiny.content("training.optimizer={lr: 1, momentum: 0.5}", "training.optimizer.kind=sgd")
    assert changed["training"]["optimizer"] == {"kind": "sgd", "lr": 1, "momentum": 0.5}


# keys of another kind

SCHEDULES = {
    "constant": "", "steps": "milestones factor", "cosine": "final", "one_cycle": "final", "polynomial": "power",
    "plateau": "factor patience drops",
}  # fmt: skip
VALUES = {"milestones": "[2]", "factor": "0.1", "power": "1.0", "final": "0.0", "patience": "3", "drops": "3"}


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("key", VALUES)
def test_a_key_of_another_schedule_is_refused_whatever_its_value(kind: str, key: str) -> None:
    milestones = ", milestones: [1]" if kind == "steps" and key != "milestones" else ""
    given = f"training.schedule={{kind: {kind}, {key}: {VALUES[key]}{milestones}}}"
    if key in SCHEDULES[kind]:
        assert getattr(tiny.validated(given).training.schedule, key) == recipe.parse_yaml(VALUES[key])
        return
    takes = " or ".join(each for each, keys in SCHEDULES.items() if key in keys)
    with pytest.raises(InputError) as raised:
        tiny.validated(given)
    assert str(raised.value) == f"training.schedule.{key} applies only to kind {takes}, but kind is {kind}. Remove it."


@pytest.mark.parametrize(
    ("optimizer", "sentence"),
    [
        (
            "{kind: adamw, momentum: 0.9}",
            "training.optimizer.momentum applies only to kind sgd or rmsprop, but kind is adamw. Remove it.",
        ),
        (
            "{kind: rmsprop, nesterov: false}",
            "training.optimizer.nesterov applies only to kind sgd, but kind is rmsprop. Remove it.",
        ),
    ],
)
def test_a_key_of_another_optimizer_is_refused(optimizer: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        tiny.validated(f"training.optimizer={optimizer}")


def test_a_kind_on_the_command_line_takes_the_keys_of_the_former_away() -> None:
    loaded = recipe.load("fi-t2-mnist", ["training.epochs=3", "training.schedule.kind=one_cycle"])
    assert loaded.training.schedule.kind == "one_cycle"
    with pytest.raises(InputError, match=r"schedule.patience applies only to kind plateau, but kind is one_cycle"):
        recipe.load("fi-t2-mnist", ["training.schedule.kind=one_cycle", "training.schedule.patience=2"])
    with pytest.raises(InputError, match=r"schedule.milestones applies only to kind steps, but kind is plateau"):
        recipe.load("fi-t2-mnist", ["training.schedule.milestones=[1]"])


def test_a_resolved_recipe_has_only_the_keys_of_its_kinds() -> None:
    loaded = tiny.validated("training.optimizer={kind: adamw}", "training.schedule={kind: cosine, final: 0.1}")
    written = recipe.parse_yaml(recipe.to_yaml(loaded))
    assert written["training"]["schedule"] == {"kind": "cosine", "warmup_epochs": 0.0, "final": 0.1}
    assert "momentum" not in written["training"]["optimizer"]


def test_every_key_of_the_schema_has_a_type() -> None:
    schema = recipe.SCHEMA.json_schema()
    assert schema["$defs"]["Training"]["properties"]["epochs"] == {
        "default": 10, "description": "Passes over the training images.", "minimum": 1, "title": "Epochs",
        "type": "integer",
    }  # fmt: skip
    kinds = schema["$defs"]["Training"]["properties"]["optimizer"]["oneOf"]
    assert [kind["$ref"].rsplit("/")[-1] for kind in kinds] == ["SGD", "AdamW", "RMSProp"]


# what a paper reports

PUBLISHED = [
    "compare={seeds: [0], variants: {Soft: {}, Arc: {}}}",
    "published={source: x, accuracy: {Soft: {low: 1}}, mean_norm: {Arc: {entire: 2}}}",
]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "accuracy={Sof: {low: 1}}",
            "a variant of published must be one of 'Soft', 'Arc'; got 'Sof'; did you mean 'Soft'?",
        ),
        ("mean_norm={Ring: {low: 1}}", "a variant of published must be one of 'Soft', 'Arc'; got 'Ring'"),
        ("columns={Ark: {LFW %: 1}}", "a variant of published must be one of 'Soft', 'Arc'; got 'Ark'"),
        ("accuracy={Soft: {lo: 1}}", "got 'accuracy lo %'; did you mean 'accuracy low %'?"),
        ("columns={Soft: {LFW %: 1}}", "a column of published for 'Soft' must be one of 'accuracy good %', "),
    ],
)
def test_published_numbers_of_what_the_table_does_not_have_are_refused(override: str, sentence: str) -> None:
    assert tiny.validated(*PUBLISHED).published is not None
    with pytest.raises(InputError) as raised:
        tiny.validated(*PUBLISHED, f"published.{override}")
    assert sentence in str(raised.value)
    content = tiny.content(*PUBLISHED)  # as in a file
    table, _, value = override.partition("=")
    content["published"][table] = recipe.parse_yaml(value)
    with pytest.raises(InputError):
        recipe.validate(content)


def test_overrides_take_published_numbers_away_with_their_variants_and_columns() -> None:
    content = tiny.content(*PUBLISHED, "rows={A-T1: {what: x, column: norm low}}")
    fewer = recipe.validate(recipe.override(content, ["compare.variants={Arc: {}}"])).published
    assert fewer is not None
    assert (fewer.accuracy, fewer.mean_norm) == ({}, {"Arc": {"entire": 2}})
    other = "evaluation.benchmarks=[{name: a, protocol: classification, columns: {top %: accuracy}}]"
    found = recipe.validate(recipe.override(content, [other, "published.columns={Soft: {top %: 3}}"]))
    assert found.published is not None
    assert found.published.of("Soft") == {"top %": 3}
    assert found.rows["A-T1"].column is None
    swept = recipe.load("fi-t4", ["compare.sweep={objective.radius.factor: [2, 3]}"])
    assert swept.published is not None
    assert swept.published.accuracy == {"factor=2": {"entire": 90.90}}


def test_an_override_does_not_hide_a_wrong_name() -> None:
    content = tiny.content(*PUBLISHED)
    content["published"]["accuracy"]["Sfot"] = {"low": 1}
    with pytest.raises(InputError, match="got 'Sfot'"):
        recipe.validate(recipe.override(content, ["compare.variants={Soft: {}}"]))


def test_null_takes_a_piece_away() -> None:
    kept = tiny.validated("objective.iam={beta: 0.1}")
    assert kept.objective == losses.normface(s=10, learn=False) + losses.iam(0.1)
    content = tiny.content("objective.iam={beta: 0.1}", "objective.iam=null")
    assert recipe.validate(content).objective == tiny.validated().objective
    assert tiny.validated("training.clip_norm=1", "training.clip_norm=").training.clip_norm is None


def test_a_path_makes_the_mappings_that_it_needs() -> None:
    assert tiny.validated("objective.iam.beta=0.2").objective == losses.normface(s=10, learn=False) + losses.iam(0.2)
    assert tiny.validated("evaluation.low_fraction=0.3").evaluation.low_fraction == 0.3
    assert recipe.override({}, ["a.b.c=[1, {d: 2}]"]) == {"a": {"b": {"c": [1, {"d": 2}]}}}
    assert recipe.override({"a": None}, ["a.b=1"]) == {"a": {"b": 1}}


def test_a_value_may_hold_an_equals_sign() -> None:
    assert tiny.validated("title=a=b").title == "a=b"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.epochs", r"an override must read key.path=value; got 'training.epochs'"),
        ("=3", "an override must read key.path=value; got '=3'"),
        ("title=[1", r"the value of override 'title=\[1' is not YAML: .*; put the whole override in quotes"),
        ("title.a=1", "title holds 'A few digits', so title.a cannot be set in it"),
        ("training.epochs.a.b=1", "training.epochs holds 2, so training.epochs.a.b cannot be set in it"),
    ],
)
def test_a_bad_override_is_told(override: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        tiny.validated(override)


# variants


def test_a_variant_is_the_recipe_with_its_changes_and_its_seed() -> None:
    content = tiny.content("compare={seeds: [0], variants: {a: {}}}", "published={source: a paper}")
    changes = {"objective": {"kind": "arcface", "s": 8, "m": 0.2}, "training.optimizer.lr": 0.5}
    single = recipe.variant(content, changes, 9)
    assert single["objective"] == changes["objective"]
    assert single["training"]["optimizer"]["lr"] == 0.5
    assert single["training"]["seed"] == 9
    assert (single["compare"], single["published"]) == (None, None)
    # neither the recipe nor the changes are touched by what becomes of the variant
    single["objective"]["s"] = math.pi
    single["training"]["epochs"] = 99
    assert changes["objective"] == {"kind": "arcface", "s": 8, "m": 0.2}
    assert content == tiny.content("compare={seeds: [0], variants: {a: {}}}", "published={source: a paper}")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden"])
def test_a_name_is_a_plain_folder_name(name: str) -> None:
    with pytest.raises(InputError, match="name must be letters, digits"):
        recipe.validate(tiny.content() | {"name": name})


def test_what_a_penalty_lacks_is_named() -> None:
    with pytest.raises(InputError, match="feature_incay needs lam"):
        tiny.validated("objective={kind: softmax, feature_incay: {}}")
