"""Stage train as a process: interrupted in any way, it gives the bytes of an undisturbed run."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import forked
import numpy as np
import psutil
import pytest
from ruamel.yaml import YAML

from cifar import files, model_file
from cifar.dataset import Dataset
from cifar.training.temperature import HIGHEST, LOWEST

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "model": "vgg", "depth": 1, "width": 4, "dropout": 0.1, "dropout_step": 0.1,
    "batch_norm": True, "backbone": None, "freeze": False, "epochs": 6, "batch_size": 8,
    "optimizer": "sgd", "lr": 0.02, "momentum": 0.9, "nesterov": False, "weight_decay": 0.001,
    "schedule": "onecycle", "warmup": 1, "drop": 0.5, "drop_epochs": 1, "label_smoothing": 0.1,
    "clip_norm": 1.0, "keep": "last", "monitor": "accuracy", "patience": 0, "ema": 0.0,
    "ensemble": 1, "flip": "random", "shift": 1, "cutout": 2, "small_epochs": 0,
    "small_scale": 0.75, "device": "cpu", "threads": 1, "processes": 1, "load": "memory",
    "precision": "fp32", "compile": "none", "class_weights": "none", "rotate": 0.0, "zoom": 0.0,
    "flip_vertical": False, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "mixup": 0.0,
    "cutmix": 0.0,
}  # fmt: skip
# Two networks, averaged weights, the schedule plateau, early stopping, epochs on small images.
PAIR = {
    "model": "fast", "depth": 1, "width": 2, "dropout_step": 0.0, "batch_norm": False,
    "small_epochs": 3, "ensemble": 2, "ema": 0.9, "schedule": "plateau", "warmup": 0,
    "keep": "best", "patience": 3, "epochs": 10,
}  # fmt: skip
OUTPUTS = [
    "metrics/train.json",
    "models/model.json",
    "models/model.safetensors",
    "plots/history.csv",
]


def scratch(folder, images=200, **changes):
    """Make a folder with grey 12x12 images of three classes, and with the parameters."""
    rng = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 30)):
        labels = np.arange(count) % 3
        pixels = rng.integers(0, 160, (count, 12, 12, 1))
        pixels[np.arange(count), 2 * labels] += 40  # a brighter row for each class
        (folder / "data/processed" / split).mkdir(parents=True)
        np.save(folder / f"data/processed/{split}/images.npy", pixels.astype(np.uint8))
        np.save(folder / f"data/processed/{split}/labels.npy", labels)
    write_dataset(folder, image_size=12)
    write_parameters(folder, **changes)
    return folder


def write_dataset(folder, image_size):
    dataset = Dataset("images", ("a", "b", "c"), image_size, 1, "standardize", (0.3,), (0.2,))
    files.write_record(folder / "data/processed/dataset.json", dataset)


def write_parameters(folder, seed=0, **changes):
    yaml = YAML()
    parameters = yaml.load(ROOT / "params.yaml")
    parameters["seed"] = seed
    parameters["train"] = OPTIONS | changes
    yaml.dump(parameters, folder / "params.yaml")


def start(folder, memory=None, **environment):
    """Start the stage as a user does, with at most `memory` bytes of its own if given."""

    def prepare():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run may ignore it
        if memory:
            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))

    inherited = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    return subprocess.Popen(
        [sys.executable, "-m", "stages.train"],
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )


def finish(process, timeout=1200):
    """Wait for the process; return its exit code, output and errors."""
    printed, errors = process.communicate(timeout=timeout)
    return process.returncode, printed, errors


def run(folder, **environment):
    """Run the stage undisturbed, and return its output."""
    code, printed, errors = finish(start(folder, **environment))
    assert (code, errors) == (0, "")
    return printed


def kill(folder, number, lines, delay=0.0):
    """Send the signal after `lines` epochs have been reported; return the output until then."""
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
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), (
        printed + errors
    )
    assert errors.startswith("error: interrupted (Ctrl-C)" if number == signal.SIGINT else "")
    assert errors.count("\n") == (number == signal.SIGINT)
    assert not any((folder / name).exists() for name in OUTPUTS)
    return printed


def resumed(printed):
    """The number of epochs of each network that a run has resumed from, in order."""
    pattern = r"resuming an interrupted run after epoch (\d+)|trained already, (\d+) epochs?"
    return [int(epoch or epochs) for epoch, epochs in re.findall(pattern, printed)]


def interrupt(folder, plan):
    """Kill runs as planned, then let one finish; each resumes where the previous one stopped."""
    done = 0
    for number, lines, delay in plan:
        printed = kill(folder, number, lines, delay)
        assert sum(resumed(printed)) >= done - 1  # an epoch is reported, then stored
        done = sum(resumed(printed)) + lines
    printed = run(folder)
    assert sum(resumed(printed)) >= done - 1
    assert not checkpoints(folder)
    return printed


def outputs(folder):
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def checkpoints(folder):
    """The folders of runs that have checkpoints."""
    return [path for path in (folder / ".checkpoints").iterdir() if path.is_dir()]


def epochs_logged(folder):
    """(network, epoch) for each line of the run's log."""
    lines = (folder / "runs/workspace/epochs.jsonl").read_text().splitlines()
    return [(row["network"], row["epoch"]) for row in map(json.loads, lines)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The outputs of one uninterrupted run of PAIR."""
    folder = scratch(tmp_path_factory.mktemp("undisturbed"), **PAIR)
    run(folder)
    assert not checkpoints(folder)
    return outputs(folder)


def test_the_pair_exercises_what_it_is_for(undisturbed):
    """PAIR makes a network stop early and a learning rate drop, and its two networks differ."""
    rows = [line.split(",") for line in undisturbed["plots/history.csv"].decode().splitlines()[1:]]
    members = [[row[1:] for row in rows if row[0] == number] for number in "01"]
    assert 4 < min(map(len, members)) < 10
    assert len({row[1] for row in members[0]} | {row[1] for row in members[1]}) > 1
    assert members[0][0] != members[1][0]
    kept = json.loads(undisturbed["models/model.json"])["model"]["epochs"]
    assert kept != [len(members[0]), len(members[1])]


def test_the_readable_copy_of_the_record_is_the_one_in_the_model(undisturbed, tmp_path):
    """models/model.json equals the record in the model file, which alone restores both networks."""
    (tmp_path / "model").write_bytes(undisturbed["models/model.safetensors"])
    nets, model = model_file.load(tmp_path / "model")
    readable = json.loads(undisturbed["models/model.json"])
    assert len(nets) == 2 and json.loads(json.dumps(asdict(model))) == readable["model"]
    assert model.temperature not in (LOWEST, HIGHEST, 1.0)


def test_the_metrics_name_their_model(undisturbed):
    """metrics/train.json contains the checksum of the model that it describes."""
    numbers = json.loads(undisturbed["metrics/train.json"])
    assert numbers["model"] == files.short_sha256(undisturbed["models/model.safetensors"])


@pytest.mark.fault
def test_killed_three_times_it_ends_with_the_same_bytes(undisturbed, tmp_path):
    """SIGKILL, SIGTERM and SIGINT, in either network, leave no trace in the outputs.

    The finished network is not trained again, and the log has all epochs.
    """
    folder = scratch(tmp_path, **PAIR)
    first = sum(line.startswith(b"0,") for line in undisturbed["plots/history.csv"].splitlines())
    plan = [(signal.SIGKILL, 3, 0.0), (signal.SIGTERM, 3, 0.0), (signal.SIGINT, first - 2, 0.0)]
    printed = interrupt(folder, plan)
    assert re.search(rf"trained already, {first} epochs\nresuming an interrupted run", printed)
    assert outputs(folder) == undisturbed
    rows = undisturbed["plots/history.csv"].decode().splitlines()[1:]
    assert epochs_logged(folder) == [tuple(map(int, row.split(",")[:2])) for row in rows]


@pytest.mark.long
@pytest.mark.parametrize("turn", range(3))
def test_killed_a_dozen_times_it_ends_with_the_same_bytes(tmp_path, turn):
    """Twelve kills across four networks, at the end of epochs and within, leave no trace."""
    whole, folder = (
        scratch(tmp_path / name, **PAIR | {"ensemble": 4}) for name in ("whole", "parts")
    )
    run(whole)
    signals = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    interrupt(folder, [(signals[(turn + i) % 3], 2, (turn + i) % 4 * 0.02) for i in range(12)])
    assert outputs(folder) == outputs(whole)


@pytest.mark.long
def test_the_environment_leaves_no_trace(undisturbed, tmp_path):
    """A different folder, hash seed, time zone, language and root give the same bytes."""
    folder = scratch(tmp_path / "else where", **PAIR)
    root = tmp_path / "root"
    run(folder, PYTHONHASHSEED="123", TZ="Asia/Tokyo", LC_ALL="C", DVC_ROOT=str(root))
    assert outputs(folder) == undisturbed
    assert not checkpoints(root) + checkpoints(folder)


@pytest.mark.long
def test_a_stranger_or_damaged_checkpoint_is_not_used(undisturbed, tmp_path):
    """A checkpoint of other parameters is kept, a damaged one is reported; neither is used."""
    folder = scratch(tmp_path, **PAIR | {"lr": 0.03})
    kill(folder, signal.SIGKILL, 2)
    (stranger,) = checkpoints(folder)
    write_parameters(folder, **PAIR)
    assert not resumed(kill(folder, signal.SIGTERM, 2))
    (run_folder,) = set(checkpoints(folder)) - {stranger}
    saved = run_folder / "0.pt"
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 1
    saved.write_bytes(content)
    printed = run(folder)
    assert f"note: .checkpoints/{run_folder.name}/0.pt is damaged and is not used" in printed
    assert not resumed(printed)
    assert outputs(folder) == undisturbed
    assert checkpoints(folder) == [stranger]


def forked_run(folder, fault=None):
    """Run the stage in a fork of a process that has already loaded the libraries."""
    for name in ("cifar", "stages"):
        (folder / name).symlink_to(ROOT / name)
    return forked.run(folder, "train", fault)


def test_a_diverging_training_is_one_line(tmp_path):
    """A loss that is not finite ends the stage with one line and without any output."""
    folder = scratch(tmp_path / "run", lr=1e30)
    code, _, errors = forked_run(folder)
    assert code == 1
    assert re.fullmatch(
        r"error: the loss is not finite in epoch 1 \(params\.yaml, train\.lr\): .*\n", errors
    )
    assert not any((folder / name).exists() for name in (*OUTPUTS, "models", "plots", "metrics"))


@pytest.mark.fault
def test_too_little_disk_is_noticed_before_the_first_epoch(tmp_path):
    """If its checkpoints and model would not fit on the disk, training ends before it starts."""
    folder = scratch(tmp_path / "run")
    code, printed, errors = forked_run(folder, forked.no_disk)
    assert (code, printed) == (1, "")
    assert re.fullmatch(
        r"error: not enough disk space, about \d+ MB needed and 0 MB free .*\n", errors
    )
    assert not any((folder / name).exists() for name in OUTPUTS)


@pytest.mark.fault
def test_a_second_training_waits_and_uses_the_first(tmp_path):
    """The same training, started a second time, waits for the first and uses its result."""
    folder = scratch(tmp_path)
    with start(folder) as first:
        next(line for line in first.stdout if line.startswith("epoch 1/"))
        first.send_signal(signal.SIGSTOP)
        with start(folder) as second:
            next(line for line in second.stdout if line.startswith("waiting for the training"))
            first.send_signal(signal.SIGCONT)
            assert finish(first)[0] == 0
            whole = outputs(folder)
            code, printed, errors = finish(second)
    assert (code, errors) == (0, "")
    assert "trained already, 6 epochs" in printed and "epoch 2/6" not in printed
    assert outputs(folder) == whole
    assert not checkpoints(folder)


@pytest.mark.long
def test_compiled_and_in_bf16_it_learns_as_well(tmp_path):
    """Compilation and bf16 change the last bits, but give about the same loss (on the CPU)."""
    losses = []
    for name, changes in (
        ("plain", {}),
        ("compiled", {"compile": "default"}),
        ("rounded", {"precision": "bf16"}),
    ):
        folder = scratch(tmp_path / name, epochs=3, **changes)
        assert finish(start(folder))[0] == 0
        losses.append(json.loads((folder / "metrics/train.json").read_text())["val"]["loss"])
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=0.05)
    assert losses[2] != losses[0]


# No batch normalisation and dropout, which see only a process's part of each batch.
SHARED = {"batch_norm": False, "dropout": 0.0, "dropout_step": 0.0, "batch_size": 13, "epochs": 2}


@pytest.mark.long
def test_two_processes_train_as_one(tmp_path):
    """Two processes that share batches of odd size have the losses of one; only the first writes.

    Whether they keep the images in memory or read them from disk changes no byte.
    """
    folders = []
    for processes, load in ((1, "memory"), (2, "memory"), (2, "disk")):
        folder = scratch(tmp_path / f"{processes}-{load}", processes=processes, load=load, **SHARED)
        printed = run(folder)
        assert len(re.findall("^epoch 1/2", printed, re.MULTILINE)) == 1
        model = json.loads((folder / "models/model.json").read_text())["model"]
        assert model["provenance"]["processes"] == processes
        folders.append(folder)
    one, two, _ = [np.loadtxt(f / "plots/history.csv", delimiter=",", skiprows=1) for f in folders]
    assert one == pytest.approx(two, rel=1e-4)
    assert outputs(folders[1]) == outputs(folders[2])


@pytest.mark.long
def test_a_killed_process_ends_the_training_with_one_line(tmp_path):
    """If one of two processes is killed, the training ends in one line; one process can resume."""
    options = SHARED | {"epochs": 12}
    folder = scratch(tmp_path, images=500, processes=2, threads=1, **options)
    with start(folder) as stage:
        next(line for line in stage.stdout if line.startswith("epoch 1/"))
        workers = [
            p for p in psutil.Process(stage.pid).children(recursive=True) if "RANK" in p.environ()
        ]
        assert len(workers) == 2
        max(workers, key=lambda p: p.environ()["RANK"]).kill()
        code, _, errors = finish(stage)
    assert code == 1
    assert re.fullmatch(
        r"error: a training process was ended by SIGKILL \(train\.processes\): .*\n", errors
    )
    assert not any(worker.is_running() for worker in workers)
    assert not any((folder / name).exists() for name in OUTPUTS)
    write_parameters(folder, processes=1, threads=2, **options)
    assert "resuming an interrupted run after epoch" in run(folder)


@pytest.mark.long
@pytest.mark.parametrize("kills", [0, 3])
def test_read_from_disk_it_has_the_same_bytes(undisturbed, tmp_path, kills):
    """Images read from disk and images in memory give the same model, also after kills."""
    folder = scratch(tmp_path, **PAIR, load="disk")
    interrupt(folder, [(signal.SIGKILL, 3, 0.02 * i) for i in range(kills)])
    run(folder)
    assert outputs(folder) == undisturbed


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="macOS enforces no limit on memory")
@pytest.mark.parametrize("load", ["auto", "disk", "memory"])
def test_images_on_disk_need_no_memory(tmp_path, load):
    """With 0.6 GB of images and 1.4 GB of memory, training reads from disk or ends in one line."""
    folder = scratch(
        tmp_path, load=load, epochs=1, warmup=0, batch_size=100, shift=0, cutout=0, width=1
    )
    data, count, shape = folder / "data/processed", 60_000, (100, 100, 1)
    np.lib.format.open_memmap(
        data / "train/images.npy", "w+", np.uint8, (count, *shape)
    )  # zeros that take no disk
    np.save(data / "train/labels.npy", np.arange(count) % 3)
    np.save(data / "val/images.npy", np.zeros((30, *shape), np.uint8))
    write_dataset(folder, image_size=100)
    code, printed, errors = finish(start(folder, memory=1_400_000_000), 600)
    assert code == (load == "memory"), errors
    assert bool(re.match("error: out of memory", errors)) == (load == "memory")
    assert ("note: 0.6 GB of images are read from disk" in printed) == (load == "auto")
