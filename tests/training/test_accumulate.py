"""Gradients summed over micro-batches: equal to the whole batch's, refused where a loss reads the batch.

And what else a recipe says of a step: the optimiser of the class weights, rates, chance, compiling.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny
from angulus.core.checks import InputError
from angulus.experiments import build
from angulus.experiments.run import run
from angulus.heads.optimizers import BackwardSGD, SparseSGD
from angulus.training import optimizer
from angulus.training.batches import step_generator
from angulus.training.state import load_checkpoint

NET = ["backbone.name=lenet++", "training.optimizer.lr=0.01"]


def state(folder: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """The trained weights, and what the objective learnt and kept."""
    run(tiny.validated(*NET, *overrides), folder, splits=tiny.splits())
    found = load_checkpoint(folder / "checkpoint.pt")
    return {**found["backbone"], **{f"head.{name}": value for name, value in found["head"].items()}}


@pytest.mark.parametrize(
    "objective",
    [
        "{kind: normface, s: 10, learn: true}",
        "{kind: softmax, bias: true, center_loss: {lam: 0.1, normalize: true}}",
        "{kind: mv_softmax, s: 10, margin: {kind: additive_angle, m: 0.2}, t: 0.2, mode: fixed, iam: {beta: 0.1}}",
        "{kind: focal_softmax, s: 10, gamma: 2}",
    ],
)
def test_micro_batches_sum_to_the_batch(objective: str, tmp_path: Path) -> None:
    whole = state(tmp_path / "whole", f"objective={objective}")
    for parts in (2, 5):  # of 16 and of 8 images: 5 divides neither
        cut = state(tmp_path / str(parts), f"objective={objective}", f"training.accumulate={parts}")
        for name, value in whole.items():
            torch.testing.assert_close(cut[name], value, rtol=2e-3, atol=2e-5)
    losses = [(tmp_path / name / "metrics.jsonl").read_text().count("loss") for name in ("whole", "5")]
    assert losses == [10, 10]


def test_micro_batches_are_resumed_to_the_bit(tmp_path: Path) -> None:
    chosen = tiny.validated(*NET, "training.accumulate=3", "training.checkpoint_every=3")
    run(chosen, tmp_path / "whole", splits=tiny.splits())
    with pytest.raises(tiny.PowerCut):
        run(chosen, tmp_path / "cut", splits=tiny.splits(), on_step=tiny.cut_at(5))
    run(chosen, tmp_path / "cut", splits=tiny.splits(), resume=True)
    assert tiny.differences(tiny.outcome(tmp_path / "whole"), tiny.outcome(tmp_path / "cut")) == []


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["objective={kind: hm_softmax, s: 10, keep: 0.5}"], "reads the whole batch .*: hard mining"),
        (
            ["objective={kind: cm_softmax, gamma: auto}"],
            "reads the whole batch .*the contraction of the norm with γ = auto",
        ),
        (
            ["objective={kind: softmax, ring_loss: {lam: 0.1}}"],
            "reads the whole batch .*: ring loss .* at a learned radius",
        ),
        (
            ["objective={kind: softmax, feature_incay: {lam: 0.1, form: linear, bound: auto}}"],
            "reads the whole batch .*: feature incay .* up to the norm bound auto",
        ),
        (
            ["objective={kind: normface, cross_batch_memory: {size: 64}}"],
            "reads the whole batch .*: 1 × contrastive loss with the last 64 features",
        ),
        (
            ["objective={kind: normface, cross_batch_memory: {size: 64, start_step: 10}}"],
            "start_step is 10 and training ends after 10 steps, so this would have no effect: 1 × contrastive loss",
        ),
        (["training.accumulate=9"], "leaves 8 of 72 images for the smallest batch, too few for 1 process and"),
        (
            ["training.accumulate=5", "backbone.name=small"],
            "each needs 2 per micro-batch, since batch norm cannot",
        ),
    ],
)
def test_what_has_no_micro_batches_is_refused(overrides: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build.job(tiny.validated(*NET, "training.accumulate=2", *overrides), tiny.splits())


def test_more_micro_batches_than_images_are_refused() -> None:
    with pytest.raises(InputError, match=r"training.accumulate must be a whole number in \[1, 16\]; got 17"):
        tiny.validated("training.accumulate=17")


# the optimiser of the class weights


def test_all_classes_sampled_or_updated_in_backward_is_plain_sgd(tmp_path: Path) -> None:
    plain = state(tmp_path / "plain")
    for name, head in {"sampled": "{sampling: {rate: 1}}", "in": "{impl: chunked, update_in_backward: true}"}.items():
        for key, value in state(tmp_path / name, f"head={head}").items():
            torch.testing.assert_close(plain[key], value, rtol=1e-3, atol=1e-5)


def test_sampling_resumes_to_the_bit(tmp_path: Path) -> None:
    chosen = tiny.validated("head.sampling={rate: 0.3}", "objective={kind: softmax, bias: true}")
    run(chosen, tmp_path / "whole", splits=tiny.splits())
    with pytest.raises(tiny.PowerCut):
        run(chosen, tmp_path / "cut", splits=tiny.splits(), on_step=tiny.cut_at(7))
    run(chosen, tmp_path / "cut", splits=tiny.splits(), resume=True)
    assert tiny.differences(tiny.outcome(tmp_path / "whole"), tiny.outcome(tmp_path / "cut")) == []


def test_the_recipe_names_the_optimiser_of_the_class_weights() -> None:
    for head, kind in (
        ("{sampling: {rate: 0.5}}", SparseSGD),
        ("{impl: chunked, update_in_backward: true}", BackwardSGD),
    ):
        chosen = tiny.validated(f"head={head}", "objective={kind: softmax, bias: true}")
        job = build.job(chosen, tiny.splits())
        optim = optimizer.optimizers(
            job.backbone, job.head, chosen.training.optimizer, update_in_backward=job.update_in_backward
        )
        assert [type(part) for part in optim.parts] == [torch.optim.SGD, kind]
        assert optim.parts[1].param_groups[0]["params"][0] is job.head.weight
        assert len({id(each) for each in optim.parameters}) == len(optim.parameters)
        assert len(optim.parameters) == len([*job.backbone.parameters(), *job.head.parameters()])


@pytest.mark.parametrize("head", ["{sampling: {rate: 0.5}}", "{impl: chunked, update_in_backward: true}"])
@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.optimizer.kind=adamw", "needs training.optimizer.kind sgd without nesterov"),
        ("training.optimizer.nesterov=true", "needs training.optimizer.kind sgd without nesterov"),
        ("training.clip_norm=1", "needs training.clip_norm left out"),
        ("training.accumulate=2", "needs training.accumulate 1"),
    ],
)
def test_an_optimiser_of_its_own_excludes_what_needs_the_gradient(head: str, override: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        tiny.validated(f"head={head}", override)


@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
def test_bfloat16_class_weights_by_a_recipe_resume_to_the_bit(tmp_path: Path, rounding: str) -> None:
    head = f"head={{impl: chunked, update_in_backward: true, rounding: {rounding}}}"
    chosen = tiny.validated(head, "objective={kind: softmax, bias: true}")
    job = build.job(chosen, tiny.splits())
    assert job.head.bias is not None
    assert (job.head.weight.dtype, job.head.bias.dtype) == (torch.bfloat16, torch.float32)
    run(chosen, tmp_path / "whole", splits=tiny.splits())
    with pytest.raises(tiny.PowerCut):
        run(chosen, tmp_path / "cut", splits=tiny.splits(), on_step=tiny.cut_at(7))
    run(chosen, tmp_path / "cut", splits=tiny.splits(), resume=True)
    assert tiny.differences(tiny.outcome(tmp_path / "whole"), tiny.outcome(tmp_path / "cut")) == []


def test_rounding_needs_updates_within_backward() -> None:
    with pytest.raises(InputError, match=r"head.rounding kahan .* needs head.update_in_backward: true"):
        tiny.validated("head={impl: chunked, rounding: kahan}")
    with pytest.raises(InputError, match=r"head\.rounding"):
        tiny.validated("head={impl: chunked, update_in_backward: true, rounding: up}")
    with pytest.raises(InputError, match=r"needs training\.ema left out with head\.rounding"):
        tiny.validated("head={impl: chunked, update_in_backward: true, rounding: kahan}", "training.ema=0.9")


def test_update_in_backward_needs_a_kernel_that_has_it() -> None:
    for head in ("{update_in_backward: true}", "{impl: chunked, update_in_backward: true, sampling: {rate: 0.5}}"):
        with pytest.raises(
            InputError, match=r"head.update_in_backward needs head.impl chunked, fused or blocked, and no"
        ):
            tiny.validated(f"head={head}")


def test_the_backbone_moves_at_its_own_rate(tmp_path: Path) -> None:
    """One step of plain SGD: the backbone moves a tenth, the head as before."""
    plain = ["training.epochs=1", "training.batch_size=72", "training.optimizer={kind: sgd, lr: 1, momentum: 0}"]
    moved = []
    for scale in (1, 0.1):
        chosen = tiny.validated(
            *plain, f"training.optimizer.backbone_lr_scale={scale}", "training.optimizer.weight_decay=0"
        )
        first = build.job(chosen, tiny.splits())
        run(chosen, tmp_path / str(scale), splits=tiny.splits())
        found = load_checkpoint(tmp_path / str(scale) / "checkpoint.pt")
        before = {**first.backbone.state_dict(), "head": first.head.weight.detach()}
        after = {**found["backbone"], "head": found["head"]["weight"]}
        moved.append({name: after[name] - before[name] for name in ("layers.0.weight", "layers.11.bias", "head")})
    for name in ("layers.0.weight", "layers.11.bias"):
        torch.testing.assert_close(moved[1][name], 0.1 * moved[0][name], rtol=1e-3, atol=1e-6)
    assert torch.equal(moved[1]["head"], moved[0]["head"])


# what is drawn


def test_chance_is_a_function_of_seed_step_and_rank() -> None:
    def drawn(*numbers: int) -> float:
        return torch.rand((), generator=step_generator(*numbers)).item()

    assert drawn(3, 4) == drawn(3, 4, 0)
    assert len({drawn(seed, step, rank) for seed in (0, 1) for step in (0, 1) for rank in (0, 1, 2)}) == 12


# torch.compile


def test_a_compiled_backbone_trains_alike_and_keeps_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, compiled = torch.compile, []

    def traced(module: torch.nn.Module) -> object:
        compiled.append(module)
        return real(module, backend="eager")  # traces as the usual one does, without a compiler

    monkeypatch.setattr(torch, "compile", traced)
    plain, other = state(tmp_path / "plain"), state(tmp_path / "compiled", "training.compile=true")
    assert len(compiled) == 1
    assert plain.keys() == other.keys()
    for name, value in plain.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)
