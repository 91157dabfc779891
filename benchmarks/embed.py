"""Time of `embed`, `predict`, `verify` and `prepare faces`, each next to a bare loop over the same network.

    python benchmarks/embed.py DATA [--images 128] [--photos 16] [--rounds 3] [--threads 2] [--save]

slim_resnet with 256-D features on 112x112 crops, features of mirror images added, on the CPU. The bare loops only run
the network on pixels that are decoded already, at several batch sizes and in both memory formats; the fastest loop of
a task, by processor time, is its floor. Ours decode JPEGs; `embed` also reads records, saves parts and writes the file,
`prepare` encodes crops and writes records and a report. Ratios are of wall-clock time and of the process's CPU time:
on a machine that others use, the second is steadier. Rows of another precision or runtime print their largest relative
error of a feature.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from itertools import count, product
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import angulus
import angulus.losses
from angulus.core.contract import Contract
from angulus.data.faces.align import AlignedFace, Crops, align
from angulus.data.faces.detector import areas
from angulus.data.faces.mtcnn import Mtcnn
from angulus.data.faces.prepare import prepare_faces
from angulus.data.records import Row, write_records
from angulus.models import artifact, embed, onnx_model
from angulus.models.artifact import Config
from angulus.models.classifier import Classifier
from angulus.models.parity import compare_features
from angulus.models.predict import predict
from angulus.models.verify import verify
from face_images import crops
from face_images import photos as face_photos
from harness import Row as Line
from harness import Timing, options, ratio_text, run, show, spread, store, take_turns

CONTRACT = Contract(size=(112, 112), colour="rgb", template="five_points", flip="sum")
CONFIG = Config("slim_resnet", 3, (112, 112), 256, contract=CONTRACT)
BATCHES = (8, 32, 128)
PAIRS, CLASSES = 24, 100


def bare(
    backbone: torch.nn.Module,
    pixels: torch.Tensor,
    batch: int,
    channels_last: bool,
    classifier: Classifier | None = None,
) -> None:
    """A plain loop: scale, run, mirror, run, add; with a classifier: scale, run, softmax."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    with torch.inference_mode():
        for part in torch.split(pixels, batch):
            x = ((part.float() - 127.5) / 127.5).contiguous(memory_format=layout)
            if classifier is not None:
                torch.softmax(classifier(backbone(x)), dim=1)
            else:
                backbone(x) + backbone(x.flip(-1))


