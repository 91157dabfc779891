"""A Mac's device has no float64: emulated by tensors that refuse it unless they were brought to the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from angulus.data import Images, Splits
from angulus.experiments.run import run


def two_classes() -> Splits:
    def cut(images: Images) -> Images:
        rows = (images.labels < 2).nonzero()[:, 0]
        return Images(images.pixels[rows], images.labels[rows], images.class_names[:2])

    whole = tiny.splits()
    return Splits(whole.name, cut(whole.train), cut(whole.test), "zeros and ones")


def refuse_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, double, to = torch.Tensor.cpu, torch.Tensor.double, torch.Tensor.to

    def brought(tensor: torch.Tensor) -> torch.Tensor:
        found = cpu(tensor).clone()
        found.on_cpu = True
        return found

    def refuse(tensor: torch.Tensor) -> None:
        if not getattr(tensor, "on_cpu", False):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )

    def wide(tensor: torch.Tensor) -> torch.Tensor:
        refuse(tensor)
        return double(tensor)

    def moved(tensor: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
        if torch.float64 in (*arguments, *named.values()):
            refuse(tensor)
        return to(tensor, *arguments, **named)

    monkeypatch.setattr(torch.Tensor, "cpu", brought)
    monkeypatch.setattr(torch.Tensor, "double", wide)
    monkeypatch.setattr(torch.Tensor, "to", moved)


@pytest.mark.parametrize("classes", [2, 10])
def test_a_run_needs_no_float64_on_its_device(classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = two_classes() if classes == 2 else tiny.splits()
    chosen = tiny.validated("validation=null", "evaluation.each_epoch=true", "objective.iam={beta: 0.1}")
    plain = run(chosen, tmp_path / "plain", splits=splits)
    refuse_float64(monkeypatch)
    with pytest.raises(TypeError, match="float64"):
        torch.ones(2).double()
    found = run(chosen, tmp_path / "mac", splits=splits)
    assert {**found, "training": 0, "environment": 0} == {**plain, "training": 0, "environment": 0}
