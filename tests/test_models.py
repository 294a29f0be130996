"""The networks: sizes, initial weights, and which parameters are trained."""

import math
import re
from urllib.parse import urlparse

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from cifar import UserError, networks
from cifar.dataset import Shape
from cifar.model import NetworkOptions
from cifar.models import fast
from cifar.training import optim

torch.set_num_threads(1)
SMALLEST = {
    "convpool": 8,
    "dense_head": 22,
    "fast": 9,
    "gap": 18,
    "resnet18": 1,
    "sgd_cnn": 8,
    "vgg": 8,
}
DROPOUT = ["dense_head", "fast", "gap", "resnet18", "sgd_cnn", "vgg"]
BACKBONES = ["mobilenet_v3_small", "resnet18", "squeezenet1_1"]
# Their gradients differ from run to run on CUDA: torch.use_deterministic_algorithms lists them.
UNREPEATABLE = re.compile(
    "Adaptive(Avg|Max)Pool|Fractional|(Avg|Max)Pool3D|Unpool|(Reflection|Replication)Pad|Upsample|"
    "GridSampler|EmbeddingBag|NllLoss2D|CtcLoss|Cumsum|Median|Kthvalue|Put"
)


def build(name, seed=0, **changes):
    """The network in its published form, except for the changes."""
    values = {"num_classes": 10, "channels": 3, "image_size": 32}
    values |= {key: changes.pop(key) for key in values if key in changes}
    shape = shape_of(**values)
    used = {key: value for key, value in changes.items() if key in networks.load_file(name).USES}
    return networks.build(name, shape, NetworkOptions(**used), seed)


def shape_of(num_classes, channels, image_size):
    return Shape(num_classes, channels, image_size, (0.4,) * channels, (0.2,) * channels)


def pretrained(backbone, channels=3, freeze=False, seed=0):
    options = NetworkOptions(backbone=backbone, freeze=freeze)
    return networks.build("pretrained", shape_of(7, channels, 32), options, seed)


def bits(net):
    """Everything that the network's state holds."""
    return {key: value.numpy().tobytes() for key, value in net.state_dict().items()}


def random_images(count, side, channels=3, seed=0):
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def shapes(net, *kinds, side=32):
    layers = networks.summarize(net, shape_of(10, 3, side))
    return ["x".join(map(str, layer.shape)) for layer in layers if layer.kind in kinds]


