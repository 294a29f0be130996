"""Runs that differ only by their seed (or fold) as one group, named by what a person changed."""

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cifar import UserError
from cifar.experiments import ranking
from cifar.experiments.table import Result

LONGEST = 24  # characters of a value in the name of a group


def group(results: Sequence[Result], over: Sequence[str]) -> dict[str, list[Result]]:
    """Results of one data set that differ in nothing but the facts `over`, by group.

    A name is like `train.dropout=0.1,train.lr=0.01`, or `all` of a single group.
    """
    groups: dict[str, list[Result]] = {}
    for found, differing in zip(results, names(results, over), strict=True):
        groups.setdefault(differing, []).append(found)
    return groups


def names(results: Sequence[Result], over: Sequence[str]) -> list[str]:
    """The name of each result's group; a value is shortened unless two would look alike."""
    described = [
        {key: value for key, value in differences.items() if key not in over}
        for differences in ranking.differences(results)
    ]
    pairs = {pair for differences in described for pair in differences.items()}
    shortened = [(key, shorten(value)) for key, value in pairs]

    def text(key: str, value: str) -> str:
        return shorten(value) if shortened.count((key, shorten(value))) == 1 else value

    parts = [[f"{key}={text(key, value)}" for key, value in one.items()] for one in described]
    return [",".join(part) or "all" for part in parts]


def shorten(value: str) -> str:
    """A path as the name of its file, a checksum as seven digits, any long text with its ends."""
    if "/" in value:
        value = Path(value).name or value
    if len(value) <= LONGEST:
        return value
    return f"{value[: LONGEST - 8]}…{value[-7:]}"


def one_each(members: Sequence[Result], over: Sequence[str]) -> tuple[list[Result], list[Result]]:
    """The first result of each seed (or of what else `over` names), in order, and the others.

    A run that was done twice is no second sample.
    """
    samples: dict[tuple[str, ...], Result] = {}
    for found in members:
        samples.setdefault(label(found, over), found)
    order = sorted(samples, key=lambda key: [(len(part), part) for part in key])
    chosen = [samples[key] for key in order]
    return chosen, [found for found in members if found not in chosen]


def label(result: Result, over: Sequence[str]) -> tuple[str, ...]:
    """The values of `over`; an older commit may not know a parameter."""
    return tuple(result.facts.get(key, "") for key in over)


def predictions(result: Result) -> pd.DataFrame:
    """Columns image, actual and predicted, as text; from DVC's cache, not from the workspace.

    Raises:
        UserError: the cache does not have them.
    """
    import dvc.api  # half a second to import
    from dvc.exceptions import DvcException

    try:
        revision = None if result.commit == "workspace" else result.commit
        text = dvc.api.read("plots/predictions.csv", rev=revision)
    except (DvcException, OSError):
        message = f"no predictions of {result.name} (DVC's cache)"
        raise UserError(f"{message}: `dvc exp pull` or `dvc pull` them") from None
    columns = ["image", "actual", "predicted"]
    return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)[columns]
