"""tools/export.py: the ONNX file says what torch says, from pixels to probabilities."""

import json
import sys

import numpy as np
import pytest
import torch

from cifar import UserError, networks, tensors
from cifar.evaluation import metrics
from tools import export

onnxruntime = pytest.importorskip("onnxruntime")
VGG = {"num_classes": 3, "in_channels": 3, "image_size": 8, "depth": 1, "width": 4, "dropout": 0.1}
VGG |= {"dropout_step": 0.0, "batch_norm": True}
DESCRIPTION = {
    "model": "vgg",
    "arguments": VGG,
    "ensemble": 2,
    "classes": ["ä", "b", "c"],
    "channels": 3,
}
DESCRIPTION |= {"image_size": 8, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with two networks in a model file, test images, and what the command made of them."""
    folder = tmp_path_factory.mktemp("export")
    nets = [networks.build("vgg", VGG, seed) for seed in (0, 1)]
    (folder / "model").write_bytes(networks.weights(nets, DESCRIPTION))
    np.save(
        folder / "images.npy",
        np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(
            sys,
            "argv",
            ["export", "--model", "model", "--out", "out/m.onnx", "--images", "images.npy"],
        )
        export.main()
    return folder


def test_onnxruntime_and_torch_agree(written):
    """For one image and for many the probabilities are those of the evaluate stage, and the metadata says how to use
    the file."""
    session = onnxruntime.InferenceSession(
        written / "out/m.onnx", providers=["CPUExecutionProvider"]
    )
    images = np.load(written / "images.npy")
    nets, _ = networks.load(written / "model")
    normalize = tensors.normalizer(DESCRIPTION["mean"], DESCRIPTION["std"], torch.device("cpu"))
    members = [metrics.predict(net, torch.from_numpy(images), normalize, 100) for net in nets]
    expected = metrics.average(members).softmax(1).numpy()
    for count in (1, 4, 9):
        (found,) = session.run(["probabilities"], {"images": images[:count]})
        np.testing.assert_allclose(found, expected[:count], atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == ["ä", "b", "c"]
    assert json.loads(metadata["description"]) == DESCRIPTION and metadata["input"].startswith(
        "uint8"
    )


def test_a_graph_that_differs_is_refused(written):
    """Where onnxruntime and torch do not agree, here because torch has other networks, one line says so."""
    others = [networks.build("vgg", VGG, seed).eval() for seed in (2, 3)]
    content, images = (written / "out/m.onnx").read_bytes(), np.load(written / "images.npy")
    with pytest.raises(
        UserError, match=r"^onnxruntime differs from torch by .*: no file is written"
    ):
        export.verify(content, others, DESCRIPTION, images)


def test_other_images_are_refused(written, monkeypatch):
    """Images that the network does not take end it with one line, before anything is exported."""
    np.save(written / "grey.npy", np.zeros((9, 8, 8, 1), np.uint8))
    monkeypatch.chdir(written)
    monkeypatch.setattr(
        sys, "argv", ["export", "--model", "model", "--out", "no.onnx", "--images", "grey.npy"]
    )
    with pytest.raises(UserError, match=r"^no images of 8x8 pixels with 3 channels \(grey.npy\)"):
        export.main()
    assert not (written / "no.onnx").exists()


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxscript"])
def test_what_is_not_installed_is_said_at_once(written, name, monkeypatch):
    """Without one of the three packages one line names it and installs all, before anything is read."""
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(sys, "argv", ["export", "--model", "no model"])
    install = "`pip install onnx onnxruntime onnxscript`"
    with pytest.raises(UserError, match=rf"^no {name} \(this environment\): {install}"):
        export.main()
