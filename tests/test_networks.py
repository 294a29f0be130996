"""Networks by name: built, tried before a training, and listed by layer."""

import json
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from sample import DATASET, make, record, write
from torch import nn

from cifar import UserError, model_file, networks, params
from cifar.dataset import Shape
from cifar.evaluation import metrics
from cifar.layers import Dropout
from cifar.model import NetworkOptions
from cifar.params.train import Train
from cifar.training import fit

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
    """USES is exactly what build reads of the options."""
    options = Recorder(backbone="resnet18" if name == "pretrained" else None)
    networks.build(name, COLOUR, options, seed=0)
    assert options.read == set(networks.load_file(name).USES)
    assert options.read <= {field.name for field in fields(NetworkOptions)}


@pytest.mark.parametrize("name", NAMES)
def test_an_option_without_effect_is_refused(name):
    """An option that is set but not used is one line that names it and its off-value."""
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
    """A network says in its own file whether Muon suits it; others are refused with values."""
    suited = [name for name in NAMES if getattr(networks.load_file(name), "MUON", False)]
    assert suited == ["fast"]
    networks.check_muon("fast")
    with pytest.raises(UserError, match=r"^train\.optimizer: muon .* not vgg .*optimizer=sgd"):
        networks.check_muon("vgg")
    with pytest.raises(UserError, match="muon"):
        networks.inspect("vgg", COLOUR, OFF, optimizer="muon", small_size=None)


def test_random_numbers_of_the_caller_stay(tmp_path):
    """Building, checking and loading networks do not move the global generator."""
    write(tmp_path / "w", make(0))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    networks.inspect("fast", COLOUR, replace(OFF, dropout=0.5), "muon", small_size=24)
    networks.build("vgg", COLOUR, OFF, seed=1)
    model_file.load(tmp_path / "w")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def add(tmp_path, monkeypatch):
    """A function that adds a file of a network to cifar.models, in a folder of its own."""
    import cifar.models

    folder = tmp_path / "cifar/models"
    folder.mkdir(parents=True)
    monkeypatch.setattr(cifar.models, "__path__", [*cifar.models.__path__, str(folder)])
    before = set(sys.modules)

    def write(code, name="mine"):
        (folder / f"{name}.py").write_text(code)

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("cifar.models."):
            del sys.modules[name]


def build(body, header="def build(shape, options):"):
    return f"import torch\nfrom torch import nn\n{header}\n    {body}\n"


FLAT = "nn.Flatten(), nn.Linear(192, shape.num_classes)"
BROKEN = {
    "three outputs too many": (
        build("return nn.Sequential(nn.Flatten(), nn.Linear(192, shape.num_classes + 3))"),
        "for two images it returns [2, 8] instead of [2, 5]",
    ),
    "an output too few": (
        build("return nn.Sequential(nn.Flatten(), nn.Linear(192, shape.num_classes - 1))"),
        "for two images it returns [2, 4] instead of [2, 5]",
    ),
    "a dimension too many": (
        build(f"return nn.Sequential({FLAT}, nn.Unflatten(1, (5, 1)))"),
        "for two images it returns [2, 5, 1] instead of [2, 5]",
    ),
    "no build": ("x = 1\n", "AttributeError: module 'cifar.models.mine' has no attribute 'build'"),
    "an unknown argument": (
        build(f"return nn.Sequential({FLAT})", "def build(shape, options, extra):"),
        "TypeError: build() missing 1 required positional argument: 'extra'",
    ),
    "the arguments of version 0.1": (
        build("pass", "def build(num_classes, in_channels, image_size, *, depth):"),
        "TypeError: build()",
    ),
    "keywords only": (build("pass", "def build(**kw):"), "TypeError: build()"),
    "nothing returned": (build("pass"), "build returned NoneType"),
    "a class returned": (build("return nn.Linear"), "build returned type"),
    "a lazy layer": (
        build("return nn.Sequential(nn.Flatten(), nn.LazyLinear(shape.num_classes))"),
        "a lazy layer does not know its number of inputs",
    ),
    "another number of channels": (
        build("return nn.Sequential(nn.Conv2d(1, 5, 8), nn.Flatten())"),
        "RuntimeError: Given groups=1",
    ),
    "an option that does not exist": (
        build("return nn.Linear(options.layers, 2)"),
        "AttributeError in line 4: 'NetworkOptions' object has no attribute 'layers'",
    ),
    "a syntax error": ("def build(shape, options)\n", "SyntaxError"),
    "an import that fails": (
        "import no_such_package\n",
        "ModuleNotFoundError in line 1: No module",
    ),
    "other outputs in training": (
        build(
            "class Net(nn.Sequential):\n"
            "        def forward(self, x):\n"
            "            y = super().forward(x)\n"
            "            return (y, y) if self.training else y\n"
            f"    return Net({FLAT})"
        ),
        "in training, for two images it returns tuple instead of [2, 5]",
    ),
    "more outputs in training": (
        build(
            "class Net(nn.Sequential):\n"
            "        def forward(self, x):\n"
            "            y = super().forward(x)\n"
            "            return y.repeat(1, 2) if self.training else y\n"
            f"    return Net({FLAT})"
        ),
        "in training, for two images it returns [2, 10] instead of [2, 5]",
    ),
    "a batch of two only": (
        build(f"return nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (2, 192)), {FLAT})"),
        "RuntimeError: unflatten: Provided sizes",
    ),
    "an exit": (build("raise SystemExit"), "SystemExit in line 4"),
    "no gradient": (
        build(f"return nn.Sequential({FLAT}).requires_grad_(False)"),
        "in training, RuntimeError",
    ),
}


