"""Numbers computed by hand, and the ways in which a prediction must not depend on how it was made."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from cifar.evaluation import metrics

torch.set_num_threads(1)


def logits_of(choices, classes):
    """Logits whose largest value is at the given classes."""
    return torch.nn.functional.one_hot(torch.tensor(choices), classes).float()


def test_loss_and_accuracy_by_hand():
    """Probabilities of 1/2, 1/4 and 1/4 for the true class, the first one right: mean of their logarithms, a third."""
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.5, 0.25, 0.25]])
    loss, accuracy = metrics.loss_and_accuracy(probabilities.log(), torch.tensor([0, 1, 2]))
    assert loss == pytest.approx((math.log(2) + 2 * math.log(4)) / 3)
    assert accuracy == 1 / 3


@pytest.mark.parametrize(("right", "count"), [(0, 7), (7, 7), (3, 10), (8862, 10_000), (1, 1)])
def test_the_interval_is_wilsons(right, count):
    """The interval is Wilson's, as another implementation has it, at 0 and 100 % too."""
    labels = torch.zeros(count, dtype=torch.int64)
    numbers = metrics.summary(logits_of([0] * right + [1] * (count - right), 2), labels)
    interval = binomtest(right, count).proportion_ci(method="wilson")
    expected = {
        "accuracy": right / count,
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
    }
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, abs=6e-6)


def test_numbers_are_rounded_and_named():
    """A summary holds loss, accuracy and its interval, with five places."""
    numbers = metrics.summary(torch.tensor([[1.0, 0.0]] * 3), torch.tensor([0, 0, 1]))
    loss = math.log(1 + math.e) - 2 / 3
    assert numbers == {
        "loss": round(loss, 5), "accuracy": 0.66667, "accuracy_low": 0.20766, "accuracy_high": 0.93851
    }  # fmt: skip


def test_top5_accuracy_from_eleven_classes_on():
    """With eleven classes the share of labels among the five largest logits is given, with ten it is not."""
    ranked = torch.arange(11.0).repeat(4, 1)  # class 10 first, class 6 fifth, class 5 sixth
    labels = torch.tensor([10, 6, 5, 0])
    assert metrics.summary(ranked, labels)["top5_accuracy"] == 0.5
    assert "top5_accuracy" not in metrics.summary(ranked[:, :10], labels % 10)


def test_per_class_counts():
    """Each class has its own counts, a class without images too."""
    counts = metrics.per_class(np.array([0, 1, 1, 2, 0]), np.array([0, 0, 1, 2, 2]), 4)
    assert counts == [(1, 2), (1, 1), (1, 2), (0, 0)]


def test_an_ensemble_gives_the_mean_probability():
    """The probabilities of an ensemble are the means of its members'; a member alone keeps its logits."""
    members = [
        torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)) * 10 for seed in range(3)
    ]
    mean = sum(logits.double().softmax(1) for logits in members) / 3
    assert torch.allclose(metrics.average(members).exp(), mean)
    assert torch.equal(metrics.average(members[:1]), members[0])


def test_an_ensemble_of_sure_members_stays_finite():
    """Members that are sure of different classes give one half each, and the class that both exclude no infinity."""
    members = [
        torch.tensor([[1000.0, -1000.0, -1000.0]]),
        torch.tensor([[-1000.0, 1000.0, -1000.0]]),
    ]
    assert metrics.average(members).tolist() == [pytest.approx([-math.log(2), -math.log(2), -2000])]


def test_predictions_do_not_depend_on_the_batch_size():
    """Every image has its own logits, in order, whatever the size of a batch, and the network is in evaluation."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 4)
    ).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    images = torch.randint(256, (10, 4, 4, 1), dtype=torch.uint8)

    def prepare(batch):
        return batch.float().permute(0, 3, 1, 2) / 255

    whole = metrics.predict(net, images, prepare, 1000)
    for size in (1, 3, 10):
        assert torch.allclose(metrics.predict(net, images, prepare, size), whole, atol=1e-6)
    assert torch.allclose(whole, net.eval()(prepare(images)), atol=1e-6)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not whole.requires_grad


def test_sensitivity_is_the_gradient_of_the_predicted_class():
    """Of a linear network it is the size of its weights, whatever the image, with 255 at the largest; of two networks
    that of their mean; and of no image, none."""
    images = torch.randint(
        0, 256, (3, 2, 2, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, -4.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]]))
        net[1].bias.copy_(torch.tensor([1e6, 0.0]))
    prepare = lambda batch: batch.float().permute(0, 3, 1, 2)  # noqa: E731
    found = metrics.sensitivity([net], images, prepare)
    assert found.dtype == np.uint8 and found.tolist() == [[[64, 255], [0, 128]]] * 3
    assert metrics.sensitivity([net, net], images, prepare).shape == (3, 2, 2)
    assert metrics.sensitivity([net], images[:0], prepare).shape == (0, 2, 2)
