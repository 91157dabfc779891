"""One of several processes that train together; `test_ranks.py` starts them.

    python ranks.py RANK COUNT RENDEZVOUS FOLDER

Trains each case of `CASES` in FOLDER/CASE and tries each of `REFUSED`; every rank writes its errors to
FOLDER/rank-R.json. A run that another number of processes left in FOLDER is resumed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import toy_transformers
from angulus.core import tensor_files
from angulus.core.checks import InputError
from angulus.data import Images, Splits
from angulus.distributed.batch_norm import synchronized
from angulus.distributed.collectives import total
from angulus.distributed.runtime import Ranks
from angulus.experiments import build
from angulus.experiments.run import run
from angulus.training import state, validation
from angulus.training.batches import rank_share
from angulus.training.callbacks import Callback, Record
from angulus.training.job import place_on_device
from angulus.training.signals import Interrupted
from angulus.training.state import write_checkpoint

NET = ["backbone.name=lenet++", "training.optimizer.lr=0.01", "training.epochs=1"]  # without batch norm; 5 steps
SLOW = NET[1:]  # with batch norm, which makes rounding larger
SPREAD = "training.shard_backbone=true"
PLATEAU = "training.schedule={kind: plateau, patience: 1}"
CASES: dict[str, list[str]] = {
    "sgd": [*NET],
    "clipped": [*NET, "training.clip_norm=0.5"],
    "adamw": [*NET, "training.optimizer={kind: adamw, lr: 0.001}"],
    "learned-s": [*NET, "objective.learn=true", "training.optimizer.decay_objective=true"],
    "bias-and-ring": [*NET, "objective={kind: softmax, bias: true, ring_loss: {lam: 0.01}}"],
    "center": [*NET, "objective.center_loss={lam: 0.1, normalize: true}"],
    "gamma-auto": [*NET, "objective={kind: cm_softmax, gamma: auto}"],
    "figures": [*NET, "objective={kind: adaface, s: 10, h: 0.9, rate: 0.3, negatives: {kind: curricular, rate: 0.3}}"],
    "drawn": [*NET, "objective={kind: elasticface, s: 10, sigma: 0.2, plus: true}"],
    "adacos": [*NET, "objective={kind: adacos}"],
    "counted": [*NET, "objective={kind: dynamic_margin, s: 10, weighting: {kind: class_weights, divide: weights}}"],
    "mined": [*NET, "objective.weighting={kind: hard_mining, keep: 0.7, scope: global}"],
    "plateau": [*NET, PLATEAU, "training.epochs=3"],
    "p-k": [*NET, "training.sampler={kind: p_k, images_per_class: 4}"],
    "accumulated": [*NET, "training.accumulate=2", "objective.learn=true"],
    "synced": [*SLOW, "training.sync_batch_norm=true"],
    "synced-accumulated": [*SLOW, "training.sync_batch_norm=true", "training.accumulate=2"],
    "snapshots": [*NET, "training.snapshots={every: 2, after: 1}"],
    "sampled": [*NET, "head.sampling={rate: 1}"],
    "in-backward": [*NET, "head={impl: chunked, update_in_backward: true}"],
    "slow-backbone": [*NET, "training.optimizer.backbone_lr_scale=0.1"],
    "ramped": [*NET, "objective={kind: mv_softmax, s: 8, ramp: {margin: [0.2, 0.8], negatives: auto}}"],
    "averaged": [*NET, "training.ema=0.7", "training.optimizer.layer_decay=0.9", "training.freeze=['layers.0.*']"],
    "compatible": [*NET, "compatible_with={model: FOLDER/sgd/model, weight: 2, classes: means}"],  # after sgd
    "spread": [*NET, SPREAD],
    "spread-all": [
        *NET,
        SPREAD,
        "training.ema=0.7",
        "training.freeze=['layers.0.*']",
        "training.clip_norm=0.5",
        "training.optimizer={kind: adamw, lr: 0.001, layer_decay: 0.9}",
        "training.accumulate=2",
        "training.snapshots={every: 2, after: 1}",
        "evaluation.each_epoch=true",
    ],
    "spread-synced": [
        *SLOW,
        SPREAD,
        "training.sync_batch_norm=true",
        "validation={identities: 0.3, fmr: 0.05, pairs: 200}",
    ],
    "spread-lora": [
        "backbone={name: 'transformers:dinov2', embedding_size: 4, options: {lora: {r: 2, targets: [fc]}, config: "
        "{hidden_size: 6, num_hidden_layers: 2, image_size: 8, patch_size: 4, num_channels: 1}}}",
        *NET[1:],
        SPREAD,
        "training.activation_checkpointing=true",
        "training.ema=0.7",
        "training.clip_norm=0.5",
        "training.optimizer={kind: adamw, lr: 0.01}",
    ],
    "validated": [*NET, "validation={identities: 0.3, fmr: 0.05, pairs: 200}"],
}
OF_THREE = (
    "clipped",
    "bias-and-ring",
    "mined",
    "drawn",
    "synced-accumulated",
    "validated",
    "spread-all",
)  # what three processes train too
STOPPED = {
    "stopped": [*NET, "objective.learn=true"],
    "stopped-adamw": CASES["adamw"],
    "stopped-averaged": CASES["averaged"],
    "stopped-spread": CASES["spread-all"],
    "stopped-in-background": [*CASES["averaged"], "training.checkpoint_every=1", "training.checkpoint_async=true"],
}
REFUSED: dict[str, list[str]] = {
    "dense": ["head.sharded=false"],
    "device": ["training.device=cuda:0"],
    "small": ["training.batch_size=5"],  # 72 images end in a batch of 2
    "diverged": ["objective={kind: softmax}", "training.optimizer.lr=1e30"],
}


def main(rank: int, count: int, rendezvous: str, folder: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=count)
    said: dict[str, Any] = {}
    for name, overrides in CASES.items():
        if count == 3 and name not in OF_THREE:
            continue
        train(name, overrides, folder)
    for name, overrides in STOPPED.items():
        for where in (folder / name, folder / f"{name}-of-one"):
            if where.exists():  # of another number of processes
                run(tiny.validated(*overrides), where, splits=tiny.splits(), resume=True)
        if count == 2:
            said[name] = refusal(overrides, folder / name, on_step=stop(rank))
    refused = folder / "refused"
    for name, overrides in REFUSED.items():
        said[name] = refusal(overrides, refused / name)
    said["classes"] = refusal(NET, refused / "classes", one_class())
    uneven = tiny.splits(test=2 if rank == 1 else 60)  # which rank 1 alone cannot split in good and low
    said["alone"] = refusal(NET, refused / "alone", uneven)
    if count == 2:
        if rank == 0:
            shutil.copytree(folder / "sgd", folder / "sgd-copy")
            shutil.copytree(folder / "sgd", folder / "sgd-stopped")
            (folder / "sgd-stopped" / "results.json").unlink()
        dist.barrier()
        save_in_background(folder)
        said |= torn(rank, folder)
    said["one number"] = unfit_backbone()
    said["batch norm"] = [str(batch_norm(rank, count))]
    (folder / f"rank-{rank}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


def train(name: str, overrides: list[str], folder: Path) -> None:
    """Train a case in FOLDER/NAME."""
    named = [text.replace("FOLDER", str(folder)) for text in overrides]
    with toy_transformers.installed():
        run(tiny.validated(*named), folder / name, splits=tiny.splits())


def stop(rank: int) -> Callable[[int, int, float], None]:
    """Rank 1 alone is asked to stop, at step 3."""

    def on_step(done: int, steps: int, loss: float) -> None:
        if done == 3 and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_step


def save_in_background(folder: Path) -> None:
    """Train, and go on from the checkpoint of step 2 in another folder: a thread wrote it during later steps."""

    def slow(where: Path, content: Mapping[str, Any]) -> None:
        time.sleep(0.3)
        write_checkpoint(where, content)
        if content["progress"]["step"] == 2:
            shutil.copytree(where, folder / "background")

    state.write_checkpoint = slow
    overrides = [*CASES["averaged"], SPREAD, "training.checkpoint_every=2", "training.checkpoint_async=true"]
    train("whole-in-background", overrides, folder)
    state.write_checkpoint = write_checkpoint
    run(tiny.validated(*overrides), folder / "background", splits=tiny.splits(), resume=True)


def batch_norm(rank: int, count: int) -> float:
    """The worst difference between PyTorch's layer on all rows and the synchronised one on each rank's, in float64."""
    torch.manual_seed(0)
    rows = torch.randn(7, 3, 2, dtype=torch.float64)
    pull = torch.randn(7, 3, 2, dtype=torch.float64)
    plain, other = (nn.BatchNorm1d(3, momentum=momentum).double() for momentum in (0.3, 0.3))
    synced = synchronized(other, Ranks.here())
    inputs = rows.clone().requires_grad_(), rank_share(rows, Ranks.here()).clone().requires_grad_()
    worst = 0.0
    for _ in range(2):
        expected, found = plain(inputs[0]), synced(inputs[1])
        (expected * pull).sum().backward()
        (found * rank_share(pull, Ranks.here())).sum().backward()
        pairs = [
            (found, rank_share(expected, Ranks.here())),
            (inputs[1].grad, rank_share(inputs[0].grad, Ranks.here())),
        ]
        pairs += [(total(synced.weight.grad, Ranks.here()), plain.weight.grad)]
        pairs += [(synced.running_mean, plain.running_mean), (synced.running_var, plain.running_var)]
        worst = max([worst, *(float((one - two).abs().max()) for one, two in pairs)])
    synced.eval()
    plain.eval()
    return max(worst, float((synced(rows) - plain(rows)).abs().max()))


def unfit_backbone() -> list[str]:
    """A backbone that learns a single number, which `fully_shard` does not take."""
    net = nn.Linear(2, 2)
    net.scale = nn.Parameter(torch.tensor(1.0))
    recipe = tiny.validated(SPREAD)
    job = build.job(recipe, tiny.splits(), backbone=net)
    try:
        place_on_device(job)
    except InputError as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


def torn(rank: int, folder: Path) -> dict[str, Any]:
    """What goes wrong on rank 1 alone: another folder than rank 0's, one that it does not see, images, figures."""
    said: dict[str, Any] = {}
    start = f"training.start_from={folder / 'sgd'}"
    # rank 0's folder is empty; rank 1's holds a checkpoint, a whole run
    own = folder / ("empty" if rank == 0 else "sgd")
    said["another folder"] = refusal([*NET, start], own)
    said["another folder, resumed"] = refusal(NET, folder / ("sgd-copy" if rank == 0 else "nothing"), resume=True)
    said["unseen, stopped"] = refusal(NET, folder / ("sgd-stopped" if rank == 0 else "nothing"), resume=True)
    said["nothing to resume"] = refusal(NET, own, resume=True)
    overrides = CASES["validated"]
    whole = tiny.splits()
    if rank == 1:
        whole = dataclasses.replace(whole, train=dataclasses.replace(whole.train, pixels=Torn(whole.train.pixels)))
    said["images"] = refusal(overrides, folder / "refused" / "images", whole)
    for background in ("false", "true"):
        if rank == 1:
            tensor_files.save_file = filling(tensor_files.save_file)  # type: ignore[assignment]
        every = ["training.checkpoint_every=2", f"training.checkpoint_async={background}"]
        said[f"disk, {background}"] = refusal([*NET, *every], folder / "refused" / f"disk-{background}")
        tensor_files.save_file = save_file
    refusing = [Refusing()] if rank == 1 else []
    said["callback"] = refusal(NET, folder / "refused" / "callback", callbacks=refusing)
    if rank == 1:
        validation.tar_at_far = broken  # type: ignore[assignment]
    said["figures"] = refusal(overrides, folder / "refused" / "figures")
    return said


