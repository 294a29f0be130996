"""The verdict on a rerun by the contract."""

from dataclasses import replace

import pytest

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
