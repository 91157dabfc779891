"""From JPEGs to decoded, augmented batches on one core: Angulus, torchvision, kornia, WebDataset and LitData.

    python benchmarks/loading.py RECORDS [--rounds 5] [--batches 24] [--save]

All read the same JPEGs in random batches of 128, in one process with one thread: what a worker process of a loader
does. Without augmentation ("decode"), with mirroring, and with mirroring and changed brightness, contrast and
saturation for one image in five ("jitter"). torchvision's v2 transforms take single images, as its datasets do;
kornia's take float batches. Decoders: OpenCV for Angulus and kornia, `torchvision.io.decode_jpeg` for torchvision,
Pillow for WebDataset and LitData, as their guides have it. Peers that are not installed are left out. Ratios are of
processor time to Angulus's, of the same rounds. Last come Angulus's stages, each alone, in the same rounds.
"""

from __future__ import annotations

import importlib.util
import io
import statistics
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from angulus.data import decode
from angulus.data.augment import Augment
from angulus.data.loader import DecodedPixels, part_of
from angulus.data.records import Records
from harness import Row, Timing, options, ratio_text, run, show, spread, store, take_turns

BATCH, JITTER_SHARE = 128, 0.2
AUGMENTS = ("decode", "flip", "jitter")
Step = Callable[[], object]


def batches(many: int, count: int) -> list[Any]:
    return list(np.random.default_rng(0).integers(0, count, (many, BATCH)))


def each(step: Callable[[Any], Any], chosen: list[Any]) -> Step:
    """A step over all batches."""
    return lambda: [step(rows) for rows in chosen]


def angulus(records: Records, chosen: list[Any]) -> Iterator[tuple[str, Step]]:
    part = part_of(records)
    pixels = DecodedPixels(records, part.rows, part.size, threads=1)
    random = torch.Generator().manual_seed(0)
    changes: dict[str, Any] = {
        "decode": lambda images, _: images,
        "flip": Augment(flip=0.5),
        "jitter": Augment(flip=0.5, photometric=JITTER_SHARE),
    }

    def batch(change: Any, rows: Any) -> Any:
        return change(pixels[rows], random)

    for name, change in changes.items():
        yield name, each(partial(batch, change), chosen)


def torchvision_changes() -> dict[str, Any]:
    from torchvision.transforms import v2

    flip, jitter = v2.RandomHorizontalFlip(0.5), v2.ColorJitter(0.5, 0.5, 0.5)
    both = v2.Compose([flip, v2.RandomApply([jitter], JITTER_SHARE)])
    return {"decode": lambda image: image, "flip": flip, "jitter": both}


def torchvision(records: Records, chosen: list[Any]) -> Iterator[tuple[str, Step]]:
    from torchvision.io import ImageReadMode, decode_jpeg

    def one(data: bytes, change: Any) -> Tensor:
        bits = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return change(decode_jpeg(bits, ImageReadMode.RGB))  # type: ignore[no-any-return]

    def batch(change: Any, rows: Any) -> Tensor:
        return torch.stack([one(data, change) for data in records.images(rows)])

    for name, change in torchvision_changes().items():
        yield name, each(partial(batch, change), chosen)


def kornia(records: Records, chosen: list[Any]) -> Iterator[tuple[str, Step]]:
    import cv2
    import kornia.augmentation as K

    flip, jitter = K.RandomHorizontalFlip(p=0.5), K.ColorJitter(0.5, 0.5, 0.5, p=JITTER_SHARE)
    changes = {"decode": lambda images: images, "flip": flip, "jitter": K.AugmentationSequential(flip, jitter)}

    def batch(change: Any, rows: Any) -> Any:
        images = records.images(rows)
        arrays: list[Any] = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) for data in images]
        return change(torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255)

    for name, change in changes.items():
        yield name, each(partial(batch, change), chosen)


def pillow(data: bytes, change: Any) -> Tensor:
    from PIL import Image
    from torchvision.transforms.v2 import functional

    return change(functional.pil_to_tensor(Image.open(io.BytesIO(data)).convert("RGB")))  # type: ignore[no-any-return]


def webdataset(records: Records, chosen: list[Any], folder: Path) -> Iterator[tuple[str, Step]]:
    import webdataset as wds

    with tarfile.open(folder / "images.tar", "w") as archive:
        for number, image in enumerate(records.images(np.concatenate(chosen))):
            info = tarfile.TarInfo(f"{number:06}.jpg")
            info.size = len(image)
            archive.addfile(info, io.BytesIO(image))
    for name, change in torchvision_changes().items():
        made = wds.WebDataset(str(folder / "images.tar"), shardshuffle=False).shuffle(1000).to_tuple("jpg")
        made = made.map_tuple(partial(pillow, change=change)).batched(BATCH)
        yield name, partial(list, made)


