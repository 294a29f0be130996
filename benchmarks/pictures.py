"""Draw the charts of RESULTS.md and docs/results.md from the files in results/."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import tables
from benchmarks.results import Result
from benchmarks.tables import Row
from cifar import files
from cifar.evaluation import charts
from cifar.evaluation.charts import BLUE, GREY, ORANGE, plt

DPI = 120
VGG = {  # the recipes in one chart, with their colours
    "vgg1": GREY,
    "vgg2": BLUE,
    "vgg3": ORANGE,
    "vgg3-decay": "#E69F00",
    "vgg3-dropout": "#CC79A7",
    "vgg3-augment": "#009E73",
}


def draw(runs: list[Result], published: dict[str, Any]) -> Iterator[Path]:
    """Write every chart for which there are results; yields their paths."""
    rows = [row for row in tables.group(runs, published) if row.runs and row.published]
    figures = {"docs/recipes.png": compare(rows)}
    unchanged = [run for run in runs if not run.changes and run.history]
    if chosen := [run for run in unchanged if run.recipe == "convpool"]:
        figures["docs/convpool.png"] = epochs(chosen, published["convpool"]["history"])
    if chosen := [run for run in unchanged if run.recipe == "dense-head"]:
        figures["docs/dense-head.png"] = overfitting(chosen[0])
    if chosen := [run for run in unchanged if run.recipe in VGG]:
        figures["docs/vgg.png"] = validation(chosen)
    for path, figure in figures.items():
        with files.atomic(path) as handle:
            charts.save(figure, handle, DPI)
        yield Path(path)


def compare(rows: list[Row]) -> charts.Figure:
    """A line for each recipe: its published accuracy, and that of every run with its interval."""
    figure, axis = plt.subplots(figsize=(7, 1.3 + 0.34 * len(rows)))
    for line, row in enumerate(rows):
        axis.plot(
            100 * row.published["accuracy"],
            line,
            "D",
            ms=7,
            mfc="none",
            mec=GREY,
            label="published",
        )
        for number, run in enumerate(row.runs):
            height = line + 0.16 * (number - (len(row.runs) - 1) / 2)
            ends = [100 * run.accuracy_low, 100 * run.accuracy_high]
            axis.plot(ends, [height] * 2, color=BLUE, lw=1.2)
            axis.plot(
                100 * run.accuracy, height, "o", ms=4, color=BLUE, label="here, 95 % interval"
            )
    axis.set_yticks(range(len(rows)), [label(row) for row in rows])
    axis.set(xlabel="test accuracy, %", ylim=(len(rows) - 0.4, -0.6))
    axis.set_title("Published and measured accuracy")
    axis.grid(axis="y", visible=False)
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(
        handles.values(), handles.keys(), frameon=False, loc="outside lower center", ncols=2
    )
    return figure


def label(row: Row) -> str:
    """The recipe with its changed values, and the GPU or the CPU's instruction set it ran on."""
    changed = "".join(f", {key.partition('.')[2]} {value}" for key, value in row.changes.items())
    device, _, instructions = row.runs[0].device.partition(", ")
    return f"{row.recipe}{changed} ({instructions if device == 'cpu' else device})"


def epochs(runs: list[Result], published: list[list[float]]) -> charts.Figure:
    """Accuracy after each epoch, as published and of every run."""
    figure, axis = plt.subplots(figsize=(6, 4))
    stated = 100 * pd.DataFrame(published, columns=["training", "validation", "test"])
    stated.index += 1
    for name, color in (("training", BLUE), ("validation", ORANGE)):
        axis.plot(stated.index, stated[name], "--", color=color, label=f"{name}, published")
    for number, run in enumerate(runs):
        history = pd.DataFrame(run.history)
        for part, name, color in (("train", "training", BLUE), ("val", "validation", ORANGE)):
            text = None if number else f"{name}, here"
            values = 100 * history[f"{part}_accuracy"]
            axis.plot(history["epoch"], values, "o-", ms=3, lw=1, color=color, label=text)
    axis.set(xlabel="epoch", ylabel="accuracy, %", title="convpool, epoch by epoch")
    axis.legend(frameon=False)
    return figure


def overfitting(run: Result) -> charts.Figure:
    """Loss and accuracy in training and validation, with a line at the lowest validation loss."""
    history = pd.DataFrame(run.history)
    best = history["epoch"].to_numpy()[history["val_loss"].to_numpy().argmin()]
    figure, axes = plt.subplots(2, 1, sharex=True, figsize=(6, 5))
    for axis, name, scale in zip(axes, ("loss", "accuracy"), (1, 100), strict=True):
        for part, text, color in (("train", "training", BLUE), ("val", "validation", ORANGE)):
            axis.plot(history["epoch"], scale * history[f"{part}_{name}"], color=color, label=text)
        axis.axvline(
            best, color=GREY, lw=1, ls="--", label=f"lowest validation loss: epoch {best:.0f}"
        )
    axes[0].set(ylabel="cross-entropy loss", title=f"{run.recipe}: where it starts to overfit")
    axes[1].set(ylabel="accuracy, %", xlabel="epoch")
    axes[0].legend(frameon=False)
    return figure


def validation(runs: list[Result]) -> charts.Figure:
    """Loss and accuracy on the validation images after each epoch, a line for each recipe."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for number, run in enumerate(runs):
        history = pd.DataFrame(run.history)
        again = run.recipe in [other.recipe for other in runs[:number]]  # another seed
        for axis, name, scale in zip(axes, ("loss", "accuracy"), (1, 100), strict=True):
            axis.plot(
                history["epoch"],
                scale * history[f"val_{name}"],
                lw=1,
                color=VGG[run.recipe],
                label=None if again else run.recipe,
            )
    axes[0].set(xlabel="epoch", ylabel="validation loss", ylim=(0.5, 3.5))
    axes[1].set(xlabel="epoch", ylabel="validation accuracy, %", ylim=(45, 85))
    axes[1].legend(frameon=False, loc="lower right", ncols=2)
    return figure
