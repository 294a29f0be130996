"""Write report.html: one file that shows the result of the pipeline and opens offline in any browser.

    python -m tools.report

It reads what the stages wrote, and nothing is computed anew but counts. The table of experiments comes from
`dvc exp show`, the parameters that differ from the last commit from Git; without these two they are left out.
"""

import argparse
import base64
import csv
import io
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from cifar import UserError, files, params, stage, yaml12
from cifar.evaluation import calibration
from cifar.experiments.table import flatten, stale

DATA, PLOTS = Path("data/processed"), Path("plots")
STAGES = ("fetch", "preprocess", "train", "evaluate", "plot")
MISTAKES, SAMPLES, CONFUSIONS = 24, 8, 10  # how many of each are shown
# Columns of `dvc exp show` that say nothing here, and those that do not tell one run from another.
HIDDEN = ("rev", "typ", "State", "Executor", "parent")
NAMES = (*HIDDEN, "Experiment", "Created")


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tools.report", description=__doc__, formatter_class=style
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), help="the file (default: report.html)"
    )
    out = parser.parse_args().out
    try:
        content = gather()
    except FileNotFoundError as error:
        raise UserError(
            f"no result yet (no {error.filename}): run `dvc repro` or `make demo`"
        ) from None
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    files.write_bytes(out, environment.get_template("report.html").render(content).encode())
    print(f"The report: {out.resolve().as_uri()} (open it in a browser)")


def gather() -> dict[str, Any]:
    """Everything that the template shows."""
    model, dataset = files.read_json("models/model.json"), files.read_json(DATA / "dataset.json")
    text = {"image": str, "actual": str, "predicted": str}
    predictions = pd.read_csv(PLOTS / "predictions.csv", dtype=text, keep_default_na=False)
    classes = pd.read_csv(PLOTS / "classes.csv", dtype={"class": str}, keep_default_na=False)
    right = (predictions["actual"] == predictions["predicted"]).to_numpy()
    recorded = yaml12.read("dvc.lock")["stages"] if Path("dvc.lock").exists() else {}
    used = used_parameters(model, recorded)
    bins = calibration.bins(predictions["confidence"].to_numpy(), right)
    return {
        "stale": stale(recorded),
        "model": model,
        "dataset": dataset,
        "parameters": model["ensemble"] * sum(row[3] for row in model["layers"]),
        "test": files.read_json("metrics/test.json")["test"],
        "val": files.read_json("metrics/train.json")["val"],
        "images": len(predictions),
        "wrong": int((~right).sum()),
        "calibration_error": calibration.expected_error(bins),
        "picture": picture,
        "classes": classes[classes["images"] > 0]
        .sort_values("accuracy", kind="stable")
        .to_dict("records"),
        "confusions": confusions(predictions, classes),
        "mistakes": list(mistakes(predictions)),
        "data": files.read_json(DATA / "report.json"),
        "samples": list(samples(model["classes"])),
        "changed": changed_parameters(used),
        "times": [(name, seconds(name)) for name in STAGES],
        "experiments": experiments(used),
    }


def picture(name: str) -> str:
    """A picture of the plot stage as the address of an <img>."""
    return address((PLOTS / f"{name}.png").read_bytes())


