"""Stage 3: a network, trained on the training part and watched on the validation part.

It cannot see the test images: they are no dependency of it. Writes the model, one row per epoch, and the
numbers of the epoch that was kept. Interrupted, it goes on from the last whole epoch.
"""

from collections.abc import Callable, Iterator
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cifar import UserError, files, hardware, networks, params, stage, tensors
from cifar.evaluation import metrics
from cifar.params.train import Train
from cifar.training import augment, checkpoint, distributed, optim, provenance, seeds
from cifar.training import trainer as training
from cifar.training.distributed import World
from cifar.training.progress import Progress

DATA = Path("data/processed")
SPLITS = [
    DATA / split / f"{name}.npy" for split in ("train", "val") for name in ("images", "labels")
]
VAL_BATCH = 1000  # images per validation step: memory, not results
PREPARE_PIXELS = 5000 * 32 * 32  # of training images that a network may look at before it starts


class Data(NamedTuple):
    """Both parts, on the device: the training images as each epoch shows them, the others (N, H, W, C) uint8."""

    train: augment.Augmented
    val_images: Tensor
    val_labels: Tensor
    normalize: Callable[[Tensor], Tensor]
    world: World


def main() -> Path | None:
    p, seed = params.load(Train)
    world = distributed.started() or World()
    place, threads = (
        hardware.pick(p.device, "train.device", world.local),
        hardware.set_threads(p.threads, world.here),
    )
    dataset = files.read_json(DATA / "dataset.json")
    facts = {key: dataset[key] for key in ("image_size", "mean", "std")}
    facts |= {"num_classes": len(dataset["classes"]), "in_channels": dataset["channels"]}
    arguments = networks.arguments(p.model, p, facts)
    net = networks.build(p.model, arguments, seed=0)
    layers = networks.summary(net, dataset["channels"], dataset["image_size"])
    if p.small_share:
        networks.check_small(net, dataset["channels"], small_side(p, dataset["image_size"]))
    if p.batch_size < 2 * world.size:
        raise UserError(
            f"{p.batch_size} images are too few for {world.size} processes (train.batch_size): 2 for each"
        )
    if p.processes > 1 and not distributed.started():
        hardware.pick(p.device, "train.processes", p.processes - 1)
        distributed.launch("stages.train", p.processes)
        return None
    distributed.join(world, place)
    parameters = {"train": p.model_dump(exclude={"processes", "threads", "stream"}), "seed": seed}
    made_by = provenance.facts(
        parameters, place, threads * world.size, [*SPLITS, DATA / "dataset.json"]
    )
    print(
        f"{p.model} on {made_by['device']}, {threads} CPU threads", networks.table(layers), sep="\n"
    )
    saved = stage.root() / ".checkpoints" / checkpoint.key(made_by)
    if world.rank:
        train_all(p, seed, dataset, arguments, place, saved, world)
        return None
    with (
        checkpoint.exclusive(Path(".checkpoints/lock")),
        checkpoint.exclusive(saved.with_suffix(".lock")),
    ):
        trainers, kept, top5 = train_all(p, seed, dataset, arguments, place, saved, world)
        description = {
            key: dataset[key] for key in ("classes", "image_size", "channels", "mean", "std")
        }
        description |= {
            "model": p.model,
            "arguments": arguments,
            "layers": layers,
            "ensemble": p.ensemble,
        }
        description |= {
            "epochs": [row.epoch for row in kept],
            "made_by": made_by | {"processes": world.size},
        }
        files.write_bytes(
            "models/model.safetensors", networks.weights([t.net for t in trainers], description)
        )
        files.write_json(
            "models/model.json", description
        )  # the same, to be read and compared by people
        rows = [
            (number, *astuple(row))
            for number, trainer in enumerate(trainers)
            for row in trainer.history
        ]
        files.write_csv(
            "plots/history.csv", ["network", *(f.name for f in fields(training.Epoch))], rows
        )
        files.write_json("metrics/train.json", training.metrics(kept, top5))
    return saved


