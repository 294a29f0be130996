"""Reads and checks the results of the stages.

The error for a damaged file is one line that names the file and the command that makes it again.
"""

import operator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from cifar import UserError, files
from cifar.dataset import STRICT

Kind = Literal["text", "count", "fraction", "number"]
PREDICTIONS: dict[str, Kind] = {
    "image": "text",
    "actual": "text",
    "predicted": "text",
    "confidence": "fraction",
    "raw_confidence": "fraction",
}
CLASSES: dict[str, Kind] = {
    "class": "text",
    "accuracy": "fraction",
    "images": "count",
    "accuracy_low": "fraction",
    "accuracy_high": "fraction",
}
HISTORY: dict[str, Kind] = {
    "network": "count",
    "epoch": "count",
    "lr": "number",
    "train_loss": "number",
    "train_accuracy": "fraction",
    "val_loss": "number",
    "val_accuracy": "fraction",
}
Fraction = Annotated[float, Field(ge=0, le=1)]
Loss = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Numbers:
    """Metrics of the test images; the optional ones depend on the data and the parameters."""

    __pydantic_config__: ClassVar = STRICT

    loss: Loss
    accuracy: Fraction
    accuracy_low: Fraction
    accuracy_high: Fraction
    balanced_accuracy: Fraction
    macro_f1: Fraction
    calibrated_loss: Loss
    calibration_error: Fraction
    raw_calibration_error: Fraction
    top5_accuracy: Fraction | None = None
    tta_accuracy: Fraction | None = None
    member_accuracy: dict[str, Fraction] | None = None


@dataclass(frozen=True)
class Evaluation:
    """The content of metrics/test.json: the metrics, and the checksum of the model."""

    __pydantic_config__: ClassVar = STRICT

    test: Numbers
    model: str


def write_result(path: Path, result: Evaluation) -> None:
    """Write the test metrics, without those that do not apply."""
    record = asdict(result)
    numbers = {name: value for name, value in record["test"].items() if value is not None}
    files.write_json(path, record | {"test": numbers})


def read_result(path: Path) -> Evaluation:
    """Read the test metrics.

    Raises:
        UserError: the file is missing or damaged.
    """
    if not path.exists():
        raise UserError(f"test metrics not found ({path}): `dvc repro evaluate` makes them")
    return files.read_record(path, Evaluation)


def read_predictions(path: Path, classes: tuple[str, ...]) -> pd.DataFrame:
    """Read one row per test image: image, actual, predicted, confidence and raw_confidence.

    Raises:
        UserError: the table is damaged, empty, or of other classes.
    """
    table = read(path, PREDICTIONS, "evaluate")
    unknown = (set(table["actual"]) | set(table["predicted"])) - set(classes)
    if unknown:
        raise damaged(path, f"class {min(unknown)!r} is not one of the model's", "evaluate")
    return table


def read_classes(path: Path, classes: tuple[str, ...]) -> pd.DataFrame:
    """Read one row per class, in the order of the labels: accuracy, test images, 95 % interval.

    Raises:
        UserError: the table is damaged, or of other classes.
    """
    table = read(path, CLASSES, "evaluate")
    if tuple(table["class"]) != classes:
        raise damaged(path, "its classes are not those of the model", "evaluate")
    return table


def read_history(path: Path, kept: tuple[int, ...]) -> list[pd.DataFrame]:
    """Read one table for each network of an ensemble, with one row per epoch, from epoch 1.

    Args:
        kept: for each network the epoch whose weights were kept.

    Raises:
        UserError: the table is damaged, or of another model.
    """
    table = read(path, HISTORY, "train")
    histories = [part.reset_index(drop=True) for _, part in table.groupby("network")]
    complete = all((part["epoch"] == np.arange(1, len(part) + 1)).all() for part in histories)
    lengths = [len(part) for part in histories]
    if len(lengths) != len(kept) or not complete or any(map(operator.lt, lengths, kept)):
        raise damaged(path, "its epochs are not those of the model", "train")
    return histories


def right(predictions: pd.DataFrame) -> np.ndarray:
    """(N,) bool, whether each prediction is right."""
    return (predictions["actual"] == predictions["predicted"]).to_numpy()


def read(path: Path, columns: dict[str, Kind], stage: str) -> pd.DataFrame:
    """Read a table with these columns and at least one row; text stays text ("NA" is a name).

    Raises:
        UserError: the table is missing or empty, or has other columns or cells of another kind.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"table not found ({path}): `dvc repro {stage}` makes it") from None
    except (ValueError, pd.errors.ParserError):  # ValueError: also bytes that are not text
        raise damaged(path, "not a table", stage) from None
    if list(table.columns) != list(columns):
        raise damaged(path, f"its columns are not {', '.join(columns)}", stage)
    if table.empty:
        raise damaged(path, "the table has no rows", stage)
    for name, kind in columns.items():
        if kind != "text":
            table[name] = convert(table[name], kind, path, stage)
    return table


def convert(cells: pd.Series, kind: Kind, path: Path, stage: str) -> pd.Series:
    """Convert the cells of a column to numbers."""
    values = pd.to_numeric(cells, errors="coerce")
    good = np.isfinite(values)
    if kind == "fraction":
        good &= values.between(0, 1)
    if kind == "count":
        good &= values.between(0, 2**53) & (values % 1 == 0)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        problem = f"{str(cells.iloc[row])[:40]!r} is not a {kind} (line {row + 2}, {cells.name})"
        raise damaged(path, problem, stage)
    return values.astype("int64" if kind == "count" else "float64")


def damaged(path: Path, problem: str, stage: str) -> UserError:
    return UserError(f"{problem} ({path}): `dvc repro --force {stage}` makes it again")
