"""Generate the tables of RESULTS.md and docs/results.md from the files in results/.

The text is written by hand; everything between two markers is generated:

    <!-- table: vgg1 vgg2 -->    rows of these recipes, also with other values
    <!-- table: all -->          rows of every recipe, as published
    <!-- changed -->             rows of every recipe with values that nobody published
    <!-- beginnings -->          runs that were cut short, of recipes without a complete run
    <!-- machines -->            what the letters in the last column mean
    <!-- end -->
"""

import re
import statistics
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.results import Changes, Result
from cifar.experiments.statistics import summarize

PAGES = [Path("RESULTS.md"), Path("docs/results.md")]
BLOCK = re.compile(
    r"(<!-- (table|changed|beginnings|machines)(?:: ([\w -]+))? -->\n).*?(<!-- end -->)", re.DOTALL
)
Table = list[list[str]]


@dataclass(frozen=True)
class Row:
    """Runs that differ only by their seed, if any were measured, and the published result."""

    recipe: str
    changes: Changes
    published: dict[str, Any]
    runs: list[Result]

    @property
    def mean(self) -> float:
        """Test accuracy in per cent."""
        return 100 * statistics.mean(run.accuracy for run in self.runs)

    @property
    def difference(self) -> float:
        """Points above the published accuracy."""
        return self.mean - 100 * float(self.published["accuracy"])


def read_runs() -> list[Result]:
    """The results of published recipes, in the order of the recipes."""
    order = list(results.read_published())
    known = [run for run in results.read_all() if run.recipe in order]
    return sorted(known, key=lambda run: order.index(run.recipe))


def fill(text: str, runs: list[Result], published: dict[str, Any]) -> str:
    """The page with everything between its markers regenerated."""
    rows, letters = group(runs, published), name_machines(runs)
    tables: dict[str, Callable[[str], str]] = {
        "table": lambda names: compare(select(rows, names), letters),
        "changed": lambda _: compare([row for row in rows if not row.published], letters),
        "beginnings": lambda _: beginnings(runs, letters),
        "machines": lambda _: machines(letters),
    }
    return BLOCK.sub(lambda m: f"{m[1]}{tables[m[2]](m[3] or '')}\n{m[4]}", text)


def group(runs: list[Result], published: dict[str, Any]) -> list[Row]:
    """A row for each experiment, code, torch and device, in the order of the published recipes."""
    complete = [run for run in runs if not run.is_beginning]
    rows = []
    for recipe, entry in published.items():
        name = entry["dataset"]  # runs on other data are not compared
        matches = [run for run in complete if (run.recipe, run.dataset.name) == (recipe, name)]
        known = [run.changes for run in matches]
        expected = [{}, *(variant["changes"] for variant in entry.get("also", []))]
        for changes in unique([*expected, *known]):
            here = [run for run in matches if run.changes == changes]
            stated = results.published_for(published, recipe, changes)
            for origin in unique([run.origin for run in here]) or [None]:
                alike = [run for run in here if run.origin == origin]
                rows.append(Row(recipe, changes, stated, alike))
    return rows


def unique(values: list[Any]) -> list[Any]:
    return [value for index, value in enumerate(values) if value not in values[:index]]


def select(rows: list[Row], names: str) -> list[Row]:
    """The rows of the recipes that a marker names; for `all`, those with a published result."""
    if names == "all":
        return [row for row in rows if row.published]
    return [row for row in rows if row.recipe in names.split()]


def compare(rows: list[Row], letters: dict[str, str]) -> str:
    """The Markdown table of published and measured accuracy, in per cent of the test images."""
    header = ["recipe", "published", "here", "95 % interval", "seeds", "difference"]
    table = [[*header, "test loss", "epochs", "minutes", "run on"]]
    for row in rows:
        name = f"`{row.recipe}`" + "".join(f" `{k}={v}`" for k, v in row.changes.items())
        stated = f"{100 * row.published['accuracy']:.4g}" if row.published else ""
        cells = measured(row, letters) if row.runs else ["not measured yet", *[""] * 7]
        table.append([name, stated, *cells])
    return markdown(table) + commands(rows)


def commands(rows: list[Row]) -> str:
    """The commands that measure the missing rows, one for each set of changes."""
    lines = []
    for changes in unique([row.changes for row in rows if not row.runs]):
        names = [row.recipe for row in rows if not row.runs and row.changes == changes]
        sets = [f"-S {key}={value}" for key, value in changes.items()]
        command = " ".join(["python -m benchmarks recipes", *names, *sets])
        parts = textwrap.wrap(command, 96, break_on_hyphens=False, subsequent_indent="  ")
        lines.append("    " + " \\\n    ".join(parts))
    return "\n".join(["\n\nTo measure the missing rows:\n", *lines]) if lines else ""


def measured(row: Row, letters: dict[str, str]) -> list[str]:
    """The cells of a row with runs. The interval is over images for one run, else over seeds."""
    first = row.runs[0]
    low, high = 100 * first.accuracy_low, 100 * first.accuracy_high
    if len(row.runs) > 1:
        low, high = summarize([100 * run.accuracy for run in row.runs])[3:]
    seconds = [run.seconds for run in row.runs if run.seconds]
    losses = [run.loss for run in row.runs if run.loss is not None]
    published_loss = f" ({row.published['loss']:g})" if "loss" in row.published else ""
    return [
        f"{row.mean:.2f}",
        f"{low:.2f} to {high:.2f}",
        str(len(row.runs)),
        f"{row.difference:+.2f}" if row.published else "",
        f"{statistics.mean(losses):.3f}{published_loss}" if losses else "",
        str(first.epochs),
        f"{statistics.median(seconds) / 60:.0f}" if seconds else "",
        " ".join(unique([letters[machine_of(run)] for run in row.runs])),
    ]


def beginnings(runs: list[Result], letters: dict[str, str]) -> str:
    """The Markdown table of runs cut short, of recipes that have no complete run yet."""
    complete = {run.recipe for run in runs if not run.is_beginning and not run.changes}
    table = [["recipe", "epochs run", "here", "95 % interval", "test loss", "run on"]]
    for run in runs:
        if run.is_beginning and run.recipe not in complete:
            interval = f"{100 * run.accuracy_low:.2f} to {100 * run.accuracy_high:.2f}"
            cells = [f"`{run.recipe}`", f"{run.epochs} of {run.epochs_published or 'not stated'}"]
            cells += [f"{100 * run.accuracy:.2f}", interval, f"{run.loss:.3f}"]
            table.append([*cells, letters[machine_of(run)]])
    return markdown(table)


def name_machines(runs: list[Result]) -> dict[str, str]:
    """A letter for each machine, with its code, versions and circumstances."""
    return dict(zip(unique([machine_of(run) for run in runs]), alphabet(), strict=False))


def alphabet() -> Iterator[str]:
    yield from "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def machine_of(run: Result) -> str:
    """A description of where and how a run was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(run.versions.items()))
    threads = f"threads: {run.threads or 'not recorded'}"
    commit = f"commit {run.commit[:7]}" if run.commit else "commit not recorded"
    return "; ".join([f"{run.machine} ({run.device})", threads, versions, commit, run.note])


def machines(letters: dict[str, str]) -> str:
    return markdown([["run on", "machine"], *([letter, text] for text, letter in letters.items())])


def markdown(table: Table) -> str:
    """Format a table whose first row is the header; 'None.' if it has no other row."""
    if len(table) < 2:
        return "None."
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]])
