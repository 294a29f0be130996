"""The settings that all parts have in common: device, sizes, data and folder."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from benchmarks import workplace
from cifar import files, params

Changes = dict[str, Any]  # such as {"train.epochs": 1}
Numbers = dict[str, Any]  # what a step returns, as written to the JSON file
Step = Callable[[], Numbers]
T = TypeVar("T")

# Built-in digits and one epoch: the same work as a full training, within seconds.
TINY: Changes = {
    "fetch.dataset": "digits",
    "fetch.source": None,
    "fetch.sha256": None,
    "preprocess.per_class": 20,
    "train.epochs": 1,
    "train.small_epochs": 0,
    "train.warmup": 0,
    "train.batch_size": 64,
    "plot.dpi": 50,
}


class Part(NamedTuple):
    """Steps of one kind, and a function that makes a Markdown table of the finished ones."""

    about: str
    steps: Callable[["Setup"], dict[str, Step]]
    table: Callable[[list[Numbers]], str]


@dataclass(frozen=True)
class Setup:
    """The settings of one call.

    Attributes:
        device: cuda, or cpu for a trial.
        tiny: measure everything once, at sizes for which a CPU takes seconds.
        folder: of the results of this card, and of the trainings.
        data: parameters of the section fetch.
        airbench: a clone of airbench's repository; it need not exist.
    """

    device: str
    tiny: bool
    folder: Path
    data: Changes
    airbench: Path

    def limit(self, values: Iterable[T]) -> list[T]:
        """All values, or only the first in a tiny run."""
        return list(values)[: 1 if self.tiny else None]

    def parameters(self, folder: Path, recipe: str = "", **changes: Any) -> dict[str, Any]:
        """Write a complete params.yaml and the code into `folder`; returns the parameters.

        Args:
            recipe: its name; empty for the default.
            changes: values of the section train.
        """
        workplace.copy_code(folder)
        if recipe:
            workplace.apply_recipe(folder, recipe, [])
        values = params.read(folder / "params.yaml")
        train = {f"train.{key}": value for key, value in changes.items()}
        devices = {"train.device": self.device, "evaluate.device": self.device}
        for key, value in (self.data | devices | train | (TINY if self.tiny else {})).items():
            section, name = key.split(".")
            values[section][name] = value
        params.check(values)
        files.write_json(folder / "params.yaml", values)  # JSON is YAML
        return values
