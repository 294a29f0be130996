"""Pictures made of small images: samples, mistakes, filters. Pixels stay squares, however large they are drawn."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def samples(images: np.ndarray, labels: np.ndarray, classes: Sequence[str], columns: int) -> Figure:
    """The first training images of each class, one row a class; beyond 25 classes in several blocks of rows."""
    rows = min(25, len(classes))
    blocks = -(-len(classes) // rows)
    size = max(3.2, blocks * (0.62 * columns + 1.3)), 0.62 * rows + 0.4
    figure, axes = plt.subplots(1, blocks, figsize=size, squeeze=False)
    for block, axis in enumerate(axes[0]):
        names = list(classes[block * rows : (block + 1) * rows])
        strips = np.full((rows, columns, *images.shape[1:]), 255, np.uint8)
        for row in range(len(names)):
            chosen = np.flatnonzero(labels == block * rows + row)[:columns]
            strips[row, : len(chosen)] = images[chosen]
        middles = show_grid(axis, strips, white=255)
        axis.set_yticks(middles[: len(names)], names)
    figure.suptitle("Training images of each class", x=0.01, ha="left")
    return figure


def mistakes(images: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """Images with two-line captions, in rows of six."""
    columns = 6
    rows = max(1, -(-len(images) // columns))
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.5 * columns, 1.9 * rows + 0.4), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        show_image(axis, image)
        axis.set_title(caption, fontsize=8, loc="center")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def sensitivity(images: np.ndarray, maps: np.ndarray, captions: Sequence[str]) -> Figure:
    """Images with two-line captions, and below each one which of its pixels mattered, (N, H, W) uint8."""
    columns = max(1, len(images))
    figure, axes = plt.subplots(2, columns, figsize=(max(6.0, 1.5 * columns), 3.8), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for (above, below), image, weights, caption in zip(
        axes.T, images, maps, captions, strict=False
    ):
        show_image(above, image)
        above.set_title(caption, fontsize=8, loc="center")
        below.imshow(weights, cmap="cividis", vmin=0, vmax=255)
    title = "The most confident mistakes, and the pixels that mattered most (yellow)"
    figure.suptitle(title if len(images) else "No mistakes", x=0.01, ha="left")
    return figure


def filters(weights: np.ndarray) -> Figure:
    """First-layer filters (N, C, h, w): in colour for three channels, else the mean over channels in grey.

    Each filter is scaled to its own largest weight; mid-grey is zero.
    """
    columns = max(1, min(16, len(weights)))
    rows = max(1, -(-len(weights) // columns))
    figure, axis = plt.subplots(figsize=(max(5.5, 0.5 * columns), 0.5 * rows + 0.5))
    scaled = 0.5 + 0.5 * weights / np.maximum(np.abs(weights).max((1, 2, 3), keepdims=True), 1e-12)
    pictures = scaled.transpose(0, 2, 3, 1) if weights.shape[1] == 3 else scaled.mean(1)[..., None]
    grid = np.ones((rows * columns, *pictures.shape[1:]))
    grid[: len(pictures)] = pictures
    show_grid(axis, grid.reshape(rows, columns, *pictures.shape[1:]), white=1)
    title = (
        f"The {len(weights)} filters of the first layer (grey is zero)"
        if len(weights)
        else "No convolution, no filters"
    )
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def show_grid(axis: Axes, images: np.ndarray, white: float) -> np.ndarray:
    """Rows and columns of images (R, C, height, width, channels) as one picture: a thousand axes take minutes.

    Returns the middle of each row on the y axis.
    """
    rows, columns, height, width, channels = images.shape
    gap = max(1, width // 6)
    picture = np.full((rows, height + gap, columns, width + gap, channels), white, images.dtype)
    picture[:, :height, :, :width] = images.transpose(0, 2, 1, 3, 4)
    picture = picture.reshape(rows * (height + gap), columns * (width + gap), channels)[
        :-gap, :-gap
    ]
    show_image(axis, picture)
    axis.set(xticks=[], yticks=[])
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    return np.arange(rows) * (height + gap) + (height - 1) / 2


def show_image(axis: Axes, image: np.ndarray) -> None:
    """(H, W, 1 or 3), uint8 or floats in [0, 1]."""
    picture = image[..., 0] if image.shape[2] == 1 else image
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1 if image.dtype.kind == "f" else 255)
