"""tools/compare.py on results that no run has made; test_sweeps.py has real ones."""

import csv
import re

import pandas as pd
import pytest
from PIL import Image

from cifar import UserError
from cifar.experiments import groups, table
from cifar.experiments.table import Result
from tools import compare


def result(name, accuracy, dataset="digits", **inputs):
    inputs = {"fetch.dataset": dataset, "data/fetched": dataset} | {
        key.replace("__", "."): value for key, value in inputs.items()
    }
    return Result(name, name, inputs, {"val.accuracy": accuracy})


@pytest.fixture
def printed(monkeypatch, capsys):
    """What `tools.compare` prints for these results."""

    def compare_all(results, *words):
        monkeypatch.setattr(table, "read", lambda everything: (list(results), ["left out: x"]))
        monkeypatch.setattr("sys.argv", ["compare", "--metric", "val.accuracy", *words])
        compare.main()
        return capsys.readouterr().out

    return compare_all


DIGITS = [
    result("a", 0.9, seed="0", train__lr="1", **{"train.py": "x"}),
    result("b", 0.7, seed="1", train__lr="1", **{"train.py": "x"}),
    result("c", 0.99, seed="0", train__lr="1", **{"train.py": "y"}),
]
CIFAR = [
    result("d", 0.5, "cifar10", seed="0", train__lr="2"),
    result("e", 0.6, "cifar10", seed="0", train__lr="3"),
]


def test_each_data_set_has_a_table_of_its_own(printed):
    """Groups are ranked and named within their data set; edited code is named by its file."""
    text = printed([*DIGITS, *CIFAR])
    digits, cifar = text.index("\ndigits\n"), text.index("\ncifar10\n")
    rows = re.findall(r"^.* % .* (\d)  (\S+)$", text, re.MULTILINE)
    assert digits < cifar and [row[0] for row in rows] == ["1", "2", "1", "1"]
    assert rows[0][1].startswith("code=") and rows[1][1].startswith("code=")
    assert [row[1] for row in rows[2:]] == ["train.lr=3", "train.lr=2"]
    assert "code of the runs on digits differs in train.py\n" in text
    assert "left out: x" in text


def test_groups_of_two_data_sets_are_not_compared(printed):
    """The error names both data sets; a parameter that is not in a name still finds its group."""
    with pytest.raises(UserError, match=r"^a is on digits, train.lr=2 on cifar10 "):
        printed([*DIGITS, *CIFAR], "a", "train.lr=2")
    with pytest.raises(UserError, match=r"^2 groups match train.lr=1 \(command line\): "):
        printed([*DIGITS, *CIFAR], "d", "train.lr=1")
    words = ("fetch.dataset=cifar10,train.lr=3", "d")
    assert "d minus fetch.dataset=cifar10,train.lr=3: -10.00 points" in printed(CIFAR, *words)


ACCURACIES = [("0.0", 0.90), ("0.0", 0.91), ("0.0", 0.92), ("0.3", 0.93), ("0.3", 0.95)]
DROPOUT = [
    result(f"run{number}", accuracy, seed=str(number), train__dropout=dropout)
    for number, (dropout, accuracy) in enumerate(ACCURACIES)
]


def test_two_groups_over_seeds(printed):
    """The difference of the means comes with its interval by Welch and the p value."""
    text = printed(DROPOUT, "train.dropout=0.0", "train.dropout=0.3")
    line = re.search(r"^train.dropout=0.3 minus train.dropout=0.0: (.*)$", text, re.MULTILINE)[1]
    assert line.startswith("+3.00 points, 95 % interval -") and line.endswith(" (Welch)")
    row = r"^91\.00 % +1\.00 % +88\.52 % to 93\.48 %  3  train\.dropout=0\.0$"
    assert re.search(row, text, re.MULTILINE)


def test_one_run_has_no_interval(printed):
    """A group of one run is compared without a p value, which the line says."""
    text = printed(DROPOUT[:4], "train.dropout=0.0", "train.dropout=0.3", "--markdown")
    assert "+2.00 points, no interval from one run" in text
    assert "| 93.00 % | - | one run: none | 1 | train.dropout=0.3 |" in text


def test_two_runs_on_the_same_images(printed, monkeypatch):
    """Test accuracies are also compared image by image: who alone is right, and is it chance?"""
    predicted = {"run0": "cccddddd", "run3": "ccccccdd"}
    columns = {"image": [*"01234567"], "actual": [*"cccccccc"]}
    monkeypatch.setattr(
        groups,
        "predictions",
        lambda run: pd.DataFrame(columns | {"predicted": [*predicted[run.name]]}),
    )
    runs = [
        Result(run.name, run.commit, run.inputs, {"test.accuracy": run.metrics["val.accuracy"]})
        for run in DROPOUT
    ]
    text = printed(runs, "run0", "run3", "--metric", "test.accuracy")
    line = "on the same test images, run0 alone is right on 0, run3 alone on 3: p = 0.25 "
    assert f"{line}(McNemar, exact)" in text


def test_the_tables_as_a_file_and_as_a_chart(printed, tmp_path):
    """The file has the unrounded numbers, the chart a panel for each data set."""
    table_file, chart = tmp_path / "a.csv", tmp_path / "a.png"
    printed([*DROPOUT, *CIFAR], "--csv", str(table_file), "--plot", str(chart))
    with table_file.open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["group"] for row in rows][:2] == ["train.dropout=0.3", "train.dropout=0.0"]
    assert [float(row["mean"]) for row in rows] == [0.94, 0.91, 0.6, 0.5]
    assert rows[2]["std"] == rows[2]["low"] == "" and {row["n"] for row in rows} == {"1", "2", "3"}
    with Image.open(chart) as image:
        assert image.width > image.height > 200


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run0"], "1 group given (command line): pass two groups"),
        (["run0", "run0"], "run0 is given twice"),
        (["run0", "run9"], "no group or experiment matches run9 (did you mean run"),
        (["--metric", "val.acuracy"], "no run has val.acuracy (--metric): choose one of val.accur"),
        (["--over", "sed"], "no parameter sed (did you mean seed?)"),
    ],
)
def test_a_mistake_is_one_line(words, message, printed):
    """A missing group, metric or parameter is an error that names it."""
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        printed(DROPOUT, *words)


def test_no_run_at_all(printed):
    """Without a finished run, the error says why others are left out and how to start one."""
    with pytest.raises(UserError, match=r"^no finished run \(left out: x\): start one with `dvc "):
        printed([])
