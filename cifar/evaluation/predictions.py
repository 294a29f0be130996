"""What a model says of every test image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

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
        raw_confidences: (N,) their probabilities without the temperature.
        temperature: that the logits were divided by.
    """

    COLUMNS: ClassVar = ["image", "actual", "predicted", "confidence"]

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
        rounded = np.array([float(f"{confidence:.4f}") for confidence in calibrated.tolist()])
        return cls(
            names=names,
            labels=labels.cpu().numpy(),
            choices=choices.cpu().numpy(),
            confidences=rounded,
            raw_confidences=raw.cpu().double().numpy(),
            temperature=temperature,
        )

    @property
    def right(self) -> np.ndarray:
        """(N,) bool."""
        return self.choices == self.labels

    def rows(self, classes: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
        """The rows of the table, with the names of the classes."""
        columns = (self.names, self.labels, self.choices, self.confidences)
        for name, label, choice, confidence in zip(*columns, strict=True):
            yield name, classes[label], classes[choice], f"{confidence:.4f}"
