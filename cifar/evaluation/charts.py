"""The charts. Every function takes plain data and returns a figure; the stage saves it."""

from collections.abc import Sequence
from typing import IO

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

TRAIN, VAL, MARK = (
    "#0072B2",
    "#D55E00",
    "#666666",
)  # Okabe and Ito's colours, told apart by all eyes
plt.rcParams.update(
    {
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "figure.titlesize": 11,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.edgecolor": "#666666",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
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
    figure, axes = plt.subplots(2, 1, sharex=True, figsize=(6, 5.5))
    for axis, name, scale in zip(axes, ("loss", "accuracy"), (1, 100), strict=True):
        for number, (history, epoch) in enumerate(zip(histories, kept, strict=True)):
            for part, label, color in (("train", "training", TRAIN), ("val", "validation", VAL)):
                values = scale * history[f"{part}_{name}"].to_numpy()
                style = "o-" if len(values) <= 30 else "-"
                axis.plot(
                    history["epoch"],
                    values,
                    style,
                    ms=3.5,
                    color=color,
                    label=None if number else label,
                )
            mark = scale * history[f"val_{name}"].to_numpy()[epoch - 1]
            axis.plot(
                epoch, mark, "o", ms=9, mfc="none", mec=MARK, label=None if number else "kept"
            )
        axis.set_ylabel("cross-entropy loss" if name == "loss" else "accuracy, %")
    axes[0].set_title("Learning curves: loss and accuracy after each epoch")
    axes[0].legend(frameon=False)
    axes[1].set_xlabel("epoch")
    axes[1].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return figure


def confusion(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Rows are the true classes, in per cent of each; the cells carry numbers while there is room for them."""
    count = len(classes)
    shares = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(15.0, 2.6 + 0.36 * count)
    figure, axis = plt.subplots(figsize=(side + 0.6, side))
    picture = axis.imshow(
        shares, cmap="cividis", norm=PowerNorm(0.5, vmin=0, vmax=100)
    )  # rare mistakes show, too
    if count <= 20:
        for row, column in np.argwhere(shares >= 0.5):
            color = (
                "white" if shares[row, column] < 25 else "black"
            )  # half-way up the square-root scale
            axis.text(
                column,
                row,
                f"{shares[row, column]:.0f}",
                ha="center",
                va="center",
                color=color,
                fontsize=9,
            )
    size = 10 if count <= 20 else max(6, 10 - count / 17)
    axis.set_xticks(
        range(count),
        [shorten(name) for name in classes],
        rotation=90 if count > 5 else 0,
        fontsize=size,
    )
    axis.set_yticks(range(count), [shorten(name) for name in classes], fontsize=size)
    axis.grid(False)
    axis.set(xlabel="predicted class", ylabel="true class", title=title)
    figure.colorbar(picture, ax=axis, label="share of the true class, %", shrink=0.6, aspect=30)
    return figure


def classes(names: Sequence[str], shares: np.ndarray, intervals: np.ndarray, mean: float) -> Figure:
    """Accuracy of each class with its 95 % interval, the best one on top; a line at the accuracy of all images.

    Args:
        shares: (classes,) in [0, 1].
        intervals: (classes, 2), their low and high ends.
    """
    count, order = len(names), np.argsort(shares, kind="stable")
    step = 0.3 if count <= 30 else 0.16
    figure, axis = plt.subplots(figsize=(6, 1.3 + step * count))
    values, ends = 100 * shares[order], 100 * intervals[order]
    errors = np.clip([values - ends[:, 0], ends[:, 1] - values], 0, None)
    axis.errorbar(
        values,
        range(count),
        xerr=errors,
        fmt="o",
        ms=5 if count <= 30 else 3,
        color=TRAIN,
        elinewidth=1,
    )
    axis.axvline(100 * mean, color=MARK, lw=1, ls="--", label=f"all test images: {mean:.2%}")
    axis.set_yticks(
        range(count), [shorten(names[i]) for i in order], fontsize=10 if count <= 30 else 7
    )
    axis.set(
        ylim=(-0.7, count - 0.3),
        xlabel="accuracy, % (bars: 95 % interval)",
        title="Test accuracy of each class",
    )
    axis.grid(axis="y", visible=False)
    axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    return figure


def calibration(found: Sequence[tuple[float, float, int, float, float]], error: float) -> Figure:
    """Accuracy over confidence, bin by bin, above how many predictions are in each bin.

    Args:
        found: for each bin its ends, its number of predictions, their mean confidence and their accuracy.
        error: the expected calibration error, in [0, 1].
    """
    figure, (axis, below) = plt.subplots(
        2, 1, sharex=True, figsize=(5.5, 5.5), height_ratios=[3, 1]
    )
    low, high, count, confidence, accuracy = (
        np.array(column, float) for column in zip(*found, strict=True)
    )
    axis.plot([0, 100], [0, 100], "--", color=MARK, lw=1, label="as right as it is sure")
    axis.plot(100 * confidence, 100 * accuracy, "o-", ms=5, color=TRAIN, label="test images")
    axis.set(ylabel="accuracy, %", xlim=(0, 100), ylim=(0, 103))
    axis.set_title(f"Calibration: expected error {100 * error:.1f} points")
    axis.legend(frameon=False)
    below.bar(
        100 * (low + high) / 2,
        100 * count / count.sum(),
        width=0.92 * 100 * (high - low),
        color=TRAIN,
    )
    below.set(xlabel="confidence of the prediction, %", ylabel="images, %")
    return figure


def shorten(name: str, length: int = 14) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
