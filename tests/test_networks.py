"""Networks by name: options, weights as files, the table of layers, and dropout from random bytes."""

import copy
import io
import json
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from torch import nn

from cifar import UserError, networks

torch.set_num_threads(1)
FACTS = {"num_classes": 3, "in_channels": 1, "image_size": 8, "mean": [0.5], "std": [0.2]}
VGG = {"num_classes": 3, "in_channels": 1, "image_size": 8, "depth": 1, "width": 2, "dropout": 0.0,
       "dropout_step": 0.0, "batch_norm": True}  # fmt: skip


def describe(count=1, **changes):
    return {
        "model": "vgg",
        "arguments": VGG,
        "ensemble": count,
        "classes": ["ä", "b", "c"],
        "mean": [0.1 + 0.2],
    } | changes


def write(path, nets, **changes):
    path.write_bytes(networks.weights(nets, describe(len(nets)) | changes))


def refused(path, what):
    """The file is refused with one line that says what is wrong and where."""
    with pytest.raises(UserError) as caught:
        networks.load(path)
    message = str(caught.value)
    assert what in message and str(path) in message and "\n" not in message, message


def make(*seeds):
    return [networks.build("vgg", VGG, seed) for seed in seeds]


def same(one, other):
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_arguments_are_those_that_build_takes():
    """A network gets the facts and options that it has parameters for, and nothing else."""
    options = SimpleNamespace(**networks.OFF | {"depth": 2, "dropout": 0.3, "batch_norm": True})
    expected = {"num_classes": 3, "in_channels": 1, "image_size": 8, "depth": 2, "width": 0, "dropout": 0.3,
                "dropout_step": 0.0, "batch_norm": True}  # fmt: skip
    assert networks.arguments("vgg", options, FACTS) == expected
    off = SimpleNamespace(**networks.OFF)
    assert networks.arguments("convpool", off, FACTS) == {
        key: FACTS[key] for key in list(FACTS)[:3]
    }


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("convpool", "dropout", 0.2),
        ("convpool", "batch_norm", True),
        ("gap", "depth", 2),
        ("sgd_cnn", "width", 16),
        ("resnet18", "dropout_step", 0.1),
        ("vgg", "backbone", "resnet18"),
        ("fast", "freeze", True),
    ],
)
def test_an_option_that_a_network_does_not_have_is_refused(name, option, value):
    """An option without effect is one line that names it and the value that means nothing."""
    options = SimpleNamespace(**networks.OFF | {option: value})
    with pytest.raises(
        UserError,
        match=rf"^train\.{option} = {value} has no effect in {name} .*{networks.OFF[option]}$",
    ):
        networks.arguments(name, options, FACTS)


def test_a_model_file_is_the_same_bytes_twice():
    """The same weights and description give the same file, without times in it and in any process; networks and
    ensembles keep every tensor, and there is one key of metadata."""
    one, again = (
        networks.weights(nets, describe()) for nets in (make(0), [copy.deepcopy(make(0)[0])])
    )
    assert one == again == networks.weights(make(0), dict(reversed(describe().items())))
    names = set(make(0)[0].state_dict())
    for nets, expected in (
        (make(0), names),
        (make(0, 1), {f"{i}.{name}" for i in (0, 1) for name in names}),
    ):
        content = networks.weights(nets, describe())
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        assert header.keys() == {"__metadata__", *expected}
        assert list(header["__metadata__"]) == ["description"]


@pytest.mark.parametrize("count", [1, 2, 11])
def test_a_model_comes_back_from_its_file_alone(tmp_path, count):
    """Weights, running statistics and description are read back to the bit, each member its own, ready to predict."""
    nets = make(*range(count))
    for number, net in enumerate(nets):
        net.train()(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(number)))
    write(tmp_path / "w", [net.to(memory_format=torch.channels_last) for net in nets])
    others, description = networks.load(tmp_path / "w")
    assert all(same(one, other) for one, other in zip(nets, others, strict=True))
    assert count == 1 or not same(others[0], others[1])
    assert not any(net.training for net in others)
    assert description == describe(count)


