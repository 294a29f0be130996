"""`python -m benchmarks gpu`: resuming, messages, and a trial of all parts."""

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as program
from benchmarks.gpu import airbench, loops, run, trainings
from benchmarks.gpu.progress import Progress
from benchmarks.gpu.setup import Part, Setup
from benchmarks.tables import markdown
from cifar import UserError, files, networks
from cifar.params.train import Train
from cifar.training.fit import network_options

ROOT = Path(__file__).resolve().parents[2]
AIRBENCH = """
import torch
accs = [None for run in range(200)]
for name, count in (("train", 5), ("test", 2)):
    data = torch.load(f"cifar10/{name}.pt")
    assert data["images"].shape == (count, 4, 4, 3) and data["classes"] == ["a", "b"]
print("|  run     |  epoch  |  train_acc  |  val_acc  |  tta_val_acc  |  time_seconds  |")
for run in ["warmup", *range(len(accs))]:
    seconds = 9 if run == "warmup" else 2
    numbers = "0.9500  |   0.9300"
    print(f"|  {run}  |      7  |     {numbers}  |               |        {seconds}.5000  |")
    print(f"|          |   eval  |     {numbers}  |       0.9400  |        {seconds}.6000  |")
"""


def options(*words):
    return program.parse(["gpu", "--device", "cpu", *map(str, words)])


def setup(folder, tiny=True):
    return Setup("cpu", tiny, folder, {}, folder / "airbench")


def call(monkeypatch, folder, *words, **steps):
    """Run one part with these steps; returns the error that it ended with, and its page."""
    part = Part(
        "a part", lambda setup: steps, lambda rows: markdown([["row"], *([str(r)] for r in rows)])
    )
    monkeypatch.setattr(run, "PARTS", {"part": part})
    try:
        run.run(options("--out", folder, *words))
        error = ""
    except UserError as problem:
        error = str(problem)
    return error, (folder / "cpu/results.md").read_text()


def test_what_is_done_is_not_done_again(monkeypatch, tmp_path):
    """When the time is up, it ends with a one-line error; the next call runs what is missing."""
    ran = []

    def quick():
        ran.append("quick")
        return {"n": 1}

    error, page = call(monkeypatch, tmp_path, "--minutes", 0.01, a=quick, b=lambda: time.sleep(600))
    assert "0.01 minutes are over" in error and "run the same command again" in error
    assert "{'n': 1}" in page
    error, page = call(monkeypatch, tmp_path, a=quick, b=lambda: {"n": 2})
    assert not error and "{'n': 2}" in page and ran == ["quick"]


def test_a_failed_step_stops_no_other_and_comes_last_the_next_time(monkeypatch, tmp_path):
    """Its message stays in the page until it succeeds."""
    ran = []

    def fail():
        ran.append("fail")
        raise UserError("out of paper")

    def succeed(name):
        ran.append(name)
        return {}

    error, page = call(monkeypatch, tmp_path, a=fail, b=lambda: succeed("b"))
    assert "1 step failed" in error and "- a: failed, out of paper" in page
    error, page = call(monkeypatch, tmp_path, a=lambda: succeed("a"), c=lambda: succeed("c"))
    assert not error and "out of paper" not in page and ran == ["fail", "b", "c", "a"]


def test_machines_are_not_mixed(tmp_path):
    """A file of another machine or torch is refused."""
    progress = Progress(tmp_path / "results.json", "a machine")
    progress.finish("part", "step", {"n": 1})
    with pytest.raises(UserError, match="results of a machine"):
        Progress(tmp_path / "results.json", "another")
    assert Progress(tmp_path / "results.json", "a machine").done("part") == {"step": {"n": 1}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["paint"], "no part paint"),
        (["-S", "train.epochs=1"], "write -S fetch.KEY=VALUE"),
        (["--device", "cuda"], "no GPU"),
    ],
)
def test_a_wrong_command_is_refused(words, message, tmp_path, monkeypatch):
    """It is a one-line error, before anything is measured."""
    monkeypatch.setattr(run.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=message):
        run.run(options("--out", tmp_path, *words))
    assert not list(tmp_path.iterdir())


