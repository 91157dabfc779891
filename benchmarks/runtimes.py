"""One network by PyTorch, ONNX Runtime and OpenVINO: processor time, and how far each is from PyTorch in float32.

    python benchmarks/runtimes.py DATA [--images 32] [--rounds 3] [--threads 1] [--save]

slim_resnet with random weights, features of mirror images added, on pixels that are decoded already. OpenVINO is
measured if it is installed: in float32, and in the precision that it chooses for the processor.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import angulus
from angulus.core import extras
from angulus.models import artifact
from angulus.models.parity import compare_features
from embed import CONFIG
from face_images import crops
from harness import options, ratio_text, run, show, spread, store, take_turns

Features = Callable[[], np.ndarray]


def runtimes(folder: Path, pixels: np.ndarray, threads: int) -> dict[str, Features]:
    """What gives the features of the pixels, by name; PyTorch in float32 first."""
    torch.manual_seed(0)
    artifact.save(CONFIG, CONFIG.build(), folder / "model")
    model, low = (artifact.load(folder / "model") for _ in range(2))
    low.precision = "bfloat16"
    angulus.Embedder(model).export(folder / "m.onnx")
    runtime = extras.load("onnxruntime", "onnx", "this benchmark")
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(folder / "m.onnx"), settings, providers=["CPUExecutionProvider"])
    tensor = torch.from_numpy(pixels)
    found: dict[str, Features] = {
        "PyTorch, float32": lambda: model.embed(tensor).numpy(),
        "PyTorch, bfloat16": lambda: low.embed(tensor).numpy(),
        "ONNX Runtime": lambda: session.run(["features"], {"pixels": pixels})[0],
    }
    if importlib.util.find_spec("openvino") is not None:
        import openvino  # type: ignore[import-not-found]

        core = openvino.Core()
        for name, hint in (
            ("OpenVINO, float32", {"INFERENCE_PRECISION_HINT": "f32"}),
            ("OpenVINO, its own choice", {}),
        ):
            asked = hint | {"INFERENCE_NUM_THREADS": threads}
            compiled = core.compile_model(str(folder / "m.onnx"), "CPU", asked)
            found[name] = partial(_features, compiled, pixels)
    return found


def _features(compiled: Any, pixels: np.ndarray) -> np.ndarray:
    return np.array(compiled({"pixels": pixels})["features"])


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", images=32, rounds=3, threads=1)
    parser.add_argument("data", type=Path)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    pixels = np.stack([crop.pixels for crop in crops(asked.data, asked.images, seed=0)]).transpose(0, 3, 1, 2).copy()
    with tempfile.TemporaryDirectory() as name:
        steps = runtimes(Path(name), pixels, asked.threads)
        features = {name: step() for name, step in steps.items()}
        timings = take_turns(steps, asked.rounds)
    own = features["PyTorch, float32"]
    rows = []
    for timing in timings:
        other = features[timing.what]
        parity = compare_features(own, other, np.linalg.norm(other, axis=1))
        row = {"what": timing.what, "images": asked.images, "rounds": asked.rounds, "threads": asked.threads}
        ratios = [mine.cpu_seconds / base.cpu_seconds for mine, base in zip(timing.clocks, timing.floor, strict=True)]
        row |= {"core_ms": 1000 * timing.cpu_seconds / asked.images} | spread(ratios)
        rows.append(row | {"feature_error": parity.feature_error, "cosine": parity.cosine})
    show(
        f"{asked.images} crops of 112x112, {asked.threads} thread(s), {asked.rounds} rounds",
        [
            {
                "what": row["what"],
                "core ms/image": f"{row['core_ms']:.1f}",
                "core time": ratio_text(row),
                "error": f"{row['feature_error']:.1e}",
                "smallest cosine": f"{row['cosine']:.6f}",
            }
            for row in rows
        ],
    )
    if asked.save:
        store("runtimes", rows, "onnxruntime", "openvino")


if __name__ == "__main__":
    run(main)
