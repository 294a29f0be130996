"""A search: ranges are checked, trials are experiments, and an interrupted one is resumed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cifar import UserError
from tools import search

ROOT = Path(__file__).parent.parent
TRAIN = ["-m", "stages.train"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with params.yaml in which a command runs."""
    path = tmp_path / "folder"
    path.mkdir()
    shutil.copy(ROOT / "params.yaml", path)
    monkeypatch.chdir(path)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.lr: {log: [0.2, 0.1]}", "train.lr: 0.2 is not below 0.1"),
        ("train.lr: {log: [0, 0.1]}", "train.lr: 0 has no logarithm (ranges.yaml)"),
        (
            "train.lr: {logarithmic: [0.1, 0.2]}",
            "train.lr: {'logarithmic': [0.1, 0.2]} (ranges.yaml): write {KIND:",
        ),
        ("train.lr: 0.1", "train.lr: 0.1 (ranges.yaml): write {KIND: [LOW, HIGH]}"),
        ("train.lr: {float: [0.1, high]}", "train.lr: [0.1, 'high'] is no range of kind float"),
        ("train.epochs: {int: [1, 2.5]}", "train.epochs: [1, 2.5] is no range of kind int"),
        ("train.droput: {float: [0, 0.5]}", "unknown key train.droput (did you mean dropout?)"),
        ("train.dropout: {float: [0, 1]}", "train.dropout = 1.0: must be less than 1"),
        ("train.optimizer: {choice: [sgd, adm]}", "train.optimizer = 'adm': must be"),
        ("train.optimizer: {choice: []}", "train.optimizer: no values (ranges.yaml)"),
        ("{}", "no ranges (ranges.yaml): write for example"),
        ("", "no sections (ranges.yaml)"),
        (
            "preprocess.val_fraction: {float: [0.1, 0.2]}",
            "preprocess.val_fraction is no parameter of train (ranges.yaml)",
        ),
    ],
)
def test_a_range_that_params_could_not_hold_is_refused(text, message, folder):
    """Unknown keys, kinds and values and reversed ranges are errors before the first trial."""
    (folder / "ranges.yaml").write_text(text)
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        search.read_ranges("ranges.yaml")


def test_the_example_fits(folder):
    """docs/search.example.yaml has every kind of range and fits params.yaml."""
    ranges = search.read_ranges(ROOT / "docs/search.example.yaml")
    assert {kind for kind, _ in ranges.values()} == set(search.KINDS)


class Trial:
    """Stands for Optuna's trial: notes reports, and has the training stopped after the first."""

    def __init__(self):
        self.reports = []

    def report(self, value, step):
        self.reports.append((step, value))

    def should_prune(self):
        return True


@pytest.fixture
def train(folder, monkeypatch, tmp_path):
    """Train with a `dvc` that only prints lines and writes epochs, (epoch, epochs, accuracy)."""

    def run(*lines, epochs=(), code=0, name="trial", **values):
        rows = [json.dumps(row(*numbers)) for numbers in epochs]
        script = [
            "#!/bin/sh",
            *(f"echo '{line}'" for line in lines),
            'test "$3" = --temp && mkdir -p "runs/$5"',
            *(f"echo '{text}' >> \"runs/$5/epochs.jsonl\"" for text in rows),
            f"exit {code}",
        ]
        (tmp_path / "dvc").write_text("\n".join(script) + "\n")
        (tmp_path / "dvc").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr(search, "accuracy_of", lambda name: 0.5)
        trial = Trial()
        with (tmp_path / "lock").open("w") as lock:
            accuracy = search.train(trial, name, values, lock.fileno())
        return accuracy, trial.reports

    return run


def row(epoch, epochs, accuracy):
    numbers = dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "lr"), 0.1)
    return {"network": 0, "epoch": epoch, "epochs": epochs, "val_accuracy": accuracy} | numbers


def test_a_trial_that_has_trained_is_kept(train, capsys):
    """After the last epoch nothing is left to save, so it is not stopped there."""
    assert train(epochs=[(1, 1, 0.44)]) == (0.5, [(1, 0.44)])
    assert "trial: epoch 1/1: " in capsys.readouterr().out


def test_a_bad_trial_is_stopped(train):
    """Told so after an epoch that is not the last, the trial has no accuracy."""
    assert train(epochs=[(1, 2, 0.44)]) == (None, [(1, 0.44)])


def test_no_member_of_an_ensemble_is_stopped(train):
    """Members count their epochs one after the other, and are judged together."""
    epochs = [(1, 2, 0.44), (2, 2, 0.44)] * 2
    assert train(epochs=epochs, **{"train.ensemble": 2}) == (0.5, [])


def test_epochs_of_an_earlier_study_are_not_read(train, folder):
    """A file that lies there from an earlier trial of this name is removed first."""
    path = folder / "runs/trial/epochs.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(row(1, 9, 0.1)) + "\n")
    assert train(epochs=[(1, 1, 0.44)]) == (0.5, [(1, 0.44)])


