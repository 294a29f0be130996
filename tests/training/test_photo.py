"""Augmentation for photographs, against torchvision's own operators."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from cifar.training import photo
from cifar.training.photo import PhotoDraws, PhotoOptions


def images(count=4, height=20, width=20, channels=3):
    generator = torch.Generator().manual_seed(0)
    shape = (count, height, width, channels)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


def draws(count=4, **changes):
    """Draws that change nothing, except for the given ones."""
    values = {name: torch.ones(count) for name in ("scale", "brightness", "contrast", "saturation")}
    values |= {"angle": torch.zeros(count), "upside_down": torch.zeros(count, dtype=torch.bool)}
    return PhotoDraws(**(values | changes))


def first_channels(x):
    return x.permute(0, 3, 1, 2)


ALL = PhotoOptions(1.0, 0.1, True, 0.1, 0.1, 0.1)


def test_draws_that_change_nothing():
    """A rotation by 0, factors of 1 and no flip leave the pixels unchanged, up to rounding."""
    found = photo.apply(images(), draws(), ALL)
    assert torch.allclose(found, images().float(), atol=1e-3)


@pytest.mark.parametrize("angle", [-30.0, 10.0, 90.0])
def test_rotation(angle):
    """Away from the borders, a rotation is torchvision's with bilinear interpolation."""
    x = images(1, 32, 32)
    found = photo.apply(x, draws(1, angle=torch.tensor([angle])), PhotoOptions(rotate=90))
    expected = tv.rotate(first_channels(x).float(), angle, InterpolationMode.BILINEAR)
    inside = (slice(None), slice(None), slice(8, 24), slice(8, 24))
    assert torch.allclose(first_channels(found)[inside], expected[inside], atol=1e-2)


@pytest.mark.parametrize("scale", [0.8, 1.25])
def test_zoom(scale):
    """Away from the borders, a zoom is torchvision's affine scaling."""
    x = images(1, 32, 32)
    found = photo.apply(x, draws(1, scale=torch.tensor([scale])), PhotoOptions(zoom=0.5))
    bilinear = InterpolationMode.BILINEAR
    expected = tv.affine(first_channels(x).float(), 0.0, [0, 0], scale, [0.0], bilinear)
    inside = (slice(None), slice(None), slice(8, 24), slice(8, 24))
    assert torch.allclose(first_channels(found)[inside], expected[inside], atol=1e-2)


def test_vertical_flip():
    """Only the images that were drawn are turned upside down."""
    x = images(2)
    flips = torch.tensor([True, False])
    found = photo.apply(x, draws(2, upside_down=flips), PhotoOptions(flip_vertical=True))
    assert torch.allclose(found[0], x[0].flip(0).float(), atol=1e-3)
    assert torch.allclose(found[1], x[1].float(), atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("brightness", tv.adjust_brightness),
        ("contrast", tv.adjust_contrast),
        ("saturation", tv.adjust_saturation),
    ],
)
def test_colour(name, operator, channels):
    """Each change of colour is torchvision's operator on [0, 1]."""
    x = images(1, channels=channels)
    options = PhotoOptions(brightness=0.5, contrast=0.5, saturation=0.5)
    for value in (0.6, 1.4):
        found = photo.apply(x, draws(1, **{name: torch.tensor([value])}), options)
        expected = 255 * operator(first_channels(x).float() / 255, value)
        assert torch.allclose(first_channels(found), expected, atol=0.05)


def test_each_image_has_its_own_draw():
    """Draws differ between images, stay within the options, and repeat with the seed."""
    options = PhotoOptions(20.0, 0.2, True, 0.3, 0.4, 0.5)
    found = photo.draw(1000, options, torch.Generator().manual_seed(1))
    again = photo.draw(1000, options, torch.Generator().manual_seed(1))
    assert torch.equal(found.angle, again.angle) and len(found.angle.unique()) > 900
    assert 19 < found.angle.abs().max() <= 20
    assert found.scale.min() > 0.79 and found.scale.max() < 1.21
    assert 0.4 < found.upside_down.float().mean() < 0.6
    for name, largest in (("brightness", 0.3), ("contrast", 0.4), ("saturation", 0.5)):
        changes = (getattr(found, name) - 1).abs()
        assert 0.95 * largest < changes.max() <= largest


def test_an_option_leaves_the_others_draws():
    """The draws for one option do not depend on which others are on."""
    alone = photo.draw(10, PhotoOptions(rotate=5), torch.Generator().manual_seed(1))
    together = photo.draw(10, ALL, torch.Generator().manual_seed(1))
    assert torch.allclose(alone.angle / 5, together.angle)
    assert not alone.upside_down.any() and together.upside_down.any()
