"""Metrics compared with values computed by hand and with other implementations."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, f1_score
from torch import nn

from cifar import inference
from cifar.evaluation import calibration, metrics
from cifar.evaluation.predictions import Predictions

torch.set_num_threads(1)


def logits_of(choices, classes):
    """Logits whose largest values are at the given classes."""
    return torch.nn.functional.one_hot(torch.tensor(choices), classes).float()


def test_loss_and_accuracy_by_hand():
    """Probabilities of 1/2, 1/4 and 1/4 for the true classes, the first of which is right."""
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.5, 0.25, 0.25]])
    loss, accuracy = inference.loss_and_accuracy(probabilities.log(), torch.tensor([0, 1, 2]))
    assert loss == pytest.approx((math.log(2) + 2 * math.log(4)) / 3)
    assert accuracy == 1 / 3


@pytest.mark.parametrize(("right", "count"), [(0, 7), (7, 7), (3, 10), (8862, 10_000), (1, 1)])
def test_the_interval_is_wilsons(right, count):
    """The interval agrees with another implementation of Wilson's, even at 0 and 100 %."""
    labels = torch.zeros(count, dtype=torch.int64)
    numbers = metrics.summarize(logits_of([0] * right + [1] * (count - right), 2), labels)
    interval = binomtest(right, count).proportion_ci(method="wilson")
    expected = {
        "accuracy": right / count,
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
    }
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, abs=6e-6)


def test_numbers_are_rounded_and_named():
    """A summary computed by hand: two images of class 0 and one of class 1, all predicted as 0."""
    numbers = metrics.summarize(torch.tensor([[1.0, 0.0]] * 3), torch.tensor([0, 0, 1]))
    loss = math.log(1 + math.e) - 2 / 3
    assert numbers == {
        "loss": round(loss, 5),
        "accuracy": 0.66667,
        "accuracy_low": 0.20766,
        "accuracy_high": 0.93851,
        "balanced_accuracy": 0.5,  # of recalls 1 and 0
        "macro_f1": 0.4,  # of 2 * 2 / (2 + 3) and 0
    }


def test_class_means_are_those_of_scikit_learn():
    """Balanced accuracy and macro F1 agree with scikit-learn for classes of any size."""
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 200, p=[0.7, 0.2, 0.07, 0.03])
    predicted = np.where(rng.random(200) < 0.6, labels, rng.integers(0, 4, 200))
    balanced, f1 = metrics.class_means(predicted, labels, 4)
    assert balanced == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert f1 == pytest.approx(f1_score(labels, predicted, average="macro"))


def test_a_class_without_images_is_in_no_mean():
    """The means are over the classes that have test images, even if others were predicted."""
    labels = np.array([0, 0, 1, 1])
    predicted = np.array([0, 2, 1, 1])
    assert metrics.class_means(predicted, labels, 4) == pytest.approx((0.75, (2 / 3 + 1) / 2))


def test_top5_accuracy_from_eleven_classes_on():
    """Labels among the five largest logits count from eleven classes on, not with ten."""
    ranked = torch.arange(11.0).repeat(4, 1)  # class 10 first, class 6 fifth, class 5 sixth
    labels = torch.tensor([10, 6, 5, 0])
    assert metrics.summarize(ranked, labels)["top5_accuracy"] == 0.5
    assert "top5_accuracy" not in metrics.summarize(ranked[:, :10], labels % 10)


def test_calibration_by_hand():
    """Before: confidence 0.9 at an accuracy of 1/2; with the temperature ln 9: 0.75."""
    logits = torch.tensor([[math.log(9), 0.0]] * 4)
    temperature = math.log(9) / math.log(3)  # 9 : 1 becomes 3 : 1
    labels = torch.tensor([0, 0, 1, 1])
    predictions = Predictions.of(["a"] * 4, logits, labels, temperature)
    loss = -(math.log(0.75) + math.log(0.25)) / 2
    assert metrics.summarize_calibration(logits, labels, predictions) == {
        "calibrated_loss": round(loss, 5),
        "calibration_error": 0.25,
        "raw_calibration_error": 0.4,
    }


def test_the_numbers_are_those_of_the_table():
    """Confidences of the table give the calibration errors of the metrics, to the last digit."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(500, 5, generator=generator)
    labels = torch.randint(5, (500,), generator=generator)
    predictions = Predictions.of(["x"] * 500, logits, labels, 2.0)
    numbers = metrics.summarize_calibration(logits, labels, predictions)
    rows = list(predictions.rows("abcde"))
    right = np.array([row[1] == row[2] for row in rows])
    for column, name in ((3, "calibration_error"), (4, "raw_calibration_error")):
        bins = calibration.bins(np.array([float(row[column]) for row in rows]), right)
        assert round(calibration.expected_error(bins), 5) == numbers[name]


def test_a_temperature_changes_no_prediction():
    """The predicted classes are those of the raw logits, whatever the temperature."""
    logits = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(100, dtype=torch.int64)
    for temperature in (0.01, 1.0, 100.0):
        predictions = Predictions.of(["x"] * 100, logits, labels, temperature)
        assert predictions.choices.tolist() == logits.argmax(1).tolist()


def test_per_class_counts():
    """Each class has its own row; the interval of a class without images is 0 to 1."""
    predicted = np.array([0, 1, 1, 2, 0])
    labels = np.array([0, 0, 1, 2, 2])
    rows = metrics.per_class(predicted, labels, "abcd")
    counts = [(row.name, row.accuracy, row.images) for row in rows]
    assert counts == [("a", 0.5, 2), ("b", 1, 1), ("c", 0.5, 2), ("d", 0, 0)]
    assert (rows[3].low, rows[3].high) == (0, 1)
    interval = binomtest(1, 2).proportion_ci(method="wilson")
    assert (rows[0].low, rows[0].high) == pytest.approx((interval.low, interval.high))


def test_members_and_mirrored_images_have_their_accuracies():
    """Each member has its accuracy; test-time augmentation averages all of their predictions."""
    labels = torch.tensor([0, 1])
    right = 2 * logits_of([0, 1], 2)
    wrong = logits_of([1, 0], 2)
    assert metrics.summarize_members([right], [], labels) == {}
    numbers = metrics.summarize_members([right, wrong], [right, wrong], labels)
    assert numbers == {"tta_accuracy": 1.0, "member_accuracy": {"0": 1.0, "1": 0.0}}


def test_sensitivity_is_the_gradient_of_the_predicted_class():
    """For a linear network it is the size of its weights, with 255 for the largest.

    For two networks it is that of their mean; without images there is no map.
    """
    images = torch.randint(
        0, 256, (3, 2, 2, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, -4.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]]))
        net[1].bias.copy_(torch.tensor([1e6, 0.0]))
    prepare = lambda batch: batch.float().permute(0, 3, 1, 2)  # noqa: E731
    maps = metrics.sensitivity([net], images, prepare)
    assert maps.dtype == np.uint8 and maps.tolist() == [[[64, 255], [0, 128]]] * 3
    assert metrics.sensitivity([net, net], images, prepare).shape == (3, 2, 2)
    assert metrics.sensitivity([net], images[:0], prepare).shape == (0, 2, 2)
