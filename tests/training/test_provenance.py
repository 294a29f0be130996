"""A model's provenance: all that its bytes depend on, and nothing that equal runs differ in."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from cifar import files
from cifar.model import Parameters, Provenance
from cifar.training import provenance

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "images.npy"
    path.write_bytes(b"pixels")
    return path


PARAMETERS = Parameters(seed=3, train={"lr": 0.1})


def record(data):
    options = {"threads": 2, "processes": 1}
    return provenance.record(PARAMETERS, [data], "cifar/models/vgg.py", CPU, **options)


def test_the_record_is_complete(data):
    """It has parameters, data, network file, device, threads and versions, as plain JSON."""
    found = record(data)
    assert files.parse_record(json.dumps(asdict(found)), Provenance, "x") == found
    assert found.parameters == PARAMETERS
    assert found.device == f"cpu, {torch.backends.cpu.get_cpu_capability()}"
    assert (found.threads, found.processes) == (2, 1)
    assert found.versions.keys() == {"python", "numpy", "torch", "torchvision"}
    assert torch.__version__.startswith(found.versions["torch"])
    assert found.network_file == files.git_name((ROOT / "cifar/models/vgg.py").read_bytes())
    pixels = "6ec9c2b0eb14010746c8bce8939303b382344b296206612eb8a907a37b2b2f37"
    assert found.data == {str(data): pixels}


def test_other_data_is_another_record(data):
    """A changed byte of the data changes its checksum."""
    before = record(data)
    data.write_bytes(b"Pixels")
    assert record(data).data != before.data


def test_no_code_is_in_the_record(data):
    """The record in the model file identifies no code but the network's file."""
    text = json.dumps(asdict(record(data)))
    names = [files.git_name(path.read_bytes()) for path in ROOT.glob("cifar/**/*.py")]
    assert [name for name in names if name in text] == [record(data).network_file]


@pytest.mark.slow
def test_the_loaded_code_is_the_stage_and_the_library(tmp_path):
    """The code is the stage and every module of the library that it has loaded."""
    modules = [
        "cifar/__init__.py",
        "cifar/dataset.py",
        "cifar/files.py",
        "cifar/model.py",
        "cifar/training/__init__.py",
        "cifar/training/provenance.py",
        "cifar/training/seeds.py",
    ]
    for name in modules:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "stages").mkdir()
    imports = "import math\nfrom cifar.training import provenance, seeds"
    (tmp_path / "stages/own.py").write_text(f"{imports}\nprint(*provenance.code())")
    command = [sys.executable, "-m", "stages.own"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*modules, "stages/own.py"]


def test_the_code_of_a_model_is_what_training_depends_on(first_run):
    """model.json lists the code among the dependencies of train in dvc.yaml, with the network's.

    The modules of cifar.params are left out: the record has the values of the parameters.
    """
    stage = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]["train"]
    made = json.loads((first_run.project.path / "models/model.json").read_text())
    declared = {
        name.replace("${train.model}", made["model"]["network"])
        for name in stage["deps"]
        if name.endswith(".py")
    }
    assert made["code"].keys() == declared - {"cifar/params/train.py"}
