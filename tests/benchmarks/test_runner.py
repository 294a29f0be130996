"""The runner of the recipes: what it runs, in which order, and how it resumes after a kill."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from test_results import RESULT

from benchmarks import measure, recipes, results, workplace
from benchmarks.measure import Job
from cifar import UserError, params

ROOT = Path(__file__).resolve().parents[2]
TINY = """\
# Digits and a small network.
fetch: {dataset: digits, source: null, sha256: null}
preprocess: {image_size: 8, per_class: 20}
train: {model: vgg, depth: 1, width: 4, epochs: 2, batch_size: 64, optimizer: sgd, lr: 0.05,
  momentum: 0.9, schedule: constant, small_epochs: 0, device: cpu, threads: 1}
evaluate: {device: cpu}
"""
# Stages that record that they ran, and write what a result is made from.
COMMON = """
import json, os, sys
from pathlib import Path
import numpy as np
def write(name, content):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(content if isinstance(content, str) else json.dumps(content))
with open("ran", "a") as handle:
    handle.write(Path(__file__).stem + "\\n")
"""
STAGES = {
    "fetch": 'write("data/fetched/dataset.json", {})',
    "preprocess": """
for part in ("train", "val", "test"):
    Path("data/processed", part).mkdir(parents=True, exist_ok=True)
    for name in ("images", "labels"):
        np.save(f"data/processed/{part}/{name}.npy", np.zeros(3))
write("data/processed/dataset.json", {})
""",
    "train": """
origin = {"threads": 1, "device": "cpu", "versions": {"torch": "1"}}
write("models/model.json", {"model": {"provenance": origin}, "code": {}})
write("plots/history.csv", "network,epoch,val_loss\\n0,1,0.5\\n0,2,0.25\\n")
write("metrics/train.json", {})
""",
    "evaluate": """
if Path("stop").exists():
    sys.exit("error: the test stopped this")
numbers = {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "loss": 1.0}
write("metrics/test.json", {"test": numbers})
""",
}


def parse(*words):
    parser = argparse.ArgumentParser()
    recipes.add_arguments(parser)
    return parser.parse_args(words)


def job(recipe="gap", code="1" * 12, **changes):
    return Job(recipe, changes, 0, {"train": {"epochs": 1, "ensemble": 1}}, code)


@pytest.fixture
def stubbed(project, monkeypatch):
    """A repository whose stages are replaced by fakes, as the current folder."""
    for name, code in STAGES.items():
        (project.path / f"stages/{name}.py").write_text(COMMON + code)
    (project.path / "recipes/tiny.yaml").write_text(TINY)
    for path in (project.path / "results").glob("*.json"):
        path.unlink()
    project.commit()
    monkeypatch.chdir(project.path)
    return project


@pytest.fixture
def quick(stubbed, monkeypatch):
    """Like `stubbed`, but the recipe is applied in this process, which saves two seconds."""

    def apply(folder, commit, recipe, overrides):
        values = params.read("params.yaml")
        for section, changes in params.read(f"recipes/{recipe}.yaml").items():
            values[section] |= changes
        return values

    monkeypatch.setattr(workplace, "apply", apply)
    return stubbed


def ran():
    return Path("runs/recipes/ran").read_text().split()


@pytest.mark.slow
def test_a_run_becomes_a_file(stubbed, capsys):
    """The four stages run with the recipe's values, and the result records how and on what."""
    recipes.run(parse("tiny", "-S", "train.epochs=3", "-S", "train.threads=2", "--note", "a test"))
    assert ran() == ["fetch", "preprocess", "train", "evaluate"]
    (result,) = results.read_all()
    assert (result.recipe, result.changes, result.seed) == ("tiny", {"train.epochs": 3}, 0)
    assert (result.accuracy, result.epochs, result.note) == (0.5, 2, "a test")
    assert result.commit == workplace.resolve("HEAD") and result.seconds is not None
    assert (result.dataset.name, result.dataset.test_images) == ("digits", 3)
    assert result.history[1] == {"network": 0, "epoch": 2, "val_loss": 0.25}
    values = json.loads(Path("runs/recipes/params.yaml").read_text())
    assert values["train"]["epochs"] == 3 and values["preprocess"]["per_class"] == 20
    assert stubbed.run("git", "status", "--porcelain", "--", ":!results").stdout == ""


def test_a_stopped_run_resumes_with_what_is_missing(quick):
    """A stage whose outputs exist is not run again, and the seconds of such a run are unknown."""
    with recipes.lock(Path("runs/recipes")):
        workplace.check_out(Path("runs/recipes"), workplace.resolve("HEAD"))
    Path("runs/recipes/stop").touch()
    with pytest.raises(UserError, match="1 of 1 runs failed"):
        recipes.run(parse("tiny"))
    Path("runs/recipes/stop").unlink()
    assert not results.read_all()
    recipes.run(parse("tiny"))
    assert ran() == ["fetch", "preprocess", "train", "evaluate", "evaluate"]
    assert results.read_all()[0].seconds is None