@pytest.mark.hostile
@pytest.mark.parametrize("case", BROKEN)
def test_a_network_that_breaks_its_contract_is_one_line(case, add):
    """Before the first epoch one line names the file, what it did, and what is expected."""
    code, problem = BROKEN[case]
    add(code)
    shape = Shape(5, 3, 8, (0.5,) * 3, (0.2,) * 3)
    with pytest.raises(UserError) as caught:
        networks.inspect("mine", shape, OFF, optimizer="sgd", small_size=None)
    message = str(caught.value)
    assert message.startswith(problem) and "\n" not in message, message
    assert "(cifar/models/mine.py): " in message
    if "Error: module" not in problem and not any(word in case for word in ("syntax", "import")):
        contract = (
            "build(shape, options) returns a module from (N, 3, 8, 8) floats to (N, 5) logits"
        )
        assert message.endswith(contract) or "state it in the layer" in message


@pytest.mark.fault
@pytest.mark.parametrize("width", [1, 4, 16])
def test_no_kernel_damages_memory(width, add):
    """A strided 1x1 convolution of few channels is refused, and no network of ours has one."""
    narrow = f"nn.Conv2d(3, {width}, 1), nn.Conv2d({width}, 5, 1, 2), nn.AdaptiveAvgPool2d(1)"
    add(build(f"return nn.Sequential({narrow}, nn.Flatten())"))
    shape = Shape(5, 3, 16, (0.5,) * 3, (0.2,) * 3)
    if width < networks.NARROW:
        with pytest.raises(UserError, match=r"^layer 1 is .*models/mine\.py\): leave pixels out"):
            networks.inspect("mine", shape, OFF, optimizer="sgd", small_size=None)
    else:
        networks.inspect("mine", shape, OFF, optimizer="sgd", small_size=None)
    options = replace(OFF, width=width)
    networks.inspect("resnet18", shape, options, optimizer="sgd", small_size=None)


