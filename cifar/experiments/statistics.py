"""The mean and interval of a few runs, and whether two groups differ by more than chance."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from cifar import UserError


class Summary(NamedTuple):
    """Mean, standard deviation and 95 % interval of the runs of a group; NaN if undefined."""

    n: int
    mean: float
    std: float
    low: float
    high: float


class Difference(NamedTuple):
    """The mean of the second group minus that of the first, its 95 % interval and p-value."""

    mean: float
    low: float
    high: float
    p: float


def summarize(values: Sequence[float]) -> Summary:
    """Mean, standard deviation (n - 1) and the 95 % interval of the mean, by Student's t.

    If all runs gave the same number there is no interval: zero observed spread is not zero
    variance.
    """
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Summary(n, mean, math.nan, math.nan, math.nan)
    if len(set(values)) == 1:
        return Summary(n, mean, 0.0, math.nan, math.nan)
    std = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * std / math.sqrt(n)
    return Summary(n, mean, std, mean - half, mean + half)


def welch(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare two groups by Welch's t-test, which allows for unequal variances.

    Interval and p-value are NaN if a group has one run, or neither has any spread.
    """
    a = summarize(first)
    b = summarize(second)
    difference = b.mean - a.mean
    if min(a.n, b.n) < 2 or a.std == b.std == 0:
        return Difference(difference, math.nan, math.nan, math.nan)
    squares = (a.std**2 / a.n, b.std**2 / b.n)
    error = math.sqrt(sum(squares))
    freedom = error**4 / (squares[0] ** 2 / (a.n - 1) + squares[1] ** 2 / (b.n - 1))
    half = float(stats.t.ppf(0.975, freedom)) * error
    p = 2 * float(stats.t.sf(abs(difference) / error, freedom))
    return Difference(difference, difference - half, difference + half, p)


def discordant(first: pd.DataFrame, second: pd.DataFrame) -> tuple[int, int]:
    """Count the images that only the first run got right, and those that only the second did.

    Both have the columns image, actual and predicted.

    Raises:
        UserError: their images or labels differ.
    """
    images = ["image", "actual"]
    if not first[images].equals(second[images]):
        problem = "their test images differ (plots/predictions.csv)"
        raise UserError(f"{problem}: compare runs of one data set and one test part")
    a, b = (frame["actual"] == frame["predicted"] for frame in (first, second))
    return int((a & ~b).sum()), int((b & ~a).sum())


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact p-value of McNemar's test.

    If two runs are equally good, each is as likely as the other to be the only one that is right.
    """
    pairs = only_first + only_second
    return float(stats.binomtest(only_first, pairs).pvalue) if pairs else 1.0
