"""Write the images of each split, batch by batch."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar import files
from cifar.data import normalize, split
from cifar.data.parts import NAMES, Part

Skipped = dict[str, dict[int, str]]  # {part of the source: {position of an image: reason}}


@dataclass(frozen=True)
class Split:
    """Which images are in one split."""

    part: Part  # of the source
    index: np.ndarray  # (N,) int64, sorted: positions in the part

    @property
    def labels(self) -> np.ndarray:
        return self.part.labels[self.index]

    def write_names(self, path: Path) -> None:
        """Write where each image comes from, (N,) str, in the same bytes as np.save."""
        text = self.part.names(self.index[:0]).dtype
        with files.array_writer(path, (), text) as append:
            for start in range(0, len(self.index), NAMES):
                append(self.part.names(self.index[start : start + NAMES]))

    def take(self, index: np.ndarray) -> "Split":
        return Split(self.part, self.index[index])

    def between(self, start: int, end: int) -> np.ndarray:
        """The positions of this split's images in the part, from `start` up to `end`, exclusive."""
        low, high = np.searchsorted(self.index, [start, end])
        return self.index[low:high]


@dataclass
class Images:
    """The results of a pass over all images, complete at its end."""

    histogram: np.ndarray  # (C, 256) int64, of the training split
    digests: dict[str, bytearray]  # of the images of each split, one after the other
    bad: Skipped  # why images are unreadable


@contextlib.contextmanager
def written_images(
    source: dict[str, Part], splits: dict[str, Split], image_size: int, folder: Path
) -> Iterator[Images]:
    """Write images.npy of each split.

    The files get their final names when the block ends without an error. An unreadable image is
    written as black, so the block must raise an error if a split contains one.
    """
    channels = source["train"].channels
    images = Images(
        np.zeros((channels, 256), np.int64),
        digests={name: bytearray() for name in splits},
        bad={name: {} for name in source},
    )
    shape = (image_size, image_size, channels)
    with contextlib.ExitStack() as stack:
        append = {
            name: stack.enter_context(
                files.array_writer(folder / name / "images.npy", shape, np.uint8)
            )
            for name in splits
        }
        for part_name, part in source.items():
            start = 0
            for batch, problems in part.batches(image_size):
                images.bad[part_name] |= {start + i: why for i, why in problems.items()}
                for name, s in splits.items():
                    if s.part is part:
                        index = s.between(start, start + len(batch))
                        add(images, name, batch[index - start], append[name])
                start += len(batch)
        yield images


def add(images: Images, name: str, rows: np.ndarray, append: Callable[[np.ndarray], None]) -> None:
    """Append the rows to the file of split `name`, and update `images`."""
    append(rows)
    images.digests[name] += split.digests(rows)
    if name == "train":
        images.histogram += normalize.histogram(rows)
