"""Choose which images train and which are held out: by class, seeded, in file order."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from cifar import UserError
from cifar.data.names import escaped


def by_class(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """For each class that occurs, return the indices of its images in random order."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return [order[labels[order] == label] for label in np.unique(labels)]


def hold_out(
    labels: np.ndarray, fraction: float, split_seed: int, key: str, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted (kept, held out) indices; hold out `fraction` of each class, at least 1 image.

    Raises:
        UserError: a class has too few images for both; the message names the first such class, and
            `key`, the parameter of the fraction.
    """
    groups = by_class(labels, split_seed)
    counts = [max(1, round(fraction * len(group))) for group in groups]
    for group, count in zip(groups, counts, strict=True):
        if count >= len(group):
            name = escaped(classes[labels[group[0]]])
            other = ", or change the fraction" if len(group) > 1 else ""
            raise UserError(
                f"too few images: class '{name}' has {len(group)}, of which the fraction "
                f"{fraction:g} is held out (params.yaml, {key}): add images or remove the class"
                f"{other}"
            )
    return separate(len(labels), (g[:count] for g, count in zip(groups, counts, strict=True)))


def fold(
    labels: np.ndarray, folds: int, fold: int, split_seed: int, key: str, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted (kept, held out) indices of one fold, stratified by class.

    Each image is held out in exactly one fold.

    Raises:
        UserError: a class has fewer images than folds; the message names the first such class, and
            `key`, the parameter of the folds.
    """
    groups = by_class(labels, split_seed)
    for group in groups:
        if len(group) < folds:
            name = escaped(classes[labels[group[0]]])
            other = ", or use fewer folds" if len(group) > 1 else ""
            raise UserError(
                f"too few images: class '{name}' has {len(group)} for {folds} folds (params.yaml, "
                f"{key}): add images or remove the class{other}"
            )
    return separate(len(labels), (group[fold::folds] for group in groups))


def separate(count: int, held: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    held_out = np.sort(np.concatenate(list(held)))
    return np.setdiff1d(np.arange(count), held_out), held_out


def per_class(labels: np.ndarray, per_class: int, split_seed: int) -> np.ndarray:
    """Return the sorted indices of at most `per_class` random images of each class; 0 keeps all."""
    return np.sort(
        np.concatenate([group[: per_class or None] for group in by_class(labels, split_seed)])
    )


def digests(images: np.ndarray) -> bytes:
    """Return the SHA-256 of the pixels of each image, 32 bytes an image, one after the other.

    Args:
        images: (N, H, W, C), contiguous.
    """
    return b"".join(hashlib.sha256(image).digest() for image in images)


def duplicates(known: bytes | bytearray, others: bytes | bytearray) -> np.ndarray:
    """The positions of those digests in `others` that also occur in `known`."""
    return np.flatnonzero(np.isin(np.frombuffer(others, "S32"), np.frombuffer(known, "S32")))
