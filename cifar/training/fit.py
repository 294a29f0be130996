"""A whole training, composed of the modules beside this one.

    fit -> fit_member -> run_epochs -> Trainer.epoch -> Trainer.step

Every parameter of `train` is read as `p.NAME` and passed on under its name: here, in splits.py,
inspection.py or stages/train.py.
"""

from dataclasses import asdict, astuple, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from cifar import hardware, inference, networks, pipeline, stage
from cifar.dataset import Shape
from cifar.model import NetworkOptions
from cifar.params.train import Train
from cifar.training import optim, seeds, trainer
from cifar.training.checkpoint import Checkpoints
from cifar.training.distributed import World
from cifar.training.progress import EpochLog, Progress
from cifar.training.splits import Arrays, Splits, load_splits, trained_part
from cifar.training.temperature import fit_temperature
from cifar.training.trainer import Epoch, Trainer

HISTORY = ["network", *(field.name for field in fields(Epoch))]  # columns


@dataclass(frozen=True)
class Member:
    """A trained network, its history, and the epoch whose weights were kept."""

    net: nn.Module
    history: list[Epoch]
    kept: Epoch


@dataclass(frozen=True)
class Fitted:
    """An ensemble of one or more trained networks, with results on the validation images."""

    members: list[Member]
    temperature: float
    top5: float | None  # mean top-5 accuracy, with eleven classes or more

    @property
    def epochs(self) -> tuple[int, ...]:
        """For each network the epoch whose weights were kept, from 1."""
        return tuple(member.kept.epoch for member in self.members)

    def metrics(self) -> dict[str, Any]:
        """The metrics of the kept epochs."""
        numbers = trainer.metrics([member.kept for member in self.members])
        if self.top5 is not None:
            numbers["val"]["top5_accuracy"] = round(self.top5, 5)
        return numbers

    def history(self) -> list[tuple[Any, ...]]:
        """A row for each epoch of each network: the network's number and the fields of `Epoch`."""
        return [
            (number, *astuple(row))
            for number, member in enumerate(self.members)
            for row in member.history
        ]


class Journal:
    """Saves each network after each epoch, and logs the epoch.

    Only the first process writes. All of them load the same state.
    """

    def __init__(self, checkpoints: Checkpoints, world: World, epochs: int) -> None:
        self.checkpoints = checkpoints
        self.world = world
        self.log = None if world.rank else EpochLog(pipeline.root(), epochs=epochs)

    def load(self, number: int) -> dict[str, Any] | None:
        """The last state of one network of the ensemble, if an interrupted run saved one."""
        state = None if self.world.rank else self.checkpoints.load(number)
        return self.world.broadcast_object(state)

    def save(self, number: int, state: dict[str, Any]) -> None:
        if not self.world.rank:
            self.checkpoints.save(number, state)

    def write(self, number: int, row: Epoch, speed: float | None = None) -> None:
        """Log an epoch with its images per second; None for one from an interrupted run."""
        if self.log:
            self.log.write(number, row, speed)

    def close(self) -> None:
        if self.log:
            self.log.close()


def fit(
    p: Train,
    seed: int,
    shape: Shape,
    options: NetworkOptions,
    arrays: Arrays,
    world: World,
    checkpoints: Checkpoints,
) -> Fitted:
    """Train every network of the ensemble, one after the other, and calibrate them together.

    Args:
        checkpoints: the first process resumes from them, and writes one after each epoch.
    """
    splits = load_splits(p, arrays, shape, world.device, world.local_size)
    journal = Journal(checkpoints, world, epochs=p.epochs)
    members = []
    logits = []
    for number in range(p.ensemble):
        member_seed = seeds.derive(seed, "network", number) if number else seed
        net = build(p, shape, options, member_seed, splits.sample, world.device)
        if not number and not world.rank:
            note_size(net, shape)
        part, data = trained_part(p, net, splits, shape)
        member = fit_member(p, member_seed, number, part, data, world, journal)
        members.append(replace(member, net=net))
        if not world.rank:
            logits.append(inference.predict(part, data.val_images, data.normalize))
    journal.close()
    return calibrate(members, logits, splits.val_labels) if logits else Fitted(members, 1.0, None)


def note_size(net: nn.Module, shape: Shape) -> None:
    """Print a note if the network resizes images, which takes time and adds no detail."""
    size = getattr(net, "resized_to", shape.image_size)
    if size != shape.image_size:
        print(
            f"note: the network resizes images of {shape.image_size} pixels to {size}, and "
            "normalises them as its weights require"
        )


def network_options(p: Train) -> NetworkOptions:
    """The options of the network in params.yaml."""
    return NetworkOptions(
        depth=p.depth,
        width=p.width,
        dropout=p.dropout,
        dropout_step=p.dropout_step,
        batch_norm=p.batch_norm,
        backbone=p.backbone,
        freeze=p.freeze,
    )


def build(
    p: Train,
    shape: Shape,
    options: NetworkOptions,
    seed: int,
    sample: Tensor,
    device: torch.device,
) -> nn.Module:
    """Build a network on the device, with its initial weights."""
    net = networks.build(
        network=p.model, shape=shape, options=options, seed=seeds.derive(seed, "weights")
    )
    networks.prepare(
        network=p.model, net=net, images=sample, seed=seeds.derive(seed, "preparation")
    )
    return networks.to_device(net, device)


