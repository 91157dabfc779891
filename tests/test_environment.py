"""What is saved with results and timings."""

from __future__ import annotations

import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from angulus.core import environment

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_a_timing_names_the_commit_of_the_package_and_whether_its_code_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "package" / "core" / "environment.py"
    own.parent.mkdir(parents=True)
    own.write_text("first")
    git(tmp_path, "init", "-q")
    monkeypatch.setattr(environment, "__file__", str(own))
    found = environment.of_timing(torch.device("cpu"), "numpy", "no-such-package")
    assert found["commit"] is None  # in a repository that does not hold it, as a virtual environment may be
    assert found["numpy"] and found["no-such-package"] is None and found["date"] and found["torch"]
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "--short", "HEAD").strip()
    (tmp_path / "results.jsonl").write_text("next to the package")
    assert environment.of_timing(torch.device("cpu"))["commit"] == commit
    own.write_text("second")
    assert environment.of_timing(torch.device("cpu"))["commit"] == commit + "+"
    monkeypatch.setenv("PATH", "")
    assert environment.of_timing(torch.device("cpu"))["commit"] is None


def test_the_library_of_a_network_is_named_with_its_version_where_it_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    assert "timm" not in environment.describe(torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "timm", types.ModuleType("timm"))
    monkeypatch.setattr(environment.metadata, "version", lambda package: f"{package} 7.5")
    assert environment.describe(torch.device("cpu"))["timm"] == "timm 7.5"
