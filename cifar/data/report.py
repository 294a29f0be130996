"""What preprocess says of the data to a person: data/processed/report.json.

It is apart from dataset.json, because training must not depend on it: it knows the test images.
"""

from dataclasses import dataclass
from typing import ClassVar

from cifar.dataset import STRICT


@dataclass(frozen=True)
class Counts:
    """Images of each class, in the order of the labels, in each split."""

    __pydantic_config__: ClassVar = STRICT

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """The images of the splits, and what was noticed about them.

    Attributes:
        in_test_and_training: number of test images that are also among the training images.
        skipped: the name of each picture that was left out, and the reason.
    """

    __pydantic_config__: ClassVar = STRICT

    counts: Counts
    in_test_and_training: int
    skipped: dict[str, str]
