"""tools/predict.py: classes of picture files from the model file alone, with the pixels of the pipeline."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cifar import UserError, hardware, networks, tensors
from cifar.data import pictures
from cifar.evaluation import metrics
from tools import predict as tools

ROOT = Path(__file__).parent.parent
CLASSES = ["cat", "dog", "ship", "bird"]


@pytest.fixture
def predict(tmp_path, monkeypatch, capsys):
    """The command with these options, in `tmp_path`: what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hardware, "set_threads", lambda _: torch.set_num_threads(1))

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["predict", *options])
        tools.main()
        printed, errors = capsys.readouterr()
        assert errors == ""
        return printed

    return run


def make_model(path, channels, count):
    """A model file of `count` small networks for 12x12 pixels, and the description in it."""
    arguments = {
        "num_classes": 4,
        "in_channels": channels,
        "image_size": 12,
        "depth": 1,
        "width": 4,
    }
    arguments |= {"dropout": 0.0, "dropout_step": 0.0, "batch_norm": True}
    description = {
        "model": "vgg",
        "arguments": arguments,
        "ensemble": count,
        "classes": CLASSES,
        "channels": channels,
    }
    description |= {
        "image_size": 12,
        "mean": [0.4, 0.5, 0.6][:channels],
        "std": [0.2, 0.25, 0.3][:channels],
    }
    path.write_bytes(
        networks.weights(
            [networks.build("vgg", arguments, seed) for seed in range(count)], description
        )
    )
    return description


def make_pictures(folder, channels, count=7):
    """Random pictures of 12x12 pixels as PNG files; their pixels (N, 12, 12, channels)."""
    images = np.random.default_rng(0).integers(0, 256, (count, 12, 12, channels), dtype=np.uint8)
    for number, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(folder / f"{number}.png")
    return images


@pytest.mark.parametrize(("channels", "members"), [(3, 1), (1, 2)])
def test_probabilities_are_those_of_the_pipeline(channels, members, tmp_path, predict):
    """A picture file and the same pixels in the pipeline's arrays get the same probabilities, in colour and in grey,
    from one network and from several, whatever the batches; another folder to start in changes nothing."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    description = make_model(tmp_path / "own.safetensors", channels, members)
    images = make_pictures(tmp_path / "in" / "deep", channels)
    nets, _ = networks.load(tmp_path / "own.safetensors")
    normalize = tensors.normalizer(description["mean"], description["std"], torch.device("cpu"))
    pixels = torch.from_numpy(images)
    shares = metrics.average(
        [metrics.predict(net, pixels, normalize, 1000) for net in nets]
    ).softmax(1)
    options = (
        "--json",
        "--top",
        "4",
        "--device",
        "cpu",
        "--batch-size",
        "3",
        "--model",
        "own.safetensors",
        "in",
    )
    found = json.loads(predict(*options))
    assert found["unreadable"] == {} and len(found["predictions"]) == len(images)
    for number, (one, expected) in enumerate(
        zip(found["predictions"], shares.tolist(), strict=True)
    ):
        assert one["image"] == f"in/deep/{number}.png"
        got = {choice["class"]: choice["probability"] for choice in one["classes"]}
        assert got == pytest.approx(dict(zip(CLASSES, expected, strict=True)), abs=1e-6)
        assert list(got.values()) == sorted(got.values(), reverse=True)


def test_tables_name_the_winner_and_the_runners_up(tmp_path, predict):
    """The CSV and the plain table have the same classes, in the order of their probabilities."""
    make_model(tmp_path / "m", 3, 1)
    make_pictures(tmp_path, 3, 2)
    rows = list(
        csv.DictReader(
            io.StringIO(predict("--csv", "--top", "2", "--model", "m", "0.png", "1.png"))
        )
    )
    assert [row["image"] for row in rows] == ["0.png", "1.png"]
    assert list(rows[0]) == ["image", "predicted", "confidence", "predicted_2", "confidence_2"]
    lines = predict("--top", "2", "--model", "m", "0.png", "1.png").splitlines()
    for row, line in zip(rows, lines, strict=True):
        first, second = (f"{float(row[key]):.1%}" for key in ("confidence", "confidence_2"))
        assert line == f"{row['image']}: {row['predicted']} {first} ({row['predicted_2']} {second})"


def test_bad_files_are_listed_and_the_others_are_classified(tmp_path):
    """What is no picture is listed at the end with its reason, hidden files are left out, a picture far larger than
    the network's is named in a note, and the code says that something was wrong."""
    make_model(tmp_path / "m", 3, 1)
    folder = tmp_path / "some pictures"
    folder.mkdir()
    make_pictures(folder, 3, 2)
    (folder / "notes.txt").write_text("no picture")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / ".hidden").write_text("")
    Image.new("RGB", (400, 48)).save(folder / "large.jpg")
    Image.new("RGB", (400, 47)).save(folder / "not so large.jpg")
    command = [sys.executable, "-m", "tools.predict", "--json", "--model", "m", str(folder)]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    found = json.loads(done.stdout)
    names = [Path(one["image"]).name for one in found["predictions"]]
    assert names == ["0.png", "1.png", "large.jpg", "not so large.jpg"]
    assert {Path(path).name for path in found["unreadable"]} == {"notes.txt", "cut.png"}
    note, *listed, error = done.stderr.splitlines()
    assert note.startswith(f"note: {folder}/large.jpg: far larger than the 12x12 pixels")
    assert f"{folder}/notes.txt: not a picture in a known format" in listed and len(listed) == 2
    assert error.startswith("error: 2 of 6 files are no pictures") and done.returncode == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("nowhere.png",), "no such file or folder (nowhere.png)"),
        (("empty",), "no files in there (empty)"),
        (("--model", "other", "."), "no model file (other)"),
        (("--model", "junk", "."), "no safetensors file"),
        (("--device", "cuda:7", "."), "no device cuda:7 here, only"),
        (("--top", "0", "."), "--batch-size and --top are at least 1"),
    ],
)
def test_a_mistake_is_one_line(options, said, tmp_path, predict, capsys):
    """What cannot be done is told before anything is classified, in one line."""
    make_model(tmp_path / "m", 3, 1)
    (tmp_path / "junk").write_bytes(b"junk")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        predict("--model", "m", *options)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_grey_is_the_rule_of_pictures():
    """Three equal channels keep their value, and colours become the grey that Pillow gives them."""
    levels = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 16, 16, 3)
    assert (pictures.grey(levels[0])[..., 0] == levels[0, ..., 0]).all()
    assert pictures.grey(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)).ravel().tolist() == [
        76,
        29,
    ]
