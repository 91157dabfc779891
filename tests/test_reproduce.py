"""The rows of the papers' tables: found, refused where data are missing, run, listed, and written as a page."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from angulus import data
from angulus.core import environment
from angulus.core.checks import InputError
from angulus.experiments import build, recipe, reproduce
from angulus.report import reproduction

ROOT = Path(__file__).parents[1]
Run = Callable[..., tuple[int, str, str]]
TWO_STEPS = (
    "training.epochs=1", "training.batch_size=60", "compare.seeds=[0, 1]", "training.schedule.kind=constant",
)  # fmt: skip


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working folder and no data."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANGULUS_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with warnings.catch_warnings():
        yield


def test_a_row_finds_its_recipe_and_a_row_of_several_names_them() -> None:
    assert recipe.find("IAM-T6").stem == "iam-t5"
    assert recipe.find("mv-t4").stem == "mv-t3"
    assert recipe.find("CM-T2").stem == "cm-t2"
    with pytest.raises(
        InputError, match="FI-T2 is a row of several recipes: fi-t2-cifar10, fi-t2-cifar100, fi-t2-mnist"
    ):
        recipe.find("FI-T2")
    assert [each.recipe.name for each in reproduce.recipes_of_row("fi-t2")] == [
        "fi-t2-cifar10",
        "fi-t2-cifar100",
        "fi-t2-mnist",
    ]
    with pytest.raises(
        InputError, match=r"there is no row, recipe or file 'IAM-T9'; did you mean 'IAM-T\d'\?; rows: CM-T1a, CM-T1b"
    ):
        reproduce.recipes_of_row("IAM-T9")


def test_a_row_without_data_says_what_it_needs_and_leaves_nothing(angulus: Run, tmp_path: Path) -> None:
    code, out, err = angulus("reproduce", "IAM-T3")
    assert (code, out) == (2, "")
    assert "IAM-T3 cannot be run here (iam-t3): it needs casia-webface-160x160 (CASIA-WebFace, 10,575 people" in err
    assert "it needs protocols/lfw_pairs.txt (LFW's pairs.txt" in err
    code, out, err = angulus("reproduce", "FI-T2")
    assert code == 2
    assert "FI-T2 cannot be run here (fi-t2-cifar10): " in err
    assert "its other parts alone: angulus compare fi-t2-cifar100 or fi-t2-mnist" in err
    (tmp_path / "data/protocols").mkdir(parents=True)
    (tmp_path / "data/protocols/lfw_pairs.txt").touch()
    assert "lfw_pairs" not in angulus("reproduce", "IAM-T3")[2]
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("CM-T2", "--list"), ("--list", "--table", "page.md")])
def test_what_is_asked_is_one_thing(arguments: tuple[str, ...], angulus: Run) -> None:
    assert angulus("reproduce", *arguments)[::2] == (
        2,
        "angulus: give a row such as CM-T2, or --list, or --table FILE, or --queue FILE\n",
    )


def test_a_row_is_run_and_gone_on_with_and_shown_beside_the_paper(
    angulus: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = data.stand_in("mnist", images=12)
    monkeypatch.setattr(build, "splits", lambda recipe: splits)
    code, out, err = angulus("reproduce", "cm-t1a", *TWO_STEPS, "--out", "here")
    assert (code, err) == (0, "")
    assert "NOT A RESULT: made on generated stand-in data" in out
    assert "99.65" in out and "CM Table 1" in out
    folder = re.search(r"are in (here/cm-t1a-[0-9a-f]{8})/", out)[1]
    stamp = Path(folder, "Softmax/seed-0/checkpoint.pt").stat().st_mtime_ns
    assert angulus("reproduce", "CM-T1a", *TWO_STEPS, "--out", "here")[0] == 0
    assert Path(folder, "Softmax/seed-0/checkpoint.pt").stat().st_mtime_ns == stamp
    code, _, err = angulus("reproduce", "--table", "page.md", "--results", "here")
    assert code == 2
    assert f"{folder}/comparison.json was made on generated stand-in data: it is no result" in err
    assert not Path("page.md").exists()
    code, out, err = angulus("reproduce", "--list", "--results", "here")
    assert (code, err) == (0, "")
    lines = [line for line in out.splitlines() if line.startswith("│")]
    assert {row.id for row in reproduce.table_rows()} <= {line.split()[1] for line in lines}
    stood_in = [line.split()[1] for line in lines if line.rstrip(" │").endswith("no: a stand-in")]
    assert stood_in == ["CM-T1a"]
    assert not any(line.rstrip(" │").endswith("yes") for line in lines)


def test_a_result_comes_before_a_stand_in_of_the_same_recipe(tmp_path: Path) -> None:
    result = json.loads((ROOT / "docs/results/cm-t2.json").read_text())
    for name, generated in (("a", False), ("b", True)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result | {"generated": generated}))
    assert not reproduce.read_results_folder(tmp_path, stand_ins=True)["cm-t2"].generated
    with pytest.raises(InputError, match=r"b.json was made on generated stand-in data: it is no result; delete it"):
        reproduce.read_results_folder(tmp_path)


def test_the_list_has_every_row(angulus: Run) -> None:
    shutil.copytree(ROOT / "docs/results", "docs/results")
    code, out, _ = angulus("reproduce", "--list")
    assert code == 0
    lines = {line.split()[1]: line for line in out.splitlines() if line.startswith("│")}
    assert {row.id for row in reproduce.table_rows()} <= lines.keys()
    assert [cell.strip() for cell in lines["CM-T2"].split("│")[-3:-1]] == ["missing", "yes"]
    assert [cell.strip() for cell in lines["IAM-T5"].split("│")[-3:-1]] == ["missing", "no"]


# the page


def test_the_page_in_the_docs_is_what_recipes_and_results_say() -> None:
    page = reproduction.to_markdown(reproduce.table_rows(), reproduce.read_results_folder(ROOT / "docs/results"))
    assert page == (ROOT / "docs/reproduction.md").read_text(encoding="utf-8"), "make docs, and commit it"


def test_no_number_stands_on_the_page_without_a_run(angulus: Run) -> None:
    assert angulus("reproduce", "--table", "page.md", "--results", "nothing")[0] == 0
    lines = [line.split(" | ") for line in Path("page.md").read_text().splitlines() if line.startswith("| ")][2:]
    assert len(lines) == len(reproduce.table_rows())
    assert all(cells[6:] == ["", "", "", " |"] for cells in lines)
    assert all(cells[5].startswith("not run") for cells in lines)


def test_a_row_without_a_run_says_why() -> None:
    measured = reproduce.read_results_folder(ROOT / "docs/results")
    unmeasured = [row.recipe for row in reproduce.table_rows() if row.recipe.name not in measured]
    assert [each.name for each in unmeasured if not reproduce.why_not_run(each)] == []
    why = {each.name: reproduce.why_not_run(each) for each in unmeasured}
    assert why["nf-t4"] == "needs casia-webface-128x128 and 3 more, which nobody may redistribute"
    assert why["cm-t1c"] == "needs lidc-nodules-64x64, which nobody may redistribute"
    assert "core-hours" in why["fi-t3"]


def test_a_measured_row_shows_its_numbers_device_time_and_what_differs(tmp_path: Path) -> None:
    content = json.loads((ROOT / "docs/results/cm-t2.json").read_text())
    content["seeds"], content["training"]["epochs"] = [0, 1], 5
    for row in content["rows"]:
        row["columns"] = {title: [values[0], values[0] + 0.02] for title, values in row["columns"].items()}
    content["rows"] = content["rows"][:4]
    content["rows"][0]["columns"]["accuracy entire %"] = [98.0, None]
    (tmp_path / "cm-t2.json").write_text(json.dumps(content))
    page = reproduction.to_markdown(reproduce.table_rows(), reproduce.read_results_folder(tmp_path))
    line = next(line for line in page.splitlines() if line.startswith("| CM-T2 |"))
    first = content["rows"][1]["columns"]["accuracy entire %"][0]
    assert f"Softmax —; NormFace {first + 0.01:.2f} ± 0.01" in line
    seconds = sum(row["training_seconds"] for row in content["rows"])
    device = environment.where(content["environment"])
    assert f"| {device} | {seconds:,.0f} s | 2 | 5 of the recipe's 20 epochs; 2 of 5 seeds;" in line
    assert "without CM-M-Softmax" in line
    details = page[page.index("## CM Table 2") :]
    assert f"{first + 0.01:.2f} ± 0.01 (99.03)" in details


@pytest.mark.parametrize("text", ["", "{}", '{"generated": false}', "[]", '{"generated": false, "recipe": "a"}'])
def test_a_file_that_is_no_comparison_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a.json is not a comparison.json \(.*\); run `angulus compare` again"):
        reproduce.read_results_folder(tmp_path)
