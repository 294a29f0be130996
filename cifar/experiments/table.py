"""Read DVC's experiments and commits as records: the inputs of each run, and its metrics."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar import UserError, yaml12

TRAINED = ("fetch", "preprocess", "train")  # the stages behind training and validation numbers


@dataclass(frozen=True)
class Result:
    """A finished run: its name, commit, inputs and metrics.

    `inputs` holds parameters ({'train.lr': '0.1'}) and the hashes of source files and raw data
    ({'stages/train.py': '1a2b3c4'}); `metrics` holds only numbers that belong to this run.
    """

    name: str
    commit: str
    inputs: dict[str, str]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Entry:
    """One line of `dvc exp show`; `state` is success, queued, failed, ..., or commit."""

    name: str
    state: str
    commit: str
    data: dict[str, Any]

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Maps the path of each metrics file to its content."""
        contents = {path: file.get("data") for path, file in self.data.get("metrics", {}).items()}
        return {path: content for path, content in contents.items() if isinstance(content, dict)}


def read(all_commits: bool = True) -> tuple[list[Result], list[str]]:
    """All finished runs, experiments before commits; and a line for each reason to omit others.

    Raises:
        UserError: git or dvc fails.
    """
    results: list[Result] = []
    left_out: dict[str, list[str]] = {}
    for entry in entries(all_commits):
        try:
            finished, reason = result(entry)
        except UserError:
            finished, reason = None, "left out, its dvc.lock is damaged"
        if finished:
            results.append(finished)
        if reason:
            left_out.setdefault(reason, []).append(entry.name)
    return results, [f"{reason}: {', '.join(names)}" for reason, names in left_out.items()]


def entries(all_commits: bool) -> Iterator[Entry]:
    """Yield the experiments in `dvc exp show`, then the commits, then the workspace."""
    revisions = [f"--rev={commit}" for commit in commits()] if all_commits else []
    listed = json.loads(run("dvc", "exp", "show", "--json", *revisions))
    for commit in listed:
        for experiment in commit["experiments"] or []:
            last = (experiment["revs"] or [{}])[0]
            state = (experiment["executor"] or {}).get("state") or "success"
            rev = last.get("rev", "")
            yield Entry(experiment["name"] or rev[:7], state, rev, last.get("data") or {})
    head = run("git", "rev-parse", "HEAD").strip()
    for commit in [*listed[1:], *listed[:1]]:
        rev = commit["rev"]
        name = {head: "HEAD", "workspace": rev}.get(rev, rev[:7])
        yield Entry(name, "commit", rev, commit["data"] or {})


def commits() -> list[str]:
    """HEAD, the commits that changed dvc.lock, and those that experiments started from.

    Reading all commits (--all-commits) would add no result; DVC reads only five of them a second.
    """
    head = run("git", "rev-parse", "HEAD").split()
    changed = run("git", "log", "--format=%H", "--", "dvc.lock").split()
    references = run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    started = [re.match(r"refs/exps/(\w\w)/(\w{38})/", name) for name in references]
    return list(dict.fromkeys([*head, *changed, *(m[1] + m[2] for m in started if m)]))


def result(entry: Entry) -> tuple[Result | None, str]:
    """The run of an entry, or None; and why it or its test numbers are left out, if they are.

    Raises:
        UserError: its dvc.lock is damaged.
    """
    if entry.state not in ("success", "commit"):
        return None, f"left out, {entry.state}"
    if not entry.files:
        return None, "left out, without metrics" if entry.state == "success" else ""
    lock = read_lock(entry.commit)
    if not lock:
        return without_lock(entry)
    inputs = inputs_of(lock)
    if not inputs:
        return None, "left out, its stages do not fit together (`dvc repro` there)"
    numbers = dict(numbers_of(entry.files))
    if evaluated(lock) and models(entry) != "different":
        return Result(entry.name, entry.commit, inputs, numbers), ""
    kept = {key: value for key, value in numbers.items() if not key.startswith("test.")}
    foreign = "test numbers left out, they belong to another model" if kept != numbers else ""
    return Result(entry.name, entry.commit, inputs, kept), foreign


def without_lock(entry: Entry) -> tuple[Result | None, str]:
    """The run of an entry without dvc.lock: HEAD in a fresh clone, if its metrics are of one model.

    Otherwise None, and the reason.
    """
    if entry.name == "HEAD" and models(entry) == "same":
        recorded = entry.data["params"]["params.yaml"]["data"]
        values = {name: value for name, value in recorded.items() if name != "plot"}
        inputs = {key: plain(value) for key, value in flatten(values)}
        return Result(entry.name, entry.commit, inputs, dict(numbers_of(entry.files))), ""
    return None, "left out, without dvc.lock"


