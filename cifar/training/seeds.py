"""Seeds every random generator from (seed, purpose, epoch), so that none has a state to save.

The order and the augmentation of epoch 7 do not depend on epochs 1 to 6, and an interrupted
training resumes with exactly the numbers that it would have drawn.
"""

import hashlib
import random

import numpy as np
import torch


def derive(seed: int, purpose: str, number: int = 0) -> int:
    """A 32-bit seed that looks unrelated to that of any other purpose, epoch or seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def seed_everything(seed: int) -> None:
    """Seed the global generators, from which the layers of a network draw while they train."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  layers may draw from it


def generator(seed: int, purpose: str, number: int = 0) -> torch.Generator:
    """A generator on the CPU, so that every device draws the same numbers."""
    return torch.Generator().manual_seed(derive(seed, purpose, number))
