"""Conversion of arrays on disk to network inputs."""

import warnings

import numpy as np
import pytest
import torch

from cifar import tensors

CPU = torch.device("cpu")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_normalizer_is_the_formula(channels):
    """Each of the 256 values becomes (x / 255 - mean) / std to float precision."""
    mean, std = [0.4914, 0.1, 0.9][:channels], [0.2470, 1.0, 0.01][:channels]
    images = torch.arange(256, dtype=torch.uint8).reshape(4, 8, 8, 1).repeat(1, 1, 1, channels)
    x = tensors.normalizer(mean, std, CPU)(images)
    expected = (images.double() / 255 - torch.tensor(mean).double()) / torch.tensor(std).double()
    assert x.dtype == torch.float32
    assert torch.allclose(x.double(), expected.permute(0, 3, 1, 2), atol=1e-5)


def test_the_input_is_channels_last_in_memory():
    """(N, H, W, C) pixels become (N, C, H, W) in channels-last memory; the input is unchanged."""
    images = torch.randint(256, (5, 6, 7, 3), dtype=torch.uint8)
    before = images.clone()
    x = tensors.normalizer([0.5] * 3, [0.5] * 3, CPU)(images)
    assert x.shape == (5, 3, 6, 7)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_a_tensor_is_a_copy(tmp_path):
    """A memory-mapped array becomes a tensor with a copy of its values, of the same type."""
    np.save(tmp_path / "a.npy", np.arange(12, dtype=np.uint8).reshape(3, 4))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="c")
    tensor = tensors.to_device(mapped, CPU)
    assert tensor.dtype == torch.uint8
    assert tensor.tolist() == mapped.tolist()
    tensor.zero_()
    assert mapped[2, 3] == 11


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_the_caller_keeps_the_images(dtype):
    """The normalizer does not modify its input, whatever the type."""
    images = torch.arange(12).reshape(1, 2, 2, 3).to(dtype)
    before = images.clone()
    tensors.normalizer([0.5] * 3, [0.5] * 3, CPU)(images)
    assert torch.equal(images, before)


def test_an_array_on_disk_is_not_copied(tmp_path):
    """Read-only images on disk are not copied, and cause no warning."""
    np.save(tmp_path / "a.npy", np.arange(12, dtype=np.uint8).reshape(3, 4))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = tensors.from_disk(mapped)
    assert tensor.tolist() == mapped.tolist()
    assert tensor.data_ptr() == mapped.ctypes.data
