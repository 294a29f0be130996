"""Loads the training and validation images, in memory or on disk, and sets up augmentation.

Like fit.py, it reads parameters as `p.NAME` and passes them on under their names.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from cifar import UserError, tensors
from cifar.dataset import Shape, labels_fit
from cifar.params.train import Train
from cifar.training import features, loading
from cifar.training.augment import Augmentation, AugmentedImages
from cifar.training.loading import InMemory, OnDisk
from cifar.training.photo import PhotoOptions

PREPARE_PIXELS = 5000 * 32 * 32  # of training images that a network may look at before it starts


@dataclass(frozen=True)
class Arrays:
    """Images (N, H, W, C) uint8, memory-mapped, and labels (N,) int64 of both parts."""

    train_images: np.memmap
    train_labels: np.ndarray
    val_images: np.ndarray
    val_labels: np.ndarray


@dataclass(frozen=True)
class Splits:
    """Both parts on the device, or their images on disk (`train.load`)."""

    train: AugmentedImages
    val_images: Tensor
    val_labels: Tensor
    normalize: Callable[[Tensor], Tensor]
    class_counts: list[int]  # training images of each class
    sample: Tensor  # (N, C, H, W) float, training images without augmentation, on the CPU


def load_splits(
    p: Train, arrays: Arrays, shape: Shape, device: torch.device, processes: int
) -> Splits:
    """Load images and labels to where the training needs them.

    Args:
        processes: number of training processes on this machine.

    Raises:
        UserError: images and labels do not fit together.
    """
    parts = (
        (arrays.train_images, arrays.train_labels),
        (arrays.val_images, arrays.val_labels),
    )
    for part, numbers in parts:
        if not labels_fit(part, numbers, shape.num_classes):
            raise UserError(
                "images and labels do not fit (data/processed): "
                "`dvc repro --force preprocess` makes them again"
            )
    size = arrays.train_images.nbytes + arrays.val_images.nbytes
    in_memory = loading.in_memory(size, device, processes, load=p.load)
    if p.load == "auto" and not in_memory:
        print(f"note: {size / 1e9:.1f} GB of images are read from disk as needed (train.load)")
    load = partial(tensors.to_device, device=device) if in_memory else tensors.from_disk
    images = load(arrays.train_images)
    labels = tensors.to_device(arrays.train_labels, device)
    normalize = tensors.normalizer(shape.mean, shape.std, device)
    options = augmentation(p, shape.image_size)
    source = (
        InMemory(images, options) if in_memory else OnDisk(arrays.train_images, options, device)
    )
    # Spread over the whole set, because images may be sorted by class.
    stride = max(1, len(images) * shape.image_size**2 // PREPARE_PIXELS)
    return Splits(
        train=AugmentedImages(source, labels, normalize, options, num_classes=shape.num_classes),
        val_images=load(arrays.val_images),
        val_labels=tensors.to_device(arrays.val_labels, device),
        normalize=normalize,
        class_counts=np.bincount(arrays.train_labels, minlength=shape.num_classes).tolist(),
        sample=normalize(images[::stride]).cpu(),
    )


def augmentation(p: Train, image_size: int) -> Augmentation:
    """The augmentation of params.yaml for images of `image_size` pixels, height and width."""
    return Augmentation(
        shift=p.shift,
        flip=p.flip,
        cutout=p.cutout,
        small_epochs=p.small_epochs,
        small_size=small_size(p, image_size),
        photo=PhotoOptions(
            rotate=p.rotate,
            zoom=p.zoom,
            flip_vertical=p.flip_vertical,
            brightness=p.brightness,
            contrast=p.contrast,
            saturation=p.saturation,
        ),
        mixup=p.mixup,
        cutmix=p.cutmix,
    )


def trained_part(
    p: Train, net: nn.Module, splits: Splits, shape: Shape
) -> tuple[nn.Module, Splits]:
    """What to train, and on what: the network on images, or only its last layer on features."""
    options, images = splits.train.options, splits.train.images
    if not p.freeze or options.active or not isinstance(images, InMemory):
        return net, splits
    layer = features.trained_layer(net, splits.sample[:2].to(splits.train.labels.device))
    if layer is None:
        return net, splits

    def compute(images: Tensor) -> Tensor:
        return features.compute(net, layer, images, splits.normalize)

    print(f"{p.backbone} is frozen: it sees each image once, and only its last layer is trained")
    labels = splits.train.labels
    train = AugmentedImages(
        InMemory(compute(images.images), options),
        labels,
        features.flatten,
        options,
        num_classes=shape.num_classes,
    )
    val_images = compute(splits.val_images)
    return layer, replace(splits, train=train, val_images=val_images, normalize=features.flatten)


def small_size(p: Train, image_size: int) -> int:
    """Height and width in pixels of the images in the first `small_epochs` epochs."""
    return round(p.small_scale * image_size)
