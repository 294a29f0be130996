"""Augmentation: what is drawn, and what given draws do to an image."""

import numpy as np
import pytest
import torch
from PIL import Image

from cifar import files
from cifar.training import augment, photo, seeds
from cifar.training.augment import Augmentation
from cifar.training.loading import InMemory, OnDisk
from cifar.training.photo import PhotoOptions


def images(count, height, width, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(
        256, (count, height, width, channels), dtype=torch.uint8, generator=generator
    )


def draw(count, shift=2, flip="random", epoch=1, seed=0):
    first, now = seeds.generator(seed, "flip"), seeds.generator(seed, "augmentation", epoch)
    return augment.draw(count, shift, flip, epoch, first, now)


def given(top, left, mirror, hole=(0.0, 0.0)):
    """The draws of one image."""
    return augment.Draws(
        torch.tensor([top]), torch.tensor([left]), torch.tensor([mirror]), torch.tensor([hole])
    )


def values(draws):
    return [draws.top, draws.left, draws.mirror, draws.hole]


def equal(one, other):
    return [torch.equal(a, b) for a, b in zip(values(one), values(other), strict=True)]


def test_every_offset_occurs_equally_often():
    """Every pair of offsets from 0 to twice the shift, inclusive, occurs equally often."""
    draws = draw(50_000, shift=2)
    counts = torch.bincount(draws.top * 5 + draws.left, minlength=25)
    assert len(counts) == 25
    assert all(
        1800 < count < 2200 for count in counts
    )  # 2000 each, give or take 4.5 standard deviations
    assert 24_500 < draws.mirror.sum() < 25_500
    assert 0 <= draws.hole.min() < 0.001 < 0.999 < draws.hole.max() < 1


def test_draws_repeat_and_differ():
    """The same seed and epoch give the same draws; another seed or epoch changes all of them."""
    assert all(equal(draw(100), draw(100)))
    assert not any(equal(draw(100), draw(100, epoch=2)))
    assert not any(equal(draw(100), draw(100, seed=1)))


def test_switching_something_off_draws_the_same():
    """The offsets do not depend on flips, nor the flips on the shift."""
    assert equal(draw(100), draw(100, flip="none")) == [True, True, False, True]
    assert torch.equal(draw(100, shift=0).mirror, draw(100, shift=4).mirror)


def test_alternating_flips_show_both_sides():
    """Each image is mirrored in exactly one of two epochs, about half of them in the first."""
    first, second, third = (
        draw(1000, flip="alternating", epoch=epoch).mirror for epoch in (1, 2, 3)
    )
    assert torch.equal(first, ~second)
    assert torch.equal(first, third)
    assert 430 < first.sum() < 570


def test_no_flips_mirror_nothing():
    """Without flips no image is mirrored."""
    assert not draw(1000, flip="none").mirror.any()


def test_reflected_borders():
    """Padding by two reflects a row 1 2 3 4 to 3 2 1 2 3 4 3 2, in both directions, for every
    channel."""
    row = torch.tensor([1, 2, 3, 4], dtype=torch.uint8)
    image = (row[:, None] * 10 + row)[None, :, :, None].repeat(1, 1, 1, 2)
    reflected = torch.tensor([3, 2, 1, 2, 3, 4, 3, 2], dtype=torch.uint8)
    expected = (reflected[:, None] * 10 + reflected)[None, :, :, None].repeat(1, 1, 1, 2)
    padded = augment.pad(image, 2)
    assert torch.equal(padded, expected)
    assert padded.dtype == torch.uint8


def test_small_images_repeat_their_border():
    """An image that is no larger than the shift repeats its border pixels: 1 2 becomes 1 1 1 2 2
    2."""
    image = torch.tensor([1, 2], dtype=torch.uint8)[None, None, :, None].repeat(1, 2, 1, 1)
    expected = torch.tensor([1, 1, 1, 2, 2, 2], dtype=torch.uint8)[None, None, :, None].repeat(
        1, 6, 1, 1
    )
    assert torch.equal(augment.pad(image, 2), expected)


def test_padding_in_parts_keeps_every_image():
    """A set larger than one part is padded image by image, in order."""
    many = images(4100, 3, 3, 1)
    padded = augment.pad(many, 1)
    assert torch.equal(padded[:, 1:-1, 1:-1], many)
    assert torch.equal(padded[4097:], augment.pad(many[4097:], 1))


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (4, 4), (1, 3), (4, 0)])
def test_a_crop_is_the_slice_of_the_padded_image(top, left, mirror):
    """A crop is the slice at the image's offsets, mirrored as drawn, for any aspect and any part of
    a set."""
    padded = augment.pad(images(6, 5, 7), 2)[1:]
    cropped = augment.apply(padded, torch.tensor([3]), given(top, left, mirror), 2)
    expected = padded[3, top : top + 5, left : left + 7]
    assert torch.equal(cropped[0], expected.flip(1) if mirror else expected)


