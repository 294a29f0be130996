"""Stage train as a process of its own: interrupted in any way, it ends with the bytes of an undisturbed run."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "model": "vgg", "depth": 1, "width": 4, "dropout": 0.1, "dropout_step": 0.1, "batch_norm": True,
    "backbone": None, "freeze": False, "epochs": 6, "batch_size": 8, "optimizer": "sgd", "lr": 0.02,
    "momentum": 0.9, "nesterov": False, "weight_decay": 0.001, "schedule": "onecycle", "warmup": 1, "drop": 0.5,
    "drop_epochs": 1, "label_smoothing": 0.1, "clip_norm": 1.0, "keep": "last", "monitor": "accuracy",
    "patience": 0, "ema": 0.0, "ensemble": 1, "flip": "random", "shift": 1, "cutout": 2, "device": "cpu",
    "threads": 1,
}  # fmt: skip
# Two networks, averaged weights, a rate that follows the validation, and early stopping.
PAIR = {"ensemble": 2, "ema": 0.9, "schedule": "plateau", "warmup": 0, "keep": "best", "patience": 3, "epochs": 10}
OUTPUTS = ["metrics/train.json", "models/model.json", "models/model.safetensors", "plots/history.csv"]


def scratch(folder, images=200, **changes):
    """A folder with data of three classes of grey 8x8 images, and with the parameters."""
    rng = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 30)):
        labels = np.arange(count) % 3
        pixels = rng.integers(0, 160, (count, 8, 8, 1))
        pixels[np.arange(count), 2 * labels] += 40  # a brighter row for each class
        (folder / "data/processed" / split).mkdir(parents=True)
        np.save(folder / f"data/processed/{split}/images.npy", pixels.astype(np.uint8))
        np.save(folder / f"data/processed/{split}/labels.npy", labels)
    facts = {"classes": ["a", "b", "c"], "channels": 1, "image_size": 8, "mean": [0.3], "std": [0.2]}
    (folder / "data/processed/dataset.json").write_text(json.dumps(facts))
    write_parameters(folder, **changes)
    return folder


def write_parameters(folder, seed=0, **changes):
    yaml = YAML()
    parameters = yaml.load(ROOT / "params.yaml")
    parameters["seed"] = seed
    parameters["train"] = OPTIONS | changes
    yaml.dump(parameters, folder / "params.yaml")


def start(folder, **environment):
    """The stage as DVC starts it from a terminal, without DVC."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    return subprocess.Popen(
        [sys.executable, "-m", "stages.train"],
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run may ignore it
    )


def finish(process):
    """Its exit code and what it printed."""
    printed, errors = process.communicate(timeout=120)
    return process.returncode, printed, errors


def run(folder, **environment):
    """Let it end undisturbed, and return what it printed."""
    code, printed, errors = finish(start(folder, **environment))
    assert (code, errors) == (0, "")
    return printed


def kill(folder, number, lines, delay=0.0):
    """Send the signal when so many epochs have been reported; what was printed until then."""
    process, printed = start(folder), ""
    with process:
        for line in process.stdout:
            printed += line
            lines -= line.startswith("epoch ")
            if lines == 0:
                time.sleep(delay)
                process.send_signal(number)
                break
        errors = process.stderr.read()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), printed + errors
    assert errors.startswith("error: interrupted (Ctrl-C)" if number == signal.SIGINT else "")
    assert errors.count("\n") == (number == signal.SIGINT)
    assert not any((folder / name).exists() for name in OUTPUTS)
    return printed


def resumed(printed):
    """For each network that a run has gone on with, after which epoch."""
    return {int(n): int(epoch) for n, epoch in re.findall(r"network (\d+): going on after epoch (\d+)", printed)}


def interrupt(folder, plan):
    """Kill runs as planned, then let one end; each has to go on where the one before it was, and the last is done."""
    done = 0
    for number, lines, delay in plan:
        printed = kill(folder, number, lines, delay)
        assert sum(resumed(printed).values()) >= done - 1  # an epoch is reported, then stored
        done = sum(resumed(printed).values()) + lines
    printed = run(folder)
    assert sum(resumed(printed).values()) >= done - 1
    assert not checkpoints(folder)
    return printed


