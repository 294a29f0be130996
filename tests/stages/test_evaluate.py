"""Stage evaluate: its outputs, and the inputs that it refuses before it writes."""

import json
import shutil

import matplotlib.pyplot as plt
import modelfile
import numpy as np
import pytest
import torch
from finished import make, set_params

from cifar import UserError, files, inference, model_file, tensors
from cifar.evaluation import calibration, card, tables
from cifar.use import Classifier
from stages import evaluate, plot

torch.set_num_threads(1)
OUTPUTS = [
    "metrics/test.json",
    "models/card.md",
    "plots/classes.csv",
    "plots/gradients.npy",
    "plots/predictions.csv",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, in which the earlier stages have run."""
    make(tmp_path, modelfile.record(members=2, temperature=0.5))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    plt.close("all")


def written(folder):
    return sorted(path for path in OUTPUTS if (folder / path).exists())


def test_the_outputs_fit_together(folder):
    """Metrics, predictions and class table follow from the ensemble's calibrated probabilities."""
    evaluate.main()
    assert written(folder) == OUTPUTS
    result = tables.read_result(folder / "metrics/test.json")
    model = Classifier(folder / "models/model.safetensors", "cpu")
    images = files.read_array(folder / "data/processed/test/images.npy")
    labels = files.read_array(folder / "data/processed/test/labels.npy")
    expected = model.probabilities(np.array(images))
    table = tables.read_predictions(folder / "plots/predictions.csv", model.classes)
    assert table["image"].tolist() == [f"{i}.png" for i in range(40)]
    assert table["predicted"].tolist() == [model.classes[i] for i in expected.argmax(1)]
    assert np.allclose(table["confidence"], expected.max(1), atol=6e-5)
    assert (table["raw_confidence"] < table["confidence"]).all()  # a temperature below 1
    right = expected.argmax(1) == labels
    assert result.test.accuracy == round(float(right.mean()), 5)
    loss = -np.log(expected[np.arange(40), labels].astype(float)).mean()
    assert result.test.calibrated_loss == pytest.approx(loss, abs=1e-4)
    bins = calibration.bins(table["raw_confidence"].to_numpy(), right)
    assert result.test.raw_calibration_error == round(calibration.expected_error(bins), 5)
    content = (folder / "models/model.safetensors").read_bytes()
    assert result.model == files.short_sha256(content)
    accuracies = tables.read_classes(folder / "plots/classes.csv", model.classes)["accuracy"]
    assert accuracies.mean() == pytest.approx(result.test.balanced_accuracy, abs=1e-5)
    assert set(result.test.member_accuracy) == {"0", "1"} and result.test.tta_accuracy is None


def test_mirrored_images_have_their_accuracy(folder):
    """tta_accuracy uses the mean of the probabilities of each image and its mirror image."""
    set_params(folder, evaluate={"device": "cpu", "tta": "flip"})
    evaluate.main()
    nets, model = model_file.load(folder / "models/model.safetensors")
    images = torch.from_numpy(np.load(folder / "data/processed/test/images.npy"))
    labels = np.load(folder / "data/processed/test/labels.npy")
    dataset = model.dataset
    normalize = tensors.normalizer(dataset.mean, dataset.std, torch.device("cpu"))
    mean = sum(
        net(normalize(batch)).double().softmax(1)
        for net in nets
        for batch in (images, images.flip(2))
    )
    expected = (mean.argmax(1).numpy() == labels).mean()
    result = tables.read_result(folder / "metrics/test.json")
    assert result.test.tta_accuracy == round(float(expected), 5)


def test_test_images_are_read_batch_by_batch(folder, monkeypatch):
    """The images are read from the memory map batch by batch, never all at once."""
    sizes = []
    predict = inference.predict

    def spy(net, images, normalize):
        return predict(net, images, lambda batch: sizes.append(len(batch)) or normalize(batch))

    monkeypatch.setattr(inference, "predict", spy)
    monkeypatch.setattr(inference, "batch_size", lambda *_: 15)
    monkeypatch.setattr(tensors, "to_device", None)
    evaluate.main()
    assert sizes == [15, 15, 10] * 2


@pytest.mark.hostile
def test_outputs_that_overflow_with_the_temperature_are_refused(folder):
    """Outputs that are finite and, divided by the temperature, are not: no file holds NaN."""
    path = folder / "models/model.safetensors"

    def enlarge(state):
        state[[name for name in state if name.endswith("bias")][-1]].fill_(1e37)

    modelfile.write_lie(path, modelfile.record(temperature=0.001), weights=enlarge)
    for read in (
        lambda: Classifier(path, "cpu").predict(np.zeros((12, 12, 3), np.uint8)),
        evaluate.main,
    ):
        with pytest.raises(UserError, match=r"^[^\n]*not finite \(.*model\.safetensors\): train"):
            read()
    assert not (folder / "metrics/test.json").exists()


@pytest.mark.hostile
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_weights_that_are_not_finite_are_refused(value, folder):
    """NaN, infinite or overflowing weights are refused, and nothing is written."""
    modelfile.write_lie(
        folder / "models/model.safetensors",
        modelfile.record(members=2),
        weights=lambda state: [w.fill_(value) for w in state.values() if w.dtype.is_floating_point],
    )
    with pytest.raises(UserError, match=r"^[^\n]*not finite \(models/model.safetensors\): train"):
        evaluate.main()
    assert written(folder) == []


LIES = {
    "channels 2": {"channels": 2},
    "two equal classes": {"classes": ["a", "a", "b", "c"]},
    "no classes": {"classes": []},
    "one class": {"classes": ["a"]},
    "fifty classes": {"classes": [str(i) for i in range(50)]},
    "classes are a number": {"classes": 5},
    "mean []": {"mean": []},
    "mean null": {"mean": None},
    "mean of one channel": {"mean": [0.5]},
    "mean huge": {"mean": [1e300, 0.5, 0.5]},
    "std 0": {"std": [0.0, 0.2, 0.2]},
    "std tiny": {"std": [1e-300, 0.2, 0.2]},
    "size 0": {"image_size": 0},
    "size -3": {"image_size": -3},
    "size as text": {"image_size": "16"},
    "size 10^7": {"image_size": 10**7},
    "escape code": {"classes": ["\x1b[31mred", "a", "b", "c"]},
    "escape code of 8 bits": {"classes": ["\x9b31mred", "a", "b", "c"]},
    "reordered text": {"classes": ["\u202ered", "a", "b", "c"]},
    "line break": {"classes": ["a\nerror: b", "a", "b", "c"]},
    "unknown key": {"more": 1},
}
RECORD_LIES = {
    "no networks": {"ensemble": 0, "epochs": []},
    "networks as text": {"ensemble": "1"},
    "epoch 0": {"epochs": [0]},
    "temperature 0": {"temperature": 0},
    "temperature tiny": {"temperature": 1e-300},
    "another network": {"network": "resnet18"},
    "a path": {"network": "../../x"},
    "no such network": {"network": "nothing"},
    "no options": {"options": None},
    "width": {"options": {"width": 8}},
    "no layers": {"layers": None},
}


@pytest.mark.hostile
@pytest.mark.parametrize("name", [*LIES, *RECORD_LIES])
def test_a_record_that_lies_is_one_line(name, folder):
    """A model file with a valid checksum but a wrong record is refused by everything that reads
    it."""
    evaluate.main()
    for path in OUTPUTS:
        (folder / path).unlink()
    model = modelfile.record()

    def change(content):
        content.update(RECORD_LIES.get(name, {}))
        content["dataset"].update(LIES.get(name, {}))

    path = folder / "models/model.safetensors"
    modelfile.write_lie(path, model, change)
    for read in (
        lambda: Classifier(path, "cpu").predict(np.zeros((12, 12, 3), np.uint8)),
        evaluate.main,
    ):
        with pytest.raises(UserError) as caught:
            read()
        message = str(caught.value)
        assert "\n" not in message and "\x1b" not in message and len(message) < 600
        assert str(path.name) in message
    assert written(folder) == []
    with pytest.raises(UserError):
        plot.main()
    assert not list(folder.glob("plots/*.png"))


@pytest.mark.hostile
@pytest.mark.parametrize("shape", [(40, 16, 16, 3), (40, 12, 12, 1), (40, 12, 12)])
def test_images_that_the_model_does_not_take_are_one_line(shape, folder):
    """Test images of another size or number of channels are refused."""
    np.save(folder / "data/processed/test/images.npy", np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match=r"^the model is for images of 12x12 pixels, 3 channels,"):
        evaluate.main()
    assert written(folder) == []


@pytest.mark.hostile
def test_any_class_name_comes_out_as_it_went_in(folder):
    """Class names with special characters are plain text in tables, charts and model card."""
    names = ("$a_b$", "a$", "<b>", "a|b", "\\", "🐈", "=1+1", "NA", "1e5")
    make(folder, modelfile.record(classes=names, members=2))
    evaluate.main()
    plot.main()
    table = tables.read_classes(folder / "plots/classes.csv", names)
    assert table["class"].tolist() == list(names)
    assert len(list(folder.glob("plots/*.png"))) == 8
    text = (folder / "models/card.md").read_text()
    assert ", ".join(map(card.escape, names)) in text


def test_metrics_are_json(folder):
    """The metrics are JSON with sorted keys and a newline at the end."""
    evaluate.main()
    text = (folder / "metrics/test.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"


def test_evaluating_twice_gives_the_same_bytes(folder):
    """All outputs are byte-identical when the stage runs again."""
    evaluate.main()
    first = {path: (folder / path).read_bytes() for path in OUTPUTS}
    shutil.rmtree(folder / "metrics")
    evaluate.main()
    assert first == {path: (folder / path).read_bytes() for path in OUTPUTS}
