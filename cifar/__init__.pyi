"""Type stubs of __init__.py, which imports `cifar.use` only when `load_model` is called."""

import os

from cifar.use import Classifier

class UserError(Exception): ...

def load_model(path: str | os.PathLike[str], device: str = "auto") -> Classifier: ...
