"""A search: its trials are experiments, and an interrupted one is resumed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cifar import UserError
from cifar.experiments import trials
from tools import search

ROOT = Path(__file__).parent.parent
TRAIN = ["-m", "stages.train"]


@pytest.fixture
def command(folder, monkeypatch):
    """Run the command with a given outcome for each trial, without training."""
    pytest.importorskip("optuna", reason="dependency group search is not installed")
    (folder / "small.yaml").write_text("train.lr: {log: [0.01, 0.1]}\n")

    def run(outcome, *words):
        def end(*_):
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr(trials, "train", end)
        monkeypatch.setattr("sys.argv", ["search", "small.yaml", *words])
        search.main()

    return run


class Trial:
    """A fake of Optuna's trial: it records reports, and asks to stop after each."""

    def __init__(self):
        self.reports = []

    def report(self, value, step):
        self.reports.append((step, value))

    def should_prune(self):
        return True


def judged(values, *epochs):
    """What is reported of epochs, (epoch, epochs, accuracy), and whether it stops after each."""
    trial = Trial()
    hopeless = search.judge(trial, values)
    keys = ("epoch", "epochs", "val_accuracy")
    return trial.reports, [hopeless(dict(zip(keys, row, strict=True))) for row in epochs]


def test_a_bad_trial_is_stopped_before_its_last_epoch(folder):
    """Every epoch is reported; it is not stopped after the last, when no time is left to save."""
    reports, stops = judged({}, (1, 2, 0.44), (2, 2, 0.45))
    assert (reports, stops) == ([(1, 0.44), (2, 0.45)], [True, False])


def test_no_member_of_an_ensemble_is_stopped(folder):
    """Members count their epochs one after the other, and are judged together."""
    epochs = [(1, 2, 0.44), (2, 2, 0.44)] * 2
    assert judged({"train.ensemble": 2}, *epochs) == ([], [False] * 4)


def states():
    return [trial.state.name for trial in search.open_study("small", search.STORAGE).trials]


@pytest.mark.slow
def test_which_trials_are_repeated(command):
    """An interrupted trial is repeated, a failed one is not; changed choices are an error."""
    with pytest.raises(UserError, match=r"^no room"):
        command(UserError("no room"))
    assert states() == ["FAIL"]
    with pytest.raises(KeyboardInterrupt):
        command(KeyboardInterrupt())
    assert states() == ["FAIL", "FAIL", "WAITING"]
    command(0.5, "--trials", "1")
    assert states() == ["FAIL", "FAIL", "COMPLETE"]
    Path("small.yaml").write_text("train.lr: {choice: [0.01, 0.1]}\n")
    with pytest.raises(UserError, match=r"\(train.lr\): choose another --study for other ranges$"):
        command(0.5, "--trials", "2")


@pytest.mark.slow
def test_a_trial_that_ended_without_its_search_counts(command, monkeypatch):
    """If the search was killed but its trial ran to its end, the result counts."""
    with pytest.raises(KeyboardInterrupt):
        command(KeyboardInterrupt())
    monkeypatch.setattr(trials, "accuracy_of", {"small-0": 0.75}.__getitem__)
    (trial,) = search.open_study("small", search.STORAGE).trials
    assert (trial.state.name, trial.value) == ("COMPLETE", 0.75)


def test_one_search_at_a_time(command):
    """While a search or its trial holds the study, another search is refused."""
    with search.exclusive("small") as lock:
        os.write(lock, b"4321\n")
        with pytest.raises(UserError, match=r"small .*: wait until it ends; `kill -INT -- -4321`"):
            command(0.5, "--trials", "1")
    command(0.5, "--trials", "1")


@pytest.mark.slow
def test_a_study_is_of_one_set_of_parameters(command, folder):
    """Training parameters that are not searched may not change between two calls."""
    path = folder / "params.yaml"
    command(0.5, "--trials", "1")
    path.write_text(re.sub(r"( lr| dpi): [\d.]+", r"\1: 99", path.read_text()))
    command(0.6, "--trials", "2")
    path.write_text(re.sub(r"^seed: \d+", "seed: 99", path.read_text(), flags=re.MULTILINE))
    message = r"^seed differs from the study small \(params.yaml\): .* a new --study$"
    with pytest.raises(UserError, match=message):
        command(0.7, "--trials", "3")
    command(0.7, "--trials", "1", "--study", "other")


def test_a_name_that_no_experiment_can_have(command):
    """The name of the study is refused before the first trial."""
    with pytest.raises(UserError, match=r"^invalid study name 'my search' \(--study\)"):
        command(0.5, "--study", "my search")


def use(project, monkeypatch):
    """Work in a project as its user would."""
    monkeypatch.chdir(project.path)
    for key, value in project.environment().items():
        monkeypatch.setenv(key, value)