NET = """
import threading
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


class Net(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.conv = nn.Conv2d(shape.channels, 8, 3)
        self.fc = nn.Linear(8, shape.num_classes)
        INIT

    def features(self, x):
        return F.adaptive_avg_pool2d(F.relu(self.conv(x)), 1).flatten(1)

    def forward(self, x):
        FORWARD

    MORE


def build(shape, options):
    return Net(shape)
"""
FORWARD = "return self.fc(self.features(x))"
BUFFER = "self.register_buffer('b', torch."
STATE = "def get_extra_state(self): return {}\n    def set_extra_state(self, state): pass"
HOLD = "which no model file can hold (cifar/models/mine.py)"
COPY = "another network with its weights predicts otherwise (cifar/models/mine.py)"
GROWS = "appears or grows while the network runs (cifar/models/mine.py): make it in __init__"
EMA = "(cifar/models/mine.py): train.ema copies the network"
HIDDEN = "self.h = self.h + self.conv(x).sum(); return self.h + self.fc(self.features(x))"
# What is put into the network, and what of the message, if any: else it works.
ODD = {
    "a state that is a dict": ({"MORE": STATE}, f"_extra_state is a dict, {HOLD}"),
    "a sparse buffer": ({"INIT": f"{BUFFER}eye(3).to_sparse())"}, f"sparse_coo float32, {HOLD}"),
    "complex128": ({"INIT": f"{BUFFER}ones(3, dtype=torch.complex128))"}, f"complex128, {HOLD}"),
    "complex64": ({"INIT": f"{BUFFER}ones(3, dtype=torch.complex64))"}, ""),
    "whole numbers": ({"INIT": f"{BUFFER}ones(3).long())"}, ""),
    "an infinite mask": ({"INIT": f"{BUFFER}full((2,), -torch.inf))"}, ""),
    "old weight_norm": ({"INIT": "nn.utils.weight_norm(self.fc)"}, EMA),
    "new weight_norm": ({"INIT": "parametrizations.weight_norm(self.fc)"}, ""),
    "what cannot be copied": ({"INIT": "self.lock = threading.Lock()"}, EMA),
    "ten images at most": ({"FORWARD": f"assert len(x) <= 10; {FORWARD}"}, "AssertionError in li"),
    "two images at least": ({"FORWARD": f"assert len(x) > 1; {FORWARD}"}, "AssertionError in line"),
    "other outputs in evaluation": (
        {"FORWARD": "y = self.fc(self.features(x)); return y if self.training else (y, y)"},
        "for two images it returns tuple instead of [2, 5]",
    ),
    "classes in evaluation": (
        {"FORWARD": "y = self.fc(self.features(x)); return y if self.training else y.argsort(1)"},
        "for two images it returns torch.int64 instead of [2, 5]",
    ),
    "a late layer": (
        {"FORWARD": f"self.late = nn.Linear(8, 8); {FORWARD}"},
        f"late.weight {GROWS}",
    ),
    "a growing buffer": (
        {"INIT": f"{BUFFER}zeros(0))", "FORWARD": f"self.b = F.pad(self.b, (0, 1)); {FORWARD}"},
        f"b {GROWS}",
    ),
    "a graph that is kept": (
        {"INIT": "self.h = 0", "FORWARD": HIDDEN},
        "in training, RuntimeError: Trying to backward through the graph a second time",
    ),
    "random numbers outside": (
        {"INIT": "self.r = torch.randn(8)", "FORWARD": "return self.fc(self.features(x) + self.r)"},
        COPY,
    ),
    "layers in a list": (
        {
            "INIT": "self.hidden = [nn.Linear(8, 8)]",
            "FORWARD": "return self.fc(self.hidden[0](self.features(x)))",
        },
        COPY,
    ),
    "dropout in evaluation": (
        {"FORWARD": "return self.fc(F.dropout(self.features(x)))"},
        "it predicts otherwise each time (cifar/models/mine.py): F.dropout needs training=",
    ),
    "five dimensions": (
        {"INIT": "self.p = nn.Parameter(torch.zeros(1, 1, 1, 1, 1))"},
        "(cifar/models/mine.py): training keeps images and filters channels last",
    ),
    "numbers that share memory": (
        {"INIT": "self.p = nn.Parameter(torch.ones(1).expand(8))"},
        "RuntimeError: Error(s) in loading state_dict",
    ),
    "a frozen network": ({"INIT": "self.requires_grad_(False)"}, "in training, RuntimeError"),
    "a frozen part": (
        {"FORWARD": "with torch.no_grad(): y = self.features(x)\n        return self.fc(y)"},
        "",
    ),
    "an unused layer": ({"INIT": "self.unused = nn.Linear(2, 2)"}, ""),
    "writing into the images": ({"FORWARD": f"x.mul_(2); {FORWARD}"}, ""),
    "tied weights": (
        {"INIT": "self.other = nn.Linear(8, 5); self.other.weight = self.fc.weight"},
        "",
    ),
    "scattered weights": ({"INIT": "self.fc.weight = nn.Parameter(torch.rand(8, 5).t())"}, ""),
    "double precision": (
        {"INIT": "self.double()", "FORWARD": "return self.fc(self.features(x.double()))"},
        "",
    ),
    "an attribute with a common name": ({"INIT": "self.input_size = (3, 8, 8)"}, ""),
    "a text of its own": ({"FORWARD": f"print(end=''); {FORWARD}"}, ""),
}


