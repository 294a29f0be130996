"""tools/predict.py: classes of picture files from the model file alone."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import modelfile
import numpy as np
import pytest
import torch
from PIL import Image

from cifar import UserError, hardware, inference, model_file, tensors
from tools import predict as tool

ROOT = Path(__file__).parent.parent


@pytest.fixture
def predict(tmp_path, monkeypatch, capsys):
    """Run the command with these options in `tmp_path`; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hardware, "set_threads", lambda _: torch.set_num_threads(1))

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["predict", "--device", "cpu", *options])
        tool.main()
        printed, errors = capsys.readouterr()
        assert errors == ""
        return printed

    return run


def run(folder, *options):
    """Run the command as a process of its own."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tools.predict", "--device", "cpu", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=600)


def make_pictures(folder, channels, count=7):
    """Write random pictures of 12x12 pixels as PNG files; returns (N, 12, 12, channels) pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (count, 12, 12, channels), dtype=np.uint8)
    for number, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(folder / f"{number}.png")
    return images


@pytest.mark.parametrize(("channels", "members"), [(3, 1), (1, 2)])
def test_probabilities_are_those_of_the_pipeline(channels, members, tmp_path, predict, monkeypatch):
    """A picture file gets the calibrated probabilities of the same pixels in the pipeline.

    In colour and in grey, from one network and from several, whatever the batches.
    """
    model = modelfile.record(channels, members=members, temperature=0.2)
    modelfile.write(tmp_path / "own.safetensors", model)
    images = make_pictures(tmp_path / "in" / "deep", channels)
    nets, _ = model_file.load(tmp_path / "own.safetensors")
    normalize = tensors.normalizer(model.dataset.mean, model.dataset.std, torch.device("cpu"))
    pixels = torch.from_numpy(images)
    logits = inference.average([inference.predict(net, pixels, normalize) for net in nets])
    expected = (logits / 0.2).softmax(1).tolist()
    monkeypatch.setattr(inference, "batch_size", lambda *_: 3)
    printed = json.loads(predict("--json", "--top", "4", "--model", "own.safetensors", "in"))
    assert printed["unreadable"] == {} and len(printed["predictions"]) == len(images)
    for number, (row, wanted) in enumerate(zip(printed["predictions"], expected, strict=True)):
        assert row["image"] == f"in/deep/{number}.png"
        got = {choice["class"]: choice["probability"] for choice in row["classes"]}
        assert got == pytest.approx(dict(zip(modelfile.CLASSES, wanted, strict=True)), abs=1e-6)
        assert list(got.values()) == sorted(got.values(), reverse=True)


def test_tables_name_the_winner_and_the_runners_up(tmp_path, predict):
    """The CSV and the plain lines have the same classes, in the order of their probabilities."""
    modelfile.write(tmp_path / "m", modelfile.record())
    make_pictures(tmp_path, 3, 2)
    text = predict("--csv", "--top", "2", "--model", "m", "0.png", "1.png")
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert text[0] == "\ufeff" and [row["image"] for row in rows] == ["0.png", "1.png"]
    assert list(rows[0]) == ["image", "predicted", "confidence", "predicted_2", "confidence_2"]
    lines = predict("--top", "2", "--model", "m", "0.png", "1.png").splitlines()
    for row, line in zip(rows, lines, strict=True):
        first, second = (f"{float(row[key]):.1%}" for key in ("confidence", "confidence_2"))
        assert line == f"{row['image']}: {row['predicted']} {first} ({row['predicted_2']} {second})"
    (line,) = predict("--top", "1", "--model", "m", "0.png").splitlines()
    assert "(" not in line
    line = predict("--top", "99", "--model", "m", "0.png")
    assert all(name in line for name in modelfile.CLASSES)


@pytest.mark.hostile
@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a"])
def test_a_spreadsheet_finds_no_formula(name, tmp_path, predict):
    """A class or file that a spreadsheet would compute has an apostrophe in front, in CSV only."""
    modelfile.write(tmp_path / "m", modelfile.record(classes=(name, "b")))
    make_pictures(tmp_path, 3, 1)[0]
    (tmp_path / "0.png").rename(tmp_path / f"{name}.png")
    text = predict("--csv", "--top", "2", "--model", "m", "--", f"{name}.png")
    (row,) = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    assert row["image"] == f"'{name}.png"
    assert f"'{name}" in (row["predicted"], row["predicted_2"])
    plain = json.loads(predict("--json", "--top", "2", "--model", "m", "--", f"{name}.png"))
    assert plain["predictions"][0]["image"] == f"{name}.png"
    assert {choice["class"] for choice in plain["predictions"][0]["classes"]} == {name, "b"}


