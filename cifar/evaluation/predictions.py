"""The predictions for the test images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cifar import inference


@dataclass(frozen=True)
class Predictions:
    """The predictions, with one entry per image.

    Attributes:
        names: where each image comes from.
        labels: (N,) int64.
        choices: (N,) int64, the predicted classes.
        confidences: (N,) calibrated probabilities of the predicted classes, rounded as in the file.
        raw_confidences: (N,) probabilities without the temperature, rounded likewise.
        temperature: number by which the logits were divided.
    """

    names: Sequence[str]
    labels: np.ndarray
    choices: np.ndarray
    confidences: np.ndarray
    raw_confidences: np.ndarray
    temperature: float

    @classmethod
    def of(
        cls, names: Sequence[str], logits: Tensor, labels: Tensor, temperature: float
    ) -> "Predictions":
        """Predict the most likely class of each image.

        Args:
            logits: (N, classes).
            labels: (N,).
        """
        raw, choices = inference.probabilities(logits, 1.0).max(1)
        calibrated = inference.probabilities(logits, temperature).max(1).values
        return cls(
            names=names,
            labels=labels.cpu().numpy(),
            choices=choices.cpu().numpy(),
            confidences=rounded(calibrated),
            raw_confidences=rounded(raw),
            temperature=temperature,
        )

    @property
    def right(self) -> np.ndarray:
        """(N,) bool, whether each prediction is right."""
        return self.choices == self.labels

    def rows(self, classes: Sequence[str]) -> Iterator[tuple[str, str, str, str, str]]:
        """Yield the rows of plots/predictions.csv, with the names of the classes."""
        confidences = zip(self.confidences, self.raw_confidences, strict=True)
        columns = (self.names, self.labels, self.choices, confidences)
        for name, label, choice, (calibrated, raw) in zip(*columns, strict=True):
            yield name, classes[label], classes[choice], f"{calibrated:.4f}", f"{raw:.4f}"


def rounded(values: Tensor) -> np.ndarray:
    """Round to four places as in the table, so that both give the same calibration error."""
    return np.array([float(f"{value:.4f}") for value in values.tolist()])