@pytest.mark.fault
@pytest.mark.parametrize("work", [".", "mine"])
def test_a_folder_with_other_files_is_not_worked_in(quick, work):
    """A folder with other files is refused, since the runner overwrites code and results."""
    Path(work).mkdir(exist_ok=True)
    Path(work, "thesis.txt").write_text("years")
    with pytest.raises(UserError, match=r"has other files \(--work\): choose a new"):
        recipes.run(parse("tiny", "--work", work, "--dry-run"))
    assert Path(work, "thesis.txt").read_text() == "years"


@pytest.mark.slow
def test_other_code_is_told_apart(quick, capsys, monkeypatch):
    """An edit counts once it is committed; the old result is kept, and --again adds another."""
    monkeypatch.setattr("benchmarks.machine.torch", lambda: "1")
    recipes.run(parse("tiny"))
    quick.edit("stages/evaluate.py", lambda text: text.replace("0.5", "0.55"))
    recipes.run(parse("tiny"))
    assert "tiny, seed 0: measured (tiny-seed0-" in capsys.readouterr().out
    quick.commit()
    recipes.run(parse("tiny"))
    assert "tiny, seed 0: measured with other code (tiny-seed0-" in capsys.readouterr().out
    recipes.run(parse("tiny", "--again"))
    assert sorted(result.accuracy for result in results.read_all()) == [0.5, 0.55]


def test_other_images_are_refused(quick, capsys):
    """If results exist on other test images, nothing is trained."""
    other = RESULT.dataset.model_copy(update={"name": "digits"})
    results.write(RESULT.model_copy(update={"dataset": other}))
    with pytest.raises(UserError, match="1 of 1 runs failed"):
        recipes.run(parse("tiny"))
    assert "the test images of digits differ from those of gap-seed0" in capsys.readouterr().err
    assert ran() == ["fetch", "preprocess"]


def test_a_failed_run_does_not_stop_the_others(monkeypatch, capsys):
    """All runs are tried, and the final error says how many failed."""
    tried = []

    def measure(job, settings):
        tried.append(job.recipe)
        if job.recipe == "gap":
            raise UserError("no images")

    monkeypatch.setattr(recipes, "measure", measure)
    with pytest.raises(UserError, match="1 of 2 runs failed"):
        recipes.measure_all([job("gap"), job("vgg1")], None)
    assert tried == ["gap", "vgg1"] and "gap, seed 0: no images" in capsys.readouterr().err


def test_two_runners_need_two_folders(tmp_path):
    """A second runner in the same folder is a one-line error."""
    with recipes.lock(tmp_path):
        script = "from pathlib import Path; from benchmarks import recipes; recipes.lock(Path('.'))"
        there = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT)}}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, **there
        )
    assert "UserError: another runner is using the folder" in done.stderr


def test_what_is_missing_runs(tmp_path, capsys, monkeypatch):
    """A result counts for its recipe, changes and seed; with --again, only for its code."""
    monkeypatch.setattr("benchmarks.machine.torch", lambda: "2.14.1")
    results.write(RESULT, tmp_path)
    same, other, changed = job(), job(code="2" * 12), job(**{"train.epochs": 20})
    folder = ("--results", str(tmp_path))
    assert recipes.missing(parse(*folder), [same, other, changed]) == [changed]
    assert recipes.missing(parse(*folder, "--again"), [same, other, changed]) == [other, changed]


def test_the_cheapest_runs_first(monkeypatch):
    """Jobs are sorted by operations per image times epochs times networks."""
    per_image = {"gap": 10.0, "vgg1": 3.0}
    monkeypatch.setattr(workplace, "flops", lambda _, train: [per_image[t["model"]] for t in train])
    jobs = {name: job(recipe) for name, recipe in (("b", "gap"), ("a", "vgg1"), ("c", "vgg1"))}
    for one in jobs.values():
        one.parameters["train"]["model"] = one.recipe
    jobs["c"].parameters["train"]["ensemble"] = 4
    assert recipes.cheapest_first(Path(), list(jobs.values())) == [jobs[name] for name in "abc"]


def test_what_an_override_changes():
    """Changes are the values that differ, except data, seed and hardware."""
    before = {"seed": 0, "fetch": {"source": None}, "preprocess": {"folds": 0}}
    before["train"] = {"epochs": 10, "threads": 0, "lr": 0.1}
    after = before | {"seed": 1, "fetch": {"source": "x"}}
    after["train"] = {"epochs": 20, "threads": 1, "lr": 0.1}
    assert recipes.differences(before, after) == {"train.epochs": 20}


