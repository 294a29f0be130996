"""What a training shows while it runs: a bar in a terminal, one line an epoch anywhere else."""

import sys
import time

from torch import Tensor
from tqdm import tqdm

REFRESH = 0.5  # seconds between two looks at the numbers on the device


class Progress:
    """Counts images over all epochs, so that the time left is that of the whole training."""

    def __init__(self, epochs: int, images: int) -> None:
        self.epochs, self.images, self.done = epochs, images, 0
        self.bar = tqdm(
            total=epochs * images,
            unit="img",
            unit_scale=True,
            disable=not sys.stderr.isatty(),
            ncols=100,
        )
        self.started = self.looked = time.monotonic()

    def start(self, epoch: int) -> None:
        self.done = (epoch - 1) * self.images
        self.bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
        self.started = time.monotonic()

    def step(self, seen: int, loss_sum: Tensor, right: Tensor) -> None:
        """Called after each step; reads the sums from the device only as often as a person looks."""
        if self.bar.disable or time.monotonic() - self.looked < REFRESH:
            return
        self.looked = time.monotonic()
        self.bar.set_postfix_str(
            f"loss {loss_sum.item() / seen:.3f}, accuracy {right.item() / seen:.1%}", refresh=False
        )
        self.bar.update(self.done + seen - self.bar.n)

    def end(self, epoch: int, train: tuple[float, float], val: tuple[float, float]) -> None:
        """The epoch's line: (loss, accuracy) of both parts and images per second, validation included."""
        speed = self.images / (time.monotonic() - self.started)
        self.bar.update(self.done + self.images - self.bar.n)
        tqdm.write(
            f"epoch {epoch}/{self.epochs}: train loss {train[0]:.3f}, accuracy {train[1]:.2%}; "
            f"validation loss {val[0]:.3f}, accuracy {val[1]:.2%}; {speed:,.0f} images/s"
        )
        sys.stdout.flush()

    def close(self) -> None:
        self.bar.close()
