"""The metadata of a data set, as recorded in data/processed/dataset.json.

It says nothing about the test images, so that training may depend on it.
"""

import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

MAX_SIDE = 4096  # pixels; a record that claims more is damaged
BIDI = (
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # they reorder what a terminal shows
)
STRICT: dict[str, Any] = {"extra": "forbid", "allow_inf_nan": False}  # of all records


@dataclass(frozen=True)
class Shape:
    """The number of classes, and the shape and normalisation of a network's input."""

    __pydantic_config__: ClassVar = STRICT

    num_classes: int
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def labels_fit(images: np.ndarray, labels: np.ndarray, num_classes: int) -> bool:
    """Whether these are uint8 images (N, H, W, C) with one integer label each, a valid class."""
    if images.dtype != np.uint8 or images.ndim != 4 or labels.shape != images.shape[:1]:
        return False
    if labels.dtype.kind not in "iu":
        return False
    return not len(labels) or bool(labels.min() >= 0 and labels.max() < num_classes)


@dataclass(frozen=True)
class Fetched:
    """The record that stage fetch writes to data/fetched/dataset.json.

    Attributes:
        name: the value of `fetch.dataset`.
        classes: their names, in the order of the labels.
    """

    __pydantic_config__: ClassVar = STRICT

    name: str
    classes: Annotated[tuple[str, ...], Field(min_length=2)]


@dataclass(frozen=True)
class Dataset:
    """Class names, image shape and normalisation.

    Attributes:
        name: the value of `fetch.dataset`.
        classes: their names, in the order of the labels.
        image_size: height and width in pixels.
        channels: 1 (grey levels) or 3 (red, green, blue).
        normalize: how mean and std were chosen: the value of `preprocess.normalize`.
        mean: per channel, for pixels scaled to [0, 1].
        std: per channel, for pixels scaled to [0, 1].
    """

    __pydantic_config__: ClassVar = STRICT

    name: str
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    image_size: Annotated[int, Field(ge=1, le=MAX_SIDE)]
    channels: int
    normalize: str
    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    std: tuple[Annotated[float, Field(ge=1e-9, le=1)], ...]

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("two classes have the same name")
        if not all(map(printable, self.classes)):
            raise ValueError("a class name is empty or has control characters")
        if self.channels not in (1, 3):
            raise ValueError(f"{self.channels} channels instead of 1 or 3")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean or std does not have {self.channels} values")

    @property
    def shape(self) -> Shape:
        return Shape(len(self.classes), self.channels, self.image_size, self.mean, self.std)


def printable(name: str) -> bool:
    """Whether terminals, web pages and charts can show this name unchanged."""
    bad = (
        character in BIDI or unicodedata.category(character) in ("Cc", "Cs") for character in name
    )
    return bool(name.strip()) and "\ufeff" not in name and not any(bad)
