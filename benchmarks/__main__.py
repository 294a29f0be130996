"""How fast this is, measured: `make bench`, or `python -m benchmarks speed | accuracy | stages`.

What is compared is measured in turns within one run, because machines are noisy, and given as the median
with the smallest and the largest. The tables are Markdown; benchmarks/RESULTS.md keeps some with what was
learnt. Run it on a machine that does nothing else.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.loops import CASES
from cifar import files, hardware, params

LOOPS = ["conventional", "ours", "limit"]
MATRIX = 4096  # rows and columns of the product that stands for what the machine can do
VGG = "vgg3-dropout, batch 512"
# A command's seconds and peak memory, by a small process: Linux counts the memory of the one that starts it, too.
MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
print(json.dumps([time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks")
    parser.add_argument("what", nargs="*", help="speed, accuracy, stages; all three when left out")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement (default 5)")
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="of each measurement of a loop (default 6)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of the default (default 3)")
    options = parser.parse_args()
    known = {"speed": speed, "stages": stages, "accuracy": accuracy}
    if unknown := set(options.what) - known.keys():
        parser.error(f"no benchmark {', '.join(unknown)}: there are {', '.join(known)}")
    print(f"{machine()}\n")
    for name in options.what or known:
        known[name](options)


def machine() -> str:
    """Processor, cores, GPU, and the versions that decide the speed."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")),
        platform.processor(),
    )
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    simd = torch.backends.cpu.get_cpu_capability()
    return f"{cpu} ({simd}), {os.cpu_count()} cores{gpu}; Python {platform.python_version()}, torch {torch.__version__}"


def speed(options: argparse.Namespace) -> None:
    """Images per second of the three loops in turns, and how near the matrix product's rate training comes."""
    found: dict[tuple[str, str], list[float]] = {
        (case, loop): [] for case in CASES for loop in LOOPS
    }
    products, flops = [], {}
    for _ in range(options.rounds):
        products.append(product())
        for case, loop in found:
            command = [
                sys.executable,
                "-m",
                "benchmarks.loops",
                loop,
                case,
                "--seconds",
                str(options.seconds),
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            numbers = json.loads(done.stdout)
            found[case, loop].append(numbers["images_per_second"])
            print(f"{case}, {loop}: {numbers['images_per_second']:,.0f} images/s", file=sys.stderr)
            flops[case] = numbers["flops_per_image"]
    print(
        "| images/s | conventional | ours | limit | ours / conventional | ours / limit |\n|---|---|---|---|---|---|"
    )
    for case in CASES:
        middle = {loop: statistics.median(found[case, loop]) for loop in LOOPS}
        cells = [spread(found[case, loop]) for loop in LOOPS]
        ratios = [middle["ours"] / middle[other] for other in ("conventional", "limit")]
        print("|", " | ".join([case, *cells, *(f"{ratio:.2f}" for ratio in ratios)]), "|")
    rate, best = statistics.median(found[VGG, "ours"]) * flops[VGG], statistics.median(products)
    print(
        f"\n{VGG}: {rate / 1e9:,.0f} GFLOP/s, {rate / best:.2f} of a {MATRIX}x{MATRIX} product's {best / 1e9:,.0f}\n"
    )


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"


def product() -> float:
    """Floating-point operations per second of a large matrix product: float32 on a CPU, bfloat16 on a GPU."""
    place = hardware.pick("auto", "train.device")
    hardware.set_threads(0)
    kind = torch.bfloat16 if place.type == "cuda" else torch.float32
    a = torch.ones(MATRIX, MATRIX, dtype=kind, device=place)

    def timed() -> float:
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        return time.perf_counter() - start

    timed()
    return 2 * MATRIX**3 / min(timed() for _ in range(3))


def scratch(folder: str, **changes: Any) -> Path:
    """A clone of the last commit in `folder`, `changes` in the section train of its params.yaml, and the downloads.

    Its data are those that the last commit names: fetch.source, absolute or an address, and fetch.sha256.
    """
    clone = Path(folder) / "clone"
    subprocess.run(["git", "clone", "--quiet", ".", clone], check=True)
    whole = params.read(clone / "params.yaml")
    whole["train"].update(changes)
    files.write_json(clone / "params.yaml", whole)  # JSON is YAML
    if Path(".downloads").exists():
        (clone / ".downloads").symlink_to(Path(".downloads").resolve())
    return clone


def stages(options: argparse.Namespace) -> None:
    """Wall time and peak memory of each stage, the training with one epoch, and of a run with nothing to do."""
    print("| command | seconds | peak memory, MiB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        clone = scratch(folder, epochs=1, small_epochs=0)
        for name in ("fetch", "preprocess", "train", "evaluate", "plot", None):
            command = ["dvc", "repro", "--quiet", *(["--single-item", name] if name else [])]
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, *command],
                cwd=clone,
                stdout=subprocess.PIPE,
                check=False,
            )
            if done.returncode:
                sys.exit(
                    f"error: {' '.join(command)} failed (its message is above): mend it and run again"
                )
            seconds, kilobytes = json.loads(done.stdout)
            print(f"| `{' '.join(command)}` | {seconds:.1f} | {kilobytes / 1024:,.0f} |")
    print()


def accuracy(options: argparse.Namespace) -> None:
    """Validation accuracy against seconds of training as the last commit has it, over seeds, and the test accuracy.

    Seconds count from the first line that train prints: reading the data and validation are in them, imports not.
    """
    runs, tests = [], []
    with tempfile.TemporaryDirectory() as folder:
        clone = scratch(folder)
        for name in ("fetch", "preprocess"):
            subprocess.run([sys.executable, "-m", f"stages.{name}"], cwd=clone, check=True)
        for seed in range(options.seeds):
            files.write_json(
                clone / "params.yaml", params.read(clone / "params.yaml") | {"seed": seed}
            )
            runs.append(train(clone))
            subprocess.run([sys.executable, "-m", "stages.evaluate"], cwd=clone, check=True)
            tests.append(files.read_json(clone / "metrics/test.json")["test"]["accuracy"])
    print("| epoch | seconds | validation accuracy, % |\n|---|---|---|")
    for number, rows in enumerate(zip(*runs, strict=True), start=1):
        print(
            f"| {number} | {spread([row[0] for row in rows])} | {percent([row[1] for row in rows])} |"
        )
    print(f"\ntest accuracy of the last epoch: {percent(tests)} %, n={len(tests)}: {tests}\n")


def train(clone: Path) -> list[tuple[float, float]]:
    """Seconds and validation accuracy at the end of each epoch."""
    command = [sys.executable, "-u", "-m", "stages.train"]
    start, rows = 0.0, []
    with subprocess.Popen(command, cwd=clone, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            start = start or time.perf_counter()
            if found := re.match(r"epoch \d+/.*validation loss \S+ accuracy (\S+)%;", line):
                rows.append((time.perf_counter() - start, float(found[1]) / 100))
    if process.returncode:
        sys.exit("error: training failed (its message is above): mend it and run again")
    return rows


def percent(shares: list[float]) -> str:
    """Mean and standard deviation in per cent; of one value no deviation."""
    mean = f"{100 * statistics.mean(shares):.2f}"
    return (
        mean
        if len(shares) == 1
        else f"{mean} (standard deviation {100 * statistics.stdev(shares):.2f})"
    )


if __name__ == "__main__":
    main()