def test_each_image_has_its_own_offsets():
    """Every image of a batch is cropped and mirrored by its own draws, in the batch's order."""
    shift, whole = 2, images(50, 6, 6)
    padded, draws, index = (
        augment.pad(whole, shift),
        draw(50, shift),
        torch.tensor([7, 3, 3, 49, 0]),
    )
    batch = augment.apply(padded, index, draws.take(index), shift)
    for image, i in zip(batch, index, strict=True):
        alone = augment.apply(padded, i[None], draws.take(i[None]), shift)
        assert torch.equal(image, alone[0])


def test_a_flip_alone_mirrors_exactly():
    """Without a shift, a mirrored image is the image from right to left."""
    whole = images(4, 5, 6)
    flipped = augment.apply(whole, torch.arange(4), draw(4, shift=0, flip="none"), 0)
    assert torch.equal(flipped, whole)
    mirror = augment.Draws(
        *values(draw(4, shift=0))[:2], torch.tensor([True, False, True, False]), torch.zeros(4, 2)
    )
    flipped = augment.apply(whole, torch.arange(4), mirror, 0)
    assert torch.equal(flipped[0], whole[0][:, torch.tensor([5, 4, 3, 2, 1, 0])])
    assert torch.equal(flipped[1], whole[1])


def test_everything_off_leaves_images_untouched():
    """Without shift, flip and hole, images do not change."""
    whole, draws = images(9, 4, 4), draw(9, shift=0, flip="none")
    same = augment.apply(augment.pad(whole, 0), torch.arange(9), draws, 0)
    assert torch.equal(same, whole)
    x = same.permute(0, 3, 1, 2).float()
    assert augment.cut_out(x, draws, 0) is x


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("row", range(6))
@pytest.mark.parametrize("column", [0, 3, 7])
def test_a_hole_covers_its_square(size, row, column):
    """A hole of side s around a centre c covers c - s // 2 and the s - 1 pixels after it, and ends
    at the border."""
    x = torch.ones(1, 2, 6, 8)
    holed = augment.cut_out(x, given(0, 0, False, (row / 6 + 0.05, column / 8 + 0.05)), size)
    expected = torch.ones(6, 8)
    top, left = row - size // 2, column - size // 2
    expected[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
    assert torch.equal(holed[0], expected.expand(2, 6, 8))
    assert (holed == 0).any()
    assert x.all()


def test_each_image_has_its_own_hole():
    """Each hole lies where its image's draw puts it, and many holes reach every pixel."""
    draws = draw(2000)
    covered = augment.cut_out(torch.ones(2000, 1, 8, 8), draws, 3) == 0
    centres = (draws.hole * 8).long()
    assert covered[torch.arange(2000), 0, centres[:, 0], centres[:, 1]].all()
    assert covered.any(0).all()
    assert covered.sum((1, 2, 3)).unique().tolist() == [4, 6, 9]  # at a corner, at an edge, inside


def test_a_hole_as_large_as_the_image_from_its_middle_leaves_nothing():
    """A hole of twice the image's side covers all of it wherever its centre is."""
    assert not augment.cut_out(torch.ones(50, 1, 5, 5), draw(50), 10).any()


@pytest.mark.parametrize("side", [24, 16, 7])
def test_smaller_images_are_those_of_pillow(side):
    """Each pixel is the weighted mean of those that it covers, as with Pillow's bilinear filter."""
    originals = images(5, 32, 32)
    smaller = augment.resize(originals, side)
    assert smaller.dtype == torch.uint8 and smaller.is_contiguous()
    for one, original in zip(smaller, originals, strict=True):
        pillow = Image.fromarray(original.numpy()).resize((side, side), Image.Resampling.BILINEAR)
        assert np.abs(one.numpy().astype(int) - np.asarray(pillow)).max() <= 1
    assert torch.equal(
        augment.resize(torch.full((1, 9, 9, 1), 77, dtype=torch.uint8), 5).unique(),
        torch.tensor([77]),
    )


@pytest.mark.parametrize("on_disk", [False, True])
def test_an_epoch_shows_each_image_by_its_own_draw(on_disk, tmp_path):
    """The first epochs show smaller images; each is cropped, mirrored and cut out as drawn."""
    originals, labels = images(11, 8, 8), torch.arange(11)
    options = Augmentation(shift=1, flip="random", cutout=3, small_epochs=2, small_size=6)
    source = InMemory(originals, options)
    if on_disk:
        np.save(tmp_path / "images.npy", originals.numpy())
        source = OnDisk(files.read_array(tmp_path / "images.npy"), options, torch.device("cpu"))
    shown = make(source, labels, options)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(1))
    for epoch, of in (
        (1, augment.resize(originals, 6)),
        (2, augment.resize(originals, 6)),
        (3, originals),
    ):
        batches = list(shown.epoch(epoch, 0, order.split(4), lambda batch: batch))
        assert torch.equal(torch.cat([labels for _, labels, _ in batches]), order)
        assert [count for *_, count in batches] == [4, 4, 3]
        own = draw(11, 1, "random", epoch).take(order)
        expected = augment.apply(augment.pad(of, 1), order, own, 1).float().permute(0, 3, 1, 2)
        assert torch.equal(torch.cat([x for x, *_ in batches]), augment.cut_out(expected, own, 3))


