"""tools/export.py: the ONNX file gives torch's probabilities, from pixels."""

import json
import sys
from dataclasses import asdict

import modelfile
import numpy as np
import pytest
import torch

from cifar import UserError, inference, model_file, tensors
from cifar.use import Classifier
from tools import export

onnxruntime = pytest.importorskip("onnxruntime")
MODEL = modelfile.record(classes=("ä", "b", "c"), members=2, temperature=0.25, image_size=8)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with a model file of two networks, test images, and the exported file."""
    folder = tmp_path_factory.mktemp("export")
    modelfile.write(folder / "model", MODEL)
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    command = "export --model model --out out/m.onnx --images images.npy"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", command.split())
        export.main()
    return folder


def test_onnxruntime_and_torch_agree(written):
    """One image and many get the calibrated probabilities of the stage evaluate.

    The metadata says how to use the file.
    """
    session = onnxruntime.InferenceSession(
        written / "out/m.onnx", providers=["CPUExecutionProvider"]
    )
    images = np.load(written / "images.npy")
    nets, _ = model_file.load(written / "model")
    dataset = MODEL.dataset
    normalize = tensors.normalizer(dataset.mean, dataset.std, torch.device("cpu"))
    members = [inference.predict(net, torch.from_numpy(images), normalize) for net in nets]
    expected = (inference.average(members) / 0.25).softmax(1).numpy()
    for count in (1, 4, 9):
        (got,) = session.run(["probabilities"], {"images": images[:count]})
        np.testing.assert_allclose(got, expected[:count], atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == ["ä", "b", "c"]
    assert json.loads(metadata["model"]) == json.loads(json.dumps(asdict(MODEL)))
    assert metadata["input"].startswith("uint8")


def test_a_graph_that_differs_is_refused(written, tmp_path):
    """If onnxruntime and torch disagree, here due to another temperature, one line says so."""
    modelfile.write(
        tmp_path / "other",
        modelfile.record(classes=("ä", "b", "c"), members=2, temperature=0.3, image_size=8),
    )
    content = (written / "out/m.onnx").read_bytes()
    images = np.load(written / "images.npy")
    with pytest.raises(UserError, match=r"^onnxruntime differs from torch by .*: no file"):
        export.verify(content, Classifier(tmp_path / "other", "cpu"), images)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((9, 8, 8, 1), np.uint8), "no images of 8x8 pixels with 3 channels (x.npy)"),
        (np.zeros((9, 8, 8, 3), np.float32), "no images of 8x8 pixels with 3 channels (x.npy)"),
        (np.zeros((1, 8, 8, 3), np.uint8), "no images of 8x8 pixels with 3 channels (x.npy)"),
        (None, "no images to check with (x.npy)"),
    ],
)
def test_other_images_are_refused(images, message, written, monkeypatch):
    """Images that do not suit the network are a one-line error, before anything is exported."""
    (written / "x.npy").unlink(missing_ok=True)
    if images is not None:
        np.save(written / "x.npy", images)
    monkeypatch.chdir(written)
    command = "export --model model --out no.onnx --images x.npy"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(UserError) as caught:
        export.main()
    assert str(caught.value).startswith(message)
    assert not (written / "no.onnx").exists()


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_at_once(written, name, monkeypatch):
    """The message says how to install all three packages, before anything is read."""
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(sys, "argv", ["export", "--model", "no model"])
    install = "run `pip install onnx onnxruntime onnxscript`"
    message = rf"^{name} is not installed \(this environment\): {install}"
    with pytest.raises(UserError, match=message):
        export.main()
