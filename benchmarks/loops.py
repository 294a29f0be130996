"""One loop, measured once, in a process of its own: `python -m benchmarks.loops LOOP CASE` prints its speed.

The loops: `ours`, the project's; `conventional`, as in most tutorials (PIL, torchvision's transforms,
DataLoader with two workers); and `limit`, our training step on one batch again and again. Images are noise:
no loop is faster or slower for what they show.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice, repeat
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from cifar import hardware, networks, params, tensors
from cifar.params.train import Train
from cifar.training import seeds
from cifar.training import trainer as training
from cifar.training.distributed import World
from stages import train

CLASSES, SIDE, IMAGES = 10, 32, 50_000
MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
WARMUP = 3  # steps
PLAIN: dict[str, Any] = {
    "dropout": 0.0, "optimizer": "sgd", "lr": 0.001, "momentum": 0.9, "schedule": "constant", "flip": "random",
    "shift": 4, "cutout": 0, "label_smoothing": 0.0, "weight_decay": 0.0, "clip_norm": 0.0, "ema": 0.0,
    "small_epochs": 0, "stream": False, "processes": 1, "dropout_step": 0.0, "batch_norm": False, "backbone": None,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "vgg3-dropout, batch 64": PLAIN
    | {"model": "vgg", "depth": 3, "dropout": 0.2, "batch_size": 64},
    "vgg3-dropout, batch 512": PLAIN
    | {"model": "vgg", "depth": 3, "dropout": 0.2, "batch_size": 512},
    "resnet18, batch 128": PLAIN | {"model": "resnet18", "batch_size": 128},
    "params.yaml, whole pictures": {"small_epochs": 0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.loops")
    parser.add_argument("loop", choices=["ours", "conventional", "limit"])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--seconds", type=float, default=6.0, help="to measure, after a warm-up")
    options = parser.parse_args()
    p = Train(**params.read("params.yaml")["train"] | CASES[options.case])
    place = hardware.pick(p.device, "train.device")
    steps = (
        conventional(p, place)
        if options.loop == "conventional"
        else ours(p, place, options.loop == "limit")
    )
    speed = measure(steps, place, options.seconds) * p.batch_size
    print(json.dumps({"images_per_second": speed, "flops_per_image": flops(p)}))


def measure(steps: Callable[[int], None], place: torch.device, seconds: float) -> float:
    """Steps per second; `steps(n)` takes n of them."""

    def timed(count: int) -> float:
        start = time.perf_counter()
        steps(count)
        if place.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    timed(WARMUP)
    count = max(5, round(seconds / (timed(WARMUP) / WARMUP)))
    return count / timed(count)


def ours(p: Train, place: torch.device, fixed: bool) -> Callable[[int], None]:
    """The loop of stages/train.py; `fixed`: on its first batch only."""
    hardware.set_threads(p.threads)
    net = build(p).to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    trainer = train.make_trainer(net, p, IMAGES, World())
    images, labels = (tensors.to_device(array, place) for array in noise())
    shown = train.augmented(p, images, labels, tensors.normalizer(MEAN, STD, place))

    def batches() -> Iterator[tuple[Tensor, Tensor, int]]:
        for epoch in range(1, 10**6):
            order = torch.randperm(IMAGES, generator=seeds.generator(0, "order", epoch)).to(place)
            whole = (
                index
                for index in training.batches(order, p.batch_size)
                if len(index) == p.batch_size
            )
            yield from shown.epoch(
                epoch,
                whole,
                World().part,
                seeds.generator(0, "flip"),
                seeds.generator(0, "now", epoch),
            )

    source = batches()
    if fixed:
        source = repeat(next(source))  # type: ignore[assignment]

    def steps(count: int) -> None:
        trainer.steps(islice(source, count), lambda *_: None)

    return steps


def conventional(p: Train, place: torch.device) -> Callable[[int], None]:
    """What most tutorials write, with the same network, optimizer and augmentation."""
    from torchvision import transforms  # slow to import, and nobody else here needs it

    augment = [transforms.RandomCrop(SIDE, padding=p.shift), transforms.RandomHorizontalFlip()]
    transform = transforms.Compose(
        [*augment, transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )

    class Pictures(Dataset):
        """As torchvision.datasets.CIFAR10: an array, and a picture made of a row of it when it is asked for."""

        images, labels = noise()

        def __len__(self) -> int:
            return IMAGES

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return transform(Image.fromarray(self.images[index])), int(self.labels[index])

    net = build(p).to(place)
    for layer in net.modules():
        if isinstance(layer, networks.FastDropout):
            layer.__class__ = nn.Dropout  # type: ignore[assignment]
    trainer = train.make_trainer(net, p, IMAGES, World())  # for its optimizer and its loss
    loader = DataLoader(
        Pictures(),
        p.batch_size,
        shuffle=True,
        num_workers=2,
        drop_last=True,
        pin_memory=place.type == "cuda",
    )
    source = (pair for _ in iter(int, 1) for pair in loader)

    def steps(count: int) -> None:
        net.train()
        for inputs, labels in islice(source, count):
            x, y = inputs.to(place, non_blocking=True), labels.to(place, non_blocking=True)
            trainer.optimizer.zero_grad()
            logits = net(x)
            loss = trainer.loss(logits, y)
            loss.backward()
            trainer.optimizer.step()
            loss.item(), (logits.argmax(1) == y).sum().item()

    return steps


def build(p: Train) -> nn.Module:
    facts = {"num_classes": CLASSES, "in_channels": 3, "image_size": SIDE, "mean": MEAN, "std": STD}
    return networks.build(p.model, networks.arguments(p.model, p, facts), seed=0)


def noise() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8), rng.integers(
        0, CLASSES, IMAGES
    )


def flops(p: Train) -> float:
    """Floating-point operations of a training step, per image: two for each multiplication with its addition."""
    net, x = build(p), torch.zeros(8, 3, SIDE, SIDE)
    with FlopCounterMode(display=False) as counter:
        net(x).sum().backward()
    return counter.get_total_flops() / len(x)


if __name__ == "__main__":
    main()
