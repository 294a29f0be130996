"""Measure the pipeline of the last commit: time and memory of its stages, accuracy against time."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from cifar import UserError, files, params

EPOCHS = "runs/workspace/epochs.jsonl"  # a line for each epoch of the last training
# Measures the seconds and peak memory (KiB) of a command. It runs in a small process, because Linux
# counts the memory of the process that starts a command as that of the command.
MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([time.perf_counter() - start, peak]))
sys.exit(code)
"""


class Epoch(NamedTuple):
    """The end of an epoch: seconds since training began, and accuracy on the validation images."""

    seconds: float
    accuracy: float


def scratch(folder: str, **changes: Any) -> Path:
    """A clone of the last commit in `folder`, with `changes` in the section train.

    Its data come from the commit's fetch.source, which must be an absolute path or a URL.
    """
    clone = Path(folder) / "clone"
    subprocess.run(["git", "clone", "--quiet", ".", clone], check=True)
    values = params.read(clone / "params.yaml")
    values["train"].update(changes)
    files.write_json(clone / "params.yaml", values)  # JSON is YAML
    if Path(".downloads").exists():
        (clone / ".downloads").symlink_to(Path(".downloads").resolve())
    return clone


def stages(options: argparse.Namespace) -> None:
    """Measure time and memory of each stage, with one epoch, and of a run with nothing to do."""
    print("| command | seconds | peak memory, MiB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        clone = scratch(folder, epochs=1, small_epochs=0)
        for name in ("fetch", "preprocess", "train", "evaluate", "plot", None):
            command = ["dvc", "repro", "--quiet", *(["--single-item", name] if name else [])]
            seconds, kilobytes = measure(command, clone)
            print(f"| `{' '.join(command)}` | {seconds:.1f} | {kilobytes / 1024:,.0f} |")
    print()


def measure(command: list[str], folder: Path) -> tuple[float, int]:
    """Seconds and peak memory (KiB) of a command.

    Raises:
        UserError: the command failed.
    """
    words = [sys.executable, "-c", MEASURE, *command]
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed (its message is above): fix it and run again")
    seconds, kilobytes = json.loads(done.stdout)
    return seconds, kilobytes


def accuracy(options: argparse.Namespace) -> None:
    """Measure validation accuracy against seconds of training over seeds, and the test accuracy.

    The seconds are those of the epochs, validation included, without imports and reading data.
    """
    runs, tests = [], []
    with tempfile.TemporaryDirectory() as folder:
        clone = scratch(folder)
        run_stage(clone, "fetch")
        run_stage(clone, "preprocess")
        for seed in range(options.seeds):
            values = params.read(clone / "params.yaml") | {"seed": seed}
            files.write_json(clone / "params.yaml", values)
            run_stage(clone, "train")
            labels = files.read_array(clone / "data/processed/train/labels.npy")
            runs.append(read_epochs(clone / EPOCHS, len(labels)))
            run_stage(clone, "evaluate")
            tests.append(files.read_json(clone / "metrics/test.json")["test"]["accuracy"])
    print("| epoch | seconds | validation accuracy, % |\n|---|---|---|")
    for number, rows in enumerate(zip(*runs, strict=True), start=1):
        accuracies = percent([row.accuracy for row in rows])
        print(f"| {number} | {spread([row.seconds for row in rows])} | {accuracies} |")
    print(f"\ntest accuracy of the last epoch: {percent(tests)} %, n={len(tests)}: {tests}\n")


def run_stage(clone: Path, name: str) -> None:
    command = [sys.executable, "-m", f"stages.{name}"]
    if subprocess.run(command, cwd=clone, check=False).returncode:
        raise UserError(f"{name} failed (its message is above): fix it and run again")


def read_epochs(path: Path, images: int) -> list[Epoch]:
    """Read the epochs of a training on this many images from the JSON lines that it wrote."""
    epochs: list[Epoch] = []
    seconds = 0.0
    for line in path.read_text().splitlines():
        row = json.loads(line)
        seconds += images / row["images_per_second"]
        epochs.append(Epoch(seconds, row["val_accuracy"]))
    return epochs


def spread(values: list[float], digits: int = 0) -> str:
    """The median, then the smallest and the largest value in brackets, with `digits` decimals."""
    middle, low, high = (
        f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} ({low}-{high})"


def percent(values: list[float]) -> str:
    """Mean and standard deviation in per cent; only the mean if there is a single value."""
    mean = f"{100 * statistics.mean(values):.2f}"
    if len(values) == 1:
        return mean
    return f"{mean} (standard deviation {100 * statistics.stdev(values):.2f})"
