"""A recorded result: the dvc.lock of a commit, and the outputs that it lists."""

import functools
import hashlib
import json
import re
import subprocess
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from cifar import UserError, params, yaml12

EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(.+)")


@dataclass(frozen=True)
class Recorded:
    """The result of one commit.

    Attributes:
        name: the name that the user gave.
        commit: 40 hex digits.
        stages: as in dvc.lock.
        in_git: the paths of all files of the commit.
    """

    name: str
    commit: str
    stages: dict[str, Any]
    in_git: frozenset[str]

    @property
    def outputs(self) -> dict[str, str]:
        """Maps the path of each output to DVC's md5."""
        return {
            out["path"]: out["md5"]
            for stage in self.stages.values()
            for out in stage.get("outs", [])
        }

    @property
    def order(self) -> list[str]:
        """The stages, each after those whose outputs it reads."""
        writer = {
            out["path"]: name
            for name, stage in self.stages.items()
            for out in stage.get("outs", [])
        }
        graph = {
            name: [writer[dep["path"]] for dep in stage.get("deps", []) if dep["path"] in writer]
            for name, stage in self.stages.items()
        }
        return list(TopologicalSorter(graph).static_order())

    @property
    def title(self) -> str:
        short = self.commit[:7]
        return short if self.commit.startswith(self.name) else f"{self.name} ({short})"

    def content(self, path: str) -> bytes:
        """The content of a file of the commit."""
        return git("show", f"{self.commit}:{path}")

    def copy(self, path: str, target: Path) -> None:
        """Write the recorded output `path` to `target`.

        Raises:
            UserError: it is not in Git, DVC's cache or a remote.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        if path in self.in_git:
            target.write_bytes(self.content(path))
            return
        try:
            storage(self.commit).get(path, str(target), recursive=True)
        except Exception as error:  # noqa: BLE001  each kind of remote raises its own
            reason = "" if isinstance(error, FileNotFoundError) else f", {error}"
            raise UserError(
                f"no {path} of {self.title} in DVC's cache or a remote{reason} (dvc.lock): "
                "run `dvc push` where it was made"
            ) from None


@functools.lru_cache(maxsize=1)
def storage(commit: str) -> Any:
    """DVC's files at a commit, from the cache or else a remote."""
    from dvc.api import DVCFileSystem  # a second to import

    return DVCFileSystem(rev=commit)


def read(name: str) -> Recorded:
    """The recorded result of a commit, branch, tag or experiment.

    Raises:
        UserError: nothing has this name, or it has no readable dvc.lock.
    """
    commit = find(name)
    in_git = frozenset(git("ls-tree", "-r", "-z", "--name-only", commit).decode().split("\0"))
    if "dvc.lock" not in in_git:
        raise UserError(
            f"no recorded result, {name} has no dvc.lock (the default has none yet): "
            "choose another commit, or an experiment from `dvc exp list --all`"
        )
    text = git("show", f"{commit}:dvc.lock").decode(errors="replace")
    lock = yaml12.loads(text, f"dvc.lock of {name}")
    try:
        stages = dict(lock["stages"])
    except (LookupError, TypeError, ValueError):
        stages = {}
    if not stages:
        raise UserError(f"no stages (dvc.lock of {name}): choose another commit")
    return Recorded(name, commit, stages, in_git)


def find(name: str) -> str:
    """The commit that Git knows by this name, or else that of the experiment with this name.

    If several experiments have this name, the one that started from the last commit is found.

    Raises:
        UserError: nothing has this name, or several experiments of other commits have it.
    """
    try:
        return git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").decode().strip()
    except UserError:
        pass
    experiments: dict[str, list[tuple[str, str]]] = {}
    listed = git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").decode()
    for line in listed.splitlines():
        commit, ref = line.split(" ", 1)
        if match := EXPERIMENT.fullmatch(ref):
            experiments.setdefault(match[1], []).append((commit, ref))
    matches = experiments.get(name, [])
    if len(matches) > 1:
        head = git("rev-parse", "HEAD").decode().strip()
        matches = [(c, ref) for c, ref in matches if head in ref.replace("/", "")] or matches
    if len(matches) == 1:
        return matches[0][0]
    if matches:
        commits = ", ".join(commit[:7] for commit, _ in matches)
        problem = f"{len(matches)} experiments are called {name}"
        raise UserError(f"{problem} ({commits}): choose one of these commits")
    hint = params.did_you_mean(name, experiments)
    raise UserError(
        f"no commit or experiment {name}{hint} (command line): "
        "`git log` and `dvc exp list --all` list them"
    )


def md5(path: Path) -> str:
    """DVC's checksum of a file or a folder; empty if it does not exist."""
    if path.is_dir():
        entries = [
            {"md5": md5(file), "relpath": file.relative_to(path).as_posix()}
            for file in path.rglob("*")
            if file.is_file()
        ]
        entries.sort(key=lambda entry: entry["relpath"])
        return md5_of(json.dumps(entries, sort_keys=True).encode()) + ".dir"
    if not path.is_file():
        return ""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def git(*arguments: str) -> bytes:
    """The output of a Git command.

    Raises:
        UserError: it failed; the message is the last line of its error.
    """
    done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise UserError(f"{lines[-1]} (git {arguments[0]}): fix this and run again")
    return done.stdout
