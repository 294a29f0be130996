"""Measure peak memory and speed of each stage on many pictures, which are generated first.

For comparison, it also measures `cp` of the archive, a bare loop that decodes and writes in one
process per core, and `dvc commit`. Memory is RssAnon of a command and its children, read every
50 ms, which excludes memory maps. The time that the command takes with `--help` is subtracted.
1,000 pictures of 224 pixels need 0.6 GB of disk.
"""

import argparse
import io
import os
import re
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks import busy, machine, pipeline, workplace
from benchmarks.tables import markdown
from cifar import UserError, files, params

INTERVAL = 0.05  # seconds between two readings of the memory
NOISE = 15.0  # standard deviation, of 256 levels: with QUALITY, 20 kB at 224 pixels
QUALITY = 90
TRAIN = {"width": 4, "batch_size": 32, "epochs": 1, "small_epochs": 0, "load": "disk"}
RUNS = 64  # parts of the bare loop, distributed among its processes
COPY = 'cp --reflink=never "$1" "$2" && sync "$2"'


class Step(NamedTuple):
    """The measurements of one command."""

    name: str
    images: int  # that it processed
    seconds: float
    megabytes: float
    others: float  # threads of other programs that were running just before


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "numbers of pictures (default: %(default)s)"
    add("--images", type=int, nargs="+", default=[20_000, 60_000], help=text)
    add("--side", type=int, default=224, help="pixels per side (default: %(default)s)")
    add("--data-only", action="store_true", help="omit train, evaluate and plot")


def run(options: argparse.Namespace) -> None:
    """Print a table with a row for each step at each size."""
    print(f"{machine.describe()}\n")
    rows = [["pictures", "step", "seconds", "images/s", "peak memory, MB", "other threads"]]
    for count in options.images:
        with tempfile.TemporaryDirectory() as folder:
            for step in measure_all(Path(folder), count, options):
                rows.append([f"{count:,}", *cells(step)])
                print(*rows[-1], file=sys.stderr)
    print(markdown(rows))


def cells(step: Step) -> list[str]:
    speed = f"{step.images / step.seconds:,.0f}"
    return [step.name, f"{step.seconds:.1f}", speed, f"{step.megabytes:,.0f}", f"{step.others:g}"]


def measure_all(folder: Path, count: int, options: argparse.Namespace) -> Iterator[Step]:
    """Measure the stages, and what they are compared with, on this many pictures."""
    tar = folder / "pictures.tar"
    write_tar(tar, count, options.side)
    clone = prepare(folder, tar, options.side)
    yield from measure_data(clone, tar, count, options.side)
    if not options.data_only:
        yield from measure_training(clone, count)


def measure_data(clone: Path, tar: Path, count: int, side: int) -> Iterator[Step]:
    """Measure `fetch` and `preprocess`, a copy and the bare loop, and `dvc commit`."""
    copy = tar.with_name("copy")
    yield measure("cp and sync", count, ["sh", "-c", COPY, "sh", str(tar), str(copy)])
    copy.unlink()
    yield measure("fetch", count, stage("fetch"), clone)
    bare = [sys.executable, "-m", "benchmarks.memory", str(tar), str(copy), str(side)]
    yield measure("bare loop", count, bare)
    copy.unlink()
    yield measure("preprocess", count, stage("preprocess"), clone)
    for name in ("fetch", "preprocess"):
        command = ["dvc", "commit", "--quiet", "--force", name]
        yield measure(f"dvc commit {name}", count, command, clone)


def measure_training(clone: Path, count: int) -> Iterator[Step]:
    """Measure the training of one epoch, and the stages after it."""
    labels = (clone / f"data/processed/{part}/labels.npy" for part in ("train", "test"))
    trained, tested = (len(files.read_array(path)) for path in labels)
    yield measure("train, with validation", trained, stage("train"), clone)
    yield measure("evaluate", tested, stage("evaluate"), clone)
    yield measure("plot", count, stage("plot"), clone)


