"""Bytes that a ShardedHead exchanges in a step against the time of its products, for many ranks; nothing is timed.

    python benchmarks/scaling.py [--classes 1000000] [--rows 128] [--size 512]

Every rank sends its rows to every other one, and gets back their gradients, so its bytes grow with the ranks, while
its products, of all rows with its own classes, do not. A test counts the bytes of real steps over gloo.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

RANKS = (8, 16, 32, 64, 128, 256, 512, 1024)
# GB/s that one GPU sends. Within a node: between two H100 over NVLink, as measured in github.com/NVIDIA/nccl issue 1264
# (450 by the data sheet). Between nodes: the rate of one 400 Gb/s InfiniBand adapter per GPU, as in NVIDIA's MLPerf
# systems (github.com/mlcommons/inference_results_v4.1, H200-SXM-141GBx8). Real all-to-alls stay below both.
NVLINK, NETWORK, NODE = 380e9, 50e9, 8
PEAK = 989e12  # operations/s: an H100 SXM in bfloat16, dense, by its data sheet; real products stay below it, too
PRODUCTS = 4  # the kernel multiplies again in backward, because a batch of all ranks is larger than d
FACTS, TARGETS, TOTALS = 10, 4, 4  # numbers of int64, of the rows' dtype, of float64: see heads/sharded.py


class Loss(NamedTuple):
    """What of a loss makes a difference to what is exchanged."""

    columns: int  # that a row asks: radius, threshold, plain scales, hinge offsets
    sums: int  # that it gets back: a log-sum-exp each, and two numbers per hinge
    asks_of_target: bool  # whether the target's angle is exchanged before the reduction as well
    measures: int  # means of the batch that are logged
    radius_learns: bool  # whether the gradient of what a row asks is sent back


ARCFACE = Loss(columns=1, sums=1, asks_of_target=False, measures=5, radius_learns=False)


def sent_bytes(ranks: int, rows: int, size: int, loss: Loss = ARCFACE, itemsize: int = 4) -> dict[str, int]:
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


def seconds_of_products(rows: int, classes: int, size: int) -> float:
    """Of one rank: ranks x rows rows with classes / ranks classes, so the number of ranks cancels."""
    return PRODUCTS * 2 * rows * classes * size / PEAK


def seconds_of_exchange(ranks: int, rows: int, size: int) -> float:
    """The slower of the two links, each with the bytes for its own ranks."""
    per_rank = sum(sent_bytes(ranks, rows, size).values()) / (ranks - 1)
    near = min(ranks, NODE) - 1
    return max(near * per_rank / NVLINK, (ranks - 1 - near) * per_rank / NETWORK)


def break_even(classes: int, size: int) -> int:
    """The most ranks whose exchange takes no longer than the products; the batch cancels, and nearly does d."""
    ranks = 2
    while ranks < 1 << 20 and seconds_of_exchange(ranks, 1024, size) <= seconds_of_products(1024, classes, size):
        ranks += 1
    return ranks - 1


def table(classes: int, rows: int, size: int) -> list[str]:
    """Lines of Markdown."""
    products = seconds_of_products(rows, classes, size)
    lines = [
        "| ranks | MiB sent per rank | exchange, ms | products, ms | exchange / products |",
        "|---:|---:|---:|---:|---:|",
    ]
    for ranks in RANKS:
        mib = sum(sent_bytes(ranks, rows, size).values()) / 2**20
        exchange = seconds_of_exchange(ranks, rows, size)
        cells = f"{ranks:,} | {mib:.1f} | {1e3 * exchange:.2f} | {1e3 * products:.2f} | {exchange / products:.2f}"
        lines.append(f"| {cells} |")
    return lines


def main() -> None:
    """Print the table of a setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("classes", 1_000_000), ("rows", 128), ("size", 512)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default:,}")
    chosen = parser.parse_args()
    print("\n".join(table(chosen.classes, chosen.rows, chosen.size)))
    print(f"exchange = products at {break_even(chosen.classes, chosen.size):,} ranks")


if __name__ == "__main__":
    main()
