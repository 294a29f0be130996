"""The tables of speed and of accuracy against time, from given measurements."""

import json
import sys
from pathlib import Path

import psutil
import pytest
import torch

from benchmarks import __main__ as program
from benchmarks import busy, loops, machine, memory, pages, pipeline, recipes, speed
from cifar import UserError, params
from cifar.params.train import Train

ROOT = Path(__file__).parents[2]
SITUATIONS = [busy.ALONE, busy.ONE, busy.EIGHT, busy.TWO]


def test_epochs_are_read_from_json_lines(tmp_path):
    """Seconds add up from images per second, whatever the other fields are."""
    rows = [
        {"network": 0, "epoch": 1, "val_accuracy": 0.5, "images_per_second": 100},
        {"network": 0, "epoch": 2, "val_accuracy": 0.75, "images_per_second": 50},
    ]
    path = tmp_path / "epochs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert pipeline.read_epochs(path, images=1000) == [(10.0, 0.5), (30.0, 0.75)]


def test_mean_and_deviation_in_per_cent():
    """One value has no standard deviation; two have that of a sample (n - 1)."""
    assert pipeline.percent([0.8699]) == "86.99"
    assert pipeline.percent([0.8, 0.9]) == "85.00 (standard deviation 7.07)"


def test_the_speeds_of_a_case_are_one_row():
    """Medians with the smallest and largest value, and ratios of medians."""
    speeds = {
        ("a case", "conventional"): [400.0, 100.0, 500.0],
        ("a case", "ours"): [900.0],
        ("a case", "limit"): [1000.0],
    }
    assert speed.table(speeds).splitlines()[-1] == (
        "| a case | 400 (100-500) | 900 (900-900) | 1,000 (1,000-1,000) | 2.25 | 0.90 |"
    )


def test_images_in_memory_and_on_disk_are_one_row():
    """Medians with the smallest and largest value, and their ratio."""
    speeds = {(case, "ours"): [100.0] for case in loops.DISK_CASES}
    speeds |= {(case, "disk"): [90.0, 95.0, 110.0] for case in loops.DISK_CASES}
    assert speed.disk_table(speeds).splitlines()[3] == (
        f"| {next(iter(loops.DISK_CASES))} | 100 (100-100) | 95 (90-110) | 0.95 |"
    )


@pytest.mark.parametrize("disk", [False, True])
def test_the_loop_takes_its_images_from_memory_or_a_file(disk, tmp_path, monkeypatch):
    """It trains in both cases; only the one on disk writes the file."""
    monkeypatch.setattr(loops, "IMAGES", 20)
    p = Train(**params.read(ROOT / "params.yaml")["train"] | {"batch_size": 8, "threads": 1})
    file = tmp_path / "images.npy"
    loops.ours(p, torch.device("cpu"), file=file if disk else None)(2)
    assert file.exists() == disk


def test_a_command_is_measured(tmp_path):
    """Its seconds and peak memory are its own, not those of the process that starts it."""
    hold = "import time; block = bytearray(100 * 2**20); time.sleep(0.2)"
    seconds, kilobytes = pipeline.measure([sys.executable, "-c", hold], tmp_path)
    assert seconds >= 0.2 and 100 * 1024 < kilobytes < 160 * 1024
    with pytest.raises(UserError, match="failed"):
        pipeline.measure([sys.executable, "-c", "raise SystemExit(1)"], tmp_path)


def test_ways_of_waiting_are_compared_with_the_first():
    """Rows have medians with ranges, ratios to the first way, and two at once over one alone."""
    measured = {name: [100.0, 300.0, 200.0] for name in SITUATIONS[:3]}
    faster = measured | {busy.ONE: [400.0], busy.TWO: [300.0]}
    page = busy.table({"first": measured | {busy.TWO: [100.0]}, "second": faster})
    assert "| first | 200 (100-300), 1.00 |" in page and "| 100 (100-100), 1.00 | 0.50 |" in page
    assert "| 400 (400-400), 2.00 |" in page and page.endswith("| 300 (300-300), 3.00 | 1.50 |")


def test_a_machine_that_is_not_quiet_is_refused(monkeypatch):
    """It is refused without --anyway."""
    monkeypatch.setattr(busy, "others_running", lambda: 2.0)
    monkeypatch.setattr(busy, "measure", lambda settings, seconds: dict.fromkeys(SITUATIONS, 1.0))
    with pytest.raises(UserError, match="2 other threads are running"):
        busy.run(program.parse(["busy"]))
    busy.run(program.parse(["busy", "--anyway"]))


@pytest.mark.long
def test_a_program_trains_beside_busy_ones(monkeypatch):
    """Each situation has a speed, and no process is left behind."""
    monkeypatch.chdir(Path(__file__).parents[2])
    speeds = busy.measure({}, 0.1)
    assert speeds.keys() == set(SITUATIONS) and min(speeds.values()) > 0
    assert not psutil.Process().children()


def test_the_machine_is_named():
    """The description has the processor, cores, instruction set and torch."""
    assert machine.processor() in machine.describe()
    assert machine.torch() in machine.describe()


@pytest.mark.parametrize(
    ("words", "function", "values"),
    [
        ([], None, {"rounds": 5, "seconds": 6.0, "seeds": 3}),
        (["speed", "--rounds", "2"], program.measure_speed, {"rounds": 2}),
        (["stages"], pipeline.stages, {}),
        (["accuracy", "--seeds", "1"], pipeline.accuracy, {"seeds": 1}),
        (["recipes", "gap", "--seeds", "0", "1"], recipes.run, {"names": ["gap"], "seeds": [0, 1]}),
        (["memory", "--images", "9", "99"], memory.run, {"images": [9, 99], "data_only": False}),
        (["busy", "--rounds", "1"], busy.run, {"rounds": 1, "anyway": False}),
        (["gpu", "smoke", "--tiny"], program.measure_gpu, {"parts": ["smoke"], "minutes": 9.0}),
        (["tables"], pages.run, {}),
    ],
)
def test_a_command_names_its_benchmark(words, function, values):
    """Each command runs its function with its options; without one, `make bench` has defaults."""
    options = program.parse(words)
    assert options.run == function
    assert {key: getattr(options, key) for key in values} == values
