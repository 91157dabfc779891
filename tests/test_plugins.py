"""Plugins run only if the command line names them, register pieces for recipes, and fail in one sentence."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tiny
from angulus import InputError
from angulus.experiments import build, plugins, recipe
from angulus.losses import ALIASES, margins, radius
from angulus.models import artifact

PAGE = Path(__file__).parents[1] / "docs" / "add-a-loss.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
PLUGIN = BLOCKS[0] + BLOCKS[1]  # the page's margin and its line in the table
OBJECTIVE = "objective={radius: {kind: fixed, s: 10}, margin: {kind: linear_angle, m: 0.2}}"
ALIAS = """
from angulus import losses

def twice(s: float = 8.0) -> losses.Objective:
    return losses.arcface(2 * s)

losses.ALIASES["twice"] = twice
"""
MARK = "from pathlib import Path\nPath('it-ran').touch()\n"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working folder; afterwards the tables are as before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "splits", lambda recipe: tiny.splits())
    before = {what: dict(table) for what, table in plugins.TABLES.items()}
    yield
    for what, table in plugins.TABLES.items():
        table.clear()
        table.update(before[what])
    plugins._loaded.clear()


@pytest.fixture
def angulus(angulus: Run) -> Run:
    """Run a command line as in a process of its own, where no plugin is loaded yet."""
    before = {what: dict(table) for what, table in plugins.TABLES.items()}

    def command(*arguments: str) -> tuple[int, str, str]:
        plugins._loaded.clear()
        for what, table in plugins.TABLES.items():
            table.clear()
            table.update(before[what])
        return angulus(*arguments)

    return command


def write(text: str, name: str = "my_losses.py") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_a_run_with_a_plugin_stores_it_and_resumes_only_with_the_same(angulus: Run) -> None:
    path, plugin = tiny.write(Path(), "training.epochs=1"), write(PLUGIN)
    code, _, err = angulus("train", path, OBJECTIVE, "--plugin", plugin, "--out", "run")
    assert (code, err) == (0, "")
    digest = json.loads(Path("run/environment.json").read_text())["plugins"][plugin]
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    again = ("train", path, OBJECTIVE, "training.epochs=2", "--out", "run", "--resume")
    assert angulus(*again, "--plugin", plugin)[0] == 0

    write(PLUGIN + "\n# changed\n")
    code, out, err = angulus(*again, "--plugin", plugin)
    assert (code, out) == (2, "")
    assert f"the plugin my_losses.py is not the one that run was trained with (SHA-256 {digest[:8]}... there, " in err
    write(PLUGIN)
    code, _, err = angulus("report", "run")
    assert code == 2
    assert "the recipe needs the plugin my_losses.py, whose code runs only if you name it yourself" in err
    assert angulus("report", "run", "--plugin", plugin)[0] == 0
    assert artifact.load("run/model").config.backbone == "small"  # a model needs no loss


def test_an_alias_of_a_plugin_is_a_kind(angulus: Run) -> None:
    plugin = write(ALIAS)
    arguments = ("train", tiny.write(Path(), "training.epochs=1"), "objective={kind: twice, s: 4}", "--plugin", plugin)
    assert angulus(*arguments)[0] == 0
    (stored,) = Path("runs").glob("*/recipe.yaml")
    loaded = recipe.load(stored)
    assert loaded.plugins == ["my_losses.py"]
    assert loaded.objective.radius == radius.Fixed(8)


def test_a_comparison_takes_plugins_too(angulus: Run) -> None:
    plugin = write(PLUGIN)
    variants = "compare={seeds: [0], variants: {Line: {" + OBJECTIVE.replace("=", ": ", 1) + "}, Plain: {}}}"
    arguments = ("compare", tiny.write(Path(), "training.epochs=1"), variants, "--plugin", plugin, "--out", "all")
    code, out, err = angulus(*arguments)
    assert (code, err) == (0, "")
    assert "Line" in out
    assert angulus(*arguments)[0] == 0
    write(PLUGIN + "\n# changed\n")
    code, _, err = angulus(*arguments)
    assert code == 2
    assert "the plugin my_losses.py is not the one that all/Line/seed-0 was trained with" in err


def test_a_recipe_or_a_model_folder_alone_runs_nothing(angulus: Run) -> None:
    plugin = write(MARK)
    path = tiny.write(Path(), "training.epochs=1")
    code, _, err = angulus("train", path, "plugins=[my_losses.py]", "--out", "run")
    assert code == 2
    assert "runs only if you name it yourself: read it, then add --plugin my_losses.py to the command" in err
    assert not Path("run").exists()
    code, _, err = angulus("train", path, "plugins=[../my_losses.py]", "--out", "run")
    assert code == 2
    assert "plugins must be names of files without folders, such as my_losses.py; got '../my_losses.py'" in err

    assert angulus("train", path, "--out", "run")[0] == 0
    Path("run/model", plugin).write_text(MARK)
    artifact.load("run/model")
    config = json.loads(Path("run/model/config.json").read_text())
    Path("run/model/config.json").write_text(json.dumps(config | {"plugins": [plugin]}))
    with pytest.raises(InputError, match="plugins"):
        artifact.load("run/model")
    assert not Path("it-ran").exists()
    assert angulus("train", path, "plugins=[my_losses.py]", "--plugin", plugin, "--out", "other")[0] == 0
    assert Path("it-ran").exists()


WRONG = {
    "raises": ("x = 1\n\n1 / 0\n", r"--plugin my_losses.py fails at line 3: ZeroDivisionError: division by zero; corr"),
    "raises below": ("import json\njson.loads('')\n", r"fails at line 2: JSONDecodeError: Expecting value"),
    "exits": ("import sys\nsys.exit(0)\n", r"fails at line 2: SystemExit: 0; correct the file"),
    "no Python": ("x = 1\nif x\n", r"fails at line 2: SyntaxError: expected ':'; correct the file"),
    "lacks a package": ("import no_such\n", r"fails at line 1: ModuleNotFoundError: No module named 'no_such'"),
    "null bytes": ("x = 1\0", r"--plugin my_losses.py fails.*: (SyntaxError|ValueError): source code"),
    "name exists": (
        PLUGIN + '\nmargins.TABLE["additive_angle"] = LinearAngle\n',
        r"registers the margin 'additive_angle' at line \d+, which exists already; choose another name",
    ),
    "loss exists": (
        "from angulus import losses\nlosses.ALIASES['arcface'] = losses.cosface\n",
        r"registers the loss 'arcface' at line 2, which exists already",
    ),
    "removes": (
        "from angulus.losses import margins\ndel margins.TABLE['additive_angle']\n",
        r"removes the margin 'additive_angle' at line 2, which exists already",
    ),
    "another name": (
        PLUGIN + '\nmargins.TABLE["linear"] = LinearAngle\n',
        r"registers the margin 'linear' at line \d+, but the class calls itself 'linear_angle'; give both the same",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_plugin_is_refused_in_a_sentence_and_changes_nothing(wrong: str, angulus: Run) -> None:
    text, sentence = WRONG[wrong]
    write(text)
    before = {what: dict(table) for what, table in plugins.TABLES.items()}
    code, out, err = angulus("train", tiny.write(Path()), "--plugin", "my_losses.py", "--out", "run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(sentence, err)
    assert {what: dict(table) for what, table in plugins.TABLES.items()} == before
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("none.py", "--plugin none.py cannot be read: there is no such file"),
        ("losses.txt", "--plugin must name a Python file, such as my_losses.py; got losses.txt"),
        ("folder.py", "--plugin folder.py cannot be read: it is a folder"),
    ],
)
def test_a_plugin_that_is_no_file_is_refused(name: str, sentence: str, angulus: Run) -> None:
    Path("folder.py").mkdir()
    code, _, err = angulus("compare", "demo", "--plugin", name)
    assert (code, err) == (2, f"angulus: {sentence}\n")


def test_a_file_is_loaded_once_and_its_name_is_its_own() -> None:
    assert plugins.load([write(PLUGIN), "my_losses.py"]) == ["my_losses.py"] * 2
    assert "linear_angle" in margins.TABLE and "twice" not in ALIASES
    Path("other").mkdir()
    with pytest.raises(InputError, match=r"another file named my_losses.py is loaded; rename one of them"):
        plugins.load([write(ALIAS, "other/my_losses.py")])


def test_the_commands_of_the_page_run(angulus: Run) -> None:
    write(PLUGIN)
    section = PAGE.read_text(encoding="utf-8").partition("## On the command line")[2]
    lines = re.findall(r"^angulus .*", section, flags=re.M)
    assert len(lines) == 2
    for line in lines:
        code, _, err = angulus(*shlex.split(line)[1:])
        assert (code, err) == (0, "")


RADIUS = """
import dataclasses
from typing import ClassVar

