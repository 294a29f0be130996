"""Write report.html: one file that shows the result of the pipeline, offline, in any browser.

    python -m tools.report

It reads what the stages wrote, and computes nothing but counts. The table of experiments comes from
DVC, and the parameters that differ from the last commit from Git; without DVC or Git, that part is
left out.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import base64
import io
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from cifar import UserError, files, pipeline, yaml12
from cifar.data.report import Report
from cifar.evaluation import calibration, card, tables
from cifar.evaluation.tables import Evaluation
from cifar.experiments import ranking, table
from cifar.experiments.table import flatten, read_lock, stale
from cifar.model import Model, read

AGAIN = "`dvc repro --force` makes it again"
DATA = Path("data/processed")
PLOTS = Path("plots")
WEIGHTS = Path("models/model.safetensors")
METRICS = Path("metrics/train.json")
STAGES = ("fetch", "preprocess", "train", "evaluate", "plot")
MISTAKES = 24  # the number to show, at most
SAMPLES = 8
CONFUSIONS = 10


def main() -> None:
    parser = stage.parser(__doc__)
    out = Path("report.html")
    parser.add_argument(
        "--out", type=Path, default=out, help="file to write (default: %(default)s)"
    )
    out = parser.parse_args().out
    try:
        content = gather()
    except FileNotFoundError as error:
        raise UserError(
            f"no result yet (no {error.filename}): run `dvc repro` or `make demo`"
        ) from None
    files.write_bytes(out, render(content).encode())
    print(f"The report: {out.resolve().as_uri()} (open it in a browser)")


def render(content: dict[str, Any]) -> str:
    """The page as HTML. The template escapes everything that comes from data."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html").render(content)


def gather() -> dict[str, Any]:
    """Gather everything that the template shows.

    Raises:
        FileNotFoundError: a stage has not run.
        UserError: a result is damaged.
    """
    checksum = files.short_sha256(WEIGHTS.read_bytes())
    model = read(WEIGHTS)
    names = model.dataset.classes
    evaluation = tables.read_result(existing(Path("metrics/test.json")))
    recorded = read_lock("workspace")
    used = used_parameters(model, recorded)
    foreign = evaluation.model != checksum
    data = files.read_record(DATA / "report.json", Report)
    check_counts(data, len(names))
    val = look_up(METRICS, "val")["val"]
    if not isinstance(val.get("accuracy"), float):
        raise UserError(f"no validation accuracy ({METRICS}): {AGAIN}")
    return {
        "stale": stale(recorded),
        "foreign": foreign,
        "model": model,
        "dataset": model.dataset,
        "val": val,
        "result": None if foreign else result(evaluation, names),
        "chart": chart,
        "data": data,
        "samples": list(samples(names)),
        "changed": changed_parameters(used),
        "times": [(name, seconds(name)) for name in STAGES],
        "experiments": experiments(model.dataset.name),
    }


def look_up(path: Path, key: str) -> dict[str, Any]:
    """Read a JSON file of a stage, which must have a mapping under the key."""
    content = files.read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get(key), dict):
        raise UserError(f"no mapping `{key}` ({path}): {AGAIN}")
    return content


def check_counts(data: Report, classes: int) -> None:
    """Check that data/processed/report.json counts the images of the classes of the model."""
    if {classes} != set(map(len, astuple(data.counts))):
        problem = f"the counts do not match the {classes} classes of {WEIGHTS}"
        raise UserError(f"{problem} ({DATA / 'report.json'}): {AGAIN}")


def existing(path: Path) -> Path:
    """The path itself; FileNotFoundError if there is no such file."""
    path.stat()
    return path


def result(evaluation: Evaluation, names: tuple[str, ...]) -> dict[str, Any]:
    """The results on the test images, for the template."""
    predictions = tables.read_predictions(PLOTS / "predictions.csv", names)
    classes = tables.read_classes(PLOTS / "classes.csv", names)
    measured = classes[classes["images"] > 0]
    return {
        "test": evaluation.test,
        "images": len(predictions),
        "wrong": int((~tables.right(predictions)).sum()),
        "unequal": card.unequal(measured["images"].tolist()),
        "classes": measured.sort_values("accuracy", kind="stable").to_dict("records"),
        "confusions": confusions(predictions, classes),
        "mistakes": list(mistakes(predictions)),
    }


def chart(name: str) -> str:
    """A chart of the plot stage, as the data URL of an <img>."""
    return data_url((PLOTS / f"{name}.png").read_bytes())


