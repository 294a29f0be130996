"""The ranges of a search: which parameters of `train` it varies, and between which values."""

from typing import Any

from cifar import UserError, params, yaml12

KINDS = {"float": float, "log": float, "int": int, "choice": object}

Ranges = dict[str, tuple[str, list[Any]]]  # such as {"train.lr": ("log", [0.01, 0.5])}


def read(path: str) -> Ranges:
    """Read the ranges in a YAML file, and check their ends as values of params.yaml.

    Raises:
        UserError: a range is invalid; the message describes the first mistake.
    """
    ranges = {key: read_range(key, spec, path) for key, spec in yaml12.read(path).items()}
    if not ranges:
        raise UserError(f"no ranges ({path}): write for example `train.lr: {{log: [0.03, 0.3]}}`")
    for key, (kind, values) in ranges.items():
        section, _, name = str(key).partition(".")
        if section != "train":
            problem = f"{key} is not a parameter of train"
            raise UserError(f"{problem} ({path}): search only parameters of train")
        for value in values:
            parameters = params.read()
            parameters["train"][name] = value if kind == "choice" else KINDS[kind](value)
            params.check(parameters, path)
    return ranges


def read_range(key: str, spec: Any, path: str) -> tuple[str, list[Any]]:
    """The kind and the values in {KIND: [LOW, HIGH]} or {choice: [A, B, ...]}."""
    kind, values = "", None
    if isinstance(spec, dict) and len(spec) == 1:
        ((kind, values),) = spec.items()
    if kind not in KINDS or not isinstance(values, list):
        kinds = ", ".join(KINDS)
        raise UserError(f"{key}: {spec} ({path}): write {{KIND: [LOW, HIGH]}}, KIND one of {kinds}")
    if kind == "choice":
        if not values:
            raise UserError(f"{key}: no values ({path}): write {{choice: [A, B]}}")
        return kind, values
    if len(values) != 2 or any(type(value) not in (int, KINDS[kind]) for value in values):
        problem = f"{key}: {values} is not a range of kind {kind}"
        raise UserError(f"{problem} ({path}): write two numbers")
    low, high = values
    if low >= high:
        raise UserError(f"{key}: {low} is not below {high} ({path}): write the lower one first")
    if kind == "log" and low <= 0:
        raise UserError(f"{key}: {low} has no logarithm ({path}): write numbers above 0")
    return kind, values
