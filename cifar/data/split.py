"""Which images train and which are held out: stratified by class, seeded, in file order."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from cifar import UserError
from cifar.data.names import escaped


def by_class(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """For each class that occurs the indices of its images, in a random order."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return [order[labels[order] == label] for label in np.unique(labels)]


def hold_out(
    labels: np.ndarray, fraction: float, split_seed: int, key: str, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of the (kept, held out) images: `fraction` of each class, and at least one.

    Raises:
        UserError: a class with too few images for both; it names the first of them, and `key`, the
            fraction's parameter.
    """
    groups = by_class(labels, split_seed)
    counts = [max(1, round(fraction * len(group))) for group in groups]
    for group, count in zip(groups, counts, strict=True):
        if count >= len(group):
            name = escaped(classes[labels[group[0]]])
            other = ", or change the fraction" if len(group) > 1 else ""
            raise UserError(
                f"too few images: a class has {len(group)} and {fraction:g} of them are to "
                f"be held out (params.yaml, {key}): add images or remove the class '{name}'{other}"
            )
    return separate(len(labels), (g[:count] for g, count in zip(groups, counts, strict=True)))


def fold(
    labels: np.ndarray, folds: int, fold: int, split_seed: int, key: str, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of the (kept, held out) images of one fold; each image is held out once.

    Raises:
        UserError: a class with fewer images than folds; it names the first of them, and `key`, the
            parameter of the folds.
    """
    groups = by_class(labels, split_seed)
    for group in groups:
        if len(group) < folds:
            name = escaped(classes[labels[group[0]]])
            other = ", or use fewer folds" if len(group) > 1 else ""
            raise UserError(
                f"too few images: a class has {len(group)} for {folds} folds (params.yaml, "
                f"{key}): add images or remove the class '{name}'{other}"
            )
    return separate(len(labels), (group[fold::folds] for group in groups))


def separate(count: int, held: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    held_out = np.sort(np.concatenate(list(held)))
    return np.setdiff1d(np.arange(count), held_out), held_out


def per_class(labels: np.ndarray, per_class: int, split_seed: int) -> np.ndarray:
    """Sorted indices of at most `per_class` images of each class, at random; all for 0."""
    return np.sort(
        np.concatenate([group[: per_class or None] for group in by_class(labels, split_seed)])
    )


def digests(images: np.ndarray) -> bytes:
    """A hash of the pixels of each image, 32 bytes; it is another one for other pixels.

    Args:
        images: (N, H, W, C), contiguous.
    """
    return b"".join(hashlib.sha256(image).digest() for image in images)


def duplicates(known: bytes | bytearray, others: bytes | bytearray) -> np.ndarray:
    """The positions in `others` of the digests that are among `known`."""
    return np.flatnonzero(np.isin(np.frombuffer(others, "S32"), np.frombuffer(known, "S32")))