def data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def encode(pixels: np.ndarray) -> str:
    """An image (H, W, 1 or 3) uint8, as the data URL of an <img>."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return data_url(buffer.getvalue())


def confusions(
    predictions: pd.DataFrame, classes: pd.DataFrame
) -> list[tuple[str, str, int, float]]:
    """The most frequent mistakes: true class, predicted class, number, fraction of the class."""
    wrong = predictions[~tables.right(predictions)]
    counts = Counter(zip(wrong["actual"], wrong["predicted"], strict=True)).most_common(CONFUSIONS)
    totals = dict(zip(classes["class"], classes["images"], strict=True))
    return [
        (actual, predicted, count, count / totals[actual]) for (actual, predicted), count in counts
    ]


def mistakes(predictions: pd.DataFrame) -> Iterator[tuple[str, str, str, float]]:
    """Yield the most confident mistakes: image, true class, predicted class, confidence."""
    path = DATA / "test" / "images.npy"
    images = files.read_array(path)
    if len(images) != len(predictions):
        counts = f"{len(predictions)} predictions for {len(images)} images"
        raise UserError(f"{counts} ({path}): {AGAIN}")
    confidences = predictions["confidence"].to_numpy()
    worst = calibration.confident_mistakes(confidences, tables.right(predictions), MISTAKES)
    rows = predictions.iloc[worst]
    columns = (worst, rows["actual"], rows["predicted"], rows["confidence"])
    for number, actual, predicted, confidence in zip(*columns, strict=True):
        yield encode(np.asarray(images[number])), actual, predicted, confidence


def samples(classes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield each class with a strip of its first training images."""
    images = files.read_array(DATA / "train" / "images.npy")
    labels = files.read_array(DATA / "train" / "labels.npy")
    height, width, channels = images.shape[1:]
    for label, name in enumerate(classes):
        chosen = images[np.flatnonzero(labels == label)[:SAMPLES]]
        strip = np.full((height, SAMPLES, width + max(1, width // 16), channels), 255, np.uint8)
        strip[:, : len(chosen), :width] = chosen.transpose(1, 0, 2, 3)
        yield name, encode(strip.reshape(height, -1, channels))


def used_parameters(model: Model, recorded: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the outputs, {"train.lr": 0.1, ...}; params.yaml may have changed since."""
    used: dict[str, Any] = {}
    for entry in recorded.values():
        used |= entry.get("params", {}).get("params.yaml", {})
    return dict(flatten(used | asdict(model.provenance.parameters)))


def changed_parameters(used: dict[str, Any]) -> list[tuple[str, Any, Any]] | None:
    """The parameters that differ: key, committed value, value of this result; None without Git."""
    committed = output("git", "show", "HEAD:./params.yaml")
    if committed is None:
        return None
    old = dict(flatten(yaml12.loads(committed, "HEAD:params.yaml")))
    return [(key, old.get(key), value) for key, value in used.items() if old.get(key) != value]


def seconds(name: str) -> float | None:
    """The seconds that the stage took to make the present outputs; None if they are not known."""
    try:
        return float(pipeline.time_file(name).read_text())
    except (OSError, ValueError, UserError):  # dvc.yaml may be damaged
        return None


def experiments(dataset: str) -> dict[str, Any] | None:
    """The ranking of the runs on this data set, and the rank of this result; None without runs."""
    try:
        results, notes = table.read()
    except UserError:
        return None
    groups = ranking.by_dataset([run for run in results if run.inputs["fetch.dataset"] == dataset])
    here = [members for members in groups.values() if any(r.name == "workspace" for r in members)]
    if not groups:
        return None
    ranked = ranking.rank((here or list(groups.values()))[0])
    rows = [row_of(row, ranking.parameters(ranked)) for row in ranked.to_dict("records")]
    rank = next((number for number, row in enumerate(rows, 1) if row["here"]), None)
    return {"rows": rows, "rank": rank, "notes": notes}


def row_of(row: dict[Any, Any], parameters: list[str]) -> dict[str, Any]:
    """A row of a ranking for the template, with only the parameters that the run has."""
    present = [(key, row[key]) for key in parameters if not pd.isna(row[key])]
    test = row[ranking.TEST]
    val = row[ranking.VAL]
    return {
        "name": f"{row['name']} ({row['also']})" if row["also"] else row["name"],
        "test": None if pd.isna(test) else test,
        "val": None if pd.isna(val) else val,
        "parameters": present,
        "here": row["workspace"],
    }


def output(*command: str) -> str | None:
    """The output of a command; None if it does not exist or fails."""
    if not shutil.which(command[0]):
        return None
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    return done.stdout if done.returncode == 0 else None


if __name__ == "__main__":
    stage.run(main)
