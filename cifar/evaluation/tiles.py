"""Draws charts of small images: samples, mistakes and filters. Pixels stay square."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROWS = 25  # classes in one block of samples
COLUMNS = 6  # mistakes in a row
FILTERS = 64  # shown at most, sixteen in a row
SIDE = 24  # pixels, smallest side of a filter; gaps are a sixth of the side
GAP = 0.82  # grey value between filters: lighter than no weight (0.5), darker than the largest one


def samples(
    images: np.ndarray, labels: np.ndarray, classes: Sequence[str], samples_per_class: int
) -> Figure:
    """The first training images of each class, one row per class, in blocks of 25 rows."""
    rows = min(ROWS, len(classes))
    blocks = -(-len(classes) // rows)
    size = max(3.2, blocks * (0.62 * samples_per_class + 1.4)), 0.62 * rows + 0.4
    figure, axes = plt.subplots(1, blocks, figsize=size, squeeze=False)
    for block, axis in enumerate(axes[0]):
        names = list(classes[block * rows : (block + 1) * rows])
        strips = np.full((rows, samples_per_class, *images.shape[1:]), 255, np.uint8)
        for row in range(len(names)):
            chosen = np.flatnonzero(labels == block * rows + row)[:samples_per_class]
            strips[row, : len(chosen)] = images[chosen]
        middles = show_grid(axis, strips, gap=255)
        axis.set_yticks(middles[: len(names)], names)
    figure.suptitle("Training images of each class", x=0.01, ha="left")
    return figure


def mistakes(images: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """Images with two-line captions, in rows of six."""
    if not len(images):
        return message(title)
    rows = -(-len(images) // COLUMNS)
    size = 1.5 * COLUMNS, 1.9 * rows + 0.4
    figure, axes = plt.subplots(rows, COLUMNS, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        show_image(axis, image)
        axis.set_title(caption, fontsize=8, loc="center")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def sensitivity(images: np.ndarray, maps: np.ndarray, captions: Sequence[str]) -> Figure:
    """Images with two-line captions, and below each a map of the pixels that mattered.

    Args:
        maps: (N, H, W) uint8, as from `metrics.sensitivity`.
    """
    if not len(images):
        return message("No mistakes on the test images")
    size = max(6.0, 1.5 * len(images)), 3.8
    figure, axes = plt.subplots(2, len(images), figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for (above, below), image, weights, caption in zip(axes.T, images, maps, captions, strict=True):
        show_image(above, image)
        above.set_title(caption, fontsize=8, loc="center")
        below.imshow(weights, cmap="cividis", vmin=0, vmax=255)
    title = "The most confident mistakes, and the pixels that mattered most (yellow)"
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def filters(weights: np.ndarray) -> Figure:
    """First-layer filters (N, C, h, w): three channels in colour, others as their mean in grey.

    Each filter is scaled by its largest weight, so that filters of two runs can be compared.
    """
    if not len(weights):
        return message("The first layer has no filters that could be shown as images")
    kept = weights[:FILTERS]
    columns = min(16, len(kept))
    rows = -(-len(kept) // columns)
    scaled = 0.5 + 0.5 * kept / np.maximum(np.abs(kept).max((1, 2, 3), keepdims=True), 1e-12)
    cells = scaled.transpose(0, 2, 3, 1) if kept.shape[1] == 3 else scaled.mean(1)[..., None]
    zoom = -(-SIDE // cells.shape[2])
    cells = cells.repeat(zoom, axis=1).repeat(zoom, axis=2)
    grid = np.full((rows * columns, *cells.shape[1:]), GAP)
    grid[: len(cells)] = cells
    figure, axis = plt.subplots(figsize=(max(6.5, 0.5 * columns), 0.5 * rows + 0.9))
    show_grid(axis, grid.reshape(rows, columns, *cells.shape[1:]), gap=GAP)
    count = f"{len(kept)} of the {len(weights)}" if len(kept) < len(weights) else len(weights)
    figure.suptitle(f"The {count} filters of the first layer", x=0.01, ha="left")
    axis.set_xlabel("black: -1, grey: 0, white: +1, in units of the filter's largest weight")
    return figure


def message(text: str) -> Figure:
    """A small figure with a sentence in place of a chart."""
    figure = plt.figure(figsize=(6, 0.8))
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=11)
    return figure


def show_grid(axis: Axes, images: np.ndarray, gap: float) -> np.ndarray:
    """Draw rows and columns of images as a single one: a thousand axes would take minutes.

    Args:
        images: (rows, columns, height, width, channels).
        gap: pixel value between and around the images.

    Returns:
        The middle of each row on the y axis.
    """
    rows, columns, height, width, channels = images.shape
    space = max(1, width // 6)
    grid = np.full((rows, height + space, columns, width + space, channels), gap, images.dtype)
    grid[:, :height, :, :width] = images.transpose(0, 2, 1, 3, 4)
    grid = grid.reshape(rows * (height + space), columns * (width + space), channels)
    grid = np.pad(grid, ((space, 0), (space, 0), (0, 0)), constant_values=gap)
    show_image(axis, grid)
    axis.set(xticks=[], yticks=[])
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    return space + np.arange(rows) * (height + space) + (height - 1) / 2


def show_image(axis: Axes, image: np.ndarray) -> None:
    """Draw an image (H, W, 1 or 3), uint8 or floats in [0, 1]."""
    pixels = image[..., 0] if image.shape[2] == 1 else image
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=1 if image.dtype.kind == "f" else 255)
