"""The prediction for every test image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cifar import inference


@dataclass(frozen=True)
class Predictions:
    """One row per image.

    Attributes:
        names: where the images come from.
        labels: (N,) int64.
        choices: (N,) int64, the predicted classes.
        confidences: (N,) their calibrated probabilities, rounded as in the file.
        raw_confidences: (N,) their probabilities without the temperature, rounded likewise.
        temperature: that the logits were divided by.
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
        """The most likely class of each image.

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
        """(N,) bool."""
        return self.choices == self.labels

    def rows(self, classes: Sequence[str]) -> Iterator[tuple[str, str, str, str, str]]:
        """The rows of plots/predictions.csv, with the names of the classes."""
        confidences = zip(self.confidences, self.raw_confidences, strict=True)
        columns = (self.names, self.labels, self.choices, confidences)
        for name, label, choice, (calibrated, raw) in zip(*columns, strict=True):
            yield name, classes[label], classes[choice], f"{calibrated:.4f}", f"{raw:.4f}"


def rounded(values: Tensor) -> np.ndarray:
    """To the four places that the table has, so that both give the same calibration error."""
    return np.array([float(f"{value:.4f}") for value in values.tolist()])