@pytest.mark.parametrize(
    "content",
    [
        *(b"garbage", b"\xff" * 100, "longer"),
        pytest.param(b"", marks=pytest.mark.hostile, id="nothing"),
        pytest.param("cut", marks=pytest.mark.hostile),
        pytest.param("pickle", marks=pytest.mark.hostile),
    ],
)
def test_what_is_no_model_file_is_refused(tmp_path, content):
    """Garbage, an empty, a cut and a longer file, and a pickle, whose code does not run, are one line with the path."""
    path = tmp_path / "w"
    refused(path, "no model file")
    write(path, make(0))
    whole, pickled = path.read_bytes(), io.BytesIO()
    torch.save(Code(tmp_path / "ran"), pickled)
    path.write_bytes(
        {"cut": whole[:-1], "longer": whole + b"\0", "pickle": pickled.getvalue()}.get(
            content, content
        )
    )
    refused(path, "no safetensors file")
    assert not (tmp_path / "ran").exists()


class Code:
    """A pickle that would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


@pytest.mark.parametrize(
    "metadata", [None, {"author": "me"}, *({"description": text} for text in ("[]", "{}", "1"))]
)
def test_weights_without_a_description_are_refused(tmp_path, metadata):
    """A safetensors file of somebody else, or one whose description is none, is one line with the path."""
    path = tmp_path / "w"
    path.write_bytes(safetensors.torch.save(make(0)[0].state_dict(), metadata))
    refused(path, "weights without a description")
    path.write_bytes(safetensors.torch.save(make(0)[0].state_dict(), {"description": "{"}))
    refused(path, "no safetensors file")


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.hostile), 3])
def test_an_ensemble_of_another_size_is_refused(tmp_path, count):
    """Weights of more or of fewer networks than described are those of another network."""
    write(tmp_path / "w", make(*range(count)), ensemble=2)
    refused(tmp_path / "w", "weights of another network")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"width": 3}, marks=pytest.mark.hostile, id="another width"),
        *({"depth": 2}, {"batch_norm": False}, {"num_classes": 4}, {"another": 1}),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, change):
    """Where the code builds another network than the one that was trained, or none, one line says so."""
    write(tmp_path / "w", make(0), arguments=VGG | change)
    refused(tmp_path / "w", "weights of another network")
    write(tmp_path / "w", make(0), model="of_tomorrow")
    refused(
        tmp_path / "w", "weights of another network, No module named 'cifar.models.of_tomorrow'"
    )


def test_a_flipped_bit_is_noticed(tmp_path):
    """Whichever bit of the header changes, and in the weights too, the file is refused or means the very same."""
    path, (original,), noticed = tmp_path / "w", make(0), 0
    write(path, [original])
    content = path.read_bytes()
    places = [
        *range(8 + int.from_bytes(content[:8], "little")),
        *range(len(content) - 50, len(content)),
    ]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            (net,), description = networks.load(path)
        except UserError as error:
            assert "\n" not in str(error)
            noticed += 1
        else:
            assert same(net, original) and description == describe()
    assert noticed > 0.95 * len(places)


@pytest.mark.hostile
def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path):
    """Whichever number changes by a bit, the file is refused, by the checksum that it carries."""
    write(tmp_path / "w", make(0))
    content = (tmp_path / "w").read_bytes()
    for place in range(8 + int.from_bytes(content[:8], "little"), len(content), 997):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "w").write_bytes(damaged)
        refused(tmp_path / "w", "damaged, its checksum is another")


def test_the_table_names_every_layer():
    """The table has a line for each layer with its shape and parameters, and the sum of them."""
    (net,) = make(0)
    layers = networks.summary(net.train(), 1, 8)
    assert layers[0] == ("0", "Conv2d", "2x8x8", 2 * 10)
    assert [row[0] for row in layers] == [str(i) for i in range(len(net))]
    lines = networks.table(layers).splitlines()
    assert lines[0].split() == ["0", "Conv2d", "2x8x8", "20"]
    assert lines[-1].split() == [f"{sum(p.numel() for p in net.parameters()):,}", "parameters"]
    assert net.training
    assert not net[0]._forward_hooks


def test_the_table_counts_parameters_outside_of_layers():
    """Parameters that belong to no layer, as those of an attention, come in a last row."""

    class Scaled(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Flatten(), nn.Linear(4, 2))
            self.scale = nn.Parameter(torch.ones(7))

    assert networks.summary(Scaled(), 1, 2)[-2:] == [
        ("1", "Linear", "2", 10),
        ("(others)", "", "", 7),
    ]


def dropped(p, shape=(1000, 1000), seed=0, **options):
    """Ones after dropout."""
    torch.manual_seed(seed)
    return networks.FastDropout(p).train()(torch.ones(shape, **options))


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_mean(p):
    """A share p of a million elements becomes zero, the others 1 / (1 - p), so that the mean stays."""
    y = dropped(p)
    zeros = (y == 0).double().mean().item()
    assert abs(zeros - p) < 5 * (p * (1 - p) / 1e6) ** 0.5
    kept = y[y != 0].unique()
    assert len(kept) == 1
    assert kept.item() == pytest.approx(1 / (1 - p), rel=1e-4)
    assert y.double().mean().item() == pytest.approx(1, abs=5 * (p / (1 - p) / 1e6) ** 0.5)


def test_dropout_equals_torchs_in_distribution():
    """Zeros per row, per column and in neighbouring places are as frequent as with torch's dropout."""
    ours = dropped(0.3) == 0
    torch.manual_seed(1)
    torchs = nn.Dropout(0.3)(torch.ones(1000, 1000)) == 0
    for zeros in (ours, torchs):
        for dim in (0, 1):  # binomial: 300, give or take 14.5
            counts = zeros.sum(dim).double()
            assert 295 < counts.mean() < 305
            assert 13 < counts.std() < 16
        for step in (
            1,
            2,
            3,
            4,
        ):  # independent neighbours, within a draw of four elements and across
            pairs = (zeros[:, :-step] & zeros[:, step:]).double().mean()
            assert 0.088 < pairs < 0.092


