"""A record that does not agree with its commit is refused; the first difference is named."""

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
    """The only stage in dvc.lock."""
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
        ("dvc.yaml", b"stages: {train: {cmd: other}}\n", "stage train has a different command"),
        ("dvc.yaml", b"stages: {train: {}, plot: {}}\n", "stage plot was not run"),
        ("params.yaml", b"train: {lr: 0.2}\n", "stage train was run with a `train.lr`"),
        ("params.yaml", b"train: {}\n", "dvc.lock, dvc.yaml or params.yaml is damaged"),
        ("metrics/train.json", b"{}\n", "metrics/train.json in Git differs from the recorded file"),
    ],
)
def test_what_contradicts_the_record_is_named(path, content, problem):
    """A different command, parameter or metric and an unreadable file are one-line errors."""
    recorded = commit(stage())
    recorded.files[path] = content
    with pytest.raises(UserError, match=f"^{re.escape(problem)}.*dvc.lock of HEAD"):
        consistency.check(recorded)


@pytest.mark.hostile
def test_stages_in_a_circle_are_damage():
    """Stages that depend on each other cannot be run in any order."""
    entry = stage()
    entry["deps"] = entry["outs"]
    with pytest.raises(UserError, match=r"is damaged .dvc.lock of HEAD"):
        consistency.check(commit(entry))


def test_code_is_compared_with_the_checkout(tmp_path):
    """The same file passes; a different one is an error that names it."""
    path = tmp_path / "stages/train.py"
    path.parent.mkdir()
    path.write_bytes(b"code")
    consistency.check_code(commit(stage()), tmp_path)
    path.write_bytes(b"other code")
    with pytest.raises(UserError, match=r"^stage train was run with an untracked stages/train.py"):
        consistency.check_code(commit(stage()), tmp_path)