def models(entry: Entry) -> str:
    """Whether training and test numbers belong to one model: same, different, or unknown."""
    names = [entry.files.get(f"metrics/{part}.json", {}).get("model") for part in ("train", "test")]
    if None in names:
        return "unknown"
    return "same" if names[0] == names[1] else "different"


def numbers_of(contents: dict[str, dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """Yield pairs like ('test.accuracy', 0.99) from all metrics files."""
    for content in contents.values():
        yield from ((k, v) for k, v in flatten(content) if isinstance(v, int | float))


def read_lock(commit: str) -> dict[str, Any]:
    """The stages in dvc.lock of a commit or of the workspace; empty without such a file.

    Raises:
        UserError: the file is damaged.
    """
    try:
        if commit == "workspace":
            text = Path("dvc.lock").read_text("utf-8", "replace")
        else:
            text = run("git", "show", f"{commit}:./dvc.lock")
    except (FileNotFoundError, UserError):
        return {}
    try:
        stages = (yaml12.loads(text, "dvc.lock") or {}).get("stages", {})
        check_lock(stages)
    except (UserError, AttributeError, LookupError, TypeError, ValueError):
        raise UserError(
            "damaged (dvc.lock): restore it with `git checkout dvc.lock`, or delete it and run "
            "`dvc repro`"
        ) from None
    return dict(stages)


def check_lock(stages: dict[str, Any]) -> None:
    """Access all that is used of the stages in a dvc.lock; damage raises almost any exception."""
    for entry in stages.values():
        dict(entry.get("params", {}).get("params.yaml", {}))
        for file in [*entry.get("deps", []), *entry.get("outs", [])]:
            _ = file["path"] + file["md5"]


def inputs_of(stages: dict[str, Any]) -> dict[str, str]:
    """The parameters, source files and raw data in a dvc.lock.

    Those of evaluate are included if it has run on the latest model. Empty if a training stage has
    not run on the latest outputs of the one before. params.yaml may have been edited since.
    """
    inputs: dict[str, str] = {}
    if not stages.keys() >= set(TRAINED) or set(TRAINED) & set(stale(stages)):
        return {}
    for name in [*TRAINED, *(["evaluate"] if evaluated(stages) else [])]:
        for key, value in flatten(stages[name].get("params", {}).get("params.yaml")):
            inputs[key] = plain(value)
        for file in stages[name].get("deps", []):
            if file["path"].endswith(".py") or file["path"] == "data/fetched":
                inputs[file["path"]] = file["md5"][:7]
    return inputs


def evaluated(stages: dict[str, Any]) -> bool:
    """Whether the test numbers belong to the latest model."""
    return "evaluate" in stages and "evaluate" not in stale(stages)


def stale(stages: dict[str, Any]) -> list[str]:
    """The stages in a dvc.lock that have not run on the latest outputs of others."""
    made = {out["path"]: out["md5"] for entry in stages.values() for out in entry.get("outs", [])}
    needed = [(name, file) for name, entry in stages.items() for file in entry.get("deps", [])]
    old = [name for name, file in needed if made.get(file["path"], file["md5"]) != file["md5"]]
    return list(dict.fromkeys(old))


def plain(value: Any) -> str:
    """A parameter as text, 0.0 in the same way as 0; also at the end of `train.dropout=0.0`."""
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"(?<=\d)\.0$", "", text)


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield pairs like ('train.lr', 0.1) from nested mappings."""
    for key, value in (tree or {}).items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def run(*command: str) -> str:
    """The output of a command.

    Raises:
        UserError: it failed or does not exist.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except FileNotFoundError:
        problem = f"command {command[0]} not found (PATH)"
        raise UserError(f"{problem}: activate the environment") from None
    if done.returncode:
        call = " ".join(command[:3])
        raise UserError(f"{error_of(done.stderr)} ({call}): fix this and run it again")
    return done.stdout


def error_of(text: str) -> str:
    """The first error in the output of dvc or git, without its label; else the first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match("(error|fatal): ", line, re.IGNORECASE)]
    return re.sub("^(?i:error|fatal): ", "", (errors or lines or ["no message"])[0])
