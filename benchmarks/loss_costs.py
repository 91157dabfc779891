"""The time of a training step of every loss, as a ratio to ArcFace's.

    python benchmarks/loss_costs.py [--batch 256] [--classes 100000] [--size 512] [--only NAME ...]
                                    [--cpu-seconds] [--save]

Each step is a forward and backward of a `DenseHead` in training mode with the chunked kernel; the losses take turns.
A penalty is added to a plain softmax of cosines. A loss with K weight rows per class is compared with ArcFace over K
times as many classes. `--cpu-seconds` compares processor time on one thread, for a machine that does other work too.
"""

from __future__ import annotations

import torch

from angulus import DenseHead, losses
from angulus.core import checks
from every_loss import FLOOR, floor_of, objectives
from harness import Row, Step, Timing, options, ratio_text, run, show, store, take_turns


def step_of(objective: losses.Objective, batch: int, classes: int, size: int) -> Step:
    torch.manual_seed(0)
    features = 20 * torch.nn.functional.normalize(torch.randn(batch, size))
    features.requires_grad_()
    labels = torch.randint(classes, (batch,))
    made: list[DenseHead] = []

    def step() -> None:
        if not made:
            made.append(DenseHead(size, classes, objective, impl="chunked"))
        made[0].zero_grad(set_to_none=True)
        features.grad = None
        made[0](features, labels).backward()

    return step


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", batch=256, classes=100_000, size=512, rounds=7)
    parser.add_argument("--cpu-seconds", action="store_true", help="compare processor time on one thread")
    parser.add_argument("--only", nargs="+", default=[], help="names of losses; by default all")
    asked = parser.parse_args(arguments)
    clock = "cpu_seconds" if asked.cpu_seconds else "seconds"
    if asked.cpu_seconds:
        torch.set_num_threads(1)
    every = objectives(asked.classes)
    for name in asked.only:
        checks.choice("--only", name, every)
    rows: list[Row] = []
    shape = {"batch": asked.batch, "classes": asked.classes, "size": asked.size}
    for name, objective in every.items():
        if name == FLOOR or (asked.only and name not in asked.only):
            continue
        to, times = floor_of(objective)
        wide = shape | {"classes": asked.classes * times}
        steps = {to: step_of(every[FLOOR], **wide), name: step_of(objective, **shape)}
        floor, *timings = take_turns(steps, asked.rounds)
        rows += [row_of(timing, floor, clock) | shape for timing in timings if timing.what == name]
    show(
        f"a training step, {clock}, B = {asked.batch:,}, C = {asked.classes:,}, d = {asked.size}",
        [{"loss": row["loss"], "ms": f"{row['ms']:.0f}", "ratio": ratio_text(row), "to": row["to"]} for row in rows],
    )
    if asked.save:
        store("loss_costs", rows)


def row_of(timing: Timing, floor: Timing, clock: str) -> Row:
    ms = 1000 * getattr(timing, clock)
    return {"loss": timing.what, "to": floor.what, "clock": clock, "ms": ms, **timing.slower(clock)}


if __name__ == "__main__":
    run(main)