def train_all(
    p: Train, seed: int, dataset: dict[str, Any], arguments: dict[str, Any], place: torch.device, saved: Path,
    world: World,
) -> tuple[list[training.Trainer], list[training.Epoch], list[float]]:  # fmt: skip
    """Every network of the ensemble, one after the other; the checkpoint `saved` holds the ones before and this one.

    Returns the trainers with the weights to keep, the epoch these are of, and from eleven classes on their top-5
    accuracy on the validation part.
    """
    arrays = [files.read_array(path) for path in SPLITS]
    images, val_images = (
        tensors.from_disk(a) if p.stream else tensors.to_device(a, place) for a in arrays[::2]
    )
    labels, val_labels = (tensors.to_device(array, place) for array in arrays[1::2])
    normalize = tensors.normalizer(dataset["mean"], dataset["std"], place)
    data = Data(augmented(p, images, labels, normalize), val_images, val_labels, normalize, world)
    few = max(1, len(images) * images[0, :, :, 0].numel() // PREPARE_PIXELS)
    sample = normalize(
        images[::few]
    ).cpu()  # from beginning to end: pictures may come class by class
    del images  # there is a padded copy now
    before = world.same((checkpoint.load(saved) if not world.rank else None) or {"trainers": []})[
        "trainers"
    ]
    done: list[dict[str, Any]] = []
    trainers: list[training.Trainer] = []
    kept, top5 = [], []
    for number in range(p.ensemble):
        own_seed = seeds.derive(seed, "network", number) if number else seed
        net = networks.build(p.model, arguments, seeds.derive(own_seed, "weights"))
        networks.prepare(p.model, net, sample)
        net = net.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        trainer = make_trainer(net, p, len(labels), world)
        if number < len(before):
            trainer.restore(before[number])
            print(
                f"network {number}: going on after epoch {len(trainer.history)} of an interrupted run"
            )
        for _ in run_epochs(trainer, p, own_seed, data):
            if not world.rank:
                files.write_bytes(saved, checkpoint.dump({"trainers": [*done, trainer.state()]}))
        done.append(trainer.state())
        trainers.append(trainer)
        kept.append(trainer.finish())
        if len(dataset["classes"]) > 10:
            logits = metrics.predict(trainer.net, val_images, normalize, VAL_BATCH)
            top5.append(metrics.summary(logits, val_labels)["top5_accuracy"])
    return trainers, kept, top5


def make_trainer(net: nn.Module, p: Train, count: int, world: World) -> training.Trainer:
    """The optimizer, schedule and options that params.yaml names, around `net`; `count` training images."""
    optimizer = optim.make_optimizer(
        p.optimizer, net, lr=p.lr, momentum=p.momentum, nesterov=p.nesterov, weight_decay=p.weight_decay,
        batch_size=p.batch_size,
    )  # fmt: skip
    steps = training.steps_per_epoch(count, p.batch_size, least=2 * world.size)
    forward = hardware.forward(
        world.wrap(net), next(net.parameters()).device, p.precision, p.compile
    )
    schedule = optim.make_schedule(
        p.schedule,
        optimizer,
        epochs=p.epochs,
        steps=steps,
        warmup=p.warmup,
        drop=p.drop,
        drop_epochs=p.drop_epochs,
    )
    loss = nn.CrossEntropyLoss(label_smoothing=p.label_smoothing)
    return training.Trainer(
        net, forward, optimizer, schedule, loss, processes=world.size, total=world.total, ema=p.ema,
        clip_norm=p.clip_norm, monitor=p.monitor, keep=p.keep, patience=p.patience,
    )  # fmt: skip


def run_epochs(trainer: training.Trainer, p: Train, seed: int, data: Data) -> Iterator[None]:
    """Train the epochs that are left; yields after each of them."""
    count, place, world = len(data.train.labels), data.train.labels.device, data.world

    def validate(net: nn.Module) -> tuple[float, ...]:
        if world.rank:
            return world.first((0.0, 0.0), place)
        logits = metrics.predict(net, data.val_images, data.normalize, VAL_BATCH)
        return world.first(metrics.loss_and_accuracy(logits, data.val_labels), place)

    progress = Progress(p.epochs, count)
    while len(trainer.history) < p.epochs and not trainer.stopped():
        epoch = len(trainer.history) + 1
        order = torch.randperm(count, generator=seeds.generator(seed, "order", epoch)).to(place)
        first, now = seeds.generator(seed, "flip"), seeds.generator(seed, "augmentation", epoch)
        batches = training.batches(order, p.batch_size, least=2 * world.size)
        inputs = data.train.epoch(epoch, batches, world.part, first, now)
        torch.manual_seed(seeds.derive(seed, "dropout", epoch) + world.rank)
        progress.start(epoch)
        row = trainer.epoch(inputs, validate, progress.step)
        progress.end(epoch, (row.train_loss, row.train_accuracy), (row.val_loss, row.val_accuracy))
        yield
    progress.close()


def augmented(
    p: Train, images: Tensor, labels: Tensor, normalize: Callable[[Tensor], Tensor]
) -> augment.Augmented:
    """The training images (N, H, W, C) and labels (N,) with the augmentation that params.yaml names."""
    small = int(p.small_share * p.epochs), small_side(p, images.shape[1])
    return augment.Augmented(images, labels, normalize, p.shift, p.flip, p.cutout, *small, p.stream)


def small_side(p: Train, image_size: int) -> int:
    return round(p.small_scale * image_size)


if __name__ == "__main__":
    stage.run(main)
