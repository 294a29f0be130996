"""Optimizers and learning-rate schedules by name: torch's own, and Muon.

Muon: Jordan et al., Muon: An optimizer for hidden layers in neural networks (2024), in the form and with
the constants of the same author's CIFAR-10 speed run. torch.optim.Muon takes matrices only; a convolution
filter is one here after flattening.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

POLYNOMIAL = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration, steep at zero
ITERATIONS = 3
REST_MOMENTUM = 0.85
HEAD, BIAS = (
    2.8,
    0.22,
)  # learning rates of the last layer and of biases, in units of lr times batch size


Schedule = lr_scheduler.LRScheduler | lr_scheduler.ReduceLROnPlateau


def make_optimizer(
    name: str,
    net: nn.Module,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    batch_size: int,
) -> torch.optim.Optimizer:
    """The optimizer over all trainable parameters of `net`; biases and normalisation constants do not decay.

    But with muon they do, as published: see `muon_groups`.
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    if name == "muon":
        return Muon(
            muon_groups(parameters, lr, momentum, weight_decay, batch_size),
            {"lr": lr, "weight_decay": 0.0},
        )
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](groups, lr=lr)


def muon_groups(
    parameters: list[nn.Parameter], lr: float, momentum: float, weight_decay: float, batch_size: int
) -> list[dict[str, Any]]:
    """Convolution filters by Muon at `lr`; matrices and vectors by SGD at rates in the published ratios to it.

    `weight_decay` is the share that the latter lose per 500 images at the full rate, before momentum; filters keep
    their norm.
    """
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in parameters if p.ndim > 2],
            "lr": lr,
            "momentum": momentum,
            "muon": True,
        }
    ]
    for ndim, ratio in ((2, HEAD), (1, BIAS)):
        rate = ratio * lr * batch_size
        decay = weight_decay * batch_size / 500 / rate
        own = [p for p in parameters if p.ndim == ndim]
        groups.append(
            {
                "params": own,
                "lr": rate,
                "momentum": REST_MOMENTUM,
                "weight_decay": decay,
                "muon": False,
            }
        )
    return [group for group in groups if group["params"]]


def make_schedule(
    name: str,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    steps: int,
    warmup: int,
    drop: float,
    drop_epochs: int,
) -> Schedule:
    """The learning rate over a training of `epochs` times `steps` steps; the optimizer's own rate is the highest.

    Args:
        warmup: epochs in which the rate rises linearly from almost zero, before the schedule starts.
        drop: factor of the step and plateau schedules.
        drop_epochs: step: epochs between two drops; plateau: epochs without progress before one.
    """
    before, total = warmup * steps, epochs * steps
    rest = max(1, total - before)
    if name == "plateau":
        return lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=drop, patience=drop_epochs - 1, threshold=0.0
        )
    schedule: lr_scheduler.LRScheduler
    if name == "onecycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        schedule = lr_scheduler.OneCycleLR(
            optimizer, rates, total_steps=rest + 1, cycle_momentum=False
        )
    elif name == "cosine":
        schedule = lr_scheduler.CosineAnnealingLR(optimizer, T_max=rest)
    elif name == "linear":
        schedule = lr_scheduler.LinearLR(
            optimizer, start_factor=1.0, end_factor=0.0, total_iters=rest
        )
    elif name == "step":
        schedule = lr_scheduler.StepLR(optimizer, step_size=drop_epochs * steps, gamma=drop)
    else:
        schedule = lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
    if not warmup:
        return schedule
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1e-3, end_factor=1.0, total_iters=before)
    return lr_scheduler.SequentialLR(optimizer, [rise, schedule], milestones=[before])


class Muon(torch.optim.Optimizer):
    """Groups with `muon` set get orthogonalised steps on weights of constant norm; the others get SGD steps."""

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
    """About U V^T of the singular value decomposition U S V^T of a matrix (m, n), by iterating a polynomial of it.

    On CUDA in bfloat16, with which the method was published; the result has the type of `matrix`.
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
