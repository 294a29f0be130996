"""What made a model: all that its bytes depend on, and nothing that differs between two equal runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from cifar.training import provenance

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "images.npy"
    path.write_bytes(b"pixels")
    return path


def test_a_blob_is_named_as_git_names_it(tmp_path):
    """The names of files are those that `git log --find-object` takes."""
    for content in (b"", b"what is up, doc?", bytes(range(256)) * 500):
        path = tmp_path / "file"
        path.write_bytes(content)
        done = subprocess.run(
            ["git", "hash-object", path], capture_output=True, text=True, check=True
        )
        assert provenance.blob(content) == done.stdout.strip()


def test_the_facts_are_complete(data):
    """Parameters, device with its instruction set, threads, versions, code and data are there, as plain JSON."""
    facts = provenance.facts({"seed": 3}, CPU, 2, [data])
    assert json.loads(json.dumps(facts)) == facts
    assert facts["parameters"] == {"seed": 3}
    assert (facts["device"], facts["threads"]) == (
        f"cpu, {torch.backends.cpu.get_cpu_capability()}",
        2,
    )
    assert facts["versions"].keys() == {"python", "numpy", "torch", "torchvision"}
    assert torch.__version__.startswith(facts["versions"]["torch"])
    assert facts["code"]["cifar/training/provenance.py"] == provenance.blob(
        (ROOT / "cifar/training/provenance.py").read_bytes()
    )
    assert facts["data"] == {
        str(data): "6ec9c2b0eb14010746c8bce8939303b382344b296206612eb8a907a37b2b2f37"
    }


def test_a_changed_network_is_said(capsys):
    """A model whose network file has changed since, to other layers of the same shapes perhaps, is used with a note;
    one with the same file, or without such facts, is used without."""
    same = provenance.blob((ROOT / "cifar/models/fast.py").read_bytes())
    for code in ({}, {"cifar/models/fast.py": same}, None, 3):
        provenance.check_network(Path("m"), {"model": "fast", "made_by": {"code": code}})
    provenance.check_network(Path("m"), {"model": "fast"})
    assert capsys.readouterr().err == ""
    provenance.check_network(
        Path("m"), {"model": "fast", "made_by": {"code": {"cifar/models/fast.py": "0" * 40}}}
    )
    said = "note: m was trained with another cifar/models/fast.py (Git's object 000000000000)\n"
    assert capsys.readouterr().err == said


def test_other_data_is_another_fact(data):
    """A changed byte of the data changes its sum."""
    before = provenance.facts({}, CPU, 1, [data])["data"]
    data.write_bytes(b"Pixels")
    assert provenance.facts({}, CPU, 1, [data])["data"] != before


def test_the_loaded_code_is_the_stage_and_the_library(tmp_path):
    """The files that count are the stage and every module of the library that it has loaded, by their place here."""
    for folder, names in (("cifar", ["__init__", "provenance", "seeds", "files"]), ("stages", [])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.py").write_bytes(
                (ROOT / folder / f"{name}.py").read_bytes()
            )
    script = "import math\nfrom cifar import provenance, seeds\nprint(*provenance.loaded_code())"
    (tmp_path / "stages/own.py").write_text(script)
    command = [sys.executable, "-m", "stages.own"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "cifar/__init__.py",
        "cifar/training/provenance.py",
        "cifar/training/seeds.py",
        "stages/own.py",
    ]


def test_the_code_of_a_model_is_what_training_depends_on(first_run):
    """A model names the code that dvc.yaml has as the dependencies of train, but for the check of its parameters."""
    stage = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]["train"]
    model = json.loads((first_run.project.path / "models/model.json").read_text())
    declared = {
        name.replace("${train.model}", model["model"])
        for name in stage["deps"]
        if name.endswith(".py")
    }
    assert model["made_by"]["code"].keys() == declared - {"cifar/params/train.py"}
