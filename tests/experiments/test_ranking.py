"""A ranking of results for each data set, with the parameters that differ."""

import pytest

from cifar.experiments import ranking
from cifar.experiments.table import Result


def result(name, test=None, val=0.5, **inputs):
    inputs = {"fetch.dataset": "digits", "data/fetched": "r1"} | {
        key.replace("__", "."): value for key, value in inputs.items()
    }
    numbers = {"val.accuracy": val} | ({} if test is None else {"test.accuracy": test})
    return Result(name, "", inputs, numbers)


def test_data_sets_are_never_ranked_together():
    """Each data set has its own table; the same name with other raw data is another data set."""
    runs = [
        result("a"),
        result("b", fetch__dataset="cifar10"),
        Result("c", "", {"fetch.dataset": "cifar10", "data/fetched": "r2"}, {}),
        Result("d", "", {"fetch.dataset": "cifar10"}, {}),
    ]
    found = {name: [run.name for run in runs] for name, runs in ranking.by_dataset(runs).items()}
    assert found == {
        "digits": ["a"],
        "cifar10, raw data r1": ["b"],
        "cifar10, raw data r2": ["c"],
        "cifar10, raw data unknown": ["d"],
    }


def test_the_best_comes_first():
    """By test accuracy; runs without one follow, by validation accuracy."""
    runs = [
        result("no test", val=0.9, seed="0"),
        result("good", 0.8, seed="1"),
        result("neither", val=0.2, seed="2"),
        result("best", 0.9, seed="3"),
    ]
    ranked = ranking.rank(runs)
    assert list(ranked["name"]) == ["best", "good", "no test", "neither"]
    assert list(ranked["test.accuracy"].isna()) == [False, False, True, True]


def test_only_parameters_that_differ_are_columns():
    """They are in the order of params.yaml; one that only newer runs have does not count."""
    runs = [
        result("a", 0.2, train__lr="0.1", train__epochs="8", seed="0", train__new="1"),
        result("b", 0.1, train__lr="0.2", train__epochs="8", seed="1"),
    ]
    ranked = ranking.rank(runs)
    assert ranking.parameters(ranked) == ["train.lr", "seed"]
    assert list(ranked["train.lr"]) == ["0.1", "0.2"]
    assert ranking.parameters(ranking.rank(runs[:1])) == []


def test_a_run_counts_once():
    """An experiment, its commit and the workspace are one row, marked as in the workspace."""
    runs = [result(name, 0.5, seed="0") for name in ("more", "HEAD", "workspace")]
    ranked = ranking.rank([*runs, result("other", 0.4, seed="1")])
    assert list(ranked["name"]) == ["more", "other"]
    assert list(ranked["also"]) == ["HEAD", ""]
    assert list(ranked["workspace"]) == [True, False]


def test_edited_code_is_a_difference_and_another_network_is_not():
    """`code` sets apart runs of an edited file; the file of another network does not."""
    files = {"train.py": "x"}
    fast = result("fast", train__model="fast", **files, **{"models/fast.py": "1"})
    vgg = result("vgg", train__model="vgg", **files, **{"models/vgg.py": "2"})
    assert ranking.differences([fast, vgg]) == [{"train.model": "fast"}, {"train.model": "vgg"}]
    edited = result("edited", train__model="vgg", **{"models/vgg.py": "2", "train.py": "y"})
    described = ranking.differences([fast, vgg, edited])
    assert all(set(differences) == {"train.model", "code"} for differences in described)
    codes = [differences["code"] for differences in described]
    assert codes[0] == codes[1] != codes[2]
    assert all(len(code) == 6 for code in codes)


@pytest.mark.parametrize("model", ["fast", "vgg"])
def test_a_ranking_of_one_has_no_parameters(model):
    """With one result, no parameter differs."""
    ranked = ranking.rank([result("a", 0.5, train__model=model)])
    assert list(ranked.columns) == list(ranking.FIXED)
