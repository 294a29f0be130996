"""A training as an experiment: its epochs are followed, and a hopeless one is stopped."""

import json
import os
import subprocess

import pytest

from cifar import UserError
from cifar.experiments import trials


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train with a `dvc` that only prints lines and writes epochs, (epoch, epochs, accuracy).

    Returns the accuracy and the epochs that were judged; each but the last is judged hopeless.
    """
    monkeypatch.chdir(tmp_path)

    def run(*lines, epochs=(), code=0, name="trial"):
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
        monkeypatch.setattr(trials, "accuracy_of", lambda name: 0.5)
        judged = []

        def hopeless(row):
            judged.append((row["epoch"], row["val_accuracy"]))
            return row["epoch"] < row["epochs"]

        with (tmp_path / "lock").open("w") as lock:
            accuracy = trials.train(name, {}, hopeless, lock.fileno())
        return accuracy, judged

    return run


def row(epoch, epochs, accuracy):
    numbers = dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "lr"), 0.1)
    return {"network": 0, "epoch": epoch, "epochs": epochs, "val_accuracy": accuracy} | numbers


def test_a_training_that_is_not_hopeless_is_kept(train, capsys):
    """Every epoch is printed and judged, and the accuracy is that of the experiment."""
    assert train(epochs=[(1, 1, 0.44)]) == (0.5, [(1, 0.44)])
    assert "trial: epoch 1/1: " in capsys.readouterr().out


def test_a_hopeless_training_is_stopped(train):
    """It has no accuracy, and no epoch is judged after it was stopped."""
    assert train(epochs=[(1, 2, 0.44), (2, 2, 0.45)]) == (None, [(1, 0.44)])


def test_epochs_of_an_earlier_experiment_are_not_read(train, tmp_path):
    """A file that an earlier experiment of this name left is removed first."""
    path = tmp_path / "runs/trial/epochs.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(row(1, 9, 0.1)) + "\n")
    assert train(epochs=[(1, 1, 0.44)]) == (0.5, [(1, 0.44)])


def test_a_training_that_diverged_has_no_accuracy(train):
    """A loss that is not finite ends the training, but is not an error."""
    assert train("error: loss is not finite (x): y", code=1)[0] is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Running stage", "ERROR: failed: no room", "a hint"], "failed: no room"),
        (["Running stage", "Killed: by someone"], "Killed: by someone"),
        ([], "no message"),
    ],
)
def test_what_a_failed_training_says(train, lines, message):
    """The message is the first error that it printed, or else its last line."""
    with pytest.raises(UserError, match=rf"^{message} \(experiment bad\): fix the cause"):
        train(*lines, code=1, name="bad")


def test_interrupting_what_has_ended_is_no_error():
    """A process that has just ended does not replace Ctrl-C by an error of its own."""
    process = subprocess.Popen(["true"], start_new_session=True)
    process.wait()
    trials.interrupt(process)