def two_steps(net, side):
    """The names of the parameters that two steps of plain SGD change, and of those they do not."""
    before = {name: p.clone() for name, p in net.named_parameters()}
    options = {"lr": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    optimizer = optim.make_optimizer(net, optimizer="sgd", batch_size=4, **options)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(net.train()(random_images(4, side)), torch.arange(4)).backward()
        optimizer.step()
    after = dict(net.named_parameters())
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    return moved, after.keys() - moved


@pytest.mark.parametrize(
    ("name", "changes", "count"),
    [  # convolution a->b: b * (9a + 1), dense a->b: b * (a + 1), normalisation of b: 2b
        ("convpool", {}, 32 * 28 + 80 * 289 + 128 * 721 + 100 * 2049 + 10 * 101),
        ("gap", {}, 48 * 28 + 3 * 48 * 433 + 10 * 433),
        ("vgg", {"depth": 1}, 1_060_138),  # 32*28 + 32*289 + 128*8193 + 10*129
        ("vgg", {"depth": 2}, 591_274),  # + 64*289 + 64*577, and 128*4097 in place of 128*8193
        ("vgg", {}, 550_570),  # + 128*577 + 128*1153, and 128*2049
        ("vgg", {"batch_norm": True}, 550_570 + 2 * (2 * (32 + 64 + 128) + 128)),
        ("dense_head", {}, 32 * 28 + 64 * 289 + 128 * 577 + 256 * 513 + 128 * 257 + 10 * 129),
        (
            "dense_head",
            {"num_classes": 100},
            32 * 28 + 64 * 289 + 128 * 577 + 256 * 513 + 128 * 257 + 100 * 129,
        ),
        ("sgd_cnn", {}, 32 * 28 + 64 * 289 + 128 * 577 + 128 * 2049 + 10 * 129),
        ("resnet18", {}, 11_173_962),  # the number that the literature gives for this network
        # whitening 12->24 with bias; 9ab per convolution; 2b per normalisation; a head without bias
        (
            "fast",
            {},
            24 * 12
            + 9 * (24 + 32) * 32
            + 9 * (32 + 3 * 128) * 128
            + 2 * (2 * 32 + 4 * 128)
            + 10 * 128,
        ),
    ],
)
def test_parameter_counts(name, changes, count):
    """Each network has the number of parameters that was computed by hand from its definition."""
    net = build(name, **changes)
    assert sum(p.numel() for p in net.parameters()) == count
    layers = networks.summarize(net, shape_of(10, 3, 32))
    assert sum(layer.parameters for layer in layers) == count


@pytest.mark.parametrize(
    ("name", "changes", "convolutions", "pools", "dense"),
    [
        ("convpool", {}, ["32x32x32", "80x16x16", "128x8x8"], ["32x16x16", "80x8x8", "128x4x4"],
         ["100", "10"]),
        ("gap", {}, ["48x32x32", "48x30x30", "48x15x15", "48x13x13", "10x4x4"],
         ["48x15x15", "48x6x6"], []),
        ("vgg", {"depth": 1}, ["32x32x32"] * 2, ["32x16x16"], ["128", "10"]),
        ("vgg", {"depth": 2}, ["32x32x32"] * 2 + ["64x16x16"] * 2, ["32x16x16", "64x8x8"],
         ["128", "10"]),
        ("vgg", {}, ["32x32x32"] * 2 + ["64x16x16"] * 2 + ["128x8x8"] * 2,
         ["32x16x16", "64x8x8", "128x4x4"], ["128", "10"]),
        ("dense_head", {}, ["32x30x30", "64x13x13", "128x4x4"], ["32x15x15", "64x6x6", "128x2x2"],
         ["256", "128", "10"]),
        ("sgd_cnn", {}, ["32x32x32", "64x16x16", "128x8x8"], ["32x16x16", "64x8x8", "128x4x4"],
         ["128", "10"]),
        ("fast", {},
         ["24x31x31", "32x31x31", "32x15x15", "128x15x15", "128x7x7", "128x7x7", "128x3x3"],
         ["32x15x15", "128x7x7", "128x3x3"], []),
    ],
)  # fmt: skip
def test_shapes_after_every_layer(name, changes, convolutions, pools, dense):
    """Convolutions, pools and dense layers give the shapes that the recipe states."""
    net = build(name, **changes)
    assert shapes(net, "Conv2d") == convolutions
    assert shapes(net, "MaxPool2d") == pools
    assert shapes(net, "Linear") == dense
    assert networks.summarize(net, shape_of(10, 3, 32))[-1].shape == (10,)


def test_resnet18_halves_the_image_three_times():
    """The blocks of ResNet-18 keep 32x32 pixels in the first stage and end at 512 maps of 4x4."""
    found = shapes(build("resnet18"), "Conv2d")
    assert found[0] == "64x32x32"
    assert [found.count(shape) for shape in ("64x32x32", "128x16x16", "256x8x8", "512x4x4")] == [
        5,
        5,
        5,
        5,
    ]


@pytest.mark.parametrize("name", SMALLEST)
def test_other_sizes_channels_and_classes(name):
    """A network accepts grey images of the smallest size that its error states, and 100 classes."""
    for side in (SMALLEST[name], SMALLEST[name] + 1, 37):
        net = build(name, image_size=side, channels=1, num_classes=100, width=8)
        logits = net(random_images(2, side, channels=1))
        assert logits.shape == (2, 100)
        assert logits.isfinite().all()


@pytest.mark.parametrize("name", sorted(SMALLEST.keys() - {"resnet18", "vgg"}))
def test_too_small_images_are_refused(name):
    """Images one pixel smaller are refused in one line that names the key and the size."""
    with pytest.raises(
        UserError, match=rf"params\.yaml, preprocess\.image_size\): use {SMALLEST[name]} or more$"
    ):
        build(name, image_size=SMALLEST[name] - 1)


def test_vgg_refuses_more_blocks_than_halvings():
    """The number of blocks that vgg's error allows works, and one more is refused."""
    for side, most in ((2, 1), (3, 1), (4, 2), (31, 4), (32, 5)):
        build("vgg", image_size=side, depth=most, width=1)
        with pytest.raises(UserError, match=rf"yaml, train\.depth\): use at most {most}, or raise"):
            build("vgg", image_size=side, depth=most + 1, width=1)


def uniform(weight, bound):
    """Whether the weights are spread evenly up to the bound: a standard deviation of bound /
    sqrt(3)."""
    weight = weight.detach()
    return weight.abs().max() <= bound and math.isclose(
        weight.std(), bound / math.sqrt(3), rel_tol=0.1
    )


def test_convpool_starts_from_normal_weights_and_a_zero_softmax():
    """convpool's weights have variance 1/n_in (dense: 1/n_out), biases variance 1; the last layer
    is zero."""
    first, second, third, dense, softmax = (
        x for x in build("convpool") if isinstance(x, nn.Conv2d | nn.Linear)
    )
    for layer, n in ((first, 3 * 9), (second, 32 * 9), (third, 80 * 9), (dense, 100)):
        std = layer.weight.std().item()
        assert std == pytest.approx(1 / math.sqrt(n), rel=0.1)
        assert abs(layer.weight.mean().item()) < 4 * std / math.sqrt(layer.weight.numel())
    biases = torch.cat([layer.bias for layer in (first, second, third, dense)])
    assert biases.std().item() == pytest.approx(1, rel=0.15)
    assert not softmax.weight.any()
    assert not softmax.bias.any()


def test_vgg_starts_he_uniform():
    """vgg's weights are uniform up to sqrt(6 / n_in), and its biases are zero."""
    for layer in build("vgg"):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert uniform(layer.weight, math.sqrt(6 / layer.weight[0].numel()))
            assert not layer.bias.any()


@pytest.mark.parametrize("name", ["gap", "dense_head", "sgd_cnn"])
def test_glorot_uniform(name):
    """Weights of gap, dense_head and sgd_cnn are uniform up to sqrt(6 / (n_in + n_out)), and biases
    zero."""
    for layer in build(name):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            n_in, n_out = layer.weight[0].numel(), layer.weight[:, 0].numel()
            assert uniform(layer.weight, math.sqrt(6 / (n_in + n_out)))
            assert not layer.bias.any()


def test_fast_starts_as_the_identity():
    """A convolution of fast passes on as many of its input maps as it has filters."""
    net, x = build("fast"), random_images(1, 8, channels=24)
    assert torch.allclose(net[2](x)[:, :24], x)


@pytest.mark.parametrize("name", SMALLEST)
def test_weights_depend_on_the_seed_alone(name):
    """The same seed gives the same weights, another seed others, whatever was drawn before."""
    first = build(name, width=8)
    torch.rand(3)
    again, other = build(name, width=8), build(name, seed=1, width=8)
    assert bits(first) == bits(again)
    assert bits(first) != bits(other)


@pytest.mark.parametrize(
    ("name", "changes"),
    [*((name, {}) for name in SMALLEST), ("vgg", {"batch_norm": True}), ("fast", {"depth": 3})],
)
def test_two_steps_move_every_trainable_tensor(name, changes):
    """Two steps change every parameter that is not frozen; building and evaluating change none."""
    net = build(name, image_size=24, width=8, **changes)
    before = bits(net)
    net.eval()(random_images(2, 24))
    assert bits(net) == before
    _, left = two_steps(net, 24)
    assert left == {name for name, p in net.named_parameters() if not p.requires_grad}
    assert bool(left) == (name == "fast")


def test_fast_freezes_the_whitening_and_the_scales():
    """fast trains everything except its first convolution and the scales of its normalisations."""
    net = build("fast")
    norms = {f"{i}.weight" for i, layer in enumerate(net) if isinstance(layer, nn.BatchNorm2d)}
    assert {name for name, p in net.named_parameters() if not p.requires_grad} == {
        "0.weight"
    } | norms
    assert len(norms) == 6


@pytest.mark.parametrize("name", DROPOUT)
def test_dropout_has_an_effect_in_training_only(name):
    """With dropout, two passes differ in training and agree in evaluation; without it they always
    agree."""
    x = random_images(4, 24)
    net = build(name, image_size=24, width=8, dropout=0.5).train()
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))
    plain = build(name, image_size=24, width=8).train()
    assert torch.equal(plain(x), plain(x))


