"""What differs between two versions of an output."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from cifar.experiments import differences


@pytest.fixture
def describe(tmp_path):
    """The text for two contents of a file with this suffix."""

    def call(suffix, old, new):
        paths = [tmp_path / f"{name}{suffix}" for name in ("old", "new")]
        for path, content in zip(paths, (old, new), strict=True):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return differences.describe(*paths)

    return call


def weights(record=None, **tensors):
    text = json.dumps({"model": record or {}})
    return save({name: np.float32(value) for name, value in tensors.items()}, {"model": text})


def array(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def image(*reds):
    buffer = io.BytesIO()
    Image.fromarray(np.uint8([[(red, 0, 0) for red in reds]])).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        ([1, 2], [1, 2.5], "first a by up to 0.5"),
        ([[1]], [1], "first a: float32 [1], recorded float32 [1, 1]"),
        ([0.0], [-0.0], "first a: different bits"),
        ([1.0], [np.nan], "first a: different bits"),
    ],
)
def test_a_tensor(describe, a, b, text):
    """The largest difference of a tensor is shown, or its shapes, or that only bits differ."""
    assert describe(".safetensors", weights(a=a), weights(a=b)) == f"1 of 1 tensor differs, {text}"


def test_tensors_in_the_order_of_use(describe):
    """The first tensor is that of the first layer; the one that differs most is named too."""
    record = {"layers": [{"name": "z"}, {"name": "a"}]}
    tensors = {"a.weight": [1.0], "z.weight": [1.0], "0.z.bias": [1.0]}
    old = weights(record, **tensors)
    new = weights(record, **{**tensors, "a.weight": [3.0], "z.weight": [1.5]})
    text = "2 of 3 tensors differ, first z.weight by up to 0.5, most a.weight by up to 2"
    assert describe(".safetensors", old, new) == text


def test_a_tensor_of_one_side(describe):
    """A tensor that only one file has counts as a difference."""
    text = describe(".safetensors", weights(a=[1]), weights(a=[1], b=[1]))
    assert text == "1 of 2 tensors differs, first b: not recorded"


def test_the_same_tensors(describe):
    """If all tensors are equal, the records are compared."""
    old, new = weights({"epochs": [1]}, a=[1]), weights({"epochs": [2]}, a=[1])
    change = "1 of 1 value differs, first epochs: [2], recorded [1]"
    assert describe(".safetensors", old, new) == f"the same tensors; in the record, {change}"


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            '{"a": {"b": 1, "c": 0.5}}',
            '{"a": {"b": 1, "c": 0.25}}',
            "1 of 2 values differs, first a.c: 0.25, recorded 0.5 (-0.25)",
        ),
        (
            '{"a": 1}',
            '{"a": 1, "b": null}',
            "1 of 2 values differs, first b: none, recorded missing",
        ),
        (
            '{"model": "abc", "test": 0.5}',
            '{"model": "def", "test": 0.75}',
            "2 of 2 values differ, first test: 0.75, recorded 0.5 (+0.25)",
        ),
        ('{"a": 1}', '{"a":  1}', "the same values, different bytes"),
    ],
)
def test_metrics(describe, old, new, text):
    """A value is named by its keys; for floats, the difference is shown."""
    assert describe(".json", old, new) == text


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            "x,cat\ny,cat\n",
            "x,cat\ny,dog\n",
            "1 of 2 rows differs, first row 2: y,dog, recorded y,cat; "
            "1 with a different predicted class",
        ),
        ("x,cat\n", "", "0 rows of image,predicted, recorded 1 of image,predicted"),
        ("x,cat\n", '"x",cat\n', "the same rows, different bytes"),
    ],
)
def test_rows(describe, old, new, text):
    """Rows are counted, and so are changed predictions."""
    assert describe(".csv", *(f"image,predicted\n{rows}" for rows in (old, new))) == text


def test_arrays(describe):
    """An array differs by its values, or by its type or shape."""
    old, new = array([[1, 2], [3, 4]]), array([[1, 2], [5, 4]])
    text = "1 of 4 values differ, first at [1, 0]: 5, recorded 3"
    assert describe(".npy", old, new) == text
    assert describe(".npy", array([1]), array([1.0])) == "float64 [1], recorded int64 [1]"


def test_pixels(describe):
    """Pixels that differ are counted."""
    assert describe(".png", image(1, 2), image(1, 3)) == "1 of 2 pixels differ"
    assert describe(".png", image(1), image(1, 2)) == "2x1 pixels, recorded 1x1"


@pytest.mark.parametrize("suffix", [".safetensors", ".json", ".csv", ".npy", ".png", ".tar", ".md"])
def test_damage(describe, suffix):
    """A file that cannot be read in the format of its suffix is compared byte by byte."""
    assert describe(suffix, b"\x80", b"\x80\x81") == "first at byte 1; 2 bytes, recorded 1"


def test_a_list_in_place_of_metrics(describe):
    """JSON of another form than metrics have is compared as bytes."""
    assert describe(".json", b"[1]", b"[2]") == "first in line 1: [2], recorded [1]"


def test_texts(describe):
    """The first line that differs is shown."""
    assert describe(".md", "one\ntwo\n", "one\n2\n") == "first in line 2: 2, recorded two"


def test_folders(tmp_path):
    """The first file that differs is described, or the one that only one folder has."""
    for name, files in {"old": {"a": "1", "b/c": "1"}, "new": {"a": "2", "d": "1"}}.items():
        for file, content in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    folders = tmp_path / "old", tmp_path / "new"
    text = "3 of 3 files differ, first a: first in line 1: 2, recorded 1"
    assert differences.describe(*folders) == text
    (tmp_path / "new/a").write_text("1")
    assert differences.describe(*folders) == "2 of 3 files differ, first b/c: not made"
    assert differences.describe(tmp_path / "old", tmp_path / "none") == "not made"
