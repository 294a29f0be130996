"""A search: ranges are checked, trials are experiments, and one that was stopped goes on."""

import json
import re
import signal
import subprocess
import sys

import psutil
import pytest

from cifar import UserError
from tools import search

TRAIN = ["-m", "stages.train"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.lr: {log: [0.2, 0.1]}", "train.lr: 0.2 is not below 0.1"),
        ("train.lr: {log: [0, 0.1]}", "train.lr: [0, 0.1] is no range of kind log"),
        ("train.lr: {logarithmic: [0.1, 0.2]}", "train.lr: {'logarithmic': [0.1, 0.2]} (ranges.yaml): write {KIND:"),
        ("train.lr: 0.1", "train.lr: 0.1 (ranges.yaml): write {KIND: [LOW, HIGH]}"),
        ("train.lr: {float: [0.1, high]}", "train.lr: [0.1, 'high'] is no range of kind float"),
        ("train.epochs: {int: [1, 2.5]}", "train.epochs: [1, 2.5] is no range of kind int"),
        ("train.droput: {float: [0, 0.5]}", "unknown key train.droput (did you mean dropout?)"),
        ("train.dropout: {float: [0, 1]}", "train.dropout = 1.0: should be less than 1"),
        ("train.optimizer: {choice: [sgd, adm]}", "train.optimizer = 'adm': should be"),
        ("train.optimizer: {choice: []}", "train.optimizer: [] is no range"),
        ("preprocess.val_fraction: {float: [0.1, 0.2]}", "preprocess.val_fraction (ranges.yaml): only parameters of"),
    ],
)
def test_a_range_that_params_could_not_hold_is_refused(text, message, project, monkeypatch):
    """An unknown key, kind or value, and a range the wrong way round, are errors before the first trial."""
    monkeypatch.chdir(project.path)
    (project.path / "ranges.yaml").write_text(text)
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        search.read_ranges("ranges.yaml")


def test_the_example_fits(project, monkeypatch):
    """docs/search.example.yaml has every kind of range and fits params.yaml."""
    monkeypatch.chdir(project.path)
    kinds = {kind for kind, _ in search.read_ranges("docs/search.example.yaml").values()}
    assert kinds == set(search.KINDS)


class Study:
    """Stands for Optuna's trial: notes reports, and has the training stopped after the first."""

    def __init__(self):
        self.reports = []

    def report(self, value, step):
        self.reports.append((step, value))

    def should_prune(self):
        return True


def test_a_hopeless_trial_is_stopped(reproduced, monkeypatch):
    """When the pruner says so after an epoch, training ends there, no experiment is kept and none is left running."""
    monkeypatch.chdir(reproduced.path)
    for key, value in reproduced.environment().items():
        monkeypatch.setenv(key, value)
    trial = Study()
    assert search.run(trial, "hopeless", {"train.epochs": 100000, "train.lr": 0.01}) is None
    assert 1 <= len(trial.reports) < 1000 and trial.reports[0][0] == 1 and 0 <= trial.reports[0][1] <= 1
    assert "hopeless" not in reproduced.run("dvc", "exp", "list", "--name-only").stdout
    assert not alive(reproduced)


def alive(project):
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cmdline"] and process.info["cmdline"][1:] == TRAIN and process.info["cwd"] == str(project.path)
    ]


def test_a_search_goes_on(reproduced):
    """Trials are experiments, judged on validation images; a second call adds what is missing; none is evaluated."""
    pytest.importorskip("optuna", reason="dependency group search is not installed")
    (reproduced.path / "small.yaml").write_text("train.lr: {log: [0.01, 0.1]}\ntrain.dropout: {float: [0, 0.4]}\n")
    before = (reproduced.path / "params.yaml").read_bytes()
    for trials in ("1", "2", "2"):
        done = reproduced.run("python", "-m", "tools.search", "small.yaml", "--trials", trials)
    assert "epoch" not in done.stdout, "nothing was missing the third time"
    names = {"small-0", "small-1"}
    assert set(reproduced.run("dvc", "exp", "list", "--name-only").stdout.split()) == names
    assert (reproduced.path / "params.yaml").read_bytes() == before
    accuracies = {}
    for name in names:
        ref = reproduced.run("git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").stdout.strip()
        accuracies[name] = json.loads(reproduced.run("git", "show", f"{ref}:metrics/train.json").stdout)["val"][
            "accuracy"
        ]
    assert f"{max(accuracies.values()):.2%} of the validation images" in done.stdout
    assert "metrics/test.json" not in reproduced.run("git", "status", "--porcelain").stdout


def test_ctrl_c_ends_a_search_and_its_training(reproduced):
    """Ctrl-C is one line and 130, params.yaml is as it was, and the trial is put up again, with the same values."""
    pytest.importorskip("optuna", reason="dependency group search is not installed")
    reproduced.edit("params.yaml", lambda text: re.sub(r"epochs: \d+", "epochs: 100000", text, count=1))
    (reproduced.path / "small.yaml").write_text("train.lr: {log: [0.01, 0.1]}\n")
    before = (reproduced.path / "params.yaml").read_bytes()
    running = subprocess.Popen(
        [sys.executable, "-m", "tools.search", "small.yaml"],
        cwd=reproduced.path,
        env=reproduced.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "epoch 1/" in next(iter(running.stdout))
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=120)
        assert running.returncode == 130 and not alive(reproduced)
    finally:
        reproduced.end()
        running.wait()
    assert errors.startswith("error: interrupted") and len(errors.splitlines()) == 1
    assert (reproduced.path / "params.yaml").read_bytes() == before
    study = search.open_study("small", f"sqlite:///{reproduced.path}/runs/search.db")
    stopped, waiting = study.trials
    assert (stopped.state.name, waiting.state.name) == ("FAIL", "WAITING")
    assert waiting.system_attrs["fixed_params"] == stopped.params
