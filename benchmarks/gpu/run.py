"""Run the parts one after the other, until the time is up."""

import argparse
import re
import time
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.gpu import airbench, loops, recipes, smoke, trainings
from benchmarks.gpu.progress import Progress, TimeUpError, time_limit
from benchmarks.gpu.setup import Part, Setup, Step
from cifar import UserError, files, yaml12
from cifar.stage import plural

# The most valuable first.
PARTS = {
    "smoke": smoke.SMOKE,
    "speed": loops.SPEED,
    "graphs": loops.GRAPHS,
    "accuracy": trainings.ACCURACY,
    "agreement": trainings.AGREEMENT,
    "bytes": trainings.BYTES,
    "precision": loops.PRECISION,
    "airbench": airbench.AIRBENCH,
    "recipes": recipes.RECIPES,
}


def run(options: argparse.Namespace) -> None:
    """Run the missing steps until the time is up.

    Raises:
        UserError: the time is up, or steps failed.
    """
    if options.list:
        print(*[f"{name:<11}{part.about}" for name, part in PARTS.items()], sep="\n")
        return
    setup = make_setup(options)
    progress = Progress(setup.folder / "results.json", machine.describe())
    print(f"{machine.describe()}\n{setup.folder}", flush=True)
    chosen = {name: PARTS[name] for name in options.parts or PARTS}
    try:
        with time_limit(options.minutes):
            measure(chosen, setup, progress)
    except TimeUpError:
        raise UserError(
            f"{options.minutes:g} minutes are over ({setup.folder}): "
            "run the same command again to continue"
        ) from None
    if failures := progress.failures():
        raise UserError(
            f"{plural(len(failures), 'step')} failed ({setup.folder}/results.md): "
            "fix the causes and run the same command again"
        )


def make_setup(options: argparse.Namespace) -> Setup:
    """The setup from the command line, for the GPU of this machine.

    Raises:
        UserError: a part is unknown, there is no GPU, or an option is not fetch.KEY=VALUE.
    """
    if unknown := [name for name in options.parts if name not in PARTS]:
        raise UserError(f"no part {unknown[0]} (command line): choose from {', '.join(PARTS)}")
    card = "cpu"
    if options.device == "cuda":
        if not torch.cuda.is_available():
            raise UserError("no GPU (--device): try it without one by `--device cpu --tiny`")
        card = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
    data = {}
    for text in options.overrides:
        key, separator, value = text.partition("=")
        if not separator or not re.fullmatch(r"fetch\.\w+", key):
            raise UserError(f"invalid parameter {key} (-S): write -S fetch.KEY=VALUE")
        data[key] = yaml12.loads(value, key)
    if "://" not in str(data.get("fetch.source") or "://"):
        data["fetch.source"] = str(Path(data["fetch.source"]).resolve())
    return Setup(options.device, options.tiny, options.out / card, data, options.airbench)


def measure(parts: dict[str, Part], setup: Setup, progress: Progress) -> None:
    """Run all steps that are not done: the untried ones, then those that failed earlier."""
    earlier = progress.failures()
    for again in [False, True] if earlier else [False]:
        for name, part in parts.items():
            for key, step in part.steps(setup).items():
                if key in progress.done(name):
                    continue
                if key not in progress.failed(name) or (again and (name, key) in earlier):
                    attempt(name, key, step, progress)
                    report(progress, setup.folder / "results.md")


def attempt(part: str, key: str, step: Step, progress: Progress) -> None:
    """Run one step, and record its numbers or its error."""
    start = time.monotonic()
    try:
        progress.finish(part, key, step())
        outcome = f"{time.monotonic() - start:.0f} s"
    except (UserError, OSError, LookupError, ValueError) as error:
        outcome = f"failed, {type(error).__name__}: {error}".replace("UserError: ", "")
        progress.fail(part, key, outcome)
    print(f"{part}: {key}: {outcome}", flush=True)


def report(progress: Progress, path: Path) -> None:
    """Write the tables of all finished steps, and the errors of failed ones."""
    sections = [f"# {progress.content['machine']}"]
    for name, part in PARTS.items():
        done = list(progress.done(name).values())
        failed = [f"- {step}: {text}" for step, text in progress.failed(name).items()]
        if done or failed:
            table = part.table(done) if done else ""
            sections.append("\n\n".join([f"## {part.about}", table, "\n".join(failed)]).strip())
    files.write_bytes(path, ("\n\n".join(sections) + "\n").encode())
