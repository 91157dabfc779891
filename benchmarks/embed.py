"""Time of embedding aligned faces: `angulus embed` and `Embedder.encode` next to bare loops over the same network.

    python benchmarks/embed.py DATA [--images 128] [--rounds 3] [--threads 2] [--save]

slim_resnet with 256-D features on 112x112 crops, features of mirror images added, on the CPU. The bare loops only run
the network on pixels that are decoded already, at several batch sizes and in both memory formats; the fastest of them
is the floor. Ours decode JPEGs; `embed` also reads records, saves parts and writes the file. Ratios are of wall-clock
time and of the process's CPU time: on a machine that others use, the second is steadier. The lower-precision rows print
their largest relative error of a feature.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import angulus
from angulus.core.contract import Contract
from angulus.data.records import Row, write_records
from angulus.models import artifact, embed, onnx_model
from angulus.models.artifact import Config
from angulus.models.parity import compare_features
from face_images import crops
from harness import Row as Line
from harness import Timing, options, ratio_text, run, show, spread, store, take_turns

CONTRACT = Contract(size=(112, 112), colour="rgb", template="five_points", flip="sum")
CONFIG = Config("slim_resnet", 3, (112, 112), 256, contract=CONTRACT)
BATCHES = (8, 32, 128)


def bare(backbone: torch.nn.Module, pixels: torch.Tensor, batch: int, channels_last: bool) -> None:
    """A plain loop: scale, run, mirror, run, add."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    with torch.inference_mode():
        for part in torch.split(pixels, batch):
            x = ((part.float() - 127.5) / 127.5).contiguous(memory_format=layout)
            backbone(x) + backbone(x.flip(-1))


def steps(
    folder: Path, model: artifact.Model, images: list[np.ndarray]
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """What is timed, by name, and the errors of those that are not float32 in PyTorch."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    loops: dict[str, Callable[[], object]] = {
        f"bare loop, batch {batch}{', channels last' if last else ''}": partial(
            bare, model.backbone, pixels, batch, last
        )
        for batch in BATCHES
        for last in (False, True)
    }
    low = artifact.load(folder / "model")
    low.precision = "bfloat16"
    angulus.Embedder(model).export(folder / "m.onnx")
    other = onnx_model.load(folder / "m.onnx")
    paths = sorted((folder / "photos").iterdir())
    own = model.embed(pixels).numpy()
    errors = {}
    for name, found in (("bfloat16", low.embed(pixels)), ("ONNX Runtime", other.embed(pixels))):
        errors[name] = compare_features(own, found.numpy(), np.linalg.norm(found.numpy(), axis=1)).feature_error
    ours: dict[str, Callable[[], object]] = {
        "angulus embed, records to file": partial(embed.run, folder / "model", folder / "records", folder / "e.npz"),
        "Embedder.encode, JPEG files": lambda: angulus.Embedder(model).encode(paths),
        "Embedder.encode, JPEG files, bfloat16": lambda: angulus.Embedder(low).encode(paths),
        "Embedder.encode, JPEG files, ONNX Runtime": lambda: angulus.Embedder(other).encode(paths),
    }
    return loops | ours, errors


def prepare(folder: Path, data: Path, count: int) -> tuple[artifact.Model, list[np.ndarray]]:
    """A model folder, the crops as JPEG files and as records."""
    torch.manual_seed(0)
    artifact.save(CONFIG, CONFIG.build(), folder / "model")
    (folder / "photos").mkdir()
    images = [crop.pixels for crop in crops(data, count, seed=0)]
    rows = []
    for number, image in enumerate(images):
        path = folder / "photos" / f"{number:06}.jpg"
        Image.fromarray(image).save(path, quality=95)
        rows.append(Row(path.name, path.read_bytes(), ""))
    write_records(folder / "records", rows)
    return artifact.load(folder / "model"), images


def line(timing: Timing, images: int) -> Line:
    """A row of the table: speed, and both ratios to the floor."""
    cpu = [own.cpu_seconds / floor.cpu_seconds for own, floor in zip(timing.clocks, timing.floor, strict=True)]
    ratios = {f"cpu_{name}": value for name, value in spread(cpu).items()}
    speed = {"images_per_s": images / timing.seconds, "core_ms": 1000 * timing.cpu_seconds / images}
    return {"what": timing.what} | speed | timing.slower() | ratios


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", images=128, rounds=3, threads=2)
    parser.add_argument("data", type=Path)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as name:
        model, images = prepare(Path(name), asked.data, asked.images)
        timed, errors = steps(Path(name), model, images)
        timings = take_turns(timed, asked.rounds)
    loops = [timing for timing in timings if timing.what.startswith("bare")]
    floor = min(loops, key=lambda timing: timing.cpu_seconds)
    rows = []
    for timing in timings:
        row = line(Timing(timing.what, timing.clocks, floor.clocks), asked.images)
        error = next((value for name, value in errors.items() if timing.what.endswith(name)), None)
        shape = {"images": asked.images, "rounds": asked.rounds, "threads": asked.threads, "floor": floor.what}
        rows.append(row | shape | {"feature_error": error})
    show(
        f"{asked.images} crops of 112x112, {asked.rounds} rounds; ratios to: {floor.what}",
        [
            {
                "what": row["what"],
                "images/s": f"{row['images_per_s']:.0f}",
                "core ms/image": f"{row['core_ms']:.1f}",
                "time": ratio_text(row),
                "core time": ratio_text({name.removeprefix("cpu_"): row[name] for name in row if "cpu_" in name}),
                "error": "" if row["feature_error"] is None else f"{row['feature_error']:.1e}",
            }
            for row in rows
        ],
    )
    if asked.save:
        store("embed", rows, "onnxruntime", "pillow")


if __name__ == "__main__":
    run(main)
