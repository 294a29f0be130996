"""The constants of the normalisation, compared with NumPy's results."""

import numpy as np
import pytest

from cifar.data import normalize

IMAGES = np.random.default_rng(0).integers(0, 256, (150, 5, 4, 3), dtype=np.uint8) // np.array(
    [1, 2, 7], np.uint8
)


def statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    return normalize.statistics(normalize.histogram(images))


def constants(kind: str, images: np.ndarray) -> tuple[list[float], list[float]]:
    return normalize.constants(kind, normalize.histogram(images))


def test_statistics_are_numpys():
    """Mean and standard deviation of each channel over all pixels agree with NumPy's to 1e-12."""
    means, stds = statistics(IMAGES)
    np.testing.assert_allclose(means, (IMAGES / 255).mean((0, 1, 2)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(stds, (IMAGES / 255).std((0, 1, 2)), rtol=0, atol=1e-12)


def test_statistics_by_hand():
    """A channel half black and half white has mean 1/2 and standard deviation 1/2, exactly."""
    images = np.array([[[[0, 51, 255], [255, 153, 255]]]], np.uint8)
    assert statistics(images) == ([0.5, 0.4, 1.0], [0.5, 0.2, 0.0])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "side"), [(0, 4), (1, 1), (200, 32), (3, 300)])
def test_the_histogram_is_numpys(channels, count, side):
    """Every pixel is counted once, whether an image is small or larger than the cache."""
    shape = (count, side, side, channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    counted = [np.bincount(images[..., i].ravel(), minlength=256) for i in range(channels)]
    assert np.array_equal(normalize.histogram(images), counted)


def test_the_order_of_the_images_does_not_show():
    """The sums are exact: not a bit depends on the order of the images or on the batches."""
    assert statistics(IMAGES) == statistics(IMAGES[::-1])
    batches = [normalize.histogram(IMAGES[start : start + 7]) for start in range(0, 150, 7)]
    assert normalize.statistics(sum(batches)) == statistics(IMAGES)


@pytest.mark.parametrize("kind", ["unit", "symmetric", "center", "standardize"])
def test_the_four_kinds(kind):
    """Unit maps to [0, 1], symmetric to [-1, 1], center to mean 0, standardize to std 1 too."""
    mean, std = constants(kind, IMAGES)
    assert len(mean) == len(std) == 3
    assert all(type(value) is float for value in mean + std)
    black, white = (0 - np.array(mean)) / std, (1 - np.array(mean)) / std
    result = (IMAGES / 255 - mean) / std
    if kind in ("unit", "symmetric"):
        assert black.tolist() == [0 if kind == "unit" else -1] * 3
        assert white.tolist() == [1] * 3
    else:
        np.testing.assert_allclose(result.mean((0, 1, 2)), 0, atol=1e-12)
        spread = 1 if kind == "standardize" else (IMAGES / 255).std((0, 1, 2))
        np.testing.assert_allclose(result.std((0, 1, 2)), spread, rtol=1e-12)


def test_a_channel_of_one_value_becomes_zero():
    """A constant channel is not divided by 0: it becomes exactly 0, whatever its value."""
    for value in range(256):
        images = IMAGES.copy()
        images[..., 1] = value
        mean, std = constants("standardize", images)
        assert std[1] == 1.0
        assert (value / 255 - mean[1]) / std[1] == 0.0


def test_grey_has_one_of_each():
    """Images of one channel have one mean and one standard deviation."""
    assert constants("center", np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)) == (
        [0.5],
        [1.0],
    )
