"""What `.ci/release-check` refuses before it builds, how `.ci/run` fails, and the files that no wheel may hold."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import time
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


@pytest.mark.parametrize("failing", ["make demo", "release-check", "nothing"])
def test_a_failed_step_fails_the_run_and_leaves_no_process(failing: str, tmp_path: Path) -> None:
    """Of a shallow clone without `shared` next to it, with steps that do nothing but fail or last."""
    origin = tmp_path / "origin"
    (origin / ".ci").mkdir(parents=True)
    (origin / "docs").mkdir()
    shutil.copy(CI / "run", origin / ".ci")
    wait = 600 if failing == "make demo" else 0
    check = "wait" if failing == "make demo" else f"echo checked; [ '{failing}' != release-check ]"
    (origin / ".ci/release-check").write_text(f"#!/bin/sh\nsleep {wait} & echo $! >{tmp_path}/worker\n{check}\n")
    (origin / ".ci/release-check").chmod(0o755)
    demo = f"until [ -s {tmp_path}/worker ]; do sleep 0.1; done; [ '{failing}' != 'make demo' ]"
    (origin / "Makefile").write_text(f"demo:\n\t{demo}\nlint types site test docs:\n\t@echo made $@\n")
    (tmp_path / "chromium").write_text("#!/bin/sh\n")
    (tmp_path / "chromium").chmod(0o755)
    for name in ("losses-tested.md", "reproduction.md"):
        (origin / "docs" / name).touch()
    git(origin, "init", "-q")
    git(origin, "add", ".")
    git(origin, "commit", "-qm", "One")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{origin}", "checkout")
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path / "rooms")}
    (tmp_path / "rooms").mkdir()
    done = subprocess.run(
        [tmp_path / "checkout/.ci/run"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode == 0) == (failing == "nothing"), done.stderr
    assert ("made test" in done.stdout) == (failing == "nothing")
    assert ("checked" in done.stdout) == (failing != "make demo")
    assert not list((tmp_path / "rooms").iterdir())
    with pytest.raises(ProcessLookupError):
        for _ in range(100):  # they end soon after the signal
            os.kill(int((tmp_path / "worker").read_text()), 0)
            time.sleep(0.1)


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt", "npy", "npz", "pt", "onnx", "PTH"])
def test_weights_and_arrays_are_unwanted_in_a_wheel(suffix: str) -> None:
    unwanted = runpy.run_path(str(CI / "check_metadata.py"))["UNWANTED"]
    assert unwanted.search(f"angulus/recipes/weights.{suffix}") and not unwanted.search(f"angulus/{suffix}.py")
