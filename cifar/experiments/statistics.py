"""What a few runs tell: their mean and its interval, and whether two differ by more than chance."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from cifar import UserError


class Summary(NamedTuple):
    """Of the runs of one group; what a single run cannot tell is NaN."""

    n: int
    mean: float
    deviation: float
    low: float
    high: float


class Difference(NamedTuple):
    """Mean of the second group minus that of the first, its 95 % interval, and the p-value of no difference."""

    mean: float
    low: float
    high: float
    p: float


def summarize(values: Sequence[float]) -> Summary:
    """Mean, standard deviation (n - 1) and the 95 % interval of the mean, by Student's t.

    Runs that all gave the same number have no interval: what they do not show may still be there.
    """
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Summary(n, mean, math.nan, math.nan, math.nan)
    if len(set(values)) == 1:
        return Summary(n, mean, 0.0, math.nan, math.nan)
    deviation = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return Summary(n, mean, deviation, mean - half, mean + half)


def welch(first: Sequence[float], second: Sequence[float]) -> Difference:
    """By Welch's t, for groups of unequal spread; NaN for a group of one, and where neither group has any spread."""
    a, b = summarize(first), summarize(second)
    difference = b.mean - a.mean
    if min(a.n, b.n) < 2 or a.deviation == b.deviation == 0:
        return Difference(difference, math.nan, math.nan, math.nan)
    squares = a.deviation**2 / a.n, b.deviation**2 / b.n
    error = math.sqrt(sum(squares))
    freedom = error**4 / (squares[0] ** 2 / (a.n - 1) + squares[1] ** 2 / (b.n - 1))
    half = float(stats.t.ppf(0.975, freedom)) * error
    p = 2 * float(stats.t.sf(abs(difference) / error, freedom))
    return Difference(difference, difference - half, difference + half, p)


def discordant(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """How many images only the first got right, and only the second; rows of (image, actual, predicted) as text.

    Raises:
        UserError: other images, or the same ones with other labels.
    """
    if not np.array_equal(first[:, :2], second[:, :2]):
        raise UserError(
            "their test images differ (plots/predictions.csv): compare runs of one data set and one test part"
        )
    right = [rows[:, 1] == rows[:, 2] for rows in (first, second)]
    return int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact p-value of McNemar's test: of two equally good runs, a coin decides which is right where one is."""
    pairs = only_first + only_second
    return float(stats.binomtest(only_first, pairs).pvalue) if pairs else 1.0
