"""Whether a recorded result fits its commit: its code, parameters, stages, and its files in Git."""

from pathlib import Path
from typing import Any

from cifar import UserError, yaml12
from cifar.experiments.recorded import Recorded, md5, md5_of
from cifar.experiments.table import stale


def check(recorded: Recorded) -> None:
    """Compare the record with its commit, but for the code: see `check_code`.

    Raises:
        UserError: metrics that were edited, other parameters or stages, or stages that do not fit.
    """
    where = f"dvc.lock of {recorded.title}"
    try:
        problem = find_problem(recorded)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise UserError(f"damaged, or dvc.yaml or params.yaml is ({where}): name another") from None
    if problem:
        advice = "`dvc repro` there, and commit dvc.lock with its results"
        raise UserError(f"{problem} ({where}): {advice}")


def find_problem(recorded: Recorded) -> str | None:
    if old := stale(recorded.stages):
        return f"stage {old[0]} has not met its latest inputs"
    declared = read_yaml(recorded, "dvc.yaml")["stages"]
    if missing := declared.keys() - recorded.stages.keys():
        return f"stage {min(missing)} was not run"
    values = read_yaml(recorded, "params.yaml")
    for name in recorded.order:
        stage = recorded.stages[name]
        if declared.get(name, {}).get("cmd") != stage["cmd"]:
            return f"stage {name} has another command in dvc.yaml"
        for key, value in stage.get("params", {}).get("params.yaml", {}).items():
            if lookup(values, key) != value:
                return f"stage {name} was run with another `{key}` than in params.yaml"
    for path, expected in recorded.outputs.items():
        if path in recorded.in_git and md5_of(recorded.content(path)) != expected:
            return f"{path} in Git is not the recorded one, but edited or committed apart"
    return None


def read_yaml(recorded: Recorded, path: str) -> Any:
    text = recorded.content(path).decode(errors="replace")
    return yaml12.loads(text, f"{path} of {recorded.title}")


def lookup(values: Any, key: str) -> Any:
    """The value of a key like `train.lr`."""
    for part in key.split("."):
        values = values[part]
    return values


def check_code(recorded: Recorded, checkout: Path) -> None:
    """Compare the code that the record names with that of its commit.

    Raises:
        UserError: the result was made by other code.
    """
    for name, stage in recorded.stages.items():
        for dep in stage.get("deps", []):
            path = dep["path"]
            if path in recorded.outputs or md5(checkout / path) == dep["md5"]:
                continue
            problem = "another" if path in recorded.in_git else "an untracked"
            raise UserError(
                f"stage {name} was run with {problem} {path} (dvc.lock of {recorded.title}): "
                "`dvc repro` there and commit dvc.lock with its code"
            )
