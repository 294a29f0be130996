"""Groups of runs that differ only by their seed, and their names."""

import pandas as pd
import pytest

from cifar import UserError
from cifar.experiments import groups
from cifar.experiments.table import Result


def result(name, **inputs):
    return Result(name, "", {key.replace("__", "."): value for key, value in inputs.items()}, {})


def names(found):
    return {group: [result.name for result in members] for group, members in found.items()}


def test_groups_are_named_by_what_sets_them_apart():
    """Runs that differ only by their seed are one group, named by the parameters that vary."""
    runs = [
        result("a", seed="0", train__lr="0.1", train__dropout="0", train__epochs="8"),
        result("b", seed="1", train__lr="0.1", train__dropout="0", train__epochs="8"),
        result("c", seed="0", train__lr="0.2", train__dropout="0.5", train__epochs="8"),
    ]
    assert names(groups.group(runs, ["seed"])) == {
        "train.lr=0.1,train.dropout=0": ["a", "b"],
        "train.lr=0.2,train.dropout=0.5": ["c"],
    }
    assert names(groups.group(runs[:2], ["seed"])) == {"all": ["a", "b"]}
    over = ["seed", "train.lr", "train.dropout"]
    assert names(groups.group(runs, over)) == {"all": ["a", "b", "c"]}


def test_long_values_are_shortened():
    """A path is shortened to its file name, a checksum to its ends; no two values look alike."""
    runs = [
        result("a", source="/home/me/data/cifar.tar.gz", sha="1" * 64),
        result("b", source="null", sha="2" * 64),
    ]
    assert list(groups.group(runs, [])) == [
        "source=cifar.tar.gz,sha=1111111111111111…1111111",
        "source=null,sha=2222222222222222…2222222",
    ]
    twins = [result("a", source="/one/x.tar"), result("b", source="/two/x.tar")]
    assert list(groups.group(twins, [])) == ["source=/one/x.tar", "source=/two/x.tar"]


def test_a_repeated_run_counts_once():
    """Of two runs with the same seed, the first counts; seeds are sorted as numbers."""
    seeds = (("a", "10"), ("b", "9"), ("c", "10"), ("d", "1"))
    runs = [result(name, seed=seed) for name, seed in seeds]
    chosen, again = groups.one_each(runs, ["seed"])
    assert [run.name for run in chosen] == ["d", "b", "a"]
    assert [run.name for run in again] == ["c"]


@pytest.mark.parametrize(
    ("word", "members"),
    [
        ("b", ["b"]),
        ("train.lr=1", ["a", "b"]),
        ("train.lr=2.0", ["c"]),
        ("train.epochs=8,train.lr=2", ["c"]),
    ],
)
def test_a_word_names_a_run_or_a_group(word, members):
    """A run by its name; a group by its name, or by parameters that fit no other group."""
    runs = [
        result("a", seed="0", train__lr="1", train__epochs="8"),
        result("b", seed="1", train__lr="1", train__epochs="8"),
        result("c", seed="0", train__lr="2", train__epochs="8"),
    ]
    datasets = {"digits": groups.group(runs, ["seed"])}
    dataset, named = groups.find(word, datasets, ["seed"])
    assert (dataset, [run.name for run in named]) == ("digits", members)
    with pytest.raises(UserError, match=r"^2 groups match train.epochs=8 "):
        groups.find("train.epochs=8", datasets, ["seed"])


def test_a_parameter_that_older_runs_have_not():
    """Runs of a commit that did not have the parameter yet are a sample of their own."""
    runs = [result("new", seed="0", fold="1"), result("old", seed="0")]
    assert groups.label(runs[1], ["fold"]) != groups.label(runs[0], ["fold"])
    assert groups.one_each(runs, ["fold"]) == ([runs[1], runs[0]], [])


def test_predictions_are_text(monkeypatch):
    """Class names such as 007 and NA are kept; missing predictions are a one-line error."""
    import dvc.api

    lines = "image,actual,predicted,confidence\n1.png,007,NA,0.5\n"
    monkeypatch.setattr(dvc.api, "read", lambda path, rev: lines)
    columns = {"image": ["1.png"], "actual": ["007"], "predicted": ["NA"]}
    expected = pd.DataFrame(columns, dtype=str)
    pd.testing.assert_frame_equal(groups.predictions(result("a")), expected)

    def missing(path, rev):
        raise FileNotFoundError

    monkeypatch.setattr(dvc.api, "read", missing)
    with pytest.raises(
        UserError, match=r"^no predictions of a \(DVC's cache\): run `dvc exp pull`"
    ):
        groups.predictions(result("a"))
