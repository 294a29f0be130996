"""Group runs that differ only by their seed (or fold), and name each group by its parameters."""

import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from cifar import UserError, params
from cifar.experiments import ranking
from cifar.experiments.table import Result, plain

Groups = Mapping[str, Sequence[Result]]
Datasets = Mapping[str, Groups]
LONGEST = 24  # characters; a longer value is shortened in the name of a group


def group(results: Sequence[Result], over: Sequence[str]) -> dict[str, list[Result]]:
    """Group the results of one data set: those of a group differ only in the inputs `over`.

    Maps the name of each group to its members. A name looks like
    `train.dropout=0.1,train.lr=0.01`; a single group is called `all`.
    """
    groups: dict[str, list[Result]] = {}
    for run, differing in zip(results, names(results, over), strict=True):
        groups.setdefault(differing, []).append(run)
    return groups


def names(results: Sequence[Result], over: Sequence[str]) -> list[str]:
    """The name of each result's group; long values are shortened unless two look alike."""
    described = [
        {key: value for key, value in differences.items() if key not in over}
        for differences in ranking.differences(results)
    ]
    pairs = {pair for differences in described for pair in differences.items()}
    shortened = [(key, shorten(value)) for key, value in pairs]

    def text(key: str, value: str) -> str:
        return shorten(value) if shortened.count((key, shorten(value))) == 1 else value

    parts = [
        [f"{key}={text(key, value)}" for key, value in differences.items()]
        for differences in described
    ]
    return [",".join(part) or "all" for part in parts]


def shorten(value: str) -> str:
    """Shorten a path to the name of its file, and any other long text to its two ends."""
    if "/" in value:
        value = Path(value).name or value
    if len(value) <= LONGEST:
        return value
    return f"{value[: LONGEST - 8]}…{value[-7:]}"


def one_each(members: Sequence[Result], over: Sequence[str]) -> tuple[list[Result], list[Result]]:
    """The first result for each seed (or other inputs in `over`), in order; and all others.

    A run that was repeated with the same seed is not a second sample.
    """
    samples: dict[tuple[str, ...], Result] = {}
    for run in members:
        samples.setdefault(label(run, over), run)
    order = sorted(samples, key=lambda key: [(len(part), part) for part in key])
    chosen = [samples[key] for key in order]
    return chosen, [run for run in members if run not in chosen]


def without_repeats(datasets: Datasets, over: Sequence[str]) -> tuple[Datasets, list[str]]:
    """The groups with one run for each seed, and the names of the runs that repeat another."""
    chosen: dict[str, dict[str, list[Result]]] = {}
    repeated: list[str] = []
    for dataset, sets in datasets.items():
        for name, members in sets.items():
            once, again = one_each(members, over)
            chosen.setdefault(dataset, {})[name] = once
            repeated += [run.name for run in again]
    return chosen, repeated


def find_pair(words: Sequence[str], datasets: Datasets, over: Sequence[str]) -> Datasets:
    """The two groups that the words refer to, with these words as their names.

    Raises:
        UserError: they belong to different data sets, or have a run in common.
    """
    first, second = words
    dataset, a = find(first, datasets, over)
    other, b = find(second, datasets, over)
    if dataset != other:
        where = f"{first} is on {dataset}, {second} on {other}"
        raise UserError(f"{where} (command line): choose two groups of one data set")
    for x, y in itertools.product(a, b):
        if x.inputs == y.inputs:
            both = x.name if x.name == y.name else f"{x.name} as {y.name}"
            shared = f"{first} and {second} share a run, {both}"
            raise UserError(f"{shared} (command line): choose two different groups")
    return {dataset: {first: a, second: b}}


def find(word: str, datasets: Datasets, over: Sequence[str]) -> tuple[str, Sequence[Result]]:
    """Find the run or group that a word refers to: its data set, and one run for each seed."""
    everything = [(dataset, *item) for dataset, sets in datasets.items() for item in sets.items()]
    for dataset, _, members in everything:
        if alone := [run for run in members if run.name == word]:
            return dataset, alone[:1]
    parts = [plain(part) for part in word.split(",")]
    fitting = [entry for entry in everything if entry[1] == word] or [
        entry for entry in everything if all(fits(part, *entry[1:]) for part in parts)
    ]
    if len(fitting) == 1:
        ((dataset, _, members),) = fitting
        return dataset, one_each(members, over)[0]
    candidates = [
        name for _, name, members in everything for name in (name, *(m.name for m in members))
    ]
    problem = f"{len(fitting)} groups match {word}"
    if not fitting:
        problem = f"no group or experiment matches {word}{params.did_you_mean(word, candidates)}"
    raise UserError(f"{problem} (command line): `python -m tools.compare` lists them")


def fits(part: str, name: str, members: Sequence[Result]) -> bool:
    """Whether a part such as `train.lr=0.1` is in the name of a group, or true of all members."""
    key, _, value = part.partition("=")
    return part in name.split(",") or all(run.inputs.get(key) == value for run in members)


def label(result: Result, over: Sequence[str]) -> tuple[str, ...]:
    """The values of the inputs `over`; empty for a parameter that an older commit did not have."""
    return tuple(result.inputs.get(key, "") for key in over)


def predictions(result: Result) -> pd.DataFrame:
    """The predictions for the test images: columns image, actual and predicted, as text.

    They come from DVC's cache, not from the workspace.

    Raises:
        UserError: they are not in the cache.
    """
    import dvc.api  # half a second to import
    from dvc.exceptions import DvcException

    try:
        revision = None if result.commit == "workspace" else result.commit
        text = dvc.api.read("plots/predictions.csv", rev=revision)
    except (DvcException, OSError):
        message = f"no predictions of {result.name} (DVC's cache)"
        raise UserError(f"{message}: run `dvc exp pull` or `dvc pull`") from None
    columns = ["image", "actual", "predicted"]
    return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)[columns]
