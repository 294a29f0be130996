"""The table of data sets, and recognising the layout of a copy."""

import re

import pytest

from cifar import UserError
from cifar.data.datasets import CIFAR10, CIFAR100, DATASETS, Binary, Pickled, locate


def files(kind):
    return [*kind.train, *kind.test, kind.classes]


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
def test_the_layout_of_a_copy_is_a_type(dataset):
    """The files of either layout are found in any folder, and determine the layout."""
    for kind, type_ in ((dataset.binary, Binary), (dataset.python, Pickled)):
        layout, paths = locate(dataset, [f"some/folder/{name}" for name in files(kind)], "here")
        assert layout is kind and isinstance(layout, type_)
        assert paths == {name: f"some/folder/{name}" for name in files(kind)}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["photo.jpg"], "file data_batch_1.bin not found (here): this is not CIFAR"),
        (
            [*files(CIFAR10.binary)[:-2], "batches.meta.txt"],
            "file test_batch.bin not found (here): get a complete copy",
        ),
        pytest.param(
            files(CIFAR10.python)[:-1],
            "file batches.meta not found (here): get a",
            marks=pytest.mark.hostile,
            id="python batches without their classes",
        ),
        ([*files(CIFAR10.binary), "b/test_batch.bin"], "two files named test_batch.bin (here)"),
    ],
)
def test_a_copy_that_is_not_whole_is_one_line(paths, message):
    """A missing file, a file that exists twice, and other data have different messages."""
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        locate(CIFAR10, paths, "here")


def test_every_archive_has_a_checksum_of_its_own():
    """The four archives have different sha256 sums, and plausible sizes."""
    archives = [
        kind for dataset in (CIFAR10, CIFAR100) for kind in (dataset.binary, dataset.python)
    ]
    assert len({archive.sha256 for archive in archives}) == len(archives)
    for archive in archives:
        assert re.fullmatch("[0-9a-f]{64}", archive.sha256) and archive.size > 160_000_000
