"""Nets of timm: through a stand-in of the library everywhere, and through the library itself where it is installed."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from angulus.backbones import build, list_backbones, own_input
from angulus.backbones.layers import FeatureLayer
from angulus.core.checks import InputError
from angulus.training.finetune import layer_scales

SIZES = {"in_channels": 3, "image_size": 16, "embedding_size": 5}


class Toy(nn.Module):
    """What timm gives: a net without classes, of pooled features."""

    pretrained_cfg: ClassVar = {"input_size": (3, 16, 16)}

    def __init__(self, in_chans: int, num_classes: int, drop_rate: float = 0.0, global_pool: str = "avg") -> None:
        super().__init__()
        assert num_classes == 0
        self.conv, self.norm = nn.Conv2d(in_chans, 7, 3, stride=2), nn.BatchNorm2d(7)
        self.drop, self.pool = nn.Dropout(drop_rate), global_pool

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] == 20:
            raise AssertionError("Input height (20) doesn't match model (16).")
        maps = self.drop(self.norm(self.conv(images)))
        return maps.mean(dim=(2, 3)) if self.pool else maps


@pytest.fixture
def toy_timm(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("timm")
    module.list_models = lambda: ["toy_net", "other"]  # type: ignore[attr-defined]
    module.is_model = lambda name: name == "toy_net"  # type: ignore[attr-defined]
    module.create_model = lambda name, **options: Toy(**options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


@pytest.mark.usefixtures("toy_timm")
def test_a_net_of_timm_ends_in_a_feature_layer() -> None:
    torch.manual_seed(0)
    net = build("timm:toy_net", **SIZES)
    assert net.training
    images = torch.randn(4, 3, 16, 16)
    assert not net.layers[0].norm.num_batches_tracked.any()  # the image that found its width left no trace
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = net(images)
    assert (features.shape, features.dtype) == ((4, 5), torch.float32)
    inner, last = net.layers
    assert isinstance(last, FeatureLayer)
    assert last.in_features == 7
    torch.testing.assert_close(net.eval()(images), last(inner(images)))
    assert (net.in_channels, net.image_size, net.embedding_size) == (3, (16, 16), 5)
    with pytest.raises(InputError, match=r"images must have shape \[batch, 3, 16, 16\]"):
        net(images[..., 1:])


@pytest.mark.usefixtures("toy_timm")
def test_options_go_to_timm() -> None:
    assert build("timm:toy_net", **SIZES, drop_rate=0.25).layers[0].drop.p == 0.25


@pytest.mark.usefixtures("toy_timm")
@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("timm:toy_nets", {}, r"timm has no net 'toy_nets'; did you mean 'toy_net'\?"),
        ("timm:", {}, r"timm has no net ''$"),
        ("timm:hf-hub:toy_net", {}, "timm has no net 'hf-hub:toy_net'"),
        ("timm:local-dir:toy_net", {}, "timm has no net 'local-dir:toy_net'"),
        ("timm:toy_net", {"depth": 3}, r"timm cannot build 'toy_net' with {'depth': 3}: .*unexpected keyword"),
        (
            "timm:toy_net",
            {"droprate": 0.1},
            r"'timm:toy_net' must be among .*; got 'droprate'; did you mean 'drop_rate'",
        ),
        ("timm:toy_net", {"scriptable": True}, "must be among .*; got 'scriptable'"),
        ("timm:toy_net", {"pretrained_cfg": {"url": "x"}}, "must be among .*; got 'pretrained_cfg'"),
        ("timm:toy_net", {"pretrained_cfg_overlay": {"global_pool": ""}}, "must hold nothing but file, .*, url; got"),
        ("timm:toy_net", {"pretrained": "yes"}, "option pretrained of 'timm:toy_net' must be true or false; got 'yes'"),
        ("timm:toy_net", {"checkpoint_path": 3}, "option checkpoint_path of .* must be text; got 3"),
        ("timm:toy_net", {"drop_rate": 1.5}, r"option drop_rate of .* must be a finite number in \[0, 1\); got 1\.5"),
        ("timm:toy_net", {"img_size": 10**9}, "option img_size of .* must be a whole number in"),
        ("timm:toy_net", {"global_pool": {"_target_": "os.system"}}, "must be one of timm's words"),
        (
            "timm:toy_net",
            {"image_size": 20},
            r"cannot take images of 20 x 20 pixels: Input height \(20\) doesn't match model \(16\); bring the images "
            r"to another size, such as 16x16, for which it is made; or set .* backbone\.options\.img_size=20\) where",
        ),
        (
            "timm:toy_net",
            {"image_size": 1},
            "'timm:toy_net' cannot take images of 1 x 1 pixels: .*; bring the images to another size",
        ),
        (
            "timm:toy_net",
            {"global_pool": ""},
            r"must give \[batch, features\]; it gives \[1, 7, 7, 7\]: leave its pooling",
        ),
        ("timm:toy_net", {"image_size": 0}, "image_size must be a whole number >= 1; got 0"),
        ("timm:toy_net", {"in_channels": 0}, "in_channels must be a whole number >= 1; got 0"),
    ],
)
def test_what_timm_cannot_build_is_refused(name: str, change: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build(name, **{**SIZES, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("No module named 'timm'", name="timm"), r"`pip install 'angulus\[timm\]'`"),
        (RuntimeError("operator torchvision::nms\ndoes not exist"), "but cannot be imported: operator .*nms does not"),
        (OSError("libcudart.so: cannot open"), "but cannot be imported: libcudart.so: cannot open"),
        (ImportError(), "but cannot be imported: ImportError"),
    ],
)
def test_without_timm_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
    def failing(wanted: str, whole: Callable[[str], types.ModuleType] = importlib.import_module) -> types.ModuleType:
        if wanted == "timm":
            raise error
        return whole(wanted)

    monkeypatch.setattr(importlib, "import_module", failing)
    with pytest.raises(InputError, match=rf"the backbone 'timm:resnet18' needs .*{reason}"):
        build("timm:resnet18", **SIZES)


@pytest.mark.usefixtures("toy_timm")
def test_nets_of_timm_are_listed_only_on_request() -> None:
    assert not [name for name in list_backbones() if name.startswith("timm")]
    assert list_backbones(timm=True) == [*list_backbones(), "timm:other", "timm:toy_net"]


@pytest.fixture
def timm_itself() -> types.ModuleType:
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"needs timm, which cannot be imported here: {error}")
    return timm  # type: ignore[no-any-return]


@pytest.mark.usefixtures("timm_itself")
def test_timm_itself() -> None:
    net = build("timm:resnet18", in_channels=1, image_size=64, embedding_size=7)
    assert net(torch.randn(2, 1, 64, 64)).shape == (2, 7)
    with pytest.raises(
        InputError, match=r"'timm:vit_tiny_patch16_224' cannot take images of 64 x 64 .* such as 224x224"
    ):
        build("timm:vit_tiny_patch16_224", in_channels=3, image_size=64, embedding_size=7)
    made = build("timm:vit_tiny_patch16_224", in_channels=3, image_size=64, embedding_size=7, img_size=64)
    assert made(torch.randn(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "resnet10t"])
def test_layers_come_in_the_order_of_timms_own_groups(name: str, timm_itself: types.ModuleType) -> None:
    net = build(f"timm:{name}", in_channels=3, image_size=160, embedding_size=7)
    inner = net.layers[0]
    groups = timm_itself.models.group_parameters(inner, inner.group_matcher(coarse=False))
    timms = {parameter: number for number, names in groups.items() for parameter in names}
    found = layer_scales(net, 0.5)
    ours = {parameter: found[id(value)] for parameter, value in inner.named_parameters()}
    assert all((ours[a] <= ours[b]) for a in ours for b in ours if timms[a] < timms[b])
    stem = {scale for parameter, scale in ours.items() if timms[parameter] == 0}
    assert stem == {min(found.values())}


class Tokens(nn.Module):
    """A transformer of timm, whose pooling is off: two tokens before those of patches."""

    num_prefix_tokens = 2

    def __init__(self, in_chans: int, num_classes: int, global_pool: str = "token") -> None:
        super().__init__()
        assert global_pool == ""
        self.cls_token, self.proj = nn.Parameter(torch.randn(1, 2, 7)), nn.Conv2d(in_chans, 7, 8, stride=8)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.cls_token.expand(len(images), -1, -1), self.proj(images).flatten(2).mT], dim=1)


def test_pooling_by_name_takes_the_place_of_timms(toy_timm: types.ModuleType) -> None:
    images = torch.randn(4, 3, 16, 16)
    net = build("timm:toy_net", **SIZES, pooling="mean").eval()
    torch.testing.assert_close(net.layers[1](net.layers[0](images)), net.layers[0](images).mean((2, 3)))
    with pytest.raises(InputError, match="'timm:toy_net' has no class token; take the pooling mean, gem or attention"):
        build("timm:toy_net", **SIZES, pooling="cls")
    with pytest.raises(InputError, match="takes one of the options pooling and global_pool"):
        build("timm:toy_net", **SIZES, pooling="mean", global_pool="avg")
    toy_timm.create_model = lambda name, **options: Tokens(**options)  # type: ignore[attr-defined]
    for kind, expected in (("mean", lambda tokens: tokens[:, 2:].mean(1)), ("cls", lambda tokens: tokens[:, 0])):
        net = build("timm:toy_net", **SIZES, pooling=kind).eval()
        torch.testing.assert_close(net.layers[1](net.layers[0](images)), expected(net.layers[0](images)))


def test_a_net_that_cannot_leave_out_its_pooling_says_so(toy_timm: types.ModuleType) -> None:
    def create(name: str, global_pool: str, **options: object) -> nn.Module:
        raise AssertionError("Only token or avg pooling is supported.")

    toy_timm.create_model = create  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"cannot leave out its own pooling: Only .* supported; leave the option poo"):
        build("timm:toy_net", **SIZES, pooling="mean")
    with pytest.raises(InputError, match=r"timm cannot build 'toy_net' with \{'global_pool': 'max'\}: Only token or"):
        build("timm:toy_net", **SIZES, global_pool="max")


@pytest.mark.parametrize("give", [tuple, lambda maps: {"maps": maps}])
def test_a_net_of_several_outputs_is_refused(give: Callable[..., object], toy_timm: types.ModuleType) -> None:
    class Several(Toy):
        def forward(self, images: Tensor) -> Tensor:
            return give([super().forward(images)])  # type: ignore[return-value]

    toy_timm.create_model = lambda name, **options: Several(**options)  # type: ignore[attr-defined]
    with pytest.raises(
        InputError, match=r"'timm:toy_net' must give one tensor; it gives a (tuple|dict): take another net"
    ):
        build("timm:toy_net", **SIZES)


def test_the_input_of_timms_weights_is_known(toy_timm: types.ModuleType) -> None:
    weights = types.SimpleNamespace(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1), input_size=(3, 24, 32))
    toy_timm.get_pretrained_cfg = lambda name: weights  # type: ignore[attr-defined]
    expected = {"mean": [127.5, 102.0, 76.5], "scale": [51.0, 51.0, 25.5], "size": [24, 32]}
    assert own_input("timm:toy_net", {"pretrained": True}) == expected
    assert own_input("timm:toy_net", {"pretrained": True, "img_size": 48}) == {**expected, "size": [48, 48]}
    assert own_input("timm:toy_net", {"pretrained": True, "pretrained_cfg_overlay": {"file": "own"}}) == {}
    assert own_input("timm:toy_net", {}) == own_input("wen28", {}) == {}
