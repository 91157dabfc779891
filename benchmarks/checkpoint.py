"""Saving and loading class weights with momentum, against bare writes, torch.save and torch.distributed.checkpoint.

    python benchmarks/checkpoint.py [--classes 312500] [--size 512] [--rounds 3] [--save]
    torchrun --nproc-per-node 2 benchmarks/checkpoint.py ...

--classes are those of each process: 312,500 with 512 numbers and momentum, 1.28 GB, are a 32nd of ten million. Every
save ends on the disk (fsync), and files leave the page cache before they are loaded. With one process the script also
measures what `training.checkpoint_async` costs: the copy, and a training's products while a thread writes. `--folder
/dev/shm` leaves the disk out: what remains is the work of the processor.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

import angulus
from angulus import losses
from angulus.distributed.launch import process_group
from angulus.distributed.runtime import Ranks
from angulus.heads.saving import load_head, save_head, take_parts, write_parts
from angulus.training.saver import copied
from harness import Row, clock, options, peak_mib, run, show, store

Act = Callable[[Path], object]
Times = list[tuple[float, float, float, float]]  # seconds and core seconds to save, and to load, of each round


class Way(NamedTuple):
    """One way to save and to load; each gets a folder."""

    save: Act
    load: Act


def ways(head: angulus.ShardedHead, optimizer: torch.optim.Optimizer, ranks: Ranks) -> dict[str, Way]:
    """Ways by name; the first is the floor."""
    tensors = {"weight": head.weight.data, "momentum": optimizer.state[head.weight]["momentum_buffer"]}

    def own(folder: Path, name: str) -> Path:
        return folder / f"{name}-{ranks.rank}"

    def write_bare(folder: Path) -> None:
        for name, tensor in tensors.items():
            with own(folder, name).open("wb") as file:
                tensor.numpy().tofile(file)
                os.fsync(file.fileno())

    def torch_save(folder: Path) -> None:
        with own(folder, "state").open("wb") as file:
            torch.save(tensors, file)
            file.flush()
            os.fsync(file.fileno())

    named = {f"{name}-{ranks.rank}": tensor for name, tensor in tensors.items()}
    return {
        "bare: numpy.tofile, fromfile": Way(
            write_bare, lambda folder: [np.fromfile(own(folder, name), np.float32) for name in tensors]
        ),
        "torch.save, torch.load": Way(
            torch_save, lambda folder: torch.load(own(folder, "state"), weights_only=True, mmap=False)
        ),
        "torch.distributed.checkpoint": Way(
            lambda folder: dcp_save(dict(named), checkpoint_id=folder),
            lambda folder: dcp_load(dict(named), checkpoint_id=folder),
        ),
        "angulus: save_head, load_head": Way(
            lambda folder: save_head(head, folder, optimizer), lambda folder: load_head(head, folder, optimizer)
        ),
    }


def timed(act: Act, folder: Path, ranks: Ranks) -> tuple[float, float]:
    """Seconds until the last rank has done it, and core seconds of all."""
    ranks.gather_objects(None)
    taken = clock(lambda: act(folder))
    seconds, core_seconds = zip(*ranks.gather_objects(tuple(taken)), strict=True)
    return max(seconds), sum(core_seconds)


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare(chosen: dict[str, Way], parent: Path, rounds: int, ranks: Ranks) -> tuple[dict[str, Times], int]:
    """Seconds to save and to load in each round, and the bytes of all ranks on disk by the last way."""
    seconds: dict[str, Times] = {name: [] for name in chosen}
    size = 0
    for _ in range(rounds):
        for name, way in chosen.items():
            folder = parent / "checkpoint"
            if ranks.rank == 0:
                folder.mkdir()
            saved = timed(way.save, folder, ranks)
            if ranks.rank == 0:
                size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                forget(folder)
            seconds[name].append((*saved, *timed(way.load, folder, ranks)))
            if ranks.rank == 0:
                shutil.rmtree(folder)
            ranks.gather_objects(None)
    return seconds, size


def products_per_s(until: Callable[[int], bool]) -> float:
    """Products of a training's size per second, until a number of them is done."""
    rows, weight = torch.randn(256, 512), torch.randn(4096, 512)
    started, done = time.perf_counter(), 0
    while not until(done):
        rows @ weight.T
        done += 1
    return done / (time.perf_counter() - started)


