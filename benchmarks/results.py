"""Measured results as data: one JSON file per run in results/, beside what the tutorials published.

A file is written once and never again. Its name ends with a hash of what tells two runs apart:
recipe, changes, seed, test images, code, torch, device and threads.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cifar import UserError, files, params

FOLDER = Path("results")
RECIPES = Path("recipes")
Changes = dict[str, Any]


class Record(BaseModel):
    """Types are strict, unknown fields are errors, values are read-only."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Images(Record):
    """The images of a run. Two archives of the same images may differ; their test arrays do not."""

    name: str
    archive_sha256: str | None  # null: official, built in, or not recorded
    test_sha256: dict[str, str] | None  # of images.npy and labels.npy of the test part
    train_images: int
    val_images: int
    test_images: int


class Result(Record):
    """One training and its evaluation on the test images. What was not recorded is null."""

    recipe: str
    changes: Changes  # parameters that differ from the recipe, such as train.epochs
    seed: int
    accuracy: float  # in [0, 1], with its 95 % interval
    accuracy_low: float
    accuracy_high: float
    loss: float | None
    epochs: int
    epochs_published: int | None
    seconds: float | None  # of train and evaluate; null also for an interrupted run
    threads: int | None
    device: str
    machine: str
    note: str
    versions: dict[str, str]
    commit: str | None
    code: str | None  # a hash of the files that fetch, preprocess, train and evaluate load
    dataset: Images
    history: list[dict[str, int | float]] | None  # a row for each epoch, as in plots/history.csv

    @property
    def is_beginning(self) -> bool:
        """Whether this is the recipe cut short, and nothing else."""
        last = math.inf if self.epochs_published is None else self.epochs_published
        return set(self.changes) == {"train.epochs"} and self.epochs < last

    @property
    def origin(self) -> tuple[Any, ...]:
        """What two runs must share before their accuracies may be averaged."""
        return self.code, self.versions.get("torch"), self.device

    @property
    def filename(self) -> str:
        identity = [self.recipe, self.changes, self.seed, self.dataset.test_sha256, *self.origin]
        text = json.dumps([*identity, self.threads], sort_keys=True)
        return f"{self.recipe}-seed{self.seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"


def read_all(folder: Path = FOLDER) -> list[Result]:
    """Every result in the folder, in the order of the files' names.

    Raises:
        UserError: a file is no result.
    """
    results = []
    for path in sorted(folder.glob("*.json")):
        try:
            result = Result.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            field = ".".join(map(str, error.errors()[0]["loc"])) or "content"
            raise UserError(
                f"not a result: {field} ({path}): `git checkout {path}`, or remove it"
            ) from None
        results.append(result)
    return results


def write(result: Result, folder: Path = FOLDER) -> Path:
    """Store a result under its name.

    Raises:
        UserError: there is one already.
    """
    path = folder / result.filename
    if path.exists():
        raise UserError(f"this run has a result already ({path}): it is never overwritten")
    files.write_bytes(path, render(result.model_dump()).encode())
    return path


def render(values: dict[str, Any]) -> str:
    """JSON with one line for each field and for each epoch, which reads well in a diff."""
    lines = []
    for key, value in values.items():
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if key == "history" and value:
            text = "[\n    " + ",\n    ".join(json.dumps(row) for row in value) + "\n  ]"
        lines.append(f'  "{key}": {text}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def find(results: list[Result], recipe: str, changes: Changes, seed: int) -> list[Result]:
    """The results of this experiment, whatever code and machine they are from."""
    wanted = (recipe, changes, seed)
    return [r for r in results if (r.recipe, r.changes, r.seed) == wanted]


def check_images(results: list[Result], recipe: str, images: Images) -> None:
    """Refuse to put accuracies on different images into one table.

    Raises:
        UserError: a result of this recipe, or of this data set, is from other test images.
    """
    for other in results:
        known = other.dataset
        if recipe == other.recipe and images.name != known.name:
            raise UserError(
                f"{recipe} was measured on {known.name}, not on {images.name} "
                f"({other.filename}): keep other data apart with --results FOLDER"
            )
        same_images = known.test_sha256 in (None, images.test_sha256)
        if images.name == known.name and not same_images:
            raise UserError(
                f"these test images of {images.name} are not those of {other.filename} "
                "(fetch.source): name that data, or keep the results apart with --results FOLDER"
            )


def read_published(folder: Path = RECIPES) -> dict[str, Any]:
    """What the recipes say was published of them, and on which data set."""
    published = {}
    for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem):
        recipe = params.read(path)
        if "published" in recipe:
            dataset = recipe.get("fetch", {}).get("dataset", "cifar10")
            published[path.stem] = recipe["published"] | {"dataset": dataset}
    return published


def published_for(published: dict[str, Any], recipe: str, changes: Changes) -> dict[str, Any]:
    """What was published of a recipe with these changes; nothing if it was not published so."""
    entry = published.get(recipe, {})
    variants = [{"changes": {}, **entry}, *entry.get("also", [])]
    return next((variant for variant in variants if variant["changes"] == changes), {})


def published_epochs(recipe: str, changes: Changes) -> int | None:
    """The epochs behind the published number: of the recipe so changed, else of the recipe."""
    published = read_published()
    variant = published_for(published, recipe, changes) or published_for(published, recipe, {})
    return variant.get("epochs")
