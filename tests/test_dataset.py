"""The record of the data: its values are checked when it is read."""

import json
from dataclasses import asdict

import pytest
from sample import DATASET

from cifar import UserError, files
from cifar.dataset import Dataset, Shape, printable


def test_the_record_comes_back(tmp_path):
    """A record that was written is read back unchanged."""
    files.write_record(tmp_path / "dataset.json", DATASET)
    assert files.read_record(tmp_path / "dataset.json", Dataset) == DATASET


def test_the_shape_is_what_a_network_needs():
    """The shape has the number of classes, the image's shape and the normalisation."""
    assert DATASET.shape == Shape(3, 1, 8, DATASET.mean, DATASET.std)


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("channels", 2),
        ("channels", "1"),
        ("channels", True),
        ("classes", ["a"]),
        ("classes", []),
        ("classes", 5),
        ("classes", ["a", "b", "a"]),
        ("classes", ["a", "b", "\x1b[2Jc"]),
        ("classes", ["a", "b", " "]),
        ("image_size", 0),
        ("image_size", -3),
        ("image_size", "16"),
        ("image_size", 10**7),
        ("mean", []),
        ("mean", None),
        ("mean", [0.5, 0.5]),
        ("std", [0.0]),
        ("std", [-1.0]),
        ("std", [float("nan")]),
        ("more", 1),
    ],
)
def test_a_wrong_value_is_one_line(tmp_path, key, value):
    """An invalid value is refused in one line that names the file."""
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(asdict(DATASET) | {key: value}))
    with pytest.raises(UserError) as caught:
        files.read_record(path, Dataset)
    message = str(caught.value)
    assert message.startswith("not a readable dataset record, ")
    assert str(path) in message and "\n" not in message and "\x1b" not in message


@pytest.mark.parametrize("key", list(asdict(DATASET)))
def test_a_missing_value_is_one_line(tmp_path, key):
    """A record that lacks a key is refused."""
    values = asdict(DATASET)
    del values[key]
    (tmp_path / "dataset.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=rf"record, {key}: "):
        files.read_record(tmp_path / "dataset.json", Dataset)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null"])
def test_what_is_no_record_is_one_line(tmp_path, text):
    """An empty or truncated file, or other JSON, is refused in one line that names the file."""
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(UserError, match=r"^not a readable dataset record, .*dataset\.json"):
        files.read_record(tmp_path / "dataset.json", Dataset)


@pytest.mark.parametrize("name", ["cat", "Katze, groß", "猫", "a b", "👍", "é"])
def test_names_of_all_scripts_are_printable(name):
    """Letters of any script, spaces and symbols are printable."""
    assert printable(name)


BAD_NAMES = ["", " ", "a\0", "a\nb", "\x1b[1m", "\u202eabc", "\ufeffa", "\x85"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_a_terminal_cannot_show_are_not(name):
    """Empty names, control characters, bidirectional marks and byte-order marks are refused."""
    assert not printable(name)
