"""Check that a recorded result agrees with its commit: code, parameters, stages, files in Git."""

from pathlib import Path
from typing import Any

from cifar import UserError, yaml12
from cifar.experiments.recorded import Recorded, md5, md5_of
from cifar.experiments.table import stale


def check(recorded: Recorded) -> None:
    """Check that the record agrees with its commit; `check_code` checks the code.

    Raises:
        UserError: a stage is out of date, a parameter or command differs, or a metric was edited.
    """
    where = f"dvc.lock of {recorded.title}"
    try:
        problem = find_problem(recorded)
    except (LookupError, TypeError, ValueError, AttributeError):
        damaged = "dvc.lock, dvc.yaml or params.yaml is damaged"
        raise UserError(f"{damaged} ({where}): choose another commit") from None
    if problem:
        advice = "run `dvc repro` at that commit, and commit dvc.lock with its results"
        raise UserError(f"{problem} ({where}): {advice}")


def find_problem(recorded: Recorded) -> str | None:
    if old := stale(recorded.stages):
        return f"stage {old[0]} has not run on its latest inputs"
    declared = read_yaml(recorded, "dvc.yaml")["stages"]
    if missing := declared.keys() - recorded.stages.keys():
        return f"stage {min(missing)} was not run"
    values = read_yaml(recorded, "params.yaml")
    for name in recorded.order:
        stage = recorded.stages[name]
        if declared.get(name, {}).get("cmd") != stage["cmd"]:
            return f"stage {name} has a different command in dvc.yaml"
        for key, value in stage.get("params", {}).get("params.yaml", {}).items():
            if lookup(values, key) != value:
                return f"stage {name} was run with a `{key}` that differs from params.yaml"
    for path, expected in recorded.outputs.items():
        if path in recorded.in_git and md5_of(recorded.content(path)) != expected:
            return f"{path} in Git differs from the recorded file"
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
    """Check that the code files listed in the record are those of its commit.

    Raises:
        UserError: the result was made by different code.
    """
    for name, stage in recorded.stages.items():
        for dep in stage.get("deps", []):
            path = dep["path"]
            if path in recorded.outputs or md5(checkout / path) == dep["md5"]:
                continue
            tracked = {path, f"{path}.dvc"} & recorded.in_git
            problem = "a different" if tracked else "an untracked"
            raise UserError(
                f"stage {name} was run with {problem} {path} (dvc.lock of {recorded.title}): "
                "run `dvc repro` at that commit, and commit dvc.lock with its code"
            )