def test_dropout_rises_from_block_to_block():
    """Rising dropout is 0.2, 0.3, 0.4 after the pools of vgg and 0.5 after its dense layer."""
    net = build("vgg", dropout=0.2, dropout_step=0.1)
    assert [layer.p for layer in net if isinstance(layer, nn.Dropout)] == pytest.approx(
        [0.2, 0.3, 0.4, 0.5]
    )
    with pytest.raises(UserError, match=r"rises to 1 .*train\.dropout_step"):
        build("vgg", dropout=0.4, dropout_step=0.2)


def test_pool_before_relu_is_the_published_order_bit_for_bit():
    """vgg pools before ReLU; the published order gives the same bits, forward and backward."""
    net, x = build("vgg", width=8), random_images(2, 32)
    layers = list(net)
    for i in [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]:
        assert isinstance(layers[i + 1], nn.ReLU)
        layers[i : i + 2] = layers[i + 1], layers[i]
    published = nn.Sequential(*layers)
    gradients = [
        torch.autograd.grad(n(x).square().sum(), list(net.parameters())) for n in (net, published)
    ]
    assert torch.equal(net(x), published(x))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_batch_norm_follows_every_relu_of_vgg():
    """With batch normalisation the order is convolution, ReLU, normalisation, pool."""
    kinds = [type(layer).__name__ for layer in build("vgg", depth=1, batch_norm=True)]
    block = ["Conv2d", "ReLU", "BatchNorm2d"]
    dense = ["Flatten", "Linear", "ReLU", "BatchNorm1d", "Dropout", "Linear"]
    assert kinds == [*block, *block, "MaxPool2d", "Dropout", *dense]


