"""Computes the reported metrics from logits and predictions."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cifar import inference
from cifar.evaluation import calibration
from cifar.evaluation.predictions import Predictions

NORMAL_975 = 1.959963984540054  # quantile of the normal distribution, in standard deviations


class ClassResult(NamedTuple):
    """One row of the table of classes, as in plots/classes.csv."""

    name: str
    accuracy: float  # fraction of its images
    images: int
    low: float  # the 95 % interval
    high: float


def summarize(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """The usual metrics of one split, rounded to five places.

    `accuracy_low` and `accuracy_high` are the 95 % interval. With eleven classes or more there is a
    top-5 accuracy. Balanced accuracy and macro F1 are means over the classes that have images.

    Args:
        logits: (N, classes).
        labels: (N,).
    """
    loss, accuracy = inference.loss_and_accuracy(logits, labels)
    low, high = wilson(accuracy, len(labels))
    numbers = {"loss": loss, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
    predicted = logits.argmax(1).cpu().numpy()
    balanced, f1 = class_means(predicted, labels.cpu().numpy(), logits.shape[1])
    numbers |= {"balanced_accuracy": balanced, "macro_f1": f1}
    if logits.shape[1] > 10:
        numbers["top5_accuracy"] = inference.top5_accuracy(logits, labels)
    return {name: round(value, 5) for name, value in numbers.items()}


def wilson(fraction: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a fraction of `count` images, by Wilson (1927).

    95 % of such intervals contain the true fraction.
    """
    extra = NORMAL_975**2 / count
    middle = fraction + extra / 2
    half = math.sqrt(extra * (fraction * (1 - fraction) + extra / 4))
    return (middle - half) / (1 + extra), (middle + half) / (1 + extra)


def class_means(predicted: np.ndarray, labels: np.ndarray, classes: int) -> tuple[float, float]:
    """Mean recall and mean F1 over the classes that have images; rare ones count like others.

    Args:
        predicted: (N,) int64.
        labels: (N,) int64.
        classes: number of classes.
    """
    images = np.bincount(labels, minlength=classes)
    predictions = np.bincount(predicted, minlength=classes)
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    present = images > 0
    recall = hits[present] / images[present]
    f1 = 2 * hits[present] / (images[present] + predictions[present])
    return float(recall.mean()), float(f1.mean())


def summarize_calibration(
    logits: Tensor, labels: Tensor, predictions: Predictions
) -> dict[str, Any]:
    """The calibrated loss, and the calibration error with and without the temperature.

    Args:
        logits: (N, classes), raw.
        labels: (N,).
    """
    calibrated, _ = inference.loss_and_accuracy(logits / predictions.temperature, labels)
    right = predictions.right
    error = calibration.expected_error(calibration.bins(predictions.confidences, right))
    raw_error = calibration.expected_error(calibration.bins(predictions.raw_confidences, right))
    return {
        "calibrated_loss": round(calibrated, 5),
        "calibration_error": round(error, 5),
        "raw_calibration_error": round(raw_error, 5),
    }


def summarize_members(
    members: list[Tensor], mirrored: list[Tensor], labels: Tensor
) -> dict[str, Any]:
    """The accuracy with test-time augmentation, and that of each network of an ensemble, if any.

    Args:
        members: for each network its logits (N, classes).
        mirrored: the same for mirrored images; empty without test-time augmentation.
        labels: (N,).
    """
    numbers: dict[str, Any] = {}
    if mirrored:
        _, accuracy = inference.loss_and_accuracy(inference.average(members + mirrored), labels)
        numbers["tta_accuracy"] = round(accuracy, 5)
    if len(members) > 1:
        accuracies = [inference.loss_and_accuracy(logits, labels)[1] for logits in members]
        numbers["member_accuracy"] = {str(i): round(a, 5) for i, a in enumerate(accuracies)}
    return numbers


def per_class(
    predicted: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> list[ClassResult]:
    """The accuracy of each class; for a class without images the interval is 0 to 1.

    Args:
        predicted: (N,) int64.
        labels: (N,) int64.
    """
    hits = np.bincount(labels[predicted == labels], minlength=len(classes))
    images = np.bincount(labels, minlength=len(classes))
    results = []
    for name, right, count in zip(classes, hits.tolist(), images.tolist(), strict=True):
        low, high = wilson(right / count, count) if count else (0.0, 1.0)
        results.append(ClassResult(name, right / max(count, 1), count, low, high))
    return results


def sensitivity(
    nets: list[nn.Module], images: Tensor, normalize: Callable[[Tensor], Tensor]
) -> np.ndarray:
    """How much the logit of the predicted class changes with each pixel.

    It is the size of the gradient at the input, summed over the channels (Simonyan et al., 2014); 0
    if the network has no gradient there, for example below a part without gradients.

    Args:
        images: (N, H, W, C) uint8.

    Returns:
        (N, H, W) uint8, scaled to a maximum of 255 in each image.
    """
    x = normalize(images).detach().requires_grad_()
    # Copies, because a network may write into its input.
    logits = inference.average([net.eval()(x.clone()).float() for net in nets])
    gradient = torch.zeros_like(x)
    if logits.requires_grad:
        total = logits.max(1).values.sum()
        (gradient,) = torch.autograd.grad(total, x, allow_unused=True, materialize_grads=True)
    sizes = gradient.abs().sum(1).cpu()
    scaled = sizes / sizes.amax((1, 2), keepdim=True).clamp_min(1e-30)
    return (255 * scaled).round().to(torch.uint8).numpy()
