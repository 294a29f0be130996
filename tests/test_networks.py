"""Networks by name: they are built, checked, and summarised by layer."""

import json
import random
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sample import DATASET, make, network_code, record, write
from torch import nn

from cifar import UserError, model_file, networks
from cifar.dataset import Shape
from cifar.layers import Dropout
from cifar.model import NetworkOptions
from cifar.training import seeds
from cifar.training.inspection import inspect_network

torch.set_num_threads(1)
FOLDER = Path(networks.__file__).parent / "models"
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
OFF = NetworkOptions()
COLOUR = Shape(10, 3, 32, (0.5,) * 3, (0.2,) * 3)


class Recorder:
    """Options that note which of them are read."""

    def __init__(self, **changes):
        self.values = asdict(replace(OFF, **changes))
        self.read = set()

    def __getattr__(self, name):
        self.read.add(name)
        return self.values[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_network_names_the_options_that_it_uses(name):
    """USES lists exactly the options that build reads."""
    options = Recorder(backbone="resnet18" if name == "pretrained" else None)
    networks.build(name, COLOUR, options, seed=0)
    assert options.read == set(networks.load_file(name).USES)
    assert options.read <= {field.name for field in fields(NetworkOptions)}


@pytest.mark.parametrize("name", NAMES)
def test_an_option_without_effect_is_refused(name):
    """An option that is set but not used is refused in one line that gives its off-value."""
    values = NetworkOptions(2, 16, 0.2, 0.1, True, "resnet18", True)
    used = networks.load_file(name).USES
    for field in fields(NetworkOptions):
        value = getattr(values, field.name)
        options = replace(OFF, **{field.name: value})
        if field.name in used:
            networks.check_options(name, options)
            continue
        off = json.dumps(getattr(OFF, field.name))
        with pytest.raises(UserError) as caught:
            networks.check_options(name, options)
        line = (
            f"train.{field.name} = {value} has no effect in {name} (params.yaml): set it to {off}"
        )
        assert str(caught.value) == line


def test_muon_is_for_networks_made_for_it():
    """A network's file says whether Muon suits it; for others the error gives values that work."""
    suited = [name for name in NAMES if getattr(networks.load_file(name), "MUON", False)]
    assert suited == ["fast"]
    networks.check_muon("fast")
    with pytest.raises(UserError, match=r"^train\.optimizer: muon .* not vgg .*optimizer=sgd"):
        networks.check_muon("vgg")
    with pytest.raises(UserError, match="muon"):
        inspect_network("vgg", COLOUR, OFF, optimizer="muon", small_size=None)


def test_random_numbers_of_the_caller_stay(tmp_path, monkeypatch):
    """Building, checking and loading networks move no global generator, on no device."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("the GPUs are seeded"))
    write(tmp_path / "w", make(0))
    torch.default_generator.manual_seed(3)
    state = torch.get_rng_state()
    inspect_network("fast", COLOUR, replace(OFF, dropout=0.5), "muon", small_size=24)
    networks.build("vgg", COLOUR, OFF, seed=1)
    model_file.load(tmp_path / "w")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.hostile
def test_every_generator_is_seeded(add_network):
    """First weights of a network depend on the seed, also those drawn by numpy or Python."""
    add_network(
        "import random\nimport numpy as np\nfrom torch import nn, tensor\n"
        "def build(shape, options):\n"
        "    net = nn.Linear(1, 2)\n"
        "    net.bias.data = tensor([np.random.rand(), random.random()])\n"
        "    return net\n"
    )
    first, other, again = (networks.build("mine", COLOUR, OFF, seed).bias for seed in (5, 6, 5))
    assert torch.equal(first, again) and not torch.isclose(first, other).any()
    draws = []
    for seed in (7, 8):
        seeds.seed_everything(3)
        networks.build("mine", COLOUR, OFF, seed=seed)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert draws[0] == draws[1], "the caller's numbers do not depend on the network's"


@pytest.mark.fault
def test_memory_that_runs_out_is_no_fault_of_the_network(add_network):
    """torch raises a RuntimeError then, which is passed on as it is."""
    error = "RuntimeError('DefaultCPUAllocator: can\\'t allocate memory')"
    add_network(f"def build(shape, options):\n    raise {error}\n")
    with pytest.raises(RuntimeError, match="allocate"):
        networks.build("mine", COLOUR, OFF, seed=0)


@pytest.mark.hostile
@pytest.mark.parametrize("code", ["prepare = 3\n", "def prepare(net, images):\n    1 / 0\n"])
def test_a_prepare_that_fails_is_one_line(code, add_network):
    """An error in a network's `prepare` is one line that names its file."""
    add_network(code)
    with pytest.raises(UserError, match=r"^prepare: [^\n]*mine\.py\): fix prepare"):
        networks.prepare("mine", nn.Flatten(), torch.zeros(2, 3, 8, 8), seed=0)


@pytest.mark.fault
def test_layers_that_share_a_tensor_come_back(add_network, tmp_path):
    """Tied weights are still tied after saving and loading."""
    add_network(
        network_code(
            "tied = [nn.Linear(64, 64), nn.Linear(64, 64)]\n"
            "    net = nn.Sequential(nn.Flatten(), *tied, nn.Linear(64, 3))\n"
            "    net[2].weight = net[1].weight\n"
            "    return net"
        )
    )
    net = networks.build("mine", DATASET.shape, OFF, seed=1)
    content = model_file.dump([net], record(network="mine", options=OFF))
    (tmp_path / "w").write_bytes(content)
    _, state = model_file.read(tmp_path / "w")
    again = networks.build("mine", DATASET.shape, OFF, seed=2)
    again.load_state_dict(state)
    assert torch.equal(again[2].weight, net[1].weight) and again[2].weight is again[1].weight


@pytest.mark.hostile
def test_a_file_name_that_python_cannot_import_is_one_line():
    """A name such as resnet.v2 is refused with the advice to rename the file."""
    with pytest.raises(UserError, match=r"^resnet\.v2 is not a name .*resnet\.v2\.py\): rename"):
        networks.load_file("resnet.v2")


def test_the_summary_names_every_layer():
    """Each layer has a row with its shape and parameters; the network itself is unchanged."""
    (net,) = make(0)
    layers = networks.summarize(net.train(), DATASET.shape)
    first = layers[0]
    assert (first.name, first.kind, first.shape, first.parameters) == ("0", "Conv2d", (2, 8, 8), 20)
    assert [layer.name for layer in layers] == [str(i) for i in range(len(net))]
    assert net.training
    assert not net[0]._forward_hooks


class Scaled(nn.Sequential):
    """Parameters outside of layers, and one layer used twice."""

    def __init__(self):
        layer = nn.Linear(4, 4)
        super().__init__(nn.Flatten(), layer, nn.ReLU(), layer, nn.Linear(4, 4))
        self[4].weight = layer.weight
        self.scale = nn.Parameter(torch.ones(7))


def test_each_tensor_counts_once():
    """Shared layers and tensors count once; parameters outside of layers come last."""
    layers = networks.summarize(Scaled(), Shape(4, 1, 2, (0.5,), (0.5,)))
    counts = [(layer.kind, layer.parameters) for layer in layers]
    linear = "Linear"
    expected = [("Flatten", 0), (linear, 20), ("ReLU", 0), (linear, 0), (linear, 4), ("", 7)]
    assert counts == expected
    assert sum(layer.parameters for layer in layers) == sum(
        p.numel() for p in Scaled().parameters()
    )


def test_every_dropout_of_a_network_is_the_fast_one():
    """Networks use our dropout layer instead of torch's, with the probability of the options."""
    for name in NAMES:
        if "dropout" in networks.load_file(name).USES:
            net = networks.build(name, COLOUR, replace(OFF, dropout=0.2), seed=0)
            layers = [layer for layer in net.modules() if isinstance(layer, nn.Dropout)]
            assert layers and {type(layer) for layer in layers} == {Dropout}
            assert {layer.p for layer in layers} == {0.2}
