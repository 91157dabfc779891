"""Bytes that a ShardedHead exchanges in a step against the time of its products, for many ranks; nothing is timed.

    python benchmarks/scaling.py [--classes 1000000] [--rows 128] [--size 512]

Every rank sends its rows to every other one, and gets back their gradients, so its bytes grow with the ranks, while
its products, of all rows with its own classes, do not. A test counts the bytes of real steps over gloo.
"""

from __future__ import annotations

import argparse

from angulus.core.capacity import PRODUCTS, sent_bytes

RANKS = (8, 16, 32, 64, 128, 256, 512, 1024)
# GB/s that one GPU sends. Within a node: between two H100 over NVLink, as measured in github.com/NVIDIA/nccl issue 1264
# (450 by the data sheet). Between nodes: the rate of one 400 Gb/s InfiniBand adapter per GPU, as in NVIDIA's MLPerf
# systems (github.com/mlcommons/inference_results_v4.1, H200-SXM-141GBx8). Real all-to-alls stay below both.
NVLINK, NETWORK, NODE = 380e9, 50e9, 8
PEAK = 989e12  # operations/s: an H100 SXM in bfloat16, dense, by its data sheet; real products stay below it, too


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
