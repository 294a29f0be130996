"""Measure the published recipes in full, the cheapest first, with the code of the runner.

Each result is a file like those in results/, in the folder `recipes` beside the tables.
"""

from functools import partial

from benchmarks import machine, results, workplace
from benchmarks.gpu.setup import Numbers, Part, Setup, Step
from benchmarks.measure import Job, Settings, measure
from benchmarks.recipes import cheapest_first
from benchmarks.tables import markdown
from cifar import UserError


def steps(setup: Setup) -> dict[str, Step]:
    folder = setup.folder / "recipes-work"
    jobs = []
    for name in setup.limit(results.read_published()):
        values = setup.parameters(folder, name) | {"seed": 0}
        code = workplace.code(folder, values["train"]["model"])
        jobs.append(Job(name, {}, 0, values, code))
    return {job.recipe: partial(run, setup, job) for job in cheapest_first(folder, jobs)}


def run(setup: Setup, job: Job) -> Numbers:
    """Measure one recipe, and read its result from the file."""
    folder = setup.folder / "recipes"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        commit = workplace.resolve("HEAD")
    except (UserError, OSError):  # a copy of the files, without Git
        commit = ""
    work = setup.folder / "recipes-work"
    measure(job, Settings(commit, work, folder, machine.processor(), "", None))
    (result,) = results.find(results.read_all(folder), job.recipe, {}, 0)
    published = results.read_published()[job.recipe]["accuracy"]
    return {"published": published} | result.model_dump(exclude={"dataset", "history"})


def table(rows: list[Numbers]) -> str:
    lines = [["recipe", "published, %", "here, %", "95 % interval", "epochs", "minutes"]]
    for row in rows:
        low, high = 100 * row["accuracy_low"], 100 * row["accuracy_high"]
        lines.append(
            [
                f"`{row['recipe']}`",
                f"{100 * row['published']:.2f}",
                f"{100 * row['accuracy']:.2f}",
                f"{low:.2f} to {high:.2f}",
                str(row["epochs"]),
                f"{row['seconds'] / 60:.1f}" if row["seconds"] else "",
            ]
        )
    return markdown(lines)


RECIPES = Part("published recipes in full", steps, table)