def test_dropout_draws_anew_and_repeats_with_the_seed():
    """Two calls drop different elements, and the same seed the same ones."""
    torch.manual_seed(0)
    layer = networks.FastDropout(0.5)
    first, second = layer(torch.ones(1000)), layer(torch.ones(1000))
    assert 400 < (first != second).sum() < 600
    assert torch.equal(first, dropped(0.5, 1000))


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 7), (2, 3, 5, 5), (1, 1, 1, 1), (4, 6), (0, 3)])
def test_dropout_takes_any_number_of_elements(shape):
    """Sizes that are no multiple of four work, and every element is dropped at some time and kept at another."""
    zeros = torch.stack([dropped(0.5, shape, seed=seed) == 0 for seed in range(40)])
    assert zeros.shape[1:] == shape
    assert zeros.any(0).all()
    assert not zeros.all(0).any()


def test_dropout_keeps_the_memory_format():
    """Channels-last tensors stay so; slices, transposes and expanded tensors are dropped element by element."""
    last = dropped(0.5, (4, 8, 5, 5)).to(memory_format=torch.channels_last)
    assert networks.FastDropout(0.5)(last).is_contiguous(memory_format=torch.channels_last)
    whole = torch.ones(64, 64)
    for x in (whole[:, ::2], whole[::2, 1:], whole.T, whole[:1].expand(64, 64), whole[5]):
        y = networks.FastDropout(0.5)(x)
        assert y.shape == x.shape
        assert 0.25 < (y == 0).double().mean() < 0.75
        assert set(y.unique().tolist()) == {0, 2}
    columns = networks.FastDropout(0.5)(whole[:1].expand(64, 64)).sum(0)
    assert (
        0 < columns.min() < columns.max() < 128
    )  # each element for itself, though they share one place in memory


def test_dropout_passes_the_gradient_through_what_it_keeps():
    """The gradient is the mask: zero where dropped, the scale elsewhere."""
    x = torch.ones(100, requires_grad=True)
    y = networks.FastDropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_off_is_the_identity():
    """With probability zero, and in evaluation with any, every bit passes; almost one drops almost all."""
    x = torch.randn(1000)
    assert networks.FastDropout(0.0).train()(x) is x
    assert torch.equal(networks.FastDropout(0.7).eval()(x), x)
    assert dropped(1 - 1e-9).count_nonzero() < 60  # one of 65536 is kept


def test_every_dropout_of_a_network_is_the_fast_one():
    """A network that is built by name has no dropout layer of torch's left, and each keeps its probability."""
    net = networks.build("vgg", VGG | {"dropout": 0.2, "dropout_step": 0.1}, 0)
    found = [(type(layer), layer.p) for layer in net.modules() if isinstance(layer, nn.Dropout)]
    assert found == [(networks.FastDropout, 0.2), (networks.FastDropout, pytest.approx(0.3))]


def test_a_network_that_takes_no_smaller_pictures_is_refused():
    """Where a dense layer wants a fixed number of inputs, or the pools leave nothing, one line names the parameter."""
    pooled = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(4), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    dense = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    networks.check_small(pooled, 3, 6)
    networks.check_small(dense, 3, 8)
    for net, size in ((pooled, 5), (dense, 6)):
        with pytest.raises(
            UserError,
            match=rf"no pictures of {size}x{size} pixels \(params.yaml, train.small_epochs\)",
        ):
            networks.check_small(net, 3, size)