@pytest.mark.slow
def test_other_files_in_a_folder_are_skipped(tmp_path):
    """Other files in a folder are noted, hidden files are not, and the exit code is 0."""
    modelfile.write(tmp_path / "m", modelfile.record())
    folder = tmp_path / "some pictures"
    make_pictures(folder, 3, 2)
    (folder / "notes.txt").write_text("no picture")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / ".hidden").write_text("")
    Image.new("RGB", (400, 48)).save(folder / "large.jpg")
    Image.new("RGB", (400, 47)).save(folder / "not so large.jpg")
    done = run(tmp_path, "--json", "--model", "m", str(folder))
    printed = json.loads(done.stdout)
    names = [Path(row["image"]).name for row in printed["predictions"]]
    assert names == ["0.png", "1.png", "large.jpg", "not so large.jpg"]
    assert {Path(path).name for path in printed["unreadable"]} == {"notes.txt", "cut.png"}
    large, *skipped = done.stderr.decode().splitlines()
    assert large.startswith(f"note: {folder}/large.jpg: far larger than the 12x12 pixels")
    assert f"note: skipped {folder}/notes.txt: not a picture in a known format" in skipped
    assert len(skipped) == 2 and done.returncode == 0


def test_an_animation_is_read_on_request(tmp_path, predict, capsys):
    """With --on-animated first, an animation is classified like a picture of its first frame."""
    modelfile.write(tmp_path / "m", modelfile.record())
    frames = [Image.fromarray(image) for image in make_pictures(tmp_path, 3, 2)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match="1 named file could not be read"):
        predict("--model", "m", "moving.png")
    assert "on_animated" in capsys.readouterr().err
    moving = predict("--model", "m", "--on-animated", "first", "moving.png")
    assert moving.partition(": ")[2] == predict("--model", "m", "0.png").partition(": ")[2]


@pytest.mark.parametrize("paths", [["0.png", "notes.txt"], ["folder"]])
def test_a_named_file_that_is_no_picture_is_an_error(paths, tmp_path, predict, capsys):
    """A file on the command line must be a picture, and a folder must contain one."""
    modelfile.write(tmp_path / "m", modelfile.record())
    make_pictures(tmp_path, 3, 1)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/notes.txt").write_text("no picture")
    with pytest.raises(UserError, match=r"^(1 named file could not|none of these files is)"):
        predict("--model", "m", *paths)
    printed, errors = capsys.readouterr()
    assert re.fullmatch(r"note: skipped [^\n]*\n", errors)
    assert ("0.png: " in printed) == ("0.png" in paths)


@pytest.mark.slow
@pytest.mark.hostile
def test_a_name_that_is_not_text_is_printed(tmp_path):
    """Bytes that are not text, in the names of pictures and other files, are escaped."""
    modelfile.write(tmp_path / "m", modelfile.record())
    make_pictures(tmp_path / "in", 3, 1)
    (tmp_path / "in/0.png").rename(tmp_path / "in" / os.fsdecode(b"\xff.png"))
    (tmp_path / "in" / os.fsdecode(b"\xfe.txt")).write_text("no picture")
    done = run(tmp_path, "--model", "m", "--csv", "in")
    assert done.returncode == 0, done.stderr
    assert b"udcff" in done.stdout and b"udcfe" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("nowhere.png",), "no such file or folder (nowhere.png)"),
        (("empty",), "no files found (empty)"),
        (("--model", "other", "."), "model file not found (other)"),
        (("--model", "junk", "."), "not a safetensors file"),
        (("--device", "cuda:7", "."), "device cuda:7 is not available, only "),
        (("--top", "0", "."), "--top 0 is too small (command line): use 1"),
    ],
)
def test_a_mistake_is_one_line(options, message, tmp_path, predict, capsys):
    """A mistake is reported in one line before anything is classified."""
    modelfile.write(tmp_path / "m", modelfile.record())
    (tmp_path / "junk").write_bytes(b"junk")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        predict("--model", "m", *options)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
