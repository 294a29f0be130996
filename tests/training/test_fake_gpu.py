"""Every path that a GPU takes, on a device that computes nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from cifar.params.train import Train
from cifar.training.augment import Augmentation
from cifar.training.photo import PhotoOptions

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests/training/fake_gpu.py"
PLAIN = {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "small_epochs": 0}
CASES = {
    "default": {"small_epochs": 1},
    "vgg": PLAIN | {"model": "vgg", "dropout": 0.2, "batch_norm": True, "cutout": 4},
    "resnet18": PLAIN | {"model": "resnet18", "width": 4, "flip": "random", "clip_norm": 1.0},
    "gap, adam": PLAIN | {"model": "gap", "optimizer": "adam", "momentum": 0.0, "shift": 0},
    "dense_head, adamw": PLAIN | {"model": "dense_head", "optimizer": "adamw", "momentum": 0.0},
    "convpool, plateau": PLAIN | {"model": "convpool", "schedule": "plateau"},
    "sgd_cnn": PLAIN | {"model": "sgd_cnn", "keep": "best", "patience": 1, "flip": "none"},
    "pretrained": PLAIN | {"model": "pretrained", "backbone": "resnet18", "freeze": True},
    "warm-up": PLAIN | {"model": "gap", "schedule": "cosine", "warmup": 1, "nesterov": True},
    "rotation and zoom": PLAIN | {"model": "gap", "rotate": 9.0, "zoom": 0.2},
    "colours": PLAIN | {"model": "gap", "brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
    "upside down": PLAIN | {"model": "gap", "flip_vertical": True},
    "mixup": PLAIN | {"model": "gap", "mixup": 0.2},
    "cutmix": PLAIN | {"model": "vgg", "cutmix": 1.0},
    "class weights": {"class_weights": "balanced", "small_epochs": 1},
    "from disk": {"small_epochs": 1, "load": "disk"},
}
AUGMENTATION = {*Train.model_fields} & {
    *Augmentation.__annotations__,
    *PhotoOptions.__annotations__,
}


@pytest.fixture(scope="module")
def results():
    """For each case the number of times it read from the device, or its error."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps(CASES)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if "_setup_privateuseone_for_python_backend" in done.stderr:
        pytest.skip("this torch has no fake device")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_nothing_stays_on_the_cpu_and_an_epoch_reads_once(name, results):
    """Two epochs and a prediction mix no devices, and read from the device once per epoch."""
    assert results[name] == 2


def test_every_choice_is_among_the_cases():
    """Every network, optimizer and augmentation occurs in a case."""
    values = {(key, value) for case in CASES.values() for key, value in case.items()}
    networks = {path.stem for path in (ROOT / "cifar/models").glob("[a-z]*.py")}
    assert networks - {"fast"} == {value for key, value in values if key == "model"}
    optimizers = set(get_args(Train.model_fields["optimizer"].annotation))
    assert optimizers - {"muon"} == {value for key, value in values if key == "optimizer"}
    assert not {"shift", "flip", "cutout", "rotate", "mixup"} - AUGMENTATION
    assert not AUGMENTATION - {key for key, _ in values}