def trainings(project):
    """The trainings that are running in a project or in DVC's copies of it."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cmdline"]
        and process.info["cmdline"][1:] == TRAIN
        and Path(process.info["cwd"] or "/").is_relative_to(project.path)
    ]


@pytest.mark.long
def test_a_hopeless_trial_is_stopped(reproduced, monkeypatch, tmp_path):
    """Its training ends after an epoch, no experiment is kept, and no process is left."""
    use(reproduced, monkeypatch)
    trial = Trial()
    values = {"train.epochs": 100000, "train.lr": 0.01}
    with (tmp_path / "lock").open("w") as lock:
        assert trials.train("hopeless", values, search.judge(trial, values), lock.fileno()) is None
    assert 1 <= len(trial.reports) < 1000
    assert trial.reports[0][0] == 1 and 0 <= trial.reports[0][1] <= 1
    assert "hopeless" not in reproduced.run("dvc", "exp", "list", "--name-only").stdout
    assert not trainings(reproduced)


@pytest.mark.long
def test_a_search_is_resumed(reproduced):
    """A second call adds the missing trials; none is evaluated, and the workspace is unchanged.

    The experiment of a trial has no test numbers, though those of the commit were in its folder.
    """
    pytest.importorskip("optuna", reason="dependency group search is not installed")
    (reproduced.path / "small.yaml").write_text(
        "train.lr: {log: [0.01, 0.1]}\ntrain.dropout: {float: [0, 0.4]}\n"
    )
    reproduced.commit()
    for number in ("1", "2", "2"):
        done = reproduced.run("python", "-m", "tools.search", "small.yaml", "--trials", number)
    assert "epoch" not in done.stdout, "nothing was missing the third time"
    names = {"small-0", "small-1"}
    assert set(reproduced.run("dvc", "exp", "list", "--name-only").stdout.split()) == names
    assert reproduced.run("git", "status", "--porcelain").stdout == ""
    accuracies = {}
    for name in names:
        pattern = f"refs/exps/*/*/{name}"
        found = reproduced.run("git", "for-each-ref", "--format=%(refname)", pattern)
        reference = found.stdout.strip()
        text = reproduced.run("git", "show", f"{reference}:metrics/train.json").stdout
        accuracies[name] = json.loads(text)["val"]["accuracy"]
        files = reproduced.run("git", "ls-tree", "--name-only", reference, "metrics/").stdout
        assert files == "metrics/train.json\n"
    assert f"validation accuracy {max(accuracies.values()):.2%}; next" in done.stdout


@pytest.fixture
def endless(reproduced):
    """A search whose first trial would never end, after the first epoch of that trial."""
    pytest.importorskip("optuna", reason="dependency group search is not installed")
    reproduced.edit(
        "params.yaml", lambda text: re.sub(r"epochs: \d+", "epochs: 100000", text, count=1)
    )
    (reproduced.path / "small.yaml").write_text("train.lr: {log: [0.01, 0.1]}\n")
    reproduced.commit()
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
        yield running
    finally:
        reproduced.end()
        running.communicate()


def stored(project):
    return search.open_study("small", f"sqlite:///{project.path}/runs/search.db").trials


@pytest.mark.long
def test_ctrl_c_ends_a_search_and_its_training(reproduced, endless):
    """Ctrl-C is a one-line error with exit code 130; the trial is queued again, values included."""
    endless.send_signal(signal.SIGINT)
    _, errors = endless.communicate(timeout=120)
    assert endless.returncode == 130 and not trainings(reproduced)
    assert errors.startswith("error: interrupted") and len(errors.splitlines()) == 1
    assert reproduced.run("git", "status", "--porcelain").stdout == ""
    stopped, waiting = stored(reproduced)
    assert (stopped.state.name, waiting.state.name) == ("FAIL", "WAITING")
    assert waiting.system_attrs["fixed_params"] == stopped.params


@pytest.mark.long
def test_a_killed_search_leaves_the_workspace_as_it_was(reproduced, endless):
    """params.yaml is unchanged; the next search waits until the trial has ended, and repeats it."""
    endless.kill()
    endless.wait()
    assert reproduced.run("git", "status", "--porcelain").stdout == ""
    again = reproduced.run("python", "-m", "tools.search", "small.yaml", ok=False)
    (group,) = re.findall(r"`kill -INT -- -(\d+)` ends the trial$", again.stderr.strip())
    os.killpg(int(group), signal.SIGINT)
    deadline = time.monotonic() + 120
    while trainings(reproduced):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    with pytest.raises(ProcessLookupError):
        for _ in range(600):
            os.killpg(int(group), 0)
            time.sleep(0.1)
    stopped, waiting = stored(reproduced)
    assert waiting.system_attrs["fixed_params"] == stopped.params
