"""Read CIFAR's two record layouts, binary and python, into arrays."""

import io
import pickle
from typing import Any

import numpy as np

from cifar import UserError
from cifar.data import names
from cifar.data.datasets import Archive, Binary, Pickled
from cifar.data.names import escaped

# All that a pickle in the python layout needs, under the names of NumPy 1 and 2.
ALLOWED = {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
SCALARS = {("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")}


class ForbiddenName(pickle.UnpicklingError):
    """A pickle asks for something that could run code."""


class ArrayUnpickler(pickle.Unpickler):
    """Loads dicts, lists, strings and NumPy arrays; anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED:
            return super().find_class(module, name)
        if (module, name) in SCALARS:
            return integer
        raise ForbiddenName(f"it asks for '{escaped(f'{module}.{name}')}'")


def integer(dtype: np.dtype, content: bytes) -> int:
    """Load a pickled NumPy integer, the type of labels in some copies; refuse other scalars."""
    if dtype.kind not in "iu":
        raise pickle.UnpicklingError("a label is not an integer")
    return int(np.frombuffer(content, dtype)[0])


Records = tuple[np.ndarray, np.ndarray]  # images (N, H, W, C) and labels (N,), both uint8


def read(content: bytes, where: str, archive: Archive, shape: tuple[int, int, int]) -> Records:
    """Return the images and labels of one file of an archive, in either layout."""
    if isinstance(archive, Binary):
        return read_binary(content, where, archive.label_bytes, shape)
    assert isinstance(archive, Pickled), "the only other layout"
    return read_python(content, where, archive.labels_key, shape)


def read_binary(
    content: bytes, where: str, label_bytes: int, shape: tuple[int, int, int]
) -> Records:
    """Return the images and labels of records of `label_bytes` and channel-first pixels.

    Raises:
        UserError: the file is empty, or its length is not a multiple of the record length.
    """
    height, width, channels = shape
    record = label_bytes + height * width * channels
    if not content or len(content) % record:
        raise UserError(
            f"{len(content)} bytes are not a whole number of {record}-byte records ({where}): get "
            "a new copy"
        )
    table = np.frombuffer(content, np.uint8).reshape(-1, record)
    return channels_last(table[:, label_bytes:], shape), table[:, label_bytes - 1]


def read_python(
    content: bytes, where: str, labels_key: str, shape: tuple[int, int, int]
) -> Records:
    """Return the images and labels of a pickled batch.

    Raises:
        UserError: the pickle asks for code, or does not hold N rows of pixels and N labels.
    """
    batch = unpickle(content, where)
    pixels = batch.get("data")
    length = int(np.prod(shape))
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape[1:] != (length,)
    ):
        raise UserError(f"no uint8 rows of {length} pixels under 'data' ({where}): get a new copy")
    labels = integers(batch.get(labels_key))
    if labels is None:
        raise UserError(f"no list of integers under '{labels_key}' ({where}): get a new copy")
    if len(labels) != len(pixels) or not labels:
        raise UserError(f"{len(labels)} labels for {len(pixels)} images ({where}): get a new copy")
    if outside := [label for label in labels if not 0 <= label < 256]:
        raise UserError(f"label {outside[0]} out of range ({where}): get a new copy")
    return channels_last(pixels, shape), np.array(labels, np.uint8)


def integers(values: Any) -> list[int] | None:
    """The values of a list or a one-dimensional array of integers; None for anything else."""
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iu":
        return values.tolist()
    if isinstance(values, list) and all(type(value) is int for value in values):
        return values
    return None


def read_classes(content: bytes, where: str, archive: Archive) -> list[str]:
    """Return the class names, from the lines of a text file or from a pickle.

    Raises:
        UserError: the pickle asks for code, or does not hold a list of names.
    """
    if not isinstance(archive, Pickled):
        lines = content.decode("utf-8-sig", "replace").split("\n")
        return [line.strip() for line in lines if line.strip()]
    values = unpickle(content, where).get(archive.classes_key)
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list) or not all(isinstance(name, bytes | str) for name in values):
        raise UserError(
            f"no list of class names under '{archive.classes_key}' ({where}): get a new copy"
        )
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in values]


def check_labels(train: np.ndarray, test: np.ndarray, classes: list[str], where: str) -> None:
    """Refuse labels without a class, and classes that `names.check_classes` refuses.

    Raises:
        UserError: a label or class is refused; the message names `where`.
    """
    highest = max(train.max(), test.max())
    if highest >= len(classes):
        raise UserError(
            f"label {highest} but only {len(classes)} classes ({where}): get a new copy"
        )
    names.check_classes(classes, (), where)
    names.check_classes([classes[label] for label in np.unique(train)], classes, where)


def unpickle(content: bytes, where: str) -> dict[str, Any]:
    """Load a pickled dict, with its keys as text (in the official files, they are bytes)."""
    try:
        value = ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except ForbiddenName as error:
        raise UserError(f"not a CIFAR batch, {error} ({where}): do not trust this file") from None
    except Exception as error:  # noqa: BLE001  a damaged pickle raises almost anything
        problem = str(error).partition("\n")[0]
        raise UserError(f"not a CIFAR batch, {problem} ({where}): get a new copy") from None
    if not isinstance(value, dict):
        raise UserError(f"not a CIFAR batch, it has no dictionary ({where}): get a new copy")
    return {
        key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key): v
        for key, v in value.items()
    }


def channels_last(rows: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    height, width, channels = shape
    return np.ascontiguousarray(rows.reshape(-1, channels, height, width).transpose(0, 2, 3, 1))