def test_the_tables_show_what_is_there():
    """Incomplete cases are left out, seeds are averaged, equal checksums are the same bytes."""
    rows = [
        {"case": case, "loop": loop, "images_per_second": 2e5, "flops_per_image": 1e8}
        | {"peak_bytes": 2**30}
        for case, loop in [(name, loop) for name in loops.CASES for loop in loops.speed.LOOPS][:-1]
    ]
    page = loops.speed_table(rows)
    first, *_, last = loops.CASES
    assert f"| {first} | 20 | 1.00 |" in page and last not in page
    compiled = [{"batch_size": 64, "compile": mode, "images_per_second": 5000.0} for mode in "ab"]
    assert "| 64 | 5,000 | 5,000 |" in loops.pivot("batch_size", "compile", compiled)

    runs = [
        {"name": "default", "accuracy": accuracy, "tta_accuracy": accuracy + 0.01, "seconds": s}
        | {"model_sha256": "x", "history_sha256": str(accuracy)}
        for accuracy, s in [(0.9, 3.0), (0.92, None)]
    ]
    page = trainings.accuracy_table(runs)
    assert "| default | 2 | 3.00 (3.00-3.00) | 91.00 (standard deviation 1.41) | 92.00" in page
    page = trainings.bytes_table(runs)
    assert "| default | same bytes | differs | 90.00, 92.00 |" in page


@pytest.mark.long
def test_airbench_runs_on_our_images(tmp_path, monkeypatch):
    """A copy of its script finds our images, repeats fewer times, and its table is read."""
    monkeypatch.chdir(ROOT)
    given = setup(tmp_path)
    assert airbench.steps(given) == {}
    given.airbench.mkdir()
    (given.airbench / airbench.SCRIPT).write_text(AIRBENCH)

    def make_data(folder, values):
        files.write_json(folder / "data/fetched/dataset.json", {"classes": ["a", "b"]})
        for part, count in (("train", 5), ("test", 2)):
            images = np.zeros((count, 4, 4, 3), np.uint8)
            files.write_array(folder / f"data/fetched/{part}_images.npy", images)
            files.write_array(folder / f"data/fetched/{part}_labels.npy", np.zeros(count, np.int64))

    monkeypatch.setattr(airbench, "make_data", make_data)
    numbers = airbench.steps(given)[airbench.SCRIPT]()
    assert numbers["tta_accuracies"] == [0.94] * airbench.RUNS and numbers["seconds"][0] == 2.6
    assert "| 20 | 2.60 (2.60-2.60) | 93.00" in airbench.table([numbers])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        *[(recipe, {"precision": precision}) for recipe, precision in trainings.SEEDS],
        *trainings.REPEATED.values(),
        ("", trainings.SHORT),
    ],
)
def test_every_training_has_parameters_that_go_together(recipe, changes, tmp_path, monkeypatch):
    """They do at full size, which no test runs."""
    monkeypatch.chdir(ROOT)
    values = setup(tmp_path / "work", tiny=False).parameters(tmp_path / "work", recipe, **changes)
    p = Train.model_validate(values["train"])
    networks.check_options(p.model, network_options(p))


@pytest.mark.long
def test_every_part_runs_on_a_cpu(tmp_path, monkeypatch):
    """In the trial without a GPU, all parts but airbench run, and nothing fails."""
    monkeypatch.chdir(ROOT)
    words = ["--tiny", "--minutes", 60, "--out", tmp_path, "--airbench", tmp_path]
    run.run(options(*words))
    progress = files.read_json(tmp_path / "cpu/results.json")
    assert progress["done"].keys() == run.PARTS.keys() - {"airbench"} and not progress["failed"]
    page = (tmp_path / "cpu/results.md").read_text()
    assert all(part.about in page for name, part in run.PARTS.items() if name != "airbench")
    assert "| default | same bytes | same bytes |" in page
