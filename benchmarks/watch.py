"""What the watch costs: the time of a look over that of the training steps between two looks.

    python benchmarks/watch.py [--batch 128] [--log-every 10] [--rounds 7] [--save]

A step is forward, backward and SGD; of the head alone, and of a network with it. The looks are those after half of the
training, when all signs are looked for; each round has one that compares all class weights, and as many as the watch
allows from that to the next. CPU time, which other processes disturb less.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import nn

from angulus import DenseHead, backbones, losses
from angulus.training.watch import Watch
from harness import Row, Step, clock, options, run, show, spread, store

# what is trained: classes, size of a feature, and the network before the head
HEADS: dict[str, tuple[int, int, str | None]] = {
    "head": (10, 2, None),
    "lenet5 and head": (10, 2, "lenet5"),
    "head of 1,000 classes": (1_000, 128, None),
    "head of 10,000 classes": (10_000, 512, None),
}
TRAINING = 100_000  # steps, so that the looks lie in its second half


def training(classes: int, size: int, network: str | None, batch: int) -> tuple[Step, Callable[[], list[object]]]:
    """(a training step, what it leaves for a look: the head, values, features and labels)."""
    torch.manual_seed(0)
    net: nn.Module = nn.Linear(size, size)
    inputs = torch.randn(batch, size)
    if network is not None:
        net = backbones.build(network, in_channels=1, image_size=28, embedding_size=size)
        inputs = torch.randn(batch, 1, 28, 28)
    labels = torch.randint(classes, (batch,))
    head = DenseHead(size, classes, losses.cm_m_softmax(lower=10, upper=30))
    optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=1e-3, momentum=0.9)
    left: list[object] = []

    def step() -> None:
        features = net(inputs)
        loss = head(features, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        left[:] = [head, loss, features, labels]

    return step, lambda: left


def measure(name: str, batch: int, log_every: int, rounds: int) -> Row:
    """CPU time of a step and of a look, and the share of the look, by rounds in turn; the first is not counted."""
    classes, size, network = HEADS[name]
    step, left = training(classes, size, network, batch)
    step()
    head, loss, features, labels = left()
    assert isinstance(head, DenseHead) and isinstance(loss, torch.Tensor)
    assert isinstance(features, torch.Tensor) and isinstance(labels, torch.Tensor)
    watch = Watch(head, TRAINING, log_every, tuple(map(str, range(classes))))
    stride = watch._stride(batch)
    values = {"loss": loss.item()} | {what: float(value) for what, value in head.seen.items()}
    done = TRAINING // 2

    def looks() -> None:
        for number in range(stride):
            watch.look(done + number, values, features, labels)

    step_s, look_s = [], []
    for _ in range(rounds + 1):
        step_s.append(clock(lambda: [step() for _ in range(log_every)]).cpu_seconds / log_every)
        look_s.append(clock(looks).cpu_seconds / stride)
    shares = spread([look / (log_every * one) for look, one in zip(look_s[1:], step_s[1:], strict=True)])
    return {
        "what": name, "batch": batch, "classes": classes, "size": size, "log_every": log_every, "stride": stride,
        "step_ms": 1000 * statistics.median(step_s[1:]), "look_ms": 1000 * statistics.median(look_s[1:]), **shares,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", batch=128, log_every=10, rounds=7)
    asked = parser.parse_args(arguments)
    rows = [measure(name, asked.batch, asked.log_every, asked.rounds) for name in HEADS]
    show(
        f"a look of the watch at every {asked.log_every}th step, B = {asked.batch}",
        [
            {
                "what": row["what"],
                "step ms": f"{row['step_ms']:.2f}",
                "look ms": f"{row['look_ms']:.2f}",
                "all weights in one of": str(row["stride"]),
                "share of the steps": f"{row['ratio']:.2%} [{row['ratio_low']:.2%}, {row['ratio_high']:.2%}]",
            }
            for row in rows
        ],
    )
    if asked.save:
        store("watch", rows)


if __name__ == "__main__":
    run(main)
