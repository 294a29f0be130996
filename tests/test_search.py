"""A search: ranges are checked, trials are experiments, and one that was stopped goes on."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

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
        (
            "train.lr: {logarithmic: [0.1, 0.2]}",
            "train.lr: {'logarithmic': [0.1, 0.2]} (ranges.yaml): write {KIND:",
        ),
        ("train.lr: 0.1", "train.lr: 0.1 (ranges.yaml): write {KIND: [LOW, HIGH]}"),
        ("train.lr: {float: [0.1, high]}", "train.lr: [0.1, 'high'] is no range of kind float"),
        ("train.epochs: {int: [1, 2.5]}", "train.epochs: [1, 2.5] is no range of kind int"),
        ("train.droput: {float: [0, 0.5]}", "unknown key train.droput (did you mean dropout?)"),
        ("train.dropout: {float: [0, 1]}", "train.dropout = 1.0: should be less than 1"),
        ("train.optimizer: {choice: [sgd, adm]}", "train.optimizer = 'adm': should be"),
        ("train.optimizer: {choice: []}", "train.optimizer: [] is no range"),
        ("{}", "no ranges (ranges.yaml): write for example"),
        ("", "no sections (ranges.yaml)"),
        (
            "preprocess.val_fraction: {float: [0.1, 0.2]}",
            "preprocess.val_fraction (ranges.yaml): only parameters of",
        ),
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


@pytest.fixture
def printed(project, monkeypatch):
    """`dvc` only prints these lines, and leaves a validation accuracy of 50 %."""

    def stand_in(*lines, code=0):
        folder = project.path / "bin"
        folder.mkdir(exist_ok=True)
        metrics = 'mkdir -p metrics; echo \'{"val": {"accuracy": 0.5}}\' > metrics/train.json'
        script = "\n".join(
            ["#!/bin/sh", *(f"echo '{line}'" for line in lines), metrics, f"exit {code}", ""]
        )
        (folder / "dvc").write_text(script)
        (folder / "dvc").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.chdir(project.path)

    return stand_in


LINE = "epoch {}: train loss 1.2, accuracy 31.00%; validation loss 1.1, accuracy {}%; 9 images/s"


def test_a_trial_that_has_trained_is_kept(printed):
    """After the last epoch nothing is left to save, so none is stopped there; in an ensemble none is stopped at all."""
    printed(LINE.format("1/1", 44))
    trial = Study()
    assert search.run(trial, "last", {}) == 0.5 and trial.reports == [(1, 0.44)]
    printed(*(LINE.format(epoch, 44) for epoch in ("1/2", "2/2", "1/2", "2/2")))
    trial = Study()
    assert search.run(trial, "two", {"train.ensemble": 2}) == 0.5 and trial.reports == []


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Running stage", "ERROR: failed: no room", "a hint"], "failed: no room"),
        (["Running stage", "Killed: by someone"], "Killed: by someone"),
        ([], "no message"),
    ],
)
def test_what_a_failed_trial_says(printed, lines, message):
    """The first error in what it printed, else its last line, whole."""
    printed(*lines, code=1)
    with pytest.raises(UserError, match=rf"^{message} \(experiment bad\)$"):
        search.run(Study(), "bad", {})


@pytest.fixture
def command(project, monkeypatch):
    """The command, with trials that end as they are told, instead of trainings; and its study."""
    pytest.importorskip("optuna", reason="dependency group search is not installed")
    monkeypatch.chdir(project.path)
    (project.path / "small.yaml").write_text("train.lr: {log: [0.01, 0.1]}\n")

    def run(outcome, *words):
        def end(*_):
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr(search, "run", end)
        monkeypatch.setattr("sys.argv", ["search", "small.yaml", *words])
        search.main()

    return run


def states():
    return [trial.state.name for trial in search.open_study("small", search.STORAGE).trials]


def test_what_is_put_up_again(command):
    """A trial that failed is not run again, one that was interrupted is; choices that have changed are an error."""
    with pytest.raises(UserError, match=r"^no room"):
        command(UserError("no room"))
    assert states() == ["FAIL"]
    with pytest.raises(KeyboardInterrupt):
        command(KeyboardInterrupt())
    assert states() == ["FAIL", "FAIL", "WAITING"]
    command(0.5, "--trials", "1")
    assert states() == ["FAIL", "FAIL", "COMPLETE"]
    Path("small.yaml").write_text("train.lr: {choice: [0.01, 0.1]}\n")
    with pytest.raises(UserError, match=r"\(train.lr\): take another --study for other ranges$"):
        command(0.5, "--trials", "2")


def test_a_study_is_of_one_set_of_parameters(command, project):
    """What the search does not vary may not change between two calls; pictures and what it varies may."""
    command(0.5, "--trials", "1")
    project.edit("params.yaml", lambda text: re.sub(r"( lr| dpi): [\d.]+", r"\1: 99", text))
    command(0.6, "--trials", "2")
    project.edit(
        "params.yaml", lambda text: re.sub(r"^seed: \d+", "seed: 99", text, flags=re.MULTILINE)
    )
    with pytest.raises(
        UserError, match=r"^seed differs from the study small \(params.yaml\): .* a new --study$"
    ):
        command(0.7, "--trials", "3")
    command(0.7, "--trials", "1", "--study", "other")


def test_a_name_that_no_experiment_can_have(command):
    """It is refused before the first trial."""
    with pytest.raises(
        UserError, match=r"^'my search' cannot begin the names of experiments \(--study\)"
    ):
        command(0.5, "--study", "my search")


def test_a_hopeless_trial_is_stopped(reproduced, monkeypatch):
    """When the pruner says so after an epoch, training ends there, no experiment is kept and none is left running."""
    monkeypatch.chdir(reproduced.path)
    for key, value in reproduced.environment().items():
        monkeypatch.setenv(key, value)
    trial = Study()
    assert search.run(trial, "hopeless", {"train.epochs": 100000, "train.lr": 0.01}) is None
    assert (
        1 <= len(trial.reports) < 1000
        and trial.reports[0][0] == 1
        and 0 <= trial.reports[0][1] <= 1
    )
    assert "hopeless" not in reproduced.run("dvc", "exp", "list", "--name-only").stdout
    assert not alive(reproduced)


def alive(project):
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cmdline"]
        and process.info["cmdline"][1:] == TRAIN
        and process.info["cwd"] == str(project.path)
    ]


def test_a_search_goes_on(reproduced):
    """Trials are experiments, judged on validation images; a second call adds what is missing; none is evaluated."""
    pytest.importorskip("optuna", reason="dependency group search is not installed")
    (reproduced.path / "small.yaml").write_text(
        "train.lr: {log: [0.01, 0.1]}\ntrain.dropout: {float: [0, 0.4]}\n"
    )
    before = (reproduced.path / "params.yaml").read_bytes()
    for trials in ("1", "2", "2"):
        done = reproduced.run("python", "-m", "tools.search", "small.yaml", "--trials", trials)
    assert "epoch" not in done.stdout, "nothing was missing the third time"
    names = {"small-0", "small-1"}
    assert set(reproduced.run("dvc", "exp", "list", "--name-only").stdout.split()) == names
    assert (reproduced.path / "params.yaml").read_bytes() == before
    accuracies = {}
    for name in names:
        ref = reproduced.run(
            "git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}"
        ).stdout.strip()
        accuracies[name] = json.loads(
            reproduced.run("git", "show", f"{ref}:metrics/train.json").stdout
        )["val"]["accuracy"]
    assert f"{max(accuracies.values()):.2%} of the validation images" in done.stdout
    assert "metrics/test.json" not in reproduced.run("git", "status", "--porcelain").stdout


@pytest.mark.long
def test_ctrl_c_ends_a_search_and_its_training(reproduced):
    """Ctrl-C is one line and 130, params.yaml is as it was, and the trial is put up again, with the same values."""
    pytest.importorskip("optuna", reason="dependency group search is not installed")
    reproduced.edit(
        "params.yaml", lambda text: re.sub(r"epochs: \d+", "epochs: 100000", text, count=1)
    )
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
        _, errors = running.communicate(timeout=1200)
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