from torch import Tensor

from angulus.losses import radius, roles


@dataclasses.dataclass(frozen=True)
class Root(roles.Radius):
    kind: ClassVar[str] = "root"
    a: float = 4.0

    def __call__(self, norms: Tensor) -> Tensor:
        return self.a * norms.sqrt()

    def formula(self) -> str:
        return "a·√‖x‖"


radius.TABLE["root"] = Root
"""


def test_a_model_trained_with_a_plugins_radius_loads_without_it(angulus: Run) -> None:
    plugin, objective = write(RADIUS), "objective={radius: {kind: root, a: 4}}"
    arguments = ("train", tiny.write(Path(), "training.epochs=1"), objective, "--plugin", plugin, "--out", "run")
    assert angulus(*arguments)[::2] == (0, "")
    code, _, err = angulus("info", "run/model")
    assert (code, err) == (0, "")
    assert artifact.load("run/model").classifier is None


def test_an_error_while_a_plugin_runs_names_its_line(angulus: Run) -> None:
    plugin = write(PLUGIN.replace("return 1 - 2 *", "return 1 - 2 * theta.coss() *"))
    assert "coss" in Path(plugin).read_text()
    code, _, err = angulus("train", tiny.write(Path(), "training.epochs=1"), OBJECTIVE, "--plugin", plugin)
    assert code == 2
    assert re.search(r"my_losses.py fails at line \d+: AttributeError: 'Tensor' object has no attribute 'coss'", err)


def test_a_penalty_may_not_take_the_name_of_a_part(angulus: Run) -> None:
    plugin = write("from angulus.losses import penalties\npenalties.TABLE['radius'] = penalties.TABLE['iam']\n")
    code, _, err = angulus("train", tiny.write(Path()), "--plugin", plugin)
    assert code == 2
    assert "registers the penalty 'radius' at line 2, which is a key of every objective; choose another name" in err
