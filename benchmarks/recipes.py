"""Measure published recipes in full: one file in results/ for each run.

    python -m benchmarks recipes                  every published recipe without a result
    python -m benchmarks recipes convpool gap --seeds 0 1 2
    python -m benchmarks recipes sgd-cnn -S train.epochs=150
    python -m benchmarks recipes -S fetch.source=/path/to/archive -S fetch.sha256=SUM
    python -m benchmarks recipes gap --take FOLDER --commit COMMIT

Runs every missing result, cheapest first, in a checkout of one commit, so you can keep editing. If
interrupted or killed, run the same command again: it resumes from the last checkpoint. Results are
never overwritten. A run that has been measured with other code or another torch is measured again
only with --again, and the tables keep both apart.

--take makes a result from a run of the stages that you have finished by hand. It reads train.json,
test.json, history.csv, model.json and, if it exists, seconds from a folder, and checks that
parameters, data and code match the recipe, seed, changes and commit on the command line.
"""

import argparse
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from benchmarks import machine, results, workplace
from benchmarks.measure import HARDWARE, Job, Settings, measure
from benchmarks.results import Changes, Result
from cifar import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, work = parser.add_argument, Path("runs/recipes")
    default = "(default: %(default)s)"
    add("names", nargs="*", metavar="NAME", help="recipes (default: all published ones)")
    add("--seeds", nargs="+", type=int, default=[0], help="one run for each seed (default: 0)")
    add("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="a value to use instead of the recipe's")  # fmt: skip
    add("--dry-run", action="store_true", help="list what would run, and run nothing")
    add("--again", action="store_true", help="repeat runs measured with other code or torch")
    add("--commit", default="HEAD", help=f"the code to run {default}")
    add("--work", type=Path, default=work, help=f"the folder to work in {default}")
    add("--results", type=Path, default=results.FOLDER, help=f"the folder of results {default}")
    add("--note", default="", help="a remark for the results, such as what else was running")
    add("--take", type=Path, metavar="FOLDER", help="make a result from this finished run")
    add("--machine", default=machine.processor(), help=f"the machine of that run {default}")


def run(options: argparse.Namespace) -> None:
    """Measure every missing result."""
    commit = workplace.resolve(options.commit)
    settings = Settings(
        commit, options.work, options.results, options.machine, options.note, options.take
    )
    with lock(options.work):
        workplace.check_out(options.work, commit)
        jobs = missing(options, plan(options, commit))
        if options.take and len(jobs) != 1:
            raise UserError(f"{len(jobs)} runs to take (--take): pass one recipe and one seed")
        if len(jobs) > 1:
            jobs = cheapest_first(options.work, jobs)
        print(*[job.title for job in jobs] or ["nothing is missing"], sep="\n", flush=True)
        if not options.dry_run:
            measure_all(jobs, settings)


def measure_all(jobs: list[Job], settings: Settings) -> None:
    """Measure the jobs one after the other. If one fails, the others still run.

    Raises:
        UserError: some jobs failed; raised after all were tried.
    """
    failed = []
    for job in jobs:
        try:
            measure(job, settings)
        except UserError as error:
            print(f"{job.title}: {error}", file=sys.stderr, flush=True)
            failed.append(job.title)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(jobs)} runs failed (messages above): "
            "fix the causes and run the same command again"
        )


def lock(work: Path) -> AbstractContextManager[Any]:
    """Lock the folder against a second runner.

    Raises:
        UserError: another runner uses the folder, or it has files that a runner could overwrite.
    """
    path = work / "lock"
    if not path.exists() and work.exists() and any(work.iterdir()):
        raise UserError(f"{work} has other files (--work): choose a new or an empty folder")
    work.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(path).acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another runner is using the folder ({work}): wait until it ends, or choose another "
            "folder with --work"
        ) from None


def plan(options: argparse.Namespace, commit: str) -> list[Job]:
    """A job for each recipe and seed."""
    jobs = []
    for name in options.names or results.read_published():
        recipe = workplace.apply(options.work, commit, name, [])
        values = recipe
        if options.overrides:
            values = workplace.apply(options.work, commit, name, absolute(options.overrides))
        changes = differences(recipe, values)
        code = workplace.code(options.work, values["train"]["model"])
        for seed in options.seeds:
            jobs.append(Job(name, changes, seed, values | {"seed": seed}, code))
    return jobs


def differences(before: dict[str, Any], after: dict[str, Any]) -> Changes:
    """The values that differ, like {'train.epochs': 150}, except those of data and hardware."""
    return {
        f"{section}.{key}": value
        for section in ("preprocess", "train")
        for key, value in after[section].items()
        if value != before[section].get(key) and f"{section}.{key}" not in HARDWARE
    }


def absolute(overrides: list[str]) -> list[str]:
    """The overrides, with an absolute path for a local source: stages run in another folder."""
    key = "fetch.source="
    return [
        f"{key}{Path(item.removeprefix(key)).expanduser().resolve()}"
        if item.startswith(key) and "://" not in item
        else item
        for item in overrides
    ]


def missing(options: argparse.Namespace, jobs: list[Job]) -> list[Job]:
    """The jobs without a result; for the others, prints the file with their result."""
    known, remaining = results.read_all(options.results), []
    for job in jobs:
        matches = results.find(known, job.recipe, job.changes, job.seed)
        current = [result for result in matches if is_current(result, job)]
        if current:
            print(f"{job.title}: measured ({current[0].filename})")
        elif matches and not (options.again or options.take):
            print(f"{job.title}: measured with other code ({matches[0].filename}); see --again")
        else:
            remaining.append(job)
    return remaining


def is_current(result: Result, job: Job) -> bool:
    """Whether a result was made by the code of the job and by the installed torch."""
    return (result.code, result.versions.get("torch")) == (job.code, machine.torch())


def cheapest_first(work: Path, jobs: list[Job]) -> list[Job]:
    """Sort the jobs by the floating-point operations of their trainings."""
    sections = {job.recipe: job.parameters["train"] for job in jobs}
    per_image = dict(zip(sections, workplace.flops(work, list(sections.values())), strict=True))

    def cost(job: Job) -> float:
        train = job.parameters["train"]
        return per_image[job.recipe] * train["epochs"] * train["ensemble"]

    return sorted(jobs, key=cost)
