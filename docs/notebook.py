"""Runs the notebooks of examples/ and stores what they print and draw: `python docs/notebook.py`.

It needs no Jupyter: a notebook is JSON, and its cells are plain Python without magics.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples"


def read(path: Path) -> dict[str, Any]:
    """A notebook's JSON."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its code cells, which run in their order in one namespace."""
    import matplotlib

    matplotlib.use("Agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            outputs = _run_cell("".join(cell["source"]), names, count)
            cell = cell | {"execution_count": count, "outputs": outputs}
        cells.append(cell)
    return notebook | {"cells": cells}


def _run_cell(code: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """What a cell prints, and the figures that it leaves open, as Jupyter stores them."""
    from matplotlib import pyplot

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, f"cell {number}", "exec", dont_inherit=True), names)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)})
    for figure in map(pyplot.figure, pyplot.get_fignums()):
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=70, metadata={"Software": None})
        picture = base64.b64encode(file.getvalue()).decode()
        outputs.append({"output_type": "display_data", "data": {"image/png": picture}, "metadata": {}})
    pyplot.close("all")
    return outputs


def as_markdown(notebook: dict[str, Any]) -> str:
    """A notebook as a page: text, code, and what it printed and drew."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text'])}```")
            else:
                parts.append(f"![What the cell draws](data:image/png;base64,{output['data']['image/png']})")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Run every notebook and write it back with its outputs."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        text = json.dumps(run(read(path)), indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
