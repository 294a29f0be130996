"""What the README says about using a result from Python and from another repository, as it stands there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cifar import networks

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def example(start):
    """The indented block of the README that starts so."""
    (block,) = [
        b
        for b in re.findall(r"(?:^(?:    .*)?\n)+", README, re.MULTILINE)
        if b.strip().startswith(start)
    ]
    return re.sub("^    ", "", block.strip("\n"), flags=re.MULTILINE)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_is_loaded_as_the_readme_says(channels, tmp_path):
    """The lines of the README classify a picture with nothing but the model file, one of grey pictures too."""
    arguments = {
        "num_classes": 2,
        "in_channels": channels,
        "image_size": 8,
        "depth": 1,
        "width": 2,
        "dropout": 0.0,
    }
    arguments |= {"dropout_step": 0.0, "batch_norm": False}
    description = {
        "model": "vgg",
        "arguments": arguments,
        "ensemble": 1,
        "classes": ["cat", "dog"],
        "image_size": 8,
    }
    description |= {"channels": channels, "mean": [0.5] * channels, "std": [0.2] * channels}
    content = networks.weights([networks.build("vgg", arguments, 0)], description)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.safetensors").write_bytes(content)
    Image.new("RGB", (40, 30), "orange").save(tmp_path / "cat.jpg")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", example("from pathlib")]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert re.fullmatch(r"(cat|dog) \d+\.\d%\n", done.stdout), done.stderr


def test_another_repository_gets_the_model(reproduced, tmp_path):
    """By DVC's programming interface parameters, metrics and outputs are read, and by its commands another repository
    gets the very model by its path and by its name, without a remote."""
    printed = reproduced.run("python", "-c", example("import dvc.api")).stdout.split()
    accuracy = json.loads((reproduced.path / "metrics/test.json").read_text())["test"]["accuracy"]
    assert printed == ["0.05", str(accuracy), "image,actual,predicted,confidence"]
    tag, *gets = re.sub("cifar-pipeline", "project", example("git tag")).splitlines()
    reproduced.run("bash", "-ec", tag)
    other = type(reproduced)(tmp_path / "other")
    other.path.mkdir()
    other.run("git", "init", "--quiet")
    other.run("dvc", "init", "--quiet")
    other.run("bash", "-ec", "\n".join(gets))
    model = (reproduced.path / "models/model.safetensors").read_bytes()
    for name in ("model.safetensors", "model-1.safetensors"):
        assert (other.path / name).read_bytes() == model
    nets, description = networks.load(other.path / "model.safetensors")
    assert len(nets) == 1 and description["made_by"]["parameters"]["train"]["lr"] == 0.05
