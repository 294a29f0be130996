"""Run the five stages one after the other, without DVC."""

import sys
from functools import partial

from benchmarks import pipeline
from benchmarks.gpu.setup import Numbers, Part, Setup, Step
from benchmarks.tables import markdown
from cifar import files

STAGES = ["fetch", "preprocess", "train", "evaluate", "plot"]


def steps(setup: Setup) -> dict[str, Step]:
    return {stage: partial(run, setup, stage) for stage in STAGES}


def run(setup: Setup, stage: str) -> Numbers:
    """Run one stage of the default with two epochs, one of them on small images."""
    folder = setup.folder / "smoke"
    setup.parameters(folder, epochs=2, small_epochs=1)
    seconds, kilobytes = pipeline.measure([sys.executable, "-m", f"stages.{stage}"], folder)
    numbers = {"stage": stage, "seconds": seconds, "kilobytes": kilobytes}
    if stage == "evaluate":
        numbers["accuracy"] = files.read_json(folder / "metrics/test.json")["test"]["accuracy"]
    return numbers


def table(rows: list[Numbers]) -> str:
    lines = [["stage", "seconds", "peak memory of the host, MiB", "test accuracy, %"]]
    for row in rows:
        accuracy = f"{100 * row['accuracy']:.2f}" if "accuracy" in row else ""
        memory = f"{row['kilobytes'] / 1024:,.0f}"
        lines.append([row["stage"], f"{row['seconds']:.1f}", memory, accuracy])
    return markdown(lines)


SMOKE = Part("the five stages, two epochs", steps, table)