@pytest.mark.hostile
@pytest.mark.parametrize("case", ODD)
def test_an_odd_network_works_or_is_refused_before_the_first_epoch(case, add, tmp_path):
    """One line names its file, or it trains, is written, read again and predicts the same."""
    texts, problem = ODD[case]
    code = NET
    for word, text in ({"INIT": "", "FORWARD": FORWARD, "MORE": ""} | texts).items():
        code = code.replace(word, text)
    add(code)
    dataset = replace(DATASET, classes=tuple("abcde"))
    p = parameters(ema=0.9, optimizer="adamw", momentum=0.0, nesterov=False, clip_norm=1.0)
    if problem:
        with pytest.raises(UserError) as caught:
            fit.inspect(p, dataset.shape, OFF)
        message = str(caught.value)
        assert problem in message and "(cifar/models/mine.py): " in message
        assert "\n" not in message and len(message) < 600
        return
    layers = fit.inspect(p, dataset.shape, OFF)
    net = networks.build("mine", dataset.shape, OFF, seed=3)
    fields = {"network": "mine", "options": OFF, "dataset": dataset, "layers": layers}
    (tmp_path / "w").write_bytes(model_file.dump([net], record(**fields)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "ROOT", tmp_path)
        (again,), _ = model_file.load(tmp_path / "w")
    images = torch.rand(3, 8, 8, 1).permute(0, 3, 1, 2)
    assert torch.equal(net.eval()(images.clone()), again(images.clone()))
    metrics.sensitivity([again], torch.zeros(2, 8, 8, 1), lambda x: x.permute(0, 3, 1, 2))


def parameters(**changes):
    """The section `train` of params.yaml for the network `mine`."""
    values = params.read(FOLDER.parents[1] / "params.yaml")["train"]
    small = {"model": "vgg", "depth": 0, "width": 0, "small_epochs": 0, "batch_size": 16}
    p = Train.model_validate(values | small | {"weight_decay": 0.1, "dropout": 0.0} | changes)
    return p.model_copy(update={"model": "mine"})


@pytest.mark.hostile
def test_an_unused_layer_is_refused_for_several_processes(add):
    """They would wait for its gradient, and fail in the second step."""
    add(
        NET.replace("INIT", "self.unused = nn.Linear(2, 2)")
        .replace("FORWARD", FORWARD)
        .replace("MORE", "")
    )
    p = parameters(optimizer="sgd", processes=2)
    with pytest.raises(UserError, match=r"^unused.weight has no gradient, .*mine\.py\): use it"):
        fit.inspect(p, COLOUR, OFF)


@pytest.mark.hostile
@pytest.mark.parametrize("uses", ["'depth'", "None", "('dephts',)", "['depth']", "(['depth'],)"])
def test_uses_that_names_no_options_is_one_line(uses, add):
    """USES is a tuple of options, and the message lists those that there are."""
    add(f"USES = {uses}\n" + build(f"return nn.Sequential({FLAT})"))
    with pytest.raises(UserError, match=r"^USES = .*mine\.py\): it is a tuple .* depth, width"):
        networks.inspect("mine", COLOUR, OFF, optimizer="sgd", small_size=None)


@pytest.mark.hostile
@pytest.mark.parametrize("code", ["prepare = 3\n", "def prepare(net, images):\n    1 / 0\n"])
def test_a_prepare_that_fails_is_one_line(code, add):
    """What a network does with the first images fails in one line with its file."""
    add(code)
    with pytest.raises(UserError, match=r"^prepare: [^\n]*mine\.py\): fix prepare"):
        networks.prepare("mine", nn.Flatten(), torch.zeros(2, 3, 8, 8))


@pytest.mark.fault
def test_layers_that_share_a_tensor_come_back(add, tmp_path):
    """Tied weights are saved and loaded like others."""
    add(
        build(
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
def test_a_colour_network_on_grey_images_is_one_line(add):
    """Hard-coded channels are found by the forward on the real shape, with the line of the file."""
    add(build(f"return nn.Sequential(nn.Conv2d(3, 4, 1), {FLAT})"))
    with pytest.raises(
        UserError, match=r"^RuntimeError: .*\(N, 1, 8, 8\) floats to \(N, 3\) logits"
    ):
        networks.inspect("mine", DATASET.shape, OFF, optimizer="sgd", small_size=None)


@pytest.mark.hostile
def test_a_view_of_an_image_is_one_line(add):
    """Many public networks flatten with view, which the layout of training does not allow."""
    body = "nn.Conv2d(shape.channels, 4, 3, padding=1), View(), nn.Linear(256, shape.num_classes)"
    view = (
        "class View(nn.Module):\n    def forward(self, x):\n        return x.view(x.size(0), -1)\n"
    )
    add(build(f"return nn.Sequential({body})", f"{view}\ndef build(shape, options):"))
    with pytest.raises(UserError, match=r"mine\.py\): write x\.flatten\(1\) for x\.view"):
        networks.inspect("mine", DATASET.shape, OFF, optimizer="sgd", small_size=None)


@pytest.mark.hostile
def test_a_file_name_that_python_cannot_import_is_one_line():
    """A name such as resnet.v2 is refused with the advice to rename the file."""
    with pytest.raises(UserError, match=r"^resnet\.v2 is no name .*resnet\.v2\.py\): rename"):
        networks.load_file("resnet.v2")


PUBLIC = """
class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, in_planes, planes, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(in_planes, planes, 1, stride=stride))

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)) + self.shortcut(x))


class Net(nn.Module):
    def __init__(self, block, num_blocks, num_classes=10):
        super().__init__()
        self.in_planes = 16
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.layer1 = self._make_layer(block, 16, num_blocks[0], stride=1)
        self.layer2 = self._make_layer(block, 32, num_blocks[1], stride=2)
        self.linear = nn.Linear(32 * block.expansion, num_classes)

    def _make_layer(self, block, planes, num_blocks, stride):
        layers = []
        for stride in [stride] + [1] * (num_blocks - 1):
            layers.append(block(self.in_planes, planes, stride))
            self.in_planes = planes * block.expansion
        return nn.Sequential(*layers)

    def forward(self, x):
        out = self.layer2(self.layer1(F.relu(self.conv1(x))))
        out = F.avg_pool2d(out, out.shape[2])
        return self.linear(out.view(out.size(0), -1))


def Net2():
    return Net(BasicBlock, [2, 2])
"""


def test_a_network_in_the_usual_public_style_needs_one_function(add):
    """Classes as public repositories have them work with `build` below them, and nothing else."""
    imports = "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n"
    function = (
        "\n\ndef build(shape, options):\n"
        "    return Net(BasicBlock, [2, 2], num_classes=shape.num_classes)\n"
    )
    add(imports + PUBLIC + function)
    layers = networks.inspect("mine", COLOUR, OFF, optimizer="sgd", small_size=16)
    assert layers[0].kind == "Conv2d" and layers[-1].shape == (10,)


def test_the_summary_names_every_layer():
    """Each layer has a row with its shape and parameters; the network is left as it was."""
    (net,) = make(0)
    layers = networks.summarize(net.train(), DATASET.shape)
    first = layers[0]
    assert (first.name, first.kind, first.shape, first.parameters) == ("0", "Conv2d", (2, 8, 8), 20)
    assert [layer.name for layer in layers] == [str(i) for i in range(len(net))]
    assert networks.table(layers).splitlines()[0].split() == ["0", "Conv2d", "2x8x8", "20"]
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
    """A shared layer and a shared tensor count once; what belongs to no layer comes last."""
    layers = networks.summarize(Scaled(), Shape(4, 1, 2, (0.5,), (0.5,)))
    counts = [(layer.kind, layer.parameters) for layer in layers]
    linear = "Linear"
    expected = [("Flatten", 0), (linear, 20), ("ReLU", 0), (linear, 0), (linear, 4), ("", 7)]
    assert counts == expected
    assert sum(layer.parameters for layer in layers) == sum(
        p.numel() for p in Scaled().parameters()
    )


def test_every_dropout_of_a_network_is_the_fast_one():
    """No network has a dropout layer of torch's own, and each keeps its probability."""
    for name in NAMES:
        if "dropout" in networks.load_file(name).USES:
            net = networks.build(name, COLOUR, replace(OFF, dropout=0.2), seed=0)
            layers = [layer for layer in net.modules() if isinstance(layer, nn.Dropout)]
            assert layers and {type(layer) for layer in layers} == {Dropout}
            assert {layer.p for layer in layers} == {0.2}


def test_a_network_that_takes_no_smaller_images_is_refused():
    """Where a dense layer or the pools need the full size, one line names the parameter."""
    pooled = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(4), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    dense = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    networks.check_small(pooled, COLOUR, 6)
    networks.check_small(dense, COLOUR, 8)
    for net, size in ((pooled, 5), (dense, 6)):
        message = (
            rf"no images of {size}x{size} pixels \(params.yaml, train.small_epochs\): set it to 0"
        )
        with pytest.raises(UserError, match=message):
            networks.check_small(net, COLOUR, size)
