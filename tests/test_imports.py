"""Checkpoints of other projects: features equal those of the published networks, written here."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner, Result

import angulus
import tiny
from angulus.backbones import build as build_net
from angulus.backbones.arcface import DEPTHS
from angulus.cli.imports import import_app
from angulus.core.checks import InputError
from angulus.experiments import build
from angulus.models import artifact, imports


class IResNet(nn.Module):
    """insightface's iresnet: BN - conv - BN - PReLU - conv (stride) - BN, projected where a stage begins."""

    def __init__(self, units: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1, self.bn1, self.prelu = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        below = 64
        for stage, (channels, count) in enumerate(zip((64, 128, 256, 512), units, strict=True), 1):
            blocks = [IBlock(below, channels, 2), *(IBlock(channels, channels, 1) for _ in range(count - 1))]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            below = channels
        self.bn2, self.fc = nn.BatchNorm2d(512), nn.Linear(512 * 49, 512)
        self.features = nn.BatchNorm1d(512)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))  # type: ignore[no-any-return]


class IBlock(nn.Module):
    def __init__(self, below: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(below), nn.Conv2d(below, channels, 3, padding=1, bias=False)
        self.bn2, self.prelu = nn.BatchNorm2d(channels), nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        if stride != 1 or below != channels:
            project = nn.Conv2d(below, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(project, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (self.downsample(x) if hasattr(self, "downsample") else x)  # type: ignore[no-any-return]


class AdaFaceNet(nn.Module):
    """AdaFace's IR net: its first unit skips by every second pixel; the last batch norm learns nothing."""

    def __init__(self, units: tuple[int, ...]) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        blocks, below = [], 64
        for channels, count in zip((64, 128, 256, 512), units, strict=True):
            for unit in range(count):
                blocks.append(AdaBlock(below, channels, 1 if unit else 2))
                below = channels
        self.body = nn.Sequential(*blocks)
        last = nn.BatchNorm1d(512, affine=False)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512), nn.Dropout(0.4), nn.Flatten(), nn.Linear(512 * 49, 512), last
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.output_layer(self.body(self.input_layer(x)))  # type: ignore[no-any-return]


class AdaBlock(nn.Module):
    def __init__(self, below: int, channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if below != channels:
            project = nn.Conv2d(below, channels, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(project, nn.BatchNorm2d(channels))
        self.res_layer = nn.Sequential(
            *(nn.BatchNorm2d(below), nn.Conv2d(below, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)),
            *(nn.PReLU(channels), nn.Conv2d(channels, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)  # type: ignore[no-any-return]


class Conv(nn.Module):
    """facenet-pytorch's convolution, batch norm and ReLU."""

    def __init__(self, below: int, channels: int, kernel: Any, stride: int = 1, padding: Any = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(below, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches that are joined; with a 1x1 convolution and a scale they are added to the input."""

    def __init__(self, branches: list[list[Conv]], joined: int = 0, channels: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        for number, branch in enumerate(branches):
            setattr(self, f"branch{number}", branch[0] if len(branch) == 1 else nn.Sequential(*branch))
        if channels:
            self.conv2d = nn.Conv2d(joined, channels, 1)
        self.count, self.scale, self.relu = len(branches), scale, scale != 1

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([getattr(self, f"branch{number}")(x) for number in range(self.count)], 1)
        if not hasattr(self, "conv2d"):
            return torch.cat([y, F.max_pool2d(x, 3, 2)], 1)
        y = x + self.scale * self.conv2d(y)
        return F.relu(y) if self.relu else y


class FaceNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a, self.conv2d_2a = Conv(3, 32, 3, 2), Conv(32, 32, 3)
        self.conv2d_2b, self.conv2d_3b = Conv(32, 64, 3, 1, 1), Conv(64, 80, 1)
        self.conv2d_4a, self.conv2d_4b = Conv(80, 192, 3), Conv(192, 256, 3, 2)
        self.repeat_1 = nn.Sequential(*(self.a() for _ in range(5)))
        self.mixed_6a = Mixed(
            [[Conv(256, 384, 3, 2)], [Conv(256, 192, 1), Conv(192, 192, 3, 1, 1), Conv(192, 256, 3, 2)]]
        )
        self.repeat_2 = nn.Sequential(*(self.wide(896, 128, 7, 0.1) for _ in range(10)))
        third = [Conv(896, 256, 1), Conv(256, 256, 3, 1, 1), Conv(256, 256, 3, 2)]
        self.mixed_7a = Mixed(
            [[Conv(896, 256, 1), Conv(256, 384, 3, 2)], [Conv(896, 256, 1), Conv(256, 256, 3, 2)], third]
        )
        self.repeat_3 = nn.Sequential(*(self.wide(1792, 192, 3, 0.2) for _ in range(5)))
        self.block8 = self.wide(1792, 192, 3, 1.0)
        self.last_linear, self.last_bn = nn.Linear(1792, 512, bias=False), nn.BatchNorm1d(512, eps=0.001)
        self.logits = nn.Linear(512, 7)

    @staticmethod
    def a() -> Mixed:
        chains = [[Conv(256, 32, 1), *(Conv(32, 32, 3, 1, 1) for _ in range(more))] for more in range(3)]
        return Mixed(chains, 96, 256, 0.17)

    @staticmethod
    def wide(channels: int, thin: int, long: int, scale: float) -> Mixed:
        row, column = ((1, long), (0, long // 2)), ((long, 1), (long // 2, 0))
        chain = [Conv(channels, thin, 1), *(Conv(thin, thin, kernel, 1, padding) for kernel, padding in (row, column))]
        return Mixed([[Conv(channels, thin, 1)], chain], 2 * thin, channels, scale)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x))), 3, 2)
        x = self.repeat_1(self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x))))
        x = self.block8(self.repeat_3(self.mixed_7a(self.repeat_2(self.mixed_6a(x)))))
        return self.last_bn(self.last_linear(x.mean((2, 3))))  # type: ignore[no-any-return]


def random(net: nn.Module) -> nn.Module:
    """Every number drawn, the statistics too, so that no two layers of a size are alike."""
    generator = torch.Generator().manual_seed(0)
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator)
            fan = value[0].numel() if value.ndim > 1 else 1
            if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
                drawn = 0.5 + drawn.abs().clamp(max=1) / 2
            value.copy_(drawn / fan**0.5 if value.ndim > 1 else drawn)
    return net.eval()


def run(*arguments: object) -> Result:
    found = CliRunner().invoke(import_app, [str(argument) for argument in arguments])
    if found.exception is not None:
        raise found.exception
    return found


NETS: dict[str, tuple[type[nn.Module], tuple[Any, ...], int, float, bool]] = {  # class, its arguments, side, scale, BGR
    "insightface": (IResNet, (DEPTHS["ir18"],), 112, 127.5, False),
    "adaface": (AdaFaceNet, (DEPTHS["ir18"],), 112, 127.5, True),
    "cvlface": (AdaFaceNet, (DEPTHS["ir18"],), 112, 127.5, False),
    "facenet": (FaceNet, (), 160, 128.0, False),
}


def published(kind: str) -> nn.Module:
    made, arguments, *_ = NETS[kind]
    with torch.device("meta"):  # drawing first weights takes longer than all else
        net = made(*arguments)
    return random(net.to_empty(device="cpu"))


@pytest.mark.parametrize("kind", NETS)
def test_features_are_those_of_the_published_network(kind: str) -> None:
    """Images as bytes go through the contract of the configuration and the network, as `angulus embed` does it."""
    _, _, side, scale, bgr = NETS[kind]
    net, prefix = published(kind), "net." if kind == "cvlface" else ""
    config, backbone = imports.convert(
        kind, {f"module.{prefix}{name}": value for name, value in net.state_dict().items()}, Path("x")
    )
    pixels = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    inputs = (pixels.flip(1) if bgr else pixels).float()
    with torch.no_grad():
        theirs, ours = net((inputs - 127.5) / scale), config.contract.features(backbone, pixels)
    assert 0.1 < float(theirs.std()) < 1e3
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_a_checkpoint_of_lightning_becomes_a_model_folder_with_classes(tmp_path: Path) -> None:
    state = {f"model.{name}": value for name, value in published("adaface").state_dict().items()}
    kernel = torch.randn(512, 5)
    content = {"epoch": 3, "state_dict": state | {"head.kernel": kernel}, "hyper_parameters": {"arch": "ir_18"}}
    torch.save(content, tmp_path / "adaface.ckpt")
    said = run(
        "adaface", tmp_path / "adaface.ckpt", "--out", tmp_path / "m", "--classes", tmp_path / "adaface.ckpt"
    ).output
    assert "ir18, features of 512 numbers" in said and "uint8 [batch, 3, 112, 112]" in said
    assert "scaled to (x − 127.5) / 127.5, in the order BGR, by the model itself" in said
    model = angulus.load(tmp_path / "m")
    pixels = torch.randint(0, 256, (1, 3, 112, 112), dtype=torch.uint8)
    expected = 64 * F.normalize(model.embed(pixels)) @ F.normalize(kernel, dim=0)
    torch.testing.assert_close(model.logits(pixels), expected, rtol=1e-3, atol=1e-3)
    assert model.config.about["imported from"] == "AdaFace's net, adaface.ckpt"


def test_the_order_of_channels_is_cvlfaces_choice(tmp_path: Path) -> None:
    torch.save({f"net.{name}": value for name, value in published("cvlface").state_dict().items()}, tmp_path / "m.pt")
    said = run("cvlface", tmp_path / "m.pt", "--out", tmp_path / "m", "--colour", "bgr").output
    assert "ir18, features of 512 numbers" in said and "in the order BGR, by the model itself" in said
    with pytest.raises(InputError, match="colour must be one of 'rgb', 'bgr'; got 'grey'"):
        run("cvlface", tmp_path / "m.pt", "--out", tmp_path / "n", "--colour", "grey")
    with pytest.raises(InputError, match="it looks like CVLface's iresnet: use angulus import cvlface"):
        run("adaface", tmp_path / "m.pt", "--out", tmp_path / "n")
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("depth", ["ir18", "ir200"])
def test_every_depth_is_recognised_by_its_tensors(depth: str, tmp_path: Path) -> None:
    for kind in ("insightface", "adaface"):
        with torch.device("meta"):
            state = NETS[kind][0](DEPTHS[depth]).state_dict()
            options = dict(imports.SOURCES[kind].options)
            own = build_net(depth, in_channels=3, image_size=112, embedding_size=512, **options).state_dict()
        name, layers = imports._improved(kind, dict(state), tmp_path)
        assert name == depth
        names = [f"{layer}.{part}" for layer, parts in layers for part in imports._KINDS[parts]]
        for theirs, value in zip(names, own.values(), strict=True):
            assert theirs in state or imports._optional(theirs)
            assert theirs not in state or state[theirs].shape == value.shape


def shards(folder: Path, counts: list[int], size: int = 4) -> np.ndarray:
    weight = torch.randn(sum(counts), size)
    folder.mkdir(exist_ok=True)
    for rank, part in enumerate(weight.split(counts)):
        torch.save({"weight": part}, folder / f"softmax_fc_gpu_{rank}.pt")
    return weight.numpy()


def test_shards_are_joined_in_the_order_of_their_ranks(tmp_path: Path) -> None:
    weight = shards(tmp_path / "a", [3] * 7 + [2] * 4)  # of 11 ranks: as text, 10 comes before 2
    assert imports.read_classes(tmp_path / "a").numpy().tolist() == weight.tolist()
    (tmp_path / "a" / "softmax_fc_gpu_4.pt").unlink()
    with pytest.raises(InputError, match="must hold all shards"):
        imports.read_classes(tmp_path / "a")
    shards(tmp_path / "b", [2, 3])
    with pytest.raises(InputError, match=r"share the classes evenly.*\[2, 4\], \[3, 4\]; one is missing"):
        imports.read_classes(tmp_path / "b")
    torch.save({"state_dict_softmax_fc": {"weight": torch.ones(3, 4)}}, tmp_path / "v2.pt")
    assert imports.read_classes(tmp_path / "v2.pt").shape == (3, 4)
    torch.save({"W": torch.full((4, 3), torch.nan)}, tmp_path / "nan.pt")
    with pytest.raises(InputError, match="class weights must be finite"):
        imports.read_classes(tmp_path / "nan.pt")
    torch.save({"W": torch.ones(4)}, tmp_path / "flat.pt")
    with pytest.raises(InputError, match="must hold class weights"):
        imports.read_classes(tmp_path / "flat.pt")


def test_class_weights_without_numbers_and_two_shards_of_a_rank_are_refused(tmp_path: Path) -> None:
    for number, (content, sentence) in enumerate(
        (
            ({"W": torch.ones(4, 9).to_sparse()}, "must hold class weights"),
            ({"W": torch.ones(4, 9, device="meta")}, "must hold class weights"),
            ({"W": torch.ones(4, 0)}, "must hold class weights"),
            ({"state_dict": [1]}, "must hold class weights"),
        )
    ):
        torch.save(content, tmp_path / f"{number}.pt")
        with pytest.raises(InputError, match=sentence):
            imports.read_classes(tmp_path / f"{number}.pt")
    folder = tmp_path / "shards"
    folder.mkdir()
    for name in ("softmax_fc_gpu_0.pt", "rank_0_softmax_weight.pt"):  # of two trainings
        torch.save(torch.ones(3, 4), folder / name)
    with pytest.raises(InputError, match=r"one shard per rank; it has rank_0_.*\.pt and softmax_fc_gpu_0\.pt"):
        imports.read_classes(folder)


@pytest.mark.parametrize("wrong", ["meta", "nan", "complex"])
def test_a_backbone_without_finite_numbers_is_refused(wrong: str) -> None:
    with torch.device("meta"):
        net = artifact.Config("ir18", 3, (112, 112), 8).build()
    names = [f"{layer}.{part}" for layer, kept in imports._iresnet((2, 2, 2, 2)) for part in imports._KINDS[kept]]
    state = {
        name: torch.zeros((), dtype=value.dtype).expand(value.shape)
        for name, value in zip(names, net.state_dict().values(), strict=True)
    }
    value = state["bn1.weight"]
    state["bn1.weight"] = {
        "meta": value.to("meta"),
        "nan": torch.full_like(value, float("nan")),
        "complex": value.to(torch.complex64),
    }[wrong]
    with pytest.raises(InputError, match=r"bn1\.weight must hold finite numbers"):
        imports.convert("insightface", state, Path("x.pth"))


def test_class_weights_of_pml_go_into_a_run_by_their_names(tmp_path: Path) -> None:
    """W [d, C] of pytorch-metric-learning; the data's classes have the same names in another order."""
    job = build.job(tiny.validated(), tiny.splits())
    config = build.config(tiny.validated(), tiny.splits())
    artifact.save(config, job.backbone, tmp_path / "model")
    weight = torch.randn(4, 10)
    torch.save({"W": weight}, tmp_path / "loss.pt")
    said = run("pml", tmp_path / "loss.pt", "--model", tmp_path / "model", "--out", tmp_path / "with").output
    assert "with 10 classes" in said
    assert angulus.load(tmp_path / "with").classes == tuple("0123456789")
    names = tuple("9876543210")
    whole = tiny.splits()

    turned = replace(whole, train=replace(whole.train, class_names=names), test=replace(whole.test, class_names=names))
    other = build.job(tiny.validated("training.seed=5"), turned)
    build.start_from(tmp_path / "with", other)
    assert torch.equal(other.head.weight, weight.T.flip(0))
    with pytest.raises(InputError, match=r"class weights must be \[classes, 4\]"):
        torch.save({"W": weight.T.contiguous()}, tmp_path / "loss.pt")
        run("pml", tmp_path / "loss.pt", "--model", tmp_path / "model", "--out", tmp_path / "no")
    assert not (tmp_path / "no").exists()


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def test_what_is_no_such_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with torch.device("meta"):
        ir, ada = IResNet((3, 4, 23, 3)).state_dict(), AdaFaceNet(DEPTHS["ir18"]).state_dict()
    small = {name: torch.zeros(1) for name in ir}
    narrow = {
        name: torch.zeros(2, 2) if name == "fc.weight" else torch.zeros(1)
        for name in IResNet(DEPTHS["ir18"]).state_dict()
    }
    cases: dict[str, tuple[Any, str]] = {
        "evil": ({"state_dict": Evil()}, r"names .*system, which a pickle may use to run code, and is not read; save"),
        "depth": (
            small,
            r"it has 3, 4, 23, 3 units per stage, and tensors such as conv1\.weight.*the nearest that is known is ir50",
        ),
        "other": ({name: torch.zeros(1) for name in ada}, "it looks like AdaFace's net: use angulus import adaface"),
        "narrow": (
            narrow,
            r"does not fit insightface's iresnet \(ir18, .*: conv1\.weight must be \[64, 3, 3, 3\], and is \[1\]",
        ),
        "list": ([1, 2], "must hold a state dict, names with tensors; it holds list"),
    }
    for name, (content, sentence) in cases.items():
        torch.save(content, f"{name}.pth")
        with pytest.raises(InputError, match=sentence):
            run("insightface", f"{name}.pth", "--out", "model")
    assert not Path("ran").exists() and not Path("model").exists()
    Path("cut.pth").write_bytes(Path("depth.pth").read_bytes()[:100])
    with pytest.raises(InputError, match="cut.pth cannot be read as a file of torch.save".replace(".", r"\.")):
        run("insightface", "cut.pth", "--out", "model")
    with pytest.raises(InputError, match=re.escape("there is no file none.pth")):
        run("facenet", "none.pth", "--out", "model")
    with pytest.raises(InputError, match=r"last_linear\.weight of facenet-pytorch's .*use angulus import adaface"):
        torch.save({name: torch.zeros(1) for name in ada}, "ada.pth")
        run("facenet", "ada.pth", "--out", "model")
    with pytest.raises(InputError, match="--out must be a new or empty folder"):
        run("facenet", "ada.pth", "--out", tmp_path)


PAGE = (Path(__file__).parents[1] / "docs" / "from-elsewhere.md").read_text(encoding="utf-8")


def test_the_page_names_losses_and_keys_that_exist() -> None:
    from angulus import losses
    from angulus.experiments import recipe

    calls = re.findall(r"`(losses\.\w+\([^`]*\))`", PAGE)
    assert len(calls) > 9
    for call in calls:
        assert isinstance(eval(call, {"losses": losses}), losses.Objective), call
    sections = re.findall(r"`(\w+)\.?(\w*): ([^`]+)`", PAGE)
    content = tiny.content("objective={kind: arcface}")
    for section, key, value in (found for found in sections if found[0] in ("backbone", "head", "training")):
        recipe.validate(recipe.override(content, [f"{section}{'.' * bool(key)}{key}={value}"]))
    assert {section for section, *_ in sections} >= {"backbone", "head", "training"}


def test_insightfaces_margins_are_those_of_the_page() -> None:
    """cos(m1·θ + m2) − m3 of insightface, written out, is what the page says it is."""
    from angulus import losses

    cosines = F.normalize(torch.randn(5, 8), dim=1) @ F.normalize(torch.randn(8, 6), dim=0)
    for (m1, m2, m3), objective in (
        ((1.0, 0.5, 0.0), losses.arcface(s=64, m=0.5)),
        ((1.0, 0.0, 0.4), losses.cosface(s=64, m=0.4)),
        ((1.0, 0.3, 0.2), losses.combined_margin(s=64, multiplier=1.0, angle=0.3, cosine=0.2)),
    ):
        theta = cosines[:, 0].clamp(-0.5, 0.5).acos()
        found = objective.margin(theta, torch.ones(5))  # type: ignore[union-attr,misc]
        torch.testing.assert_close(found, torch.cos(m1 * theta + m2) - m3)
