"""Prepare a folder with the code of one commit, so that the runner leaves the user's files alone.

Only the code is checked out. What the stages write there (data, checkpoints, outputs) is kept from
one call to the next.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from cifar import UserError, files, params

CODE = ["cifar", "stages", "recipes", "benchmarks", "params.yaml", "dvc.yaml"]
OUTPUTS = {  # for each stage of a result: what it writes last, and what the result is made from
    "fetch": ["data/fetched/dataset.json"],
    "preprocess": ["data/processed/dataset.json"],
    "train": ["models/model.json", "plots/history.csv", "metrics/train.json"],
    "evaluate": ["metrics/test.json"],
}
# Counts the floating-point operations of a training step, per image, with the code in the folder.
FLOPS = """
import json, sys
from benchmarks.loops import flops
from cifar.params.train import Train
print(json.dumps([flops(Train(**section)) for section in json.load(sys.stdin)]))
"""


def git(*words: str, **environment: str) -> str:
    """The output of a git command in the current folder.

    Raises:
        UserError: the command failed.
    """
    command, settings = ["git", *words], os.environ | environment
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        problem = (done.stderr.strip().splitlines() or ["it failed"])[-1].removeprefix("fatal: ")
        raise UserError(f"{problem} (git {words[0]}): run this in the root of the repository")
    return done.stdout.strip()


def resolve(revision: str) -> str:
    """The full hash of a commit."""
    try:
        return git("rev-parse", "--verify", f"{revision}^{{commit}}")
    except UserError:
        raise UserError(
            f"no commit {revision!r} (--commit): pass one, in the root of a Git repository"
        ) from None


def check_out(folder: Path, commit: str) -> None:
    """Put the code of `commit` into `folder`, and link the downloads of the current folder."""
    noted = folder / "commit"
    if noted.exists() and noted.read_text() == commit:
        return
    folder.mkdir(parents=True, exist_ok=True)
    noted.unlink(missing_ok=True)
    for name in ("cifar", "stages", "recipes", "benchmarks"):
        shutil.rmtree(folder / name, ignore_errors=True)
    index = {"GIT_INDEX_FILE": str((folder / "index").resolve())}
    git(f"--work-tree={folder.resolve()}", "checkout", commit, "--", *CODE, **index)
    link_downloads(folder)
    files.write_bytes(noted, commit.encode())


def link_downloads(folder: Path) -> None:
    """Let `folder` use the downloads of the current folder."""
    if not (folder / ".downloads").exists():
        Path(".downloads").mkdir(exist_ok=True)
        (folder / ".downloads").symlink_to(Path(".downloads").resolve())


def apply(folder: Path, commit: str, recipe: str, overrides: list[str]) -> dict[str, Any]:
    """Write the commit's params.yaml into `folder`, updated by the recipe, then the overrides."""
    text = git("show", f"{commit}:params.yaml") + "\n"
    files.write_bytes(folder / "params.yaml", text.encode())
    return apply_recipe(folder, recipe, overrides)


def copy_code(folder: Path) -> None:
    """Copy the code of the current folder into `folder`, without Git."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CODE:
        if Path(name).is_dir():
            shutil.copytree(name, folder / name, dirs_exist_ok=True)
        else:
            shutil.copyfile(name, folder / name)
    link_downloads(folder)


def apply_recipe(folder: Path, recipe: str, overrides: list[str]) -> dict[str, Any]:
    """Update the folder's params.yaml by the values of a recipe, then by the overrides."""
    sets = [word for item in overrides for word in ("-S", item)]
    python(folder, "-m", "recipes", "apply", recipe, *sets)
    return params.read(folder / "params.yaml")


def flops(folder: Path, sections: list[dict[str, Any]]) -> list[float]:
    """The operations of a training step, per image, for each of these `train` sections."""
    return json.loads(python(folder, "-c", FLOPS, text=json.dumps(sections)))


def begin(folder: Path, job: dict[str, Any]) -> bool:
    """Prepare the folder for a job. True if the job was begun before, so that its outputs count.

    Outputs of another job are removed first, so that all later ones belong to this job.
    """
    noted = folder / "job.json"
    begun = noted.exists() and files.read_json(noted) == job
    if not begun:
        noted.unlink(missing_ok=True)
        for name in ("data", "models", "metrics", "plots"):
            shutil.rmtree(folder / name, ignore_errors=True)
    files.write_json(folder / "params.yaml", job["parameters"])  # JSON is YAML
    files.write_json(noted, job)
    return begun


def is_done(folder: Path, stage: str) -> bool:
    return all((folder / name).exists() for name in OUTPUTS[stage])


def run_stage(folder: Path, stage: str) -> None:
    """Run `python -m stages.STAGE` in the folder, unless its outputs exist.

    Raises:
        UserError: the stage failed; it has printed the reason.
    """
    if is_done(folder, stage):
        return
    command = [sys.executable, "-m", f"stages.{stage}"]
    if subprocess.run(command, cwd=folder, env=environment(), check=False).returncode:
        raise UserError(
            f"the stage {stage} failed, its message is above ({folder}): "
            "fix it and run the same command again"
        )


def python(folder: Path, *words: str, text: str | None = None) -> str:
    """The output of a Python command in the folder.

    Raises:
        UserError: the command failed.
    """
    settings: dict[str, Any] = {"cwd": folder, "env": environment(), "input": text}
    command = [sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
    if done.returncode:
        message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if message.startswith("error: "):  # one of ours, which says how to fix it
            raise UserError(message.removeprefix("error: "))
        raise UserError(f"{message} ({folder}): fix the cause and run the same command again")
    return done.stdout


def environment() -> dict[str, str]:
    """The user's environment variables, without those that point to another repository."""
    foreign = ("GIT_", "DVC_", "PYTHONPATH")
    return {key: value for key, value in os.environ.items() if not key.startswith(foreign)}


def code(folder: Path, model: str) -> str:
    """A hash of the Python files that dvc.yaml lists for the stages of a result."""
    stages = params.read(folder / "dvc.yaml")["stages"]
    names = {dep for stage in OUTPUTS for dep in stages[stage]["deps"] if dep.endswith(".py")}
    paths = sorted(name.replace("${train.model}", model) for name in names)
    text = "".join(f"{path} {files.sha256(folder / path)}\n" for path in paths)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
