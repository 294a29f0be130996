"""Which images are held out: a fraction of each class, determined by the seed alone."""

import numpy as np
import pytest

from cifar import UserError
from cifar.data import split

LABELS = np.repeat([0, 1, 2], [20, 40, 5])[np.random.default_rng(1).permutation(65)]


def counts(index: np.ndarray) -> list[int]:
    return np.bincount(LABELS[index], minlength=3).tolist()


@pytest.mark.parametrize(
    ("fraction", "held"),
    [(0.25, [5, 10, 1]), (0.5, [10, 20, 2]), (0.001, [1, 1, 1]), (0.8, [16, 32, 4])],
)
def test_each_class_gives_its_share_and_at_least_one(fraction, held):
    """The fraction of each class is held out, rounded, at least one image; none is in both."""
    kept, held_out = split.hold_out(LABELS, fraction, 0, "key", "abc")
    assert counts(held_out) == held
    assert sorted([*kept, *held_out]) == list(range(65))


def test_a_split_is_sorted_and_seeded():
    """The same seed gives the same images in file order, and another seed gives others."""
    kept, held = split.hold_out(LABELS, 0.25, 7, "key", "abc")
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()
    assert held.tolist() == split.hold_out(LABELS, 0.25, 7, "key", "abc")[1].tolist()
    assert held.tolist() != split.hold_out(LABELS, 0.25, 8, "key", "abc")[1].tolist()
    assert held.tolist() != split.hold_out(LABELS, 0.25, 2**40, "key", "abc")[1].tolist()


def test_the_choice_is_pinned():
    """The images for a seed must never change: another choice would change every result."""
    assert split.hold_out(np.array([0, 1] * 5), 0.4, 0, "key", "abc")[1].tolist() == [3, 4, 6, 7]


def test_the_choice_is_random():
    """Over many seeds, every image is held out about equally often."""
    held = np.concatenate(
        [split.hold_out(LABELS, 0.25, seed, "key", "abc")[1] for seed in range(400)]
    )
    shares = np.bincount(held, minlength=65)[LABELS < 2] / 400
    assert shares.min() > 0.15  # 0.25 and a standard deviation of 0.022
    assert shares.max() < 0.35


@pytest.mark.parametrize(
    ("labels", "fraction", "first"),
    [
        ([0, 0, 1], 0.5, "'b' has 1"),
        ([0, 0, 1, 1], 0.9, "'a' has 2"),
        ([0] * 100 + [1] * 4, 0.95, "'b' has 4"),
        pytest.param([0, 1, 1, 2], 0.1, "'a' has 1", marks=pytest.mark.hostile),
    ],
)
def test_too_few_images_are_reported(labels, fraction, first):
    """The first class that is too small is named; the fraction is advised only if it can help."""
    with pytest.raises(
        UserError, match=rf"class {first}, of which the fraction {fraction:g} .*\.val_fraction"
    ) as caught:
        split.hold_out(np.array(labels), fraction, 0, "preprocess.val_fraction", "abc")
    assert "add images or remove the class" in str(caught.value)
    assert ("change the fraction" in str(caught.value)) == (first[-1] != "1")


def test_the_folds_hold_out_every_image_once():
    """The folds are disjoint and complete, and each class is spread evenly, up to one image."""
    folds = [split.fold(LABELS, 4, number, 0, "key", "abc") for number in range(4)]
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(65))
    for kept, held in folds:
        assert sorted([*kept, *held]) == list(range(65))
        assert (np.diff(held) > 0).all()
        assert all(
            abs(count - total / 4) < 1
            for count, total in zip(counts(held), [20, 40, 5], strict=True)
        )


def test_more_folds_than_images_are_reported():
    """A class with fewer images than folds is refused with its name and the parameter."""
    assert counts(split.fold(LABELS, 5, 0, 0, "key", "abc")[1]) == [4, 8, 1]
    with pytest.raises(
        UserError, match=r"class 'c' has 5 for 6 folds \(params\.yaml, preprocess\.folds\): add"
    ):
        split.fold(LABELS, 6, 0, 0, "preprocess.folds", "abc")


def test_some_images_of_each_class():
    """At most `per_class` images of each class are kept, sorted, by the seed; 0 keeps all."""
    assert counts(split.per_class(LABELS, 10, 0)) == [10, 10, 5]
    assert (np.diff(split.per_class(LABELS, 10, 0)) > 0).all()
    assert split.per_class(LABELS, 10, 0).tolist() != split.per_class(LABELS, 10, 1).tolist()
    assert split.per_class(LABELS, 0, 0).tolist() == list(range(65))


def test_duplicates_are_found():
    """The positions of test images with the pixels of a known image are returned, twins too."""
    images = np.random.default_rng(0).integers(0, 256, (6, 2, 2, 3), dtype=np.uint8)
    almost = images[0].copy()
    almost[1, 1, 2] ^= 1
    known = split.digests(images[:3])
    assert split.duplicates(known, split.digests(images[3:])).tolist() == []
    tested = np.stack([images[1], images[4], almost, images[1]])
    assert split.duplicates(known, split.digests(tested)).tolist() == [0, 3]
