"""The record in a model file: every field is checked, whoever wrote the file."""

import json
from dataclasses import asdict, fields

import pytest
import safetensors.torch
from sample import DATASET, OPTIONS, make, record, write

from cifar import UserError, model, model_file


def forged(path, *keys, value):
    """Write a model file with a valid checksum and another value under these keys of its record."""
    state = make(0)[0].state_dict()
    values = json.loads(json.dumps(asdict(record())))
    inner = values
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    total = model_file.checksum(state, values)
    text = json.dumps({"model": values, "sha256": total})
    path.write_bytes(safetensors.torch.save(state, {"model": text}))


def refused(path, problem):
    """Assert that the file is refused in one line that says what is wrong and where."""
    with pytest.raises(UserError) as caught:
        model.read(path)
    message = str(caught.value)
    assert problem in message and str(path) in message, message
    assert "\n" not in message and "\x1b" not in message and len(message) < 500


def test_the_record_comes_back_without_the_weights(tmp_path):
    """The record that `dump` wrote is read back without loading the weights."""
    write(tmp_path / "w", make(0, 1))
    assert model.read(tmp_path / "w") == record(2)


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["dataset", "channels"], 2),
        (["dataset", "classes"], ["a", "b"]),
        (["dataset", "classes"], ["a", "b", "\x1b]0;x\x07"]),
        (["dataset", "image_size"], 10**7),
        (["dataset", "mean"], []),
        (["dataset", "mean"], None),
        (["dataset"], {"classes": 5}),
        (["options", "width"], -1),
        (["options", "dropout"], 1.0),
        (["options", "another"], 1),
        (["network"], "../../etc/passwd"),
        (["network"], "os.path"),
        (["ensemble"], 0),
        (["ensemble"], 1000),
        (["epochs"], []),
        (["epochs"], [1, 2]),
        (["epochs"], [0]),
        (["temperature"], 0),
        (["temperature"], None),
        (["temperature"], 1e9),
        (["layers"], "none"),
        (["layers", 0, "parameters"], -1),
        (["provenance"], {}),
        (["provenance", "threads"], "many"),
        (["provenance", "threads"], 0),
        (["provenance", "parameters"], {}),
        (["provenance", "parameters"], {"train": 5}),
        (["provenance", "parameters", "seed"], None),
        (["provenance", "parameters", "train"], []),
        (["provenance", "parameters", "train", "model"], {"a": 1}),
        (["network"], "x" * 10**5),
        (["options", "\x1b" * 10**5], 1),
        (["epochs"], [10**7]),
        (["more"], 1),
        (["dataset", "name"], "pets\x1b[2J"),
        (["options", "backbone"], "\x9b31m"),
        (["layers", 0, "kind"], "Conv\n2d"),
        (["provenance", "network_file"], "\x1b]0;x\x07"),
        (["provenance", "versions"], {"\x1b[31m": "1"}),
        (["provenance", "parameters", "train"], {"a": "\x07"}),
    ],
)
def test_a_wrong_record_with_a_right_checksum_is_one_line(tmp_path, keys, value):
    """A file with an impossible record is refused by reading and by loading."""
    path = tmp_path / "w"
    forged(path, *keys, value=value)
    if (keys, value) == (["dataset", "classes"], ["a", "b"]):  # valid, but not of these weights
        model.read(path)
    else:
        refused(path, "not a readable model record")
    with pytest.raises(UserError, match=r"^[^\n]*$"):
        model_file.load(path)


@pytest.mark.parametrize("name", [field.name for field in fields(model.Model)])
def test_each_field_is_needed(tmp_path, name):
    """A record that lacks a field is refused."""
    path = tmp_path / "w"
    values = json.loads(json.dumps(asdict(record())))
    del values[name]
    text = json.dumps({"model": values, "sha256": ""})
    path.write_bytes(safetensors.torch.save(make(0)[0].state_dict(), {"model": text}))
    refused(path, "without a record" if name == "format" else f"record, {name}: ")


@pytest.mark.parametrize("number", [1, 3, "2", None])
def test_another_format_is_refused(tmp_path, number):
    """A record of an older or newer format is refused; the error gives both numbers."""
    forged(tmp_path / "w", "format", value=number)
    refused(tmp_path / "w", f"format {number!r} instead of 2")


def test_a_file_of_version_0_1_is_refused(tmp_path):
    """Version 0.1 kept its record under another key; the error names the version."""
    text = json.dumps({"model": "vgg", "sha256": ""})
    content = safetensors.torch.save(make(0)[0].state_dict(), {"description": text})
    (tmp_path / "w").write_bytes(content)
    refused(tmp_path / "w", "written by version 0.1 of this repository")


@pytest.mark.parametrize(
    "metadata", [None, {"author": "me"}, *({"model": text} for text in ("[]", "{}", "1", "{"))]
)
def test_weights_without_a_record_are_refused(tmp_path, metadata):
    """A safetensors file without a record, or with an invalid one, is refused in one line."""
    path = tmp_path / "w"
    path.write_bytes(safetensors.torch.save(make(0)[0].state_dict(), metadata))
    refused(path, "weights without a record")


def test_an_absent_file_says_how_to_get_it(tmp_path):
    """Without a file the error names the commands that make or fetch it."""
    refused(tmp_path / "w", "model file not found")


def test_the_number_of_parameters_counts_each_tensor_once():
    """The number of parameters is the sum over the layers of one network of an ensemble."""
    (net,) = make(0)
    assert record(2).parameters == sum(p.numel() for p in net.parameters())


def test_the_records_are_frozen():
    """A checked record cannot be changed."""
    for part, name in ((record(), "network"), (DATASET, "classes"), (OPTIONS, "depth")):
        with pytest.raises(AttributeError):
            setattr(part, name, None)
