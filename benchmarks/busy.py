"""Measure training on a busy machine, for several ways in which OpenMP's threads wait.

VGG with batches of 64 on all cores: alone, beside one busy process, beside eight, and two
trainings at once, whose speeds are added. Every round measures each way of waiting once.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import machine
from benchmarks.pipeline import spread
from benchmarks.tables import markdown
from cifar import UserError

CASE = "vgg3-dropout, batch 64"
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
WAYS: dict[str, dict[str, str]] = {
    "libgomp's default": {"GOMP_SPINCOUNT": "300000"},
    "this project (follows the load)": {},
    "10,000 spins": {"GOMP_SPINCOUNT": "10000"},
    "1,000 spins": {"GOMP_SPINCOUNT": "1000"},
    "100 spins": {"GOMP_SPINCOUNT": "100"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}
ALONE, ONE, EIGHT, TWO = "alone", "beside one", "beside eight", "two at once"
SETTLE = 1.0  # seconds from the start of the load to the measurement
LOOKS = 20  # samples of the load, to tell whether the machine is quiet
Speeds = dict[str, dict[str, list[float]]]  # images/s of each way of waiting in each situation


class Program:
    """A process that trains when it is asked to."""

    def __init__(self, settings: dict[str, str]) -> None:
        inherited = {key: value for key, value in os.environ.items() if key not in SETTINGS}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.busy"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=inherited | settings,
        )

    def start(self, seconds: float) -> None:
        """Let it train for this many seconds."""
        assert self.process.stdin is not None
        print(seconds, file=self.process.stdin, flush=True)

    def read(self) -> float:
        """The next number that it prints: 0 when it is ready, then images per second."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise UserError("the training failed (its message is above): fix it and run again")
        return json.loads(line)

    def measure(self, seconds: float) -> float:
        self.start(seconds)
        return self.read()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rounds", type=int, default=3, help="number of rounds (default: %(default)s)")
    add(
        "--seconds",
        type=float,
        default=3.0,
        help="seconds of each measurement (default: %(default)s)",
    )
    add("--anyway", action="store_true", help="measure even if the machine is not quiet")


def run(options: argparse.Namespace) -> None:
    """Print images per second for each way of waiting in each situation.

    Raises:
        UserError: the machine is not quiet.
    """
    others = others_running()
    if others >= 1 and not options.anyway:
        raise UserError(
            f"the machine is not quiet, {others:g} other threads are running (/proc/loadavg): "
            "stop them, or add --anyway"
        )
    print(f"{machine.describe()}; {others:g} other threads at the start\n")
    speeds: Speeds = {way: {} for way in WAYS}
    for number in range(1, options.rounds + 1):
        for way in WAYS:
            for situation, speed in measure(WAYS[way], options.seconds).items():
                speeds[way].setdefault(situation, []).append(speed)
            print(f"round {number}, {way}", file=sys.stderr)
    print(table(speeds))


def others_running() -> float:
    """The median number of other threads that are running or runnable, from /proc/loadavg."""
    looks = []
    for _ in range(LOOKS):
        time.sleep(0.05)
        running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
        looks.append(int(running) - 1)
    return statistics.median(looks)


def measure(settings: dict[str, str], seconds: float) -> dict[str, float]:
    """Images per second in each situation, from two programs with these settings."""
    with ExitStack() as stack:
        first, second = programs = [Program(settings) for _ in range(2)]
        for program in programs:
            stack.enter_context(program.process)
            stack.callback(program.process.kill)
        for program in programs:
            program.read()
        speeds = {ALONE: first.measure(seconds)}
        for situation, count in ((ONE, 1), (EIGHT, 8)):
            with busy(count):
                first.measure(SETTLE)
                speeds[situation] = first.measure(seconds)
        for part in (SETTLE, seconds):
            for program in programs:
                program.start(part)
            speeds[TWO] = first.read() + second.read()
    return speeds


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Run this many other processes that keep computing."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def table(speeds: Speeds) -> str:
    """A Markdown row for each way of waiting: medians, and their ratios to those of the first way.

    The last column has the speed of two trainings at once relative to one alone.
    """
    situations = [ALONE, ONE, EIGHT, TWO]
    base = {name: statistics.median(values) for name, values in next(iter(speeds.values())).items()}
    lines = [["images/s", *situations, "two at once / alone"]]
    for way, measured in speeds.items():
        median = {name: statistics.median(values) for name, values in measured.items()}
        cells = [
            f"{spread(measured[name])}, {median[name] / base[name]:.2f}" for name in situations
        ]
        lines.append([way, *cells, f"{median[TWO] / median[ALONE]:.2f}"])
    return markdown(lines)


def serve() -> None:
    """For each line of the input, train for that many seconds and print images per second."""
    import torch

    from benchmarks import loops
    from cifar import hardware, params, waiting
    from cifar.params.train import Train

    changes = loops.CASES[CASE] | {"device": "cpu", "threads": 0}
    p = Train(**params.read("params.yaml")["train"] | changes)
    device: torch.device = hardware.pick(p.device, "train.device")
    waiting.watch(device)
    steps = loops.ours(p, device, fixed=True)
    steps(loops.WARMUP)
    print(0.0, flush=True)
    for line in sys.stdin:
        start, count = time.perf_counter(), 0
        while time.perf_counter() < start + float(line):
            steps(1)
            count += 1
        print(count * p.batch_size / (time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    serve()
