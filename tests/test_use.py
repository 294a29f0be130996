"""The public call, `cifar.load_model(path).predict(images)`, and a result in another repository."""

import ast
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import modelfile
import numpy as np
import pytest
import torch
from PIL import Image, features

import cifar
from cifar import UserError, inference, model_file
from cifar.use import Prediction

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/using.md").read_text()
torch.set_num_threads(1)


@pytest.fixture
def model(tmp_path):
    """A classifier of 12x12 pixels with a temperature."""
    modelfile.write(tmp_path / "m.safetensors", modelfile.record(temperature=0.2))
    return cifar.load_model(tmp_path / "m.safetensors", device="cpu")


def pixels(count=1, channels=3):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, 12, 12, channels), dtype=np.uint8)


def test_importing_the_library_is_cheap():
    """`import cifar` loads neither torch nor NumPy, and no other file of the library."""
    heavy = {"torch", "numpy", "PIL", "cifar.use"}
    code = f"import sys, cifar; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_types_are_those_of_the_call():
    """The stub that editors read has the names and arguments of the module."""
    stub = ast.parse((ROOT / "cifar/__init__.pyi").read_text())
    functions = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef)}
    classes = {node.name for node in stub.body if isinstance(node, ast.ClassDef)}
    assert classes == {"UserError"} and set(functions) == {"load_model"}
    arguments = functions["load_model"].args
    signature = inspect.signature(cifar.load_model).parameters
    assert [argument.arg for argument in arguments.args] == list(signature)
    assert [ast.literal_eval(default) for default in arguments.defaults] == ["auto"]
    assert [p.default for p in signature.values()] == [inspect.Parameter.empty, "auto"]


def test_a_prediction_has_calibrated_probabilities(model):
    """A prediction has all classes, most likely first, with the calibrated probabilities."""
    (prediction,) = model.predict(pixels())
    logits = inference.predict(model.nets[0], torch.from_numpy(pixels()), model.normalize)
    expected = (logits[0] / 0.2).softmax(0).tolist()
    assert isinstance(prediction, Prediction)
    assert prediction.probabilities == pytest.approx(
        dict(zip(modelfile.CLASSES, expected, strict=True))
    )
    values = list(prediction.probabilities.values())
    assert values == sorted(values, reverse=True) and sum(values) == pytest.approx(1)
    assert prediction.label == next(iter(prediction.probabilities))
    assert prediction.confidence == values[0]
    assert model.classes == modelfile.CLASSES


def test_every_form_of_an_image_is_one_image(model, tmp_path):
    """A path, text, a Pillow image and an array give the same prediction, alone or in a list."""
    array = pixels()[0]
    image = Image.fromarray(array)
    image.save(tmp_path / "image.png")
    path = tmp_path / "image.png"
    forms = [path, str(path), image, array, array[None]]
    expected = model.predict([array])
    assert len(expected) == 1
    for form in forms:
        assert model.predict(form) == expected, type(form)
    several = model.predict(forms[:4])
    assert model.predict(iter(forms[:4])) == several
    for prediction in several:  # another batch may change the last bits
        assert prediction.probabilities == pytest.approx(expected[0].probabilities, abs=1e-6)
    assert model.predict([]) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_are_converted(channels, tmp_path):
    """A model of grey or colour images accepts both, in all array shapes."""
    modelfile.write(tmp_path / "m", modelfile.record(channels))
    model = cifar.load_model(tmp_path / "m", "cpu")
    grey = pixels(channels=1)[0]
    forms = [grey, grey[..., 0], grey.repeat(3, axis=2), Image.fromarray(grey[..., 0])]
    first, *others = model.predict(forms)
    for other in others:
        assert other.probabilities == pytest.approx(first.probabilities, abs=1e-6)


@pytest.mark.parametrize("form", ["png", "tiff", "webp", "avif"])
def test_pixels_in_memory_pass_the_rules_of_files(model, tmp_path, form):
    """A Pillow image is treated like its file: orientation, transparency and size."""
    if form == "avif" and not features.check("avif"):
        pytest.skip("this Pillow does not write AVIF")
    image = Image.fromarray(pixels()[0]).resize((40, 30)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((40, 30)))
    exif = image.getexif()
    exif[0x0112] = 6
    options = {"compression": "tiff_lzw"} if form == "tiff" else {}  # Pillow scrambles others
    image.save(tmp_path / f"turned.{form}", exif=exif, **options)
    opened = Image.open(tmp_path / f"turned.{form}")
    assert model.predict(opened) == model.predict(tmp_path / f"turned.{form}")
    exif[0x0112] = 1
    image.save(tmp_path / f"straight.{form}", exif=exif, **options)
    assert model.predict(opened) != model.predict(tmp_path / f"straight.{form}")


