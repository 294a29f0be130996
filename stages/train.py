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

from cifar import (
    augment,
    checkpoint,
    device,
    files,
    network,
    optim,
    params,
    provenance,
    scoring,
    seeds,
    stage,
    tensors,
    training,
)  # fmt: skip
from cifar.params.train import Train
from cifar.progress import Progress

DATA = Path("data/processed")
SPLITS = [DATA / split / f"{name}.npy" for split in ("train", "val") for name in ("images", "labels")]
VAL_BATCH = 1000  # images per validation step: memory, not results
PREPARE_IMAGES = 5000  # training images that a network may look at before it starts


class Data(NamedTuple):
    """All images (N, H, W, C) uint8, the training ones padded, and labels (N,), on the device; and what they need."""

    padded: Tensor
    labels: Tensor
    val_images: Tensor
    val_labels: Tensor
    normalize: Callable[[Tensor], Tensor]


def main() -> Path:
    p, seed = params.load(Train)
    place, threads = device.pick(p.device, "train.device"), device.set_threads(p.threads)
    dataset = files.read_json(DATA / "dataset.json")
    facts = {key: dataset[key] for key in ("image_size", "mean", "std")}
    facts |= {"num_classes": len(dataset["classes"]), "in_channels": dataset["channels"]}
    arguments = network.arguments(p.model, p, facts)
    layers = network.summary(network.build(p.model, arguments, seed=0), dataset["channels"], dataset["image_size"])
    data = [*SPLITS, DATA / "dataset.json"]
    made_by = provenance.facts({"train": p.model_dump(), "seed": seed}, place, threads, data)
    print(f"{p.model} on {made_by['device']}, {threads} CPU threads", network.table(layers), sep="\n")
    saved = stage.root() / ".checkpoints" / checkpoint.key(made_by)
    with checkpoint.exclusive(Path(".checkpoints/lock")), checkpoint.exclusive(saved.with_suffix(".lock")):
        trainers, kept, top5 = train_all(p, seed, dataset, arguments, place, saved)
        description = {key: dataset[key] for key in ("classes", "image_size", "channels", "mean", "std")}
        description |= {"model": p.model, "arguments": arguments, "layers": layers, "ensemble": p.ensemble}
        description |= {"epochs": [row.epoch for row in kept], "made_by": made_by}
        files.write_bytes("models/model.safetensors", network.weights([t.net for t in trainers], description))
        files.write_json("models/model.json", description)  # the same, to be read and compared by people
        rows = [(number, *astuple(row)) for number, trainer in enumerate(trainers) for row in trainer.history]
        files.write_csv("plots/history.csv", ["network", *(f.name for f in fields(training.Epoch))], rows)
        files.write_json("metrics/train.json", training.metrics(kept, top5))
    return saved


def train_all(
    p: Train, seed: int, dataset: dict[str, Any], arguments: dict[str, Any], place: torch.device, saved: Path
) -> tuple[list[training.Trainer], list[training.Epoch], list[float]]:
    """Every network of the ensemble, one after the other; the checkpoint `saved` holds the ones before and this one.

    Returns the trainers with the weights to keep, the epoch these are of, and from eleven classes on their top-5
    accuracy on the validation part.
    """
    images, labels, val_images, val_labels = (tensors.to_device(files.read_array(path), place) for path in SPLITS)
    normalize = tensors.normalizer(dataset["mean"], dataset["std"], place)
    data = Data(augment.pad(images, p.shift), labels, val_images, val_labels, normalize)
    first_images = normalize(images[:PREPARE_IMAGES]).cpu()
    before = (checkpoint.load(saved) or {"trainers": []})["trainers"]
    done: list[dict[str, Any]] = []
    trainers: list[training.Trainer] = []
    kept, top5 = [], []
    for number in range(p.ensemble):
        own_seed = seeds.derive(seed, "network", number) if number else seed
        net = network.build(p.model, arguments, seeds.derive(own_seed, "weights"))
        network.prepare(p.model, net, first_images)
        trainer = make_trainer(net.to(place, memory_format=torch.channels_last), p, len(labels))  # type: ignore[call-overload]
        if number < len(before):
            trainer.restore(before[number])
            print(f"network {number}: going on after epoch {len(trainer.history)} of an interrupted run")
        for _ in run_epochs(trainer, p, own_seed, data):
            files.write_bytes(saved, checkpoint.dump({"trainers": [*done, trainer.state()]}))
        done.append(trainer.state())
        trainers.append(trainer)
        kept.append(trainer.finish())
        if len(dataset["classes"]) > 10:
            logits = scoring.predict(trainer.net, val_images, normalize, VAL_BATCH)
            top5.append(scoring.summary(logits, val_labels)["top5_accuracy"])
    return trainers, kept, top5


def make_trainer(net: nn.Module, p: Train, count: int) -> training.Trainer:
    """The optimizer, schedule and options that params.yaml names, around `net`; `count` training images."""
    optimizer = optim.make_optimizer(
        p.optimizer,
        net,
        lr=p.lr,
        momentum=p.momentum,
        nesterov=p.nesterov,
        weight_decay=p.weight_decay,
        batch_size=p.batch_size,
    )
    steps = training.steps_per_epoch(count, p.batch_size)
    schedule = optim.make_schedule(
        p.schedule, optimizer, epochs=p.epochs, steps=steps, warmup=p.warmup, drop=p.drop, drop_epochs=p.drop_epochs
    )
    loss = nn.CrossEntropyLoss(label_smoothing=p.label_smoothing)
    return training.Trainer(net, optimizer, schedule, loss, p.ema, p.clip_norm, p.monitor, p.keep, p.patience)


def run_epochs(trainer: training.Trainer, p: Train, seed: int, data: Data) -> Iterator[None]:
    """Train the epochs that are left; yields after each of them."""
    count, place = len(data.labels), data.labels.device

    def validate(net: nn.Module) -> tuple[float, float]:
        logits = scoring.predict(net, data.val_images, data.normalize, VAL_BATCH)
        return scoring.loss_and_accuracy(logits, data.val_labels)

    progress = Progress(p.epochs, count)
    while len(trainer.history) < p.epochs and not trainer.stopped():
        epoch = len(trainer.history) + 1
        first, now = seeds.generator(seed, "flip"), seeds.generator(seed, "augmentation", epoch)
        draws = augment.draw(count, p.shift, p.flip, epoch, first, now).to(place)
        order = training.batches(count, p.batch_size, seeds.generator(seed, "order", epoch))
        inputs = (batch(data, index.to(place), draws, p) for index in order)
        torch.manual_seed(seeds.derive(seed, "dropout", epoch))
        progress.start(epoch)
        row = trainer.epoch(inputs, validate, progress.step)
        progress.end(epoch, (row.train_loss, row.train_accuracy), (row.val_loss, row.val_accuracy))
        yield
    progress.close()


def batch(data: Data, index: Tensor, draws: augment.Draws, p: Train) -> tuple[Tensor, Tensor]:
    """Network input (B, C, H, W), augmented as drawn, and labels (B,) of the images `index`."""
    own = draws.take(index)
    x = data.normalize(augment.apply(data.padded, index, own, p.shift))
    return augment.cut_out(x, own, p.cutout), data.labels[index]


if __name__ == "__main__":
    stage.run(main)
