"""A whole training: it resumes, repeats nothing that is finished, and calibrates the ensemble."""

from dataclasses import astuple
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from sample import DATASET
from sklearn.utils.class_weight import compute_class_weight

from cifar import inference, params
from cifar.model import NetworkOptions
from cifar.params.train import Train
from cifar.training import fit
from cifar.training.distributed import World
from cifar.training.splits import Arrays, load_splits
from cifar.training.temperature import fit_temperature

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
OPTIONS = NetworkOptions(depth=1, width=2)
CHANGES = {
    "model": "vgg", "depth": 1, "width": 2, "epochs": 3, "batch_size": 8, "optimizer": "sgd",
    "lr": 0.05, "schedule": "constant", "small_epochs": 0, "ensemble": 2, "device": "cpu",
    "threads": 1, "precision": "fp32", "label_smoothing": 0.0, "keep": "last",
}  # fmt: skip


class Memory:
    """Checkpoints in memory, which note what is saved."""

    def __init__(self):
        self.states = {}
        self.saved = []

    def load(self, member):
        return self.states.get(member)

    def save(self, member, state):
        self.saved.append((member, len(state["history"]), "kept" in state))
        self.states[member] = state


@pytest.fixture
def parameters(tmp_path, monkeypatch):
    """The section `train` with CHANGES, and an empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fit, "EpochLog", NoLog)
    values = params.read(ROOT / "params.yaml")["train"]
    return Train.model_validate(values | CHANGES)


class NoLog:
    rows: ClassVar[list] = []

    def __init__(self, root, epochs):
        NoLog.rows = []

    def write(self, network, row, speed):
        NoLog.rows.append((network, row.epoch, speed is not None))

    def close(self):
        pass


def arrays(count=24):
    rng = np.random.default_rng(0)

    def part(number):
        labels = np.arange(number) % 3
        return rng.integers(0, 256, (number, 8, 8, 1), dtype=np.uint8), labels

    return Arrays(*part(count), *part(12))


def train(p, checkpoints, seed=0):
    return fit.fit(p, seed, DATASET.shape, OPTIONS, arrays(), World(), checkpoints)


def bits(member):
    return {key: value.numpy().tobytes() for key, value in member.net.state_dict().items()}


def test_each_network_is_saved_after_each_epoch_and_at_its_end(parameters):
    """The networks of an ensemble train one after the other, from different seeds."""
    checkpoints = Memory()
    fitted = train(parameters, checkpoints)
    epochs = [(1, False), (2, False), (3, False), (3, True)]
    assert checkpoints.saved == [(member, *state) for member in (0, 1) for state in epochs]
    assert bits(fitted.members[0]) != bits(fitted.members[1])
    rows = [(n, *astuple(row)) for n, m in enumerate(fitted.members) for row in m.history]
    assert fitted.history() == rows and len(rows) == 6


def test_a_finished_network_is_not_trained_again(parameters, capsys):
    """If everything is finished, no epoch is run, and weights and metrics are the same."""
    checkpoints = Memory()
    first = train(parameters, checkpoints)
    checkpoints.saved.clear()
    capsys.readouterr()
    second = train(parameters, checkpoints)
    assert checkpoints.saved == []
    assert capsys.readouterr().out == "trained already, 3 epochs\n" * 2
    assert list(map(bits, second.members)) == list(map(bits, first.members))
    assert (second.metrics(), second.temperature) == (first.metrics(), first.temperature)
    assert NoLog.rows == [(n, epoch, False) for n in (0, 1) for epoch in (1, 2, 3)]


class StopError(Exception):
    """An interruption."""


def test_an_interrupted_network_resumes_and_the_finished_one_stays(parameters, capsys):
    """After a stop in the second network, the next run trains its remaining epochs, bit for bit."""
    whole = train(parameters, Memory())
    checkpoints = Memory()

    def save(member, state):
        Memory.save(checkpoints, member, state)
        if checkpoints.saved[-1] == (1, 2, False):
            raise StopError

    checkpoints.save = save
    with pytest.raises(StopError):
        train(parameters, checkpoints)
    del checkpoints.save
    checkpoints.saved.clear()
    parts = train(parameters, checkpoints)
    assert checkpoints.saved == [(1, 3, False), (1, 3, True)]
    assert list(map(bits, parts.members)) == list(map(bits, whole.members))
    assert parts.history() == whole.history()
    logged = [(0, 1, False), (0, 2, False), (0, 3, False)]
    assert NoLog.rows == [*logged, (1, 1, False), (1, 2, False), (1, 3, True)]
    assert "resuming an interrupted run after epoch 2" in capsys.readouterr().out


def test_stopped_between_the_last_epoch_and_the_end_no_epoch_is_left(parameters):
    """A state with all epochs, but without the kept weights, needs no further epoch."""
    p = Train.model_validate(parameters.model_dump() | {"ensemble": 1})
    checkpoints = Memory()

    def save(member, state):
        if "kept" in state:
            raise StopError
        Memory.save(checkpoints, member, state)

    checkpoints.save = save
    with pytest.raises(StopError):
        train(p, checkpoints)
    del checkpoints.save
    checkpoints.saved.clear()
    train(p, checkpoints)
    assert checkpoints.saved == [(0, 3, True)]


def test_the_temperature_is_that_of_the_whole_ensemble(parameters):
    """It is fitted on the validation logits of all networks together."""
    fitted = train(parameters, Memory())
    splits = load_splits(parameters, arrays(), DATASET.shape, CPU, processes=1)
    logits = [inference.predict(m.net, splits.val_images, splits.normalize) for m in fitted.members]
    expected = fit_temperature(inference.average(logits), splits.val_labels)
    assert fitted.temperature == expected
    assert fitted.top5 is None and "top5_accuracy" not in fitted.metrics()["val"]


def test_balanced_weights_are_those_of_scikit_learn():
    """Weights are inversely proportional to the class counts; `none` leaves them out."""
    counts = [90, 9, 1]
    labels = np.repeat(np.arange(3), counts)
    loss = fit.make_loss(counts, CPU, class_weights="balanced", label_smoothing=0.0)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert np.allclose(loss.weight.numpy(), expected)
    plain = fit.make_loss(counts, CPU, class_weights="none", label_smoothing=0.1)
    assert plain.weight is None and plain.label_smoothing == 0.1
