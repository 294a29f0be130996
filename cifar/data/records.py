"""CIFAR's two record layouts, binary and python, as arrays."""

import io
import pickle
from typing import Any

import numpy as np

from cifar import UserError

# All that a pickle in the python layout needs, under the names of NumPy 1 and 2.
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class ArrayUnpickler(pickle.Unpickler):
    """Loads dicts, lists, strings and NumPy arrays; a pickle that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {f'{module}.{name}'!r}")


def read(
    content: bytes, where: str, shape: tuple[int, int, int], label_bytes: int, labels_key: str
) -> tuple:
    """`read_binary` where there are label bytes, else `read_python`."""
    if label_bytes:
        return read_binary(content, where, label_bytes, shape)
    return read_python(content, where, labels_key, shape)


def read_binary(content: bytes, where: str, label_bytes: int, shape: tuple[int, int, int]) -> tuple:
    """Images (N, H, W, C) and labels (N,), both uint8, of records of `label_bytes` and channel-first pixels.

    Raises:
        UserError: the file is empty or its length is no multiple of the record length.
    """
    height, width, channels = shape
    record = label_bytes + height * width * channels
    if not content or len(content) % record:
        raise UserError(
            f"{len(content)} bytes are no whole number of {record}-byte records ({where}): get it again"
        )
    table = np.frombuffer(content, np.uint8).reshape(-1, record)
    return channels_last(table[:, label_bytes:], shape), table[:, label_bytes - 1]


def read_python(content: bytes, where: str, labels_key: str, shape: tuple[int, int, int]) -> tuple:
    """Images (N, H, W, C) and labels (N,), both uint8, of a pickled batch.

    Raises:
        UserError: the pickle asks for code, or does not hold N rows of pixels and N labels.
    """
    batch = unpickle(content, where)
    pixels, labels = batch.get("data"), batch.get(labels_key)
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape[1:] != (np.prod(shape),)
    ):
        raise UserError(
            f"no uint8 rows of {np.prod(shape)} pixels under 'data' ({where}): get it again"
        )
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise UserError(f"no list of integers under {labels_key!r} ({where}): get it again")
    if len(labels) != len(pixels) or not labels:
        raise UserError(f"{len(labels)} labels for {len(pixels)} images ({where}): get it again")
    if strange := [label for label in labels if not 0 <= label < 256]:
        raise UserError(f"label {strange[0]} out of range ({where}): get it again")
    return channels_last(pixels, shape), np.array(labels, np.uint8)


def read_classes(content: bytes, where: str, classes_key: str) -> list[str]:
    """The class names, one per line of a text file, or from a pickle where `classes_key` is given.

    Raises:
        UserError: the pickle asks for code, or does not hold a list of names.
    """
    if not classes_key:
        return [
            line.strip() for line in content.decode("utf-8", "replace").splitlines() if line.strip()
        ]
    names = unpickle(content, where).get(classes_key)
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise UserError(f"no list of class names under {classes_key!r} ({where}): get it again")
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names]


def check_labels(labels: np.ndarray, classes: list[str], where: str) -> None:
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise UserError(
            f"{len(classes)} class names, {len(set(classes))} different ({where}): get it again"
        )
    if labels.max() >= len(classes):
        raise UserError(
            f"label {labels.max()} but only {len(classes)} classes ({where}): get it again"
        )


def unpickle(content: bytes, where: str) -> dict[str, Any]:
    """A pickled dict with its keys as text (the official files have bytes keys)."""
    try:
        value = ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # noqa: BLE001  a damaged pickle raises almost anything
        problem = str(error).partition("\n")[0]
        raise UserError(f"not a CIFAR batch, {problem} ({where}): do not trust this file") from None
    if not isinstance(value, dict):
        raise UserError(f"not a CIFAR batch, no dictionary ({where}): get it again")
    return {
        key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key): v
        for key, v in value.items()
    }


def channels_last(rows: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    height, width, channels = shape
    return np.ascontiguousarray(rows.reshape(-1, channels, height, width).transpose(0, 2, 3, 1))
