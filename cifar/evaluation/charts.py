"""Draws the charts. Every function takes plain data and returns a figure; the stage saves it.

Scales are fixed, so that the same chart of two runs can be compared side by side.
"""

import warnings
from collections.abc import Collection, Sequence
from typing import IO, Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from cifar.evaluation.calibration import Bin

BLUE = "#0072B2"  # Okabe and Ito's colours, which colour-blind people can tell apart
ORANGE = "#D55E00"
GREY = "#666666"
TRAIN = BLUE
VAL = ORANGE
MANY = 20  # classes; with more, names are smaller and cells have no numbers
CJK_FONTS = (  # for class names in Chinese, Japanese or Korean, which matplotlib's font lacks
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP"),
    *("Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("PingFang SC", "PingFang HK", "Hiragino Sans GB", "Hiragino Sans", "Arial Unicode MS"),
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "MS Gothic", "IPAexGothic", "IPAGothic"),
    *("Noto Sans KR", "Apple SD Gothic Neo", "Malgun Gothic", "NanumGothic"),
)


def families(installed: Collection[str]) -> list[str]:
    """The fonts to search for a character: only installed ones, as matplotlib warns of others."""
    return ["sans-serif", *(name for name in CJK_FONTS if name in installed)]


plt.rcParams.update(
    {
        "font.family": families(fontManager.get_font_names()),
        "text.parse_math": False,  # class names are plain text, even with dollar signs
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
    """Save a figure as PNG, without matplotlib's version, so that its bytes are reproducible."""
    with warnings.catch_warnings():
        # An emoji that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(handle, format="png", dpi=dpi, metadata={"Software": None})
    plt.close(figure)


def curves(histories: Sequence[pd.DataFrame], kept: Sequence[int]) -> Figure:
    """Loss and accuracy of each epoch in training and validation, with a mark at the kept epoch.

    Args:
        histories: one for each network of an ensemble, all in the same colours.
        kept: for each network the epoch whose weights were kept, from 1.
    """
    figure, (losses, accuracies) = plt.subplots(2, 1, sharex=True, figsize=(6, 5.5))
    for history, epoch in zip(histories, kept, strict=True):
        draw_curves(losses, history, "loss", 1, epoch)
        draw_curves(accuracies, history, "accuracy", 100, epoch)
    losses.set_title("Learning curves: loss and accuracy of each epoch")
    losses.set_ylabel("cross-entropy loss")
    accuracies.set_ylabel("accuracy, %")
    accuracies.set_xlabel("epoch")
    accuracies.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    losses.legend(losses.lines[:3], ("training", "validation", "kept"), frameon=False)
    return figure


def draw_curves(axis: Axes, history: pd.DataFrame, name: str, scale: float, kept: int) -> None:
    """Draw one network's training and validation curve of `name`, circling the kept epoch."""
    style = "o-" if len(history) <= 30 else "-"
    for part, color in (("train", TRAIN), ("val", VAL)):
        values = scale * history[f"{part}_{name}"].to_numpy()
        axis.plot(history["epoch"], values, style, ms=3.5, color=color)
    mark = scale * history[f"val_{name}"].to_numpy()[kept - 1]
    axis.plot(kept, mark, "o", ms=9, mfc="none", mec=GREY)


def confusion(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """The confusion matrix, in per cent of each true class; up to 20 classes with numbers."""
    count = len(classes)
    percent = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(15.0, 2.6 + 0.36 * count)
    figure, axis = plt.subplots(figsize=(side + 0.6, side))
    norm = PowerNorm(0.5, vmin=0, vmax=100)  # a square root, so that rare mistakes show too
    image = axis.imshow(percent, cmap="cividis", norm=norm)
    if count <= MANY:
        number_cells(axis, percent)
    size = 10 if count <= MANY else max(6, 10 - count / 17)
    names = [shorten(name) for name in classes]
    axis.set_xticks(range(count), names, rotation=90 if count > 5 else 0, fontsize=size)
    axis.set_yticks(range(count), names, fontsize=size)
    axis.grid(False)
    axis.set(xlabel="predicted class", ylabel="true class", title=title)
    figure.colorbar(image, ax=axis, label="% of the true class", shrink=0.6, aspect=30)
    return figure


def number_cells(axis: Axes, percent: np.ndarray) -> None:
    """Write whole per cents into the cells, except zeros."""
    for row, column in np.argwhere(percent >= 0.5):
        value = percent[row, column]
        color = "white" if value < 25 else "black"  # 25 is half-way up the square-root scale
        text = axis.text(column, row, f"{value:.0f}", color=color, fontsize=9)
        text.set(ha="center", va="center")


def classes(table: pd.DataFrame, accuracy: float) -> Figure:
    """The accuracy of each class with its 95 % interval, in the order of the labels.

    Args:
        table: as in plots/classes.csv. A class without images gets a row without a point.
        accuracy: accuracy on all test images, from 0 to 1, drawn as a line.
    """
    count = len(table)
    size = 10 if count <= 30 else 7
    step = 0.3 if count <= 30 else 0.16
    rows = np.arange(count)
    measured = table["images"].to_numpy() > 0
    values = 100 * table["accuracy"].to_numpy()
    below = values - 100 * table["accuracy_low"].to_numpy()
    above = 100 * table["accuracy_high"].to_numpy() - values
    errors = np.clip([below, above], 0, None)[:, measured]
    figure, axis = plt.subplots(figsize=(6, 1.3 + step * count))
    axis.axvline(100 * accuracy, color=GREY, lw=1, ls="--", label=f"all images: {accuracy:.2%}")
    axis.errorbar(
        values[measured],
        rows[measured],
        xerr=errors,
        fmt="o",
        ms=0.5 * size,
        color=BLUE,
        elinewidth=1,
        clip_on=False,
    )
    for row in range(count):
        text = f"{values[row]:.1f}" if measured[row] else "no images"
        axis.text(102, row, text, va="center", fontsize=size)
    axis.set_yticks(rows, [shorten(name) for name in table["class"]], fontsize=size)
    axis.set(xlim=(0, 100), ylim=(count - 0.3, -0.7), title="Test accuracy of each class")
    axis.set_xlabel("accuracy, % (bars: 95 % interval)")
    axis.grid(axis="y", visible=False)
    axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    return figure


def calibration(
    calibrated: Sequence[Bin], raw: Sequence[Bin], error: float, raw_error: float
) -> Figure:
    """Accuracy over confidence in each bin, above the fraction of predictions in the bin.

    Args:
        calibrated: bins of the confidences with the temperature.
        raw: bins of the confidences without it.
        error: expected calibration error with the temperature, from 0 to 1.
        raw_error: expected calibration error without it.
    """
    figure, (axis, below) = plt.subplots(2, 1, sharex=True, figsize=(5.5, 6), height_ratios=[3, 1])
    axis.plot([0, 100], [0, 100], "--", color=GREY, lw=1, label="confidence = accuracy")
    draw_bins(axis, raw, ORANGE, f"before: error {100 * raw_error:.1f} points")
    draw_bins(axis, calibrated, BLUE, f"calibrated: error {100 * error:.1f} points")
    axis.set(xlim=(0, 100), ylim=(0, 100), ylabel="accuracy, %")
    axis.set_title("Calibration on the test images (larger: more images)")
    draw_counts(below, raw, fill=False, edgecolor=ORANGE)
    draw_counts(below, calibrated, color=BLUE, alpha=0.6)
    below.set(xlabel="confidence of the prediction, %", ylabel="images, %", ylim=(0, 100))
    figure.legend(loc="outside lower left", frameon=False)
    return figure


def draw_bins(axis: Axes, bins: Sequence[Bin], color: str, label: str) -> None:
    """Draw a point per bin, larger for more predictions."""
    confidence = [100 * b.confidence for b in bins]
    accuracy = [100 * b.accuracy for b in bins]
    total = sum(b.images for b in bins)
    areas = [10 + 150 * b.images / total for b in bins]
    axis.plot(confidence, accuracy, lw=0.8, color=color, alpha=0.4)
    axis.scatter(confidence, accuracy, areas, color=color, alpha=0.8, clip_on=False, label=label)


def draw_counts(axis: Axes, bins: Sequence[Bin], **style: Any) -> None:
    """Draw a bar per bin, as high as the fraction of predictions in it."""
    total = sum(b.images for b in bins)
    middles = [50 * (b.low + b.high) for b in bins]
    heights = [100 * b.images / total for b in bins]
    widths = [92 * (b.high - b.low) for b in bins]
    axis.bar(middles, heights, widths, **style)


def shorten(name: str, length: int = 14) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
