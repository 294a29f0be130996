"""CIFAR's two layouts, read from bytes written by hand."""

import io
import os
import pickle
import pickletools

import numpy as np
import pytest

from cifar import UserError
from cifar.data import datasets, records

HOSTILE = pytest.mark.hostile  # one marked case per input; unmarked cases are variants
BINARY, PICKLED = datasets.CIFAR10.binary, datasets.CIFAR10.python
SHAPE = (2, 3, 3)  # height 2, width 3, three channels: 18 bytes per image, and no two sides alike
PIXELS = bytes(range(200, 218))  # red 200 to 205 row by row, green 206 to 211, blue 212 to 217
EXPECTED = [
    [[200, 206, 212], [201, 207, 213], [202, 208, 214]],
    [[203, 209, 215], [204, 210, 216], [205, 211, 217]],
]


def batch(pixels=None, labels=(7, 0), protocol=2, **other) -> bytes:
    """A pickle in the python layout, with bytes as keys, as in the official files."""
    data = np.frombuffer(PIXELS * 2, np.uint8).reshape(2, 18) if pixels is None else pixels
    return pickle.dumps({b"data": data, b"labels": list(labels), **other}, protocol)


@pytest.mark.parametrize(
    ("prefixes", "labels"), [([b"\x07", b"\x00"], [7, 0]), ([b"\x01\x63", b"\x09\x05"], [99, 5])]
)
def test_binary_records_are_label_and_channel_planes(prefixes, labels):
    """A record has label bytes, of which the last one counts, then red, green and blue planes."""
    content = b"".join(prefix + PIXELS for prefix in prefixes)
    images, found = records.read_binary(content, "x.bin", len(prefixes[0]), SHAPE)
    assert images.tolist() == [EXPECTED] * 2
    assert found.tolist() == labels
    assert images.dtype == found.dtype == np.uint8


@pytest.mark.parametrize(
    "length",
    [
        pytest.param(0, marks=HOSTILE, id="nothing"),
        pytest.param(37, marks=HOSTILE, id="cut"),
        1,
        18,
        20,
        39,
    ],
)
def test_a_binary_file_of_another_length_is_refused(length):
    """A file that is not a whole number of records is refused with its name and length."""
    with pytest.raises(
        UserError, match=rf"{length} bytes are not a whole number of 19-byte records \(x\.bin\)"
    ):
        records.read_binary(bytes(length), "x.bin", 1, SHAPE)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_python_batches_hold_the_same_planes(protocol):
    """A pickled batch in any protocol gives the same pixels and labels as the binary layout."""
    images, labels = records.read_python(batch(protocol=protocol), "x", "labels", SHAPE)
    assert images.tolist() == [EXPECTED] * 2
    assert labels.tolist() == [7, 0]
    assert images.dtype == labels.dtype == np.uint8


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_batches_of_either_numpy_are_read(module):
    """NumPy 1 and 2 use different names for their internals in a pickle; both are read."""
    content = batch(protocol=0)
    (ours,) = {
        name for name in (b"numpy.core.multiarray", b"numpy._core.multiarray") if name in content
    }
    images, _ = records.read_python(content.replace(ours, module), "x", "labels", SHAPE)
    assert images.tolist() == [EXPECTED] * 2


def test_a_python_2_pickle_is_read():
    """The official files were pickled by Python 2: byte strings, and NumPy's old names."""
    content = (
        b"\x80\x02}q\x01(U\x04data"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x12\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x24"
        + PIXELS * 2
        + b"tbU\x06labels](K\x07K\x00eU\x0blabel_names](U\x03catU\x03dogeu."
    )
    images, labels = records.read_python(content, "x", "labels", SHAPE)
    assert images.tolist() == [EXPECTED] * 2
    assert labels.tolist() == [7, 0]
    assert records.read_classes(content, "x", PICKLED) == ["cat", "dog"]


