"""Makes optimizers and learning-rate schedules: torch's own, and Muon.

Muon: Jordan et al., Muon: An optimizer for hidden layers in neural networks (2024), in the form and
with the constants of the same author's CIFAR-10 speed run. torch.optim.Muon accepts only matrices;
this one flattens the filters of a convolution into a matrix.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

POLYNOMIAL = (3.4445, -4.7750, 2.0315)  # coefficients of the Newton-Schulz iteration, steep at zero
ITERATIONS = 3
SGD_MOMENTUM = 0.85  # for the parameters that Muon leaves to SGD
HEAD_LR = 2.8  # learning rate of the last layer, in units of lr times batch size
BIAS_LR = 0.22  # learning rate of biases, likewise
DECAY_BATCH = 500  # images; the batch size to which weight decay refers

Schedule = lr_scheduler.LRScheduler | lr_scheduler.ReduceLROnPlateau


def make_optimizer(
    net: nn.Module,
    *,
    optimizer: str,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    batch_size: int,
) -> torch.optim.Optimizer:
    """The optimizer over all trainable parameters.

    Weight decay spares biases and normalisation constants, except with muon, as published.

    Args:
        optimizer: sgd, adam, adamw or muon.
        lr: peak learning rate; muon: that of the convolution filters (see `muon_groups`).
        batch_size: images per step; muon: the other groups' rates are proportional to it.
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    if optimizer == "muon":
        groups = muon_groups(
            parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, batch_size=batch_size
        )
        return Muon(groups, {"lr": lr, "weight_decay": 0.0})
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer](groups, lr=lr)


def muon_groups(
    parameters: list[nn.Parameter],
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    batch_size: int,
) -> list[dict[str, Any]]:
    """Groups of filters for Muon, and of matrices and vectors for SGD at rates in published ratios.

    Args:
        weight_decay: fraction that matrices and vectors lose per 500 images at the peak rate,
            before momentum. Filters keep their norm.
    """
    filters = [p for p in parameters if p.ndim > 2]
    groups: list[dict[str, Any]] = [
        {"params": filters, "lr": lr, "momentum": momentum, "muon": True}
    ]
    matrices = [p for p in parameters if p.ndim == 2]
    vectors = [p for p in parameters if p.ndim < 2]
    for group, ratio in ((matrices, HEAD_LR), (vectors, BIAS_LR)):
        rate = ratio * lr * batch_size
        groups.append(
            {
                "params": group,
                "lr": rate,
                "momentum": SGD_MOMENTUM,
                "weight_decay": weight_decay * batch_size / DECAY_BATCH / rate,
                "muon": False,
            }
        )
    return [entry for entry in groups if entry["params"]]


def make_schedule(
    optimizer: torch.optim.Optimizer,
    *,
    schedule: str,
    epochs: int,
    steps: int,
    warmup: int,
    drop: float,
    drop_epochs: int,
) -> Schedule:
    """The schedule of the learning rate for a whole training; the optimizer's rate is its peak.

    Args:
        schedule: constant, step, cosine, linear, onecycle or plateau.
        steps: steps per epoch.
        warmup: epochs in which the rate rises linearly from almost zero, before the schedule.
        drop: factor by which step and plateau lower the rate.
        drop_epochs: step: epochs between two drops; plateau: epochs without progress before one.
    """
    if schedule == "plateau":
        return lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=drop, patience=drop_epochs - 1, threshold=0.0
        )
    rise_steps = warmup * steps
    rest = max(1, epochs * steps - rise_steps)
    main = schedule_after_warmup(optimizer, schedule, rest, drop, drop_epochs * steps)
    if not warmup:
        return main
    rise = lr_scheduler.LinearLR(
        optimizer, start_factor=1e-3, end_factor=1.0, total_iters=rise_steps
    )
    return lr_scheduler.SequentialLR(optimizer, [rise, main], milestones=[rise_steps])


def schedule_after_warmup(
    optimizer: torch.optim.Optimizer, schedule: str, steps: int, drop: float, drop_steps: int
) -> lr_scheduler.LRScheduler:
    """The schedule for the `steps` steps after the warmup."""
    if schedule == "onecycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        return lr_scheduler.OneCycleLR(
            optimizer, rates, total_steps=steps + 1, cycle_momentum=False
        )
    if schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    if schedule == "linear":
        return lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)
    if schedule == "step":
        return lr_scheduler.StepLR(optimizer, step_size=drop_steps, gamma=drop)
    return lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)


class Muon(torch.optim.Optimizer):
    """Orthogonalised steps on weights of constant norm for groups with `muon`, SGD for others."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                grad = parameter.grad
                if not group["muon"] and group["weight_decay"]:
                    grad = grad.add(parameter, alpha=group["weight_decay"])
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                buffer = state["momentum"].mul_(group["momentum"]).add_(grad)
                update = grad.add(buffer, alpha=group["momentum"])
                if group["muon"]:
                    parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
                    update = orthogonalize(update.flatten(1)).view_as(update)
                parameter.add_(update, alpha=-group["lr"])


def orthogonalize(matrix: Tensor) -> Tensor:
    """Approximate U V^T from the singular value decomposition U S V^T of a matrix (m, n).

    Iterates a polynomial. On CUDA it computes in bfloat16, as published; the result has the type
    of `matrix`.
    """
    a, b, c = POLYNOMIAL
    x = matrix.bfloat16() if matrix.device.type == "cuda" else matrix
    wide = len(x) <= x.shape[1]
    x = x / (x.norm() + 1e-7)
    x = x if wide else x.T
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x if wide else x.T).to(matrix.dtype)
