"""Read the fetched data set part by part, in batches of images: never all of them in memory."""

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from cifar import UserError, files
from cifar.data import pack, pictures
from cifar.dataset import labels_fit

PARTS = ("train", "val", "test")
CAMERA_RAW = (".arw", ".cr2", ".cr3", ".dng", ".nef")  # Pillow would read only the preview of some
BATCH_BYTES = 1 << 25  # of decoded pixels; three batches are in memory at a time
BATCH_LENGTH = 4096  # images at most; small ones need as much memory for overhead as for pixels
NAMES = 1 << 14  # names decoded to text at a time; the index has bytes

Batch = tuple[np.ndarray, dict[int, str]]  # images, and {position: why an image is unreadable}


class Part(Protocol):
    """The training, validation or test part of a data set."""

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64."""

    def names(self, index: np.ndarray) -> np.ndarray:
        """(n,) str: where the images at these positions come from."""

    @property
    def channels(self) -> int:
        """1 or 3."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all images in order, in batches of (n, size, size, channels) uint8."""


@dataclass(frozen=True)
class ArrayPart:
    """A part whose images are stored as one array."""

    images: np.ndarray  # (N, H, W, C) uint8, a memory map
    labels: np.ndarray
    name: str  # of the part

    @property
    def channels(self) -> int:
        return self.images.shape[3]

    def names(self, index: np.ndarray) -> np.ndarray:
        names = [f"{self.name}/{i}" for i in index]
        return np.array(names, f"U{len(f'{self.name}/{len(self.images) - 1}')}")

    def batches(self, size: int) -> Iterator[Batch]:
        step = batch_length(max(size, *self.images.shape[1:3]))
        for start in range(0, len(self.images), step):
            yield pictures.resize(self.images[start : start + step], size), {}


@dataclass(frozen=True)
class PicturePart:
    """A part whose images are stored as picture files in shards."""

    folder: Path
    rows: np.ndarray  # (N,) rows of the index, a memory map
    labels: np.ndarray
    name_length: int  # characters of the longest name in the index
    first_frame: bool
    channels: int = 3

    def names(self, index: np.ndarray) -> np.ndarray:
        return np.strings.decode(self.rows["name"][index], "utf-8").astype(f"U{self.name_length}")

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the images, decoded one batch ahead; the number of cores does not change them."""
        step = batch_length(size)
        with contextlib.ExitStack() as stack, ThreadPoolExecutor() as pool:
            shards = {
                number: stack.enter_context((self.folder / pack.shard_name(number)).open("rb"))
                for number in range(self.rows["shard"].min(), self.rows["shard"].max() + 1)
            }

            def read(name: bytes, shard: int, offset: int, length: int) -> np.ndarray:
                if name.decode().lower().endswith(CAMERA_RAW):
                    raise ValueError("camera raw file: export it as JPEG")
                content = os.pread(shards[shard].fileno(), length, offset)
                return pictures.decode(content, size, self.first_frame)

            ahead: deque[list[Future[np.ndarray]]] = deque()
            for start in range(0, len(self.rows), step):
                rows = self.rows[start : start + step].tolist()
                ahead.append([pool.submit(read, *row) for row in rows])
                if len(ahead) > 1:
                    yield pictures.collect(ahead.popleft(), size)
            while ahead:
                yield pictures.collect(ahead.popleft(), size)


def batch_length(size: int) -> int:
    return max(1, min(BATCH_LENGTH, BATCH_BYTES // (3 * size * size)))


def read_arrays(folder: Path, num_classes: int) -> dict[str, Part]:
    """Return the parts in train_images.npy, train_labels.npy and, if they exist, test_….

    Raises:
        UserError: a part is damaged.
    """
    parts: dict[str, Part] = {}
    for part in PARTS:
        if (path := folder / f"{part}_images.npy").exists():
            images = files.read_array(path)
            labels = files.read_array(folder / f"{part}_labels.npy")
            if not labels_fit(images, labels, num_classes):
                raise UserError(
                    f"not uint8 images (N, H, W, C) with one class number each ({path}): "
                    "`dvc repro --force fetch` makes them again"
                )
            parts[part] = ArrayPart(images, labels, part)
    return parts


def read_pictures(folder: Path, classes: list[str], first_frame: bool) -> dict[str, Part]:
    """Return the parts of the pictures that `pack` wrote.

    Raises:
        UserError: their index is damaged, or a shard is missing or truncated.
    """
    rows = pack.read_index(folder)
    try:
        labels, name_length = read_names(rows["name"], classes)
    except (KeyError, UnicodeDecodeError):
        raise pack.damaged(folder / pack.INDEX) from None
    parts: dict[str, Part] = {}
    for part in PARTS:
        # sorted by name: a part is one run of rows, and "0" follows "/"
        low, high = np.searchsorted(rows["name"], [f"{part}/".encode(), f"{part}0".encode()])
        if low < high:
            parts[part] = PicturePart(
                folder, rows[low:high], labels[low:high], name_length, first_frame
            )
    return parts


def read_names(names: np.ndarray, classes: list[str]) -> tuple[np.ndarray, int]:
    """Return the labels, (N,) int64, and the length of the longest name in characters.

    Args:
        names: (N,), each <part>/<class>/<file> in UTF-8.

    Raises:
        KeyError: a name has an unknown part or class, or no file.
        UnicodeDecodeError: a name is not UTF-8.
    """
    numbers = {f"{part}/{name}": i for part in PARTS for i, name in enumerate(classes)}
    labels = np.empty(len(names), np.int64)
    length = 0
    for start in range(0, len(names), NAMES):
        decoded = np.strings.decode(names[start : start + NAMES], "utf-8")
        folder, _, file = np.strings.rpartition(decoded, "/")
        known, index = np.unique(folder, return_inverse=True)
        labels[start : start + NAMES] = np.array([numbers[name] for name in known.tolist()])[index]
        if (file == "").any():
            raise KeyError("a name without a file")
        length = max(length, decoded.dtype.itemsize // 4)
    return labels, length