def filling(write: Callable[..., None]) -> Callable[..., None]:
    """A disk with room for one file."""
    files = []

    def fill(*arguments: Any) -> None:
        files.append(1)
        if len(files) > 1:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        write(*arguments)

    return fill


class Refusing(Callback):
    def on_start(self, record: Record) -> None:
        raise InputError("no start here")


class Torn:
    """Pixels of which a step's share can be read, and not the more that validation reads."""

    dtype = torch.uint8

    def __init__(self, pixels: Any) -> None:
        self.pixels, self.shape = pixels, pixels.shape

    def __getitem__(self, rows: Any) -> torch.Tensor:
        if len(rows) > 8:
            raise InputError("a file cannot be read here")
        found: torch.Tensor = self.pixels[rows]
        return found


def broken(*_: object) -> None:
    raise InputError("no figure here")


def one_class() -> Splits:
    whole = tiny.splits()
    parts = [Images(each.pixels, torch.zeros_like(each.labels), ("all",)) for each in (whole.train, whole.test)]
    return Splits("one", *parts, "made here")


def refusal(overrides: list[str], folder: Path, splits: Splits | None = None, **options: Any) -> list[str]:
    try:
        run(tiny.validated(*overrides), folder, splits=splits or tiny.splits(), **options)
    except (InputError, Interrupted) as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