def test_the_covariance_of_patches_is_torchs(monkeypatch):
    """It is computed from a few images at a time, and agrees with torch's over all of them."""
    monkeypatch.setattr(fast, "CHUNK", 100)
    images = 3 + random_images(11, 5)
    patches = F.unfold(images.double(), 2).transpose(1, 2).flatten(0, 1)
    assert torch.allclose(fast.covariance(images), torch.cov(patches.T), rtol=1e-12, atol=1e-12)


def test_fast_whitens_the_patches():
    """After prepare, the first convolution's outputs have identity covariance, reduced only by
    SMALLEST."""
    images = F.avg_pool2d(random_images(64, 20), 3, 1).mul(
        torch.tensor([1.0, 0.5, 2.0])[:, None, None]
    )
    net, other = build("fast"), build("fast", seed=1)
    for one in (net, other):
        networks.prepare("fast", one, images, seed=0)
    patches = (
        images.unfold(2, 2, 1)
        .unfold(3, 2, 1)
        .permute(0, 2, 3, 1, 4, 5)
        .flatten(0, 2)
        .flatten(1)
        .double()
    )
    values = torch.linalg.eigvalsh(torch.cov(patches.T)).flip(0)
    white = net[0].double()(images.double()).transpose(0, 1).flatten(1)
    assert torch.allclose(torch.cov(white[:12]), torch.diag(values / (values + 5e-4)), atol=1e-4)
    assert torch.equal(white[12:], -white[:12])
    assert values[0] > 100 * values[-1]  # there was something to whiten
    assert torch.equal(net[0].weight.float(), other[0].weight)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("channels", [1, 3])
