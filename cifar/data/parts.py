"""What stage fetch left, one part at a time, its images in batches: never all of them in memory."""

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
CAMERA_RAW = (".arw", ".cr2", ".cr3", ".dng", ".nef")  # Pillow would read the preview of some
BATCH_BYTES = 1 << 25  # of decoded pixels; three batches are in memory at a time

Batch = tuple[np.ndarray, dict[int, str]]  # images, and by position in it why one is not read


class Part(Protocol):
    """The training, validation or test part of a data set."""

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64."""

    @property
    def names(self) -> np.ndarray:
        """(N,) str, where each image comes from."""

    @property
    def channels(self) -> int:
        """1 or 3."""

    def batches(self, size: int) -> Iterator[Batch]:
        """All images in order, (n, size, size, channels) uint8 at a time."""


@dataclass(frozen=True)
class ArrayPart:
    """A part whose images are an array of one size."""

    images: np.ndarray  # (N, H, W, C) uint8, a memory map
    labels: np.ndarray
    names: np.ndarray

    @property
    def channels(self) -> int:
        return self.images.shape[3]

    def batches(self, size: int) -> Iterator[Batch]:
        step = batch_length(max(size, *self.images.shape[1:3]))
        for start in range(0, len(self.images), step):
            yield pictures.resize(self.images[start : start + step], size), {}


@dataclass(frozen=True)
class PicturePart:
    """A part whose images are files in a tar."""

    path: Path
    entries: list[pack.Entry]
    labels: np.ndarray
    names: np.ndarray
    first_frame: bool
    channels: int = 3

    def batches(self, size: int) -> Iterator[Batch]:
        """The images, decoded ahead of the reader; the number of cores leaves no trace."""
        step = batch_length(size)
        with self.path.open("rb") as tar, ThreadPoolExecutor() as pool:

            def read(entry: pack.Entry) -> np.ndarray:
                if entry.name.lower().endswith(CAMERA_RAW):
                    raise ValueError("a camera's raw file: export it as JPEG")
                content = os.pread(tar.fileno(), entry.size, entry.offset)
                return pictures.decode(content, size, self.first_frame)

            ahead: deque[list[Future[np.ndarray]]] = deque()
            for start in range(0, len(self.entries), step):
                ahead.append([pool.submit(read, e) for e in self.entries[start : start + step]])
                if len(ahead) > 1:
                    yield pictures.collect(ahead.popleft(), size)
            while ahead:
                yield pictures.collect(ahead.popleft(), size)


def batch_length(size: int) -> int:
    return max(1, BATCH_BYTES // (3 * size * size))


def read_arrays(folder: Path, num_classes: int) -> dict[str, Part]:
    """The parts in train_images.npy, train_labels.npy, and test_… if any.

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
                    f"images and labels do not fit ({path}): "
                    "`dvc repro --force fetch` makes them again"
                )
            names = np.array([f"{part}/{i}" for i in range(len(images))])
            parts[part] = ArrayPart(images, labels, names)
    return parts


def read_pictures(path: Path, classes: list[str], first_frame: bool) -> dict[str, Part]:
    """The parts of a tar of <part>/<class>/<file>."""
    entries = pack.index(path)
    numbers = {name: i for i, name in enumerate(classes)}
    labels = np.array([numbers[entry.name.split("/")[1]] for entry in entries])
    names = np.array([entry.name for entry in entries])
    parts: dict[str, Part] = {}
    for part in PARTS:
        index = [i for i, entry in enumerate(entries) if entry.name.startswith(f"{part}/")]
        if index:
            chosen = [entries[i] for i in index]
            parts[part] = PicturePart(path, chosen, labels[index], names[index], first_frame)
    return parts
