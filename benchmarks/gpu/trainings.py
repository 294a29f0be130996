"""Run whole trainings: accuracy and time over seeds, CPU against GPU, the same bytes twice."""

import csv
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import measure, pipeline, workplace
from benchmarks.gpu.setup import Changes, Numbers, Part, Setup, Step
from benchmarks.tables import markdown
from cifar import files

SEEDS = {  # number of trainings of the default ("") and of the recipes for a GPU
    ("", "auto"): 10,
    ("fast-wide", "auto"): 5,
    ("fast-wider", "auto"): 3,
    ("fast-deep", "auto"): 3,
    ("", "fp32"): 3,
}
REPEATED: dict[str, tuple[str, Changes]] = {  # one epoch each, twice with the same seed
    "default": ("", {"epochs": 1, "small_epochs": 0}),
    "vgg3-dropout": ("vgg3-dropout", {"epochs": 1}),
    "resnet18": ("vgg3", {"model": "resnet18", "depth": 0, "epochs": 1}),
}
SHORT: Changes = {"epochs": 1, "small_epochs": 0, "precision": "fp32"}


def train(setup: Setup, name: str, recipe: str, seed: int = 0, **changes: Any) -> Numbers:
    """Train and evaluate in a folder that keeps its data from one training to the next.

    Returns:
        Test accuracy, without and with mirrored images, seconds of the epochs, and the checksums
        of the model file and of the history.
    """
    folder = setup.folder / "trainings"
    values = setup.parameters(folder, recipe, **changes)
    values["seed"] = seed
    values["evaluate"]["tta"] = "flip"
    files.write_json(folder / "params.yaml", values)
    make_data(folder, values)
    for output in ("models", "metrics", "plots"):
        shutil.rmtree(folder / output, ignore_errors=True)
    for stage in ("train", "evaluate"):
        workplace.run_stage(folder, stage)
    test = files.read_json(folder / "metrics/test.json")["test"]
    return {
        "name": name,
        "seed": seed,
        **{key: test[key] for key in ("accuracy", "tta_accuracy", "loss")},
        "seconds": training_seconds(folder),
        "model_sha256": files.sha256(folder / "models/model.safetensors"),
        "history_sha256": files.sha256(folder / "plots/history.csv"),
        "history": measure.read_history(folder / "plots/history.csv"),
    }


def make_data(folder: Path, values: dict[str, Any]) -> None:
    """Run fetch and preprocess unless the folder has the data of these parameters."""
    noted, expected = folder / "data.json", [values["fetch"], values["preprocess"]]
    if noted.exists() and files.read_json(noted) == expected:
        return
    noted.unlink(missing_ok=True)
    shutil.rmtree(folder / "data", ignore_errors=True)
    for stage in ("fetch", "preprocess"):
        workplace.run_stage(folder, stage)
    files.write_json(noted, expected)


def training_seconds(folder: Path) -> float | None:
    """Seconds of the epochs, validation included; None if the training was interrupted."""
    labels = files.read_array(folder / "data/processed/train/labels.npy")
    try:
        return pipeline.read_epochs(folder / pipeline.EPOCHS, len(labels))[-1].seconds
    except TypeError:  # an epoch from before the interruption has no speed
        return None


def accuracy_steps(setup: Setup) -> dict[str, Step]:
    steps: dict[str, Step] = {}
    for (recipe, precision), count in SEEDS.items():
        name = (recipe or "default") + ("" if precision == "auto" else f", {precision}")
        for seed in range(2 if setup.tiny else count):
            steps[f"{name}, seed {seed}"] = partial(
                train, setup, name, recipe, seed, precision=precision
            )
    return steps


def accuracy_table(rows: list[Numbers]) -> str:
    """A Markdown row for each recipe: mean and standard deviation over its seeds."""
    lines = [["recipe", "n", "seconds of training", "test accuracy, %", "with flip TTA, %"]]
    for name in dict.fromkeys(row["name"] for row in rows):
        runs = [row for row in rows if row["name"] == name]
        seconds = [run["seconds"] for run in runs if run["seconds"] is not None]
        accuracies = [
            pipeline.percent([run[key] for run in runs]) for key in ("accuracy", "tta_accuracy")
        ]
        spread = pipeline.spread(seconds, digits=2) if seconds else ""
        lines.append([name, str(len(runs)), spread, *accuracies])
    return markdown(lines)


def agreement_steps(setup: Setup) -> dict[str, Step]:
    return {
        "trained on the CPU": partial(train, setup, "CPU", "", **SHORT, device="cpu"),
        "trained on the device": partial(train, setup, "device", "", **SHORT),
        "one model, evaluated on both": partial(evaluate_twice, setup),
    }


def evaluate_twice(setup: Setup) -> Numbers:
    """Train a model on the device, and compare its predictions there with those on the CPU."""
    train(setup, "", "", **SHORT)
    folder = setup.folder / "trainings"
    on_device = read_predictions(folder)
    values = setup.parameters(folder, **SHORT)
    values["evaluate"]["device"] = "cpu"
    files.write_json(folder / "params.yaml", values)
    (folder / "metrics/test.json").unlink()
    workplace.run_stage(folder, "evaluate")
    on_cpu = read_predictions(folder)
    pairs = list(zip(on_device, on_cpu, strict=True))
    return {
        "name": "one model on both",
        "images": len(pairs),
        "other_predictions": sum(a["predicted"] != b["predicted"] for a, b in pairs),
        "largest_difference": max(
            abs(float(a["confidence"]) - float(b["confidence"])) for a, b in pairs
        ),
    }


def read_predictions(folder: Path) -> list[dict[str, str]]:
    with (folder / "plots/predictions.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def agreement_table(rows: list[Numbers]) -> str:
    lines = [["fp32, one epoch", "train loss", "validation loss", "test accuracy, %"]]
    text = ""
    for row in rows:
        if "images" in row:
            text = (
                f"\n\nOne model, evaluated on the GPU and on the CPU: {row['other_predictions']} "
                f"of {row['images']:,} predictions differ, confidences by up to "
                f"{row['largest_difference']:.1e}."
            )
            continue
        last = row["history"][-1]
        losses = [f"{last[key]:.5f}" for key in ("train_loss", "val_loss")]
        lines.append([f"trained on the {row['name']}", *losses, f"{100 * row['accuracy']:.2f}"])
    return markdown(lines) + text


def bytes_steps(setup: Setup) -> dict[str, Step]:
    return {
        f"{name}, run {number}": partial(train, setup, name, recipe, **changes)
        for name, (recipe, changes) in setup.limit(REPEATED.items())
        for number in (1, 2)
    }


def bytes_table(rows: list[Numbers]) -> str:
    """The Markdown table of whether two runs with the same seed gave the same files."""
    lines = [["same seed twice", "model.safetensors", "history.csv", "test accuracy, %"]]
    for name in dict.fromkeys(row["name"] for row in rows):
        runs = [row for row in rows if row["name"] == name]
        if len(runs) < 2:
            continue
        cells = [
            "same bytes" if len({run[key] for run in runs}) == 1 else "differs"
            for key in ("model_sha256", "history_sha256")
        ]
        accuracies = ", ".join(f"{100 * run['accuracy']:.2f}" for run in runs)
        lines.append([name, *cells, accuracies])
    return markdown(lines)


ACCURACY = Part(
    "accuracy and seconds of the default and its presets", accuracy_steps, accuracy_table
)
AGREEMENT = Part("agreement of CPU and GPU", agreement_steps, agreement_table)
BYTES = Part("reproducibility, L1: the same bytes twice", bytes_steps, bytes_table)
