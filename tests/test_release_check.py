"""What `.ci/release-check` refuses before it builds anything, and the files that no wheel may hold."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

CI = Path(__file__).parents[1] / ".ci"
VENV = "python: -m venv "  # what the stand-in prints and ends with: all checks before the build have passed


pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A commit of the script, and a stand-in for Python that builds nothing."""
    folder = tmp_path / "checkout"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(CI / "release-check", folder / ".ci")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *--print) echo 1.2.3;; *venv*) echo "python: $*" >&2; exit 9;; esac\n')
    python.chmod(0o755)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "One")
    return folder


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True)


def errors(checkout: Path, *arguments: str, release: str = "") -> str:
    environment = os.environ | {"PYTHON": str(checkout.parent / "python"), "RELEASE": release}
    done = subprocess.run(
        [checkout / ".ci/release-check", *arguments],
        cwd=checkout.parent, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode
    return done.stderr


def test_a_folder_may_be_relative_and_must_be_empty(checkout: Path) -> None:
    assert errors(checkout, "new/out") == f"{VENV}{checkout.parent / 'new/out/build'}\n"
    (checkout.parent / "new/out/old").touch()
    assert errors(checkout, "new/out") == "release-check: FOLDER must be new or empty; new/out is neither\n"


def test_a_release_is_built_from_its_tag_without_changes(checkout: Path) -> None:
    assert "this commit must have the tag v1.2.3" in errors(checkout, release="1")
    git(checkout, "tag", "-a", "v1.2.3", "-m", "1.2.3")
    assert errors(checkout, release="1").startswith(VENV)
    (checkout / "more.py").touch()
    assert "checkout without changes; commit or remove these:\n?? more.py" in errors(checkout, release="1")
    assert errors(checkout).startswith(VENV)


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt", "npy", "npz", "pt", "onnx", "PTH"])
def test_weights_and_arrays_are_unwanted_in_a_wheel(suffix: str) -> None:
    unwanted = runpy.run_path(str(CI / "check_metadata.py"))["UNWANTED"]
    assert unwanted.search(f"angulus/recipes/weights.{suffix}") and not unwanted.search(f"angulus/{suffix}.py")
