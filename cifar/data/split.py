"""Which images train and which are held out: stratified by class, seeded, in file order."""

from collections.abc import Iterable

import numpy as np

from cifar import UserError


def by_class(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """For each class that occurs the indices of its images, in a random order."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return [order[labels[order] == label] for label in np.unique(labels)]


def hold_out(
    labels: np.ndarray, fraction: float, seed: int, key: str
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of the (kept, held out) images; each class gives `fraction` of its images, and at least one.

    Raises:
        UserError: a class with too few images for both sides; it names `key`, the parameter of the fraction.
    """
    groups = by_class(labels, seed)
    counts = [max(1, round(fraction * len(group))) for group in groups]
    if too_few := [
        len(group) for group, count in zip(groups, counts, strict=True) if count >= len(group)
    ]:
        raise UserError(
            f"too few images: a class has {min(too_few)} and {fraction:g} of them are to be held out "
            f"(params.yaml, {key}): add images or change the fraction"
        )
    return sides(len(labels), (group[:count] for group, count in zip(groups, counts, strict=True)))


def fold(
    labels: np.ndarray, folds: int, number: int, seed: int, key: str
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of the (kept, held out) images of one fold; each image is held out in one of the `folds`.

    Raises:
        UserError: a class with fewer images than folds; it names `key`, the parameter of their number.
    """
    groups = by_class(labels, seed)
    if (smallest := min(map(len, groups))) < folds:
        raise UserError(
            f"too few images: a class has {smallest} for {folds} folds (params.yaml, {key}): fewer folds"
        )
    return sides(len(labels), (group[number::folds] for group in groups))


def sides(count: int, held: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    held_out = np.sort(np.concatenate(list(held)))
    return np.setdiff1d(np.arange(count), held_out), held_out


def per_class(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sorted indices of at most `count` images of each class, chosen at random; all of them for 0."""
    return np.sort(np.concatenate([group[: count or None] for group in by_class(labels, seed)]))


def duplicates(first: np.ndarray, second: np.ndarray) -> list[int]:
    """The indices of the images of `second` that have exactly the pixels of an image of `first`."""
    seen = {image.tobytes() for image in first}
    return [i for i, image in enumerate(second) if image.tobytes() in seen]