def in_background(head: angulus.ShardedHead, optimizer: torch.optim.Optimizer, parent: Path) -> list[Row]:
    """The costs of a checkpoint in a thread: copying, its memory, and what it takes from the training's products."""
    parts = take_parts(head, optimizer)
    started = time.perf_counter()
    mib, copy = peak_mib(lambda: copied(parts))
    seconds = time.perf_counter() - started
    alone = products_per_s(lambda done: done == 500)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_parts, copy, parent / "checkpoint", Ranks())
        at_once = products_per_s(lambda done: writing.done())
        writing.result()
    shutil.rmtree(parent / "checkpoint")
    return [
        {"what": "copy for checkpoint_async", "processes": 1, "save_s": seconds, "extra_mib": mib},
        {"what": "products of 256 x 512 x 4096 while a thread writes", "processes": 1, "ratio": at_once / alone},
    ]


def main() -> None:
    parser = options(__doc__ or "", classes=312_500, size=512, rounds=3)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: the system's for temporary files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with process_group(600.0) as ranks:
        torch.manual_seed(ranks.rank)
        head = angulus.ShardedHead(arguments.size, arguments.classes * ranks.count, losses.arcface())
        optimizer = torch.optim.SGD([head.weight], lr=0.1, momentum=0.9)
        optimizer.state[head.weight]["momentum_buffer"] = torch.randn(head.weight.shape)
        parent = Path(ranks.broadcast(lambda: tempfile.mkdtemp(dir=arguments.folder)))
        try:
            seconds, on_disk = compare(ways(head, optimizer, ranks), parent, arguments.rounds, ranks)
            costs = in_background(head, optimizer, parent) if ranks.count == 1 else []
        finally:
            if ranks.rank == 0:
                shutil.rmtree(parent, ignore_errors=True)
    if ranks.rank:
        return
    tensors = 2 * 4 * head.num_classes * arguments.size
    rows = [row(name, each, next(iter(seconds.values())), tensors, ranks.count) for name, each in seconds.items()]
    rows[-1]["bytes_on_disk"] = on_disk
    rows += costs
    setting = {"classes": head.num_classes, "size": arguments.size, "rounds": arguments.rounds}
    setting["in_memory"] = arguments.folder == Path("/dev/shm")
    figures = [f"{act}_{each}" for act in ("save", "load") for each in ("s", "mb_per_s", "ratio", "core_s")]
    figures += ["extra_mib", "ratio"]
    shown = [
        {"what": found["what"]} | {key: f"{found[key]:,.2f}" if key in found else "" for key in figures}
        for found in rows
    ]
    show(f"{tensors / 1e9:.2f} GB, {ranks.count} processes", shown)
    if arguments.save:
        store("checkpoint", [setting | each for each in rows])


def row(name: str, own: Times, floor: Times, size: int, count: int) -> Row:
    """Medians over the rounds, and ratios to the floor's time of the same round."""
    found: Row = {"what": name, "processes": count}
    for place, act in ((0, "save"), (2, "load")):
        times = [each[place] for each in own]
        found |= {f"{act}_s": median(times), f"{act}_mb_per_s": size / median(times) / 1e6}
        found[f"{act}_ratio"] = median(one[place] / other[place] for one, other in zip(own, floor, strict=True))
        found |= {f"{act}_low_s": min(times), f"{act}_high_s": max(times)}
        found[f"{act}_core_s"] = median(each[place + 1] for each in own)
    return found


if __name__ == "__main__":
    run(main)
