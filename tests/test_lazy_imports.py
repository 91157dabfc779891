"""What `import angulus` and `angulus --help` leave unimported: each is fast because of it."""

from __future__ import annotations

import subprocess
import sys
import typing
from pathlib import Path

import pytest

import angulus
from angulus.cli.main import COMMANDS, load_all

SLOW = (
    *("cv2", "fsspec.implementations", "jinja2", "kornia", "lance", "matplotlib", "onnx", "PIL", "pandas", "plotly"),
    *("pyarrow", "pydantic", "rich", "ruamel", "scipy", "sklearn", "sympy", "tensorboard", "torch._dynamo", "triton"),
)


def modules_after(code: str) -> set[str]:
    """The modules that a new process has imported at the end of `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint()\nprint(*sys.modules)"],
        env={"PYTHONPATH": str(Path(angulus.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


def test_import_angulus_imports_no_torch() -> None:
    assert modules_after("import angulus") & {"numpy", "torch", *SLOW} == set()


def test_the_public_names_import_nothing_slow_but_torch() -> None:
    added = modules_after("from angulus import *") - modules_after("import torch")
    assert {"angulus.heads.dense", "angulus.models.artifact"} <= added
    assert added & set(SLOW) == {"pydantic"}  # which checks `TrainingArguments`


def test_processes_that_decode_and_align_import_no_torch() -> None:
    """Each of them would take a second and 200 MB longer to start."""
    loaded = modules_after("import angulus.data.faces.prepare, angulus.data.convert")
    assert "angulus.data.faces.align" in loaded and "torch" not in loaded


def test_names_that_are_imported_at_their_first_use_are_listed() -> None:
    code = "import angulus.data; assert {*angulus.data.__all__} <= {*dir(angulus.data)}"
    assert "torch" not in modules_after(code)


HELP = """
import contextlib, sys
from angulus.cli.main import main
for arguments in (["--help"], ["--version"], [], ["fly"], ["train", "--help"]):
    sys.argv[1:] = arguments
    with contextlib.suppress(SystemExit):
        main()
"""


def test_help_imports_no_torch() -> None:
    loaded = modules_after(HELP)
    assert "angulus.cli.main" in loaded
    assert loaded & {"numpy", "torch", *SLOW} - {"pydantic", "rich"} == set()  # typer uses both
    assert {name for name in loaded if name.startswith("angulus.cli.")} <= {
        *("angulus.cli.main", "angulus.cli.examples", "angulus.cli.train", "angulus.cli.engine", "angulus.cli.output"),
        "angulus.cli.urls",
    }


def test_every_command_has_its_line_in_the_help() -> None:
    assert all(line.endswith(".") and len(line) <= 70 for _, _, line in COMMANDS.values())
    assert list(load_all().commands) == list(COMMANDS)


def test_every_public_name_is_there_and_no_other() -> None:
    assert {name for name in angulus.__all__ if getattr(angulus, name) is None} == set()
    assert set(angulus.__all__) <= set(dir(angulus))
    assert angulus.theory is angulus.losses.theory and angulus.load.__module__ == "angulus.models.artifact"
    folders = {path.parent.name for path in Path(angulus.__file__).parent.glob("*/__init__.py")} - {"cli", "serve"}
    assert {name for name in dir(angulus) if name not in angulus.__all__} | {"losses"} == folders
    with pytest.raises(AttributeError, match="module 'angulus' has no attribute 'arcfase'"):
        typing.cast(typing.Any, angulus).arcfase  # noqa: B018