def test_backbones_take_small_images(backbone, channels):
    """A torchvision network accepts grey and colour images of 32x32 pixels, and has the data's
    classes."""
    net = pretrained(backbone, channels).train()
    assert net(random_images(2, 32, channels)).shape == (2, 7)
    heads = [
        layer
        for layer in net.modules()
        if 7 in (getattr(layer, "out_features", 0), getattr(layer, "out_channels", 0))
    ]
    assert len(heads) == 1


@pytest.mark.parametrize("backbone", BACKBONES)
def test_freeze_trains_the_last_layer_only(backbone):
    """A frozen backbone trains only weight and bias of its last layer; its statistics stay."""
    net = pretrained(backbone, freeze=True)
    head = {f"backbone.{net.head}.weight", f"backbone.{net.head}.bias"}
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    assert {name for name, p in net.named_parameters() if p.requires_grad} == head
    assert two_steps(net, 32)[0] == head
    assert all(torch.equal(value, buffers[name]) for name, value in net.named_buffers())


def test_a_transformer_is_made_for_the_images_of_its_weights():
    """The weights of this one need images of 518 pixels, not the 224 of the network without
    them."""
    with torch.device("meta"):  # 2.5 GB otherwise
        net = pretrained("vit_h_14")
    assert net.resized_to == net.backbone.image_size == 518


def test_an_unfrozen_backbone_learns_everywhere():
    """Without freeze, two steps change every parameter and the running statistics."""
    net = pretrained("mobilenet_v3_small")
    buffers = {name: value.clone() for name, value in net.named_buffers() if "running" in name}
    assert two_steps(net, 32)[1] == set()
    assert not any(
        torch.equal(value, buffers[name])
        for name, value in net.named_buffers()
        if "running" in name
    )


def test_google_networks_train_on_one_output():
    """GoogLeNet, which has additional outputs in training, returns only the classes' logits."""
    assert pretrained("googlenet").train()(random_images(2, 32)).shape == (2, 7)


def test_an_image_reaches_the_backbone_as_its_weights_require():
    """The pipeline's normalisation of a pixel is undone, and that of the weights applied."""
    net, seen = pretrained("resnet18", channels=1).eval(), []
    net.backbone.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    net(torch.full((1, 1, 32, 32), (0.7 - 0.4) / 0.2))
    expected = torch.tensor([(0.7 - 0.485) / 0.229, (0.7 - 0.456) / 0.224, (0.7 - 0.406) / 0.225])
    assert seen[0].shape == (1, 3, 224, 224)
    assert torch.allclose(seen[0], expected[:, None, None].expand(3, 224, 224), atol=1e-5)


def test_a_backbone_moves_to_the_layout_of_training():
    """It can be moved to channels-last memory, as every network is before it is trained."""
    net = pretrained("mobilenet_v3_small").to("cpu", memory_format=torch.channels_last)
    assert net(random_images(2, 32)).shape == (2, 7)


def test_an_unknown_backbone_is_an_error_that_lists_them():
    """The error for a wrong name lists the names that exist."""
    with pytest.raises(
        UserError, match=r"^backbone 'resnet19' not found \(params\.yaml, train\.back.* resnet18, "
    ):
        pretrained("resnet19")


