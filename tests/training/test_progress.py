"""The progress and the log of a training: speed without skipped images, all epochs logged."""

import json
import math
import shutil
import sys
import time
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch

from cifar.training import progress
from cifar.training.trainer import Epoch

ROWS = [Epoch(number, 0.1 / number, 1.0, 0.5, 1.5 / number, 0.25) for number in (1, 2, 3)]


@pytest.fixture
def terminal(monkeypatch):
    """A terminal with a clock set by hand: a function that lets seconds pass."""
    now = [1000.0]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_skipped_images_are_no_speed(terminal):
    """After resuming, the bar starts after the finished epochs, which do not count as speed."""
    bar = progress.Progress(epochs=10, images=1000, done=9)
    bar.bar._time = time.time
    bar.start(10)
    terminal(1.0)
    bar.step(500, torch.tensor(500.0), torch.tensor(250.0))
    state = bar.bar.format_dict
    assert (state["initial"], state["n"], state["total"]) == (9000, 9500, 10_000)
    assert (state["n"] - state["initial"]) / 1.0 == 500
    terminal(1.0)
    assert bar.end(ROWS[0]) == 500.0
    assert bar.bar.n == 10_000
    bar.close()


def test_the_bar_reads_the_device_rarely(terminal):
    """The numbers are read at most twice a second, however many steps there are."""
    looks = []
    number = SimpleNamespace(item=lambda: looks.append(1) or 1.0)
    bar = progress.Progress(epochs=1, images=100, done=0)
    bar.start(1)
    for step in range(1, 101):
        terminal(0.02)
        bar.step(step, number, number)
    bar.close()
    assert 6 <= len(looks) <= 8  # two numbers, four times at most in two seconds


def test_without_a_terminal_there_is_one_line_an_epoch(capsys):
    """Without a terminal only a line per epoch appears, and no number is read from the device."""
    bar = progress.Progress(epochs=3, images=100, done=0)
    bar.start(1)
    bar.step(50, None, None)
    bar.end(ROWS[0])
    bar.close()
    printed, errors = capsys.readouterr()
    expected = (
        "epoch 1/3: train loss 1.000, accuracy 50.00%; validation loss 1.500, accuracy 25.00%; "
    )
    assert printed.startswith(expected) and printed.count("\n") == 1
    assert errors == ""


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "wide")
    log = progress.EpochLog(tmp_path, epochs=3)
    yield log
    log.close()


def lines(log):
    return [json.loads(line) for line in (log.folder / "epochs.jsonl").read_text().splitlines()]


def test_the_log_has_one_object_an_epoch(log, tmp_path):
    """Each line has the epoch's row, its network, the number of epochs, and the speed."""
    assert log.folder == tmp_path / "runs/wide"
    log.write(0, ROWS[0], 123.456)
    log.write(1, ROWS[1], None)
    common = {"epochs": 3}
    assert lines(log) == [
        asdict(ROWS[0]) | common | {"network": 0, "images_per_second": 123.5},
        asdict(ROWS[1]) | common | {"network": 1, "images_per_second": None},
    ]


@pytest.mark.fault
def test_a_log_that_is_removed_meanwhile_ends_no_training(log):
    """If `make clean` removes the log of a running training, later epochs are still logged."""
    log.write(0, ROWS[0], 1.0)
    shutil.rmtree(log.folder)
    log.write(0, ROWS[1], 1.0)
    assert [row["epoch"] for row in lines(log)] == [2]


def test_a_new_run_starts_its_log_again(log, tmp_path):
    """Lines and charts of an earlier run of the same name are removed; other files stay."""
    log.write(0, ROWS[0], 1.0)
    (log.folder / "events.out.tfevents.1.host").touch()
    (log.folder / "notes.txt").touch()
    again = progress.EpochLog(tmp_path, epochs=3)
    again.write(0, ROWS[1], 1.0)
    again.close()
    assert [row["epoch"] for row in lines(again)] == [2]
    assert (log.folder / "notes.txt").exists()
    assert not (log.folder / "events.out.tfevents.1.host").exists()


def test_without_an_experiment_the_log_is_of_the_workspace(tmp_path, monkeypatch):
    """A plain `dvc repro` logs to runs/workspace."""
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    log = progress.EpochLog(tmp_path, epochs=1)
    log.close()
    assert log.folder == tmp_path / "runs/workspace"


def test_tensorboard_reads_the_same_numbers(log):
    """TensorBoard gets the losses, accuracies and learning rate of each network."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for row in ROWS:
        log.write(0, row, 1.0)
    events = EventAccumulator(str(log.folder)).Reload()
    names = {"loss/train", "loss/val", "accuracy/train", "accuracy/val"}
    expected = {f"{name}, network 0" for name in names} | {"learning rate/network 0"}
    assert set(events.Tags()["scalars"]) == expected
    points = events.Scalars("loss/val, network 0")
    assert [point.step for point in points] == [1, 2, 3]
    values = [row.val_loss for row in ROWS]
    assert all(math.isclose(p.value, v, rel_tol=1e-6) for p, v in zip(points, values, strict=True))


def test_without_tensorboard_the_log_is_complete(tmp_path, monkeypatch):
    """The JSON lines do not need TensorBoard."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = progress.EpochLog(tmp_path, epochs=1)
    log.write(0, ROWS[0], 1.0)
    log.close()
    assert log.board is None and len(lines(log)) == 1