def outputs(folder):
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def checkpoints(folder):
    return [path for path in (folder / ".checkpoints").iterdir() if not path.name.endswith("lock")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The outputs of one run of PAIR from its start to its end."""
    folder = scratch(tmp_path_factory.mktemp("undisturbed"), **PAIR)
    run(folder)
    assert not checkpoints(folder)
    return outputs(folder)


def test_the_pair_exercises_what_it_is_for(undisturbed):
    """The options of these tests do stop a network early and drop a rate, and the two networks differ."""
    rows = [line.split(",") for line in undisturbed["plots/history.csv"].decode().splitlines()[1:]]
    networks = [[row[1:] for row in rows if row[0] == number] for number in "01"]
    assert 4 < min(map(len, networks)) < 10
    assert len({row[1] for row in networks[0]} | {row[1] for row in networks[1]}) > 1
    assert networks[0][0] != networks[1][0]
    kept = json.loads(undisturbed["models/model.json"])["epochs"]
    assert kept != [len(networks[0]), len(networks[1])]


@pytest.mark.fault
def test_killed_three_times_it_ends_with_the_same_bytes(undisturbed, tmp_path):
    """SIGKILL, SIGTERM and SIGINT, in the first network and in the second one, leave no trace in the outputs."""
    folder = scratch(tmp_path, **PAIR)
    first = sum(line.startswith(b"0,") for line in undisturbed["plots/history.csv"].splitlines())
    plan = [(signal.SIGKILL, 3, 0.0), (signal.SIGTERM, 3, 0.0), (signal.SIGINT, first - 2, 0.0)]
    printed = interrupt(folder, plan)
    assert resumed(printed).keys() == {0, 1}
    assert outputs(folder) == undisturbed


@pytest.mark.long
@pytest.mark.parametrize("turn", range(3))
def test_killed_a_dozen_times_it_ends_with_the_same_bytes(tmp_path, turn):
    """Twelve kills spread over four networks, at the end of an epoch and within one, leave no trace in the outputs."""
    whole, folder = (scratch(tmp_path / name, **PAIR | {"ensemble": 4}) for name in ("whole", "parts"))
    run(whole)
    signals = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    interrupt(folder, [(signals[(turn + i) % 3], 2, (turn + i) % 4 * 0.02) for i in range(12)])
    assert outputs(folder) == outputs(whole)


def test_the_environment_leaves_no_trace(undisturbed, tmp_path):
    """Another folder, hash seed, time zone, language and root for checkpoints give the same bytes."""
    folder = scratch(tmp_path / "else where", **PAIR)
    root = tmp_path / "root"
    run(folder, PYTHONHASHSEED="123", TZ="Asia/Tokyo", LC_ALL="C", DVC_ROOT=str(root))
    assert outputs(folder) == undisturbed
    assert not checkpoints(root) + checkpoints(folder)


def test_a_stranger_or_damaged_checkpoint_is_not_used(undisturbed, tmp_path):
    """A checkpoint of other parameters is left alone, one with a flipped bit is reported, and neither is used."""
    folder = scratch(tmp_path, **PAIR | {"lr": 0.03})
    kill(folder, signal.SIGKILL, 2)
    (stranger,) = checkpoints(folder)
    write_parameters(folder, **PAIR)
    assert not resumed(kill(folder, signal.SIGTERM, 2))
    (saved,) = set(checkpoints(folder)) - {stranger}
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 1
    saved.write_bytes(content)
    printed = run(folder)
    assert f"note: .checkpoints/{saved.name} is damaged and is not used" in printed
    assert not resumed(printed)
    assert outputs(folder) == undisturbed
    assert checkpoints(folder) == [stranger]


def test_a_diverging_training_is_one_line(tmp_path):
    """A loss that is no number ends the stage with one line and without any output."""
    folder = scratch(tmp_path, lr=1e30)
    code, _, errors = finish(start(folder))
    assert code == 1
    assert re.fullmatch(r"error: the loss is not finite in epoch 1 \(params\.yaml, train\.lr\): .*\n", errors)
    assert not any((folder / name).exists() for name in (*OUTPUTS, "models", "plots", "metrics"))


@pytest.mark.fault
@pytest.mark.long
def test_two_trainings_in_one_folder_are_refused(tmp_path):
    """While a training runs, a second one in the same folder ends with one line, and the first goes on."""
    folder = scratch(tmp_path)
    with start(folder) as first:
        next(line for line in first.stdout if line.startswith("epoch 1/"))
        first.send_signal(signal.SIGSTOP)
        code, _, errors = finish(start(folder))
        first.send_signal(signal.SIGCONT)
        assert finish(first)[0] == 0
    assert code == 1
    assert re.fullmatch(r"error: another training .*\n", errors)
    assert len(outputs(folder)) == 4
