"""Published recipes, measured in full: one file in results/ for each run.

    python -m benchmarks recipes                  every published recipe without a result
    python -m benchmarks recipes convpool gap --seeds 0 1 2
    python -m benchmarks recipes sgd-cnn -S train.epochs=150
    python -m benchmarks recipes -S fetch.source=/path/to/archive -S fetch.sha256=SUM
    python -m benchmarks recipes gap --take FOLDER --commit COMMIT

What is missing runs, the cheapest first, with the code of one commit, in a folder of its own: edit
and commit meanwhile. Stopped in any way, even killed, the same command resumes from the last
checkpoint. A result is never overwritten. An experiment with a result of other code or another
torch is measured again only with --again, and the tables keep the two apart.

--take makes the result of a run by hand, with the stages. It reads train.json, test.json,
history.csv, model.json and, if there, seconds from a folder, and checks that parameters, data and
code are those of the recipe, the seed, the changes and the commit that are named.
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
    add("names", nargs="*", metavar="NAME", help="recipes (all the published ones)")
    add("--seeds", nargs="+", type=int, default=[0], help="a run for each (0)")
    add("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    add("--dry-run", action="store_true", help="list what would run, and run nothing")
    add("--again", action="store_true", help="also what other code or another torch measured")
    add("--commit", default="HEAD", help="the code to run (%(default)s)")
    add("--work", type=Path, default=work, help="the folder to work in (%(default)s)")
    add("--results", type=Path, default=results.FOLDER, help="where they are kept (%(default)s)")
    add("--note", default="", help="a remark for the results: what else the machine did")
    add("--take", type=Path, metavar="FOLDER", help="a finished run to make the result of")
    add("--machine", default=machine.processor(), help="where that was run (%(default)s)")


def run(options: argparse.Namespace) -> None:
    """Measure what is missing."""
    commit = workplace.resolve(options.commit)
    settings = Settings(
        commit, options.work, options.results, options.machine, options.note, options.take
    )
    with lock(options.work):
        workplace.check_out(options.work, commit)
        jobs = missing(options, plan(options, commit))
        if options.take and len(jobs) != 1:
            raise UserError(f"{len(jobs)} runs to take (--take): name one recipe and one seed")
        if len(jobs) > 1:
            jobs = cheapest_first(options.work, jobs)
        print(*[job.title for job in jobs] or ["nothing is missing"], sep="\n", flush=True)
        if not options.dry_run:
            measure_all(jobs, settings)


def measure_all(jobs: list[Job], settings: Settings) -> None:
    """Measure one after the other. One that fails, as without its data, does not stop the others.

    Raises:
        UserError: at the end, if any failed.
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
    """Keep a second runner out of the folder.

    Raises:
        UserError: there is one already, or the folder is not the runner's, which replaces files.
    """
    path = work / "lock"
    if not path.exists() and work.exists() and any(work.iterdir()):
        raise UserError(f"there are other files in {work} (--work): name a new or an empty folder")
    work.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(path).acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another runner works here ({work}): wait for it, or name another --work FOLDER"
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
    """The values that differ, as {'train.epochs': 150}, without those of data and hardware."""
    return {
        f"{section}.{key}": value
        for section in ("preprocess", "train")
        for key, value in after[section].items()
        if value != before[section].get(key) and f"{section}.{key}" not in HARDWARE
    }


def absolute(overrides: list[str]) -> list[str]:
    """The overrides, with a local source as an absolute path: the stages run in another folder."""
    key = "fetch.source="
    return [
        f"{key}{Path(item.removeprefix(key)).expanduser().resolve()}"
        if item.startswith(key) and "://" not in item
        else item
        for item in overrides
    ]


def missing(options: argparse.Namespace, jobs: list[Job]) -> list[Job]:
    """The jobs without a result; says of the others where it is."""
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
    """Whether a result is from the code of the job and from this torch."""
    return (result.code, result.versions.get("torch")) == (job.code, machine.torch())


def cheapest_first(work: Path, jobs: list[Job]) -> list[Job]:
    """The jobs by the floating-point operations of their trainings."""
    sections = {job.recipe: job.parameters["train"] for job in jobs}
    per_image = dict(zip(sections, workplace.flops(work, list(sections.values())), strict=True))

    def cost(job: Job) -> float:
        train = job.parameters["train"]
        return per_image[job.recipe] * train["epochs"] * train["ensemble"]

    return sorted(jobs, key=cost)
