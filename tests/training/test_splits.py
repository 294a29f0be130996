"""The images of a training: their size in each epoch, and labels that do not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sample import DATASET

from cifar import UserError, params
from cifar.params.train import Train
from cifar.training.distributed import World
from cifar.training.splits import Arrays, load_splits, small_size

VALUES = params.read(Path(__file__).parents[2] / "params.yaml")["train"] | {
    "epochs": 3,
    "small_epochs": 0,
}
CPU = torch.device("cpu")


def part(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    return images, np.arange(count) % 3


@pytest.mark.parametrize(("scale", "side", "pixels"), [(0.75, 32, 24), (0.5, 9, 4), (0.99, 8, 8)])
def test_the_smaller_side_is_rounded(scale, side, pixels):
    """The side of the smaller images is the nearest whole number of pixels."""
    p = Train.model_validate(VALUES | {"small_scale": scale})
    assert small_size(p, side) == pixels


@pytest.mark.parametrize("small_epochs", [0, 1, 2, 3])
def test_small_epochs_is_a_number_of_epochs(small_epochs):
    """The first `small_epochs` epochs show smaller images."""
    p = Train.model_validate(VALUES | {"small_epochs": small_epochs})
    splits = load_splits(p, Arrays(*part(24), *part(12)), DATASET.shape, CPU, processes=1)
    sides = []
    for epoch in (1, 2, 3):
        batches = splits.train.epoch(epoch, 0, [torch.arange(4)], World().part)
        sides.append(next(iter(batches))[0].shape[2])
    assert sides == [6] * small_epochs + [8] * (3 - small_epochs)


@pytest.mark.hostile
@pytest.mark.parametrize(
    "labels", [np.arange(23) % 3, np.full(24, 3), np.full(24, -1), np.zeros((24, 1), int)]
)
def test_labels_that_do_not_fit_are_one_line(labels):
    """A label is missing, is not a class, or labels are a table."""
    images, _ = part(24)
    arrays = Arrays(images, labels, *part(12))
    p = Train.model_validate(VALUES)
    with pytest.raises(UserError, match=r"^images and labels do not fit \(data/processed\): `dvc"):
        load_splits(p, arrays, DATASET.shape, CPU, processes=1)
