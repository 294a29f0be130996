"""The library: leaves that the stages compose.

One call is for everybody: `cifar.load_model(path).predict(images)`.
"""

import importlib
import os
from typing import Any


class UserError(Exception):
    """Something the user can fix, in one line: what (where): how to fix."""


def load_model(path: str | os.PathLike[str], device: str = "auto") -> Any:
    """A trained model, ready to classify images: `cifar.use.Classifier`.

        >>> model = cifar.load_model("models/model.safetensors")
        >>> for prediction in model.predict(["cat.jpg", "dog.jpg"]):
        ...     print(prediction.label, prediction.confidence)

    Args:
        path: a model file. It holds no code, so one from a stranger can do no harm.
        device: auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:1 or mps.

    Raises:
        UserError: no such file, a damaged one, or no such device.
    """
    # By name: an import statement would make torch a dependency of every stage.
    return importlib.import_module("cifar.use").Classifier(path, device)
