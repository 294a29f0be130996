"""Measure one training loop once: `python -m benchmarks.loops LOOP CASE`.

Prints JSON: images per second, floating-point operations per image, and on CUDA the peak memory.

The loops are `ours`, that of this project; `disk`, the same with images read from a file;
`conventional`, as in most tutorials (PIL, torchvision's transforms, DataLoader with two workers);
and `limit`, our training step on the same batch again and again. The images are noise, since their
content does not affect the speed.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from cifar import files, hardware, networks, params, tensors, waiting
from cifar.dataset import Shape
from cifar.layers import Dropout
from cifar.params.train import Train
from cifar.training import seeds, trainer
from cifar.training.augment import AugmentedImages
from cifar.training.distributed import World
from cifar.training.fit import make_trainer, network_options
from cifar.training.loading import InMemory, OnDisk
from cifar.training.splits import augmentation

IMAGES = 50_000
LARGE_IMAGES = 2_000  # of LARGE x LARGE pixels, 0.3 GB
LARGE = 224
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
DISK_CASES: dict[str, dict[str, Any]] = {
    "params.yaml, whole pictures": CASES["params.yaml, whole pictures"],
    "torchvision's resnet18, batch 32, pictures of 224 pixels": PLAIN
    | {"model": "pretrained", "backbone": "resnet18", "batch_size": 32},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.loops")
    parser.add_argument("loop", choices=["ours", "disk", "conventional", "limit"])
    parser.add_argument("case", choices=CASES | DISK_CASES)
    parser.add_argument("--seconds", type=float, default=6.0, help="time, after a warm-up")
    parser.add_argument(
        "--train",
        type=json.loads,
        default={},
        help="values of the section train to change, as JSON",
    )
    options = parser.parse_args()
    case = (CASES | DISK_CASES)[options.case]
    p = Train(**params.read("params.yaml")["train"] | case | options.train)
    shape = replace(SHAPE, image_size=LARGE) if str(LARGE) in options.case else SHAPE
    device = hardware.pick(p.device, "train.device")
    waiting.watch(device)
    with tempfile.TemporaryDirectory() as folder:
        if options.loop == "conventional":
            steps = conventional(p, device, shape)
        elif options.loop == "disk":
            steps = ours(p, device, shape, file=Path(folder) / "images.npy")
        else:
            steps = ours(p, device, shape, fixed=options.loop == "limit")
        warmup = WARMUP if p.compile == "none" else WARMUP_COMPILED
        speed = measure(steps, device, options.seconds, warmup) * p.batch_size
    result = {"images_per_second": speed}
    if device.type == "cuda":
        result["peak_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps(result | {"flops_per_image": flops(p, shape)}))


def measure(
    steps: Callable[[int], None], device: torch.device, seconds: float, warmup: int
) -> float:
    """Steps per second, after `warmup` steps; `steps(n)` runs n steps."""

    def timed(count: int) -> float:
        start = time.perf_counter()
        steps(count)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    timed(warmup)
    count = max(5, round(seconds / (timed(WARMUP) / WARMUP)))
    return count / timed(count)


def ours(
    p: Train,
    device: torch.device,
    shape: Shape = SHAPE,
    *,
    fixed: bool = False,
    file: Path | None = None,
) -> Callable[[int], None]:
    """The loop of stages/train.py.

    Args:
        fixed: repeat the first batch only.
        file: write the images to this file, and read them from it as the loop needs them.
    """
    hardware.set_threads(p.threads)
    net = networks.to_device(build(p, shape), device)
    images, labels = noise(shape)
    count = len(labels)
    training = make_trainer(p, net, np.bincount(labels).tolist(), World())
    normalize = tensors.normalizer(shape.mean, shape.std, device)
    options = augmentation(p, shape.image_size)
    source: InMemory | OnDisk
    if file:
        files.write_array(file, images)
        source = OnDisk(files.read_array(file), options, device)
    else:
        source = InMemory(tensors.to_device(images, device), options)
    augmented = AugmentedImages(
        source,
        tensors.to_device(labels, device),
        normalize,
        options,
        num_classes=shape.num_classes,
    )

    def batches() -> Iterator[tuple[Tensor, Tensor, int]]:
        for epoch in range(1, 10**6):
            order = torch.randperm(count, generator=seeds.generator(0, "order", epoch)).to(device)
            parts = trainer.split_order(order, p.batch_size)
            full = (index for index in parts if len(index) == p.batch_size)
            yield from augmented.epoch(epoch, 0, full, World().part)

    endless = batches()
    if fixed:
        endless = repeat(next(endless))  # type: ignore[assignment]

    def steps(count: int) -> None:
        training.steps(islice(endless, count), lambda *_: None)

    return steps


def conventional(p: Train, device: torch.device, shape: Shape) -> Callable[[int], None]:
    """The loop of most tutorials, with the same network, optimizer and augmentation as ours."""
    from torchvision import transforms  # slow to import, and needed only here

    augment = [
        transforms.RandomCrop(shape.image_size, padding=p.shift),
        transforms.RandomHorizontalFlip(),
    ]
    transform = transforms.Compose(
        [*augment, transforms.ToTensor(), transforms.Normalize(shape.mean, shape.std)]
    )

    class Pictures(Dataset):
        """Like torchvision.datasets.CIFAR10: a row of an array becomes an image on access."""

        images, labels = noise(shape)

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return transform(Image.fromarray(self.images[index])), int(self.labels[index])

    net = with_plain_dropout(build(p, shape)).to(device)
    class_counts = np.bincount(Pictures.labels).tolist()
    training = make_trainer(p, net, class_counts, World())  # for its optimizer and its loss
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


def build(p: Train, shape: Shape) -> nn.Module:
    return networks.build(network=p.model, shape=shape, options=network_options(p), seed=0)


def with_plain_dropout(net: nn.Module) -> nn.Module:
    """The network with torch's own dropout layers in place of ours."""
    for name, layer in list(net.named_modules()):
        if isinstance(layer, Dropout):
            parent, _, attribute = name.rpartition(".")
            setattr(net.get_submodule(parent), attribute, nn.Dropout(layer.p))
    return net


def noise(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Random images (N, H, W, C) uint8 and labels."""
    rng = np.random.default_rng(0)
    count = LARGE_IMAGES if shape.image_size == LARGE else IMAGES
    pixels = (count, shape.image_size, shape.image_size, shape.channels)
    images = rng.integers(0, 256, pixels, dtype=np.uint8)
    return images, rng.integers(0, shape.num_classes, count)


def flops(p: Train, shape: Shape = SHAPE) -> float:
    """Floating-point operations of a training step, per image; a multiply-add is two."""
    net = build(p, shape)
    x = torch.zeros(8, shape.channels, shape.image_size, shape.image_size)
    with FlopCounterMode(display=False) as counter:
        net(x).sum().backward()
    return counter.get_total_flops() / len(x)


if __name__ == "__main__":
    main()
