"""Statistics of a few runs, on numbers computed by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cifar import UserError
from cifar.experiments import statistics


def test_mean_deviation_and_interval():
    """1, 2 and 3 have mean 2, standard deviation 1, and an interval of 4.3027 (Student's t) / √3
    to either side."""
    row = statistics.summarize([1, 2, 3])
    half = 4.302652729911275 / math.sqrt(3)
    assert row[:3] == (3, 2, 1) and row[3:] == pytest.approx((2 - half, 2 + half))


def test_one_run_has_no_interval():
    """A single run has a mean, but neither a standard deviation nor an interval: not even zero."""
    row = statistics.summarize([0.5])
    assert row[:2] == (1, 0.5) and np.isnan(row[2:]).all()
    difference = statistics.welch([0.5], [0.6, 0.7])
    assert difference.mean == pytest.approx(0.15) and np.isnan(difference[1:]).all()


def test_welch():
    """Difference, interval and p-value of unequal groups are those by hand, and SciPy's."""
    difference = statistics.welch([1, 2, 3], [4, 6, 8])
    error, freedom = math.sqrt(1 / 3 + 4 / 3), (5 / 3) ** 2 / (((1 / 3) ** 2 + (4 / 3) ** 2) / 2)
    half = stats.t.ppf(0.975, freedom) * error
    assert difference[:3] == pytest.approx((4, 4 - half, 4 + half))
    a, b = [0.81, 0.83, 0.86, 0.8], [0.84, 0.9]
    reference = stats.ttest_ind(b, a, equal_var=False)
    low, high = reference.confidence_interval()
    assert statistics.welch(a, b)[1:] == pytest.approx((low, high, reference.pvalue))


@pytest.mark.parametrize("second", [0.1, 0.6])
def test_runs_without_any_spread(second):
    """Identical runs have no interval, rather than one of width 0; nor has their difference."""
    row = statistics.summarize([0.1] * 3)  # their mean is not 0.1 to the last bit
    assert row[:3] == pytest.approx((3, 0.1, 0)) and row.std == 0 and np.isnan(row[3:]).all()
    difference = statistics.welch([0.1] * 3, [second] * 2)
    assert difference.mean == pytest.approx(second - 0.1) and np.isnan(difference[1:]).all()
    assert not np.isnan(statistics.welch([0.1] * 3, [second, 0.7])).any(), (
        "one with spread is enough"
    )


@pytest.mark.parametrize(
    ("pairs", "p"), [((1, 7), 2 * (1 + 8) / 2**8), ((7, 1), 18 / 256), ((5, 5), 1), ((0, 0), 1)]
)
def test_mcnemar(pairs, p):
    """One against seven: as likely as at most one head of eight coins, or at most one tail."""
    assert statistics.mcnemar(*pairs) == pytest.approx(p)


def test_images_that_one_run_alone_got_right():
    """Images that only one run got right are counted; different images or labels are refused."""
    columns = {"image": list("abcde"), "actual": ["cat", "cat", "dog", "dog", "dog"]}
    first = pd.DataFrame(columns | {"predicted": ["cat", "dog", "dog", "cat", "dog"]})
    second = pd.DataFrame(columns | {"predicted": ["dog"] * 5})
    assert statistics.discordant(first, second) == (1, 1)
    for column in ("image", "actual"):
        other = second.copy()
        other.loc[0, column] = "dog"
        with pytest.raises(UserError, match="their test images differ"):
            statistics.discordant(first, other)
    with pytest.raises(UserError, match="their test images differ"):
        statistics.discordant(first, second[:-1])