def stage(name: str) -> list[str]:
    return [sys.executable, "-m", f"stages.{name}"]


def pictures(count: int, side: int) -> Iterator[tuple[str, bytes]]:
    """Yield names in class folders and JPEG contents: enlarged digits with noise, no two equal."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(0)
    noise = rng.normal(0, NOISE, (4 * side, 4 * side, 3)).astype(np.int16)
    for i in range(count):
        digit = Image.fromarray((digits.images[i % len(digits.images)] * 15).astype(np.uint8))
        y, x = rng.integers(0, 3 * side, 2)
        pixels = np.asarray(digit.resize((side, side)), np.int16)[..., None]
        pixels = (pixels + noise[y : y + side, x : x + side]).clip(0, 255).astype(np.uint8)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "JPEG", quality=QUALITY)
        yield f"{digits.target[i % len(digits.target)]}/{i}.jpg", content.getvalue()


def write_tar(path: Path, count: int, side: int) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in pictures(count, side):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def members(tar: Path) -> list[tuple[int, int]]:
    """Offset and size of each member, sorted by name."""
    with tarfile.open(tar, "r:") as opened:
        infos = sorted(opened.getmembers(), key=lambda info: info.name)
    return [(info.offset_data, info.size) for info in infos]


def prepare(folder: Path, tar: Path, side: int) -> Path:
    """A clone of the last commit whose data are the pictures."""
    clone = pipeline.scratch(str(folder), **TRAIN)
    values = params.read(clone / "params.yaml")
    values["fetch"] |= {"dataset": "images", "source": str(tar), "sha256": None}
    values["preprocess"]["image_size"] = side
    files.write_json(clone / "params.yaml", values)
    return clone


def measure(name: str, images: int, command: list[str], folder: Path = Path()) -> Step:
    """Measure a command without its start-up time, which is that of the command with --help."""
    others = busy.others_running()
    start = 0.0 if command[0] == "sh" else watch([*command, "--help"], folder)[0]
    seconds, kilobytes = watch(command, folder)
    return Step(name, images, max(seconds - start, INTERVAL), kilobytes * 1024 / 1e6, others)


def watch(command: list[str], folder: Path) -> tuple[float, int]:
    """Seconds and peak memory (KiB) of a command and its children.

    Raises:
        UserError: the command failed.
    """
    start = time.perf_counter()
    peak = 0
    with Popen(command, cwd=folder, env=workplace.environment(), stdout=DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, anonymous(process.pid))
            time.sleep(INTERVAL)
    if process.returncode:
        raise UserError(f"{' '.join(command)} failed (its message is above): fix it and run again")
    return time.perf_counter() - start, peak


def anonymous(pid: int) -> int:
    """RssAnon of a process and its descendants, in KiB; processes that have ended count as 0."""
    try:
        match = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        children = [int(child) for task in tasks for child in task.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(match[1]) if match else 0) + sum(map(anonymous, children))


def decode(tar: Path, out: Path, side: int, first: int, members: list[tuple[int, int]]) -> None:
    """Write the pixels of some pictures, starting at the position `first`."""
    with tar.open("rb") as source, out.open("r+b") as target:
        target.seek(first * side * side * 3)
        for offset, size in members:
            content = io.BytesIO(os.pread(source.fileno(), size, offset))
            image = Image.open(content).convert("RGB").resize((side, side))
            target.write(image.tobytes())


def serve() -> None:
    """Run the bare loop: write the pixels of all pictures in a tar to one file."""
    if "--help" in sys.argv:
        return
    tar, out = map(Path, sys.argv[1:3])
    side = int(sys.argv[3])
    listed = members(tar)
    step = -(-len(listed) // RUNS)
    parts = [(i, listed[i : i + step]) for i in range(0, len(listed), step)]
    with out.open("wb") as file, Pool(os.cpu_count()) as pool:
        pool.starmap(partial(decode, tar, out, side), parts, chunksize=1)
        os.fsync(file.fileno())


if __name__ == "__main__":
    serve()
