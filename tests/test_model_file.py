"""The model file: written, read, and refused if it is damaged or of another network."""

import copy
import io
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from sample import DATASET, OPTIONS, make, record, write

from cifar import UserError, files, model_file, networks
from cifar.model import Layer, NetworkOptions

torch.set_num_threads(1)
ROOT = Path(networks.__file__).parents[1]
FOLDER = ROOT / "cifar/models"
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


def refused(path, problem):
    """Assert that the file is refused in one line that says what is wrong and where."""
    with pytest.raises(UserError) as caught:
        model_file.load(path)
    message = str(caught.value)
    assert problem in message and str(path) in message and "\n" not in message, message


def equal(net, other):
    """Whether two networks have the same bits."""
    state = other.state_dict()
    return all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_a_model_file_is_the_same_bytes_twice():
    """The same weights and record give the same file, with one metadata key."""
    first = model_file.dump(make(0), record())
    again = model_file.dump([copy.deepcopy(make(0)[0])], record())
    assert first == again
    names = set(make(0)[0].state_dict())
    pairs = {f"{i}.{name}" for i in (0, 1) for name in names}
    for nets, expected in ((make(0), names), (make(0, 1), pairs)):
        content = model_file.dump(nets, record(len(nets)))
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        assert header.keys() == {"__metadata__", *expected}
        assert list(header["__metadata__"]) == ["model"]


@pytest.mark.parametrize("count", [1, 2, 11])
def test_a_model_comes_back_from_its_file_alone(tmp_path, count):
    """Weights, running statistics and record are restored to the bit, for each network."""
    nets = make(*range(count))
    for number, net in enumerate(nets):
        net.train()(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(number)))
    write(tmp_path / "w", [net.to(memory_format=torch.channels_last) for net in nets])
    others, model = model_file.load(tmp_path / "w")
    assert all(equal(net, other) for net, other in zip(nets, others, strict=True))
    assert count == 1 or not equal(others[0], others[1])
    assert not any(net.training for net in others)
    assert model == record(count)