def make(source, labels, options):
    return augment.AugmentedImages(
        source, labels, lambda x: x.float().permute(0, 3, 1, 2), options, num_classes=11
    )


def test_an_epoch_changes_each_image_as_drawn():
    """Rotation and colours depend on seed, epoch and image, but not on the batches."""
    originals, labels = images(6, 8, 8), torch.arange(6)
    options = Augmentation(photo=PhotoOptions(rotate=30.0, brightness=0.5))
    shown = make(InMemory(originals, options), labels, options)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    found = [
        torch.cat([x for x, *_ in shown.epoch(3, 7, order.split(n), lambda part: part)])
        for n in (6, 2)
    ]
    draws = photo.draw(6, options.photo, seeds.generator(7, "photo", 3))
    expected = photo.apply(originals[order], draws.take(order, order.device), options.photo)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], expected.permute(0, 3, 1, 2))
    (other,) = (x for x, *_ in shown.epoch(4, 7, [order], lambda part: part))
    assert not torch.equal(other, found[0])


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_an_epoch_mixes_images_and_labels_alike(mixing):
    """The probabilities of a mixed image are the fractions of the two images in it."""
    originals = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1).expand(6, 8, 8, 1).clone()
    options = Augmentation(**{mixing: 1.0})
    shown = make(InMemory(originals, options), torch.arange(6), options)
    (batch,) = shown.epoch(1, 0, [torch.arange(6)], lambda index: index)
    x, targets, _ = batch
    assert torch.allclose(targets.sum(1), torch.ones(6))
    assert torch.allclose(x.mean((1, 2, 3)), targets @ torch.arange(11.0), atol=1e-4)
    assert ((targets > 0).sum(1) == 2).any()