def address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def encode(pixels: np.ndarray) -> str:
    """(H, W, 1 or 3) uint8 as the address of an <img>."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return address(buffer.getvalue())


def confusions(
    predictions: pd.DataFrame, classes: pd.DataFrame
) -> list[tuple[str, str, int, float]]:
    """The most frequent mistakes: true class, predicted class, how often, and the share of the true class."""
    wrong = predictions[predictions["actual"] != predictions["predicted"]]
    counts = Counter(zip(wrong["actual"], wrong["predicted"], strict=True)).most_common(CONFUSIONS)
    totals = dict(zip(classes["class"], classes["images"], strict=True))
    return [
        (actual, predicted, count, count / totals[actual]) for (actual, predicted), count in counts
    ]


def mistakes(predictions: pd.DataFrame) -> Iterator[tuple[str, str, str, float]]:
    """The wrong predictions that the network was surest of: picture, true class, predicted class, confidence."""
    images = files.read_array(DATA / "test" / "images.npy")
    right = (predictions["actual"] == predictions["predicted"]).to_numpy()
    worst = calibration.surest_mistakes(predictions["confidence"].to_numpy(), right, MISTAKES)
    rows = predictions.iloc[worst].itertuples(index=False)
    for number, (_, actual, predicted, confidence) in zip(worst, rows, strict=True):
        yield encode(np.asarray(images[number])), actual, predicted, confidence


def samples(classes: list[str]) -> Iterator[tuple[str, str]]:
    """For each class a strip of its first training images."""
    images, labels = (
        files.read_array(DATA / "train" / f"{name}.npy") for name in ("images", "labels")
    )
    height, width, channels = images.shape[1:]
    for label, name in enumerate(classes):
        chosen = images[np.flatnonzero(labels == label)[:SAMPLES]]
        strip = np.full((height, SAMPLES, width + max(1, width // 16), channels), 255, np.uint8)
        strip[:, : len(chosen), :width] = chosen.transpose(1, 0, 2, 3)
        yield name, encode(strip.reshape(height, -1, channels))


def used_parameters(model: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """What the outputs were made with, as {"train.lr": 0.1, …}; params.yaml may have changed since."""
    used: dict[str, Any] = {}
    for entry in recorded.values():
        used |= entry.get("params", {}).get("params.yaml", {})
    return dict(flatten(used | model.get("made_by", {}).get("parameters", {})))


def changed_parameters(used: dict[str, Any]) -> list[tuple[str, Any, Any]] | None:
    """(key, committed value, value of this result) where the two differ, or None where Git knows no params.yaml."""
    committed = output("git", "show", "HEAD:./params.yaml")
    if committed is None:
        return None
    old = dict(flatten(yaml12.loads(committed, "HEAD:params.yaml")))
    return [(key, old.get(key), value) for key, value in used.items() if old.get(key) != value]


def seconds(name: str) -> float | None:
    """How long the stage took that made the outputs which are here, or None where that is not known."""
    try:
        return float(stage.time_file(name).read_text())
    except (OSError, ValueError):
        return None


def experiments(used: dict[str, Any]) -> dict[str, Any] | None:
    """The table of `dvc exp show`, best test accuracy first, and the place of the present result in it."""
    text = output("dvc", "exp", "show", "--csv", "--drop", ".*/")
    if not text:
        return None
    rows = list(csv.DictReader(io.StringIO(text)))
    rows = [row for row in rows if row.get("test.accuracy", "!") not in ("", "!", "-")]
    if not rows:
        return None
    now = dict(flatten(params.read()))
    for row in rows:
        if row["rev"] == "workspace":  # DVC shows params.yaml as it is now
            row |= {
                k: "" if v is None else str(v)
                for k, v in used.items()
                if k in row and now.get(k) != v
            }
    differ = [
        name for name in rows[0] if len({row[name] for row in rows}) > 1 or name == "test.accuracy"
    ]
    runs: dict[
        tuple[str, ...], dict[str, Any]
    ] = {}  # each once: under the name of its experiment where it has one
    rows.sort(
        key=lambda row: (
            -float(row["test.accuracy"]),
            not row["Experiment"],
            row["rev"] == "workspace",
        )
    )
    for row in rows:
        first = runs.setdefault(
            tuple(value for name, value in row.items() if name not in NAMES), row
        )
        first["here"] = first.get("here") or row["rev"] == "workspace"
    rows = list(runs.values())
    for row in rows:
        row["Experiment"] = row["Experiment"] or row["rev"]
        row["Created"] = row.get("Created", "").partition("T")[0]
    scores = [row["test.accuracy"] for row in rows]
    place = next((1 + scores.index(row["test.accuracy"]) for row in rows if row["here"]), None)
    return {
        "columns": [name for name in differ if name not in HIDDEN],
        "rows": rows,
        "place": place,
    }


def output(*command: str) -> str | None:
    """What a command prints, or None where there is no such command or it fails."""
    if not shutil.which(command[0]):
        return None
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    return done.stdout if done.returncode == 0 else None


if __name__ == "__main__":
    stage.run(main)