@pytest.mark.hostile
@pytest.mark.parametrize("orientation", [0, 9, 70000, -1, "6"])
def test_an_odd_orientation_is_upright(model, tmp_path, orientation):
    """An invalid orientation in a Pillow image, which no file could contain, is ignored."""
    Image.fromarray(pixels()[0]).save(tmp_path / "plain.png")
    opened = Image.open(tmp_path / "plain.png")
    opened.getexif()[0x0112] = orientation
    assert model.predict(opened) == model.predict(tmp_path / "plain.png")


@pytest.mark.slow
def test_a_model_starts_no_thread_of_its_own(model):
    """Loading a model starts no thread, because the caller's process may fork or measure."""
    code = f"import cifar, threading; cifar.load_model({str(model.path)!r}); "
    code += "print(threading.active_count())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_predictions_come_in_batches_and_in_order(model, monkeypatch):
    """More images than fit into one batch keep their order and values."""
    images = pixels(7)
    whole = model.predict(images)
    monkeypatch.setattr(inference, "batch_size", lambda *_: 3)
    for prediction, expected in zip(model.predict(images), whole, strict=True):
        assert prediction.label == expected.label
        assert prediction.confidence == pytest.approx(expected.confidence, abs=1e-6)


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("none.png", "No such file or directory (none.png)"),
        ("notes.txt", "not a picture in a known format (notes.txt)"),
        (np.zeros((12, 12, 3), np.float32), "not uint8 (height, width, 1 or 3): float32"),
        (np.zeros((12, 12, 4), np.uint8), "not uint8 (height, width, 1 or 3): uint8 (12, 12, 4)"),
        (np.zeros((0, 12, 3), np.uint8), "not uint8 (height, width, 1 or 3)"),
        (np.zeros(5, np.uint8), "not uint8 (height, width, 1 or 3)"),
        (Image.new("I;16", (12, 12)), "not 8 bits per channel (mode I;16) (a Pillow image)"),
    ],
)
def test_what_is_no_image_is_one_line(image, message, model, tmp_path, monkeypatch):
    """The error gives the reason and the image, in one line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(UserError) as caught:
        model.predict([image])
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_missing_model_is_one_line(tmp_path):
    """A path without a model says how to get one."""
    with pytest.raises(UserError, match=r"^model file not found \(.*\): `dvc repro` makes it"):
        cifar.load_model(tmp_path / "none")


def example(start):
    """The indented block of docs/using.md that starts with this text."""
    (block,) = [
        b
        for b in re.findall(r"(?:^(?:    .*)?\n)+", PAGE, re.MULTILINE)
        if b.strip().startswith(start)
    ]
    return re.sub("^    ", "", block.strip("\n"), flags=re.MULTILINE)


@pytest.mark.slow
def test_a_script_keeps_its_way_of_reporting_errors():
    """Loading a model from a script of one's own replaces no hook of Python."""
    code = (
        "import sys\nfrom cifar import load_model\nhook = sys.excepthook\n"
        "try:\n    load_model('absent')\nexcept Exception:\n    assert sys.excepthook is hook\n"
        "else:\n    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_page_shows_the_call(tmp_path, monkeypatch):
    """The code in docs/using.md classifies a picture with only the model file."""
    modelfile.write(tmp_path / "models/model.safetensors", modelfile.record())
    Image.new("RGB", (40, 30), "orange").save(tmp_path / "cat.jpg")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-c", example("import cifar")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert re.match(r"(cat|dog|ship|bird) [\d.]+", done.stdout), done.stderr


@pytest.mark.long
def test_another_repository_gets_the_model(reproduced, tmp_path):
    """DVC's Python interface reads parameters, metrics and outputs.

    Its commands give another repository the very model, by path and by name, without a remote.
    """
    printed = reproduced.run("python", "-c", example("import dvc.api")).stdout.split()
    accuracy = json.loads((reproduced.path / "metrics/test.json").read_text())["test"]["accuracy"]
    columns = "image,actual,predicted,confidence,raw_confidence"
    assert printed == ["0.05", str(accuracy), columns]
    tag, *gets = re.sub("cifar-pipeline", "project", example("git tag")).splitlines()
    reproduced.run("bash", "-ec", tag)
    other = type(reproduced)(tmp_path / "other")
    other.path.mkdir()
    other.run("git", "init", "--quiet")
    other.run("dvc", "init", "--quiet")
    other.run("bash", "-ec", "\n".join(gets))
    content = (reproduced.path / "models/model.safetensors").read_bytes()
    for name in ("model.safetensors", "model-1.safetensors"):
        assert (other.path / name).read_bytes() == content
    nets, model = model_file.load(other.path / "model.safetensors")
    assert len(nets) == 1 and model.provenance.parameters.train["lr"] == 0.05
