"""The pictures. Every function takes plain data and returns a figure; the stage saves it."""

from collections.abc import Sequence
from typing import IO

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

TRAIN, VAL, MARK = "#0072B2", "#D55E00", "#666666"  # Okabe and Ito's colours, told apart by all eyes
plt.rcParams.update(
    {
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#E4E4E4",
        "image.interpolation": "nearest",
    }
)


def save(figure: Figure, handle: IO[bytes], dpi: int) -> None:
    """PNG without matplotlib's version in it, so that the same figure gives the same bytes."""
    figure.savefig(handle, format="png", dpi=dpi, metadata={"Software": None})
    plt.close(figure)


def curves(histories: Sequence[pd.DataFrame], kept: Sequence[int]) -> Figure:
    """Loss over accuracy, training and validation, with a mark at the epoch whose weights were kept.

    One history for each network of an ensemble; all have the same two colours.
    """
    figure, axes = plt.subplots(2, 1, sharex=True, figsize=(7, 6))
    for axis, name, scale in zip(axes, ("loss", "accuracy"), (1, 100), strict=True):
        for number, (history, epoch) in enumerate(zip(histories, kept, strict=True)):
            for part, label, color in (("train", "training", TRAIN), ("val", "validation", VAL)):
                values = scale * history[f"{part}_{name}"].to_numpy()
                style = "o-" if len(values) <= 30 else "-"
                axis.plot(history["epoch"], values, style, ms=3.5, color=color, label=None if number else label)
            mark = scale * history[f"val_{name}"].to_numpy()[epoch - 1]
            axis.plot(epoch, mark, "o", ms=9, mfc="none", mec=MARK, label=None if number else "kept")
        axis.set_ylabel("cross-entropy loss" if name == "loss" else "accuracy, %")
    axes[0].set_title("Learning curves")
    axes[0].legend(frameon=False)
    axes[1].set_xlabel("epoch")
    axes[1].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return figure


def confusion(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Rows are the true classes, in per cent of each; the cells carry numbers while there is room for them."""
    count = len(classes)
    shares = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(12.0, 3.0 + 0.5 * count)
    figure, axis = plt.subplots(figsize=(side + 0.8, side))
    picture = axis.imshow(shares, cmap="cividis", norm=PowerNorm(0.5, vmin=0, vmax=100))  # rare mistakes show, too
    if count <= 20:
        for row, column in np.argwhere(shares >= 0.5):
            color = "white" if shares[row, column] < 25 else "black"  # half-way up the square-root scale
            axis.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", color=color, fontsize=9)
    size = 10 if count <= 20 else max(4, 10 - count / 17)
    axis.set_xticks(range(count), [shorten(name) for name in classes], rotation=90 if count > 5 else 0, fontsize=size)
    axis.set_yticks(range(count), [shorten(name) for name in classes], fontsize=size)
    axis.grid(False)
    axis.set(xlabel="predicted class", ylabel="true class", title=title)
    figure.colorbar(picture, ax=axis, label="share of the true class, %", shrink=0.8)
    return figure


def samples(images: np.ndarray, labels: np.ndarray, classes: Sequence[str], columns: int) -> Figure:
    """The first training images of each class, one row a class; beyond 25 classes in several blocks of rows."""
    rows = min(25, len(classes))
    blocks = -(-len(classes) // rows)
    size = max(3.2, blocks * (0.62 * columns + 1.3)), 0.62 * rows + 0.4
    figure, axes = plt.subplots(1, blocks, figsize=size, squeeze=False)
    for block, axis in enumerate(axes[0]):
        names = classes[block * rows : (block + 1) * rows]
        strips = np.full((rows, columns, *images.shape[1:]), 255, np.uint8)
        for row in range(len(names)):
            chosen = np.flatnonzero(labels == block * rows + row)[:columns]
            strips[row, : len(chosen)] = images[chosen]
        middles = show_grid(axis, strips, white=255)
        axis.set_yticks(middles[: len(names)], [shorten(name) for name in names])
    figure.suptitle("Training images of each class", x=0.01, ha="left")
    return figure


def mistakes(images: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """Images with two-line captions, in rows of six."""
    columns = 6
    rows = max(1, -(-len(images) // columns))
    figure, axes = plt.subplots(rows, columns, figsize=(1.6 * columns, 2.0 * rows + 0.4), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        show_image(axis, image)
        axis.set_title(caption, fontsize=8, loc="center")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def filters(weights: np.ndarray) -> Figure:
    """First-layer filters (N, C, h, w): in colour for three channels, else the mean over channels in grey.

    Each filter is scaled to its own largest weight; mid-grey is zero.
    """
    columns = max(1, min(16, len(weights)))
    rows = max(1, -(-len(weights) // columns))
    figure, axis = plt.subplots(figsize=(max(5, 0.55 * columns + 0.5), 0.55 * rows + 0.6))
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
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def show_grid(axis: Axes, images: np.ndarray, white: float) -> np.ndarray:
    """Rows and columns of images (R, C, height, width, channels) as one picture: a thousand axes take minutes.

    Returns the middle of each row on the y axis.
    """
    rows, columns, height, width, channels = images.shape
    gap = max(1, width // 6)
    picture = np.full((rows, height + gap, columns, width + gap, channels), white, images.dtype)
    picture[:, :height, :, :width] = images.transpose(0, 2, 1, 3, 4)
    picture = picture.reshape(rows * (height + gap), columns * (width + gap), channels)[:-gap, :-gap]
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


def shorten(name: str, length: int = 14) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
