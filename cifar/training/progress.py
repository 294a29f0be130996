"""Shows the progress of a training, and logs its epochs.

A terminal shows a bar; a file or a pipe gets one line per epoch. The log is in runs/<experiment>/,
which Git ignores: epochs.jsonl has one JSON object per epoch, for programs and `tail -f`, and
TensorBoard gets the same numbers if it is installed.
"""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from cifar.training.trainer import Epoch

REFRESH = 0.5  # seconds between two reads of the numbers on the device


class Progress:
    """Counts the images of all epochs, so that the time left is that of the whole training.

    Args:
        epochs: number of epochs in the whole training.
        images: images per epoch.
        done: number of epochs that an interrupted run has finished.
    """

    def __init__(self, epochs: int, images: int, done: int) -> None:
        self.epochs = epochs
        self.images = images
        self.bar = tqdm(
            total=epochs * images,
            initial=done * images,
            unit="img",
            unit_scale=True,
            disable=not sys.stderr.isatty(),
            ncols=100,
        )
        self.epoch_start = 0
        self.started = time.monotonic()
        self.looked = time.monotonic()

    def start(self, epoch: int) -> None:
        """Begin an epoch, counted from 1."""
        self.epoch_start = (epoch - 1) * self.images
        self.bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
        self.started = time.monotonic()

    def step(self, seen: int, loss_sum: Tensor, hits: Tensor) -> None:
        """Count a step; reads the sums from the device only once in REFRESH seconds."""
        if self.bar.disable or time.monotonic() - self.looked < REFRESH:
            return
        self.looked = time.monotonic()
        text = f"loss {loss_sum.item() / seen:.3f}, accuracy {hits.item() / seen:.1%}"
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(self.epoch_start + seen - self.bar.n)

    def end(self, row: Epoch) -> float:
        """End an epoch and print its line; returns images per second, validation included."""
        speed = self.images / (time.monotonic() - self.started)
        self.bar.update(self.epoch_start + self.images - self.bar.n)
        tqdm.write(
            f"epoch {row.epoch}/{self.epochs}: "
            f"train loss {row.train_loss:.3f}, accuracy {row.train_accuracy:.2%}; "
            f"validation loss {row.val_loss:.3f}, accuracy {row.val_accuracy:.2%}; "
            f"{speed:,.0f} images/s"
        )
        sys.stdout.flush()
        return speed

    def close(self) -> None:
        self.bar.close()


class EpochLog:
    """Logs each epoch of a run as it ends; the log of an earlier run is removed.

    Args:
        root: the user's repository, even if the run is in one of DVC's temporary copies.
        epochs: number of epochs of each network.
    """

    def __init__(self, root: Path, epochs: int) -> None:
        self.folder = root / "runs" / (os.environ.get("DVC_EXP_NAME") or "workspace")
        self.epochs = epochs
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in [*self.folder.glob("events.out.tfevents.*"), self.folder / "epochs.jsonl"]:
            path.unlink(missing_ok=True)
        self.board = make_board(self.folder)

    def write(self, network: int, row: Epoch, speed: float | None) -> None:
        """Add an epoch of one network of the ensemble.

        Args:
            speed: images per second; None for an epoch from an interrupted run.
        """
        numbers = asdict(row) | {"network": network, "epochs": self.epochs}
        line = json.dumps(numbers | {"images_per_second": speed and round(speed, 1)})
        self.folder.mkdir(parents=True, exist_ok=True)  # `make clean` may have removed it
        with (self.folder / "epochs.jsonl").open("a") as handle:
            handle.write(f"{line}\n")
        if self.board:
            self.board.add_scalar(f"learning rate/network {network}", row.lr, row.epoch)
            for part in ("train", "val"):
                for name in ("loss", "accuracy"):
                    value = numbers[f"{part}_{name}"]
                    self.board.add_scalar(f"{name}/{part}, network {network}", value, row.epoch)
            self.board.flush()

    def close(self) -> None:
        if self.board:
            self.board.close()


def make_board(folder: Path) -> Any:
    """A writer for TensorBoard, or None if that is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder)
