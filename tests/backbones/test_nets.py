"""Every net of the papers on small images: shapes, gradients, modes, compilation, mixed precision, bad inputs.

Their sizes stand in test_published.py, their layers in test_layers_by_hand.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from angulus.backbones import build, list_backbones, registry
from angulus.backbones.layers import FeatureLayer
from angulus.backbones.light_cnn import MaxFeatureMap
from angulus.core.checks import InputError

Size = int | tuple[int, int, int]

# in_channels and the smallest image that each takes
SMALLEST: dict[str, tuple[int, Size]] = {
    "iam_mnist": (1, 12),
    "fi_mnist": (1, 8),
    "fi_cifar10": (3, 8),
    "fi_cifar100": (3, 8),
    "vgg13": (3, 32),
    "resnet34": (3, 32),
    "resnet50": (3, 32),
    "ir18": (3, 16),
    "ir34": (3, 16),
    "ir50": (3, 16),
    "ir100": (3, 16),
    "ir200": (3, 16),
    "spherenet20": (3, 16),
    "spherenet64": (3, 16),
    "wen28": (3, 48),
    "light_cnn9": (1, 16),
    "inception_resnet_v1": (3, 75),
    "attention56_irse": (3, 16),
    "mobilefacenet": (3, 16),
    "slim_resnet": (3, 16),
    "luna_archi1": (1, (5, 13, 13)),
    "luna_archi2": (1, (7, 22, 22)),
    "luna_archi3": (1, (12, 22, 22)),
    "luna_fusion": (1, (12, 30, 30)),
}
# a longer or wider repetition of another net, which stands for it where a test is slow
REPEATS = {"fi_mnist", "fi_cifar10", "ir34", "ir50", "ir100", "ir200", "spherenet64", "luna_archi2", "luna_archi3"}
DISTINCT = [name for name in SMALLEST if name not in REPEATS]
EMBEDDING = 6
NORMED = nn.BatchNorm1d | nn.BatchNorm2d
DROPPED = {"vgg13", "light_cnn9", "inception_resnet_v1", "attention56_irse"} | {
    name for name in SMALLEST if name.startswith(("ir", "luna"))
}
BARE = {name for name in SMALLEST if name.startswith(("iam", "sphere", "wen"))}  # neither batch norm nor dropout
# what stands after the feature layer, where it is not bare
TAILS: dict[str, list[type[nn.Module]]] = {"light_cnn9": [MaxFeatureMap, nn.Dropout]} | {
    name: [nn.BatchNorm1d]
    for name in SMALLEST
    if name.startswith("ir") or name in ("inception_resnet_v1", "attention56_irse", "mobilefacenet", "slim_resnet")
}


def sides_of(name: str) -> tuple[int, ...]:
    size = SMALLEST[name][1]
    return (size, size) if isinstance(size, int) else size


def small(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    in_channels, image_size = SMALLEST[name]
    return build(name, in_channels=in_channels, image_size=image_size, embedding_size=EMBEDDING)


def noise(name: str, batch: int = 4) -> Tensor:
    return torch.randn(batch, SMALLEST[name][0], *sides_of(name), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=SMALLEST)
def net(request: pytest.FixtureRequest) -> Iterator[nn.Module]:
    """Each net once, for all tests that leave it as it was: in eval mode, with its first statistics."""
    made = small(request.param)
    made.name = request.param
    yield made.eval()


def test_every_net_is_tested() -> None:
    assert set(list_backbones()) == set(SMALLEST) | {"lenet5", "lenet++", "small"}


def test_shape_and_sizes(net: nn.Module) -> None:
    with torch.no_grad():
        features = net(noise(net.name))
    assert features.shape == (4, EMBEDDING)
    assert features.dtype == torch.float32
    assert bool(torch.isfinite(features).all())
    expected = (SMALLEST[net.name][0], sides_of(net.name), EMBEDDING)
    assert (net.in_channels, net.image_size, net.embedding_size) == expected


def test_eval_is_deterministic_and_sees_no_batch(net: nn.Module) -> None:
    images = noise(net.name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with torch.no_grad():
        together = net(images)
        alone = torch.cat([net(image[None]) for image in images])
        assert torch.equal(net(images), together)
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-4 * float(together.abs().max()))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    # and images that differ give features that differ
    assert float((together[0] - together[1]).norm()) > 1e-4 * float(together[0].norm())


def test_bfloat16_autocast_gives_float32_features(net: nn.Module) -> None:
    images = noise(net.name)
    given: list[tuple[type[nn.Module], torch.dtype]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, _, output: given.append((type(layer), output.dtype)))
        for layer in net.modules()
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear)
    ]
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = net(images)
        given, rounded = [], given
        exact = net(images)
    for hook in hooks:
        hook.remove()
    assert features.dtype == torch.float32
    assert not torch.equal(features, features.bfloat16().float())  # more than bfloat16's 8 bits reach the features
    *products, (last, dtype) = rounded
    assert {dtype for _, dtype in products} == {torch.bfloat16}
    assert (last, dtype) == (FeatureLayer, torch.float32)
    # a rounding of 2^-9 a layer, which add up at worst
    assert float((features - exact).norm() / exact.norm()) < len(rounded) * 2**-9


def test_features_end_in_a_bare_linear_layer_but_where_the_paper_has_more(net: nn.Module) -> None:
    layers = list(net.layers)
    at = next(at for at, layer in enumerate(layers) if isinstance(layer, FeatureLayer))
    assert [type(layer) for layer in layers[at + 1 :]] == TAILS.get(net.name, [])
    if net.name in TAILS:
        return
    # Negated weights give negated features: nothing stands after the layer, neither an activation nor a normalisation.
    state = {name: value.clone() for name, value in layers[at].state_dict().items()}
    with torch.no_grad():
        before = net(noise(net.name))
        for parameter in layers[at].parameters():
            parameter.mul_(-3)
        after = net(noise(net.name))
    layers[at].load_state_dict(state)
    torch.testing.assert_close(after, -3 * before, rtol=1e-4, atol=1e-5 * float(before.abs().max()))


def test_forward_refuses_images(net: nn.Module) -> None:
    good = noise(net.name)
    rule = rf"images must have shape \[batch, {', '.join(map(str, good.shape[1:]))}\]; got "
    wrong = [good[0], torch.cat([good, good], dim=1), good[..., :-1], good.transpose(0, 1)[None]]
    for images in wrong:
        with pytest.raises(InputError, match=rule + r"\[" + ", ".join(map(str, images.shape))):
            net(images)
    with pytest.raises(InputError, match=r"images must be floating point; got torch\.uint8; scale the bytes first"):
        net(good.byte())


@pytest.mark.parametrize("name", DISTINCT)
def test_images_of_other_sides_have_their_own_net(name: str) -> None:
    in_channels, sides = SMALLEST[name][0] + 1, tuple(side + 2 * at + 1 for at, side in enumerate(sides_of(name)))
    net = build(name, in_channels=in_channels, image_size=list(sides), embedding_size=2).eval()
    assert net.image_size == sides
    with torch.no_grad():
        assert net(torch.zeros(1, in_channels, *sides)).shape == (1, 2)


@pytest.mark.parametrize("name", SMALLEST)
def test_gradient_reaches_every_parameter_and_modes_differ(name: str) -> None:
    trained, images = small(name).train(), noise(name)
    weights = torch.randn(4, EMBEDDING)  # a plain sum of squares is constant after batch norm
    running = {key: value.clone() for key, value in trained.state_dict().items() if "running" in key}
    features = trained(images)
    (features * weights).sum().backward()
    for label, parameter in trained.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, label
        assert bool(torch.isfinite(parameter.grad).all()), label
        assert bool(parameter.grad.any()), label
    with torch.no_grad():
        normed = any(isinstance(layer, NORMED) for layer in trained.modules())
        assert bool(running) == normed
        assert all(not torch.equal(value, trained.state_dict()[key]) for key, value in running.items())
        again = trained(images)
        assert torch.equal(features, again) == (name not in DROPPED)
        same = torch.equal(trained.eval()(images), again)
    assert same == (name in BARE)
    assert normed or name in BARE | DROPPED


def drop_repeats(net: nn.Module) -> nn.Module:
    """The net without layers that repeat the one before: the same modules with parameters of the same shapes."""
    for part in [part for part in net.modules() if isinstance(part, nn.Sequential)]:
        looks = [[(type(each), [p.shape for p in each.parameters()]) for each in layer.modules()] for layer in part]
        for place in range(len(part) - 1, 0, -1):
            if looks[place] == looks[place - 1] and next(part[place].parameters(), None) is not None:
                del part[place]
    return net


@pytest.mark.parametrize("name", DISTINCT)
def test_compiles_to_one_graph(name: str) -> None:
    # "eager" runs the traced graph as it is
    torch._dynamo.reset()
    net, images = drop_repeats(small(name)).eval(), noise(name, 2)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(images), net(images))


def test_compiles_to_one_graph_under_autocast_and_in_training() -> None:
    torch._dynamo.reset()
    net, images = small("slim_resnet").train(), noise("slim_resnet")
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = compiled(images)
    features[:, 0].pow(3).sum().backward()
    assert features.dtype == torch.float32
    assert all(each.grad is not None for each in net.parameters() if each.requires_grad)


@pytest.mark.parametrize("name", SMALLEST)
def test_build_refuses_sizes(name: str) -> None:
    sides = sides_of(name)
    sizes = {"in_channels": SMALLEST[name][0], "image_size": sides, "embedding_size": EMBEDDING}
    for axis, side in enumerate(sides):
        short = tuple(each - (at == axis) for at, each in enumerate(sides))
        with pytest.raises(InputError, match=rf"image_size must be .* >= {side}; got {side - 1}; {name} pools smaller"):
            build(name, **{**sizes, "image_size": short})
    with pytest.raises(InputError, match=rf"image_size must be a whole number, or {len(sides)} of them: .*height, wid"):
        build(name, **{**sizes, "image_size": (*sides, 64)})
    with pytest.raises(InputError, match="in_channels must be a whole number >= 1; got 0"):
        build(name, **{**sizes, "in_channels": 0})
    with pytest.raises(InputError, match=r"embedding_size must be a whole number >= 1; got 2\.5"):
        build(name, **{**sizes, "embedding_size": 2.5})


@pytest.mark.parametrize("name", [name for name in DISTINCT if name in DROPPED | {"wen28", "slim_resnet"}])
@pytest.mark.parametrize("share", [1.0, -0.1, True, "0.4"])
def test_build_refuses_shares_of_dropout(name: str, share: object) -> None:
    in_channels, size = SMALLEST[name]
    with pytest.raises(InputError, match=r"dropout must be a (finite )?number in \[0, 1\); got"):
        build(name, in_channels=in_channels, image_size=size, embedding_size=2, dropout=share)


def test_build_refuses_options_of_other_nets() -> None:
    sizes = {"in_channels": 3, "image_size": 32, "embedding_size": 2}
    with pytest.raises(InputError, match="squeeze_excitation must be true or false; got 1"):
        build("ir18", **sizes, squeeze_excitation=1)
    with pytest.raises(
        InputError, match="'ir18' must be one of 'dropout', 'squeeze_excitation', 'subsample'; got 'dropuot'; did you"
    ):
        build("ir18", **sizes, dropuot=0.1)
    with pytest.raises(InputError, match=r"options of the backbone 'spherenet20' must be left out, .*; got 'dropout'"):
        build("spherenet20", **sizes, dropout=0.1)
    with pytest.raises(InputError, match="'net'"):  # the name of a family's member is no option
        build("ir18", **sizes, net="ir50")


def test_dropout_of_wen28_falls_on_the_features() -> None:
    # NormFace's row "softmax + dropout"
    torch.manual_seed(0)
    net = build("wen28", in_channels=3, image_size=48, embedding_size=400, dropout=0.25)
    images = noise("wen28", 2)
    with torch.no_grad():
        dropped, kept = net.train()(images), net.eval()(images)
    gone = dropped == 0
    assert 0.15 < float(gone.double().mean()) < 0.35
    torch.testing.assert_close(dropped[~gone], kept[~gone] / 0.75)


def test_same_seed_same_net() -> None:
    images = noise("slim_resnet")
    one, two, other = (small("slim_resnet", seed=seed).eval()(images) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_check_name_lets_timm_through_and_names_the_nearest() -> None:
    assert registry.check_name("backbone.name", "wen28") == "wen28"
    assert registry.check_name("backbone.name", "timm:resnet18") == "timm:resnet18"
    with pytest.raises(
        InputError, match=r"backbone\.name must be one of .*; got 'ir60'; did you mean 'ir50'\?; or timm:N"
    ):
        registry.check_name("backbone.name", "ir60")
