"""One run: its stages, and the result that is made of their outputs."""

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import results, workplace
from benchmarks.results import Changes, Images, Result
from cifar import UserError, files

# Parameters that say how a result is computed, and hardly change it.
HARDWARE = {"train.device", "train.threads", "train.processes", "train.load", "train.compile"}
TRAINED = [name for stage in ("train", "evaluate") for name in workplace.OUTPUTS[stage]]


@dataclass(frozen=True)
class Settings:
    """What all runs of one call have in common."""

    commit: str
    work: Path
    results: Path
    machine: str
    note: str
    take: Path | None


@dataclass(frozen=True)
class Job:
    """One run to measure: `parameters` is a whole params.yaml."""

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
    """Run the stages of a job, or take the outputs of a run by hand, and store the result."""
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
    """Which images these are: the sums of the test arrays, and how many each part has."""
    processed = work / "data/processed"
    sums = {name: files.sha256(processed / f"test/{name}.npy") for name in ("images", "labels")}
    counts = {
        f"{part}_images": len(files.read_array(processed / part / "labels.npy"))
        for part in ("train", "val", "test")
    }
    fetch = job.parameters["fetch"]
    return Images(name=fetch["dataset"], archive_sha256=fetch["sha256"], test_sha256=sums, **counts)


def collect(job: Job, images: Images, settings: Settings, seconds: float | None) -> Result:
    """The result of a job from the outputs of its stages."""
    test = files.read_json(settings.work / "metrics/test.json")["test"]
    origin = read_origin(settings.work / "models/model.json")
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
        threads=origin["threads"],
        device=origin["device"] + ("" if mode == "none" else f", {mode}"),
        machine=settings.machine,
        note=settings.note,
        versions=origin["versions"],
        commit=settings.commit,
        code=job.code,
        dataset=images,
        history=history,
    )


def read_origin(path: Path) -> dict[str, Any]:
    """What made a model: its parameters, data, code, versions, device and threads."""
    content = files.read_json(path)
    if "made_by" in content:  # of a commit before the model file's format 2
        return content["made_by"]
    return content["model"]["provenance"] | {"code": content["code"]}


def read_history(path: Path) -> list[dict[str, int | float]]:
    """plots/history.csv, a row for each epoch."""
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    return [
        {name: json.loads(cell) for name, cell in zip(header, row, strict=True)} for row in rows
    ]


def take(source: Path, work: Path, job: Job, commit: str) -> None:
    """Copy the outputs of a run by hand: train.json, test.json, history.csv and model.json.

    It counts only if its parameters, data and code are those of the job.

    Raises:
        UserError: a file is missing, or the run is another one.
    """
    for name in TRAINED:
        if not (source / Path(name).name).exists():
            raise UserError(f"no {Path(name).name} ({source}): finish the run first")
    origin = read_origin(source / "model.json")
    check_parameters(origin["parameters"], job, source)
    for path, known in origin["data"].items():
        if files.sha256(work / path) != known:
            raise UserError(f"trained on another {path} ({source}): name its data with -S fetch.…")
    for path, blob in origin["code"].items():
        if workplace.git("rev-parse", f"{commit}:{path}") != blob:
            raise UserError(f"trained with another {path} ({source}): name its --commit")
    for name in TRAINED:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / Path(name).name, work / name)


def check_parameters(trained: dict[str, Any], job: Job, source: Path) -> None:
    """Refuse a run whose training had other parameters than the job."""
    expected = job.parameters["train"] | {"seed": job.seed}
    for key, value in (trained["train"] | {"seed": trained["seed"]}).items():
        if f"train.{key}" not in HARDWARE and value != expected.get(key):
            raise UserError(
                f"{key} is {value} in the run and {expected.get(key)} in {job.title} ({source}): "
                "name the recipe, seed and changes of the run"
            )


def seconds_of(source: Path) -> float | None:
    path = source / "seconds"
    return float(path.read_text()) if path.exists() else None
