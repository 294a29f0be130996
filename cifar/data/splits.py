"""The images of each split, written as they pass."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cifar import files
from cifar.data import normalize, split
from cifar.data.parts import Part


@dataclass(frozen=True)
class Split:
    """Which images are in one split."""

    part: Part  # of the source
    index: np.ndarray  # (N,) int64, sorted: positions in the part

    @property
    def labels(self) -> np.ndarray:
        return self.part.labels[self.index]

    @property
    def names(self) -> np.ndarray:
        return self.part.names[self.index]

    def take(self, index: np.ndarray) -> "Split":
        return Split(self.part, self.index[index])

    def between(self, start: int, end: int) -> np.ndarray:
        """Positions in the part, of this split's images among those from `start` to `end`."""
        low, high = np.searchsorted(self.index, [start, end])
        return self.index[low:high]


@dataclass
class Images:
    """What is known of the images once all have passed."""

    histogram: np.ndarray  # (C, 256) int64, of the training split
    digests: dict[str, list[bytes]]  # of each image of each split
    bad: dict[str, str] = field(default_factory=dict)  # name of an image -> why it is not read


@contextlib.contextmanager
def written_images(
    source: dict[str, Part], splits: dict[str, Split], image_size: int, folder: Path
) -> Iterator[Images]:
    """Write images.npy of each split.

    The files get their names when the block ends without an error. An image that is not read is
    black in them: the block must raise where there is one.
    """
    channels = source["train"].channels
    images = Images(np.zeros((channels, 256), np.int64), {name: [] for name in splits})
    shape = (image_size, image_size, channels)
    with contextlib.ExitStack() as stack:
        append = {
            name: stack.enter_context(
                files.array_writer(folder / name / "images.npy", shape, np.uint8)
            )
            for name in splits
        }
        for part in source.values():
            start = 0
            for batch, problems in part.batches(image_size):
                images.bad |= {str(part.names[start + i]): why for i, why in problems.items()}
                for name, s in splits.items():
                    if s.part is part:
                        index = s.between(start, start + len(batch))
                        add(images, name, batch[index - start], append[name])
                start += len(batch)
        yield images


def add(images: Images, name: str, rows: np.ndarray, append: Callable[[np.ndarray], None]) -> None:
    """Append the rows to the file of split `name`, and to what is known."""
    append(rows)
    images.digests[name] += split.digests(rows)
    if name == "train":
        images.histogram += normalize.histogram(rows)