def test_a_trial_that_diverged_has_no_accuracy(train):
    """A loss that is not finite ends the trial and not the search."""
    assert train("error: loss is not finite (x): y", code=1)[0] is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Running stage", "ERROR: failed: no room", "a hint"], "failed: no room"),
        (["Running stage", "Killed: by someone"], "Killed: by someone"),
        ([], "no message"),
    ],
)
def test_what_a_failed_trial_says(train, lines, message):
    """The first error in what it printed, else its last line."""
    with pytest.raises(UserError, match=rf"^{message} \(experiment bad\)$"):
        train(*lines, code=1, name="bad")


def test_interrupting_what_has_ended_is_no_error():
    """A process that has just ended does not hide Ctrl-C behind an error of its own."""
    process = subprocess.Popen(["true"], start_new_session=True)
    process.wait()
    search.interrupt(process)


@pytest.fixture
def command(folder, monkeypatch):
    """The command, with trials that end with a given outcome instead of trainings."""
    pytest.importorskip("optuna", reason="dependency group search is not installed")
    (folder / "small.yaml").write_text("train.lr: {log: [0.01, 0.1]}\n")

    def run(outcome, *words):
        def end(*_):
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr(search, "train", end)
        monkeypatch.setattr("sys.argv", ["search", "small.yaml", *words])
        search.main()

    return run


def states():
    return [trial.state.name for trial in search.open_study("small", search.STORAGE).trials]


def test_which_trials_are_repeated(command):
    """A failed trial is not repeated, an interrupted one is; changed choices are an error."""
    with pytest.raises(UserError, match=r"^no room"):
        command(UserError("no room"))
    assert states() == ["FAIL"]
    with pytest.raises(KeyboardInterrupt):
        command(KeyboardInterrupt())
    assert states() == ["FAIL", "FAIL", "WAITING"]
    command(0.5, "--trials", "1")
    assert states() == ["FAIL", "FAIL", "COMPLETE"]
    Path("small.yaml").write_text("train.lr: {choice: [0.01, 0.1]}\n")
    with pytest.raises(UserError, match=r"\(train.lr\): name another --study for other ranges$"):
        command(0.5, "--trials", "2")


def test_a_trial_that_ended_without_its_search_counts(command, monkeypatch):
    """If the search was killed and its trial ran on to its end, its result is taken."""
    with pytest.raises(KeyboardInterrupt):
        command(KeyboardInterrupt())
    monkeypatch.setattr(search, "accuracy_of", {"small-0": 0.75}.__getitem__)
    (trial,) = search.open_study("small", search.STORAGE).trials
    assert (trial.state.name, trial.value) == ("COMPLETE", 0.75)


def test_one_search_at_a_time(command):
    """While a search or its trial holds the study, another is refused and told what to do."""
    with search.exclusive("small") as lock:
        os.write(lock, b"4321\n")
        with pytest.raises(UserError, match=r"small .*: wait until it ends; `kill -INT -- -4321`"):
            command(0.5, "--trials", "1")
    command(0.5, "--trials", "1")


def test_a_study_is_of_one_set_of_parameters(command, folder):
    """What the search does not vary may not change between two calls; the rest may."""
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
    """It is refused before the first trial."""
    with pytest.raises(UserError, match=r"^invalid study name 'my search' \(--study\)"):
        command(0.5, "--study", "my search")


def use(project, monkeypatch):
    """Work in a project as a user of it."""
    monkeypatch.chdir(project.path)
    for key, value in project.environment().items():
        monkeypatch.setenv(key, value)


def trainings(project):
    """The trainings that run in a project or in DVC's copies of it."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cmdline"]
        and process.info["cmdline"][1:] == TRAIN
        and Path(process.info["cwd"] or "/").is_relative_to(project.path)
    ]


@pytest.mark.long
def test_a_hopeless_trial_is_stopped(reproduced, monkeypatch, tmp_path):
    """Training ends after an epoch, no experiment is kept, none is left running."""
    use(reproduced, monkeypatch)
    trial = Trial()
    values = {"train.epochs": 100000, "train.lr": 0.01}
    with (tmp_path / "lock").open("w") as lock:
        assert search.train(trial, "hopeless", values, lock.fileno()) is None
    assert 1 <= len(trial.reports) < 1000
    assert trial.reports[0][0] == 1 and 0 <= trial.reports[0][1] <= 1
    assert "hopeless" not in reproduced.run("dvc", "exp", "list", "--name-only").stdout
    assert not trainings(reproduced)


@pytest.mark.long
def test_a_search_is_resumed(reproduced):
    """A second call adds the missing trials; none is evaluated, and the workspace stays as it is.

    An experiment of a trial has no test numbers, though those of the commit lay there.
    """
    pytest.importorskip("optuna", reason="dependency group search is not installed")
    (reproduced.path / "small.yaml").write_text(
        "train.lr: {log: [0.01, 0.1]}\ntrain.dropout: {float: [0, 0.4]}\n"
    )
    reproduced.commit()
    for trials in ("1", "2", "2"):
        done = reproduced.run("python", "-m", "tools.search", "small.yaml", "--trials", trials)
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
    """A search whose first trial would never end, once that has trained an epoch."""
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
    """Ctrl-C is one line and 130, and the trial is repeated next, with the same values."""
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
    """params.yaml is untouched; a new search waits for the trial that lives on, then repeats it."""
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