@pytest.fixture
def weights_file(tmp_path, monkeypatch):
    """A function that maps a backbone to its file of weights in an empty cache; downloads fail."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    (tmp_path / "hub/checkpoints").mkdir(parents=True)

    def path(backbone):
        url = torchvision.models.get_model_weights(backbone).DEFAULT.url
        return tmp_path / "hub/checkpoints" / urlparse(url).path.rpartition("/")[2]

    return path


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [*BACKBONES, "densenet121"])
def test_placed_weights_are_loaded(backbone, weights_file):
    """Weights in torch's cache are loaded into every layer but the last, even with the names of
    older files."""
    torch.manual_seed(7)
    source = torchvision.models.get_model(backbone, weights=None).state_dict()
    for name in [
        name for name in source if "num_batches_tracked" in name
    ]:  # older files do not have this entry
        del source[name]
    old = {name: name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") for name in source}
    renamed = old if backbone == "densenet121" else {}
    torch.save(
        {renamed.get(name, name): value for name, value in source.items()}, weights_file(backbone)
    )
    net = pretrained(backbone)
    fresh = {name: value.clone() for name, value in net.backbone.state_dict().items()}
    networks.prepare("pretrained", net, torch.zeros(1, 3, 32, 32), seed=0)
    loaded = net.backbone.state_dict()
    head = {f"{net.head}.weight", f"{net.head}.bias"}
    assert all(torch.equal(loaded[name], fresh[name]) for name in head)
    assert all(torch.equal(loaded[name], source[name]) for name in source.keys() - head)


def test_without_network_the_error_names_url_and_path(weights_file):
    """If weights cannot be downloaded, one line names the URL and the path to save it to."""
    net = pretrained("resnet18")
    with pytest.raises(UserError) as caught:
        networks.prepare("pretrained", net, torch.zeros(1, 3, 32, 32), seed=0)
    text = str(caught.value)
    assert "https://download.pytorch.org/models/resnet18-" in text
    assert str(weights_file("resnet18")) in text
    assert "\n" not in text


class Code:
    """A pickle that would run code."""

    def __reduce__(self):
        return exec, ("raise SystemExit('the file ran code')",)


@pytest.mark.parametrize("content", ["garbage", "nothing", "another network", "code"])
def test_a_wrong_file_of_weights_is_refused(content, weights_file):
    """A damaged file, another network's, or one with code is refused in one line, and not used."""
    path, net = weights_file("resnet18"), pretrained("resnet18")
    if content in ("garbage", "nothing"):
        path.write_bytes(b"garbage" if content == "garbage" else b"")
    else:
        other = torchvision.models.get_model("squeezenet1_1", weights=None).state_dict()
        torch.save(other if content == "another network" else Code(), path)
    before = bits(net)
    with pytest.raises(
        UserError, match=r"^cannot load the weights of resnet18, .*delete this file and run again$"
    ) as caught:
        networks.prepare("pretrained", net, torch.zeros(1, 3, 32, 32), seed=0)
    assert str(path) in str(caught.value)
    assert bits(net) == before


def gradients(logits):
    """The kinds of backward operations behind some logits."""
    kinds, todo = set(), [logits.grad_fn]
    while todo:
        node = todo.pop()
        kinds.add(node.name())
        todo += [parent for parent, _ in node.next_functions if parent]
    return kinds


@pytest.mark.parametrize("name", SMALLEST)
def test_gradients_are_the_same_on_every_run_of_a_gpu(name):
    """Otherwise two runs with the same seed would not give the same bytes on a GPU (L1)."""
    kinds = gradients(build(name)(random_images(2, 32)))
    assert [kind for kind in kinds if UNREPEATABLE.search(kind)] == []


def test_the_operations_of_an_unrepeatable_gradient_are_found():
    net = nn.Conv2d(3, 4, 3)
    assert "AdaptiveMaxPool2DBackward0" in gradients(
        nn.AdaptiveMaxPool2d(1)(net(random_images(2, 32)))
    )
