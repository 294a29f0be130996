"""Valid combinations of all options, drawn from the schema of params.yaml.

A new option in the schema is drawn automatically, at its bounds and at small values.
"""

import functools
import itertools
import math
import random
import types
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from cifar import UserError, networks, params
from cifar.dataset import Shape
from cifar.model import NetworkOptions
from cifar.params.train import MODELS
from cifar.training import inspection

SCHEMAS = params.sections()
SECTIONS = ("preprocess", "train", "evaluate")
CANDIDATES = 5  # combinations, of which the one with the most new pairs is chosen
DOWNLOADS = "pretrained"  # the network that downloads its weights; `freeze` is its option
# Options whose small values would take long or need another machine. Values that make a run slow
# are rarer than the others.
VALUES = {
    "preprocess.image_size": [8, 24],
    "preprocess.folds": [0, 2, 3],
    "preprocess.per_class": [10],
    "train.model": [  # fast more often: it alone takes the optimizer Muon
        *sorted(path.stem for path in MODELS.glob("[a-z]*.py") if path.stem != DOWNLOADS),
        *["fast"] * 3,
    ],
    "train.freeze": [False],
    "train.width": [0, 4, 4, 8, 8],  # 0 comes first: some networks have one width
    "train.lr": [0.001, 0.003],
    "train.batch_size": [16, 45],
    "train.small_scale": [0.5, 0.75],
    "train.device": ["cpu"],
    "train.processes": [1] * 7 + [2],
    "train.compile": ["none"] * 14 + ["default"],
    "evaluate.device": ["cpu"],
}
Combination = dict[str, dict[str, Any]]


def values(key: str, field: FieldInfo) -> list[Any]:
    """The values to draw an option from: all its words, or small values from its lower bound up."""
    if key in VALUES:
        return VALUES[key]
    if get_origin(field.annotation) is Literal:
        return list(get_args(field.annotation))
    if field.annotation is bool:
        return [False, True]
    if get_origin(field.annotation) in (Union, types.UnionType):
        return [None]
    low, high = bounds(field)
    if field.annotation is int:
        return [low + step for step in range(3) if low + step <= high]
    assert field.annotation is float, f"what are values of {key}? Add them to VALUES"
    if math.isinf(high):
        high = 0.1
    return [float(low), high / 4] if any_of(field, annotated_types.Ge) else [high / 4, high / 2]


def bounds(field: FieldInfo) -> tuple[Any, Any]:
    """The lowest and the highest value of a field."""
    low = any_of(field, annotated_types.Ge) or any_of(field, annotated_types.Gt)
    high = any_of(field, annotated_types.Le) or any_of(field, annotated_types.Lt)
    lowest = getattr(low, "ge", getattr(low, "gt", None))
    return lowest, getattr(high, "le", getattr(high, "lt", math.inf))


def any_of(field: FieldInfo, kind: type) -> Any:
    return next((entry for entry in field.metadata if isinstance(entry, kind)), None)


def choices() -> dict[str, list[Any]]:
    """Maps every option, as section.key, to its values."""
    return {
        f"{section}.{key}": values(f"{section}.{key}", field)
        for section in SECTIONS
        for key, field in SCHEMAS[section].model_fields.items()
    }


def check(section: str, combination: Combination) -> None:
    """Raise ValidationError or UserError as a stage would, but only from its quick checks."""
    SCHEMAS[section].model_validate(combination[section])
    train = combination["train"]
    networks.check_options(train["model"], network_options(train))
    if train["optimizer"] == "muon":
        networks.check_muon(train["model"])


def network_options(train: dict[str, Any]) -> NetworkOptions:
    return NetworkOptions(**{field.name: train[field.name] for field in fields(NetworkOptions)})


def trainable(combination: Combination) -> bool:
    """Whether the network can be trained on the images."""
    train = combination["train"]
    size = combination["preprocess"]["image_size"]
    small = round(train["small_scale"] * size) if train["small_epochs"] else None
    shape = Shape(10, 1, size, (0.5,), (0.5,))
    options = network_options(train)
    try:
        inspection.inspect_network(train["model"], shape, options, train["optimizer"], small)
    except UserError:
        return False
    return True


def draw(chance: random.Random) -> Combination:
    """A valid combination: each option, in random order, gets a value that fits the others."""
    combination = {section: dict(params.off_values()[section]) for section in SECTIONS}
    options = list(choices().items())
    for key, allowed in options:
        section, name = key.split(".")
        combination[section].setdefault(name, allowed[0])
        if key in VALUES and combination[section][name] not in allowed:
            combination[section][name] = allowed[0]
    chance.shuffle(options)
    options.sort(key=lambda option: option[0] != "train.model")  # the others depend on it
    for key, allowed in options:
        section, name = key.split(".")
        before = combination[section][name]
        combination[section][name] = chance.choice(allowed)
        try:
            check(section, combination)
        except (ValidationError, UserError):
            combination[section][name] = before
    return combination


def pairs(combination: Combination) -> set[tuple[Any, ...]]:
    """All pairs of options with their values."""
    flat = [
        (f"{section}.{key}", value)
        for section, entries in sorted(combination.items())
        for key, value in sorted(entries.items())
    ]
    return set(itertools.combinations(flat, 2))


@functools.cache
def draw_all(count: int) -> tuple[Combination, ...]:
    """Draw `count` combinations, from a fixed seed, that cover many different pairs of values."""
    chance = random.Random(0)
    drawn: list[Combination] = []
    covered: set[tuple[Any, ...]] = set()
    while len(drawn) < count:
        candidates = [draw(chance) for _ in range(CANDIDATES)]
        candidates.sort(key=lambda candidate: len(pairs(candidate) - covered), reverse=True)
        best = next((candidate for candidate in candidates if trainable(candidate)), None)
        if best is None:
            continue
        covered |= pairs(best)
        drawn.append(best)
    return tuple(drawn)
