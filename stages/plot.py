"""Stage 5: the pictures, from what the other stages wrote; no training code."""

from cifar import stage  # isort: skip  first, to report errors of the imports below

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from safetensors.numpy import load

from cifar import files, params
from cifar.evaluation import calibration, charts, tiles
from cifar.model import Model, read
from cifar.params.plot import Plot

DATA = Path("data/processed")
PLOTS = Path("plots")
WEIGHTS = Path("models/model.safetensors")


def main() -> None:
    p, _ = params.load(Plot)
    model = read(WEIGHTS)
    test = files.read_json("metrics/test.json")["test"]
    history = pd.read_csv(PLOTS / "history.csv")
    text = {"image": str, "actual": str, "predicted": str}
    predictions = pd.read_csv(PLOTS / "predictions.csv", dtype=text, keep_default_na=False)
    names = [charts.shorten(name) for name in model.dataset.classes]
    figures = {
        "curves": charts.curves([part for _, part in history.groupby("network")], model.epochs),
        "confusion": confusion(predictions, model.dataset.classes, test),
        "classes": classes(test),
        "calibration": calibrated(predictions),
        "samples": samples(p, names),
        "mistakes": mistakes(p, predictions),
        "pixels": pixels(predictions),
        "filters": tiles.filters(first_filters(model)),
    }
    for name, figure in figures.items():
        with files.atomic(PLOTS / f"{name}.png") as handle:
            charts.save(figure, handle, p.dpi)


def confusion(predictions: pd.DataFrame, classes: list[str], test: dict[str, float]) -> Figure:
    table = pd.crosstab(predictions["actual"], predictions["predicted"]).reindex(
        index=classes, columns=classes, fill_value=0
    )
    title = f"Confusion on the test images: {test['accuracy']:.2%} are right"
    return charts.confusion(table.to_numpy(), classes, title)


def classes(test: dict[str, float]) -> Figure:
    table = pd.read_csv(PLOTS / "classes.csv", dtype={"class": str}, keep_default_na=False)
    table = table[table["images"] > 0]  # of a class without test images nothing was measured
    intervals = table[["accuracy_low", "accuracy_high"]].to_numpy()
    return charts.classes(
        table["class"].tolist(), table["accuracy"].to_numpy(), intervals, test["accuracy"]
    )


def calibrated(predictions: pd.DataFrame) -> Figure:
    right = (predictions["actual"] == predictions["predicted"]).to_numpy()
    found = calibration.bins(predictions["confidence"].to_numpy(), right)
    return charts.calibration(found, calibration.expected_error(found))


def samples(p: Plot, names: list[str]) -> Figure:
    images, labels = (
        files.read_array(DATA / "train" / f"{name}.npy") for name in ("images", "labels")
    )
    return tiles.samples(images, np.asarray(labels), names, p.samples_per_class)


def most_confident(predictions: pd.DataFrame, count: int) -> tuple[np.ndarray, list[str]]:
    """The images and captions of the wrong predictions that the network was surest of."""
    right = (predictions["actual"] == predictions["predicted"]).to_numpy()
    worst = calibration.confident_mistakes(predictions["confidence"].to_numpy(), right, count)
    captions = [
        f"{charts.shorten(actual)}, seen as\n{charts.shorten(predicted)} ({confidence:.0%})"
        for _, actual, predicted, confidence in predictions.iloc[worst].itertuples(index=False)
    ]
    return files.read_array(DATA / "test" / "images.npy")[worst], captions


def mistakes(p: Plot, predictions: pd.DataFrame) -> Figure:
    images, captions = most_confident(predictions, p.mistakes)
    count = int((predictions["actual"] != predictions["predicted"]).sum())
    title = f"The most confident of {count} mistakes among {len(predictions)} test images"
    return tiles.mistakes(images, captions, title)


def pixels(predictions: pd.DataFrame) -> Figure:
    maps = files.read_array(PLOTS / "gradients.npy")
    images, captions = most_confident(predictions, len(maps))
    return tiles.sensitivity(images, maps, captions)


def first_filters(model: Model) -> np.ndarray:
    """The weights (N, C, h, w) of the first convolution; none if the network has no convolution."""
    first = next((layer.name for layer in model.layers if layer.kind.startswith("Conv")), None)
    if first is None:
        return np.zeros((0, 1, 1, 1), np.float32)
    prefix = "0." if model.ensemble > 1 else ""
    return load(WEIGHTS.read_bytes())[f"{prefix}{first}.weight"]


if __name__ == "__main__":
    stage.run(main)
