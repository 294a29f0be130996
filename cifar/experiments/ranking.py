"""Rank results: a table for each data set, best first, with the parameters that differ."""

import hashlib
from collections.abc import Sequence
from typing import Any

import pandas as pd

from cifar.experiments.table import Result

TEST = "test.accuracy"
VAL = "val.accuracy"
FIXED = ("name", "also", "workspace", TEST, VAL)  # columns of a ranking before its parameters


def by_dataset(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Map each data set to its results; two versions of its raw data are two data sets."""
    raw: dict[str, set[str]] = {}
    for run in results:
        versions = raw.setdefault(run.inputs["fetch.dataset"], set())
        versions.add(run.inputs.get("data/fetched", "unknown"))
    datasets: dict[str, list[Result]] = {}
    for run in results:
        name = run.inputs["fetch.dataset"]
        if len(raw[name]) > 1:
            name += f", raw data {run.inputs.get('data/fetched', 'unknown')}"
        datasets.setdefault(name, []).append(run)
    return datasets


def differences(results: Sequence[Result]) -> list[dict[str, str]]:
    """For each result of one data set, its values of the parameters that differ among them.

    `code` stands for the source files that differ: a hash of their hashes. A file that only some
    results have, such as that of another network, does not count; the parameter that chose it does.
    """
    differing = differing_inputs(results)
    return [described(run.inputs, differing) for run in results]


def differing_inputs(results: Sequence[Result]) -> set[str]:
    """The parameters and files that have more than one value among the results."""
    values: dict[str, set[str]] = {}
    for run in results:
        for key, value in run.inputs.items():
            values.setdefault(key, set()).add(value)
    return {key for key, several in values.items() if len(several) > 1}


def described(inputs: dict[str, str], differing: set[str]) -> dict[str, str]:
    changed = {key: value for key, value in inputs.items() if key in differing}
    text = " ".join(f"{key} {value}" for key, value in sorted(changed.items()) if is_code(key))
    code = {"code": hashlib.sha256(text.encode()).hexdigest()[:6]} if text else {}
    return {key: value for key, value in changed.items() if is_parameter(key)} | code


def is_parameter(key: str) -> bool:
    return not is_code(key) and key != "data/fetched"


def is_code(key: str) -> bool:
    return key.endswith(".py")


def rank(results: Sequence[Result]) -> pd.DataFrame:
    """The distinct results of one data set, best test accuracy first, then by validation accuracy.

    Columns: name; also (other names of the run); workspace (whether it holds this result);
    test.accuracy and val.accuracy, NaN if not measured; and the parameters that differ.
    """
    runs = distinct(results)
    rows = [fixed(names, run) for names, run in runs]
    frame = pd.DataFrame(rows, columns=FIXED).astype({TEST: float, VAL: float})
    differing = pd.DataFrame(differences([run for _, run in runs]), index=frame.index)
    order = dict.fromkeys(key for _, run in runs for key in run.inputs)
    frame = frame.join(differing[[key for key in [*order, "code"] if key in differing]])
    return frame.sort_values([TEST, VAL], ascending=False, kind="stable", ignore_index=True)


def fixed(names: Sequence[str], result: Result) -> tuple[str, str, bool, Any, Any]:
    """The cells of a run in the columns before its parameters."""
    also = ", ".join(name for name in names[1:] if name != "workspace")
    metrics = result.metrics
    return names[0], also, "workspace" in names, metrics.get(TEST), metrics.get(VAL)


def parameters(ranked: pd.DataFrame) -> list[str]:
    """The columns of a ranking that hold parameters or the version of the code."""
    return [str(column) for column in ranked if column not in FIXED]


def distinct(results: Sequence[Result]) -> list[tuple[list[str], Result]]:
    """Each run once, with all its names, such as its experiment, its commit and the workspace."""
    runs: dict[Any, tuple[list[str], Result]] = {}
    for run in results:
        identity = frozenset(run.inputs.items()), frozenset(run.metrics.items())
        runs.setdefault(identity, ([], run))[0].append(run.name)
    return list(runs.values())
