"""What a training, its data and a gallery take: bytes, seconds and money, by formulas.

Every line is a formula over the numbers of a `Plan`, so that a rate or size of your own replaces the default.
docs/capacity.md compares each with a measurement at a smaller size.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from angulus.core import checks

FLOAT = 4  # bytes of a float32
MOST = 10**15  # of a count
# of features and class weights in a step: forward, two gradients, and forward again in backward; kernels that keep the
# products of a batch of at most d rows do three
PRODUCTS = 4
FACTS, TARGETS, TOTALS = 10, 4, 4  # numbers of int64, of the rows' dtype, of float64: see heads/sharded.py
BLOCK_MIB = 24  # of the logits that exist at a time: a block of classes, up to 8,192 rows
BLOCK_ROWS = 8_192  # with more rows a block has 64 classes, so it grows: see kernels/blocks.py
UPDATED_MIB = 24  # of the gradient of a block's weights, and of its update
RECORD_BYTES = 108  # per row next to the image: name, identity, size, checksum
GALLERY_BYTES = 33  # per row next to the vector: id and identity
GALLERY_COPIES = 2  # a gallery that grew in parts is packed into one, and the parts stay for an hour


class Loss(NamedTuple):
    """What of a loss makes a difference to what is exchanged."""

    columns: int  # that a row asks: radius, threshold, plain scales, hinge offsets
    sums: int  # that it gets back: a log-sum-exp each, and two numbers per hinge
    asks_of_target: bool  # whether the target's angle is exchanged before the reduction as well
    measures: int  # means of the batch that are logged
    radius_learns: bool  # whether the gradient of what a row asks is sent back


ARCFACE = Loss(columns=1, sums=1, asks_of_target=False, measures=5, radius_learns=False)


def sent_bytes(ranks: int, rows: int, size: int, loss: Loss = ARCFACE, itemsize: int = FLOAT) -> dict[str, int]:
    """What one rank sends to the others in a step, by what it is; every rank has `rows` rows.

    An all-reduce of n bytes counts as 2 n (ranks − 1) / ranks, which a ring sends.
    """
    others = ranks - 1
    per_row = {
        "features": 2 * size * itemsize,  # forward, and their gradient in backward
        "labels": 8,
        "requests": loss.columns * itemsize * (1 + loss.radius_learns),
        "targets": TARGETS * itemsize * (2 + loss.asks_of_target),
        "sums": 2 * loss.sums * itemsize,
    }
    sent = {name: others * rows * each for name, each in per_row.items()}
    reduced = itemsize + 8 * TOTALS + loss.measures * itemsize
    return sent | {"agreement": others * FACTS * 8 + round(2 * reduced * others / ranks)}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training of C classes on N images by R GPUs, and the gallery of its features.

    Args:
        classes, images: C and N.
        dimensions: d, of a feature.
        gpus: R, with one process each.
        batch_size: b, the rows of each GPU in a step.
        epochs: E, passes over the images.
        image_bytes: of an encoded image on average.
        update_in_backward: whether class weights are updated within backward (`head.update_in_backward`).
        images_per_s: that one GPU trains without the head; from a training with few classes.
        embed_images_per_s: that one GPU embeds.
        core_images_per_s: that one core reads, decodes and augments; see benchmarks/loading.py.
        teraflops: 10^12 operations per second that one GPU reaches in products of b·R rows with class weights.
        network_gb_per_s: 10^9 bytes per second that one GPU sends to others.
        disk_mb_per_s: 10^6 bytes per second that all processes together write; see benchmarks/checkpoint.py.
        price_per_gpu_hour: in any currency.
    """

    classes: int
    images: int
    dimensions: int = 512
    gpus: int = 8
    batch_size: int = 128
    epochs: int = 20
    image_bytes: float = 5_000.0
    update_in_backward: bool = False
    images_per_s: float | None = None
    embed_images_per_s: float | None = None
    core_images_per_s: float | None = None
    teraflops: float | None = None
    network_gb_per_s: float | None = None
    disk_mb_per_s: float | None = None
    price_per_gpu_hour: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value, name = getattr(self, each.name), "--" + each.name.replace("_", "-")
            if each.type == "int":
                checks.integer(name, value, low=1, high=MOST)
            elif each.type.startswith("float") and value is not None:
                checks.number(name, value, low=0, open_low=True)
        if self.gpus > self.classes:
            raise checks.InputError(
                f"each GPU holds a class or more: --gpus must be at most --classes, {self.classes:,}; got {self.gpus:,}"
            )


class Line(NamedTuple):
    """One figure; unit is bytes, s, GPU h, images/s, or empty for a count or a price."""

    what: str
    formula: str
    value: float
    unit: str


def capacity(plan: Plan) -> list[Line]:
    """The figures of a plan; those whose rates are not given are left out.

    >>> plan = Plan(classes=1_000_000, images=100_000_000)
    >>> {line.what: line.value for line in capacity(plan)}["class weights, per GPU"]
    256000000
    """
    return [*_memory(plan), *_disk(plan), *_time(plan)]


