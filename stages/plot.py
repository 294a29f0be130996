"""Stage 5: draw the charts from the results of the other stages, without training code."""

from cifar import stage  # isort: skip  first, to report errors of the imports below

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from safetensors.numpy import load

from cifar import files, params
from cifar.evaluation import calibration, charts, tables, tiles
from cifar.evaluation.tables import Numbers
from cifar.model import Model, read
from cifar.params.plot import Plot

DATA = Path("data/processed")
PLOTS = Path("plots")
WEIGHTS = Path("models/model.safetensors")


def main() -> None:
    p, _ = params.load(Plot)
    model = read(WEIGHTS)
    names = model.dataset.classes
    test = tables.read_result(Path("metrics/test.json")).test
    histories = tables.read_history(PLOTS / "history.csv", model.epochs)
    predictions = tables.read_predictions(PLOTS / "predictions.csv", names)
    classes = tables.read_classes(PLOTS / "classes.csv", names)
    figures = {
        "curves": charts.curves(histories, model.epochs),
        "confusion": confusion(predictions, names, test),
        "classes": charts.classes(classes, test.accuracy),
        "calibration": calibrated(predictions, test),
        "samples": samples(p, names),
        "mistakes": mistakes(p, predictions),
        "pixels": pixels(predictions),
        "filters": tiles.filters(first_filters(model)),
    }
    for name, figure in figures.items():
        with files.atomic(PLOTS / f"{name}.png") as handle:
            charts.save(figure, handle, dpi=p.dpi)


def confusion(predictions: pd.DataFrame, names: tuple[str, ...], test: Numbers) -> Figure:
    counts = pd.crosstab(predictions["actual"], predictions["predicted"])
    matrix = counts.reindex(index=names, columns=names, fill_value=0).to_numpy()
    title = f"Confusion matrix of the test images: {test.accuracy:.2%} correct"
    return charts.confusion(matrix, names, title)


def calibrated(predictions: pd.DataFrame, test: Numbers) -> Figure:
    right = tables.right(predictions)
    return charts.calibration(
        calibration.bins(predictions["confidence"].to_numpy(), right),
        calibration.bins(predictions["raw_confidence"].to_numpy(), right),
        test.calibration_error,
        test.raw_calibration_error,
    )


def samples(p: Plot, names: tuple[str, ...]) -> Figure:
    images = files.read_array(DATA / "train" / "images.npy")
    labels = np.asarray(files.read_array(DATA / "train" / "labels.npy"))
    short = [charts.shorten(name) for name in names]
    return tiles.samples(images, labels, short, samples_per_class=p.samples_per_class)


def mistakes(p: Plot, predictions: pd.DataFrame) -> Figure:
    images, captions = most_confident(predictions, mistakes=p.mistakes)
    count = int((~tables.right(predictions)).sum())
    total = stage.plural(len(predictions), "test image")
    title = f"The most confident of {stage.plural(count, 'mistake')} on {total}"
    return tiles.mistakes(images, captions, title if count else f"No mistakes on {total}")


def pixels(predictions: pd.DataFrame) -> Figure:
    maps = files.read_array(PLOTS / "gradients.npy")
    images, captions = most_confident(predictions, mistakes=len(maps))
    if maps.shape != images.shape[:3] or maps.dtype != np.uint8:
        raise tables.damaged(PLOTS / "gradients.npy", "not of these mistakes", "evaluate")
    return tiles.sensitivity(images, maps, captions)


def most_confident(predictions: pd.DataFrame, mistakes: int) -> tuple[np.ndarray, list[str]]:
    """The images and captions of the most confident wrong predictions."""
    images = files.read_array(DATA / "test" / "images.npy")
    if len(images) != len(predictions):
        problem = f"{len(predictions)} rows for {len(images)} test images"
        raise tables.damaged(PLOTS / "predictions.csv", problem, "evaluate")
    right = tables.right(predictions)
    worst = calibration.confident_mistakes(predictions["confidence"].to_numpy(), right, mistakes)
    rows = predictions.iloc[worst]
    columns = (rows["actual"], rows["predicted"], rows["confidence"])
    captions = [
        f"{charts.shorten(actual)}, seen as\n{charts.shorten(predicted)} ({confidence:.0%})"
        for actual, predicted, confidence in zip(*columns, strict=True)
    ]
    return images[worst], captions


def first_filters(model: Model) -> np.ndarray:
    """The weights (N, C, h, w) of the first convolution, or of a dense layer that sees all pixels.

    The array is empty (0, 1, 1, 1) if the network has neither.
    """
    weights = load(WEIGHTS.read_bytes())
    shape = model.dataset.channels, model.dataset.image_size, model.dataset.image_size
    prefix = "0." if model.ensemble > 1 else ""
    for layer in model.layers:
        weight = weights.get(f"{prefix}{layer.name}.weight")
        if weight is None or not np.issubdtype(weight.dtype, np.floating):
            continue
        if layer.kind == "Conv2d" and weight.ndim == 4:
            return weight
        if layer.kind == "Linear" and weight.shape[1:] == (np.prod(shape),):
            return weight.reshape(-1, *shape)
    return np.zeros((0, 1, 1, 1), np.float32)


if __name__ == "__main__":
    stage.run(main, __doc__)