def fit_member(
    p: Train,
    seed: int,
    number: int,
    net: nn.Module,
    splits: Splits,
    world: World,
    journal: Journal,
) -> Member:
    """Train one network, from the beginning or from its last saved epoch.

    Args:
        seed: of this network.
        number: of this network in the ensemble, from 0.
        net: the network, or the part of it that is trained.
    """
    state = journal.load(number)
    if state and "kept" in state:
        return restore(net, number, state, journal)
    fitting = make_trainer(p, net, splits.class_counts, world)
    if state:
        fitting.restore(state)
        print(f"resuming an interrupted run after epoch {len(fitting.history)}")
    for row in fitting.history:
        journal.write(number, row)
    run_epochs(p, seed, number, fitting, splits, world, journal)
    kept = fitting.finish()
    history = [asdict(row) for row in fitting.history]
    journal.save(number, {"net": net.state_dict(), "history": history, "kept": asdict(kept)})
    return Member(net, fitting.history, kept)


def restore(net: nn.Module, number: int, state: dict[str, Any], journal: Journal) -> Member:
    """Load a network that an interrupted run finished."""
    net.load_state_dict(state["net"])
    history = [Epoch(**row) for row in state["history"]]
    print(f"trained already, {stage.plural(len(history), 'epoch')}")
    for row in history:
        journal.write(number, row)
    return Member(net, history, Epoch(**state["kept"]))


def make_trainer(p: Train, net: nn.Module, class_counts: list[int], world: World) -> Trainer:
    """A trainer for the network, with the optimizer, schedule and options of params.yaml.

    Args:
        class_counts: training images of each class.
    """
    count = sum(class_counts)
    optimizer = optim.make_optimizer(
        net,
        optimizer=p.optimizer,
        lr=p.lr,
        momentum=p.momentum,
        nesterov=p.nesterov,
        weight_decay=p.weight_decay,
        batch_size=p.batch_size,
    )
    device = next(net.parameters()).device
    forward = hardware.forward(world.wrap(net), device, precision=p.precision, compile=p.compile)
    schedule = optim.make_schedule(
        optimizer,
        schedule=p.schedule,
        epochs=p.epochs,
        steps=trainer.steps_per_epoch(count, batch_size=p.batch_size, least=2 * world.size),
        warmup=p.warmup,
        drop=p.drop,
        drop_epochs=p.drop_epochs,
    )
    return Trainer(
        net,
        forward,
        optimizer,
        schedule,
        make_loss(
            class_counts,
            device,
            class_weights=p.class_weights,
            label_smoothing=p.label_smoothing,
        ),
        processes=world.size,
        all_reduce=world.all_reduce,
        ema=p.ema,
        clip_norm=p.clip_norm,
        monitor=p.monitor,
        keep=p.keep,
        patience=p.patience,
    )


def make_loss(
    class_counts: list[int], device: torch.device, *, class_weights: str, label_smoothing: float
) -> nn.Module:
    """Cross-entropy from logits and labels, or from logits and probabilities.

    Args:
        class_counts: training images of each class.
        class_weights: none, or balanced: inversely proportional to the counts, 1 on average over
            the images.
    """
    weight = None
    if class_weights == "balanced":
        counts = torch.tensor(class_counts, dtype=torch.float32)
        weight = (counts.sum() / (len(counts) * counts.clamp(min=1))).to(device)
    return nn.CrossEntropyLoss(weight, label_smoothing=label_smoothing)


def run_epochs(
    p: Train,
    seed: int,
    number: int,
    fitting: Trainer,
    splits: Splits,
    world: World,
    journal: Journal,
) -> None:
    """Train the remaining epochs of one network; save, print and log each."""
    count = len(splits.train.labels)

    def validate(net: nn.Module) -> tuple[float, ...]:
        if world.rank:
            return world.broadcast((0.0, 0.0))
        logits = inference.predict(net, splits.val_images, splits.normalize)
        return world.broadcast(inference.loss_and_accuracy(logits, splits.val_labels))

    progress = Progress(epochs=p.epochs, images=count, done=len(fitting.history))
    while len(fitting.history) < p.epochs and not fitting.stopped():
        epoch = len(fitting.history) + 1
        order = torch.randperm(count, generator=seeds.generator(seed, "order", epoch))
        indices = trainer.split_order(
            order.to(world.device), batch_size=p.batch_size, least=2 * world.size
        )
        batches = splits.train.epoch(epoch, seed, indices, world.part)
        seeds.seed_everything(seeds.derive(seed, "dropout", epoch) + world.rank)
        progress.start(epoch)
        row = fitting.epoch(batches, validate, progress.step)
        journal.save(number, fitting.state())
        journal.write(number, row, progress.end(row))
    progress.close()


def calibrate(members: list[Member], logits: list[Tensor], labels: Tensor) -> Fitted:
    """Fit one temperature for the ensemble, on its logits of the validation images."""
    temperature = fit_temperature(inference.average(logits), labels)
    top5 = None
    if logits[0].shape[1] > 10:
        scores = [inference.top5_accuracy(member, labels) for member in logits]
        top5 = sum(scores) / len(scores)
    return Fitted(members, temperature, top5)
