"""From images to probabilities: batches, averages, losses."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cifar import inference, tensors

CPU = torch.device("cpu")
torch.set_num_threads(1)


def images(count, side=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, side, side, 1), dtype=torch.uint8, generator=generator)


def logits_of(count, classes=3, seed=0):
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))


def test_images_are_predicted_in_order_and_in_batches(monkeypatch):
    """All images are predicted in order, in evaluation mode and without gradients."""
    monkeypatch.setattr(inference, "MAX_BATCH", 3)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Dropout(0.5)).train()
    sizes = []
    net.register_forward_pre_hook(lambda _, x: sizes.append(len(x[0])))
    normalize = tensors.normalizer([0.5], [0.2], CPU)
    logits = inference.predict(net, images(8), normalize)
    assert sizes == [3, 3, 2]
    assert torch.allclose(logits, net.eval()(normalize(images(8))))
    assert not net.training and not logits.requires_grad


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [(1, 1000), (32, 1000), (64, 250), (224, 20), (4096, 1)],
)
def test_the_batch_follows_from_the_image_size(image_size, expected):
    """A batch has a thousand images, fewer if they are large, but at least one."""
    net = nn.Identity()
    assert inference.batch_size(net, image_size) == expected
    net.resized_to = image_size  # of a network that resizes its images, to larger or smaller ones
    assert inference.batch_size(net, 1) == expected
    net.resized_to = 1
    assert inference.batch_size(net, image_size) == expected
    assert expected == 1 or expected * image_size**2 <= inference.PIXELS


def test_a_single_member_is_not_changed():
    """The average of one network is exactly its logits."""
    logits = logits_of(5)
    assert inference.average([logits]) is logits


def test_the_average_is_that_of_the_probabilities():
    """The softmax of the averaged logits is the mean of the networks' probabilities."""
    members = [logits_of(20, seed=seed) for seed in range(3)]
    expected = torch.stack([member.double().softmax(1) for member in members]).mean(0)
    assert torch.allclose(inference.average(members).softmax(1), expected, atol=1e-12)


def test_extreme_logits_survive_the_average():
    """Probabilities of 0 and logits in the thousands give finite numbers."""
    member = torch.tensor([[4000.0, 0.0], [-4000.0, 0.0]])
    averaged = inference.average([member, -member])
    assert torch.allclose(averaged.softmax(1), torch.full((2, 2), 0.5, dtype=torch.float64))


def test_probabilities_by_hand():
    """Logits of 0 and 2 ln 3 at a temperature of 2 are probabilities of 1/4 and 3/4."""
    logits = torch.tensor([[0.0, 2 * math.log(3)]])
    assert inference.probabilities(logits, 2.0)[0].tolist() == pytest.approx([0.25, 0.75])


def test_loss_and_accuracy_are_torchs():
    """The loss equals torch's cross-entropy in double precision; the accuracy counts the hits."""
    logits = logits_of(101)
    labels = torch.arange(101) % 3
    loss, accuracy = inference.loss_and_accuracy(logits, labels)
    assert loss == F.cross_entropy(logits.double(), labels).item()
    assert accuracy == (logits.argmax(1) == labels).sum().item() / 101


def test_top5_by_hand():
    """A class among the five most likely counts as right, and no other."""
    logits = torch.arange(12.0).expand(12, 12)
    assert inference.top5_accuracy(logits, torch.arange(12)) == 5 / 12
