"""The training loop, which all networks share.

Batches arrive on the device (cifar/training/augment.py), and losses are read from the device once
per epoch, not once per step.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cifar import UserError

Batch = tuple[Tensor, Tensor, int]  # network input, targets, images over all processes
AfterStep = Callable[[int, Tensor, Tensor], None]  # images so far, sums of losses and of hits


@dataclass(frozen=True)
class Epoch:
    """One row of the history.

    Attributes:
        epoch: number of the epoch, from 1.
        lr: learning rate at the start of the epoch.
        train_loss: mean cross-entropy, without label smoothing, while the weights changed.
        train_accuracy: fraction of right predictions, likewise.
        val_loss: mean cross-entropy on the validation images, after the epoch.
        val_accuracy: fraction of right predictions, likewise.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


@dataclass
class Trainer:
    """A network in training, with everything that changes from epoch to epoch.

    Attributes:
        forward: turns network input into logits in training: the network itself, possibly compiled
            or in another precision.
        loss: turns logits and labels into the mean loss of a batch.
        processes: number of processes that share each batch.
        all_reduce: sums a tensor over the processes.
        ema: decay per step of averaged weights, which are then validated and kept; 0: off.
        clip_norm: largest norm of the gradient; 0: off.
        monitor: the validation metric that decides which epoch is best; of equal ones, the first.
        keep: whether to keep the weights of the best or of the last epoch.
        patience: number of epochs without improvement before training stops; 0: off.
    """

    net: nn.Module
    forward: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler | ReduceLROnPlateau
    loss: Callable[[Tensor, Tensor], Tensor]
    processes: int
    all_reduce: Callable[[Tensor], Tensor]
    ema: float
    clip_norm: float
    monitor: Literal["accuracy", "loss"]
    keep: Literal["best", "last"]
    patience: int
    history: list[Epoch] = field(default_factory=list)
    best: int = 0  # the best epoch so far, from 1
    best_weights: dict[str, Any] = field(default_factory=dict)
    average: AveragedModel | None = None

    def __post_init__(self) -> None:
        if self.ema:
            average = get_ema_multi_avg_fn(self.ema)
            self.average = AveragedModel(self.net, multi_avg_fn=average, use_buffers=True)

    @property
    def current(self) -> nn.Module:
        """The network that is validated and kept: with averaged weights, if `ema` is on."""
        return self.average.module if self.average else self.net

    def stopped(self) -> bool:
        """Whether patience has run out."""
        return bool(self.patience) and len(self.history) - self.best >= self.patience

    def epoch(
        self,
        batches: Iterable[Batch],
        validate: Callable[[nn.Module], tuple[float, ...]],
        after_step: AfterStep,
    ) -> Epoch:
        """Train on every batch once, then call `validate` for loss and accuracy.

        Raises:
            UserError: the loss is not finite.
        """
        number = len(self.history) + 1
        lr = self.optimizer.param_groups[0]["lr"]
        train = self.steps(batches, after_step)
        row = Epoch(number, lr, *train, *validate(self.current))
        if not math.isfinite(row.train_loss + row.val_loss):
            raise UserError(
                f"the loss is not finite in epoch {number} (params.yaml, train.lr): "
                "lower the learning rate"
            )
        self.history.append(row)
        if not self.best or self.objective(row) < self.objective(self.history[self.best - 1]):
            self.best = number
            if self.keep == "best":
                weights = self.current.state_dict()
                self.best_weights = {key: value.clone() for key, value in weights.items()}
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(self.objective(row))
        return row

    def objective(self, row: Epoch) -> float:
        """The monitored metric as a number to minimise."""
        return row.val_loss if self.monitor == "loss" else 1 - row.val_accuracy

    def steps(self, batches: Iterable[Batch], after_step: AfterStep) -> tuple[float, float]:
        """Train on every batch once; returns the mean cross-entropy and the accuracy."""
        self.net.train()
        seen = 0
        sums: Tensor | None = None
        for x, targets, count in batches:
            logits = self.step(x, targets, count)
            seen += count
            batch = sums_of(logits, targets)
            sums = batch if sums is None else sums + batch
            after_step(seen, *sums)
        assert sums is not None, "no images"
        loss_sum, hits = self.all_reduce(sums).tolist()
        return loss_sum / seen, hits / seen

    def step(self, x: Tensor, targets: Tensor, count: int) -> Tensor:
        """One step of the optimizer; returns the logits.

        Args:
            x: (B, C, H, W) network input of this process.
            targets: (B,) labels, or (B, classes) probabilities.
            count: images in the batch over all processes.
        """
        logits = self.forward(x)
        loss = self.loss(logits, targets)
        if self.processes > 1:  # else images of smaller parts would weigh more in the average
            loss = loss * (len(targets) * self.processes / count)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip_norm:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip_norm)
        self.optimizer.step()
        if not isinstance(self.schedule, ReduceLROnPlateau):  # which steps after validation
            self.schedule.step()
        if self.average:
            self.average.update_parameters(self.net)
        return logits

    def finish(self) -> Epoch:
        """Load the weights to keep into the network; returns their epoch."""
        if self.keep == "best":
            self.net.load_state_dict(self.best_weights)
            return self.history[self.best - 1]
        self.net.load_state_dict(self.current.state_dict())
        return self.history[-1]

    def state(self) -> dict[str, Any]:
        """Everything needed to resume, as tensors and plain data."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "history": [asdict(row) for row in self.history],
            "best": self.best,
            "best_weights": self.best_weights,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.history = [Epoch(**row) for row in state["history"]]
        self.best = state["best"]
        self.best_weights = state["best_weights"]


@torch.no_grad()
def sums_of(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum of the losses and the number of right predictions, (2,) on the device.

    The loss has no label smoothing and no class weights, so that it can be compared with that of
    the validation images. For a mixed image, the class with the larger weight counts as right.
    """
    loss = F.cross_entropy(logits, targets)
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    hits = (logits.argmax(1) == labels).sum()
    return torch.stack([loss * len(targets), hits.float()])


def split_order(order: Tensor, batch_size: int, least: int = 2) -> Iterator[Tensor]:
    """Split the indices of images, in the given order, into batches of `batch_size`.

    A last batch of fewer than `least` images joins the one before it, because batch normalisation
    needs two images per process.
    """
    count = len(order)
    starts = list(range(0, count, batch_size))[: steps_per_epoch(count, batch_size, least)]
    for start, stop in zip(starts, [*starts[1:], count], strict=True):
        yield order[start:stop]


def steps_per_epoch(count: int, batch_size: int, least: int = 2) -> int:
    """The number of batches that `split_order` makes of `count` images."""
    return max(1, math.ceil(count / batch_size) - (0 < count % batch_size < least))


def metrics(kept: list[Epoch]) -> dict[str, Any]:
    """The metrics of the kept epoch, rounded; for several networks, their means."""

    def mean(name: str) -> float:
        return round(sum(getattr(row, name) for row in kept) / len(kept), 5)

    train = {"loss": mean("train_loss"), "accuracy": mean("train_accuracy")}
    val = {"loss": mean("val_loss"), "accuracy": mean("val_accuracy")}
    epoch = kept[0].epoch if len(kept) == 1 else mean("epoch")
    return {"epoch": epoch, "train": train, "val": val}
