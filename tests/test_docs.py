"""The pages of the docs are true: their code runs, and what they name exists."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import angulus
import backbones as measured
from angulus.cli import main as cli
from angulus.cli.examples import EXAMPLES
from angulus.core.contract import Contract
from angulus.experiments.compare import compare
from angulus.losses import margins
from angulus.models import artifact
from angulus.models.artifact import Config

ROOT = Path(__file__).parents[1]
USAGE_ERROR: Any = typer.BadParameter.__base__  # of the click that typer brings, under a private name
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def python_blocks(page: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S))


def test_add_a_loss_page_adds_a_margin() -> None:
    names: dict[str, Any] = {}
    try:
        exec(compile(python_blocks(ROOT / "docs/add-a-loss.md"), "add-a-loss.md", "exec", dont_inherit=True), names)
        theta = torch.tensor([0.3])
        value = names["LinearAngle"](0.2)(theta, torch.ones(1))
        assert value.item() == pytest.approx(1 - 2 * 0.5 / math.pi)
        assert names["loss"].isfinite()
        with pytest.raises(angulus.InputError, match="m must be a finite number in \\[0, "):
            names["LinearAngle"](4.0)
    finally:
        margins.TABLE.pop("linear_angle", None)


def test_the_readme_counts_the_losses() -> None:
    named = ("ArcFace", "CosFace", "NormFace", "MV-Softmax", "CM-Softmax")
    opening = (ROOT / "README.md").read_text(encoding="utf-8").partition("```")[0].replace("\n", " ")
    assert f"{', '.join(named)} and [{len(angulus.list_losses()) - len(named)} others](docs/losses.md)" in opening


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {angulus.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_page_on_concepts_composes_a_loss(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(python_blocks(ROOT / "docs/concepts.md"), "concepts.md", "exec", dont_inherit=True), {})
    assert capsys.readouterr().out.strip()


def test_readme_python_prints_what_it_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = ROOT / "README.md"
    monkeypatch.chdir(tmp_path)
    config = Config("slim_resnet", 3, (112, 112), 256, contract=Contract(size=(112, 112), colour="rgb", flip="sum"))
    artifact.save(config, config.build(), tmp_path / "run" / "model")
    for name in ("one.jpg", "other.jpg"):
        Image.new("RGB", (112, 112), (len(name), 90, 60)).save(tmp_path / name)
    printed = re.findall(r"```text\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
    exec(compile(python_blocks(page), "README.md", "exec", dont_inherit=True), {})
    assert capsys.readouterr().out == "".join(printed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/papers/*.md")), ids=lambda page: page.stem)
def test_papers_name_what_exists(page: Path) -> None:
    for module, name in re.findall(r"`(losses|theory)\.(\w+)", page.read_text(encoding="utf-8")):
        assert hasattr(getattr(angulus, module), name), f"{page.name} names {module}.{name}"


def test_the_page_on_losses_lists_every_alias_once() -> None:
    text = (ROOT / "docs/losses.md").read_text(encoding="utf-8")
    table = text.partition("| to | losses |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(angulus.losses.ALIASES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_the_options_that_pages_give_them(page: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if "angulus" in words[:8] and words[0] != "pip":
                _parse(words[words.index("angulus") + 1 :])


def _parse(words: list[str]) -> None:
    """Find the command and read its options, as it would, but do not run it."""
    command: Any = cli.load_all()
    name = "angulus"
    while words and getattr(command, "commands", None) and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no {name} {words[0]}"
        command, name, words = command.commands[words[0]], f"{name} {words[0]}", words[1:]
    try:
        command.make_context(name, list(words))
    except typer.Exit:
        pass  # --help, --version
    except USAGE_ERROR as error:
        raise AssertionError(f"{name} {shlex.join(words)}: {error.format_message()}") from error


def test_the_check_of_commands_knows_wrong_ones() -> None:
    _parse(["evaluate", "pairs", "e.npz", "--pairs", "pairs.txt"])
    for wrong in (["serach"], ["embed", "model"], ["evaluate", "pairs", "e.npz", "--pears", "p.txt"]):
        with pytest.raises(AssertionError):
            _parse(wrong)


def test_every_command_ends_its_help_with_an_example_that_it_reads() -> None:
    seen = {""}

    def visit(command: Any, words: list[str]) -> None:
        seen.add(" ".join(words))
        example = EXAMPLES[" ".join(words)]
        assert shlex.split(example)[: len(words)] == words
        assert command.epilog == f"Example: angulus {example}"
        assert len(command.epilog) <= 100
        for name, inner in getattr(command, "commands", {}).items():
            visit(inner, [*words, name])

    for name, command in cli.load_all().commands.items():
        visit(command, [name])
    assert seen == set(EXAMPLES)
    for example in EXAMPLES.values():
        _parse(shlex.split(example))


def test_the_help_groups_commands_into_panels() -> None:
    shown = CliRunner().invoke(cli.app, ["--help"], prog_name="angulus").output
    panels = list(dict.fromkeys(panel for _, panel, _ in cli.COMMANDS.values()))
    assert [panels.index(panel) for _, panel, _ in cli.COMMANDS.values()] == sorted(
        panels.index(panel) for _, panel, _ in cli.COMMANDS.values()
    )
    titles = re.findall(r"╭─ ([A-Z][\w ]*?) ─", shown)
    assert titles == ["Options", *panels]
    assert shown.rstrip().endswith("Example: angulus demo")
    shown = CliRunner().invoke(cli.app, ["train", "--help"], prog_name="angulus").output
    assert shown.rstrip().endswith(f"Example: angulus {EXAMPLES['train']}")


def test_every_page_is_in_the_sites_nav_or_becomes_a_task() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"- (?:\w+: )?([\w/-]+\.md)", text))
    made = {"index.md", "commands.md", "recipes.md", "recipe-keys.md", "contributing.md", "changelog.md"}
    made |= {"quickstart.md", "security.md", "releasing.md"}
    for page in named - made:
        assert (ROOT / "docs" / page).exists(), f"mkdocs.yml names {page}"
    nested = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/*/*.md")}
    assert nested <= named, f"mkdocs.yml should say where {nested - named} stand"


def test_the_table_of_the_page_on_export_is_what_was_stored() -> None:
    text = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    shown = {row[0]: dict(zip(table[0][1:], row[1:], strict=True)) for row in table[1:]}
    stored = json.loads((ROOT / "docs/results/verification/faces-slim-onnx.json").read_text(encoding="utf-8"))
    assert set(stored["precisions"]) == set(table[0][2:])
    for precision, found in stored["precisions"].items():
        pairs = found["pairs"]
        assert shown["size, MiB"][precision] == f"{found['bytes'] / 2**20:.1f}"
        assert shown["largest relative error of a feature"][precision] == f"{found['feature_error']:.1e}"
        assert shown["smallest cosine with PyTorch's"][precision] == f"{found['cosine']:.6f}"
        changed = pairs["decisions"]["genuine"] + pairs["decisions"]["impostors"]
        assert shown["decisions changed, of 6,000"][precision] == str(changed)
        for name in ("accuracy", "TAR@FAR=1e-2", "TAR@FAR=1e-3"):
            interval = pairs["difference"][name]["interval"]
            between = f" [{interval['low']:+.4f}, {interval['high']:+.4f}]" if precision != "float32" else ""
            assert shown[name][precision] == f"{pairs['exported'][name]['value']:.4f}{between}"
            assert shown[name]["PyTorch"] == f"{pairs['PyTorch'][name]['value']:.4f}"
            assert interval["low"] <= 0 <= interval["high"]  # as the page says


def test_the_page_on_data_has_a_section_for_every_set() -> None:
    sections = re.findall(r"^## (.*)$", (ROOT / "docs/data.md").read_text(encoding="utf-8"), flags=re.M)
    assert sections == angulus.list_datasets()


def test_the_example_of_the_page_on_compare_converges(tmp_path: Path) -> None:
    page = (ROOT / "docs/compare.md").read_text(encoding="utf-8")
    text = re.findall(r"```yaml\n(.*?)```", page, flags=re.S)[0]
    path = tmp_path / "my-recipe.yaml"
    path.write_text(text, encoding="utf-8")
    grid = compare(str(path), tmp_path / "runs", ["compare.seeds=[0]"])
    printed = dict(re.findall(r"^│ (\S.*?\S) +│.*│ +([\d.]+) ± [\d.]+ │$", page, flags=re.M)[:2])
    assert {row.variant for row in grid.rows} == set(printed)
    for row in grid.rows:
        accuracy = row.columns["accuracy entire %"].mean
        assert accuracy > 97
        assert accuracy == pytest.approx(float(printed[row.variant]), abs=1.0)


def test_the_page_on_backbones_shows_what_was_counted_and_stored(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs/backbones.md"
    text = page.read_text(encoding="utf-8")
    stored = [json.loads(line) for line in (ROOT / "benchmarks/results/backbones.jsonl").read_text().splitlines()]
    assert sorted(row["backbone"] for row in stored) == angulus.list_backbones()
    for row in stored:
        assert f"| {' | '.join(measured.cells(row))} |" in text
        with torch.device("meta"):
            parameters = sum(entry.numel() for entry in measured.build(row["backbone"]).parameters())
        assert row["parameters"] == parameters
    exec(compile(python_blocks(page), page.name, "exec", dont_inherit=True), {})
    (printed,) = re.findall(r"```text\n(.*?)```", text, flags=re.S)
    assert capsys.readouterr().out == printed
