"""Run airbench94_muon.py, from a clone of its own repository, on the images of `fetch`.

A copy of the script runs, with fewer repetitions and with our images where it looks for them. It
trains on all 50,000 training images; our default holds out a tenth of them for validation.
"""

import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.setup import Numbers, Part, Setup, Step
from benchmarks.gpu.trainings import make_data
from benchmarks.pipeline import percent, spread
from benchmarks.tables import markdown
from cifar import UserError, files

SCRIPT = "airbench94_muon.py"
RUNS = 20
REPETITIONS = "range(200)"
ENTRY = re.compile(r"\|\s*eval\s*\|(.+)\|")  # the last row of each run


def steps(setup: Setup) -> dict[str, Step]:
    """The step, or none without a clone."""
    if not (setup.airbench / SCRIPT).exists():
        return {}
    return {SCRIPT: partial(run, setup)}


def run(setup: Setup) -> Numbers:
    """Accuracy, without and with test-time augmentation, and seconds of each repetition.

    Raises:
        UserError: the script failed, or it is not the version that this was written for.
    """
    folder = setup.folder / "airbench"
    values = setup.parameters(folder)
    make_data(folder, values)
    write_images(folder)
    code = (setup.airbench / SCRIPT).read_text()
    if code.count(REPETITIONS) != 1:
        raise UserError(f"no {REPETITIONS} ({setup.airbench / SCRIPT}): use the published version")
    (folder / SCRIPT).write_text(code.replace(REPETITIONS, f"range({RUNS})"))
    done = subprocess.run(
        [sys.executable, SCRIPT], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{message} ({folder / SCRIPT}): fix the cause and run it again")
    shutil.rmtree(folder / "logs", ignore_errors=True)
    return read_output(done.stdout)


def write_images(folder: Path) -> None:
    """Write the files that the script would otherwise make from a download."""
    (folder / "cifar10").mkdir(exist_ok=True)
    classes = files.read_json(folder / "data/fetched/dataset.json")["classes"]
    for part in ("train", "test"):
        images, labels = (
            torch.from_numpy(files.read_array(folder / f"data/fetched/{part}_{name}.npy").copy())
            for name in ("images", "labels")
        )
        content = {"images": images, "labels": labels, "classes": classes}
        torch.save(content, folder / f"cifar10/{part}.pt")


def read_output(text: str) -> Numbers:
    """The numbers in the script's table, without its warm-up run."""
    rows = [[cell.strip() for cell in match.split("|")] for match in ENTRY.findall(text)]
    if len(rows) < 2:
        raise UserError(f"no table of runs in its output ({SCRIPT}): use the published version")
    numbers = [[float(cell) for cell in row if cell] for row in rows[1:]]
    return {
        "accuracies": [row[-3] for row in numbers],
        "tta_accuracies": [row[-2] for row in numbers],
        "seconds": [row[-1] for row in numbers],
    }


def table(rows: list[Numbers]) -> str:
    lines = [["script", "n", "seconds, with TTA", "test accuracy, %", "with TTA, %"]]
    for row in rows:
        accuracies = [percent(row[key]) for key in ("accuracies", "tta_accuracies")]
        seconds = spread(row["seconds"], digits=2)
        lines.append([f"`{SCRIPT}`", str(len(row["seconds"])), seconds, *accuracies])
    return markdown(lines)


AIRBENCH = Part("airbench94_muon, from its own repository", steps, table)
