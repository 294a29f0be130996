"""DVC's experiments as plain data: what each was made from and what came out, and which differ only by their seed."""

import csv
import io
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifar import UserError, yaml12

STAGES = (
    "fetch",
    "preprocess",
    "train",
    "evaluate",
)  # what a number depends on; the pictures come after it


@dataclass(frozen=True)
class Result:
    """One run: its name, its commit, what it was made from ('train.lr': '0.1', files by their sums), its numbers."""

    name: str
    commit: str
    facts: dict[str, str]
    metrics: dict[str, float]


def finished(metric: str, all_commits: bool) -> tuple[list[Result], list[str]]:
    """Every run that DVC knows and that has the metric, experiments before commits; and why others were left out.

    Raises:
        UserError: there is none.
    """
    everywhere = ["--all-commits"] if all_commits else []
    commits = json.loads(run("dvc", "exp", "show", "--json", *everywhere))
    results, remarks, seen = [], [], dict[str, None]()
    for name, state, commit, data in entries(commits):
        numbers = {
            key: value
            for file in data.get("metrics", {}).values()
            for key, value in flatten(file.get("data"))
        }
        seen |= dict.fromkeys(numbers)
        if state == "commit" and metric not in numbers:
            continue
        if state not in ("commit", "success") or metric not in numbers:
            remarks.append(
                f"left out, {state if state != 'success' else f'without {metric}'}: {name}"
            )
            continue
        try:
            here = commit == "workspace"
            lock = (
                Path("dvc.lock").read_text("utf-8")
                if here
                else run("git", "show", f"{commit}:./dvc.lock")
            )
        except (FileNotFoundError, UserError):
            remarks.append(f"left out, without dvc.lock: {name}")
            continue
        facts = made_from(yaml12.loads(lock, f"dvc.lock of {name}")["stages"])
        if facts:
            results.append(Result(name, commit, facts, numbers))
        else:
            remarks.append(f"left out, its stages do not fit together (`dvc repro` there): {name}")
    if not results:
        if seen:
            raise UserError(f"no run has {metric} (--metric): there are {', '.join(seen)}")
        raise UserError(
            "no finished run (dvc exp show): `dvc exp run` makes one, `dvc queue start` works off a queue"
        )
    return results, remarks


def entries(commits: Any) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """(name, state, commit, data) of all experiments in what `dvc exp show` gives, then of the commits themselves."""
    for commit in commits:
        for experiment in commit["experiments"] or []:
            last = (experiment["revs"] or [{}])[0]
            state = (experiment["executor"] or {}).get("state") or "success"
            yield (
                experiment["name"] or last.get("rev", "?")[:7],
                state,
                last.get("rev", ""),
                last.get("data") or {},
            )
    head = run("git", "rev-parse", "HEAD").strip()
    for commit in commits:
        rev = commit["rev"]
        yield (
            "HEAD" if rev == head else rev if rev == "workspace" else rev[:7],
            "commit",
            rev,
            commit["data"] or {},
        )


def made_from(stages: dict[str, Any]) -> dict[str, str]:
    """Parameters, code and raw data of a dvc.lock; nothing where a stage has not met the outputs of the one before.

    Not params.yaml, which may have been edited since.
    """
    facts: dict[str, str] = {}
    if not stages.keys() >= set(STAGES) or set(STAGES) & set(stale(stages)):
        return {}
    for name in STAGES:
        for key, value in flatten(stages[name].get("params", {}).get("params.yaml")):
            facts[key] = plain(value if isinstance(value, str) else json.dumps(value))
        for file in stages[name].get("deps", []):
            if file["path"].endswith(".py") or file["path"] == "data/raw":
                facts[file["path"]] = file["md5"][:7]
    return facts


def stale(stages: dict[str, Any]) -> list[str]:
    """The stages of a dvc.lock that have not met the outputs of the one before."""
    made = {out["path"]: out["md5"] for entry in stages.values() for out in entry.get("outs", [])}
    needed = [(name, file) for name, entry in stages.items() for file in entry.get("deps", [])]
    return list(
        dict.fromkeys(
            name for name, file in needed if made.get(file["path"], file["md5"]) != file["md5"]
        )
    )


def plain(text: str) -> str:
    """A number, also at the end of `train.dropout=0.0`, without an empty fraction: 0 and 0.0 are one value."""
    return re.sub(r"(?<=\d)\.0$", "", text)


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs like ('train.lr', 0.1) of nested mappings."""
    for key, value in (tree or {}).items():
        yield from (
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else [(f"{prefix}{key}", value)]
        )


def group(results: Sequence[Result], over: Sequence[str]) -> dict[str, list[Result]]:
    """Results that differ in nothing but the facts `over`, under the name of what sets their group apart.

    A name is like `train.dropout=0.1,train.lr=0.01`, or `all` of a single group. A file that only some groups have
    at all (another network's) sets none apart: the parameter that chose it does.
    """
    values: dict[str, set[str]] = {}
    for result in results:
        for key, value in result.facts.items():
            values.setdefault(key, set()).add(value)
    groups: dict[str, list[Result]] = {}
    for result in results:
        apart = [
            f"{k}={v}" for k, v in result.facts.items() if k not in over and len(values[k]) > 1
        ]
        groups.setdefault(",".join(apart) or "all", []).append(result)
    return groups


def one_each(members: Sequence[Result], over: Sequence[str]) -> tuple[list[Result], list[Result]]:
    """The first result of each seed (or of what else `over` names), in their order, and the others.

    A run that was done twice is no second sample.
    """
    first: dict[tuple[str, ...], Result] = {}
    for result in members:
        first.setdefault(label(result, over), result)
    chosen = [
        first[key] for key in sorted(first, key=lambda key: [(len(part), part) for part in key])
    ]
    return chosen, [result for result in members if result not in chosen]


def label(result: Result, over: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        result.facts.get(key, "") for key in over
    )  # an older commit may not know the parameter


def predictions(result: Result) -> np.ndarray:
    """(images, 3) of text: image, actual and predicted class; from DVC's cache, without touching the workspace."""
    import dvc.api  # half a second to import
    from dvc.exceptions import DvcException

    try:
        text = dvc.api.read(
            "plots/predictions.csv", rev=None if result.commit == "workspace" else result.commit
        )
    except (DvcException, OSError):
        raise UserError(
            f"no predictions of {result.name} (DVC's cache): `dvc exp pull` or `dvc pull` them"
        ) from None
    return np.array([line[:3] for line in list(csv.reader(io.StringIO(text, newline="")))[1:]])


def run(*command: str) -> str:
    """What a command prints.

    Raises:
        UserError: it failed; with its last line.
    """
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("ERROR: ")
        raise UserError(f"{last} ({' '.join(command[:3])}): mend this and run again")
    return done.stdout
