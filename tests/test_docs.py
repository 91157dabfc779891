"""The pages of the docs are true: their code runs, and what they name exists."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import angulus
from angulus.losses import margins

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "CONTRIBUTING.md"])


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


def test_readme_python_runs() -> None:
    names: dict[str, Any] = {}
    exec(compile(python_blocks(ROOT / "README.md"), "README.md", "exec", dont_inherit=True), names)
    assert names["logits"].shape == (32, 1000)
    assert names["features"].grad.isfinite().all()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/papers/*.md")), ids=lambda page: page.stem)
def test_papers_name_what_exists(page: Path) -> None:
    for module, name in re.findall(r"`(losses|theory)\.(\w+)", page.read_text(encoding="utf-8")):
        assert hasattr(getattr(angulus, module), name), f"{page.name} names {module}.{name}"


def test_the_page_on_losses_lists_every_alias() -> None:
    text = (ROOT / "docs/losses.md").read_text(encoding="utf-8")
    missing = [name for name in angulus.losses.ALIASES if f"{name}(" not in text]
    assert not missing
