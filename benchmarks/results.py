"""Read and write measured results: one JSON file per run in results/; and the published results.

A file is never overwritten. Its name ends with a hash of what distinguishes two runs: recipe,
changes, seed, test images, code, torch, device and threads.
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
    """A model with strict types and read-only values, which rejects unknown fields."""

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
    """One training and its evaluation on the test images. A value not recorded is null."""

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
        """What two runs must have in common for their accuracies to be averaged."""
        return self.code, self.versions.get("torch"), self.device

    @property
    def filename(self) -> str:
        identity = [self.recipe, self.changes, self.seed, self.dataset.test_sha256, *self.origin]
        text = json.dumps([*identity, self.threads], sort_keys=True)
        return f"{self.recipe}-seed{self.seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"


def read_all(folder: Path = FOLDER) -> list[Result]:
    """Read every result in the folder, in the order of the file names.

    Raises:
        UserError: a file is not a result.
    """
    results = []
    for path in sorted(folder.glob("*.json")):
        try:
            result = Result.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            field = ".".join(map(str, error.errors()[0]["loc"])) or "content"
            raise UserError(
                f"not a result: {field} ({path}): run `git checkout {path}`, or remove the file"
            ) from None
        results.append(result)
    return results


def write(result: Result, folder: Path = FOLDER) -> Path:
    """Write a result to the file of its name.

    Raises:
        UserError: the file exists already.
    """
    path = folder / result.filename
    if path.exists():
        raise UserError(f"this run has a result already ({path}): remove it to measure again")
    files.write_bytes(path, render(result.model_dump()).encode())
    return path


def render(values: dict[str, Any]) -> str:
    """Format as JSON with a line for each field and each epoch, which reads well in a diff."""
    lines = []
    for key, value in values.items():
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if key == "history" and value:
            text = "[\n    " + ",\n    ".join(json.dumps(row) for row in value) + "\n  ]"
        lines.append(f'  "{key}": {text}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def find(results: list[Result], recipe: str, changes: Changes, seed: int) -> list[Result]:
    """The results of this experiment, from any code and any machine."""
    wanted = (recipe, changes, seed)
    return [r for r in results if (r.recipe, r.changes, r.seed) == wanted]


def check_images(results: list[Result], recipe: str, images: Images) -> None:
    """Check that no table would mix accuracies on different images.

    Raises:
        UserError: a result of this recipe or this data set was measured on other test images.
    """
    for other in results:
        earlier = other.dataset
        if recipe == other.recipe and images.name != earlier.name:
            raise UserError(
                f"{recipe} was measured on {earlier.name}, not on {images.name} "
                f"({other.filename}): keep other data apart with --results FOLDER"
            )
        same_images = earlier.test_sha256 in (None, images.test_sha256)
        if images.name == earlier.name and not same_images:
            raise UserError(
                f"the test images of {images.name} differ from those of {other.filename} "
                "(fetch.source): use the same data, or keep results apart with --results FOLDER"
            )


def read_published(folder: Path = RECIPES) -> dict[str, Any]:
    """Maps each published recipe to its published results, with the name of their data set."""
    published = {}
    for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem):
        recipe = params.read(path)
        if "published" in recipe:
            dataset = recipe.get("fetch", {}).get("dataset", "cifar10")
            published[path.stem] = recipe["published"] | {"dataset": dataset}
    return published


def published_for(published: dict[str, Any], recipe: str, changes: Changes) -> dict[str, Any]:
    """The published result of a recipe with these changes; empty if none was published."""
    entry = published.get(recipe, {})
    variants = [{"changes": {}, **entry}, *entry.get("also", [])]
    return next((variant for variant in variants if variant["changes"] == changes), {})


def published_epochs(recipe: str, changes: Changes) -> int | None:
    """The epochs of the published result with these changes, or else of the unchanged recipe."""
    published = read_published()
    variant = published_for(published, recipe, changes) or published_for(published, recipe, {})
    return variant.get("epochs")
