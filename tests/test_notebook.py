"""The notebooks: their cells run in a fresh process, print what is stored, and need no Jupyter."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import notebook
from pathlib import Path
print(json.dumps(notebook.run(notebook.read(Path(sys.argv[2])))))
"""


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def shapes(cell: dict[str, Any]) -> list[str]:
    """What a cell gives: its text without numbers, and that there is a picture."""
    return [
        re.sub(r"\d[\d.,]*", "0", "".join(output["text"])) if "text" in output else ", ".join(output["data"])
        for output in cell["outputs"]
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_gives_what_is_stored(path: Path, tmp_path: Path) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, "-c", RUN, str(ROOT / "docs"), str(path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    ran = json.loads(found.stdout)
    assert [shapes(cell) for cell in code_cells(ran)] == [shapes(cell) for cell in code_cells(stored)]
    assert [cell["execution_count"] for cell in code_cells(stored)] == list(range(1, len(code_cells(stored)) + 1))


def test_the_quickstart_learns_and_draws() -> None:
    cells = code_cells(json.loads((ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8")))
    text = "".join("".join(output.get("text", ())) for cell in cells for output in cell["outputs"])
    accuracies = dict(re.findall(r"^(softmax|ArcFace) +([\d.]+)%", text, flags=re.M))
    assert set(accuracies) == {"softmax", "ArcFace"} and min(map(float, accuracies.values())) > 90
    assert sum("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"]) == 1
