"""Measure one run: run its stages, and make a result from their outputs."""

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import results, workplace
from benchmarks.results import Changes, Images, Result
from cifar import UserError, files

# Parameters that control how a result is computed, and hardly change it.
HARDWARE = {"train.device", "train.threads", "train.processes", "train.load", "train.compile"}
TRAINED = [name for stage in ("train", "evaluate") for name in workplace.OUTPUTS[stage]]


@dataclass(frozen=True)
class Settings:
    """Settings that all runs of one call have in common."""

    commit: str
    work: Path
    results: Path
    machine: str
    note: str
    take: Path | None


@dataclass(frozen=True)
class Job:
    """A run to measure; `parameters` is a complete params.yaml."""

    recipe: str
    changes: Changes
    seed: int
    parameters: dict[str, Any]
    code: str

    @property
    def title(self) -> str:
        changed = "".join(f", {key}={value}" for key, value in self.changes.items())
        return f"{self.recipe}{changed}, seed {self.seed}"


def measure(job: Job, settings: Settings) -> None:
    """Run the stages of a job, or import the outputs of a finished run, and store the result."""
    work = settings.work
    begun = workplace.begin(work, asdict(job))
    for stage in ("fetch", "preprocess"):
        workplace.run_stage(work, stage)
    images = identify(work, job)
    results.check_images(results.read_all(settings.results), job.recipe, images)
    if settings.take:
        take(settings.take, work, job, settings.commit)
        seconds = seconds_of(settings.take)
    else:
        start = time.monotonic()
        for stage in ("train", "evaluate"):
            workplace.run_stage(work, stage)
        seconds = None if begun else round(time.monotonic() - start, 1)
    result = collect(job, images, settings, seconds)
    path = results.write(result, settings.results)
    interval = f"95 % interval {result.accuracy_low:.2%} to {result.accuracy_high:.2%}"
    print(f"{job.title}: {result.accuracy:.2%} ({interval}), {path}", flush=True)


def identify(work: Path, job: Job) -> Images:
    """Identify the images of a job: checksums of the test arrays, and the size of each part."""
    processed = work / "data/processed"
    sums = {name: files.sha256(processed / f"test/{name}.npy") for name in ("images", "labels")}
    counts = {
        f"{part}_images": len(files.read_array(processed / part / "labels.npy"))
        for part in ("train", "val", "test")
    }
    fetch = job.parameters["fetch"]
    return Images(name=fetch["dataset"], archive_sha256=fetch["sha256"], test_sha256=sums, **counts)


def collect(job: Job, images: Images, settings: Settings, seconds: float | None) -> Result:
    """Make the result of a job from the outputs of its stages."""
    test = files.read_json(settings.work / "metrics/test.json")["test"]
    provenance = read_provenance(settings.work / "models/model.json")
    mode = job.parameters["train"]["compile"]
    history = read_history(settings.work / "plots/history.csv")
    return Result(
        recipe=job.recipe,
        changes=job.changes,
        seed=job.seed,
        **{key: test[key] for key in ("accuracy", "accuracy_low", "accuracy_high", "loss")},
        epochs=int(max(row["epoch"] for row in history)),
        epochs_published=results.published_epochs(job.recipe, job.changes),
        seconds=seconds,
        threads=provenance["threads"],
        device=provenance["device"] + ("" if mode == "none" else f", {mode}"),
        machine=settings.machine,
        note=settings.note,
        versions=provenance["versions"],
        commit=settings.commit,
        code=job.code,
        dataset=images,
        history=history,
    )


def read_provenance(path: Path) -> dict[str, Any]:
    """The provenance of a model: its parameters, data, code, versions, device and threads."""
    content = files.read_json(path)
    if "made_by" in content:  # before format 2 of the model file
        return content["made_by"]
    return content["model"]["provenance"] | {"code": content["code"]}


def read_history(path: Path) -> list[dict[str, int | float]]:
    """Read plots/history.csv: a row for each epoch."""
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    return [
        {name: json.loads(cell) for name, cell in zip(header, row, strict=True)} for row in rows
    ]


def take(source: Path, work: Path, job: Job, commit: str) -> None:
    """Copy the outputs of a finished run: train.json, test.json, history.csv and model.json.

    Its parameters, data and code must be those of the job.

    Raises:
        UserError: a file is missing, or the run does not match the job.
    """
    for name in TRAINED:
        if not (source / Path(name).name).exists():
            raise UserError(f"no {Path(name).name} ({source}): finish the run first")
    provenance = read_provenance(source / "model.json")
    check_parameters(provenance["parameters"], job, source)
    for path, sha256 in provenance["data"].items():
        if files.sha256(work / path) != sha256:
            problem = f"the run was trained on a different {path}"
            raise UserError(f"{problem} ({source}): pass its data with -S fetch.…")
    for path, blob in provenance["code"].items():
        if workplace.git("rev-parse", f"{commit}:{path}") != blob:
            problem = f"the run was trained with a different {path}"
            raise UserError(f"{problem} ({source}): pass its commit with --commit")
    for name in TRAINED:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / Path(name).name, work / name)


def check_parameters(trained: dict[str, Any], job: Job, source: Path) -> None:
    """Check that a run was trained with the parameters of the job."""
    expected = job.parameters["train"] | {"seed": job.seed}
    for key, value in (trained["train"] | {"seed": trained["seed"]}).items():
        if f"train.{key}" not in HARDWARE and value != expected.get(key):
            raise UserError(
                f"{key} is {value} in the run and {expected.get(key)} in {job.title} ({source}): "
                "pass the recipe, seed and changes of the run"
            )


def seconds_of(source: Path) -> float | None:
    path = source / "seconds"
    return float(path.read_text()) if path.exists() else None
