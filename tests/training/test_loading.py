"""Where images are kept while a network learns."""

import numpy as np
import pytest
import torch

from cifar import files, hardware
from cifar.training import loading
from cifar.training.augment import Augmentation
from cifar.training.distributed import World
from cifar.training.loading import InMemory, OnDisk

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("load", "size", "processes", "expected"),
    [
        ("auto", 250, 1, True),
        ("auto", 251, 1, False),
        ("auto", 125, 2, True),
        ("auto", 126, 2, False),
        ("memory", 10**9, 1, True),
        ("disk", 1, 1, False),
    ],
)
def test_auto_keeps_what_fits_four_times(monkeypatch, load, size, processes, expected):
    """auto compares with the device's total memory; memory and disk are obeyed for any size."""
    monkeypatch.setattr(hardware, "total_memory", lambda device: 1000)
    assert loading.in_memory(size, CPU, processes, load=load) == expected


@pytest.mark.parametrize("small", [False, True])
def test_each_process_reads_its_part_alone(tmp_path, small):
    """Images from disk equal those in memory, and only this process's are read."""
    images = torch.randint(256, (10, 8, 8, 3), dtype=torch.uint8)
    np.save(tmp_path / "images.npy", images.numpy())
    options = Augmentation(shift=2, small_epochs=1, small_size=6)
    on_disk = OnDisk(files.read_array(tmp_path / "images.npy"), options, CPU)
    read = on_disk.read
    seen = []
    on_disk.read = lambda index: seen.append(index) or read(index)
    parts = [World(rank=1, size=2).part(batch) for batch in torch.randperm(10).split(4)]
    kept = InMemory(images, options)
    pairs = zip(kept.batches(parts, small), on_disk.batches(parts, small), strict=True)
    for (all_images, index), (batch, rows) in pairs:
        assert torch.equal(batch[rows], all_images[index])
    assert sorted(torch.cat(seen).tolist()) == sorted(torch.cat(parts).tolist())
