"""Stage plot: every chart is drawn from the other stages' outputs, or the error is one line."""

from dataclasses import replace

import matplotlib.pyplot as plt
import modelfile
import numpy as np
import pytest
import torch
from finished import make
from PIL import Image

from cifar import UserError, files, model_file
from cifar.model import Layer
from stages import evaluate, plot

torch.set_num_threads(1)
PICTURES = [
    "calibration",
    "classes",
    "confusion",
    "curves",
    "filters",
    "mistakes",
    "pixels",
    "samples",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, in which evaluate has run."""
    make(tmp_path, modelfile.record(members=2, temperature=0.5))
    monkeypatch.chdir(tmp_path)
    evaluate.main()
    yield tmp_path
    plt.close("all")


@pytest.mark.long
def test_all_pictures_are_drawn_twice_alike(folder):
    """Every chart is a PNG, byte-identical when the stage runs again."""
    plot.main()
    paths = sorted((folder / "plots").glob("*.png"))
    assert [path.stem for path in paths] == PICTURES
    first = [path.read_bytes() for path in paths]
    for path in paths:
        Image.open(path).verify()
        path.unlink()
    plot.main()
    assert [path.read_bytes() for path in paths] == first


def test_filters_are_those_of_the_first_layer(folder):
    """The filters are those of the first convolution of the first network, or of a dense layer
    that sees all pixels."""
    model = modelfile.record(members=2)
    nets, _ = model_file.load(folder / "models/model.safetensors")
    weight = next(p for p in nets[0].parameters() if p.ndim == 4).detach().numpy()
    assert np.array_equal(plot.first_filters(model), weight)
    dense = torch.arange(2 * 432.0).reshape(2, 432)
    content = model_file.safetensors.torch.save({"0.fc.weight": dense})
    (folder / "models/model.safetensors").write_bytes(content)
    layers = (Layer("relu", "ReLU", (3,), 0), Layer("fc", "Linear", (2,), 864))
    filters = plot.first_filters(replace(model, layers=layers))
    assert filters.shape == (2, 3, 12, 12) and filters[1, 2, 11, 11] == 863
    assert len(plot.first_filters(replace(model, layers=layers[:1]))) == 0
    for kind in ("Conv2d", "Linear"):  # a record may lie
        for weight in (torch.ones(2), torch.ones(2, 3), torch.ones(432), torch.ones(2, 3, 1)):
            content = model_file.safetensors.torch.save({"0.fc.weight": weight})
            (folder / "models/model.safetensors").write_bytes(content)
            lie = replace(model, layers=(Layer("fc", kind, (2,), 864),))
            assert len(plot.first_filters(lie)) == 0


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("path", "stage"),
    [("metrics/test.json", ""), ("plots/classes.csv", "evaluate"), ("plots/history.csv", "train")],
)
@pytest.mark.parametrize("content", ["", "{}", "<<<<<<< HEAD\n", "\0" * 100])
def test_plot_refuses_damaged_results(path, stage, content, folder):
    """A damaged result is one line that names the file and the command to repeat."""
    evaluate.main()
    (folder / path).write_text(content)
    with pytest.raises(UserError) as caught:
        plot.main()
    assert path in str(caught.value) and "\n" not in str(caught.value)
    assert f"`dvc repro --force {stage}".strip() in str(caught.value)


@pytest.mark.hostile
@pytest.mark.parametrize("shape", [(45, 12, 12), (2, 8, 8), (2, 12, 12, 3), (0,)])
def test_maps_of_other_mistakes_are_refused(shape, folder):
    """Gradients of other mistakes than those in the predictions are refused in one line."""
    files.write_array("plots/gradients.npy", np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match=r"^not of these mistakes \(plots/gradients.npy\): `dvc"):
        plot.main()


@pytest.mark.hostile
def test_predictions_of_other_images_are_refused(folder):
    """Predictions whose number differs from that of the test images are refused in one line."""
    path = folder / "plots/predictions.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(UserError, match=r"^39 rows for 40 test images \(plots/predictions.csv\)"):
        plot.main()
