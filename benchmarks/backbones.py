"""Size and time of every backbone on an image of its paper's size: parameters, multiply-adds, one CPU thread.

    python benchmarks/backbones.py [--rounds 5] [--repeats 3] [--save]

A ratio compares the processor time of one image with that of mobilefacenet in the same round, so that what else runs on
the machine moves it less. The table that it prints stands in docs/backbones.md.
"""

from __future__ import annotations

import re
import time
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from angulus import backbones
from angulus.backbones.about import ABOUT
from harness import Clock, Row, options, run, show, store, take_turns

FLOOR = "mobilefacenet"
GREY = {"lenet5", "lenet++", "small", "iam_mnist", "fi_mnist", "light_cnn9"}
# numbers per feature in the papers; 512 for the others
FEATURES = {
    **{"small": 2, "lenet++": 2, "iam_mnist": 3, "lenet5": 84, "fi_mnist": 256, "light_cnn9": 256},
    **{"mobilefacenet": 128, "inception_resnet_v1": 128, "slim_resnet": 128},
}


def shape(name: str) -> tuple[int, ...]:
    """Channels and sides of the images that a backbone is made for."""
    (found,) = re.findall(r"\d+(?:x\d+)+", ABOUT[name].replace("3x3", ""))
    channels = 1 if name in GREY or name.startswith("luna") else 3
    return (channels, *map(int, found.split("x")))


def build(name: str) -> nn.Module:
    """The backbone with features of its paper's size."""
    channels, *sides = shape(name)
    size = FEATURES.get(name, 512)
    return backbones.build(name, in_channels=channels, image_size=tuple(sides), embedding_size=size).eval()


def describe(name: str) -> Row:
    """Parameters of a backbone, and multiply-adds of one image."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net = build(name)
        features = net(torch.zeros(1, *shape(name)))
    return {
        "backbone": name,
        "shape": list(shape(name)),
        "features": features.shape[1],
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "multiply_adds": counter.get_total_flops() // 2,
    }


@torch.no_grad()
def embed(net: nn.Module, image: Tensor, repeats: int) -> Clock:
    """Processor time of one image, which is what the ratio compares."""
    started = time.process_time()
    for _ in range(repeats):
        net(image)
    spent = (time.process_time() - started) / repeats
    return Clock(spent, spent)


def cells(row: Row) -> list[str]:
    """A row as the cells of the table."""
    channels, *sides = row["shape"]
    colours = "" if len(sides) == 3 else " grey" if channels == 1 else " RGB"
    numbers = [_scaled(row["parameters"]), _scaled(row["multiply_adds"]), f"{row['ratio']:.2g}"]
    return [f"`{row['backbone']}`", "x".join(map(str, sides)) + colours, str(row["features"]), *numbers]


def _scaled(count: int) -> str:
    value, unit = (count / 1e9, "G") if count >= 1e9 else (count / 1e6, "M")
    return f"{value:.2f} {unit}" if value < 10 else f"{value:.1f} {unit}"


def main(arguments: list[str] | None = None) -> None:
    asked = options(__doc__ or "", rounds=5, repeats=3).parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    names = [FLOOR, *(name for name in backbones.list_backbones() if name != FLOOR)]
    steps = {name: partial(embed, build(name), torch.zeros(1, *shape(name)), asked.repeats) for name in names}
    rows = [describe(timing.what) | timing.slower() for timing in take_turns(steps, asked.rounds)]
    rows.sort(key=lambda row: int(row["multiply_adds"]))
    titles = ("backbone", "images", "numbers per feature", "parameters", "multiply-adds", "time")
    show("one image, one thread", [dict(zip(titles, cells(row), strict=True)) for row in rows])
    if asked.save:
        store("backbones", rows)


if __name__ == "__main__":
    run(main)