def _memory(plan: Plan) -> list[Line]:
    shard = FLOAT * -(-plan.classes // plan.gpus) * plan.dimensions
    rows = 2 * FLOAT * plan.gpus * plan.batch_size * plan.dimensions
    block = 2**20 * BLOCK_MIB * max(1, plan.gpus * plan.batch_size / BLOCK_ROWS)
    block_formula = f"{BLOCK_MIB} MiB · max(1, R b / {BLOCK_ROWS})"
    parts = [("class weights, per GPU", "4 ⌈C/R⌉ d", shard), ("their momentum, per GPU", "4 ⌈C/R⌉ d", shard)]
    if not plan.update_in_backward:
        parts += [
            ("their gradient, per GPU", "4 ⌈C/R⌉ d", shard),
            ("gradient plus weight decay, per GPU", "4 ⌈C/R⌉ d", shard),
        ]
    parts += [
        ("rows of all GPUs and their gradients, per GPU", "8 R b d", rows),
        ("a block of classes, per GPU", block_formula, round(block)),
    ]
    if plan.update_in_backward:
        parts.append(("gradient and update of the block, per GPU", f"{UPDATED_MIB} MiB", UPDATED_MIB * 2**20))
    total = ("memory of the head, per GPU", "sum of these", sum(value for *_, value in parts))
    return [Line(*part, "bytes") for part in (*parts, total)]


def _disk(plan: Plan) -> list[Line]:
    checkpoint = 2 * FLOAT * plan.classes * plan.dimensions
    share = 2 * FLOAT * -(-plan.classes // plan.gpus) * plan.dimensions
    record = plan.image_bytes + RECORD_BYTES
    vector = FLOAT * plan.dimensions + GALLERY_BYTES
    lines = [
        Line("checkpoint: class weights and momentum", "8 C d", checkpoint, "bytes"),
        Line("copy for training.checkpoint_async, CPU memory per GPU", "8 ⌈C/R⌉ d", share, "bytes"),
    ]
    if plan.disk_mb_per_s is not None:
        lines.append(Line("checkpoint", "8 C d / disk", checkpoint / (1e6 * plan.disk_mb_per_s), "s"))
    return [
        *lines,
        Line("records", f"N (image + {RECORD_BYTES})", plan.images * record, "bytes"),
        Line("embeddings file", "4 N d", FLOAT * plan.images * plan.dimensions, "bytes"),
        Line("gallery", f"{GALLERY_COPIES} N (4 d + {GALLERY_BYTES})", GALLERY_COPIES * plan.images * vector, "bytes"),
    ]


def _time(plan: Plan) -> list[Line]:
    exchanged = sum(sent_bytes(plan.gpus, plan.batch_size, plan.dimensions).values())
    steps = -(-plan.images // (plan.gpus * plan.batch_size)) * plan.epochs
    lines = [
        Line("sent per GPU and step", "(R − 1) b (8 d + 52) + ...", exchanged, "bytes"),
        Line("steps", "E ⌈N / (R b)⌉", steps, ""),
    ]
    hours = 0.0
    if plan.images_per_s and plan.teraflops and (plan.network_gb_per_s or plan.gpus == 1):
        parts = [
            ("backbone, per step", "b / images per s", plan.batch_size / plan.images_per_s),
            (
                "products with the class weights, per step",
                "8 b C d / operations per s",
                2 * PRODUCTS * plan.batch_size * plan.classes * plan.dimensions / (1e12 * plan.teraflops),
            ),
        ]
        if plan.network_gb_per_s:
            parts.append(("exchange, per step", "sent / bytes per s", exchanged / (1e9 * plan.network_gb_per_s)))
        step = sum(value for *_, value in parts)
        hours += steps * step * plan.gpus / 3600
        lines += [Line(*part, "s") for part in parts]
        images_per_s = plan.gpus * plan.batch_size / step
        lines += [
            Line("training", "steps · their sum", steps * step, "s"),
            Line("training", "R · hours", hours, "GPU h"),
            Line("images read and decoded to keep all GPUs busy", "R b / step", images_per_s, "images/s"),
        ]
        if plan.core_images_per_s:
            lines.append(Line("cores for that", "their number / a core's", images_per_s / plan.core_images_per_s, ""))
    if plan.embed_images_per_s:
        embed = plan.images / plan.embed_images_per_s
        lines += [
            Line("embedding all images", "N / (R images per s)", embed / plan.gpus, "s"),
            Line("embedding all images", "N / images per s", embed / 3600, "GPU h"),
        ]
        hours += embed / 3600
    if plan.price_per_gpu_hour and hours:
        lines.append(Line("cost", "GPU hours · price", hours * plan.price_per_gpu_hour, ""))
    return lines
