"""Networks tried before training: what would fail after hours fails at once, in one line."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sample import DATASET, network_code, record
from torch import nn

from cifar import UserError, model_file, networks, params
from cifar.dataset import Shape
from cifar.evaluation import metrics
from cifar.model import NetworkOptions
from cifar.params.train import Train
from cifar.training.inspection import NARROW, check_small, inspect, inspect_network

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[2]
OFF = NetworkOptions()
COLOUR = Shape(10, 3, 32, (0.5,) * 3, (0.2,) * 3)
FLAT = "nn.Flatten(), nn.Linear(192, shape.num_classes)"
BROKEN = {
    "three outputs too many": (
        network_code("return nn.Sequential(nn.Flatten(), nn.Linear(192, shape.num_classes + 3))"),
        "for two images it returns [2, 8] instead of [2, 5]",
    ),
    "an output too few": (
        network_code("return nn.Sequential(nn.Flatten(), nn.Linear(192, shape.num_classes - 1))"),
        "for two images it returns [2, 4] instead of [2, 5]",
    ),
    "a dimension too many": (
        network_code(f"return nn.Sequential({FLAT}, nn.Unflatten(1, (5, 1)))"),
        "for two images it returns [2, 5, 1] instead of [2, 5]",
    ),
    "no build": ("x = 1\n", "AttributeError: module 'cifar.models.mine' has no attribute 'build'"),
    "an unknown argument": (
        network_code(f"return nn.Sequential({FLAT})", "def build(shape, options, extra):"),
        "TypeError: build() missing 1 required positional argument: 'extra'",
    ),
    "the arguments of version 0.1": (
        network_code("pass", "def build(num_classes, in_channels, image_size, *, depth):"),
        "TypeError: build()",
    ),
    "keywords only": (network_code("pass", "def build(**kw):"), "TypeError: build()"),
    "nothing returned": (network_code("pass"), "build returned NoneType"),
    "a class returned": (network_code("return nn.Linear"), "build returned type"),
    "a lazy layer": (
        network_code("return nn.Sequential(nn.Flatten(), nn.LazyLinear(shape.num_classes))"),
        "a lazy layer does not know its number of inputs",
    ),
    "another number of channels": (
        network_code("return nn.Sequential(nn.Conv2d(1, 5, 8), nn.Flatten())"),
        "RuntimeError: Given groups=1",
    ),
    "an option that does not exist": (
        network_code("return nn.Linear(options.layers, 2)"),
        "AttributeError in line 4: 'NetworkOptions' object has no attribute 'layers'",
    ),
    "a syntax error": ("def build(shape, options)\n", "SyntaxError"),
    "an import that fails": (
        "import no_such_package\n",
        "ModuleNotFoundError in line 1: No module",
    ),
    "other outputs in training": (
        network_code(
            "class Net(nn.Sequential):\n"
            "        def forward(self, x):\n"
            "            y = super().forward(x)\n"
            "            return (y, y) if self.training else y\n"
            f"    return Net({FLAT})"
        ),
        "in training, for two images it returns tuple instead of [2, 5]",
    ),
    "more outputs in training": (
        network_code(
            "class Net(nn.Sequential):\n"
            "        def forward(self, x):\n"
            "            y = super().forward(x)\n"
            "            return y.repeat(1, 2) if self.training else y\n"
            f"    return Net({FLAT})"
        ),
        "in training, for two images it returns [2, 10] instead of [2, 5]",
    ),
    "a batch of two only": (
        network_code(f"return nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (2, 192)), {FLAT})"),
        "RuntimeError: unflatten: Provided sizes",
    ),
    "an exit": (network_code("raise SystemExit"), "SystemExit in line 4"),
    "no gradient": (
        network_code(f"return nn.Sequential({FLAT}).requires_grad_(False)"),
        "in training, RuntimeError",
    ),
}


@pytest.mark.hostile
@pytest.mark.parametrize("case", BROKEN)
def test_a_network_that_breaks_its_contract_is_one_line(case, add_network):
    """Before the first epoch, one line names the file, the problem, and what is expected."""
    code, problem = BROKEN[case]
    add_network(code)
    shape = Shape(5, 3, 8, (0.5,) * 3, (0.2,) * 3)
    with pytest.raises(UserError) as caught:
        inspect_network("mine", shape, OFF, optimizer="sgd", small_size=None)
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
def test_no_kernel_damages_memory(width, add_network):
    """A strided 1x1 convolution of few channels is refused; resnet18 has none at any width."""
    narrow = f"nn.Conv2d(3, {width}, 1), nn.Conv2d({width}, 5, 1, 2), nn.AdaptiveAvgPool2d(1)"
    add_network(network_code(f"return nn.Sequential({narrow}, nn.Flatten())"))
    shape = Shape(5, 3, 16, (0.5,) * 3, (0.2,) * 3)
    if width < NARROW:
        with pytest.raises(UserError, match=r"^layer 1 is .*models/mine\.py\): skip pixels"):
            inspect_network("mine", shape, OFF, optimizer="sgd", small_size=None)
    else:
        inspect_network("mine", shape, OFF, optimizer="sgd", small_size=None)
    options = replace(OFF, width=width)
    inspect_network("resnet18", shape, options, optimizer="sgd", small_size=None)


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
HOLD = "which a model file cannot hold (cifar/models/mine.py)"
COPY = "a second network with its weights gives other predictions (cifar/models/mine.py)"
GROWS = "appears or grows while the network runs (cifar/models/mine.py): create it in __init__"
EMA = "(cifar/models/mine.py): train.ema copies the network"
HIDDEN = "self.h = self.h + self.conv(x).sum(); return self.h + self.fc(self.features(x))"
# The code put into the network, and a part of the error; empty if the network works.
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
        "gives different predictions for the same images (cifar/models/mine.py): F.dropout needs",
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
    "a constant that is kept": (
        {
            "INIT": "self.c = None",
            "FORWARD": "self.c = torch.ones(8) if self.c is None else self.c\n"
            "        return self.fc(self.features(x) * self.c)",
        },
        "",
    ),
    "a `to` of its own": ({"MORE": "def to(self, device): return self"}, "TypeError"),
    "sparse gradients": (
        {
            "INIT": "self.e = nn.Embedding(4, 8, sparse=True)",
            "FORWARD": "i = torch.zeros(len(x), dtype=torch.int64, device=x.device)\n"
            "        return self.fc(self.features(x) + self.e(i))",
        },
        "build(shape, options) returns a module",
    ),
    "an attribute with a common name": ({"INIT": "self.input_size = (3, 8, 8)"}, ""),
    "a text of its own": ({"FORWARD": f"print(end=''); {FORWARD}"}, ""),
}


@pytest.mark.hostile
@pytest.mark.parametrize("case", ODD)
def test_an_odd_network_works_or_is_refused_before_the_first_epoch(case, add_network, tmp_path):
    """Either one line names its file, or it trains, is saved, loaded and predicts the same."""
    texts, problem = ODD[case]
    code = NET
    for word, text in ({"INIT": "", "FORWARD": FORWARD, "MORE": ""} | texts).items():
        code = code.replace(word, text)
    add_network(code)
    dataset = replace(DATASET, classes=tuple("abcde"))
    p = parameters(ema=0.9, optimizer="adamw", momentum=0.0, nesterov=False, clip_norm=1.0)
    if problem:
        with pytest.raises(UserError) as caught:
            inspect(p, dataset.shape, OFF)
        message = str(caught.value)
        assert problem in message and "(cifar/models/mine.py): " in message
        assert "\n" not in message and len(message) < 600
        return
    layers = inspect(p, dataset.shape, OFF)
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
    values = params.read(ROOT / "params.yaml")["train"]
    small = {"model": "vgg", "depth": 0, "width": 0, "small_epochs": 0, "batch_size": 16}
    p = Train.model_validate(values | small | {"weight_decay": 0.1, "dropout": 0.0} | changes)
    return p.model_copy(update={"model": "mine"})


@pytest.mark.hostile
def test_an_unused_layer_is_refused_for_several_processes(add_network):
    """Several processes would wait for its gradient, and fail in the second step."""
    add_network(
        NET.replace("INIT", "self.unused = nn.Linear(2, 2)")
        .replace("FORWARD", FORWARD)
        .replace("MORE", "")
    )
    p = parameters(optimizer="sgd", processes=2)
    with pytest.raises(UserError, match=r"^unused.weight has no gradient, .*mine\.py\): use it"):
        inspect(p, COLOUR, OFF)


@pytest.mark.hostile
@pytest.mark.parametrize("uses", ["'depth'", "None", "('dephts',)", "['depth']", "(['depth'],)"])
def test_uses_that_names_no_options_is_one_line(uses, add_network):
    """USES must be a tuple of options, and the message lists those that exist."""
    add_network(f"USES = {uses}\n" + network_code(f"return nn.Sequential({FLAT})"))
    with pytest.raises(UserError, match=r"^USES = .* is not a tuple .*mine\.py\): .* depth, width"):
        inspect_network("mine", COLOUR, OFF, optimizer="sgd", small_size=None)


@pytest.mark.hostile
def test_a_colour_network_on_grey_images_is_one_line(add_network):
    """A trial on the real shape finds hard-coded channels, with the line of the file."""
    add_network(network_code(f"return nn.Sequential(nn.Conv2d(3, 4, 1), {FLAT})"))
    with pytest.raises(
        UserError, match=r"^RuntimeError: .*\(N, 1, 8, 8\) floats to \(N, 3\) logits"
    ):
        inspect_network("mine", DATASET.shape, OFF, optimizer="sgd", small_size=None)


@pytest.mark.hostile
def test_a_view_of_an_image_is_one_line(add_network):
    """Many public networks flatten with view, which fails in the memory layout of training."""
    body = "nn.Conv2d(shape.channels, 4, 3, padding=1), View(), nn.Linear(256, shape.num_classes)"
    view = (
        "class View(nn.Module):\n    def forward(self, x):\n        return x.view(x.size(0), -1)\n"
    )
    add_network(
        network_code(f"return nn.Sequential({body})", f"{view}\ndef build(shape, options):")
    )
    with pytest.raises(UserError, match=r"mine\.py\): use x\.flatten\(1\) instead of x\.view"):
        inspect_network("mine", DATASET.shape, OFF, optimizer="sgd", small_size=None)


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


def test_a_network_in_the_usual_public_style_needs_one_function(add_network):
    """Classes in the style of public repositories need only a `build` function below them."""
    imports = "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n"
    function = (
        "\n\ndef build(shape, options):\n"
        "    return Net(BasicBlock, [2, 2], num_classes=shape.num_classes)\n"
    )
    add_network(imports + PUBLIC + function)
    layers = inspect_network("mine", COLOUR, OFF, optimizer="sgd", small_size=16)
    assert layers[0].kind == "Conv2d" and layers[-1].shape == (10,)


def test_a_network_that_takes_no_smaller_images_is_refused():
    """If a dense layer or the pools need the full size, one line names the parameter."""
    pooled = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(4), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    dense = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    check_small(pooled, COLOUR, 6)
    check_small(dense, COLOUR, 8)
    for net, size in ((pooled, 5), (dense, 6)):
        message = rf"not accept images of {size}x{size} pixels \(params.yaml, train.small_epochs\)"
        with pytest.raises(UserError, match=message):
            check_small(net, COLOUR, size)
