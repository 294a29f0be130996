"""`make show`: a table for each data set, readable at 100 columns."""

import re

import pytest

from cifar import UserError
from cifar.experiments import ranking, table
from cifar.experiments.table import Result
from tools import show


def result(name, test, val=0.5, dataset="digits", **inputs):
    inputs = {"fetch.dataset": dataset, "data/fetched": "r"} | {
        key.replace("__", "."): value for key, value in inputs.items()
    }
    numbers = {"val.accuracy": val} | ({} if test is None else {"test.accuracy": test})
    return Result(name, "", inputs, numbers)


@pytest.fixture
def printed(monkeypatch, capsys):
    """The lines that are printed for these results, without a terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def show_all(*results, remarks=()):
        monkeypatch.setattr(table, "read", lambda: (list(results), list(remarks)))
        monkeypatch.setattr("sys.argv", ["show"])
        show.main()
        return capsys.readouterr().out.splitlines()

    return show_all


def test_the_table_says_what_it_shows(printed):
    """The first line explains it; then come name, accuracies and what differs, the best first."""
    runs = [
        result("HEAD", 0.75, train__dropout="0"),
        result("more", 0.8125, train__dropout="0.3"),
        result("workspace", 0.8125, train__dropout="0.3"),
        result("trial", None, train__dropout="0.1"),
    ]
    assert printed(*runs, remarks=["left out, failed: bad"]) == [
        "3 results of all commits, best test accuracy first; * is in the workspace",
        "",
        "digits",
        "                                   train.",
        "  experiment     test  validation  dropout",
        "* more        81.25 %     50.00 %  0.3",
        "  HEAD        75.00 %     50.00 %  0",
        "  trial             -     50.00 %  0.1",
        "",
        "left out, failed: bad",
    ]


def test_one_result_shows_its_number(printed):
    """Nothing differs, and the accuracies are shown."""
    lines = printed(result("HEAD", 0.75, train__dropout="0"))
    assert lines[0].startswith("1 result of all commits")
    assert lines[-1].split() == ["HEAD", "75.00", "%", "50.00", "%"]


def test_data_sets_have_tables_of_their_own(printed):
    """Digits and CIFAR-10 are never ranked together, and parameters differ within one only."""
    runs = [
        result("a", 0.99, seed="0"),
        result("b", 0.90, dataset="cifar10", seed="1"),
        result("c", 0.98, seed="0", train__lr="1"),
    ]
    text = "\n".join(printed(*runs))
    digits, cifar = text.index("\ndigits\n"), text.index("\ncifar10\n")
    assert digits < text.index("  a ") < text.index("  c ") < cifar < text.index("  b ")
    assert "seed" not in text and "lr" not in text


def test_other_names_of_a_run_are_named(printed):
    """A run under several names is one row, and a line names the others."""
    lines = printed(result("more", 0.8), result("again", 0.8), result("HEAD", 0.8))
    assert lines[0].startswith("1 result ") and lines[-1] == "the same run: more, again, HEAD"


def test_columns_that_do_not_fit_are_named():
    """No line is too wide; parameters are dropped, the last first, and listed below."""
    inputs = {f"train.parameter_number_{number}": "x" for number in range(9)}
    runs = [
        Result("a" * 90, "", {"fetch.dataset": "digits"} | inputs, {"test.accuracy": 0.1}),
        Result("b", "", {"fetch.dataset": "digits"} | dict.fromkeys(inputs, "y" * 50), {}),
    ]
    lines = show.layout(ranking.rank(runs), 100)
    assert max(map(len, lines)) <= 100
    visible = re.findall(r"parameter_number_(\d)", "\n".join(lines[:4]))
    hidden = re.findall(r"parameter_number_(\d)", "\n".join(lines[4:]))
    assert visible and hidden and visible + hidden == [str(number) for number in range(9)]
    assert lines[4].startswith("  not shown, as the table would be too wide: train.parameter")
    wide = show.layout(ranking.rank(runs), 1000)
    assert "not shown" not in "\n".join(wide)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0.2860757465489678", "0.2861"),
        ("0.1", "0.1"),
        ("5e-05", "5e-05"),
        ("100000", "100000"),
        ("/data/cifar-10.tar.gz", "cifar-10.tar.gz"),
        ("null", "null"),
    ],
)
def test_values_are_brief(value, text):
    """Fractions have four digits, a path is shortened to its file name; all else is unchanged."""
    assert show.brief(value) == text


def test_a_terminal_gives_the_width(printed, monkeypatch):
    """The width of the terminal is used, or 100 columns without one."""
    asked = []
    monkeypatch.setattr(show, "layout", lambda ranked, width: asked.append(width) or [])
    printed(result("a", 0.5))
    monkeypatch.setenv("COLUMNS", "77")
    printed(result("a", 0.5))
    assert asked == [100, 77]


def test_nothing_to_show(printed):
    """Without results, a one-line error says how to make one, and why others do not count."""
    with pytest.raises(UserError, match=r"^no result yet: run `dvc repro` or `make demo`$"):
        printed()
    with pytest.raises(UserError, match=r"^no result yet \(left out, failed: bad\): run"):
        printed(remarks=["left out, failed: bad"])


def test_make_show_after_an_experiment(dropout_run):
    """`make show` lists both runs with their numbers, the workspace once, in 100 columns."""
    done = dropout_run.project.run("python", "-m", "tools.show")
    first, *lines = done.stdout.splitlines()
    assert first.startswith("2 results of all commits") and max(map(len, lines)) <= 100
    rows = [re.match(r"([* ] \w+) +([\d.]+) % +([\d.]+) % +([\d.]+)$", line) for line in lines]
    found = {row[1]: row[4] for row in rows if row}
    assert found == {"* more": "0.3", "  HEAD": "0"}
    tests = [float(row[2]) for row in rows if row]
    assert tests == sorted(tests, reverse=True)
    assert "tools.show" in dropout_run.project.run("make", "--dry-run", "show").stdout
