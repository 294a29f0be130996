"""The training loop, one for every network.

Batches arrive on the device (cifar/training/augment.py), and numbers are read from it once an epoch, not once a step.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cifar import UserError

AfterStep = Callable[[int, Tensor, Tensor], None]


@dataclass(frozen=True)
class Epoch:
    """One row of the history: the learning rate at the epoch's start, mean cross-entropy and accuracy."""

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


@dataclass
class Trainer:
    """One network while it learns: all that changes from epoch to epoch, and state() of it for a checkpoint.

    Attributes:
        forward: from network input to logits, in training: `net` itself, or compiled, or in another precision.
        loss: from logits and labels to the mean loss of a batch.
        processes: how many share each batch; `total` sums a tensor over them.
        ema: decay of the averaged weights, which are then the ones validated and kept; 0: none.
        clip_norm: the largest norm of the gradient; 0: any.
        monitor: the validation number that decides which epoch is the best; the first of several.
        keep: the weights of the "best" epoch or of the "last" one.
        patience: epochs without a better one before the training stops; 0: never.
    """

    net: nn.Module
    forward: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler | ReduceLROnPlateau
    loss: Callable[[Tensor, Tensor], Tensor]
    processes: int
    total: Callable[[Tensor], Tensor]
    ema: float
    clip_norm: float
    monitor: Literal["accuracy", "loss"]
    keep: Literal["best", "last"]
    patience: int
    history: list[Epoch] = field(default_factory=list)
    best: int = 0  # the best epoch so far, from 1
    best_weights: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        average = get_ema_multi_avg_fn(self.ema)
        self.average = (
            AveragedModel(self.net, multi_avg_fn=average, use_buffers=True) if self.ema else None
        )

    @property
    def current(self) -> nn.Module:
        """The network that is validated and kept."""
        return self.average.module if self.average else self.net

    def stopped(self) -> bool:
        return bool(self.patience) and len(self.history) - self.best >= self.patience

    def epoch(
        self,
        inputs: Iterable[tuple[Tensor, Tensor, int]],
        validate: Callable[[nn.Module], tuple[float, ...]],
        after_step: AfterStep,
    ) -> Epoch:
        """One pass over `inputs`, then `validate`: loss and accuracy.

        Args:
            inputs: network input, labels, and how many images the whole batch has over all processes.

        Raises:
            UserError: the loss is not finite.
        """
        number, rate = len(self.history) + 1, self.optimizer.param_groups[0]["lr"]
        train = self.steps(inputs, after_step)
        row = Epoch(number, rate, *train, *validate(self.current))
        if not math.isfinite(row.train_loss + row.val_loss):
            raise UserError(
                f"the loss is not finite in epoch {number} (params.yaml, train.lr): lower the learning rate"
            )
        self.history.append(row)
        if not self.best or self.watched(row) < self.watched(self.history[self.best - 1]):
            self.best = number
            if self.keep == "best":
                self.best_weights = {
                    key: value.clone() for key, value in self.current.state_dict().items()
                }
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(self.watched(row))
        return row

    def watched(self, row: Epoch) -> float:
        """The number that a better epoch has lower."""
        return row.val_loss if self.monitor == "loss" else 1 - row.val_accuracy

    def steps(
        self, inputs: Iterable[tuple[Tensor, Tensor, int]], after_step: AfterStep
    ) -> tuple[float, float]:
        """Mean cross-entropy and accuracy of one pass; `after_step` gets the images so far and the running sums."""
        self.net.train()
        seen, sums = 0, None
        for x, labels, count in inputs:
            logits = self.forward(x)
            loss = self.loss(logits, labels)
            if (
                self.processes > 1
            ):  # gradients are averaged over processes, whose shares may differ by an image
                loss = loss * (len(labels) * self.processes / count)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.clip_norm:
                nn.utils.clip_grad_norm_(self.net.parameters(), self.clip_norm)
            self.optimizer.step()
            if not isinstance(self.schedule, ReduceLROnPlateau):  # that one steps after validation
                self.schedule.step()
            if self.average:
                self.average.update_parameters(self.net)
            with torch.no_grad():
                seen += count
                right = (logits.argmax(1) == labels).sum()
                plain = F.cross_entropy(
                    logits, labels
                )  # without smoothing, to compare with validation
                batch = torch.stack([plain * len(labels), right.float()])
                sums = batch if sums is None else sums + batch
            after_step(seen, *sums)
        assert sums is not None, "no images"
        loss_sum, right_sum = self.total(sums).tolist()
        return loss_sum / seen, right_sum / seen

    def finish(self) -> Epoch:
        """Put the weights to keep into `net` and return their row."""
        self.net.load_state_dict(
            self.best_weights if self.keep == "best" else self.current.state_dict()
        )
        return self.history[self.best - 1 if self.keep == "best" else -1]

    def state(self) -> dict[str, Any]:
        """Everything that a training which goes on later needs, as tensors and plain data."""
        average = self.average.state_dict() if self.average else None
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": average,
            "history": [asdict(row) for row in self.history],
            "best": self.best,
            "best_weights": self.best_weights,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.history = [Epoch(**row) for row in state["history"]]
        self.best, self.best_weights = state["best"], state["best_weights"]


def batches(order: Tensor, size: int, least: int = 2) -> Iterator[Tensor]:
    """The indices of images in the given order, `size` at a time.

    A last batch of fewer than `least` images joins the one before it: batch normalisation needs two per process.
    """
    count = len(order)
    starts = list(range(0, count, size))[: steps_per_epoch(count, size, least)]
    for start, stop in zip(starts, [*starts[1:], count], strict=True):
        yield order[start:stop]


def steps_per_epoch(count: int, size: int, least: int = 2) -> int:
    return max(1, math.ceil(count / size) - (0 < count % size < least))


def metrics(rows: list[Epoch], top5: Sequence[float] = ()) -> dict[str, Any]:
    """The numbers of the kept epoch, rounded; of several networks their mean."""

    def mean(name: str) -> float:
        return round(sum(getattr(row, name) for row in rows) / len(rows), 5)

    parts = {
        part: {name: mean(f"{part}_{name}") for name in ("loss", "accuracy")}
        for part in ("train", "val")
    }
    if top5:
        parts["val"]["top5_accuracy"] = round(sum(top5) / len(top5), 5)
    return {"epoch": rows[0].epoch if len(rows) == 1 else mean("epoch"), **parts}
