"""Measure images per second and peak memory of the training loop."""

import statistics
from functools import partial
from typing import Any

from benchmarks import speed
from benchmarks.gpu.setup import Numbers, Part, Setup, Step
from benchmarks.loops import CASES
from benchmarks.tables import markdown

ROUNDS = 2
SECONDS = 3.0  # of each measurement, after its warm-up
DEFAULT = "params.yaml, whole pictures"
BATCHES = [64, 128, 500, 2000]
MODES = ["none", "default", "reduce-overhead"]


def measure(setup: Setup, loop: str, case: str, **train: Any) -> Numbers:
    """Measure one loop in a process of its own; the result names the loop and the case."""
    if setup.tiny:
        train |= {"batch_size": 8}
    seconds = 0.1 if setup.tiny else SECONDS
    numbers = speed.measure(loop, case, seconds, device=setup.device, **train)
    return {"loop": loop, "case": case, **train, **numbers}


def speed_steps(setup: Setup) -> dict[str, Step]:
    return {
        f"{case}, {loop}, round {number}": partial(measure, setup, loop, case)
        for number in setup.limit(range(1, ROUNDS + 1))
        for case in setup.limit(CASES)
        for loop in speed.LOOPS
    }


def speed_table(rows: list[Numbers]) -> str:
    """The Markdown tables of the loops' speeds, and of our loop's TFLOP/s and memory."""
    speeds: speed.Speeds = {}
    for row in rows:
        speeds.setdefault((row["case"], row["loop"]), []).append(row["images_per_second"])
    cases = [c for c in CASES if all((c, loop) in speeds for loop in speed.LOOPS)]
    complete = {key: values for key, values in speeds.items() if key[0] in cases}
    lines = [["ours", "TFLOP/s", "peak memory of the GPU, GiB"]]
    for case in cases:
        (flops, peak), *_ = [
            (row["flops_per_image"], row.get("peak_bytes"))
            for row in rows
            if (row["case"], row["loop"]) == (case, "ours")
        ]
        rate = statistics.median(complete[case, "ours"]) * flops / 1e12
        lines.append([case, f"{rate:.3g}", f"{peak / 2**30:.2f}" if peak else ""])
    return f"{speed.table(complete)}\n\n{markdown(lines)}"


def graph_steps(setup: Setup) -> dict[str, Step]:
    return {
        f"batch {batch}, {mode}": partial(
            measure, setup, "ours", DEFAULT, batch_size=batch, compile=mode
        )
        for batch in setup.limit(BATCHES)
        for mode in (["none", "reduce-overhead"] if setup.tiny else MODES)
    }


def precision_steps(setup: Setup) -> dict[str, Step]:
    return {
        f"{case}, {precision}": partial(measure, setup, "ours", case, precision=precision)
        for case in setup.limit(CASES)
        for precision in ("bf16", "fp32")
    }


def pivot(row_key: str, column_key: str, rows: list[Numbers]) -> str:
    """The Markdown table of images per second by two of the values that vary."""
    speeds = {(row[row_key], row[column_key]): row["images_per_second"] for row in rows}
    columns = list(dict.fromkeys(column for _, column in speeds))
    lines = [[f"images/s, {row_key}", *(f"{column_key}: {column}" for column in columns)]]
    for name in dict.fromkeys(name for name, _ in speeds):
        cells = [speeds.get((name, column)) for column in columns]
        lines.append([str(name), *(f"{cell:,.0f}" if cell else "" for cell in cells)])
    return markdown(lines)


SPEED = Part("the training loop, a conventional one and the limit", speed_steps, speed_table)
GRAPHS = Part(
    "torch.compile and CUDA graphs (reduce-overhead), the default's network",
    graph_steps,
    partial(pivot, "batch_size", "compile"),
)
PRECISION = Part("bf16 and fp32", precision_steps, partial(pivot, "case", "precision"))
