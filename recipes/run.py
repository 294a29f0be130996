"""Run recipes as DVC experiments, without losing the result of an earlier run at any moment."""

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
RESULTS = ("params.yaml", "dvc.lock", "metrics", "plots")  # what an experiment leaves in Git's view


def run(chosen: dict[str, dict[str, Any]], queue: bool) -> None:
    """One experiment per recipe, of its name, each from params.yaml as it is now."""
    before = PARAMS.read_bytes()
    for name, values in chosen.items():
        files.write_bytes(PARAMS, before)  # without the values of the recipe before
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

    An earlier experiment of the name becomes NAME-before. It is removed when this one is complete,
    and gets its name back when this one fails. If this one is queued, it stays.
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
    """A dvc command, in this process and this terminal; returns its exit code.

    An experiment starts with a checkout of the last commit. If that has no dvc.lock, DVC warns of
    each output that it will not be created, which is no news.

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
    """A name for the commits of DVC's experiments, on a new machine where Git has none."""
    command = ["git", "config", "user.email"]
    if subprocess.run(command, capture_output=True, check=False).returncode == 0:
        return {}
    roles = ("AUTHOR", "COMMITTER")
    names = {f"GIT_{role}_NAME": "nobody" for role in roles}
    return names | {f"GIT_{role}_EMAIL": "nobody@localhost" for role in roles}


def ref(name: str) -> str:
    """Git's name for an experiment on the last commit, as DVC chooses it."""
    head = git("rev-parse", "HEAD")
    return f"refs/exps/{head[:2]}/{head[2:]}/{name}"


def commit(name: str) -> str:
    """The commit that holds the experiment; '' if there is none."""
    return git("for-each-ref", "--format=%(objectname)", ref(name))


def move(name: str, to: str) -> None:
    """Rename an experiment in one step; `dvc exp rename` deletes the old name first.

    An experiment that has the new name is replaced.
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
    """Make Git look at the files again that DVC wrote.

    It takes a file for unchanged that has the size and the second that it knows.
    """
    for name in git("ls-files", "--", *RESULTS).splitlines():
        if Path(name).exists():
            os.utime(name)


def keep_edits() -> bool:
    """Copy params.yaml if it has uncommitted edits, which the way back would undo. True if so."""
    if not git("status", "--porcelain", "--", str(PARAMS)):
        return False
    KEPT.parent.mkdir(exist_ok=True)
    shutil.copyfile(PARAMS, KEPT)
    return True


def way_back(name: str, edited: bool) -> str:
    """The command that takes the workspace from this experiment back to the last commit."""
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
