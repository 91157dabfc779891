"""The pages that the site makes: what is public and nothing else, and every command in tables that fit a phone."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import angulus
from angulus import losses
from angulus.cli import main as cli

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENTED = (
    *("angulus.models.hub.HubModel", "angulus.models.onnx_model.load", "angulus.data.records"),
    *("angulus.backbones.build", "angulus.data.", "angulus.training.callbacks.Record"),
    *("angulus.heads.clipping.", "angulus.heads.saving.", "angulus.models.export_check.check", "angulus.core.urls."),
)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module


def test_the_python_pages_show_what_is_public_and_nothing_else(site: Any) -> None:
    api = site("site_api")
    named = [name for group in api.groups().values() for name in group.names]
    assert len(set(named)) == len(named)
    found = {name: api.find(name) for name in named if not name.startswith("angulus.models.hub")}
    shown = {id(each) for each in found.values()}
    hidden = {"__version__", "losses", "ALIASES"}  # a text, a package whose names have pages, and a table
    public = {f"angulus.{name}" for name in angulus.__all__} | {f"angulus.losses.{name}" for name in losses.__all__}
    for name in public:
        if name.rpartition(".")[2] not in hidden:
            assert id(api.find(name)) in shown, f"docs/site_api.py should show {name}"
    for name in named:
        last = name.rpartition(".")[2]
        listed = last in angulus.__all__ or last in losses.__all__ or name.startswith(DOCUMENTED)
        assert (listed and not last.startswith("_")) or name == "angulus.losses.theory", name
    for name, each in found.items():
        assert isinstance(each, ModuleType) or f"[`{name}`](" in api.overview()
        assert len(api.sentence(name)) > 10


def test_every_command_has_a_section_with_all_its_options(site: Any) -> None:
    text = site("site_commands").page_text()
    sections = dict(re.findall(r"^## angulus ([\w -]+)\n(.*?)(?=^## |\Z)", text, flags=re.M | re.S))
    seen = set()

    def visit(command: Any, words: list[str]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            visit(inner, [*words, name])
        if getattr(command, "commands", None):
            return
        section = sections[" ".join(words)]
        seen.add(" ".join(words))
        for param in command.params:
            if param.param_type_name == "option" and param.name != "help":
                assert f"| `{', '.join([*param.opts, *param.secondary_opts])}` |" in section
        assert f"```sh\n{command.epilog.removeprefix('Example: ')}\n```" in section

    for name, command in cli.load_all().commands.items():
        visit(command, [name])
    assert seen == set(sections)
    assert all(line.count("|") == 3 for line in text.splitlines() if line.startswith("|"))
    for target in re.findall(r"\(#([\w-]+)\)", text):
        assert any(f"angulus-{words.replace(' ', '-')}" == target for words in sections)


def test_every_loss_has_its_six_facts_on_one_page(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tested = site("tested")
    results, timings = tmp_path / "tests.xml", tmp_path / "costs.jsonl"
    case = '<testcase classname="tests.losses.test_{}" name="test_it[{}]">{}</testcase>'
    cases = [("gradcheck", "arcface-plain", ""), ("gradcheck", "arcface-easy", "<failure/>"), ("edges", "magface", "")]
    results.write_text(f"<testsuite>{''.join(case.format(*each) for each in cases)}</testsuite>")
    rows = [{"loss": "magface", "ratio": 0.987}, {"loss": "magface", "ratio": 2, "batch": 64}]  # of another size
    rows.append({"loss": "adacos", "ratio": 1.2, "clock": "cpu_seconds"})
    timings.write_text("\n".join(json.dumps({**tested.SHAPE, **row}) for row in rows))
    monkeypatch.setattr(tested, "COSTS", timings)
    blocks = {text.partition("\n")[0]: text for text in tested.page(results).split("\n## ")[1:]}
    assert list(blocks) == losses.list_losses()
    arcface, magface = blocks["arcface"], blocks["magface"]
    assert "arcface(s=64.0, m=0.5, beyond_pi='linear', gradient='exact')" in arcface
    assert "t = 64·cos(θ + 0.5)\nz_j = 64·cos θ_j\n" in arcface and "* Source: IAM Eq. 6. Pieces: fixed" in arcface
    assert 'turns back where θ + m > π (`beyond_pi="plain"`); insightface\'s code' in arcface
    assert "* Tests passed: gradcheck 1 of 2.\n* Cost: 1." in arcface
    assert "* Source: Meng et al. 2021, Eq. 3-5. Pieces: fixed + norm_angle + magnitude." in magface
    assert "* Tests passed: edges 1 of 1.\n* Cost: 0.99." in magface
    assert "* Differs: nothing known.\n* Tests passed: none.\n* Cost: not measured." in blocks["coco"]
    assert "\n* Cost: 1.20 in CPU seconds." in blocks["adacos"]
    both = blocks["curricularface"]  # what its margin and its negatives say
    assert "insightface's code continues linearly" in both and "compares with cos(θ + m) as written" in both
