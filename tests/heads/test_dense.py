"""The dense head by itself: exported logits."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from angulus import DenseHead, losses
from angulus.losses import Objective

L = losses
EXPORTED: dict[str, Objective] = {
    "ArcFace": L.arcface(64, 0.5),
    "softmax with bias": L.softmax(bias=True),
    "NormFace with eps": L.normface(eps=1e-3),
    "contraction": L.cm_softmax(gamma="auto", lower=3, upper=9),
}


class Logits(nn.Module):
    def __init__(self, head: DenseHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        return self.head.logits(features)


def head_and_rows(objective: Objective) -> tuple[Logits, Tensor, Tensor]:
    torch.manual_seed(0)
    rows = torch.randn(5, 8)
    return Logits(DenseHead(8, 11, objective)).eval(), rows, torch.cat([rows, 1e20 * rows, 1e-20 * rows, 0 * rows])


@pytest.mark.parametrize("objective", EXPORTED.values(), ids=EXPORTED.keys())
def test_logits_are_exported_with_the_same_numbers(objective: Objective) -> None:
    model, rows, others = head_and_rows(objective)
    program = torch.export.export(model, (rows,), dynamic_shapes={"features": {0: torch.export.Dim("batch")}})
    torch.testing.assert_close(program.module()(others), model(others))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_logits_go_to_onnx() -> None:
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    runtime = pytest.importorskip("onnxruntime")
    model, rows, others = head_and_rows(L.arcface(64, 0.5))
    batch = {"features": {0: torch.export.Dim("batch")}}
    program = torch.onnx.export(model, (rows,), dynamo=True, dynamic_shapes=batch, verbose=False)
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: others.numpy()})
    np.testing.assert_allclose(found, model(others).detach().numpy(), rtol=1e-5, atol=1e-4)