def steps(
    folder: Path, model: artifact.Model, images: list[np.ndarray], photos: list[np.ndarray]
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """What is timed, as "TASK: what", and the errors of those that are not float32 in PyTorch."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    low = artifact.load(folder / "model")
    low.precision = "bfloat16"
    angulus.Embedder(model).export(folder / "m.onnx")
    other = onnx_model.load(folder / "m.onnx")
    paths = sorted((folder / "crops").iterdir())
    own = model.embed(pixels).numpy()
    errors = {}
    for name, found in (("bfloat16", low.embed(pixels)), ("ONNX Runtime", other.embed(pixels))):
        errors[name] = compare_features(own, found.numpy(), np.linalg.norm(found.numpy(), axis=1)).feature_error
    mtcnn, crop = Mtcnn(), Crops()
    couples = list(zip(paths[::2], paths[1::2], strict=False))[:PAIRS]
    steps: dict[str, Callable[[], object]] = {}
    for batch, last in product(BATCHES, (False, True)):
        name = f"bare loop, batch {batch}{', channels last' if last else ''}"
        steps[f"embed: {name}"] = partial(bare, model.backbone, pixels, batch, last)
    steps |= {
        "embed: angulus embed, records to file": partial(
            embed.run, folder / "model", folder / "records", folder / "e.npz"
        ),
        "embed: Embedder.encode, JPEG files": lambda: angulus.Embedder(model).encode(paths),
        "embed: Embedder.encode, JPEG files, bfloat16": lambda: angulus.Embedder(low).encode(paths),
        "embed: Embedder.encode, JPEG files, ONNX Runtime": lambda: angulus.Embedder(other).encode(paths),
    }
    for batch in BATCHES:
        classify = partial(bare, model.backbone, pixels, batch, True, model.need_classes())
        steps[f"predict: bare loop, batch {batch}, channels last"] = classify
    steps["predict: angulus predict, JPEG files"] = lambda: predict(model, [folder / "crops"])
    for last in (False, True):
        name = f"verify: bare loop, pairs{', channels last' if last else ''}"
        steps[name] = partial(bare, model.backbone, pixels[: 2 * len(couples)], 2, last)
    steps["verify: angulus.verify, JPEG files"] = lambda: [verify(model, *pair, threshold=0.3) for pair in couples]
    steps["prepare: bare loop, detect and align"] = lambda: [detect_and_align(mtcnn, photo, crop) for photo in photos]
    numbers = count()
    steps["prepare: prepare_faces, 1 process"] = lambda: prepare_faces(
        folder / "photos", folder / f"faces-{next(numbers)}", crop, workers=1
    )
    return steps, errors


def detect_and_align(detector: Mtcnn, photo: np.ndarray, crops: Crops) -> AlignedFace | None:
    """The largest face of decoded pixels."""
    (faces,) = detector.detect([photo])
    if not len(faces):
        return None
    return align(photo, faces.landmarks[areas(faces.boxes).argmax()], crops.height, crops.width)


def prepare(
    folder: Path, data: Path, images: int, photos: int
) -> tuple[artifact.Model, list[np.ndarray], list[np.ndarray]]:
    """A model folder; crops as JPEG files and as records; photos as JPEG files."""
    torch.manual_seed(0)
    names = [f"person {number}" for number in range(CLASSES)]
    classifier = Classifier(names, angulus.losses.normface(), torch.randn(CLASSES, CONFIG.embedding_size))
    artifact.save(CONFIG, CONFIG.build(), folder / "model", classifier=classifier)
    taken = [crop.pixels for crop in crops(data, images, seed=0)]
    rows = [Row(path.name, path.read_bytes(), "") for path in save_all(taken, folder / "crops")]
    write_records(folder / "records", rows)
    scenes = [photo for photo, _ in face_photos(data, photos)]
    save_all(scenes, folder / "photos" / "all")
    return artifact.load(folder / "model"), taken, scenes


def save_all(images: list[np.ndarray], folder: Path) -> list[Path]:
    """The images as JPEG files."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:06}.jpg" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path, quality=95)
    return paths


def line(timing: Timing, images: int) -> Line:
    """A row of the table: speed, and both ratios to the floor."""
    cpu = [own.cpu_seconds / floor.cpu_seconds for own, floor in zip(timing.clocks, timing.floor, strict=True)]
    ratios = {f"cpu_{name}": value for name, value in spread(cpu).items()}
    speed = {"images": images, "images_per_s": images / timing.seconds, "core_ms": 1000 * timing.cpu_seconds / images}
    return {"what": timing.what} | speed | timing.slower() | ratios


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", images=128, photos=16, rounds=3, threads=2)
    parser.add_argument("data", type=Path)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as name:
        model, images, photos = prepare(Path(name), asked.data, asked.images, asked.photos)
        timed, errors = steps(Path(name), model, images, photos)
        timings = take_turns(timed, asked.rounds)
    rows = []
    counts = {"verify": 2 * min(PAIRS, asked.images // 2), "prepare": asked.photos}
    for timing in timings:
        task = timing.what.partition(":")[0]
        loops = [other for other in timings if other.what.startswith(f"{task}: bare")]
        floor = min(loops, key=lambda other: other.cpu_seconds)
        row = line(Timing(timing.what, timing.clocks, floor.clocks), counts.get(task, asked.images))
        error = next((value for name, value in errors.items() if timing.what.endswith(name)), None)
        shape = {"rounds": asked.rounds, "threads": asked.threads, "floor": floor.what}
        rows.append(row | shape | {"feature_error": error})
    show(
        f"{asked.images} crops, {asked.photos} photos, {asked.rounds} rounds; ratios to each task's fastest loop",
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
        store("embed", rows, "onnxruntime", "pillow", "opencv-python-headless")


if __name__ == "__main__":
    run(main)
