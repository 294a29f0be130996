"""The verdict on a rerun by the contract."""

from dataclasses import replace

import pytest

from cifar import UserError
from cifar.experiments import contract
from cifar.experiments.contract import Accuracy, Change

THREADS = [Change("threads", "1", "2")]
NUMBERS = Accuracy(recorded=0.5, made=0.51, low=0.49, high=0.52, basis="by hand")


@pytest.mark.parametrize(
    ("differing", "changes", "numbers", "level"),
    [
        ([], THREADS, None, "L1"),
        (["plots/a.png"], THREADS, NUMBERS, "L3"),
        (["plots/a.png"], THREADS, None, None),
        (["plots/a.png"], THREADS, replace(NUMBERS, made=0.53), None),
        (["plots/a.png"], THREADS, replace(NUMBERS, made=0.48), None),
        (["plots/a.png"], [], NUMBERS, None),
        (["data/fetched", "plots/a.png"], THREADS, NUMBERS, None),
    ],
)
def test_the_verdict(differing, changes, numbers, level):
    """L1 by bytes; L3 only in another environment, with the same data and an accuracy in bounds."""
    assert contract.judge(differing, changes, True, numbers).level == level


RECORDED = {"test": {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6}}
INTERVAL = "the recorded 95 % interval, as "


@pytest.mark.parametrize(
    ("seeds", "low", "basis"),
    [
        ([0.4, 0.5, 0.6], 0.2, "three standard deviations over 3 seeds"),
        ([0.4, 0.5], 0.4, f"{INTERVAL}fewer than 3 seeds were run"),
        ([0.5, 0.5, 0.5], 0.4, f"{INTERVAL}all 3 seeds gave the same accuracy"),
        (UserError("no dvc (PATH): x"), 0.4, f"{INTERVAL}the runs with other seeds cannot be list"),
    ],
)
def test_the_tolerance(seeds, low, basis, monkeypatch):
    """It comes from the seeds, or from the interval, with the reason."""

    def accuracies(recorded):
        if isinstance(seeds, UserError):
            raise seeds
        return seeds

    monkeypatch.setattr(contract, "seeds", accuracies)
    numbers = contract.accuracy(None, RECORDED, {"test": {"accuracy": 0.55}})
    assert (numbers.low, numbers.recorded, numbers.made) == (pytest.approx(low), 0.5, 0.55)
    assert numbers.basis.startswith(basis)
