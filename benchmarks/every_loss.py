"""Every loss of the catalogue as it is compared with ArcFace: for the timings on a CPU and on a GPU."""

from __future__ import annotations

import torch

from angulus import losses

FLOOR = "arcface"


def objectives(classes: int) -> dict[str, losses.Objective]:
    """Every alias with its defaults, ArcFace first; a penalty is added to NormFace."""
    counts = torch.arange(classes) % 50 + 1
    found = {FLOOR: losses.arcface()}
    for name in losses.list_losses():
        objective = losses.build(name)
        if objective.radius is None and not any(term.penalty.trains_classes for term in objective.penalties):
            if name == "subcenter_spread":
                continue  # a part of soft_triple
            name, objective = f"normface + {name}", losses.normface(64, learn=False) + objective
        found.setdefault(name, objective.with_counts(counts) if objective.needs_counts else objective)
    return found


def floor_of(objective: losses.Objective) -> tuple[str, int]:
    """(what a loss is compared with, its classes as a multiple of C): K rows per class are K times as many classes."""
    rows = objective.rows_per_class
    return (FLOOR, 1) if rows == 1 else ("arcface of K x C classes", rows)
