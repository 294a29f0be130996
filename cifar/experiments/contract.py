"""The reproducibility contract (docs/design.md): which of its levels a rerun of a result meets.

L1: with the same device, threads and versions, every output is byte-identical. L3: otherwise, the
outputs of the data stages are byte-identical, and the test accuracy agrees within a tolerance.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from cifar import UserError
from cifar.experiments import groups, statistics, table
from cifar.experiments.recorded import Recorded

METRIC = "test.accuracy"
SEEDS = 3  # the standard deviation of fewer runs says little
LIBRARIES = (  # their versions may change an output
    "matplotlib",
    "numpy",
    "pandas",
    "pillow",
    "safetensors",
    "scikit-learn",
    "scipy",
    "torch",
    "torchvision",
)
PIN = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)


@dataclass(frozen=True)
class Change:
    """One difference between two environments.

    Attributes:
        name: device, threads, processes, python, or a library.
        recorded: its value when the result was recorded.
        here: its value now.
    """

    name: str
    recorded: str
    here: str

    def __str__(self) -> str:
        return f"{self.name} {self.here} instead of {self.recorded}"


@dataclass(frozen=True)
class Accuracy:
    """The recorded test accuracy, that of the rerun, and the tolerance of L3.

    Attributes:
        recorded: from 0 to 1.
        made: the accuracy of the rerun.
        low: the lowest accuracy allowed.
        high: the highest accuracy allowed.
        basis: how the tolerance was computed.
    """

    recorded: float
    made: float
    low: float
    high: float
    basis: str

    def __str__(self) -> str:
        tolerance = f"{self.low:.2%} to {self.high:.2%}, {self.basis}"
        return f"{self.made:.2%}, recorded {self.recorded:.2%} (tolerance {tolerance})"


@dataclass(frozen=True)
class Verdict:
    """The level that the rerun meets (L1, L3 or None), and the reason as a sentence."""

    level: str | None
    text: str


def pin_changes(recorded: Recorded) -> list[Change]:
    """The libraries whose installed version is not in requirements.lock of the commit."""
    if "requirements.lock" not in recorded.in_git:
        return []
    pins: dict[str, list[str]] = {}
    text = recorded.content("requirements.lock").decode(errors="replace")
    for name, version in PIN.findall(text):
        pins.setdefault(name, []).append(version)
    changes = []
    for name in LIBRARIES:
        here = installed(name)
        if name in pins and here.partition("+")[0] not in pins[name]:
            changes.append(Change(name, " or ".join(pins[name]), here))
    return changes


def installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def environment_changes(
    recorded: Mapping[str, Any], made: Mapping[str, Any], pins: Iterable[Change]
) -> list[Change]:
    """The differences between the provenance of two models, and the pins that it does not cover."""
    a, b = (environment(record.get("provenance", {})) for record in (recorded, made))
    changes = [
        Change(name, a[name], b.get(name, "unknown")) for name in a if a[name] != b.get(name)
    ]
    return changes + [pin for pin in pins if pin.name not in a]


def environment(provenance: Mapping[str, Any]) -> dict[str, str]:
    """The device, threads, processes and versions in a model's provenance."""
    names = [name for name in ("device", "threads", "processes") if name in provenance]
    versions = provenance.get("versions", {})
    return {name: str(provenance[name]) for name in names} | dict(versions)


def accuracy(recorded: Recorded, before: Mapping[str, Any], after: Mapping[str, Any]) -> Accuracy:
    """The accuracies in two versions of metrics/test.json, with the tolerance of L3.

    The tolerance is three standard deviations over seeds, or the recorded 95 % interval if too
    few seeds were run.

    Raises:
        LookupError: a number is missing.
    """
    old, new = before["test"], after["test"]["accuracy"]
    half, basis = tolerance(recorded)
    if half is None:
        basis = f"the recorded 95 % interval, as {basis}"
        return Accuracy(old["accuracy"], new, old["accuracy_low"], old["accuracy_high"], basis)
    return Accuracy(old["accuracy"], new, old["accuracy"] - half, old["accuracy"] + half, basis)


def tolerance(recorded: Recorded) -> tuple[float | None, str]:
    """Three standard deviations over seeds, with the number of seeds; or None, with the reason."""
    try:
        values = seeds(recorded)
    except UserError as error:
        return None, f"the runs with other seeds cannot be listed ({error})"
    if len(values) < SEEDS:
        return None, f"fewer than {SEEDS} seeds were run"
    spread = statistics.summarize(values)
    if not spread.std:
        return None, f"all {spread.n} seeds gave the same accuracy"
    return 3 * spread.std, f"three standard deviations over {spread.n} seeds"


def seeds(recorded: Recorded) -> list[float]:
    """The test accuracy for each seed, from runs that differ from the result in nothing else.

    Raises:
        UserError: the runs cannot be listed.
    """

    def but_seed(inputs: Mapping[str, str]) -> dict[str, str]:
        return {key: value for key, value in inputs.items() if key != "seed"}

    runs, _ = table.read()
    expected = but_seed(table.inputs_of(recorded.stages))
    equal = [run for run in runs if METRIC in run.metrics and but_seed(run.inputs) == expected]
    return [run.metrics[METRIC] for run in groups.one_each(equal, ["seed"])[0]]


def judge(
    differing: Sequence[str], changes: Sequence[Change], known: bool, numbers: Accuracy | None
) -> Verdict:
    """Judge a rerun by the contract.

    Args:
        differing: the outputs that are not byte-identical.
        changes: the differences between the environments.
        known: whether the recorded environment is known.
        numbers: the test accuracies, or None if one is missing.
    """
    if not differing:
        return Verdict("L1", "L1 held: every output is byte-identical.")
    if data := [path for path in differing if path.startswith("data/")]:
        return Verdict(None, f"Not reproduced: {data[0]} differs, which L3 does not allow.")
    if not changes:
        count = "1 output differs" if len(differing) == 1 else f"{len(differing)} outputs differ"
        alike, unknown = "with the same device, threads and versions", "for an unknown reason"
        return Verdict(None, f"Not reproduced: {count}, {alike if known else unknown}.")
    reason = "; ".join(map(str, changes))
    because = f"L1 does not apply, because the environment differs ({reason})"
    if numbers and numbers.low <= numbers.made <= numbers.high:
        return Verdict("L3", f"{because}, and accuracy is within the tolerance of L3: {numbers}.")
    problem = "there is no accuracy to compare"
    if numbers:
        problem = f"accuracy is outside the tolerance of L3: {numbers}"
    return Verdict(None, f"Not reproduced: {because}, but {problem}.")
