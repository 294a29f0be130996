"""One loop, measured once, in a process: `python -m benchmarks.loops LOOP CASE`.

Prints JSON: images per second, floating-point operations per image, and on CUDA the peak memory.

The loops: `ours`, the project's; `conventional`, as in most tutorials (PIL, torchvision's
transforms, DataLoader with two workers); and `limit`, our training step on one batch again and
again. Images are noise: no loop is faster or slower for what they show.
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

from cifar import hardware, networks, params, tensors, waiting
from cifar.dataset import Shape
from cifar.layers import Dropout
from cifar.params.train import Train
from cifar.training import seeds, trainer
from cifar.training.augment import AugmentedImages
from cifar.training.distributed import World
from cifar.training.fit import make_trainer, network_options
from cifar.training.loading import InMemory
from cifar.training.splits import augmentation

IMAGES = 50_000
CLASS_COUNTS = [IMAGES // 10] * 10
SHAPE = Shape(10, 3, 32, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26))
WARMUP = 3  # steps
WARMUP_COMPILED = 12  # the first ones compile and record the graphs
PLAIN: dict[str, Any] = {
    "dropout": 0.0, "dropout_step": 0.0, "batch_norm": False, "backbone": None,
    "optimizer": "sgd", "lr": 0.001, "momentum": 0.9, "schedule": "constant", "weight_decay": 0.0,
    "label_smoothing": 0.0, "clip_norm": 0.0, "ema": 0.0, "flip": "random", "shift": 4,
    "cutout": 0, "small_epochs": 0, "load": "memory", "processes": 1,
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
    parser.add_argument(
        "--train", type=json.loads, default={}, help="JSON: other values of the section train"
    )
    options = parser.parse_args()
    p = Train(**params.read("params.yaml")["train"] | CASES[options.case] | options.train)
    device = hardware.pick(p.device, "train.device")
    waiting.watch(device)
    steps = (
        conventional(p, device)
        if options.loop == "conventional"
        else ours(p, device, options.loop == "limit")
    )
    warmup = WARMUP if p.compile == "none" else WARMUP_COMPILED
    result = {"images_per_second": measure(steps, device, options.seconds, warmup) * p.batch_size}
    if device.type == "cuda":
        result["peak_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps(result | {"flops_per_image": flops(p)}))


def measure(
    steps: Callable[[int], None], device: torch.device, seconds: float, warmup: int
) -> float:
    """Steps per second, after `warmup` of them; `steps(n)` takes n."""

    def timed(count: int) -> float:
        start = time.perf_counter()
        steps(count)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    timed(warmup)
    count = max(5, round(seconds / (timed(WARMUP) / WARMUP)))
    return count / timed(count)


def ours(p: Train, device: torch.device, fixed: bool) -> Callable[[int], None]:
    """The loop of stages/train.py; `fixed`: on its first batch only."""
    hardware.set_threads(p.threads)
    net = build(p).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = make_trainer(p, net, CLASS_COUNTS, World())
    images, labels = (tensors.to_device(array, device) for array in noise())
    normalize = tensors.normalizer(SHAPE.mean, SHAPE.std, device)
    options = augmentation(p, SHAPE.image_size)
    augmented = AugmentedImages(
        InMemory(images, options), labels, normalize, options, num_classes=SHAPE.num_classes
    )

    def batches() -> Iterator[tuple[Tensor, Tensor, int]]:
        for epoch in range(1, 10**6):
            order = torch.randperm(IMAGES, generator=seeds.generator(0, "order", epoch)).to(device)
            parts = trainer.split_order(order, p.batch_size)
            full = (index for index in parts if len(index) == p.batch_size)
            yield from augmented.epoch(epoch, 0, full, World().part)

    source = batches()
    if fixed:
        source = repeat(next(source))  # type: ignore[assignment]

    def steps(count: int) -> None:
        training.steps(islice(source, count), lambda *_: None)

    return steps


def conventional(p: Train, device: torch.device) -> Callable[[int], None]:
    """What most tutorials write, with the same network, optimizer and augmentation."""
    from torchvision import transforms  # slow to import, and nobody else here needs it

    augment = [
        transforms.RandomCrop(SHAPE.image_size, padding=p.shift),
        transforms.RandomHorizontalFlip(),
    ]
    transform = transforms.Compose(
        [*augment, transforms.ToTensor(), transforms.Normalize(SHAPE.mean, SHAPE.std)]
    )

    class Pictures(Dataset):
        """As torchvision.datasets.CIFAR10: a row of an array becomes an image when asked for."""

        images, labels = noise()

        def __len__(self) -> int:
            return IMAGES

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return transform(Image.fromarray(self.images[index])), int(self.labels[index])

    net = with_plain_dropout(build(p)).to(device)
    training = make_trainer(p, net, CLASS_COUNTS, World())  # for its optimizer and its loss
    loader = DataLoader(
        Pictures(),
        p.batch_size,
        shuffle=True,
        num_workers=2,
        drop_last=True,
        pin_memory=device.type == "cuda",
    )
    source = (pair for _ in iter(int, 1) for pair in loader)

    def steps(count: int) -> None:
        net.train()
        for inputs, labels in islice(source, count):
            x, y = inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            training.optimizer.zero_grad()
            logits = net(x)
            loss = training.loss(logits, y)
            loss.backward()
            training.optimizer.step()
            loss.item(), (logits.argmax(1) == y).sum().item()

    return steps


def build(p: Train) -> nn.Module:
    return networks.build(network=p.model, shape=SHAPE, options=network_options(p), seed=0)


def with_plain_dropout(net: nn.Module) -> nn.Module:
    """The network with torch's own dropout layers in place of ours."""
    for name, layer in list(net.named_modules()):
        if isinstance(layer, Dropout):
            parent, _, attribute = name.rpartition(".")
            setattr(net.get_submodule(parent), attribute, nn.Dropout(layer.p))
    return net


def noise() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    pixels = (IMAGES, SHAPE.image_size, SHAPE.image_size, SHAPE.channels)
    images = rng.integers(0, 256, pixels, dtype=np.uint8)
    return images, rng.integers(0, SHAPE.num_classes, IMAGES)


def flops(p: Train) -> float:
    """Floating-point operations of a training step, per image; a multiply-add is two."""
    net = build(p)
    x = torch.zeros(8, SHAPE.channels, SHAPE.image_size, SHAPE.image_size)
    with FlopCounterMode(display=False) as counter:
        net(x).sum().backward()
    return counter.get_total_flops() / len(x)


if __name__ == "__main__":
    main()
