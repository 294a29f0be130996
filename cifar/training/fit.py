"""A whole training, composed of the modules beside this one.

    fit -> fit_member -> run_epochs -> Trainer.epoch -> Trainer.step

Every parameter of `train` is read here or in stages/train.py, as `p.NAME`, and handed on under its
name.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cifar import hardware, inference, networks, stage, tensors
from cifar.dataset import Shape
from cifar.model import Layer, NetworkOptions
from cifar.params.train import Train
from cifar.training import features, loading, optim, seeds, trainer
from cifar.training.augment import Augmentation, AugmentedImages
from cifar.training.checkpoint import Checkpoints
from cifar.training.distributed import World
from cifar.training.loading import InMemory, OnDisk
from cifar.training.photo import PhotoOptions
from cifar.training.progress import EpochLog, Progress
from cifar.training.temperature import fit_temperature
from cifar.training.trainer import Epoch, Trainer

HISTORY = ["network", *(field.name for field in fields(Epoch))]  # columns
PREPARE_PIXELS = 5000 * 32 * 32  # of training images that a network may look at before it starts


@dataclass(frozen=True)
class Arrays:
    """Images (N, H, W, C) uint8 and labels (N,) int64 of both parts, memory-mapped."""

    train_images: np.memmap
    train_labels: np.ndarray
    val_images: np.ndarray
    val_labels: np.ndarray


@dataclass(frozen=True)
class Splits:
    """Both parts on the device, or their images on disk (`train.load`)."""

    train: AugmentedImages
    val_images: Tensor
    val_labels: Tensor
    normalize: Callable[[Tensor], Tensor]
    class_counts: list[int]  # training images of each class
    sample: Tensor  # (N, C, H, W) float, training images without augmentation, on the CPU


@dataclass(frozen=True)
class Member:
    """A trained network with the weights that are kept, its epochs, and the one they are of."""

    net: nn.Module
    history: list[Epoch]
    kept: Epoch


@dataclass(frozen=True)
class Fitted:
    """An ensemble of one or more networks, and what their validation images say of it."""

    members: list[Member]
    temperature: float
    top5: float | None  # accuracy, from eleven classes on

    @property
    def epochs(self) -> tuple[int, ...]:
        """For each network the epoch whose weights were kept, from 1."""
        return tuple(member.kept.epoch for member in self.members)

    def metrics(self) -> dict[str, Any]:
        """The numbers of the kept epochs."""
        numbers = trainer.metrics([member.kept for member in self.members])
        if self.top5 is not None:
            numbers["val"]["top5_accuracy"] = round(self.top5, 5)
        return numbers

    def history(self) -> list[tuple[Any, ...]]:
        """A row for each epoch of each network: its number, then the fields of `Epoch`."""
        return [
            (number, *astuple(row))
            for number, member in enumerate(self.members)
            for row in member.history
        ]


def fit(
    p: Train,
    seed: int,
    shape: Shape,
    options: NetworkOptions,
    arrays: Arrays,
    world: World,
    device: torch.device,
    checkpoints: Checkpoints,
) -> Fitted:
    """Train every network of the ensemble, one after the other, and calibrate them together.

    Args:
        checkpoints: resumed from, and written after each epoch, by the first process.
    """
    splits = load_splits(p, arrays, shape, device, world.local_size)
    log = None if world.rank else EpochLog(stage.root(), epochs=p.epochs)
    members = []
    logits = []
    for number in range(p.ensemble):
        member_seed = seeds.derive(seed, "network", number) if number else seed
        state = world.broadcast_object(None if world.rank else checkpoints.load(number))
        net = build(p, shape, options, member_seed, splits.sample, device)

        def save(state: dict[str, Any], number: int = number) -> None:
            if not world.rank:
                checkpoints.save(number, state)

        def note(row: Epoch, speed: float | None, number: int = number) -> None:
            if log:
                log.write(number, row, speed)

        part, data = trained_part(p, net, splits, shape)
        member = fit_member(p, member_seed, part, data, world, state, save, note)
        members.append(replace(member, net=net))
        if not world.rank:
            logits.append(inference.predict(part, data.val_images, data.normalize))
    if log:
        log.close()
    return calibrate(members, logits, splits.val_labels) if logits else Fitted(members, 1.0, None)


def network_options(p: Train) -> NetworkOptions:
    """The options of params.yaml that shape the network."""
    return NetworkOptions(
        depth=p.depth,
        width=p.width,
        dropout=p.dropout,
        dropout_step=p.dropout_step,
        batch_norm=p.batch_norm,
        backbone=p.backbone,
        freeze=p.freeze,
    )


def inspect(p: Train, shape: Shape, options: NetworkOptions) -> tuple[Layer, ...]:
    """The layers of the network, once all that can be tried before training was tried.

    Raises:
        UserError: the training would not work.
    """
    return networks.inspect(
        network=p.model,
        shape=shape,
        options=options,
        optimizer=p.optimizer,
        small_size=small_size(p, shape.image_size) if p.small_epochs else None,
    )


def build(
    p: Train,
    shape: Shape,
    options: NetworkOptions,
    seed: int,
    sample: Tensor,
    device: torch.device,
) -> nn.Module:
    """One network on the device, with its first weights."""
    net = networks.build(
        network=p.model, shape=shape, options=options, seed=seeds.derive(seed, "weights")
    )
    networks.prepare(network=p.model, net=net, images=sample)
    return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def load_splits(
    p: Train, arrays: Arrays, shape: Shape, device: torch.device, processes: int
) -> Splits:
    """The images and labels where the training needs them.

    Args:
        processes: how many on this machine train.
    """
    size = arrays.train_images.nbytes + arrays.val_images.nbytes
    in_memory = loading.in_memory(size, device, processes, load=p.load)
    if p.load == "auto" and not in_memory:
        print(f"note: {size / 1e9:.1f} GB of images are read from disk as needed (train.load)")
    load = partial(tensors.to_device, device=device) if in_memory else tensors.from_disk
    images = load(arrays.train_images)
    labels = tensors.to_device(arrays.train_labels, device)
    normalize = tensors.normalizer(shape.mean, shape.std, device)
    options = augmentation(p, shape.image_size)
    source = (
        InMemory(images, options) if in_memory else OnDisk(arrays.train_images, options, device)
    )
    # From beginning to end, because images may come class by class.
    stride = max(1, len(images) * shape.image_size**2 // PREPARE_PIXELS)
    return Splits(
        train=AugmentedImages(source, labels, normalize, options, num_classes=shape.num_classes),
        val_images=load(arrays.val_images),
        val_labels=tensors.to_device(arrays.val_labels, device),
        normalize=normalize,
        class_counts=np.bincount(arrays.train_labels, minlength=shape.num_classes).tolist(),
        sample=normalize(images[::stride]).cpu(),
    )


def augmentation(p: Train, image_size: int) -> Augmentation:
    """The augmentation of params.yaml, for images of so many pixels, height and width."""
    return Augmentation(
        shift=p.shift,
        flip=p.flip,
        cutout=p.cutout,
        small_epochs=p.small_epochs,
        small_size=small_size(p, image_size),
        photo=PhotoOptions(
            rotate=p.rotate,
            zoom=p.zoom,
            flip_vertical=p.flip_vertical,
            brightness=p.brightness,
            contrast=p.contrast,
            saturation=p.saturation,
        ),
        mixup=p.mixup,
        cutmix=p.cutmix,
    )


def trained_part(
    p: Train, net: nn.Module, splits: Splits, shape: Shape
) -> tuple[nn.Module, Splits]:
    """What is trained, and on what: the network on the images, or its last layer on features."""
    options, images = splits.train.options, splits.train.images
    if not p.freeze or options.active or not isinstance(images, InMemory):
        return net, splits
    layer = features.trained_layer(net, splits.sample[:2].to(splits.train.labels.device))
    if layer is None:
        return net, splits

    def compute(images: Tensor) -> Tensor:
        return features.compute(net, layer, images, splits.normalize)

    print(f"{p.backbone} is frozen: it sees each image once, and its last layer is trained")
    labels = splits.train.labels
    train = AugmentedImages(
        InMemory(compute(images.images), options),
        labels,
        features.flatten,
        options,
        num_classes=shape.num_classes,
    )
    val_images = compute(splits.val_images)
    return layer, replace(splits, train=train, val_images=val_images, normalize=features.flatten)


def small_size(p: Train, image_size: int) -> int:
    """Pixels, height and width of the images in the first `small_epochs` epochs."""
    return round(p.small_scale * image_size)


def fit_member(
    p: Train,
    seed: int,
    net: nn.Module,
    splits: Splits,
    world: World,
    state: dict[str, Any] | None,
    save: Callable[[dict[str, Any]], None],
    note: Callable[[Epoch, float | None], None],
) -> Member:
    """Train one network from its first or its last saved epoch.

    Args:
        state: what `save` got from an interrupted run, if any.
        save: keeps a state.
        note: logs an epoch with its images per second.
    """
    if state and "kept" in state:
        net.load_state_dict(state["net"])
        history = [Epoch(**row) for row in state["history"]]
        member = Member(net, history, Epoch(**state["kept"]))
        print(f"trained already, {stage.plural(len(history), 'epoch')}")
    else:
        fitting = make_trainer(p, net, splits.class_counts, world)
        if state:
            fitting.restore(state)
            print(f"resuming an interrupted run after epoch {len(fitting.history)}")
        for row in fitting.history:
            note(row, None)
        for row, speed in run_epochs(p, seed, fitting, splits, world):
            save(fitting.state())
            note(row, speed)
        return finish(fitting, save)
    for row in member.history:
        note(row, None)
    return member


def finish(fitting: Trainer, save: Callable[[dict[str, Any]], None]) -> Member:
    """The network with the weights that are kept, saved as such."""
    kept = fitting.finish()
    history = [asdict(row) for row in fitting.history]
    save({"net": fitting.net.state_dict(), "history": history, "kept": asdict(kept)})
    return Member(fitting.net, fitting.history, kept)


def make_trainer(p: Train, net: nn.Module, class_counts: list[int], world: World) -> Trainer:
    """The optimizer, schedule and options of params.yaml around a network.

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
    p: Train, seed: int, fitting: Trainer, splits: Splits, world: World
) -> Iterator[tuple[Epoch, float]]:
    """Train the epochs that are left; yields each with its images per second."""
    count = len(splits.train.labels)
    device = splits.train.labels.device

    def validate(net: nn.Module) -> tuple[float, ...]:
        if world.rank:
            return world.broadcast((0.0, 0.0), device)
        logits = inference.predict(net, splits.val_images, splits.normalize)
        return world.broadcast(inference.loss_and_accuracy(logits, splits.val_labels), device)

    progress = Progress(epochs=p.epochs, images=count, done=len(fitting.history))
    while len(fitting.history) < p.epochs and not fitting.stopped():
        epoch = len(fitting.history) + 1
        order = torch.randperm(count, generator=seeds.generator(seed, "order", epoch)).to(device)
        indices = trainer.split_order(order, batch_size=p.batch_size, least=2 * world.size)
        batches = splits.train.epoch(epoch, seed, indices, world.part)
        torch.manual_seed(seeds.derive(seed, "dropout", epoch) + world.rank)
        progress.start(epoch)
        row = fitting.epoch(batches, validate, progress.step)
        yield row, progress.end(row)
    progress.close()


def calibrate(members: list[Member], logits: list[Tensor], labels: Tensor) -> Fitted:
    """Fit the temperature of all networks together on the logits of the validation images."""
    temperature = fit_temperature(inference.average(logits), labels)
    top5 = None
    if logits[0].shape[1] > 10:
        scores = [inference.top5_accuracy(member, labels) for member in logits]
        top5 = sum(scores) / len(scores)
    return Fitted(members, temperature, top5)