def test_a_local_source_is_found_from_another_folder(tmp_path, monkeypatch):
    """A relative path becomes an absolute one; an address stays."""
    monkeypatch.chdir(tmp_path)
    given = ["fetch.source=a.tar", "fetch.source=https://x/a.tar", "seed=1"]
    expected = [f"fetch.source={tmp_path}/a.tar", *given[1:]]
    assert recipes.absolute(given) == expected


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A folder with the outputs of a finished run, and a folder to work in with its data."""
    source, work = tmp_path / "source", tmp_path / "work"
    (work / "data").mkdir(parents=True)
    (work / "data/labels.npy").write_bytes(b"labels")
    monkeypatch.setattr(workplace, "git", lambda *words: f"id of {words[-1]}")
    origin = {
        "parameters": {"seed": 0, "train": {"epochs": 1, "ensemble": 1, "device": "cuda"}},
        "data": {"data/labels.npy": measure.files.sha256(work / "data/labels.npy")},
        "code": {"stages/train.py": "id of c0:stages/train.py"},
    }
    for name in ("test.json", "history.csv", "train.json"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(name)
    write_model(source, origin)
    return source, work, origin


def write_model(source, origin):
    """Write model.json in its present layout."""
    code = origin["code"]
    model = {"provenance": {key: value for key, value in origin.items() if key != "code"}}
    (source / "model.json").write_text(json.dumps({"model": model, "code": code}))


@pytest.mark.parametrize("layout", ["present", "earlier"])
def test_a_run_by_hand_is_taken(finished, layout):
    """If the run matches the job, its outputs are copied to where the stages would write them."""
    source, work, origin = finished
    if layout == "earlier":
        (source / "model.json").write_text(json.dumps({"made_by": origin}))
    measure.take(source, work, job(), "c0")
    assert (work / "metrics/test.json").read_text() == "test.json"
    assert workplace.is_done(work, "train") and workplace.is_done(work, "evaluate")
    assert measure.seconds_of(source) is None
    (source / "seconds").write_text("61\n")
    assert measure.seconds_of(source) == 61


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("parameters", "seed", 1, "seed is 1 in the run and 0 in gap, seed 0"),
        ("parameters", "train", {"epochs": 2}, "epochs is 2 in the run and 1 in gap, seed 0"),
        ("data", "data/labels.npy", "0", "trained on a different data/labels.npy"),
        ("code", "stages/train.py", "0", "trained with a different stages/train.py"),
    ],
)
def test_another_run_is_not_taken(finished, section, key, value, message):
    """A run with other parameters, data or code is refused, and nothing is copied."""
    source, work, origin = finished
    origin[section][key] = value
    write_model(source, origin)
    with pytest.raises(UserError, match=message):
        measure.take(source, work, job(), "c0")
    assert not (work / "metrics").exists()


def test_an_unfinished_run_is_not_taken(finished):
    """A folder without test.json is refused."""
    source, work, _ = finished
    (source / "test.json").unlink()
    with pytest.raises(UserError, match=r"no test\.json"):
        measure.take(source, work, job(), "c0")


def runner(project, *words):
    command = [sys.executable, "-m", "benchmarks", "recipes", "tiny", "-S", "train.epochs=40"]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(
        [*command, *words], cwd=project.path, env=project.environment(), **streams
    )


@pytest.mark.long
def test_a_killed_runner_resumes(project):
    """After a kill of the runner and its training, the same command resumes, and gives the result
    of an undisturbed run."""
    (project.path / "recipes/tiny.yaml").write_text(TINY)
    project.commit()
    assert runner(project, "--work", "runs/other", "--results", "whole").wait(600) == 0
    killed = runner(project, "--results", "killed")
    work = project.path / "runs/recipes"
    deadline = time.monotonic() + 300
    while not list(work.glob(".checkpoints/*/*.pt")):
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.02)
    for process in [*psutil.Process(killed.pid).children(recursive=True), killed]:
        os.kill(process.pid, signal.SIGKILL)
    killed.wait()
    assert not (project.path / "killed").exists()
    assert runner(project, "--results", "killed").wait(600) == 0
    epochs = (work / "runs/workspace/epochs.jsonl").read_text().splitlines()
    assert json.loads(epochs[0])["images_per_second"] is None, "this epoch was not run again"
    (whole,), (resumed,) = (results.read_all(project.path / name) for name in ("whole", "killed"))
    assert whole.seconds and resumed.seconds is None
    assert whole.model_copy(update={"seconds": None}) == resumed
