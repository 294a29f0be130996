"""Run recipes as DVC experiments, without ever losing the result of an earlier run."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from cifar import UserError, files, params
from recipes.edit import PARAMS

KEPT = Path("runs/params.yaml")  # a copy of the user's edited params.yaml; not in Git
RESULTS = ("params.yaml", "dvc.lock", "metrics", "plots")  # written by an experiment, seen by Git


def run(chosen: dict[str, dict[str, Any]], queue: bool) -> None:
    """Run one experiment per recipe, under its name, each from the current params.yaml."""
    before = PARAMS.read_bytes()
    for name, values in chosen.items():
        files.write_bytes(PARAMS, before)  # without the values of the previous recipe
        data = values.get("fetch.dataset", params.read()["fetch"]["dataset"])
        print(f"recipe {name}, data set {data}", flush=True)
        if code := run_one(name, values, queue):
            sys.exit(code)
    touch()
    if queue:
        files.write_bytes(PARAMS, before)
        print("next: `dvc queue start` runs them, `dvc queue status` shows their progress")


def run_one(name: str, values: dict[str, Any], queue: bool) -> int:
    """Run or queue an experiment; returns DVC's exit code.

    An earlier experiment with this name is renamed NAME-before. It is removed when the new one is
    complete, and gets its name back if the new one fails. If the new one is queued, it is kept.
    """
    if commit(name):
        move(name, f"{name}-before")
    code = 1
    try:
        code = dvc("exp", "run", "--name", name, *(["--queue"] * queue), *settings(values))
    finally:
        if code and not commit(name) and commit(f"{name}-before"):
            move(f"{name}-before", name)
    if not queue and commit(name):
        git("update-ref", "-d", ref(f"{name}-before"))
    return code


def settings(values: dict[str, Any]) -> list[str]:
    return [f"--set-param={k}={json.dumps(v, ensure_ascii=False)}" for k, v in values.items()]


def dvc(*arguments: str) -> int:
    """Run a dvc command in this process and this terminal; returns its exit code.

    An experiment starts with a checkout of the last commit. If that has no dvc.lock, DVC warns that
    it will not create any output; these warnings are suppressed.

    Raises:
        UserError: .dvc/config cannot be read.
    """
    from dvc.cli import main  # half a second to import
    from dvc.config import ConfigError

    os.environ |= identity()
    logging.getLogger("dvc_data.index.checkout").addFilter(is_news)
    try:
        return int(main(list(arguments)))
    except ConfigError as error:
        problem = str(error).partition("\n")[0]
        raise UserError(
            f"{problem} (.dvc/config): restore it with `git checkout .dvc/config`"
        ) from None


def is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("No file hash info found")


def identity() -> dict[str, str]:
    """The variables that name an author for DVC's commits, on a machine where Git has none."""
    command = ["git", "config", "user.email"]
    if subprocess.run(command, capture_output=True, check=False).returncode == 0:
        return {}
    roles = ("AUTHOR", "COMMITTER")
    names = {f"GIT_{role}_NAME": "nobody" for role in roles}
    return names | {f"GIT_{role}_EMAIL": "nobody@localhost" for role in roles}


def ref(name: str) -> str:
    """The Git reference that DVC gives to an experiment on the last commit."""
    head = git("rev-parse", "HEAD")
    return f"refs/exps/{head[:2]}/{head[2:]}/{name}"


def commit(name: str) -> str:
    """The commit of the experiment; '' if it does not exist."""
    return git("for-each-ref", "--format=%(objectname)", ref(name))


def move(name: str, to: str) -> None:
    """Rename an experiment in one step; `dvc exp rename` deletes the old name first.

    An experiment that already has the new name is replaced.
    """
    commands = f"update {ref(to)} {commit(name)}\ndelete {ref(name)} {commit(name)}\n"
    git("update-ref", "--stdin", text=commands)


def git(*arguments: str, text: str = "") -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        message = (done.stderr.strip() or "no message").splitlines()[-1]
        raise UserError(f"{message} (git {arguments[0]}): fix this and run again")
    return done.stdout.strip()


def touch() -> None:
    """Make Git check the files that DVC wrote.

    Git assumes that a file with the same size and the same second of modification is unchanged.
    """
    for name in git("ls-files", "--", *RESULTS).splitlines():
        if Path(name).exists():
            os.utime(name)


def keep_edits() -> bool:
    """Save params.yaml if it has uncommitted edits, which `way_back` would undo; True if it has."""
    if not git("status", "--porcelain", "--", str(PARAMS)):
        return False
    KEPT.parent.mkdir(exist_ok=True)
    shutil.copyfile(PARAMS, KEPT)
    return True


def way_back(name: str, edited: bool) -> str:
    """The shell command that takes the workspace from this experiment back to the last commit."""
    tracked = [path for path in RESULTS if git("ls-tree", "HEAD", "--", path)]
    added = git("diff", "--name-only", "--diff-filter=A", "HEAD", commit(name)).splitlines()
    steps = [f"git checkout {' '.join(tracked)}"]
    if added:
        steps.append(f"rm -f {' '.join(added)}")
    if "dvc.lock" in tracked:
        steps.append("dvc checkout")
    if edited:
        steps.append(f"cp {KEPT} {PARAMS}")
    return " && ".join(steps)
