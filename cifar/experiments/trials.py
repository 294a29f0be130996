"""Run a training as a DVC experiment, follow it epoch by epoch, and stop it if it is hopeless."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from cifar import UserError
from cifar.experiments import progress, table

LOOK = 0.2  # seconds between two checks of a running training
EPOCH = (
    "{name}: epoch {epoch}/{epochs}: train loss {train_loss:.3f}, accuracy {train_accuracy:.2%}; "
    "validation loss {val_loss:.3f}, accuracy {val_accuracy:.2%}"
)

Row = dict[str, Any]  # an epoch, as cifar/training/progress.py writes it


def train(
    name: str, values: dict[str, Any], hopeless: Callable[[Row], bool], lock: int
) -> float | None:
    """Train as the experiment `name`, in a copy of the repository: the workspace does not change.

    Args:
        values: parameters, like {"train.lr": 0.1}.
        hopeless: called with each epoch; returns whether to stop after it.
        lock: a file descriptor that the training inherits; its process id is written there.

    Returns:
        The validation accuracy, or None if the training was stopped early or diverged.

    Raises:
        UserError: the training failed.
    """
    sets = [f"--set-param={key}={json.dumps(value)}" for key, value in values.items()]
    command = ["dvc", "exp", "run", "--temp", "--name", name, *sets, "train"]
    progress.path_of(name).unlink(missing_ok=True)  # left by an earlier experiment
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        # In a session of its own, so that Ctrl-C reaches it only through `interrupt`.
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lock],
        )
        os.ftruncate(lock, 0)
        os.write(lock, f"{process.pid}\n".encode())
        stopped = watch(process, name, hopeless)
        output.seek(0)
        lines = [line.strip() for line in output if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error: ")]
    if stopped or any("loss is not finite" in line for line in errors):
        return None
    if process.returncode:
        what = f"{problem(errors, lines)} (experiment {name})"
        raise UserError(f"{what}: fix the cause and run the same command again")
    return accuracy_of(name)


def watch(process: subprocess.Popen, name: str, hopeless: Callable[[Row], bool]) -> bool:
    """Print the epochs of a training until it ends, and interrupt it after a hopeless one.

    Returns:
        Whether it was stopped early.
    """
    epochs = progress.Epochs(progress.path_of(name))
    stopped = False
    try:
        running = True
        while running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK)
            running = process.returncode is None  # there may be rows to read after it has ended
            for row in epochs.new():
                print(EPOCH.format(name=name, **row), flush=True)
                if not stopped and hopeless(row):
                    stopped = True
                    interrupt(process)
    except BaseException:
        interrupt(process)
        process.wait()  # until it has cleaned up
        raise
    return stopped


def interrupt(process: subprocess.Popen) -> None:
    """Send Ctrl-C to dvc and its training, if they are still running."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)


def problem(errors: Sequence[str], lines: Sequence[str]) -> str:
    """The first error that dvc printed, without its label; else the last line."""
    return errors[0].partition(": ")[2] if errors else (lines or ["no message"])[-1]


def accuracy_of(name: str) -> float:
    """The validation accuracy of an experiment that started from the last commit."""
    head = table.run("git", "rev-parse", "HEAD").strip()
    reference = f"refs/exps/{head[:2]}/{head[2:]}/{name}"
    metrics = json.loads(table.run("git", "show", f"{reference}:./metrics/train.json"))
    return float(metrics["val"]["accuracy"])
