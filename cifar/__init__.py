"""The library behind the stages.

Its public interface is one call: `cifar.load_model(path).predict(images)`.
"""

import importlib
import os
from typing import Any


class UserError(Exception):
    """An error that the user can fix, as one line: what (where): how to fix."""


def load_model(path: str | os.PathLike[str], device: str = "auto") -> Any:
    """Load a trained model, ready to classify images.

        >>> model = cifar.load_model("models/model.safetensors")
        >>> for prediction in model.predict(["cat.jpg", "dog.jpg"]):
        ...     print(prediction.label, prediction.confidence)

    Args:
        path: a model file. It contains no code, so even an untrusted file is safe to load.
        device: auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:1 or mps.

    Returns:
        A `cifar.use.Classifier`.

    Raises:
        UserError: the file is missing or damaged, or the device is not available.
    """
    # Not an import statement, which would make torch a dependency of every stage.
    return importlib.import_module("cifar.use").Classifier(path, device)