class Code:
    """An object whose unpickling would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


@pytest.mark.parametrize(
    "content",
    [
        b"garbage",
        b"\xff" * 100,
        "longer",
        pytest.param(b"", marks=pytest.mark.hostile, id="nothing"),
        pytest.param("cut", marks=pytest.mark.hostile),
        pytest.param("pickle", marks=pytest.mark.hostile),
    ],
)
def test_what_is_no_model_file_is_refused(tmp_path, content):
    """Garbage, a truncated or longer file, and a pickle, whose code does not run, are refused."""
    path = tmp_path / "w"
    write(path, make(0))
    whole = path.read_bytes()
    pickled = io.BytesIO()
    torch.save(Code(tmp_path / "ran"), pickled)
    contents = {"cut": whole[:-1], "longer": whole + b"\0", "pickle": pickled.getvalue()}
    path.write_bytes(contents.get(content, content))
    refused(path, "not a safetensors file")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.hostile), 3])
def test_an_ensemble_of_another_size_is_refused(tmp_path, count):
    """Weights of more or fewer networks than the record says are refused."""
    (tmp_path / "w").write_bytes(model_file.dump(make(*range(count)), record(2)))
    refused(tmp_path / "w", "weights of another network")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"width": 3}, marks=pytest.mark.hostile, id="another width"),
        {"depth": 2},
        {"batch_norm": False},
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, change):
    """If the options build another network than the trained one, one line says so."""
    write(tmp_path / "w", make(0), options=replace(OPTIONS, **change))
    refused(tmp_path / "w", "weights of another network")


@pytest.mark.hostile
@pytest.mark.parametrize("name", NAMES)
def test_a_record_cannot_make_a_huge_network(tmp_path, name, monkeypatch):
    """Weights that do not fit the record are refused before a network takes memory."""
    options = NetworkOptions(
        width=100_000 if "width" in networks.load_file(name).USES else 0,
        backbone="vit_l_16" if name == "pretrained" else None,
    )
    dataset = replace(DATASET, image_size=64)
    write(tmp_path / "w", make(0), network=name, options=options, dataset=dataset)
    build = networks.build
    devices = set()

    def watch(*arguments, **options):
        net = build(*arguments, **options)
        devices.update(parameter.device.type for parameter in net.parameters())
        return net

    monkeypatch.setattr(networks, "build", watch)
    refused(tmp_path / "w", "weights of another network")
    assert devices == {"meta"}


OF_ANOTHER = "weights of another network, the layers in its record are not those of cifar/models/"
NO_NETWORK = "its record does not fit cifar/models/"


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("network", "changes", "problem"),
    [
        ("vgg", {"layers": ()}, OF_ANOTHER),
        ("vgg", {"layers": (Layer("0", "Conv2d", (2, 8, 8), 10**7),)}, OF_ANOTHER),
        ("vgg", {"options": replace(OPTIONS, depth=1000)}, f"{NO_NETWORK}vgg.py, 1000 blocks"),
        ("vgg", {"options": replace(OPTIONS, dropout=0.9, dropout_step=0.9)}, "dropout rises"),
        ("gap", {"dataset": replace(DATASET, image_size=9)}, f"{NO_NETWORK}gap.py, images of 9x9"),
        ("gap", {"dataset": replace(DATASET, image_size=4096)}, OF_ANOTHER),
        ("pretrained", {"options": NetworkOptions(backbone="x")}, "backbone 'x' not found (/"),
    ],
)
def test_a_record_that_does_not_fit_the_network_blames_the_file(
    tmp_path, network, changes, problem, monkeypatch
):
    """The error names the model file, not params.yaml, before large images take memory."""
    shape = replace(DATASET, image_size=18).shape
    nets = make(0) if network != "gap" else [networks.build("gap", shape, NetworkOptions(), 0)]
    options = OPTIONS if network == "vgg" else NetworkOptions()
    write(tmp_path / "w", nets, **{"network": network, "options": options} | changes)
    if "4096" in str(changes):
        monkeypatch.setattr(networks, "check", None)  # it would run the network in earnest
    refused(tmp_path / "w", problem)
    with pytest.raises(UserError, match=r"^((?!params\.yaml).)*$"):
        model_file.load(tmp_path / "w")


@pytest.mark.hostile
def test_numbers_that_torch_does_not_have_are_refused(tmp_path):
    """Types of four and six bits, which the format has but torch lacks, are refused."""
    record_text = json.dumps({"model": asdict(record()), "sha256": ""})
    tensor = {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}
    header = json.dumps({"__metadata__": {"model": record_text}, "a": tensor}).encode()
    (tmp_path / "w").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(UserError, match=r"^[^\n]*\(.*/w\): [^\n]*$"):
        model_file.load(tmp_path / "w")


def test_a_mask_may_be_infinite(tmp_path):
    """A buffer, such as an attention mask, may be infinite, but not NaN."""
    (net,) = make(0)
    norm = next(layer for layer in net if hasattr(layer, "running_var"))
    norm.running_var.fill_(float("inf"))
    write(tmp_path / "w", [net])
    model_file.load(tmp_path / "w")
    norm.running_var.fill_(float("nan"))
    write(tmp_path / "w", [net])
    refused(tmp_path / "w", "weights that are not finite")


@pytest.mark.long
def test_reading_a_model_loads_no_compiler(tmp_path):
    """Loading a model does not import PyTorch's compiler, which takes seconds."""
    options = NetworkOptions(width=4)
    dataset = replace(DATASET, image_size=16)
    for name in ("fast", "resnet18"):
        nets = [networks.build(name, dataset.shape, options, seed=0)]
        layers = networks.summarize(nets[0], dataset.shape)
        write(tmp_path / name, nets, network=name, options=options, dataset=dataset, layers=layers)
        code = (
            "import sys; from pathlib import Path; from cifar import model_file; "
            f"model_file.load(Path({str(tmp_path / name)!r})); print('sympy' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )
        assert done.stdout == "False\n", done.stderr


@pytest.mark.hostile
@pytest.mark.parametrize("count", [2, 50])
def test_weights_of_other_classes_are_refused(tmp_path, count):
    """A record with more or fewer classes than the weights have outputs is refused."""
    classes = tuple(map(str, range(count)))
    write(tmp_path / "w", make(0), dataset=replace(DATASET, classes=classes))
    refused(tmp_path / "w", "weights of another network")


def test_a_network_that_is_not_here_is_named(tmp_path):
    """If the model's network has no file, the error names the file to add."""
    write(tmp_path / "w", make(0), network="of_tomorrow")
    refused(tmp_path / "w", "network of_tomorrow not found")


@pytest.mark.hostile
@pytest.mark.parametrize(
    "kind", [torch.float16, torch.int8, torch.complex64, torch.float8_e4m3fn, torch.bool]
)
def test_weights_of_another_type_are_refused(tmp_path, kind):
    """Integers or eight-bit floats in place of the network's types are refused in one line."""
    state = {name: value.to(kind) for name, value in make(0)[0].state_dict().items()}
    values = asdict(record())
    text = json.dumps({"model": values, "sha256": model_file.checksum(state, values)})
    (tmp_path / "w").write_bytes(safetensors.torch.save(state, {"model": text}))
    with pytest.raises(UserError, match=r"^weights of another network, [^\n]* is torch\."):
        model_file.load(tmp_path / "w")


@pytest.mark.hostile
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    """A NaN or infinity in the weights is refused before anything is computed."""
    (net,) = make(0)
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] = value
    write(tmp_path / "w", [net])
    refused(tmp_path / "w", "weights that are not finite")


@pytest.mark.slow
def test_a_flipped_bit_is_noticed(tmp_path):
    """If any bit of the header or the weights changes, the file is refused or means the same."""
    path = tmp_path / "w"
    (original,) = make(0)
    write(path, [original])
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    places = [*range(0, header, 3), *range(len(content) - 50, len(content))]
    noticed = 0
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            (net,), model = model_file.load(path)
        except UserError as error:
            assert "\n" not in str(error)
            noticed += 1
        else:
            assert equal(net, original) and model == record()
    assert noticed > 0.95 * len(places)


@pytest.mark.hostile
def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path):
    """If any bit of the weights changes, the checksum in the file does not match."""
    write(tmp_path / "w", make(0))
    content = (tmp_path / "w").read_bytes()
    for place in range(8 + int.from_bytes(content[:8], "little"), len(content), 997):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "w").write_bytes(damaged)
        refused(tmp_path / "w", "damaged, its checksum differs")


def test_a_changed_network_file_is_noted(tmp_path, capsys):
    """A model whose network's file has changed is used with a note, otherwise without one."""
    name = files.git_name((FOLDER / "vgg.py").read_bytes())
    provenance = record().provenance
    write(tmp_path / "w", make(0), provenance=replace(provenance, network_file=name))
    model_file.load(tmp_path / "w")
    assert capsys.readouterr().err == ""
    write(tmp_path / "w", make(0))
    model_file.load(tmp_path / "w")
    note = f"note: {tmp_path / 'w'} was trained with another version of cifar/models/vgg.py "
    assert capsys.readouterr().err == f"{note}(Git's object 000000000000)\n"