def litdata(records: Records, chosen: list[Any], folder: Path) -> Iterator[tuple[str, Step]]:
    import litdata as ld
    from litdata.streaming.cache import Cache

    cache = Cache(input_dir=str(folder), chunk_bytes="64MB")
    for number, image in enumerate(records.images(np.concatenate(chosen))):
        cache[number] = image
    cache.done()
    cache.merge()

    class Bytes(ld.StreamingDataset):  # type: ignore[misc]
        def __init__(self, change: Any) -> None:
            super().__init__(input_dir=str(folder), shuffle=True)
            self.change = change

        def __getitem__(self, index: Any) -> Tensor:
            return pillow(super().__getitem__(index), self.change)

    for name, change in torchvision_changes().items():
        loader = ld.StreamingDataLoader(Bytes(change), batch_size=BATCH, num_workers=0)
        yield name, partial(list, loader)


def stages(records: Records, chosen: list[Any]) -> Iterator[tuple[str, Step]]:
    """Angulus's work in parts: reading, decoding what is read, augmenting what is decoded."""
    images = [records.images(rows) for rows in chosen]
    part, random = part_of(records), torch.Generator().manual_seed(0)
    decoded = [DecodedPixels(records, part.rows, part.size, threads=1)[rows] for rows in chosen]
    opencv = decode.opencv()
    yield "read", lambda: [records.images(rows) for rows in chosen]
    yield "header", lambda: [decode._is_plain_jpeg(image) for batch in images for image in batch]
    if opencv is not None:
        bits = [np.frombuffer(image, np.uint8) for batch in images for image in batch]
        yield "decoder alone", lambda: [opencv.imdecode(data, opencv.IMREAD_COLOR_RGB) for data in bits]
    flip, jitter = Augment(flip=0.5), Augment(flip=0.0, photometric=JITTER_SHARE)
    yield "mirroring", lambda: [flip(batch, random) for batch in decoded]
    yield "jitter of one in five, and a copy", lambda: [jitter(batch, random) for batch in decoded]


def measure(path: Path, rounds: int, many: int, folder: Path) -> Iterator[Row]:
    records = Records(path)
    chosen = batches(many, len(records))
    steps: dict[Any, Step] = {("Angulus", name): step for name, step in angulus(records, chosen)}
    peers: dict[str, Callable[..., Iterator[tuple[str, Step]]]] = {"torchvision": torchvision, "kornia": kornia}
    peers |= {"webdataset": webdataset, "litdata": litdata}
    for peer, make in peers.items():
        needs = ("kornia", "cv2") if peer == "kornia" else (peer, "torchvision")
        if all(importlib.util.find_spec(package) for package in needs):
            own = folder / peer
            own.mkdir()
            steps |= {
                (peer, name): step
                for name, step in make(records, chosen, *([own] if peer in ("webdataset", "litdata") else []))
            }
    steps |= {("Angulus, stage", name): step for name, step in stages(records, chosen)}
    timings: dict[Any, Timing] = {timing.what: timing for timing in take_turns(steps, rounds)}
    for (who, name), timing in timings.items():
        cpu = [clock.cpu_seconds for clock in timing.clocks]
        floor = [clock.cpu_seconds for clock in timings["Angulus", name if name in AUGMENTS else "jitter"].clocks]
        ratios = spread([own / other for own, other in zip(cpu, floor, strict=True)])
        us = 1e6 * statistics.median(cpu) / (many * BATCH)
        yield {"who": who, "work": name, "cpu_us": us, "images_per_core_s": 1e6 / us, **ratios}


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", rounds=5, batches=24)
    parser.add_argument("records", type=Path)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measure(asked.records, asked.rounds, asked.batches, Path(folder)))
    show(
        f"{asked.batches} batches of {BATCH}, one core, {asked.rounds} rounds",
        [
            {
                "who": row["who"],
                "work": row["work"],
                "images/s per core": f"{row['images_per_core_s']:,.0f}",
                "CPU µs/image": f"{row['cpu_us']:,.0f}",
                "ratio of CPU time": ratio_text(row),
            }
            for row in rows
        ],
    )
    if asked.save:
        store("loading", rows, "torchvision", "kornia", "webdataset", "litdata", "opencv-python-headless", "pillow")


if __name__ == "__main__":
    run(main)