class Evil:
    """An object whose pickle contains a command."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [pytest.param(2, marks=HOSTILE), 0, 4])
@pytest.mark.parametrize("place", ["data", "labels", "elsewhere", "alone"])
def test_a_pickle_that_runs_code_does_not(place, protocol, tmp_path):
    """A command in a pickle is refused by its name before it runs, wherever it is."""
    evil = Evil(os.system, f"touch {tmp_path}/touched")
    content = pickle.dumps(
        evil if place == "alone" else {b"data": 1, b"labels": 2, place.encode(): evil}, protocol
    )
    with pytest.raises(UserError, match=r"it asks for '(posix|nt)\.system'"):
        records.read_python(content, "x", "labels", SHAPE)
    with pytest.raises(UserError, match="do not trust this file"):
        records.read_classes(content, "x", PICKLED)
    assert not (tmp_path / "touched").exists()
    pickle.loads(content)
    assert (tmp_path / "touched").exists(), "Python's own unpickler runs the command"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("builtins eval", marks=HOSTILE),
        *(
            "os system",
            "posix system",
            "builtins getattr",
            "numpy load",
            "numpy _core.multiarray.scalar",
        ),
    ],
)
def test_names_that_look_harmless_are_refused(name):
    """Only what an array needs is allowed: no built-ins, and nothing else of NumPy."""
    module, function = name.split()
    for content in (f"c{module}\n{function}\n.".encode(), pickle_stack_global(module, function)):
        with pytest.raises(UserError, match=f"it asks for '{module}.{function}'"):
            records.unpickle(content, "x")


def pickle_stack_global(module: str, name: str) -> bytes:
    return (
        b"\x80\x04"
        + b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
        + b"\x93."
    )


def test_a_refusal_is_one_line():
    """A name with line breaks cannot forge lines of the message."""
    with pytest.raises(UserError) as caught:
        records.unpickle(pickle_stack_global("os\nerror: all is well", "x"), "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Ran out of input"),
        (b"\x80\x04garbage", "not a CIFAR batch"),
        (batch()[:-1], "not a CIFAR batch"),
        pytest.param(batch()[:50], "truncated", marks=HOSTILE, id="cut"),
        pytest.param(pickle.dumps([1]), "no dictionary", marks=HOSTILE, id="a list"),
        (pickle.dumps({}), "no uint8 rows of 18 pixels under 'data'"),
        (batch(pixels=[1, 2]), "no uint8 rows"),
        pytest.param(
            batch(pixels=np.zeros((2, 18), int)), "no uint8 rows", marks=HOSTILE, id="large numbers"
        ),
        pytest.param(
            batch(pixels=np.zeros((2, 17), np.uint8)),
            "no uint8 rows",
            marks=HOSTILE,
            id="short rows",
        ),
        (batch(pixels=np.zeros((2, 18, 1), np.uint8)), "no uint8 rows"),
        (batch(pixels=np.array(1, np.uint8)), "no uint8 rows"),
        pytest.param(
            batch(labels=[1]), "1 labels for 2 images", marks=HOSTILE, id="one label for two"
        ),
        (batch(labels=[1, 2, 3]), "3 labels for 2 images"),
        (batch(pixels=np.zeros((0, 18), np.uint8), labels=[], protocol=4), "0 labels for 0 images"),
        (batch(labels=[1, 2.0]), "no list of integers under 'labels'"),
        (batch(labels=[1, True]), "no list of integers"),
        pytest.param(
            batch(labels=["a", "b"]), "no list of integers", marks=HOSTILE, id="labels of text"
        ),
        (
            pickle.dumps({b"data": np.zeros((2, 18), np.uint8), b"fine_labels": [1, 2]}, 2),
            "no list of integers",
        ),
        (batch(labels=[1, -1]), "label -1 out of range"),
        pytest.param(
            batch(labels=[1, 256]), "label 256 out of range", marks=HOSTILE, id="label 256"
        ),
    ],
)
def test_a_damaged_batch_is_reported(content, message):
    """A pickle that is truncated, or not of N images and N labels, is refused in one line."""
    with pytest.raises(UserError) as caught:
        records.read_python(content, "data_batch_1", "labels", SHAPE)
    assert message in str(caught.value)
    assert "(data_batch_1)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_cut_of_a_batch_is_reported():
    """A pickle truncated after any instruction raises a UserError and nothing else."""
    content = batch()
    for _, _, position in pickletools.genops(io.BytesIO(content)):
        with pytest.raises(UserError):
            records.read_python(content[:position], "x", "labels", SHAPE)


def test_class_names_of_either_layout():
    """Class names are read from lines, with any line ends, or from a pickled list or array."""
    lines = b"\xef\xbb\xbf airplane\r\nsea horse \n\n"
    assert records.read_classes(lines, "x.txt", BINARY) == ["airplane", "sea horse"]
    for values in ([b"cat", "dög"], np.array(["cat", "dög"])):
        content = pickle.dumps({b"label_names": values})
        assert records.read_classes(content, "x", PICKLED) == ["cat", "dög"]


@pytest.mark.parametrize("names", [None, 5, b"cat", [1, 2], {"cat": 1}])
def test_class_names_that_are_none_are_refused(names):
    """A pickle without a list of names is refused in one line."""
    content = pickle.dumps({b"label_names": names} if names else {})
    with pytest.raises(UserError, match="no list of class names under 'label_names'"):
        records.read_classes(content, "meta", PICKLED)


@HOSTILE
@pytest.mark.parametrize(
    "labels",
    [
        *(np.array([7, 0], kind) for kind in ("i8", "i4", "u1", ">i4")),
        [np.int64(7), np.int32(0)],
        [np.uint8(7), 0],
    ],
    ids=["int64", "int32", "uint8", "big-endian", "scalars", "mixed"],
)
def test_labels_of_numpy_are_read(labels):
    """Labels may be a NumPy array or a list of NumPy integers, as in some copies."""
    for protocol in (0, 2, 4, 5):
        data = np.frombuffer(PIXELS * 2, np.uint8).reshape(2, 18)
        content = pickle.dumps({"data": data, "labels": labels}, protocol)
        assert records.read_python(content, "x", "labels", SHAPE)[1].tolist() == [7, 0]


@pytest.mark.parametrize(
    "scalar", [np.float64(1), np.datetime64(1, "D"), np.str_("a"), np.array(None, object)[()]]
)
def test_other_scalars_of_numpy_are_refused(scalar):
    """A NumPy scalar that is not an integer is refused as a label."""
    with pytest.raises(UserError):
        records.read_python(batch(labels=[0, scalar]), "x", "labels", SHAPE)


@pytest.mark.parametrize(
    ("train", "test", "classes", "message"),
    [
        pytest.param(
            *([0, 1, 2], [3], ["a", "b", "c"], "label 3 but only 3 classes"),
            marks=HOSTILE,
            id="no such class",
        ),
        ([0, 255], [0], ["a", "b"], "label 255 but only 2 classes"),
        pytest.param(
            *([0, 1], [0], ["a", "a"], "classes 'a' and 'a' have the same name"),
            marks=HOSTILE,
            id="a class twice",
        ),
        pytest.param([0, 0], [0], ["a"], "1 class, 'a'", marks=HOSTILE, id="a single class"),
        ([0, 0], [0], [], "label 0 but only 0 classes"),
        pytest.param(
            *([0, 2], [1], ["a", "b", "c"], "class 'b' has no training images"),
            marks=HOSTILE,
            id="a class for testing only",
        ),
        *(
            pytest.param(
                *([0, 1], [1], ["a", f"b{unseen}c"], "invalid class name 'b"),
                marks=HOSTILE,
                id=f"a name with {unseen!a}",
            )
            for unseen in "\0\x1b\ufeff"
        ),
    ],
)
def test_labels_and_classes_fit_together(train, test, classes, message):
    """CIFAR's classes are checked like those of pictures."""
    with pytest.raises(UserError, match=message):
        records.check_labels(np.array(train), np.array(test), classes, "x")


def test_the_last_class_is_a_class():
    """The label of the last class is accepted."""
    records.check_labels(np.array([0, 1, 2]), np.array([2]), ["a", "b", "c"], "x")
