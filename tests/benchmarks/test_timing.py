"""The tables of speed and of accuracy against time, from given measurements."""

import json
import sys

import pytest

from benchmarks import __main__ as program
from benchmarks import machine, pages, pipeline, recipes, speed
from cifar import UserError


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
    """One value has no deviation; of two it is that of a sample."""
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


def test_a_command_is_measured(tmp_path):
    """Its seconds and its own peak memory, not that of the process that starts it."""
    hold = "import time; block = bytearray(100 * 2**20); time.sleep(0.2)"
    seconds, kilobytes = pipeline.measure([sys.executable, "-c", hold], tmp_path)
    assert seconds >= 0.2 and 100 * 1024 < kilobytes < 160 * 1024
    with pytest.raises(UserError, match="failed"):
        pipeline.measure([sys.executable, "-c", "raise SystemExit(1)"], tmp_path)


def test_the_machine_is_named():
    """Processor, cores, instruction set and torch."""
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
        (["tables"], pages.run, {}),
    ],
)
def test_a_command_names_its_benchmark(words, function, values):
    """Each command runs its function with its options; without one, `make bench` has defaults."""
    options = program.parse(words)
    assert options.run == function
    assert {key: getattr(options, key) for key in values} == values
