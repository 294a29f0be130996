"""Runs that differ only by their seed (or fold) as one group, named by what a person changed."""

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
LONGEST = 24  # characters of a value in the name of a group


def group(results: Sequence[Result], over: Sequence[str]) -> dict[str, list[Result]]:
    """Results of one data set that differ in nothing but the inputs `over`, by group.

    A name is like `train.dropout=0.1,train.lr=0.01`, or `all` of a single group.
    """
    groups: dict[str, list[Result]] = {}
    for run, differing in zip(results, names(results, over), strict=True):
        groups.setdefault(differing, []).append(run)
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

    parts = [
        [f"{key}={text(key, value)}" for key, value in differences.items()]
        for differences in described
    ]
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
    for run in members:
        samples.setdefault(label(run, over), run)
    order = sorted(samples, key=lambda key: [(len(part), part) for part in key])
    chosen = [samples[key] for key in order]
    return chosen, [run for run in members if run not in chosen]


def without_repeats(datasets: Datasets, over: Sequence[str]) -> tuple[Datasets, list[str]]:
    """The groups with each seed once, and the names of the runs that repeat another."""
    chosen: dict[str, dict[str, list[Result]]] = {}
    repeated: list[str] = []
    for dataset, sets in datasets.items():
        for name, members in sets.items():
            once, again = one_each(members, over)
            chosen.setdefault(dataset, {})[name] = once
            repeated += [run.name for run in again]
    return chosen, repeated


def find_pair(words: Sequence[str], datasets: Datasets, over: Sequence[str]) -> Datasets:
    """The two groups that the words name, under these words.

    Raises:
        UserError: they are on different data sets, or share a run.
    """
    first, second = words
    dataset, a = find(first, datasets, over)
    other, b = find(second, datasets, over)
    if dataset != other:
        where = f"{first} is on {dataset}, {second} on {other}"
        raise UserError(f"{where} (command line): name two groups of one data set")
    for x, y in itertools.product(a, b):
        if x.inputs == y.inputs:
            both = x.name if x.name == y.name else f"{x.name} as {y.name}"
            shared = f"{first} and {second} share a run, {both}"
            raise UserError(f"{shared} (command line): name two different groups")
    return {dataset: {first: a, second: b}}


def find(word: str, datasets: Datasets, over: Sequence[str]) -> tuple[str, Sequence[Result]]:
    """The data set and the members of the run or the group that a word names, each seed once."""
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
    known = [name for _, name, members in everything for name in (name, *(m.name for m in members))]
    problem = f"{len(fitting)} groups have {word}"
    if not fitting:
        problem = f"no group or experiment {word}{params.did_you_mean(word, known)}"
    raise UserError(f"{problem} (command line): `python -m tools.compare` lists them")


def fits(part: str, name: str, members: Sequence[Result]) -> bool:
    """Whether `train.lr=0.1` is in the name of a group or true of all its members."""
    key, _, value = part.partition("=")
    return part in name.split(",") or all(run.inputs.get(key) == value for run in members)


def label(result: Result, over: Sequence[str]) -> tuple[str, ...]:
    """The values of `over`; an older commit may not know a parameter."""
    return tuple(result.inputs.get(key, "") for key in over)


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
