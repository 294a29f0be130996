"""Measure the speed of the training loop, a conventional loop, and one without data loading."""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import workplace
from benchmarks.loops import CASES, DISK_CASES
from benchmarks.pipeline import spread
from cifar import hardware

LOOPS = ["conventional", "ours", "limit"]
MATRIX = 4096  # rows and columns of a matrix product that shows what the machine can do
VGG = "vgg3-dropout, batch 512"
Speeds = dict[tuple[str, str], list[float]]


def run(options: argparse.Namespace) -> None:
    """Measure the loops in turns, and how close training comes to the rate of a matrix product."""
    speeds: Speeds = {(case, loop): [] for case in CASES for loop in LOOPS}
    speeds |= {(case, loop): [] for case in DISK_CASES for loop in ("ours", "disk")}
    products: list[float] = []
    flops: dict[str, float] = {}
    for _ in range(options.rounds):
        products.append(product())
        for case, loop in speeds:
            numbers = measure(loop, case, options.seconds)
            speeds[case, loop].append(numbers["images_per_second"])
            print(f"{case}, {loop}: {numbers['images_per_second']:,.0f} images/s", file=sys.stderr)
            flops[case] = numbers["flops_per_image"]
    print(table(speeds))
    print(disk_table(speeds))
    rate = statistics.median(speeds[VGG, "ours"]) * flops[VGG]
    best = statistics.median(products)
    print(
        f"\n{VGG}: {rate / 1e9:,.0f} GFLOP/s, {rate / best:.2f} of the {best / 1e9:,.0f} "
        f"of a {MATRIX}x{MATRIX} product\n"
    )


def measure(loop: str, case: str, seconds: float, **train: Any) -> dict[str, float]:
    """Measure one loop once, in a process of its own.

    Args:
        train: values that differ from those of the case.

    Raises:
        UserError: the loop failed.
    """
    words = [loop, case, "--seconds", str(seconds), "--train", json.dumps(train)]
    return json.loads(workplace.python(Path(), "-m", "benchmarks.loops", *words))


def table(speeds: Speeds) -> str:
    """A Markdown row for each case: the speeds of the loops, and ours relative to the others."""
    lines = [
        "| images/s | conventional | ours | limit | ours / conventional | ours / limit |",
        "|---|---|---|---|---|---|",
    ]
    for case in [case for case, loop in speeds if loop == "conventional"]:
        median = {loop: statistics.median(speeds[case, loop]) for loop in LOOPS}
        cells = [spread(speeds[case, loop]) for loop in LOOPS]
        ratios = [f"{median['ours'] / median[other]:.2f}" for other in ("conventional", "limit")]
        lines.append("| " + " | ".join([case, *cells, *ratios]) + " |")
    return "\n".join(lines)


def disk_table(speeds: Speeds) -> str:
    """A Markdown row for each case: speed with images in memory, and read from a file."""
    lines = ["", "| images/s | memory | disk | disk / memory |", "|---|---|---|---|"]
    for case in DISK_CASES:
        memory, disk = speeds[case, "ours"], speeds[case, "disk"]
        ratio = statistics.median(disk) / statistics.median(memory)
        lines.append(f"| {case} | {spread(memory)} | {spread(disk)} | {ratio:.2f} |")
    return "\n".join(lines)


def product() -> float:
    """Operations per second of a large matrix product: float32 on a CPU, bfloat16 on a GPU."""
    device = hardware.pick("auto", "train.device")
    hardware.set_threads(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a = torch.ones(MATRIX, MATRIX, dtype=dtype, device=device)

    def timed() -> float:
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        return time.perf_counter() - start

    timed()
    return 2 * MATRIX**3 / min(timed() for _ in range(3))
