"""Training on a frozen backbone's features: the same result, and each image is seen once."""

from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest
import torch
from sample import DATASET
from test_fit import CPU, OPTIONS, Memory, arrays, parameters  # noqa: F401  a fixture
from torch import nn

from cifar import files, networks, tensors
from cifar.model import NetworkOptions
from cifar.params.train import Train
from cifar.training import features, fit
from cifar.training.augment import Augmentation
from cifar.training.distributed import World
from cifar.training.photo import PhotoOptions

CHANGES = {"freeze": True, "epochs": 6, "lr": 0.1, "flip": "none", "shift": 0, "ensemble": 1}
NORMALIZE = tensors.normalizer(DATASET.shape.mean, DATASET.shape.std, CPU)
IMAGES = torch.from_numpy(arrays().train_images)


class Frozen(nn.Module):
    """Random filters, inactive dropout, and a last layer, which alone is trained if `freeze`."""

    def __init__(self, freeze=True, behind=None):
        super().__init__()
        filters = nn.Conv2d(1, 16, 3).requires_grad_(not freeze)
        self.body = nn.Sequential(filters, nn.ReLU(), nn.Flatten(), nn.Dropout(0.5))
        self.head = nn.Linear(16 * 36, 3)
        self.behind = behind or nn.Identity()
        self.freeze = freeze
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return self.behind(self.head(self.body(x)))

    def train(self, mode=True):
        super().train(mode)
        if self.freeze:
            self.body.eval()
            self.behind.eval()
        return self


@pytest.fixture
def train(parameters, monkeypatch, tmp_path):  # noqa: F811
    """A function that trains a small network; returns the result and how many images it saw."""

    def run(net=Frozen, **changes):
        built = []

        def build(p, shape, options, seed, sample, device):
            torch.manual_seed(seed)
            built.append(net())
            return built[-1]

        monkeypatch.setattr(fit, "build", build)
        p = Train.model_validate(parameters.model_dump() | CHANGES | changes)
        np.save(tmp_path / "images.npy", arrays().train_images)
        images = files.read_array(tmp_path / "images.npy")
        data = replace(arrays(), train_images=images)
        fitted = fit.fit(p, 0, DATASET.shape, OPTIONS, data, World(), Memory())
        return fitted, sum(net.seen for net in built)

    return run


@pytest.mark.parametrize(
    "changes",
    [
        {"keep": "best", "ema": 0.5},
        {"ensemble": 2, "class_weights": "balanced", "schedule": "cosine"},
    ],
    ids=str,
)
def test_training_on_features_is_training_on_images(train, monkeypatch, changes):
    """History and networks are those of training on the images, up to rounding."""
    fitted, _ = train(**changes)
    monkeypatch.setattr(features, "trained_layer", lambda *_: None)
    reference, _ = train(**changes)
    history = fitted.members[0].history
    assert history[-1].train_loss < 0.8 * history[0].train_loss, "nothing was learned"
    assert fitted.epochs == reference.epochs
    assert np.allclose(fitted.history(), reference.history(), rtol=1e-3)
    assert fitted.temperature == pytest.approx(reference.temperature, rel=1e-2)
    for member, expected in zip(fitted.members, reference.members, strict=True):
        state = expected.net.state_dict()
        assert member.net.state_dict().keys() == state.keys()
        for name, value in member.net.state_dict().items():
            assert torch.allclose(value, state[name], rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("epochs", [1, 6])
def test_the_backbone_sees_each_image_once(train, epochs):
    """For any number of epochs, it sees every image once, after a trial with two images."""
    assert train(epochs=epochs)[1] == 2 + 24 + 12


@pytest.mark.parametrize(
    "changes",
    [{"shift": 1}, {"flip": "random"}, {"mixup": 0.2}, {"load": "disk"}, {"freeze": False}],
    ids=str,
)
def test_otherwise_every_epoch_runs_the_whole_network(train, changes):
    """With augmentation, images on disk, or a trained backbone, no features are used."""
    net = partial(Frozen, freeze=changes.get("freeze", True))
    assert train(net, epochs=2, **changes)[1] == 2 * 24 + 3 * 12


def test_any_augmentation_is_active():
    """Any single option can change images, except the size of small images."""
    values = {
        "shift": 1, "flip": "random", "cutout": 1, "small_epochs": 1, "mixup": 0.1, "cutmix": 0.1,
    }  # fmt: skip
    for name, value in values.items():
        assert Augmentation(**{name: value}).active, name
    for field in fields(PhotoOptions):
        assert Augmentation(photo=PhotoOptions(**{field.name: 0.5})).active, field.name
    assert not Augmentation(small_size=24).active
    names = {field.name for field in fields(Augmentation)}
    assert names == values.keys() | {"photo", "small_size"}


def test_features_are_what_the_last_layer_gets():
    """The last layer of a torchvision network turns the features into the network's logits."""
    options = NetworkOptions(backbone="mobilenet_v3_small", freeze=True)
    net = networks.build("pretrained", DATASET.shape, options, seed=0)
    layer = features.trained_layer(net, NORMALIZE(IMAGES[:1]))
    found = features.compute(net, layer, IMAGES[:3], NORMALIZE)
    with torch.no_grad():
        logits = layer(features.flatten(found))
        expected = net.eval()(NORMALIZE(IMAGES[:3]))
    assert found.shape == (3, 1, 1, layer.in_features)
    assert torch.allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert not found.is_inference(), "a layer could not be trained on it"
    assert not layer._forward_pre_hooks and not layer._forward_hooks


def test_a_network_that_is_more_than_its_last_layer_has_no_features():
    """A layer after the head, dropout, batch statistics, or a convolution as the head."""
    x = NORMALIZE(IMAGES[:2])
    assert features.trained_layer(net := Frozen(), x) is net.head
    assert features.trained_layer(Frozen(behind=nn.Softmax(1)), x) is None
    active = nn.Sequential(nn.Dropout(0.5), Frozen())
    assert features.trained_layer(active, x) is None
    norm = nn.Sequential(nn.BatchNorm2d(1, affine=False), Frozen())
    assert features.trained_layer(norm, x) is None
    options = NetworkOptions(backbone="squeezenet1_1", freeze=True)
    squeezenet = networks.build("pretrained", DATASET.shape, options, seed=0)
    assert features.trained_layer(squeezenet, x) is None
