"""A record that does not fit its commit is refused, with the first thing that differs."""

import hashlib
import re
from dataclasses import dataclass, field

import pytest

from cifar import UserError
from cifar.experiments import consistency
from cifar.experiments.recorded import Recorded

METRICS = b'{"accuracy": 1}\n'
DVC = "stages: {train: {cmd: python -m stages.train}}\n"


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def stage():
    """What dvc.lock says of the one stage."""
    return {
        "cmd": "python -m stages.train",
        "deps": [{"path": "stages/train.py", "md5": md5(b"code")}],
        "params": {"params.yaml": {"train.lr": 0.1}},
        "outs": [{"path": "metrics/train.json", "md5": md5(METRICS)}],
    }


@dataclass(frozen=True)
class Commit(Recorded):
    """A recorded result with the files of its commit at hand."""

    files: dict[str, bytes] = field(default_factory=dict)

    def content(self, path: str) -> bytes:
        return self.files[path]


def commit(entry):
    files = {
        "dvc.yaml": DVC.encode(),
        "params.yaml": b"train: {lr: 0.1}\n",
        "metrics/train.json": METRICS,
    }
    return Commit("HEAD", "ab" * 20, {"train": entry}, frozenset(files), files)


def test_a_record_that_fits_passes():
    """Command, parameters and files in Git are as dvc.lock says."""
    consistency.check(commit(stage()))


@pytest.mark.parametrize(
    ("path", "content", "problem"),
    [
        ("dvc.yaml", b"stages: {train: {cmd: other}}\n", "stage train has another command"),
        ("dvc.yaml", b"stages: {train: {}, plot: {}}\n", "stage plot was not run"),
        ("params.yaml", b"train: {lr: 0.2}\n", "stage train was run with another `train.lr`"),
        ("params.yaml", b"train: {}\n", "damaged, or dvc.yaml or params.yaml is"),
        ("metrics/train.json", b"{}\n", "metrics/train.json in Git is not the recorded one"),
    ],
)
def test_what_contradicts_the_record_is_named(path, content, problem):
    """Another command, parameter or metric, and files that cannot be read, are one line each."""
    recorded = commit(stage())
    recorded.files[path] = content
    with pytest.raises(UserError, match=f"^{re.escape(problem)}.*dvc.lock of HEAD"):
        consistency.check(recorded)


@pytest.mark.hostile
def test_stages_in_a_circle_are_damage():
    """Stages that need each other have no order in which they could run."""
    entry = stage()
    entry["deps"] = entry["outs"]
    with pytest.raises(UserError, match=r"^damaged.*dvc.lock of HEAD"):
        consistency.check(commit(entry))


def test_code_is_compared_with_the_checkout(tmp_path):
    """The same file passes; another one is an error that names it."""
    path = tmp_path / "stages/train.py"
    path.parent.mkdir()
    path.write_bytes(b"code")
    consistency.check_code(commit(stage()), tmp_path)
    path.write_bytes(b"other code")
    with pytest.raises(UserError, match=r"^stage train was run with an untracked stages/train.py"):
        consistency.check_code(commit(stage()), tmp_path)
